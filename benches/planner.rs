//! What a plan costs to make: descriptors and a tuning in, a list of steps out. No GPU.
#![allow(missing_docs)]

use bcnorm::{
    BackwardOptions, DType, ForwardOptions, Layout, Mode, NormDesc, Plan, TensorDesc, Tuning,
};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

fn planner(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("planner");
    let first = |dims: &[usize]| TensorDesc::new(dims).expect("a shape");
    let last = |dims: &[usize]| first(dims).with_layout(Layout::ChannelsLast);
    let tensors = [
        ("8x64x56x56", first(&[8, 64, 56, 56])),
        ("8x64x56x56 channels last", last(&[8, 64, 56, 56])),
        ("16x512x7x7", first(&[16, 512, 7, 7])),
        // A batch in segments, rows in parts.
        ("4096x64x9", first(&[4096, 64, 9])),
        (
            "1x64x1024x1024 bf16",
            first(&[1, 64, 1024, 1024]).with_dtype(DType::BF16),
        ),
        // 1 GiB: windows of 128 MiB.
        ("16x64x512x512", first(&[16, 64, 512, 512])),
    ];
    for (name, tensor) in &tensors {
        let norm = NormDesc::bc_norm(tensor.num_channels() as usize, 32);
        for (class, tuning) in [("gpu", Tuning::GPU), ("software", Tuning::SOFTWARE)] {
            group.bench_function(format!("forward {name} {class}"), |bencher| {
                let options = ForwardOptions::default();
                bencher.iter(|| {
                    Plan::forward(black_box(&norm), tensor, Mode::Train, options, &tuning)
                });
            });
            group.bench_function(format!("backward {name} {class}"), |bencher| {
                let options = BackwardOptions::default();
                bencher.iter(|| {
                    Plan::backward(black_box(&norm), tensor, Mode::Train, options, &tuning)
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .sample_size(20);
    targets = planner
}
criterion_main!(benches);
