//! Norms, tunings, shapes and options that plans are looked at with, and the plans of all of them.

use super::elements::{Elements, is_of_elements};
use bcnorm::plan::Direction;
use bcnorm::{
    Activation, BackwardOptions, ChannelStats, DType, Error, ForwardOptions, Fusion, GradientMode,
    Layout, Mode, NormDesc, NormKind, Plan, RowSource, TensorDesc, Tuning,
};
use std::num::NonZero;

/// The tunings that the library brings, and some that ask for the utmost.
pub fn tunings() -> Vec<(&'static str, Tuning)> {
    let greedy = Tuning::SOFTWARE.with(|t| {
        t.reduction.words_per_lane = u32::MAX;
        t.reduction.min_words_per_lane = u32::MAX;
        t.map.words_per_lane = u32::MAX;
        t.parts.max_words_per_lane = 195_000;
        t.parts.min_invocations = 1;
        t.fold.entries_per_lane = u32::MAX;
        t.fold.samples_per_segment = u32::MAX;
        t.columns.tile = 1 << 20;
    });
    // Rows have tables, however short they are.
    let splitting = Tuning::GPU.with(|t| {
        t.reduction.workgroup_size = 32;
        t.map.workgroup_size = 32;
        t.reduction.lanes = 8;
        t.map.lanes = 8;
        t.reduction.words_per_lane = 1;
        t.reduction.min_words_per_lane = 1;
        t.map.words_per_lane = 1;
        t.parts.max_words_per_lane = 3;
        t.parts.min_invocations = 1 << 20;
        t.fold.workgroup_size = 16;
        t.fold.lanes = 8;
        t.fold.entries_per_lane = 1;
        t.fold.samples_per_segment = 2;
        t.columns.tile = 1;
        t.columns.workgroup_size = 64;
        t.short_rows.max_row = 0;
        t.short_rows.max_batch_row = 0;
    });
    // Workgroups that are no power of two, and too few lanes for large folds.
    let odd = Tuning::GPU.with(|t| {
        t.reduction.workgroup_size = 24;
        t.map.workgroup_size = 24;
        t.reduction.lanes = 8;
        t.map.lanes = 4;
        t.fold.workgroup_size = 12;
        t.fold.lanes = 4;
        t.fold.entries_per_lane = 100_000;
        t.fold.samples_per_segment = 200_000;
        t.columns.tile = 2;
        t.columns.workgroup_size = 24;
    });
    // Whatever a lane's share, it must be at least a word and an entry.
    let zeros = Tuning::GPU.with(|t| {
        t.reduction.words_per_lane = 0;
        t.reduction.min_words_per_lane = 0;
        t.map.words_per_lane = 0;
        t.parts.min_invocations = 0;
        t.fold.entries_per_lane = 0;
        t.fold.samples_per_segment = 0;
        t.short_rows.max_row = 0;
        t.short_rows.max_batch_row = 0;
        t.inference.max_group = 0;
        t.inference.max_tensor = 0;
    });
    // Every row is short, every group fits; a lane, or as many as there may be, has all of it.
    let elements = greedy.with(|t| {
        t.short_rows.max_row = u32::MAX;
        t.short_rows.max_batch_row = u32::MAX;
        t.inference.max_group = u32::MAX;
        t.inference.max_tensor = u32::MAX;
        t.limits.max_binding_bytes = u64::MAX;
    });
    let shared_elements = splitting.with(|t| {
        t.short_rows.max_row = u32::MAX;
        t.short_rows.max_batch_row = u32::MAX;
        t.inference.max_group = u32::MAX;
        t.inference.max_tensor = u32::MAX;
    });
    vec![
        ("GPU", Tuning::GPU),
        ("SOFTWARE", Tuning::SOFTWARE),
        ("CPU", Tuning::CPU),
        ("greedy", greedy),
        ("splitting", splitting),
        ("odd", odd),
        ("zeros", zeros),
        ("elements", elements),
        ("shared elements", shared_elements),
    ]
}

