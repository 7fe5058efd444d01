//! Steps against the loops and indices of the kernels that they run.

use super::asked::{
    Asked, EXTREMES, Part, SHAPES, SHORT_SHAPES, for_every_plan, gradient_columns, narrow_tunings,
    parts, plans, small_shapes, tunings,
};
use super::elements::{Elements, check_elements_as_rows, is_of_elements, takes_elements_as_rows};
use super::flow::{
    check_dataflow, check_exchange, check_needs, check_transfers, check_windows, writer,
};
use super::specs::{MAX_WORKGROUP_MEMORY, MAX_WORKGROUP_SIZE, MAX_WORKGROUPS};
use crate::common::work;
use bcnorm::desc::{CHANNEL_EPS, MAX_ELEMENTS};
use bcnorm::kernels::{BindingDecl, Element, Family, KernelId, Spec, canonical_specs};
use bcnorm::params::{ColumnSplit, ElementGroups, Norm, RowSplit, SampleSplit, Shape, Table};
use bcnorm::plan::{Direction, Step};
use bcnorm::role::RoleKind;
use bcnorm::{
    Activation, ChannelStats, DType, GradientMode, Layout, Mode, NormKind, Plan, Role, RowSource,
    Tuning, params,
};
use std::collections::HashSet;
use std::num::NonZero;

pub fn check_plan(what: &str, plan: &Plan, tuning: &Tuning, asked: &Asked, known: &HashSet<Spec>) {
    if takes_elements_as_rows(plan, asked, tuning) {
        check_elements_as_rows(what, plan, asked, tuning);
        return;
    }
    let elements = check_way(what, plan, asked, tuning);
    for step in plan.steps() {
        let what = format!("{what}: {}", step.spec.kernel.name());
        check_spec(&what, step, plan, tuning, asked, elements);
        let canonical = step.spec.canonical();
        assert!(known.contains(&canonical), "{what}: no such {canonical:?}");
        check_bindings(&what, step, plan);
        check_dispatch(&what, step, plan, tuning);
        check_params(&what, step, plan, asked);
        check_split(&what, step, plan);
    }
    check_windows(what, plan, tuning);
    check_needs(what, plan);
    check_dataflow(what, plan, asked, elements.is_some());
    check_exchange(what, plan, asked);
    check_transfers(what, plan, asked, elements.is_some());
}

/// Either elements are rows, and no table of rows is there, or no kernel of theirs runs. It is rows that
/// have kernels, too, where a table of the elements' would not fit a binding.
fn check_way(what: &str, plan: &Plan, asked: &Asked, tuning: &Tuning) -> Option<Elements> {
    let limit = tuning.limits.max_binding_bytes;
    let largest = |plan: &Plan| {
        let tables = plan.needs().iter().filter(|need| {
            let read =
                plan.direction() == Direction::Backward && need.role.kind() == RoleKind::Saved;
            need.role.kind() != RoleKind::Caller && need.role != Role::Channels && !read
        });
        tables.map(|need| need.bytes).max().unwrap_or(0)
    };
    let elements = Elements::of_plan(plan, asked, tuning);
    let elements = elements.filter(|_| {
        let fits = is_of_elements(plan);
        if !fits {
            let unbound = tuning.with(|t| t.limits.max_binding_bytes = u64::MAX);
            let (norm, tensor) = (plan.norm(), plan.tensor());
            let plans = plans(norm, tensor, plan.mode(), *asked, &unbound).unwrap();
            let of_elements = plans.iter().all(|(plan, _)| is_of_elements(plan));
            let most = plans.iter().map(|(plan, _)| largest(plan)).max();
            assert!(of_elements && most > Some(limit), "{what}: {most:?}");
        }
        fits
    });
    if elements.is_some() {
        let most = largest(plan);
        assert!(most <= limit, "{what}: a table of {most} bytes");
    }
    let mut kernels = plan.steps().iter().map(|step| step.spec.kernel);
    let of_elements = kernels.any(|kernel| {
        let family = kernel.kernel().family;
        [Family::ElementReduce, Family::ElementColumn].contains(&family)
    });
    assert_eq!(of_elements, elements.is_some(), "{what}: {elements:?}");
    let of_rows = [
        Role::Rows,
        Role::Products,
        Role::Coefficients,
        Role::RowGradients,
        Role::CoefficientsBackward,
    ];
    let has_rows = of_rows.iter().any(|&role| plan.need(role).is_some());
    assert!(!of_elements || !has_rows, "{what}: a table of rows");
    elements
}

