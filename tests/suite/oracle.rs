//! The oracle against PyTorch, against finite differences, and on the cases at the edges.

mod family;

use crate::common;
use bcnorm::desc::{Activation, ChannelStats, Mode, NormDesc, NormKind, TensorDesc};
use bcnorm_testkit::oracle::{self, Gradients, Input, Output, Stats, normalize};
use bcnorm_testkit::random::SplitMix64;
use common::compare::assert_close;
use common::golden::{self, Golden};
use family::{Checksums, FAMILY};
use std::panic::catch_unwind;
use std::path::PathBuf;

// ---------------------------------------------------------------------------------------------
// Against PyTorch in f64.

fn golden_input(golden: &Golden) -> Input<'_> {
    let tensor = |name: &str| golden.tensors[name].as_slice();
    Input {
        kind: NormKind::BcNorm,
        num_samples: golden.dims[0],
        num_channels: golden.dims[1],
        row_len: golden.dims[2..].iter().product(),
        num_groups: golden.num_groups,
        eps: golden.eps_f64,
        stats: golden.stats,
        training: golden.training,
        per_channel_affine: false,
        track_running_stats: true,
        x: tensor("x"),
        residual: None,
        activation: Activation::None,
        grad_y: Some(tensor("grad_y")),
        bn_weight: Some(tensor("bn.weight")),
        bn_bias: Some(tensor("bn.bias")),
        weight: Some(tensor("weight")),
        bias: Some(tensor("bias")),
        running_mean: Some(tensor("bn.running_mean")),
        running_var: Some(tensor("bn.running_var")),
        num_batches_tracked: 0,
    }
}

/// The tensors that an output has, with their scales, under the names of the golden files.
fn named(output: &Output) -> Vec<(&'static str, &[f64], f64)> {
    let gradients = output.gradients.as_ref().unwrap();
    let whole = [
        ("y", Some(&output.y)),
        ("bn.running_mean_after", output.running_mean.as_ref()),
        ("bn.running_var_after", output.running_var.as_ref()),
        ("grad_x", Some(&gradients.x)),
        ("grad_residual", gradients.residual.as_ref()),
    ];
    let sums = [
        (
            "grad_bn.weight",
            &gradients.bn_weight,
            gradients.bn_weight_scale,
        ),
        ("grad_bn.bias", &gradients.bn_bias, gradients.bn_bias_scale),
        ("grad_weight", &gradients.weight, gradients.weight_scale),
        ("grad_bias", &gradients.bias, gradients.bias_scale),
    ];
    let mut named = Vec::new();
    for (name, values) in whole {
        named.extend(values.map(|values| (name, &values[..], oracle::scale(values))));
    }
    for (name, values, scale) in sums {
        named.extend(
            values
                .as_ref()
                .map(|values| (name, values.as_slice(), scale)),
        );
    }
    named
}

/// How far PyTorch's f64 results may be off, and so the oracle, which is much closer to the truth,
/// from them.
///
/// PyTorch ran the same operations in f32 and in f64, whose roundings are 2^29 times smaller, and
/// so, up to luck with single roundings (the factor 4), is the error. Where its f32 error happens
/// to be small, some hundred roundings of 2^-53 remain (the 1e-13, at every size of these cases).
fn pytorch_f64_error(golden: &Golden, name: &str) -> f64 {
    1e-13 + 4.0 * golden.pytorch_f32_error[name] / 2.0f64.powi(29)
}

#[test]
fn every_golden_case() {
    // The authors' module; goldens.rs compares the family's files.
    let own = |path: &PathBuf| {
        !path
            .parent()
            .is_some_and(|folder| folder.ends_with("family"))
    };
    for path in golden::paths().into_iter().filter(own) {
        let golden = golden::load(&path).unwrap();
        let output = normalize(&golden_input(&golden));
        let bias_scale = output.gradients.as_ref().unwrap().bn_bias_scale;
        assert_eq!(named(&output).len(), golden.expected.len());
        for (name, got, scale) in named(&output) {
            let label = format!("{} {name}", golden.name);
            let bound = pytorch_f64_error(&golden, name);
            let (expected, golden_scale) = (&golden.expected[name], golden.scale[name]);
            assert_close(&label, got, expected, golden_scale, bound);
            if scale == 0.0 {
                // In `constant.batch.train` x-hat is 0 and so is this scale; PyTorch's is made of
                // the rounding of its mean.
                assert_eq!(label, "constant.batch.train grad_bn.weight");
                assert!(golden_scale < 1e-12 * bias_scale, "{golden_scale}");
            } else {
                let label = format!("scale of {label}");
                assert_close(&label, &[scale], &[golden_scale], golden_scale, bound);
            }
        }
    }
}

/// The check above can fail: a slip in any part of the definition is far beyond its bounds.
#[test]
fn golden_cases_tell_wrong_definitions() {
    let named_small = |path: &PathBuf| path.ends_with("small.batch.train.safetensors");
    let path = golden::paths().into_iter().find(named_small);
    let golden = golden::load(path.unwrap()).unwrap();
    let right = golden_input(&golden);
    let differs = |input: Input, name: &str| {
        let output = normalize(&input);
        let (_, got, _) = *named(&output).iter().find(|named| named.0 == name).unwrap();
        let error = oracle::error(got, &golden.expected[name], golden.scale[name]);
        error > 1e6 * pytorch_f64_error(&golden, name)
    };
    let momentum = Stats::Batch {
        momentum: Some(0.1001),
    };
    let estimate = Stats::Estimate { moving_speed: 0.1 };
    for (input, name) in [
        (
            Input {
                eps: 1.1e-5,
                ..right
            },
            "y",
        ),
        (
            Input {
                training: false,
                ..right
            },
            "y",
        ),
        (
            Input {
                training: false,
                ..right
            },
            "grad_x",
        ),
        (
            Input {
                num_groups: 2,
                weight: right.weight.map(|weight| &weight[..2]),
                bias: right.bias.map(|bias| &bias[..2]),
                ..right
            },
            "y",
        ),
        (
            Input {
                stats: momentum,
                ..right
            },
            "bn.running_mean_after",
        ),
        (
            Input {
                stats: estimate,
                ..right
            },
            "bn.running_var_after",
        ),
        (
            Input {
                x: right.grad_y.unwrap(),
                ..right
            },
            "grad_bn.weight",
        ),
        (
            Input {
                grad_y: Some(right.x),
                ..right
            },
            "grad_bias",
        ),
    ] {
        assert!(differs(input, name), "{name} is right for a wrong call");
        assert!(!differs(right, name));
    }
}

// ---------------------------------------------------------------------------------------------
// Against finite differences.

/// A call that owns its tensors.
#[derive(Clone)]
struct Case {
    kind: NormKind,
    /// N, C, L, G.
    shape: [usize; 4],
    stats: Stats,
    training: bool,
    per_channel_affine: bool,
    track_running_stats: bool,
    eps: f64,
    x: Vec<f32>,
    residual: Option<Vec<f32>>,
    activation: Activation,
    grad_y: Vec<f32>,
    bn_weight: Option<Vec<f32>>,
    bn_bias: Option<Vec<f32>>,
    weight: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    running_mean: Option<Vec<f32>>,
    running_var: Option<Vec<f32>>,
}

impl Case {
    /// BCNorm. All values are multiples of 1/16, between -2 and 2, weights and variances between
    /// 1/2 and 2.
    fn new(shape: [usize; 4], stats: Stats, training: bool, seed: u64) -> Self {
        let [n, c, l, g] = shape;
        let mut random = SplitMix64(seed);
        let mut signed = |len| random.sixteenths(len, -32, 32);
        let (x, grad_y) = (signed(n * c * l), signed(n * c * l));
        let (bn_bias, bias, running_mean) = (signed(c), signed(g), signed(c));
        let mut positive = |len| random.sixteenths(len, 8, 32);
        Self {
            kind: NormKind::BcNorm,
            shape,
            stats,
            training,
            per_channel_affine: false,
            track_running_stats: true,
            eps: 1e-3,
            x,
            residual: None,
            activation: Activation::None,
            grad_y,
            bn_weight: Some(positive(c)),
            bn_bias: Some(bn_bias),
            weight: Some(positive(g)),
            bias: Some(bias),
            running_mean: Some(running_mean),
            running_var: Some(positive(c)),
        }
    }

