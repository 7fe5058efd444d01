//! Twin of `shaders/parts/arithmetic/activation.wgsl`: the second pass, y = activate(norm(x) + residual).

use super::element::Element;
use crate::desc::Activation;
use crate::tables::Affine;

/// norm(x) from a row's coefficients.
#[inline(always)]
pub(super) fn normalized(x: f32, a: &Affine) -> f32 {
    ((x - a.pivot) - a.offset) * a.scale + a.shift
}

/// 1 / (1 + exp(-t)), and 1 less that; both without overflow or cancellation.
#[inline(always)]
fn logistic(t: f32) -> (f32, f32) {
    let e = (-t.abs()).exp();
    let larger = 1.0 / (1.0 + e);
    let smaller = e * larger;
    if t < 0.0 {
        (smaller, larger)
    } else {
        (larger, smaller)
    }
}

#[inline(always)]
pub(super) fn activate(t: f32, activation: Activation) -> f32 {
    match activation {
        Activation::None => t,
        // A NaN stays.
        Activation::Relu => {
            if t <= 0.0 {
                0.0
            } else {
                t
            }
        }
        Activation::Silu => t * logistic(t).0,
    }
}

/// The same for many values: one loop for each activation.
#[inline(always)]
pub(super) fn activate_all(values: &mut [f32], activation: Activation) {
    match activation {
        Activation::None => {}
        Activation::Relu => values
            .iter_mut()
            .for_each(|t| *t = activate(*t, Activation::Relu)),
        Activation::Silu => values
            .iter_mut()
            .for_each(|t| *t = activate(*t, Activation::Silu)),
    }
}

/// The gradient with respect to t, from the one with respect to activate(t).
#[inline(always)]
pub(super) fn activation_gradient(t: f32, g: f32, activation: Activation) -> f32 {
    match activation {
        Activation::None => g,
        Activation::Relu if t <= 0.0 => 0.0,
        Activation::Relu => g,
        Activation::Silu => {
            let (s, rest) = logistic(t);
            g * (s * (1.0 + t * rest))
        }
    }
}

/// What backward needs to compute again what entered the activation.
#[derive(Debug, Clone, Copy)]
pub struct Recompute<'a, T> {
    /// The activation.
    pub activation: Activation,
    /// The forward's map of each row.
    pub coefficients: &'a [Affine],
    /// What was added before the activation.
    pub residual: Option<&'a [T]>,
}

impl<T: Element> Recompute<'_, T> {
    /// Takes dy back through the activation, for the elements of `row` from `first` on; x holds theirs.
    #[inline(always)]
    pub(super) fn backward(&self, row: usize, first: usize, x: &[f32], grad: &mut [f32]) {
        let a = &self.coefficients[row];
        if let Some(residual) = self.residual {
            for ((g, x), r) in grad.iter_mut().zip(x).zip(&residual[first..]) {
                let t = normalized(*x, a) + r.to_f32();
                *g = activation_gradient(t, *g, self.activation);
            }
        } else {
            for (g, x) in grad.iter_mut().zip(x) {
                *g = activation_gradient(normalized(*x, a), *g, self.activation);
            }
        }
    }
}
