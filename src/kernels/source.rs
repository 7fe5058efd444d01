//! The one specialization mechanism: final WGSL = a header of constants + the parts that the
//! kernel's family needs + the kernel's own text, in which bindings that are not there become private
//! variables.

use super::{Access, BindingDecl, Element, Family, Spec};
use crate::desc::{Activation, DType};
use std::fmt::Write as _;

macro_rules! part {
    ($name:literal) => {
        super::text::shader!(concat!("../../shaders/parts/", $name, ".wgsl"))
    };
}

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
pub fn wgsl(spec: &Spec) -> String {
    let kernel = spec.kernel.kernel();
    let mut text = format!(
        "// {}: constants of this specialization, parts, kernel (bcnorm).\n",
        kernel.name
    );
    let activation = match spec.activation {
        Activation::None => 0,
        Activation::Relu => 1,
        Activation::Silu => 2,
    };
    for (name, value) in [
        ("WORKGROUP_SIZE", spec.workgroup_size),
        ("LANES", spec.lanes),
        ("SUBGROUP_SIZE", spec.subgroup_size),
        ("WIDTH", spec.width),
        ("COLUMN_WORDS", spec.column_words),
        ("HELD", spec.held),
        ("SAMPLES", spec.samples),
        ("GRAIN", spec.grain),
        ("GRAINS", spec.width / spec.grain.max(1)),
        ("ACTIVATION", activation),
    ] {
        let _ = writeln!(text, "const {name}: u32 = {value}u;");
    }
    for (name, value) in [
        ("ALIGNED", spec.aligned),
        ("SINGLE", spec.single),
        ("ACCUMULATE", spec.accumulate),
        ("FENCE", spec.fence),
    ] {
        let _ = writeln!(text, "const {name}: bool = {value};");
    }
    for (index, binding) in kernel.bindings.iter().enumerate() {
        if binding.optional {
            let name = binding.name.to_ascii_uppercase();
            let _ = writeln!(
                text,
                "const HAS_{name}: bool = {};",
                !is_absent(spec, index)
            );
        }
    }
    for part in parts(kernel.family, spec) {
        text.push('\n');
        text.push_str(part);
    }
    for binding in kernel.bindings {
        if binding.element == Element::Word {
            text.push_str(&accessors(spec, binding));
        }
    }
    text.push('\n');
    let each = match (kernel.family, spec.held) {
        // From memory, several words at a time: of one sample, or one of each.
        (Family::ElementReduce, 0) if spec.samples > 1 => spec.samples,
        (Family::ElementReduce, 0) => 4,
        (Family::ElementReduce, held) => held,
        (Family::Fold, held) => held.max(1),
        _ => spec.column_words,
    };
    // The bindings come first in a kernel's text, one a line, in order.
    let mut index = 0;
    for line in kernel.text.lines() {
        let repeats = match (line.contains(EACH), line.contains(SAMPLE)) {
            (true, _) => Some(each),
            (false, true) => Some(spec.samples),
            (false, false) => None,
        };
        if let Some(repeats) = repeats {
            for number in 0..repeats {
                let sample = number.min(spec.samples.saturating_sub(1));
                let line = line.replace(EACH, &number.to_string());
                text.push_str(&line.replace(SAMPLE, &sample.to_string()));
                text.push('\n');
            }
            continue;
        }
        let declaration = line.starts_with("@group(0) @binding(");
        if declaration && is_absent(spec, index) {
            text.push_str(&without_binding(line));
        } else {
            text.push_str(line);
        }
        text.push('\n');
        index += usize::from(declaration);
    }
    text
}

/// In a line of a kernel: the line is there once for each word that an invocation takes, or entry that it holds,
/// with its number. (Arrays and loops would do, if all drivers kept them in registers.)
const EACH: char = '#';

/// The same for each sample; in a line of words the sample of the word.
const SAMPLE: char = '$';

fn is_absent(spec: &Spec, index: usize) -> bool {
    spec.absent >> index & 1 == 1
}

/// `@group(0) @binding(3) var<storage, read> weight: array<f32>;` as a private variable: code that is
/// never reached may still name it.
fn without_binding(line: &str) -> String {
    let declared = line.split_once("> ").map_or(line, |(_, declared)| declared);
    format!("var<private> {}", declared.replace(">;", ", 1>;"))
}

