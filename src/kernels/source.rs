//! The one specialization mechanism: final WGSL = a header of constants + the parts that the
//! kernel's family needs + the kernel's own text.

use super::{Family, Spec};
use std::fmt::Write as _;

const PARAMS: &str = include_str!("../../shaders/parts/params.wgsl");
const TABLES: &str = include_str!("../../shaders/parts/tables.wgsl");
const ITEM: &str = include_str!("../../shaders/parts/item.wgsl");
const PRECISE: &str = include_str!("../../shaders/parts/precise.wgsl");
const MOMENTS: &str = include_str!("../../shaders/parts/moments.wgsl");
const STORAGE_F32_X1: &str = include_str!("../../shaders/parts/storage_f32_x1.wgsl");
const STORAGE_F32_X4: &str = include_str!("../../shaders/parts/storage_f32_x4.wgsl");
const SPAN: &str = include_str!("../../shaders/parts/span.wgsl");
const REDUCE_SERIAL: &str = include_str!("../../shaders/parts/reduce_serial.wgsl");
const REDUCE_SHARED: &str = include_str!("../../shaders/parts/reduce_shared.wgsl");

/// The final text of a kernel, as it is handed to wgpu.
pub fn wgsl(spec: &Spec) -> String {
    let kernel = spec.kernel.kernel();
    let mut text = format!(
        "// {}: constants of this specialization, parts, kernel (bcnorm).\n",
        kernel.name
    );
    for (name, value) in [
        ("WORKGROUP_SIZE", spec.workgroup_size),
        ("LANES", spec.lanes),
        ("WIDTH", spec.width),
    ] {
        let _ = writeln!(text, "const {name}: u32 = {value}u;");
    }
    for (name, value) in [
        ("ALIGNED", spec.aligned),
        ("ACCUMULATE", spec.accumulate),
        ("FENCE", spec.fence),
    ] {
        let _ = writeln!(text, "const {name}: bool = {value};");
    }
    for part in parts(kernel.family, spec) {
        text.push('\n');
        text.push_str(part);
    }
    text.push('\n');
    text.push_str(kernel.text);
    text
}

/// Parts of one family export the same names: `Word` and its functions (storage), `reduce_moments`,
/// `reduce_products` and `reduce_pair` (reduction).
fn parts(family: Family, spec: &Spec) -> Vec<&'static str> {
    let storage = if spec.width == 4 {
        STORAGE_F32_X4
    } else {
        STORAGE_F32_X1
    };
    let reduce = if spec.lanes == 1 {
        REDUCE_SERIAL
    } else {
        REDUCE_SHARED
    };
    let common = [PARAMS, TABLES, ITEM];
    let special: &[&str] = match family {
        Family::RowReduce => &[MOMENTS, storage, SPAN, reduce],
        Family::RowMap => &[storage],
        Family::Fold => &[PRECISE, MOMENTS, reduce],
        Family::Table => &[PRECISE],
    };
    common.into_iter().chain(special.iter().copied()).collect()
}
