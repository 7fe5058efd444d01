//! What the invocations of a step do, read from the WGSL and written down a second time: how often
//! they loop, which words of a tensor and how many entries of a table they reach, how many work items
//! there are. All of it from the step's uniform and specialization alone, in u64, so that neither the
//! planner's arithmetic nor its overflow is taken over.

// Each test crate that includes this uses its own part of it.
#![allow(dead_code)]

use bcnorm::Role;
use bcnorm::kernels::{BindingDecl, Family, KernelId, Spec};
use bcnorm::params::{PER_CHANNEL, Params};
use bcnorm::plan::Step;
use std::ops::Range;

/// Words that the row kernels and the map of columns take per iteration of their first loop and lane.
const CHUNK: u64 = 4;

/// Positions that the reductions of columns take per iteration and lane.
const COLUMN_CHUNK: u64 = 8;

/// Loops in the text of a kernel, and calls of a reduction. The reduction over more than one lane is a loop more.
/// None is nested in another, but for those over the words of an invocation, where channels come last.
pub fn loops(spec: &Spec) -> (u64, u64) {
    match spec.kernel {
        // There is nothing to fold.
        KernelId::ChannelFold if spec.bindings().all(|(_, b)| b.name != "channel_parts") => (0, 0),
        KernelId::BatchCount
        | KernelId::RowCoefficients
        | KernelId::RowTermsBackward
        | KernelId::RowCoefficientsBackward => (0, 0),
        KernelId::RowAffine | KernelId::RowAffineBackward => (1, 0),
        // One over the positions of a part, one over the words of a window; where an invocation takes several words, one
        // over them, and one over the positions with one over the words.
        KernelId::ColumnAffine | KernelId::ColumnAffineBackward => (5, 0),
        KernelId::RowMoments | KernelId::RowProducts => (2, 1),
        // One over the positions of a part with one over the words of an invocation; one over the words for what is left;
        // one over the words with one over the channels of each.
        KernelId::ColumnMoments => (5, 1),
        // And one over the words for what is known of them.
        KernelId::ColumnProducts => (6, 1),
        KernelId::RowFold | KernelId::SampleFold | KernelId::ChannelFold => (2, 2),
        KernelId::RowFoldBackward => (2, 3),
        KernelId::SampleFoldBackward => (1, 1),
        KernelId::ChannelFoldBackward | KernelId::RunningFold => (1, 1),
        KernelId::GroupFold => (4, 3),
        KernelId::GroupFoldBackward => (4, 3),
        // All but the affine map's last sum up; the products' first sums two pairs.
        KernelId::ElementAffine => (3, 2),
        KernelId::ElementProducts => (2, 3),
        // One over the samples of a part, one over the elements of a word.
        KernelId::ElementTerms => (2, 0),
        KernelId::ElementAffineBackward => (1, 0),
        other => panic!("{} is not known here: count its loops", other.name()),
    }
}