    /// Another norm, with every tensor it can have but a residual.
    fn of(norm: Norm, shape: [usize; 4], seed: u64) -> Self {
        let mut case = Self::new(shape, norm.stats, norm.training, seed);
        case.kind = norm.kind;
        case.per_channel_affine = norm.per_channel_affine;
        case.track_running_stats = norm.track_running_stats;
        let mut random = SplitMix64(1000 + seed);
        if norm.kind != NormKind::BcNorm {
            (case.bn_weight, case.bn_bias) = (None, None);
        }
        if norm.kind != NormKind::BcNorm || norm.per_channel_affine {
            case.weight = Some(random.sixteenths(shape[1], 8, 32));
            case.bias = Some(random.sixteenths(shape[1], -32, 32));
        }
        if !norm.has_running_statistics() {
            (case.running_mean, case.running_var) = (None, None);
        }
        case
    }

    /// The same with a residual and an activation.
    fn fused(mut self, activation: Activation, seed: u64) -> Self {
        self.residual = Some(SplitMix64(2000 + seed).sixteenths(self.x.len(), -32, 32));
        self.activation = activation;
        self
    }

    fn input(&self) -> Input<'_> {
        let [num_samples, num_channels, row_len, num_groups] = self.shape;
        Input {
            kind: self.kind,
            num_samples,
            num_channels,
            row_len,
            num_groups,
            eps: self.eps,
            stats: self.stats,
            training: self.training,
            per_channel_affine: self.per_channel_affine,
            track_running_stats: self.track_running_stats,
            x: &self.x,
            residual: self.residual.as_deref(),
            activation: self.activation,
            grad_y: Some(&self.grad_y),
            bn_weight: self.bn_weight.as_deref(),
            bn_bias: self.bn_bias.as_deref(),
            weight: self.weight.as_deref(),
            bias: self.bias.as_deref(),
            running_mean: self.running_mean.as_deref(),
            running_var: self.running_var.as_deref(),
            num_batches_tracked: 3,
        }
    }

    fn run(&self) -> Output {
        normalize(&self.input())
    }

    fn gradients(&self) -> Gradients {
        self.run().gradients.unwrap()
    }

    /// The loss whose gradient with respect to y is `grad_y`.
    fn loss(&self) -> f64 {
        let input = Input {
            grad_y: None,
            ..self.input()
        };
        let y = normalize(&input).y;
        let terms = y.iter().zip(&self.grad_y);
        terms.map(|(y, &grad_y)| y * f64::from(grad_y)).sum()
    }

    /// The tensors that have gradients, in the order of [`gradient_tensors`].
    fn tensors(&mut self) -> [Option<&mut Vec<f32>>; TENSORS] {
        [
            Some(&mut self.x),
            self.residual.as_mut(),
            self.bn_weight.as_mut(),
            self.bn_bias.as_mut(),
            self.weight.as_mut(),
            self.bias.as_mut(),
        ]
    }

    /// The loss after a step along `direction`, which must lose nothing in f32.
    fn loss_at(&self, direction: &Direction, step: f32) -> f64 {
        let mut moved = self.clone();
        for (values, direction) in moved.tensors().into_iter().zip(direction) {
            for (value, direction) in values.into_iter().flatten().zip(direction) {
                let exact = f64::from(*value) + f64::from(step) * f64::from(*direction);
                *value = exact as f32;
                assert_eq!(f64::from(*value), exact);
            }
        }
        moved.loss()
    }

    /// The derivative of the loss along `direction`, by central differences of sixth order.
    fn slope(&self, direction: &Direction) -> f64 {
        const STEP: f32 = 1.0 / 256.0;
        let difference = |steps: f32| {
            self.loss_at(direction, steps * STEP) - self.loss_at(direction, -steps * STEP)
        };
        let sum = 45.0 * difference(1.0) - 9.0 * difference(2.0) + difference(3.0);
        sum / (60.0 * f64::from(STEP))
    }
}

/// How many tensors may have gradients.
const TENSORS: usize = 6;

/// A step of each of them.
type Direction = [Vec<f32>; TENSORS];

/// The gradients, empty ones for those that there are not.
fn gradient_tensors(gradients: &Gradients) -> [&[f64]; TENSORS] {
    let others = [
        &gradients.residual,
        &gradients.bn_weight,
        &gradients.bn_bias,
        &gradients.weight,
        &gradients.bias,
    ];
    let [residual, bn_weight, bn_bias, weight, bias] =
        others.map(|values| values.as_deref().unwrap_or_default());
    [&gradients.x, residual, bn_weight, bn_bias, weight, bias]
}

/// Random directions, each a multiple of 1/16: one through every tensor alone and one through
/// all of them.
fn directions(case: &mut Case, seed: u64) -> Vec<Direction> {
    let mut random = SplitMix64(seed);
    let lengths = case
        .tensors()
        .map(|values| values.map_or(0, |values| values.len()));
    (0..=TENSORS)
        .filter(|&only| only == TENSORS || lengths[only] > 0)
        .map(|only| {
            std::array::from_fn(|tensor| {
                // Odd multiples: none is 0.
                let direction = random.sixteenths(lengths[tensor], -8, 7);
                let direction = direction.iter().map(|d| d * 2.0 + 1.0 / 16.0).collect();
                if only == tensor || only == TENSORS {
                    direction
                } else {
                    vec![0.0; lengths[tensor]]
                }
            })
        })
        .collect()
}

/// The slope that the gradients give, and what its error is divided by: as the gradients may all
/// but cancel, the scales of the gradients times the lengths of the steps.
fn predicted(gradients: &Gradients, direction: &Direction) -> (f64, f64) {
    let scales = [
        oracle::scale(&gradients.x),
        gradients.residual.as_deref().map_or(0.0, oracle::scale),
        gradients.bn_weight_scale,
        gradients.bn_bias_scale,
        gradients.weight_scale,
        gradients.bias_scale,
    ];
    let tensors = gradient_tensors(gradients).into_iter().zip(scales);
    let (mut slope, mut size) = (0.0, 0.0);
    for ((gradient, scale), direction) in tensors.zip(direction) {
        for (gradient, &direction) in gradient.iter().zip(direction) {
            slope += gradient * f64::from(direction);
            size += scale * f64::from(direction.abs());
        }
    }
    (slope, size)
}

const BATCH: Stats = Stats::Batch {
    momentum: Some(0.25),
};

/// Truncation is of the order of (1/256)^6 = 4e-15 times a seventh derivative, rounding 2^-53
/// times the loss times 256: the bound leaves 1e4 for the derivative.
const SLOPE_BOUND: f64 = 1e-10;

#[test]
fn gradients_are_slopes() {
    for shape in [[3, 6, 5, 2], [2, 4, 7, 4], [5, 3, 1, 1], [1, 8, 11, 2]] {
        for training in [true, false] {
            for seed in 0..4 {
                let mut case = Case::new(shape, BATCH, training, seed);
                let gradients = case.gradients();
                for direction in directions(&mut case, 100 + seed) {
                    let (slope, scale) = predicted(&gradients, &direction);
                    let measured = case.slope(&direction);
                    let error = oracle::element_error(slope, measured, scale);
                    assert!(
                        error <= SLOPE_BOUND,
                        "{shape:?}, training {training}, seed {seed}: {slope} is not {measured}"
                    );
                    // The comparison can fail: a gradient off by a millionth is seen.
                    assert!(oracle::element_error(slope + 1e-6 * scale, measured, scale) > 1e-7);
                }
            }
        }
    }
}