/// As [`tunings`], of small bindings: tensors of more than a few KiB are worked on in many windows.
pub fn narrow_tunings() -> Vec<(&'static str, Tuning)> {
    let mut tunings = tunings();
    tunings.retain(|(name, _)| ["GPU", "SOFTWARE", "splitting", "odd"].contains(name));
    for (_, tuning) in &mut tunings {
        tuning.limits.max_binding_bytes = 8192;
        tuning.parts.max_words_per_lane = tuning.parts.max_words_per_lane.min(48);
        tuning.reduction.lanes = tuning.reduction.lanes.min(4);
        tuning.map.lanes = tuning.map.lanes.min(4);
    }
    tunings
}

/// Every norm of the family for these channels, with what changes its plans.
pub fn norms(channels: usize, groups: usize) -> Vec<(NormDesc, Mode)> {
    use Mode::{Eval, Train};
    let bc = NormDesc::bc_norm(channels, groups);
    let batch = NormDesc::batch_norm(channels);
    let est = NormDesc::est_bn(channels).with_moving_speed(0.75);
    let group = NormDesc::group_norm(groups, channels);
    let instance = NormDesc::instance_norm(channels);
    let tracked = instance
        .with_track_running_stats(true)
        .with_weight(true)
        .with_bias(true);
    let layer = NormDesc::layer_norm(channels);
    let cumulative = ChannelStats::Batch { momentum: None };
    let estimate = ChannelStats::Estimate { moving_speed: 0.25 };
    let mut norms = vec![
        (bc, Train),
        (bc.with_stats(cumulative), Train),
        (bc.with_stats(estimate), Train),
        (bc, Eval),
        (bc.with_stats(estimate).with_eps(0.5), Eval),
        (bc.with_per_channel_affine(true), Train),
        (
            bc.with_per_channel_affine(true)
                .with_weight(true)
                .with_bias(false)
                .with_bn_weight(false)
                .with_bn_bias(false),
            Eval,
        ),
        (bc.with_track_running_stats(false), Train),
        (bc.with_track_running_stats(false), Eval),
        (
            bc.with_weight(false)
                .with_bias(false)
                .with_bn_weight(false)
                .with_bn_bias(false),
            Train,
        ),
        (
            bc.with_weight(false)
                .with_bias(false)
                .with_bn_weight(false)
                .with_bn_bias(false),
            Eval,
        ),
        (
            bc.with_weight(false)
                .with_bias(true)
                .with_bn_weight(true)
                .with_bn_bias(false),
            Eval,
        ),
        (
            bc.with_weight(true)
                .with_bias(false)
                .with_bn_weight(false)
                .with_bn_bias(false),
            Eval,
        ),
        (batch, Train),
        (batch.with_momentum(None), Train),
        (batch, Eval),
        (batch.with_weight(false).with_bias(false), Train),
        (batch.with_weight(false).with_bias(false), Eval),
        (
            batch
                .with_weight(true)
                .with_bias(false)
                .with_track_running_stats(false),
            Train,
        ),
        (batch.with_track_running_stats(false).with_eps(0.25), Eval),
        (est, Train),
        (est.with_weight(false).with_bias(true), Eval),
        (group, Train),
        (group.with_weight(false).with_bias(false), Eval),
        (group.with_weight(false).with_bias(true), Train),
        (instance, Train),
        (tracked, Train),
        (
            tracked
                .with_momentum(None)
                .with_weight(true)
                .with_bias(false),
            Train,
        ),
        (tracked, Eval),
        (layer, Train),
        (layer.with_weight(true).with_bias(false), Eval),
    ];
    if channels == 1 {
        norms.push((NormDesc::weight_standardization(), Train));
        norms.push((NormDesc::weight_standardization(), Eval));
    }
    norms
}

/// What the channel part does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    None,
    Batch,
    Estimate,
    Running,
}

