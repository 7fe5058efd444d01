//! What is measured: the plans of one shape on one device, and what they must yield.

use super::Direction;
use super::shape::Shape;
use super::timing::{Candidate, measure_on_cpu};
use crate::case::{Expected, Plans, Problem, Run, errors, run_on_cpu};
use crate::device::guarded;
use anyhow::{Result, ensure};
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::{Bound, Pipelines};
use bcnorm::{Mode, Plan, cpu};
use bcnorm_testkit::compare::judge;
use bcnorm_testkit::run::{expected_in, host_buffers, same_bits};
use std::collections::BTreeMap;

/// Results further than this from the reference are not timed.
const MAX_ERROR: f64 = 5e-6;

/// The same where a group has two elements. Their difference carries a rounding of 2^-24 of values up to
/// 6, and is divided by a deviation that may be as small as sqrt(eps) = 3e-3: 1e-4, of outputs whose scale
/// is a little more than 1. (The golden case "pixel" of the library is of this kind: there PyTorch's f32
/// gradients are off by 1.5e-3.)
const MAX_ERROR_OF_PAIRS: f64 = 1e-4;

/// One shape's data and what must come of it.
pub struct Reference {
    shape: Shape,
    training: Part,
    /// Only where eval is measured.
    eval: Option<Part>,
}

/// A case, and what it should yield.
struct Part {
    case: Problem,
    expected: Expected,
}

/// What a device made of a case when it was checked, and how far that was off.
pub struct Checked {
    training: (Run, BTreeMap<&'static str, f64>),
    eval: Option<(Run, BTreeMap<&'static str, f64>)>,
}

impl Reference {
    /// Makes the data and what must come of them.
    pub fn new(shape: &Shape, directions: &[Direction]) -> Result<Self> {
        let mut training = shape.case();
        let eval = match directions.contains(&Direction::Eval) {
            true => Some(Part::new(
                training.clone().with_mode(Mode::Eval).forward_only(),
            )?),
            false => None,
        };
        if !directions.contains(&Direction::Backward) {
            training = training.forward_only();
        }
        Ok(Self {
            shape: shape.clone(),
            training: Part::new(training)?,
            eval,
        })
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The training case.
    pub fn training(&self) -> &Problem {
        &self.training.case
    }
}

impl Reference {
    /// What training, and eval where it is measured, must yield.
    pub fn expected(&self) -> (&Expected, Option<&Expected>) {
        let eval = self.eval.as_ref().map(|eval| &eval.expected);
        (&self.training.expected, eval)
    }
}

impl Part {
    fn new(case: Problem) -> Result<Self> {
        case.check()?;
        Ok(Self {
            expected: expected_in::<f64>(&case),
            case,
        })
    }

    /// Judges what a device or the CPU made of it.
    fn check(&self, got: Run, place: &str) -> Result<(Run, BTreeMap<&'static str, f64>)> {
        let errors = errors(&got, &self.expected);
        check_errors(&self.case, &got, &self.expected, &errors, place)?;
        Ok((got, errors))
    }
}

/// Refuses results that are wrong: of 16-bit tensors, those that are not within a unit in the last
/// place.
fn check_errors(
    case: &Problem,
    got: &Run,
    expected: &Expected,
    errors: &BTreeMap<&'static str, f64>,
    place: &str,
) -> Result<()> {
    let group = case.num_channels() / case.norm.num_groups * case.tensor().row_len() as usize;
    let bar = match group {
        2 => MAX_ERROR_OF_PAIRS,
        _ => MAX_ERROR,
    };
    for (name, error) in errors {
        let judged = expected
            .get(name)
            .map(|(values, scale)| judge(case.dtype, name, got.get(name), values, *scale, bar));
        ensure!(
            judged.is_some_and(|finding| finding.wrong.is_none()),
            "{name} is wrong by {error:.1e}{place} (mode {:?}), so it is not timed",
            case.mode
        );
    }
    Ok(())
}

impl Checked {
    /// The worst error of a direction's outputs.
    pub fn error_of(&self, direction: Direction) -> f64 {
        let worst = |errors: &BTreeMap<&'static str, f64>, backward: bool| {
            errors
                .iter()
                .filter(|(name, _)| name.starts_with("grad_") == backward)
                .fold(0.0, |worst: f64, (_, &error)| worst.max(error))
        };
        match (direction, &self.eval) {
            (Direction::Forward, _) => worst(&self.training.1, false),
            (Direction::Backward, _) => worst(&self.training.1, true),
            (Direction::Eval, Some(eval)) => worst(&eval.1, false),
            (Direction::Eval, None) => f64::INFINITY,
        }
    }
}

/// Checks that a device takes the plans of a shape, before anything of that size is made.
pub fn check_fits(shape: &Shape, gpu: &Gpu, pipelines: &Pipelines) -> Result<()> {
    let empty = shape.empty();
    let tuning = pipelines.tuning();
    let forward = empty.forward_plan(Default::default(), tuning)?;
    let backward = empty.backward_plan(Default::default(), tuning)?;
    guarded(gpu, || {
        pipelines.prepare(forward)?;
        pipelines.prepare(backward)?;
        Ok(())
    })
}

/// Plans and buffers on a device.
pub struct Subject<'a> {
    training: Plans<'a>,
    eval: Option<Plans<'a>>,
}

impl<'a> Subject<'a> {
    /// Compiles and uploads.
    pub fn new(gpu: &'a Gpu, pipelines: &Pipelines, reference: &Reference) -> Result<Self> {
        guarded(gpu, || {
            Ok(Self {
                training: Plans::new(gpu, pipelines, &reference.training.case)?,
                eval: match &reference.eval {
                    Some(eval) => Some(Plans::new(gpu, pipelines, &eval.case)?),
                    None => None,
                },
            })
        })
    }

