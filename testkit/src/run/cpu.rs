//! A problem on the CPU executor.

use crate::failure::Failure;
use crate::outputs::{Outputs, Run};
use crate::problem::Problem;
use crate::run::output_reader::OutputReader;
use crate::storage::POISON;
use bcnorm::{Plan, Role, cpu};
use std::collections::BTreeMap;

/// Host buffers for plans, all that is not an input poisoned.
pub fn host_buffers(problem: &Problem, plans: &[Plan]) -> cpu::Buffers {
    let mut buffers = cpu::Buffers::new();
    for (role, values) in problem.inputs() {
        buffers.set_u32(role, problem.words(role, values));
    }
    buffers.set_u32(Role::NumBatchesTracked, vec![problem.num_batches_tracked]);
    for need in plans.iter().flat_map(Plan::needs) {
        if buffers.get_u32(need.role).is_none() {
            buffers.set_u32(need.role, vec![POISON; (need.bytes / 4) as usize]);
        }
    }
    buffers
}

/// Runs a problem on the CPU executor. A value that no kernel wrote is an error.
///
/// # Errors
/// As of [`gpu()`](crate::run::gpu()).
pub fn cpu(executor: &cpu::Executor, problem: &Problem) -> Result<Run, Failure> {
    let (forward, backward) = problem.plans(&executor.tuning())?;
    let plans: Vec<Plan> = [forward].into_iter().chain(backward).collect();
    let mut buffers = host_buffers(problem, &plans);
    for plan in &plans {
        executor.run(plan, &mut buffers)?;
    }
    let reader = OutputReader::of(problem);
    let words = host_words(&reader, &plans, &buffers);
    reader.check_written(&words)?;
    let count = buffers.get_u32(Role::NumBatchesTracked);
    let count = count.and_then(|values| values.first().copied());
    Ok(Run {
        outputs: reader.named(&words),
        num_batches_tracked: count.unwrap_or(problem.num_batches_tracked),
    })
}

/// Forward and backward on the CPU executor.
///
/// # Panics
/// Where [`cpu()`] is an error.
pub fn on_cpu(executor: &cpu::Executor, problem: &Problem) -> Outputs {
    let run = self::cpu(executor, problem);
    run.unwrap_or_else(|error| panic!("{error}")).outputs
}

fn host_words(
    reader: &OutputReader,
    plans: &[Plan],
    buffers: &cpu::Buffers,
) -> BTreeMap<Role, Vec<u32>> {
    let words = |role: Role| {
        let words = buffers.get_u32(role).unwrap_or_default();
        Ok::<_, std::convert::Infallible>(words.to_vec())
    };
    let Ok(words) = reader.read(plans, words);
    words
}

/// What plans left in host buffers.
pub fn host_outputs(problem: &Problem, plans: &[Plan], buffers: &cpu::Buffers) -> Outputs {
    let reader = OutputReader::of(problem);
    reader.named(&host_words(&reader, plans, buffers))
}
