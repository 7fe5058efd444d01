//! Forward 3 without a group part: the affine map of every row from its channel alone.

use super::declare::{AFFINE, CHANNEL, Family, Kernel, MOMENTS, read, write, write_optional};
use super::text::shader;
use crate::stages::{self, Call};

/// `shaders/row_coefficients.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_coefficients",
    text: shader!("../../shaders/row_coefficients.wgsl"),
    family: Family::Table,
    reduces: &[],
    bindings: &[
        read("channels", CHANNEL),
        write_optional("rows", MOMENTS),
        write("coefficients", AFFINE),
    ],
};

/// `src/stages/row_coefficients.rs`.
pub(super) fn mirror(call: &mut Call<'_>) {
    let rows = call.optional_table_mut("rows");
    let coefficients = call.table_mut("coefficients");
    stages::row_coefficients(call.params, call.table("channels"), rows, coefficients);
}
