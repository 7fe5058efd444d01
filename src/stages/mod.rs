//! The CPU mirrors: one file and one function for each kernel of [`kernels`](crate::kernels), of the same name,
//! with the same work items and the same formulas in f32, in plain loops: for readers, who find the shader again in
//! them, and for tests, which hold both shaders and the CPU executor's own kernels to them, stage by stage.
//!
//! A mirror does by itself what LANES invocations share on a GPU, element by element. So results agree to rounding, not to
//! the bit. Tensors are given whole, as slices of their storage type ([`Element`]), also where a step works on a window.
//! The executor ([`cpu`](crate::cpu)) runs a mirror where it has no kernel of its own.

pub(crate) mod activation;
mod batch_count;
mod call;
pub(crate) mod channel_fold;
mod channel_fold_backward;
pub(crate) mod channel_table;
mod column;
mod column_affine;
mod column_affine_backward;
mod column_moments;
mod column_products;
pub(crate) mod element;
pub(crate) mod element_affine;
pub(crate) mod element_affine_backward;
pub(crate) mod element_products;
pub(crate) mod element_terms;
pub(crate) mod elements;
pub(crate) mod group_fold;
pub(crate) mod group_fold_backward;
pub(crate) mod moments;
pub(crate) mod precise;
mod row_affine;
mod row_affine_backward;
mod row_coefficients;
mod row_coefficients_backward;
mod row_fold;
mod row_fold_backward;
pub(crate) mod row_moments;
pub(crate) mod row_products;
mod row_terms_backward;
mod running_fold;
mod sample_fold;
mod sample_fold_backward;
pub(crate) mod span;

pub use activation::Recompute;
pub use batch_count::batch_count;
pub use call::Call;
pub use channel_fold::{RunningStatistics, channel_fold};
pub use channel_fold_backward::{ParameterGradients, channel_fold_backward};
pub use column_affine::column_affine;
pub use column_affine_backward::column_affine_backward;
pub use column_moments::column_moments;
pub use column_products::column_products;
pub use element::Element;
pub use element_affine::element_affine;
pub use element_affine_backward::element_affine_backward;
pub use element_products::element_products;
pub use element_terms::element_terms;
pub use group_fold::group_fold;
pub use group_fold_backward::group_fold_backward;
pub use moments::{merge_moments, merge_products};
pub use row_affine::row_affine;
pub use row_affine_backward::row_affine_backward;
pub use row_coefficients::row_coefficients;
pub use row_coefficients_backward::row_coefficients_backward;
pub use row_fold::row_fold;
pub use row_fold_backward::row_fold_backward;
pub use row_moments::row_moments;
pub use row_products::row_products;
pub use row_terms_backward::row_terms_backward;
pub use running_fold::running_fold;
pub use sample_fold::sample_fold;
pub use sample_fold_backward::sample_fold_backward;
