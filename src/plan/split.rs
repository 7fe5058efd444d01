//! How a tensor is split into work: words, lanes, parts. Every loop of the tensor-sized kernels is bounded here.

use super::options::RowSource;
use crate::desc::{DType, Layout, MAX_ROW, Mode, NormDesc, TensorDesc};
use crate::error::{Error, within};
use crate::limits::MAX_ITERATIONS;
use crate::tuning::{Tuning, check};

/// How a tensor-sized kernel goes over a tensor.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Split {
    /// Elements of a word.
    pub width: u32,
    pub aligned: bool,
    pub lanes: u32,
    /// Of neighbouring channels that an invocation takes together.
    pub column_words: u32,
    pub parts: u32,
    /// Words of a part of a row; with channels last, positions of a part.
    pub words_per_part: u32,
    pub items: u32,
}

impl Split {
    /// Cuts rows of `row_words` words into parts of `words_per_part`.
    fn with_part(self, row_words: u32, words_per_part: u32, rows: u64) -> Result<Self, Error> {
        let parts = row_words.div_ceil(words_per_part);
        let items = rows * u64::from(parts);
        within(
            || format!("rows times parts ({rows} * {parts})"),
            items,
            u64::from(u32::MAX),
            "u32 index",
            // There are no more rows than a u32 counts: it is the parts that are too many.
            "tune for fewer parts (a larger parts.max_words_per_lane and max_column_bytes, a smaller parts.min_invocations)",
        )?;
        Ok(Self {
            parts,
            words_per_part,
            items: items as u32,
            ..self
        })
    }
}

/// What is common to all steps of a plan.
#[derive(Debug, Default)]
pub(super) struct Geometry {
    /// The tensor as the kernels see it. A norm without a group part need not tell samples apart where
    /// channels come last: they are positions then.
    pub samples: u32,
    pub channels: u32,
    pub row_len: u32,
    /// Rows of a channel that lie together: its elements of a sample, where these are rows over the
    /// samples; else 0.
    pub channel_len: u32,
    /// Whether the kernels for channels last run: (N, C) is both layouts at once.
    pub channels_last: bool,
    pub dtype: DType,
    pub reduce: Split,
    pub map: Split,
}

impl Geometry {
    pub fn new(
        norm: &NormDesc,
        tensor: &TensorDesc,
        mode: Mode,
        rows: RowSource,
        tuning: &Tuning,
    ) -> Result<Self, Error> {
        check(tuning)?;
        let mut geometry = Self {
            samples: tensor.num_samples(),
            channels: tensor.num_channels(),
            channel_len: 0,
            row_len: tensor.row_len(),
            channels_last: tensor.layout() == Layout::ChannelsLast || tensor.row_len() == 1,
            dtype: tensor.dtype(),
            reduce: Split::default(),
            map: Split::default(),
        };
        if tensor.elements() == 0 {
            return Ok(geometry);
        }
        let positions = u64::from(geometry.samples) * u64::from(geometry.row_len);
        let group = match norm.has_group_part(mode) {
            true => (norm.num_channels / norm.num_groups) as u64 * u64::from(geometry.row_len),
            false => 0,
        };
        // More than one sample, or the row would be too long: the batch can be split.
        within(
            || "the number of a channel's values, N * L,".into(),
            positions,
            u64::from(u32::MAX),
            "u32 count",
            "split the batch",
        )?;
        within(
            || "the number of a group's values, C / G * L,".into(),
            group,
            u64::from(u32::MAX),
            "u32 count",
            "use more groups, fewer channels or smaller spatial sizes",
        )?;
        let samples_matter = norm.has_group_part(mode) || rows == RowSource::Given;
        let last = geometry.channels_last || geometry.channels == 1;
        if last && !samples_matter && positions <= MAX_ROW {
            geometry.samples = 1;
            // At most MAX_ROW, a u32.
            geometry.row_len = positions as u32;
        }
        geometry.channels_last &= geometry.channels > 1;
        if !geometry.channels_last && !samples_matter {
            geometry.take_short_rows(tuning);
        }
        // More than one sample: there are no more channels than a u32 counts.
        within(
            || "the number of rows, N * C,".into(),
            geometry.rows(),
            u64::from(u32::MAX),
            "u32 index",
            "split the batch",
        )?;
        if geometry.channels_last {
            geometry.reduce = geometry.columns(tuning.reduction.lanes, true, tuning)?;
            geometry.map = geometry.columns(tuning.map.lanes, false, tuning)?;
        } else {
            geometry.reduce = geometry.row_words(tuning.reduction.lanes, true, tuning)?;
            geometry.map = geometry.row_words(tuning.map.lanes, false, tuning)?;
        }
        Ok(geometry)
    }