#[test]
fn steps_fit_their_kernels() {
    let known: HashSet<Spec> = canonical_specs().into_iter().collect();
    let mut check = |what: &str, plan: &Plan, tuning: &Tuning, asked: &Asked| {
        check_plan(what, plan, tuning, asked, &known);
    };
    for_every_plan(SHAPES, &tunings(), false, &mut check);
    for_every_plan(EXTREMES, &tunings(), false, &mut check);
}

/// All that may be asked of each norm, and tensors in many windows; every specialization that the tests
/// above look at is made by some plan.
#[test]
fn steps_fit_their_kernels_whatever_is_asked() {
    let known: HashSet<Spec> = canonical_specs().into_iter().collect();
    let (mut made, mut windows) = (HashSet::new(), 0);
    let mut check = |what: &str, plan: &Plan, tuning: &Tuning, asked: &Asked| {
        check_plan(what, plan, tuning, asked, &known);
        for step in plan.steps() {
            made.insert(step.spec.canonical());
            windows += usize::from(step.window.is_some());
        }
    };
    for_every_plan(small_shapes(), &tunings(), true, &mut check);
    let mut of_elements = tunings();
    of_elements.retain(|(name, _)| ["GPU", "elements", "shared elements"].contains(name));
    for_every_plan(SHORT_SHAPES, &of_elements, true, &mut check);
    for_every_plan(
        &[(&[3, 6, 1001], 2), (&[9, 20, 17], 5)],
        &narrow_tunings(),
        true,
        &mut check,
    );
    assert!(windows > 1000, "{windows}");
    // Parameters come and go in too many ways for the norms above; tensors' words and bindings may not.
    // Of elements, words and bindings each on their own.
    let mut seen = HashSet::new();
    for spec in &made {
        seen.extend(faces(spec));
    }
    let unmade: HashSet<Spec> = known
        .iter()
        .filter(|spec| spec.kernel.kernel().family.is_tensor_sized())
        .flat_map(faces)
        .filter(|face| !seen.contains(face))
        .collect();
    assert!(unmade.is_empty(), "no plan makes {unmade:#?}");
}

/// What the texts of a kernel are told apart by, in such parts as some plan should make.
fn faces(spec: &Spec) -> Vec<Spec> {
    if spec.kernel.kernel().family != Family::ElementReduce {
        return vec![*spec];
    }
    let (mut words, mut tables) = (*spec, *spec);
    words.activation = Activation::None;
    words.absent = 0;
    tables.dtype = DType::F32;
    (tables.width, tables.aligned, tables.lanes) = (4, true, 1);
    // The parameters' bindings, and the others.
    let mut parameters = tables;
    let bindings = spec.kernel.kernel().bindings;
    let of_parameters = (0..)
        .zip(bindings)
        .filter(|(_, binding)| ["channels", "weight", "bias"].contains(&binding.name))
        .fold(0, |mask, (index, _)| mask | 1u16 << index);
    parameters.absent &= of_parameters;
    parameters.activation = Activation::None;
    tables.absent &= !of_parameters;
    vec![words, parameters, tables]
}

