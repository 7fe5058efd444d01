//! From a [`Spec`] to the final WGSL of its kernel.
//!
//! Every file under `shaders/` is WGSL, with two directives in comments:
//!
//! - `// #import layout/item`, outside of conditions, puts `shaders/parts/layout/item.wgsl` before the file, once. An import names the simplest
//!   variant of a part; [`variant`] says which file stands in for it in a specialization. `spec` is the file of constants,
//!   which is written for each specialization ([`constants`]).
//! - `// #if weight`, `// #else`, `// #end` keep the lines between them where the kernel's optional binding `weight` is
//!   there, or is not. They may be nested.
//!
//! A file with what it imports, its directives being comments, is valid by itself: the simplest specialization with all
//! bindings. (`tests/suite/reflection/files.rs` asks naga.)

use super::spec::Spec;
use super::text;
use crate::desc::{Activation, DType};
use std::borrow::Cow;
use std::fmt::Write as _;

/// The final text of a kernel, as a browser takes it: with the extension that browsers demand by name, which naga
/// rejects.
pub fn browser_wgsl(spec: &Spec) -> String {
    let mut text = wgsl(spec);
    if spec.subgroup_size > 1 {
        text.insert_str(0, "enable subgroups;\n");
    }
    text
}

/// The final text of a kernel, as it is handed to wgpu.
///
/// # Panics
/// Where the kernel does not accept the specialization ([`Spec::check`]): no plan has such. And where a directive is wrong,
/// with its file and line: a test assembles every kernel.
pub fn wgsl(spec: &Spec) -> String {
    // In WebAssembly code is download; natively tests make the same plans.
    if !cfg!(target_family = "wasm")
        && let Err(field) = spec.check()
    {
        panic!("{} accepts no such {field}", spec.kernel.name());
    }
    let kernel = spec.kernel.kernel();
    let mut assembly = Assembly {
        part: &|name| part(variant(name, spec), spec),
        is_bound: &|name| {
            let index = kernel.bindings.iter().position(|b| b.name == name)?;
            let optional = kernel.bindings[index].optional;
            optional.then_some(spec.absent >> index & 1 == 0)
        },
        imported: Vec::new(),
        text: format!(
            "// {}: constants of this specialization, parts, kernel (bcnorm).\n",
            kernel.name
        ),
    };
    if let Err(error) = assembly.add(kernel.name, kernel.text) {
        panic!("shaders/{error}");
    }
    assembly.text
}

/// The text of the probe that asks a device how it converts f16 (`shaders/probes/f16.wgsl`). With 256 workgroups it counts
/// to 65,536 twice where the device does as the library.
pub fn f16_probe_wgsl() -> String {
    let mut assembly = Assembly {
        part: &|name| {
            let found = PARTS.iter().find(|(part, _)| *part == name);
            found.map(|&(name, text)| (name, text.into()))
        },
        is_bound: &|_| None,
        imported: Vec::new(),
        text: String::new(),
    };
    let file = text::shader!("../../shaders/probes/f16.wgsl");
    if let Err(error) = assembly.add("probe_f16", file) {
        panic!("shaders/{error}");
    }
    assembly.text
}

/// The file of an import in a specialization. Those that stand in for one another have the same functions.
fn variant<'a>(part: &'a str, spec: &Spec) -> &'a str {
    match part {
        "storage/f32" => match (spec.dtype, spec.width) {
            (DType::F32, _) => "storage/f32",
            (_, 4) => "storage/16_x4",
            (_, 2) => "storage/16_x2",
            (_, _) => "storage/16_x1",
        },
        "storage/word_x4" => match spec.width {
            4 => "storage/word_x4",
            2 => "storage/word_x2",
            _ => "storage/word_x1",
        },
        "storage/unpack_f16" => match (spec.dtype, spec.native_unpack) {
            (DType::BF16, _) => "storage/unpack_bf16",
            (_, true) => "storage/unpack_f16_native",
            (_, false) => "storage/unpack_f16",
        },
        "storage/pack_f16" => match (spec.dtype, spec.native_pack) {
            (DType::BF16, _) => "storage/pack_bf16",
            (_, true) => "storage/pack_f16_native",
            (_, false) => "storage/pack_f16",
        },
        "reduction/serial" => match (spec.lanes, spec.subgroup_size) {
            (1, _) => "reduction/serial",
            (lanes, subgroup) if lanes == subgroup => "reduction/subgroup",
            (_, _) => "reduction/shared",
        },
        "reduction/no_shuffles" => match spec.subgroup_size {
            1 => "reduction/no_shuffles",
            _ => "reduction/shuffles",
        },
        "reduction/columns_serial" => match spec.lanes {
            1 => "reduction/columns_serial",
            _ => "reduction/columns_shared",
        },
        // Parts import the least uniform that they read; a kernel has one.
        _ if part.starts_with("params/") && part != "params/blocks" => {
            let file = spec.kernel.kernel().params.file;
            let own = PARTS
                .iter()
                .find(|(name, _)| name.strip_prefix("params/") == Some(file));
            own.map_or(part, |(name, _)| name)
        }
        _ => part,
    }
}

