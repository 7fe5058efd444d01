//! Which elements a work item of a reduction owns: the twin of `shaders/parts/span.wgsl`.

use crate::params::Params;
use std::ops::Range;

/// Elements of the part `item` of a row that a reduction reads (cut at words of `width`).
pub(super) fn part_span(params: &Params, width: u32, item: usize) -> Range<usize> {
    let (parts, width) = (params.parts as usize, width as usize);
    let row_begin = item / parts * params.row_len as usize;
    let row_end = row_begin + params.row_len as usize;
    let words = params.words_per_part as usize;
    let word = row_begin / width + item % parts * words;
    let begin = row_begin.max(word * width);
    begin..row_end.min((word + words) * width).max(begin)
}
