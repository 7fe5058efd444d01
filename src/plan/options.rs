//! What a caller asks of a plan.

use crate::desc::{Fusion, GradientMode};
use std::num::NonZero;

/// Where the moments of the rows come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RowSource {
    /// Forward reads x for them.
    #[default]
    Computed,
    /// The caller fills [`Role::Rows`](crate::Role::Rows) beforehand, (N, C) [`Moments`](crate::tables::Moments): a
    /// convolution's epilogue, say. Forward then reads x once.
    Given,
}

/// What forward fuses, and where it takes statistics from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ForwardOptions {
    /// y = activation(norm(x) + residual).
    pub fusion: Fusion,
    /// Writes y over x: [`Role::X`](crate::Role::X) is read and written, there is no [`Role::Y`](crate::Role::Y). In eval only:
    /// backward reads x.
    pub in_place: bool,
    /// No backward follows: tables that only it reads are not written, and where a group fits on chip
    /// (see [`Tuning::inference`](crate::Tuning::inference)) and its channels' statistics are known, one kernel reads x once.
    pub inference: bool,
    /// Where the moments of the rows come from.
    pub rows: RowSource,
    /// Batch statistics over several devices: the plan stops at [`Plan::exchange`](super::Plan::exchange) for the caller to
    /// gather each device's [`Role::ChannelMoments`](crate::Role::ChannelMoments) into [`Role::ChannelShards`](crate::Role::ChannelShards), (shards, C), on every
    /// device.
    pub shards: Option<NonZero<u32>>,
}

/// What backward does with its outputs, and what the forward was that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BackwardOptions {
    /// How the gradient of x is written.
    pub x: GradientMode,
    /// How the gradients of the parameters are written.
    pub parameters: GradientMode,
    /// The forward's. With an activation and a residual, [`Role::GradResidual`](crate::Role::GradResidual) is written; without an
    /// activation the residual's gradient is dy itself.
    pub fusion: Fusion,
    /// The forward's.
    pub rows: RowSource,
    /// The forward's: the plan stops at [`Plan::exchange`](super::Plan::exchange) for the caller to gather each device's
    /// [`Role::GradientSums`](crate::Role::GradientSums) into [`Role::GradientShards`](crate::Role::GradientShards), (shards, C), on every device.
    pub shards: Option<NonZero<u32>>,
}
