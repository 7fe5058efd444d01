use super::{MovingSpeed, affine, checked, mode, run_tracked, running};
use crate::normalize::{Activation, Normalize, Parameters};
use bcnorm::NormDesc;
use burn::config::Config;
use burn::module::{Flag, Module, Param, RunningState};
use burn::tensor::{Device, Tensor};

const NAME: &str = "EstBn";

/// [`EstBn`]'s configuration.
#[derive(Config, Debug)]
pub struct EstBnConfig {
    /// The number of features.
    pub num_features: usize,
    /// The weight of a batch in the running estimates, in `[0, 1]`.
    pub moving_speed: MovingSpeed,
    /// A value required for numerical stability. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// What is applied after the norm and the residual. Default: `Activation::None`
    #[config(default = "Activation::None")]
    pub activation: Activation,
}

/// Batch normalization by running estimates, in training too ([Qiao et al. 2019](https://arxiv.org/abs/1911.09738),
/// their `EstBN`): the estimates move by the batch first and then normalize it, and no gradient flows through them. It
/// works with batches of one sample.
#[derive(Module, Debug)]
pub struct EstBn {
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
    /// The weight of a batch in the running estimates; that of every norm that shares it.
    #[module(skip)]
    pub moving_speed: MovingSpeed,
    /// A value required for numerical stability.
    pub epsilon: f64,
    /// What is applied after the norm and the residual.
    #[module(skip)]
    pub activation: Activation,
}

impl EstBnConfig {
    /// Makes an [`EstBn`] on a device.
    ///
    /// # Panics
    ///
    /// Panics if `num_features` is zero, `epsilon` negative or not finite, or `moving_speed` outside of `[0, 1]`.
    pub fn init(&self, device: &Device) -> EstBn {
        let Self {
            num_features,
            ref moving_speed,
            epsilon,
            activation,
        } = *self;
        let [gamma, beta] = affine(num_features, device);
        let [running_mean, running_var] = running(num_features, device);
        let norm = EstBn {
            gamma,
            beta,
            training: Param::from_bool(true),
            running_mean,
            running_var,
            moving_speed: moving_speed.clone(),
            epsilon,
            activation,
        };
        checked(NAME, norm.desc());
        norm
    }
}

impl EstBn {
    /// activation(norm(input)).
    ///
    /// # Shapes
    ///
    /// - `input`: `[batch_size, num_features, ...]`
    /// - `output`: as `input`
    ///
    /// # Panics
    ///
    /// Panics if the input has a rank below 2, if its second axis is not `num_features`.
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
        NormDesc::est_bn(num_features)
            .with_eps(self.epsilon as f32)
            .with_moving_speed(self.moving_speed.get() as f32)
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