#[test]
fn estimated_statistics_normalise_after_their_update_and_carry_no_gradient() {
    // 16 values per channel, all dyadic: the moved statistics are exact in f32.
    let stats = Stats::Estimate { moving_speed: 0.5 };
    let mut case = Case::new([2, 6, 8, 3], stats, true, 7);
    let output = case.run();
    assert_eq!(output.num_batches_tracked, 3);
    for c in 0..6 {
        let rows = [c * 8, (6 + c) * 8];
        let values: Vec<f64> = rows
            .into_iter()
            .flat_map(|row| case.x[row..row + 8].iter().copied().map(f64::from))
            .collect();
        let before = |values: &Option<Vec<f32>>| f64::from(values.as_ref().unwrap()[c]);
        let (old_mean, old_var) = (before(&case.running_mean), before(&case.running_var));
        let mean = values.iter().sum::<f64>() / 16.0;
        let squares = values.iter().map(|x| (x - old_mean) * (x - old_mean));
        let second_moment = squares.sum::<f64>() / 16.0;
        let after = |values: &Option<Vec<f64>>| values.as_ref().unwrap()[c];
        assert_eq!(after(&output.running_mean), 0.5 * old_mean + 0.5 * mean);
        assert_eq!(
            after(&output.running_var),
            0.5 * old_var + 0.5 * second_moment
        );
    }

    let narrowed = |values: &Option<Vec<f64>>| -> Option<Vec<f32>> {
        let narrow = values.as_ref()?.iter().map(|&value| value as f32);
        Some(narrow.inspect(|value| assert!(value.is_finite())).collect())
    };
    let mut frozen = Case {
        training: false,
        running_mean: narrowed(&output.running_mean),
        running_var: narrowed(&output.running_var),
        ..case.clone()
    };
    // The same y, gradients and statistics, to the bit.
    assert_eq!(frozen.run(), output);

    let gradients = output.gradients.unwrap();
    for direction in directions(&mut frozen, 8) {
        let (slope, scale) = predicted(&gradients, &direction);
        let error = oracle::element_error(slope, frozen.slope(&direction), scale);
        assert!(error <= SLOPE_BOUND, "{error}");
    }
    // With the statistics moving along, x has another slope, which the gradient must not be.
    let along_x = directions(&mut case, 8).swap_remove(0);
    let (slope, scale) = predicted(&gradients, &along_x);
    assert!(oracle::element_error(slope, case.slope(&along_x), scale) > 1e-3);
}

// ---------------------------------------------------------------------------------------------
// The family against PyTorch in f64.

/// What `tests/suite/oracle/family.py` calls a ramp.
fn ramp(count: usize, step: i64, start: i64, modulus: i64, centre: i64, divisor: f32) -> Vec<f32> {
    let integer = |i: usize| (step * i as i64 + start) % modulus - centre;
    (0..count).map(|i| integer(i) as f32 / divisor).collect()
}

/// The two checksums of `tests/suite/oracle/family.py`, each with the sum of its terms' magnitudes.
fn checksums(values: &[f64]) -> [(f64, f64); 2] {
    let count = values.len();
    [
        ramp(count, 29, 3, 17, 8, 1.0),
        ramp(count, 13, 1, 11, 5, 1.0),
    ]
    .map(|weights| {
        let terms = || values.iter().zip(&weights).map(|(a, &b)| a * f64::from(b));
        (terms().sum(), terms().map(f64::abs).sum())
    })
}

/// The norm of a case of `tests/suite/oracle/family.py`, with its mode, activation and whether there are
/// weight and bias, and a residual.
fn family_norm(name: &str) -> (NormDesc, Mode, Activation, [bool; 2]) {
    use Activation::{None, Relu, Silu};
    use Mode::{Eval, Train};
    let batch = NormDesc::batch_norm(4);
    let estimate = NormDesc::est_bn(4).with_moving_speed(0.25);
    let instance = NormDesc::instance_norm(4).with_weight(true).with_bias(true);
    let tracked = instance.with_track_running_stats(true);
    let bc = NormDesc::bc_norm(4, 2);
    let filters = NormDesc::weight_standardization();
    let (norm, mode, activation, given) = match name {
        "batch_norm.train" => (batch, Train, None, [true, true]),
        "batch_norm.eval" => (batch, Eval, Silu, [true, true]),
        "batch_norm.untracked" => (batch, Eval, Relu, [true, false]),
        "est_bn.train" => (estimate, Train, Silu, [true, false]),
        "est_bn.eval" => (estimate, Eval, Relu, [true, true]),
        "group_norm" => (NormDesc::group_norm(2, 4), Train, Silu, [true, true]),
        "instance_norm.train" => (tracked, Train, Relu, [true, true]),
        "instance_norm.eval" => (tracked, Eval, None, [true, false]),
        "instance_norm.untracked" => (instance, Eval, Silu, [false, false]),
        "layer_norm" => (NormDesc::layer_norm(4), Train, None, [true, false]),
        "layer_norm.flat" => (NormDesc::layer_norm(4), Train, Relu, [true, true]),
        "bc_norm.channels" => (bc.with_per_channel_affine(true), Train, Silu, [true, true]),
        "bc_norm.untracked" => (bc, Eval, Relu, [true, false]),
        "bc_norm.estimate" => {
            let estimate = ChannelStats::Estimate { moving_speed: 0.25 };
            let bc = bc.with_per_channel_affine(true).with_stats(estimate);
            (bc, Train, None, [true, true])
        }
        "weight_standardization" => (filters, Train, None, [false, false]),
        "weight_standardization.fused" => (filters, Train, Silu, [false, true]),
        _ => panic!("{name} is not in this list"),
    };
    let norm = match (name, norm.stats) {
        ("batch_norm.untracked" | "bc_norm.untracked", _) => norm.with_track_running_stats(false),
        ("group_norm" | "layer_norm" | "layer_norm.flat", _) => norm,
        ("weight_standardization" | "weight_standardization.fused", _) => norm,
        (_, ChannelStats::Batch { .. }) => norm.with_momentum(Some(0.25)),
        _ => norm,
    };
    (norm.with_eps(1.0 / 1024.0), mode, activation, given)
}

/// The largest error of any checksum of a case, divided by the sum of its terms' magnitudes. Every
/// tensor that PyTorch has must be there, and no other.
fn family_error(name: &str, expected: &[Checksums], break_it: impl Fn(&mut Input)) -> f64 {
    let (norm, mode, activation, [affine, residual]) = family_norm(name);
    let tensor = match norm.kind {
        NormKind::WeightStandardization => TensorDesc::filters(&[3, 4, 5]),
        _ if name == "layer_norm.flat" => TensorDesc::new(&[3, 4]),
        _ => TensorDesc::new(&[3, 4, 5]),
    };
    let tensor = tensor.unwrap();
    let count = tensor.elements() as usize;
    let x = ramp(count, 37, 11, 64, 32, 16.0);
    let grad_y = ramp(count, 29, 5, 61, 30, 16.0);
    let residual = residual.then(|| ramp(count, 23, 7, 59, 29, 16.0));
    let parameters = norm.affine_len();
    let weight = affine.then(|| ramp(parameters, 5, 0, 7, -6, 8.0));
    let bias = affine.then(|| ramp(parameters, 3, 0, 5, 2, 4.0));
    let (bn_weight, bn_bias) = (ramp(4, 3, 0, 8, -5, 8.0), ramp(4, 5, 0, 9, 4, 8.0));
    let (running_mean, running_var) = (ramp(4, 7, 0, 5, 2, 4.0), ramp(4, 1, 0, 3, -2, 4.0));
    let mut input = Input {
        residual: residual.as_deref(),
        activation,
        grad_y: Some(&grad_y),
        weight: weight.as_deref(),
        bias: bias.as_deref(),
        bn_weight: Some(&bn_weight),
        bn_bias: Some(&bn_bias),
        running_mean: Some(&running_mean),
        running_var: Some(&running_var),
        ..Input::new(&norm, &tensor, mode, &x)
    };
    break_it(&mut input);
    let output = normalize(&input);

    let gradients = output.gradients.as_ref().unwrap();
    let got = [
        ("y", Some(&output.y)),
        ("pre_activation", Some(&output.pre_activation)),
        ("running_mean", output.running_mean.as_ref()),
        ("running_var", output.running_var.as_ref()),
        ("grad_x", Some(&gradients.x)),
        ("grad_residual", gradients.residual.as_ref()),
        ("grad_bn_weight", gradients.bn_weight.as_ref()),
        ("grad_bn_bias", gradients.bn_bias.as_ref()),
        ("grad_weight", gradients.weight.as_ref()),
        ("grad_bias", gradients.bias.as_ref()),
    ];
    let mut worst: f64 = 0.0;
    for (tensor, values) in got {
        let expected = expected.iter().find(|expected| expected.0 == tensor);
        let (Some(values), Some((_, expected))) = (values, expected) else {
            let (got, expected) = (values.is_some(), expected.is_some());
            assert_eq!(got, expected, "{name} {tensor}: whether there is one");
            continue;
        };
        for ((got, size), expected) in checksums(values).into_iter().zip(expected) {
            worst = worst.max(oracle::element_error(got, *expected, size));
        }
    }
    worst
}

