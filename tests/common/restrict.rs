//! A large problem, looked at through some of its groups. A group's channels take part in nothing
//! but their group, over all samples: they are a problem of their own, small enough for the oracle.

use super::problem::{Problem, Random};
use super::run::Outputs;
use std::collections::BTreeMap;

impl Problem {
    /// Channels of a group, times samples: the problem of these groups alone.
    pub fn restricted(&self, groups: &[usize]) -> Problem {
        let channels = self.channels_of(groups);
        let mut dims = self.dims.clone();
        dims[1] = channels.len();
        let mut norm = self.norm;
        norm.num_channels = channels.len();
        norm.num_groups = groups.len();
        let per_channel = |values: &[f32]| channels.iter().map(|&c| values[c]).collect();
        let per_group = |values: &[f32]| groups.iter().map(|&g| values[g]).collect();
        Problem {
            dims,
            norm,
            mode: self.mode,
            x: self.rows_of(&self.x, &channels),
            grad_y: self.rows_of(&self.grad_y, &channels),
            bn_weight: per_channel(&self.bn_weight),
            bn_bias: per_channel(&self.bn_bias),
            weight: per_group(&self.weight),
            bias: per_group(&self.bias),
            running_mean: per_channel(&self.running_mean),
            running_var: per_channel(&self.running_var),
            num_batches_tracked: self.num_batches_tracked,
        }
    }

    /// What of the outputs belongs to these groups.
    pub fn restrict_outputs(&self, outputs: &Outputs, groups: &[usize]) -> Outputs {
        let channels = self.channels_of(groups);
        let restrict = |(&name, values): (&&'static str, &Vec<f32>)| {
            let values = match name {
                "y" | "grad_x" => self.rows_of(values, &channels),
                "grad_weight" | "grad_bias" => groups.iter().map(|&g| values[g]).collect(),
                _ => channels.iter().map(|&c| values[c]).collect(),
            };
            (name, values)
        };
        outputs.iter().map(restrict).collect::<BTreeMap<_, _>>()
    }

    fn channels_of(&self, groups: &[usize]) -> Vec<usize> {
        let size = self.norm.num_channels / self.norm.num_groups;
        let channels = groups.iter().flat_map(|&g| g * size..(g + 1) * size);
        channels.collect()
    }

    fn rows_of(&self, values: &[f32], channels: &[usize]) -> Vec<f32> {
        let tensor = self.tensor();
        let len = tensor.row_len() as usize;
        let rows = (0..self.dims[0]).flat_map(|n| channels.iter().map(move |&c| (n, c)));
        rows.flat_map(|(n, c)| &values[(n * self.norm.num_channels + c) * len..][..len])
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::{compare, run};

    /// The oracle on some groups is the oracle on all of them, seen through these groups.
    #[test]
    fn groups_are_problems_of_their_own() {
        let problem = Problem::random(&[3, 12, 7], 4, 5);
        let groups = [1, 3];
        let whole = run::expected(&problem);
        let as_f32 = whole
            .iter()
            .map(|(&name, (values, _))| (name, values.iter().map(|&v| v as f32).collect()));
        let part = problem.restrict_outputs(&as_f32.collect(), &groups);
        for (name, (values, scale)) in run::expected(&problem.restricted(&groups)) {
            compare::assert_close(name, &part[name], &values, scale, 1e-7);
        }
    }
}
