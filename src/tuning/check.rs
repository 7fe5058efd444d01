//! Tunings that no plan can be made with.

use super::Tuning;
use crate::error::Error;
use crate::limits::{MAX_COLUMN_WORDS, MAX_ITERATIONS, MAX_SUBGROUP_SIZE, MAX_WORKGROUP_SIZE};

/// Every value that no plan can be made with.
pub(crate) fn check(tuning: &Tuning) -> Result<(), Error> {
    let mut problems = Vec::new();
    let mut expect = |name, value: u32, right: bool, expected: &dyn Fn() -> String| {
        if !right {
            problems.push(format!("{name} is {value}: it must be {}", expected()));
        }
    };
    for (name, value, most) in [
        ("workgroup_size", tuning.workgroup_size, MAX_WORKGROUP_SIZE),
        (
            "fold_workgroup_size",
            tuning.fold_workgroup_size,
            MAX_WORKGROUP_SIZE,
        ),
        (
            "column_workgroup_size",
            tuning.column_workgroup_size,
            MAX_WORKGROUP_SIZE,
        ),
        ("column_words", tuning.column_words, MAX_COLUMN_WORDS),
        // Of chunks of 4 words, with room for what is left over.
        (
            "max_words_per_lane",
            tuning.max_words_per_lane,
            MAX_ITERATIONS * 3,
        ),
    ] {
        let expected = || format!("from 1 to {most}");
        expect(name, value, (1..=most).contains(&value), &expected);
    }
    for (name, lanes, workgroup, size) in [
        (
            "reduce_lanes",
            tuning.reduce_lanes,
            "workgroup_size",
            tuning.workgroup_size,
        ),
        (
            "map_lanes",
            tuning.map_lanes,
            "workgroup_size",
            tuning.workgroup_size,
        ),
        (
            "fold_lanes",
            tuning.fold_lanes,
            "fold_workgroup_size",
            tuning.fold_workgroup_size,
        ),
    ] {
        let expected = || format!("a power of two that divides {workgroup}, which is {size}");
        let right = lanes.is_power_of_two() && size.is_multiple_of(lanes);
        expect(name, lanes, right, &expected);
    }
    let tile = tuning.column_tile;
    expect("column_tile", tile, tile.is_power_of_two(), &|| {
        "a power of two".into()
    });
    let subgroup = tuning.subgroup_size;
    let right = subgroup.is_power_of_two() && subgroup <= MAX_SUBGROUP_SIZE;
    expect("subgroup_size", subgroup, right, &|| {
        format!(
            "a power of two up to {MAX_SUBGROUP_SIZE}, the device's smallest subgroup at most, or 1 for none"
        )
    });
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::Tuning { problems }),
    }
}
