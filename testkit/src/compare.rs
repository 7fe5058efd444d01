//! Comparisons that tests and the command rest on. Every one of them is seen to fail below.
//!
//! f32 tensors, parameters' gradients and statistics are compared in the metric of the golden files:
//! the largest difference, divided by the tensor's scale. Of a 16-bit tensor that says little, since
//! storing rounds each element to its own size; [`rounded`] counts units in the last place instead.

use crate::names::is_tensor;
use crate::oracle;
use crate::outputs::{Expected, Outputs};
use crate::problem::Problem;
use crate::storage::{round, ulp, ulps};
use bcnorm::DType;

/// The error of a tensor, max |got - expected| / scale, as [`oracle::error`] defines it: a NaN
/// that was not expected is an infinite error. `Err` if the lengths differ.
pub fn error<T: Copy + Into<f64>>(got: &[T], expected: &[f64], scale: f64) -> Result<f64, String> {
    if got.len() != expected.len() {
        return Err(format!(
            "{} elements, but {} are expected",
            got.len(),
            expected.len()
        ));
    }
    Ok(oracle::error(got, expected, scale))
}

/// Asserts that [`error`] is at most `bound`, and returns it. The panic names the tensor, the
/// worst element and by how much it is off.
pub fn assert_close<T: Copy + Into<f64>>(
    name: &str,
    got: &[T],
    expected: &[f64],
    scale: f64,
    bound: f64,
) -> f64 {
    // An infinite bound would let a NaN pass.
    assert!(
        bound.is_finite() && bound >= 0.0,
        "{name}: the bound is {bound}, which bounds nothing"
    );
    let error = error(got, expected, scale).unwrap_or_else(|message| panic!("{name}: {message}"));
    if error <= bound {
        return error;
    }
    let errors = || {
        let pairs = got.iter().zip(expected);
        pairs.map(|(&got, &expected)| oracle::element_error(got.into(), expected, scale))
    };
    let worst = errors().position(|element| element >= error);
    let worst = worst.expect("the tensor's error is an element's");
    let bad = errors().filter(|element| *element > bound).count();
    let (got_worst, expected_worst): (f64, f64) = (got[worst].into(), expected[worst]);
    panic!(
        "{name}: element {worst} is {got_worst:e}, expected {expected_worst:e}: error {error:.3e} \
         of the scale {scale:e}, more than {bound:.3e} ({bad} of {} elements are)",
        got.len()
    );
}

/// The largest distance of two tensors, in units in the last place (2^-23 for f32, 2^-10 for f16) of a scale: the tensor's
/// largest value, or, of a parameter's gradient, the largest sum of absolute terms behind one, since the sum itself may cancel.
///
/// # Panics
/// Where the lengths differ, or a value is not finite.
pub fn units(a: &[f32], b: &[f32], scale: f64, dtype: DType) -> f32 {
    assert_eq!(a.len(), b.len());
    let unit = scale as f32
        * match dtype {
            DType::F16 => 1.0 / 1024.0,
            _ => f32::EPSILON,
        };
    let worst = a.iter().zip(b).map(|(a, b)| {
        assert!(a.is_finite() && b.is_finite());
        (a - b).abs() / unit
    });
    worst.fold(0.0, f32::max)
}

/// Asserts that two tensors have the same bits, those of zeros and NaN included.
pub fn assert_same_bits(name: &str, got: &[f32], expected: &[f32]) {
    assert!(
        got.len() == expected.len(),
        "{name}: {} elements, but {} are expected",
        got.len(),
        expected.len()
    );
    let differ = |i: &usize| got[*i].to_bits() != expected[*i].to_bits();
    if let Some(first) = (0..got.len()).find(differ) {
        let count = (first..got.len()).filter(differ).count();
        let (a, b) = (got[first], expected[first]);
        panic!(
            "{name}: element {first} is {a:e} ({:#010x}), expected {b:e} ({:#010x}): the first of \
             {count} of {} elements whose bits differ",
            a.to_bits(),
            b.to_bits(),
            got.len()
        );
    }
}

/// How far a 16-bit tensor is from the correctly rounded f64 result.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rounded {
    /// Elements whose type resolves less than the arithmetic does: all but those so near 0 that f32's own
    /// error is larger than their unit in the last place.
    pub counted: usize,
    /// Those of them that are not the correctly rounded result.
    pub inexact: usize,
    /// Their largest distance from it in units in the last place; 1 is right.
    pub worst_ulps: u32,
    /// Elements, of all, that are further from it than allowed.
    pub wrong: usize,
    /// The first of them.
    pub first_wrong: Option<usize>,
}