/// The most iterations that an invocation of the step runs, over all of its loops.
pub fn iterations(step: &Step) -> u64 {
    let (p, spec) = (&step.params, &step.spec);
    let lanes = u64::from(spec.lanes);
    let (own, reductions) = loops(spec);
    // Lane 0 has the most; a reduction halves the lanes until one is left.
    let shared = |entries: u32| u64::from(entries).div_ceil(lanes);
    let tree = u64::from(spec.lanes.ilog2());
    let words = u64::from(p.words_per_part);
    // A reduction: whole chunks go into the first loop, CHUNK a lane and iteration; what is left goes into the second, as
    // many. Words at both ends of a row's part may be cut.
    let of_row = || {
        let whole = words.saturating_sub(2)..=words;
        let iterations = whole.map(|whole| {
            let chunks = whole / (CHUNK * lanes);
            chunks + (words - chunks * CHUNK * lanes).div_ceil(CHUNK * lanes)
        });
        iterations.max().unwrap_or(0)
    };
    // Parts have as many positions but the last, which has what is left.
    let of_columns = |iterations: &dyn Fn(u64) -> u64| {
        let full = words.min(u64::from(p.row_len));
        let last = u64::from(p.row_len).saturating_sub(words * (u64::from(p.parts) - 1));
        iterations(full).max(iterations(last.min(full)))
    };
    let body = match spec.kernel {
        KernelId::RowMoments | KernelId::RowProducts => of_row(),
        // What is left of a part behind its whole chunks is no loop.
        KernelId::RowAffine | KernelId::RowAffineBackward => words / (CHUNK * lanes),
        KernelId::ColumnMoments | KernelId::ColumnProducts => {
            let together = u64::from(spec.column_words);
            let chunks = of_columns(&|positions| positions / (COLUMN_CHUNK * lanes));
            chunks * (1 + together) + together * (3 + u64::from(spec.width))
        }
        KernelId::ColumnAffine | KernelId::ColumnAffineBackward if spec.column_words > 1 => {
            let together = u64::from(spec.column_words);
            of_columns(&|positions| positions) * (1 + together) + together
        }
        KernelId::ColumnAffine | KernelId::ColumnAffineBackward if spec.aligned => {
            of_columns(&|positions| positions / (CHUNK * lanes))
        }
        // Every items-th word of the window.
        KernelId::ColumnAffine | KernelId::ColumnAffineBackward => {
            u64::from(p.num_words).div_ceil(u64::from(p.items))
        }
        KernelId::RowFold | KernelId::RowFoldBackward => own * shared(p.parts),
        KernelId::SampleFold | KernelId::SampleFoldBackward => {
            own * shared(p.entries_per_segment.min(p.entries))
        }
        KernelId::ChannelFold | KernelId::ChannelFoldBackward | KernelId::RunningFold => {
            own * shared(p.entries)
        }
        KernelId::GroupFold | KernelId::GroupFoldBackward => {
            own * shared(p.num_channels / p.num_groups)
        }
        KernelId::ElementAffine | KernelId::ElementProducts => own * words.div_ceil(lanes),
        KernelId::ElementTerms => of_columns(&|samples| samples) + u64::from(spec.width),
        KernelId::ElementAffineBackward => of_columns(&|samples| samples),
        _ => 0,
    };
    body + reductions * tree
}

fn wide(v: u32) -> u64 {
    u64::from(v)
}

/// Rows of the tables.
pub fn rows(p: &Params) -> u64 {
    wide(p.num_samples) * wide(p.num_channels)
}

/// Elements of the tensors.
pub fn elements(p: &Params) -> u64 {
    rows(p) * wide(p.row_len)
}

/// Whether rows are so short that every element is one: the step sees a sample's elements as columns,
/// and samples as positions.
pub fn sees_elements(step: &Step) -> bool {
    let column = step.spec.kernel.kernel().family == Family::ElementColumn;
    column || (step.spec.kernel == KernelId::ColumnMoments && step.params.channel_len > 0)
}

/// Whether a fold of parts makes channels of them, not rows.
fn folds_channels(step: &Step) -> bool {
    step.spec.kernel == KernelId::RowFold && step.bindings.last() == Some(&Role::ChannelParts)
}

/// Whether the step's kernel takes the words of a window as they come, of whichever rows they are.
pub fn strides(step: &Step) -> bool {
    step.spec.kernel.kernel().family == Family::ColumnMap && !step.spec.aligned
}

/// The work items of the step, counted over all windows of its tensor.
pub fn item_range(step: &Step) -> Range<u64> {
    let first = wide(step.params.first_item);
    first..first + wide(step.params.items)
}

