//! Layers: a training step of a residual block's tail, and an evaluation in place.
//!
//! `cargo run --example layer`

use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::{Activation, DType, Error, Forward, Norm, NormDesc, Role, Tensor, TensorDesc};

async fn run() -> Result<(), Error> {
    let gpu = Gpu::new(DeviceLimits::Default).await?;
    println!("on {}", gpu.describe());
    let pipelines = Pipelines::new(&gpu.device);
    let mut norm = Norm::new(&pipelines, NormDesc::bc_norm(8, 2))?;

    // Features of two samples, (N, C, H, W): a large mean, and another scale in every channel.
    let dims = [2, 8, 16, 16];
    let values: Vec<f32> = (0..2 * 8 * 256)
        .map(|i| 100.0 + (1 + i / 256 % 8) as f32 * (i as f32 * 0.37).sin())
        .collect();
    let x = Tensor::from_slice(&gpu.device, &dims, &values)?;
    let grad_y = Tensor::from_slice(&gpu.device, &dims, &vec![0.01; values.len()])?;

    // Training: forward and backward in one submission.
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let (y, saved) = norm.record_forward(&mut encoder, &x)?;
    let gradients = norm.record_backward(&mut encoder, saved, &grad_y)?;
    gpu.queue.submit([encoder.finish()]);

    let y = y.read(&gpu.device, &gpu.queue).await?;
    let mean = y.iter().sum::<f32>() / y.len() as f32;
    let var = y.iter().map(|y| (y - mean) * (y - mean)).sum::<f32>() / y.len() as f32;
    println!("training: y has mean {mean:.6} and variance {var:.6}");
    let grad_x = gradients.x.read(&gpu.device, &gpu.queue).await?;
    let largest = grad_x.iter().fold(0.0f32, |most, g| most.max(g.abs()));
    println!("a constant dy leaves dx = 0: the largest is {largest:.1e}");
    println!(
        "running state: {:#?}",
        norm.state_dict(&gpu.queue).await?["bn.running_mean"]
    );
    assert!(norm.buffer(Role::GradWeight).is_some());

    // relu(norm(x) + residual) in one go, on f16 tensors; the residual has a gradient as well.
    let half_desc = TensorDesc::new(&dims)?.with_dtype(DType::F16);
    let half = |values: &[f32]| Tensor::new(&gpu.device, &half_desc, values);
    let (x, residual) = (half(&values)?, half(&vec![0.5; values.len()])?);
    let grad_y = half(&vec![1.0; values.len()])?;
    // The running statistics are the average over all batches: after one, its own.
    let desc = NormDesc::batch_norm(8).with_momentum(None);
    let norm = Norm::new(&pipelines, desc)?;
    let mut norm = norm.with_activation(Activation::Relu);
    let (_, saved) = norm.forward(&gpu.queue, Forward::new(&x).with_residual(&residual))?;
    let gradients = norm.backward(&gpu.queue, saved, &grad_y)?;
    let grad_residual = gradients.residual.expect("there was a residual");
    let grad_residual = grad_residual.read(&gpu.device, &gpu.queue).await?;
    let share = grad_residual.iter().sum::<f32>() / grad_residual.len() as f32;
    println!(
        "residual block: {:.1} % of the outputs are positive",
        100.0 * share
    );

    // Evaluation with the running statistics, over x itself.
    norm.eval();
    let (y, _) = norm.forward(&gpu.queue, Forward::new(&x).in_place())?;
    let y = y.read(&gpu.device, &gpu.queue).await?;
    println!("evaluation: y begins with {:?}", &y[..4]);
    Ok(())
}

fn main() -> Result<(), Error> {
    pollster::block_on(run())
}
