//! The outputs of a problem, read from the buffers of its plans.

use crate::failure::Failure;
use crate::names::output_name;
use crate::outputs::Outputs;
use crate::problem::Problem;
use crate::storage::{decode, padding, unwritten};
use bcnorm::{Activation, Fusion, NormDesc, Plan, Role, TensorDesc};
use std::collections::BTreeMap;

/// Roles that a caller reads back.
const OUTPUTS: [Role; 9] = [
    Role::Y,
    Role::RunningMean,
    Role::RunningVar,
    Role::GradX,
    Role::GradResidual,
    Role::GradBnWeight,
    Role::GradBnBias,
    Role::GradWeight,
    Role::GradBias,
];

/// Reads the outputs of a problem from the buffers of its plans: holds what of the problem decides how.
#[derive(Debug, Clone)]
pub struct OutputReader {
    /// The norm.
    pub norm: NormDesc,
    /// The tensors.
    pub tensor: TensorDesc,
    fusion: Fusion,
}

impl OutputReader {
    /// The reader of a problem.
    pub fn of(problem: &Problem) -> Self {
        Self {
            norm: problem.norm,
            tensor: problem.tensor(),
            fusion: problem.fusion,
        }
    }

    /// The outputs of plans. `words` reads as many words of a role's buffer as the plans bind.
    pub fn read<E>(
        &self,
        plans: &[Plan],
        mut words: impl FnMut(Role) -> Result<Vec<u32>, E>,
    ) -> Result<BTreeMap<Role, Vec<u32>>, E> {
        let needed = |role| plans.iter().any(|plan| plan.need(role).is_some());
        let mut found = BTreeMap::new();
        for role in OUTPUTS {
            // Running statistics are there, even where an empty batch needs none.
            let state = matches!(role, Role::RunningMean | Role::RunningVar);
            let from = match role {
                _ if needed(role) || state && self.norm.has_running_stats() => role,
                // No plan asks for tensors without elements.
                Role::Y | Role::GradX if self.tensor.elements() == 0 => {
                    if role == Role::Y || plans.len() > 1 {
                        found.insert(role, Vec::new());
                    }
                    continue;
                }
                // In place.
                Role::Y if !plans.is_empty() && self.writes_x(plans) => Role::X,
                // Without an activation the residual's gradient is dy itself.
                Role::GradResidual
                    if self.fusion.residual
                        && self.fusion.activation == Activation::None
                        && needed(Role::GradX) =>
                {
                    Role::GradY
                }
                _ => continue,
            };
            found.insert(role, words(from)?);
        }
        Ok(found)
    }

    fn writes_x(&self, plans: &[Plan]) -> bool {
        let needs = plans.iter().filter_map(|plan| plan.need(Role::X));
        let mut written = needs.filter(|need| need.access == bcnorm::kernels::Access::ReadWrite);
        written.next().is_some()
    }

    /// The values of a tensor or a parameter, in f32 and with channels first.
    pub fn values(&self, role: Role, words: &[u32]) -> Vec<f32> {
        match role.is_tensor() {
            true => decode(words, &self.tensor),
            false => bytemuck::pod_collect_to_vec(words),
        }
    }

    /// Outputs by name.
    pub fn named(&self, words: &BTreeMap<Role, Vec<u32>>) -> Outputs {
        let named = words.iter().filter_map(|(&role, words)| {
            Some((output_name(&self.norm, role)?, self.values(role, words)))
        });
        named.collect()
    }

    /// Makes sure that each value was written, and 0 behind an odd number of 16-bit elements.
    ///
    /// # Errors
    /// Names what was not written.
    pub fn check_written(&self, words: &BTreeMap<Role, Vec<u32>>) -> Result<(), Failure> {
        for (&role, words) in words {
            let tensor = role.is_tensor();
            let dtype = if tensor {
                self.tensor.dtype()
            } else {
                bcnorm::DType::F32
            };
            let behind = tensor.then(|| padding(words, &self.tensor)).flatten();
            // The gradient of the residual may be dy, whose padding is the caller's.
            let is_dy = role == Role::GradResidual && self.fusion.activation == Activation::None;
            if let (Some(bits), false) = (behind, is_dy)
                && bits != 0
            {
                return Err(Failure::Data(format!(
                    "behind the last element of {role} there is {bits:#06x}, not 0"
                )));
            }
            let left = unwritten(words, dtype) - usize::from(is_dy && behind.is_some());
            if left > 0 {
                return Err(Failure::Data(format!(
                    "{left} of {} values of {role} were never written: a kernel did not run, or not \
                     over all of its tensor",
                    self.values(role, words).len()
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{POISON, POISON_HALF};
    use bcnorm::DType;

    #[test]
    fn values_that_no_kernel_wrote_are_an_error() {
        let problem = Problem::random(&[2, 4, 3], 2, 1).with_dtype(DType::F16);
        let reader = OutputReader::of(&problem);
        let words = |words: Vec<u32>| BTreeMap::from([(Role::GradX, words)]);
        reader.check_written(&words(vec![0; 12])).unwrap();
        let error = reader
            .check_written(&words(vec![POISON; 12]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("24 of 24 values of grad_x"), "{error}");
        let mut one = vec![0; 12];
        one[7] = u32::from(POISON_HALF);
        let error = reader.check_written(&words(one)).unwrap_err().to_string();
        assert!(error.contains("1 of 24 values of grad_x"), "{error}");

        let odd = Problem::random(&[3, 4, 3], 2, 1);
        let odd = Problem {
            dims: vec![1, 1, 3],
            ..odd
        }
        .with_dtype(DType::BF16);
        let reader = OutputReader::of(&odd);
        reader.check_written(&words(vec![0; 2])).unwrap();
        let error = reader
            .check_written(&words(vec![0, 1 << 16]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("behind the last element"), "{error}");
    }
}