fn check_spec(
    what: &str,
    step: &Step,
    plan: &Plan,
    tuning: &Tuning,
    asked: &Asked,
    elements: Option<Elements>,
) {
    let spec = &step.spec;
    assert_eq!(spec.check(), Ok(()), "{what}: {spec:?}");
    let kernel = spec.kernel.kernel();
    assert!(
        spec.workgroup_size <= MAX_WORKGROUP_SIZE,
        "{what}: {spec:?}"
    );
    assert!(
        bcnorm::kernels::workgroup_memory(spec) <= MAX_WORKGROUP_MEMORY,
        "{what}: {spec:?}"
    );
    let near = match kernel.family.reduces_side_by_side() {
        true => tuning.limits.subgroup_size.min(spec.lanes),
        false => 1,
    };
    assert_eq!(spec.subgroup_size, near, "{what}: {spec:?}");
    let tensor = plan.tensor();
    let is_tensor = kernel.bindings.iter().any(|b| b.element == Element::Word);
    assert_eq!(is_tensor, kernel.family.is_tensor_sized());
    let accumulates = kernel.bindings.iter().any(|b| b.name == "grad_x");
    let added = asked.write == GradientMode::Accumulate && accumulates;
    assert_eq!(spec.accumulate, added, "{what}: {spec:?}");
    let activates = is_tensor
        && kernel
            .bindings
            .iter()
            .any(|b| ["y", "grad_y"].contains(&b.name));
    let activation = match activates {
        true => asked.fusion.activation,
        false => Activation::None,
    };
    assert_eq!(spec.activation, activation, "{what}: {spec:?}");
    if !is_tensor {
        let of_table = (DType::F32, 1, true);
        let found = (spec.dtype, spec.width, spec.aligned);
        assert_eq!(found, of_table, "{what}");
        return;
    }
    assert_eq!(spec.dtype, tensor.dtype(), "{what}");
    if let Some(elements) = elements
        && kernel.family != Family::ColumnReduce
    {
        let aligned = tensor.row_len().is_multiple_of(elements.width);
        let expected = (elements.width, aligned);
        assert_eq!((spec.width, spec.aligned), expected, "{what}");
        let lanes = match kernel.family {
            Family::ElementReduce => elements.lanes,
            _ => 1,
        };
        assert_eq!((spec.lanes, spec.column_words), (lanes, 1), "{what}");
        assert_eq!(
            spec.workgroup_size, tuning.reduction.workgroup_size,
            "{what}"
        );
        assert!(spec.aligned || elements.width > 1, "{what}");
        return;
    }
    // (N, C) is both layouts at once, and so is a single channel.
    let last = tensor.layout() == Layout::ChannelsLast || tensor.row_len() == 1;
    let columns = matches!(kernel.family, Family::ColumnReduce | Family::ColumnMap);
    let by_columns = elements.is_some() || (last && tensor.num_channels() > 1);
    assert_eq!(columns, by_columns, "{what}");
    // What rows or positions may be whole words of.
    let split = step.params.block::<ColumnSplit>();
    let len = match split {
        Some(split) => split.num_channels,
        None => work::block::<RowSplit>(step).row_len,
    };
    // Half a u32 can be read, not written.
    let alone = match spec.dtype {
        DType::F32 => 1,
        _ if kernel.family == Family::ColumnReduce && len % 2 == 1 => 1,
        _ => 2,
    };
    let width = match columns {
        false if len >= 4 && tensor.elements().is_multiple_of(4) => 4,
        true if len.is_multiple_of(4) => 4,
        _ => alone,
    };
    assert_eq!(spec.width, width, "{what}: {spec:?}");
    assert_eq!(spec.aligned, len.is_multiple_of(width), "{what}: {spec:?}");
    // A word of a row may lie in two rows, no more.
    assert!(columns || len + 1 >= width, "{what}: {spec:?}");
    if let Some(split) = split {
        assert_eq!(split.words_per_position, len.div_ceil(width), "{what}");
    }
}

