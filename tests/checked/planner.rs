//! Plans of random norms, tensors, options and tunings, with overflow checks on: each is an error whose numbers and
//! advice are true, or a plan that a device could run.
#![allow(missing_docs)]

extern crate bcnorm_checked as bcnorm;

#[path = "../suite/common/work.rs"]
mod work;

use bcnorm::desc::{Activation, Fusion, GradientMode, NormKind};
use bcnorm::kernels::Element;
use bcnorm::params::UNIFORM_BYTES;
use bcnorm::plan::{BoundBuffer, Limits};
use bcnorm::{
    BackwardOptions, DType, Error, ForwardOptions, Layout, Mode, NormDesc, Plan, RowSource,
    TensorDesc, Tuning,
};
use bcnorm_testkit::random::SplitMix64;
use std::collections::{BTreeMap, HashSet};
use std::hint::black_box;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// llvmpipe ends an invocation behind so many loop iterations.
const MAX_ITERATIONS: u64 = 65_535;

/// Windows of a tensor, each with its end on its own.
const MAX_STEPS_OF_A_KERNEL: usize = 2 * 4096;

/// Draws the values of requests.
struct Random(SplitMix64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    /// Once in so many times.
    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    /// A size of a tensor: small mostly, and around every power of two that matters.
    fn size(&mut self) -> usize {
        const SMALL: &[usize] = &[
            1, 2, 3, 4, 5, 7, 8, 16, 17, 31, 32, 49, 64, 100, 255, 256, 257,
        ];
        const LARGE: &[usize] = &[
            0,
            1000,
            4096,
            65_535,
            65_536,
            65_537,
            1 << 20,
            (1 << 24) + 1,
            1 << 30,
            (1 << 31) - 1,
            1 << 31,
            (1 << 31) + 1,
            (1 << 32) - 1,
            1 << 32,
            (1 << 32) + 1,
            usize::MAX,
        ];
        match self.below(10) {
            0..=5 => self.pick(SMALL),
            6 => self.pick(LARGE),
            7 => self.below(70) as usize,
            8 => self.below(5000) as usize,
            _ => 1,
        }
    }

    /// A value of a tuning.
    fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => self.pick(&[0, 1, 0xffff_ffff, 0xffff_fffe, 1 << 31, (1 << 31) - 1]),
            1 => 1 << self.below(32),
            2 => self.below(2000),
            3 => self.below(1 << 32),
            _ => 1 << self.below(10),
        }
    }
}

/// What a plan is made of.
#[derive(Debug, Clone)]
struct Request {
    norm: NormDesc,
    dims: Vec<usize>,
    dtype: DType,
    layout: Layout,
    mode: Mode,
    forward: ForwardOptions,
    backward: BackwardOptions,
    tuning: Tuning,
}

