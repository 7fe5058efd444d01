//! What calls fuse, keep, refuse, and save.

use crate::common::{assert_close, devices, panics, read, tensor, wgpu};
use bcnorm_burn::{
    Activation, BatchNorm, BatchNormConfig, BcNorm, BcNormConfig, EstBnConfig, GroupNormConfig,
    InstanceNormConfig, LayerNormConfig, MovingSpeed, weight_standardization,
};
use burn::module::Module;
use burn::store::ModuleRecord;
use burn::tensor::activation::{relu, silu};
use burn::tensor::{DType, Device, FloatDType, Tensor};

/// As two devices that round differently may differ after a few operations.
const BOUND: f64 = 1e-5;

/// activation(norm(x) + residual), fused and composed of burn's operations: y and both gradients.
#[test]
fn activation_and_residual() {
    for (name, device) in devices() {
        let device = device.autodiff();
        let plain = BcNormConfig::new(2, 6).init(&device);
        for (activation, shown) in [
            (Activation::None, "none"),
            (Activation::Relu, "relu"),
            (Activation::Silu, "silu"),
        ] {
            let norm = BcNorm {
                activation,
                ..plain.clone()
            };
            // Rows of 35, and short ones.
            for dims in [[3, 6, 5, 7], [33, 6, 1, 2]] {
                let run = |fused: bool| {
                    let x = tensor(dims, 1, &device).require_grad();
                    let residual = tensor(dims, 2, &device).require_grad();
                    let y = match (fused, activation) {
                        (true, _) => norm.forward_with_residual(x.clone(), residual.clone()),
                        (_, Activation::None) => plain.forward(x.clone()) + residual.clone(),
                        (_, Activation::Relu) => relu(plain.forward(x.clone()) + residual.clone()),
                        (_, Activation::Silu) => silu(plain.forward(x.clone()) + residual.clone()),
                    };
                    let gradients = (y.clone() * tensor(dims, 3, &device)).sum().backward();
                    [
                        y.inner(),
                        x.grad(&gradients).unwrap(),
                        residual.grad(&gradients).unwrap(),
                    ]
                };
                for (got, expected) in run(true).iter().zip(&run(false)) {
                    assert_close(&format!("{name}: {shown}, {dims:?}"), got, expected, BOUND);
                }
            }
        }
    }
}

/// The input as its own residual: one slice in two roles that are read.
#[test]
fn x_as_its_own_residual() {
    let device = wgpu().autodiff();
    let norm = GroupNormConfig::new(2, 6).init(&device);
    let x = tensor([3, 6, 5, 7], 1, &device).require_grad();
    let y = norm.forward_with_residual(x.clone(), x.clone());
    let gradients = (y.clone() * tensor([3, 6, 5, 7], 2, &device))
        .sum()
        .backward();
    let other = tensor([3, 6, 5, 7], 1, &device).require_grad();
    let expected = norm.forward(other.clone()) + other.clone();
    let theirs = (expected.clone() * tensor([3, 6, 5, 7], 2, &device))
        .sum()
        .backward();
    assert_close("y", &y, &expected, BOUND);
    let [got, expected] = [x.grad(&gradients), other.grad(&theirs)].map(Option::unwrap);
    assert_close("grad x", &got, &expected, BOUND);
}

