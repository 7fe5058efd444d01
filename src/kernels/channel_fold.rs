//! Forward 2: moments of every channel -> statistics in force, running statistics.

use super::declare::{
    CHANNEL,
    Element::{F32, U32},
    Family, Kernel, MOMENTS, Reduced, UniformDecl, read_optional, write, write_optional,
};
use super::text::shader;
use crate::params::ChannelParams;
use crate::stages::{self, Call};

/// Its uniform.
pub(super) type Params = ChannelParams;

/// `shaders/channel_fold.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "channel_fold",
    text: shader!("../../shaders/channel_fold.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::Fold,
    loops: 2,
    reduces: &[Reduced::Moments, Reduced::Pair],
    bindings: &[
        read_optional("channel_parts", MOMENTS),
        read_optional("bn_weight", F32),
        read_optional("bn_bias", F32),
        read_optional("weight", F32),
        write_optional("num_batches_tracked", U32),
        write_optional("running_mean", F32),
        write_optional("running_var", F32),
        write("channels", CHANNEL),
    ],
    // Mean and variance are tracked together, batches only with them; a fold has a counter where it has statistics.
    accepts: |spec| {
        spec.has("running_mean") == spec.has("running_var")
            && (spec.has("running_mean") || !spec.has("num_batches_tracked"))
    },
};

/// `src/stages/channel_fold.rs`.
pub(super) fn mirror(params: &Params, call: &mut Call<'_>) {
    let count = call.optional_table_mut("num_batches_tracked");
    let mean = call.optional_table_mut("running_mean");
    let var = call.optional_table_mut("running_var");
    let channels = call.table_mut("channels");
    let running = mean.zip(var);
    stages::channel_fold(
        params,
        call.optional_table("channel_parts").unwrap_or_default(),
        call.optional_table("bn_weight"),
        call.optional_table("bn_bias"),
        call.optional_table("weight"),
        count,
        running.map(|(mean, var)| stages::RunningStatistics { mean, var }),
        channels,
    );
}
