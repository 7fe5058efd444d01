//! The oracle against PyTorch, against finite differences, and on the cases at the edges.

mod common;

use bcnorm::oracle::{self, Gradients, Input, Output, Stats, bcnorm};
use common::compare::assert_close;
use common::golden::{self, Golden};
use std::panic::catch_unwind;
use std::path::PathBuf;

// ---------------------------------------------------------------------------------------------
// Against PyTorch in f64.

fn golden_input(golden: &Golden) -> Input<'_> {
    let tensor = |name: &str| golden.tensors[name].as_slice();
    Input {
        num_samples: golden.dims[0],
        num_channels: golden.dims[1],
        row_len: golden.dims[2..].iter().product(),
        num_groups: golden.num_groups,
        eps: golden.eps_f64,
        stats: match golden.stats {
            golden::Stats::Batch => Stats::Batch {
                momentum: golden.momentum,
            },
            golden::Stats::Estimate => Stats::Estimate {
                moving_speed: golden.moving_speed,
            },
        },
        training: golden.training,
        x: tensor("x"),
        grad_y: Some(tensor("grad_y")),
        bn_weight: tensor("bn.weight"),
        bn_bias: tensor("bn.bias"),
        weight: tensor("weight"),
        bias: tensor("bias"),
        running_mean: tensor("bn.running_mean"),
        running_var: tensor("bn.running_var"),
        num_batches_tracked: 0,
    }
}

