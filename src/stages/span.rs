//! Which elements a work item of a kernel over rows owns: the twin of `shaders/parts/layout/span.wgsl` and
//! `row_words.wgsl`. Items are counted over all windows.

use crate::params::RowParams;
use std::ops::Range;

/// Elements of the part `item` of a row that a reduction reads (cut at words of `width`).
#[inline(always)]
pub(crate) fn part_span(params: &RowParams, width: u32, item: usize) -> Range<usize> {
    let (parts, width) = (params.split.parts as usize, width as usize);
    let row_begin = item / parts * params.split.row_len as usize;
    let row_end = row_begin + params.split.row_len as usize;
    let words = params.split.words_per_part as usize;
    let word = row_begin / width + item % parts * words;
    // A part may lie behind the row's end: it is empty then.
    let begin = row_begin.max(word * width).min(row_end);
    begin..row_end.min((word + words) * width)
}

/// Elements of the words that the part `item` of a row writes in a map, of a tensor of `elements`. A row's last word, which
/// may reach beyond its end, is its last part's.
pub(super) fn row_words(
    params: &RowParams,
    width: u32,
    elements: usize,
    item: usize,
) -> Range<usize> {
    let begin = |item| map_begin(params, width, item).min(elements);
    begin(item)..begin(item + 1)
}

/// Where these words begin; they end where the next item's begin.
#[inline(always)]
pub(crate) fn map_begin(params: &RowParams, width: u32, item: usize) -> usize {
    let (parts, width) = (params.split.parts as usize, width as usize);
    let row_begin = item / parts * params.split.row_len as usize;
    let first = row_begin.div_ceil(width);
    let last = first.max((row_begin + params.split.row_len as usize) / width);
    last.min(first + item % parts * params.split.words_per_part as usize) * width
}
