//! What a plan is made of: dispatches, and the buffers that they need.

use crate::kernels::{Access, Spec};
use crate::params::Params;
use crate::role::Role;

/// The part of each tensor that a step binds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Window {
    /// Where it begins: a multiple of 256.
    pub offset: u64,
    /// Its size: a multiple of 4.
    pub bytes: u64,
}

/// One dispatch.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// The kernel and what its text depends on.
    #[doc(hidden)]
    pub spec: Spec,
    /// Its uniform.
    #[doc(hidden)]
    pub params: Params,
    /// The buffers of the kernel's bindings that are there, in their order.
    pub bindings: Vec<Role>,
    /// What it binds of tensors; `None`: all.
    pub window: Option<Window>,
    /// Workgroups in x and y (more than a dimension holds are folded into two).
    pub workgroups: [u32; 2],
}

impl Step {
    /// The name of its kernel.
    pub fn kernel(&self) -> &'static str {
        self.spec.kernel.name()
    }
}

/// A buffer that a plan uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BufferRequirement {
    /// Which.
    pub role: Role,
    /// Its size in bytes.
    pub bytes: u64,
    /// `ReadWrite` where any step writes it.
    pub access: Access,
}

/// Which way a plan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Direction {
    /// x to y.
    Forward,
    /// dy to dx and the parameters' gradients.
    Backward,
}
