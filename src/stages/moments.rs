//! Twin of `shaders/parts/arithmetic/moments.wgsl`.

use crate::tables::{Moments, Products};
use std::hint::select_unpredictable;

/// The mean of the union of two sets, and what their spreads need of it.
struct Union {
    count: u32,
    pivot: f32,
    offset: f32,
    /// The shares of a and of b in the union.
    share_a: f32,
    share_b: f32,
    /// How far its mean is above a's, and below b's.
    to_a: f32,
    to_b: f32,
}

/// Unites (count, pivot, offset) of two sets, neither of them empty. The mean can be written
/// relative to either pivot: the sum with the smaller terms, and so the smaller rounding, is taken.
#[inline(always)]
fn unite(a: (u32, f32, f32), b: (u32, f32, f32)) -> Union {
    let (a_count, a_pivot, a_offset) = a;
    let (b_count, b_pivot, b_offset) = b;
    let count = a_count + b_count;
    let [share_a, share_b] = shares(a_count, b_count);
    let delta = (b_pivot - a_pivot) + (b_offset - a_offset);
    let (to_a, to_b) = (delta * share_b, delta * share_a);
    let keep_a = larger(a_offset.abs(), to_a.abs()) <= larger(b_offset.abs(), to_b.abs());
    // Which one it is, no processor can guess.
    let pivot = select_unpredictable(keep_a, a_pivot, b_pivot);
    let offset = select_unpredictable(keep_a, a_offset + to_a, b_offset - to_b);
    Union {
        count,
        pivot,
        offset,
        share_a,
        share_b,
        to_a,
        to_b,
    }
}

/// The shares of two sets in their union, whose sum is 1 to a rounding that falls to both sides alike. Only the smaller one is
/// a quotient: `shaders/parts/arithmetic/shares.wgsl` says why.
#[inline(always)]
pub(crate) fn shares(a_count: u32, b_count: u32) -> [f32; 2] {
    let smaller = a_count.min(b_count) as f32 / (a_count + b_count) as f32;
    let larger = 1.0 - smaller;
    if a_count >= b_count {
        [larger, smaller]
    } else {
        [smaller, larger]
    }
}

/// One instruction, unlike `f32::max`: a NaN among the offsets is in both sums anyway.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Moments of the union of two sets from the moments of each (Chan, Golub, LeVeque 1979).
#[inline(always)]
pub fn merge_moments(a: Moments, b: Moments) -> Moments {
    if b.count == 0 {
        return a;
    }
    if a.count == 0 {
        return b;
    }
    let both = unite((a.count, a.pivot, a.offset), (b.count, b.pivot, b.offset));
    Moments {
        count: both.count,
        pivot: both.pivot,
        offset: both.offset,
        variance: (a.variance * both.share_a + b.variance * both.share_b) + both.to_a * both.to_b,
    }
}

/// Merges the entries of a table, and looks at them a second time from the mean just found: what is left
/// of it goes into the offset, the spread is summed about it. The result no longer depends on the order of
/// the merges.
#[inline(always)]
pub(super) fn merge_all(entries: impl Iterator<Item = Moments> + Clone) -> Moments {
    let mut all = entries.clone().fold(Moments::default(), merge_moments);
    let (mut left, mut spread) = (0.0, 0.0);
    for part in entries {
        let delta = f64::from((part.pivot - all.pivot) + (part.offset - all.offset));
        let count = f64::from(part.count);
        left += count * delta;
        spread += count * (f64::from(part.variance) + delta * delta);
    }
    let count = f64::from(all.count.max(1));
    all.offset += (left / count) as f32;
    all.variance = (spread / count) as f32;
    all
}

/// [`merge_moments`] for dy and its covariance with u = x - row mean, which is about both means.
#[inline(always)]
pub fn merge_products(a: Products, b: Products) -> Products {
    if b.count == 0 {
        return a;
    }
    if a.count == 0 {
        return b;
    }
    let both = unite((a.count, a.pivot, a.offset), (b.count, b.pivot, b.offset));
    let to_x = (b.x_mean - a.x_mean) * both.share_b;
    Products {
        count: both.count,
        pivot: both.pivot,
        offset: both.offset,
        x_mean: a.x_mean + to_x,
        covariance: (a.covariance * both.share_a + b.covariance * both.share_b) + both.to_b * to_x,
    }
}
