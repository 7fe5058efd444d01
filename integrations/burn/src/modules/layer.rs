use super::checked;
use crate::normalize::{Activation, Normalize, Parameters, check_residual};
use bcnorm::{Mode, NormDesc};
use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

const NAME: &str = "LayerNorm";

/// [`LayerNorm`]'s configuration.
#[derive(Config, Debug)]
pub struct LayerNormConfig {
    /// The size of the input features, the last axis.
    pub d_model: usize,
    /// A value required for numerical stability. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Whether there is a bias. Default: `true`
    #[config(default = true)]
    pub bias: bool,
    /// What is applied after the norm and the residual. Default: `Activation::None`
    #[config(default = "Activation::None")]
    pub activation: Activation,
}

/// Layer normalization over the last axis ([Ba et al. 2016](https://arxiv.org/abs/1607.06450)), as burn's `LayerNorm`.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// The learnable weight gamma, `[d_model]`.
    pub gamma: Param<Tensor<1>>,
    /// The learnable bias beta, `[d_model]`, if there is one.
    pub beta: Option<Param<Tensor<1>>>,
    /// A value required for numerical stability.
    pub epsilon: f64,
    /// What is applied after the norm and the residual.
    #[module(skip)]
    pub activation: Activation,
}

impl LayerNormConfig {
    /// Makes a [`LayerNorm`] on a device.
    ///
    /// # Panics
    ///
    /// Panics if `d_model` is zero, or `epsilon` negative or not finite.
    pub fn init(&self, device: &Device) -> LayerNorm {
        let norm = LayerNorm {
            gamma: Initializer::Ones.init([self.d_model], device),
            beta: self
                .bias
                .then(|| Initializer::Zeros.init([self.d_model], device)),
            epsilon: self.epsilon,
            activation: self.activation,
        };
        checked(NAME, norm.desc());
        norm
    }
}

impl LayerNorm {
    /// activation(norm(input)).
    ///
    /// # Shapes
    ///
    /// - `input`: `[..., d_model]`
    /// - `output`: as `input`
    ///
    /// # Panics
    ///
    /// Panics if the last axis is not `d_model`.
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
        let [d_model] = self.gamma.shape().dims();
        NormDesc::layer_norm(d_model)
            .with_eps(self.epsilon as f32)
            .with_bias(self.beta.is_some())
    }

    fn call<const D: usize>(&self, x: Tensor<D>, residual: Option<Tensor<D>>) -> Tensor<D> {
        // Before axes are joined.
        check_residual(NAME, &x, residual.as_ref());
        let dims = x.dims();
        // The core's samples: all axes but the last.
        let flat = |tensor: Tensor<D>| -> Tensor<2> {
            let dims = tensor.dims();
            tensor.reshape([dims[..D - 1].iter().product(), dims[D - 1]])
        };
        let call = Normalize {
            norm: self.desc(),
            mode: Mode::Train,
            x: flat(x),
            residual: residual.map(flat),
            activation: self.activation,
            parameters: Parameters {
                weight: Some(self.gamma.val()),
                bias: self.beta.as_ref().map(Param::val),
                ..Parameters::default()
            },
            running: None,
        };
        call.run(NAME).0.reshape(dims)
    }
}
