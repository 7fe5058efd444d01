//! How far a stage on a device may be from its CPU mirror, fed the same inputs: for every field of
//! every table, from the magnitude of what is rounded on the way, computed from the inputs in f64.
//!
//! Mirror and kernel compute one formula. They differ by the order of sums and merges, by which
//! pivot a merge keeps, and by what WGSL leaves open: a division may be off by 2.5 units in the last
//! place (5 U), a multiplication and an addition may be contracted. So every rounding of a value v
//! may move the result by U |v| on either side, and the bounds below add up the |v|.
//!
//! * A fixed number of roundings of values no larger than v, both sides together: a small multiple
//!   of U |v|, at least the number of them.
//! * A sum, or a chain of merges, of n terms: its roundings are independent and of either sign, so
//!   that they grow with the square root of n: [`growth`].
//! * A mean is carried relative to a pivot, so that its error is relative to the *reach* of the
//!   values: how far pivots and values lie from the mean, whatever its size.

// Each test crate that includes this uses its own part of it.
#![allow(dead_code)]

use bcnorm::cpu::Buffers;
use bcnorm::kernels::{Access, KernelId};
use bcnorm::params::{ACCUMULATE, CUMULATIVE, ESTIMATE, TRAINING};
use bcnorm::plan::Step;
use bcnorm::tables::{Affine, AffineBackward, Channel, GradientPair, Group, Moments, Products};
use bytemuck::Pod;

/// Half a unit in the last place of a value in [1, 2): the most that one rounding moves a value,
/// relative to it.
const U: f64 = 1.0 / (1 << 24) as f64;

/// Roundings in a chain of n additions or merges, in units of U times the largest value on the way.
/// A step rounds at most four times in a row (16 for both sides and a margin of 2), a deviation of
/// sqrt(n) roundings is exceeded fourfold once in 16,000 chains.
fn growth(n: f64) -> f64 {
    16.0 + 4.0 * n.sqrt()
}

/// What a group of words of an entry must be.
pub struct Check {
    pub name: &'static str,
    /// Words of the entry.
    pub words: Vec<usize>,
    pub rule: Rule,
}

pub enum Rule {
    /// The mirror's bits.
    Same,
    /// Bits out of a list, one list for each entry: a pivot, of which any of some is right.
    OneOf(Vec<Vec<u32>>),
    /// The sum of the words, as f32, is the mirror's but for a tolerance, one for each entry.
    Near(Vec<f64>),
}

/// The checks of one binding that a step writes.
pub struct Checks {
    pub words_per_entry: usize,
    pub checks: Vec<Check>,
}

impl Checks {
    fn new(words_per_entry: usize) -> Self {
        Self {
            words_per_entry,
            checks: Vec::new(),
        }
    }

    fn same(mut self, name: &'static str, words: &[usize]) -> Self {
        for &word in words {
            self.checks.push(Check {
                name,
                words: vec![word],
                rule: Rule::Same,
            });
        }
        self
    }

    fn one_of(mut self, name: &'static str, word: usize, allowed: Vec<Vec<u32>>) -> Self {
        self.checks.push(Check {
            name,
            words: vec![word],
            rule: Rule::OneOf(allowed),
        });
        self
    }

    fn near(mut self, name: &'static str, words: &[usize], tolerance: Vec<f64>) -> Self {
        self.checks.push(Check {
            name,
            words: words.to_vec(),
            rule: Rule::Near(tolerance),
        });
        self
    }

    /// Compares what a device wrote with what the mirror wrote, and returns the worst error as a
    /// fraction of its tolerance.
    ///
    /// # Errors
    /// The first word that is wrong.
    pub fn compare(&self, got: &[u32], expected: &[u32]) -> Result<f64, String> {
        if got.len() != expected.len() || !got.len().is_multiple_of(self.words_per_entry) {
            return Err(format!(
                "{} words, but {} are expected",
                got.len(),
                expected.len()
            ));
        }
        for word in 0..self.words_per_entry {
            let is_checked = |check: &Check| check.words.contains(&word);
            assert!(
                self.checks.iter().any(is_checked),
                "nobody checks word {word}"
            );
        }
        let entries = || {
            got.chunks(self.words_per_entry)
                .zip(expected.chunks(self.words_per_entry))
        };
        let mut worst = 0.0f64;
        for check in &self.checks {
            if let Rule::OneOf(lists) = &check.rule {
                assert_eq!(lists.len(), entries().len(), "{}", check.name);
            }
            if let Rule::Near(tolerances) = &check.rule {
                assert_eq!(tolerances.len(), entries().len(), "{}", check.name);
            }
            for (i, (got, expected)) in entries().enumerate() {
                let fraction = check.entry(i, got, expected).map_err(|how| {
                    format!(
                        "{} of entry {i} {how}; the mirror has {expected:08x?}",
                        check.name
                    )
                })?;
                worst = worst.max(fraction);
            }
        }
        Ok(worst)
    }
}

impl Check {
    /// The value that [`Rule::Near`] compares.
    pub fn value(&self, entry: &[u32]) -> f64 {
        self.words
            .iter()
            .map(|&word| f64::from(f32::from_bits(entry[word])))
            .sum()
    }