    /// Makes the bind groups.
    pub fn bind(&self) -> Result<BoundSubject<'_>> {
        let training = self.training.bench.bindings();
        Ok(BoundSubject {
            subject: self,
            forward: self.training.forward.bind(&training)?,
            backward: match &self.training.backward {
                Some(backward) => Some(backward.bind(&training)?),
                None => None,
            },
            eval: match &self.eval {
                Some(plans) => Some(plans.forward.bind(&plans.bench.bindings())?),
                None => None,
            },
        })
    }

    /// Runs everything once on poisoned buffers, compares with the reference, and wipes what was
    /// written, so that what is timed must write it again.
    pub fn check(&self, gpu: &Gpu, reference: &Reference) -> Result<Checked> {
        guarded(gpu, || {
            let run = |plans: &Plans, part: &Part| {
                plans.run_once(gpu)?;
                let checked = part.check(plans.bench.results()?, "")?;
                plans.wipe(gpu);
                Ok::<_, anyhow::Error>(checked)
            };
            Ok(Checked {
                training: run(&self.training, &reference.training)?,
                eval: match (&self.eval, &reference.eval) {
                    (Some(plans), Some(part)) => Some(run(plans, part)?),
                    _ => None,
                },
            })
        })
    }

    /// Makes sure that what was timed wrote the very bits that were checked.
    pub fn check_written(&self, checked: &Checked, directions: &[Direction]) -> Result<()> {
        compare(&self.training, &checked.training.0, |name| {
            directions.iter().any(|direction| match direction {
                Direction::Forward => name == "y",
                Direction::Backward => name.starts_with("grad_"),
                Direction::Eval => false,
            })
        })?;
        match (&self.eval, &checked.eval) {
            (Some(plans), Some((run, _))) => compare(plans, run, |name| name == "y"),
            _ => Ok(()),
        }
    }
}

/// Compares those outputs that repetitions do not change (the running statistics move on).
fn compare(plans: &Plans, checked: &Run, counts: impl Fn(&str) -> bool) -> Result<()> {
    let written = plans.bench.results()?;
    for (&name, checked) in &checked.outputs {
        let same = same_bits(checked, written.get(name));
        ensure!(!counts(name) || same, "{name} differs");
    }
    Ok(())
}

