//! Mirror of `shaders/row_affine.wgsl`.

use super::activation::{activate_all, normalized};
use super::element::Element;
use super::parallel::for_ranges;
use super::span::{BLOCK, map_begin, row_blocks};
use crate::desc::Activation;
use crate::params::RowParams;
use crate::tables::Affine;
use std::num::NonZero;

/// y = activation(norm(x) + residual), norm(x) = ((x - pivot) - offset) * scale + shift row by row.
/// Without x, it is in y. `width` is the step's: it says which elements are a window's.
#[allow(clippy::too_many_arguments)] // The kernel's bindings.
pub fn row_affine<T: Element>(
    threads: NonZero<usize>,
    params: &RowParams,
    width: u32,
    activation: Activation,
    x: Option<&[T]>,
    coefficients: &[Affine],
    residual: Option<&[T]>,
    y: &mut [T],
) {
    let (first, elements) = (params.dispatch.first_item as usize, y.len());
    let begin = |item: usize| map_begin(params, width, first + item).min(elements);
    let plain = activation == Activation::None && residual.is_none();
    for_ranges(
        threads,
        0..params.dispatch.items as usize,
        y,
        begin,
        #[inline(always)]
        |range, y: &mut [T]| {
            let begin = begin(range.start);
            let mut t = [0.0; BLOCK];
            for (row, block) in row_blocks(params.split.row_len as usize, begin..begin + y.len()) {
                let y = &mut y[block.start - begin..block.end - begin];
                let a = &coefficients[row];
                if plain && let Some(x) = x {
                    for (y, x) in y.iter_mut().zip(&x[block]) {
                        *y = T::from_f32(normalized(x.to_f32(), a));
                    }
                    continue;
                }
                let t = &mut t[..y.len()];
                let x = x.map_or(&*y, |x| &x[block.clone()]);
                for (t, x) in t.iter_mut().zip(x) {
                    *t = normalized(x.to_f32(), a);
                }
                if let Some(residual) = residual {
                    for (t, r) in t.iter_mut().zip(&residual[block]) {
                        *t += r.to_f32();
                    }
                }
                activate_all(t, activation);
                for (y, t) in y.iter_mut().zip(t) {
                    *y = T::from_f32(*t);
                }
            }
        },
    );
}
