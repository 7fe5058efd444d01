//! Twin of `shaders/parts/layout/column.wgsl` and `column_pairs.wgsl`: which elements a work item of a kernel over tensors
//! with channels last owns. Items are counted over all windows.

use crate::params::ColumnParams;
use std::ops::Range;

/// One word of channels over one part of a sample's positions.
pub(super) struct ColumnSpan {
    /// The row of the word's first channel; the others follow.
    pub row: usize,
    pub part: usize,
    /// Positions of the sample. A part may lie behind the last one: it is empty then.
    pub positions: Range<usize>,
    /// Where the word's first channel is at position 0, and how many elements further on at the next.
    origin: usize,
    num_channels: usize,
}

impl ColumnSpan {
    /// Where the word's first channel is at a position.
    pub fn element(&self, position: usize) -> usize {
        self.origin + position * self.num_channels
    }
}

pub(super) fn column_span(params: &ColumnParams, width: u32, item: usize) -> ColumnSpan {
    let (num_channels, row_len) = (
        params.split.num_channels as usize,
        params.split.row_len as usize,
    );
    let (columns, parts) = (
        params.split.words_per_position as usize,
        params.split.parts as usize,
    );
    let (block, word) = (item / columns, item % columns);
    let (sample, part) = (block / parts, block % parts);
    let begin = (part * params.split.positions_per_part as usize).min(row_len);
    let end = (begin + params.split.positions_per_part as usize).min(row_len);
    let channel = word * width as usize;
    ColumnSpan {
        row: sample * num_channels + channel,
        part,
        positions: begin..end,
        origin: sample * row_len * num_channels + channel,
        num_channels,
    }
}

/// The elements that a map's dispatch writes, each with its row. `aligned`: items own words of channels. Else words may
/// reach into the next position, and those of the window are taken as they come.
pub(super) fn mapped_elements(
    params: &ColumnParams,
    width: u32,
    aligned: bool,
) -> Vec<(usize, usize)> {
    let width_elements = width as usize;
    let mut elements = Vec::new();
    if aligned {
        for item in params.dispatch.range() {
            let span = column_span(params, width, item);
            for position in span.positions.clone() {
                let first = span.element(position);
                elements.extend((0..width_elements).map(|k| (first + k, span.row + k)));
            }
        }
    } else {
        let num_channels = params.split.num_channels as usize;
        let sample_len = params.split.row_len as usize * num_channels;
        let tensor_len = params.split.num_samples as usize * sample_len;
        let begin = params.dispatch.first_word as usize * width_elements;
        let end = begin + params.split.num_words as usize * width_elements;
        // The last word may reach beyond the tensor.
        for element in begin..end.min(tensor_len) {
            let (sample, channel) = (element / sample_len, element % num_channels);
            elements.push((element, sample * num_channels + channel));
        }
    }
    elements
}