/// The two parts of a norm, as PyTorch and the paper have them.
pub fn parts(norm: &NormDesc, mode: Mode) -> (Part, bool) {
    let train = mode == Mode::Train;
    let estimates = matches!(norm.stats, ChannelStats::Estimate { .. });
    let of_batch = match (estimates, train) {
        (true, true) => Part::Estimate,
        (true, false) => Part::Running,
        (false, true) => Part::Batch,
        (false, false) if norm.track_running_stats => Part::Running,
        (false, false) => Part::Batch,
    };
    match norm.kind {
        NormKind::BatchNorm | NormKind::EstBn => (of_batch, false),
        NormKind::BcNorm => (of_batch, true),
        NormKind::InstanceNorm if !train && norm.track_running_stats => (Part::Running, false),
        NormKind::InstanceNorm
        | NormKind::GroupNorm
        | NormKind::LayerNorm
        | NormKind::WeightStandardization => (Part::None, true),
        other => panic!("{other:?} is not known here"),
    }
}

/// Columns of the terms that the parameters' gradients are made of: the channel part's, where a gradient flows
/// through it or someone wants it, and the affine's.
pub fn gradient_columns(norm: &NormDesc, mode: Mode) -> (u32, u32) {
    let (part, grouped) = parts(norm, mode);
    let affine = norm.weight || norm.bias;
    let own = match grouped {
        true => norm.bn_weight || norm.bn_bias,
        false => affine,
    };
    let of_channels = match part {
        Part::None => false,
        Part::Batch => true,
        Part::Estimate | Part::Running => own,
    };
    let columns = |there: bool, columns: usize| if there { columns as u32 } else { 0 };
    (
        columns(of_channels, norm.num_channels),
        columns(grouped && affine, norm.affine_len()),
    )
}

/// What a caller may ask of a plan besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    pub fusion: Fusion,
    pub in_place: bool,
    /// No backward follows.
    pub inference: bool,
    pub rows: RowSource,
    pub world_size: Option<NonZero<u32>>,
    pub write: GradientMode,
}

impl Asked {
    /// Every fusion, and each of the others.
    pub fn all() -> Vec<Asked> {
        let mut all = Vec::new();
        for activation in [Activation::None, Activation::Relu, Activation::Silu] {
            for residual in [false, true] {
                let fusion = Fusion::NONE
                    .with_activation(activation)
                    .with_residual(residual);
                let plain = Asked {
                    fusion,
                    ..Asked::default()
                };
                all.extend([
                    plain,
                    Asked {
                        in_place: true,
                        ..plain
                    },
                    Asked {
                        inference: true,
                        ..plain
                    },
                    Asked {
                        rows: RowSource::Given,
                        ..plain
                    },
                    Asked {
                        world_size: NonZero::new(3),
                        ..plain
                    },
                ]);
            }
        }
        all
    }
}

/// Forward, and backward with both ways to write; each with what was asked for it.
pub fn plans(
    norm: &NormDesc,
    tensor: &TensorDesc,
    mode: Mode,
    asked: Asked,
    tuning: &Tuning,
) -> Result<Vec<(Plan, Asked)>, Error> {
    let forward = ForwardOptions::default()
        .with_fusion(asked.fusion)
        .with_in_place(asked.in_place)
        .with_inference(asked.inference)
        .with_rows(asked.rows)
        .with_world_size(asked.world_size);
    let forward = Plan::forward(norm, tensor, mode, forward, tuning)?;
    let mut plans = vec![(forward, asked)];
    for write in [GradientMode::Replace, GradientMode::Accumulate] {
        if asked.inference {
            continue;
        }
        let backward = BackwardOptions::default()
            .with_x(write)
            .with_parameters(write)
            .with_fusion(asked.fusion)
            .with_rows(asked.rows)
            .with_world_size(asked.world_size);
        let backward = Plan::backward(norm, tensor, mode, backward, tuning)?;
        plans.push((backward, Asked { write, ..asked }));
    }
    Ok(plans)
}

