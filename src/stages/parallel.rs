//! Work items on several threads, each thread a contiguous range with its own part of the output.

use std::num::NonZero;
use std::ops::Range;

/// Runs `work(items, output)` over `0..items` in contiguous ranges, one a thread. `cut(i)` says
/// where in `output` item i begins (`cut(items)` is its end); it must not decrease.
pub(super) fn for_ranges<T: Send>(
    threads: NonZero<usize>,
    items: usize,
    output: &mut [T],
    cut: impl Fn(usize) -> usize,
    work: impl Fn(Range<usize>, &mut [T]) + Sync,
) {
    let threads = threads.get().min(items.max(1));
    if threads == 1 {
        return work(0..items, output);
    }
    std::thread::scope(|scope| {
        let work = &work;
        let mut rest = output;
        let mut done = cut(0);
        rest = &mut rest[done..];
        for thread in 0..threads {
            let range = items * thread / threads..items * (thread + 1) / threads;
            let end = cut(range.end);
            let (mine, others) = rest.split_at_mut(end - done);
            rest = others;
            done = end;
            scope.spawn(move || work(range, mine));
        }
    });
}