/// A part and its text.
type Part = (&'static str, Cow<'static, str>);

/// The part of a name.
fn part(name: &str, spec: &Spec) -> Option<Part> {
    let &(name, text) = PARTS.iter().find(|(part, _)| *part == name)?;
    Some(match name {
        "spec" => (name, constants(spec).into()),
        _ => (name, text.into()),
    })
}

/// What stands in for `parts/spec.wgsl`: the same names, other values.
fn constants(spec: &Spec) -> String {
    let activation = match spec.activation {
        Activation::None => 0,
        Activation::Relu => 1,
        Activation::Silu => 2,
    };
    let mut text = String::new();
    for (name, value) in [
        ("WORKGROUP_SIZE", spec.workgroup_size),
        ("LANES", spec.lanes),
        ("SUBGROUP_SIZE", spec.subgroup_size),
        ("WIDTH", spec.width),
        ("COLUMN_WORDS", spec.column_words),
        ("ACTIVATION", activation),
    ] {
        let _ = writeln!(text, "const {name}: u32 = {value}u;");
    }
    for (name, value) in [
        ("ALIGNED", spec.aligned),
        ("RESIDENT", spec.resident),
        ("ACCUMULATE", spec.accumulate),
    ] {
        let _ = writeln!(text, "const {name}: bool = {value};");
    }
    text
}

/// A text that grows by files.
struct Assembly<'a> {
    /// The name and the text of what an import stands for, if there is such a part.
    part: &'a dyn Fn(&str) -> Option<Part>,
    /// Whether an optional binding is there; `None` where the kernel has no such.
    is_bound: &'a dyn Fn(&str) -> Option<bool>,
    imported: Vec<&'static str>,
    text: String,
}

impl Assembly<'_> {
    /// Adds a file, and what it imports before it.
    fn add(&mut self, name: &str, file: &str) -> Result<(), String> {
        let mut own = String::new();
        // The conditions around a line, and whether each holds.
        let mut conditions: Vec<bool> = Vec::new();
        for (number, line) in (1..).zip(file.lines()) {
            let wrong = |what: &str| Err(format!("{name}.wgsl:{number}: {what}"));
            let Some(directive) = line.trim_start().strip_prefix("// #") else {
                if conditions.iter().all(|holds| *holds) {
                    own.push_str(line);
                    own.push('\n');
                }
                continue;
            };
            match directive.split_once(' ').unwrap_or((directive, "")) {
                ("import", _) if !conditions.is_empty() => {
                    return wrong("#import within #if");
                }
                ("import", part) => {
                    let Some((found, text)) = (self.part)(part) else {
                        return wrong(&format!("there is no part \"{part}\""));
                    };
                    if !self.imported.contains(&found) {
                        self.imported.push(found);
                        self.add(&format!("parts/{found}"), &text)?;
                    }
                }
                ("if", binding) => match (self.is_bound)(binding) {
                    Some(bound) => conditions.push(bound),
                    None => {
                        return wrong(&format!("the kernel has no optional binding \"{binding}\""));
                    }
                },
                ("else", "") => match conditions.last_mut() {
                    Some(holds) => *holds = !*holds,
                    None => return wrong("#else without #if"),
                },
                ("end", "") => {
                    if conditions.pop().is_none() {
                        return wrong("#end without #if");
                    }
                }
                _ => return wrong(&format!("unknown directive \"#{directive}\"")),
            }
        }
        if !conditions.is_empty() {
            return Err(format!("{name}.wgsl: #if without #end"));
        }
        self.text.push_str(&own);
        Ok(())
    }
}