    fn entry(&self, i: usize, got: &[u32], expected: &[u32]) -> Result<f64, String> {
        let word = self.words[0];
        match &self.rule {
            Rule::Same if got[word] == expected[word] => Ok(0.0),
            Rule::Same => Err(format!("is {:#010x}", got[word])),
            Rule::OneOf(lists) if lists[i].contains(&got[word]) => Ok(0.0),
            Rule::OneOf(_) => Err(format!(
                "is {}, none of the values",
                f32::from_bits(got[word])
            )),
            Rule::Near(tolerances) => {
                let tolerance = tolerances[i];
                assert!(
                    tolerance.is_finite() && tolerance >= 0.0,
                    "{}: {tolerance}",
                    self.name
                );
                let (got, expected) = (self.value(got), self.value(expected));
                let error = (got - expected).abs();
                // False for NaN.
                if error <= tolerance {
                    // Exact where nothing may differ.
                    return Ok(if error > 0.0 { error / tolerance } else { 0.0 });
                }
                Err(format!(
                    "is {got:e}, not {expected:e}: off by {error:.2e} > {tolerance:.2e}"
                ))
            }
        }
    }
}

/// The inputs of a step.
struct Inputs<'a> {
    step: &'a Step,
    before: &'a Buffers,
}

impl Inputs<'_> {
    fn values(&self, binding: usize) -> Vec<f64> {
        self.bits(binding)
            .iter()
            .map(|&bits| f64::from(f32::from_bits(bits)))
            .collect()
    }

    fn bits(&self, binding: usize) -> &[u32] {
        self.before
            .get_u32(self.step.bindings[binding])
            .expect("the step's buffers are there")
    }

    fn table<T: Pod>(&self, binding: usize) -> Vec<T> {
        bytemuck::pod_collect_to_vec(self.bits(binding))
    }
}

fn wide(v: f32) -> f64 {
    f64::from(v)
}

/// The checks of each binding that the step writes, in the bindings' order, from what its buffers
/// hold before it.
pub fn checks(step: &Step, before: &Buffers) -> Vec<Checks> {
    let inputs = Inputs { step, before };
    let checks = match step.spec.kernel {
        KernelId::RowMoments => row_moments(&inputs),
        KernelId::RowFold => row_fold(&inputs),
        KernelId::BatchCount => vec![Checks::new(1).same("count", &[0])],
        KernelId::SampleFold => sample_fold(&inputs),
        KernelId::ChannelFold => channel_fold(&inputs),
        KernelId::GroupFold => group_fold(&inputs),
        KernelId::RowAffine => row_affine(&inputs),
        KernelId::RowProducts => row_products(&inputs),
        KernelId::RowFoldBackward => row_fold_backward(&inputs),
        KernelId::GroupFoldBackward => group_fold_backward(&inputs),
        KernelId::SampleFoldBackward => sample_fold_backward(&inputs),
        KernelId::ChannelFoldBackward => channel_fold_backward(&inputs),
        KernelId::RowCoefficientsBackward => row_coefficients_backward(&inputs),
        KernelId::RowAffineBackward => row_affine_backward(&inputs),
        other => panic!("{} is not known here: derive its tolerances", other.name()),
    };
    let declared = step.spec.kernel.kernel().bindings;
    let written = declared
        .iter()
        .filter(|binding| binding.access == Access::ReadWrite)
        .count();
    assert_eq!(checks.len(), written, "{}", step.spec.kernel.name());
    checks
}

// ---------------------------------------------------------------------------------------------
// Moments

/// What merging some moments yields, and how exactly.
#[derive(Clone, Copy, Default)]
struct Merged {
    count: f64,
    mean: f64,
    /// How far pivots and values lie from the mean: differences of two are what merges round.
    reach: f64,
    m2: f64,
    /// Mean of |mean of an entry - mean|.
    apart: f64,
    mean_tolerance: f64,
    m2_tolerance: f64,
}

/// Merges entries in `chain` steps one behind the other.
///
/// The mean: each merge rounds differences of values within reach. M2: its terms are not negative,
/// each rounded relatively; and a mean that is off by U * reach changes an entry's (mean - mean)^2
/// by twice that times the distance, of which `apart` is the mean.
fn merged(entries: &[Moments], chain: f64) -> Merged {
    let entries: Vec<_> = entries.iter().filter(|entry| entry.count > 0).collect();
    let Some(first) = entries.first() else {
        return Merged::default();
    };
    let count: f64 = entries.iter().map(|entry| f64::from(entry.count)).sum();
    // Relative to the first pivot, for f64 rounds too.
    let base = wide(first.pivot);
    let mean_of = |entry: &Moments| (wide(entry.pivot) - base) + wide(entry.offset);
    let sum: f64 = entries
        .iter()
        .map(|entry| f64::from(entry.count) * mean_of(entry))
        .sum();
    let mean = sum / count;
    let (mut reach, mut m2, mut apart) = (0.0f64, 0.0, 0.0);
    for entry in entries {
        let distance = mean_of(entry) - mean;
        reach = reach
            .max((wide(entry.pivot) - base - mean).abs())
            .max(wide(entry.offset).abs());
        m2 += wide(entry.m2) + f64::from(entry.count) * distance * distance;
        apart += f64::from(entry.count) * distance.abs();
    }
    let growth = growth(chain) * U;
    Merged {
        count,
        mean: base + mean,
        reach,
        m2,
        apart: apart / count,
        mean_tolerance: growth * reach,
        m2_tolerance: growth * (m2 + reach * apart),
    }
}

