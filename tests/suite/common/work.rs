//! What the invocations of a step do, read from the WGSL and written down a second time: how often
//! they loop, which words of a tensor and how many entries of a table they reach, how many work items
//! there are. All of it from the step's uniform and specialization alone, in u64, so that neither the
//! planner's arithmetic nor its overflow is taken over.

// Each test crate that includes this uses its own part of it.
#![allow(dead_code)]

use bcnorm::kernels::{BindingDecl, Family, KernelId, Spec};
use bcnorm::params::{
    ColumnSplit, ElementGroups, Norm, PER_CHANNEL, Parts, RowSplit, SampleSplit, Shape, Table,
};
use bcnorm::plan::Step;
use bcnorm::{Plan, Role};
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

/// A block of the step's uniform that its kernel has.
pub fn block<B: Copy + 'static>(step: &Step) -> B {
    let name = std::any::type_name::<B>();
    let block = step.params.block::<B>().copied();
    block.unwrap_or_else(|| panic!("{} has no {name}", step.spec.kernel.name()))
}

/// How a step splits a tensor: `blocks` (rows; with channels last, samples), of `len` words (with channels last, of
/// positions with `columns` words each; of elements, of samples), into parts.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub blocks: u64,
    pub columns: u64,
    pub len: u64,
    pub parts: u64,
    pub per_part: u64,
}

/// The cut of a step on rows, columns, or elements as columns.
pub fn cut(step: &Step) -> Option<Cut> {
    let params = &step.params;
    let rows = params.block::<RowSplit>().map(|split| Cut {
        blocks: wide(split.num_rows),
        columns: 1,
        len: wide(split.row_len),
        parts: wide(split.parts),
        per_part: wide(split.words_per_part),
    });
    let columns = params.block::<ColumnSplit>().map(|split| Cut {
        blocks: wide(split.num_samples),
        columns: wide(split.words_per_position),
        len: wide(split.row_len),
        parts: wide(split.parts),
        per_part: wide(split.positions_per_part),
    });
    let samples = params.block::<SampleSplit>().map(|split| Cut {
        blocks: 1,
        columns: wide(split.words_per_sample),
        len: wide(split.num_samples),
        parts: wide(split.parts),
        per_part: wide(split.samples_per_part),
    });
    rows.or(columns).or(samples)
}

fn cut_of(step: &Step) -> Cut {
    cut(step).unwrap_or_else(|| panic!("{} splits no tensor", step.spec.kernel.name()))
}

/// The most iterations that an invocation of the step runs, over all of its loops.
pub fn iterations(step: &Step) -> u64 {
    let spec = &step.spec;
    let lanes = u64::from(spec.lanes);
    let (own, reductions) = loops(spec);
    // Lane 0 has the most; a reduction halves the lanes until one is left.
    let shared = |entries: u32| u64::from(entries).div_ceil(lanes);
    let tree = u64::from(spec.lanes.ilog2());
    // Words of a part, or positions.
    let words = cut(step).map_or(0, |cut| cut.per_part);
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
        let cut = cut_of(step);
        let full = words.min(cut.len);
        let last = cut.len.saturating_sub(words * (cut.parts - 1));
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
            wide(block::<ColumnSplit>(step).num_words).div_ceil(wide(step.params.dispatch().items))
        }
        KernelId::RowFold | KernelId::RowFoldBackward => own * shared(block::<Parts>(step).parts),
        KernelId::SampleFold | KernelId::SampleFoldBackward => {
            let table: Table = block(step);
            own * shared(table.entries_per_segment.min(table.entries))
        }
        KernelId::ChannelFold | KernelId::ChannelFoldBackward | KernelId::RunningFold => {
            own * shared(block::<Table>(step).entries)
        }
        KernelId::GroupFold | KernelId::GroupFoldBackward => {
            let shape: Shape = block(step);
            own * shared(shape.num_channels / shape.num_groups)
        }
        KernelId::ElementAffine | KernelId::ElementProducts => {
            own * shared(block::<ElementGroups>(step).words_per_group)
        }
        KernelId::ElementTerms => of_columns(&|samples| samples) + u64::from(spec.width),
        KernelId::ElementAffineBackward => of_columns(&|samples| samples),
        _ => 0,
    };
    body + reductions * tree
}