/// PyTorch's f64 sums over up to 20 elements, and the checksums, round some ten times.
const FAMILY_BOUND: f64 = 1e-14;

#[test]
fn every_member_of_the_family() {
    assert_eq!(FAMILY.len(), 16);
    for (name, expected) in FAMILY {
        let error = family_error(name, expected, |_| ());
        assert!(error <= FAMILY_BOUND, "{name}: {error:e}");
    }
}

/// The check above can fail.
#[test]
fn the_family_tells_wrong_definitions() {
    type Slip = fn(&mut Input);
    let slips: [(&str, Slip); 9] = [
        ("batch_norm.train", |input| input.eps *= 1.001),
        ("batch_norm.train", |input| {
            input.stats = Stats::Batch { momentum: None }
        }),
        ("batch_norm.untracked", |input| input.weight = None),
        ("est_bn.eval", |input| input.kind = NormKind::BcNorm),
        ("group_norm", |input| input.num_groups = 1),
        ("group_norm", |input| input.activation = Activation::Relu),
        ("instance_norm.train", |input| input.training = false),
        ("bc_norm.channels", |input| input.bn_bias = input.bias),
        ("weight_standardization", |input| {
            input.kind = NormKind::LayerNorm
        }),
    ];
    for (name, slip) in slips {
        let (_, expected) = FAMILY.iter().find(|case| case.0 == name).unwrap();
        let error = catch_unwind(|| family_error(name, expected, slip));
        // A tensor too much or too few is told by a panic.
        assert!(error.is_err() || error.unwrap() > 1e-8, "{name}");
    }
}

// ---------------------------------------------------------------------------------------------
// The family against finite differences.

/// What a [`Case`] calculates.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Norm {
    kind: NormKind,
    stats: Stats,
    training: bool,
    per_channel_affine: bool,
    track_running_stats: bool,
}

impl Norm {
    fn has_running_statistics(&self) -> bool {
        use NormKind::{BatchNorm, BcNorm, EstBn, InstanceNorm};
        let estimate = matches!(self.stats, Stats::Estimate { .. });
        let may = matches!(self.kind, BatchNorm | BcNorm | EstBn | InstanceNorm);
        may && (estimate || self.track_running_stats)
    }

    /// Whether the gradient flows through all statistics that normalise, or these are constants.
    fn is_differentiable(&self) -> bool {
        !(self.training && matches!(self.stats, Stats::Estimate { .. }))
    }
}

/// Every norm in every mode, each once.
fn family() -> Vec<Norm> {
    let mut family = Vec::new();
    for &kind in NormKind::ALL {
        for (stats, training) in modes() {
            for flags in 0..4 {
                let norm = Norm {
                    kind,
                    stats,
                    training,
                    per_channel_affine: flags & 1 != 0,
                    track_running_stats: flags & 2 != 0,
                };
                let estimate = matches!(stats, Stats::Estimate { .. });
                let has_use = match kind {
                    NormKind::BatchNorm => !estimate && !norm.per_channel_affine,
                    NormKind::EstBn => {
                        estimate && norm.track_running_stats && !norm.per_channel_affine
                    }
                    NormKind::BcNorm => !estimate || norm.track_running_stats,
                    NormKind::InstanceNorm => !estimate && !norm.per_channel_affine,
                    _ => stats == BATCH && flags == 0,
                };
                if has_use {
                    family.push(norm);
                }
            }
        }
    }
    family
}

#[test]
fn gradients_of_the_family_are_slopes() {
    let activations = [Activation::None, Activation::Relu, Activation::Silu];
    for (number, norm) in family().into_iter().enumerate() {
        if !norm.is_differentiable() {
            continue;
        }
        for activation in activations {
            let seed = 40 + number as u64;
            let shape = match norm.kind {
                NormKind::WeightStandardization => [4, 1, 9, 1],
                _ => [2, 4, 6, 2],
            };
            let mut case = Case::of(norm, shape, seed).fused(activation, seed);
            if activation == Activation::Relu {
                // No slope near the bend: there the loss must be blind.
                let t = case.run().pre_activation;
                for (grad_y, t) in case.grad_y.iter_mut().zip(t) {
                    if t.abs() < 0.2 {
                        *grad_y = 0.0;
                    }
                }
            }
            let gradients = case.gradients();
            for direction in directions(&mut case, 100 + seed) {
                let (slope, scale) = predicted(&gradients, &direction);
                let measured = case.slope(&direction);
                let error = oracle::element_error(slope, measured, scale);
                assert!(
                    error <= SLOPE_BOUND,
                    "{norm:?}, {activation:?}: {slope} is not {measured}, {error:e}"
                );
            }
        }
    }
}

#[test]
fn est_bn_alone_normalises_after_its_update() {
    let stats = Stats::Estimate { moving_speed: 0.5 };
    let norm = Norm {
        kind: NormKind::EstBn,
        stats,
        training: true,
        per_channel_affine: false,
        track_running_stats: true,
    };
    let case = Case::of(norm, [2, 6, 8, 3], 7).fused(Activation::Silu, 7);
    let output = case.run();
    // The statistics are those of BCNorm's channel part, tested above.
    let bc_norm = Case::new([2, 6, 8, 3], stats, true, 7).run();
    assert_eq!(output.running_mean, bc_norm.running_mean);
    assert_eq!(output.running_var, bc_norm.running_var);
    let narrowed = |values: &Option<Vec<f64>>| -> Option<Vec<f32>> {
        Some(values.as_ref()?.iter().map(|&value| value as f32).collect())
    };
    let frozen = Case {
        training: false,
        running_mean: narrowed(&output.running_mean),
        running_var: narrowed(&output.running_var),
        ..case
    };
    assert_eq!(frozen.run(), output);
}

// ---------------------------------------------------------------------------------------------
// The family: what one member says of another.

/// A norm with batch statistics, per-channel affine where there is a choice.
fn norm(kind: NormKind, training: bool, track_running_stats: bool) -> Norm {
    Norm {
        kind,
        stats: BATCH,
        training,
        per_channel_affine: true,
        track_running_stats,
    }
}

#[test]
fn a_batch_norm_is_a_group_norm_of_the_transposed() {
    let [n, c, l] = [3, 4, 5];
    for activation in [Activation::None, Activation::Silu] {
        let batch = Case::of(norm(NormKind::BatchNorm, true, true), [n, c, l, 1], 20);
        let batch = batch.fused(activation, 20);
        // (N, C, L) to (1, C, N·L) and back.
        let mut places = Vec::new();
        for channel in 0..c {
            for sample in 0..n {
                places.extend((0..l).map(|i| (sample * c + channel) * l + i));
            }
        }
        let transposed = |values: &[f32]| places.iter().map(|&place| values[place]).collect();
        let group = Case {
            kind: NormKind::GroupNorm,
            shape: [1, c, n * l, c],
            x: transposed(&batch.x),
            residual: batch.residual.as_ref().map(|values| transposed(values)),
            grad_y: transposed(&batch.grad_y),
            ..batch.clone()
        };
        let mut output = group.run();
        assert_eq!(output.running_mean, None);
        assert_eq!(output.num_batches_tracked, 3);
        let back = |values: &mut Vec<f64>| {
            let mut moved = vec![0.0; values.len()];
            for (value, &place) in values.iter().zip(&places) {
                moved[place] = *value;
            }
            *values = moved;
        };
        back(&mut output.y);
        let gradients = output.gradients.as_mut().unwrap();
        back(&mut gradients.x);
        back(gradients.residual.as_mut().unwrap());
        let names = ["y", "grad_x", "grad_residual", "grad_weight", "grad_bias"];
        let expected = batch.run();
        assert_eq!(expected.num_batches_tracked, 4);
        assert_same(&output, &expected, &names);
    }
}

#[test]
fn layer_and_instance_norm_are_group_norms() {
    for (kind, groups) in [(NormKind::LayerNorm, 1), (NormKind::InstanceNorm, 4)] {
        for training in [true, false] {
            // Their own number of groups is not looked at.
            let case = Case::of(norm(kind, training, false), [3, 4, 5, 2], 21);
            let mut group = case.clone();
            group.kind = NormKind::GroupNorm;
            group.shape[3] = groups;
            assert_eq!(case.run(), group.run());
        }
    }
}