/// A binding has the name of the buffer, but where another table or parameter stands in.
fn check_bindings(what: &str, step: &Step, plan: &Plan) {
    let (spec, kernel) = (&step.spec, step.spec.kernel);
    let (_, grouped) = parts(plan.norm(), plan.mode());
    let elements = is_of_elements(plan);
    let declared: Vec<&BindingDecl> = spec.bindings().map(|(_, binding)| binding).collect();
    assert_eq!(step.bindings.len(), declared.len(), "{what}");
    for (index, binding) in kernel.kernel().bindings.iter().enumerate() {
        let absent = spec.absent >> index & 1 == 1;
        assert!(!absent || binding.optional, "{what}: no {}", binding.name);
    }
    for (role, binding) in step.bindings.iter().zip(declared) {
        let same = role
            .name()
            .replace('.', "_")
            .replace("bn_running", "running")
            .replace("bn_num_batches", "num_batches");
        let stands_in = match (kernel, binding.name, role) {
            (_, "row_parts", Role::Rows) | (_, "product_parts", Role::Products) => {
                work::cut(step).map(|cut| cut.parts) == Some(1)
            }
            // The columns of a channel are folded; there may be one.
            (KernelId::ColumnMoments, "row_parts", Role::ChannelParts) => {
                work::sees_elements(step, plan)
                    && work::cut(step).unwrap().parts == 1
                    && plan.tensor().row_len() == 1
            }
            (KernelId::RowFold, "rows", Role::ChannelParts) => elements,
            (KernelId::SampleFoldBackward, "gradient_terms", Role::ChannelTerms)
            | (KernelId::SampleFoldBackward, "gradient_terms", Role::AffineTerms)
            | (KernelId::ChannelFoldBackward, "gradient_parts", Role::ChannelTerms)
            | (KernelId::ChannelFoldBackward, "gradient_parts", Role::AffineTerms) => elements,
            (KernelId::SampleFold, "rows", Role::ChannelParts) => true,
            (KernelId::SampleFold, "channel_parts", Role::ChannelMoments) => {
                plan.all_gather_before().is_some()
            }
            (KernelId::ChannelFold, "channel_parts", Role::Rows) => true,
            (KernelId::ChannelFold, "channel_parts", Role::GatheredMoments) => {
                plan.all_gather_before().is_some()
            }
            (KernelId::ChannelFoldBackward, "gradient_parts", Role::GradientTerms) => true,
            (KernelId::ChannelFoldBackward, "gradient_parts", Role::GatheredGradients)
            | (KernelId::ChannelFoldBackward, "channel_gradients", Role::GradientSums) => {
                plan.all_gather_before().is_some()
            }
            // The only affine is the channel part's.
            (KernelId::ChannelFold, "bn_weight", Role::Weight)
            | (KernelId::ChannelFold, "bn_bias", Role::Bias)
            | (KernelId::ChannelFoldBackward, "grad_bn_weight", Role::GradWeight)
            | (KernelId::ChannelFoldBackward, "grad_bn_bias", Role::GradBias) => !grouped,
            // In place.
            (
                KernelId::RowAffine | KernelId::ColumnAffine | KernelId::ElementAffine,
                "y",
                Role::X,
            ) => spec.bindings().all(|(_, binding)| binding.name != "x"),
            _ => false,
        };
        assert!(
            same == binding.name || stands_in,
            "{what}: {role} bound to {}",
            binding.name
        );
    }
}

fn check_dispatch(what: &str, step: &Step, plan: &Plan, tuning: &Tuning) {
    let [x, y] = step.workgroups.map(u64::from);
    let invocations = step.spec.workgroup_size / step.spec.lanes;
    let per_workgroup = u64::from(invocations * step.spec.column_words);
    let items = u64::from(step.params.dispatch().items);
    assert!(items > 0, "{what}");
    let sized = step.spec.kernel.kernel().family.is_tensor_sized();
    if !sized {
        assert_eq!(items, work::items(step, plan), "{what}");
        assert_eq!(step.params.dispatch().first_item, 0, "{what}");
    }
    if step.window.is_none() {
        assert_eq!(step.params.dispatch().first_word, 0, "{what}");
        if sized {
            let bytes = plan.tensor().buffer_bytes();
            assert!(bytes <= tuning.limits.max_binding_bytes, "{what}: {bytes}");
        }
    }
    let most = u64::from(tuning.limits.max_workgroups.min(MAX_WORKGROUPS));
    assert!(
        x >= 1 && y >= 1 && x <= most && y <= most,
        "{what}: {x} x {y} workgroups"
    );
    let started = x * y * per_workgroup;
    assert!(started >= items, "{what}: {started} of {items} items");
    // At most a workgroup too many in each row of them.
    assert!(
        started < items + (y + 1) * per_workgroup,
        "{what}: {started} for {items} items"
    );
    // `item_index` computes in u32; an index that wraps would be a second owner of an item.
    assert!(started <= 1 << 32, "{what}: {started} items");
    assert!(work::item_range(step).end <= 1 << 32, "{what}");
}

fn check_params(what: &str, step: &Step, plan: &Plan, asked: &Asked) {
    // `rounded` hides values behind it.
    assert_eq!(step.params.dispatch().zero, 0, "{what}");
    assert_eq!(step.params.kernel(), step.spec.kernel, "{what}");
    check_extents(what, step, plan, asked);
    if let Some(norm) = step.params.block() {
        check_norm(what, step, plan, asked, norm);
    }
    if let Some(table) = step.params.block() {
        check_table(what, step, plan, table);
        check_entries(what, step, plan, asked, table);
    }
}