impl Rounded {
    /// The share of correctly rounded results.
    pub fn exact(&self) -> f64 {
        match self.counted {
            0 => 1.0,
            counted => 1.0 - self.inexact as f64 / counted as f64,
        }
    }

    /// Whether no element is wrong, and all but 1 % (and one element) are the correctly rounded result.
    pub fn pass(&self) -> bool {
        self.wrong == 0 && self.inexact <= 1 + self.counted / 100
    }
}

/// Compares a 16-bit tensor with the f64 result; `bar` is what f32 arithmetic may be off by, of the
/// scale. `Err` if the lengths differ.
///
/// The result t in f32 is within bar * scale of the exact one. Where that is less than a unit in the
/// last place (ulp), the rounded t is the correctly rounded result or next to it: next to it only where
/// the middle of two values lies between t and the exact result. f32's usual error is a tenth of the bar,
/// 1e-7 of the scale, and an element of a twentieth of the scale has an ulp of 3e-5 of it in f16: of
/// these 0.3 % are next to it, of larger ones fewer; hence 1 % in [`Rounded::pass`]. Where bar * scale is
/// more than an ulp, the element may be off by both.
pub fn rounded(
    got: &[f32],
    expected: &[f64],
    dtype: DType,
    scale: f64,
    bar: f64,
) -> Result<Rounded, String> {
    if got.len() != expected.len() {
        return Err(format!(
            "{} elements, but {} are expected",
            got.len(),
            expected.len()
        ));
    }
    // A scale or a bar that is NaN or infinite would let anything pass.
    let f32_error = bar * scale;
    if !(bar >= 0.0 && scale >= 0.0 && f32_error.is_finite()) {
        return Err(format!(
            "the bar {bar:e} of the scale {scale:e} bounds nothing"
        ));
    }
    let mut found = Rounded::default();
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let nearest = round(expected, dtype);
        let distance = ulps(got, nearest, dtype);
        let unit = ulp(nearest, dtype);
        // Finite values beside an f32 error that is larger than what their type resolves.
        let coarse = nearest.is_finite() && got.is_finite() && f32_error > unit;
        let allowed = match coarse {
            true => (f64::from(got) - f64::from(nearest)).abs() <= unit + f32_error,
            false => distance <= 1,
        };
        if !coarse {
            found.counted += 1;
            found.inexact += usize::from(distance > 0);
            found.worst_ulps = found.worst_ulps.max(distance);
        }
        if !allowed {
            found.wrong += 1;
            found.first_wrong = found.first_wrong.or(Some(i));
        }
    }
    Ok(found)
}

/// What a comparison of one output found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The error in the golden metric, of 16-bit tensors, too.
    pub error: f64,
    /// What it is held to; of 16-bit tensors, what f32 arithmetic may add.
    pub bar: f64,
    /// Of 16-bit tensors, what they are held to.
    pub rounded: Option<Rounded>,
    /// What is wrong, if anything is.
    pub wrong: Option<String>,
}

impl Finding {
    /// How much of what is allowed was taken: more than 1 is wrong.
    pub fn fraction(&self) -> f64 {
        match &self.rounded {
            None if self.error == 0.0 => 0.0,
            None => self.error / self.bar,
            Some(_) if self.wrong.is_some() => f64::INFINITY,
            Some(rounded) => rounded.inexact as f64 / (1 + rounded.counted / 100) as f64,
        }
    }
}

/// Compares one output of a problem, by its name: tensors of 16 bits by [`rounded`], all else by
/// [`error`].
pub fn judge(
    dtype: DType,
    name: &str,
    got: &[f32],
    expected: &[f64],
    scale: f64,
    bar: f64,
) -> Finding {
    let mut finding = Finding {
        error: f64::INFINITY,
        bar,
        rounded: None,
        wrong: None,
    };
    match error(got, expected, scale) {
        Ok(error) => finding.error = error,
        Err(message) => {
            finding.wrong = Some(format!("{name}: {message}"));
            return finding;
        }
    }
    if dtype == DType::F32 || !is_tensor(name) {
        // Never true for a NaN.
        if !(finding.error <= bar && bar.is_finite()) {
            finding.wrong = Some(format!(
                "{name}: error {:.3e} of the scale {scale:e}, more than {bar:.3e}",
                finding.error
            ));
        }
        return finding;
    }
    match rounded(got, expected, dtype, scale, bar) {
        Err(message) => finding.wrong = Some(format!("{name}: {message}")),
        Ok(rounded) => {
            if let Some(first) = rounded.first_wrong {
                finding.wrong = Some(format!(
                    "{name}: element {first} is {:e}, expected {:e}, in {} {:e} ({} of {} elements \
                     are off by more than a unit in the last place)",
                    got[first],
                    expected[first],
                    dtype.name(),
                    round(expected[first], dtype),
                    rounded.wrong,
                    got.len()
                ));
            } else if !rounded.pass() {
                finding.wrong = Some(format!(
                    "{name}: {} of {} elements are not the correctly rounded result",
                    rounded.inexact, rounded.counted
                ));
            }
            finding.rounded = Some(rounded);
        }
    }
    finding
}