/// What no tuning makes possible: more loop iterations than 256 lanes may run, or more entries of a
/// table, or values behind a mean, than a u32 counts.
pub fn is_beyond(
    norm: &NormDesc,
    tensor: &TensorDesc,
    mode: Mode,
    asked: Asked,
    tuning: &Tuning,
) -> bool {
    let (part, grouped) = parts(norm, mode);
    let (n, c) = (
        u64::from(tensor.num_samples()),
        u64::from(tensor.num_channels()),
    );
    let len = u64::from(tensor.row_len());
    let size = c / norm.num_groups as u64;
    let most = u64::from(u32::MAX);
    let lanes = |entries: u64, loops: u64| {
        let a_lane = 65_000 - loops;
        (entries * loops).div_ceil(a_lane) > 256
    };
    // Without a group part samples are positions where channels come last, or where there is one.
    let last = tensor.layout() == Layout::ChannelsLast || len == 1 || c == 1;
    let merged = last && !grouped && asked.rows == RowSource::Computed && n * len <= 1 << 31;
    let n = if merged { 1 } else { n };
    let (channel_columns, affine) = gradient_columns(norm, mode);
    let tracks =
        norm.kind == NormKind::InstanceNorm && norm.track_running_stats && mode == Mode::Train;
    let world_size = asked.world_size.map_or(0, |size| u64::from(size.get()));
    // No fold runs over the channels of a group whose elements are rows.
    let forward = Elements::of(norm, tensor, mode, Direction::Forward, &asked, tuning);
    let backward = Elements::of(norm, tensor, mode, Direction::Backward, &asked, tuning);
    let folds = forward.is_none() || (backward.is_none() && !asked.inference);
    n.max(1) * c > most
        || ([Part::Batch, Part::Estimate].contains(&part) && world_size * c > most)
        || (!asked.inference && n * (u64::from(channel_columns) + u64::from(affine)) > most)
        || u64::from(tensor.num_samples()) * len > most
        || (grouped && ((folds && lanes(size, 4)) || size * len > most))
        || (tracks && lanes(n, 1))
}

/// The tunings that a caller made up may be refused where 256 lanes of 65,000 iterations are too few
/// for the fold that they ask for (of all samples at once, twice; of parts of 3 words), where that many
/// parts are too many for a u32, or workgroups of one item for two dimensions. The library's own may
/// not.
fn may_refuse(tuning: &str, tensor: &TensorDesc) -> bool {
    let positions = u64::from(tensor.num_samples()) * u64::from(tensor.row_len());
    match tuning {
        _ if is_last(tensor) => true,
        "CPU" => tensor.rows() > 65_535 * 65_535,
        "greedy" | "elements" => tensor.num_samples() > 256 * 64_998 / 2,
        "splitting" | "shared elements" => positions > 256 * 64_998 / 2 * 3,
        _ => false,
    }
}

/// Whether as many rows as a u32 counts, with the items behind the last one of the workgroups, are more.
fn is_last(tensor: &TensorDesc) -> bool {
    tensor.rows() > (1 << 32) - (1 << 20)
}

/// 1, primes and non-multiples on every axis; large batches, rows and channels.
pub const SHAPES: &[(&[usize], usize)] = &[
    (&[2, 1], 1),
    (&[3, 5], 5),
    (&[1, 7, 2], 1),
    (&[5, 6, 1, 3], 3),
    (&[2, 4, 5], 2),
    (&[3, 8, 7, 11], 4),
    (&[2, 6, 7, 9], 3),
    (&[2, 2, 10_007], 1),
    (&[4, 12, 16], 4),
    (&[1, 3, 13, 17, 3], 3),
    (&[1, 3, 1002], 1),
    (&[8, 64, 56, 56], 32),
    (&[2, 256, 100, 152], 32),
    (&[16, 512, 7, 7], 1),
    (&[1, 64, 224, 224], 32),
    (&[300, 3, 2], 1),
    (&[1031, 2, 9], 2),
    (&[140_000, 4], 2),
    (&[140_000, 4, 3], 4),
    (&[200_704, 32], 32),
    (&[1, 32, 200_704], 4),
    (&[1, 2, 70_001], 1),
    (&[2, 65_536, 3], 1),
    (&[1, 65_536, 2], 65_536),
    (&[3, 1 << 18, 2], 2),
    // Filters.
    (&[64, 1, 27], 1),
    (&[3, 1, 1, 5, 5], 1),
    (&[1001, 1, 1003], 1),
];