/// Sizes that kernels are told are the tensor's and the norm's.
fn check_extents(what: &str, step: &Step, plan: &Plan, asked: &Asked) {
    let (params, tensor, norm) = (&step.params, plan.tensor(), plan.norm());
    let (n, c, len) = (
        tensor.num_samples(),
        tensor.num_channels(),
        tensor.row_len(),
    );
    let (_, grouped) = parts(norm, plan.mode());
    let groups = if grouped { norm.num_groups as u32 } else { 0 };
    let rows = u64::from(n) * u64::from(c);
    // A norm without a group part may take samples for positions.
    let merged = u64::from(n) * u64::from(len);
    let may_merge = !grouped && asked.rows == RowSource::Computed;
    let is_merged =
        |rows: u64, row_len: u32| may_merge && rows == u64::from(c) && u64::from(row_len) == merged;
    if let Some(split) = params.block::<RowSplit>() {
        let found = u64::from(split.num_rows);
        assert!(
            (found, split.row_len) == (rows, len) || is_merged(found, split.row_len),
            "{what}: {split:?}"
        );
    }
    if let Some(split) = params.block::<ColumnSplit>() {
        if work::sees_elements(step, plan) {
            // Samples as positions, their elements as channels.
            assert_eq!((split.num_samples, split.row_len), (1, n), "{what}");
            let elements = u64::from(c) * u64::from(len);
            assert_eq!(u64::from(split.num_channels), elements, "{what}");
        } else {
            let found = u64::from(split.num_samples) * u64::from(c);
            assert!(
                (split.num_samples, split.row_len) == (n, len) || is_merged(found, split.row_len),
                "{what}: {split:?}"
            );
            assert_eq!(split.num_channels, c, "{what}");
        }
    }
    if let Some(split) = params.block::<SampleSplit>() {
        assert_eq!(split.num_samples, n, "{what}");
        let words = u64::from(split.words_per_sample) * u64::from(step.spec.width);
        assert_eq!(words, u64::from(c) * u64::from(len), "{what}");
    }
    if let Some(found) = params.block::<ElementGroups>() {
        assert_eq!(
            (found.num_channels, found.num_groups),
            (c, groups),
            "{what}"
        );
        assert_eq!(found.channel_len, len, "{what}");
        let words = u64::from(found.words_per_group) * u64::from(step.spec.width);
        let group = u64::from(c / groups) * u64::from(len);
        assert_eq!(words, group, "{what}");
    }
    if let Some(shape) = params.block::<Shape>() {
        let found = (shape.num_channels, shape.num_groups, shape.rows_together);
        assert_eq!(found, (c, groups, 1), "{what}");
        assert!(
            shape.row_len == len || is_merged(u64::from(c), shape.row_len),
            "{what}: {shape:?}"
        );
    }
}

/// How kernels are told the norm.
fn check_norm(what: &str, step: &Step, plan: &Plan, asked: &Asked, p: &Norm) {
    let (norm, kernel) = (plan.norm(), step.spec.kernel);
    let (part, grouped) = parts(norm, plan.mode());
    let train = plan.mode() == Mode::Train;
    let channel_eps = if grouped { CHANNEL_EPS } else { norm.eps };
    assert_eq!((p.eps, p.channel_eps), (norm.eps, channel_eps), "{what}");
    let (momentum, cumulative) = match norm.stats {
        ChannelStats::Batch {
            momentum: Some(momentum),
        } => (momentum, false),
        ChannelStats::Batch { momentum: None } => (0.0, true),
        ChannelStats::Estimate { moving_speed } => (moving_speed, false),
        other => panic!("{other:?} is not known here"),
    };
    assert_eq!(p.momentum, momentum, "{what}");
    let tracked = part == Part::Batch && train && norm.track_running_stats;
    let per_channel = norm.kind != NormKind::BcNorm || norm.per_channel_affine;
    // Parameters are written by the fold of this device's terms alone.
    let of_device =
        kernel == KernelId::ChannelFoldBackward && step.bindings[0] != Role::GatheredGradients;
    let accumulates = of_device && asked.write == GradientMode::Accumulate;
    let sums = of_device && asked.world_size.is_some() && part == Part::Batch;
    let flags = [
        (
            params::TRAINING,
            [Part::Batch, Part::Estimate].contains(&part),
        ),
        (params::ESTIMATE, part == Part::Estimate),
        (params::CUMULATIVE, tracked && cumulative),
        (params::ACCUMULATE, accumulates),
        (params::PER_CHANNEL, grouped && per_channel),
        (
            params::UNBIASED,
            norm.kind == NormKind::WeightStandardization,
        ),
        (params::SUMS, sums),
    ];
    let flags = flags.into_iter().filter(|&(_, on)| on);
    assert_eq!(p.flags, flags.map(|(flag, _)| flag).sum::<u32>(), "{what}");
}

