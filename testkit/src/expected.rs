//! What the oracle expects of a problem, output by output.

use crate::names::output_name;
use crate::oracle;
use crate::outputs::{Expected, Outputs};
use crate::problem::Problem;
use bcnorm::{Activation, NormDesc, Role};

/// The oracle's outputs with the scale that an error of each is divided by.
pub fn expected(problem: &Problem) -> Expected {
    by_name(&problem.norm, problem.oracle())
}

/// The same, calculated in this type of number.
pub fn expected_in<T: oracle::Number>(problem: &Problem) -> Expected {
    by_name(&problem.norm, problem.oracle_in::<T>())
}

/// The oracle's outputs by name.
pub fn by_name(norm: &NormDesc, output: oracle::Output) -> Expected {
    let mut expected = Expected::new();
    let mut put = |role, values: Option<Vec<f64>>, scale: Option<f64>| {
        if let (Some(name), Some(values)) = (output_name(norm, role), values) {
            let scale = scale.unwrap_or_else(|| oracle::scale(&values));
            expected.insert(name, (values, scale));
        }
    };
    put(Role::Y, Some(output.y), None);
    put(Role::RunningMean, output.running_mean, None);
    put(Role::RunningVar, output.running_var, None);
    if let Some(gradients) = output.gradients {
        put(Role::GradX, Some(gradients.x), None);
        put(Role::GradResidual, gradients.residual, None);
        for (role, values, scale) in [
            (
                Role::GradBnWeight,
                gradients.bn_weight,
                gradients.bn_weight_scale,
            ),
            (Role::GradBnBias, gradients.bn_bias, gradients.bn_bias_scale),
            (Role::GradWeight, gradients.weight, gradients.weight_scale),
            (Role::GradBias, gradients.bias, gradients.bias_scale),
        ] {
            put(role, values, Some(scale));
        }
    }
    expected
}

/// What the oracle expects of a run that fell on this side of each kink of ReLU: an element of
/// t = norm(x) + residual that is within f32's error of 0, `bar` of the largest |t|, may have its
/// gradient or none, and every gradient behind it goes with that.
///
/// Which side a run took shows in its gradient of the residual, or in y.
pub fn expected_beside(problem: &Problem, got: &Outputs, bar: f64) -> Expected {
    let output = problem.oracle();
    let Some(passes) = taken_sides(problem, &output, got, bar) else {
        return by_name(&problem.norm, output);
    };
    // ReLU's backward is that of no activation, from dy where t > 0.
    let masked = problem.grad_y.iter().zip(&passes);
    let masked = masked.map(|(&dy, &passes)| if passes { dy } else { 0.0 });
    let grad_y: Vec<f32> = masked.collect();
    let linear = oracle::normalize(&oracle::Input {
        activation: Activation::None,
        grad_y: Some(&grad_y),
        ..problem.oracle_input()
    });
    let gradients = linear.gradients;
    by_name(
        &problem.norm,
        oracle::Output {
            gradients,
            ..output
        },
    )
}

