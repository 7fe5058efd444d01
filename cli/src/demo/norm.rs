//! The call that the demo makes: parameters, and the gradient that backward starts from.

use super::filters::CHANNELS;
use crate::case::Problem;
use bcnorm::{ChannelStats, NormDesc};
use rayon::prelude::*;

/// The statistics that normalize the channels.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stats {
    /// Those of the batch, as BatchNorm2d
    Batch,
    /// Running estimates, as the authors' EstBN (at moving speed 0.5)
    Estimate,
}

impl Stats {
    pub fn channel_stats(self) -> ChannelStats {
        match self {
            Stats::Batch => ChannelStats::default(),
            Stats::Estimate => ChannelStats::Estimate { moving_speed: 0.5 },
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Stats::Batch => "batch statistics, momentum 0.1",
            Stats::Estimate => "estimated statistics, moving speed 0.5",
        }
    }
}

/// A training call on feature maps of `count` photographs, forward only. The parameters are no
/// ones and zeros, as if some training had moved them; the running statistics are a new layer's.
pub fn case(
    maps: Vec<f32>,
    count: usize,
    (width, height): (usize, usize),
    groups: usize,
    stats: Stats,
) -> Problem {
    let norm = NormDesc::bc_norm(CHANNELS, groups).with_stats(stats.channel_stats());
    Problem {
        bn_weight: spread(CHANNELS, 0.8, 1.2, 1),
        bn_bias: spread(CHANNELS, -0.2, 0.2, 2),
        weight: spread(groups, 0.9, 1.1, 3),
        bias: spread(groups, -0.1, 0.1, 4),
        ..Problem::new(norm, &[count, CHANNELS, height, width], maps)
    }
}

/// Numbers between two bounds, the same ones each time: multiples of the golden ratio, less the
/// whole part.
fn spread(count: usize, low: f64, high: f64, seed: usize) -> Vec<f32> {
    let golden = 0.618_033_988_749_895;
    let share = |i: usize| ((i + 100 * seed) as f64 * golden).fract();
    (0..count)
        .map(|i| (low + share(i) * (high - low)) as f32)
        .collect()
}

/// What [`loss_gradient`] differentiates, for people.
pub const LOSS: &str = "half the sum of max(y, 0)² and of squared differences of neighbours";

/// The gradient of a loss that is as low as maps are smooth and sparse: half the sum of max(y, 0)²
/// and of the squared differences of horizontal and vertical neighbours.
pub fn loss_gradient(y: &[f32], (width, height): (usize, usize)) -> Vec<f32> {
    let mut gradient = vec![0.0; y.len()];
    let area = (width * height).max(1);
    let planes = y
        .par_chunks_exact(area)
        .zip(gradient.par_chunks_exact_mut(area));
    planes.for_each(|(y, gradient)| {
        for (i, (&value, gradient)) in y.iter().zip(gradient).enumerate() {
            let (column, row) = (i % width, i / width);
            let neighbours = [
                (column > 0).then(|| y[i - 1]),
                (column + 1 < width).then(|| y[i + 1]),
                (row > 0).then(|| y[i - width]),
                (row + 1 < height).then(|| y[i + width]),
            ];
            let differences = neighbours.into_iter().flatten().map(|other| value - other);
            *gradient = differences.fold(value.max(0.0), |sum, difference| sum + difference);
        }
    });
    gradient
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(y: &[f64], width: usize) -> f64 {
        let positive: f64 = y.iter().map(|v| v.max(0.0).powi(2)).sum();
        let across: f64 = y
            .chunks(width)
            .flat_map(|row| row.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)))
            .sum();
        let down: f64 = y
            .iter()
            .zip(&y[width..])
            .map(|(a, b)| (b - a).powi(2))
            .sum();
        0.5 * (positive + across + down)
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let (width, height) = (4, 3);
        let y: Vec<f64> = (0..12).map(|i| (f64::from(i) * 1.7).sin()).collect();
        let single: Vec<f32> = y.iter().map(|&v| v as f32).collect();
        let gradient = loss_gradient(&single, (width, height));
        for i in 0..12 {
            let moved = |step: f64| {
                let mut y = y.clone();
                y[i] += step;
                loss(&y, width)
            };
            let difference = (moved(1e-4) - moved(-1e-4)) / 2e-4;
            assert!((difference - f64::from(gradient[i])).abs() < 1e-4, "{i}");
        }
    }

    #[test]
    fn planes_do_not_see_each_other() {
        let one = loss_gradient(&[1.0, -2.0], (2, 1));
        let two = loss_gradient(&[1.0, -2.0, 5.0, 7.0], (2, 1));
        assert_eq!(one, [4.0, -3.0]);
        assert_eq!(two[..2], one);
        assert_eq!(loss_gradient(&[3.0], (1, 1)), [3.0]);
    }

    #[test]
    fn parameters_are_spread_and_repeatable() {
        let case = case(vec![0.0; 64], 1, (2, 1), 8, Stats::Batch);
        case.check().unwrap();
        assert!(case.bn_weight.iter().all(|v| (0.8..1.2).contains(v)));
        assert_ne!(case.bn_weight[0], case.bn_weight[1]);
        assert_ne!(case.weight[0], case.weight[1]);
    }
}
