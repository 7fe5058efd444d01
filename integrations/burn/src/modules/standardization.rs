use super::checked;
use crate::normalize::{Activation, Normalize, Parameters};
use bcnorm::{Mode, NormDesc};
use burn::tensor::Tensor;

const NAME: &str = "weight_standardization";

/// Weight Standardization ([Qiao et al. 2019](https://arxiv.org/abs/1903.10520)): each filter of a convolution less its
/// mean, divided by the square root of its unbiased variance plus epsilon (the paper's is 1e-5).
///
/// ```
/// use bcnorm_burn::weight_standardization;
/// use burn::tensor::module::conv2d;
/// use burn::tensor::ops::ConvOptions;
/// use burn::tensor::{Device, Distribution, Tensor};
///
/// let device = Device::default();
/// let x = Tensor::<4>::random([1, 3, 8, 8], Distribution::Default, &device);
/// let weight = Tensor::<4>::random([4, 3, 3, 3], Distribution::Default, &device);
/// let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
/// let y = conv2d(x, weight_standardization(weight, 1e-5), None, options);
/// assert_eq!(y.dims(), [1, 4, 8, 8]);
/// ```
///
/// # Shapes
///
/// - `weight`: `[channels_out, ...]`
/// - `output`: as `weight`
///
/// # Panics
///
/// Panics if a filter has one value, or if epsilon is negative or not finite.
pub fn weight_standardization<const D: usize>(weight: Tensor<D>, epsilon: f64) -> Tensor<D> {
    let norm = NormDesc::weight_standardization().with_eps(epsilon as f32);
    checked(NAME, norm);
    let call = Normalize {
        norm,
        mode: Mode::Train,
        x: weight,
        residual: None,
        activation: Activation::None,
        parameters: Parameters::default(),
        running: None,
    };
    call.run(NAME).0
}