/// Checks of a table of moments: the pivot is one of the entries' that were merged, the mean is
/// pivot + offset.
fn moments_checks(merged_from: Vec<(Vec<Moments>, f64)>) -> Vec<Checks> {
    let pivots = |entries: &[Moments]| -> Vec<u32> {
        let there = entries.iter().filter(|entry| entry.count > 0);
        let pivots: Vec<u32> = there.map(|entry| entry.pivot.to_bits()).collect();
        // Of nothing, zeros.
        if pivots.is_empty() { vec![0] } else { pivots }
    };
    let allowed = merged_from
        .iter()
        .map(|(entries, _)| pivots(entries))
        .collect();
    let merged: Vec<Merged> = merged_from
        .iter()
        .map(|(e, chain)| merged(e, *chain))
        .collect();
    vec![
        Checks::new(4)
            .same("count", &[0])
            .one_of("pivot", 1, allowed)
            .near(
                "mean",
                &[1, 2],
                merged.iter().map(|m| m.mean_tolerance).collect(),
            )
            .near("m2", &[3], merged.iter().map(|m| m.m2_tolerance).collect()),
    ]
}

/// Elements of every part of every row, as `parts/span.wgsl` cuts them.
fn spans(step: &Step) -> Vec<(usize, std::ops::Range<usize>)> {
    let p = &step.params;
    let (len, width) = (p.row_len as usize, step.spec.width as usize);
    let rows = (p.num_samples * p.num_channels) as usize;
    let mut spans = Vec::new();
    for row in 0..rows {
        for part in 0..p.parts as usize {
            let (begin, end) = (row * len, (row + 1) * len);
            let word = begin / width + part * p.words_per_part as usize;
            let first = (word * width).clamp(begin, end);
            let last = ((word + p.words_per_part as usize) * width).clamp(first, end);
            spans.push((row, first..last));
        }
    }
    spans
}

fn row_moments(inputs: &Inputs) -> Vec<Checks> {
    let x = inputs.bits(0);
    let value = |&bits: &u32| Moments {
        count: 1,
        pivot: f32::from_bits(bits),
        ..Moments::default()
    };
    let parts = spans(inputs.step).into_iter().map(|(_, span)| {
        let values: Vec<Moments> = x[span].iter().map(value).collect();
        // Chunks of at least 4 values are summed in one, then merged.
        let chain = values.len() as f64 / 4.0;
        (values, chain)
    });
    moments_checks(parts.collect())
}

fn row_fold(inputs: &Inputs) -> Vec<Checks> {
    let parts = inputs.table::<Moments>(0);
    let rows = parts.chunks(inputs.step.params.parts as usize);
    moments_checks(
        rows.map(|parts| (parts.to_vec(), parts.len() as f64))
            .collect(),
    )
}

/// The entries of every column of every segment, from a table (entries, columns).
fn segments<T: Pod>(step: &Step, table: &[T]) -> Vec<Vec<T>> {
    let p = &step.params;
    let (columns, entries) = (p.columns as usize, p.entries as usize);
    let per_segment = p.entries_per_segment as usize;
    let mut segments = Vec::new();
    for begin in (0..entries).step_by(per_segment) {
        for column in 0..columns {
            let of_segment = begin..(begin + per_segment).min(entries);
            segments.push(of_segment.map(|i| table[i * columns + column]).collect());
        }
    }
    segments
}

fn sample_fold(inputs: &Inputs) -> Vec<Checks> {
    let segments = segments(inputs.step, &inputs.table::<Moments>(0));
    moments_checks(
        segments
            .into_iter()
            .map(|s| {
                let n = s.len() as f64;
                (s, n)
            })
            .collect(),
    )
}

// ---------------------------------------------------------------------------------------------
// Folds forward

/// A value, and how far two computations of it may be apart.
#[derive(Clone, Copy, Default)]
struct Near {
    value: f64,
    tolerance: f64,
}

/// The channel's mean and variance in force, and the running ones.
#[derive(Clone, Copy, Default)]
struct Statistics {
    mean: Near,
    variance: Near,
    running_mean: Near,
    running_var: Near,
}

fn channel_fold(inputs: &Inputs) -> Vec<Checks> {
    let p = &inputs.step.params;
    let (channels, entries) = (p.num_channels as usize, p.entries as usize);
    let parts = inputs.table::<Moments>(0);
    let weight = inputs.values(1);
    let count = f64::from(inputs.bits(3)[0]);
    let (means, vars) = (inputs.values(4), inputs.values(5));
    let mut table = Checks::new(8).same("bias and padding", &[5, 6, 7]);
    let [mut mean, mut rstd, mut scale, mut scale_pair] = [const { Vec::new() }; 4];
    let [mut running_mean, mut running_var] = [const { Vec::new() }; 2];
    for c in 0..channels {
        let column: Vec<Moments> = (0..entries).map(|i| parts[i * channels + c]).collect();
        let batch = merged(&column, entries as f64);
        let statistics = if p.flags & TRAINING == 0 {
            // As they are.
            let exactly = |value| Near {
                value,
                tolerance: 0.0,
            };
            Statistics {
                mean: exactly(means[c]),
                variance: exactly(vars[c]),
                running_mean: exactly(means[c]),
                running_var: exactly(vars[c]),
            }
        } else if p.flags & ESTIMATE != 0 {
            estimated(batch, wide(p.momentum), means[c], vars[c])
        } else {
            let momentum = if p.flags & CUMULATIVE != 0 {
                1.0 / count
            } else {
                wide(p.momentum)
            };
            of_batch(batch, momentum, means[c], vars[c])
        };
        running_mean.push(statistics.running_mean.tolerance);
        running_var.push(statistics.running_var.tolerance);
        mean.push(statistics.mean.tolerance);

        // 1 / sqrt(v): half the relative error of v. The sum with eps is rounded alike on both
        // sides where the variance is the same.
        let Near { value, tolerance } = statistics.variance;
        let v = value + wide(p.channel_eps);
        let off = if tolerance > 0.0 {
            (tolerance + 2.0 * U * v) / v
        } else {
            0.0
        };
        let r = 1.0 / v.sqrt();
        rstd.push(r * (0.5 * off + 4.0 * U));
        let s = (weight[c] * r).abs();
        scale.push(s * (0.5 * off + 8.0 * U));
        // scale + scale_low carries the product to twice the precision of f32; what is left are
        // some dozen roundings of the low part.
        scale_pair.push(s * (0.5 * off + 64.0 * U * U));
    }
    table = table
        .near("mean", &[0, 1], mean)
        .near("rstd", &[2], rstd)
        .near("scale", &[3], scale)
        .near("scale + scale_low", &[3, 4], scale_pair);
    vec![
        Checks::new(1).near("running_mean", &[0], running_mean),
        Checks::new(1).near("running_var", &[0], running_var),
        table,
    ]
}

