//! What is measured: the plans of one shape on one device, and what they must yield.

use super::Direction;
use super::data;
use super::timing::{Candidate, measure_plans_on_cpu};
use crate::case::{Expected, Plans, Problem, Run, errors, run_on_cpu};
use crate::device::guarded;
use crate::request::Request;
use anyhow::{Result, ensure};
use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::Gpu;
use bcnorm::{Mode, Plan, cpu};
use bcnorm_testkit::compare::judge;
use bcnorm_testkit::run::{expected_in, same_bits};
use std::collections::BTreeMap;

/// Results further than this from the reference are not timed.
const MAX_ERROR: f64 = 5e-6;

/// The same where a group has two elements. Their difference carries a rounding of 2^-24 of values up to 6, and
/// is divided by a deviation that may be as small as sqrt(eps) = 3e-3: 1e-4, of outputs whose scale is a little
/// more than 1. (The golden case "pixel" of the library is of this kind: there PyTorch's f32 gradients are off by
/// 1.5e-3.)
const MAX_ERROR_OF_PAIRS: f64 = 1e-4;

/// One shape's data and what must come of it.
pub struct Reference {
    pub request: Request,
    /// Training, forward and backward; then eval where that is measured.
    pub parts: Vec<Part>,
}

/// A problem, and what it should yield.
pub struct Part {
    pub problem: Problem,
    pub expected: Expected,
}

/// Which part a direction is of, and which of its plans. One that is not measured is not asked for.
fn place(direction: Direction) -> (usize, usize) {
    match direction {
        Direction::Forward => (0, 0),
        Direction::Backward => (0, 1),
        Direction::Eval => (1, 0),
    }
}

impl Reference {
    pub fn new(request: &Request, directions: &[Direction]) -> Result<Self> {
        let mut training = data::random(request);
        let eval = training.clone().with_mode(Mode::Eval).forward_only();
        if !directions.contains(&Direction::Backward) {
            training = training.forward_only();
        }
        let eval = directions.contains(&Direction::Eval).then_some(eval);
        let parts = [training].into_iter().chain(eval).map(Part::new);
        Ok(Self {
            request: request.clone(),
            parts: parts.collect::<Result<_>>()?,
        })
    }
}

impl Part {
    fn new(problem: Problem) -> Result<Self> {
        problem.check()?;
        let expected = expected_in::<f64>(&problem);
        Ok(Self { problem, expected })
    }

    /// The errors of what a device or the CPU made of it. Refuses results that are wrong: of 16-bit tensors,
    /// those that are not within a unit in the last place.
    fn check(&self, got: &Run, place: &str) -> Result<BTreeMap<&'static str, f64>> {
        let Problem {
            norm, dtype, mode, ..
        } = self.problem;
        let channels = self.problem.num_channels() / norm.num_groups;
        let bar = match channels * self.problem.tensor().row_len() as usize {
            2 => MAX_ERROR_OF_PAIRS,
            _ => MAX_ERROR,
        };
        let errors = errors(got, &self.expected);
        for (name, error) in &errors {
            let right = self.expected.get(name).is_some_and(|(values, scale)| {
                let finding = judge(dtype, name, got.get(name), values, *scale, bar);
                finding.wrong.is_none()
            });
            ensure!(
                right,
                "{name} is wrong by {error:.1e}{place} (mode {mode:?}), so it is not timed"
            );
        }
        Ok(errors)
    }
}

/// Checks that a device takes the plans of a shape, before anything of that size is made.
pub fn check_fits(request: &Request, gpu: &Gpu, pipelines: &Pipelines) -> Result<()> {
    let empty = data::empty(request);
    let tuning = pipelines.tuning();
    let forward = empty.forward_plan(Default::default(), tuning)?;
    let backward = empty.backward_plan(Default::default(), tuning)?;
    guarded(gpu, || {
        pipelines.prepare(forward)?;
        pipelines.prepare(backward)?;
        Ok(())
    })
}

/// Plans and buffers on a device, checked: of every part.
pub struct Subject<'a>(Vec<Side<'a>>);

/// Training or eval: plans, what they yielded when they were checked, and how far that was off.
struct Side<'a> {
    plans: Plans<'a>,
    run: Run,
    errors: BTreeMap<&'static str, f64>,
}

