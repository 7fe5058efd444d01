//! The buffers a plan speaks of, by name.

use std::fmt;

/// What a buffer is to a plan. Callers bind the tensors, parameters and state; tables are made by
/// [`create_tables`](crate::gpu::PreparedPlan::create_tables) or by the CPU executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// Input, (N, C, *spatial).
    X,
    /// Output of forward, shape of x.
    Y,
    /// Upstream gradient, shape of x.
    GradY,
    /// Gradient of x.
    GradX,
    /// What is added before the activation, shape of x.
    Residual,
    /// Gradient of the residual.
    GradResidual,
    /// BCNorm's `bn.weight`, (C).
    BnWeight,
    /// BCNorm's `bn.bias`, (C).
    BnBias,
    /// `weight`, (G) for BCNorm as in the paper, else (C).
    Weight,
    /// `bias`, as `weight`.
    Bias,
    /// `running_mean` (BCNorm: `bn.running_mean`), (C).
    RunningMean,
    /// `running_var` (BCNorm: `bn.running_var`), (C).
    RunningVar,
    /// `num_batches_tracked` (BCNorm: `bn.num_batches_tracked`), one u32.
    NumBatchesTracked,
    /// Gradient of `bn.weight`, (C).
    GradBnWeight,
    /// Gradient of `bn.bias`, (C).
    GradBnBias,
    /// Gradient of `weight`, of its length.
    GradWeight,
    /// Gradient of `bias`, of its length.
    GradBias,
    /// Table: moments of every part of every row, (N, C, parts) [`Moments`](crate::plan::Moments).
    RowParts,
    /// Table: moments of every row, (N, C) [`Moments`](crate::plan::Moments). Saved for backward.
    Rows,
    /// Table: moments of segments of the batch, (segments, C) [`Moments`](crate::plan::Moments).
    ChannelParts,
    /// Table: moments of every channel of this device's batch, (C) [`Moments`](crate::plan::Moments):
    /// what it contributes to an all-gather.
    ChannelMoments,
    /// Table: the moments of every channel of all devices, (`world_size`, C)
    /// [`Moments`](crate::plan::Moments), which the caller fills.
    GatheredMoments,
    /// Table: statistics in force per channel, (C) `Channel`. Saved for backward.
    Channels,
    /// Table: statistics per sample and group, (N, G) `Group`. Saved for backward.
    Groups,
    /// Table: the affine map of every row, (N, C) `Affine`. Saved for
    /// backward, which recomputes activations.
    Coefficients,
    /// Table: products of every part of every row, (N, C, parts) `Products`.
    ProductParts,
    /// Table: products of every row, (N, C) `Products`.
    Products,
    /// Table: what the group part makes of dy, per row, (N, C)
    /// `RowGradient`.
    RowGradients,
    /// Table: terms of the parameter gradients, (N, columns)
    /// `GradientPair`: the channel part's C columns, if it has any, then
    /// those of `weight` and `bias`.
    GradientTerms,
    /// Table: the same summed over segments of the batch, (segments, columns)
    /// `GradientPair`.
    GradientParts,
    /// Table: the channel part's sums over this device's batch, (C)
    /// `GradientPair`: what it contributes to an all-gather.
    GradientSums,
    /// Table: those of all devices, (`world_size`, C) `GradientPair`, which the
    /// caller fills.
    GatheredGradients,
    /// Table: what the channel part subtracts from the gradient, (C)
    /// `GradientPair`.
    ChannelGradients,
    /// Table: the affine map of every row backward, (N, C)
    /// `AffineBackward`.
    CoefficientsBackward,
    /// Table, for short rows: what the group part makes of dy, (N, G)
    /// `GroupGradient`.
    GroupGradients,
    /// Table, for short rows: terms of the channel part's gradients, (L * parts, C)
    /// `GradientPair`.
    ChannelTerms,
    /// Table, for short rows: terms of the gradients of `weight` and `bias`, (N, G) where these are per
    /// group, (L * parts, C) where they are per channel, `GradientPair`.
    AffineTerms,
}

/// Who provides the buffer of a [`Role`], and how long it must live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RoleKind {
    /// Bound by the caller: tensors, parameters, running state, gradients.
    Caller,
    /// A table written by forward and read by the backward of the same input.
    Saved,
    /// A table that means nothing once its plan has run.
    Scratch,
}