/// m2 / count: a division.
fn variance(batch: Merged) -> Near {
    let value = batch.m2 / batch.count;
    Near {
        value,
        tolerance: batch.m2_tolerance / batch.count + 16.0 * U * value,
    }
}

fn of_batch(batch: Merged, momentum: f64, old_mean: f64, old_var: f64) -> Statistics {
    let variance = variance(batch);
    let bessel = batch.count / (batch.count - 1.0);
    let unbiased = variance.value * bessel;
    // The momentum may be a quotient, and the pivot is within reach of the mean.
    let means = old_mean.abs() + batch.mean.abs() + 2.0 * batch.reach;
    Statistics {
        mean: Near {
            value: batch.mean,
            tolerance: batch.mean_tolerance,
        },
        variance,
        running_mean: Near {
            value: (1.0 - momentum) * old_mean + momentum * batch.mean,
            tolerance: momentum * batch.mean_tolerance + 16.0 * U * means,
        },
        running_var: Near {
            value: (1.0 - momentum) * old_var + momentum * unbiased,
            tolerance: momentum * bessel * variance.tolerance + 16.0 * U * (old_var + unbiased),
        },
    }
}

fn estimated(batch: Merged, speed: f64, old_mean: f64, old_var: f64) -> Statistics {
    let v = variance(batch);
    let delta = batch.mean - old_mean;
    let delta_tolerance = batch.mean_tolerance + 4.0 * U * (delta.abs() + batch.reach);
    let moment = v.value + delta * delta;
    let moment_tolerance = v.tolerance + 2.0 * delta.abs() * delta_tolerance + 4.0 * U * moment;
    let var = Near {
        value: (1.0 - speed) * old_var + speed * moment,
        tolerance: speed * moment_tolerance + 8.0 * U * (old_var + moment),
    };
    // Kept relative to the nearer of old mean and batch.
    let tolerance = if speed > 0.5 {
        let far = (1.0 - speed) * delta_tolerance;
        batch.mean_tolerance + far + 4.0 * U * (batch.reach + delta.abs())
    } else {
        speed * (delta_tolerance + 4.0 * U * delta.abs())
    };
    let mean = Near {
        value: old_mean + speed * delta,
        tolerance,
    };
    Statistics {
        mean,
        variance: var,
        running_mean: Near {
            tolerance: mean.tolerance + 2.0 * U * (old_mean.abs() + delta.abs() + batch.reach),
            ..mean
        },
        running_var: var,
    }
}

/// z of a row less the channel's bias, and what its two differences round.
struct Shift {
    scale: f64,
    above: f64,
    shift: f64,
    rounded: f64,
}

fn shift(row: &Moments, channel: &Channel) -> Shift {
    let scale = wide(channel.scale) + wide(channel.scale_low);
    let pivots = wide(row.pivot) - wide(channel.mean_pivot);
    let offsets = wide(row.offset) - wide(channel.mean_offset);
    let above = pivots + offsets;
    Shift {
        scale,
        above,
        shift: scale * above,
        rounded: scale.abs() * (pivots.abs() + offsets.abs() + above.abs()),
    }
}

