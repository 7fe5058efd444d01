//! One normalization to compute: from a golden file, or drawn at random.

use super::golden::{Golden, Stats};
use bcnorm::{BcNormDesc, ChannelStats, Mode, TensorDesc, oracle};

#[derive(Debug, Clone)]
pub struct Problem {
    pub dims: Vec<usize>,
    pub norm: BcNormDesc,
    pub mode: Mode,
    pub x: Vec<f32>,
    pub grad_y: Vec<f32>,
    pub bn_weight: Vec<f32>,
    pub bn_bias: Vec<f32>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub running_mean: Vec<f32>,
    pub running_var: Vec<f32>,
    pub num_batches_tracked: u32,
}

/// A small generator (PCG, O'Neill 2014): tests need repeatable data, not a dependency.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
        random.next();
        random
    }

    fn next(&mut self) -> u32 {
        let old = self.0;
        self.0 = old
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((((old >> 18) ^ old) >> 27) as u32).rotate_right((old >> 59) as u32)
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 8) as f32 / (1 << 24) as f32
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() as usize) % n
    }

    /// Mean 0, standard deviation 1: the sum of 12 uniforms, less 6 (never beyond 6).
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    pub fn normals(&mut self, len: usize, mean: f32, std: f32) -> Vec<f32> {
        (0..len).map(|_| mean + std * self.normal()).collect()
    }
}

impl Problem {
    /// Random data with mean 3 and deviation 2, random parameters and running statistics.
    pub fn random(dims: &[usize], num_groups: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let channels = dims[1];
        let len = dims.iter().product();
        Self {
            dims: dims.to_vec(),
            norm: BcNormDesc::new(channels, num_groups),
            mode: Mode::Train,
            x: random.normals(len, 3.0, 2.0),
            grad_y: random.normals(len, 0.0, 1.0),
            bn_weight: random.normals(channels, 1.0, 0.3),
            bn_bias: random.normals(channels, 0.0, 0.3),
            weight: random.normals(num_groups, 1.0, 0.3),
            bias: random.normals(num_groups, 0.0, 0.3),
            running_mean: random.normals(channels, 3.0, 0.5),
            running_var: (0..channels)
                .map(|_| 1.0 + 4.0 * random.uniform())
                .collect(),
            num_batches_tracked: 3,
        }
    }

    pub fn from_golden(golden: &Golden) -> Self {
        let tensor = |name: &str| golden.tensors[name].clone();
        let channels = golden.dims[1];
        let stats = match golden.stats {
            Stats::Batch => ChannelStats::Batch {
                momentum: golden.momentum.map(|m| m as f32),
            },
            Stats::Estimate => ChannelStats::Estimate {
                moving_speed: golden.moving_speed as f32,
            },
        };
        Self {
            dims: golden.dims.clone(),
            norm: BcNormDesc::new(channels, golden.num_groups)
                .with_eps(golden.eps)
                .with_stats(stats),
            mode: if golden.training {
                Mode::Train
            } else {
                Mode::Eval
            },
            x: tensor("x"),
            grad_y: tensor("grad_y"),
            bn_weight: tensor("bn.weight"),
            bn_bias: tensor("bn.bias"),
            weight: tensor("weight"),
            bias: tensor("bias"),
            running_mean: tensor("bn.running_mean"),
            running_var: tensor("bn.running_var"),
            num_batches_tracked: 0,
        }
    }

    /// The parameters and the state of a new layer.
    pub fn with_fresh_state(self) -> Self {
        let (channels, groups) = (self.norm.num_channels, self.norm.num_groups);
        Self {
            bn_weight: vec![1.0; channels],
            bn_bias: vec![0.0; channels],
            weight: vec![1.0; groups],
            bias: vec![0.0; groups],
            running_mean: vec![0.0; channels],
            running_var: vec![1.0; channels],
            num_batches_tracked: 0,
            ..self
        }
    }

    pub fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    pub fn with_stats(mut self, stats: ChannelStats) -> Self {
        self.norm.stats = stats;
        self
    }

    pub fn tensor(&self) -> TensorDesc {
        TensorDesc::new(&self.dims).unwrap()
    }

    /// The f64 answer.
    pub fn oracle(&self) -> oracle::Output {
        let tensor = self.tensor();
        oracle::bcnorm(&oracle::Input {
            num_samples: tensor.num_samples() as usize,
            num_channels: tensor.num_channels() as usize,
            row_len: tensor.row_len() as usize,
            num_groups: self.norm.num_groups,
            eps: f64::from(self.norm.eps),
            stats: match self.norm.stats {
                ChannelStats::Estimate { moving_speed } => oracle::Stats::Estimate {
                    moving_speed: f64::from(moving_speed),
                },
                ChannelStats::Batch { momentum } => oracle::Stats::Batch {
                    momentum: momentum.map(f64::from),
                },
                other => panic!("no oracle for {other:?}"),
            },
            training: self.mode == Mode::Train,
            x: &self.x,
            grad_y: Some(&self.grad_y),
            bn_weight: &self.bn_weight,
            bn_bias: &self.bn_bias,
            weight: &self.weight,
            bias: &self.bias,
            running_mean: &self.running_mean,
            running_var: &self.running_var,
            num_batches_tracked: u64::from(self.num_batches_tracked),
        })
    }
}