#[test]
fn weight_standardization_is_a_rescaled_group_norm() {
    // var / (n - 1) + eps = (var / n + eps (n - 1) / n) · n / (n - 1).
    let count = 12;
    let ratio = f64::from(count - 1) / f64::from(count);
    let filters = Case {
        weight: None,
        bias: None,
        ..Case::of(
            norm(NormKind::WeightStandardization, true, false),
            [5, 1, count as usize, 1],
            22,
        )
    };
    let group = Case {
        kind: NormKind::GroupNorm,
        eps: filters.eps * ratio,
        ..filters.clone()
    };
    let (got, mut expected) = (filters.run(), group.run());
    let rescale = |values: &mut Vec<f64>| values.iter_mut().for_each(|v| *v *= ratio.sqrt());
    rescale(&mut expected.y);
    rescale(&mut expected.gradients.as_mut().unwrap().x);
    for ((name, got, _), (_, expected, scale)) in named(&got).into_iter().zip(named(&expected)) {
        // Beside the last roundings, those of the ratio, its root and the epsilon.
        assert_close(name, got, expected, scale, 4.0 * SAME);
    }
    assert_eq!(named(&got).len(), 2);
}

#[test]
fn without_running_statistics_evaluation_is_training() {
    for kind in [
        NormKind::BatchNorm,
        NormKind::InstanceNorm,
        NormKind::BcNorm,
    ] {
        let tracked = Case::of(norm(kind, true, true), [3, 4, 5, 2], 23);
        let untracked = Case::of(norm(kind, false, false), [3, 4, 5, 2], 23);
        let (tracked, untracked) = (tracked.run(), untracked.run());
        assert_eq!(tracked.y, untracked.y);
        assert_eq!(tracked.gradients, untracked.gradients);
        assert_eq!(untracked.running_mean, None);
        assert_eq!(untracked.running_var, None);
        assert_eq!(untracked.num_batches_tracked, 3);
        let training = Case::of(norm(kind, true, false), [3, 4, 5, 2], 23);
        assert_eq!(training.run(), untracked);
    }
}

#[test]
fn what_is_left_out_is_1_and_0_and_has_no_gradient() {
    for norm in family() {
        let mut full = Case::of(norm, [3, 4, 5, 2], 24);
        let fields = |case: &mut Case| {
            let Case {
                bn_weight,
                bn_bias,
                weight,
                bias,
                ..
            } = case.clone();
            [(bn_weight, 1.0), (bn_bias, 0.0), (weight, 1.0), (bias, 0.0)]
        };
        for (left_out, (values, value)) in fields(&mut full).into_iter().enumerate() {
            let Some(values) = values else { continue };
            let with = |field: Option<Vec<f32>>| {
                let mut case = full.clone();
                match left_out {
                    0 => case.bn_weight = field,
                    1 => case.bn_bias = field,
                    2 => case.weight = field,
                    _ => case.bias = field,
                }
                case.run()
            };
            let mut expected = with(Some(vec![value; values.len()]));
            let gradients = expected.gradients.as_mut().unwrap();
            let (gradient, scale) = match left_out {
                0 => (&mut gradients.bn_weight, &mut gradients.bn_weight_scale),
                1 => (&mut gradients.bn_bias, &mut gradients.bn_bias_scale),
                2 => (&mut gradients.weight, &mut gradients.weight_scale),
                _ => (&mut gradients.bias, &mut gradients.bias_scale),
            };
            assert_eq!(gradient.take().unwrap().len(), values.len());
            *scale = 0.0;
            assert_eq!(with(None), expected, "{norm:?}");
        }
    }
}

#[test]
fn what_a_norm_has_no_use_for_is_ignored() {
    let wrong = &[f32::NAN; 7][..];
    for norm in family() {
        let case = Case::of(norm, [3, 4, 5, 2], 25);
        let mut input = case.input();
        if norm.kind != NormKind::BcNorm {
            (input.bn_weight, input.bn_bias) = (Some(wrong), Some(wrong));
            input.per_channel_affine = !input.per_channel_affine;
            if norm.kind != NormKind::GroupNorm {
                input.num_groups = 0;
            }
        }
        if !norm.has_running_statistics() {
            (input.running_mean, input.running_var) = (Some(wrong), Some(wrong));
        }
        assert_eq!(normalize(&input), case.run(), "{norm:?}");
    }
}

#[test]
fn a_call_from_a_description() {
    let norm = NormDesc::bc_norm(4, 2).with_eps(0.25).with_momentum(None);
    let tensor = TensorDesc::new(&[3, 4, 5, 6]).unwrap();
    let x = [0.0; 360];
    let input = Input::new(&norm, &tensor, Mode::Eval, &x);
    let shape = [input.num_samples, input.num_channels, input.row_len];
    assert_eq!(shape, [3, 4, 30]);
    assert_eq!((input.kind, input.num_groups), (NormKind::BcNorm, 2));
    assert_eq!(input.eps, 0.25);
    assert_eq!(input.stats, Stats::Batch { momentum: None });
    assert!(!input.training && !input.per_channel_affine && input.track_running_stats);
    assert_eq!(input.num_batches_tracked, 0);

    let norm = NormDesc::est_bn(4).with_moving_speed(0.5);
    let input = Input::new(&norm, &tensor, Mode::Train, &x);
    assert_eq!(input.stats, Stats::Estimate { moving_speed: 0.5 });
    assert!(input.training);
}

// ---------------------------------------------------------------------------------------------
// What follows the norm.

/// A group norm whose normalised values are exactly 1 and -1, and so t = norm + residual too.
fn plus_minus_one(residual: Vec<f32>, activation: Activation) -> Case {
    let count = residual.len();
    Case {
        eps: 0.0,
        x: (0..count).map(|i| [1.0, -1.0][i % 2]).collect(),
        residual: Some(residual),
        activation,
        grad_y: (0..count).map(|i| i as f32 + 1.0).collect(),
        weight: None,
        bias: None,
        ..Case::of(norm(NormKind::GroupNorm, true, false), [1, 1, count, 1], 0)
    }
}

#[test]
fn relu_keeps_what_is_above_0() {
    let (nan, infinity) = (f32::NAN, f32::INFINITY);
    // t = 2, -2, 0, 0, NaN, NaN, Inf, -Inf.
    let residual = vec![1.0, -1.0, -1.0, 1.0, nan, nan, infinity, -infinity];
    let output = plus_minus_one(residual, Activation::Relu).run();
    let t = &output.pre_activation;
    assert_eq!(t[..4], [2.0, -2.0, 0.0, 0.0]);
    assert!(t[4].is_nan() && t[5].is_nan());
    assert_eq!(t[6..], [f64::INFINITY, f64::NEG_INFINITY]);
    assert_eq!(output.y[..4], [2.0, 0.0, 0.0, 0.0]);
    assert!(output.y[4].is_nan() && output.y[5].is_nan());
    assert_eq!(output.y[6..], [f64::INFINITY, 0.0]);
    // A NaN lets the gradient pass.
    let gradient = output.gradients.unwrap().residual.unwrap();
    assert_eq!(gradient, [1.0, 0.0, 0.0, 0.0, 5.0, 6.0, 7.0, 0.0]);
}

#[test]
fn silu_to_the_last_bit() {
    // t in steps of 1/8 to both sides, and where exp(-t) or its reciprocal overflows.
    let mut residual: Vec<f32> = (-400..400).map(|i| i as f32 / 8.0).collect();
    residual.extend([-700.0, 700.0, -1e4, 1e4, -1e30, 1e30]);
    let output = plus_minus_one(residual, Activation::Silu).run();
    let gradients = output.gradients.unwrap().residual.unwrap();
    let mut small = 0;
    for (i, &t) in output.pre_activation.iter().enumerate() {
        // f64's own exponential, with nothing that cancels but 1 + t (1 - s).
        let s = 1.0 / (1.0 + (-t).exp());
        let rest = 1.0 / (1.0 + t.exp());
        let (y, slope) = (t * s, s * (1.0 + t * rest));
        let grad_y = (i + 1) as f64;
        // Below the smallest normal number the comparison has no digits to compare.
        small += usize::from(y.abs() < 1e-300);
        let tiny = 1e-300;
        assert!(
            (output.y[i] - y).abs() <= 1e-15 * y.abs() + tiny,
            "{t}: {} is not {y}",
            output.y[i]
        );
        let size = grad_y * (s * (1.0 + (t * rest).abs()));
        assert!(
            (gradients[i] - grad_y * slope).abs() <= 1e-15 * size + tiny,
            "{t}: {} is not {}",
            gradients[i],
            grad_y * slope
        );
    }
    assert!(small < 8);
    let residual = vec![f32::NAN, f32::INFINITY];
    let output = plus_minus_one(residual, Activation::Silu).run();
    assert!(output.y[0].is_nan() && output.y[1] == f64::INFINITY);
}