impl Request {
    fn random(r: &mut Random) -> Self {
        let rank = match r.below(12) {
            0 => 8,
            1 => r.below(9),
            _ => 2 + r.below(4),
        };
        let mut dims: Vec<usize> = (0..rank).map(|_| r.size()).collect();
        let channels = match dims.get(1) {
            Some(&channels) if !r.one_in(20) => channels,
            _ => r.size(),
        };
        let divisors = [1, 2, 3, 4, 8, 16, 32, 64, 256, channels, channels / 2];
        let divisors = divisors
            .into_iter()
            .filter(|g| channels.checked_rem(*g) == Some(0));
        let groups = match divisors.collect::<Vec<_>>() {
            divisors if !divisors.is_empty() && !r.one_in(30) => r.pick(&divisors),
            _ => r.size(),
        };
        let mut norm = match r.below(7) {
            0 => NormDesc::batch_norm(channels),
            1 => NormDesc::est_bn(channels),
            2 => NormDesc::group_norm(groups, channels),
            3 => NormDesc::instance_norm(channels),
            4 => NormDesc::layer_norm(channels),
            5 => NormDesc::bc_norm(channels, groups),
            _ => NormDesc::weight_standardization(),
        };
        if norm.kind == NormKind::WeightStandardization && dims.len() > 1 {
            dims[1] = 1;
        }
        if r.one_in(3) {
            norm.weight = r.one_in(2);
            norm.bias = r.one_in(2);
            norm.bn_weight = r.one_in(2);
            norm.bn_bias = r.one_in(2);
            norm.per_channel_affine = r.one_in(2);
        }
        if r.one_in(4) {
            norm.track_running_stats = r.one_in(2);
        }
        match r.below(12) {
            0 | 1 => norm = norm.with_moving_speed(0.5),
            2 => norm = norm.with_momentum(None),
            _ => {}
        }
        if r.one_in(40) {
            norm.eps = r.pick(&[0.0, -1.0, f32::NAN, f32::INFINITY, f32::MAX]);
        }
        if r.one_in(40) {
            norm.num_groups = r.size();
        }
        let fusion = Fusion::NONE
            .with_activation(r.pick(&[Activation::None, Activation::Relu, Activation::Silu]))
            .with_residual(r.one_in(2));
        let world_size = match r.one_in(8) {
            true => NonZero::new(r.pick(&[1, 2, 8, 65_536, u32::MAX])),
            false => None,
        };
        let rows = r.pick(&[RowSource::Computed, RowSource::Computed, RowSource::Given]);
        let writes = [GradientMode::Replace, GradientMode::Accumulate];
        let mut tuning = r.pick(&[Tuning::GPU, Tuning::SOFTWARE, Tuning::CPU]);
        let settings = tuning.settings();
        for _ in 0..r.below(5) {
            let (name, _) = r.pick(&settings);
            let value = match name {
                "limits.max_binding_bytes" if r.one_in(4) => u64::MAX,
                "limits.max_binding_bytes" => r.number().saturating_mul(r.pick(&[1, 64, 4096])),
                _ => r.number(),
            };
            tuning.set(&format!("{name}={value}")).unwrap();
        }
        Self {
            norm,
            dims,
            dtype: r.pick(&[DType::F32, DType::F16, DType::BF16]),
            layout: r.pick(&[Layout::ChannelsFirst, Layout::ChannelsLast]),
            mode: r.pick(&[Mode::Train, Mode::Eval]),
            forward: ForwardOptions::default()
                .with_fusion(fusion)
                .with_in_place(r.one_in(6))
                .with_inference(r.one_in(3))
                .with_rows(rows)
                .with_world_size(world_size),
            backward: BackwardOptions::default()
                .with_x(r.pick(&writes))
                .with_parameters(r.pick(&writes))
                .with_fusion(fusion)
                .with_rows(rows)
                .with_world_size(world_size),
            tuning,
        }
    }

    fn plan(&self, backward: bool) -> Result<Plan, Error> {
        let tensor = TensorDesc::new(&self.dims)?;
        let tensor = tensor.with_dtype(self.dtype).with_layout(self.layout);
        let (norm, mode, tuning) = (&self.norm, self.mode, &self.tuning);
        match backward {
            false => Plan::forward(norm, &tensor, mode, self.forward, tuning),
            true => Plan::backward(norm, &tensor, mode, self.backward, tuning),
        }
    }

