//! Between steps: windows, needs, who writes what is read, what devices gather, how often tensors move.

use super::asked::{Asked, Part, parts};
use super::elements::is_of_elements;
use crate::common::work;
use bcnorm::kernels::{Access, Element, Family, KernelId};
use bcnorm::params::{ColumnSplit, Norm, Table};
use bcnorm::plan::{Direction, Step};
use bcnorm::role::RoleKind;
use bcnorm::{Activation, GradientMode, Mode, NormKind, Plan, Role, RowSource, Tuning, params};
use std::collections::BTreeSet;

/// The step before `step` that wrote a table last.
pub fn writer<'a>(plan: &'a Plan, step: &Step, role: Role) -> Option<&'a Step> {
    let before = plan.steps().iter();
    let before = before.take_while(|other| !std::ptr::eq(*other, step));
    before.filter(|other| writes(other, role)).last()
}

fn writes(step: &Step, role: Role) -> bool {
    let mut bindings = step.bindings.iter().zip(step.spec.bindings());
    bindings.any(|(&bound, (_, declared))| bound == role && declared.access == Access::ReadWrite)
}

/// The windows of a kernel hold all that their items touch, which is every word and every item once.
pub fn check_windows(what: &str, plan: &Plan, tuning: &Tuning) {
    let tensor = plan.tensor();
    let steps = plan.steps();
    let mut first = 0;
    while first < steps.len() {
        let kernel = steps[first].spec.kernel;
        // Of elements no window is ever made.
        let of_elements = is_of_elements(plan);
        if of_elements {
            let step = &steps[first];
            assert!(step.window.is_none(), "{what}");
            let words = step.params.block::<ColumnSplit>();
            assert!(words.is_none_or(|split| split.num_words == 0), "{what}");
        }
        if of_elements || !kernel.kernel().family.is_tensor_sized() {
            first += 1;
            continue;
        }
        let windows = steps[first..].iter();
        let windows = windows.take_while(|step| step.spec.kernel == kernel);
        let windows = &steps[first..first + windows.count()];
        first += windows.len();
        let what = format!("{what}: {}", kernel.name());
        let strides = work::strides(&windows[0]);
        let spec = windows[0].spec;
        let word_bytes = spec.dtype.bytes() * u64::from(spec.width);
        // The last word may reach beyond the tensor.
        let total = tensor.elements().div_ceil(u64::from(spec.width));
        let maps = matches!(kernel.kernel().family, Family::RowMap);
        let (mut item, mut word) = (0, 0);
        for step in windows {
            // But for a window that ends within an invocation.
            let mut like_first = step.spec;
            like_first.column_words = spec.column_words;
            assert_eq!(like_first, spec, "{what}");
            assert_eq!(step.bindings, windows[0].bindings, "{what}");
            assert!(step.window.is_some() || windows.len() == 1, "{what}");
            let p = step.params;
            let num_words = p.block::<ColumnSplit>().map(|split| split.num_words);
            let window = step.window;
            let (offset, window_bytes) = match window {
                Some(window) => (window.offset, window.bytes),
                None => (0, tensor.buffer_bytes()),
            };
            assert!(offset.is_multiple_of(256), "{what}: {window:?}");
            assert!(window_bytes.is_multiple_of(4), "{what}: {window:?}");
            assert!(
                window_bytes <= tuning.limits.max_binding_bytes,
                "{what}: {window:?}"
            );
            let end = offset + window_bytes;
            assert!(end <= tensor.buffer_bytes(), "{what}: {window:?}");
            assert_eq!(
                u64::from(p.dispatch().first_word) * word_bytes,
                offset,
                "{what}"
            );
            let bytes = num_words.map_or(window_bytes, |words| u64::from(words) * word_bytes);
            // The last word may reach beyond the tensor.
            let bound = bytes
                .next_multiple_of(4)
                .min(tensor.buffer_bytes().next_multiple_of(word_bytes.max(4)) - offset);
            assert!(
                bound.next_multiple_of(word_bytes.max(4))
                    == window_bytes.next_multiple_of(word_bytes.max(4))
                    || num_words == Some(u32::MAX),
                "{what}: {p:?} {window:?}"
            );
            let words = work::words(step);
            assert!(words.end <= total, "{what}");
            assert!(
                words.start * word_bytes >= offset
                    && (words.end * word_bytes).min(tensor.buffer_bytes()) <= end,
                "{what}: {words:?} of {window:?}"
            );
            if strides || maps {
                assert_eq!(words.start, word, "{what}");
                word = words.end;
            }
            if !strides {
                assert_eq!(work::item_range(step).start, item, "{what}");
                item = work::item_range(step).end;
            }
        }
        let last = &windows[windows.len() - 1];
        assert_eq!(work::words(last).end, total, "{what}");
        if !strides {
            assert_eq!(item, work::items(&windows[0], plan), "{what}");
        }
    }
}

