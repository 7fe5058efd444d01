//! Each module beside burn's own, with the same parameters on the same device: y, and the gradients of the input and of
//! the parameters.

use crate::common::{assert_close, devices, tensor};
use bcnorm_burn as ours;
use burn::module::{Module, Param};
use burn::nn;
use burn::tensor::{Device, Tensor};

/// Both are in f32, and sum in another order.
const BOUND: f64 = 2e-5;

/// y and the gradients of x, gamma and beta.
fn run<const D: usize>(
    dims: [usize; D],
    device: &Device,
    parameters: [&Param<Tensor<1>>; 2],
    forward: impl Fn(Tensor<D>) -> Tensor<D>,
) -> (Tensor<D>, Tensor<D>, [Tensor<1>; 2]) {
    let x = tensor(dims, 1, device).require_grad();
    // In the middle of a graph.
    let y = forward(x.clone() * 1.5);
    let loss = (y.clone() * tensor(dims, 2, device)).sum();
    let gradients = loss.backward();
    let of = parameters.map(|parameter| parameter.val().grad(&gradients).unwrap());
    (y.inner(), x.grad(&gradients).unwrap(), of)
}

fn parameters(len: usize, device: &Device) -> [Param<Tensor<1>>; 2] {
    [3, 4].map(|seed| Param::from_tensor(tensor([len], seed, device) + 1.0))
}

fn compare<const D: usize>(
    what: &str,
    dims: [usize; D],
    device: &Device,
    parameters: &[Param<Tensor<1>>; 2],
    got: impl Fn(Tensor<D>) -> Tensor<D>,
    expected: impl Fn(Tensor<D>) -> Tensor<D>,
) {
    let parameters = parameters.each_ref();
    let (y, x, [gamma, beta]) = run(dims, device, parameters, got);
    let (their_y, their_x, [their_gamma, their_beta]) = run(dims, device, parameters, expected);
    assert_close(&format!("{what}: y"), &y, &their_y, BOUND);
    assert_close(&format!("{what}: grad x"), &x, &their_x, BOUND);
    assert_close(&format!("{what}: grad gamma"), &gamma, &their_gamma, BOUND);
    assert_close(&format!("{what}: grad beta"), &beta, &their_beta, BOUND);
}

#[test]
fn batch_norm() {
    fn check<const D: usize>(name: &str, dims: [usize; D], device: &Device) {
        let device = device.clone().autodiff();
        let parameters = parameters(dims[1], &device);
        let mut norm = ours::BatchNormConfig::new(dims[1]).init(&device);
        let mut peer = nn::BatchNormConfig::new(dims[1]).init(&device);
        for (training, what) in [(true, "training"), (false, "frozen")] {
            [norm.gamma, norm.beta] = parameters.clone();
            [peer.gamma, peer.beta] = parameters.clone();
            norm.training = Param::from_bool(training);
            peer.training = Param::from_bool(training);
            let what = format!("{name}: {dims:?}, {what}");
            compare(
                &what,
                dims,
                &device,
                &parameters,
                |x| norm.forward(x),
                |x| peer.forward(x),
            );
        }
        // burn's running variance is the biased one.
        let count = (dims.iter().product::<usize>() / dims[1]) as f64;
        let [mean, peer_mean] = [&norm.running_mean, &peer.running_mean].map(|s| s.value_sync());
        let [var, peer_var] = [&norm.running_var, &peer.running_var].map(|s| s.value_sync());
        let unbiased = (peer_var - 0.9) * (count / (count - 1.0)) + 0.9;
        assert_close(&format!("{name}: mean"), &mean, &peer_mean, BOUND);
        assert_close(&format!("{name}: var"), &var, &unbiased, BOUND);
    }
    for (name, device) in devices() {
        check(name, [16, 6], &device);
        check(name, [5, 3, 7], &device);
        check(name, [3, 8, 6, 5], &device);
        check(name, [2, 3, 4, 3, 5], &device);
    }
}

#[test]
fn group_norm() {
    for (name, device) in devices() {
        let device = device.autodiff();
        for (groups, dims) in [(4, [3, 8, 6, 5]), (2, [4, 8, 1, 1]), (3, [2, 12, 16, 16])] {
            let parameters = parameters(dims[1], &device);
            let mut norm = ours::GroupNormConfig::new(groups, dims[1]).init(&device);
            let mut peer = nn::GroupNormConfig::new(groups, dims[1]).init(&device);
            [norm.gamma, norm.beta] = parameters.clone().map(Some);
            [peer.gamma, peer.beta] = parameters.clone().map(Some);
            let what = format!("{name}: {dims:?}");
            compare(
                &what,
                dims,
                &device,
                &parameters,
                |x| norm.forward(x),
                |x| peer.forward(x),
            );
        }
        // Without parameters, on a device without autodiff.
        let device = device.inner();
        let norm = ours::GroupNormConfig::new(2, 6)
            .with_affine(false)
            .init(&device);
        let peer = nn::GroupNormConfig::new(2, 6)
            .with_affine(false)
            .init(&device);
        assert_eq!(norm.num_params(), 0);
        let x = tensor([3, 6, 11], 5, &device);
        assert_close(name, &norm.forward(x.clone()), &peer.forward(x), BOUND);
    }
}

#[test]
fn instance_norm() {
    for (name, device) in devices() {
        let device = device.autodiff();
        let parameters = parameters(6, &device);
        let mut norm = ours::InstanceNormConfig::new(6).init(&device);
        let mut peer = nn::InstanceNormConfig::new(6).init(&device);
        [norm.gamma, norm.beta] = parameters.clone().map(Some);
        [peer.gamma, peer.beta] = parameters.clone().map(Some);
        for dims in [[3, 6, 5, 7], [1, 6, 16, 16]] {
            let what = format!("{name}: {dims:?}");
            compare(
                &what,
                dims,
                &device,
                &parameters,
                |x| norm.forward(x),
                |x| peer.forward(x),
            );
        }
    }
}

#[test]
fn layer_norm() {
    fn check<const D: usize>(name: &str, dims: [usize; D], device: &Device) {
        let parameters = parameters(dims[D - 1], device);
        let mut norm = ours::LayerNormConfig::new(dims[D - 1]).init(device);
        let mut peer = nn::LayerNormConfig::new(dims[D - 1]).init(device);
        let [gamma, beta] = parameters.clone();
        (norm.gamma, norm.beta) = (gamma.clone(), Some(beta.clone()));
        (peer.gamma, peer.beta) = (gamma, Some(beta));
        let what = format!("{name}: {dims:?}");
        compare(
            &what,
            dims,
            device,
            &parameters,
            |x| norm.forward(x),
            |x| peer.forward(x),
        );
    }
    for (name, device) in devices() {
        let device = device.autodiff();
        check(name, [24], &device);
        check(name, [7, 24], &device);
        check(name, [2, 5, 33], &device);
        check(name, [2, 3, 5, 64], &device);
    }
}