fn wide(v: u32) -> u64 {
    u64::from(v)
}

/// Rows of the tables: what the kernels on the tensor go over.
pub fn rows(plan: &Plan) -> u64 {
    let rows = plan.steps().iter().find_map(|step| {
        let rows = step.params.block::<RowSplit>();
        let columns = step.params.block::<ColumnSplit>();
        let rows = rows.map(|split| wide(split.num_rows));
        rows.or(columns.map(|split| wide(split.num_samples) * wide(split.num_channels)))
    });
    rows.unwrap_or(0)
}

/// Whether the step sees a sample's elements as columns, and samples as positions, because rows are so short that every
/// element is one.
pub fn sees_elements(step: &Step, plan: &Plan) -> bool {
    let family = |step: &Step| step.spec.kernel.kernel().family;
    let of_elements =
        |step: &Step| [Family::ElementReduce, Family::ElementColumn].contains(&family(step));
    let column = family(step) == Family::ElementColumn;
    column || (step.spec.kernel == KernelId::ColumnMoments && plan.steps().iter().any(of_elements))
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
    let dispatch = step.params.dispatch();
    let first = wide(dispatch.first_item);
    first..first + wide(dispatch.items)
}

/// The words of a tensor that an item of the step reads or writes: `first..end`, and some of those between them.
pub fn words_of_item(step: &Step, item: u64) -> Range<u64> {
    let spec = &step.spec;
    let width = wide(spec.width);
    let Cut {
        columns,
        len,
        parts,
        per_part,
        ..
    } = cut_of(step);
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
            let words = window_words(step);
            words.start + item..words.end.max(words.start + item)
        }
        _ => panic!("{} touches no tensor", spec.kernel.name()),
    }
}

/// The words of the tensor that an item of a kernel on elements reads or writes.
pub fn words_of_elements(step: &Step, item: u64) -> Vec<u64> {
    let kernel = step.spec.kernel;
    match kernel.kernel().family {
        // A (sample, group).
        Family::ElementReduce => {
            let size = wide(block::<ElementGroups>(step).words_per_group);
            (item * size..(item + 1) * size).collect()
        }
        // A word of a sample's, over a part of the samples.
        Family::ElementColumn => {
            let cut = cut_of(step);
            let (part, word) = (item / cut.columns, item % cut.columns);
            let begin = part * cut.per_part;
            let end = (begin + cut.per_part).min(cut.len);
            (begin..end)
                .map(|sample| sample * cut.columns + word)
                .collect()
        }
        _ => panic!("{} does not take elements as rows", kernel.name()),
    }
}

/// The words of a window whose words are taken as they come.
fn window_words(step: &Step) -> Range<u64> {
    let first = wide(step.params.dispatch().first_word);
    first..first + wide(block::<ColumnSplit>(step).num_words)
}

/// The first word of a tensor that the step's items read or write, and the one behind the last.
pub fn words(step: &Step) -> Range<u64> {
    if strides(step) {
        return window_words(step);
    }
    let items = item_range(step);
    let last = items.end - 1;
    // With channels last an item's words reach over its whole part, past those of the next items: the
    // last of all is one of the last items of the last two parts.
    let columns = cut_of(step).columns.max(1);
    let candidates = [last, (last / columns * columns).saturating_sub(1)];
    let ends = candidates.into_iter().filter(|item| items.contains(item));
    let end = ends.map(|item| words_of_item(step, item).end).max();
    words_of_item(step, items.start).start..end.unwrap_or(0)
}

