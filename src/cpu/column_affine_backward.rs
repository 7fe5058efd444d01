//! `shaders/column_affine_backward.wgsl` in strips of consecutive elements.

use super::column::{BLOCK, MapWindow, Maps, blocks};
use super::column_affine::{add, affine_fields, normalize};
use super::parallel::for_ranges;
use crate::params::ColumnParams;
use crate::stages::activation::activation_gradient;
use crate::stages::element::to_f32;
use crate::stages::{Call, Element};
use crate::tables::AffineBackward;
use std::num::NonZero;

/// Runs the step.
pub(crate) fn column_affine_backward<T: Element>(
    threads: NonZero<usize>,
    params: &ColumnParams,
    call: &mut Call<'_>,
) {
    let grad_x = call.tensor_mut::<T>("grad_x");
    let grad_residual = call.optional_tensor_mut::<T>("grad_residual");
    let (width, aligned) = (call.width, call.aligned);
    let accumulate = call.accumulate;
    let (x, grad_y) = (call.optional_tensor::<T>("x"), call.tensor::<T>("grad_y"));
    let coefficients_backward = call.table::<AffineBackward>("coefficients_backward");
    let recompute = call.recompute::<T>();
    let channels = params.split.num_channels as usize;
    let window = MapWindow::new(params, width, aligned);
    let plain = recompute.is_none() && !accumulate;
    for_ranges(
        threads,
        window.units.clone(),
        (grad_x, grad_residual),
        |unit| unit * window.unit_size,
        #[inline(always)]
        |units, (grad_x, mut grad_residual): (&mut [T], Option<&mut [T]>)| {
            let base = units.start * window.unit_size;
            let (mut maps, mut forward) = (Maps::new(), Maps::new());
            let (mut u, mut v, mut t) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
            window.strips(
                units,
                #[inline(always)]
                |strip| {
                    let rows = coefficients_backward;
                    maps.set(strip.sample, channels, rows, backward_fields);
                    if let Some(recompute) = &recompute {
                        let rows = recompute.coefficients;
                        forward.set(strip.sample, channels, rows, affine_fields);
                    }
                    for block in blocks(strip.elements) {
                        let (channel, len) = (block.start % channels, block.len());
                        if plain && let Some(x) = x {
                            let grad_x = &mut grad_x[block.start - base..block.end - base];
                            let (x, grad_y) = (&x[block.clone()], &grad_y[block]);
                            gradients_to(maps.fields(channel, len), x, grad_y, grad_x);
                            continue;
                        }
                        let (u, v) = (&mut u[..len], &mut v[..len]);
                        match x {
                            Some(x) => to_f32(&x[block.clone()], u),
                            None => u.fill(0.0),
                        }
                        to_f32(&grad_y[block.clone()], v);
                        if let Some(recompute) = &recompute {
                            let t = &mut t[..len];
                            t.copy_from_slice(u);
                            normalize(forward.fields(channel, len), t);
                            if let Some(residual) = recompute.residual {
                                add(&residual[block.clone()], t);
                            }
                            for (v, t) in v.iter_mut().zip(t) {
                                *v = activation_gradient(*t, *v, recompute.activation);
                            }
                        }
                        let mine = block.start - base..block.end - base;
                        if let Some(grad_residual) = &mut grad_residual {
                            for (out, v) in grad_residual[mine.clone()].iter_mut().zip(&*v) {
                                *out = T::from_f32(*v);
                            }
                        }
                        let [x_pivot, x_unit, x_scale, grad_pivot, grad_scale, shift] =
                            maps.fields(channel, len);
                        for i in 0..len {
                            let grad = (v[i] - grad_pivot[i]) * grad_scale[i];
                            let from_x = match x {
                                Some(_) => ((u[i] - x_pivot[i]) * x_unit[i]) * x_scale[i],
                                None => 0.0,
                            };
                            v[i] = (grad + from_x) + shift[i];
                        }
                        let grad_x = &mut grad_x[mine];
                        if accumulate {
                            add(grad_x, v);
                        }
                        for (out, v) in grad_x.iter_mut().zip(v) {
                            *out = T::from_f32(*v);
                        }
                    }
                },
            );
        },
    );
}

/// dx of consecutive channels.
#[inline(always)]
fn gradients_to<T: Element>(fields: [&[f32]; 6], x: &[T], grad_y: &[T], grad_x: &mut [T]) {
    // All of one length, as the compiler can see.
    let len = grad_x.len();
    let (x, grad_y) = (&x[..len], &grad_y[..len]);
    let [x_pivot, x_unit, x_scale, grad_pivot, grad_scale, shift] = fields.map(|f| &f[..len]);
    for i in 0..len {
        let grad = (grad_y[i].to_f32() - grad_pivot[i]) * grad_scale[i];
        let from_x = ((x[i].to_f32() - x_pivot[i]) * x_unit[i]) * x_scale[i];
        grad_x[i] = T::from_f32((grad + from_x) + shift[i]);
    }
}

#[inline(always)]
fn backward_fields(a: &AffineBackward) -> [f32; 6] {
    let x_unit = AffineBackward::x_unit(a.grad_scale);
    [
        a.x_pivot,
        x_unit,
        a.x_scale,
        a.grad_pivot,
        a.grad_scale,
        a.shift,
    ]
}