/// Needs are exactly what the steps touch.
pub fn check_needs(what: &str, plan: &Plan) {
    let mut roles = BTreeSet::new();
    for need in plan.needs() {
        assert!(roles.insert(need.role), "{what}: {} twice", need.role);
        let (mut bytes, mut written) = (0, false);
        for step in plan.steps() {
            for (&role, (_, declared)) in step.bindings.iter().zip(step.spec.bindings()) {
                if role == need.role {
                    let touched = match declared.element {
                        Element::Word => plan.tensor().buffer_bytes(),
                        element => work::entries(step, plan, declared) * element.bytes(&step.spec),
                    };
                    bytes = bytes.max(touched);
                    written |= declared.access == Access::ReadWrite;
                }
            }
        }
        assert_eq!(need.bytes, bytes, "{what}: {}", need.role);
        assert!(bytes > 0 && bytes % 4 == 0, "{what}: {}", need.role);
        assert_eq!(
            need.access == Access::ReadWrite,
            written,
            "{what}: {}",
            need.role
        );
    }
    for step in plan.steps() {
        for (role, (_, declared)) in step.bindings.iter().zip(step.spec.bindings()) {
            assert!(
                roles.contains(role),
                "{what}: {role} is not among the needs"
            );
            if declared.element != Element::Word {
                let entries = work::entries(step, plan, declared);
                assert!(
                    entries <= 1 << 32,
                    "{what}: {declared:?}: {entries} entries"
                );
            }
        }
    }
}

