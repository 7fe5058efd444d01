//! Layers in the manner of torch.nn: parameters, running state and saved tables on the GPU, under
//! PyTorch's names.

#[cfg(feature = "wgpu")]
mod args;
#[cfg(feature = "safetensors")]
pub mod checkpoint;
#[cfg(feature = "wgpu")]
mod norm;
#[cfg(feature = "wgpu")]
mod pass;
#[cfg(feature = "wgpu")]
mod saved;
pub mod state;
#[cfg(feature = "wgpu")]
mod tensor;

#[cfg(feature = "wgpu")]
pub use args::{Backward, Forward, Gradients};
#[cfg(feature = "wgpu")]
pub use norm::Norm;
#[cfg(feature = "wgpu")]
pub use saved::{Memory, Saved};
pub use state::{StateDict, StateValue, put_module, take_module};
#[cfg(feature = "wgpu")]
pub use tensor::Tensor;
