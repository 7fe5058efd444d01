//! Batch-Channel Normalization (Qiao et al. 2019, arXiv:1911.09738) on any GPU.
#![forbid(unsafe_code)]

pub mod cpu;
pub mod desc;
pub mod error;
pub mod gpu;
pub mod kernels;
pub mod layer;
pub mod oracle;
pub mod params;
pub mod plan;
pub mod role;
pub mod stages;
pub mod tables;
pub mod tuning;

pub use desc::{BcNormDesc, ChannelStats, Mode, TensorDesc, Write};
pub use error::Error;
pub use layer::{BcNorm, Tensor};
pub use plan::{BackwardOptions, Plan};
pub use role::Role;
pub use tuning::Tuning;
pub use wgpu;
