//! Every output against the f64 oracle, group by group on several threads.
//!
//! A norm of G groups is G norms of one group, each over its own channels: nothing crosses. So the
//! oracle, which has one thread, can be asked for each group alone. Errors are those of
//! [`crate::case::errors`]: the scale is that of the whole tensor.

use super::parallel;
use crate::case::{Problem, Run};
use bcnorm_testkit::oracle;
use bcnorm_testkit::run::{Expected, by_name};
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
pub fn errors(case: &Problem, run: &Run, done: &(dyn Fn() + Sync)) -> BTreeMap<&'static str, f64> {
    let groups = parallel::map(0..case.num_parts(), |g| {
        let expected = case.restricted(&[g]).oracle();
        let tracked = expected.num_batches_tracked;
        let deviations = compare(case, g, run, &by_name(&case.norm, expected));
        done();
        (deviations, tracked)
    });
    let mut merged: BTreeMap<&'static str, Deviation> = BTreeMap::new();
    let mut counted = true;
    for (deviations, tracked) in groups {
        counted &= tracked == u64::from(run.num_batches_tracked);
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

fn compare(
    case: &Problem,
    group: usize,
    run: &Run,
    expected: &Expected,
) -> Vec<(&'static str, Deviation)> {
    let got = case.restrict_outputs(&run.outputs, &[group]);
    let names = got.keys().chain(expected.keys());
    names
        .map(|&name| {
            let deviation = match (got.get(name), expected.get(name)) {
                (Some(got), Some((values, scale))) => Deviation::new(got, values, *scale),
                // One has it and the other has not: nothing to compare is no agreement.
                _ => Deviation::new(&[], &[0.0], 0.0),
            };
            (name, deviation)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::norm::{self, Stats};
    use super::*;
    use crate::case::{self, run_on_cpu};
    use bcnorm::cpu::Executor;
    use bcnorm_testkit::run::expected;

    /// Two photographs of 7 x 5 pixels, channels of wildly different scales.
    fn example(groups: usize, stats: Stats) -> (Problem, Run) {
        let noise = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 1009.0;
        let x = (0..2 * 32 * 35)
            .map(|i| (noise(i) + 3.0) * 10f32.powi((i / 35 % 32) as i32 % 7 - 3))
            .collect();
        let mut case = norm::case(x, 2, (7, 5), groups, stats);
        case = case.with_grad_y((0..2 * 32 * 35).map(|i| noise(i * 31) - 0.3).collect());
        let outputs = run_on_cpu(&case, &Executor::new()).unwrap();
        (case, outputs)
    }

    #[test]
    fn groups_alone_add_up_to_the_whole() {
        for groups in [1, 2, 8, 32] {
            for stats in [Stats::Batch, Stats::Estimate] {
                let (case, outputs) = example(groups, stats);
                let parts = errors(&case, &outputs, &|| {});
                let whole = case::errors(&outputs, &expected(&case));
                assert_eq!(parts["bn.num_batches_tracked_after"], 0.0);
                assert_eq!(parts.len(), whole.len() + 1);
                for (name, error) in whole {
                    let part = parts[name];
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
        for (&name, values) in &good.outputs {
            let len = values.len();
            for index in [0, len / 2, len - 1] {
                for wrong in [f32::NAN, f32::INFINITY, 1e9] {
                    let mut bad = good.clone();
                    bad.outputs.get_mut(name).unwrap()[index] = wrong;
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
        bad.outputs.get_mut("y").unwrap().pop();
        assert!(errors(&case, &bad, &|| {})["y"] > BAR);
        let mut bad = good.clone();
        bad.outputs.get_mut("y").unwrap().swap(0, 40);
        assert!(errors(&case, &bad, &|| {})["y"] > BAR);
        let mut bad = good;
        bad.outputs.remove("grad_x");
        assert!(errors(&case, &bad, &|| {})["grad_x"] > BAR);
    }
}
