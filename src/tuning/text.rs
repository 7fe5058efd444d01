//! Tunings as text: `NAME=VALUE` lines, for files and for the command line.

use super::fields::{Number, numbers};
use super::{AdapterClass, Tuning};
use crate::error::Error;
use std::fmt;
use std::str::FromStr;

/// What the fields begin with, by the class that a text names.
const CLASSES: [Tuning; 3] = [Tuning::GPU, Tuning::SOFTWARE, Tuning::CPU];

impl AdapterClass {
    const fn name(self) -> &'static str {
        match self {
            AdapterClass::Gpu => "gpu",
            AdapterClass::Software => "software",
            AdapterClass::Cpu => "cpu",
        }
    }
}

impl Number<'_> {
    /// Takes a value, or says what it expected.
    fn set(self, text: &str) -> Result<(), &'static str> {
        match self {
            Number::U32(value) => {
                let expected = "a whole number up to 4294967295";
                *value = text.parse().map_err(|_| expected)?;
            }
            Number::U64(value) => {
                let expected = "a whole number up to 18446744073709551615";
                *value = text.parse().map_err(|_| expected)?;
            }
        }
        Ok(())
    }
}

impl Tuning {
    /// Changes one field, by name: the command line's `--tune NAME=VALUE`. `class` is gpu, software or cpu; the others
    /// are `group.field`, such as `fold.lanes`, and whole numbers.
    ///
    /// # Errors
    /// [`Error::Tuning`] for an unknown name or a value that is none of the field's; nothing is changed
    /// then. Whether a plan can be made with the value, the planner says.
    pub fn set(&mut self, setting: &str) -> Result<(), Error> {
        self.try_set(setting)
            .map(|_| ())
            .map_err(|problem| Error::Tuning {
                problems: vec![problem],
            })
    }

    /// Every number by its name, `group.field`.
    pub fn settings(&self) -> Vec<(&'static str, u64)> {
        let mut tuning = *self;
        let numbers = numbers(&mut tuning).into_iter();
        let values = numbers.map(|(name, number)| match number {
            Number::U32(value) => (name, u64::from(*value)),
            Number::U64(value) => (name, *value),
        });
        values.collect()
    }

    /// Returns the name of what was set.
    fn try_set(&mut self, setting: &str) -> Result<&'static str, String> {
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| format!("\"{setting}\" is not NAME=VALUE"))?;
        let (name, value) = (name.trim(), value.trim());
        let is_not = |expected| format!("{name}: \"{value}\" is not {expected}");
        if name == "class" {
            let known = CLASSES.iter().find(|known| known.class.name() == value);
            self.class = known.ok_or_else(|| is_not("gpu, software or cpu"))?.class;
            return Ok("class");
        }
        let mut numbers = numbers(self);
        let Some(index) = numbers.iter().position(|(known, _)| *known == name) else {
            let names: Vec<&str> = numbers.iter().map(|(name, _)| *name).collect();
            let names = names.join(", ");
            return Err(format!("there is no \"{name}\"; there are class, {names}"));
        };
        let (name, number) = numbers.swap_remove(index);
        number.set(value).map_err(is_not)?;
        Ok(name)
    }
}

/// One `NAME=VALUE` a line, every field, the class first: what [`FromStr`] reads back exactly.
impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "class={}", self.class.name())?;
        for (name, value) in self.settings() {
            writeln!(f, "{name}={value}")?;
        }
        Ok(())
    }
}