/// `load_<tensor>`, and where it is written `store_<tensor>`: how a word of a tensor lies in its binding.
fn accessors(spec: &Spec, binding: &BindingDecl) -> String {
    let text = match (spec.dtype, gathers(spec)) {
        (_, false) => part!("access_whole"),
        (DType::F32, true) => part!("access_f32_gather"),
        (DType::F16 | DType::BF16, true) => part!("access_16_gather"),
    };
    let (read, written) = text.split_once(WRITTEN).unwrap_or((text, ""));
    let mut text = format!("\n{read}");
    if binding.access == Access::ReadWrite {
        text.push_str(written);
    }
    text.replace("TENSOR", binding.name)
}

/// What parts the accessors of a tensor that is only read from the others.
const WRITTEN: &str = "// Where it is written:\n";

/// Whether words of 4 are put together from smaller entries.
fn gathers(spec: &Spec) -> bool {
    spec.width == 4 && spec.entry() < 4
}

/// Parts of one family export the same names: `Stored`, `Word` and their functions (storage),
/// `reduce_moments`, `reduce_products` and `reduce_pair` (reduction).
fn parts(family: Family, spec: &Spec) -> Vec<&'static str> {
    let (word, storage): (&str, &[&str]) = match (spec.dtype, spec.width, gathers(spec)) {
        (DType::F32, 4, true) => (part!("word_x4"), &[part!("storage_f32_gather")]),
        (DType::F32, 4, false) => (part!("word_x4"), &[part!("storage_f32_x4")]),
        (DType::F32, _, _) => (part!("word_x1"), &[part!("storage_f32_x1")]),
        (_, 4, true) => (
            part!("word_x4"),
            &[part!("pairs"), part!("storage_16_gather")],
        ),
        (_, 4, false) => (part!("word_x4"), &[part!("pairs"), part!("storage_16_x4")]),
        (_, 2, _) => (part!("word_x2"), &[part!("storage_16_x2")]),
        (_, _, _) => (part!("word_x1"), &[part!("storage_16_x1")]),
    };
    let bits: &[&str] = match spec.dtype {
        DType::F32 => &[],
        DType::F16 => &[part!("bits_f16")],
        DType::BF16 => &[part!("bits_bf16")],
    };
    let reduce: &[&str] = match (spec.lanes, spec.subgroup_size) {
        (1, _) => &[part!("reduce_serial")],
        (_, 1) => &[part!("near_alone"), part!("reduce_shared")],
        (lanes, near) if lanes == near => &[part!("near"), part!("reduce_subgroup")],
        (_, _) => &[part!("near"), part!("reduce_shared")],
    };
    let reduce_columns = if spec.lanes == 1 {
        part!("reduce_columns_serial")
    } else {
        part!("reduce_columns_shared")
    };
    let mut parts = vec![part!("params"), part!("tables"), part!("item")];
    if family.is_tensor_sized() {
        parts.push(word);
        parts.extend(bits);
        parts.extend(storage);
        parts.push(part!("activation"));
    }
    parts.extend(match family {
        Family::RowReduce => [&[part!("moments"), part!("span")], reduce].concat(),
        Family::RowMap => vec![part!("row_words")],
        Family::ColumnReduce => vec![part!("column_moments"), part!("column"), reduce_columns],
        Family::ColumnMap => vec![part!("column")],
        Family::ElementReduce => {
            let elements = [part!("precise"), part!("column"), part!("elements")];
            let groups = [part!("moments"), part!("word_sums"), part!("group_words")];
            [&elements[..], &groups, reduce].concat()
        }
        Family::ElementColumn => vec![
            part!("precise"),
            part!("column"),
            part!("elements"),
            part!("word_sums"),
            part!("element_columns"),
        ],
        Family::Fold => {
            let fold = [
                part!("precise"),
                part!("sums"),
                part!("moments"),
                part!("group_rows"),
            ];
            [&fold[..], reduce].concat()
        }
        Family::Table => vec![part!("precise")],
    });
    parts
}
