//! The buffers a plan speaks of, by name.

use std::fmt;

/// What a buffer is to a plan. Callers bind the tensors, parameters and state; tables are made by
/// [`create_tables`](crate::gpu::Prepared::create_tables) or by the CPU executor.
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
    /// `bn.weight`, (C).
    BnWeight,
    /// `bn.bias`, (C).
    BnBias,
    /// `weight` of the group part, (G).
    Weight,
    /// `bias` of the group part, (G).
    Bias,
    /// `bn.running_mean`, (C).
    RunningMean,
    /// `bn.running_var`, (C).
    RunningVar,
    /// `bn.num_batches_tracked`, one u32.
    NumBatchesTracked,
    /// Gradient of `bn.weight`, (C).
    GradBnWeight,
    /// Gradient of `bn.bias`, (C).
    GradBnBias,
    /// Gradient of `weight`, (G).
    GradWeight,
    /// Gradient of `bias`, (G).
    GradBias,
    /// Table: moments of every part of every row, (N, C, parts) [`Moments`](crate::tables::Moments).
    RowParts,
    /// Table: moments of every row, (N, C) [`Moments`](crate::tables::Moments). Saved for backward.
    Rows,
    /// Table: moments of segments of the batch, (segments, C) [`Moments`](crate::tables::Moments).
    ChannelParts,
    /// Table: statistics in force per channel, (C) [`Channel`](crate::tables::Channel). Saved for backward.
    Channels,
    /// Table: statistics per sample and group, (N, G) [`Group`](crate::tables::Group). Saved for backward.
    Groups,
    /// Table: the affine map of every row, (N, C) [`Affine`](crate::tables::Affine).
    Coefficients,
    /// Table: products of every part of every row, (N, C, parts) [`Products`](crate::tables::Products).
    ProductParts,
    /// Table: products of every row, (N, C) [`Products`](crate::tables::Products).
    Products,
    /// Table: terms of the parameter gradients, (N, C + G) [`GradientPair`](crate::tables::GradientPair).
    GradientTerms,
    /// Table: the same summed over segments of the batch, (segments, C + G)
    /// [`GradientPair`](crate::tables::GradientPair).
    GradientParts,
    /// Table: what the channel part subtracts from the gradient, (C)
    /// [`GradientPair`](crate::tables::GradientPair).
    ChannelGradients,
    /// Table: the affine map of every row backward, (N, C)
    /// [`AffineBackward`](crate::tables::AffineBackward).
    CoefficientsBackward,
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
        Role::Channels,
        Role::Groups,
        Role::Coefficients,
        Role::ProductParts,
        Role::Products,
        Role::GradientTerms,
        Role::GradientParts,
        Role::ChannelGradients,
        Role::CoefficientsBackward,
    ];

    /// The role's name: PyTorch's for tensors, the WGSL variable's for tables.
    pub fn name(self) -> &'static str {
        match self {
            Role::X => "x",
            Role::Y => "y",
            Role::GradY => "grad_y",
            Role::GradX => "grad_x",
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
            Role::Channels => "channels",
            Role::Groups => "groups",
            Role::Coefficients => "coefficients",
            Role::ProductParts => "product_parts",
            Role::Products => "products",
            Role::GradientTerms => "gradient_terms",
            Role::GradientParts => "gradient_parts",
            Role::ChannelGradients => "channel_gradients",
            Role::CoefficientsBackward => "coefficients_backward",
        }
    }

    /// Who provides it.
    pub fn kind(self) -> RoleKind {
        match self {
            Role::Rows | Role::Channels | Role::Groups => RoleKind::Saved,
            Role::RowParts
            | Role::ChannelParts
            | Role::Coefficients
            | Role::ProductParts
            | Role::Products
            | Role::GradientTerms
            | Role::GradientParts
            | Role::ChannelGradients
            | Role::CoefficientsBackward => RoleKind::Scratch,
            _ => RoleKind::Caller,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
