//! Forward 3: statistics of every (sample, group) -> the affine map of every row.

use super::declare::{
    AFFINE, CHANNEL, Element::F32, Family, GROUP, Kernel, MOMENTS, Reduced, UniformDecl, read,
    read_optional, write,
};
use super::text::shader;
use crate::params::GroupParams;
use crate::stages::{self, Call};

/// Its uniform.
pub(super) type Params = GroupParams;

/// `shaders/group_fold.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "group_fold",
    text: shader!("../../shaders/group_fold.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::Fold,
    loops: 4,
    reduces: &[Reduced::Moments, Reduced::Pair],
    bindings: &[
        read_optional("channels", CHANNEL),
        read_optional("weight", F32),
        read("rows", MOMENTS),
        read_optional("bias", F32),
        write("groups", GROUP),
        write("coefficients", AFFINE),
    ],
    accepts: |_| true,
};

/// `src/stages/group_fold.rs`.
pub(super) fn mirror(params: &Params, call: &mut Call<'_>) {
    let (groups, coefficients) = (call.table_mut("groups"), call.table_mut("coefficients"));
    stages::group_fold(
        params,
        call.table("rows"),
        call.optional_table("channels"),
        call.optional_table("weight"),
        call.optional_table("bias"),
        groups,
        coefficients,
    );
}
