//! Mirror of `shaders/element_terms.wgsl`.

use super::channel_table::ChannelTable;
use super::element::Element;
use super::elements::{Shape, above_mean, gradient_of, group_gradient_of, row_of};
use super::precise::x_above_mean;
use crate::params::ElementColumnParams;
use crate::tables::{Channel, GradientPair, GroupGradient};

/// Terms of the gradients per channel, summed over parts of the samples: of the channel part's, and of
/// those of weight and bias where these are per channel.
#[expect(
    clippy::too_many_arguments,
    reason = "one for each binding of the kernel"
)]
pub fn element_terms<T: Element>(
    params: &ElementColumnParams,
    x: &[T],
    grad_y: &[T],
    channels: Option<&[Channel]>,
    weight: Option<&[f32]>,
    group_gradients: &[GroupGradient],
    mut channel_terms: Option<&mut [GradientPair]>,
    mut affine_terms: Option<&mut [GradientPair]>,
) {
    let inputs = ElementTerms {
        params,
        shape: Shape::of_columns(params),
        x,
        grad_y,
        channels: ChannelTable::new(
            params.norm.flags,
            params.groups.num_channels,
            channels,
            weight,
        ),
        group_gradients,
    };
    for part in 0..params.split.parts as usize {
        for element in 0..inputs.shape.sample_len {
            let mut sums = TermSums::default();
            for sample in inputs.samples(part) {
                inputs.add(sample, element, &mut sums);
            }
            inputs.put(part, element, &sums, &mut channel_terms, &mut affine_terms);
        }
    }
}

/// Sums over samples, the bias's and the weight's: the channel part's, and those of weight and bias.
#[derive(Clone, Copy, Default)]
pub(crate) struct TermSums {
    channel: [f64; 2],
    affine: [f64; 2],
}

/// What the kernel reads.
pub(crate) struct ElementTerms<'a, T> {
    pub params: &'a ElementColumnParams,
    pub shape: Shape,
    pub x: &'a [T],
    pub grad_y: &'a [T],
    pub channels: ChannelTable<'a>,
    pub group_gradients: &'a [GroupGradient],
}

impl<T: Element> ElementTerms<'_, T> {
    /// The samples of a part.
    pub fn samples(&self, part: usize) -> std::ops::Range<usize> {
        let (samples, len) = (
            self.params.split.num_samples as usize,
            self.params.split.samples_per_part as usize,
        );
        (part * len).min(samples)..((part + 1) * len).min(samples)
    }

    /// Adds what a sample has of an element.
    pub fn add(&self, sample: usize, element: usize, sums: &mut TermSums) {
        let (params, shape) = (self.params, &self.shape);
        let i = sample * shape.sample_len + element;
        let (x, dy) = (self.x[i], self.grad_y[i].to_f32());
        let channel = &self.channels.entries[shape.channel(element)];
        let group = sample * shape.num_groups + element / shape.group_len;
        let group = &self.group_gradients[group];
        let above = above_mean(self.channels.has_channel_part, x, channel, group);
        let gradient = gradient_of(&params.norm, dy, channel);
        let dz = group_gradient_of(gradient, above, group);
        sums.channel[0] += f64::from(dz);
        sums.channel[1] += f64::from(dz * x_above_mean(&row_of(x), channel));
        sums.affine[0] += f64::from(dy);
        sums.affine[1] += f64::from(dy * (group.rstd * above));
    }

    /// Puts an element's sums where the fold over the batch reads them: the terms of channel c lie
    /// (channel_len * parts, C).
    pub fn put(
        &self,
        part: usize,
        element: usize,
        sums: &TermSums,
        channel_terms: &mut Option<&mut [GradientPair]>,
        affine_terms: &mut Option<&mut [GradientPair]>,
    ) {
        let (c, num_channels) = (self.shape.channel(element), self.shape.num_channels());
        let within = element - c * (self.shape.sample_len / num_channels);
        let index = (within * self.params.split.parts as usize + part) * num_channels + c;
        if let Some(terms) = channel_terms {
            terms[index] = GradientPair {
                bias: sums.channel[0] as f32,
                weight: self.channels.entries[c].rstd * sums.channel[1] as f32,
            };
        }
        if let Some(terms) = affine_terms {
            terms[index] = GradientPair {
                bias: sums.affine[0] as f32,
                weight: sums.affine[1] as f32,
            };
        }
    }
}
