//! Several devices, lost ones, and what a device has no room for: an error, and neither a panic nor another
//! device's numbers.
#![allow(missing_docs)]

use crate::common;

use bcnorm::gpu::autotune::{Effort, autotune};
use bcnorm::gpu::headless::{self, Gpu};
use bcnorm::gpu::{Bindings, Pipelines, Tables, transfer};
use bcnorm::layer::{StateDict, StateValue};
use bcnorm::{
    Backward, ChannelStats, DType, Error, Forward, ForwardOptions, Gradients, Mode, Norm, NormDesc,
    Plan, Role, Tensor, TensorDesc,
};
use common::adapters;
use common::watch::Watched;
use pollster::block_on;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const DIMS: [usize; 4] = [2, 8, 6, 6];
const NORM: NormDesc = NormDesc::bc_norm(8, 2);

fn tensor(gpu: &Gpu, seed: f32) -> Tensor {
    let values: Vec<f32> = (0..576).map(|i| (i as f32 * 0.37 + seed).sin()).collect();
    Tensor::from_slice(&gpu.device, &DIMS, &values).unwrap()
}

fn encoder(gpu: &Gpu) -> wgpu::CommandEncoder {
    gpu.device.create_command_encoder(&Default::default())
}

fn plan(pipelines: &Pipelines) -> Plan {
    let tensor = TensorDesc::new(&DIMS).unwrap();
    let options = ForwardOptions::default();
    Plan::forward(&NORM, &tensor, Mode::Train, options, pipelines.tuning()).unwrap()
}

/// A device of an instance of its own, as a program may make one.
fn own_instance() -> Gpu {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let like = adapters::all().swap_remove(0).1.get_info();
    let adapters = block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let mut same = adapters.into_iter().filter(|adapter| {
        let info = adapter.get_info();
        (info.name, info.backend) == (like.name.clone(), like.backend)
    });
    let adapter = same.next().expect("the adapter that was there before");
    block_on(Gpu::on(adapter, Default::default())).unwrap()
}

/// A forward and a backward into given tensors: x, y, `grad_y`, `grad_x`.
fn step(
    norm: &mut Norm,
    encoder: &mut wgpu::CommandEncoder,
    [x, y, grad_y, grad_x]: [&Tensor; 4],
) -> Result<Gradients, Error> {
    let (_, saved) = norm.record_forward(encoder, Forward::new(x).with_y(y))?;
    let args = Backward::new(grad_y).with_grad_x(grad_x);
    norm.record_backward(encoder, saved, args)
}

#[track_caller]
fn wrong<T>(what: &str, result: Result<T, Error>) {
    match result.map(drop) {
        Err(Error::WrongDevice { what: found }) => assert_eq!(found, what),
        other => panic!("{what}: {other:?}"),
    }
}