#[test]
fn an_activation_works_on_the_plain_output() {
    for norm in family() {
        let plain = Case::of(norm, [3, 4, 5, 2], 26);
        let before = plain.run();
        assert_eq!(before.pre_activation, before.y);
        assert_eq!(before.gradients.unwrap().residual, None);

        let fused = plain.clone().fused(Activation::Relu, 26);
        let residual = fused.residual.as_ref().unwrap();
        let output = fused.run();
        // The same as the plain norm of a gradient that is gone where y is 0.
        let mut masked = plain.clone();
        for (i, &t) in output.pre_activation.iter().enumerate() {
            let error = (t - before.y[i] - f64::from(residual[i])).abs();
            assert!(error <= 1e-15, "{error}");
            assert_eq!(output.y[i], t.max(0.0));
            if t <= 0.0 {
                masked.grad_y[i] = 0.0;
            }
        }
        let mut expected = masked.gradients();
        let masked = masked.grad_y.iter().copied().map(f64::from).collect();
        expected.residual = Some(masked);
        assert_eq!(output.gradients.unwrap(), expected);
        assert_eq!(output.running_mean, before.running_mean);
        assert_eq!(output.running_var, before.running_var);
    }
}

// ---------------------------------------------------------------------------------------------
// State.

#[test]
fn the_running_statistics_of_a_batch() {
    let case = |momentum| Case {
        x: vec![1.0, 2.0, 3.0, 6.0],
        running_mean: Some(vec![7.0]),
        running_var: Some(vec![2.0]),
        ..Case::new([2, 1, 2, 1], Stats::Batch { momentum }, true, 1)
    };
    // The mean is 3, the sum of squares 14, the unbiased variance 14 / 3.
    for (momentum, mean, var) in [
        (Some(0.0), 7.0, 2.0),
        (Some(1.0), 3.0, 14.0 / 3.0),
        (Some(0.25), 6.0, 8.0 / 3.0),
        // The fourth batch of a cumulative average.
        (None, 6.0, 8.0 / 3.0),
    ] {
        let output = case(momentum).run();
        assert_eq!(output.running_mean, Some(vec![mean]));
        assert_eq!(output.running_var, Some(vec![var]));
        assert_eq!(output.num_batches_tracked, 4);
        // How the state moves does not touch what this batch yields.
        assert_eq!(output.y, case(Some(0.5)).run().y);
    }
    let mut first = case(None);
    first.running_mean = Some(vec![1e9]);
    let input = Input {
        num_batches_tracked: 0,
        ..first.input()
    };
    assert_eq!(normalize(&input).running_mean, Some(vec![3.0]));
}

#[test]
fn the_running_statistics_of_instances() {
    let case = |stats| Case {
        stats,
        // Means 2 and 4, unbiased variances 2 and 8.
        x: vec![1.0, 3.0, 2.0, 6.0],
        running_mean: Some(vec![7.0]),
        running_var: Some(vec![1.0]),
        ..Case::of(norm(NormKind::InstanceNorm, true, true), [2, 1, 2, 1], 1)
    };
    let batch = |momentum| Stats::Batch { momentum };
    for (stats, mean, var) in [
        (batch(Some(0.0)), 7.0, 1.0),
        (batch(Some(1.0)), 3.0, 5.0),
        (batch(Some(0.25)), 6.0, 2.0),
        // As in PyTorch.
        (batch(None), 7.0, 1.0),
        (Stats::Estimate { moving_speed: 0.5 }, 7.0, 1.0),
    ] {
        let output = case(stats).run();
        assert_eq!(output.running_mean, Some(vec![mean]));
        assert_eq!(output.running_var, Some(vec![var]));
        assert_eq!(output.num_batches_tracked, 3);
        assert_eq!(output.y, case(batch(Some(0.5))).run().y);
        let evaluation = Case {
            training: false,
            ..case(stats)
        };
        let output = evaluation.run();
        assert_eq!(output.running_mean, Some(vec![7.0]));
        assert_eq!(output.running_var, Some(vec![1.0]));
        assert_eq!(output.num_batches_tracked, 3);
    }
}

#[test]
fn evaluation_leaves_the_state() {
    for stats in [BATCH, Stats::Estimate { moving_speed: 0.5 }] {
        let case = Case::new([3, 4, 5, 2], stats, false, 2);
        let output = case.run();
        assert_eq!(output.running_mean, widened(&case.running_mean));
        assert_eq!(output.running_var, widened(&case.running_var));
        assert_eq!(output.num_batches_tracked, 3);
    }
}

#[test]
fn a_speed_of_0_is_evaluation_and_of_1_forgets() {
    let speed = |moving_speed| Stats::Estimate { moving_speed };
    let still = Case::new([3, 4, 5, 2], speed(0.0), true, 2);
    let frozen = Case {
        training: false,
        ..still.clone()
    };
    assert_eq!(still.run(), frozen.run());

    let case = Case {
        x: vec![1.0, 2.0, 3.0, 6.0],
        running_mean: Some(vec![7.0]),
        ..Case::new([2, 1, 2, 1], speed(1.0), true, 1)
    };
    let output = case.run();
    assert_eq!(output.running_mean, Some(vec![3.0]));
    let second_moment = (36.0 + 25.0 + 16.0 + 1.0) / 4.0;
    assert_eq!(output.running_var, Some(vec![second_moment]));
}

#[test]
fn the_forward_pass_alone() {
    let case = Case::new([3, 4, 5, 2], BATCH, true, 2);
    let output = normalize(&Input {
        grad_y: None,
        ..case.input()
    });
    assert_eq!(output.gradients, None);
    assert_eq!(output.y, case.run().y);
}

// ---------------------------------------------------------------------------------------------
// Edges.

fn widened(values: &Option<Vec<f32>>) -> Option<Vec<f64>> {
    let values = values.as_ref()?.iter();
    Some(values.copied().map(f64::from).collect())
}

/// Every kind of statistics, in training and in evaluation.
fn modes() -> impl Iterator<Item = (Stats, bool)> {
    let stats = [
        BATCH,
        Stats::Batch { momentum: None },
        Stats::Estimate { moving_speed: 0.5 },
    ];
    stats
        .into_iter()
        .flat_map(|stats| [(stats, true), (stats, false)])
}

#[test]
fn no_elements_no_change() {
    for (stats, training) in modes() {
        for [n, c, l] in [[0, 4, 5], [3, 4, 0], [0, 4, 0], [3, 0, 5]] {
            let case = Case::new([n, c, l, 2], stats, training, 3);
            let output = case.run();
            assert!(output.y.is_empty());
            assert_eq!(output.running_mean, widened(&case.running_mean));
            assert_eq!(output.running_var, widened(&case.running_var));
            assert_eq!(output.num_batches_tracked, 3);
            let gradients = output.gradients.unwrap();
            let lengths = gradient_tensors(&gradients).map(<[f64]>::len);
            assert_eq!(lengths, [0, 0, c, c, 2, 2]);
            let values = gradient_tensors(&gradients).concat();
            assert!(is_zero(&values));
            let scales = [
                gradients.bn_weight_scale,
                gradients.bn_bias_scale,
                gradients.weight_scale,
                gradients.bias_scale,
            ];
            assert_eq!(scales, [0.0; 4]);
        }
    }
}

