//! What is measured: the plans of one shape on one device, and what they must yield.

use super::Direction;
use super::shape::Shape;
use super::timing::{Candidate, measure_on_cpu};
use crate::case::{Expected, Plans, Problem, Run, errors, run_on_cpu, run_on_gpu};
use crate::device::guarded;
use anyhow::{Context as _, Result, ensure};
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::{Bound, Pipelines};
use bcnorm::{Mode, Plan, cpu};
use bcnorm_cases::compare::judge;
use bcnorm_cases::run::{expected, host_buffers, same_bits};
use std::collections::BTreeMap;

/// Results further than this from the oracle are not timed.
const MAX_ERROR: f64 = 5e-6;

/// One shape's data and what must come of it.
pub struct Reference {
    shape: Shape,
    training: Part,
    /// Only where eval is measured.
    eval: Option<Part>,
}

/// A case, what it should yield, and what a device made of it.
struct Part {
    case: Problem,
    expected: Expected,
    got: Option<Run>,
}

/// Worst errors per direction.
pub struct Errors {
    training: BTreeMap<&'static str, f64>,
    eval: BTreeMap<&'static str, f64>,
}

impl Reference {
    /// Makes the data and asks the oracle.
    pub fn new(shape: &Shape, directions: &[Direction]) -> Result<Self> {
        let mut training = shape.case();
        let eval = training.clone().with_mode(Mode::Eval).forward_only();
        if !directions.contains(&Direction::Backward) {
            training = training.forward_only();
        }
        let eval = match directions.contains(&Direction::Eval) {
            true => Some(Part::new(eval)?),
            false => None,
        };
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

    /// Runs everything once on poisoned buffers and compares with the oracle.
    pub fn check(&mut self, gpu: &Gpu, pipelines: &Pipelines) -> Result<Errors> {
        let run = |case: &Problem| run_on_gpu(case, gpu, pipelines);
        Ok(Errors {
            training: self.training.check(run)?,
            eval: match &mut self.eval {
                Some(eval) => eval.check(run)?,
                None => BTreeMap::new(),
            },
        })
    }
}

impl Part {
    fn new(case: Problem) -> Result<Self> {
        case.check()?;
        Ok(Self {
            expected: expected(&case),
            case,
            got: None,
        })
    }

    fn check(
        &mut self,
        run: impl FnOnce(&Problem) -> Result<Run>,
    ) -> Result<BTreeMap<&'static str, f64>> {
        let got = run(&self.case)?;
        let errors = errors(&got, &self.expected);
        check_errors(&self.case, &got, &self.expected, &errors, "")?;
        self.got = Some(got);
        Ok(errors)
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
    for (name, error) in errors {
        let judged = expected.get(name).map(|(values, scale)| {
            judge(case.dtype, name, got.get(name), values, *scale, MAX_ERROR)
        });
        ensure!(
            judged.is_some_and(|finding| finding.wrong.is_none()),
            "{name} is wrong by {error:.1e}{place} (mode {:?}), so it is not timed",
            case.mode
        );
    }
    Ok(())
}

impl Errors {
    /// The worst error of a direction's outputs.
    pub fn of(&self, direction: Direction) -> f64 {
        let worst = |errors: &BTreeMap<&'static str, f64>, backward: bool| {
            errors
                .iter()
                .filter(|(name, _)| name.starts_with("grad_") == backward)
                .fold(0.0, |worst: f64, (_, &error)| worst.max(error))
        };
        match direction {
            Direction::Forward => worst(&self.training, false),
            Direction::Backward => worst(&self.training, true),
            Direction::Eval => worst(&self.eval, false),
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

    /// Makes sure that what was timed wrote the very bits that were checked.
    pub fn check_written(&self, reference: &Reference, directions: &[Direction]) -> Result<()> {
        compare(&self.training, &reference.training, |name| {
            directions.iter().any(|direction| match direction {
                Direction::Forward => name == "y",
                Direction::Backward => name.starts_with("grad_"),
                Direction::Eval => false,
            })
        })?;
        match (&self.eval, &reference.eval) {
            (Some(plans), Some(part)) => compare(plans, part, |name| name == "y"),
            _ => Ok(()),
        }
    }
}

/// Compares those outputs that repetitions do not change (the running statistics move on).
fn compare(plans: &Plans, part: &Part, counts: impl Fn(&str) -> bool) -> Result<()> {
    let checked = part.got.as_ref().context("nothing was checked")?;
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
    let check = |part: &Part| -> Result<()> {
        let got = run_on_cpu(&part.case, executor)?;
        let errors = errors(&got, &part.expected);
        check_errors(
            &part.case,
            &got,
            &part.expected,
            &errors,
            " on the CPU executor",
        )
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

    #[test]
    fn a_wrong_result_is_not_timed() {
        let shape = Shape::new(&[2, 6, 5, 5], None).unwrap();
        let mut reference = Reference::new(&shape, &Direction::ALL).unwrap();
        let executor = cpu::Executor::new();
        let part = &mut reference.training;
        part.check(|case| run_on_cpu(case, &executor)).unwrap();
        for wrong in [f32::NAN, 1e-3] {
            let error = part.check(|case| {
                let mut outputs = run_on_cpu(case, &executor)?;
                outputs.outputs.get_mut("grad_x").unwrap()[7] += wrong;
                Ok(outputs)
            });
            assert!(error.unwrap_err().to_string().contains("grad_x is wrong"));
        }
        let ms = on_cpu(&reference, &Direction::ALL, &executor).unwrap();
        assert!(ms.len() == 3 && ms.iter().all(|ms| *ms > 0.0));
    }
}
