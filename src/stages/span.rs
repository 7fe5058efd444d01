//! Which elements a work item of a kernel over rows owns: the twin of `shaders/parts/layout/span.wgsl` and
//! `row_words.wgsl`. Items are counted over all windows.

use crate::params::RowParams;
use std::ops::Range;

/// Elements of the part `item` of a row that a reduction reads (cut at words of `width`).
#[inline(always)]
pub(super) fn part_span(params: &RowParams, width: u32, item: usize) -> Range<usize> {
    let (parts, width) = (params.split.parts as usize, width as usize);
    let row_begin = item / parts * params.split.row_len as usize;
    let row_end = row_begin + params.split.row_len as usize;
    let words = params.split.words_per_part as usize;
    let word = row_begin / width + item % parts * words;
    // A part may lie behind the row's end: it is empty then.
    let begin = row_begin.max(word * width).min(row_end);
    begin..row_end.min((word + words) * width)
}

/// Where the words begin that the part `item` of a row writes in a map; they end where the next
/// item's begin. A row's last word, which may reach beyond its end, is its last part's.
#[inline(always)]
pub(super) fn map_begin(params: &RowParams, width: u32, item: usize) -> usize {
    let (parts, width) = (params.split.parts as usize, width as usize);
    let row_begin = item / parts * params.split.row_len as usize;
    let first = row_begin.div_ceil(width);
    let last = first.max((row_begin + params.split.row_len as usize) / width);
    last.min(first + item % parts * params.split.words_per_part as usize) * width
}

/// The rows of consecutive elements, and which of the elements are each one's, in blocks of at most
/// [`BLOCK`].
#[inline(always)]
pub(super) fn row_blocks(
    row_len: usize,
    elements: Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let rows = elements.start / row_len..elements.end.div_ceil(row_len);
    rows.flat_map(move |row| {
        let begin = elements.start.max(row * row_len);
        let end = elements.end.min((row + 1) * row_len);
        (begin..end)
            .step_by(BLOCK)
            .map(move |first| (row, first..end.min(first + BLOCK)))
    })
}

/// Elements that a map takes through its steps together: few enough to stay in the nearest cache.
pub(super) const BLOCK: usize = 256;
