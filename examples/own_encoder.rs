//! Plans in the caller's own compute pass, between other dispatches, on slices of one large buffer.
//!
//! `cargo run --example own_encoder`

use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::gpu::{Bindings, Pipelines, transfer};
use bcnorm::{Error, ForwardOptions, Mode, NormDesc, Plan, Role, TensorDesc};

const DOUBLE: &str = "
@group(0) @binding(0) var<storage, read_write> v: array<f32>;
@compute @workgroup_size(64) fn double(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&v)) { v[id.x] = 2.0 * v[id.x]; }
}";

async fn run() -> Result<(), Error> {
    let gpu = Gpu::new(DeviceLimits::Default).await?;
    let device = &gpu.device;
    let norm = NormDesc::bc_norm(6, 3);
    let tensor = TensorDesc::new(&[4, 6, 5, 5])?;
    let pipelines = Pipelines::new(device);
    let options = ForwardOptions::default();
    let plan = Plan::forward(&norm, &tensor, Mode::Train, options, pipelines.tuning())?;
    for step in plan.steps() {
        println!(
            "{:?} workgroups of {}",
            step.workgroups,
            step.spec.kernel.name()
        );
    }
    let forward = pipelines.prepare(plan)?;
    let tables = forward.create_tables(None)?;

    // The parameters lie in one buffer, each at a multiple of the device's offset alignment.
    let alignment = u64::from(device.limits().min_storage_buffer_offset_alignment);
    let slots: [(Role, Vec<f32>); 4] = [
        (Role::BnWeight, vec![1.0; 6]),
        (Role::BnBias, vec![0.0; 6]),
        (Role::Weight, vec![1.0; 3]),
        (Role::Bias, vec![0.5; 3]),
    ];
    let parameters = transfer::zeros(device, "parameters", slots.len() as u64 * alignment / 4)?;
    let x: Vec<f32> = (0..600).map(|i| (i as f32 * 0.7).cos()).collect();
    let x = transfer::upload(device, "x", &x)?;
    let y = transfer::zeros(device, "y", 600)?;
    let mut bindings = Bindings::new()
        .with_tables(&tables)
        .with(Role::X, &x)
        .with(Role::Y, &y)
        .with(Role::RunningMean, &transfer::zeros(device, "mean", 6)?)
        .with(
            Role::RunningVar,
            &transfer::upload(device, "var", &[1.0; 6])?,
        )
        .with(
            Role::NumBatchesTracked,
            &transfer::zeros(device, "count", 1)?,
        );
    for (slot, (role, values)) in (0..).zip(&slots) {
        let offset = slot * alignment;
        gpu.queue
            .write_buffer(&parameters, offset, bytemuck::cast_slice(values));
        bindings = bindings.with_offset(*role, &parameters, offset);
    }

    // A kernel of the caller's after the norm, in the same pass.
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some("double"),
        source: wgpu::ShaderSource::Wgsl(DOUBLE.into()),
    });
    let double = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("double"),
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &double.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry {
            binding: 0,
            resource: y.as_entire_binding(),
        }],
    });

    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    forward.encode(&mut pass, &bindings)?;
    pass.set_pipeline(&double);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(600u32.div_ceil(64), 1, 1);
    drop(pass);
    gpu.queue.submit([encoder.finish()]);

    let y: Vec<f32> = transfer::read(device, &gpu.queue, &y, 0, 600).await?;
    let mean = y.iter().sum::<f32>() / 600.0;
    println!("the mean of 2 y is twice the bias: {mean:.6}");
    assert!((mean - 1.0).abs() < 1e-6);
    Ok(())
}

fn main() -> Result<(), Error> {
    pollster::block_on(run())
}
