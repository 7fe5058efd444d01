//! Norms trained with PyTorch: loads their state, compares an output, saves the state after it.
//! `examples/export_pytorch.py` writes the file that this reads, and checks the one that it writes.
//!
//! `cargo run --features safetensors --example load_pytorch -- model.safetensors after.safetensors`

use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::layer::{StateDict, StateValue, checkpoint, put_module, take_module};
use bcnorm::{Norm, NormDesc, Tensor};

/// The largest difference to PyTorch, in units of the outputs, which are about 1.
const TOLERANCE: f32 = 1e-5;

fn tensor(model: &mut StateDict, name: &str) -> Result<(Vec<usize>, Vec<f32>), String> {
    match model.remove(name) {
        Some(StateValue::F32 { dims, values }) => Ok((dims, values)),
        other => Err(format!("{name} is {other:?}, expected floats")),
    }
}

async fn run(from: &str, to: &str) -> Result<(), Box<dyn std::error::Error>> {
    let gpu = Gpu::new(DeviceLimits::Default).await?;
    println!("on {}", gpu.describe());
    let pipelines = Pipelines::new(&gpu.device);
    let mut model = checkpoint::load(from)?;
    let (dims, x) = tensor(&mut model, "x")?;
    let x = Tensor::from_slice(&gpu.device, &dims, &x)?;

    let mut after = StateDict::new();
    for (name, desc) in [
        ("batch_norm", NormDesc::batch_norm(8)),
        ("group_norm", NormDesc::group_norm(4, 8)),
        ("bc_norm", NormDesc::bc_norm(8, 2)),
    ] {
        let mut norm = Norm::new(&pipelines, desc)?;
        norm.load_state_dict(&gpu.queue, &take_module(&mut model, name))?;

        let (y, _) = norm.forward(&gpu.queue, &x)?;
        let y = y.read(&gpu.device, &gpu.queue).await?;
        let (_, expected) = tensor(&mut model, &format!("y.{name}"))?;
        let differences = y.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let largest = differences.clone().fold(0.0, f32::max);
        println!("{name}: differs from PyTorch by at most {largest:.1e}");
        // A NaN, which a maximum passes over, is not within the tolerance.
        let close = differences
            .clone()
            .all(|difference| difference <= TOLERANCE);
        if y.len() != expected.len() || !close {
            return Err(format!("{name}: that is more than {TOLERANCE:.0e}").into());
        }
        put_module(&mut after, name, norm.state_dict(&gpu.queue).await?);
    }
    checkpoint::save(&after, to)?;
    println!("the state after this step is in {to}");
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = arguments.as_slice() else {
        return Err("usage: load_pytorch MODEL.safetensors AFTER.safetensors".into());
    };
    pollster::block_on(run(from, to))
}
