//! Where the channels, groups and parameters of a call lie in its tensors, and loops over them.

use rayon::prelude::*;
use std::ops::Range;

/// Tensors of fewer elements are one core's work: they take less time than another needs to wake up.
const MIN_ELEMENTS_FOR_THREADS: usize = 1 << 14;

/// The extents of a call, and where its parts lie in a tensor. A row holds the elements of a sample's
/// channel: row r is that of sample r / C and channel r modulo C.
pub(super) struct Extents {
    pub(super) samples: usize,
    pub(super) channels: usize,
    pub(super) row_len: usize,
    /// Groups of a sample in the group part, each of as many channels.
    pub(super) groups: usize,
    /// Values of the weight and of the bias.
    pub(super) affine: usize,
}

impl Extents {
    /// The number of elements.
    pub(super) fn len(&self) -> usize {
        if self.channels == 0 || self.row_len == 0 {
            return 0;
        }
        self.samples * self.channels * self.row_len
    }

    /// The elements of a row.
    pub(super) fn row(&self, row: usize) -> Range<usize> {
        row * self.row_len..(row + 1) * self.row_len
    }

    /// The rows of channel `c`, one in every sample.
    pub(super) fn rows_of_channel(&self, c: usize) -> impl Iterator<Item = usize> + use<> {
        let (channels, samples) = (self.channels, self.samples);
        (0..samples).map(move |n| n * channels + c)
    }

    /// The groups of all samples.
    pub(super) fn num_groups(&self) -> usize {
        self.samples * self.groups
    }

    /// Channels of a group, and so its rows.
    fn group_channels(&self) -> usize {
        self.channels / self.groups
    }

    /// The rows of group `group` modulo G of sample `group` / G: its channels are neighbours.
    pub(super) fn rows_of_group(&self, group: usize) -> Range<usize> {
        group * self.group_channels()..(group + 1) * self.group_channels()
    }

    /// The elements of such a group.
    pub(super) fn group(&self, group: usize) -> Range<usize> {
        let rows = self.rows_of_group(group);
        rows.start * self.row_len..rows.end * self.row_len
    }

    /// Which of the groups a row belongs to.
    pub(super) fn group_of_row(&self, row: usize) -> usize {
        row / self.group_channels()
    }

    /// Which weight and bias of the group part a row has.
    pub(super) fn parameter_of_row(&self, row: usize) -> usize {
        row % self.channels / (self.channels / self.affine)
    }

    /// The rows that have this weight and bias of the group part.
    pub(super) fn rows_of_parameter(
        &self,
        parameter: usize,
    ) -> impl Iterator<Item = usize> + use<> {
        let (channels, each) = (self.channels, self.channels / self.affine);
        (0..self.samples).flat_map(move |n| {
            let first = n * channels + parameter * each;
            first..first + each
        })
    }

    /// Whether the work is worth more than one core.
    fn is_large(&self) -> bool {
        self.len() >= MIN_ELEMENTS_FOR_THREADS
    }

    /// `f` of each index.
    pub(super) fn map<U: Send>(
        &self,
        count: usize,
        f: impl Fn(usize) -> U + Sync + Send,
    ) -> Vec<U> {
        match self.is_large() {
            true => (0..count).into_par_iter().map(f).collect(),
            false => (0..count).map(f).collect(),
        }
    }

    /// Calls `f` with each row of a tensor and its number.
    pub(super) fn for_each_row<T: Send>(
        &self,
        tensor: &mut [T],
        f: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        self.for_each_chunk(tensor, self.row_len, f);
    }

    /// Calls `f` with each group of a tensor and its number.
    pub(super) fn for_each_group<T: Send>(
        &self,
        tensor: &mut [T],
        f: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        self.for_each_chunk(tensor, self.group_channels() * self.row_len, f);
    }

    fn for_each_chunk<T: Send>(
        &self,
        tensor: &mut [T],
        len: usize,
        f: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        match self.is_large() {
            true => {
                let chunks = tensor.par_chunks_mut(len).enumerate();
                chunks.for_each(|(index, chunk)| f(index, chunk));
            }
            false => {
                let chunks = tensor.chunks_mut(len).enumerate();
                chunks.for_each(|(index, chunk)| f(index, chunk));
            }
        }
    }
}