/// Running statistics over some batches and y in eval: the kernels as the fallback, and far from where they began.
#[test]
fn running_statistics() {
    let [(_, gpu), (_, cpu)] = devices().map(|(name, device)| (name, device.autodiff()));
    fn check<M: Module>(
        what: &str,
        make: impl Fn(&Device) -> M,
        forward: impl Fn(&M, Tensor<4>) -> Tensor<4>,
        statistics: impl Fn(&M) -> [Tensor<1>; 2],
        devices: [&Device; 2],
    ) {
        let [got, expected] = devices.map(|device| {
            let norm = make(device);
            let before = read(&statistics(&norm)[0]);
            for seed in 0..5 {
                let x = tensor([4, 6, 5, 7], 10 + seed, device) * 2.0 + 0.5;
                forward(&norm, x);
            }
            let norm = norm.valid();
            let plain = device.clone().inner();
            let y = forward(&norm, tensor([4, 6, 5, 7], 20, &plain));
            let [mean, var] = statistics(&norm);
            assert_ne!(read(&mean), before, "{what}: it did not move");
            // In eval they stay.
            forward(&norm, tensor([4, 6, 5, 7], 21, &plain));
            assert_eq!(read(&statistics(&norm)[0]), read(&mean), "{what}");
            let cpu = Device::flex();
            (y.to_device(&cpu), mean.to_device(&cpu), var.to_device(&cpu))
        });
        assert_close(&format!("{what}: y"), &got.0, &expected.0, BOUND);
        assert_close(&format!("{what}: mean"), &got.1, &expected.1, BOUND);
        assert_close(&format!("{what}: var"), &got.2, &expected.2, BOUND);
    }
    let devices = [&gpu, &cpu];
    check(
        "BatchNorm",
        |device| BatchNormConfig::new(6).init(device),
        |norm, x| norm.forward(x),
        |norm| {
            [
                norm.running_mean.value_sync(),
                norm.running_var.value_sync(),
            ]
        },
        devices,
    );
    check(
        "EstBn",
        |device| EstBnConfig::new(6, 0.2.into()).init(device),
        |norm, x| norm.forward(x),
        |norm| {
            [
                norm.running_mean.value_sync(),
                norm.running_var.value_sync(),
            ]
        },
        devices,
    );
    for speed in [None, Some(0.2)] {
        check(
            &format!("BcNorm, {speed:?}"),
            |device| {
                BcNormConfig::new(2, 6)
                    .with_moving_speed(speed.map(MovingSpeed::new))
                    .init(device)
            },
            |norm, x| norm.forward(x),
            |norm| {
                [
                    norm.running_mean.value_sync(),
                    norm.running_var.value_sync(),
                ]
            },
            devices,
        );
    }
}

/// One handle moves the estimates of every norm that was given it, from the next forward on.
#[test]
fn a_shared_moving_speed() {
    for (name, device) in devices() {
        let device = device.autodiff();
        let speed = MovingSpeed::new(0.0);
        let bc = BcNormConfig::new(2, 6)
            .with_moving_speed(Some(speed.clone()))
            .init(&device);
        let est = EstBnConfig::new(6, speed.clone()).init(&device);
        let x = tensor([3, 6, 5, 7], 1, &device);
        let after = |value: f64| {
            speed.set(value);
            let _ = (bc.forward(x.clone()), est.forward(x.clone()));
            [&bc.running_mean, &est.running_mean].map(|mean| read(&mean.value_sync()))
        };
        for means in after(0.0) {
            assert_eq!(means, [0.0; 6], "{name}");
        }
        let [of_bc, of_est] = after(0.5);
        assert_eq!(of_bc, of_est, "{name}");
        assert!(of_bc.iter().all(|mean| *mean != 0.0), "{name}: {of_bc:?}");
        let refused = panics(|| drop(after(1.5)));
        assert!(refused.contains("1.5"), "{name}: {refused}");
    }
    let config = EstBnConfig::new(6, 0.25.into());
    let stored = serde_json::to_string(&config).unwrap();
    let again: EstBnConfig = serde_json::from_str(&stored).unwrap();
    assert!(stored.contains("\"moving_speed\":0.25"), "{stored}");
    assert_eq!(again.moving_speed.get(), 0.25);
}

/// Several forwards of one module in flight: each backward finds its own tables.
#[test]
fn several_uses() {
    for (name, device) in devices() {
        let device = device.autodiff();
        let norm = BcNormConfig::new(2, 6).init(&device);
        let gradient = |seeds: &[u64]| {
            let inputs: Vec<_> = seeds
                .iter()
                .map(|seed| tensor([3, 6, 5, 7], *seed, &device).require_grad())
                .collect();
            let outputs = inputs.iter().map(|x| norm.forward(x.clone() * 1.5));
            let sum = outputs
                .zip(seeds)
                .map(|(y, seed)| y * tensor([3, 6, 5, 7], 30 + seed, &device))
                .reduce(|a, b| a + b);
            let gradients = sum.unwrap().sum().backward();
            let of = |x: &Tensor<4>| x.grad(&gradients).unwrap();
            inputs.iter().map(of).collect::<Vec<_>>()
        };
        let together = gradient(&[1, 2, 3]);
        for (seed, together) in [1, 2, 3].iter().zip(&together) {
            assert_close(name, together, &gradient(&[*seed])[0], BOUND);
        }
    }
}

/// A module's record, through bytes, into another one.
#[test]
fn records() {
    for (name, device) in devices() {
        let device = device.autodiff();
        let trained = BcNormConfig::new(2, 6).init(&device);
        trained.forward(tensor([4, 6, 5, 7], 1, &device));
        let trained = trained.valid();
        let plain = device.clone().inner();
        let bytes = trained.clone().into_record().into_bytes().unwrap();
        let record = ModuleRecord::from_bytes(bytes).unwrap();
        let fresh = BcNormConfig::new(2, 6).init(&plain);
        let x = tensor([4, 6, 5, 7], 2, &plain);
        let expected = read(&trained.forward(x.clone()));
        assert_ne!(read(&fresh.clone().forward(x.clone())), expected, "{name}");
        assert_eq!(
            read(&fresh.load_record(record).forward(x)),
            expected,
            "{name}"
        );
    }
}

