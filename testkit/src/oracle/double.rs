//! Double-double arithmetic: a number is the unevaluated sum of two `f64`, about 32 decimal digits.
//!
//! The oracle calculates in it so that its formulas can stay those of the textbook. A mean a
//! million standard deviations away, or a gradient whose terms all but cancel, costs some of the
//! 32 digits and none of the 16 that are handed out. The operations are the classical ones of
//! Dekker and Knuth (as in the QD library of Hida, Li and Bailey), without a fused
//! multiply-add, which not every target has.
//!
//! It is our own because the crate `twofloat` (0.8.4) does not hold what the oracle promises: there an
//! infinity becomes NaN in every operation, a quotient may be good to 16 digits instead of 32, and so
//! is the exponential (exp(-1) is off by 9e-12 of itself). The tests below fail with it.

use super::number::Number;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// `hi + lo`, with `hi` the sum rounded to an `f64` and `lo` what that rounding left out.
///
/// A `hi` that is infinite or not a number has a `lo` of zero, so both spread as they do in
/// `f64`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Double {
    hi: f64,
    lo: f64,
}

impl Number for Double {
    const ZERO: Self = Self { hi: 0.0, lo: 0.0 };
    const ONE: Self = Self { hi: 1.0, lo: 0.0 };

    fn to_f64(self) -> f64 {
        self.hi
    }

    fn is_finite(self) -> bool {
        self.hi.is_finite()
    }

    fn sqrt(self) -> Self {
        let root = self.hi.sqrt();
        if root == 0.0 || !root.is_finite() {
            return Self::from(root);
        }
        // One step of Newton's method doubles the 16 digits of the f64 root.
        let rest = self - Self::from_parts(two_product(root, root));
        Self::from_parts(two_sum(root, rest.hi / (2.0 * root)))
    }

    /// The exponential, good to about 30 digits where it is neither huge nor tiny; beyond the range
    /// of `f64` infinite or 0.
    fn exp(self) -> Self {
        /// ln 2, of which [`std::f64::consts::LN_2`] is the leading part.
        const LN_2: Double = Double {
            hi: std::f64::consts::LN_2,
            lo: 2.319_046_813_846_299_6e-17,
        };
        /// 2^4 small arguments make one.
        const HALVINGS: i32 = 4;
        /// The largest small argument is ln 2 / 2 / 16 < 0.022, and 0.022^16 / 16! is 1e-40.
        const TERMS: i32 = 15;

        if self.hi.is_nan() {
            return self;
        }
        // At these bounds the result is far below the smallest f64, or far above the largest.
        if !(-800.0..=800.0).contains(&self.hi) {
            return Self::from(if self.hi < 0.0 { 0.0 } else { f64::INFINITY });
        }
        let twos = (self.hi / LN_2.hi).round();
        let small = (self - LN_2 * Self::from(twos)).scaled(-HALVINGS);
        // exp - 1, which is small, so that squaring it into the next exp - 1 keeps its digits.
        let mut rest = Self::ZERO;
        for term in (1..=TERMS).rev() {
            rest = small * (Self::ONE + rest) / Self::from(f64::from(term));
        }
        for _ in 0..HALVINGS {
            rest = rest.scaled(1) + rest * rest;
        }
        (Self::ONE + rest).scaled(twos as i32)
    }
}

impl Double {
    /// The product with 2^`exponent`.
    fn scaled(self, exponent: i32) -> Self {
        // Two factors: 2^1024 is no f64.
        let power = |exponent: i32| f64::from_bits(((1023 + exponent) as u64) << 52);
        let (first, second) = (power(exponent / 2), power(exponent - exponent / 2));
        Self::from_parts((self.hi * first * second, self.lo * first * second))
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
    fn the_exponential_has_30_digits() {
        // From 60 digits: float(e) and float(e - Decimal(float(e))) with e = Decimal(x).exp() in
        // Python.
        for (x, hi, lo) in [
            (1.0f64, std::f64::consts::E, 1.4456468917292502e-16),
            (-1.0, 0.36787944117144233, -1.2428753672788363e-17),
            (0.5, 1.6487212707001282, -4.731568479435833e-17),
            (-20.0, 2.061153622438558e-09, -4.19755767595054e-26),
            (40.0, 2.3538526683702e17, -14.592100089250966),
        ] {
            // The argument's multiple of ln 2 is rounded as the argument's size.
            assert_near(
                Double::from(x).exp(),
                Double { hi, lo },
                hi * (1.0 + x.abs()),
            );
        }
        for a in samples().into_iter().filter(|a| a.to_f64().abs() < 20.0) {
            // 100 units for the argument's own rounding, which the exponential multiplies.
            let bound = |size: f64| 100.0 * size;
            let half = a / Double::from(2.0);
            assert_near(a.exp(), half.exp() * half.exp(), bound(a.exp().to_f64()));
            assert_near(a.exp() * (-a).exp(), Double::from(1.0), bound(1.0));
            // In f64, by another implementation.
            let error = (a.exp().to_f64() / a.to_f64().exp() - 1.0).abs();
            assert!(error < 1e-14, "{a:?}");
        }
        assert_eq!(Double::ZERO.exp(), Double::from(1.0));
    }

    #[test]
    fn the_exponential_ends_as_in_f64() {
        for x in [-745.0, -740.0, -708.0, 700.0, 709.7] {
            let (got, expected) = (Double::from(x).exp().to_f64(), f64::exp(x));
            let least = f64::from_bits(1);
            let error = (got - expected).abs();
            assert!(error <= 1e-14 * expected + least, "{got} is not {expected}");
        }
        for x in [-750.0, -1e9, f64::NEG_INFINITY] {
            assert_eq!(Double::from(x).exp(), Double::ZERO);
        }
        for x in [710.0, 1e9, f64::INFINITY] {
            assert_eq!(Double::from(x).exp(), Double::from(f64::INFINITY));
        }
        assert!(Double::from(f64::NAN).exp().to_f64().is_nan());
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
