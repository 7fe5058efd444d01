//! What is said of a text.
// Elsewhere than on Windows for its tests alone.
#![cfg_attr(not(windows), allow(dead_code))]

use bcnorm::Activation;
use bcnorm::kernels::{Element, Spec};

/// What FXC says of the code that it made.
#[derive(Debug, PartialEq, Eq)]
pub struct Figures {
    /// Instruction slots, as FXC counts them.
    pub instructions: u32,
    /// Registers of four numbers.
    pub temp_registers: u32,
}

/// The text's name: the arguments with which `print_wgsl` prints it.
pub fn label(spec: &Spec) -> String {
    let kernel = spec.kernel.kernel();
    let mut words = vec![kernel.name.to_owned()];
    if kernel.bindings.iter().any(|b| b.element == Element::Word) {
        words.push(spec.dtype.name().to_owned());
        words.push(format!("width={}", spec.width));
        words.push(format!("words={}", spec.column_words));
    }
    words.push(format!("lanes={}", spec.lanes));
    for (said, word) in [
        (!spec.aligned, "unaligned"),
        (spec.accumulate, "accumulate"),
        (spec.activation == Activation::Relu, "relu"),
        (spec.activation == Activation::Silu, "silu"),
    ] {
        words.extend(said.then(|| word.to_owned()));
    }
    let absent = kernel.bindings.iter().map(|b| b.name);
    let absent: Vec<_> = absent.filter(|name| !spec.has(name)).collect();
    if !absent.is_empty() {
        words.push(format!("without={}", absent.join(",")));
    }
    words.join(" ")
}

/// The line of a text: what came of it, or what FXC or naga said against it.
pub fn line(label: &str, outcome: &Result<Figures, String>) -> String {
    match outcome {
        Ok(figures) => serde_json::json!({
            "spec": label,
            "instructions": figures.instructions,
            "temp_registers": figures.temp_registers,
        }),
        Err(error) => serde_json::json!({ "spec": label, "error": error }),
    }
    .to_string()
}

/// The figures of an assembly; none where FXC did not write them. No temporaries are no line.
pub fn figures(assembly: &str) -> Option<Figures> {
    let number = |before: &str| {
        let mut lines = assembly.lines();
        let rest = lines.find_map(|line| line.trim_start().strip_prefix(before))?;
        rest.split_whitespace().next()?.parse().ok()
    };
    Some(Figures {
        instructions: number("// Approximately ")?,
        temp_registers: number("dcl_temps ").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bcnorm::DType;
    use bcnorm::kernels::canonical_specs;
    use std::collections::HashSet;

    #[test]
    fn every_text_has_a_name_of_its_own() {
        let specs = canonical_specs();
        let names: HashSet<String> = specs.iter().map(label).collect();
        assert_eq!(names.len(), specs.len());
        let half = specs.iter().find(|spec| {
            spec.kernel.name() == "row_affine"
                && (spec.dtype, spec.width, spec.aligned) == (DType::F16, 2, false)
                && (spec.lanes, spec.activation) == (8, Activation::Silu)
        });
        let name = label(half.unwrap());
        let start = "row_affine f16 width=2 words=1 lanes=8 unaligned silu";
        assert!(name.starts_with(start), "{name}");
    }

    #[test]
    fn figures_are_read_from_the_assembly() {
        let assembly = "cs_5_1\ndcl_temps 12\nmov r0.x, l(0)\nret\n// Approximately 345 instruction slots used\n";
        let expected = Figures {
            instructions: 345,
            temp_registers: 12,
        };
        assert_eq!(figures(assembly), Some(expected));
        let none = figures("ret \n// Approximately 1 instruction slot used\n");
        assert_eq!(none.map(|none| none.temp_registers), Some(0));
        assert_eq!(figures("cs_5_1\nret\n"), None);
    }

    #[test]
    fn lines_are_json() {
        let good = Ok(Figures {
            instructions: 3,
            temp_registers: 1,
        });
        assert_eq!(
            line("a", &good),
            r#"{"instructions":3,"spec":"a","temp_registers":1}"#
        );
        let bad = line("a \"b\"", &Err("no\nway".to_owned()));
        assert_eq!(bad, r#"{"error":"no\nway","spec":"a \"b\""}"#);
    }
}
