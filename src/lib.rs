//! Normalization layers on any GPU, forward and backward: Batch-Channel Normalization (Qiao et al. 2019,
//! [arXiv:1911.09738](https://arxiv.org/abs/1911.09738)) and its family (batch, group, instance and layer
//! normalization, `EstBN`, Weight Standardization), in hand-written WGSL on [wgpu], for Vulkan, Metal,
//! DX12 and WebGPU; in f32, f16 and bf16, with channels first or last.
//!
//! A [`NormDesc`] says which norm, a [`TensorDesc`] of what.
//!
//! # Two levels
//!
//! - **Layers** in the manner of torch.nn: [`Norm`] owns parameters, running state and saved
//!   tables on the GPU.
//! - **Plans**, for programs that bring their own device, buffers and encoder: a [`Plan`] is data,
//!   made without a GPU; [`gpu::Pipelines`] prepares it, [`gpu::PreparedPlan::encode`] records it.
//!
//! Neither submits, polls, maps, creates a device or replaces an error handler, but for calls that are given a queue
//! ([`Norm::forward`] submits). Helpers that do are in [`gpu::headless`], [`gpu::transfer`] and [`gpu::autotune`].
//!
//! ```
//! use bcnorm::gpu::headless::{DeviceLimits, Gpu};
//! use bcnorm::gpu::{Bindings, Pipelines, transfer};
//! use bcnorm::{ForwardOptions, Mode, NormDesc, Plan, Role, TensorDesc};
//!
//! # fn main() -> Result<(), bcnorm::Error> { pollster::block_on(async {
//! // Planning needs no GPU.
//! let norm = NormDesc::bc_norm(4, 2);
//! let tensor = TensorDesc::new(&[2, 4, 3, 3])?;
//! let gpu = Gpu::new(DeviceLimits::Default).await?;
//! let pipelines = Pipelines::new(&gpu.device);
//! let options = ForwardOptions::default();
//! let plan = Plan::forward(&norm, &tensor, Mode::Eval, options, pipelines.tuning())?;
//!
//! // The caller's buffers; tables in between are the plan's.
//! let prepared = pipelines.prepare(plan)?;
//! let tables = prepared.create_tables(None)?;
//! let upload = |values: &[f32]| transfer::upload(&gpu.device, "mine", values);
//! let (x, y) = (upload(&[2.5; 72])?, upload(&[0.0; 72])?);
//! let bindings = Bindings::new()
//!     .with_tables(&tables)
//!     .with(Role::X, &x)
//!     .with(Role::Y, &y)
//!     .with(Role::BnWeight, &upload(&[1.0; 4])?)
//!     .with(Role::BnBias, &upload(&[0.0; 4])?)
//!     .with(Role::RunningMean, &upload(&[0.0; 4])?)
//!     .with(Role::RunningVar, &upload(&[1.0; 4])?)
//!     .with(Role::Weight, &upload(&[1.0; 2])?)
//!     .with(Role::Bias, &upload(&[7.0; 2])?);
//!
//! // The caller's encoder.
//! let mut encoder = gpu.device.create_command_encoder(&Default::default());
//! prepared.encode(&mut encoder, &bindings)?;
//! gpu.queue.submit([encoder.finish()]);
//!
//! // A group of equal values is normalized to its bias, exactly.
//! let values: Vec<f32> = transfer::read(&gpu.device, &gpu.queue, &y, 0, 72).await?;
//! assert_eq!(values, [7.0; 72]);
//! # Ok(()) }) }
//! ```
//!
//! # What it promises
//!
//! - **Few transfers**: 3 tensor-sized ones forward (read x twice, write y), 5 backward (read x and dy
//!   twice, write dx), residual and activation fused in. Everything else is folds over small tables.
//! - **Accuracy**: means travel as pivot + offset, squares are never summed about zero; the golden
//!   vectors of PyTorch pass at max(1e-6, PyTorch's own f32 error). See docs/numerics.md.
//! - **Portability**: no feature beyond WebGPU's default limits; rows of any length; tensors larger than a
//!   binding, in windows.
//! - **Determinism**: fixed trees and no float atomics; one device gives the same bits on every run.
//! - **Errors before work**: what can be checked is checked on the CPU, before anything is recorded:
//!   [`Error`].
//!
//! # The parts
//!
//! [`plan`] makes lists of kernels over named buffers ([`role`]); [`gpu`] and [`cpu`] run them.
//! [`tuning`] holds every choice that depends on the adapter. With the feature `safetensors`,
//! `layer::checkpoint` reads and writes state dicts as PyTorch programs store them.
//!
//! Options and descriptors have builder methods (`with_...`), and fields may be added to them in any version. The
//! modules of kernels, of their uniforms and tables, and of their mirrors in Rust are public for this
//! repository's own tests, benchmarks and tools alone: they are hidden here, and any version may change them.
#![forbid(unsafe_code)]

pub mod cpu;
pub mod desc;
mod dtype;
pub mod error;
#[cfg(feature = "wgpu")]
pub mod gpu;
pub mod host;
#[doc(hidden)]
pub mod kernels;
pub mod layer;
mod limits;
#[doc(hidden)]
pub mod params;
pub mod plan;
pub mod role;
#[doc(hidden)]
pub mod stages;
#[doc(hidden)]
pub mod tables;
pub mod tuning;

pub use desc::{
    Activation, ChannelStats, DType, Fusion, GradientMode, Layout, Mode, NormDesc, NormKind,
    TensorDesc,
};
pub use error::Error;
#[cfg(feature = "wgpu")]
pub use layer::{Backward, Forward, Gradients, Norm, Saved, Tensor};
pub use plan::{BackwardOptions, ForwardOptions, Plan, RowSource};
pub use role::Role;
pub use tuning::Tuning;
#[cfg(feature = "wgpu")]
pub use wgpu;

/// The README's examples compile and run, and those of the calls.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/calls.md")]
struct Readme;
