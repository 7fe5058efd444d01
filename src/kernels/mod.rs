//! The kernels: one name each for the WGSL file, its entry point, the declaration here, the CPU mirror in
//! [`stages`], the debug label and the bench id.
//!
//! `<kernel>.rs` declares a kernel: its bindings, how it goes over its data, what its lanes reduce; and hands memory to its
//! mirror.

mod batch_count;
mod channel_fold;
mod channel_fold_backward;
mod column_affine;
mod column_affine_backward;
mod column_moments;
mod column_products;
mod declare;
mod element_affine;
mod element_affine_backward;
mod element_products;
mod element_terms;
mod group_fold;
mod group_fold_backward;
mod row_affine;
mod row_affine_backward;
mod row_coefficients;
mod row_coefficients_backward;
mod row_fold;
mod row_fold_backward;
mod row_moments;
mod row_products;
mod row_terms_backward;
mod running_fold;
mod sample_fold;
mod sample_fold_backward;
mod source;
mod space;
mod spec;
mod text;

pub use declare::{Access, BindingDecl, Element, Family, Kernel, Reduced, UniformDecl};
pub use source::{browser_wgsl, f16_probe_wgsl, wgsl};
pub use space::canonical_specs;
pub use spec::{Spec, workgroup_memory};

use crate::cpu;
use crate::params::{Dispatch, Uniform};
use crate::stages::{self, Call};
use std::num::NonZero;

/// Runs a kernel: by the CPU executor's own where it has one, else by its mirror.
macro_rules! run {
    ($module:ident <$t:ident> $threads:ident $params:ident $call:ident) => {
        cpu::$module::$module::<$t>($threads, $params, $call)
    };
    ($module:ident [cpu] $threads:ident $params:ident $call:ident) => {
        cpu::$module::$module($threads, $params, $call)
    };
    ($module:ident $threads:ident $params:ident $call:ident) => {
        $module::mirror($params, $call)
    };
}

macro_rules! kernels {
    ($($(#[$doc:meta])* $id:ident $module:ident $(<$t:ident>)? $([$own:ident])?)*) => {
        /// Names every kernel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum KernelId {
            $($(#[$doc])* $id),*
        }

        impl KernelId {
            /// Every kernel, in the order of use.
            pub const ALL: &[KernelId] = &[$(KernelId::$id),*];

            /// Its declaration.
            pub fn kernel(self) -> &'static Kernel {
                match self {
                    $(KernelId::$id => &$module::KERNEL),*
                }
            }

        }

        /// The uniform of a dispatch: what it must know of the shape and of the norm. Which kernel it is says which.
        #[derive(Debug, Clone, Copy, PartialEq)]
        #[non_exhaustive]
        pub enum Params {
            $($(#[$doc])* $id($module::Params)),*
        }

        impl Params {
            /// The kernel that it is for.
            pub fn kernel(&self) -> KernelId {
                match self {
                    $(Params::$id(_) => KernelId::$id),*
                }
            }

            /// As the kernel reads it.
            pub fn as_bytes(&self) -> &[u8] {
                match self {
                    $(Params::$id(params) => bytemuck::bytes_of(params)),*
                }
            }

            /// What every dispatch is told.
            pub fn dispatch(&self) -> &Dispatch {
                match self {
                    $(Params::$id(params) => &params.dispatch),*
                }
            }

            /// The block of a type, where the kernel is given one: `params.block::<Table>()`.
            pub fn block<B: 'static>(&self) -> Option<&B> {
                match self {
                    $(Params::$id(params) => params.block()),*
                }
            }

            /// Runs the kernel as the CPU executor does, on tensors of T.
            pub(crate) fn run<T: stages::Element>(&self, threads: NonZero<usize>, call: &mut Call<'_>) {
                match self {
                    $(Params::$id(params) => run!($module $(<$t>)? $([$own])? threads params call)),*
                }
            }

            /// Runs the kernel's mirror, on tensors of T.
            pub(crate) fn run_mirror<T: stages::Element>(&self, call: &mut Call<'_>) {
                match self {
                    $(Params::$id(params) => $module::mirror$(::<$t>)?(params, call)),*
                }
            }
        }
    };
}

kernels! {
    /// Forward 1: x -> moments of every row (or part of a row).
    RowMoments row_moments<T>
    /// Forward 1 with channels last.
    ColumnMoments column_moments<T>
    /// Forward 1b: moments of the parts of a row -> of the row.
    RowFold row_fold
    /// Counts the batch, where the momentum is cumulative.
    BatchCount batch_count
    /// Forward 2a: moments over segments of a large batch.
    SampleFold sample_fold
    /// Forward 2: moments of every channel -> statistics in force, running statistics.
    ChannelFold channel_fold [cpu]
    /// Forward 3: statistics of every (sample, group) -> the affine map of every row.
    GroupFold group_fold [cpu]
    /// Forward 3 without a group part: the affine map of every row from its channel alone.
    RowCoefficients row_coefficients
    /// Running statistics of InstanceNorm.
    RunningFold running_fold
    /// Forward 4: y from x.
    RowAffine row_affine<T>
    /// Forward 4 with channels last.
    ColumnAffine column_affine<T>
    /// Backward 1: x, dy -> mean of dy and its product with x, of every row (or part).
    RowProducts row_products<T>
    /// Backward 1 with channels last.
    ColumnProducts column_products<T>
    /// Backward 1b: products of the parts of a row -> of the row.
    RowFoldBackward row_fold_backward
    /// Backward 2: what the group part makes of dy, and the terms of all parameter gradients.
    GroupFoldBackward group_fold_backward [cpu]
    /// Backward 2 without a group part: terms of the parameter gradients.
    RowTermsBackward row_terms_backward
    /// Backward 3a: sums over segments of a large batch.
    SampleFoldBackward sample_fold_backward
    /// Backward 3: parameter gradients; what the channel part subtracts.
    ChannelFoldBackward channel_fold_backward
    /// Backward 4a: the affine map of every row.
    RowCoefficientsBackward row_coefficients_backward
    /// Backward 4: dx from x and dy.
    RowAffineBackward row_affine_backward<T>
    /// Backward 4 with channels last.
    ColumnAffineBackward column_affine_backward<T>
    /// Forward 3 and 4 for short rows: groups' statistics and y, from x.
    ElementAffine element_affine<T>
    /// Backward 1 and 2 for short rows: what the group part makes of dy.
    ElementProducts element_products<T>
    /// Backward 3a for short rows: terms of the gradients per channel.
    ElementTerms element_terms<T>
    /// Backward 4 for short rows: dx from x and dy.
    ElementAffineBackward element_affine_backward<T>
}

impl KernelId {
    /// The one name.
    pub fn name(self) -> &'static str {
        self.kernel().name
    }
}
