//! Every mistake of a caller that can be seen is an error of the library's, before anything is
//! recorded: its message names the value, the limit and the way out, wgpu never hears of it, and
//! what the caller does next works as if it had not happened.
#![allow(missing_docs)]

use crate::common;

use bcnorm::gpu::{Bindings, Pipelines, PreparedPlan, transfer};
use bcnorm::kernels::Access;
use bcnorm::layer::{StateDict, StateValue};
use bcnorm::{
    Backward, BackwardOptions, ChannelStats, DType, Error, Forward, ForwardOptions, Layout, Mode,
    Norm, NormDesc, Plan, Role, Tensor, TensorDesc, Tuning, cpu,
};
use common::conditioning;
use common::problem::Problem;
use common::random::Random;
use common::run;
use common::targets::Target;
use common::watch::Watched;
use pollster::block_on;
use std::collections::{BTreeMap, BTreeSet};

/// The variant's name.
fn variant(error: &Error) -> String {
    let debug = format!("{error:?}");
    let end = debug.find(|c: char| !c.is_alphanumeric());
    debug[..end.unwrap_or(debug.len())].to_owned()
}

/// The errors that were provoked, each with what its message must say.
#[derive(Default)]
struct Provoked {
    variants: BTreeSet<String>,
}

impl Provoked {
    #[track_caller]
    fn expect<T>(&mut self, result: Result<T, Error>, expected: &str, says: &[&str]) {
        let Err(error) = result else {
            panic!("no error, expected {expected}: {says:?}");
        };
        assert_eq!(variant(&error), expected, "{error}");
        let message = error.to_string();
        for part in says {
            assert!(message.contains(part), "{message:?} does not say {part:?}");
        }
        self.variants.insert(expected.to_owned());
    }
}

