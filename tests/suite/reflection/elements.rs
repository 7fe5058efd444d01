//! Plans whose elements are rows of their own, and plans whose elements are rows over the samples.

use super::asked::{Asked, Part, parts, plans};
use bcnorm::kernels::KernelId;
use bcnorm::params::{Parts, Shape, Table};
use bcnorm::plan::{Direction, Step};
use bcnorm::{
    Activation, DType, GradientMode, Layout, Mode, NormDesc, NormKind, Plan, Role, RowSource,
    TensorDesc, Tuning,
};
use std::num::NonZero;

/// How a plan goes about a tensor whose elements are rows of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Elements {
    pub width: u32,
    /// Lanes that share a group.
    pub lanes: u32,
}

impl Elements {
    /// Where a plan does: rows are short, or a group that no backward asks for is small; its elements
    /// lie together; nothing but x is asked for, and one binding holds whatever there is.
    pub fn of(
        norm: &NormDesc,
        tensor: &TensorDesc,
        mode: Mode,
        direction: Direction,
        asked: &Asked,
        tuning: &Tuning,
    ) -> Option<Self> {
        let (part, grouped) = parts(norm, mode);
        let len = tensor.row_len();
        let size = (norm.num_channels / norm.num_groups) as u64 * u64::from(len);
        let width = match tensor.dtype() {
            _ if size.is_multiple_of(4) => 4,
            DType::F32 => 1,
            _ => 2,
        };
        let updates_rows =
            mode == Mode::Train && norm.kind == NormKind::InstanceNorm && norm.track_running_stats;
        let together = tensor.layout() == Layout::ChannelsFirst || len == 1;
        let possible = grouped
            && !updates_rows
            && together
            && (asked.world_size.is_none() || ![Part::Batch, Part::Estimate].contains(&part))
            && asked.rows == RowSource::Computed
            && tensor.elements() > 0
            && norm.num_channels <= 1 << 20
            && size.is_multiple_of(u64::from(width))
            && size <= u64::from(u32::MAX);
        if !possible || tensor.buffer_bytes() > tuning.limits.max_binding_bytes {
            return None;
        }
        let group_words = (size / u64::from(width)) as u32;
        let mut lanes = 1;
        while lanes < tuning.reduction.lanes && u64::from(lanes) * 4 < u64::from(group_words) {
            lanes *= 2;
        }
        let share = group_words.div_ceil(lanes);
        let inference = direction == Direction::Forward && (asked.inference || asked.in_place);
        let plain = asked.fusion.activation == Activation::None;
        let short = len <= tuning.short_rows.max_row && (inference || plain);
        let small = size <= u64::from(tuning.inference.max_group)
            && tensor.elements() <= u64::from(tuning.inference.max_tensor);
        let fused = inference && small && [Part::None, Part::Running].contains(&part);
        // Three loops over a lane's share.
        ((short || fused) && share <= 65_000 / 3).then_some(Self { width, lanes })
    }

    pub fn of_plan(plan: &Plan, asked: &Asked, tuning: &Tuning) -> Option<Self> {
        let (norm, tensor) = (plan.norm(), plan.tensor());
        Self::of(norm, tensor, plan.mode(), plan.direction(), asked, tuning)
    }
}

/// Whether a sample's elements must be rows over the samples: a norm without a group part, channels first,
/// rows that are short and fewer than samples.
pub fn takes_elements_as_rows(plan: &Plan, asked: &Asked, tuning: &Tuning) -> bool {
    let tensor = plan.tensor();
    let (_, grouped) = parts(plan.norm(), plan.mode());
    let (n, c, len) = (
        tensor.num_samples(),
        tensor.num_channels(),
        tensor.row_len(),
    );
    !grouped
        && asked.rows == RowSource::Computed
        && tensor.layout() == Layout::ChannelsFirst
        && tensor.elements() > 0
        && c > 1
        && (2..n).contains(&len)
        && len <= tuning.short_rows.max_batch_row
        && c.checked_mul(len).is_some()
}

