//! Comparisons that GPU tests rest on. Every one of them is seen to fail below.

// Each test crate that includes this uses its own part of it.
#![allow(dead_code)]

use bcnorm::oracle;

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
}
