//! Tunings as text: `NAME=VALUE` lines, for files and for the command line.

use super::{AdapterClass, Tuning};
use crate::error::Error;
use std::fmt;
use std::str::FromStr;

/// A field of a tuning, by its type.
enum Field<'a> {
    Class(&'a mut AdapterClass),
    U32(&'a mut u32),
    U64(&'a mut u64),
}

const CLASSES: [(&str, AdapterClass, Tuning); 3] = [
    ("gpu", AdapterClass::Gpu, Tuning::GPU),
    ("software", AdapterClass::Software, Tuning::SOFTWARE),
    ("cpu", AdapterClass::Cpu, Tuning::CPU),
];

/// Every field by name, in the order of the text. (Taken apart in full, so that a field added to the
/// struct does not compile until it is listed here.)
fn fields(tuning: &mut Tuning) -> Vec<(&'static str, Field<'_>)> {
    let Tuning {
        class,
        workgroup_size,
        reduce_lanes,
        map_lanes,
        words_per_lane,
        min_words_per_lane,
        map_words_per_lane,
        max_words_per_lane,
        min_invocations,
        fold_workgroup_size,
        fold_lanes,
        entries_per_lane,
        min_fold_invocations,
        samples_per_segment,
        subgroup_size,
        column_tile,
        column_words,
        column_workgroup_size,
        short_row,
        short_batch_row,
        fused_group,
        fused_elements,
        max_workgroups,
        max_binding_bytes,
    } = tuning;
    vec![
        ("class", Field::Class(class)),
        ("workgroup_size", Field::U32(workgroup_size)),
        ("reduce_lanes", Field::U32(reduce_lanes)),
        ("map_lanes", Field::U32(map_lanes)),
        ("words_per_lane", Field::U32(words_per_lane)),
        ("min_words_per_lane", Field::U32(min_words_per_lane)),
        ("map_words_per_lane", Field::U32(map_words_per_lane)),
        ("max_words_per_lane", Field::U32(max_words_per_lane)),
        ("min_invocations", Field::U32(min_invocations)),
        ("fold_workgroup_size", Field::U32(fold_workgroup_size)),
        ("fold_lanes", Field::U32(fold_lanes)),
        ("entries_per_lane", Field::U32(entries_per_lane)),
        ("min_fold_invocations", Field::U32(min_fold_invocations)),
        ("samples_per_segment", Field::U32(samples_per_segment)),
        ("subgroup_size", Field::U32(subgroup_size)),
        ("column_tile", Field::U32(column_tile)),
        ("column_words", Field::U32(column_words)),
        ("column_workgroup_size", Field::U32(column_workgroup_size)),
        ("short_row", Field::U32(short_row)),
        ("short_batch_row", Field::U32(short_batch_row)),
        ("fused_group", Field::U32(fused_group)),
        ("fused_elements", Field::U32(fused_elements)),
        ("max_workgroups", Field::U32(max_workgroups)),
        ("max_binding_bytes", Field::U64(max_binding_bytes)),
    ]
}

impl Field<'_> {
    fn text(&self) -> String {
        match self {
            Field::Class(class) => CLASSES
                .iter()
                .find(|(_, known, _)| known == *class)
                .map_or(String::new(), |(name, ..)| (*name).to_owned()),
            Field::U32(value) => value.to_string(),
            Field::U64(value) => value.to_string(),
        }
    }

    /// Takes a value, or says what it expected.
    fn set(self, text: &str) -> Result<(), &'static str> {
        match self {
            Field::Class(class) => {
                let known = CLASSES.iter().find(|(name, ..)| *name == text);
                *class = known.ok_or("gpu, software or cpu")?.1;
            }
            Field::U32(value) => {
                *value = text
                    .parse()
                    .map_err(|_| "a whole number up to 4294967295")?;
            }
            Field::U64(value) => {
                *value = text
                    .parse()
                    .map_err(|_| "a whole number up to 18446744073709551615")?;
            }
        }
        Ok(())
    }
}

impl Tuning {
    /// Changes one field, by name: the command line's `--tune NAME=VALUE`. `class` is
    /// gpu, software or cpu, the others are whole numbers.
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

    /// Every field but the class, by name.
    pub fn settings(&self) -> Vec<(&'static str, u64)> {
        let mut tuning = *self;
        let fields = fields(&mut tuning).into_iter();
        let numbers = fields.filter_map(|(name, field)| match field {
            Field::Class(_) => None,
            Field::U32(value) => Some((name, u64::from(*value))),
            Field::U64(value) => Some((name, *value)),
        });
        numbers.collect()
    }

    /// Returns the name of what was set.
    fn try_set(&mut self, setting: &str) -> Result<&'static str, String> {
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| format!("\"{setting}\" is not NAME=VALUE"))?;
        let (name, value) = (name.trim(), value.trim());
        let fields = fields(self);
        let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
        let unknown = || {
            let names = names.join(", ");
            format!("there is no \"{name}\"; there are {names}")
        };
        let mut known = fields.into_iter().filter(|(known, _)| *known == name);
        let (name, field) = known.next().ok_or_else(unknown)?;
        field
            .set(value)
            .map_err(|expected| format!("{name}: \"{value}\" is not {expected}"))?;
        Ok(name)
    }
}

/// One `NAME=VALUE` a line, every field, the class first: what [`FromStr`] reads back exactly.
impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuning = *self;
        for (name, field) in fields(&mut tuning) {
            writeln!(f, "{name}={}", field.text())?;
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
/// let tuning: Tuning = "class=gpu # a large one\nworkgroup_size=128\n".parse()?;
/// assert_eq!(tuning, Tuning { workgroup_size: 128, ..Tuning::GPU });
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
        let known = CLASSES.iter().find(|(name, ..)| Some(*name) == class);
        let mut tuning = known.map_or(Tuning::GPU, |(.., tuning)| *tuning);
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
        for (index, (_, field)) in fields(&mut odd).into_iter().enumerate() {
            match field {
                Field::Class(class) => *class = AdapterClass::Cpu,
                Field::U32(value) => *value = 1000 + index as u32,
                Field::U64(value) => *value = u64::MAX - index as u64,
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
        tuning.set("fold_lanes=16").unwrap();
        let expected = Tuning {
            fold_lanes: 16,
            ..Tuning::GPU
        };
        assert_eq!(tuning, expected);
        tuning.set(" short_row = 0 ").unwrap();
        assert!(tuning.short_row == 0 && Tuning::GPU.short_row != 0);
        assert!(tuning.settings().contains(&("short_row", 0)));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (wrong, says) in [
            ("fold_lanes", "NAME=VALUE"),
            (
                "fold_lanes=x",
                "\"x\" is not a whole number up to 4294967295",
            ),
            ("fold_lanes=4294967296", "up to 4294967295"),
            ("fold_lanes=-1", "is not a whole number"),
            ("fold_lanes=", "is not a whole number"),
            ("max_binding_bytes=1e6", "up to 18446744073709551615"),
            ("class=fast", "is not gpu, software or cpu"),
            (
                "nothing=3",
                "there is no \"nothing\"; there are class, workgroup_size, ",
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
        let error = "short_row=0\nshort_row=1\nx=1"
            .parse::<Tuning>()
            .unwrap_err();
        let error = error.to_string();
        for says in [
            "class is missing",
            "line 2: short_row is there twice",
            "line 3: ",
        ] {
            assert!(error.contains(says), "{error}");
        }
    }
}