/// A subject ready to be recorded.
pub struct BoundSubject<'a> {
    subject: &'a Subject<'a>,
    forward: Bound,
    backward: Option<Bound>,
    eval: Option<Bound>,
}

impl BoundSubject<'_> {
    /// Runs forward once: backward reads the tables it saves, and what backward times must be what
    /// was checked.
    pub fn prime(&self, gpu: &Gpu) {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        self.forward.encode(&mut encoder);
        gpu.queue.submit([encoder.finish()]);
    }

    fn bound(&self, direction: Direction) -> &Bound {
        // A direction that is not there is not asked for.
        match direction {
            Direction::Forward => &self.forward,
            Direction::Backward => self.backward.as_ref().unwrap_or(&self.forward),
            Direction::Eval => self.eval.as_ref().unwrap_or(&self.forward),
        }
    }

    /// The plan of a direction.
    pub fn plan(&self, direction: Direction) -> &Plan {
        let Subject { training, eval } = self.subject;
        let prepared = match direction {
            Direction::Forward => Some(&training.forward),
            Direction::Backward => training.backward.as_ref(),
            Direction::Eval => eval.as_ref().map(|plans| &plans.forward),
        };
        prepared.unwrap_or(&training.forward).plan()
    }

    /// Tensor-sized bytes that a direction moves.
    pub fn tensor_bytes(&self, direction: Direction) -> u64 {
        self.plan(direction).tensor_bytes()
    }

    /// A direction, to be timed.
    pub fn candidate(&self, direction: Direction) -> Candidate<'_> {
        let bound = self.bound(direction);
        Candidate::new(self.plan(direction).steps().len(), move |pass| {
            bound.encode_in_pass(pass);
        })
    }

    /// Its steps, to be timed one by one.
    pub fn step_candidates(&self, direction: Direction) -> impl Iterator<Item = Candidate<'_>> {
        let bound = self.bound(direction);
        (0..self.plan(direction).steps().len())
            .map(move |index| Candidate::new(1, move |pass| bound.encode_step(pass, index)))
    }
}

/// Checks and times the CPU executor: milliseconds per direction.
pub fn on_cpu(
    reference: &Reference,
    directions: &[Direction],
    executor: &cpu::Executor,
) -> Result<Vec<f64>> {
    let check = |part: &Part| {
        let got = run_on_cpu(&part.case, executor)?;
        part.check(got, " on the CPU executor")
    };
    check(&reference.training)?;
    if let Some(eval) = &reference.eval {
        check(eval)?;
    }
    directions
        .iter()
        .map(|&direction| {
            let part = match (direction, &reference.eval) {
                (Direction::Eval, Some(eval)) => eval,
                _ => &reference.training,
            };
            let (forward, backward) = part.case.plans(&executor.tuning())?;
            let plans: Vec<Plan> = [forward].into_iter().chain(backward).collect();
            let mut buffers = host_buffers(&part.case, &plans);
            executor.run(&plans[0], &mut buffers)?;
            let plan = match (direction, plans.get(1)) {
                (Direction::Backward, Some(backward)) => backward,
                _ => &plans[0],
            };
            measure_on_cpu(|| Ok(executor.run(plan, &mut buffers)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bcnorm::NormKind;

    #[test]
    fn a_wrong_result_is_not_timed() {
        let shape = Shape::new(NormKind::BcNorm, &[2, 6, 5, 5], None).unwrap();
        let reference = Reference::new(&shape, &Direction::ALL).unwrap();
        let executor = cpu::Executor::new();
        let part = &reference.training;
        let right = run_on_cpu(&part.case, &executor).unwrap();
        part.check(right.clone(), "").unwrap();
        for wrong in [f32::NAN, 1e-3] {
            let mut got = right.clone();
            got.outputs.get_mut("grad_x").unwrap()[7] += wrong;
            let error = part.check(got, "").unwrap_err();
            assert!(error.to_string().contains("grad_x is wrong"));
        }
        let ms = on_cpu(&reference, &Direction::ALL, &executor).unwrap();
        assert!(ms.len() == 3 && ms.iter().all(|ms| *ms > 0.0));
    }
}