/// Groups of few elements: of 1 to 4 words of each width, one channel's or several's, and of more.
pub const SHORT_SHAPES: &[(&[usize], usize)] = &[
    (&[3, 8, 4], 8),
    (&[3, 8, 4], 4),
    (&[2, 12, 2, 2], 4),
    (&[5, 8, 4], 2),
    (&[3, 3, 2], 3),
    (&[3, 9, 2], 3),
    (&[3, 10, 2], 2),
    (&[3, 14, 2], 2),
    (&[3, 8], 2),
    (&[3, 16], 2),
    (&[3, 12], 1),
    (&[3, 16], 1),
    (&[3, 6], 3),
    (&[3, 18], 3),
    (&[3, 20], 2),
    (&[3, 28], 2),
    (&[3, 150], 3),
    (&[4, 64, 9], 1),
    (&[4, 64, 16], 1),
    (&[3, 9], 3),
    (&[3, 2, 6], 2),
    (&[3, 2, 8], 2),
    (&[3, 2, 10], 2),
    (&[3, 2, 12], 2),
    (&[3, 2, 20], 2),
    (&[3, 2, 38], 2),
    (&[3, 2, 50], 2),
    (&[3, 2, 96], 2),
    (&[3, 2, 128], 2),
    (&[3, 2, 400], 2),
    (&[4, 2, 20], 2),
    (&[4, 2, 22], 2),
    (&[4, 34, 2], 2),
    // Several samples an invocation.
    (&[40, 20], 1),
    (&[41, 34], 1),
    (&[42, 17, 2], 1),
    (&[43, 6, 4], 1),
];

/// As large as tensors get: 2^32 elements, 2^31 in a row.
pub const EXTREMES: &[(&[usize], usize)] = &[
    (&[1 << 30, 2], 1),
    (&[1 << 31, 2], 2),
    (&[1 << 31, 2], 1),
    (&[(1 << 31) - 1, 1], 1),
    (&[(1 << 32) - 1, 1], 1),
    (&[1, 1, 1 << 31], 1),
    (&[2, 1, 1 << 31], 1),
    (&[1, 2, 1 << 31], 2),
    (&[2, 1, (1 << 31) - 1], 1),
    (&[1, 1, (1 << 31) - 1], 1),
    (&[2, 1, (1 << 30) - 1], 1),
    (&[1, 3, 715_827_882], 1),
    (&[1, 3, 1_431_655_765], 1),
    (&[2, 2, (1 << 29) - 2], 2),
    (&[46_340, 46_340], 46_340),
    (&[46_337, 46_337], 46_337),
    (&[65_537, 65_535], 65_535),
    (&[65_535, 65_537], 1),
    (&[1 << 20, 2048], 32),
    (&[1 << 20, 512, 3], 1),
    (&[2048, 1 << 20], 1 << 10),
    (&[1, 1 << 31], 1 << 30),
    (&[1, 1 << 31], 1 << 15),
    (&[1, 1 << 20, 1 << 11], 1),
    (&[400_000_000, 1, 5], 1),
    (&[85_899_345, 5, 5], 5),
    (&[3, 21_474_836, 33], 10_737_418),
    (&[64, 256, 512, 512], 32),
    (&[3, 65, 1_000_003], 13),
];

