use super::{MovingSpeed, affine, checked, mode, run_tracked, running};
use crate::normalize::{Activation, Normalize, Parameters};
use bcnorm::NormDesc;
use burn::config::Config;
use burn::module::{Flag, Module, Param, RunningState};
use burn::tensor::{Device, Tensor};

const NAME: &str = "BcNorm";

/// [`BcNorm`]'s configuration.
#[derive(Config, Debug)]
pub struct BcNormConfig {
    /// The number of groups, a divisor of the number of channels.
    pub num_groups: usize,
    /// The number of channels.
    pub num_channels: usize,
    /// The group part's value for numerical stability (the channel part's is 1e-5, as in the paper's code).
    /// Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// The weight of a batch in the running statistics, in `[0, 1]`. Default: 0.1
    #[config(default = 0.1)]
    pub momentum: f64,
    /// For micro-batches: normalizes channels by running estimates, in training too, that move by this weight of a batch,
    /// in `[0, 1]`; `momentum` has no use then. Default: `None`, the batch's statistics
    #[config(default = "None")]
    pub moving_speed: Option<MovingSpeed>,
    /// Whether gamma and beta have a value for each channel, not for each group as in the paper. Default: `false`
    #[config(default = false)]
    pub affine_per_channel: bool,
    /// What is applied after the norm and the residual. Default: `Activation::None`
    #[config(default = "Activation::None")]
    pub activation: Activation,
}

/// Batch-Channel Normalization ([Qiao et al. 2019](https://arxiv.org/abs/1911.09738)): each channel over the batch and
/// space, as a batch norm, and then groups of channels within each sample, as a group norm.
#[derive(Module, Debug)]
pub struct BcNorm {
    /// The learnable weight of the channel part, `[num_channels]`.
    pub bn_gamma: Param<Tensor<1>>,
    /// The learnable bias of the channel part, `[num_channels]`.
    pub bn_beta: Param<Tensor<1>>,
    /// The learnable weight of the group part, `[num_groups]`, or `[num_channels]` with an affine per channel.
    pub gamma: Param<Tensor<1>>,
    /// The learnable bias of the group part, as gamma.
    pub beta: Param<Tensor<1>>,
    /// Whether training behavior is enabled for this layer.
    pub training: Param<Flag>,
    /// The running mean, `[num_channels]`.
    pub running_mean: RunningState<Tensor<1>>,
    /// The running variance, `[num_channels]`.
    pub running_var: RunningState<Tensor<1>>,
    /// The number of groups.
    pub num_groups: usize,
    /// Whether gamma and beta have a value for each channel.
    pub affine_per_channel: bool,
    /// The weight of a batch in the running statistics.
    pub momentum: f64,
    /// The weight of a batch in the running estimates, where these normalize; that of every norm that shares it.
    #[module(skip)]
    pub moving_speed: Option<MovingSpeed>,
    /// A value required for numerical stability.
    pub epsilon: f64,
    /// What is applied after the norm and the residual.
    #[module(skip)]
    pub activation: Activation,
}

impl BcNormConfig {
    /// Makes a [`BcNorm`] on a device.
    ///
    /// # Panics
    ///
    /// Panics if `num_channels` is zero or `num_groups` no divisor of it, `epsilon` negative or not finite, or `momentum` or
    /// `moving_speed` outside of `[0, 1]`.
    pub fn init(&self, device: &Device) -> BcNorm {
        let num_channels = self.num_channels;
        let [bn_gamma, bn_beta] = affine(num_channels, device);
        let [gamma, beta] = match self.affine_per_channel {
            true => affine(num_channels, device),
            false => affine(self.num_groups, device),
        };
        let [running_mean, running_var] = running(num_channels, device);
        let norm = BcNorm {
            bn_gamma,
            bn_beta,
            gamma,
            beta,
            training: Param::from_bool(true),
            running_mean,
            running_var,
            num_groups: self.num_groups,
            affine_per_channel: self.affine_per_channel,
            momentum: self.momentum,
            moving_speed: self.moving_speed.clone(),
            epsilon: self.epsilon,
            activation: self.activation,
        };
        checked(NAME, norm.desc());
        norm
    }
}

impl BcNorm {
    /// activation(norm(input)).
    ///
    /// # Shapes
    ///
    /// - `input`: `[batch_size, num_channels, ...]`
    /// - `output`: as `input`
    ///
    /// # Panics
    ///
    /// Panics if the input has a rank below 2, if its second axis is not `num_channels`, or if there is one value for
    /// each channel in training.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.call(input, None)
    }

    /// activation(norm(input) + residual), with the residual in the input's shape.
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward), and if the residual's shape or type is not the input's.
    pub fn forward_with_residual<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Tensor<D>,
    ) -> Tensor<D> {
        self.call(input, Some(residual))
    }

    fn desc(&self) -> NormDesc {
        let [num_channels] = self.bn_gamma.shape().dims();
        let norm = NormDesc::bc_norm(num_channels, self.num_groups)
            .with_eps(self.epsilon as f32)
            .with_per_channel_affine(self.affine_per_channel);
        match &self.moving_speed {
            Some(speed) => norm.with_moving_speed(speed.get() as f32),
            None => norm.with_momentum(Some(self.momentum as f32)),
        }
    }

    fn call<const D: usize>(&self, x: Tensor<D>, residual: Option<Tensor<D>>) -> Tensor<D> {
        let call = Normalize {
            norm: self.desc(),
            mode: mode(&x, &self.training),
            x,
            residual,
            activation: self.activation,
            parameters: Parameters {
                weight: Some(self.gamma.val()),
                bias: Some(self.beta.val()),
                bn_weight: Some(self.bn_gamma.val()),
                bn_bias: Some(self.bn_beta.val()),
            },
            running: None,
        };
        run_tracked(NAME, call, [&self.running_mean, &self.running_var])
    }
}
