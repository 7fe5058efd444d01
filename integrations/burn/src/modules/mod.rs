//! The modules, in the manner of burn's own.

mod batch;
mod bc;
mod est;
mod group;
mod instance;
mod layer;
mod moving_speed;
mod standardization;

pub use batch::{BatchNorm, BatchNormConfig};
pub use bc::{BcNorm, BcNormConfig};
pub use est::{EstBn, EstBnConfig};
pub use group::{GroupNorm, GroupNormConfig};
pub use instance::{InstanceNorm, InstanceNormConfig};
pub use layer::{LayerNorm, LayerNormConfig};
pub use moving_speed::MovingSpeed;
pub use standardization::weight_standardization;

use crate::normalize::{Normalize, or_panic};
use bcnorm::{Mode, NormDesc};
use burn::module::{Flag, Param, RunningState};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

/// A weight of ones and a bias of zeros.
fn affine(len: usize, device: &Device) -> [Param<Tensor<1>>; 2] {
    [Initializer::Ones, Initializer::Zeros].map(|initializer| initializer.init([len], device))
}

/// Mean and variance before the first batch.
fn running(len: usize, device: &Device) -> [RunningState<Tensor<1>>; 2] {
    [Tensor::zeros([len], device), Tensor::ones([len], device)].map(RunningState::new)
}

/// Checks a norm when its module is made.
fn checked(module: &str, norm: NormDesc) {
    or_panic(module, norm.validate());
}

/// Training behaviour is selected by the device and by the layer's flag, as burn's BatchNorm does: a layer that is
/// frozen on a training device normalizes by its running statistics and leaves them as they are.
fn mode<const D: usize>(x: &Tensor<D>, training: &Param<Flag>) -> Mode {
    match x.device().is_autodiff() && training.is_enabled() {
        true => Mode::Train,
        false => Mode::Eval,
    }
}

/// Runs a norm that has running statistics, and moves them in training.
fn run_tracked<const D: usize>(
    module: &str,
    call: Normalize<D>,
    [mean, var]: [&RunningState<Tensor<1>>; 2],
) -> Tensor<D> {
    let training = call.mode == Mode::Train;
    let value = |state: &RunningState<Tensor<1>>| match training {
        true => state.value_sync(),
        false => state.value(),
    };
    let running = Some([value(mean), value(var)]);
    let (y, moved) = Normalize { running, ..call }.run(module);
    if let (true, Some([moved_mean, moved_var])) = (training, moved) {
        mean.update(moved_mean);
        var.update(moved_var);
    }
    y
}
