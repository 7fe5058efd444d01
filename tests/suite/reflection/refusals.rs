//! What cannot be bounded, and what is empty.

use super::asked::{Asked, Part, is_beyond, norms, parts, plans, storages, tunings};
use super::elements::is_of_elements;
use super::steps::check_plan;
use crate::common::work;
use bcnorm::kernels::{KernelId, Spec, canonical_specs};
use bcnorm::plan::Direction;
use bcnorm::{Error, Layout, Mode, NormDesc, NormKind, TensorDesc, Tuning};
use std::collections::HashSet;

/// What no tuning makes possible is refused, and says what is too much.
#[test]
fn what_cannot_be_bounded_is_refused() {
    use Mode::{Eval, Train};
    let bc = NormDesc::bc_norm;
    let instance = NormDesc::instance_norm(2).with_track_running_stats(true);
    for (_, tuning) in tunings() {
        for (dims, norm, mode, value) in [
            (&[1, 1 << 23, 2][..], bc(1 << 23, 1), Eval, 1 << 23),
            (&[1, 1 << 23], bc(1 << 23, 1), Eval, 1 << 23),
            (&[3, 21_474_836, 33], bc(21_474_836, 4), Eval, 5_368_709),
            (&[1 << 31, 1], bc(1, 1), Eval, 1 << 32),
            (&[1 << 30, 2], bc(2, 2), Eval, 1 << 32),
            (&[1, 1 << 31], bc(1 << 31, 1 << 31), Eval, 1 << 32),
            (
                &[1, 1 << 23, 1],
                NormDesc::layer_norm(1 << 23),
                Train,
                1 << 23,
            ),
            (&[1 << 25, 2, 2], instance, Train, 1 << 25),
            (&[1 << 31, 1, 2], NormDesc::batch_norm(1), Train, 1 << 32),
            (&[2, 2, 1 << 30], NormDesc::layer_norm(2), Train, 1 << 31),
        ] {
            let tensor = TensorDesc::new(dims).unwrap();
            for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                let tensor = tensor.clone().with_layout(layout);
                let result = plans(&norm, &tensor, mode, Asked::default(), &tuning);
                if !is_beyond(&norm, &tensor, mode, Asked::default(), &tuning) {
                    // 2^31 values are behind one mean, or elements are rows.
                    let elements = || is_of_elements(&result.unwrap()[0].0);
                    assert!(value == 1 << 31 || elements(), "{dims:?}");
                    continue;
                }
                let error = result.unwrap_err();
                let Error::Limit {
                    value: found,
                    limit,
                    ..
                } = error
                else {
                    panic!("{dims:?}: {error}");
                };
                assert!(found == value && found > limit, "{dims:?}: {error}");
            }
        }
    }
}

#[test]
fn an_empty_batch_writes_only_gradients() {
    let known: HashSet<Spec> = canonical_specs().into_iter().collect();
    for dims in [&[0, 4, 3][..], &[2, 4, 0], &[0, 4, 0], &[0, 1, 7]] {
        for (norm, mode) in norms(dims[1], dims[1].div_ceil(2)) {
            for (dtype, layout) in storages() {
                let tensor = TensorDesc::new(dims).unwrap();
                let tensor = tensor.with_dtype(dtype).with_layout(layout);
                for (name, tuning) in tunings() {
                    for asked in Asked::all() {
                        let in_place = asked.in_place && mode == Mode::Eval;
                        let asked = Asked { in_place, ..asked };
                        let what = format!("{dims:?} {norm:?} {mode:?} {name} {asked:?}");
                        check_empty(&what, &norm, &tensor, mode, asked, &tuning, &known);
                    }
                }
            }
        }
    }
}

fn check_empty(
    what: &str,
    norm: &NormDesc,
    tensor: &TensorDesc,
    mode: Mode,
    asked: Asked,
    tuning: &Tuning,
    known: &HashSet<Spec>,
) {
    let plans = plans(norm, tensor, mode, asked, tuning).unwrap();
    let (part, _) = parts(norm, mode);
    let forward = &plans[0].0;
    if forward.all_gather_before().is_none() {
        assert!(
            forward.steps().is_empty() && forward.needs().is_empty(),
            "{what}"
        );
    }
    let bc = norm.kind == NormKind::BcNorm;
    let parameters = norm.weight || norm.bias || (bc && (norm.bn_weight || norm.bn_bias));
    // Sums of nothing are a contribution to those of other devices.
    let writes = parameters || part == Part::Batch;
    for (plan, asked) in &plans {
        check_plan(what, plan, tuning, asked, known);
        if plan.direction() == Direction::Backward {
            assert_eq!(plan.steps().len(), usize::from(writes), "{what}");
        }
        for step in plan.steps() {
            if plan.direction() == Direction::Backward {
                assert_eq!(step.spec.kernel, KernelId::ChannelFoldBackward, "{what}");
                assert_eq!(
                    work::block::<bcnorm::params::Table>(step).entries,
                    0,
                    "{what}"
                );
                let tree = u64::from(step.spec.lanes.ilog2());
                assert_eq!(work::iterations(step), tree, "{what}");
            }
        }
    }
}