/// A table is read after it was written, by this plan, by forward if saved, or by the caller if given;
/// and written by one kernel, to its end before another reads it.
pub fn check_dataflow(what: &str, plan: &Plan, asked: &Asked, elements: bool) {
    let norm = plan.norm();
    let forward = plan.direction() == Direction::Forward;
    let (part, grouped) = parts(norm, plan.mode());
    let empty = plan.tensor().elements() == 0;
    let given = |role: &Role| match role {
        Role::Rows if asked.rows == RowSource::Given => true,
        Role::GatheredMoments | Role::GatheredGradients => asked.world_size.is_some(),
        role => role.kind() == RoleKind::Caller || (!forward && role.kind() == RoleKind::Saved),
    };
    let mut written: Vec<(Role, KernelId)> = Vec::new();
    for step in plan.steps() {
        let kernel = step.spec.kernel;
        let name = kernel.name();
        let bindings = || step.bindings.iter().zip(step.spec.bindings());
        for (role, (_, declared)) in bindings() {
            if declared.access == Access::Read
                && !given(role)
                && step
                    .params
                    .block::<Table>()
                    .is_none_or(|table| table.entries > 0)
            {
                assert!(
                    written.iter().any(|(known, _)| known == role),
                    "{what}: {name} reads {role}, which nobody wrote"
                );
            }
        }
        for (role, (_, declared)) in bindings() {
            if declared.access == Access::ReadWrite {
                let before = written.iter().find(|(known, _)| known == role);
                match before {
                    None => written.push((*role, kernel)),
                    // Of elements, two tables of terms are folded one after the other.
                    Some(&(_, KernelId::SampleFoldBackward))
                        if elements && kernel == KernelId::SampleFoldBackward =>
                    {
                        let before = writer(plan, step, *role).unwrap();
                        let tables = [before.bindings[0], step.bindings[0]];
                        assert_eq!(tables, [Role::ChannelTerms, Role::AffineTerms], "{what}");
                        let steps = plan.steps().iter();
                        let between = steps
                            .skip_while(|other| !std::ptr::eq(*other, before))
                            .take_while(|other| !std::ptr::eq(*other, step));
                        let mut readers = between.skip(1);
                        assert!(readers.any(|other| other.bindings[0] == *role), "{what}");
                    }
                    // It only reads what was counted for it.
                    Some(&(_, KernelId::BatchCount)) => {
                        let cumulative = work::block::<Norm>(step).flags & params::CUMULATIVE != 0;
                        assert!(cumulative && kernel == KernelId::ChannelFold, "{what}");
                    }
                    // Windows of one tensor; only the first of them may be the first.
                    Some(&(_, before)) => {
                        assert!(
                            before == kernel && step.window.is_some(),
                            "{what}: {role} is written twice"
                        );
                    }
                }
                let saved = role.kind() == RoleKind::Saved && !forward;
                let caller = role.kind() == RoleKind::Saved && given(role);
                assert!(!saved && !caller, "{what}: {name} writes {role}");
            }
        }
    }
    let is_written = |role: Role| written.iter().any(|&(known, _)| known == role);
    let batch = [Part::Batch, Part::Estimate].contains(&part);
    let exchanged = asked.world_size.is_some() && batch;
    let tracks = match norm.kind {
        NormKind::InstanceNorm => norm.track_running_stats && (part == Part::Running || !empty),
        _ => match part {
            Part::None => false,
            Part::Batch => norm.track_running_stats && plan.mode() == Mode::Train,
            Part::Estimate | Part::Running => true,
        },
    };
    let runs = !empty || exchanged;
    let counts = part == Part::Batch && plan.mode() == Mode::Train && norm.track_running_stats;
    let fused = asked.fusion.activation != Activation::None;
    let bc = norm.kind == NormKind::BcNorm;
    let flows = part == Part::Batch;
    let alone = asked.inference || asked.in_place;
    let wanted: Vec<(Role, bool)> = match forward {
        true => vec![
            (Role::Y, !empty && !asked.in_place),
            (Role::X, !empty && asked.in_place),
            (
                Role::Rows,
                !empty && asked.rows == RowSource::Computed && !elements,
            ),
            (Role::Channels, runs && part != Part::None),
            (Role::Groups, !empty && grouped && !(elements && alone)),
            (Role::Coefficients, !empty && !elements),
            (Role::NumBatchesTracked, runs && counts),
            (Role::RunningMean, runs && tracks),
            (Role::RunningVar, runs && tracks),
            (Role::ChannelMoments, exchanged),
        ],
        false => vec![
            (Role::GradX, !empty),
            (Role::GradResidual, !empty && fused && asked.fusion.residual),
            (Role::GradBnWeight, bc && norm.bn_weight),
            (Role::GradBnBias, bc && norm.bn_bias),
            (Role::GradWeight, norm.weight),
            (Role::GradBias, norm.bias),
            (Role::GradientSums, exchanged && flows),
            (Role::ChannelGradients, !empty && flows),
        ],
    };
    for &(role, expected) in &wanted {
        assert_eq!(is_written(role), expected, "{what}: {role}");
    }
    // And nothing of the caller's besides.
    for (role, _) in written {
        let listed = wanted.iter().any(|&(known, _)| known == role);
        assert!(role.kind() == RoleKind::Scratch || listed, "{what}: {role}");
    }
}

