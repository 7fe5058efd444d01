//! A [`Tuning`] by field names: to list it, and to change it from the command line.

use anyhow::{Context as _, Result, bail};
use bcnorm::Tuning;

/// Every u32 of a tuning, by name. Its one switch, `fence`, is 0 or 1 to the command; its one u64 is
/// `max_binding_bytes`. (Taken apart in full, so that a field added to the library does not compile until
/// it is listed here.)
fn fields(tuning: &mut Tuning) -> [(&'static str, &mut u32); 16] {
    let Tuning {
        class: _,
        fence: _,
        max_binding_bytes: _,
        workgroup_size,
        reduce_lanes,
        map_lanes,
        words_per_lane,
        max_words_per_lane,
        min_invocations,
        fold_workgroup_size,
        fold_lanes,
        entries_per_lane,
        samples_per_segment,
        column_tile,
        column_workgroup_size,
        short_row,
        short_held_row,
        fused_group,
        max_workgroups,
    } = tuning;
    [
        ("workgroup_size", workgroup_size),
        ("reduce_lanes", reduce_lanes),
        ("map_lanes", map_lanes),
        ("words_per_lane", words_per_lane),
        ("max_words_per_lane", max_words_per_lane),
        ("min_invocations", min_invocations),
        ("fold_workgroup_size", fold_workgroup_size),
        ("fold_lanes", fold_lanes),
        ("entries_per_lane", entries_per_lane),
        ("samples_per_segment", samples_per_segment),
        ("column_tile", column_tile),
        ("column_workgroup_size", column_workgroup_size),
        ("short_row", short_row),
        ("short_held_row", short_held_row),
        ("fused_group", fused_group),
        ("max_workgroups", max_workgroups),
    ]
}

/// Names and numbers of a tuning.
pub fn listed(mut tuning: Tuning) -> Vec<(&'static str, u64)> {
    let others = [
        ("fence", u64::from(tuning.fence)),
        ("max_binding_bytes", tuning.max_binding_bytes),
    ];
    fields(&mut tuning)
        .into_iter()
        .map(|(name, value)| (name, u64::from(*value)))
        .chain(others)
        .collect()
}

/// Applies `name=value` to a tuning.
pub fn apply(tuning: &mut Tuning, setting: &str) -> Result<()> {
    let (name, value) = setting
        .split_once('=')
        .with_context(|| format!("--tune {setting}: expected NAME=VALUE"))?;
    let bytes: u64 = value
        .trim()
        .parse()
        .with_context(|| format!("--tune {setting}: \"{value}\" is no whole number"))?;
    match name.trim() {
        "fence" if bytes <= 1 => {
            tuning.fence = bytes == 1;
            return Ok(());
        }
        "max_binding_bytes" => {
            tuning.max_binding_bytes = bytes;
            return Ok(());
        }
        _ => {}
    }
    let value = u32::try_from(bytes)
        .with_context(|| format!("--tune {setting}: {bytes} is over {}", u32::MAX))?;
    let mut fields = fields(tuning);
    let names = fields.each_ref().map(|(name, _)| *name).join(", ");
    match fields.iter_mut().find(|(known, _)| *known == name.trim()) {
        Some((_, field)) => **field = value,
        None => {
            bail!(
                "--tune {setting}: there is no \"{name}\"; there are {names}, max_binding_bytes, and fence (0 or 1)"
            )
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_change_one_field() {
        let mut tuning = Tuning::GPU;
        apply(&mut tuning, "fold_lanes=16").unwrap();
        assert_eq!(
            tuning,
            Tuning {
                fold_lanes: 16,
                ..Tuning::GPU
            }
        );
        apply(&mut tuning, "fence=0").unwrap();
        assert!(!tuning.fence);
        for wrong in [
            "fence=2",
            "fold_lanes",
            "fold_lanes=x",
            "nothing=3",
            "fold_lanes=-1",
        ] {
            apply(&mut tuning, wrong).unwrap_err();
        }
    }
}
