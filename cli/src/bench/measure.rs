//! One shape on one device: checked, then timed.

use super::clock::Clock;
use super::composition::{self, Composition};
use super::copy::{self, Copies};
use super::kernel::Kernels;
use super::read::Reads;
use super::report::{Measurement, Step};
use super::subject::{BoundSubject, Reference, Subject};
use super::timing::{self, Candidate, Effort};
use super::{Case, Direction};
use crate::device;
use crate::text::describe_error;
use anyhow::{Context as _, Result};
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::Gpu;
use bcnorm::{Layout, Role};
use indicatif::ProgressBar;
use std::cell::{Cell, OnceCell};
use std::io::Write as _;

/// A device, and everything that is compiled for it.
pub struct Machine {
    /// The device.
    pub gpu: Gpu,
    /// The library's kernels.
    pub pipelines: Pipelines,
    kernels: Kernels,
    /// Chosen at the first measurement.
    clock: OnceCell<Clock>,
    /// The copy's fastest workgroup size so far.
    copy_size: Cell<Option<u32>>,
}

impl Machine {
    /// Nothing compiled yet.
    pub fn new(gpu: Gpu, pipelines: Pipelines) -> Self {
        Self {
            kernels: Kernels::new(&gpu.device),
            gpu,
            pipelines,
            clock: OnceCell::new(),
            copy_size: Cell::new(None),
        }
    }
}

/// What to measure of each shape.
#[derive(Debug, Clone)]
pub struct What {
    /// Directions.
    pub directions: Vec<Direction>,
    /// How long, and how often.
    pub effort: Effort,
    /// Every step alone, too.
    pub steps: bool,
    /// Only what cliffs need: one copy kernel, the one that was fastest before.
    pub lean: bool,
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
    let class = machine.pipelines.tuning().class;
    let directions = &what.directions[..];
    let subject = Subject::new(gpu, &machine.pipelines, reference)?;
    let checked = subject.check(gpu, reference)?;
    let training = reference.training();
    let stored = training.words(Role::X, &training.x);
    let fastest = machine.copy_size.get().filter(|_| what.lean);
    let sizes = fastest.map_or(copy::WORKGROUP_SIZES.to_vec(), |size| vec![size]);
    let copies = Copies::new(gpu, kernels, &sizes, &stored)?;
    let reads = match what.lean {
        true => None,
        false => Some(Reads::new(gpu, kernels, class, &stored)?),
    };
    drop(stored);
    let compositions = match what.lean || !composition::applies(gpu, training) {
        true => Vec::new(),
        false => compositions(machine, reference, bar)?,
    };
    device::guarded(gpu, || {
        let clock = match machine.clock.get() {
            Some(clock) => clock,
            None => {
                let candidate = copies.candidates().next().context("no copy")?;
                let (clock, why) = timing::choose_clock(gpu, candidate)?;
                if let Some(why) = why {
                    note(bar, &format!("{}: {why}", gpu.describe()));
                }
                machine.clock.get_or_init(|| clock)
            }
        };
        let effort = what.effort;
        let pick = |candidates| timing::fastest(gpu, clock, candidates, effort);
        let best_copy = pick(copies.candidates().collect())?;
        let copy_workgroup_size = copies.workgroup_size(best_copy);
        machine.copy_size.set(Some(copy_workgroup_size));
        let best_read = match &reads {
            Some(reads) => Some(reads.candidate(pick(reads.candidates().collect())?)),
            None => None,
        };
        // The best of each direction.
        let mut composed: Vec<&Composition> = Vec::new();
        if !compositions.is_empty() {
            for &direction in directions {
                let all = compositions.iter().map(|c| c.candidate(direction));
                composed.push(&compositions[pick(all.collect())?]);
            }
        }

        let bound = subject.bind()?;
        let mut candidates = vec![copies.candidate(best_copy)];
        let has_read = best_read.is_some();
        candidates.extend(best_read);
        for &direction in directions {
            candidates.push(bound.candidate(direction));
        }
        for (composition, &direction) in composed.iter().zip(directions) {
            candidates.push(composition.candidate(direction));
        }
        bound.prime(gpu);
        timing::measure(gpu, clock, &mut candidates, effort, bar)?;
        subject
            .check_written(&checked, directions)
            .context("what was timed is not what was checked")?;

        let mut medians = candidates.iter().map(Candidate::median_ms);
        let copy_ms = medians.next().context("no copy")?;
        let read_ms = match has_read {
            true => medians.next(),
            false => None,
        };
        let timed: Vec<f64> = medians.by_ref().take(directions.len()).collect();
        let composition_ms: Vec<f64> = medians.collect();
        let steps = match what.steps {
            true => time_steps(gpu, clock, &bound, directions, effort, bar)?,
            false => directions.iter().map(|_| Vec::new()).collect(),
        };
        let info = gpu.adapter.get_info();
        let shape = reference.shape();
        Ok(directions
            .iter()
            .enumerate()
            .zip(steps)
            .map(|((index, &direction), steps)| {
                let ms = timed[index];
                let bytes = bound.tensor_bytes(direction);
                Measurement {
                    suite: case.suite.map(super::Suite::name),
                    part: case.part.map(super::cliffs::Part::name),
                    again: false,
                    adapter: info.name.clone(),
                    backend: format!("{:?}", info.backend),
                    shape: shape.dims.clone(),
                    groups: shape.norm.num_groups,
                    dtype: shape.dtype.name(),
                    layout: match shape.layout {
                        Layout::ChannelsLast => "nhwc",
                        _ => "nchw",
                    },
                    norm: shape.norm.kind.name(),
                    direction: direction.name(),
                    clock: clock.name(),
                    ms,
                    bytes,
                    gb_per_s: bytes as f64 / ms / 1e6,
                    tensor_bytes: shape.bytes(),
                    copy_ms,
                    copy_bytes: 2 * shape.bytes(),
                    copy_workgroup_size,
                    ratio_to_copy: ms / copy_ms,
                    read_ms,
                    composition_ms: composition_ms.get(index).copied(),
                    composition_bytes: composed.get(index).map(|c| c.bytes(direction)),
                    cpu_ms: None,
                    cpu_1_ms: None,
                    error: checked.error_of(direction),
                    steps,
                }
            })
            .collect())
    })
}

