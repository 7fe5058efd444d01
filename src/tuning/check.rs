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
    let Tuning {
        reduction,
        map,
        columns,
        fold,
        ..
    } = tuning;
    for (name, value, most) in [
        (
            "reduction.workgroup_size",
            reduction.workgroup_size,
            MAX_WORKGROUP_SIZE,
        ),
        ("map.workgroup_size", map.workgroup_size, MAX_WORKGROUP_SIZE),
        (
            "columns.workgroup_size",
            columns.workgroup_size,
            MAX_WORKGROUP_SIZE,
        ),
        (
            "fold.workgroup_size",
            fold.workgroup_size,
            MAX_WORKGROUP_SIZE,
        ),
        ("columns.words", columns.words, MAX_COLUMN_WORDS),
        // Of chunks of 4 words, with room for what is left over.
        (
            "parts.max_words_per_lane",
            tuning.parts.max_words_per_lane,
            MAX_ITERATIONS * 3,
        ),
    ] {
        let expected = || format!("from 1 to {most}");
        expect(name, value, (1..=most).contains(&value), &expected);
    }
    for (name, lanes, size) in [
        ("reduction.lanes", reduction.lanes, reduction.workgroup_size),
        ("map.lanes", map.lanes, map.workgroup_size),
    ] {
        let expected =
            || format!("a power of two that divides the workgroup_size, which is {size}");
        let right = lanes.is_power_of_two() && size.is_multiple_of(lanes);
        expect(name, lanes, right, &expected);
    }
    // Columns that need more than the workgroup has get larger ones.
    let lanes = fold.lanes;
    let right = lanes.is_power_of_two() && lanes <= MAX_WORKGROUP_SIZE;
    expect("fold.lanes", lanes, right, &|| {
        format!("a power of two up to {MAX_WORKGROUP_SIZE}")
    });
    let right = columns.tile.is_power_of_two();
    expect("columns.tile", columns.tile, right, &|| {
        "a power of two".into()
    });
    let subgroup = tuning.limits.subgroup_size;
    let right = subgroup.is_power_of_two() && subgroup <= MAX_SUBGROUP_SIZE;
    expect("limits.subgroup_size", subgroup, right, &|| {
        format!(
            "a power of two up to {MAX_SUBGROUP_SIZE}, the device's smallest subgroup at most, or 1 for none"
        )
    });
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::Tuning { problems }),
    }
}
