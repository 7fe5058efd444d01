//! A Rust program in the browser: it has its own wgpu device, so it uses the crate as any Rust program does, and needs
//! no npm package.
//!
//! ```sh
//! cargo build --profile web -p bcnorm-wasm-example --target wasm32-unknown-unknown
//! cargo run --release -p bcnorm-bindgen -- \
//!     target/wasm32-unknown-unknown/web/bcnorm_wasm_example.wasm target/wasm-example example
//! ```
//!
//! leaves an ES module: `import init, { normalize } from "./example.js"; await init(); await normalize();`
#![forbid(unsafe_code)]

use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::{Norm, NormDesc, Tensor};
use wasm_bindgen::prelude::*;

/// Normalizes (2, 4, 3) numbers by BCNorm in training, forward and backward; returns y.
#[wasm_bindgen]
pub async fn normalize() -> Result<Vec<f32>, JsError> {
    let gpu = Gpu::new(DeviceLimits::Default).await?;
    let mut norm = Norm::new(&Pipelines::new(&gpu.device), NormDesc::bc_norm(4, 2))?;
    let values: Vec<f32> = (0..24u8).map(|i| f32::from(i).sin()).collect();
    let x = Tensor::from_slice(&gpu.device, &[2, 4, 3], &values)?;
    let (y, saved) = norm.forward(&gpu.queue, &x)?;
    norm.backward(&gpu.queue, saved, &y)?;
    Ok(y.read(&gpu.device, &gpu.queue).await?)
}
