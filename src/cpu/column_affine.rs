//! `shaders/column_affine.wgsl` in strips of consecutive elements.

use super::column::{BLOCK, MapWindow, Maps, blocks};
use super::parallel::for_ranges;
use crate::desc::Activation;
use crate::params::ColumnParams;
use crate::stages::activation::activate;
use crate::stages::element::to_f32;
use crate::stages::{Call, Element};
use crate::tables::Affine;
use std::num::NonZero;

/// Runs the step.
pub(crate) fn column_affine<T: Element>(
    threads: NonZero<usize>,
    params: &ColumnParams,
    call: &mut Call<'_>,
) {
    let y = call.tensor_mut::<T>("y");
    let (width, aligned) = (call.width, call.aligned);
    let activation = call.activation;
    let (x, residual) = (
        call.optional_tensor::<T>("x"),
        call.optional_tensor::<T>("residual"),
    );
    let coefficients = call.table::<Affine>("coefficients");
    let channels = params.split.num_channels as usize;
    let window = MapWindow::new(params, width, aligned);
    let plain = activation == Activation::None && residual.is_none();
    for_ranges(
        threads,
        window.units.clone(),
        y,
        |unit| unit * window.unit_size,
        #[inline(always)]
        |units, y: &mut [T]| {
            let base = units.start * window.unit_size;
            let mut maps = Maps::new();
            let mut t = [0.0; BLOCK];
            window.strips(
                units,
                #[inline(always)]
                |strip| {
                    maps.set(strip.sample, channels, coefficients, affine_fields);
                    for block in blocks(strip.elements) {
                        let t = &mut t[..block.len()];
                        let affine = maps.fields(block.start % channels, t.len());
                        let y = &mut y[block.start - base..block.end - base];
                        if plain && let Some(x) = x {
                            normalize_to(affine, &x[block], y);
                            continue;
                        }
                        to_f32(x.map_or(&*y, |x| &x[block.clone()]), t);
                        normalize(affine, t);
                        if let Some(residual) = residual {
                            add(&residual[block], t);
                        }
                        for (y, t) in y.iter_mut().zip(t) {
                            *y = T::from_f32(activate(*t, activation));
                        }
                    }
                },
            );
        },
    );
}

#[inline(always)]
pub(super) fn add<T: Element>(values: &[T], out: &mut [f32]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out += value.to_f32();
    }
}

/// x of consecutive channels to norm(x).
#[inline(always)]
fn normalize_to<T: Element>([pivot, offset, scale, shift]: [&[f32]; 4], x: &[T], y: &mut [T]) {
    // All of one length, as the compiler can see.
    let len = y.len();
    let (x, pivot, offset) = (&x[..len], &pivot[..len], &offset[..len]);
    let (scale, shift) = (&scale[..len], &shift[..len]);
    for i in 0..len {
        let t = ((x[i].to_f32() - pivot[i]) - offset[i]) * scale[i] + shift[i];
        y[i] = T::from_f32(t);
    }
}

/// In place, x of consecutive channels to norm(x).
#[inline(always)]
pub(super) fn normalize([pivot, offset, scale, shift]: [&[f32]; 4], x: &mut [f32]) {
    // All of one length, as the compiler can see.
    let len = x.len();
    let (pivot, offset) = (&pivot[..len], &offset[..len]);
    let (scale, shift) = (&scale[..len], &shift[..len]);
    for i in 0..len {
        x[i] = ((x[i] - pivot[i]) - offset[i]) * scale[i] + shift[i];
    }
}

#[inline(always)]
pub(super) fn affine_fields(a: &Affine) -> [f32; 4] {
    [a.pivot, a.offset, a.scale, a.shift]
}