/// How many entries of a table, a parameter or a counter the step of a plan reads or writes, counted from 0.
pub fn entries(step: &Step, plan: &Plan, binding: &BindingDecl) -> u64 {
    let own = items(step, plan);
    let params = &step.params;
    let groups = wide(plan.tensor().num_samples()) * plan.norm().num_groups as u64;
    let (c, g) = (
        plan.norm().num_channels as u64,
        plan.norm().num_groups as u64,
    );
    // What a fold over entries reads; a fold over none still has a binding.
    let table = params.block::<Table>();
    let read = table.map_or(0, |table| wide(table.entries.max(1)) * wide(table.columns));
    let columns = table.map_or(0, |table| wide(table.columns - table.channel_columns));
    let per_channel = params
        .block::<Norm>()
        .is_some_and(|norm| norm.flags & PER_CHANNEL != 0);
    let parts = cut(step).map_or(1, |cut| cut.parts);
    match (step.spec.kernel, binding.name) {
        (KernelId::SampleFold, "rows") => read,
        (KernelId::SampleFold, "channel_parts") => own,
        (KernelId::SampleFoldBackward, "gradient_terms") => read,
        (KernelId::SampleFoldBackward, "gradient_parts") => own,
        (KernelId::RunningFold, "rows") => read,
        (KernelId::ChannelFold, "channel_parts") => read,
        (KernelId::ChannelFoldBackward, "gradient_parts") => read,
        (_, "weight") if per_channel => c,
        (_, "weight") => g,
        (KernelId::GroupFold | KernelId::ElementAffine, "bias") if per_channel => c,
        (KernelId::GroupFold | KernelId::ElementAffine, "bias") => g,
        (KernelId::RowFold, "row_parts") => own * wide(block::<Parts>(step).parts),
        (KernelId::RowFold, "rows") => own,
        (KernelId::RowFoldBackward, "product_parts") => own * wide(block::<Parts>(step).parts),
        (KernelId::ElementProducts, "affine_terms") => groups,
        (KernelId::ElementTerms, "channel_terms" | "affine_terms") => {
            c * wide(plan.tensor().row_len()) * parts
        }
        (_, "group_gradients" | "groups") => groups,
        (_, "row_parts" | "product_parts") => rows(plan) * parts,
        (_, "rows" | "coefficients" | "products" | "row_gradients" | "coefficients_backward") => {
            rows(plan)
        }
        (_, "gradient_terms") => read,
        (
            _,
            "channels" | "bn_weight" | "bn_bias" | "running_mean" | "running_var"
            | "grad_bn_weight" | "grad_bn_bias" | "channel_gradients",
        ) => c,
        (_, "grad_weight" | "grad_bias") => columns,
        (_, "num_batches_tracked") => 1,
        (kernel, name) => panic!("{}.{name} is not known here", kernel.name()),
    }
}

/// The work items of a plan's step; of a tensor that is worked on in windows, of all windows.
pub fn items(step: &Step, plan: &Plan) -> u64 {
    let channels = plan.norm().num_channels as u64;
    match step.spec.kernel {
        // As many as the planner likes: each takes every items-th word.
        _ if strides(step) => wide(step.params.dispatch().items),
        // Words of channels.
        KernelId::RowMoments
        | KernelId::RowProducts
        | KernelId::RowAffine
        | KernelId::RowAffineBackward
        | KernelId::ColumnMoments
        | KernelId::ColumnProducts
        | KernelId::ColumnAffine
        | KernelId::ColumnAffineBackward
        | KernelId::ElementTerms
        | KernelId::ElementAffineBackward => {
            let cut = cut_of(step);
            cut.blocks * cut.columns * cut.parts
        }
        KernelId::RowFold if folds_channels(step) => channels,
        KernelId::RowFold
        | KernelId::RowFoldBackward
        | KernelId::RowCoefficients
        | KernelId::RowTermsBackward
        | KernelId::RowCoefficientsBackward => rows(plan),
        KernelId::BatchCount => 1,
        KernelId::SampleFold | KernelId::SampleFoldBackward => {
            let table: Table = block(step);
            let segments = wide(table.entries)
                .max(1)
                .div_ceil(wide(table.entries_per_segment).max(1));
            segments * wide(table.columns)
        }
        KernelId::ChannelFold | KernelId::RunningFold => channels,
        KernelId::GroupFold
        | KernelId::GroupFoldBackward
        | KernelId::ElementAffine
        | KernelId::ElementProducts => {
            wide(plan.tensor().num_samples()) * plan.norm().num_groups as u64
        }
        KernelId::ChannelFoldBackward => wide(block::<Table>(step).columns),
        other => panic!("{} is not known here: count its items", other.name()),
    }
}