/// Every call of device a's with something of device b's, b's handles made in the same order as a's.
fn mix_up(a: &Gpu, b: &Gpu) {
    let (pipelines, others) = (Pipelines::new(&a.device), Pipelines::new(&b.device));
    let [x, y, grad_y, grad_x] = [0.0, 1.0, 2.0, 3.0].map(|seed| tensor(a, seed));
    let [bx, by, b_grad_y, b_grad_x] = [5.0, 6.0, 7.0, 8.0].map(|seed| tensor(b, seed));
    let mut norm = Norm::new(&pipelines, NORM).unwrap();

    let mut e = encoder(a);
    let (own, foreign) = (Forward::new(&x), Forward::new(&bx));
    wrong("x", norm.record_forward(&mut e, foreign));
    wrong(
        "residual",
        norm.record_forward(&mut e, own.with_residual(&bx)),
    );
    norm.eval();
    wrong("x", norm.record_forward(&mut e, foreign.in_place()));
    norm.train();
    assert_ne!(x, bx);
    // What it knows is known for these tensors alone, whatever ids they have.
    for _ in 0..2 {
        wrong("x", norm.record_forward(&mut e, foreign.with_y(&y)));
        wrong("y", norm.record_forward(&mut e, own.with_y(&by)));
        wrong(
            "grad_y",
            step(&mut norm, &mut e, [&x, &y, &b_grad_y, &grad_x]),
        );
        wrong(
            "grad_x",
            step(&mut norm, &mut e, [&x, &y, &grad_y, &b_grad_x]),
        );
        step(&mut norm, &mut e, [&x, &y, &grad_y, &grad_x]).unwrap();
    }
    a.queue.submit([e.finish()]);
    let read = block_on(bx.read(&a.device, &a.queue));
    wrong("the tensor to read", read);

    // Plans: tables to share, and tables that are bound.
    let (prepared, other) = (pipelines.prepare(plan(&pipelines)), plan(&others));
    let (prepared, other) = (prepared.unwrap(), others.prepare(other).unwrap());
    let tables = other.create_tables(None).unwrap();
    let shared = prepared.create_tables(Some(&tables));
    wrong("the tables to share", shared);
    let bindings = Bindings::new().with_tables(&tables);
    let table = *tables
        .iter()
        .map(|(role, _)| role)
        .collect::<Vec<_>>()
        .first()
        .unwrap();
    wrong(table.name(), prepared.bind(&bindings));

    // What was right is as if nothing else had been tried.
    let mut alone = Norm::new(&Pipelines::new(&a.device), NORM).unwrap();
    let mut e = encoder(a);
    let (expected, _) = alone.record_forward(&mut e, &tensor(a, 0.0)).unwrap();
    a.queue.submit([e.finish()]);
    let read = |tensor: &Tensor| block_on(tensor.read(&a.device, &a.queue)).unwrap();
    assert_eq!(read(&y), read(&expected));
}

#[test]
fn devices_of_one_instance() {
    let (a, b) = (adapters::first(), adapters::first());
    mix_up(&a, &b);
    mix_up(&b, &a);
}

/// wgpu takes these devices for one, and so their buffers.
#[test]
fn devices_of_two_instances() {
    let (a, b) = (own_instance(), own_instance());
    assert_eq!(
        a.device, b.device,
        "wgpu tells them apart now: the owners need not"
    );
    mix_up(&a, &b);
    mix_up(&b, &a);
    // Lost ones are still told from the others.
    let x = tensor(&b, 0.0);
    b.device.destroy();
    let mut norm = Norm::new(&Pipelines::new(&a.device), NORM).unwrap();
    wrong("x", norm.record_forward(&mut encoder(&a), &x));
}

/// Handles of one device agree, whoever made what first, on any thread, and after all of it was dropped.
#[test]
fn handles_of_one_device() {
    let gpu = adapters::first();
    for _ in 0..2 {
        let x = std::thread::scope(|scope| {
            let made = [(); 4].map(|()| scope.spawn(|| tensor(&gpu.clone(), 0.0)));
            made.map(|thread| thread.join().unwrap())
        });
        let mut norm = Norm::new(&Pipelines::new(&gpu.device.clone()), NORM).unwrap();
        for x in &x {
            let mut e = encoder(&gpu);
            let (_, saved) = norm.record_forward(&mut e, x).unwrap();
            norm.record_backward(&mut e, saved, x).unwrap();
        }
    }
    // The helpers' devices are of one instance: wgpu can tell them apart.
    assert_ne!(adapters::first().device, gpu.device);
    let adapters = block_on(headless::adapters());
    assert_eq!(adapters.len(), block_on(headless::adapters()).len());
}

/// All of a forward, without a word of whose x and y are.
fn bindings(norm: &Norm, tables: &Tables, x: &Tensor, y: &Tensor) -> Bindings {
    let own = Role::ALL.iter();
    let own = own.filter_map(|role| Some((*role, norm.buffer(*role)?)));
    let bindings = Bindings::new().with_tables(tables);
    let bindings = own.fold(bindings, |all, (role, buffer)| all.with(role, buffer));
    bindings.with(Role::X, x.buffer()).with(Role::Y, y.buffer())
}

