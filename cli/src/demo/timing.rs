//! How long forward and backward take, as the benchmark measures that.

use crate::bench::clock::Clock;
use crate::bench::timing::{self, Candidate, Effort, measure_plans_on_cpu};
use crate::case::{Plans, Problem};
use crate::device::{Engine, guarded};
use anyhow::Result;
use indicatif::ProgressBar;
use serde::Serialize;
use std::time::Duration;

/// Submissions of which the median is taken.
const EFFORT: Effort = Effort {
    submission: Duration::from_millis(80),
    rounds: 5,
};

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Time {
    pub ms: f64,
    /// Bytes of tensor-sized data that kernels read or write meanwhile.
    pub bytes: u64,
    pub gb_per_s: f64,
}

pub fn measure(case: &Problem, engine: &Engine) -> Result<Vec<Time>> {
    let milliseconds = match engine {
        Engine::Cpu(executor) => measure_plans_on_cpu(case, executor)?,
        Engine::Gpu(gpu, pipelines) => guarded(gpu, || {
            let plans = Plans::new(gpu, pipelines, case)?;
            let candidates = (0..plans.bound.len()).map(|plan| plans.candidate(plan));
            let mut candidates: Vec<Candidate> = candidates.collect();
            let hidden = ProgressBar::hidden();
            timing::measure(gpu, &Clock::Wall, &mut candidates, EFFORT, &hidden)?;
            Ok(candidates.iter().map(Candidate::median_ms).collect())
        })?,
    };
    let (forward, backward) = case.plans(&engine.tuning())?;
    let plans = [forward].into_iter().chain(backward);
    let times = plans.zip(milliseconds).map(|(plan, ms)| {
        let bytes = plan.tensor_bytes();
        let gb_per_s = bytes as f64 / ms / 1e6;
        Time {
            ms,
            bytes,
            gb_per_s,
        }
    });
    Ok(times.collect())
}
