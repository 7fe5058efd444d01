//! Running statistics of InstanceNorm.

use super::declare::{Element::F32, Family, Kernel, MOMENTS, Reduced, UniformDecl, read, write};
use super::text::shader;
use crate::params::ChannelParams;
use crate::stages::{self, Call};

/// Its uniform.
pub(super) type Params = ChannelParams;

/// `shaders/running_fold.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "running_fold",
    text: shader!("../../shaders/running_fold.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::Fold,
    loops: 1,
    reduces: &[Reduced::Pair],
    bindings: &[
        read("rows", MOMENTS),
        write("running_mean", F32),
        write("running_var", F32),
    ],
    accepts: |_| true,
};

/// `src/stages/running_fold.rs`.
pub(super) fn mirror(params: &Params, call: &mut Call<'_>) {
    let mean = call.table_mut("running_mean");
    let var = call.table_mut("running_var");
    let running = stages::RunningStatistics { mean, var };
    stages::running_fold(params, call.table("rows"), running);
}