/// Asserts that y is the group's bias, and that the group's bias and weight have the gradients
/// that follow: the sum of dy, and 0. What else may have a gradient comes back.
fn assert_is_bias(case: &Case) -> Vec<f64> {
    let [n, c, l, g] = case.shape;
    let group_of = |i: usize| i / (c / g * l) % g;
    let output = case.run();
    let bias: Vec<f64> = (0..n * c * l)
        .map(|i| f64::from(case.bias.as_ref().unwrap()[group_of(i)]))
        .collect();
    assert_eq!(output.y, bias);

    let gradients = output.gradients.unwrap();
    let mut sums = vec![0.0; g];
    for (i, &dy) in case.grad_y.iter().enumerate() {
        sums[group_of(i)] += f64::from(dy);
    }
    assert_eq!(gradients.bias, Some(sums));
    assert!(is_zero(gradients.weight.as_ref().unwrap()));
    assert_eq!(gradients.weight_scale, 0.0);
    gradient_tensors(&gradients)[..4].concat()
}

fn is_zero(values: &[f64]) -> bool {
    values.iter().all(|&value| value == 0.0)
}

#[test]
fn a_group_of_one_element_yields_its_bias() {
    for (stats, training) in modes() {
        for eps in [1e-5, 0.0] {
            let others = assert_is_bias(&Case {
                eps,
                ..Case::new([4, 3, 1, 3], stats, training, 4)
            });
            assert!(is_zero(&others));
        }
    }
}

#[test]
fn a_constant_yields_the_bias_whatever_the_epsilon() {
    let bn_bias = vec![0.1, 0.1, -1e3, -1e3];
    for constant in [0.0, 100.0, 3.3, 1234.567, 65504.0, -1e-30, f32::MAX] {
        for eps in [1e-3, 1e-8, 0.0] {
            // In training a constant channel is its bias, here the same throughout a group. With
            // a group for each channel this holds for the other statistics, too.
            let one = std::iter::once((BATCH, true, 2));
            let other = modes().map(|(stats, training)| (stats, training, 4));
            for (stats, training, groups) in one.chain(other) {
                let others = assert_is_bias(&Case {
                    eps,
                    x: vec![constant; 3 * 4 * 7],
                    bn_bias: Some(bn_bias.clone()),
                    ..Case::new([3, 4, 7, groups], stats, training, 5)
                });
                // Any change of x shows, the more so the smaller eps, and not at all for 0.
                assert!(others.iter().all(|value| value.is_finite()));
                assert_eq!(is_zero(&others), eps == 0.0, "{constant} {eps} {stats:?}");
            }
        }
    }
    let many = 200_704;
    let others = assert_is_bias(&Case {
        eps: 0.0,
        x: vec![3.3; many],
        ..Case::new([1, 1, many, 1], BATCH, true, 7)
    });
    assert!(is_zero(&others));
}

#[test]
fn one_value_per_channel_has_no_unbiased_variance() {
    let output = Case::new([1, 4, 1, 2], BATCH, true, 9).run();
    assert!(output.running_var.unwrap().iter().all(|var| var.is_nan()));
    let running_mean = output.running_mean.unwrap();
    assert!(running_mean.iter().all(|mean| mean.is_finite()));
    assert!(output.y.iter().all(|y| y.is_finite()));
}

/// Integers, which stay exact in f32 beside an offset of 1e7.
fn integers(shape: [usize; 4], stats: Stats, training: bool) -> Case {
    let case = Case::new(shape, stats, training, 10);
    Case {
        x: case.x.iter().map(|x| x * 16.0).collect(),
        ..case
    }
}

/// Results that must agree but for their last roundings: two of 2^-53 of the scale.
const SAME: f64 = 2.5e-16;

fn assert_same(got: &Output, expected: &Output, names: &[&str]) {
    let (got, expected) = (named(got), named(expected));
    for &name in names {
        let (_, got, _) = *got.iter().find(|named| named.0 == name).unwrap();
        let (_, expected, scale) = *expected.iter().find(|named| named.0 == name).unwrap();
        assert_close(name, got, expected, scale, SAME);
    }
}

#[test]
fn an_offset_of_1e7_in_training() {
    let near = integers([3, 6, 25, 2], BATCH, true);
    let mut far = near.clone();
    for x in &mut far.x {
        *x += 1e7;
    }
    let names = ["y", "bn.running_var_after", "grad_x", "grad_bn.weight"];
    let others = ["grad_bn.bias", "grad_weight", "grad_bias"];
    assert_same(&far.run(), &near.run(), &names);
    assert_same(&far.run(), &near.run(), &others);
}

#[test]
fn an_offset_of_1e7_from_the_running_mean() {
    // Equal channels pass the offset on to the group part, which takes it away.
    for stats in [BATCH, Stats::Estimate { moving_speed: 0.5 }] {
        let near = Case {
            bn_weight: Some(vec![0.7; 6]),
            running_var: Some(vec![3.0; 6]),
            ..integers([3, 6, 25, 2], stats, false)
        };
        let mut far = near.clone();
        for x in &mut far.x {
            *x += 1e7;
        }
        let names = ["y", "grad_x", "grad_bn.bias", "grad_weight", "grad_bias"];
        assert_same(&far.run(), &near.run(), &names);

        // The same offset in the running mean changes nothing at all.
        let mut near = near;
        for (case, offset) in [(&mut far, 1e7), (&mut near, 0.0)] {
            for mean in case.running_mean.iter_mut().flatten() {
                *mean = mean.round() + offset;
            }
        }
        let names = [&names[..], &["grad_bn.weight", "bn.running_var_after"]].concat();
        assert_same(&far.run(), &near.run(), &names);
    }
}

#[test]
fn the_place_of_an_outlier_does_not_matter() {
    for (stats, training) in modes() {
        let mut first = Case::new([1, 2, 50, 1], stats, training, 11);
        first.x[0] = 1e4;
        let mut last = first.clone();
        last.x[..50].reverse();
        last.grad_y[..50].reverse();
        let mut output = last.run();
        output.y[..50].reverse();
        let gradients = output.gradients.as_mut().unwrap();
        gradients.x[..50].reverse();
        let names: Vec<_> = named(&output).into_iter().map(|named| named.0).collect();
        assert_same(&output, &first.run(), &names);
    }
}

#[test]
fn nan_and_infinity_reach_what_they_must() {
    let (n, c, l, groups) = (3, 6, 5, 3);
    for (stats, training) in modes() {
        let clean = Case::new([n, c, l, groups], stats, training, 12);
        let before = clean.run();
        // The first element of the channel of all, the first of a sample's, and one within.
        for (poison, sample, place) in [
            (f32::INFINITY, 0, 0),
            (f32::NAN, 1, 0),
            (f32::NEG_INFINITY, 1, 3),
        ] {
            // Channel 2 lies in group 1.
            let mut case = clean.clone();
            case.x[(sample * c + 2) * l + place] = poison;
            let after = case.run();
            let gradients = after.gradients.as_ref().unwrap();
            let gradients_before = before.gradients.as_ref().unwrap();
            for i in 0..n * c * l {
                let group = i / (c / groups * l) % groups;
                if group == 1 && (training || i / (c * l) == sample) {
                    assert!(after.y[i].is_nan());
                    assert!(gradients.x[i].is_nan());
                } else {
                    assert_eq!(after.y[i], before.y[i]);
                    assert_eq!(gradients.x[i], gradients_before.x[i]);
                }
            }
            let [_, _, bn_weight, bn_bias, weight, bias] = gradient_tensors(gradients);
            for g in 0..groups {
                assert_eq!(weight[g].is_nan(), g == 1);
                assert_eq!(bias[g], gradient_tensors(gradients_before)[5][g]);
            }
            for channel in 0..c {
                let in_group = channel / (c / groups) == 1;
                assert_eq!(bn_weight[channel].is_nan(), in_group);
                assert_eq!(bn_bias[channel].is_nan(), in_group);
                let running = |values: &Option<Vec<f64>>| values.as_ref().unwrap()[channel];
                let (mean, var) = (running(&after.running_mean), running(&after.running_var));
                if training && channel == 2 {
                    let mean_is_poison = mean == f64::from(poison);
                    assert!(
                        mean_is_poison || (mean.is_nan() && poison.is_nan()),
                        "{mean}"
                    );
                    assert!(!var.is_finite());
                } else {
                    assert_eq!(mean, running(&before.running_mean));
                    assert_eq!(var, running(&before.running_var));
                }
            }
        }
    }
}

