//! Twin of `shaders/parts/moments.wgsl`.

use crate::tables::{Moments, Products};

/// Moments of the union of two sets from the moments of each (Chan, Golub, LeVeque 1979). The mean
/// of the union is kept relative to that pivot of the two which lies nearer.
pub fn merge_moments(a: Moments, b: Moments) -> Moments {
    if b.count == 0 {
        return a;
    }
    if a.count == 0 {
        return b;
    }
    let count = a.count + b.count;
    let fraction_a = a.count as f32 / count as f32;
    let fraction_b = b.count as f32 / count as f32;
    let delta = (b.pivot - a.pivot) + (b.offset - a.offset);
    let from_a = a.offset + delta * fraction_b;
    let from_b = b.offset - delta * fraction_a;
    let keep_a = from_a.abs() <= from_b.abs();
    Moments {
        count,
        pivot: if keep_a { a.pivot } else { b.pivot },
        offset: if keep_a { from_a } else { from_b },
        m2: (a.m2 + b.m2) + (delta * delta) * (fraction_b * a.count as f32),
    }
}

/// The same for dy and its product with u, which is about both means.
pub fn merge_products(a: Products, b: Products) -> Products {
    if b.count == 0 {
        return a;
    }
    if a.count == 0 {
        return b;
    }
    let count = a.count + b.count;
    let fraction_a = a.count as f32 / count as f32;
    let fraction_b = b.count as f32 / count as f32;
    let delta = (b.pivot - a.pivot) + (b.offset - a.offset);
    let from_a = a.offset + delta * fraction_b;
    let from_b = b.offset - delta * fraction_a;
    let keep_a = from_a.abs() <= from_b.abs();
    let x_delta = b.x_mean - a.x_mean;
    Products {
        count,
        pivot: if keep_a { a.pivot } else { b.pivot },
        offset: if keep_a { from_a } else { from_b },
        x_mean: a.x_mean + x_delta * fraction_b,
        product: (a.product + b.product) + (delta * x_delta) * (fraction_b * a.count as f32),
    }
}