/// The words of a tensor that an item of the step reads or writes: `first..end`, and some of those between them.
pub fn words_of_item(step: &Step, item: u64) -> Range<u64> {
    let (p, spec) = (&step.params, &step.spec);
    let (parts, width) = (wide(p.parts), wide(spec.width));
    let (len, per_part) = (wide(p.row_len), wide(p.words_per_part));
    match spec.kernel.kernel().family {
        Family::RowReduce => {
            let (row, part) = (item / parts, item % parts);
            let (row_begin, row_end) = (row * len, (row + 1) * len);
            let word = row_begin / width + part * per_part;
            let begin = (word * width).max(row_begin);
            let end = ((word + per_part) * width).min(row_end).max(begin);
            if begin == end {
                // Behind the row's end.
                return row_end.div_ceil(width)..row_end.div_ceil(width);
            }
            begin / width..end.div_ceil(width)
        }
        Family::RowMap => {
            let (row, part) = (item / parts, item % parts);
            let (row_begin, row_end) = (row * len, (row + 1) * len);
            let (first, last) = (row_begin.div_ceil(width), row_end / width);
            let begin = (first + part * per_part).min(last.max(first));
            let end = (first + (part + 1) * per_part).min(last).max(begin);
            // The row's last word, where it reaches beyond the row.
            let shared = row_end % width != 0 && part + 1 == parts;
            begin..if shared { last + 1 } else { end }
        }
        Family::ColumnReduce | Family::ColumnMap if !strides(step) => {
            let columns = wide(p.columns);
            let (block, word) = (item / columns, item % columns);
            let (sample, part) = (block / parts, block % parts);
            let begin = (part * per_part).min(len);
            let end = ((part + 1) * per_part).min(len);
            let begins = |position: u64| (sample * len + position) * columns + word;
            if begin == end {
                return begins(begin)..begins(begin);
            }
            begins(begin)..begins(end - 1) + 1
        }
        Family::ColumnMap => {
            let first = wide(p.first_word);
            first + item..(first + wide(p.num_words)).max(first + item)
        }
        _ => panic!("{} touches no tensor", spec.kernel.name()),
    }
}

/// The words of the tensor that an item of a kernel on elements reads or writes.
pub fn words_of_elements(step: &Step, item: u64) -> Vec<u64> {
    let (p, spec) = (&step.params, &step.spec);
    match spec.kernel.kernel().family {
        // A (sample, group).
        Family::ElementReduce => {
            let size = wide(p.words_per_part);
            (item * size..(item + 1) * size).collect()
        }
        // A word of a sample's, over a part of the samples.
        Family::ElementColumn => {
            let (part, word) = (item / wide(p.columns), item % wide(p.columns));
            let begin = part * wide(p.words_per_part);
            let end = (begin + wide(p.words_per_part)).min(wide(p.row_len));
            (begin..end)
                .map(|sample| sample * wide(p.columns) + word)
                .collect()
        }
        _ => panic!("{} does not take elements as rows", spec.kernel.name()),
    }
}

/// The first word of a tensor that the step's items read or write, and the one behind the last.
pub fn words(step: &Step) -> Range<u64> {
    if strides(step) {
        let first = wide(step.params.first_word);
        return first..first + wide(step.params.num_words);
    }
    let items = item_range(step);
    let last = items.end - 1;
    // With channels last an item's words reach over its whole part, past those of the next items: the
    // last of all is one of the last items of the last two parts.
    let columns = wide(step.params.columns).max(1);
    let candidates = [last, (last / columns * columns).saturating_sub(1)];
    let ends = candidates.into_iter().filter(|item| items.contains(item));
    let end = ends.map(|item| words_of_item(step, item).end).max();
    words_of_item(step, items.start).start..end.unwrap_or(0)
}

