//! A large problem, looked at through some of its groups. A group's channels take part in nothing
//! but their group, over all samples: they are a problem of their own, small enough for the oracle.
//! Of norms without a group part every channel is one.

use crate::outputs::Outputs;
use crate::problem::Problem;
use crate::random::Random;
use bcnorm::NormKind;

impl Problem {
    /// Channels that depend on each other, each as many: groups, or single channels.
    pub fn num_parts(&self) -> usize {
        match self.norm.kind {
            NormKind::BcNorm | NormKind::GroupNorm => self.norm.num_groups,
            NormKind::LayerNorm | NormKind::WeightStandardization => 1,
            _ => self.norm.num_channels,
        }
    }

    /// Channels of these parts, times samples: the problem of these parts alone.
    #[must_use]
    pub fn restricted(&self, parts: &[usize]) -> Problem {
        let channels = self.channels_of(parts);
        let mut dims = self.dims.clone();
        dims[1] = channels.len();
        let mut norm = self.norm;
        norm.num_channels = channels.len();
        norm.num_groups = match norm.kind {
            NormKind::BcNorm | NormKind::GroupNorm => parts.len(),
            NormKind::InstanceNorm => channels.len(),
            _ => 1,
        };
        let of_channels = |values: &[f32]| picked(values, &channels);
        let of_affine = |values: &[f32]| picked(values, self.affine_of(parts, &channels));
        Problem {
            dims,
            norm,
            x: self.rows_of(&self.x, &channels),
            residual: self.rows_of(&self.residual, &channels),
            grad_y: self.rows_of(&self.grad_y, &channels),
            bn_weight: of_channels(&self.bn_weight),
            bn_bias: of_channels(&self.bn_bias),
            weight: of_affine(&self.weight),
            bias: of_affine(&self.bias),
            running_mean: of_channels(&self.running_mean),
            running_var: of_channels(&self.running_var),
            ..*self
        }
    }

    /// What of the outputs belongs to these parts. What is missing of an output is missing here.
    pub fn restrict_outputs(&self, outputs: &Outputs, parts: &[usize]) -> Outputs {
        let channels = self.channels_of(parts);
        let restrict = |(&name, values): (&&'static str, &Vec<f32>)| {
            let values = match name {
                "y" | "grad_x" | "grad_residual" => self.rows_of(values, &channels),
                "grad_weight" | "grad_bias" => picked(values, self.affine_of(parts, &channels)),
                _ => picked(values, &channels),
            };
            (name, values)
        };
        outputs.iter().map(restrict).collect()
    }

    fn channels_of(&self, parts: &[usize]) -> Vec<usize> {
        let size = self.norm.num_channels / self.num_parts();
        let channels = parts
            .iter()
            .flat_map(|&part| part * size..(part + 1) * size);
        channels.collect()
    }

    /// Entries of `weight` and `bias`.
    fn affine_of<'a>(&self, parts: &'a [usize], channels: &'a [usize]) -> &'a [usize] {
        match self.norm.kind {
            NormKind::BcNorm if !self.norm.per_channel_affine => parts,
            _ => channels,
        }
    }

    fn rows_of(&self, values: &[f32], channels: &[usize]) -> Vec<f32> {
        let len = self.tensor().row_len() as usize;
        let rows = (0..self.dims[0]).flat_map(|n| channels.iter().map(move |&c| (n, c)));
        rows.filter_map(|(n, c)| {
            let start = (n * self.norm.num_channels + c) * len;
            values.get(start..start + len)
        })
        .flatten()
        .copied()
        .collect()
    }

    /// As [`random`](Self::random), for tensors that take long to draw: 2^20 - 3 values of each
    /// kind (a prime), repeated, every row with a mean of its own.
    pub fn random_large(dims: &[usize], num_groups: usize, seed: u64) -> Self {
        const PERIOD: usize = (1 << 20) - 3;
        let mut random = Random::new(seed);
        let small = Problem::random(&[1, dims[1], 1], num_groups, seed);
        let rows = dims[0] * dims[1];
        let len: usize = dims[2..].iter().product();
        let (x, grad_y) = (
            random.normals(PERIOD, 3.0, 2.0),
            random.normals(PERIOD, 0.0, 1.0),
        );
        let means = random.normals(rows, 0.0, 0.5);
        let x = (0..rows * len).map(|i| x[i % PERIOD] + means[i / len]);
        Problem {
            dims: dims.to_vec(),
            x: x.collect(),
            grad_y: grad_y.iter().copied().cycle().take(rows * len).collect(),
            ..small
        }
    }
}

/// Those entries of a parameter that are there: none of an absent one.
fn picked(values: &[f32], indices: &[usize]) -> Vec<f32> {
    let picked = indices.iter().filter_map(|&i| values.get(i));
    picked.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare;
    use crate::expected::expected;
    use bcnorm::{Activation, Fusion, NormDesc};

    /// The oracle on some parts is the oracle on all of them, seen through these parts.
    #[test]
    fn groups_are_problems_of_their_own() {
        let fusion = Fusion::NONE
            .with_activation(Activation::Silu)
            .with_residual(true);
        for norm in [
            NormDesc::bc_norm(12, 4),
            NormDesc::bc_norm(12, 4).with_per_channel_affine(true),
            NormDesc::group_norm(4, 12),
            NormDesc::batch_norm(12),
            NormDesc::est_bn(12).with_moving_speed(0.2),
            NormDesc::instance_norm(12)
                .with_weight(true)
                .with_bias(false),
        ] {
            let problem = Problem::random_of(norm, &[3, 12, 7], 5).with_fusion(fusion);
            let parts = [1, 3];
            let whole = expected(&problem);
            let as_f32 = whole
                .iter()
                .map(|(&name, (values, _))| (name, values.iter().map(|&v| v as f32).collect()));
            let some = problem.restrict_outputs(&as_f32.collect(), &parts);
            let restricted = problem.restricted(&parts);
            restricted.check().unwrap();
            let of_some = expected(&restricted);
            assert_eq!(of_some.len(), some.len());
            for (name, (values, scale)) in of_some {
                compare::assert_close(name, &some[name], &values, scale, 1e-7);
            }
        }
    }
}
