//! Mirror of `shaders/column_affine.wgsl`.

use super::activation::activate;
use super::column::{BLOCK, MapWindow, Maps, blocks};
use super::element::{Element, to_f32};
use super::parallel::for_ranges;
use crate::desc::Activation;
use crate::params::ColumnParams;
use crate::tables::Affine;
use std::num::NonZero;

/// y = activation(norm(x) + residual), norm(x) = ((x - pivot) - offset) * scale + shift row by row, for
/// tensors with channels last. Without x, it is in y. `width` and `aligned` are the step's.
#[allow(clippy::too_many_arguments)] // The kernel's bindings.
pub fn column_affine<T: Element>(
    threads: NonZero<usize>,
    params: &ColumnParams,
    width: u32,
    aligned: bool,
    activation: Activation,
    x: Option<&[T]>,
    coefficients: &[Affine],
    residual: Option<&[T]>,
    y: &mut [T],
) {
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