impl Role {
    /// Every role.
    pub const ALL: &[Role] = &[
        Role::X,
        Role::Y,
        Role::GradY,
        Role::GradX,
        Role::Residual,
        Role::GradResidual,
        Role::BnWeight,
        Role::BnBias,
        Role::Weight,
        Role::Bias,
        Role::RunningMean,
        Role::RunningVar,
        Role::NumBatchesTracked,
        Role::GradBnWeight,
        Role::GradBnBias,
        Role::GradWeight,
        Role::GradBias,
        Role::RowParts,
        Role::Rows,
        Role::ChannelParts,
        Role::ChannelMoments,
        Role::GatheredMoments,
        Role::Channels,
        Role::Groups,
        Role::Coefficients,
        Role::ProductParts,
        Role::Products,
        Role::RowGradients,
        Role::GradientTerms,
        Role::GradientParts,
        Role::GradientSums,
        Role::GatheredGradients,
        Role::ChannelGradients,
        Role::CoefficientsBackward,
        Role::GroupGradients,
        Role::ChannelTerms,
        Role::AffineTerms,
    ];

    /// The role's name: PyTorch's for tensors, the WGSL variable's for tables.
    pub fn name(self) -> &'static str {
        match self {
            Role::X => "x",
            Role::Y => "y",
            Role::GradY => "grad_y",
            Role::GradX => "grad_x",
            Role::Residual => "residual",
            Role::GradResidual => "grad_residual",
            Role::BnWeight => "bn.weight",
            Role::BnBias => "bn.bias",
            Role::Weight => "weight",
            Role::Bias => "bias",
            Role::RunningMean => "bn.running_mean",
            Role::RunningVar => "bn.running_var",
            Role::NumBatchesTracked => "bn.num_batches_tracked",
            Role::GradBnWeight => "grad_bn.weight",
            Role::GradBnBias => "grad_bn.bias",
            Role::GradWeight => "grad_weight",
            Role::GradBias => "grad_bias",
            Role::RowParts => "row_parts",
            Role::Rows => "rows",
            Role::ChannelParts => "channel_parts",
            Role::ChannelMoments => "channel_moments",
            Role::GatheredMoments => "gathered_moments",
            Role::Channels => "channels",
            Role::Groups => "groups",
            Role::Coefficients => "coefficients",
            Role::ProductParts => "product_parts",
            Role::Products => "products",
            Role::RowGradients => "row_gradients",
            Role::GradientTerms => "gradient_terms",
            Role::GradientParts => "gradient_parts",
            Role::GradientSums => "gradient_sums",
            Role::GatheredGradients => "gathered_gradients",
            Role::ChannelGradients => "channel_gradients",
            Role::CoefficientsBackward => "coefficients_backward",
            Role::GroupGradients => "group_gradients",
            Role::ChannelTerms => "channel_terms",
            Role::AffineTerms => "affine_terms",
        }
    }

    /// Who provides it.
    pub fn kind(self) -> RoleKind {
        match self {
            Role::Rows | Role::Channels | Role::Groups | Role::Coefficients => RoleKind::Saved,
            Role::RowParts
            | Role::ChannelParts
            | Role::ChannelMoments
            | Role::GatheredMoments
            | Role::ProductParts
            | Role::Products
            | Role::RowGradients
            | Role::GradientTerms
            | Role::GradientParts
            | Role::GradientSums
            | Role::GatheredGradients
            | Role::ChannelGradients
            | Role::GroupGradients
            | Role::ChannelTerms
            | Role::AffineTerms
            | Role::CoefficientsBackward => RoleKind::Scratch,
            _ => RoleKind::Caller,
        }
    }
}

impl Role {
    /// Whether it is a tensor: x's shape, type and layout.
    pub fn is_tensor(self) -> bool {
        matches!(
            self,
            Role::X | Role::Y | Role::GradY | Role::GradX | Role::Residual | Role::GradResidual
        )
    }

    /// Whether it is a tensor, or a table with entries for samples, or for segments of the batch.
    pub(crate) fn has_samples(self) -> bool {
        match self {
            Role::ChannelMoments
            | Role::GatheredMoments
            | Role::Channels
            | Role::GradientSums
            | Role::GatheredGradients
            | Role::ChannelGradients => false,
            role => role.is_tensor() || role.kind() != RoleKind::Caller,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
