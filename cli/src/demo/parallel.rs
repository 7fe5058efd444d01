//! Several threads for independent jobs.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// Does every job, on as many threads as the machine has cores.
pub fn for_each<T: Send>(jobs: impl Iterator<Item = T> + Send, work: impl Fn(T) + Sync) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let jobs = Mutex::new(jobs);
    // The lock is held while a job is taken, not while it is done.
    let take = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(job) = take() {
                    work(job);
                }
            });
        }
    });
}

/// The results of every job, in the jobs' order.
pub fn map<T: Send, R: Send>(
    jobs: impl ExactSizeIterator<Item = T> + Send,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let mut results: Vec<Option<R>> = jobs.size_hint().1.map_or(Vec::new(), |len| {
        std::iter::repeat_with(|| None).take(len).collect()
    });
    for_each(jobs.zip(&mut results), |(job, result)| {
        *result = Some(work(job))
    });
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_keep_the_order_of_their_jobs() {
        let squares = super::map(0..1000u32, |i| i * i);
        assert!(squares.iter().zip(0..).all(|(&square, i)| square == i * i));
        assert_eq!(squares.len(), 1000);
    }
}
