//! Time on the GPU: many repetitions in one submission, so that submitting and waiting do not show, and
//! candidates in turn, so that a machine's slow moments hit them all.

use super::clock::{CALIBRATION, Clock, Elapsed};
use anyhow::{Context as _, Result, ensure};
use bcnorm::gpu::headless::Gpu;
use bcnorm::{Plan, cpu};
use bcnorm_testkit::problem::Problem;
use bcnorm_testkit::run::host_buffers;
use indicatif::ProgressBar;
use std::time::{Duration, Instant};

/// Most dispatches of a submission, however short they are.
const MAX_DISPATCHES: u32 = 20_000;

pub struct Candidate<'a> {
    record: Box<dyn Fn(&mut wgpu::ComputePass<'_>) + 'a>,
    max_repeats: u32,
    repeats: u32,
    samples: Vec<f64>,
}

impl<'a> Candidate<'a> {
    /// What `record` records, `dispatches` of them.
    pub fn new(dispatches: usize, record: impl Fn(&mut wgpu::ComputePass<'_>) + 'a) -> Self {
        Self {
            record: Box::new(record),
            max_repeats: (MAX_DISPATCHES / dispatches.max(1) as u32).max(1),
            repeats: 1,
            samples: Vec::new(),
        }
    }

    /// Median of one repetition, in milliseconds.
    pub fn median_ms(&self) -> f64 {
        median(&self.samples)
    }

    fn submit(&self, gpu: &Gpu, clock: &Clock) -> Result<Elapsed> {
        clock.time(gpu, |pass| {
            for _ in 0..self.repeats {
                (self.record)(pass);
            }
        })
    }

    /// Finds how many repetitions make a submission of the wanted length, by the wall clock. Returns the
    /// last.
    fn calibrate(&mut self, gpu: &Gpu, clock: &Clock, target: f64) -> Result<Elapsed> {
        // The first is slower than any other: caches, pages, lazy compilation.
        self.submit(gpu, clock)?;
        loop {
            let elapsed = self.submit(gpu, clock)?;
            let seconds = elapsed.wall;
            if seconds >= 0.7 * target || self.repeats >= self.max_repeats {
                return Ok(elapsed);
            }
            // Short submissions are mostly overhead: grow step by step.
            let factor = (target / seconds.max(1e-6)).clamp(1.5, 16.0);
            let repeats = (f64::from(self.repeats) * factor).ceil();
            self.repeats = (repeats as u32).min(self.max_repeats);
        }
    }
}

/// The clock to use on a device, and why it is not the device's own, by one long submission.
pub fn choose_clock(gpu: &Gpu, mut candidate: Candidate<'_>) -> Result<(Clock, Option<String>)> {
    let clock = Clock::new(gpu);
    let long = candidate.calibrate(gpu, &clock, CALIBRATION)?;
    Ok(clock.trusted(long))
}

/// Which of some candidates is the fastest, by a few short submissions.
pub fn fastest(
    gpu: &Gpu,
    clock: &Clock,
    mut candidates: Vec<Candidate<'_>>,
    effort: Effort,
) -> Result<usize> {
    if candidates.len() == 1 {
        return Ok(0);
    }
    let brief = Effort {
        submission: effort.submission / 4,
        rounds: 3,
    };
    measure(gpu, clock, &mut candidates, brief, &ProgressBar::hidden())?;
    let medians = candidates.iter().map(Candidate::median_ms).enumerate();
    let best = medians.min_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map(|(index, _)| index)
        .context("nothing to choose from")
}

#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How long a submission should take.
    pub submission: Duration,
    /// How many of them: the median counts.
    pub rounds: u32,
}

/// Times all candidates, in turn.
pub fn measure(
    gpu: &Gpu,
    clock: &Clock,
    candidates: &mut [Candidate<'_>],
    effort: Effort,
    bar: &ProgressBar,
) -> Result<()> {
    for candidate in candidates.iter_mut() {
        candidate.calibrate(gpu, clock, effort.submission.as_secs_f64())?;
    }
    for _ in 0..effort.rounds {
        for candidate in candidates.iter_mut() {
            let seconds = candidate.submit(gpu, clock)?.counted;
            let each = 1e3 * seconds / f64::from(candidate.repeats);
            candidate.samples.push(each);
        }
        bar.inc(1);
    }
    ensure!(
        candidates.iter().all(|c| c.median_ms() > 0.0),
        "the clock of this machine is too coarse to time anything"
    );
    Ok(())
}

/// Median of CPU work, in milliseconds: three runs at least, then until half a second is over.
fn measure_on_cpu(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let begin = Instant::now();
    let mut samples = Vec::new();
    let half = Duration::from_millis(500);
    while samples.len() < 3 || (begin.elapsed() < half && samples.len() < 99) {
        let start = Instant::now();
        work()?;
        samples.push(1e3 * start.elapsed().as_secs_f64());
    }
    Ok(median(&samples))
}

/// Medians of a problem's plans on the CPU executor, in milliseconds: forward, and backward where it is computed.
pub fn measure_plans_on_cpu(problem: &Problem, executor: &cpu::Executor) -> Result<Vec<f64>> {
    let (forward, backward) = problem.plans(&executor.tuning())?;
    let plans: Vec<Plan> = [forward].into_iter().chain(backward).collect();
    let mut buffers = host_buffers(problem, &plans);
    let mut measure = |plan| measure_on_cpu(|| Ok(executor.run(plan, &mut buffers)?));
    plans.iter().map(&mut measure).collect()
}

/// The middle one; 0 of none.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::{measure_on_cpu, median};
    use std::time::Duration;

    #[test]
    fn a_time_is_that_of_one_run() {
        let mut calls = 0;
        let ms = measure_on_cpu(|| {
            calls += 1;
            std::thread::sleep(Duration::from_millis(4));
            Ok(())
        });
        // Sleep may take longer, never less.
        assert!((4.0..60.0).contains(&ms.unwrap()));
        assert!(calls > 3, "{calls}");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