    /// The same after all that an error's way out says.
    fn following(&self, way_out: &str) -> Self {
        let mut other = self.clone();
        let says = |what| way_out.contains(what);
        let mut followed = 0;
        let mut follow = |what, change: &mut dyn FnMut()| {
            if says(what) {
                followed += 1;
                change();
            }
        };
        let ws = self.norm.kind == NormKind::WeightStandardization;
        follow("split the batch", &mut || {
            assert!(
                self.dims[0] > 1,
                "{way_out:?} says a batch of {:?}",
                self.dims
            );
            other.dims[0] = 1;
        });
        follow("fewer channels", &mut || {
            assert!(!ws && self.dims[1] > 1, "{way_out:?} of {:?}", self.dims);
            other.dims[1] = 1;
            (other.norm.num_channels, other.norm.num_groups) = (1, 1);
        });
        follow("more groups", &mut || {
            other.norm.num_groups = other.norm.num_channels
        });
        follow("smaller spatial sizes", &mut || {
            assert!(
                self.dims.len() > 2 || says("fewer channels"),
                "{way_out:?} of {:?}",
                self.dims
            );
            other.dims.truncate(2);
        });
        follow("fewer devices", &mut || {
            (other.forward.world_size, other.backward.world_size) =
                (NonZero::new(1), NonZero::new(1));
        });
        let tuning = &mut other.tuning;
        follow("a larger parts.max_words_per_lane", &mut || {
            tuning.parts.max_words_per_lane = 195_000;
            tuning.parts.max_column_bytes = u64::MAX;
        });
        follow("smaller parts (parts.max_words_per_lane)", &mut || {
            tuning.limits.max_binding_bytes = u64::MAX;
        });
        follow("a smaller parts.min_invocations", &mut || {
            tuning.parts.min_invocations = 1
        });
        follow("a smaller fold.samples_per_segment", &mut || {
            tuning.fold.samples_per_segment = 1
        });
        follow("fewer short rows", &mut || {
            (tuning.short_rows.max_row, tuning.short_rows.max_batch_row) = (0, 0);
        });
        follow("raise tuning.limits.max_binding_bytes", &mut || {
            tuning.limits.max_binding_bytes = u64::MAX;
        });
        follow("larger workgroups", &mut || {
            tuning.limits.max_workgroups = tuning.limits.max_workgroups.max(65_535);
            tuning.reduction.workgroup_size = 256.max(tuning.reduction.workgroup_size);
            tuning.map.workgroup_size = 256.max(tuning.map.workgroup_size);
            tuning.fold.workgroup_size = 256.max(tuning.fold.workgroup_size);
            tuning.columns.workgroup_size = 256.max(tuning.columns.workgroup_size);
            (tuning.reduction.lanes, tuning.map.lanes, tuning.fold.lanes) = (1, 1, 1);
        });
        assert!(followed > 0, "{way_out:?} is not known here");
        other
    }
}

