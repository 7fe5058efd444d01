//! What the invocations of a step do, read from the WGSL and written down a second time: how often
//! they loop, how far into each binding they reach, how many work items there are. All of it from
//! the step's uniform alone, in u64, so that neither the planner's arithmetic nor its overflow is
//! taken over.

// Each test crate that includes this uses its own part of it.
#![allow(dead_code)]

use bcnorm::kernels::KernelId;
use bcnorm::plan::Step;

/// Words that the tensor-sized kernels take per iteration of their first loop and lane.
const CHUNK: u64 = 4;

/// Loops in the text of a kernel (none is nested in another), and calls of a reduction. The
/// reduction over more than one lane is a loop more.
pub fn loops(kernel: KernelId) -> (u64, u64) {
    match kernel {
        KernelId::BatchCount | KernelId::RowCoefficientsBackward => (0, 0),
        KernelId::RowAffine | KernelId::RowAffineBackward => (2, 0),
        KernelId::RowMoments | KernelId::RowProducts => (2, 1),
        KernelId::RowFold | KernelId::RowFoldBackward => (1, 1),
        KernelId::SampleFold | KernelId::SampleFoldBackward => (1, 1),
        KernelId::ChannelFold => (2, 2),
        KernelId::ChannelFoldBackward => (1, 1),
        KernelId::GroupFold => (4, 3),
        KernelId::GroupFoldBackward => (4, 3),
        other => panic!("{} is not known here: count its loops", other.name()),
    }
}

/// The most iterations that an invocation of the step runs, over all of its loops.
pub fn iterations(step: &Step) -> u64 {
    let (p, kernel) = (&step.params, step.spec.kernel);
    let lanes = u64::from(step.spec.lanes);
    let (own, reductions) = loops(kernel);
    // Lane 0 has the most; a reduction halves the lanes until one is left.
    let shared = |entries: u32| u64::from(entries).div_ceil(lanes);
    let tree = u64::from(step.spec.lanes.ilog2());
    let words = u64::from(p.words_per_part);
    let size = p.num_channels / p.num_groups;
    // Of a part's words the whole ones go into the first loop, CHUNK a lane and iteration; what is
    // left of the part goes into the second, `stride` a lane. Words at both ends may be cut.
    let split = |stride: u64| {
        let iterations = |whole: u64| {
            let chunks = whole / (CHUNK * lanes);
            chunks + (words - chunks * CHUNK * lanes).div_ceil(stride * lanes)
        };
        let whole = words.saturating_sub(2)..=words;
        whole.map(iterations).max().unwrap_or(0)
    };
    let body = match kernel {
        KernelId::RowMoments | KernelId::RowProducts => split(CHUNK),
        KernelId::RowAffine | KernelId::RowAffineBackward => split(1),
        KernelId::RowFold | KernelId::RowFoldBackward => own * shared(p.parts),
        KernelId::SampleFold | KernelId::SampleFoldBackward => {
            own * shared(p.entries_per_segment.min(p.entries))
        }
        KernelId::ChannelFold | KernelId::ChannelFoldBackward => own * shared(p.entries),
        KernelId::GroupFold | KernelId::GroupFoldBackward => own * shared(size),
        _ => 0,
    };
    body + reductions * tree
}

/// The entries of each binding that the step reads or writes, counted from 0, in the order of the
/// kernel's bindings.
pub fn entries(step: &Step) -> Vec<u64> {
    let p = &step.params;
    let wide = u64::from;
    let (n, c, g) = (
        wide(p.num_samples),
        wide(p.num_channels),
        wide(p.num_groups),
    );
    let (words, rows, groups) = (wide(p.num_words), n * c, n * g);
    let parts = rows * wide(p.parts);
    let table = wide(p.entries.max(1)) * wide(p.columns);
    match step.spec.kernel {
        KernelId::RowMoments => vec![words, parts],
        KernelId::RowFold => vec![parts, rows],
        KernelId::BatchCount => vec![1],
        KernelId::SampleFold | KernelId::SampleFoldBackward => vec![table, items(step)],
        KernelId::ChannelFold => vec![table, c, c, 1, c, c, c],
        KernelId::GroupFold => vec![rows, c, g, g, groups, rows],
        KernelId::RowAffine => vec![words, rows, words],
        KernelId::RowProducts => vec![words, words, rows, parts],
        KernelId::RowFoldBackward => vec![parts, rows],
        KernelId::GroupFoldBackward => vec![rows, rows, c, groups, n * (c + g)],
        KernelId::ChannelFoldBackward => vec![table, c, c, g, g, c],
        KernelId::RowCoefficientsBackward => vec![rows, rows, c, groups, n * (c + g), c, rows],
        KernelId::RowAffineBackward => vec![words, words, rows, words],
        other => panic!("{} is not known here: read its bindings", other.name()),
    }
}

/// The work items of the step.
pub fn items(step: &Step) -> u64 {
    let p = &step.params;
    let wide = u64::from;
    let (n, c, g) = (
        wide(p.num_samples),
        wide(p.num_channels),
        wide(p.num_groups),
    );
    match step.spec.kernel {
        KernelId::RowMoments
        | KernelId::RowProducts
        | KernelId::RowAffine
        | KernelId::RowAffineBackward => n * c * wide(p.parts),
        KernelId::RowFold | KernelId::RowFoldBackward | KernelId::RowCoefficientsBackward => n * c,
        KernelId::BatchCount => 1,
        KernelId::SampleFold | KernelId::SampleFoldBackward => {
            wide(p.entries).div_ceil(wide(p.entries_per_segment)) * wide(p.columns)
        }
        KernelId::ChannelFold => c,
        KernelId::GroupFold | KernelId::GroupFoldBackward => n * g,
        KernelId::ChannelFoldBackward => c + g,
        other => panic!("{} is not known here: count its items", other.name()),
    }
}