/// What the folds over samples read: all of them, none where nothing of the batch enters, or what a
/// fold before left.
fn check_entries(what: &str, step: &Step, plan: &Plan, asked: &Asked, p: &Table) {
    let (tensor, norm, kernel) = (plan.tensor(), plan.norm(), step.spec.kernel);
    let (part, grouped) = parts(norm, plan.mode());
    let (n, c, len) = (
        tensor.num_samples(),
        tensor.num_channels(),
        tensor.row_len(),
    );
    let per_channel = norm.kind != NormKind::BcNorm || norm.per_channel_affine;
    // Of the tables, which may have samples merged.
    let own = || work::rows(plan) / u64::from(c);
    if [KernelId::GroupFoldBackward, KernelId::RowTermsBackward].contains(&kernel) {
        assert_eq!(u64::from(p.entries), own(), "{what}");
    } else {
        let empty = tensor.elements() == 0;
        let samples = if empty { 0 } else { own() as u32 };
        let world_size = asked.world_size.map_or(0, NonZero::get);
        let folded = |role: Role| {
            let fold = writer(plan, step, role);
            let table = fold.and_then(|fold| fold.params.block::<Table>());
            table.map_or(0, |table| table.entries.div_ceil(table.entries_per_segment))
        };
        let expected = match step.bindings[0] {
            Role::Rows | Role::GradientTerms => samples,
            // One for a channel is left.
            Role::ChannelParts if is_of_elements(plan) => 1,
            role @ (Role::ChannelTerms | Role::AffineTerms) => {
                let terms = work::cut(writer(plan, step, role).unwrap());
                // Of every group, or of every part of the samples in an element.
                match role == Role::AffineTerms && !(grouped && per_channel) {
                    true => n,
                    false => len * terms.unwrap().parts as u32,
                }
            }
            role @ (Role::ChannelParts | Role::GradientParts) if !empty => folded(role),
            Role::GatheredMoments | Role::GatheredGradients => world_size,
            _ => 0,
        };
        assert_eq!(p.entries, expected, "{what}");
        let of_batch = [Part::Batch, Part::Estimate].contains(&part);
        assert!(
            kernel != KernelId::ChannelFold || of_batch == (p.entries > 0),
            "{what}"
        );
    }
}

/// Columns of the tables that folds read.
fn check_table(what: &str, step: &Step, plan: &Plan, p: &Table) {
    let channels = plan.tensor().num_channels();
    let (channel_columns, affine) = gradient_columns(plan.norm(), plan.mode());
    let gathered = step.bindings.first() == Some(&Role::GatheredGradients);
    // Of elements, the channel part's columns and the affine's are two tables, folded one by one.
    let table = step.bindings.first().copied();
    let table = match table {
        Some(Role::GradientParts) => {
            writer(plan, step, Role::GradientParts).and_then(|fold| fold.bindings.first().copied())
        }
        table => table,
    };
    let (channel_columns, affine) = match table {
        Some(Role::ChannelTerms) => (channel_columns, 0),
        Some(Role::AffineTerms) => (0, affine),
        _ => (channel_columns, affine),
    };
    let columns = match step.spec.kernel {
        KernelId::SampleFold | KernelId::ChannelFold | KernelId::RunningFold => Some(channels),
        KernelId::ChannelFoldBackward if gathered => {
            assert_eq!(p.channel_columns, channels, "{what}");
            Some(channels)
        }
        KernelId::SampleFoldBackward
        | KernelId::GroupFoldBackward
        | KernelId::RowTermsBackward
        | KernelId::ChannelFoldBackward => {
            assert_eq!(p.channel_columns, channel_columns, "{what}");
            Some(channel_columns + affine)
        }
        _ => None,
    };
    if let Some(columns) = columns {
        assert_eq!(p.columns, columns, "{what}");
    }
    let has_terms = step.bindings.contains(&Role::GradientTerms);
    assert!(!has_terms || p.columns > 0, "{what}");
}

