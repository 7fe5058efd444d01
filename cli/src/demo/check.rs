//! Every output against the f64 oracle, group by group on several threads.
//!
//! A norm of G groups is G norms of one group, each over its own channels: nothing crosses. So the
//! oracle, which has one thread, can be asked for each group alone. Errors are those of
//! [`crate::case::errors`]: the scale is that of the whole tensor.

use super::parallel;
use crate::case::{self, Case, Outputs};
use bcnorm::oracle;
use std::collections::BTreeMap;

/// Largest error that passes: the bar of the library's own tests for y. Golden vectors are held to
/// a lower one; here a mean of hundreds of standard deviations is possible.
pub const BAR: f64 = 5e-6;

/// How far a group's part of a tensor is off, and how large it is.
#[derive(Debug, Clone, Copy, Default)]
struct Deviation {
    absolute: f64,
    scale: f64,
}

impl Deviation {
    fn new(got: &[f32], expected: &[f64], scale: f64) -> Self {
        Self {
            // Of scale 1: the absolute difference, infinite where finite and non-finite meet.
            absolute: oracle::error(got, expected, 1.0),
            scale,
        }
    }

    fn plain(got: &[f32], expected: &[f64]) -> Self {
        Self::new(got, expected, oracle::scale(expected))
    }

    /// No absolute difference is NaN, so max hides none; a scale that is NaN or infinite stays.
    fn merge(self, other: Self) -> Self {
        Self {
            absolute: self.absolute.max(other.absolute),
            scale: if self.scale >= other.scale {
                self.scale
            } else {
                other.scale
            },
        }
    }

    fn error(self) -> f64 {
        oracle::element_error(self.absolute, 0.0, self.scale)
    }
}

/// The error of every output, by golden name. `done` is called after each group.
pub fn errors(
    case: &Case,
    outputs: &Outputs,
    done: &(dyn Fn() + Sync),
) -> BTreeMap<&'static str, f64> {
    let groups = parallel::map(0..case.num_groups, |g| {
        let expected = case::oracle(&part_of_case(case, g));
        let deviations = compare(case, g, outputs, &expected);
        done();
        (deviations, expected.num_batches_tracked)
    });
    let mut merged: BTreeMap<&'static str, Deviation> = BTreeMap::new();
    let mut counted = true;
    for (deviations, tracked) in groups {
        counted &= tracked == u64::from(outputs.num_batches_tracked);
        for (name, deviation) in deviations {
            let entry = merged.entry(name).or_default();
            *entry = entry.merge(deviation);
        }
    }
    let mut errors: BTreeMap<&'static str, f64> = merged
        .into_iter()
        .map(|(name, deviation)| (name, deviation.error()))
        .collect();
    let counter = if counted { 0.0 } else { f64::INFINITY };
    errors.insert("bn.num_batches_tracked_after", counter);
    errors
}

/// A group's rows of a tensor, sample by sample.
fn rows(values: &[f32], case: &Case, group: usize) -> Vec<f32> {
    let samples = case.dims.first().copied().unwrap_or(0);
    let len = values.len() / (samples * case.num_groups).max(1);
    let part = |n: usize| {
        let start = (n * case.num_groups + group) * len;
        values.get(start..start + len).unwrap_or_default()
    };
    (0..samples).flat_map(part).copied().collect()
}

/// A group's channels of a table.
fn channels<'a>(values: &'a [f32], case: &Case, group: usize) -> &'a [f32] {
    let len = case.num_channels() / case.num_groups;
    values
        .get(group * len..(group + 1) * len)
        .unwrap_or_default()
}

fn part_of_case(case: &Case, group: usize) -> Case {
    let channels = |values: &[f32]| channels(values, case, group).to_vec();
    let mut dims = case.dims.clone();
    dims[1] /= case.num_groups;
    Case {
        dims,
        num_groups: 1,
        x: rows(&case.x, case, group),
        grad_y: case.grad_y.as_ref().map(|grad_y| rows(grad_y, case, group)),
        bn_weight: channels(&case.bn_weight),
        bn_bias: channels(&case.bn_bias),
        weight: vec![case.weight[group]],
        bias: vec![case.bias[group]],
        running_mean: channels(&case.running_mean),
        running_var: channels(&case.running_var),
        ..*case
    }
}