fn group_fold(inputs: &Inputs) -> Vec<Checks> {
    let p = &inputs.step.params;
    let size = (p.num_channels / p.num_groups) as usize;
    let (rows, channels) = (inputs.table::<Moments>(0), inputs.table::<Channel>(1));
    let (weight, bias) = (inputs.values(2), inputs.values(3));
    let mut pivots: Vec<Vec<u32>> = Vec::new();
    let [mut means, mut rstds, mut scales, mut shifts] = [const { Vec::new() }; 4];
    for (item, rows) in rows.chunks(size).enumerate() {
        let g = item % p.num_groups as usize;
        let channels = &channels[g * size..][..size];
        pivots.push(
            channels
                .iter()
                .map(|channel| channel.bias.to_bits())
                .collect(),
        );
        let z: Vec<Shift> = rows
            .iter()
            .zip(channels)
            .map(|(row, c)| shift(row, c))
            .collect();
        let bias_of = |i: usize| wide(channels[i].bias);
        let count: f64 = rows.iter().map(|row| f64::from(row.count)).sum();
        let weighted = |f: &dyn Fn(usize) -> f64| {
            (0..size)
                .map(|i| f64::from(rows[i].count) * f(i))
                .sum::<f64>()
                / count
        };
        let base = bias_of(0);
        let mean = base + weighted(&|i| (bias_of(i) - base) + z[i].shift);
        let above = |i: usize| (bias_of(i) - base) - (mean - base) + z[i].shift;

        // z less the group's mean, as (bias - pivot) + (shift - offset): the pivot is one of the
        // biases, the offset what the mean has more.
        let farthest = (0..size)
            .map(|i| (bias_of(i) - mean).abs())
            .fold(0.0, f64::max);
        let most = |f: fn(&Shift) -> f64| z.iter().map(f).fold(0.0, f64::max);
        let reach = 3.0 * farthest + 2.0 * most(|z| z.shift.abs()) + most(|z| z.rounded);
        let apart = weighted(&|i| above(i).abs());
        let grown = growth(size as f64) * U;
        // What is left of the mean is summed relative to the first row's.
        let from_first = weighted(&|i| (above(i) - above(0)).abs());
        let mean_tolerance = 8.0 * U * reach + grown * apart.max(from_first);
        let above_tolerance = 8.0 * U * reach + mean_tolerance;
        means.push(mean_tolerance);

        let variance = weighted(&|i| {
            z[i].scale * z[i].scale * wide(rows[i].m2) / f64::from(rows[i].count)
                + above(i) * above(i)
        });
        let variance_tolerance =
            grown * variance + (2.0 * apart + above_tolerance) * above_tolerance;
        let v = variance + wide(p.eps);
        let r = 1.0 / v.sqrt();
        let r_tolerance = r * (0.5 * (variance_tolerance + 2.0 * U * v) / v + 4.0 * U);
        rstds.push(r_tolerance);

        let w = weight[g];
        for (i, z) in z.iter().enumerate() {
            let scale = w * r * z.scale;
            scales.push((w * z.scale).abs() * r_tolerance + 8.0 * U * scale.abs());
            shifts.push(
                (w * above(i)).abs() * r_tolerance
                    + (w * r).abs() * above_tolerance
                    + 8.0 * U * ((w * r * above(i)).abs() + bias[g].abs()),
            );
        }
    }
    vec![
        Checks::new(5)
            .one_of("mean_pivot", 0, pivots)
            .near("mean", &[0, 1, 2], means)
            .near("rstd", &[3], rstds)
            .same("weight", &[4]),
        Checks::new(4)
            .same("pivot and offset", &[0, 1])
            .near("scale", &[2], scales)
            .near("shift", &[3], shifts),
    ]
}

// ---------------------------------------------------------------------------------------------
// Maps of tensors: no sums, a rounding for each operation on either side.

fn row_affine(inputs: &Inputs) -> Vec<Checks> {
    let (x, rows) = (inputs.values(0), inputs.table::<Affine>(1));
    let len = inputs.step.params.row_len as usize;
    let tolerance = x.iter().enumerate().map(|(i, x)| {
        let a = &rows[i / len];
        let first = x - wide(a.pivot);
        let second = first - wide(a.offset);
        let scale = wide(a.scale).abs();
        let y = second * wide(a.scale) + wide(a.shift);
        2.0 * U * (scale * (first.abs() + 2.0 * second.abs()) + y.abs())
    });
    vec![Checks::new(1).near("y", &[0], tolerance.collect())]
}

fn row_affine_backward(inputs: &Inputs) -> Vec<Checks> {
    let (x, dy) = (inputs.values(0), inputs.values(1));
    let rows = inputs.table::<AffineBackward>(2);
    let old = inputs.values(3);
    let len = inputs.step.params.row_len as usize;
    let tolerance = (0..x.len()).map(|i| {
        let a = &rows[i / len];
        let v = dy[i] - wide(a.grad_pivot);
        let u = x[i] - wide(a.x_pivot);
        let (from_v, from_u) = (wide(a.grad_scale), wide(a.x_scale));
        let terms = [v * from_v, u * from_u, wide(a.shift)];
        let mut sum: f64 = terms.iter().map(|term| term.abs()).sum();
        let mut additions = 2.0;
        if inputs.step.spec.accumulate {
            sum += old[i].abs();
            additions += 1.0;
        }
        // Drivers may add up in another order (Mesa does): no partial sum exceeds `sum`.
        let rounded = 2.0 * (from_v * v).abs() + 2.0 * (from_u * u).abs() + additions * sum;
        2.0 * U * rounded
    });
    vec![Checks::new(1).near("grad_x", &[0], tolerance.collect())]
}

// ---------------------------------------------------------------------------------------------
// Sums