/// Where the gradient passes ReLU in this run; none where no element is so near 0, or where the run
/// took the oracle's side at each.
fn taken_sides(
    problem: &Problem,
    output: &oracle::Output,
    got: &Outputs,
    bar: f64,
) -> Option<Vec<bool>> {
    if !problem.has_mask() {
        return None;
    }
    let t = &output.pre_activation;
    let near = bar * oracle::scale(t);
    let (y, grad_residual) = (got.get("y"), got.get("grad_residual"));
    let mut passes: Vec<bool> = t.iter().map(|&t| t > 0.0 || t.is_nan()).collect();
    let mut moved = false;
    for (i, passes) in passes.iter_mut().enumerate() {
        let took = match (grad_residual, y) {
            _ if t[i].is_nan() || t[i].abs() > near => continue,
            (Some(values), _) if problem.grad_y[i] != 0.0 => values.get(i).map(|&g| g != 0.0),
            (_, Some(values)) => values.get(i).map(|&y| y > 0.0),
            _ => None,
        };
        if let Some(took) = took
            && took != *passes
        {
            *passes = took;
            moved = true;
        }
    }
    moved.then_some(passes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare;
    use bcnorm::{Fusion, Mode};

    const RELU: Fusion = Fusion::NONE
        .with_activation(Activation::Relu)
        .with_residual(true);

    /// An element on ReLU's kink may fall on either side, with all that depends on it; no other may.
    #[test]
    fn either_side_of_a_kink_is_right() {
        let mut problem = Problem::random(&[2, 4, 5], 2, 3).with_fusion(RELU);
        // t = norm(x) + residual is 0, but for the rounding of the residual.
        let t = problem.clone().with_fusion(Fusion::default()).oracle().y;
        let kinks = [3, 17];
        for i in kinks {
            problem.residual[i] = -t[i] as f32;
            problem.grad_y[i] = 2.0;
        }
        let plain = expected(&problem);
        let sides = |at: &dyn Fn(usize) -> bool| {
            let masked = (0..problem.x.len()).map(|i| {
                let passes = match kinks.contains(&i) {
                    true => at(i),
                    false => problem.residual[i] as f64 + t[i] > 0.0,
                };
                if passes { problem.grad_y[i] } else { 0.0 }
            });
            let masked = Problem {
                grad_y: masked.collect(),
                fusion: Fusion::NONE.with_residual(true),
                ..problem.clone()
            };
            let mut all = expected(&masked);
            all.insert("y", plain["y"].clone());
            let outputs = all
                .iter()
                .map(|(&name, (values, _))| (name, values.iter().map(|&v| v as f32).collect()));
            outputs.collect::<Outputs>()
        };
        let check = |got: &Outputs| {
            let expected = expected_beside(&problem, got, 1e-6);
            compare::assert_problem("relu", &problem, got, &expected, |_| 1e-6);
        };
        for (a, b) in [(true, true), (true, false), (false, true), (false, false)] {
            check(&sides(&|i| if i == 3 { a } else { b }));
        }
        // Half of the way is no side, and the gradient of x must follow that of the residual.
        let wrong = |spoil: &dyn Fn(&mut Outputs)| {
            let mut got = sides(&|_| true);
            spoil(&mut got);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&got)));
            assert!(result.is_err());
        };
        wrong(&|got| got.get_mut("grad_residual").unwrap()[3] = 1.0);
        wrong(&|got| {
            *got = {
                let mut other = sides(&|_| false);
                other.insert("grad_x", got["grad_x"].clone());
                other
            }
        });
        let other = (0..t.len()).find(|&i| plain["y"].0[i] > 0.1).unwrap();
        wrong(&|got| got.get_mut("grad_residual").unwrap()[other] = 0.0);
    }

    /// On data without a mean that is large beside its deviation, f64 is enough: for every norm, small
    /// tensors and those that are spread over cores.
    #[test]
    fn in_f64_the_oracle_says_the_same_of_tame_data() {
        let fused = Fusion::NONE
            .with_activation(Activation::Silu)
            .with_residual(true);
        for norm in [
            NormDesc::bc_norm(6, 3),
            NormDesc::bc_norm(6, 6).with_momentum(None),
            NormDesc::bc_norm(6, 2).with_per_channel_affine(true),
            NormDesc::batch_norm(6),
            NormDesc::batch_norm(6).with_track_running_stats(false),
            NormDesc::group_norm(2, 6),
            NormDesc::instance_norm(6),
            NormDesc::instance_norm(6).with_track_running_stats(true),
            NormDesc::layer_norm(6),
            NormDesc::est_bn(6).with_moving_speed(0.3),
            NormDesc::weight_standardization(),
        ] {
            let c = norm.num_channels;
            for dims in [
                &[3, c, 5, 7][..],
                &[2, c, 33],
                &[5, c, 1, 2],
                &[7, c, 17],
                &[9, c, 2003],
            ] {
                for (mode, fusion) in [
                    (Mode::Train, Fusion::default()),
                    (Mode::Eval, Fusion::default()),
                    (Mode::Train, fused),
                ] {
                    let problem = Problem::random_of(norm, dims, 5).with_mode(mode);
                    let problem = problem.with_fusion(fusion);
                    let got = expected_in::<f64>(&problem);
                    let want = expected(&problem);
                    assert_eq!(got.len(), want.len());
                    for (name, (want, scale)) in &want {
                        let (got, got_scale) = &got[name];
                        let what = format!("{} {mode:?} {dims:?} {name}", norm.kind.name());
                        compare::assert_close(&what, got, want, *scale, 1e-12);
                        assert!((got_scale / scale - 1.0).abs() < 1e-12, "{what}");
                    }
                }
            }
        }
    }
}