/// Both layouts of all types.
pub fn storages() -> Vec<(DType, Layout)> {
    let layouts = [Layout::ChannelsFirst, Layout::ChannelsLast];
    let of = |dtype| layouts.map(|layout| (dtype, layout));
    [DType::F32, DType::F16, DType::BF16]
        .into_iter()
        .flat_map(of)
        .collect()
}

/// Whether one value is behind a statistic, as PyTorch refuses it.
fn has_one_value(norm: &NormDesc, tensor: &TensorDesc, mode: Mode) -> bool {
    let (part, _) = parts(norm, mode);
    let n = u64::from(tensor.num_samples());
    let len = u64::from(tensor.row_len());
    match norm.kind {
        NormKind::InstanceNorm | NormKind::WeightStandardization => part == Part::None && len == 1,
        NormKind::GroupNorm => n * (norm.num_channels / norm.num_groups) as u64 * len == 1,
        NormKind::LayerNorm => false,
        _ => part == Part::Batch && n * len == 1,
    }
}

/// Calls `check` on the plans of every norm, type and layout for each shape and tuning, and of what may
/// be asked besides: of all of it, or of each in turn.
pub fn for_every_plan(
    shapes: &[(&[usize], usize)],
    tunings: &[(&'static str, Tuning)],
    each: bool,
    mut check: impl FnMut(&str, &Plan, &Tuning, &Asked),
) {
    let (mut seen, mut refused) = (0, 0);
    let all = Asked::all();
    let mut turn = 0;
    for &(dims, groups) in shapes {
        for (dtype, layout) in storages() {
            let tensor = TensorDesc::new(dims).unwrap();
            let tensor = tensor.with_dtype(dtype).with_layout(layout);
            for &(tuning_name, tuning) in tunings {
                for (norm, mode) in norms(dims[1], groups) {
                    let one_value = has_one_value(&norm, &tensor, mode);
                    assert_eq!(norm.validate_for(&tensor, mode).is_err(), one_value);
                    turn += 1;
                    let range = match each {
                        true => 0..all.len(),
                        false => turn % all.len()..turn % all.len() + 1,
                    };
                    for &asked in &all[range] {
                        let in_place = asked.in_place && mode == Mode::Eval;
                        let asked = Asked { in_place, ..asked };
                        let what = format!(
                            "{dims:?} {} {} {} G={groups} {:?} {mode:?} {tuning_name} {asked:?}",
                            dtype.name(),
                            layout.name(),
                            norm.kind.name(),
                            norm.stats
                        );
                        let sharded =
                            asked.world_size.is_some() && parts(&norm, mode).0 == Part::Batch;
                        let beyond = is_beyond(&norm, &tensor, mode, asked, &tuning);
                        let plans = match plans(&norm, &tensor, mode, asked, &tuning) {
                            Err(Error::OneValuePerChannel { .. }) if one_value && !sharded => {
                                continue;
                            }
                            Err(Error::Limit { value, limit, .. })
                                if beyond || may_refuse(tuning_name, &tensor) =>
                            {
                                assert!(value > limit, "{what}: {value} {limit}");
                                refused += 1;
                                continue;
                            }
                            Err(error) => panic!("{what}: {error}"),
                            Ok(_) if beyond => panic!("{what}: no tuning bounds this"),
                            Ok(plans) => plans,
                        };
                        assert!(!one_value || sharded, "{what}");
                        // Backward finds what forward saved.
                        let mut ways = plans.iter().map(|(plan, _)| is_of_elements(plan));
                        let way = ways.next();
                        assert!(
                            asked.in_place || ways.all(|other| Some(other) == way),
                            "{what}"
                        );
                        for (plan, asked) in &plans {
                            let what = format!("{what} {:?}", plan.direction());
                            check(&what, plan, &tuning, asked);
                            seen += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(seen > 3 * refused, "{refused} refused, {seen} not");
}

/// The smaller shapes, for tests that look at much of each.
pub fn small_shapes() -> &'static [(&'static [usize], usize)] {
    &SHAPES[..11]
}
