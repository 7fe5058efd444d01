//! The second pass for many values at once: one loop for each activation, or for each way to come by what entered it.

use crate::desc::Activation;
use crate::stages::Element;
use crate::stages::activation::{Recompute, activate, activation_gradient, normalized};

/// Puts activate(t) where t was.
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

/// Takes dy back through the activation, for the elements of `row` from `first` on; x holds theirs.
#[inline(always)]
pub(super) fn backward_all<T: Element>(
    recompute: &Recompute<T>,
    row: usize,
    first: usize,
    x: &[f32],
    grad: &mut [f32],
) {
    let a = &recompute.coefficients[row];
    if let Some(residual) = recompute.residual {
        for ((g, x), r) in grad.iter_mut().zip(x).zip(&residual[first..]) {
            let t = normalized(*x, a) + r.to_f32();
            *g = activation_gradient(t, *g, recompute.activation);
        }
    } else {
        for (g, x) in grad.iter_mut().zip(x) {
            *g = activation_gradient(normalized(*x, a), *g, recompute.activation);
        }
    }
}
