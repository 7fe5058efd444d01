//! The CPU mirrors: one function for each kernel of [`kernels`](crate::kernels), of the same name,
//! with the same work items and the same formulas in f32, for readers and for stage-by-stage tests.
//!
//! A mirror has no lanes: one loop does what LANES invocations share on a GPU, so results agree to
//! rounding, not to the bit. Work items that write disjoint ranges run on several threads.

mod channel_fold;
mod group_fold;
mod moments;
mod parallel;
mod precise;
mod row_affine;
mod row_fold;
mod row_moments;
mod row_products;
mod sample_fold;
mod span;

pub use channel_fold::{ParameterGradients, channel_fold_backward};
pub use channel_fold::{RunningStatistics, batch_count, channel_fold};
pub use group_fold::{group_fold, group_fold_backward, row_coefficients_backward};
pub use moments::{merge_moments, merge_products};
pub use row_affine::{row_affine, row_affine_backward};
pub use row_fold::{row_fold, row_fold_backward};
pub use row_moments::row_moments;
pub use row_products::row_products;
pub use sample_fold::{sample_fold, sample_fold_backward};