fn compare(
    case: &Case,
    group: usize,
    outputs: &Outputs,
    expected: &oracle::Output,
) -> Vec<(&'static str, Deviation)> {
    let channels = |values: &[f32]| channels(values, case, group).to_vec();
    let one = |values: &[f32]| values.get(group..=group).unwrap_or_default().to_vec();
    let plain = Deviation::plain;
    let mut deviations = vec![
        ("y", plain(&rows(&outputs.y, case, group), &expected.y)),
        (
            "bn.running_mean_after",
            plain(&channels(&outputs.running_mean), &expected.running_mean),
        ),
        (
            "bn.running_var_after",
            plain(&channels(&outputs.running_var), &expected.running_var),
        ),
    ];
    match (&outputs.gradients, &expected.gradients) {
        (Some(got), Some(want)) => deviations.extend([
            ("grad_x", plain(&rows(&got.x, case, group), &want.x)),
            (
                "grad_bn.weight",
                Deviation::new(
                    &channels(&got.bn_weight),
                    &want.bn_weight,
                    want.bn_weight_scale,
                ),
            ),
            (
                "grad_bn.bias",
                Deviation::new(&channels(&got.bn_bias), &want.bn_bias, want.bn_bias_scale),
            ),
            (
                "grad_weight",
                Deviation::new(&one(&got.weight), &want.weight, want.weight_scale),
            ),
            (
                "grad_bias",
                Deviation::new(&one(&got.bias), &want.bias, want.bias_scale),
            ),
        ]),
        (None, None) => {}
        // One has gradients and the other has not: nothing to compare is no agreement.
        _ => deviations.push(("grad_x", plain(&[], &[0.0]))),
    }
    deviations
}

#[cfg(test)]
mod tests {
    use super::super::norm::{self, Stats};
    use super::*;
    use crate::case::run_on_cpu;
    use bcnorm::cpu::Executor;

    /// Two photographs of 7 x 5 pixels, channels of wildly different scales.
    fn example(groups: usize, stats: Stats) -> (Case, Outputs) {
        let noise = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 1009.0;
        let x = (0..2 * 32 * 35)
            .map(|i| (noise(i) + 3.0) * 10f32.powi((i / 35 % 32) as i32 % 7 - 3))
            .collect();
        let mut case = norm::case(x, 2, (7, 5), groups, stats);
        case.grad_y = Some((0..2 * 32 * 35).map(|i| noise(i * 31) - 0.3).collect());
        let outputs = run_on_cpu(&case, &Executor::new()).unwrap();
        (case, outputs)
    }

    #[test]
    fn groups_alone_add_up_to_the_whole() {
        for groups in [1, 2, 8, 32] {
            for stats in [Stats::Batch, Stats::Estimate] {
                let (case, outputs) = example(groups, stats);
                let parts = errors(&case, &outputs, &|| {});
                let whole = case::errors(&outputs, &case::oracle(&case));
                assert_eq!(parts["bn.num_batches_tracked_after"], 0.0);
                assert_eq!(parts.len(), whole.len() + 1);
                for (name, error) in whole {
                    let part = parts[name.as_str()];
                    // A difference divided by a scale, in another order: an ulp.
                    assert!(
                        (part - error).abs() <= 1e-12 * error,
                        "{name}: {part} {error}"
                    );
                    assert!(error < BAR, "{name}: {error}");
                }
            }
        }
    }

    #[test]
    fn one_wrong_value_anywhere_is_seen() {
        let (case, good) = example(8, Stats::Batch);
        type Spoil = fn(&mut Outputs) -> &mut Vec<f32>;
        let tensors: [(&str, Spoil); 8] = [
            ("y", |o| &mut o.y),
            ("grad_x", |o| &mut o.gradients.as_mut().unwrap().x),
            ("grad_bn.weight", |o| {
                &mut o.gradients.as_mut().unwrap().bn_weight
            }),
            ("grad_bn.bias", |o| {
                &mut o.gradients.as_mut().unwrap().bn_bias
            }),
            ("grad_weight", |o| &mut o.gradients.as_mut().unwrap().weight),
            ("grad_bias", |o| &mut o.gradients.as_mut().unwrap().bias),
            ("bn.running_mean_after", |o| &mut o.running_mean),
            ("bn.running_var_after", |o| &mut o.running_var),
        ];
        for (name, tensor) in tensors {
            let len = tensor(&mut good.clone()).len();
            for index in [0, len / 2, len - 1] {
                for wrong in [f32::NAN, f32::INFINITY, 1e9] {
                    let mut bad = good.clone();
                    tensor(&mut bad)[index] = wrong;
                    let errors = errors(&case, &bad, &|| {});
                    for (other, error) in errors {
                        assert_eq!(
                            error > BAR,
                            other == name,
                            "{name}[{index}] = {wrong}: {other}"
                        );
                    }
                }
            }
        }
        let mut bad = good.clone();
        bad.num_batches_tracked += 1;
        assert!(errors(&case, &bad, &|| {})["bn.num_batches_tracked_after"] > BAR);
        let mut bad = good.clone();
        bad.y.pop();
        assert!(errors(&case, &bad, &|| {})["y"] > BAR);
        let mut bad = good.clone();
        bad.y.swap(0, 40);
        assert!(errors(&case, &bad, &|| {})["y"] > BAR);
        let mut bad = good;
        bad.gradients = None;
        assert!(errors(&case, &bad, &|| {})["grad_x"] > BAR);
    }
}
