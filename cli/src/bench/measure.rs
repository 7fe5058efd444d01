//! One shape on one device: checked, then timed.

use super::copy::{self, Copies};
use super::kernel::Kernels;
use super::report::{Measurement, Step};
use super::subject::{BoundSubject, Reference, Subject};
use super::timing::{self, Candidate, Effort};
use super::{Case, Direction};
use crate::device;
use anyhow::{Context as _, Result};
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::Gpu;
use bcnorm::{Layout, NormKind, Role};
use indicatif::ProgressBar;
use std::cell::Cell;

/// A device, and everything that is compiled for it.
pub struct Machine {
    /// The device.
    pub gpu: Gpu,
    /// The library's kernels.
    pub pipelines: Pipelines,
    kernels: Kernels,
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
    let Machine { gpu, .. } = machine;
    let directions = &what.directions[..];
    let subject = Subject::new(gpu, &machine.pipelines, reference)?;
    let checked = subject.check(gpu, reference)?;
    let training = reference.training();
    let stored = training.words(Role::X, &training.x);
    let fastest = machine.copy_size.get().filter(|_| what.lean);
    let sizes = fastest.map_or(copy::WORKGROUP_SIZES.to_vec(), |size| vec![size]);
    let copies = Copies::new(gpu, &machine.kernels, &sizes, bytemuck::cast_slice(&stored))?;
    device::guarded(gpu, || {
        let bound = subject.bind()?;
        let mut candidates: Vec<_> = copies.candidates().collect();
        let num_copies = candidates.len();
        for &direction in directions {
            candidates.push(bound.candidate(direction));
        }
        bound.prime(gpu);
        timing::measure(gpu, &mut candidates, what.effort, bar)?;
        subject
            .check_written(&checked, directions)
            .context("what was timed is not what was checked")?;

        let (copied, timed) = candidates.split_at(num_copies);
        let (copy_ms, copy_workgroup_size) = copied
            .iter()
            .map(Candidate::median_ms)
            .zip(copies.workgroup_sizes())
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .context("no workgroup size for a copy")?;
        machine.copy_size.set(Some(copy_workgroup_size));
        let steps = match what.steps {
            true => time_steps(gpu, &bound, directions, what.effort, bar)?,
            false => directions.iter().map(|_| Vec::new()).collect(),
        };
        let info = gpu.adapter.get_info();
        let shape = reference.shape();
        Ok(directions
            .iter()
            .zip(timed)
            .zip(steps)
            .map(|((&direction, candidate), steps)| {
                let ms = candidate.median_ms();
                let bytes = bound.tensor_bytes(direction);
                Measurement {
                    suite: case.suite.map(super::Suite::name),
                    part: case.part.map(super::cliffs::Part::name),
                    again: false,
                    adapter: info.name.clone(),
                    backend: format!("{:?}", info.backend),
                    shape: shape.dims.clone(),
                    groups: shape.groups(),
                    dtype: shape.dtype.name(),
                    layout: match shape.layout {
                        Layout::ChannelsLast => "nhwc",
                        _ => "nchw",
                    },
                    norm: match shape.norm().kind {
                        // Its name since there was nothing else to measure.
                        NormKind::BcNorm => "bcnorm",
                        kind => kind.name(),
                    },
                    direction: direction.name(),
                    ms,
                    bytes,
                    gb_per_s: bytes as f64 / ms / 1e6,
                    tensor_bytes: shape.bytes(),
                    copy_ms,
                    copy_bytes: 2 * shape.bytes(),
                    copy_workgroup_size,
                    ratio_to_copy: ms / copy_ms,
                    cpu_ms: None,
                    error: checked.error_of(direction),
                    steps,
                }
            })
            .collect())
    })
}

/// Times the steps of each direction's plan, each alone.
fn time_steps(
    gpu: &Gpu,
    bound: &BoundSubject<'_>,
    directions: &[Direction],
    effort: Effort,
    bar: &ProgressBar,
) -> Result<Vec<Vec<Step>>> {
    let mut candidates = Vec::new();
    for &direction in directions {
        candidates.extend(bound.step_candidates(direction));
    }
    timing::measure(gpu, &mut candidates, effort, bar)?;
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
