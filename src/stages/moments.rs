//! Twin of `shaders/parts/moments.wgsl`.

use crate::tables::{Moments, Products};

/// Whether the mean of a union is better written relative to the pivot of a: where the terms of that
/// sum, and so its rounding, are the smaller ones.
fn keeps_pivot(a_offset: f32, b_offset: f32, delta_to_a: f32, delta_to_b: f32) -> bool {
    a_offset.abs().max(delta_to_a.abs()) <= b_offset.abs().max(delta_to_b.abs())
}

/// Moments of the union of two sets from the moments of each (Chan, Golub, LeVeque 1979).
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
    let (to_a, to_b) = (delta * fraction_b, delta * fraction_a);
    let keep_a = keeps_pivot(a.offset, b.offset, to_a, to_b);
    Moments {
        count,
        pivot: if keep_a { a.pivot } else { b.pivot },
        offset: if keep_a {
            a.offset + to_a
        } else {
            b.offset - to_b
        },
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
    let (to_a, to_b) = (delta * fraction_b, delta * fraction_a);
    let keep_a = keeps_pivot(a.offset, b.offset, to_a, to_b);
    let x_delta = b.x_mean - a.x_mean;
    Products {
        count,
        pivot: if keep_a { a.pivot } else { b.pivot },
        offset: if keep_a {
            a.offset + to_a
        } else {
            b.offset - to_b
        },
        x_mean: a.x_mean + x_delta * fraction_b,
        product: (a.product + b.product) + (delta * x_delta) * (fraction_b * a.count as f32),
    }
}