/// Such a plan reads and writes the tensor as that of (N, C * L) does, which the checks below look at; its
/// channels have L rows each, which lie together and are folded.
pub fn check_elements_as_rows(what: &str, plan: &Plan, asked: &Asked, tuning: &Tuning) {
    let (tensor, norm) = (plan.tensor(), plan.norm());
    let (channels, len) = (tensor.num_channels(), tensor.row_len());
    let elements = (channels * len) as usize;
    let wide = TensorDesc::new(&[tensor.num_samples() as usize, elements]).unwrap();
    let wide = wide.with_dtype(tensor.dtype());
    let mut wide_norm = *norm;
    wide_norm.num_channels = elements;
    let plain = Asked {
        write: GradientMode::Replace,
        ..*asked
    };
    let wide_plans = plans(&wide_norm, &wide, plan.mode(), plain, tuning).unwrap();
    let like = wide_plans
        .iter()
        .find(|(like, with)| like.direction() == plan.direction() && with.write == asked.write);
    let (like, _) = like.unwrap();
    let sized = |plan: &Plan| -> Vec<Step> {
        let steps = plan.steps().iter();
        let steps = steps.filter(|step| step.spec.kernel.kernel().family.is_tensor_sized());
        steps.cloned().collect()
    };
    let (found, expected) = (sized(plan), sized(like));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.into_iter().zip(expected) {
        assert_eq!(found, expected, "{what}");
    }
    assert_eq!(plan.tensor_bytes(), like.tensor_bytes(), "{what}");
    for role in [
        Role::Rows,
        Role::Coefficients,
        Role::Products,
        Role::CoefficientsBackward,
    ] {
        let bytes = |plan: &Plan| plan.need(role).map(|need| need.bytes);
        assert_eq!(bytes(plan), bytes(like), "{what}: {role}");
    }
    let (part, _) = parts(norm, plan.mode());
    for step in plan.steps() {
        let (kernel, params) = (step.spec.kernel, &step.params);
        let items = params.dispatch().items;
        let folded = || params.block::<Table>().unwrap().entries;
        let what = format!("{what}: {}", kernel.name());
        check_dispatch_size(&what, step);
        if let Some(shape) = params.block::<Shape>() {
            let found = (shape.num_channels, shape.rows_together);
            assert_eq!(found, (channels, len), "{what}");
        }
        match kernel {
            KernelId::RowFold if step.bindings[1] == Role::ChannelParts => {
                assert_eq!(
                    (items, params.block::<Parts>().unwrap().parts),
                    (channels, len),
                    "{what}"
                );
                assert_eq!(step.bindings[0], Role::Rows, "{what}");
            }
            KernelId::ChannelFold => {
                assert_eq!(items, channels, "{what}");
                let from_batch = [Part::Batch, Part::Estimate].contains(&part);
                let world_size = asked.world_size.map_or(1, NonZero::get);
                let entries = if from_batch { world_size } else { 0 };
                assert_eq!(folded(), entries, "{what}");
            }
            KernelId::RowCoefficients | KernelId::RowTermsBackward => {
                assert_eq!(items, channels * len, "{what}");
            }
            KernelId::RowCoefficientsBackward => assert_eq!(items, channels * len, "{what}"),
            KernelId::SampleFoldBackward => assert_eq!(folded(), len, "{what}"),
            KernelId::ChannelFoldBackward if step.bindings[0] == Role::GradientTerms => {
                assert_eq!((items, folded()), (channels, len), "{what}");
            }
            _ => {}
        }
    }
}

/// As many workgroups as the items of a step on tables need.
fn check_dispatch_size(what: &str, step: &Step) {
    let [x, y] = step.workgroups.map(u64::from);
    let invocations = step.spec.workgroup_size / step.spec.lanes;
    let per_workgroup = u64::from(invocations * step.spec.column_words);
    assert!(
        x * y * per_workgroup >= u64::from(step.params.dispatch().items),
        "{what}"
    );
}

/// Whether the plan takes elements as rows ([`check_way`] says that it should).
pub fn is_of_elements(plan: &Plan) -> bool {
    let last = plan.steps().last().map(|step| step.spec.kernel);
    [
        Some(KernelId::ElementAffine),
        Some(KernelId::ElementAffineBackward),
    ]
    .contains(&last)
}
