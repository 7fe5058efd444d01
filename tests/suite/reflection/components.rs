//! Components of vectors that are chosen when the shader runs.

use super::specs::{reflect, specs};
use naga::valid::{Capabilities, FunctionInfo, ModuleInfo, ValidationFlags, Validator};
use naga::{Expression, Function, Module, TypeInner};

/// Whether components lie in it: a vector or a matrix, or a pointer to one.
fn has_components(module: &Module, inner: &TypeInner) -> bool {
    match inner {
        TypeInner::Vector { .. } | TypeInner::Matrix { .. } => true,
        TypeInner::ValuePointer { size, .. } => size.is_some(),
        TypeInner::Pointer { base, .. } => has_components(module, &module.types[*base].inner),
        _ => false,
    }
}

/// Microsoft's FXC makes a dot product with a one-hot vector of `vector[i]`: a NaN in any component is one in the
/// product. So no kernel has an index into a vector that is no constant. One line for each that there is.
fn dynamic_components(module: &Module, info: &ModuleInfo) -> Vec<String> {
    let in_function = |function: &Function, info: &FunctionInfo| -> Vec<String> {
        let name = function.name.as_deref().unwrap_or_default();
        let dynamic = function.expressions.iter().filter(|(_, expression)| {
            // (A constant index is an `AccessIndex`.)
            let Expression::Access { base, .. } = expression else {
                return false;
            };
            has_components(module, info[*base].ty.inner_with(&module.types))
        });
        dynamic
            .map(|(_, expression)| format!("{name}: {expression:?}"))
            .collect()
    };
    let functions = module.functions.iter();
    let mut found: Vec<String> = functions
        .flat_map(|(handle, function)| in_function(function, &info[handle]))
        .collect();
    for (index, entry) in module.entry_points.iter().enumerate() {
        found.extend(in_function(&entry.function, info.get_entry_point(index)));
    }
    found
}

#[test]
fn no_component_is_chosen_by_an_index() {
    for spec in specs() {
        let (module, info) = reflect(&spec);
        let found = dynamic_components(&module, &info);
        assert!(found.is_empty(), "{spec:?}: {found:#?}");
    }
}

#[test]
fn components_chosen_by_an_index_are_found() {
    let report = |statement: &str| {
        let text = format!(
            "@group(0) @binding(1) var<storage, read_write> words: array<vec4<f32>>;
             struct Word {{ values: vec2<f32> }}
             fn chosen(word: vec4<f32>, i: u32) -> f32 {{ return word.x; }}
             @compute @workgroup_size(64)
             fn main(@builtin(local_invocation_index) i: u32) {{ {statement} }}"
        );
        let module = naga::front::wgsl::parse_str(&text).unwrap();
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
        let info = validator.validate(&module).unwrap();
        dynamic_components(&module, &info)
    };
    for bad in [
        "words[0].x = words[1][i % 4u];",
        "words[0][i % 4u] = 1.0;",
        "let word = words[i]; words[0].x = word[i % 4u];",
        "var word = words[i]; words[0].x = word[i % 4u];",
        "var word = Word(words[i].xy); word.values[i % 2u] = 0.0;",
        "let m = mat2x2<f32>(words[0].xy, words[1].xy); words[0].x = m[i % 2u].x;",
    ] {
        assert!(!report(bad).is_empty(), "not found: {bad}");
    }
    for good in [
        "words[0].x = words[i][3];",
        "words[0] = words[i];",
        "let word = words[i]; words[0].x = select(word.x, word.y, i == 1u);",
        "words[0].x = chosen(words[i], i);",
    ] {
        assert!(report(good).is_empty(), "{good}: {:?}", report(good));
    }
}
