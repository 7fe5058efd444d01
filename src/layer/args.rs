//! What a layer's calls are given, and what they return.

use super::tensor::Tensor;

/// What forward computes y = activation(norm(x) + residual) of, and where y goes. A `&Tensor` is x alone.
#[derive(Debug, Clone, Copy)]
pub struct Forward<'a> {
    pub(super) x: &'a Tensor,
    pub(super) residual: Option<&'a Tensor>,
    pub(super) output: Output<'a>,
    pub(super) recompute: bool,
}

/// Where y goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Output<'a> {
    /// A tensor that forward makes.
    New,
    /// A tensor of the caller's.
    Given(&'a Tensor),
    /// Over x.
    InPlace,
}

impl<'a> Forward<'a> {
    /// Forward of x, (N, C, *spatial), into a new y.
    #[must_use]
    pub fn new(x: &'a Tensor) -> Self {
        Self {
            x,
            residual: None,
            output: Output::New,
            recompute: false,
        }
    }

    /// Adds a residual, a tensor as x, before the activation.
    #[must_use]
    pub fn with_residual(mut self, residual: &'a Tensor) -> Self {
        self.residual = Some(residual);
        self
    }

    /// Writes y into a tensor as x, which shares no memory with it.
    #[must_use]
    pub fn with_y(mut self, y: &'a Tensor) -> Self {
        self.output = Output::Given(y);
        self
    }

    /// Writes y over x. That is for evaluation, and no backward can follow.
    #[must_use]
    pub fn in_place(mut self) -> Self {
        self.output = Output::InPlace;
        self
    }

    /// Computes in training what an earlier forward of this x computed, and leaves the running statistics and the
    /// count of batches as they are: for the second forward of a checkpointed block, whose first one has moved them.
    ///
    /// By the batch's statistics it computes the same bits. Estimated statistics are taken as they are now: as the first
    /// forward left them, to the rounding of f32, unless another training forward of the layer came in between.
    #[must_use]
    pub fn recompute(mut self) -> Self {
        self.recompute = true;
        self
    }
}

impl<'a> From<&'a Tensor> for Forward<'a> {
    fn from(x: &'a Tensor) -> Self {
        Self::new(x)
    }
}

impl<'a> Output<'a> {
    /// The caller's tensor.
    pub fn given(self) -> Option<&'a Tensor> {
        match self {
            Output::Given(y) => Some(y),
            Output::New | Output::InPlace => None,
        }
    }
}

/// What backward is given beside its [`Saved`](super::Saved). A `&Tensor` is `grad_y` alone.
#[derive(Debug, Clone, Copy)]
pub struct Backward<'a> {
    pub(super) grad_y: &'a Tensor,
    pub(super) grad_x: Option<&'a Tensor>,
    pub(super) grad_residual: Option<&'a Tensor>,
}

impl<'a> Backward<'a> {
    /// Backward of `grad_y`, a tensor as x, into new gradients.
    #[must_use]
    pub fn new(grad_y: &'a Tensor) -> Self {
        Self {
            grad_y,
            grad_x: None,
            grad_residual: None,
        }
    }

    /// Writes the gradient of x into a tensor as x.
    #[must_use]
    pub fn with_grad_x(mut self, grad_x: &'a Tensor) -> Self {
        self.grad_x = Some(grad_x);
        self
    }

    /// Writes the gradient of the residual into a tensor as x. Without an activation there is nothing to write: that
    /// gradient is `grad_y` itself.
    #[must_use]
    pub fn with_grad_residual(mut self, grad_residual: &'a Tensor) -> Self {
        self.grad_residual = Some(grad_residual);
        self
    }
}

impl<'a> From<&'a Tensor> for Backward<'a> {
    fn from(grad_y: &'a Tensor) -> Self {
        Self::new(grad_y)
    }
}

/// What backward returns. The gradients of the parameters are in the layer's buffers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Gradients {
    /// The gradient of x.
    pub x: Tensor,
    /// The gradient of the residual, where forward had one. Without an activation it is `grad_y` itself.
    pub residual: Option<Tensor>,
}
