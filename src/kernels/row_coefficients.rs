//! Forward 3 without a group part: the affine map of every row from its channel alone.

use super::declare::{
    AFFINE, CHANNEL, Family, Kernel, MOMENTS, UniformDecl, read, write, write_optional,
};
use super::text::shader;
use crate::params::GroupParams;
use crate::stages::{self, Call};

/// Its uniform.
pub(super) type Params = GroupParams;

/// `shaders/row_coefficients.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "row_coefficients",
    text: shader!("../../shaders/row_coefficients.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::Table,
    loops: 1,
    reduces: &[],
    bindings: &[
        read("channels", CHANNEL),
        write_optional("rows", MOMENTS),
        write("coefficients", AFFINE),
    ],
    accepts: |_| true,
};

/// `src/stages/row_coefficients.rs`.
pub(super) fn mirror(params: &Params, call: &mut Call<'_>) {
    let rows = call.optional_table_mut("rows");
    let coefficients = call.table_mut("coefficients");
    stages::row_coefficients(params, call.table("channels"), rows, coefficients);
}