macro_rules! parts {
    ($($name:literal)*) => {
        /// Every part, by its path from `shaders/parts`.
        const PARTS: &[(&str, &str)] = &[
            $(($name, text::shader!(concat!("../../shaders/parts/", $name, ".wgsl")))),*
        ];
    };
}

parts! {
    "arithmetic/activation"
    "arithmetic/column_moments"
    "arithmetic/moments"
    "arithmetic/precise"
    "arithmetic/rounded"
    "arithmetic/rounded_word"
    "arithmetic/row_mean"
    "arithmetic/shares"
    "arithmetic/sums"
    "arithmetic/with_element"
    "arithmetic/word_sums"
    "layout/channel_rows"
    "layout/channel_table"
    "layout/column"
    "layout/column_pairs"
    "layout/element_columns"
    "layout/elements"
    "layout/group_rows"
    "layout/group_words"
    "layout/item"
    "layout/row_words"
    "layout/span"
    "params/blocks"
    "params/channels"
    "params/columns"
    "params/dispatch"
    "params/element_columns"
    "params/elements"
    "params/groups"
    "params/parts"
    "params/rows"
    "params/table"
    "params/terms"
    "reduction/columns_serial"
    "reduction/columns_shared"
    "reduction/no_shuffles"
    "reduction/serial"
    "reduction/shared"
    "reduction/shuffles"
    "reduction/subgroup"
    "spec"
    "storage/16_x1"
    "storage/16_x2"
    "storage/16_x4"
    "storage/f32"
    "storage/pack_bf16"
    "storage/pack_f16"
    "storage/pack_f16_native"
    "storage/unpack_bf16"
    "storage/unpack_f16"
    "storage/unpack_f16_native"
    "storage/word_x1"
    "storage/word_x2"
    "storage/word_x4"
    "tables"
}

#[cfg(test)]
mod tests {
    use super::Assembly;

    fn assembled(file: &str) -> Result<String, String> {
        let part = |name: &str| match name {
            "a" => Some(("a", "// #import b\nconst A = B;\n".into())),
            "b" => Some(("b", "const B = 1;\n".into())),
            "wrong" => Some(("wrong", "const W = 1;\n  // #end\n".into())),
            _ => None,
        };
        let is_bound = |name: &str| match name {
            "weight" => Some(true),
            "bias" => Some(false),
            _ => None,
        };
        let mut assembly = Assembly {
            part: &part,
            is_bound: &is_bound,
            imported: Vec::new(),
            text: String::new(),
        };
        assembly.add("kernel", file)?;
        Ok(assembly.text)
    }

    #[test]
    fn imports_come_first_and_once() {
        let text = assembled("// Says what it is.\n// #import b\n// #import a\nfn f() {}\n");
        assert_eq!(
            text.unwrap(),
            "const B = 1;\nconst A = B;\n// Says what it is.\nfn f() {}\n"
        );
    }

    #[test]
    fn lines_depend_on_bindings() {
        let text = assembled(
            "1\n// #if weight\n2\n    // #if bias\n3\n    // #else\n4\n    // #end\n// #else\n5\n// #if weight\n6\n\
             // #end\n// #end\n7\n",
        );
        assert_eq!(text.unwrap(), "1\n2\n4\n7\n");
    }

    #[test]
    fn errors_name_file_and_line() {
        for (file, error) in [
            ("a\n// #import c\n", "kernel.wgsl:2: there is no part \"c\""),
            ("// #import wrong", "parts/wrong.wgsl:2: #end without #if"),
            ("// #else\n", "kernel.wgsl:1: #else without #if"),
            (
                "// #if weight\n// #import a\n// #end\n",
                "kernel.wgsl:2: #import within #if",
            ),
            (
                "// #if size\n",
                "kernel.wgsl:1: the kernel has no optional binding \"size\"",
            ),
            ("// #if weight\n", "kernel.wgsl: #if without #end"),
            (
                "\n\n  // #repeat 4\n",
                "kernel.wgsl:3: unknown directive \"#repeat 4\"",
            ),
        ] {
            assert_eq!(assembled(file).unwrap_err(), error);
        }
    }
}