/// Checks of a table of products, from what each entry was merged of: the entries, the chain, and
/// the largest value that u was made of.
///
/// The mean of dy as that of moments, the mean of u likewise. The product, as M2: its terms' own
/// roundings, and the errors of one mean times the distances from the other.
fn products_checks(merged_from: Vec<(Vec<Products>, f64, f64)>) -> Vec<Checks> {
    let [mut means, mut x_means, mut products] = [const { Vec::new() }; 3];
    let mut allowed = Vec::new();
    for (entries, chain, x_reach) in merged_from {
        let entries: Vec<_> = entries.iter().filter(|entry| entry.count > 0).collect();
        let of_dy = |entry: &&Products| Moments {
            count: entry.count,
            pivot: entry.pivot,
            offset: entry.offset,
            m2: 0.0,
        };
        let dy = merged(&entries.iter().map(of_dy).collect::<Vec<_>>(), chain);
        let sum = |f: &dyn Fn(&Products) -> f64| -> f64 {
            entries
                .iter()
                .map(|entry| f64::from(entry.count) * f(entry))
                .sum()
        };
        let x_mean = if dy.count > 0.0 {
            sum(&|e| wide(e.x_mean)) / dy.count
        } else {
            0.0
        };
        let above = |e: &Products| (wide(e.pivot) - dy.mean + wide(e.offset)).abs();
        let x_above = |e: &Products| (wide(e.x_mean) - x_mean).abs();
        let grown = growth(chain) * U;
        means.push(dy.mean_tolerance);
        x_means.push(grown * x_reach);
        let terms: f64 = entries.iter().map(|entry| wide(entry.product).abs()).sum();
        let distances =
            sum(&|e| above(e) * x_above(e) + dy.reach * x_above(e) + x_reach * above(e));
        products.push(grown * (terms + distances));
        let pivots: Vec<u32> = entries.iter().map(|entry| entry.pivot.to_bits()).collect();
        // Of nothing, zeros.
        allowed.push(if pivots.is_empty() { vec![0] } else { pivots });
    }
    vec![
        Checks::new(5)
            .same("count", &[0])
            .one_of("pivot", 1, allowed)
            .near("mean", &[1, 2], means)
            .near("x_mean", &[3], x_means)
            .near("product", &[4], products),
    ]
}

fn row_products(inputs: &Inputs) -> Vec<Checks> {
    let (x, dy) = (inputs.values(0), inputs.values(1));
    let rows = inputs.table::<Moments>(2);
    let parts = spans(inputs.step).into_iter().map(|(row, span)| {
        let (k, d) = (wide(rows[row].pivot), wide(rows[row].offset));
        // Chunks of at least 4 values are summed in one, then merged.
        let chain = span.len() as f64 / 4.0;
        let mut x_reach = 0.0f64;
        let values = span.map(|i| {
            let (difference, u) = (x[i] - k, x[i] - k - d);
            x_reach = x_reach.max(difference.abs()).max(u.abs());
            Products {
                count: 1,
                pivot: dy[i] as f32,
                offset: 0.0,
                x_mean: u as f32,
                product: 0.0,
            }
        });
        (values.collect(), chain, x_reach)
    });
    products_checks(parts.collect())
}

/// The tolerance of a sum: growth times the sum of magnitudes.
fn sum_tolerance(terms: impl ExactSizeIterator<Item = f64>) -> f64 {
    growth(terms.len() as f64) * U * terms.map(f64::abs).sum::<f64>()
}

fn row_fold_backward(inputs: &Inputs) -> Vec<Checks> {
    let parts = inputs.table::<Products>(0);
    let rows = parts
        .chunks(inputs.step.params.parts as usize)
        .map(|parts| {
            let x_reach = parts
                .iter()
                .map(|part| wide(part.x_mean).abs())
                .fold(0.0, f64::max);
            (parts.to_vec(), parts.len() as f64, x_reach)
        });
    products_checks(rows.collect())
}

fn sample_fold_backward(inputs: &Inputs) -> Vec<Checks> {
    let segments = segments(inputs.step, &inputs.table::<GradientPair>(0));
    let tolerance = |field: fn(&GradientPair) -> f32| -> Vec<f64> {
        segments
            .iter()
            .map(|s| sum_tolerance(s.iter().map(|pair| wide(field(pair)))))
            .collect()
    };
    vec![
        Checks::new(2)
            .near("bias", &[0], tolerance(|pair| pair.bias))
            .near("weight", &[1], tolerance(|pair| pair.weight)),
    ]
}

fn channel_fold_backward(inputs: &Inputs) -> Vec<Checks> {
    let p = &inputs.step.params;
    let (columns, channels) = (p.columns as usize, p.num_channels as usize);
    let parts = inputs.table::<GradientPair>(0);
    let count = (f64::from(p.num_samples) * f64::from(p.row_len)).max(1.0);
    let flows = p.flags & TRAINING != 0 && p.flags & ESTIMATE == 0;
    let sum = |field: fn(&GradientPair) -> f32, column: usize| {
        let terms = (0..p.entries as usize).map(|i| wide(field(&parts[i * columns + column])));
        let tolerance = sum_tolerance(terms.clone());
        Near {
            value: terms.sum(),
            tolerance,
        }
    };
    // (binding, field, first column, columns), in the bindings' order.
    let gradient = |binding: usize, name, field: fn(&GradientPair) -> f32, first, len: usize| {
        let old = inputs.values(binding);
        let tolerance = (0..len).map(|i| {
            let sum = sum(field, first + i);
            let added = if p.flags & ACCUMULATE != 0 {
                2.0 * U * (old[i] + sum.value).abs()
            } else {
                0.0
            };
            sum.tolerance + added
        });
        Checks::new(1).near(name, &[0], tolerance.collect())
    };
    let means = |field: fn(&GradientPair) -> f32| -> Vec<f64> {
        let mean = |c: usize| {
            let sum = sum(field, c);
            if flows {
                (sum.tolerance + 10.0 * U * sum.value.abs()) / count
            } else {
                0.0
            }
        };
        (0..channels).map(mean).collect()
    };
    let groups = columns - channels;
    vec![
        gradient(1, "grad_bn_weight", |pair| pair.weight, 0, channels),
        gradient(2, "grad_bn_bias", |pair| pair.bias, 0, channels),
        gradient(3, "grad_weight", |pair| pair.weight, channels, groups),
        gradient(4, "grad_bias", |pair| pair.bias, channels, groups),
        Checks::new(2)
            .near("mean of dz", &[0], means(|pair| pair.bias))
            .near("mean of dz x-hat", &[1], means(|pair| pair.weight)),
    ]
}

