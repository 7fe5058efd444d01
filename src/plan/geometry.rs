//! How work is shared out: words, lanes, parts, segments, workgroups. Every loop of every kernel is
//! bounded here.

use crate::desc::{BcNormDesc, CHANNEL_EPS, ChannelStats, Mode, TensorDesc};
use crate::error::Error;
use crate::kernels::{KernelId, Spec};
use crate::params::{CUMULATIVE, ESTIMATE, Params, TRAINING};
use crate::tuning::Tuning;

/// llvmpipe ends an invocation after about this many loop iterations, without an error; no kernel
/// is planned to run more, over all of its loops.
pub(super) const MAX_ITERATIONS: u32 = 65_000;

/// Words that the tensor-sized kernels take per loop iteration (`CHUNK` in `span.wgsl`).
#[cfg(test)]
const CHUNK: u32 = 4;

/// Rows and parts of a tensor-sized kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split {
    pub lanes: u32,
    pub parts: u32,
    pub words_per_part: u32,
}

/// What is common to all steps of a plan.
#[derive(Debug)]
pub(super) struct Geometry {
    pub width: u32,
    pub aligned: bool,
    pub num_words: u32,
    pub reduce: Split,
    pub map: Split,
}

impl Geometry {
    pub fn new(tensor: &TensorDesc, tuning: &Tuning) -> Result<Self, Error> {
        check(tuning)?;
        if tensor.elements() == 0 {
            let nothing = Split {
                lanes: 1,
                parts: 1,
                words_per_part: 0,
            };
            return Ok(Self {
                width: 1,
                aligned: true,
                num_words: 0,
                reduce: nothing,
                map: nothing,
            });
        }
        let row_len = tensor.row_len();
        // Words of 4 where the tensor is a whole number of them. A word of 4 may lie in at most two
        // rows, hence the bound on the row.
        let width = if tensor.elements().is_multiple_of(4) && row_len >= 4 {
            4
        } else {
            1
        };
        let aligned = row_len.is_multiple_of(width);
        // A row that begins within a word touches one word more.
        let row_words = row_len.div_ceil(width) + u32::from(!aligned);
        let rows = tensor.rows();
        Ok(Self {
            width,
            aligned,
            num_words: (tensor.elements() / u64::from(width)) as u32,
            reduce: split(row_words, rows, tuning.reduce_lanes, tuning)?,
            map: split(row_words, rows, tuning.map_lanes, tuning)?,
        })
    }
}

fn check(tuning: &Tuning) -> Result<(), Error> {
    let lanes = [
        ("reduce_lanes", tuning.reduce_lanes, tuning.workgroup_size),
        ("map_lanes", tuning.map_lanes, tuning.workgroup_size),
        ("fold_lanes", tuning.fold_lanes, tuning.fold_workgroup_size),
    ];
    for (name, lanes, workgroup_size) in lanes {
        if !lanes.is_power_of_two() || workgroup_size == 0 || workgroup_size % lanes != 0 {
            return Err(Error::Limit {
                what: format!("tuning.{name}"),
                value: u64::from(lanes),
                limit: u64::from(workgroup_size),
                limit_name: "workgroup size",
                way_out: "use a power of two that divides the workgroup size",
            });
        }
    }
    let most = MAX_ITERATIONS * 3;
    if tuning.max_words_per_lane == 0 || tuning.max_words_per_lane > most {
        return Err(Error::Limit {
            what: "tuning.max_words_per_lane".into(),
            value: u64::from(tuning.max_words_per_lane),
            limit: u64::from(most),
            limit_name: "loop iterations of an invocation",
            way_out: "use 1 to the limit",
        });
    }
    Ok(())
}

/// Lanes and parts for rows of `row_words` words.
fn split(row_words: u32, rows: u64, max_lanes: u32, tuning: &Tuning) -> Result<Split, Error> {
    let row_words = row_words.max(1);
    let per_lane = tuning.words_per_lane.max(1);
    // A lane for each share of words; more, down to a word each, while rows alone make too few
    // invocations.
    let alone = u64::from(tuning.min_invocations).div_ceil(rows.max(1));
    let alone = u32::try_from(alone).unwrap_or(u32::MAX).min(row_words);
    let lanes = row_words
        .div_ceil(per_lane)
        .max(alone)
        .checked_next_power_of_two()
        .unwrap_or(max_lanes)
        .min(max_lanes);
    // Enough parts to bound a lane's share; more, while a part keeps its lanes busy, for parallelism.
    let bound = row_words.div_ceil(tuning.max_words_per_lane.saturating_mul(lanes));
    let wanted = u64::from(tuning.min_invocations).div_ceil((rows * u64::from(lanes)).max(1));
    let useful = row_words.div_ceil(per_lane.saturating_mul(lanes));
    let parts = bound.max(wanted.min(u64::from(useful)) as u32);
    let words_per_part = row_words.div_ceil(parts);
    let parts = row_words.div_ceil(words_per_part);
    let items = rows * u64::from(parts);
    if items > u64::from(u32::MAX) {
        return Err(Error::Limit {
            what: format!("rows times parts ({rows} * {parts})"),
            value: items,
            limit: u64::from(u32::MAX),
            limit_name: "u32 index",
            way_out: "split the batch",
        });
    }
    Ok(Split {
        lanes,
        parts,
        words_per_part,
    })
}

