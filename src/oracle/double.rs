//! Double-double arithmetic: a number is the unevaluated sum of two `f64`, about 32 decimal digits.
//!
//! The oracle calculates in it so that its formulas can stay those of the textbook. A mean a
//! million standard deviations away, or a gradient whose terms all but cancel, costs some of the
//! 32 digits and none of the 16 that are handed out. The operations are the classical ones of
//! Dekker and Knuth (as in the QD library of Hida, Li and Bailey), without a fused
//! multiply-add, which not every target has.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// `hi + lo`, with `hi` the sum rounded to an `f64` and `lo` what that rounding left out.
///
/// A `hi` that is infinite or not a number has a `lo` of zero, so both spread as they do in
/// `f64`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Double {
    hi: f64,
    lo: f64,
}

impl Double {
    /// Zero.
    pub(super) const ZERO: Self = Self { hi: 0.0, lo: 0.0 };

    /// The nearest `f64`.
    pub(super) fn to_f64(self) -> f64 {
        self.hi
    }

    /// Neither infinite nor NaN.
    pub(super) fn is_finite(self) -> bool {
        self.hi.is_finite()
    }

    /// The square root; NaN of a negative number.
    pub(super) fn sqrt(self) -> Self {
        let root = self.hi.sqrt();
        if root == 0.0 || !root.is_finite() {
            return Self::from(root);
        }
        // One step of Newton's method doubles the 16 digits of the f64 root.
        let rest = self - Self::from_parts(two_product(root, root));
        Self::from_parts(two_sum(root, rest.hi / (2.0 * root)))
    }

    /// Normalises a leading part and a trailing part, the trailing part much the smaller one.
    fn from_parts((hi, lo): (f64, f64)) -> Self {
        // Beside an infinity the error terms are NaN: they say nothing, so drop them.
        let lo = if lo.is_finite() { lo } else { 0.0 };
        let sum = hi + lo;
        let rest = lo - (sum - hi);
        Self {
            hi: sum,
            lo: if rest.is_finite() { rest } else { 0.0 },
        }
    }
}

impl From<f64> for Double {
    fn from(hi: f64) -> Self {
        Self { hi, lo: 0.0 }
    }
}

impl From<f32> for Double {
    fn from(value: f32) -> Self {
        Self::from(f64::from(value))
    }
}

/// The sum rounded and, exactly, what the rounding left out (Knuth).
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// The product rounded and, exactly, what the rounding left out (Dekker).
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    let ((a_hi, a_lo), (b_hi, b_lo)) = (halves(a), halves(b));
    let rest = ((a_hi * b_hi - product) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo;
    (product, rest)
}

/// Two numbers of at most 26 bits each whose sum is `a` (Veltkamp).
fn halves(a: f64) -> (f64, f64) {
    const SPLITTER: f64 = 134_217_729.0; // 2^27 + 1
    let scaled = SPLITTER * a;
    let hi = scaled - (scaled - a);
    (hi, a - hi)
}

impl Add for Double {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let (hi, hi_rest) = two_sum(self.hi, other.hi);
        let (lo, lo_rest) = two_sum(self.lo, other.lo);
        let Self { hi, lo } = Self::from_parts((hi, hi_rest + lo));
        Self::from_parts((hi, lo + lo_rest))
    }
}

impl AddAssign for Double {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Neg for Double {
    type Output = Self;

    fn neg(self) -> Self {
        Self {
            hi: -self.hi,
            lo: -self.lo,
        }
    }
}

impl Sub for Double {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Mul for Double {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let (hi, rest) = two_product(self.hi, other.hi);
        Self::from_parts((hi, rest + (self.hi * other.lo + self.lo * other.hi)))
    }
}

impl Div for Double {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        let first = self.hi / other.hi;
        if !first.is_finite() || !other.is_finite() {
            return Self::from(first);
        }
        // Long division, three digits of 53 bits each.
        let rest = self - other * Self::from(first);
        let second = rest.hi / other.hi;
        let rest = rest - other * Self::from(second);
        let third = rest.hi / other.hi;
        Self::from_parts(two_sum(first, second)) + Self::from(third)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten numbers on which rounding to one `f64` would show.
    fn samples() -> Vec<Double> {
        [1.0, 3.0, 7.1, 1e7, 1e-9, 12345.678, 0.3, 2.0f64.powi(60)]
            .into_iter()
            .flat_map(|a| {
                let third = Double::from(a) / Double::from(3.0);
                [third, -third]
            })
            .collect()
    }

    /// Asserts that the two agree to a few units of 2^-104 of `size`, the largest magnitude on
    /// the way: each operation here is good to one such unit of its operands.
    fn assert_near(got: Double, expected: Double, size: f64) {
        let difference = (got - expected).to_f64().abs();
        let bound = 8.0 / 2.0f64.powi(104) * size;
        assert!(difference <= bound, "{got:?} is not {expected:?}");
    }

    #[test]
    fn a_third_has_32_digits() {
        let third = Double::from(1.0) / Double::from(3.0);
        // 1/3 = 0.0101...b: the rest below the f64 is the f64 scaled by 2^-54.
        assert_eq!(third.hi, 1.0 / 3.0);
        assert_eq!(third.lo, (1.0 / 3.0) / (1u64 << 54) as f64);
    }

    #[test]
    fn operations_undo_each_other() {
        for a in samples() {
            for b in samples() {
                let sizes = [a.to_f64().abs(), b.to_f64().abs()];
                let size = sizes[0].max(sizes[1]);
                assert_near((a + b) + (a - b), a + a, size);
                assert_near((a * b) / b, a, sizes[0]);
                assert_near((a / b) * b, a, sizes[0]);
                assert_near((a + b) * (a - b), a * a - b * b, size * size);
            }
            let square = a * a;
            assert_near(
                square.sqrt(),
                if a.to_f64() < 0.0 { -a } else { a },
                a.to_f64().abs(),
            );
            assert_eq!((a - a).to_f64(), 0.0);
        }
    }

    #[test]
    fn integers_beyond_an_f64_are_exact() {
        // 2^53 + 1 is the first integer that an f64 lacks.
        let big = Double::from(2.0f64.powi(53)) + Double::from(1.0);
        assert_eq!((big - Double::from(2.0f64.powi(53))).to_f64(), 1.0);
        // (2^53 + 1)^2 = 2^106 + 2^54 + 1 takes 107 bits: 2^54 must survive, 1 need not.
        let rest = big * big - Double::from(2.0f64.powi(106));
        assert!((rest.to_f64() - 2.0f64.powi(54)).abs() <= 4.0);
    }

    #[test]
    fn infinities_and_nan_spread_as_in_f64() {
        let specials = [
            0.0,
            -0.0,
            1.0,
            -2.5,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
        ];
        let same = |got: Double, expected: f64| {
            assert!(
                got.to_f64() == expected || (got.to_f64().is_nan() && expected.is_nan()),
                "{got:?} is not {expected}"
            );
            assert!(got.is_finite() == expected.is_finite());
        };
        for a in specials {
            for b in specials {
                same(Double::from(a) + Double::from(b), a + b);
                same(Double::from(a) - Double::from(b), a - b);
                same(Double::from(a) * Double::from(b), a * b);
                same(Double::from(a) / Double::from(b), a / b);
            }
            same(Double::from(a).sqrt(), a.sqrt());
        }
    }
}