/// What an error says, without its numbers: equal for the same refusal.
fn without_numbers(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// An error that says what is so, and a way out that helps.
fn check_error(request: &Request, backward: bool, error: &Error) {
    match error {
        Error::Limit {
            what,
            value,
            limit,
            way_out,
            ..
        } => {
            assert!(value > limit, "{error}");
            let other = request.following(way_out);
            if let Err(Error::Limit { what: again, .. }) = other.plan(backward) {
                assert_ne!(without_numbers(what), without_numbers(&again), "{error}");
            }
        }
        Error::TooManyElements {
            elements,
            limit,
            way_out,
            ..
        } => {
            assert!(*elements > u128::from(*limit), "{error}");
            let other = request.following(way_out).plan(backward);
            if let Err(again @ Error::TooManyElements { .. }) = other {
                assert_ne!(
                    without_numbers(&error.to_string()),
                    without_numbers(&again.to_string())
                );
            }
        }
        Error::ChannelMismatch {
            found,
            expected,
            dims,
        } => {
            assert!(found != expected && dims[1] == *found, "{error}");
        }
        Error::OneValuePerChannel { way_out, .. } => {
            if way_out.contains("eval()") {
                let mode = Mode::Eval;
                let other = Request {
                    mode,
                    ..request.clone()
                }
                .plan(backward);
                let same = matches!(other, Err(Error::OneValuePerChannel { .. }));
                assert!(request.mode == Mode::Train && !same, "{error}");
            }
        }
        Error::Tuning { problems } => assert!(!problems.is_empty()),
        // What the norm was given is not what it has.
        Error::Stats { given, .. } => {
            assert!(
                given.contains("momentum") || given.contains("speed"),
                "{error}"
            );
        }
        Error::Rank { .. }
        | Error::NoChannels
        | Error::Groups { .. }
        | Error::Parameter { .. }
        | Error::InPlace => {}
        other => panic!("no error of a planner: {other}"),
    }
}

/// A plan that a device could run: every size bounded, and as large as what runs over it.
fn check_plan(plan: &Plan, tuning: &Tuning) {
    let tensor = plan.tensor();
    let mut roles = HashSet::new();
    for need in plan.needs() {
        assert!(need.bytes > 0 && need.bytes.is_multiple_of(4), "{need:?}");
        assert!(roles.insert(need.role), "{need:?} twice");
    }
    let mut steps_of = BTreeMap::new();
    for step in plan.steps() {
        let (spec, name) = (&step.spec, step.spec.kernel.name());
        *steps_of.entry(name).or_insert(0) += 1;
        let lanes = spec.lanes;
        assert!(
            lanes.is_power_of_two() && spec.workgroup_size > 0,
            "{spec:?}"
        );
        assert!(spec.workgroup_size.is_multiple_of(lanes), "{spec:?}");
        assert!(lanes.is_multiple_of(spec.subgroup_size), "{spec:?}");
        assert!(spec.width > 0 && spec.column_words > 0, "{spec:?}");

        let [x, y] = step.workgroups;
        let most = tuning.limits.max_workgroups.max(1);
        assert!(
            (1..=most).contains(&x) && (1..=most).contains(&y),
            "{name}: {x} x {y}"
        );
        let each = u64::from(spec.workgroup_size / lanes) * u64::from(spec.column_words);
        let numbered = u64::from(x) * u64::from(y) * each;
        let items = u64::from(step.params.dispatch().items);
        assert!(
            0 < items && items <= numbered && numbered <= 1 << 32,
            "{step:?}"
        );
        let end = items + u64::from(step.params.dispatch().first_item);
        assert!(end <= work::items(step, plan), "{step:?}");
        let iterations = work::iterations(step);
        assert!(
            iterations <= MAX_ITERATIONS,
            "{iterations} iterations of {step:?}"
        );

        if let Some(window) = step.window {
            assert!(window.offset.is_multiple_of(256) && window.bytes.is_multiple_of(4));
            assert!(
                0 < window.bytes && window.bytes <= tuning.limits.max_binding_bytes,
                "{step:?}"
            );
            let end = window.offset.checked_add(window.bytes).unwrap();
            assert!(end <= tensor.buffer_bytes(), "{step:?}");
        }
        for ((_, declared), &role) in spec.bindings().zip(&step.bindings) {
            let need = plan.need(role).unwrap();
            if declared.element == Element::Word {
                assert_eq!(need.bytes, tensor.buffer_bytes());
                assert!(
                    step.window.is_some() || need.bytes <= tuning.limits.max_binding_bytes,
                    "{step:?}"
                );
                continue;
            }
            let entries = work::entries(step, plan, declared);
            assert!(entries <= 1 << 32, "{role} has {entries} entries: {step:?}");
            assert!(
                entries * declared.element.bytes(spec) <= need.bytes,
                "{role}: {step:?}"
            );
        }
    }
    for (name, steps) in steps_of {
        assert!(steps <= MAX_STEPS_OF_A_KERNEL, "{steps} steps of {name}");
    }
    assert!(plan.all_gather_before().unwrap_or(0) <= plan.steps().len());
}

/// All that a caller asks of a plan, with any numbers.
fn use_plan(plan: &Plan, r: &mut Random) {
    let mut limits = Limits::default();
    limits.min_storage_buffer_offset_alignment = r.pick(&[0, 1, 3, 32, 256, 256, u32::MAX]);
    limits.max_storage_buffer_binding_size = r.pick(&[0, 1 << 20, 128 << 20, u64::MAX]);
    limits.max_buffer_size = r.pick(&[0, 1 << 20, 256 << 20, u64::MAX]);
    if let Err(error) = plan.check_limits(&limits) {
        let Error::Limit {
            value,
            limit,
            way_out,
            ..
        } = &error
        else {
            panic!("{error}");
        };
        assert!(value > limit, "{error}");
        let batch = plan.tensor().num_samples() > 1;
        assert!(batch || !way_out.contains("batch"), "{error}");
    }
    let steps = plan.steps();
    let uniforms = plan.uniforms(r.pick(&[0, 16, 256])).unwrap();
    assert!(uniforms.len() >= UNIFORM_BYTES * steps.len());
    for stride in [1 << 20, usize::MAX] {
        assert!(matches!(plan.uniforms(stride), Err(Error::Limit { .. })));
    }
    let bytes = plan.tensor_bytes();
    if steps.len() < 500 {
        assert_eq!(
            bytes,
            steps.iter().map(|step| plan.step_bytes(step)).sum::<u64>()
        );
    }
    let buffers = plan.needs().iter().map(|need| BoundBuffer {
        role: need.role,
        id: r.below(40) as usize,
        storage: !r.one_in(20),
        usage: &"none",
        offset: r.pick(&[0, 0, 256, 4, u64::MAX, u64::MAX - 3, u64::MAX / 2]),
        size: r.pick(&[
            need.bytes,
            need.bytes,
            need.bytes.saturating_add(256),
            0,
            u64::MAX,
        ]),
    });
    let _ = plan.check_buffers(&buffers.collect::<Vec<_>>(), r.one_in(2), &limits);
}

#[test]
fn overflow_is_seen_here() {
    let sum = catch_unwind(|| black_box(u32::MAX) + black_box(1));
    assert!(sum.is_err() && cfg!(debug_assertions));
}

#[test]
fn random_plans_are_sound_or_refused() {
    let mut found = BTreeMap::new();
    let mut failed = Vec::new();
    for seed in 0..20_000 {
        let request = Request::random(&mut Random(SplitMix64(seed)));
        let from = Instant::now();
        let checked = catch_unwind(AssertUnwindSafe(|| {
            [false, true].map(|backward| match request.plan(backward) {
                Ok(plan) => {
                    check_plan(&plan, &request.tuning);
                    use_plan(&plan, &mut Random(SplitMix64(!seed)));
                    "plans"
                }
                Err(error) => {
                    check_error(&request, backward, &error);
                    match error {
                        Error::Limit { .. } => "limits",
                        Error::TooManyElements { .. } => "elements",
                        Error::OneValuePerChannel { .. } => "values",
                        Error::Tuning { .. } => "tunings",
                        _ => "others",
                    }
                }
            })
        }));
        match checked {
            Ok(kinds) => kinds.map(|kind| *found.entry(kind).or_insert(0) += 1),
            Err(_) => {
                println!("seed {seed}: {request:?}");
                failed.push(seed);
                [(); 2]
            }
        };
        let seconds = from.elapsed().as_secs_f32();
        assert!(seconds < 5.0, "seed {seed} took {seconds} s: {request:?}");
    }
    println!("{found:?}");
    assert!(failed.is_empty(), "{} fail: {failed:?}", failed.len());
    for (kind, least) in [
        ("plans", 10_000),
        ("limits", 300),
        ("elements", 300),
        ("values", 50),
        ("tunings", 1000),
    ] {
        assert!(
            found.get(kind).is_some_and(|&count| count >= least),
            "{kind}: {found:?}"
        );
    }
}

/// The tunings that are there, at the sizes where u32 ends.
#[test]
fn the_widest_tensors_are_planned_or_refused() {
    let channels = [
        65_536,
        (1 << 24) + 1,
        (1 << 31) - 1,
        1 << 31,
        (1 << 31) + 1,
        (1 << 32) - 17,
        (1 << 32) - 1,
    ];
    let mut plans = 0;
    for c in channels {
        let norms = [
            NormDesc::batch_norm(c),
            NormDesc::est_bn(c),
            NormDesc::layer_norm(c),
            NormDesc::bc_norm(c, 1),
            NormDesc::group_norm(c, c),
            NormDesc::instance_norm(c),
        ];
        let storages = [DType::F32, DType::F16].into_iter().flat_map(|dtype| {
            [Layout::ChannelsFirst, Layout::ChannelsLast].map(|layout| (dtype, layout))
        });
        for (norm, (dtype, layout)) in norms
            .iter()
            .flat_map(|norm| storages.clone().map(move |storage| (norm, storage)))
        {
            for tuning in [Tuning::GPU, Tuning::SOFTWARE, Tuning::CPU] {
                for mode in [Mode::Train, Mode::Eval] {
                    let request = Request {
                        norm: *norm,
                        dims: vec![1, c],
                        dtype,
                        layout,
                        mode,
                        forward: ForwardOptions::default(),
                        backward: BackwardOptions::default(),
                        tuning,
                    };
                    for backward in [false, true] {
                        match request.plan(backward) {
                            Ok(plan) => {
                                check_plan(&plan, &tuning);
                                plans += 1;
                            }
                            Err(error) => check_error(&request, backward, &error),
                        }
                    }
                }
            }
        }
    }
    assert!(plans > 300, "{plans}");
}

/// A tensor has so many windows at most, whatever its size, and a plan of as many is quick to make and to add up.
#[test]
fn windows_are_bounded() {
    // Of positions or rows, and of words as they come (an odd C of 16 bits).
    for (channels, dtype, layout) in [
        (64, DType::F32, Layout::ChannelsFirst),
        (64, DType::F32, Layout::ChannelsLast),
        (63, DType::F16, Layout::ChannelsLast),
    ] {
        let norm = NormDesc::bc_norm(channels, 1);
        let tensor = TensorDesc::new(&[64, channels, 256, 256]).unwrap();
        let tensor = tensor.with_dtype(dtype).with_layout(layout);
        let plan = |max_binding_bytes| {
            let tuning = Tuning::SOFTWARE.with(|t| {
                t.limits.max_binding_bytes = max_binding_bytes;
                t.parts.max_words_per_lane = 1;
            });
            let options = ForwardOptions::default();
            let plan = Plan::forward(&norm, &tensor, Mode::Train, options, &tuning);
            plan.inspect(|plan| check_plan(plan, &tuning))
        };
        let from = Instant::now();
        let error = plan(512).unwrap_err();
        let Error::Limit {
            value,
            limit,
            way_out,
            ..
        } = &error
        else {
            panic!("{error}");
        };
        assert!(*value >= tensor.bytes() / 512 && *limit == 4096, "{error}");
        assert!(
            way_out.contains("raise tuning.limits.max_binding_bytes"),
            "{error}"
        );
        // As few as may be fit, and there are nearly as many then.
        let bytes = (tensor.bytes() / 3900).next_multiple_of(256);
        let plan = plan(bytes).unwrap();
        assert!(plan.steps().len() > 2 * 3800, "{}", plan.steps().len());
        // Neighbours may both bind what lies between two items, up to multiples of 256.
        let shared = 1024 * plan.steps().len() as u64;
        let (found, least) = (plan.tensor_bytes(), 3 * tensor.bytes());
        assert!(
            found >= least && found - least <= shared,
            "{found} {least} {shared}"
        );
        let seconds = from.elapsed().as_secs_f32();
        assert!(seconds < 5.0, "{seconds} s");
    }
}

/// As many channels of a group as 256 invocations fold, and one more.
#[test]
fn the_limit_of_a_fold_is_the_one_that_is_told() {
    let plan = |channels: usize| {
        let tensor = TensorDesc::new(&[1, channels, 3]).unwrap();
        let options = ForwardOptions::default().with_rows(RowSource::Given);
        let norm = NormDesc::layer_norm(channels);
        Plan::forward(&norm, &tensor, Mode::Train, options, &Tuning::SOFTWARE)
    };
    let most = 256 * (65_000 - 4) / 4;
    check_plan(&plan(most).unwrap(), &Tuning::SOFTWARE);
    let error = plan(most + 1).unwrap_err();
    let Error::Limit { value, limit, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((value, limit), (most as u64 + 1, most as u64));
}