/// Buffers that only wgpu knows: where they are bound, it tells. A queue: what it did not copy is not read.
#[test]
fn what_only_wgpu_knows() {
    let (a, b) = (Watched::new(), Watched::new());
    let pipelines = Pipelines::new(&a.gpu.device);
    let prepared = pipelines.prepare(plan(&pipelines)).unwrap();
    let tables = prepared.create_tables(None).unwrap();
    let norm = Norm::new(&pipelines, NORM).unwrap();
    let (x, bx, y) = (
        tensor(&a.gpu, 0.0),
        tensor(&b.gpu, 5.0),
        tensor(&a.gpu, 1.0),
    );
    let bindings = |x: &Tensor| bindings(&norm, &tables, x, &y);
    prepared.bind(&bindings(&x)).unwrap();
    let error = prepared.bind(&bindings(&bx)).unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error}");
    a.assert_no_errors();
    b.assert_no_errors();

    let read = transfer::read::<f32>(&a.gpu.device, &b.gpu.queue, x.buffer(), 0, 576);
    wrong("the queue to read with", block_on(read));
    assert_eq!(b.take_errors().len(), 1);
    let read = transfer::read::<f32>(&a.gpu.device, &a.gpu.queue, bx.buffer(), 0, 576);
    let error = block_on(read).unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error}");
    a.assert_no_errors();
}

#[track_caller]
fn lost<T>(what: &str, result: Result<T, Error>) {
    match result.map(drop) {
        Err(Error::Device { what: message, .. }) => {
            assert!(message.contains("lost"), "{what}: {message}");
        }
        other => panic!("{what}: {other:?}"),
    }
}

/// The device is destroyed before each call in turn: nothing panics (the default handler would), and what
/// makes or reads anything says so.
#[test]
fn a_lost_device() {
    for (name, adapter) in adapters::all() {
        let gpu = block_on(Gpu::on(adapter, Default::default())).unwrap();
        let (device, queue) = (&gpu.device, &gpu.queue);
        let pipelines = Pipelines::new(device);
        let prepared = pipelines.prepare(plan(&pipelines)).unwrap();
        let tables = prepared.create_tables(None).unwrap();
        let [x, y, grad_y, grad_x] = [0.0, 1.0, 2.0, 3.0].map(|seed| tensor(&gpu, seed));
        let mut norm = Norm::new(&pipelines, NORM).unwrap();
        let mut fresh = Norm::new(&pipelines, NORM).unwrap();
        let mut midway = Norm::new(&pipelines, NORM).unwrap();
        let mut e = encoder(&gpu);
        step(&mut norm, &mut e, [&x, &y, &grad_y, &grad_x]).unwrap();
        queue.submit([e.finish()]);
        let state = block_on(norm.state_dict(queue)).unwrap();
        let bindings = bindings(&norm, &tables, &x, &y);

        // Between a forward and its backward, in one encoder.
        let mut e = encoder(&gpu);
        let [first, second] = [(); 2].map(|()| midway.record_forward(&mut e, &x).unwrap().1);
        device.destroy();
        lost(&name, midway.record_backward(&mut e, first, &grad_y));
        let args = Backward::new(&grad_y).with_grad_x(&grad_x);
        lost(&name, midway.record_backward(&mut e, second, args));
        queue.submit([e.finish()]);

        // Made before, used after.
        let mut e = encoder(&gpu);
        norm.record_zero_grad(&mut e);
        // Recorded before with these tensors: nothing is made, and nothing is known to be wrong yet.
        step(&mut norm, &mut e, [&x, &y, &grad_y, &grad_x]).unwrap();
        let args = Forward::new(&x);
        lost(&name, norm.record_forward(&mut e, args));
        lost(&name, fresh.record_forward(&mut e, args));
        lost(&name, fresh.record_forward(&mut e, args.with_y(&y)));
        fresh.eval();
        lost(&name, fresh.record_forward(&mut e, args.in_place()));
        // Those that submit look at the device each time.
        lost(&name, norm.forward(queue, args.with_y(&y)));
        lost(&name, norm.zero_grad(queue));
        queue.submit([e.finish()]);
        lost(&name, norm.load_state_dict(queue, &state));
        lost(&name, block_on(norm.state_dict(queue)));
        lost(&name, block_on(y.read(device, queue)));
        lost(&name, prepared.create_tables(None));
        lost(&name, prepared.bind(&bindings));
        lost(&name, pipelines.prepare(plan(&pipelines)));

        // Made after.
        let values = vec![1.0; 576];
        lost(&name, Tensor::from_slice(device, &DIMS, &values));
        let half = TensorDesc::new(&DIMS).unwrap().with_dtype(DType::F16);
        lost(&name, Tensor::new(device, &half, &values));
        lost(&name, transfer::upload(device, "late", &values));
        lost(&name, transfer::zeros(device, "late", 1));
        lost(&name, Norm::new(&pipelines, NORM));
        let pipelines = Pipelines::new(device);
        lost(&name, Norm::new(&pipelines, NORM));
        lost(&name, pipelines.prepare(plan(&pipelines)));
        let work = [(NORM, TensorDesc::new(&DIMS).unwrap())];
        lost(
            &name,
            block_on(autotune(device, queue, &work, Effort::default(), |_| ())),
        );
    }
}

