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
    /// The caller fills [`Role::Rows`](crate::Role::Rows) beforehand, (N, C) [`Moments`](super::Moments): a
    /// convolution's epilogue, say. Forward then reads x once.
    Given,
}

/// What forward fuses, and where it takes statistics from.
///
/// ```
/// use bcnorm::{Activation, ForwardOptions, Fusion};
///
/// let fusion = Fusion::NONE.with_activation(Activation::Relu);
/// let options = ForwardOptions::default().with_fusion(fusion).with_inference(true);
/// assert!(options.inference && !options.in_place);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct ForwardOptions {
    /// What y is made of: y = activation(norm(x) + residual).
    pub fusion: Fusion,
    /// Whether y is written over x: [`Role::X`](crate::Role::X) is read and written, and there is no
    /// [`Role::Y`](crate::Role::Y). In eval only, since backward reads x.
    pub in_place: bool,
    /// Whether no backward follows: tables that only it reads are not written, and one kernel reads x once where a
    /// group fits on chip ([`Tuning::inference`](crate::Tuning::inference)) and its channels' statistics are known.
    pub inference: bool,
    /// Where the moments of the rows come from.
    pub rows: RowSource,
    /// The number of devices that share the batch statistics, as in `torch.nn.SyncBatchNorm`: the plan stops at
    /// [`Plan::all_gather_before`](super::Plan::all_gather_before) for the caller to gather each device's
    /// [`Role::ChannelMoments`](crate::Role::ChannelMoments) into
    /// [`Role::GatheredMoments`](crate::Role::GatheredMoments), (`world_size`, C), on every device.
    pub world_size: Option<NonZero<u32>>,
}

impl ForwardOptions {
    /// Sets what y is made of.
    #[must_use]
    pub const fn with_fusion(mut self, fusion: Fusion) -> Self {
        self.fusion = fusion;
        self
    }

    /// Sets whether y is written over x.
    #[must_use]
    pub const fn with_in_place(mut self, in_place: bool) -> Self {
        self.in_place = in_place;
        self
    }

    /// Sets whether no backward follows.
    #[must_use]
    pub const fn with_inference(mut self, inference: bool) -> Self {
        self.inference = inference;
        self
    }

    /// Sets where the moments of the rows come from.
    #[must_use]
    pub const fn with_rows(mut self, rows: RowSource) -> Self {
        self.rows = rows;
        self
    }

    /// Sets how many devices share the batch statistics; `None` is this one alone.
    #[must_use]
    pub const fn with_world_size(mut self, world_size: Option<NonZero<u32>>) -> Self {
        self.world_size = world_size;
        self
    }
}

/// What backward does with its outputs, and what the forward was that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct BackwardOptions {
    /// How the gradient of x is written.
    pub x: GradientMode,
    /// How the gradients of the parameters are written.
    pub parameters: GradientMode,
    /// The forward's. With an activation and a residual, [`Role::GradResidual`](crate::Role::GradResidual) is
    /// written; without an activation the residual's gradient is dy itself.
    pub fusion: Fusion,
    /// The forward's.
    pub rows: RowSource,
    /// The forward's: the plan stops at [`Plan::all_gather_before`](super::Plan::all_gather_before) for the caller to
    /// gather each device's [`Role::GradientSums`](crate::Role::GradientSums) into
    /// [`Role::GatheredGradients`](crate::Role::GatheredGradients), (`world_size`, C), on every device.
    pub world_size: Option<NonZero<u32>>,
}

impl BackwardOptions {
    /// Sets how the gradient of x is written.
    #[must_use]
    pub const fn with_x(mut self, x: GradientMode) -> Self {
        self.x = x;
        self
    }

    /// Sets how the gradients of the parameters are written.
    #[must_use]
    pub const fn with_parameters(mut self, parameters: GradientMode) -> Self {
        self.parameters = parameters;
        self
    }

    /// Sets the forward's fusion.
    #[must_use]
    pub const fn with_fusion(mut self, fusion: Fusion) -> Self {
        self.fusion = fusion;
        self
    }

    /// Sets where the forward's moments of the rows came from.
    #[must_use]
    pub const fn with_rows(mut self, rows: RowSource) -> Self {
        self.rows = rows;
        self
    }

    /// Sets how many devices share the batch statistics; `None` is this one alone.
    #[must_use]
    pub const fn with_world_size(mut self, world_size: Option<NonZero<u32>>) -> Self {
        self.world_size = world_size;
        self
    }
}