/// Reads `NAME=VALUE` lines. `class` must be among them: fields that are not named have the numbers of
/// [`Tuning::GPU`], [`Tuning::SOFTWARE`] or [`Tuning::CPU`], so that a file outlives fields to come. `#`
/// begins a comment; empty lines are skipped.
///
/// ```
/// use bcnorm::Tuning;
///
/// let tuning: Tuning = "class=gpu # a large one\nfold.lanes=16\n".parse()?;
/// assert_eq!(tuning, Tuning::GPU.with(|t| t.fold.lanes = 16));
/// assert_eq!(tuning.to_string().parse::<Tuning>()?, tuning);
/// # Ok::<(), bcnorm::Error>(())
/// ```
impl FromStr for Tuning {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let lines: Vec<(usize, &str)> = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim())
            .enumerate()
            .filter(|(_, line)| !line.is_empty())
            .collect();
        let mut problems = Vec::new();
        // The class decides what the others begin with, wherever it stands.
        let class = lines.iter().find_map(|(_, line)| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == "class").then(|| value.trim())
        });
        let known = CLASSES
            .iter()
            .find(|known| Some(known.class.name()) == class);
        let mut tuning = known.copied().unwrap_or(Tuning::GPU);
        if class.is_none() {
            problems.push("class is missing: gpu, software or cpu".to_owned());
        }
        let mut seen = Vec::new();
        for (index, line) in lines {
            let number = index + 1;
            match tuning.try_set(line) {
                Ok(name) if seen.contains(&name) => {
                    problems.push(format!("line {number}: {name} is there twice"));
                }
                Ok(name) => seen.push(name),
                Err(problem) => problems.push(format!("line {number}: {problem}")),
            }
        }
        match problems.is_empty() {
            true => Ok(tuning),
            false => Err(Error::Tuning { problems }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        // Every field of its own value: one that is swapped with another, or forgotten, shows.
        let mut odd = Tuning::GPU;
        odd.class = AdapterClass::Cpu;
        for (index, (_, number)) in numbers(&mut odd).into_iter().enumerate() {
            match number {
                Number::U32(value) => *value = 1000 + index as u32,
                Number::U64(value) => *value = u64::MAX - index as u64,
            }
        }
        for tuning in [Tuning::GPU, Tuning::SOFTWARE, Tuning::CPU, odd] {
            let text = tuning.to_string();
            assert_eq!(text.parse::<Tuning>().unwrap(), tuning, "{text}");
            assert_eq!(text.lines().count(), tuning.settings().len() + 1);
            // In any order, with comments and spaces.
            let shuffled: Vec<String> = text
                .lines()
                .rev()
                .map(|line| format!("\n# {line}\n {} # why", line.replace('=', " = ")))
                .collect();
            assert_eq!(shuffled.concat().parse::<Tuning>().unwrap(), tuning);
        }
        assert_eq!(
            "class=software".parse::<Tuning>().unwrap(),
            Tuning::SOFTWARE
        );
    }

    #[test]
    fn a_setting_changes_one_field() {
        let mut tuning = Tuning::GPU;
        tuning.set("fold.lanes=16").unwrap();
        assert_eq!(tuning, Tuning::GPU.with(|t| t.fold.lanes = 16));
        tuning.set(" short_rows.max_row = 0 ").unwrap();
        assert!(tuning.short_rows.max_row == 0 && Tuning::GPU.short_rows.max_row != 0);
        assert!(tuning.settings().contains(&("short_rows.max_row", 0)));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (wrong, says) in [
            ("fold.lanes", "NAME=VALUE"),
            (
                "fold.lanes=x",
                "\"x\" is not a whole number up to 4294967295",
            ),
            ("fold.lanes=4294967296", "up to 4294967295"),
            ("fold.lanes=-1", "is not a whole number"),
            ("fold.lanes=", "is not a whole number"),
            ("limits.max_binding_bytes=1e6", "up to 18446744073709551615"),
            ("class=fast", "is not gpu, software or cpu"),
            (
                "nothing=3",
                "there is no \"nothing\"; there are class, reduction.workgroup_size, ",
            ),
        ] {
            let mut tuning = Tuning::GPU;
            let error = tuning.set(wrong).unwrap_err().to_string();
            assert!(error.contains(says), "{wrong}: {error}");
            assert_eq!(tuning, Tuning::GPU, "{wrong}");
            let error = format!("class=gpu\n\n{wrong}")
                .parse::<Tuning>()
                .unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains("line 3: ") && error.contains(says),
                "{error}"
            );
        }
        let error = "short_rows.max_row=0\nshort_rows.max_row=1\nx=1"
            .parse::<Tuning>()
            .unwrap_err();
        let error = error.to_string();
        for says in [
            "class is missing",
            "line 2: short_rows.max_row is there twice",
            "line 3: ",
        ] {
            assert!(error.contains(says), "{error}");
        }
    }
}