/// Lanes for a fold whose every item runs over `entries`, `loops` times.
pub(super) fn fold_lanes(
    kernel: KernelId,
    entries: u32,
    loops: u32,
    tuning: &Tuning,
) -> Result<u32, Error> {
    let lanes = entries
        .div_ceil(tuning.entries_per_lane.max(1))
        .max(1)
        .checked_next_power_of_two()
        .unwrap_or(tuning.fold_lanes)
        .min(tuning.fold_lanes);
    let iterations = u64::from(entries.div_ceil(lanes)) * u64::from(loops);
    if iterations <= u64::from(MAX_ITERATIONS) {
        return Ok(lanes);
    }
    // The tuning's lanes are too few: as many as it takes, up to the workgroup that WebGPU grants.
    let needed = (u64::from(entries) * u64::from(loops))
        .div_ceil(u64::from(MAX_ITERATIONS) - u64::from(loops));
    match u32::try_from(needed).map(u32::checked_next_power_of_two) {
        Ok(Some(lanes)) if lanes <= 256 => Ok(lanes),
        _ => Err(Error::Limit {
            what: format!("entries of one {} item", kernel.name()),
            value: u64::from(entries),
            limit: u64::from(256 * (MAX_ITERATIONS / loops)),
            limit_name: "256 invocations of 65,000 loop iterations",
            way_out: "use more groups, or tune max_words_per_lane and samples_per_segment",
        }),
    }
}

/// Segments that a column of `entries` is folded in, and entries of each; one segment where a
/// single fold does.
pub(super) fn segments(entries: u32, tuning: &Tuning) -> (u32, u32) {
    let per_segment = tuning.samples_per_segment.max(1);
    if entries <= per_segment {
        return (1, entries);
    }
    // The root bounds both folds by 46,341 entries for any u32.
    let per_segment = per_segment.max(entries.isqrt() + 1).min(MAX_ITERATIONS);
    (entries.div_ceil(per_segment), per_segment)
}

/// Workgroups for `items`, folded into two dimensions beyond the limit of one.
pub(super) fn workgroups(spec: &Spec, items: u32, tuning: &Tuning) -> Result<[u32; 2], Error> {
    let total = items.div_ceil(spec.workgroup_size / spec.lanes).max(1);
    let most = tuning.max_workgroups.max(1);
    let y = total.div_ceil(most);
    if y > most {
        return Err(Error::Limit {
            what: format!("workgroups of {}", spec.kernel.name()),
            value: u64::from(total),
            limit: u64::from(most) * u64::from(most),
            limit_name: "max_compute_workgroups_per_dimension, squared",
            way_out: "split the batch, or tune for larger workgroups",
        });
    }
    Ok([total.div_ceil(y), y])
}

/// The fields that all steps share.
pub(super) fn base_params(
    norm: &BcNormDesc,
    tensor: &TensorDesc,
    mode: Mode,
    geometry: &Geometry,
) -> Params {
    let training = if mode == Mode::Train { TRAINING } else { 0 };
    let (flags, momentum) = match norm.stats {
        ChannelStats::Batch {
            momentum: Some(momentum),
        } => (0, momentum),
        ChannelStats::Batch { momentum: None } => (CUMULATIVE, 0.0),
        ChannelStats::Estimate { moving_speed } => (ESTIMATE, moving_speed),
    };
    Params {
        num_samples: tensor.num_samples(),
        num_channels: tensor.num_channels(),
        // A divisor of num_channels, which is a u32.
        num_groups: norm.num_groups as u32,
        row_len: tensor.row_len(),
        num_words: geometry.num_words,
        flags: training | flags,
        eps: norm.eps,
        channel_eps: CHANNEL_EPS,
        momentum,
        ..Params::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterations_of_a_chunk_loop_are_bounded() {
        // Whole chunks, then at most CHUNK * lanes + 2 loose words.
        for tuning in [Tuning::GPU, Tuning::SOFTWARE, Tuning::CPU] {
            assert!(tuning.max_words_per_lane.div_ceil(CHUNK) + CHUNK + 2 <= MAX_ITERATIONS);
        }
        assert!((MAX_ITERATIONS * 3).div_ceil(CHUNK) + CHUNK + 2 <= MAX_ITERATIONS);
    }

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
        let spec = Spec {
            kernel: KernelId::RowAffine,
            workgroup_size: 8,
            lanes: 1,
            width: 4,
            aligned: true,
            accumulate: false,
            fence: false,
        };
        assert_eq!(
            workgroups(&spec, 8 * 65_535, &Tuning::SOFTWARE),
            Ok([65_535, 1])
        );
        let [x, y] = workgroups(&spec, 8 * 65_536, &Tuning::SOFTWARE).unwrap();
        assert!(x <= 65_535 && y == 2 && x * y >= 65_536);
        let tiny = Tuning {
            max_workgroups: 3,
            ..Tuning::SOFTWARE
        };
        assert!(workgroups(&spec, 80, &tiny).is_err());
    }
}