impl<'a> Side<'a> {
    /// Compiles and uploads, runs everything once on poisoned buffers, compares with the reference, and wipes
    /// what was written, so that what is timed must write it again.
    fn new(gpu: &'a Gpu, pipelines: &Pipelines, part: &Part) -> Result<Self> {
        let plans = Plans::new(gpu, pipelines, &part.problem)?;
        plans.run_once(gpu);
        let run = plans.data.results()?;
        let errors = part.check(&run, "")?;
        plans.wipe(gpu);
        Ok(Self { plans, run, errors })
    }

    /// Compares those outputs that repetitions do not change (the running statistics move on).
    fn compare(&self, counts: impl Fn(&str) -> bool) -> Result<()> {
        let written = self.plans.data.results()?;
        for (&name, checked) in &self.run.outputs {
            let same = same_bits(checked, written.get(name));
            ensure!(!counts(name) || same, "{name} differs");
        }
        Ok(())
    }
}

impl<'a> Subject<'a> {
    pub fn new(gpu: &'a Gpu, pipelines: &Pipelines, reference: &Reference) -> Result<Self> {
        guarded(gpu, || {
            let sides = reference.parts.iter();
            let sides = sides.map(|part| Side::new(gpu, pipelines, part));
            Ok(Self(sides.collect::<Result<_>>()?))
        })
    }

    /// Makes sure that what was timed wrote the very bits that were checked.
    pub fn check_written(&self, directions: &[Direction]) -> Result<()> {
        let times = |direction| directions.contains(&direction);
        let forward = |name: &str| name == "y" && times(Direction::Forward);
        let backward = |name: &str| name.starts_with("grad_") && times(Direction::Backward);
        self.0[0].compare(|name| forward(name) || backward(name))?;
        let mut eval = self.0[1..].iter();
        eval.try_for_each(|eval| eval.compare(|name| name == "y"))
    }

    /// The worst error of a direction's outputs.
    pub fn error_of(&self, direction: Direction) -> f64 {
        let backward = direction == Direction::Backward;
        let errors = self.0[place(direction).0].errors.iter();
        let errors = errors.filter(|(name, _)| name.starts_with("grad_") == backward);
        errors.fold(0.0, |worst: f64, (_, &error)| worst.max(error))
    }

    /// Runs forward once: backward reads the tables it saves, and what backward times must be what was checked.
    pub fn prime(&self, gpu: &Gpu) {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        self.0[0].plans.bound[0].encode(&mut encoder);
        gpu.queue.submit([encoder.finish()]);
    }

    pub fn plan(&self, direction: Direction) -> &Plan {
        let (side, plan) = place(direction);
        &self.0[side].plans.data.plans[plan]
    }

    pub fn candidate(&self, direction: Direction) -> Candidate<'_> {
        let (side, plan) = place(direction);
        self.0[side].plans.candidate(plan)
    }

    pub fn step_candidates(&self, direction: Direction) -> impl Iterator<Item = Candidate<'_>> {
        let (side, plan) = place(direction);
        self.0[side].plans.step_candidates(plan)
    }
}

/// Checks and times the CPU executor: milliseconds per direction.
pub fn on_cpu(
    reference: &Reference,
    directions: &[Direction],
    executor: &cpu::Executor,
) -> Result<Vec<f64>> {
    let times = reference.parts.iter().map(|part| {
        let run = run_on_cpu(&part.problem, executor)?;
        part.check(&run, " on the CPU executor")?;
        measure_plans_on_cpu(&part.problem, executor)
    });
    let times = times.collect::<Result<Vec<Vec<f64>>>>()?;
    let places = directions.iter().map(|&direction| place(direction));
    Ok(places.map(|(part, plan)| times[part][plan]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bcnorm::NormKind;

    #[test]
    fn a_wrong_result_is_not_timed() {
        let dims = [2, 6, 5, 5];
        let request = Request::new(NormKind::BcNorm, &dims, None).unwrap();
        let reference = Reference::new(&request, &Direction::ALL).unwrap();
        let executor = cpu::Executor::new();
        let part = &reference.parts[0];
        let right = run_on_cpu(&part.problem, &executor).unwrap();
        part.check(&right, "").unwrap();
        for wrong in [f32::NAN, 1e-3] {
            let mut got = right.clone();
            got.outputs.get_mut("grad_x").unwrap()[7] += wrong;
            let error = part.check(&got, "").unwrap_err();
            assert!(error.to_string().contains("grad_x is wrong"));
        }
        let ms = on_cpu(&reference, &Direction::ALL, &executor).unwrap();
        assert!(ms.len() == 3 && ms.iter().all(|ms| *ms > 0.0));
    }
}
