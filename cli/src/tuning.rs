//! Tunings from the command line: `--tuning FILE` and `--tune NAME=VALUE`.

use anyhow::{Context as _, Result};
use bcnorm::Tuning;
use std::path::Path;

/// Applies `name=value` to a tuning.
pub fn apply(tuning: &mut Tuning, setting: &str) -> Result<()> {
    tuning
        .set(setting)
        .with_context(|| format!("--tune {setting}"))
}

/// The tuning of a file that `bcnorm tune --save` wrote, or `default` without one.
pub fn load(file: Option<&Path>, default: Tuning) -> Result<Tuning> {
    let Some(file) = file else {
        return Ok(default);
    };
    let read = || -> Result<Tuning> { Ok(std::fs::read_to_string(file)?.parse()?) };
    read().with_context(|| format!("--tuning {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_change_one_field() {
        let mut tuning = Tuning::GPU;
        apply(&mut tuning, "fold.lanes=16").unwrap();
        assert_eq!(tuning, Tuning::GPU.with(|t| t.fold.lanes = 16));
        let error = format!(
            "{:#}",
            apply(&mut tuning, "short_rows.max_row=x").unwrap_err()
        );
        assert!(error.contains("--tune short_rows.max_row=x: ") && error.contains("whole number"));
    }

    #[test]
    fn files_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tuning.txt");
        std::fs::write(&file, Tuning::SOFTWARE.to_string()).unwrap();
        assert_eq!(load(Some(&file), Tuning::GPU).unwrap(), Tuning::SOFTWARE);
        assert_eq!(load(None, Tuning::GPU).unwrap(), Tuning::GPU);
        std::fs::write(&file, "class=gpu\nspeed=11").unwrap();
        let error = format!("{:#}", load(Some(&file), Tuning::GPU).unwrap_err());
        let named = error.contains("tuning.txt") && error.contains("line 2");
        assert!(named, "{error}");
        load(Some(&folder.path().join("none")), Tuning::GPU).unwrap_err();
    }
}