// ---------------------------------------------------------------------------------------------
// Folds backward

fn group_fold_backward(inputs: &Inputs) -> Vec<Checks> {
    let p = &inputs.step.params;
    let (channels_all, groups_all) = (p.num_channels as usize, p.num_groups as usize);
    let size = channels_all / groups_all;
    let (rows, products) = (inputs.table::<Moments>(0), inputs.table::<Products>(1));
    let (channels, groups) = (inputs.table::<Channel>(2), inputs.table::<Group>(3));
    let columns = channels_all + groups_all;
    let mut terms = [
        vec![0.0; p.num_samples as usize * columns],
        vec![0.0; p.num_samples as usize * columns],
    ];
    for (item, group) in groups.iter().enumerate() {
        let (sample, g) = (item / groups_all, item % groups_all);
        let of_group = Group1 {
            len: f64::from(p.row_len),
            eps: wide(p.eps),
            rows: &rows[item * size..][..size],
            products: &products[item * size..][..size],
            channels: &channels[g * size..][..size],
            group,
        };
        let (of_rows, of_weights) = of_group.tolerances();
        for (i, pair) in of_rows.into_iter().enumerate() {
            let at = sample * columns + g * size + i;
            (terms[0][at], terms[1][at]) = pair;
        }
        let at = sample * columns + channels_all + g;
        (terms[0][at], terms[1][at]) = of_weights;
    }
    let [bias, weight] = terms;
    vec![
        Checks::new(2)
            .near("bias", &[0], bias)
            .near("weight", &[1], weight),
    ]
}

/// What `group_fold_backward` reads for one (sample, group).
struct Group1<'a> {
    len: f64,
    eps: f64,
    rows: &'a [Moments],
    products: &'a [Products],
    channels: &'a [Channel],
    group: &'a Group,
}

impl Group1<'_> {
    /// Tolerances of the (bias, weight) terms of each row, and of the group's.
    fn tolerances(&self) -> (Vec<(f64, f64)>, (f64, f64)) {
        let &Group1 {
            len,
            eps,
            rows,
            products,
            channels,
            group,
        } = self;
        let size = rows.len();
        let grown = growth(size as f64) * U;
        let group_len = size as f64 * len;
        let (pivot, offset) = (wide(group.mean_pivot), wide(group.mean_offset));

        // dy less its mean over the group (whose pivot may be any row's): the rows as moments
        // without a spread. Differences within reach.
        let grads: Vec<Moments> = products
            .iter()
            .map(|entry| Moments {
                count: 1,
                pivot: entry.pivot,
                offset: entry.offset,
                m2: 0.0,
            })
            .collect();
        let mean = merged(&grads, size as f64);
        let q_tolerance = mean.mean_tolerance + 16.0 * U * mean.reach;

        struct Row {
            scale: f64,
            m2: f64,
            rstd: f64,
            x_above: f64,
            x_rounded: f64,
            above: f64,
            above_tolerance: f64,
            q: f64,
            product: f64,
            product_tolerance: f64,
        }
        let z = |i: usize| {
            let (row, channel, entry) = (&rows[i], &channels[i], &products[i]);
            let z = shift(row, channel);
            let bias = wide(channel.bias) - pivot;
            let above = bias + (z.shift - offset) - wide(group.mean_rest);
            let product = z.scale * wide(entry.product);
            Row {
                scale: z.scale,
                m2: z.scale * z.scale * wide(row.m2),
                rstd: wide(channel.rstd),
                x_above: z.above,
                x_rounded: z.rounded / z.scale.abs().max(f64::MIN_POSITIVE),
                above,
                above_tolerance: 4.0 * U * (bias.abs() + z.shift.abs() + offset.abs() + z.rounded),
                q: wide(entry.pivot) - mean.mean + wide(entry.offset),
                product,
                product_tolerance: 4.0 * U * product.abs(),
            }
        };
        let z: Vec<Row> = (0..size).map(z).collect();
        let sum = |f: &dyn Fn(&Row) -> f64| z.iter().map(f).sum::<f64>();

        // c = projection / spread.
        let projection = sum(&|r| r.product + len * r.q * r.above);
        let projection_tolerance = grown * sum(&|r| r.product.abs() + len * (r.q * r.above).abs())
            + sum(&|r| {
                r.product_tolerance
                    + len * (r.above.abs() * q_tolerance + r.q.abs() * r.above_tolerance)
            });
        let spread = sum(&|r| r.m2 + len * r.above * r.above);
        let spread_tolerance = grown * spread
            + sum(&|r| len * (2.0 * r.above.abs() + r.above_tolerance) * r.above_tolerance);
        let c = if spread > 0.0 {
            projection / spread
        } else {
            0.0
        };
        // What is taken from dy in the end is less, since eps keeps a share of z in dz: a multiple
        // `taken` = projection / (spread + eps D) of it. An error of c itself is projected out by
        // the second look, and taking `c` and giving back the share costs the roundings of c z.
        let damped = spread + eps * group_len;
        let taken = if damped > 0.0 {
            projection / damped
        } else {
            0.0
        };
        let taken_tolerance = if damped > 0.0 {
            2.0 * (projection_tolerance + c.abs() * spread_tolerance) / damped
                + 16.0 * U * taken.abs()
        } else {
            0.0
        };
        // What is left of the mean of dy is taken too.
        let rests = sum(&|r| r.q.abs() + (c * r.above).abs()) / size as f64;
        let shift_tolerance = grown * rests + q_tolerance;

        let scale = wide(group.rstd) * wide(group.weight);
        let of_rows = z.iter().map(|r| {
            let rest = r.q - taken * r.above;
            let rest_tolerance = q_tolerance
                + shift_tolerance
                + 8.0 * U * (r.q.abs() + (c * r.above).abs())
                + r.above.abs() * taken_tolerance
                + taken.abs() * r.above_tolerance;
            let t1 = scale * len * rest;
            let t1_tolerance = (scale * len).abs() * rest_tolerance + 8.0 * U * t1.abs();
            // The row's share of dz times x - mean, without its channel's scale.
            let own = r.scale.abs().max(f64::MIN_POSITIVE);
            let inner = (r.product - taken * r.m2) / own;
            let inner_tolerance = (r.product_tolerance
                + 8.0 * U * (r.product.abs() + (c * r.m2).abs())
                + r.m2 * taken_tolerance)
                / own;
            let t2 = scale * inner;
            let t2_tolerance = scale.abs() * inner_tolerance + 8.0 * U * t2.abs();
            let weight_tolerance = r.rstd
                * (t2_tolerance
                    + r.x_above.abs() * t1_tolerance
                    + t1.abs() * 2.0 * U * r.x_rounded
                    + 8.0 * U * (t2.abs() + (r.x_above * t1).abs()));
            (t1_tolerance, weight_tolerance)
        });
        let sum_tolerance =
            group_len * (mean.mean_tolerance + 8.0 * U * (mean.mean.abs() + 2.0 * mean.reach));
        let rstd = wide(group.rstd);
        let weight_tolerance = rstd * (projection_tolerance + 4.0 * U * projection.abs());
        (of_rows.collect(), (sum_tolerance, weight_tolerance))
    }
}