/// One that burn's own module wrote.
#[test]
fn burns_records() {
    let device = wgpu();
    let theirs = burn::nn::BatchNormConfig::new(6).init(&device.clone().autodiff());
    theirs.forward(tensor([4, 6, 5, 7], 1, &device.clone().autodiff()));
    let theirs = theirs.valid();
    let ours: BatchNorm = BatchNormConfig::new(6).init(&device);
    let ours = ours.load_record(theirs.clone().into_record());
    let x = tensor([4, 6, 5, 7], 2, &device);
    assert_close("y", &ours.forward(x.clone()), &theirs.forward(x), BOUND);
}

/// Tensors of other threads, of other streams of burn's; views; and slices of a tensor.
#[test]
fn tensors_from_elsewhere() {
    let device = wgpu();
    let norm = GroupNormConfig::new(2, 8).init(&device);
    let peer = burn::nn::GroupNormConfig::new(2, 8).init(&device);
    for seed in 0..8 {
        let elsewhere = device.clone();
        let x = std::thread::spawn(move || tensor([2, 8, 24, 24], seed, &elsewhere) * 1.5 + 0.25);
        let x = x.join().unwrap();
        let y = norm.forward(x.clone());
        assert_close("thread", &y, &peer.forward(x), BOUND);
    }
    let whole = tensor([5, 8, 6, 6], 1, &device);
    let slice = whole.clone().narrow(0, 2, 2);
    assert_close(
        "slice",
        &norm.forward(slice.clone()),
        &peer.forward(slice),
        BOUND,
    );
    let view = whole.swap_dims(2, 3).narrow(0, 1, 3);
    assert_close(
        "view",
        &norm.forward(view.clone()),
        &peer.forward(view),
        BOUND,
    );
}

/// Weight Standardization, by the kernels as by burn's operations, with its gradient.
#[test]
fn filters() {
    let [got, expected] = devices().map(|(_, device)| {
        let device = device.autodiff();
        let weight = tensor([7, 4, 3, 3], 1, &device).require_grad();
        let y = weight_standardization(weight.clone(), 1e-5);
        let gradients = (y.clone() * tensor([7, 4, 3, 3], 2, &device))
            .sum()
            .backward();
        let cpu = Device::flex();
        [y.inner(), weight.grad(&gradients).unwrap()].map(|t| t.to_device(&cpu))
    });
    for (got, expected) in got.iter().zip(&expected) {
        assert_close("weight_standardization", got, expected, BOUND);
    }
}

/// f16, where the device has it: within its rounding of what f32 makes of the same values.
#[test]
fn half_precision() {
    for (name, device) in devices() {
        if !device.supports_dtype(DType::F16) {
            println!("{name}: no f16");
            continue;
        }
        let device = device.autodiff();
        let norm = BcNormConfig::new(2, 6)
            .with_activation(Activation::Relu)
            .init(&device);
        // An odd number of elements.
        let dims = [3, 6, 5, 1];
        let x = tensor(dims, 1, &device).cast(FloatDType::F16);
        let run = |x: Tensor<4>| {
            let x = x.detach().require_grad();
            let y = norm.forward(x.clone());
            let cotangent = tensor(dims, 2, &device).cast(FloatDType::from(y.dtype()));
            let gradients = (y.clone() * cotangent).sum().backward();
            (y.inner(), x.grad(&gradients).unwrap())
        };
        let (y, gradient) = run(x.clone());
        assert_eq!([y.dtype(), gradient.dtype()], [DType::F16; 2], "{name}");
        let (wide_y, wide_gradient) = run(x.cast(FloatDType::F32));
        let wide = |tensor: Tensor<4>| tensor.cast(FloatDType::F32);
        assert_close(&format!("{name}: y"), &wide(y), &wide_y, 2e-3);
        assert_close(
            &format!("{name}: grad x"),
            &wide(gradient),
            &wide_gradient,
            4e-3,
        );
    }
}

