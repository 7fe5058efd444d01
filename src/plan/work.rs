//! How the items of a fold become lanes and workgroups.

use crate::desc::TensorDesc;
use crate::error::{Error, within};
use crate::kernels::{KernelId, Spec};
use crate::limits::{MAX_FOLD_LANES, MAX_ITERATIONS};
use crate::tuning::Tuning;

/// Lanes for a fold of `items` columns, each of which runs over `entries`.
pub(super) fn fold_lanes(
    kernel: KernelId,
    items: u32,
    entries: u32,
    tuning: &Tuning,
) -> Result<u32, Error> {
    let loops = kernel.kernel().loops;
    let lanes = entries
        .div_ceil(tuning.fold.entries_per_lane.max(1))
        .max(1)
        .checked_next_power_of_two()
        .unwrap_or(tuning.fold.lanes)
        .min(tuning.fold.lanes);
    // Few columns leave most of the processor idle: lanes then, where each keeps enough to do.
    let idle = (tuning.fold.min_invocations / items.max(1))
        .min(entries / tuning.fold.min_entries_per_lane.max(1))
        .min(tuning.fold.workgroup_size)
        .max(1);
    let lanes = lanes.max(1 << idle.ilog2());
    let iterations = u64::from(entries.div_ceil(lanes)) * u64::from(loops);
    if iterations <= u64::from(MAX_ITERATIONS) {
        return Ok(lanes);
    }
    // The tuning's lanes are too few: as many as it takes. A lane may have an entry more than its share.
    let most = u64::from(MAX_ITERATIONS - loops);
    within(
        || {
            format!(
                "the number of entries that one item of {} folds",
                kernel.name()
            )
        },
        u64::from(entries),
        u64::from(MAX_FOLD_LANES) * most / u64::from(loops),
        "what 256 invocations of 65,000 loop iterations fold",
        match kernel {
            KernelId::GroupFold | KernelId::GroupFoldBackward => {
                "use more groups or fewer channels"
            }
            KernelId::RunningFold => "split the batch",
            KernelId::SampleFold | KernelId::SampleFoldBackward => {
                "tune with a smaller fold.samples_per_segment"
            }
            KernelId::ChannelFold | KernelId::ChannelFoldBackward => {
                "tune with a smaller fold.samples_per_segment, or gather fewer devices at a time"
            }
            _ => {
                "tune for fewer parts of rows (a larger parts.max_words_per_lane and max_column_bytes, a smaller parts.min_invocations), or for \
                 fewer short rows (a smaller short_rows.max_row and max_batch_row)"
            }
        },
    )?;
    let lanes = (u64::from(entries) * u64::from(loops)).div_ceil(most);
    // At most MAX_FOLD_LANES, a power of two.
    Ok((lanes as u32).next_power_of_two())
}

/// Segments that a column of `entries` is folded in, and entries of each; one segment where a
/// single fold does.
pub(super) fn segments(entries: u32, tuning: &Tuning) -> (u32, u32) {
    let per_segment = tuning.fold.samples_per_segment.max(1);
    if entries <= per_segment {
        return (1, entries);
    }
    // The root bounds both folds by 46,341 entries for any u32.
    let per_segment = per_segment.max(entries.isqrt() + 1).min(MAX_ITERATIONS);
    (entries.div_ceil(per_segment), per_segment)
}

/// Workgroups for `items`, folded into two dimensions beyond the limit of one.
pub(super) fn workgroups(
    spec: &Spec,
    items: u32,
    tensor: &TensorDesc,
    tuning: &Tuning,
) -> Result<[u32; 2], Error> {
    let each = u64::from(spec.workgroup_size / spec.lanes) * u64::from(spec.column_words);
    let total = u64::from(items).div_ceil(each).max(1);
    let most = u64::from(tuning.limits.max_workgroups.max(1));
    within(
        || format!("workgroups of {}", spec.kernel.name()),
        total,
        most * most,
        "max_compute_workgroups_per_dimension, squared",
        "tune for larger workgroups, or raise limits.max_workgroups as far as the device grants",
    )?;
    let y = total.div_ceil(most);
    let x = total.div_ceil(y);
    // Kernels number the items of all workgroups, those behind the last item too, in u32.
    within(
        || {
            format!(
                "the number of items in whole workgroups of {}",
                spec.kernel.name()
            )
        },
        x * y * each,
        1 << 32,
        "u32 index",
        tensor.smaller(),
    )?;
    // Neither is more than `most`.
    Ok([x as u32, y as u32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_bound_both_folds() {
        for entries in [1, 1024, 1025, 140_000, 1 << 30, u32::MAX] {
            let (count, size) = segments(entries, &Tuning::SOFTWARE);
            assert!(u64::from(count) * u64::from(size) >= u64::from(entries));
            assert!(
                count <= MAX_ITERATIONS + 1100 && size <= 65_535,
                "{entries}"
            );
        }
    }

    #[test]
    fn workgroups_fold_into_two_dimensions() {
        let spec = Spec::new(KernelId::RowAffine, 8, 1);
        let tensor = TensorDesc::new(&[1, 1]).unwrap();
        let workgroups = |items, tuning| workgroups(&spec, items, &tensor, tuning);
        assert_eq!(workgroups(8 * 65_535, &Tuning::SOFTWARE), Ok([65_535, 1]));
        let [x, y] = workgroups(8 * 65_536, &Tuning::SOFTWARE).unwrap();
        assert!(x <= 65_535 && y == 2 && x * y >= 65_536);
        let tiny = Tuning::SOFTWARE.with(|t| t.limits.max_workgroups = 3);
        assert!(workgroups(80, &tiny).is_err());
    }
}