fn row_coefficients_backward(inputs: &Inputs) -> Vec<Checks> {
    let p = &inputs.step.params;
    let (channels_all, groups_all) = (p.num_channels as usize, p.num_groups as usize);
    let size = channels_all / groups_all;
    let len = f64::from(p.row_len);
    let (rows, products) = (inputs.table::<Moments>(0), inputs.table::<Products>(1));
    let (channels, groups) = (inputs.table::<Channel>(2), inputs.table::<Group>(3));
    let (terms, means) = (
        inputs.table::<GradientPair>(4),
        inputs.table::<GradientPair>(5),
    );
    let [mut x_scale, mut grad_scale, mut shifts] = [const { Vec::new() }; 3];
    for (item, row) in rows.iter().enumerate() {
        let (sample, c) = (item / channels_all, item % channels_all);
        let g = c / size;
        let (channel, group) = (&channels[c], &groups[sample * groups_all + g]);
        let first = sample * (channels_all + groups_all);
        let t1 = wide(terms[first + c].bias);
        let h = wide(terms[first + channels_all + g].weight);
        let (scale, rstd) = (wide(channel.scale), wide(channel.rstd));
        let (group_rstd, w) = (wide(group.rstd), wide(group.weight));
        let k = w * h / (size as f64 * len);
        let of_weight = wide(means[c].weight) * rstd;
        // Products and quotients: at most 8 roundings of a value, a division counts 5.
        let of_group = group_rstd * group_rstd * k * scale;
        let x_rounded = 2.0 * U * scale.abs() * (12.0 * of_group.abs() + 4.0 * of_weight.abs());
        let of_dy = (scale * group_rstd * w).abs();
        let grad_rounded = 2.0 * U * 2.0 * of_dy;
        x_scale.push(x_rounded);
        grad_scale.push(grad_rounded);
        // The offsets times the scales: the scales' errors, a rounding of each product and two sums.
        let (e, d) = (wide(products[item].offset).abs(), wide(row.offset).abs());
        let of_x = scale.abs() * (of_group.abs() + of_weight.abs());
        let of_offsets = e * grad_rounded + d * x_rounded + 2.0 * U * 3.0 * (e * of_dy + d * of_x);
        let z = shift(row, channel);
        let own = scale.abs().max(f64::MIN_POSITIVE);
        shifts.push(
            2.0 * U
                * scale.abs()
                * (8.0 * (t1 / len).abs()
                    + 4.0 * wide(means[c].bias).abs()
                    + of_weight.abs() * (5.0 * z.above.abs() + z.rounded / own))
                + of_offsets
                + 2.0 * U * scale.abs() * ((t1 / len).abs() + of_weight.abs() * z.above.abs()),
        );
    }
    vec![
        Checks::new(5)
            .same("x_pivot", &[0])
            .near("x_scale", &[1], x_scale)
            .same("grad_pivot", &[2])
            .near("grad_scale", &[3], grad_scale)
            .near("shift", &[4], shifts),
    ]
}
