//! The layer: one training step and one evaluation.
//!
//! `cargo run --example layer`

use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::{BcNorm, BcNormDesc, Error, Role, Tensor};

async fn run() -> Result<(), Error> {
    let gpu = Gpu::new(DeviceLimits::Default).await?;
    println!("on {}", gpu.describe());
    let mut norm = BcNorm::new(&Pipelines::new(&gpu.device), BcNormDesc::new(8, 2))?;

    // Features of two samples, (N, C, H, W): a large mean, and another scale in every channel.
    let dims = [2, 8, 16, 16];
    let values: Vec<f32> = (0..2 * 8 * 256)
        .map(|i| 100.0 + (1 + i / 256 % 8) as f32 * (i as f32 * 0.37).sin())
        .collect();
    let x = Tensor::from_slice(&gpu.device, &dims, &values)?;
    let grad_y = Tensor::from_slice(&gpu.device, &dims, &vec![0.01; values.len()])?;

    // Training: forward and backward in one submission.
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let y = norm.forward(&mut encoder, &x)?;
    let grad_x = norm.backward(&mut encoder, &grad_y)?;
    gpu.queue.submit([encoder.finish()]);

    let y = y.read(&gpu.device, &gpu.queue).await?;
    let mean = y.iter().sum::<f32>() / y.len() as f32;
    let var = y.iter().map(|y| (y - mean) * (y - mean)).sum::<f32>() / y.len() as f32;
    println!("training: y has mean {mean:.6} and variance {var:.6}");
    let grad_x = grad_x.read(&gpu.device, &gpu.queue).await?;
    let largest = grad_x.iter().fold(0.0f32, |most, g| most.max(g.abs()));
    println!("a constant dy leaves dx = 0: the largest is {largest:.1e}");
    println!(
        "running state: {:#?}",
        norm.state_dict(&gpu.queue).await?["bn.running_mean"]
    );
    assert!(norm.buffer(Role::GradWeight).is_some());

    // Evaluation with the running statistics.
    norm.eval();
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let y = norm.forward(&mut encoder, &x)?;
    gpu.queue.submit([encoder.finish()]);
    let y = y.read(&gpu.device, &gpu.queue).await?;
    println!("evaluation: y begins with {:?}", &y[..4]);
    Ok(())
}

fn main() -> Result<(), Error> {
    pollster::block_on(run())
}
