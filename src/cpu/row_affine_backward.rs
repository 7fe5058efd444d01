//! `shaders/row_affine_backward.wgsl` row by row.

use super::activation::backward_all;
use super::parallel::for_ranges;
use super::row_blocks::{BLOCK, row_blocks};
use crate::params::RowParams;
use crate::stages::element::to_f32;
use crate::stages::span::map_begin;
use crate::stages::{Call, Element};
use crate::tables::AffineBackward;
use std::num::NonZero;

/// Runs the step.
pub(crate) fn row_affine_backward<T: Element>(
    threads: NonZero<usize>,
    params: &RowParams,
    call: &mut Call<'_>,
) {
    let grad_x = call.tensor_mut::<T>("grad_x");
    let grad_residual = call.optional_tensor_mut::<T>("grad_residual");
    let (width, accumulate) = (call.width, call.accumulate);
    let (x, grad_y) = (call.optional_tensor::<T>("x"), call.tensor::<T>("grad_y"));
    let coefficients_backward = call.table::<AffineBackward>("coefficients_backward");
    let recompute = call.recompute::<T>();
    let (first, elements) = (params.dispatch.first_item as usize, grad_x.len());
    let begin = |item: usize| map_begin(params, width, first + item).min(elements);
    for_ranges(
        threads,
        0..params.dispatch.items as usize,
        (grad_x, grad_residual),
        begin,
        #[inline(always)]
        |range, (grad_x, mut grad_residual): (&mut [T], Option<&mut [T]>)| {
            let begin = begin(range.start);
            let (mut u, mut v) = ([0.0; BLOCK], [0.0; BLOCK]);
            for (row, block) in
                row_blocks(params.split.row_len as usize, begin..begin + grad_x.len())
            {
                let a = &coefficients_backward[row];
                let x_unit = AffineBackward::x_unit(a.grad_scale);
                let mine = block.start - begin..block.end - begin;
                if let (Some(x), None, None, false) = (x, &recompute, &grad_residual, accumulate) {
                    let from = x[block.clone()].iter().zip(&grad_y[block]);
                    for (out, (x, dy)) in grad_x[mine].iter_mut().zip(from) {
                        *out = T::from_f32(gradient(x.to_f32(), dy.to_f32(), a, x_unit));
                    }
                    continue;
                }
                let (u, v) = (&mut u[..block.len()], &mut v[..block.len()]);
                // Where there is no x, the scale of u is 0.
                match x {
                    Some(x) => to_f32(&x[block.clone()], u),
                    None => u.fill(a.x_pivot),
                }
                to_f32(&grad_y[block.clone()], v);
                if let Some(recompute) = &recompute {
                    backward_all(recompute, row, block.start, u, v);
                }
                if let Some(grad_residual) = &mut grad_residual {
                    for (out, dy) in grad_residual[mine.clone()].iter_mut().zip(&*v) {
                        *out = T::from_f32(*dy);
                    }
                }
                for ((out, x), dy) in grad_x[mine].iter_mut().zip(u).zip(v) {
                    let value = gradient(*x, *dy, a, x_unit);
                    *out = T::from_f32(if accumulate {
                        out.to_f32() + value
                    } else {
                        value
                    });
                }
            }
        },
    );
}

/// dx of one element.
#[inline(always)]
fn gradient(x: f32, grad_y: f32, a: &AffineBackward, x_unit: f32) -> f32 {
    let (v, u) = (grad_y - a.grad_pivot, (x - a.x_pivot) * x_unit);
    (v * a.grad_scale + u * a.x_scale) + a.shift
}
