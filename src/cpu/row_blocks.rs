//! What a map over rows takes at once.

use std::ops::Range;

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
