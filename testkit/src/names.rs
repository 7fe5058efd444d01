//! Which parameters and statistics a norm has, and what golden files call its inputs and outputs:
//! PyTorch's names.

use bcnorm::{NormDesc, NormKind, Role};

/// The name of an input in golden files: PyTorch's, where only BCNorm's channel part is called `bn`.
pub fn input_name(norm: &NormDesc, role: Role) -> Option<&'static str> {
    let both = norm.kind == NormKind::BcNorm;
    Some(match role {
        Role::RunningMean if !both => "running_mean",
        Role::RunningVar if !both => "running_var",
        Role::X
        | Role::Residual
        | Role::GradY
        | Role::BnWeight
        | Role::BnBias
        | Role::Weight
        | Role::Bias
        | Role::RunningMean
        | Role::RunningVar => role.name(),
        _ => return None,
    })
}

/// The name of an output in golden files.
pub fn output_name(norm: &NormDesc, role: Role) -> Option<&'static str> {
    let both = norm.kind == NormKind::BcNorm;
    Some(match role {
        Role::RunningMean if both => "bn.running_mean_after",
        Role::RunningMean => "running_mean_after",
        Role::RunningVar if both => "bn.running_var_after",
        Role::RunningVar => "running_var_after",
        Role::Y => "y",
        Role::GradX => "grad_x",
        Role::GradResidual => "grad_residual",
        Role::GradBnWeight => "grad_bn.weight",
        Role::GradBnBias => "grad_bn.bias",
        Role::GradWeight => "grad_weight",
        Role::GradBias => "grad_bias",
        _ => return None,
    })
}

/// Whether an output of that name is a tensor, stored in the problem's type; the others are f32.
pub fn is_tensor(name: &str) -> bool {
    matches!(name, "y" | "grad_x" | "grad_residual")
}

/// Parameters and running statistics of a norm, with their lengths.
pub fn parameters(norm: &NormDesc) -> impl Iterator<Item = (Role, usize)> + use<> {
    let both = norm.kind == NormKind::BcNorm;
    let (channels, affine) = (norm.num_channels, norm.affine_len());
    let running = norm.has_running_stats();
    [
        (both && norm.bn_weight, Role::BnWeight, channels),
        (both && norm.bn_bias, Role::BnBias, channels),
        (norm.weight, Role::Weight, affine),
        (norm.bias, Role::Bias, affine),
        (running, Role::RunningMean, channels),
        (running, Role::RunningVar, channels),
    ]
    .into_iter()
    .filter(|(there, ..)| *there)
    .map(|(_, role, len)| (role, len))
}

/// Values of a parameter or running statistic, 0 of what the norm does without.
pub fn parameter_len(norm: &NormDesc, role: Role) -> usize {
    let mut all = parameters(norm);
    let found = all.find(|(known, _)| *known == role);
    found.map_or(0, |(_, len)| len)
}

/// What comes out for a parameter or a running statistic.
pub fn gradient_or_state(role: Role) -> Role {
    match role {
        Role::BnWeight => Role::GradBnWeight,
        Role::BnBias => Role::GradBnBias,
        Role::Weight => Role::GradWeight,
        Role::Bias => Role::GradBias,
        state => state,
    }
}
