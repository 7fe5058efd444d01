//! One shape on one device: checked, then timed.

use super::clock::Clock;
use super::composition::{self, Composition};
use super::kernel::{Baseline, Kernels};
use super::report::{Measurement, Step};
use super::subject::{Reference, Subject};
use super::timing::{self, Candidate, Effort};
use super::{Case, Direction};
use crate::device;
use crate::text::describe_error;
use anyhow::{Context as _, Result};
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::Gpu;
use bcnorm::{Layout, Role};
use indicatif::ProgressBar;
use std::cell::OnceCell;
use std::io::Write as _;

/// A device, and everything that is compiled for it.
pub struct Machine {
    pub gpu: Gpu,
    pub pipelines: Pipelines,
    pub kernels: Kernels,
    /// Chosen at the first measurement.
    clock: OnceCell<Clock>,
}

impl Machine {
    pub fn new(gpu: Gpu, pipelines: Pipelines) -> Self {
        Self {
            kernels: Kernels::new(&gpu.device),
            gpu,
            pipelines,
            clock: OnceCell::new(),
        }
    }
}

/// What to measure of each shape.
#[derive(Debug, Clone)]
pub struct What {
    pub directions: Vec<Direction>,
    pub effort: Effort,
    pub steps: bool,
}

/// Checks, then times, all directions of one shape on one device.
pub fn measure(
    machine: &Machine,
    case: &Case,
    reference: &Reference,
    what: &What,
    bar: &ProgressBar,
) -> Result<Vec<Measurement>> {
    let Machine { gpu, kernels, .. } = machine;
    let (effort, directions) = (what.effort, &what.directions[..]);
    let subject = Subject::new(gpu, &machine.pipelines, reference)?;
    let training = &reference.parts[0].problem;
    let stored = training.words(Role::X, &training.x);
    let copies = Baseline::copies(gpu, kernels, &stored)?;
    let class = machine.pipelines.tuning().class;
    let reads = Baseline::reads(gpu, kernels, class, &stored)?;
    drop(stored);
    let compositions = match composition::applies(gpu, training) {
        true => compositions(machine, reference, bar),
        false => Vec::new(),
    };
    device::guarded(gpu, || {
        let clock = match machine.clock.get() {
            Some(clock) => clock,
            None => {
                let (clock, why) = timing::choose_clock(gpu, copies.candidate(0))?;
                if let Some(why) = why {
                    note(bar, &format!("{}: {why}", gpu.describe()));
                }
                machine.clock.get_or_init(|| clock)
            }
        };
        let pick = |candidates| timing::fastest(gpu, clock, candidates, effort);
        let time =
            |candidates: &mut [Candidate]| timing::measure(gpu, clock, candidates, effort, bar);
        let best_copy = pick(copies.candidates())?;
        let copy_workgroup_size = copies.workgroup_size(best_copy);
        let best_read = pick(reads.candidates())?;
        let mut candidates = vec![copies.candidate(best_copy), reads.candidate(best_read)];
        let ours = directions.iter().map(|&d| subject.candidate(d));
        candidates.extend(ours);
        // The best composition of each direction; none of none.
        let mut composed: Vec<&Composition> = Vec::new();
        for &direction in directions.iter().filter(|_| !compositions.is_empty()) {
            let all = compositions.iter().map(|c| c.candidate(direction));
            let best = &compositions[pick(all.collect())?];
            candidates.push(best.candidate(direction));
            composed.push(best);
        }
        subject.prime(gpu);
        time(&mut candidates)?;
        subject
            .check_written(directions)
            .context("what was timed is not what was checked")?;

        let medians: Vec<f64> = candidates.iter().map(Candidate::median_ms).collect();
        let (copy_ms, read_ms) = (medians[0], medians[1]);
        let (timed, composition_ms) = medians[2..].split_at(directions.len());
        let info = gpu.adapter.get_info();
        let (norm, tensor) = (&reference.request.norm, &reference.request.tensor);
        let steps = directions.iter().filter(|_| what.steps);
        let steps = steps.flat_map(|&direction| subject.step_candidates(direction));
        let mut steps: Vec<Candidate> = steps.collect();
        if what.steps {
            time(&mut steps)?;
        }
        let mut steps = steps.iter().map(Candidate::median_ms);
        let mut measured = Vec::new();
        for (index, (&direction, &ms)) in directions.iter().zip(timed).enumerate() {
            let plan = subject.plan(direction);
            let timed = plan.steps().iter().zip(steps.by_ref());
            let steps = timed.map(|(step, ms)| Step::new(step, ms)).collect();
            let bytes = plan.tensor_bytes();
            measured.push(Measurement {
                suite: case.suite,
                label: None,
                adapter: info.name.clone(),
                backend: format!("{:?}", info.backend),
                shape: tensor.dims().to_vec(),
                groups: norm.num_groups,
                dtype: tensor.dtype().name(),
                layout: match tensor.layout() {
                    Layout::ChannelsLast => "nhwc",
                    _ => "nchw",
                },
                norm: norm.kind.name(),
                direction: direction.name(),
                clock: clock.name(),
                ms,
                bytes,
                gb_per_s: bytes as f64 / ms / 1e6,
                tensor_bytes: tensor.bytes(),
                copy_ms,
                copy_bytes: 2 * tensor.bytes(),
                copy_workgroup_size,
                ratio_to_copy: ms / copy_ms,
                read_ms,
                composition_ms: composition_ms.get(index).copied(),
                composition_bytes: composed.get(index).map(|c| c.bytes(direction)),
                cpu_ms: None,
                cpu_1_ms: None,
                error: subject.error_of(direction),
                steps,
            });
        }
        Ok(measured)
    })
}

/// The compositions, checked; none, with a note, where one cannot be made or is wrong: on groups that all but cancel
/// its plain formulas fail, which is no fault of the device.
fn compositions(machine: &Machine, reference: &Reference, bar: &ProgressBar) -> Vec<Composition> {
    composition::compositions(machine, &reference.parts).unwrap_or_else(|error| {
        let (shape, why) = (reference.request.shape(), describe_error(&error));
        note(
            bar,
            &format!("{shape} on {}: {why}", machine.gpu.describe()),
        );
        Vec::new()
    })
}

fn note(bar: &ProgressBar, text: &str) {
    // Nothing is left to do where standard error is closed.
    bar.suspend(|| {
        let _ = writeln!(std::io::stderr(), "note: {text}");
    });
}
