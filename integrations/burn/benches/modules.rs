//! The modules beside burn's own on one wgpu device in one process: `cargo xtask burn --bench`. Medians in milliseconds
//! of forward, and of forward and backward with a sum as the loss.

use bcnorm_burn as ours;
use burn::nn;
use burn::tensor::{Device, Distribution, Tensor};
use std::time::Instant;

/// Calls of which each median is taken.
const CALLS: usize = 15;

/// The median of calls that are waited for, in milliseconds, after two that compile and allocate.
fn median(device: &Device, mut call: impl FnMut()) -> f64 {
    let mut timed = || {
        let started = Instant::now();
        call();
        device.sync().expect("a device");
        started.elapsed().as_secs_f64() * 1e3
    };
    timed();
    timed();
    let mut times: Vec<f64> = (0..CALLS).map(|_| timed()).collect();
    times.sort_by(f64::total_cmp);
    times[CALLS / 2]
}

/// One row of the table.
fn row<const D: usize>(
    name: &str,
    dims: [usize; D],
    device: &Device,
    ours: impl Fn(Tensor<D>) -> Tensor<D>,
    burns: impl Fn(Tensor<D>) -> Tensor<D>,
) {
    let x = Tensor::<D>::random(dims, Distribution::Default, device);
    let forward = |norm: &dyn Fn(Tensor<D>) -> Tensor<D>| median(device, || drop(norm(x.clone())));
    let both = |norm: &dyn Fn(Tensor<D>) -> Tensor<D>| {
        median(device, || {
            let x = x.clone().require_grad();
            let gradients = norm(x.clone()).sum().backward();
            x.grad(&gradients).expect("a gradient");
        })
    };
    let columns = [
        [forward(&burns), forward(&ours)],
        [both(&burns), both(&ours)],
    ];
    let columns =
        columns.map(|[burns, ours]| format!("{burns:.2} | {ours:.2} | {:.1}", burns / ours));
    println!("| {name} {dims:?} | {} | {} |", columns[0], columns[1]);
}

fn main() {
    let device = ours::init(Device::wgpu_options()).expect("a wgpu device");
    let device = device.autodiff();
    println!("| | forward: burn | bcnorm | ratio | and backward: burn | bcnorm | ratio |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for dims in [
        [8, 64, 56, 56],
        [4, 256, 28, 28],
        [16, 512, 7, 7],
        [2, 64, 8, 8],
    ] {
        let channels = dims[1];
        let (a, b) = (
            ours::BatchNormConfig::new(channels).init(&device),
            nn::BatchNormConfig::new(channels).init(&device),
        );
        row(
            "BatchNorm",
            dims,
            &device,
            |x| a.forward(x),
            |x| b.forward(x),
        );
        let (a, b) = (
            ours::GroupNormConfig::new(32, channels).init(&device),
            nn::GroupNormConfig::new(32, channels).init(&device),
        );
        row(
            "GroupNorm",
            dims,
            &device,
            |x| a.forward(x),
            |x| b.forward(x),
        );
        // burn has no BCNorm: one after the other.
        let a = ours::BcNormConfig::new(32, channels).init(&device);
        let (b, c) = (
            nn::BatchNormConfig::new(channels).init(&device),
            nn::GroupNormConfig::new(32, channels).init(&device),
        );
        let burns = |x| c.forward(b.forward(x));
        row("BcNorm", dims, &device, |x| a.forward(x), burns);
    }
    let dims = [8, 256, 512];
    let (a, b) = (
        ours::LayerNormConfig::new(512).init(&device),
        nn::LayerNormConfig::new(512).init(&device),
    );
    row(
        "LayerNorm",
        dims,
        &device,
        |x| a.forward(x),
        |x| b.forward(x),
    );
}
