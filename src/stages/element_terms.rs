//! Mirror of `shaders/element_terms.wgsl`.

use super::element::Element;
use super::elements::{Shape, above_mean, gradient_of, group_gradient_of, row_of};
use super::parallel::for_ranges;
use super::precise::x_above_mean;
use crate::params::ElementColumnParams;
use crate::tables::{Channel, GradientPair, GroupGradient};
use std::num::NonZero;

/// Terms of the gradients per channel, summed over parts of the samples: of the channel part's, and of
/// those of weight and bias where these are per channel.
#[allow(clippy::too_many_arguments)] // The kernel's bindings.
pub fn element_terms<T: Element>(
    threads: NonZero<usize>,
    params: &ElementColumnParams,
    x: &[T],
    grad_y: &[T],
    channels: &[Channel],
    group_gradients: &[GroupGradient],
    mut channel_terms: Option<&mut [GradientPair]>,
    mut affine_terms: Option<&mut [GradientPair]>,
) {
    let shape = Shape::of_columns(params);
    let (samples, parts) = (
        params.split.num_samples as usize,
        params.split.parts as usize,
    );
    let (part_len, num_channels) = (params.split.samples_per_part as usize, shape.num_channels());
    // Of a part of the samples, by element: the channel part's and the affine's.
    let mut sums = vec![[[0.0; 2]; 2]; shape.sample_len];
    for part in 0..parts {
        let samples = (part * part_len).min(samples)..((part + 1) * part_len).min(samples);
        for_ranges(
            threads,
            0..shape.sample_len,
            &mut sums[..],
            |element| element,
            |elements, sums: &mut [[[f64; 2]; 2]]| {
                sums.fill([[0.0; 2]; 2]);
                for sample in samples.clone() {
                    for (element, [channel_sum, affine_sum]) in elements.clone().zip(&mut *sums) {
                        let i = sample * shape.sample_len + element;
                        let (x, dy) = (x[i], grad_y[i].to_f32());
                        let channel = &channels[shape.channel(element)];
                        let group = sample * shape.num_groups + element / shape.group_len;
                        let group = &group_gradients[group];
                        let above = above_mean(&params.norm, x, channel, group);
                        let gradient = gradient_of(&params.norm, dy, channel);
                        let dz = group_gradient_of(gradient, above, group);
                        channel_sum[0] += f64::from(dz);
                        channel_sum[1] += f64::from(dz * x_above_mean(&row_of(x), channel));
                        affine_sum[0] += f64::from(dy);
                        affine_sum[1] += f64::from(dy * (group.rstd * above));
                    }
                }
            },
        );
        for (element, [channel_sum, affine_sum]) in sums.iter().enumerate() {
            let c = shape.channel(element);
            let within = element - c * (shape.sample_len / num_channels);
            let index = (within * parts + part) * num_channels + c;
            if let Some(terms) = &mut channel_terms {
                terms[index] = GradientPair {
                    bias: channel_sum[0] as f32,
                    weight: channels[c].rstd * channel_sum[1] as f32,
                };
            }
            if let Some(terms) = &mut affine_terms {
                terms[index] = GradientPair {
                    bias: affine_sum[0] as f32,
                    weight: affine_sum[1] as f32,
                };
            }
        }
    }
}
