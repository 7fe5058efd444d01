//! Work items on several threads, each thread a contiguous range with its own part of the output.

use super::vector::vectorized;
use std::num::NonZero;
use std::ops::Range;

/// Output that threads share: slices, or several of them that are cut at the same places.
pub(super) trait Output: Send + Sized {
    /// What is before the place, and what is from there on.
    fn cut(self, at: usize) -> (Self, Self);
}

impl<T: Send> Output for &mut [T] {
    fn cut(self, at: usize) -> (Self, Self) {
        self.split_at_mut(at)
    }
}

impl<T: Output> Output for Option<T> {
    fn cut(self, at: usize) -> (Self, Self) {
        self.map(|output| output.cut(at)).unzip()
    }
}

impl<A: Output, B: Output> Output for (A, B) {
    fn cut(self, at: usize) -> (Self, Self) {
        let ((a, a_rest), (b, b_rest)) = (self.0.cut(at), self.1.cut(at));
        ((a, b), (a_rest, b_rest))
    }
}

/// Slices of `len` values each, which are cut between them.
pub(super) struct Rows<'a, T> {
    pub values: &'a mut [T],
    pub len: usize,
}

impl<T: Send> Output for Rows<'_, T> {
    fn cut(self, at: usize) -> (Self, Self) {
        let (values, rest) = self.values.split_at_mut(at * self.len);
        let Self { len, .. } = self;
        (Self { values, len }, Self { values: rest, len })
    }
}

/// Runs `work(items, output)` over `items` in contiguous ranges, one a thread, each with its part of
/// the output. `cut(i)` says where in `output` item i begins (`cut(items.end)` is the last one's end); it
/// must not decrease.
pub(super) fn for_ranges<O: Output>(
    threads: NonZero<usize>,
    items: Range<usize>,
    output: O,
    cut: impl Fn(usize) -> usize,
    work: impl Fn(Range<usize>, O) + Sync,
) {
    let threads = threads.get().min(items.len().max(1));
    let mut done = cut(items.start);
    let (_, mut rest) = output.cut(done);
    let run = |range, mine| {
        vectorized(
            #[inline(always)]
            || work(range, mine),
        );
    };
    std::thread::scope(|scope| {
        let run = &run;
        for thread in 0..threads {
            let begin = |thread: usize| items.start + items.len() * thread / threads;
            let range = begin(thread)..begin(thread + 1);
            let end = cut(range.end);
            let (mine, others) = rest.cut(end - done);
            rest = others;
            done = end;
            if thread + 1 < threads {
                scope.spawn(move || run(range, mine));
            } else {
                run(range, mine);
            }
        }
    });
}