/// How many entries of a table, a parameter or a counter the step reads or writes, counted from 0.
pub fn entries(step: &Step, binding: &BindingDecl) -> u64 {
    let p = &step.params;
    let (n, c, g) = (
        wide(p.num_samples),
        wide(p.num_channels),
        wide(p.num_groups),
    );
    // Channels, where `c` is a sample's elements.
    let channels = if sees_elements(step) {
        c / wide(p.channel_len)
    } else {
        c
    };
    // What a fold over entries reads; a fold over none still has a binding.
    let table = wide(p.entries.max(1)) * wide(p.columns);
    let per_channel = p.flags & PER_CHANNEL != 0;
    match (step.spec.kernel, binding.name) {
        (KernelId::SampleFold, "rows") => table,
        (KernelId::SampleFold, "channel_parts") => items(step),
        (KernelId::SampleFoldBackward, "gradient_terms") => table,
        (KernelId::SampleFoldBackward, "gradient_parts") => items(step),
        (KernelId::RunningFold, "rows") => table,
        (KernelId::ChannelFold, "channel_parts") => table,
        (KernelId::ChannelFoldBackward, "gradient_parts") => table,
        (KernelId::ChannelFold, "weight") => c,
        (KernelId::GroupFold, "weight") => g,
        (KernelId::GroupFold, "bias") if per_channel => c,
        (KernelId::GroupFold, "bias") => g,
        (KernelId::RowFold, "row_parts") => items(step) * wide(p.parts),
        (KernelId::RowFold, "rows") => items(step),
        (KernelId::ElementAffine, "weight") => g,
        (KernelId::ElementAffine, "bias") if per_channel => c,
        (KernelId::ElementAffine, "bias") => g,
        (KernelId::ElementProducts, "affine_terms") => n * g,
        (KernelId::ElementTerms, "channel_terms" | "affine_terms") => c * wide(p.parts),
        (KernelId::ElementProducts, "group_gradients") => n * g,
        (_, "group_gradients") => wide(p.row_len) * g,
        (_, "row_parts" | "product_parts") => n * c * wide(p.parts),
        (_, "rows" | "coefficients" | "products" | "row_gradients" | "coefficients_backward") => {
            n * c
        }
        (_, "gradient_terms") => n * wide(p.columns),
        (
            _,
            "channels" | "bn_weight" | "bn_bias" | "running_mean" | "running_var"
            | "grad_bn_weight" | "grad_bn_bias" | "channel_gradients",
        ) => channels,
        (_, "grad_weight" | "grad_bias") => wide(p.columns) - wide(p.channel_columns),
        (_, "num_batches_tracked") => 1,
        (_, "groups") => n * g,
        (kernel, name) => panic!("{}.{name} is not known here", kernel.name()),
    }
}

/// The work items of the step; of a tensor that is worked on in windows, of all windows.
pub fn items(step: &Step) -> u64 {
    let p = &step.params;
    let (n, c, g) = (
        wide(p.num_samples),
        wide(p.num_channels),
        wide(p.num_groups),
    );
    match step.spec.kernel {
        // As many as the planner likes: each takes every items-th word.
        _ if strides(step) => wide(p.items),
        KernelId::RowMoments
        | KernelId::RowProducts
        | KernelId::RowAffine
        | KernelId::RowAffineBackward => n * c * wide(p.parts),
        // Words of channels.
        KernelId::ColumnMoments
        | KernelId::ColumnProducts
        | KernelId::ColumnAffine
        | KernelId::ColumnAffineBackward
        | KernelId::ElementTerms
        | KernelId::ElementAffineBackward => n * wide(p.columns) * wide(p.parts),
        KernelId::RowFold if folds_channels(step) => c,
        KernelId::RowFold
        | KernelId::RowFoldBackward
        | KernelId::RowCoefficients
        | KernelId::RowTermsBackward
        | KernelId::RowCoefficientsBackward => n * c,
        KernelId::BatchCount => 1,
        KernelId::SampleFold | KernelId::SampleFoldBackward => {
            let segments = wide(p.entries)
                .max(1)
                .div_ceil(wide(p.entries_per_segment).max(1));
            segments * wide(p.columns)
        }
        KernelId::ChannelFold | KernelId::RunningFold => c,
        KernelId::GroupFold
        | KernelId::GroupFoldBackward
        | KernelId::ElementAffine
        | KernelId::ElementProducts => n * g,
        KernelId::ChannelFoldBackward => wide(p.columns),
        other => panic!("{} is not known here: count its items", other.name()),
    }
}