/// The parts of a row cover it, none is empty, and no index leaves u32 that is not meant to. In u64, as
/// span.wgsl, row_words.wgsl and column.wgsl compute.
fn check_split(what: &str, step: &Step, plan: &Plan) {
    let spec = &step.spec;
    let wide = u64::from;
    let (width, lanes) = (wide(spec.width), wide(spec.lanes));
    let family = spec.kernel.kernel().family;
    if !family.is_tensor_sized() {
        return;
    }
    // Words, elements and items are counted modulo 2^32, and so exactly.
    let elements = plan.tensor().elements();
    assert!(elements <= MAX_ELEMENTS, "{what}");
    let p = step.params;
    let dispatch = p.dispatch();
    if let Some(groups) = p.block::<ElementGroups>() {
        check_elements(what, step, elements / width, groups);
    }
    if family == Family::ElementReduce {
        // Groups are whole words, one behind the other; a chunk looks behind the last.
        assert_eq!(wide(dispatch.items), work::items(step, plan), "{what}");
        let per_group = wide(work::block::<ElementGroups>(step).words_per_group);
        let words = wide(dispatch.items) * per_group;
        assert_eq!(words * width, elements, "{what}");
        let highest = per_group + 2 * 4 * lanes;
        assert!(
            highest * width <= wide(u32::MAX) && words <= wide(u32::MAX),
            "{what}: {p:?}"
        );
    }
    let Some(cut) = work::cut(step) else {
        return;
    };
    let covered = cut.parts * cut.per_part;
    let before = covered - cut.per_part;
    let (rows, len) = (cut.blocks, cut.len);
    // The rows' begins within a word repeat after `width` rows.
    let sample = (0..rows.min(5)).chain(rows.saturating_sub(5)..rows);
    for row in sample {
        let (begin, end) = (row * len, (row + 1) * len);
        match family {
            Family::RowReduce => {
                let last = begin / width + covered;
                assert!(last * width >= end, "{what}: row {row} is cut short");
                // Within a row, words and elements are counted in u32; `loose_mask` looks at words
                // CHUNK * LANES behind the span.
                let highest = (covered + 4 * lanes + 1) * width;
                assert!(highest <= wide(u32::MAX), "{what}: element {highest}");
            }
            Family::RowMap => {
                let last = begin.div_ceil(width) + covered;
                assert!(last >= end / width, "{what}: row {row} is cut short");
                let highest = covered + 4 * lanes + 1;
                assert!(highest <= wide(u32::MAX), "{what}: word {highest}");
                // A last word that reaches into the next row needs one, or 16 bits of padding.
                let padded = spec.dtype != DType::F32 && spec.width == 2;
                assert!(
                    end.is_multiple_of(width) || row + 1 < rows || padded,
                    "{what}: row {row}"
                );
            }
            _ => {}
        }
    }
    if let Family::ColumnReduce | Family::ColumnMap | Family::ElementColumn = family {
        assert!(before < len && len <= covered, "{what}: {p:?}");
        assert!(covered + 8 * lanes <= wide(u32::MAX), "{what}: {p:?}");
        if work::strides(step) {
            let found = (spec.lanes, cut.parts, dispatch.first_item);
            assert_eq!(found, (1, 1, 0), "{what}");
            // An item behind its last word.
            let words = work::block::<ColumnSplit>(step).num_words;
            assert!(
                wide(words) + wide(dispatch.items) <= wide(u32::MAX),
                "{what}"
            );
        } else {
            let channels = match p.block::<ColumnSplit>() {
                Some(split) => wide(split.num_channels),
                None => elements / len,
            };
            assert_eq!(cut.columns * width, channels, "{what}");
            // The items of an invocation are of one part.
            let together = wide(spec.column_words);
            for items in [cut.columns, wide(dispatch.first_item), wide(dispatch.items)] {
                assert!(items.is_multiple_of(together), "{what}: {spec:?} {p:?}");
            }
            assert!(
                together == 1 || (spec.lanes, spec.width) == (1, 4),
                "{what}"
            );
        }
    }
}

/// The items of a kernel on elements touch every word once.
fn check_elements(what: &str, step: &Step, words: u64, groups: &ElementGroups) {
    let spec = &step.spec;
    if spec.kernel.kernel().family == Family::ElementColumn {
        // A word is of one group.
        let size = groups.num_channels / groups.num_groups * groups.channel_len;
        assert!(size.is_multiple_of(spec.width), "{what}: {groups:?}");
    }
    // Of small tensors, each.
    if words > 4096 {
        return;
    }
    let mut seen = vec![0; words as usize];
    for item in work::item_range(step) {
        for word in work::words_of_elements(step, item) {
            seen[word as usize] += 1;
        }
    }
    assert!(seen.iter().all(|&times| times == 1), "{what}: {seen:?}");
}