/// What is wrong is said at the call, the same on every device.
#[test]
fn messages() {
    for (name, device) in devices() {
        let expect = |call: &dyn Fn(), says: &[&str]| {
            let message = panics(call);
            for part in says {
                assert!(message.contains(part), "{name}: {message:?} lacks {part:?}");
            }
        };
        let norm = BcNormConfig::new(2, 6).init(&device);
        let forward = |dims| drop(norm.forward(tensor::<4>(dims, 1, &device)));
        expect(
            &|| forward([2, 5, 3, 3]),
            &["BcNorm", "[2, 5, 3, 3]", "5 channels", "6"],
        );
        expect(
            &|| drop(norm.forward(tensor::<1>([6], 1, &device))),
            &["BcNorm", "rank"],
        );
        expect(
            &|| {
                let [x, residual] = [[2, 6, 3, 3], [2, 6, 3, 4]].map(|d| tensor(d, 1, &device));
                norm.forward_with_residual(x, residual);
            },
            &[
                "BcNorm",
                "residual",
                "[2, 6, 3, 4]",
                "[2, 6, 3, 3]",
                "give it the input's",
            ],
        );
        expect(
            &|| {
                let [x, residual] = [[2, 3, 8], [3, 2, 8]].map(|d| tensor(d, 1, &device));
                LayerNormConfig::new(8)
                    .init(&device)
                    .forward_with_residual(x, residual);
            },
            &["LayerNorm", "residual", "[3, 2, 8]", "[2, 3, 8]"],
        );
        expect(
            &|| {
                drop(
                    LayerNormConfig::new(8)
                        .init(&device)
                        .forward(tensor([2, 7], 1, &device)),
                )
            },
            &["LayerNorm", "[2, 7]", "8"],
        );
        expect(
            &|| {
                drop(
                    InstanceNormConfig::new(6)
                        .init(&device)
                        .forward(tensor([2, 6], 1, &device)),
                )
            },
            &["InstanceNorm", "[2, 6]", "larger spatial sizes"],
        );
        expect(
            &|| {
                let device = device.clone().autodiff();
                BatchNormConfig::new(6)
                    .init(&device)
                    .forward(tensor([1, 6], 1, &device));
            },
            &["BatchNorm", "[1, 6]", "a larger batch"],
        );
        expect(
            &|| drop(weight_standardization(tensor([4, 1], 1, &device), 1e-5)),
            &["weight_standardization", "[4, 1", "larger filters"],
        );
        expect(
            &|| drop(GroupNormConfig::new(4, 6).init(&device)),
            &["GroupNorm", "4", "6"],
        );
        expect(
            &|| drop(EstBnConfig::new(6, 1.5.into()).init(&device)),
            &["EstBn", "1.5", "from 0 to 1"],
        );
        // And then it works.
        forward([2, 6, 3, 3]);
    }
}

/// An empty batch is no mistake.
#[test]
fn an_empty_batch() {
    let device = wgpu();
    let norm = BcNormConfig::new(2, 6).init(&device);
    let y = norm.forward(Tensor::<4>::zeros([0, 6, 3, 3], &device));
    assert_eq!(y.dims(), [0, 6, 3, 3]);
}

/// A future of native wgpu's, which is ready at once.
fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("not ready"),
    }
}

/// A device of the application's that burn was given: by burn's operations until it is registered.
#[test]
fn a_device_of_the_applications() {
    use burn::tensor::wgpu::{WgpuSetup, wgpu};
    let descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    let instance = wgpu::Instance::new(descriptor);
    let adapter = ready(instance.request_adapter(&Default::default())).unwrap();
    // burn asks the adapter what there is, not the device.
    let but = wgpu::Features::MAPPABLE_PRIMARY_BUFFERS | wgpu::Features::all_experimental_mask();
    let (device, queue) = ready(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: adapter.features().difference(but),
        required_limits: adapter.limits(),
        ..Default::default()
    }))
    .unwrap();
    let setup = WgpuSetup {
        backend: adapter.get_info().backend,
        instance,
        adapter,
        device,
        queue,
    };
    let device = Device::wgpu_options().setup(setup.clone()).init().unwrap();
    let norm = BcNormConfig::new(2, 6).init(&device.clone().autodiff());
    let gradient = || {
        let x = tensor([3, 6, 5, 7], 1, &device.clone().autodiff()).require_grad();
        let y = norm.forward(x.clone()) * tensor([3, 6, 5, 7], 2, &device.clone().autodiff());
        x.grad(&y.sum().backward()).unwrap()
    };
    assert!(!bcnorm_burn::is_native(&device));
    let expected = gradient();
    bcnorm_burn::register(&device, &setup);
    assert!(bcnorm_burn::is_native(&device));
    assert_close("grad x", &gradient(), &expected, BOUND);
}
