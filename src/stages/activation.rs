//! Twin of `shaders/parts/arithmetic/activation.wgsl`: the second pass, y = activate(norm(x) + residual).

use super::element::Element;
use crate::desc::Activation;
use crate::tables::Affine;

/// norm(x) from a row's coefficients.
#[inline(always)]
pub(crate) fn normalized(x: f32, a: &Affine) -> f32 {
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
pub(crate) fn activate(t: f32, activation: Activation) -> f32 {
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

/// The gradient with respect to t, from the one with respect to activate(t).
#[inline(always)]
pub(crate) fn activation_gradient(t: f32, g: f32, activation: Activation) -> f32 {
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
    /// Takes dy of an element back through the activation; `x` is the element's, `row` its row.
    pub(crate) fn gradient(&self, row: usize, element: usize, x: f32, grad: f32) -> f32 {
        let mut t = normalized(x, &self.coefficients[row]);
        if let Some(residual) = self.residual {
            t += residual[element].to_f32();
        }
        activation_gradient(t, grad, self.activation)
    }
}