/// Asserts that every output is within `bound` of the oracle, in the golden metric.
pub fn assert_outputs(what: &str, got: &Outputs, expected: &Expected, bound: f64) {
    for (name, values) in got {
        let (expected, scale) = &expected[name];
        assert_close(&format!("{what}: {name}"), values, expected, *scale, bound);
    }
}

/// Asserts that every output of a problem is there and passes [`judge`], with a bar for each. Returns
/// the largest [`fraction`](Finding::fraction), and of what.
pub fn assert_problem(
    what: &str,
    problem: &Problem,
    got: &Outputs,
    expected: &Expected,
    bar: impl Fn(&str) -> f64,
) -> (f64, String) {
    let names = |names: Vec<&&str>| format!("{names:?}");
    assert_eq!(
        names(got.keys().collect()),
        names(expected.keys().collect()),
        "{what}: the outputs"
    );
    let mut worst = (0.0, String::new());
    for (name, values) in got {
        let (expected, scale) = &expected[name];
        let finding = judge(problem.dtype, name, values, expected, *scale, bar(name));
        if let Some(wrong) = &finding.wrong {
            panic!("{what}: {wrong}");
        }
        if finding.fraction() > worst.0 {
            worst = (
                finding.fraction(),
                format!("{what}: {name}: {:.1e}", finding.error),
            );
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    const BOUND: f64 = 1e-6;

    /// A tensor, and the same in f64 with a rounding's worth of error.
    fn tensor() -> (Vec<f32>, Vec<f64>) {
        let expected: Vec<f64> = (0..1003)
            .map(|i| (f64::from(i) * 0.37).sin() * 3.0)
            .collect();
        (
            expected.iter().map(|&value| value as f32).collect(),
            expected,
        )
    }

    /// The message with which a comparison fails.
    fn failure(compare: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let payload = catch_unwind(compare).expect_err("the comparison did not fail");
        payload.downcast_ref::<String>().unwrap().clone()
    }

    /// Asserts that both comparisons reject `got`, and returns what `assert_close` says.
    fn rejected(got: &[f32]) -> String {
        let (good, expected) = tensor();
        let bits = failure(|| assert_same_bits("tensor", got, &good));
        assert!(bits.starts_with("tensor: "), "{bits}");
        let message = failure(|| {
            assert_close("tensor", got, &expected, 3.0, BOUND);
        });
        assert!(message.starts_with("tensor: "), "{message}");
        message
    }

    #[test]
    fn a_rounded_tensor_is_close() {
        let (got, expected) = tensor();
        let error = assert_close("tensor", &got, &expected, 3.0, BOUND);
        // Half a unit in the last place of 2 to 4 is 2^-23.
        assert!(error > 0.0 && error <= 2.0f64.powi(-23) / 3.0, "{error}");
        assert_same_bits("tensor", &got, &got.clone());
        assert_eq!(super::error(&expected, &expected, 3.0), Ok(0.0));
        assert_close::<f32>("empty", &[], &[], 0.0, 0.0);
        assert_same_bits("empty", &[], &[]);
    }

    #[test]
    fn one_wrong_element_fails_and_is_named() {
        let (good, expected) = tensor();
        for at in [0, 1, 500, 1001, 1002] {
            for wrong in [
                good[at] + 1e-5,
                -good[at] - 1.0,
                f32::NAN,
                f32::INFINITY,
                f32::NEG_INFINITY,
                f32::MAX,
            ] {
                let mut got = good.clone();
                got[at] = wrong;
                let message = rejected(&got);
                let element = format!(
                    "element {at} is {:e}, expected {:e}",
                    f64::from(wrong),
                    expected[at]
                );
                assert!(message.contains(&element), "{message}");
                assert!(message.contains("1.000e-6 (1 of 1003"), "{message}");
            }
        }
    }

    #[test]
    fn the_worst_element_is_named_and_a_nan_is_the_worst() {
        let (good, _) = tensor();
        let mut got = good.clone();
        got[3] += 0.1;
        got[700] += 0.2;
        assert!(rejected(&got).contains("element 700 "));
        got[40] = f32::NAN;
        assert!(rejected(&got).contains("element 40 "));
    }

    #[test]
    fn poison_swaps_and_shifts_fail() {
        let (good, _) = tensor();
        rejected(&vec![0.0; good.len()]);
        rejected(&vec![f32::NAN; good.len()]);
        rejected(&vec![1e30; good.len()]);
        // Another tensor in its place, the tensor backwards, off by one, and half written.
        let other: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.37).cos() * 3.0).collect();
        rejected(&other);
        rejected(&good.iter().rev().copied().collect::<Vec<_>>());
        let mut got = good.clone();
        got.rotate_left(1);
        rejected(&got);
        let mut got = good.clone();
        got[502..].fill(0.0);
        rejected(&got);
    }

    #[test]
    fn a_wrong_length_fails() {
        let (good, expected) = tensor();
        for got in [
            &good[1..],
            &good[..1002],
            &[],
            &[good.clone(), good.clone()].concat(),
        ] {
            assert!(rejected(got).contains("but 1003 are expected"));
            let message = super::error(got, &expected, 3.0).unwrap_err();
            assert!(
                message.contains(&format!("{} elements", got.len())),
                "{message}"
            );
        }
    }

    #[test]
    fn nan_and_infinity_match_only_themselves() {
        let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0];
        for (i, &expected) in special.iter().enumerate() {
            for (j, &got) in special.iter().enumerate() {
                let error = super::error(&[0.5, got as f32], &[0.5, expected], 1.0).unwrap();
                assert_eq!(error, if i == j { 0.0 } else { f64::INFINITY });
            }
        }
    }

    #[test]
    fn a_scale_that_would_hide_errors_fails() {
        let (good, expected) = tensor();
        for scale in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(super::error(&good, &expected, scale), Ok(f64::INFINITY));
        }
        // A scale of 0 expects zeros and takes nothing else.
        assert_eq!(super::error(&[0.0f32, -0.0], &[0.0, 0.0], 0.0), Ok(0.0));
        assert_eq!(
            super::error(&[0.0f32, 1e-30], &[0.0, 0.0], 0.0),
            Ok(f64::INFINITY)
        );
    }

    #[test]
    fn a_bound_that_bounds_nothing_fails() {
        let (good, expected) = tensor();
        for bound in [f64::NAN, f64::INFINITY, -1e-6] {
            let message = failure(|| {
                assert_close("tensor", &good, &expected, 3.0, bound);
            });
            assert!(message.contains("bounds nothing"), "{message}");
        }
    }

    #[test]
    fn bits_tell_zeros_and_nan_apart() {
        let message = failure(|| assert_same_bits("zeros", &[1.0, 0.0, 2.0], &[1.0, -0.0, 3.0]));
        assert!(message.contains("element 1 "), "{message}");
        assert!(message.contains("2 of 3 elements"), "{message}");
        let quiet = f32::from_bits(0x7fc0_0000);
        let other = f32::from_bits(0x7fc0_0001);
        assert_same_bits("nan", &[quiet], &[quiet]);
        failure(|| assert_same_bits("nan", &[quiet], &[other]));
    }

    // -------------------------------------------------------------------------------------------
    // 16-bit tensors

    const HALVES: [DType; 2] = [DType::F16, DType::BF16];

    /// A correctly rounded tensor of scale 3, and the f64 one.
    fn halves(dtype: DType) -> (Vec<f32>, Vec<f64>) {
        let (_, expected) = tensor();
        (
            expected.iter().map(|&e| round(e, dtype)).collect(),
            expected,
        )
    }

    fn verdict(dtype: DType, got: &[f32], expected: &[f64]) -> Finding {
        judge(dtype, "y", got, expected, 3.0, BOUND)
    }

    /// The value so many steps further from 0.
    fn outwards(value: f32, steps: u32, dtype: DType) -> f32 {
        let step = |value: f32, _| {
            let unit = ulp(value, dtype).copysign(value.into());
            round(f64::from(value) + unit, dtype)
        };
        (0..steps).fold(value, step)
    }

    /// The next value towards 0; below a power of two it is half a unit away.
    fn inwards(value: f32, dtype: DType) -> f32 {
        let unit = ulp(value, dtype).copysign(value.into());
        round(f64::from(value) - 0.6 * unit, dtype)
    }

    #[test]
    fn a_correctly_rounded_tensor_passes() {
        for dtype in HALVES {
            let (got, expected) = halves(dtype);
            let finding = verdict(dtype, &got, &expected);
            assert_eq!(finding.wrong, None);
            let rounded = finding.rounded.unwrap();
            assert_eq!((rounded.inexact, rounded.worst_ulps), (0, 0));
            assert_eq!(rounded.exact(), 1.0);
            // As f32 it would not pass, and a parameter's gradient is judged as f32.
            assert!(
                judge(DType::F32, "y", &got, &expected, 3.0, BOUND)
                    .wrong
                    .is_some()
            );
            assert!(
                judge(dtype, "grad_weight", &got, &expected, 3.0, BOUND)
                    .wrong
                    .is_some()
            );
            assert_eq!(finding.error, error(&got, &expected, 3.0).unwrap());
        }
    }

    #[test]
    fn one_wrong_element_fails_in_16_bits() {
        for dtype in HALVES {
            let (good, expected) = halves(dtype);
            for at in [0, 1, 500, 1001, 1002] {
                for wrong in [
                    outwards(good[at], 2, dtype),
                    inwards(inwards(good[at], dtype), dtype),
                    -good[at] - 1.0,
                    f32::NAN,
                    f32::INFINITY,
                    f32::NEG_INFINITY,
                ] {
                    // Near 0 f32's error is more than two units.
                    if good[at] == 0.0 && wrong.abs() < 2e-6 {
                        continue;
                    }
                    let mut got = good.clone();
                    got[at] = wrong;
                    let finding = verdict(dtype, &got, &expected);
                    let message = finding.wrong.clone().expect("not seen");
                    assert!(
                        message.starts_with(&format!("y: element {at} is ")),
                        "{message}"
                    );
                    assert_eq!(finding.rounded.unwrap().wrong, 1);
                    assert!(finding.fraction() > 1.0);
                }
                // A neighbour is no mistake, alone.
                let mut got = good.clone();
                got[at] = outwards(good[at], 1, dtype);
                assert_eq!(verdict(dtype, &got, &expected).wrong, None);
            }
        }
    }

    #[test]
    fn many_neighbours_fail() {
        for dtype in HALVES {
            let (good, expected) = halves(dtype);
            let step = |count: usize| {
                let mut got = good.clone();
                for value in got.iter_mut().skip(1).take(count) {
                    *value = outwards(*value, 1, dtype);
                }
                verdict(dtype, &got, &expected)
            };
            assert_eq!(step(10).wrong, None);
            let finding = step(100);
            let message = finding.wrong.clone().expect("not seen");
            assert!(
                message.contains("not the correctly rounded result"),
                "{message}"
            );
            assert!(finding.fraction() > 1.0 && finding.rounded.unwrap().worst_ulps == 1);
            // Truncated instead of rounded: each element is next to it at most, half of them are off.
            let truncated: Vec<f32> = expected
                .iter()
                .zip(&good)
                .map(|(&e, &g)| match f64::from(g).abs() > e.abs() {
                    true => inwards(g, dtype),
                    false => g,
                })
                .collect();
            assert!(verdict(dtype, &truncated, &expected).wrong.is_some());
        }
    }

    #[test]
    fn poison_swaps_and_shifts_fail_in_16_bits() {
        for dtype in HALVES {
            let (good, expected) = halves(dtype);
            let fails = |got: &[f32]| assert!(verdict(dtype, got, &expected).wrong.is_some());
            fails(&vec![0.0; good.len()]);
            fails(&vec![f32::NAN; good.len()]);
            fails(&good.iter().rev().copied().collect::<Vec<_>>());
            fails(&good[1..]);
            fails(&[]);
            let mut got = good.clone();
            got.rotate_left(1);
            fails(&got);
            let mut got = good.clone();
            got[502..].fill(0.0);
            fails(&got);
            // Of the other 16-bit type, of f32.
            let other = HALVES[usize::from(dtype == DType::F16)];
            fails(&halves(other).0);
            let mut doubled = good.clone();
            doubled.iter_mut().for_each(|value| *value *= 2.0);
            fails(&doubled);
        }
    }

    #[test]
    fn near_zero_the_error_of_f32_counts() {
        // 2^-24 is f16's smallest value; f32's error is 1e-6 of the scale.
        let expected = vec![1e-7; 50];
        let off = |by: f64, scale: f64| {
            let got = vec![round(1e-7 + by, DType::F16); 50];
            judge(DType::F16, "y", &got, &expected, scale, BOUND)
        };
        assert_eq!(off(0.0, 1.0).wrong, None);
        assert_eq!(off(9e-7, 1.0).wrong, None);
        assert_eq!(off(9e-7, 1.0).rounded.unwrap().counted, 0);
        assert!(off(1.3e-6, 1.0).wrong.is_some());
        assert!(off(-1.5e-6, 1.0).wrong.is_some());
        // With a smaller scale the same difference is wrong.
        assert!(off(9e-7, 0.01).wrong.is_some());
    }

    #[test]
    fn overflow_is_infinite_and_nan_is_nan() {
        let judged =
            |got: f32, expected: f64| judge(DType::F16, "y", &[got], &[expected], 1e5, 0.0);
        assert_eq!(judged(f32::INFINITY, 70_000.0).wrong, None);
        assert!(judged(f32::NEG_INFINITY, 70_000.0).wrong.is_some());
        assert!(judged(65_000.0, 70_000.0).wrong.is_some());
        assert!(judged(f32::INFINITY, 64_000.0).wrong.is_some());
        assert!(judged(f32::NAN, 1.0).wrong.is_some());
        assert!(judged(1.0, f64::NAN).wrong.is_some());
        // What the metric of f32 would call infinitely wrong: the expected value does not fit.
        assert!(judged(f32::INFINITY, f64::INFINITY).wrong.is_none());
    }

    #[test]
    fn what_bounds_nothing_fails_in_16_bits() {
        let (good, expected) = halves(DType::F16);
        for (scale, bar) in [
            (f64::NAN, 1e-6),
            (f64::INFINITY, 1e-6),
            (-1.0, 1e-6),
            (1.0, f64::NAN),
            (1.0, f64::INFINITY),
            (1.0, -1e-6),
        ] {
            let finding = judge(DType::F16, "y", &good, &expected, scale, bar);
            assert!(finding.wrong.is_some(), "{scale} {bar}");
            let finding = judge(DType::F32, "y", &good, &expected, scale, bar);
            assert!(finding.wrong.is_some(), "{scale} {bar}");
        }
    }

    // -------------------------------------------------------------------------------------------
    // Problems

    /// A problem, what it must yield, and that as outputs.
    fn answered(dtype: DType) -> (Problem, Expected, Outputs) {
        let problem = Problem::random(&[3, 4, 31], 2, 5).with_dtype(dtype);
        let expected = crate::expected::expected(&problem);
        let stored = |name: &str| if is_tensor(name) { dtype } else { DType::F32 };
        let outputs = expected.iter().map(|(&name, (values, _))| {
            let values = values.iter().map(|&value| round(value, stored(name)));
            (name, values.collect())
        });
        let outputs = outputs.collect();
        (problem, expected, outputs)
    }

    #[test]
    fn every_wrong_output_of_a_problem_fails() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let (problem, expected, good) = answered(dtype);
            let check = |got: &Outputs| assert_problem("it", &problem, got, &expected, |_| BOUND);
            assert!(check(&good).0 <= 1.0);
            for &name in good.keys() {
                for wrong in [f32::NAN, f32::INFINITY, 1e3] {
                    let mut got = good.clone();
                    got.get_mut(name).unwrap()[1] = wrong;
                    let message = failure(std::panic::AssertUnwindSafe(|| drop(check(&got))));
                    assert!(message.starts_with(&format!("it: {name}: ")), "{message}");
                }
                let mut got = good.clone();
                got.remove(name);
                let message = failure(std::panic::AssertUnwindSafe(|| drop(check(&got))));
                assert!(message.contains("the outputs"), "{message}");
            }
            for (a, b) in [
                ("y", "grad_x"),
                ("grad_weight", "grad_bias"),
                ("grad_bn.weight", "grad_bn.bias"),
                ("bn.running_mean_after", "bn.running_var_after"),
            ] {
                let mut got = good.clone();
                got.insert(a, good[b].clone());
                got.insert(b, good[a].clone());
                failure(std::panic::AssertUnwindSafe(|| drop(check(&got))));
            }
        }
    }
}
