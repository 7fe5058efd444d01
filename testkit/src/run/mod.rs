//! Runs a problem on a GPU or on the CPU executor, everything poisoned beforehand.

mod cpu;
mod gpu;
mod output_reader;

pub use crate::expected::{by_name, expected, expected_beside, expected_in};
pub use crate::outputs::{Expected, Outputs, Run};
pub use crate::storage::POISON;
pub use cpu::{cpu, host_buffers, host_outputs, on_cpu};
pub use gpu::{GpuProblem, gpu, on_gpu, poison_tables, upload};

use crate::problem::Problem;
use bcnorm::role::RoleKind;
use bcnorm::{BackwardOptions, Error, Plan, Role, Tuning};

/// Forward and backward plans of a problem.
///
/// # Errors
/// Those of the planner.
pub fn plans(
    problem: &Problem,
    options: BackwardOptions,
    tuning: &Tuning,
) -> Result<[Plan; 2], Error> {
    Ok([
        problem.forward_plan(Default::default(), tuning)?,
        problem.backward_plan(options, tuning)?,
    ])
}

/// Tables a plan allocates.
pub fn table_roles(plan: &Plan) -> Vec<Role> {
    let tables = plan
        .needs()
        .iter()
        .filter(|need| need.role.kind() != RoleKind::Caller);
    tables.map(|need| need.role).collect()
}

/// Whether two runs wrote the same bits.
pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{self, assert_outputs};
    use crate::expected::{expected, expected_beside};
    use bcnorm::{Activation, DType, Fusion, Layout, cpu::Executor};

    const RELU: Fusion = Fusion::NONE
        .with_activation(Activation::Relu)
        .with_residual(true);

    #[test]
    fn the_cpu_executor_agrees_with_the_oracle() {
        let executor = Executor::new();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                for fusion in [Fusion::default(), RELU] {
                    let problem = Problem::random(&[3, 6, 5, 7], 2, 9)
                        .with_dtype(dtype)
                        .with_layout(layout)
                        .with_fusion(fusion);
                    let run = cpu(&executor, &problem).unwrap();
                    assert_eq!(run.num_batches_tracked, 4);
                    let expected = expected_beside(&problem, &run.outputs, 1e-6);
                    let what = format!("{dtype:?} {layout:?} {fusion:?}");
                    compare::assert_problem(&what, &problem, &run.outputs, &expected, |_| 5e-6);
                }
            }
        }
    }

    #[test]
    fn a_wrong_run_is_no_answer() {
        let problem = Problem::random(&[2, 4, 5], 2, 3);
        let run = cpu(&Executor::new(), &problem).unwrap();
        let expected = expected(&problem);
        assert_outputs("right", &run.outputs, &expected, 1e-6);
        let mut wrong = run.clone();
        wrong.outputs.get_mut("grad_bias").unwrap()[1] += 1.0;
        let failed =
            std::panic::catch_unwind(|| assert_outputs("wrong", &wrong.outputs, &expected, 1e-6));
        failed.unwrap_err();
        assert!(!same_bits(&run["y"], &wrong["grad_x"]) && same_bits(&run["y"], &wrong["y"]));
        assert!(!same_bits(&[0.0], &[-0.0]) && !same_bits(&[0.0], &[]));
        assert!(run.get("no").is_empty());
    }
}