/// A plan stops for other devices where they share statistics: what it leaves for them is written
/// before, what they send is read behind.
pub fn check_exchange(what: &str, plan: &Plan, asked: &Asked) {
    let (part, _) = parts(plan.norm(), plan.mode());
    let forward = plan.direction() == Direction::Forward;
    let shared = part == Part::Batch || (forward && part == Part::Estimate);
    let exchanged = asked.world_size.is_some() && shared;
    assert_eq!(plan.all_gather_before().is_some(), exchanged, "{what}");
    let Some(at) = plan.all_gather_before() else {
        return;
    };
    let (left, got) = match forward {
        true => (Role::ChannelMoments, Role::GatheredMoments),
        false => (Role::GradientSums, Role::GatheredGradients),
    };
    let world_size = u64::from(asked.world_size.unwrap().get());
    let one = plan
        .need(left)
        .unwrap_or_else(|| panic!("{what}: no {left}"));
    if let Some(all) = plan.need(got) {
        assert_eq!(all.bytes, world_size * one.bytes, "{what}");
    } else {
        // Nobody has a dx.
        assert!(!forward && plan.tensor().elements() == 0, "{what}");
    }
    for (index, step) in plan.steps().iter().enumerate() {
        assert!(index < at || !step.bindings.contains(&left), "{what}");
        assert!(index >= at || !step.bindings.contains(&got), "{what}");
    }
}

/// Two kernels on tensors each way: 3 transfers forward (2 where the moments are known), 5 backward (4
/// where dx does not depend on x), one more where dx is accumulated; the residual is read once more
/// forward, and three times more backward with an activation, its gradient included.
///
/// Where elements are rows, forward is one kernel without batch statistics, 2 transfers; and backward
/// reads x and dy once more, 7 in all, where gradients are per channel.
pub fn check_transfers(what: &str, plan: &Plan, asked: &Asked, elements: bool) {
    if plan.tensor().elements() == 0 {
        assert_eq!(plan.tensor_bytes(), 0, "{what}");
        return;
    }
    let (norm, (part, grouped)) = (plan.norm(), parts(plan.norm(), plan.mode()));
    let mut counts: Vec<(KernelId, u64)> = Vec::new();
    let mut windowed = false;
    for step in plan.steps() {
        let count = step.bindings.iter().filter(|role| role.is_tensor()).count() as u64;
        windowed |= step.window.is_some();
        if count > 0
            && counts
                .last()
                .is_none_or(|&(last, _)| last != step.spec.kernel)
        {
            counts.push((step.spec.kernel, count));
        }
    }
    let residual = u64::from(asked.fusion.residual);
    let fused = asked.fusion.activation != Activation::None;
    let of_batch = [Part::Batch, Part::Estimate].contains(&part);
    // In place, one binding is read and written.
    let (expected, reread) = match plan.direction() {
        Direction::Forward => {
            let reads = of_batch || (grouped && !elements);
            let reads = reads && asked.rows == RowSource::Computed;
            let in_place = u64::from(asked.in_place);
            let moments = reads.then_some(1);
            let map = 2 - in_place + residual;
            (
                moments.into_iter().chain([map]).collect::<Vec<_>>(),
                in_place,
            )
        }
        Direction::Backward if elements => {
            let per_channel = norm.kind != NormKind::BcNorm || norm.per_channel_affine;
            let channel_part =
                part == Part::Batch || (part != Part::None && (norm.bn_weight || norm.bn_bias));
            let terms = channel_part || (per_channel && (norm.weight || norm.bias));
            let accumulated = u64::from(asked.write == GradientMode::Accumulate);
            let terms = terms.then_some(2);
            (
                [2].into_iter().chain(terms).chain([3]).collect(),
                accumulated,
            )
        }
        _ => {
            let residual = residual * u64::from(fused);
            let accumulated = u64::from(asked.write == GradientMode::Accumulate);
            // dx is dy times a constant where nothing depends on x.
            let reads = grouped || fused || part == Part::Batch;
            let map = 2 + u64::from(reads) + 2 * residual;
            (vec![2 + residual, map], accumulated)
        }
    };
    let found: Vec<u64> = counts.iter().map(|&(_, count)| count).collect();
    assert_eq!(found, expected, "{what}");
    let transfers = expected.iter().sum::<u64>() + reread;
    let least = transfers * plan.tensor().bytes();
    if windowed {
        // Windows overlap at their edges.
        assert!(plan.tensor_bytes() >= least, "{what}");
    } else {
        assert_eq!(plan.tensor_bytes(), least, "{what}");
    }
}
