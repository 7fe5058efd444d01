//! The figures as tables, and beside those of an earlier run.

use crate::figures::Figures;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A table in Markdown, a line for each kernel.
pub fn table(all: &[Figures]) -> String {
    let mut text = "| family | kernel | plan | registers | waves | workgroup memory | instructions | outside of the main \
                    loop | a value | load |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for one in all {
        let or = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            one.family,
            one.kernel,
            one.plan,
            one.vgprs,
            one.waves,
            one.lds,
            one.instructions,
            one.fixed_instructions,
            or(one
                .loop_instructions_per_value
                .map(|value| value.to_string())),
            or(one.load_bytes.map(|bytes| bytes.to_string())),
        );
    }
    text
}

/// How many kernels there are of a family, and how many of them spill or use scratch; and for each the fewest waves.
pub fn summary(all: &[Figures]) -> String {
    let mut families: BTreeMap<&str, Vec<&Figures>> = BTreeMap::new();
    for one in all {
        families.entry(&one.family).or_default().push(one);
    }
    let mut text = String::new();
    for (family, kernels) in families {
        let count = |what: fn(&Figures) -> bool| kernels.iter().filter(|one| what(one)).count();
        let fewest = kernels.iter().min_by_key(|one| one.waves);
        let fewest = fewest.map(|one| {
            format!(
                "; fewest waves: {} in {} ({})",
                one.waves, one.kernel, one.plan
            )
        });
        let _ = writeln!(
            text,
            "{family}: {} kernels, {} spill, {} use scratch{}",
            kernels.len(),
            count(|one| one.spills > 0),
            count(|one| one.scratch > 0),
            fewest.unwrap_or_default(),
        );
    }
    text
}

/// Reads the lines of an earlier run with `--json`.
///
/// # Errors
/// Where the file cannot be read, or a line is none of them.
pub fn read(path: &Path) -> Result<Vec<Figures>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let lines = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty());
    let read = |(number, line): (u32, &str)| {
        serde_json::from_str(line)
            .with_context(|| format!("{}:{number}: no line of figures", path.display()))
    };
    lines.map(read).collect()
}

/// What changed since an earlier run, in Markdown: before -> after.
pub fn comparison(earlier: &[Figures], all: &[Figures]) -> String {
    let known: BTreeMap<_, _> = earlier.iter().map(|one| (one.key(), one)).collect();
    let mut text = "| family | kernel | plan | registers | waves | instructions | outside of the main loop | a value |\n\
                    | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    let (mut same, mut new) = (0, 0);
    for one in all {
        let Some(&before) = known.get(&one.key()) else {
            new += 1;
            continue;
        };
        if before == one {
            same += 1;
            continue;
        }
        let change = |value: fn(&Figures) -> String| {
            let (before, after) = (value(before), value(one));
            if before == after {
                after
            } else {
                format!("{before} -> {after}")
            }
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            one.family,
            one.kernel,
            one.plan,
            change(|one| one.vgprs.to_string()),
            change(|one| one.waves.to_string()),
            change(|one| one.instructions.to_string()),
            change(|one| one.fixed_instructions.to_string()),
            change(|one| one
                .loop_instructions_per_value
                .map_or("-".to_owned(), |value| value.to_string())),
        );
    }
    let gone = known.len() - (all.len() - new);
    let _ = writeln!(
        text,
        "\nThe same: {same}. New: {new}. Not there any more: {gone}."
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(kernel: &str, waves: u64) -> Figures {
        Figures {
            family: "navi21".into(),
            kernel: kernel.into(),
            plan: "p".into(),
            vgprs: 48,
            spills: 0,
            scratch: 0,
            lds: 0,
            waves,
            subgroup_size: 64,
            instructions: 100,
            fixed_instructions: 40,
            loop_instructions_per_value: Some(7.5),
            load_bytes: None,
        }
    }

    #[test]
    fn changes_are_shown_and_counted() {
        let earlier = [figures("a", 12), figures("b", 20), figures("c", 20)];
        let now = [figures("a", 16), figures("b", 20), figures("d", 20)];
        let text = comparison(&earlier, &now);
        assert!(
            text.contains("| navi21 | a | p | 48 | 12 -> 16 | 100 | 40 | 7.5 |"),
            "{text}"
        );
        assert!(
            text.contains("The same: 1. New: 1. Not there any more: 1."),
            "{text}"
        );
        assert!(
            summary(&now).contains("3 kernels, 0 spill, 0 use scratch; fewest waves: 16 in a (p)")
        );
    }
}
