//! `shaders/row_affine.wgsl` row by row.

use super::activation::activate_all;
use super::parallel::for_ranges;
use super::row_blocks::{BLOCK, row_blocks};
use crate::desc::Activation;
use crate::params::RowParams;
use crate::stages::activation::normalized;
use crate::stages::span::map_begin;
use crate::stages::{Call, Element};
use crate::tables::Affine;
use std::num::NonZero;

/// Runs the step.
pub(crate) fn row_affine<T: Element>(
    threads: NonZero<usize>,
    params: &RowParams,
    call: &mut Call<'_>,
) {
    let y = call.tensor_mut::<T>("y");
    let (width, activation) = (call.width, call.activation);
    let (x, residual) = (
        call.optional_tensor::<T>("x"),
        call.optional_tensor::<T>("residual"),
    );
    let coefficients = call.table::<Affine>("coefficients");
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
