//! A small network that trains: by the kernels beside burn's convolutions, as by burn's operations on a CPU.

use crate::common::{devices, difference, read, tensor, values};
use bcnorm_burn::{
    Activation, BatchNorm, BatchNormConfig, BcNorm, BcNormConfig, LayerNorm, LayerNormConfig,
    weight_standardization,
};
use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Gradients, Tensor, TensorData};

/// A residual block whose second norm is used twice, on a standardized convolution, and a head.
#[derive(Module, Debug)]
struct Network {
    stem: Conv2d,
    first: BcNorm,
    inner: Conv2d,
    second: BatchNorm,
    head: Linear,
    last: LayerNorm,
}

impl Network {
    fn new(device: &Device) -> Self {
        let conv = |channels| {
            let config = Conv2dConfig::new(channels, [3, 3]);
            let config = config.with_padding(PaddingConfig2d::Same);
            // The norm behind it takes a bias away.
            config.with_bias(false).init(device)
        };
        let network = Self {
            stem: conv([3, 8]),
            first: BcNormConfig::new(2, 8)
                .with_activation(Activation::Silu)
                .init(device),
            inner: conv([8, 8]),
            second: BatchNormConfig::new(8)
                .with_activation(Activation::Relu)
                .init(device),
            head: LinearConfig::new(8, 5).init(device),
            last: LayerNormConfig::new(5).init(device),
        };
        // The same on every device.
        network.map(&mut Seeded(100))
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let options = || ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let x = self.first.forward(self.stem.forward(images));
        let standardized = weight_standardization(self.inner.weight.val(), 1e-5);
        let mut y = x.clone();
        for _ in 0..2 {
            let inner = conv2d(y, standardized.clone(), None, options());
            y = self.second.forward_with_residual(inner, x.clone());
        }
        let [samples, channels, ..] = y.dims();
        let pooled = y.reshape([samples, channels, 64]).mean_dim(2);
        let pooled = pooled.reshape([samples, channels]);
        self.last.forward(self.head.forward(pooled))
    }
}

/// Parameters by seeds.
struct Seeded(u64);

impl burn::module::ModuleMapper for Seeded {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1;
        let (dims, seed) = (param.shape().dims::<D>(), self.0);
        param.map(|tensor| {
            let device = tensor.device();
            let values = values(dims.iter().product(), seed);
            // Positive, for running variances.
            let values: Vec<_> = values.iter().map(|v| 0.4 * v + 0.9).collect();
            Tensor::from_data(TensorData::new(values, dims), &device).require_grad()
        })
    }
}

/// Every gradient, in the order of the parameters.
struct Collected<'a> {
    gradients: &'a Gradients,
    found: Vec<Vec<f32>>,
}

impl burn::module::ModuleVisitor for Collected<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.found.push(read(&gradient));
        }
    }
}

#[test]
fn gradients_of_a_network() {
    let [got, expected] = devices().map(|(_, device)| {
        let device = device.autodiff();
        let network = Network::new(&device);
        let images = tensor([4, 3, 8, 8], 7, &device).require_grad();
        let logits = network.forward(images.clone());
        let loss = (logits.clone() * tensor([4, 5], 8, &device)).sum();
        let gradients = loss.backward();
        let mut collected = Collected {
            gradients: &gradients,
            found: vec![read(&logits), read(&images.grad(&gradients).unwrap())],
        };
        network.visit(&mut collected);
        collected.found
    });
    // y, x, two convolutions, 4 + 2 of norms, the linear layer's two, 2 of the last norm.
    assert_eq!(got.len(), 2 + 2 + 6 + 2 + 2);
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let difference = difference(got, expected);
        assert!(difference < 1e-4, "{index}: {difference:e}");
    }
}