/// The statistics that come in with estimates are buffers, too.
#[test]
fn a_lost_device_and_new_statistics() {
    let gpu = adapters::first();
    let norm = NORM.with_track_running_stats(false);
    let mut norm = Norm::new(&Pipelines::new(&gpu.device), norm).unwrap();
    gpu.device.destroy();
    let before = *norm.desc();
    let stats = ChannelStats::Estimate { moving_speed: 0.5 };
    lost("set_stats", norm.set_stats(stats));
    assert_eq!(*norm.desc(), before);
}

/// Lost while a tuning is searched, by what watches it.
#[test]
fn a_device_lost_while_tuning() {
    let gpu = adapters::first();
    let work = [(NORM, TensorDesc::new(&DIMS).unwrap())];
    let effort = Effort::default()
        .with_submission(Duration::from_micros(100))
        .with_rounds(1)
        .with_passes(1);
    let mut trials = 0;
    let watch = |_: &_| {
        trials += 1;
        gpu.device.destroy();
    };
    let tuned = block_on(autotune(&gpu.device, &gpu.queue, &work, effort, watch));
    lost("autotune", tuned);
    assert_eq!(trials, 1);
}

/// Lost by another thread, anywhere in a loop of everything.
#[test]
fn a_device_lost_in_a_loop() {
    for round in 0..8u64 {
        let gpu = adapters::first();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20 + 7 * round));
                gpu.device.destroy();
            });
            let result = (0..10_000).try_for_each(|step: usize| -> Result<(), Error> {
                let pipelines = Pipelines::new(&gpu.device);
                let mut norm = Norm::new(&pipelines, NORM)?;
                let dims = [2, 8, 1 + step % 5];
                let x = Tensor::from_slice(&gpu.device, &dims, &vec![0.5; 16 * dims[2]])?;
                let mut e = encoder(&gpu);
                let (y, saved) = norm.record_forward(&mut e, &x)?;
                norm.record_backward(&mut e, saved, &y)?;
                gpu.queue.submit([e.finish()]);
                let state = block_on(norm.state_dict(&gpu.queue))?;
                norm.load_state_dict(&gpu.queue, &state)?;
                block_on(y.read(&gpu.device, &gpu.queue))?;
                Ok(())
            });
            lost("a loop", result);
            ended.store(true, Ordering::Relaxed);
        });
        assert!(ended.into_inner());
    }
}

/// A device with less room than WebGPU's defaults.
fn small() -> Gpu {
    let (_, adapter) = adapters::all().swap_remove(0);
    let limits = wgpu::Limits {
        max_buffer_size: 1 << 20,
        max_storage_buffer_binding_size: 1 << 19,
        ..wgpu::Limits::default().or_worse_values_from(&adapter.limits())
    };
    let (device, queue) = block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_limits: limits,
        ..Default::default()
    }))
    .unwrap();
    Gpu {
        adapter,
        device,
        queue,
    }
}