    /// Rows that are short, and fewer than samples: a sample's elements are rows over the samples then,
    /// which makes the tables shorter.
    fn take_short_rows(&mut self, tuning: &Tuning) {
        let short = self.row_len <= tuning.short_rows.max_batch_row;
        let elements = self.channels.checked_mul(self.row_len);
        if let Some(elements) = elements
            && short
            && 1 < self.row_len
            && self.row_len < self.samples
        {
            (self.channel_len, self.channels) = (self.row_len, elements);
            (self.row_len, self.samples) = (self.samples, 1);
            self.channels_last = true;
        }
    }

    /// Rows of the tables.
    pub fn rows(&self) -> u64 {
        u64::from(self.samples) * u64::from(self.channels)
    }

    /// Channels first: items are parts of rows, cut at words.
    fn row_words(&self, max_lanes: u32, reduces: bool, tuning: &Tuning) -> Result<Split, Error> {
        // A word may lie in at most two rows, and the tensor is whole words.
        let elements = self.rows() * u64::from(self.row_len);
        let width = match self.row_len {
            4.. if elements.is_multiple_of(4) => 4,
            _ => self.dtype.min_store_elements(),
        };
        let aligned = self.row_len.is_multiple_of(width);
        // A row that begins within a word touches one word more.
        let row_words = self.row_len.div_ceil(width) + u32::from(!aligned);
        let split = split(
            row_words,
            self.rows(),
            max_lanes,
            Shares::of(reduces, tuning),
        )?;
        Ok(Split {
            width,
            aligned,
            ..split
        })
    }

    /// Channels last: items are parts of the positions of a word of channels.
    fn columns(&self, max_lanes: u32, reduces: bool, tuning: &Tuning) -> Result<Split, Error> {
        let channels = self.channels;
        let alone = self.dtype.min_store_elements();
        let width = match channels {
            _ if channels.is_multiple_of(4) => 4,
            _ if channels.is_multiple_of(alone) => alone,
            // A reduction can read half a u32.
            _ if reduces => 1,
            // A map writes whole ones: pairs that may reach into the next position.
            _ => {
                let words = (self.rows() * u64::from(self.row_len)).div_ceil(2);
                return Ok(Split {
                    width: 2,
                    aligned: false,
                    lanes: 1,
                    column_words: 1,
                    parts: 1,
                    words_per_part: self.row_len,
                    items: self.strided_items(words, tuning),
                });
            }
        };
        self.aligned_columns(width, reduces, max_lanes, tuning)
    }

    /// Where positions are whole numbers of words.
    fn aligned_columns(
        &self,
        width: u32,
        reduces: bool,
        max_lanes: u32,
        tuning: &Tuning,
    ) -> Result<Split, Error> {
        let channels = self.channels;
        let words = channels / width;
        // A map's workgroup goes over memory from end to end, as far as the channels go.
        let (workgroup_size, tile) = match reduces {
            true => (tuning.columns.workgroup_size, tuning.columns.tile),
            false => (tuning.map.workgroup_size, tuning.map.workgroup_size),
        };
        let tile = match words < tile {
            true => words.next_power_of_two(),
            false => tile,
        };
        let lanes = (workgroup_size / tile).max(1).min(max_lanes);
        // Down to a power of two that divides the workgroup.
        let lanes = 1 << (lanes.ilog2().min(workgroup_size.trailing_zeros()));
        let columns = u64::from(self.samples) * u64::from(words);
        // Of the sizes that cut a position into whole invocations of whole words.
        let mut column_words: u32 = match (lanes, width) {
            (1, 4) => 1 << tuning.columns.words.ilog2().min(words.trailing_zeros()),
            _ => 1,
        };
        while column_words > 1
            && column_words.saturating_mul(tuning.columns.min_invocations) > words
        {
            column_words /= 2;
        }
        let split = split(
            self.row_len,
            columns / u64::from(column_words),
            lanes,
            Shares::of(reduces, tuning),
        )?;
        // A part is all channels of its positions: it must fit a window.
        let position_bytes = u64::from(channels) * self.dtype.bytes();
        let most = u32::try_from(tuning.parts.max_column_bytes / position_bytes)
            .unwrap_or(u32::MAX)
            .max(1);
        // Where an invocation takes several words, it loops over them at each position.
        let most = match column_words {
            1 => most,
            words => most.min(MAX_ITERATIONS / (words + 1) - 8 * words),
        };
        let split = split.with_part(self.row_len, split.words_per_part.min(most), columns)?;
        Ok(Split {
            width,
            aligned: true,
            column_words,
            ..split
        })
    }

