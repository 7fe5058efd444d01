use super::{affine, checked, mode, run_tracked, running};
use crate::normalize::{Activation, Normalize, Parameters};
use bcnorm::NormDesc;
use burn::config::Config;
use burn::module::{Flag, Module, Param, RunningState};
use burn::tensor::{Device, Tensor};

const NAME: &str = "BatchNorm";

/// [`BatchNorm`]'s configuration.
#[derive(Config, Debug)]
pub struct BatchNormConfig {
    /// The number of features.
    pub num_features: usize,
    /// A value required for numerical stability. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// The weight of a batch in the running statistics, in `[0, 1]`. Default: 0.1
    #[config(default = 0.1)]
    pub momentum: f64,
    /// What is applied after the norm and the residual. Default: `Activation::None`
    #[config(default = "Activation::None")]
    pub activation: Activation,
}

/// Batch normalization ([Ioffe and Szegedy 2015](https://arxiv.org/abs/1502.03167)), as burn's `BatchNorm` and
/// PyTorch's `nn.BatchNorm2d`; its running variance is the unbiased one, as PyTorch's (burn's is the biased).
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// The learnable weight gamma, `[num_features]`.
    pub gamma: Param<Tensor<1>>,
    /// The learnable bias beta, `[num_features]`.
    pub beta: Param<Tensor<1>>,
    /// Whether training behavior is enabled for this layer.
    pub training: Param<Flag>,
    /// The running mean, `[num_features]`.
    pub running_mean: RunningState<Tensor<1>>,
    /// The running variance, `[num_features]`.
    pub running_var: RunningState<Tensor<1>>,
    /// The weight of a batch in the running statistics.
    pub momentum: f64,
    /// A value required for numerical stability.
    pub epsilon: f64,
    /// What is applied after the norm and the residual.
    #[module(skip)]
    pub activation: Activation,
}

impl BatchNormConfig {
    /// Makes a [`BatchNorm`] on a device.
    ///
    /// # Panics
    ///
    /// Panics if `num_features` is zero, `epsilon` negative or not finite, or `momentum` outside of `[0, 1]`.
    pub fn init(&self, device: &Device) -> BatchNorm {
        let Self {
            num_features,
            epsilon,
            momentum,
            activation,
        } = *self;
        let [gamma, beta] = affine(num_features, device);
        let [running_mean, running_var] = running(num_features, device);
        let norm = BatchNorm {
            gamma,
            beta,
            training: Param::from_bool(true),
            running_mean,
            running_var,
            momentum,
            epsilon,
            activation,
        };
        checked(NAME, norm.desc());
        norm
    }
}

impl BatchNorm {
    /// activation(norm(input)).
    ///
    /// # Shapes
    ///
    /// - `input`: `[batch_size, num_features, ...]`
    /// - `output`: as `input`
    ///
    /// # Panics
    ///
    /// Panics if the input has a rank below 2, if its second axis is not `num_features`, or if there is one value for
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
        let [num_features] = self.gamma.shape().dims();
        NormDesc::batch_norm(num_features)
            .with_eps(self.epsilon as f32)
            .with_momentum(Some(self.momentum as f32))
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
                ..Parameters::default()
            },
            running: None,
        };
        run_tracked(NAME, call, [&self.running_mean, &self.running_var])
    }
}