#[test]
fn no_member_of_the_family_minds_no_elements() {
    for norm in family() {
        for [n, c, l] in [[0, 4, 5], [3, 4, 0], [3, 0, 5]] {
            let case = Case::of(norm, [n, c, l, 2], 27).fused(Activation::Silu, 27);
            let output = case.run();
            assert!(output.y.is_empty() && output.pre_activation.is_empty());
            assert_eq!(output.running_mean, widened(&case.running_mean));
            assert_eq!(output.running_var, widened(&case.running_var));
            assert_eq!(output.num_batches_tracked, 3);
            let gradients = output.gradients.unwrap();
            assert!(is_zero(&gradient_tensors(&gradients).concat()));
            assert_eq!(gradients.residual, Some(Vec::new()));
            assert_eq!(gradients.weight, case.weight.map(|w| vec![0.0; w.len()]));
            let bn_bias = case.bn_bias.map(|b| vec![0.0; b.len()]);
            assert_eq!(gradients.bn_bias, bn_bias);
        }
    }
}

#[test]
fn a_constant_yields_the_bias_in_the_whole_family() {
    for norm in family() {
        // Running statistics take a constant for what it is.
        if norm.has_running_statistics() && !norm.training || !norm.is_differentiable() {
            continue;
        }
        for eps in [1e-5, 0.0] {
            let mut case = Case::of(norm, [3, 4, 5, 4], 28);
            case.x.fill(1234.567);
            case.eps = eps;
            let output = case.run();
            let bias = case.bias.as_ref().unwrap();
            let expected: Vec<f64> = (0..60).map(|i| f64::from(bias[i / 5 % 4])).collect();
            assert_eq!(output.y, expected, "{norm:?}");
            let x = output.gradients.unwrap().x;
            assert!(x.iter().all(|x| x.is_finite()));
            // BCNorm's channel part always has an epsilon, the group part a slope of 0.
            assert_eq!(is_zero(&x), eps == 0.0, "{norm:?}");
        }
    }
}

#[test]
fn a_filter_of_one_element_has_no_unbiased_variance() {
    let filters = norm(NormKind::WeightStandardization, true, false);
    let output = Case::of(filters, [3, 1, 1, 1], 29).run();
    assert!(output.y.iter().all(|y| y.is_nan()));
}

#[test]
fn one_value_per_instance_has_no_unbiased_variance() {
    let instance = norm(NormKind::InstanceNorm, true, true);
    let case = Case::of(instance, [3, 4, 1, 1], 29);
    let output = case.run();
    assert!(output.running_var.unwrap().iter().all(|var| var.is_nan()));
    let bias = widened(&case.bias).unwrap();
    assert_eq!(output.y, bias.repeat(3));
}

#[test]
fn an_offset_of_1e7_in_the_family() {
    for norm in family() {
        if norm.has_running_statistics() && !norm.training || !norm.is_differentiable() {
            continue;
        }
        let mut near = Case::of(norm, [3, 4, 25, 2], 30);
        near.x.iter_mut().for_each(|x| *x *= 16.0);
        let mut far = near.clone();
        far.x.iter_mut().for_each(|x| *x += 1e7);
        let (near, far) = (near.run(), far.run());
        let mut names: Vec<_> = named(&near).into_iter().map(|named| named.0).collect();
        names.retain(|&name| name != "bn.running_mean_after");
        assert_same(&far, &near, &names);
    }
}

#[test]
fn a_nan_stays_in_its_part() {
    let (n, c, l) = (3, 4, 5);
    for norm in family() {
        let clean = Case::of(norm, [n, c, l, 2], 31);
        let before = clean.run();
        for poison in [f32::NAN, f32::INFINITY] {
            // An element of the second sample's third channel.
            let at = (c + 2) * l + 3;
            let mut case = clean.clone();
            case.x[at] = poison;
            let after = case.run();
            let running = norm.has_running_statistics() && !norm.training;
            for i in 0..n * c * l {
                let (sample, channel) = (i / (c * l) == 1, i / l % c == 2);
                let group = i / l % c / 2 == 1;
                let reached = match norm.kind {
                    // Running statistics are constants.
                    NormKind::BatchNorm | NormKind::EstBn | NormKind::InstanceNorm if running => {
                        i == at
                    }
                    NormKind::BatchNorm | NormKind::EstBn => channel,
                    NormKind::InstanceNorm => sample && channel,
                    NormKind::GroupNorm => sample && group,
                    NormKind::BcNorm => (sample || !running) && group,
                    _ => sample,
                };
                let wrong = !after.y[i].is_finite();
                assert_eq!(wrong, reached, "{norm:?}, {poison}: y of {i}");
                if !reached {
                    assert_eq!(after.y[i], before.y[i]);
                }
            }
        }
    }
}

#[test]
fn wrong_lengths_panic_and_say_which() {
    let case = Case::new([3, 4, 5, 2], BATCH, true, 13);
    let right = case.input();
    let short = &case.x[..3];
    for (input, name) in [
        (Input { x: short, ..right }, "x"),
        (
            Input {
                grad_y: Some(short),
                ..right
            },
            "grad_y",
        ),
        (
            Input {
                residual: Some(short),
                ..right
            },
            "residual",
        ),
        (
            Input {
                bn_weight: Some(short),
                ..right
            },
            "bn_weight",
        ),
        (
            Input {
                bn_bias: Some(short),
                ..right
            },
            "bn_bias",
        ),
        (
            Input {
                weight: Some(short),
                ..right
            },
            "weight",
        ),
        (
            Input {
                bias: Some(short),
                ..right
            },
            "bias",
        ),
        (
            Input {
                running_mean: Some(short),
                ..right
            },
            "running_mean",
        ),
        (
            Input {
                running_var: Some(short),
                ..right
            },
            "running_var",
        ),
        (
            Input {
                running_mean: None,
                ..right
            },
            "running_mean",
        ),
        (
            Input {
                running_var: None,
                ..right
            },
            "running_var",
        ),
        (
            Input {
                num_groups: 0,
                ..right
            },
            "num_groups",
        ),
        (
            Input {
                num_groups: 3,
                ..right
            },
            "num_groups",
        ),
        (
            Input {
                num_samples: usize::MAX,
                ..right
            },
            "x",
        ),
    ] {
        let payload = catch_unwind(|| normalize(&input)).unwrap_err();
        let message = payload.downcast_ref::<String>().unwrap();
        assert!(message.starts_with(&format!("{name} ")), "{message}");
    }
}

// ---------------------------------------------------------------------------------------------
// The measure.

#[test]
fn scales_and_errors() {
    assert_eq!(oracle::scale(&[1.0, -3.0, 2.0]), 3.0);
    assert_eq!(oracle::scale(&[f64::NAN, 2.0, f64::NEG_INFINITY]), 2.0);
    assert_eq!(oracle::scale(&[]), 0.0);

    assert_eq!(oracle::element_error(1.5, 1.0, 2.0), 0.25);
    assert_eq!(
        oracle::error(&[1.0f32, 1.5, 0.5], &[1.0, 1.0, 1.0], 2.0),
        0.25
    );
    assert_eq!(oracle::error(&[1.5f64], &[1.0], 0.0), f64::INFINITY);
    assert_eq!(oracle::error(&[1.0f64], &[1.0], 0.0), 0.0);
    assert_eq!(oracle::error(&[1.0f64], &[1.0, 1.0], 1.0), f64::INFINITY);
    let empty: [f32; 0] = [];
    assert_eq!(oracle::error(&empty, &[], 1.0), 0.0);
    // A NaN is not hidden by what comes before or after.
    for got in [
        [f32::NAN, 2.0, 1.0],
        [2.0, f32::NAN, 1.0],
        [1.0, 2.0, f32::NAN],
    ] {
        assert_eq!(oracle::error(&got, &[1.0, 1.0, 1.0], 1.0), f64::INFINITY);
    }
    for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(oracle::element_error(special, special, 1.0), 0.0);
        assert_eq!(oracle::element_error(1.0, special, 1.0), f64::INFINITY);
        assert_eq!(oracle::element_error(special, 1.0, 1.0), f64::INFINITY);
        assert_eq!(oracle::element_error(1.0, 1.0, special), f64::INFINITY);
    }
    assert_eq!(oracle::element_error(1.0, 1.0, -1.0), f64::INFINITY);
    let infinities = (f64::INFINITY, f64::NEG_INFINITY);
    assert_eq!(
        oracle::element_error(infinities.0, infinities.1, 1.0),
        f64::INFINITY
    );
}