#[track_caller]
fn limit<T>(result: Result<T, Error>, says: &[&str]) {
    match result.map(drop) {
        Err(error @ Error::Limit { value, limit, .. }) => {
            assert!(value > limit, "{error}");
            for part in says {
                assert!(error.to_string().contains(part), "{error}: {part}");
            }
        }
        other => panic!("{says:?}: {other:?}"),
    }
}

/// What a device has no room for is refused before it, and the host, are asked for memory.
#[test]
fn beyond_what_a_device_holds() {
    let gpu = small();
    let device = &gpu.device;
    let pipelines = Pipelines::new(device);
    let tensor = TensorDesc::new(&[1, 1, (1 << 18) + 1]).unwrap();
    let values = vec![1.0; (1 << 18) + 1];
    let says = ["tensor", "1048580", "1048576", "max_buffer_size"];
    limit(Tensor::new(device, &tensor, &values), &says);
    limit(
        transfer::upload(device, "mine", &values),
        &["mine", "1048580"],
    );
    let bytes = vec![0; (1 << 20) + 1];
    let usage = wgpu::BufferUsages::COPY_DST;
    let made = transfer::buffer_with_bytes(device, "mine", &bytes, usage);
    limit(made, &["1048577"]);
    limit(
        transfer::zeros(device, "mine", u64::MAX),
        &["max_buffer_size"],
    );
    for bytes in [(1 << 20) + 1, u64::MAX - 1, u64::MAX] {
        limit(
            transfer::zeroed(device, "mine", bytes),
            &["max_buffer_size"],
        );
    }
    let says = ["131073 channels", "524292", "524288"];
    let norm = |channels| Norm::new(&pipelines, NormDesc::batch_norm(channels));
    limit(norm((1 << 17) + 1), &says);
    for channels in [1 << 33, usize::MAX] {
        limit(norm(channels), &["max_storage_buffer_binding_size"]);
    }
    limit(
        Norm::new(&pipelines, NormDesc::group_norm(1, usize::MAX)),
        &["max_storage_buffer_binding_size"],
    );

    // What just fits works, and is read whole.
    let tensor = TensorDesc::new(&[1, 1, 1 << 18]).unwrap();
    let tensor = Tensor::new(device, &tensor, &values[1..]).unwrap();
    let read = block_on(tensor.read(device, &gpu.queue)).unwrap();
    assert_eq!(read, values[1..]);
    let norm = norm(1 << 17).unwrap();
    assert_eq!(norm.buffer(Role::Weight).unwrap().size(), 1 << 19);
    limit(
        transfer::zeroed(device, "mine", u64::from(u32::MAX)),
        &["request the device"],
    );
}

/// Only what may be copied from can be read.
#[test]
fn a_buffer_that_cannot_be_read() {
    let watched = Watched::new();
    let gpu = &watched.gpu;
    let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 64,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let read = transfer::read::<f32>(&gpu.device, &gpu.queue, &buffer, 0, 16);
    let error = block_on(read).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the buffer to read lacks BufferUsages::COPY_SRC: create it with that flag (it has \
         BufferUsages(STORAGE))"
    );
    // Destroyed by the caller: what wgpu objects to is an error as well.
    let x = tensor(gpu, 0.0);
    x.buffer().destroy();
    let error = block_on(x.read(&gpu.device, &gpu.queue)).unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error}");
    let len = usize::MAX;
    let read = transfer::read::<f32>(&gpu.device, &gpu.queue, x.buffer(), 0, len);
    assert!(matches!(block_on(read), Err(Error::Length { .. })));
    watched.assert_no_errors();
}

/// A dict for a norm without running statistics, for a layer whose device is lost after it was made.
#[test]
fn loading_after_a_loss() {
    let gpu = adapters::first();
    let norm = NormDesc::group_norm(2, 8);
    let mut norm = Norm::new(&Pipelines::new(&gpu.device), norm).unwrap();
    let eight = StateValue::F32 {
        dims: vec![8],
        values: vec![1.0; 8],
    };
    let names = ["weight", "bias"].map(|name| (name.to_owned(), eight.clone()));
    gpu.device.destroy();
    lost(
        "load",
        norm.load_state_dict(&gpu.queue, &StateDict::from(names)),
    );
}