/// Every variant of the enum but those that no caller's mistake causes is provoked below.
#[test]
fn every_variant_is_provoked() {
    let text = include_str!("../../src/error.rs");
    let (_, body) = text.split_once("pub enum Error {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let mut variants: BTreeSet<String> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| {
            line.split(|c: char| !c.is_alphanumeric())
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert!(variants.len() >= 18, "{variants:?}");
    for not_a_mistake in ["NoAdapter", "Device"] {
        assert!(variants.remove(not_a_mistake));
    }
    let mut provoked = Provoked::default();
    for provoke in [
        descriptors,
        parameters,
        tunings,
        device_limits,
        buffers,
        layers,
        state_dicts,
        fused_layers,
        host_executor,
    ] {
        provoke(&mut provoked);
    }
    assert_eq!(provoked.variants, variants);
}

#[test]
fn mistakes_in_descriptors() {
    descriptors(&mut Provoked::default());
}

fn descriptors(provoked: &mut Provoked) {
    provoked.expect(
        TensorDesc::new(&[]),
        "Rank",
        &["rank 0", "(N, C, *spatial)", "rank 2 or more"],
    );
    provoked.expect(TensorDesc::new(&[3]), "Rank", &["rank 1", "rank 2 or more"]);

    let max = usize::MAX;
    let indexes = "kernel indexes at most 4294967296";
    let (split, channels, spatial) = (
        "split the batch",
        "use fewer channels",
        "use smaller spatial sizes",
    );
    let both = "use fewer channels or smaller spatial sizes";
    let large: [(&[usize], &str); 7] = [
        (&[1, 1, (1 << 32) + 1], spatial),
        (&[1, 3, 1 << 31], both),
        (&[1 << 16, (1 << 16) + 1], split),
        (&[max, max], channels),
        (&[max, 1], split),
        (&[1, max, 2], both),
        (&[max; 40], both),
    ];
    for (dims, way_out) in large {
        let says = [indexes, &format!("{dims:?}"), &format!(": {way_out}")];
        provoked.expect(TensorDesc::new(dims), "TooManyElements", &says);
    }
    provoked.expect(
        TensorDesc::new(&[1 << 16, 3, 1 << 16]),
        "TooManyElements",
        &["12884901888 elements;", split],
    );
    // A row has half as many at most, and neither samples nor channels may be more than a u32 counts.
    let row =
        "2147483649 elements for each sample and channel; a kernel indexes at most 2147483648";
    for (dims, says, way_out) in [
        (&[1, 1, (1 << 31) + 1][..], row, spatial),
        (
            &[1, 1, 1 << 16, 1 << 16],
            "4294967296 elements for each sample",
            spatial,
        ),
        (
            &[1 << 32, 1],
            "4294967296 samples; a kernel indexes at most 4294967295",
            split,
        ),
        (
            &[1, 1 << 32],
            "4294967296 channels; a kernel indexes at most 4294967295",
            channels,
        ),
        // Gradients of zero are written for each.
        (&[0, 1 << 32], "4294967296 channels", channels),
    ] {
        let says = [says, &format!("{dims:?}"), &format!(": {way_out}")];
        provoked.expect(TensorDesc::new(dims), "TooManyElements", &says);
    }
    assert!(TensorDesc::new(&[1 << 16, 1 << 16]).is_ok());

    let norm = |channels, groups| NormDesc::bc_norm(channels, groups).validate();
    provoked.expect(
        norm(0, 1),
        "NoChannels",
        &["num_channels is 0", "at least one channel"],
    );
    for (channels, groups) in [(6, 0), (6, 4), (6, 7), (1, max), (max, 2)] {
        let says = [
            &format!("num_groups = {groups}"),
            &format!("num_channels = {channels}"),
            &format!("choose a divisor (1 to {channels})"),
        ];
        provoked.expect(norm(channels, groups), "Groups", &says.map(|s| s.as_str()));
    }

    let tensor = TensorDesc::new(&[2, 8, 5]).unwrap();
    let both = |norm: NormDesc, tensor: &TensorDesc| {
        let tuning = Tuning::SOFTWARE;
        let forward = ForwardOptions::default();
        let forward = Plan::forward(&norm, tensor, Mode::Train, forward, &tuning);
        let options = BackwardOptions::default();
        let backward = Plan::backward(&norm, tensor, Mode::Train, options, &tuning);
        assert_eq!(forward.as_ref().err(), backward.as_ref().err());
        forward
    };
    let says = ["[2, 8, 5]", "8 channels", "num_channels = 6"];
    provoked.expect(
        both(NormDesc::bc_norm(6, 2), &tensor),
        "ChannelMismatch",
        &says,
    );
    // Plans check the norm, too.
    provoked.expect(
        both(NormDesc::bc_norm(8, 3), &tensor),
        "Groups",
        &["num_groups = 3"],
    );
    let norm = NormDesc::bc_norm(8, 2).with_eps(-1.0);
    provoked.expect(both(norm, &tensor), "Parameter", &["eps = -1"]);

    for dims in [&[1, 192, 1, 1][..], &[1, 192]] {
        let tensor = TensorDesc::new(dims).unwrap();
        let shape = format!("{dims:?}");
        let says = [
            "expected more than 1 value per channel when training",
            &shape,
            "use eval()",
            "larger batch",
            "estimated statistics",
        ];
        let norm = NormDesc::bc_norm(192, 32);
        provoked.expect(both(norm, &tensor), "OneValuePerChannel", &says);
    }
    // Where eval uses the input's statistics too, or is it already, it is no way out.
    let untracked = |norm: NormDesc| norm.with_track_running_stats(false);
    for (norm, dims, mode, per, way_out) in [
        (
            untracked(NormDesc::batch_norm(4)),
            &[1, 4][..],
            Mode::Train,
            "per channel when training",
            ": use a larger batch",
        ),
        (
            untracked(NormDesc::batch_norm(4)),
            &[1, 4],
            Mode::Eval,
            "per channel without running statistics",
            ": use a larger batch",
        ),
        (
            NormDesc::instance_norm(4).with_track_running_stats(true),
            &[3, 4],
            Mode::Train,
            "per sample and channel when training",
            ": use eval(), or larger spatial sizes",
        ),
        (
            NormDesc::instance_norm(4),
            &[3, 4],
            Mode::Eval,
            "per sample and channel without running statistics",
            ": use larger spatial sizes",
        ),
        (
            NormDesc::group_norm(4, 4),
            &[1, 4],
            Mode::Eval,
            "per group,",
            ": use a larger batch, larger spatial sizes or fewer groups",
        ),
        (
            NormDesc::weight_standardization(),
            &[3, 1],
            Mode::Train,
            "per filter,",
            ": use larger filters",
        ),
    ] {
        let tensor = TensorDesc::new(dims).unwrap();
        let result = norm.validate_for(&tensor, mode);
        provoked.expect(result, "OneValuePerChannel", &[per, way_out]);
    }
}

/// Sizes of any magnitude, in any place: an answer, never a panic or a wrapped product.
#[test]
fn descriptors_of_any_sizes() {
    let sizes = [
        0,
        1,
        2,
        3,
        1 << 16,
        1 << 31,
        (1 << 32) - 1,
        1 << 32,
        usize::MAX,
    ];
    for a in sizes {
        for b in sizes {
            for c in sizes {
                for d in sizes {
                    let dims = [a, b, c, d];
                    let product = dims.iter().try_fold(1usize, |p, &s| p.checked_mul(s));
                    let product = if dims.contains(&0) { Some(0) } else { product };
                    let desc = TensorDesc::new(&dims);
                    // Limits of the whole, of a row, and of either count.
                    let legal = |p: usize| {
                        b < 1 << 32 && (p == 0 || p <= 1 << 32 && c * d <= 1 << 31 && a < 1 << 32)
                    };
                    match product.filter(|&p| legal(p)) {
                        None => {
                            let error = desc.unwrap_err();
                            assert_eq!(variant(&error), "TooManyElements");
                        }
                        Some(elements) => {
                            let desc = desc.unwrap();
                            assert_eq!(desc.elements(), elements as u64);
                            assert_eq!(desc.bytes(), 4 * elements as u64);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn mistakes_in_parameters() {
    parameters(&mut Provoked::default());
}

fn parameters(provoked: &mut Provoked) {
    let norm = NormDesc::bc_norm(6, 3);
    let tiny = f32::from_bits(1);
    for eps in [-1e-5, -tiny, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let says = [&*format!("eps = {eps}"), "finite and not negative"];
        provoked.expect(norm.with_eps(eps).validate(), "Parameter", &says);
    }
    for eps in [0.0, -0.0, tiny, 1e-5, f32::MAX] {
        assert_eq!(norm.with_eps(eps).validate(), Ok(()));
    }
    let batch = |m| ChannelStats::Batch { momentum: Some(m) };
    let estimate = |moving_speed| ChannelStats::Estimate { moving_speed };
    for value in [
        -0.1,
        -tiny,
        1.0 + f32::EPSILON,
        2.0,
        f32::NAN,
        f32::INFINITY,
    ] {
        let number = format!(" = {value}");
        for (stats, name) in [
            (batch(value), "momentum"),
            (estimate(value), "estbn_moving_speed"),
        ] {
            let says = [name, &number, "from 0 to 1"];
            provoked.expect(norm.with_stats(stats).validate(), "Parameter", &says);
        }
    }
    for value in [0.0, tiny, 0.5, 1.0] {
        assert_eq!(norm.with_stats(batch(value)).validate(), Ok(()));
        assert_eq!(norm.with_stats(estimate(value)).validate(), Ok(()));
    }

    // Statistics that a norm has not.
    let [batch_norm, est_bn] = [NormDesc::batch_norm(8), NormDesc::est_bn(8)];
    let says = ["est_bn takes no momentum", "moving_speed", "batch_norm"];
    provoked.expect(est_bn.with_momentum(Some(0.1)).validate(), "Stats", &says);
    let says = ["batch_norm takes no estbn_moving_speed", "est_bn"];
    let speed = batch_norm.with_moving_speed(0.1);
    provoked.expect(speed.validate(), "Stats", &says);
    let instance = NormDesc::instance_norm(8).with_moving_speed(0.1);
    provoked.expect(instance.validate(), "Stats", &["have a momentum"]);
    let none = "it has no running statistics";
    for norm in [
        NormDesc::group_norm(2, 8),
        NormDesc::layer_norm(8),
        NormDesc::weight_standardization(),
    ] {
        let name = norm.kind.name();
        for (norm, given) in [
            (norm.with_momentum(Some(0.1)), "momentum"),
            (norm.with_momentum(None), "momentum"),
            (norm.with_moving_speed(0.5), "estbn_moving_speed"),
        ] {
            let says = [&*format!("{name} takes no {given}"), none];
            provoked.expect(norm.validate(), "Stats", &says);
        }
        let mut by_field = norm;
        by_field.stats = estimate(0.5);
        provoked.expect(by_field.validate(), "Stats", &[none]);
        assert_eq!(norm.validate(), Ok(()));
    }
    // One written over the other.
    let says = ["momentum and estbn_moving_speed at once", "with_stats"];
    for both in [
        norm.with_momentum(Some(0.3)).with_moving_speed(0.5),
        norm.with_momentum(None).with_moving_speed(0.5),
        norm.with_moving_speed(0.5).with_momentum(Some(0.1)),
        norm.with_moving_speed(0.5)
            .with_momentum(Some(0.1))
            .with_moving_speed(0.5),
    ] {
        provoked.expect(both.validate(), "Stats", &says);
        // with_stats means it.
        assert_eq!(both.with_stats(estimate(0.5)).validate(), Ok(()));
    }
    for norm in [
        norm.with_momentum(Some(0.3)).with_momentum(None),
        norm.with_moving_speed(0.3).with_moving_speed(0.5),
        batch_norm.with_momentum(None),
        est_bn.with_moving_speed(0.5),
        NormDesc::instance_norm(8).with_momentum(Some(0.5)),
    ] {
        assert_eq!(norm.validate(), Ok(()), "{norm:?}");
    }
}

/// The advice on a single value fits the norm and its mode.
#[test]
fn one_value_and_what_helps() {
    let untracked = |norm: NormDesc| norm.with_track_running_stats(false);
    let tracked = NormDesc::instance_norm(4).with_track_running_stats(true);
    let batch = NormDesc::batch_norm(4);
    for (norm, mode, says, not) in [
        (
            batch,
            Mode::Train,
            &["per channel when training", "eval()", "larger batch"][..],
            "",
        ),
        (
            untracked(batch),
            Mode::Train,
            &["per channel when training", "larger batch", "estimated"],
            "eval()",
        ),
        (
            untracked(batch),
            Mode::Eval,
            &["without running statistics", "larger batch"],
            "eval()",
        ),
        (
            untracked(NormDesc::bc_norm(4, 2)),
            Mode::Eval,
            &["larger batch"],
            "eval()",
        ),
        (
            tracked,
            Mode::Train,
            &["use eval()", "larger spatial sizes"],
            "batch",
        ),
        (
            untracked(tracked),
            Mode::Eval,
            &["larger spatial sizes"],
            "eval()",
        ),
        (
            NormDesc::group_norm(4, 4),
            Mode::Eval,
            &["per group", "larger batch", "fewer groups"],
            "eval()",
        ),
    ] {
        let tensor = TensorDesc::new(&[1, 4, 1]).unwrap();
        let error = norm.validate_for(&tensor, mode).unwrap_err().to_string();
        for part in says
            .iter()
            .chain(&["expected more than 1 value", "[1, 4, 1]"])
        {
            assert!(error.contains(part), "{norm:?} {mode:?}: {error}");
        }
        assert!(
            not.is_empty() || !error.contains(not),
            "{norm:?} {mode:?}: {error}"
        );
        assert!(!error.contains("ChannelStats"), "{error}");
    }
    let filters = TensorDesc::filters(&[3, 1, 1]).unwrap();
    let norm = NormDesc::weight_standardization();
    let error = norm.validate_for(&filters, Mode::Eval).unwrap_err();
    assert!(
        error.to_string().contains("per filter") && error.to_string().contains("larger filters"),
        "{error}"
    );
}

/// What a file or a dict holds is shown, and gives a terminal no commands.
#[test]
fn names_give_no_commands() {
    let evil = "w\u{1b}[31m\u{7}\r\n\u{202e}\u{9b}x";
    let value = StateValue::I64(1);
    let state = StateDict::from([(evil.to_owned(), value)]);
    let error = bcnorm::layer::state::fit(&NormDesc::layer_norm(2), &state).unwrap_err();
    let tuning = format!("class={evil}").parse::<Tuning>().unwrap_err();
    let other = Error::Checkpoint {
        file: evil.into(),
        problems: vec![evil.into()],
        source: None,
    };
    for error in [error, tuning, other] {
        let shown = error.to_string();
        assert!(
            !shown.contains(|c: char| c.is_control() || c == '\u{202e}'),
            "{shown:?}"
        );
        assert!(shown.contains("w\\u{1b}[31m\\u{7}"), "{shown:?}");
    }
}

fn forward_plan(dims: &[usize], tuning: Tuning) -> Result<Plan, Error> {
    let tensor = TensorDesc::new(dims)?;
    let norm = NormDesc::bc_norm(dims[1], 1);
    Plan::forward(
        &norm,
        &tensor,
        Mode::Train,
        ForwardOptions::default(),
        &tuning,
    )
}

#[test]
fn mistakes_in_tunings() {
    tunings(&mut Provoked::default());
}

fn tunings(provoked: &mut Provoked) {
    let text = "class=gpu\nspeed=11".parse::<Tuning>();
    provoked.expect(text, "Tuning", &["line 2", "\"speed\"", "workgroup_size"]);
    let good = Tuning::SOFTWARE.with(|t| {
        t.reduction.workgroup_size = 8;
        t.map.workgroup_size = 8;
        t.reduction.lanes = 1;
        t.map.lanes = 1;
        t.fold.workgroup_size = 8;
        t.fold.lanes = 1;
    });
    let mut expect = |changed: &str, variant, says: &[&str]| {
        let mut tuning = good;
        for setting in changed.split(' ') {
            tuning.set(setting).unwrap();
        }
        provoked.expect(forward_plan(&[8, 4, 18], tuning), variant, says);
    };
    for name in ["reduction.lanes", "map.lanes"] {
        for lanes in [0, 3, 16, u32::MAX] {
            let says = format!(
                "the tuning cannot be used: {name} is {lanes}: it must be a power of two that divides the \
                 workgroup_size, which is 8"
            );
            expect(&format!("{name}={lanes}"), "Tuning", &[&says]);
        }
    }
    for (name, most) in [
        ("reduction.workgroup_size", 65_536),
        ("map.workgroup_size", 65_536),
        ("columns.workgroup_size", 65_536),
        ("fold.workgroup_size", 65_536),
        ("columns.words", 16),
        ("parts.max_words_per_lane", 195_000),
    ] {
        for value in [0, most + 1, 1 << 31, u32::MAX] {
            let says = format!("{name} is {value}: it must be from 1 to {most}");
            expect(&format!("{name}={value}"), "Tuning", &[&says]);
        }
    }
    for lanes in [0, 3, 1 << 17, u32::MAX] {
        let says = format!("fold.lanes is {lanes}: it must be a power of two up to 65536");
        expect(&format!("fold.lanes={lanes}"), "Tuning", &[&says]);
    }
    for value in [0, 3, u32::MAX] {
        let says = format!("columns.tile is {value}: it must be a power of two");
        expect(&format!("columns.tile={value}"), "Tuning", &[&says]);
    }
    // All that is wrong at once.
    let says = [
        "map.workgroup_size is 0: it must be from 1 to 65536",
        "columns.tile is 3",
        "limits.subgroup_size is 256: it must be a power of two up to 128",
    ];
    let changed = "map.workgroup_size=0 columns.tile=3 limits.subgroup_size=256";
    expect(changed, "Tuning", &says);
    // Two dimensions of one workgroup do not hold four.
    let says = [
        "workgroups of row_moments is 4",
        "limit 1",
        "raise limits.max_workgroups",
    ];
    expect("limits.max_workgroups=1", "Limit", &says);

    // Channels that 256 lanes cannot fold in 65,000 iterations each.
    let plan = forward_plan(&[2, 1 << 23], good);
    provoked.expect(
        plan,
        "Limit",
        &["group_fold folds is 8388608", "use more groups"],
    );
}

#[test]
fn mistakes_of_size() {
    device_limits(&mut Provoked::default());
}

/// A device with WebGPU's default limits refuses by an error what it cannot hold; nothing of it is
/// allocated for that.
fn device_limits(provoked: &mut Provoked) {
    let watched = Watched::new();
    let device = &watched.gpu.device;
    let limit = device.limits().max_storage_buffer_binding_size;
    let mut expect = |tuning: Tuning, dims: &[usize], says: &[&str]| {
        let plan = forward_plan(dims, tuning).unwrap();
        let prepared = Pipelines::with_tuning(device, tuning).prepare(plan);
        provoked.expect(prepared, "Limit", says);
    };
    let good = Tuning::for_device(device);
    // One element more than a binding holds, and much more.
    let limits = format!("over the limit {limit} (max_storage_buffer_binding_size");
    for elements in [limit / 4 + 1, 40_000_000, 1 << 31] {
        let dims = [1, 1, elements as usize];
        // The device's tuning makes windows of it, each as large as a binding at most.
        let plan = forward_plan(&dims, good).unwrap();
        let windows = plan.steps().iter().filter_map(|step| step.window);
        assert!(windows.clone().count() > 2 && windows.clone().all(|w| w.bytes <= limit));
        Pipelines::with_tuning(device, good).prepare(plan).unwrap();
        // A tuning for larger bindings does not.
        let large = good.with(|t| t.limits.max_binding_bytes = u64::MAX);
        let size = format!("binds of x is {},", 4 * elements);
        let says = [&*size, &limits, "Tuning::for_device", "windows"];
        expect(large, &dims, &says);
    }
    // A window holds one part of a row at least.
    let narrow = good.with(|t| t.limits.max_binding_bytes = 128);
    let plan = forward_plan(&[2, 2, 1 << 20], narrow);
    provoked.expect(
        plan,
        "Limit",
        &[
            "one work item reads",
            "over the limit 128 (",
            "max_binding_bytes",
        ],
    );
    let mut expect = |tuning: Tuning, dims: &[usize], says: &[&str]| {
        let plan = forward_plan(dims, tuning).unwrap();
        let prepared = Pipelines::with_tuning(device, tuning).prepare(plan);
        provoked.expect(prepared, "Limit", says);
    };
    // x fits here, and no table of its 32 million rows: tables are bound whole.
    let says = [&*limits, "adapter's limits", "split the batch"];
    expect(good, &[16_000_000, 2], &says);
    // Tunings for another device.
    let most = device.limits().max_compute_invocations_per_workgroup;
    let tuning = Tuning::SOFTWARE.with(|t| {
        t.reduction.workgroup_size = 8 * most;
        t.map.workgroup_size = 8 * most;
    });
    let size = format!(
        "the workgroup of row_moments is {}, over the limit {most}",
        8 * most
    );
    expect(tuning, &[2, 2, 200], &[&size, "Tuning::for_device"]);
    let tuning = Tuning::SOFTWARE.with(|t| {
        t.reduction.workgroup_size = 1;
        t.map.workgroup_size = 1;
        t.limits.max_workgroups = u32::MAX;
    });
    let says = [
        "the dispatch of row_moments is 80000",
        "65535",
        "max_compute_workgroups_per_dimension",
        "Tuning::for_device",
    ];
    expect(tuning, &[20_000, 4, 20], &says);
    watched.assert_no_errors();
}

/// Any tuning gives right results, or an error: 100 drawn at random.
#[test]
fn any_tuning_is_right_or_refused() {
    let watched = Watched::new();
    let problem = Problem::random(&[9, 6, 77], 2, 4);
    let expected = run::expected(&problem);
    let bounds = conditioning::bounds(&problem, &expected);
    let mut random = Random::new(77);
    let (mut right, mut refused) = (0, 0);
    for _ in 0..100 {
        let mut pick = |values: &[u32]| values[random.below(values.len())];
        let tuning = Tuning::SOFTWARE.with(|t| {
            t.reduction.workgroup_size = pick(&[1, 2, 6, 8, 32, 32, 64, 100, 256, 512]);
            t.map.workgroup_size = pick(&[1, 2, 6, 8, 32, 32, 64, 100, 256, 512]);
            t.reduction.lanes = pick(&[1, 1, 1, 2, 2, 4, 8, 32, 3]);
            t.map.lanes = pick(&[1, 1, 1, 2, 2, 4, 8, 32]);
            t.reduction.words_per_lane = pick(&[0, 1, 5, 8, u32::MAX]);
            t.reduction.min_words_per_lane = pick(&[0, 1, 5, 8, u32::MAX]);
            t.map.words_per_lane = pick(&[0, 1, 5, 8, u32::MAX]);
            t.parts.max_words_per_lane = pick(&[1, 2, 7, 64, 195_000]);
            t.parts.min_invocations = pick(&[0, 1, 100, 1 << 17, u32::MAX]);
            t.fold.workgroup_size = pick(&[1, 4, 8, 64, 64, 256]);
            t.fold.lanes = pick(&[1, 1, 2, 4, 64]);
            t.fold.entries_per_lane = pick(&[0, 1, 3, 4096, u32::MAX]);
            t.fold.samples_per_segment = pick(&[0, 1, 2, 5, 1024, u32::MAX]);
            t.limits.max_workgroups = pick(&[2, 50, 999, 65_535, 65_535]);
        });
        let target = Target::gpu("random", watched.gpu.clone(), Some(tuning));
        let options = BackwardOptions::default();
        let plans = run::plans(&problem, options, &tuning);
        let refusal = plans.err().or_else(|| target.refuses(&problem));
        if let Some(error) = refusal {
            let known = ["Limit", "Tuning"].contains(&&*variant(&error));
            assert!(known, "{tuning:?}: {error}");
            refused += 1;
            continue;
        }
        let what = format!("{tuning:?}");
        conditioning::assert_outputs(&what, &target.run(&problem), &expected, &bounds);
        right += 1;
    }
    println!("{right} tunings were right, {refused} refused");
    assert!(right >= 20 && refused >= 20);
    watched.assert_no_errors();
}

/// A problem on a watched device: prepared plans, and buffers by role with their offsets.
struct Fixture {
    watched: Watched,
    problem: Problem,
    prepared: [PreparedPlan; 2],
    buffers: BTreeMap<Role, (wgpu::Buffer, u64)>,
}

impl Fixture {
    fn new() -> Self {
        let watched = Watched::new();
        let problem = Problem::random(&[2, 4, 96], 2, 9);
        let pipelines = Pipelines::new(&watched.gpu.device);
        let options = BackwardOptions::default();
        let plans = run::plans(&problem, options, pipelines.tuning()).unwrap();
        let bench = run::GpuProblem::new(&watched.gpu, &problem, &plans);
        let buffers = bench.buffers.into_iter();
        let buffers = buffers.map(|(role, buffer)| (role, (buffer, 0))).collect();
        Self {
            prepared: plans.map(|plan| pipelines.prepare(plan).unwrap()),
            watched,
            problem,
            buffers,
        }
    }

    fn bindings(&self, roles: impl IntoIterator<Item = (Role, (wgpu::Buffer, u64))>) -> Bindings {
        let mut buffers = self.buffers.clone();
        buffers.extend(roles);
        let bind = |bindings: Bindings, (role, (buffer, offset)): (Role, (wgpu::Buffer, u64))| {
            bindings.with_offset(role, &buffer, offset)
        };
        buffers.into_iter().fold(Bindings::new(), bind)
    }

    fn buffer(&self, bytes: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        self.watched
            .gpu
            .device
            .create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: bytes,
                usage,
                mapped_at_creation: false,
            })
    }

    fn storage(&self, bytes: u64) -> wgpu::Buffer {
        use wgpu::BufferUsages as Usages;
        self.buffer(bytes, Usages::STORAGE | Usages::COPY_SRC | Usages::COPY_DST)
    }

    /// Bytes of x.
    fn bytes(&self) -> u64 {
        self.problem.tensor().bytes()
    }

    fn read(&self, role: Role, len: usize) -> Vec<f32> {
        let (buffer, offset) = &self.buffers[&role];
        let gpu = &self.watched.gpu;
        block_on(transfer::read(
            &gpu.device,
            &gpu.queue,
            buffer,
            *offset,
            len,
        ))
        .unwrap()
    }

    /// Records with the encoder that saw the mistakes, and asserts that the result is right: the
    /// running statistics, too, moved once only.
    fn assert_works(&self, mut encoder: wgpu::CommandEncoder) {
        for prepared in &self.prepared {
            prepared.encode(&mut encoder, &self.bindings([])).unwrap();
        }
        self.watched.gpu.queue.submit([encoder.finish()]);
        let expected = run::expected(&self.problem);
        let bounds = conditioning::bounds(&self.problem, &expected);
        let read = |role: Role, name: &'static str| (name, self.read(role, expected[name].0.len()));
        let got = BTreeMap::from([
            read(Role::Y, "y"),
            read(Role::RunningMean, "bn.running_mean_after"),
            read(Role::RunningVar, "bn.running_var_after"),
            read(Role::GradX, "grad_x"),
            read(Role::GradBnWeight, "grad_bn.weight"),
            read(Role::GradBnBias, "grad_bn.bias"),
            read(Role::GradWeight, "grad_weight"),
            read(Role::GradBias, "grad_bias"),
        ]);
        conditioning::assert_outputs("after mistakes", &got, &expected, &bounds);
        let count = self.read(Role::NumBatchesTracked, 1)[0].to_bits();
        assert_eq!(count, self.problem.num_batches_tracked + 1);
        self.watched.assert_no_errors();
    }
}

#[test]
fn mistakes_with_buffers() {
    buffers(&mut Provoked::default());
}

fn buffers(provoked: &mut Provoked) {
    let f = Fixture::new();
    let mut encoder = f
        .watched
        .gpu
        .device
        .create_command_encoder(&Default::default());
    let bytes = f.bytes();
    let alignment = f
        .watched
        .gpu
        .device
        .limits()
        .min_storage_buffer_offset_alignment;
    let aligned = u64::from(alignment);
    let mut expect = |which: usize, bindings: &Bindings, error: &str, says: &[&str]| {
        // Whatever it is bound to.
        provoked.expect(f.prepared[which].bind(bindings).map(|_| ()), error, says);
        let result = f.prepared[which].encode(&mut encoder, bindings);
        provoked.expect(result, error, says);
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let result = f.prepared[which].encode(&mut pass, bindings);
        provoked.expect(result, error, says);
    };

    // Nothing bound: all that is missing is named, at once.
    for which in [0, 1] {
        let needs = f.prepared[which].plan().needs();
        let names: Vec<&str> = needs.iter().map(|need| need.role.name()).collect();
        expect(which, &Bindings::new(), "Missing", &[&names.join(", ")]);
    }
    // Tensors and parameters, but no tables of forward's.
    let some = f.buffers.clone().into_iter();
    let some = some.filter(|(role, _)| !matches!(role, Role::Rows | Role::Channels | Role::Groups));
    let some = some.fold(Bindings::new(), |b, (role, (buffer, _))| {
        b.with(role, &buffer)
    });
    expect(1, &some, "Missing", &["not bound: rows, channels, groups"]);

    // Buffers that end too early, by size or by offset.
    let short = f.storage(bytes - 4);
    let long = f.storage(bytes + aligned);
    for (role, which) in [
        (Role::X, 0),
        (Role::Y, 0),
        (Role::GradY, 1),
        (Role::GradX, 1),
    ] {
        let says = [
            &*format!("{} needs {bytes} bytes at offset 0", role.name()),
            &format!("ends at {}", bytes - 4),
            "larger buffer or a smaller offset",
        ];
        let bindings = f.bindings([(role, (short.clone(), 0))]);
        expect(which, &bindings, "BufferTooSmall", &says);
        for offset in [2 * aligned, 1 << 40, u64::MAX / aligned * aligned] {
            let at = format!("needs {bytes} bytes at offset {offset}");
            let bindings = f.bindings([(role, (long.clone(), offset))]);
            expect(which, &bindings, "BufferTooSmall", &[&at, "smaller offset"]);
        }
    }
    let tiny = f.storage(8);
    for role in [
        Role::RunningMean,
        Role::BnWeight,
        Role::Rows,
        Role::Coefficients,
    ] {
        let bindings = f.bindings([(role, (tiny.clone(), 0))]);
        expect(0, &bindings, "BufferTooSmall", &[role.name(), "ends at 8"]);
    }

    // Offsets that the device does not bind.
    for offset in [1, 4, aligned / 2, aligned + 4] {
        let bindings = f.bindings([(Role::X, (f.storage(2 * bytes), offset))]);
        let says = [
            &*format!("the offset {offset} of x"),
            &format!("multiple of {alignment}"),
            "min_storage_buffer_offset_alignment",
        ];
        expect(0, &bindings, "Misaligned", &says);
    }

    // A buffer that is no storage buffer.
    let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    for (role, which) in [
        (Role::X, 0),
        (Role::Y, 0),
        (Role::BnBias, 0),
        (Role::GradBias, 1),
    ] {
        let bindings = f.bindings([(role, (f.buffer(bytes, usage), 0))]);
        let says = [
            &*format!("the buffer of {}", role.name()),
            "lacks BufferUsages::STORAGE",
            "create it with that flag",
            "COPY_SRC | COPY_DST",
        ];
        expect(which, &bindings, "Usage", &says);
    }

    // One buffer in roles that clash: in place, overlapping, or read and written in one dispatch.
    let whole = f.storage(8 * bytes);
    let share = |a: (Role, u64), b: (Role, u64)| {
        f.bindings([a, b].map(|(role, offset)| (role, (whole.clone(), offset))))
    };
    let own = "give them buffers of their own";
    let overlap = "overlapping ranges";
    let forbidden = "WebGPU forbids it even for disjoint ranges";
    for (which, a, b, written, conflict) in [
        (0, (Role::X, 0), (Role::Y, 0), "y", overlap),
        (0, (Role::X, 0), (Role::Y, bytes - aligned), "y", overlap),
        (0, (Role::X, bytes - aligned), (Role::Y, 0), "y", overlap),
        (0, (Role::X, 0), (Role::Y, 2 * bytes), "y", forbidden),
        (1, (Role::GradY, 0), (Role::GradX, 0), "grad_x", overlap),
        (
            1,
            (Role::X, 4 * bytes),
            (Role::GradX, 0),
            "grad_x",
            forbidden,
        ),
        (
            1,
            (Role::GradWeight, 0),
            (Role::GradBias, 0),
            "grad_weight",
            overlap,
        ),
        (
            0,
            (Role::RunningMean, 0),
            (Role::RunningVar, 0),
            "running_mean",
            overlap,
        ),
        // Never in one dispatch, and yet y would overwrite them.
        (0, (Role::Y, 0), (Role::RunningMean, 0), "y", overlap),
        (0, (Role::Y, 0), (Role::BnWeight, 0), "y", overlap),
        (
            1,
            (Role::X, 0),
            (Role::GradBnWeight, 0),
            "grad_bn.weight",
            overlap,
        ),
        // A parameter beside a statistic that its dispatch writes; a table beside x.
        (
            0,
            (Role::BnBias, 0),
            (Role::RunningVar, aligned),
            "running_var",
            forbidden,
        ),
        (0, (Role::X, 0), (Role::Coefficients, 2 * bytes), "", ""),
    ] {
        let bindings = share(a, b);
        if conflict.is_empty() {
            // row_affine reads both, and no dispatch writes one while it reads the other: legal.
            assert!(f.prepared[which].bind(&bindings).is_ok());
            continue;
        }
        let [first, second] = [a, b].map(|(role, _)| role.name());
        let says = [first, second, conflict, written, "is written", own];
        expect(which, &bindings, "Aliasing", &says);
    }
    f.assert_works(encoder);
}

/// Sharing a buffer between roles that are only read is fine: views of one arena, one range in two
/// roles, all parameters in one buffer.
#[test]
fn read_only_sharing_is_no_mistake() {
    let mut f = Fixture::new();
    let device = f.watched.gpu.device.clone();
    let alignment = u64::from(device.limits().min_storage_buffer_offset_alignment);
    let roles = [
        (Role::X, f.problem.x.clone()),
        (Role::GradY, f.problem.grad_y.clone()),
        (Role::BnWeight, f.problem.bn_weight.clone()),
        (Role::BnBias, f.problem.bn_bias.clone()),
        (Role::Weight, f.problem.weight.clone()),
        (Role::Bias, f.problem.bias.clone()),
    ];
    let mut arena: Vec<f32> = Vec::new();
    let mut offsets = Vec::new();
    for (role, values) in roles {
        offsets.push((role, arena.len() as u64 * 4));
        arena.extend(values);
        arena.resize(
            arena.len().next_multiple_of(alignment as usize / 4),
            f32::NAN,
        );
    }
    let arena = transfer::upload(&device, "arena", &arena).unwrap();
    for (role, offset) in offsets {
        f.buffers.insert(role, (arena.clone(), offset));
    }
    f.assert_works(device.create_command_encoder(&Default::default()));

    // One range as weight and as bias, and dy = x.
    let mut f = Fixture::new();
    f.problem.bn_bias = f.problem.bn_weight.clone();
    f.problem.bias = f.problem.weight.clone();
    f.problem.grad_y = f.problem.x.clone();
    for (role, same) in [
        (Role::BnBias, Role::BnWeight),
        (Role::Bias, Role::Weight),
        (Role::GradY, Role::X),
    ] {
        let buffer = f.buffers[&same].clone();
        f.buffers.insert(role, buffer);
    }
    let encoder = f
        .watched
        .gpu
        .device
        .create_command_encoder(&Default::default());
    f.assert_works(encoder);
}

#[test]
fn mistakes_with_layers() {
    layers(&mut Provoked::default());
}

fn layers(provoked: &mut Provoked) {
    let watched = Watched::new();
    let (device, queue) = (&watched.gpu.device, &watched.gpu.queue);
    let pipelines = Pipelines::new(device);
    let problem = Problem::random(&[2, 4, 64], 2, 5);
    let expected = run::expected(&problem.clone().with_fresh_state());
    let tensor = |dims: &[usize]| {
        let len = dims.iter().product();
        Tensor::from_slice(device, dims, &vec![1.0; len]).unwrap()
    };

    // A layer that cannot be.
    let new = |norm: NormDesc| Norm::new(&pipelines, norm).map(|_| ());
    provoked.expect(new(NormDesc::bc_norm(0, 1)), "NoChannels", &[]);
    provoked.expect(new(NormDesc::bc_norm(4, 3)), "Groups", &[]);
    let norm = NormDesc::bc_norm(4, 2).with_eps(f32::NAN);
    provoked.expect(new(norm), "Parameter", &["eps = NaN"]);
    // Data that is no tensor.
    let slice = |dims: &[usize], len| Tensor::from_slice(device, dims, &vec![0.0; len]);
    provoked.expect(slice(&[4], 4), "Rank", &[]);
    let says = ["shape [2, 4, 3]", "23 values", "expected 24"];
    provoked.expect(slice(&[2, 4, 3], 23), "Length", &says);
    provoked.expect(slice(&[1 << 20, 1 << 20], 0), "TooManyElements", &[]);

    let mut layer = Norm::new(&pipelines, NormDesc::bc_norm(4, 2)).unwrap();
    let mut encoder = device.create_command_encoder(&Default::default());
    let x = Tensor::from_slice(device, &[2, 4, 64], &problem.x).unwrap();
    let grad_y = Tensor::from_slice(device, &[2, 4, 64], &problem.grad_y).unwrap();

    // Inputs that do not fit.
    let mut refused = |layer: &mut Norm, x: &Tensor, error: &str, says: &[&str]| {
        provoked.expect(layer.record_forward(&mut encoder, x), error, says);
    };
    let says = ["8 channels", "num_channels = 4"];
    refused(&mut layer, &tensor(&[2, 8, 3]), "ChannelMismatch", &says);
    refused(
        &mut layer,
        &tensor(&[1, 4, 1]),
        "OneValuePerChannel",
        &["[1, 4, 1]"],
    );
    let view = |offset, dims: &[usize]| {
        Tensor::from_buffer(device, x.buffer(), offset, TensorDesc::new(dims).unwrap())
    };
    refused(
        &mut layer,
        &view(4, &[2, 4, 2]),
        "Misaligned",
        &["offset 4 of x"],
    );
    refused(
        &mut layer,
        &view(0, &[2, 4, 65]),
        "BufferTooSmall",
        &["x needs 2080 bytes"],
    );
    let unfit = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 2048,
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let unfit = Tensor::from_buffer(device, &unfit, 0, x.desc().clone());
    refused(&mut layer, &unfit, "Usage", &["the buffer of x", "STORAGE"]);

    // Outputs that do not fit.
    let other = tensor(&[2, 4, 32]);
    let result = layer.record_forward(&mut encoder, Forward::new(&x).with_y(&other));
    let says = ["y has shape [2, 4, 32]", "expected [2, 4, 64]"];
    provoked.expect(result, "Shape", &says);
    let result = layer.record_forward(&mut encoder, Forward::new(&x).with_y(&x));
    provoked.expect(result, "Aliasing", &["x and y share a buffer"]);

    // The right call, in the same encoder.
    let (y, saved) = layer.record_forward(&mut encoder, &x).unwrap();

    // Each backward takes the Saved of a forward: of a layer that is not looked at after.
    let mut spare = Norm::new(&pipelines, NormDesc::bc_norm(4, 2)).unwrap();
    let mut backward = |args: Backward<'_>| {
        let (_, saved) = spare.record_forward(&mut encoder, &x).unwrap();
        spare.record_backward(&mut encoder, saved, args)
    };
    let says = ["grad_y has shape [2, 4, 32]", "expected [2, 4, 64]"];
    provoked.expect(backward(Backward::new(&other)), "Shape", &says);
    let args = Backward::new(&grad_y);
    let says = ["grad_x has shape [2, 4, 32]"];
    provoked.expect(backward(args.with_grad_x(&other)), "Shape", &says);
    let result = backward(args.with_grad_x(&x));
    provoked.expect(result, "Aliasing", &["x and grad_x"]);
    let stats = ChannelStats::Batch {
        momentum: Some(7.0),
    };
    provoked.expect(layer.set_stats(stats), "Parameter", &["momentum = 7"]);
    let before = *layer.desc();
    assert_eq!(before.stats, ChannelStats::default());
    // A forward that fails takes nothing from one that did not.
    let result = layer.record_forward(&mut encoder, &tensor(&[2, 8, 3]));
    provoked.expect(result, "ChannelMismatch", &[]);

    let backward = layer.record_backward(&mut encoder, saved, &grad_y);
    let grad_x = backward.unwrap().x;
    queue.submit([encoder.finish()]);
    let (_, saved) = spare.forward(queue, &x).unwrap();
    let says = ["another layer's", "the layer whose forward returned it"];
    let result = layer.backward(queue, saved, &grad_y);
    provoked.expect(result, "ForeignSaved", &says);
    let elsewhere = Watched::new();
    let foreign = Tensor::from_slice(&elsewhere.gpu.device, &[2, 4, 64], &problem.x).unwrap();
    let says = ["x belongs to another device", "one wgpu::Device"];
    provoked.expect(spare.forward(queue, &foreign), "WrongDevice", &says);
    elsewhere.assert_no_errors();

    let read = |tensor: &Tensor| block_on(tensor.read(device, queue)).unwrap();
    for (name, got) in [("y", read(&y)), ("grad_x", read(&grad_x))] {
        let (values, scale) = &expected[name];
        // With weights of 1 and biases of 0 nothing cancels: 16 roundings.
        common::compare::assert_close(name, &got, values, *scale, 2.0 * conditioning::F32);
    }
    let state = block_on(layer.state_dict(queue)).unwrap();
    let StateValue::F32 { values, .. } = &state["bn.running_mean"] else {
        panic!("{state:?}");
    };
    let (mean, scale) = &expected["bn.running_mean_after"];
    common::compare::assert_close("running mean", values, mean, *scale, conditioning::F32);
    assert_eq!(state["bn.num_batches_tracked"], StateValue::I64(1));

    // Reading beyond a buffer's end.
    let result = block_on(transfer::read::<f32>(device, queue, x.buffer(), 1024, 257));
    let says = ["the buffer to read", "256 values", "expected 257"];
    provoked.expect(result, "Length", &says);
    for offset in [4096, u64::MAX - 3] {
        let result = block_on(transfer::read::<f32>(device, queue, x.buffer(), offset, 1));
        provoked.expect(result, "Length", &["0 values", "expected 1"]);
    }
    watched.assert_no_errors();
}

#[test]
fn mistakes_in_state_dicts() {
    state_dicts(&mut Provoked::default());
}

fn state_dicts(provoked: &mut Provoked) {
    let watched = Watched::new();
    let queue = &watched.gpu.queue;
    let pipelines = Pipelines::new(&watched.gpu.device);
    let stats = ChannelStats::Estimate { moving_speed: 0.25 };
    let norm = NormDesc::bc_norm(6, 3).with_stats(stats);
    let mut layer = Norm::new(&pipelines, norm).unwrap();
    let good = block_on(layer.state_dict(queue)).unwrap();
    let f32s = |dims: &[usize], len: usize| StateValue::F32 {
        dims: dims.to_vec(),
        values: vec![9.0; len],
    };

    let mut bad = good.clone();
    bad.remove("bn.bias");
    bad.remove("bn.num_batches_tracked");
    bad.insert("bn.running_mean".into(), f32s(&[5], 5));
    // The right number of values in the wrong shape, and a shape that its values do not fill.
    bad.insert("weight".into(), f32s(&[6], 6));
    bad.insert("bias".into(), f32s(&[1, 3, 1], 2));
    bad.insert("bn.running_var".into(), StateValue::I64(6));
    bad.insert("bn.estbn_moving_speed".into(), f32s(&[1], 1));
    bad.insert("bn.wieght".into(), f32s(&[6], 6));
    let says = [
        "the state dict does not fit",
        "missing key \"bn.bias\"",
        "missing key \"bn.num_batches_tracked\"",
        "size mismatch for bn.running_mean: shape [5] and 5 values, expected [6]",
        "size mismatch for weight: shape [6] and 6 values, expected [1, 3, 1]",
        "size mismatch for bias: shape [1, 3, 1] and 2 values, expected [1, 3, 1]",
        "bn.running_var is i64, expected f32",
        "estbn_moving_speed = 9 is out of range",
        "unexpected key \"bn.wieght\"",
    ];
    provoked.expect(layer.load_state_dict(queue, &bad), "StateDict", &says);
    let Err(Error::StateDict { problems }) = layer.load_state_dict(queue, &bad) else {
        panic!("a dict of eight mistakes was taken");
    };
    // Each once, and nothing of what was right.
    assert_eq!(problems.len(), 8, "{problems:?}");

    for (name, value, says) in [
        (
            "bn.num_batches_tracked",
            StateValue::I64(-1),
            "expected an i64 from 0",
        ),
        (
            "bn.num_batches_tracked",
            f32s(&[1], 1),
            "expected an i64 from 0",
        ),
        ("bn.estbn_moving_speed", f32s(&[2], 2), "size mismatch"),
        (
            "bn.estbn_moving_speed",
            StateValue::I64(0),
            "is i64, expected f32",
        ),
        // The transpose of a shape is another shape.
        ("bn.weight", f32s(&[2, 3], 6), "expected [6]"),
        ("bn.weight", f32s(&[], 6), "expected [6]"),
    ] {
        let mut bad = good.clone();
        bad.insert(name.into(), value);
        let result = layer.load_state_dict(queue, &bad);
        provoked.expect(result, "StateDict", &[name, says]);
    }
    let says = ["missing key \"weight\"", "missing key \"bn.running_var\""];
    let result = layer.load_state_dict(queue, &StateDict::new());
    provoked.expect(result, "StateDict", &says);
    // A dict of a layer with estimates does not fit one without, and the other way round.
    let mut batch = Norm::new(&pipelines, NormDesc::bc_norm(6, 3)).unwrap();
    let says = ["unexpected key \"bn.estbn_moving_speed\""];
    provoked.expect(batch.load_state_dict(queue, &good), "StateDict", &says);
    let plain = block_on(batch.state_dict(queue)).unwrap();
    let says = ["missing key \"bn.estbn_moving_speed\""];
    provoked.expect(layer.load_state_dict(queue, &plain), "StateDict", &says);

    // None of them left anything behind.
    assert_eq!(layer.desc().stats, stats);
    assert_eq!(block_on(layer.state_dict(queue)).unwrap(), good);
    assert_eq!(block_on(batch.state_dict(queue)).unwrap(), plain);
    layer.load_state_dict(queue, &good).unwrap();
    watched.assert_no_errors();
}

#[test]
fn mistakes_with_residuals_and_in_place() {
    fused_layers(&mut Provoked::default());
}

fn fused_layers(provoked: &mut Provoked) {
    let watched = Watched::new();
    let device = &watched.gpu.device;
    let pipelines = Pipelines::new(device);
    let mut layer = Norm::new(&pipelines, NormDesc::batch_norm(4)).unwrap();
    let desc = TensorDesc::new(&[2, 4, 3]).unwrap();
    let tensor = |desc: &TensorDesc| Tensor::new(device, desc, &[1.0; 24]).unwrap();
    let x = tensor(&desc);
    let half = tensor(&desc.clone().with_dtype(DType::F16));
    let last = tensor(&desc.clone().with_layout(Layout::ChannelsLast));
    let mut encoder = device.create_command_encoder(&Default::default());

    let says = ["eval()", "x"];
    let args = Forward::new(&x);
    let result = layer.record_forward(&mut encoder, args.in_place());
    provoked.expect(result, "InPlace", &says);
    let mut back = |layer: &mut Norm, forward: Forward<'_>, backward: Backward<'_>| {
        let (_, saved) = layer.record_forward(&mut encoder, forward).unwrap();
        layer.record_backward(&mut encoder, saved, backward)
    };
    let grad_y = tensor(&desc);
    let own = Backward::new(&grad_y);
    for (other, name) in [(&half, "f16"), (&last, "channels_last")] {
        let result = back(&mut layer, args, Backward::new(other));
        provoked.expect(result, "Storage", &["grad_y", name, "f32"]);
    }
    let says = ["forward had no residual", "leave grad_residual out"];
    let result = back(&mut layer, args, own.with_grad_residual(&x));
    provoked.expect(result, "NoResidualGradient", &says);
    let residual = tensor(&desc);
    let says = ["grad_y itself", "leave grad_residual out"];
    let forward = args.with_residual(&residual);
    let result = back(&mut layer, forward, own.with_grad_residual(&x));
    provoked.expect(result, "NoResidualGradient", &says);
    layer.eval();
    let says = ["in place", "a y of its own"];
    let result = back(&mut layer, args.in_place(), own);
    provoked.expect(result, "NothingSaved", &says);
    layer.set_grad_enabled(false);
    let says = ["without gradients", "set_grad_enabled(true)"];
    provoked.expect(back(&mut layer, args, own), "NothingSaved", &says);
    layer.set_grad_enabled(true);
    for (other, name) in [(&half, "f16"), (&last, "channels_last")] {
        let result = layer.record_forward(&mut encoder, args.with_residual(other));
        provoked.expect(result, "Storage", &["residual", name, "f32"]);
    }
    let result = bcnorm::layer::checkpoint::load("no such file");
    provoked.expect(result, "Checkpoint", &["no such file"]);
    watched.assert_no_errors();
}

#[test]
fn mistakes_with_host_buffers() {
    host_executor(&mut Provoked::default());
}

fn host_executor(provoked: &mut Provoked) {
    let problem = Problem::random(&[2, 4, 9], 2, 5);
    let executor = cpu::Executor::with_threads(2);
    let options = BackwardOptions::default();
    let [forward, backward] = run::plans(&problem, options, &executor.tuning()).unwrap();

    let mut buffers = cpu::Buffers::new();
    let inputs: Vec<&str> = forward
        .needs()
        .iter()
        .filter(|need| {
            let state = [Role::RunningMean, Role::RunningVar, Role::NumBatchesTracked];
            let read = need.access == Access::Read || state.contains(&need.role);
            read && need.role.kind() == bcnorm::role::RoleKind::Caller
        })
        .map(|need| need.role.name())
        .collect();
    assert_eq!(inputs.len(), 8, "{inputs:?}");
    provoked.expect(executor.run(&forward, &mut buffers), "Missing", &inputs);

    let mut buffers = run::host_buffers(&problem, std::slice::from_ref(&forward));
    buffers.set(Role::X, vec![0.0; 71]);
    let says = ["x has 71 values", "expected 72"];
    provoked.expect(executor.run(&forward, &mut buffers), "Length", &says);
    buffers.set(Role::X, problem.x.clone());
    buffers.set(Role::BnWeight, vec![1.0; 5]);
    let says = ["bn.weight has 5 values", "expected 4"];
    provoked.expect(executor.run(&forward, &mut buffers), "Length", &says);
    buffers.set(Role::BnWeight, problem.bn_weight.clone());
    // Nothing ran: the state is as it was.
    assert_eq!(
        buffers.get(Role::RunningMean),
        Some(&problem.running_mean[..])
    );

    // Backward without what forward saves.
    let mut none = cpu::Buffers::new();
    none.set(Role::X, problem.x.clone());
    none.set(Role::GradY, problem.grad_y.clone());
    let says = ["rows", "channels", "groups"];
    provoked.expect(executor.run(&backward, &mut none), "Missing", &says);
    let step = &backward.steps()[0];
    let says = ["rows"];
    provoked.expect(
        executor.run_step(&backward, step, &mut none),
        "Missing",
        &says,
    );

    // Steps of other plans, and its own on buffers that are none of its own.
    let other = Problem::random(&[3, 4, 70], 2, 5);
    for plan in run::plans(&other, options, &Tuning::GPU).unwrap() {
        for step in plan.steps() {
            let says = [
                step.spec.kernel.name(),
                "not one of this plan's",
                "Plan::steps",
            ];
            let result = executor.run_step(&forward, step, &mut buffers);
            provoked.expect(result, "ForeignStep", &says);
        }
    }
    let mut long = forward.steps()[0].clone();
    long.workgroups[0] += 1;
    provoked.expect(
        executor.run_step(&forward, &long, &mut buffers),
        "ForeignStep",
        &[],
    );
    for step in forward.steps() {
        for &role in &step.bindings {
            let expected = forward.need(role).unwrap().bytes / 4;
            for words in [0, expected - 1, expected + 1] {
                let mut buffers = buffers.clone();
                buffers.set(role, vec![0.0; words as usize]);
                let says = [
                    &*format!("{role} has {words} values"),
                    &format!("expected {expected}"),
                ];
                let result = executor.run_step(&forward, step, &mut buffers);
                provoked.expect(result, "Length", &says);
            }
        }
    }

    executor.run(&forward, &mut buffers).unwrap();
    buffers.set(Role::GradY, problem.grad_y.clone());
    executor.run(&backward, &mut buffers).unwrap();
    let expected = run::expected(&problem);
    let bounds = conditioning::bounds(&problem, &expected);
    let outputs = run::host_outputs(&problem, &[forward, backward], &buffers);
    conditioning::assert_outputs("after mistakes", &outputs, &expected, &bounds);
}

/// What the watch is worth: it sees what wgpu refuses.
#[test]
fn the_watch_sees_errors() {
    let watched = Watched::new();
    watched.assert_no_errors();
    let _too_large = watched.gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 1 << 60,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    assert_eq!(watched.take_errors().len(), 1);
    watched.assert_no_errors();
}
