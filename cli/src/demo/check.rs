//! Every output against the f64 oracle, group by group on several threads.
//!
//! A norm of G groups is G norms of one group, each over its own channels: nothing crosses. So the oracle, which
//! has one thread, can be asked for each group alone. Errors are those of [`crate::case::errors`]: the scale is
//! that of the whole tensor.

use crate::case::{Problem, Run};
use bcnorm_testkit::oracle;
use bcnorm_testkit::run::by_name;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Largest error that passes: the bar of the library's own tests for y. Golden vectors are held to a lower one;
/// here a mean of hundreds of standard deviations is possible.
pub const BAR: f64 = 5e-6;

/// How far outputs are off, and how large they are.
type Deviations = Vec<(&'static str, (f64, f64))>;

/// The error of every output, by golden name. `done` is called after each group.
pub fn errors(case: &Problem, run: &Run, done: &(dyn Fn() + Sync)) -> BTreeMap<&'static str, f64> {
    // How far a group's part of each output is off, and how large the part is.
    let of_group = |g: usize| {
        let expected = case.restricted(&[g]).oracle();
        let counted = expected.num_batches_tracked == u64::from(run.num_batches_tracked);
        let expected = by_name(&case.norm, expected);
        let got = case.restrict_outputs(&run.outputs, &[g]);
        let names: BTreeSet<&'static str> = got.keys().chain(expected.keys()).copied().collect();
        let deviation = |name| match (got.get(name), expected.get(name)) {
            // Of scale 1: the absolute difference, infinite where finite and non-finite meet.
            (Some(got), Some((values, scale))) => (oracle::error(got, values, 1.0), *scale),
            // One has it and the other has not: nothing to compare is no agreement.
            _ => (f64::INFINITY, 0.0),
        };
        let deviations = names
            .into_iter()
            .map(|name| (name, deviation(name)))
            .collect();
        done();
        (deviations, counted)
    };
    let groups = (0..case.num_parts()).into_par_iter().map(of_group);
    let groups: Vec<(Deviations, bool)> = groups.collect();
    let counted = groups.iter().all(|(_, counted)| *counted);
    let mut merged: BTreeMap<&'static str, (f64, f64)> = BTreeMap::new();
    for (name, (absolute, scale)) in groups.into_iter().flat_map(|(deviations, _)| deviations) {
        let (most, largest) = merged.entry(name).or_default();
        // No absolute difference is NaN, so max hides none; a scale that is NaN or infinite stays.
        *most = most.max(absolute);
        *largest = if *largest >= scale { *largest } else { scale };
    }
    let error = |(absolute, scale)| oracle::element_error(absolute, 0.0, scale);
    let errors = merged
        .into_iter()
        .map(|(name, deviation)| (name, error(deviation)));
    let counter = if counted { 0.0 } else { f64::INFINITY };
    errors
        .chain([("bn.num_batches_tracked_after", counter)])
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
        // The error of one output after a change.
        let after = |name: &str, change: &dyn Fn(&mut Run)| {
            let mut bad = good.clone();
            change(&mut bad);
            errors(&case, &bad, &|| {})[name]
        };
        let counter = "bn.num_batches_tracked_after";
        assert!(after(counter, &|run| run.num_batches_tracked += 1) > BAR);
        let y =
            |run: &mut Run, change: fn(&mut Vec<f32>)| change(run.outputs.get_mut("y").unwrap());
        assert!(after("y", &|run| y(run, |y| y.truncate(y.len() - 1))) > BAR);
        assert!(after("y", &|run| y(run, |y| y.swap(0, 40))) > BAR);
        assert!(after("grad_x", &|run| _ = run.outputs.remove("grad_x")) > BAR);
    }
}
