//! Backward 3: parameter gradients; what the channel part subtracts.

use super::declare::{
    CHANNEL, Element::F32, Family, Kernel, PAIR, Reduced, UniformDecl, read, read_optional,
    write_optional,
};
use super::text::shader;
use crate::params::ChannelParams;
use crate::stages::{self, Call};

/// Its uniform.
pub(super) type Params = ChannelParams;

/// `shaders/channel_fold_backward.wgsl`.
pub(super) const KERNEL: Kernel = Kernel {
    name: "channel_fold_backward",
    text: shader!("../../shaders/channel_fold_backward.wgsl"),
    params: UniformDecl::of::<Params>(),
    family: Family::Fold,
    loops: 1,
    reduces: &[Reduced::Pair],
    bindings: &[
        read("gradient_parts", PAIR),
        read_optional("channels", CHANNEL),
        write_optional("grad_bn_weight", F32),
        write_optional("grad_bn_bias", F32),
        write_optional("grad_weight", F32),
        write_optional("grad_bias", F32),
        write_optional("channel_gradients", PAIR),
    ],
    // Counts are for the means alone.
    accepts: |spec| spec.has("channel_gradients") || !spec.has("channels"),
};

/// `src/stages/channel_fold_backward.rs`.
pub(super) fn mirror(params: &Params, call: &mut Call<'_>) {
    let gradients = stages::ParameterGradients {
        bn_weight: call.optional_table_mut("grad_bn_weight"),
        bn_bias: call.optional_table_mut("grad_bn_bias"),
        weight: call.optional_table_mut("grad_weight"),
        bias: call.optional_table_mut("grad_bias"),
    };
    let channel_gradients = call.optional_table_mut("channel_gradients");
    stages::channel_fold_backward(
        params,
        call.table("gradient_parts"),
        call.optional_table("channels"),
        gradients,
        channel_gradients,
    );
}