/// The compositions that are right; none, with a note, where one is not: on groups that all but cancel its
/// plain formulas fail, which is no fault of the device.
fn compositions(
    machine: &Machine,
    reference: &Reference,
    bar: &ProgressBar,
) -> Result<Vec<Composition>> {
    let Machine { gpu, kernels, .. } = machine;
    let class = machine.pipelines.tuning().class;
    let compositions = composition::compositions(gpu, kernels, class, reference.training())?;
    let (training, eval) = reference.expected();
    for composition in &compositions {
        if let Err(error) = composition.check(gpu, training, eval) {
            note(
                bar,
                &format!(
                    "{} on {}: {}",
                    reference.shape(),
                    gpu.describe(),
                    describe_error(&error)
                ),
            );
            return Ok(Vec::new());
        }
    }
    Ok(compositions)
}

fn note(bar: &ProgressBar, text: &str) {
    // Nothing is left to do where standard error is closed.
    bar.suspend(|| {
        let _ = writeln!(std::io::stderr(), "note: {text}");
    });
}

/// Times the steps of each direction's plan, each alone.
fn time_steps(
    gpu: &Gpu,
    clock: &Clock,
    bound: &BoundSubject<'_>,
    directions: &[Direction],
    effort: Effort,
    bar: &ProgressBar,
) -> Result<Vec<Vec<Step>>> {
    let mut candidates = Vec::new();
    for &direction in directions {
        candidates.extend(bound.step_candidates(direction));
    }
    timing::measure(gpu, clock, &mut candidates, effort, bar)?;
    let mut medians = candidates.iter().map(Candidate::median_ms);
    Ok(directions
        .iter()
        .map(|&direction| {
            let steps = bound.plan(direction).steps();
            steps
                .iter()
                .zip(medians.by_ref())
                .map(|(step, ms)| Step::new(step, ms))
                .collect()
        })
        .collect())
}
