use super::{affine, checked};
use crate::normalize::{Activation, Normalize, Parameters};
use bcnorm::{Mode, NormDesc};
use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

const NAME: &str = "InstanceNorm";

/// [`InstanceNorm`]'s configuration.
#[derive(Config, Debug)]
pub struct InstanceNormConfig {
    /// The number of channels.
    pub num_channels: usize,
    /// A value required for numerical stability. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Whether there are learnable parameters for each channel. Default: `true`
    #[config(default = true)]
    pub affine: bool,
    /// What is applied after the norm and the residual. Default: `Activation::None`
    #[config(default = "Activation::None")]
    pub activation: Activation,
}

/// Instance normalization ([Ulyanov et al. 2016](https://arxiv.org/abs/1607.08022)), as burn's `InstanceNorm`.
#[derive(Module, Debug)]
pub struct InstanceNorm {
    /// The learnable weight gamma, `[num_channels]`, if affine.
    pub gamma: Option<Param<Tensor<1>>>,
    /// The learnable bias beta, `[num_channels]`, if affine.
    pub beta: Option<Param<Tensor<1>>>,
    /// The number of channels.
    pub num_channels: usize,
    /// A value required for numerical stability.
    pub epsilon: f64,
    /// What is applied after the norm and the residual.
    #[module(skip)]
    pub activation: Activation,
}

impl InstanceNormConfig {
    /// Makes an [`InstanceNorm`] on a device.
    ///
    /// # Panics
    ///
    /// Panics if `num_channels` is zero, or `epsilon` negative or not finite.
    pub fn init(&self, device: &Device) -> InstanceNorm {
        let [gamma, beta] = match self.affine {
            true => affine(self.num_channels, device).map(Some),
            false => [None, None],
        };
        let norm = InstanceNorm {
            gamma,
            beta,
            num_channels: self.num_channels,
            epsilon: self.epsilon,
            activation: self.activation,
        };
        checked(NAME, norm.desc());
        norm
    }
}

impl InstanceNorm {
    /// activation(norm(input)).
    ///
    /// # Shapes
    ///
    /// - `input`: `[batch_size, num_channels, ...]`
    /// - `output`: as `input`
    ///
    /// # Panics
    ///
    /// Panics if the input has a rank below 2, if its second axis is not `num_channels`, or if there is one value
    /// for each sample and channel.
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
        NormDesc::instance_norm(self.num_channels)
            .with_eps(self.epsilon as f32)
            .with_weight(self.gamma.is_some())
            .with_bias(self.beta.is_some())
    }

    fn call<const D: usize>(&self, x: Tensor<D>, residual: Option<Tensor<D>>) -> Tensor<D> {
        let call = Normalize {
            norm: self.desc(),
            mode: Mode::Train,
            x,
            residual,
            activation: self.activation,
            parameters: Parameters {
                weight: self.gamma.as_ref().map(Param::val),
                bias: self.beta.as_ref().map(Param::val),
                ..Parameters::default()
            },
            running: None,
        };
        call.run(NAME).0
    }
}