/// The tensors of an output with their scales, under the names of the golden files.
fn named(output: &Output) -> [(&'static str, &[f64], f64); 8] {
    let gradients = output.gradients.as_ref().unwrap();
    let whole = |name, values| (name, values, oracle::scale(values));
    [
        whole("y", &output.y),
        whole("bn.running_mean_after", &output.running_mean),
        whole("bn.running_var_after", &output.running_var),
        whole("grad_x", &gradients.x),
        (
            "grad_bn.weight",
            &gradients.bn_weight,
            gradients.bn_weight_scale,
        ),
        ("grad_bn.bias", &gradients.bn_bias, gradients.bn_bias_scale),
        ("grad_weight", &gradients.weight, gradients.weight_scale),
        ("grad_bias", &gradients.bias, gradients.bias_scale),
    ]
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
    for path in golden::paths() {
        let golden = golden::load(&path).unwrap();
        let output = bcnorm(&golden_input(&golden));
        let bias_scale = output.gradients.as_ref().unwrap().bn_bias_scale;
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
        let output = bcnorm(&input);
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
                weight: &right.weight[..2],
                bias: &right.bias[..2],
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
    /// N, C, L, G.
    shape: [usize; 4],
    stats: Stats,
    training: bool,
    eps: f64,
    x: Vec<f32>,
    grad_y: Vec<f32>,
    bn_weight: Vec<f32>,
    bn_bias: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    running_mean: Vec<f32>,
    running_var: Vec<f32>,
}

impl Case {
    /// All values are multiples of 1/16, between -2 and 2, weights and variances between 1/2 and 2.
    fn new(shape: [usize; 4], stats: Stats, training: bool, seed: u64) -> Self {
        let [n, c, l, g] = shape;
        let mut random = Random(seed);
        let mut signed = |len| random.sixteenths(len, -32, 32);
        let (x, grad_y) = (signed(n * c * l), signed(n * c * l));
        let (bn_bias, bias, running_mean) = (signed(c), signed(g), signed(c));
        let mut positive = |len| random.sixteenths(len, 8, 32);
        Self {
            shape,
            stats,
            training,
            eps: 1e-3,
            x,
            grad_y,
            bn_weight: positive(c),
            bn_bias,
            weight: positive(g),
            bias,
            running_mean,
            running_var: positive(c),
        }
    }

    fn input(&self) -> Input<'_> {
        let [num_samples, num_channels, row_len, num_groups] = self.shape;
        Input {
            num_samples,
            num_channels,
            row_len,
            num_groups,
            eps: self.eps,
            stats: self.stats,
            training: self.training,
            x: &self.x,
            grad_y: Some(&self.grad_y),
            bn_weight: &self.bn_weight,
            bn_bias: &self.bn_bias,
            weight: &self.weight,
            bias: &self.bias,
            running_mean: &self.running_mean,
            running_var: &self.running_var,
            num_batches_tracked: 3,
        }
    }

    fn run(&self) -> Output {
        bcnorm(&self.input())
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
        let y = bcnorm(&input).y;
        let terms = y.iter().zip(&self.grad_y);
        terms.map(|(y, &grad_y)| y * f64::from(grad_y)).sum()
    }

    /// The tensors that have gradients, in the order of [`gradient_tensors`].
    fn tensors(&mut self) -> [&mut Vec<f32>; 5] {
        [
            &mut self.x,
            &mut self.bn_weight,
            &mut self.bn_bias,
            &mut self.weight,
            &mut self.bias,
        ]
    }

    /// The loss after a step along `direction`, which must lose nothing in f32.
    fn loss_at(&self, direction: &[Vec<f32>; 5], step: f32) -> f64 {
        let mut moved = self.clone();
        for (values, direction) in moved.tensors().into_iter().zip(direction) {
            for (value, direction) in values.iter_mut().zip(direction) {
                let exact = f64::from(*value) + f64::from(step) * f64::from(*direction);
                *value = exact as f32;
                assert_eq!(f64::from(*value), exact);
            }
        }
        moved.loss()
    }

    /// The derivative of the loss along `direction`, by central differences of sixth order.
    fn slope(&self, direction: &[Vec<f32>; 5]) -> f64 {
        const STEP: f32 = 1.0 / 256.0;
        let difference = |steps: f32| {
            self.loss_at(direction, steps * STEP) - self.loss_at(direction, -steps * STEP)
        };
        let sum = 45.0 * difference(1.0) - 9.0 * difference(2.0) + difference(3.0);
        sum / (60.0 * f64::from(STEP))
    }
}

fn gradient_tensors(gradients: &Gradients) -> [&[f64]; 5] {
    [
        &gradients.x,
        &gradients.bn_weight,
        &gradients.bn_bias,
        &gradients.weight,
        &gradients.bias,
    ]
}

/// Random directions, each a multiple of 1/16: one through every tensor alone and one through
/// all of them.
fn directions(case: &mut Case, seed: u64) -> Vec<[Vec<f32>; 5]> {
    let mut random = Random(seed);
    let lengths = case.tensors().map(|values| values.len());
    (0..6)
        .map(|only| {
            std::array::from_fn(|tensor| {
                // Odd multiples: none is 0.
                let direction = random.sixteenths(lengths[tensor], -8, 7);
                let direction = direction.iter().map(|d| d * 2.0 + 1.0 / 16.0).collect();
                if only == tensor || only == 5 {
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
fn predicted(gradients: &Gradients, direction: &[Vec<f32>; 5]) -> (f64, f64) {
    let scales = [
        oracle::scale(&gradients.x),
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

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Multiples of 1/16 from `low` / 16 to `high` / 16.
    fn sixteenths(&mut self, len: usize, low: i64, high: i64) -> Vec<f32> {
        let mut value = || (self.next() % (high - low + 1) as u64) as i64 + low;
        (0..len).map(|_| value() as f32 / 16.0).collect()
    }
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
        let (old_mean, old_var) = (case.running_mean[c], case.running_var[c]);
        let (old_mean, old_var) = (f64::from(old_mean), f64::from(old_var));
        let mean = values.iter().sum::<f64>() / 16.0;
        let squares = values.iter().map(|x| (x - old_mean) * (x - old_mean));
        let second_moment = squares.sum::<f64>() / 16.0;
        assert_eq!(output.running_mean[c], 0.5 * old_mean + 0.5 * mean);
        assert_eq!(output.running_var[c], 0.5 * old_var + 0.5 * second_moment);
    }

    let narrowed = |values: &[f64]| -> Vec<f32> {
        let narrow = values.iter().map(|&value| value as f32);
        narrow.inspect(|value| assert!(value.is_finite())).collect()
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
// State.

#[test]
fn the_running_statistics_of_a_batch() {
    let case = |momentum| Case {
        x: vec![1.0, 2.0, 3.0, 6.0],
        running_mean: vec![7.0],
        running_var: vec![2.0],
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
        assert_eq!(output.running_mean, [mean]);
        assert_eq!(output.running_var, [var]);
        assert_eq!(output.num_batches_tracked, 4);
        // How the state moves does not touch what this batch yields.
        assert_eq!(output.y, case(Some(0.5)).run().y);
    }
    let mut first = case(None);
    first.running_mean = vec![1e9];
    let input = Input {
        num_batches_tracked: 0,
        ..first.input()
    };
    assert_eq!(bcnorm(&input).running_mean, [3.0]);
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
        running_mean: vec![7.0],
        ..Case::new([2, 1, 2, 1], speed(1.0), true, 1)
    };
    let output = case.run();
    assert_eq!(output.running_mean, [3.0]);
    assert_eq!(output.running_var, [(36.0 + 25.0 + 16.0 + 1.0) / 4.0]);
}

#[test]
fn the_forward_pass_alone() {
    let case = Case::new([3, 4, 5, 2], BATCH, true, 2);
    let output = bcnorm(&Input {
        grad_y: None,
        ..case.input()
    });
    assert_eq!(output.gradients, None);
    assert_eq!(output.y, case.run().y);
}

// ---------------------------------------------------------------------------------------------
// Edges.

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
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
            assert_eq!(lengths, [0, c, c, 2, 2]);
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
        .map(|i| f64::from(case.bias[group_of(i)]))
        .collect();
    assert_eq!(output.y, bias);

    let gradients = output.gradients.unwrap();
    let mut sums = vec![0.0; g];
    for (i, &dy) in case.grad_y.iter().enumerate() {
        sums[group_of(i)] += f64::from(dy);
    }
    assert_eq!(gradients.bias, sums);
    assert!(is_zero(&gradients.weight));
    assert_eq!(gradients.weight_scale, 0.0);
    gradient_tensors(&gradients)[..3].concat()
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
                    bn_bias: bn_bias.clone(),
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
    assert!(output.running_var.iter().all(|var| var.is_nan()));
    assert!(output.running_mean.iter().all(|mean| mean.is_finite()));
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
    for ((name, got, _), (_, expected, scale)) in named(got).into_iter().zip(named(expected)) {
        if names.contains(&name) {
            assert_close(name, got, expected, scale, SAME);
        }
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
            bn_weight: vec![0.7; 6],
            running_var: vec![3.0; 6],
            ..integers([3, 6, 25, 2], stats, false)
        };
        let mut far = near.clone();
        for x in &mut far.x {
            *x += 1e7;
        }
        let names = ["y", "grad_x", "grad_bn.bias", "grad_weight", "grad_bias"];
        assert_same(&far.run(), &near.run(), &names);

        // The same offset in the running mean changes nothing at all.
        far.running_mean
            .iter_mut()
            .for_each(|mean| *mean = mean.round() + 1e7);
        let mut near = near;
        near.running_mean
            .iter_mut()
            .for_each(|mean| *mean = mean.round());
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
        let names = named(&output).map(|named| named.0);
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
            for g in 0..groups {
                assert_eq!(gradients.weight[g].is_nan(), g == 1);
                assert_eq!(gradients.bias[g], gradients_before.bias[g]);
            }
            for channel in 0..c {
                let in_group = channel / (c / groups) == 1;
                assert_eq!(gradients.bn_weight[channel].is_nan(), in_group);
                assert_eq!(gradients.bn_bias[channel].is_nan(), in_group);
                let mean = after.running_mean[channel];
                if training && channel == 2 {
                    let mean_is_poison = mean == f64::from(poison);
                    assert!(
                        mean_is_poison || (mean.is_nan() && poison.is_nan()),
                        "{mean}"
                    );
                    assert!(!after.running_var[channel].is_finite());
                } else {
                    assert_eq!(mean, before.running_mean[channel]);
                    assert_eq!(after.running_var[channel], before.running_var[channel]);
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
                bn_weight: short,
                ..right
            },
            "bn_weight",
        ),
        (
            Input {
                bn_bias: short,
                ..right
            },
            "bn_bias",
        ),
        (
            Input {
                weight: short,
                ..right
            },
            "weight",
        ),
        (
            Input {
                bias: short,
                ..right
            },
            "bias",
        ),
        (
            Input {
                running_mean: short,
                ..right
            },
            "running_mean",
        ),
        (
            Input {
                running_var: short,
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
        let payload = catch_unwind(|| bcnorm(&input)).unwrap_err();
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
