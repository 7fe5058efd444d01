//! Shapes to measure, and data of those shapes.

use crate::case::Problem;
use crate::request::describe_norm;
use anyhow::{Result, ensure};
use bcnorm::{DType, Layout, NormDesc, NormKind, TensorDesc};
use std::fmt;

/// A shape (N, C, *spatial) and its groups.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// (N, C, *spatial).
    pub dims: Vec<usize>,
    /// The norm that is measured. The speed of est_bn is 0, as at the start of a training: what
    /// normalizes stays as it is, and so do the results of repeated calls, which are compared.
    pub norm: NormDesc,
    /// How the tensors are stored.
    pub dtype: DType,
    /// Their order in memory.
    pub layout: Layout,
}

/// 256 MiB of f32.
const MAX_ELEMENTS: u64 = 1 << 26;

impl Shape {
    /// A shape with a norm. Without a number of groups: 32, or the largest divisor of C below.
    pub fn new(kind: NormKind, dims: &[usize], groups: Option<usize>) -> Result<Self> {
        let tensor = TensorDesc::new(dims)?;
        ensure!(
            tensor.elements() > 0,
            "a tensor of shape {dims:?} is empty: there is nothing to measure"
        );
        ensure!(
            tensor.elements() <= MAX_ELEMENTS,
            "a tensor of shape {dims:?} has {} elements; the f64 reference, which checks what is \
             timed, takes some 100 bytes for each: {MAX_ELEMENTS} at most",
            tensor.elements()
        );
        Ok(Self {
            dims: dims.to_vec(),
            norm: describe_norm(kind, dims[1], groups)?,
            dtype: DType::F32,
            layout: Layout::ChannelsFirst,
        })
    }

    /// Sets how the tensors are stored.
    pub fn with_storage(self, dtype: DType, layout: Layout) -> Self {
        Self {
            dtype,
            layout,
            ..self
        }
    }

    /// Bytes of one tensor.
    pub fn bytes(&self) -> u64 {
        self.dims.iter().product::<usize>() as u64 * self.dtype.bytes()
    }

    /// A problem of this shape without data.
    pub fn empty(&self) -> Problem {
        Problem::new(self.norm, &self.dims, Vec::new())
            .with_dtype(self.dtype)
            .with_layout(self.layout)
    }

    /// A training case of this shape: normal data, each channel with a mean and a deviation of its
    /// own; the same data on every run.
    pub fn case(&self) -> Problem {
        let mut random = Random(0x0bc0_0921);
        let channels = self.dims[1];
        let elements: usize = self.dims.iter().product();
        let row_len = elements / (self.dims[0] * channels);
        let mut vary = |len: usize, mean: f32, std: f32| -> Vec<f32> {
            (0..len).map(|_| mean + std * random.normal()).collect()
        };
        let means = vary(channels, 1.0, 3.0);
        let mut x = vary(elements, 0.0, 1.0);
        for (row, values) in x.chunks_exact_mut(row_len).enumerate() {
            let channel = row % channels;
            let std = 0.5 + (channel % 5) as f32;
            for value in values {
                *value = means[channel] + std * *value;
            }
        }
        let running_var = vary(channels, 2.0, 0.3);
        let grad_y = vary(elements, 0.1, 1.0);
        // The problem knows which parameters and statistics the norm has: those become random.
        let mut problem = Problem::new(self.norm, &self.dims, x).with_grad_y(grad_y);
        for (values, mean, std) in [
            (&mut problem.bn_weight, 1.0, 0.2),
            (&mut problem.bn_bias, 0.0, 0.3),
            (&mut problem.weight, 1.0, 0.2),
            (&mut problem.bias, 0.0, 0.3),
        ] {
            *values = vary(values.len(), mean, std);
        }
        for (value, mean) in problem.running_mean.iter_mut().zip(&means) {
            *value = mean + 0.1;
        }
        for (value, var) in problem.running_var.iter_mut().zip(running_var) {
            *value = var.abs();
        }
        problem.with_dtype(self.dtype).with_layout(self.layout)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.dims.iter().map(usize::to_string).collect();
        write!(f, "({})", sizes.join(", "))
    }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Nearly normal: the sum of four uniform numbers, scaled to variance 1.
    fn normal(&mut self) -> f32 {
        let bits = self.bits();
        let sum: f32 = (0..4)
            .map(|i| (bits >> (16 * i) & 0xffff) as f32 / 65_536.0 - 0.5)
            .sum();
        sum * 3f32.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let groups = |dims: &[usize], groups| Shape::new(NormKind::BcNorm, dims, groups);
        assert_eq!(groups(&[1, 48, 4], None).unwrap().norm.num_groups, 24);
        for (dims, given) in [
            (&[1, 12, 4][..], 5),
            (&[1, 12, 4], 0),
            (&[0, 12], 1),
            (&[1], 1),
        ] {
            groups(dims, Some(given)).unwrap_err();
        }
    }

    #[test]
    fn data_is_what_it_says() {
        let case = Shape::new(NormKind::BcNorm, &[3, 6, 50, 7], None)
            .unwrap()
            .case();
        case.check().unwrap();
        assert!(case.running_var.iter().all(|var| *var > 0.5));
        let mut random = Random(1);
        let values: Vec<f32> = (0..100_000).map(|_| random.normal()).collect();
        let mean = values.iter().sum::<f32>() / 1e5;
        let var = values.iter().map(|v| v * v).sum::<f32>() / 1e5;
        assert!(
            mean.abs() < 0.02 && (var - 1.0).abs() < 0.02,
            "{mean} {var}"
        );
    }
}