    /// A tensor of `elements` as one sample, its samples as positions and their elements as channels. Maps
    /// have words of `width`, which divides a group, and one lane.
    pub fn samples_as_positions(
        &self,
        elements: u32,
        width: u32,
        tuning: &Tuning,
    ) -> Result<Geometry, Error> {
        let mut view = Geometry {
            samples: 1,
            channels: elements / self.samples,
            channel_len: self.row_len,
            row_len: self.samples,
            channels_last: true,
            dtype: self.dtype,
            ..Default::default()
        };
        let single_words = tuning.with(|t| t.columns.words = 1);
        view.reduce = view.columns(tuning.reduction.lanes, true, &single_words)?;
        let map = view.aligned_columns(width, false, 1, &single_words)?;
        // Maps take samples one at a time, then the elements of their word.
        let most = map.words_per_part.min(MAX_ITERATIONS - width);
        view.map = map.with_part(view.row_len, most, u64::from(view.channels / width))?;
        Ok(view)
    }

    /// Invocations that take `words` words as they come.
    pub fn strided_items(&self, words: u64, tuning: &Tuning) -> u32 {
        let each = tuning.map.words_per_lane.clamp(1, MAX_ITERATIONS);
        let items = words.div_ceil(u64::from(each));
        // At most 2^31 words of 16 bits.
        items as u32
    }
}

/// How many words lanes and parts should have.
#[derive(Debug, Clone, Copy)]
struct Shares {
    /// A lane, before the row gets another one.
    per_lane: u32,
    /// A lane, where the row gets more because rows alone make too few invocations.
    least_of_lane: u32,
    /// The lanes of a part each, where rows are split for the same reason.
    least_of_part: u32,
    /// A lane at most: it bounds the loops, and the growth of rounding.
    most: u32,
    min_invocations: u32,
}

impl Shares {
    fn of(reduces: bool, tuning: &Tuning) -> Shares {
        let least = tuning.reduction.min_words_per_lane.max(1);
        let of_map = tuning.map.words_per_lane.max(1);
        let (per_lane, least_of_lane, least_of_part) = match reduces {
            true => (tuning.reduction.words_per_lane.max(1), least, least),
            false => (of_map, 1, of_map),
        };
        Shares {
            per_lane,
            least_of_lane,
            least_of_part,
            most: tuning.parts.max_words_per_lane,
            min_invocations: tuning.parts.min_invocations,
        }
    }
}

/// Lanes and parts for rows of `row_words` words.
fn split(row_words: u32, rows: u64, max_lanes: u32, shares: Shares) -> Result<Split, Error> {
    let row_words = row_words.max(1);
    // A lane for each share of words; more while rows alone make too few invocations, as long as each has work.
    let alone = u64::from(shares.min_invocations).div_ceil(rows.max(1));
    let worth = row_words.div_ceil(shares.least_of_lane);
    let alone = u32::try_from(alone).unwrap_or(u32::MAX).min(worth);
    let lanes = row_words
        .div_ceil(shares.per_lane)
        .max(alone)
        .checked_next_power_of_two()
        .unwrap_or(max_lanes)
        .min(max_lanes);
    // Enough parts to bound a lane's share; more, while a part keeps its lanes busy, for parallelism.
    let bound = row_words.div_ceil(shares.most.saturating_mul(lanes));
    let wanted = u64::from(shares.min_invocations).div_ceil((rows * u64::from(lanes)).max(1));
    let useful = row_words.div_ceil(shares.least_of_part.saturating_mul(lanes));
    let parts = bound.max(wanted.min(u64::from(useful)) as u32);
    let split = Split {
        lanes,
        column_words: 1,
        ..Split::default()
    };
    split.with_part(row_words, row_words.div_ceil(parts), rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words that the tensor-sized kernels take per loop iteration (`CHUNK` in `span.wgsl`).
    const CHUNK: u32 = 4;

    #[test]
    fn iterations_of_a_chunk_loop_are_bounded() {
        // Whole chunks, then at most CHUNK * lanes + 2 loose words.
        for tuning in [Tuning::GPU, Tuning::SOFTWARE, Tuning::CPU] {
            assert!(tuning.parts.max_words_per_lane.div_ceil(CHUNK) + CHUNK + 2 <= MAX_ITERATIONS);
        }
        assert!((MAX_ITERATIONS * 3).div_ceil(CHUNK) + CHUNK + 2 <= MAX_ITERATIONS);
    }
}
