//! One call of a norm: checked, then by bcnorm's kernels where the device is known and by burn's operations elsewhere.

use crate::context::{Context, Key};
use crate::fallback;
use crate::op::{NormForward, Operands};
use bcnorm::{DType, Error, Fusion, Mode, NormDesc, NormKind, TensorDesc};
use burn::backend::Dispatch;
use burn::config::Config;
use burn::tensor::{DType as BurnDType, FloatDType, Tensor};

/// What a module applies after the norm and the residual, in the same kernel.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// max(t, 0).
    Relu,
    /// t / (1 + exp(-t)), SiLU.
    Silu,
}

impl Activation {
    fn desc(self) -> bcnorm::Activation {
        match self {
            Activation::None => bcnorm::Activation::None,
            Activation::Relu => bcnorm::Activation::Relu,
            Activation::Silu => bcnorm::Activation::Silu,
        }
    }
}

/// The arguments of a call, y = activation(norm(x) + residual).
pub(crate) struct Normalize<const D: usize> {
    pub norm: NormDesc,
    pub mode: Mode,
    pub x: Tensor<D>,
    pub residual: Option<Tensor<D>>,
    pub activation: Activation,
    pub parameters: Parameters,
    /// Mean and variance, where the norm has them.
    pub running: Option<[Tensor<1>; 2]>,
}

/// Those that the norm has.
#[derive(Default)]
pub(crate) struct Parameters {
    pub weight: Option<Tensor<1>>,
    pub bias: Option<Tensor<1>>,
    pub bn_weight: Option<Tensor<1>>,
    pub bn_bias: Option<Tensor<1>>,
}

impl Parameters {
    fn map(self, f: impl Fn(Tensor<1>) -> Tensor<1>) -> Self {
        let Self {
            weight,
            bias,
            bn_weight,
            bn_bias,
        } = self;
        Self {
            weight: weight.map(&f),
            bias: bias.map(&f),
            bn_weight: bn_weight.map(&f),
            bn_bias: bn_bias.map(&f),
        }
    }
}

/// What a call refuses, as burn's modules do: with a panic, of `module`.
pub(crate) fn or_panic<T>(module: &str, result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{module}: {error}"))
}

/// The residual has the input's shape and type.
pub(crate) fn check_residual<const D: usize>(
    module: &str,
    x: &Tensor<D>,
    residual: Option<&Tensor<D>>,
) {
    let Some(residual) = residual else { return };
    let [given, wanted] = [residual, x].map(|tensor| (tensor.dims(), tensor.dtype()));
    assert!(
        given == wanted,
        "{module}: the residual has shape {:?} and type {:?}, and the input {:?} and {:?}: give it the input's",
        given.0,
        given.1,
        wanted.0,
        wanted.1,
    );
}

impl<const D: usize> Normalize<D> {
    /// y, and the running statistics after it where there are any.
    ///
    /// # Panics
    /// Where the shapes do not fit the norm, or the device refuses a plan.
    pub fn run(self, module: &str) -> (Tensor<D>, Option<[Tensor<1>; 2]>) {
        let dims = self.x.dims();
        let desc = match self.norm.kind {
            NormKind::WeightStandardization => TensorDesc::filters(&dims),
            _ => TensorDesc::new(&dims),
        };
        let desc = or_panic(module, desc);
        or_panic(module, self.norm.validate_for(&desc, self.mode));
        check_residual(module, &self.x, self.residual.as_ref());
        let device = self.x.device();
        let stored = match self.x.dtype() {
            BurnDType::F32 => Some(DType::F32),
            BurnDType::F16 => Some(DType::F16),
            BurnDType::BF16 => Some(DType::BF16),
            _ => None,
        };
        // Parameters and statistics are f32 beside tensors of 16 bits.
        let widened = |tensor: Tensor<1>| match tensor.dtype() {
            BurnDType::F16 | BurnDType::BF16 => tensor.cast(FloatDType::F32),
            _ => tensor,
        };
        let (x, residual) = (self.x, self.residual);
        let parameters = self.parameters.map(widened);
        let before = self.running.as_ref().map(|[mean, _]| mean.dtype());
        let running = self
            .running
            .map(|statistics| statistics.map(|t| widened(t.to_device(&device).detach())));
        let (y, running) = match (Context::of(&device), stored) {
            (Some(context), Some(stored)) => {
                let fusion = Fusion::NONE
                    .with_activation(self.activation.desc())
                    .with_residual(residual.is_some());
                let optional = [
                    &parameters.weight,
                    &parameters.bias,
                    &parameters.bn_weight,
                    &parameters.bn_bias,
                ];
                let key = Key {
                    norm: self.norm,
                    tensor: desc.with_dtype(stored),
                    mode: self.mode,
                    fusion,
                    tracked: x.is_tracked()
                        || residual.as_ref().is_some_and(Tensor::is_tracked)
                        || optional
                            .iter()
                            .any(|t| t.as_ref().is_some_and(Tensor::is_tracked)),
                };
                native(module, &context, &key, x, residual, parameters, running)
            }
            _ => {
                let dtype = x.dtype();
                let wide = |tensor: Tensor<D>| match dtype {
                    BurnDType::F16 | BurnDType::BF16 => tensor.cast(FloatDType::F32),
                    _ => tensor,
                };
                let (z, running) =
                    fallback::norm(&self.norm, self.mode, wide(x), parameters, running);
                let z = match residual {
                    Some(residual) => z + wide(residual),
                    None => z,
                };
                let y = match self.activation {
                    Activation::None => z,
                    Activation::Relu => burn::tensor::activation::relu(z),
                    Activation::Silu => burn::tensor::activation::silu(z),
                };
                (y.cast(FloatDType::from(dtype)), running)
            }
        };
        let running = running.zip(before).map(|(running, dtype)| {
            running.map(|statistic| statistic.cast(FloatDType::from(dtype)).detach())
        });
        (y, running)
    }
}

fn native<const D: usize>(
    module: &str,
    context: &std::sync::Arc<Context>,
    key: &Key,
    x: Tensor<D>,
    residual: Option<Tensor<D>>,
    parameters: Parameters,
    running: Option<[Tensor<1>; 2]>,
) -> (Tensor<D>, Option<[Tensor<1>; 2]>) {
    let call = or_panic(module, context.call(key));
    // A slot that the norm has no use for.
    let unused = x.clone().detach().into_dispatch();
    let slot = |tensor: Option<Tensor<1>>| match tensor {
        Some(tensor) => tensor.into_dispatch(),
        None => unused.clone(),
    };
    let Parameters {
        weight,
        bias,
        bn_weight,
        bn_bias,
    } = parameters;
    let tracked = running.is_some();
    let [mean, var] = match running {
        Some(running) => running.map(Some),
        None => [None, None],
    };
    let operands = Operands::<Dispatch> {
        x: x.into_dispatch(),
        weight: slot(weight),
        bias: slot(bias),
        bn_weight: slot(bn_weight),
        bn_bias: slot(bn_bias),
        residual: residual.map_or_else(|| unused.clone(), Tensor::into_dispatch),
    };
    let (y, mean, var) =
        <Dispatch as NormForward>::norm_forward(operands, slot(mean), slot(var), call);
    let running = tracked.then(|| [mean, var].map(Tensor::from_dispatch));
    (Tensor::from_dispatch(y), running)
}
