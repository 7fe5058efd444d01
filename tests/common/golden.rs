//! Reads golden vectors: one call of Batch-Channel Normalization per file, with what PyTorch made
//! of it in f64. `tests/golden/README.md` says what a file holds.

// Each test crate that includes this uses its own part of it.
#![allow(dead_code)]

use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The entries with what goes into the call, and whose length each has.
const INPUTS: [(&str, Length); 8] = [
    ("x", Length::Elements),
    ("grad_y", Length::Elements),
    ("bn.weight", Length::Channels),
    ("bn.bias", Length::Channels),
    ("weight", Length::Groups),
    ("bias", Length::Groups),
    ("bn.running_mean", Length::Channels),
    ("bn.running_var", Length::Channels),
];

/// The entries `expected.*` with what comes out of the call.
const EXPECTED: [(&str, Length); 8] = [
    ("y", Length::Elements),
    ("grad_x", Length::Elements),
    ("grad_bn.weight", Length::Channels),
    ("grad_bn.bias", Length::Channels),
    ("grad_weight", Length::Groups),
    ("grad_bias", Length::Groups),
    ("bn.running_mean_after", Length::Channels),
    ("bn.running_var_after", Length::Channels),
];

#[derive(Clone, Copy)]
enum Length {
    Elements,
    Channels,
    Groups,
}

/// The kind of channel statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stats {
    /// `BatchNorm2d`.
    Batch,
    /// `EstBN`.
    Estimate,
}

/// One golden case. The tensors have the names of the file's entries, complete and of the right
/// lengths: [`load`] checked them.
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    /// For instance `small.batch.train`.
    pub name: String,
    /// N, C and the spatial dimensions.
    pub dims: Vec<usize>,
    /// G.
    pub num_groups: usize,
    /// The group part's epsilon, as a caller of the library passes it.
    pub eps: f32,
    /// The same epsilon as PyTorch's f64 run took it: 1e-5 is no f32, and the difference shows
    /// from 1e-8 on where a variance is 0.
    pub eps_f64: f64,
    /// The kind of channel statistics.
    pub stats: Stats,
    /// Of [`Stats::Batch`]; none means a cumulative average.
    pub momentum: Option<f64>,
    /// Of [`Stats::Estimate`].
    pub moving_speed: f64,
    /// Training, or evaluation.
    pub training: bool,
    /// What goes in: `x`, `grad_y`, `bn.weight`, `bn.bias`, `weight`, `bias`, `bn.running_mean`,
    /// `bn.running_var`.
    pub tensors: BTreeMap<String, Vec<f32>>,
    /// What comes out: `y`, `grad_x`, `grad_bn.weight`, `grad_bn.bias`, `grad_weight`,
    /// `grad_bias`, `bn.running_mean_after`, `bn.running_var_after`.
    pub expected: BTreeMap<String, Vec<f64>>,
    /// What an error is divided by, under the names of `expected`.
    pub scale: BTreeMap<String, f64>,
    /// PyTorch's own error in f32, under the names of `expected`.
    pub pytorch_f32_error: BTreeMap<String, f64>,
}

/// The golden files at hand: those in `tests/golden`, and those in the folder that `BCNORM_GOLDEN`
/// names. A file name comes once; the order is by file name.
///
/// # Panics
/// When `tests/golden` or the folder that `BCNORM_GOLDEN` names holds no golden file: a test over
/// no files would pass.
pub fn paths() -> Vec<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = files(&checkout.join("tests/golden")).unwrap_or_else(|error| panic!("{error}"));
    if let Some(folder) = std::env::var_os("BCNORM_GOLDEN") {
        let more = files(Path::new(&folder));
        found.extend(more.unwrap_or_else(|error| panic!("BCNORM_GOLDEN: {error}")));
    }
    // Stable: of two files of one name the fixture stays.
    found.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    found.dedup_by(|a, b| a.file_name() == b.file_name());
    found
}

/// The golden files of a folder, of which there must be some.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| fail(&error))? {
        let path = entry.map_err(|error| fail(&error))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(fail(&"no *.safetensors file"));
    }
    Ok(found)
}

/// Reads a golden file. The error names the file and what is wrong with it.
pub fn load(path: impl AsRef<Path>) -> Result<Golden, String> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// Reads the bytes of a golden file.
fn parse(bytes: &[u8]) -> Result<Golden, String> {
    let fail = |error: safetensors::SafeTensorError| error.to_string();
    let file = SafeTensors::deserialize(bytes).map_err(fail)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(fail)?;
    let metadata = header.metadata().as_ref().ok_or("no metadata")?;

    let shape: String = text(metadata, "shape")?;
    let dims = shape
        .trim_matches(['[', ']'])
        .split(',')
        .map(|dim| {
            let dim = dim.trim().parse::<usize>();
            dim.map_err(|error| format!("metadata shape is '{shape}': {error}"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let channels = text(metadata, "channels")?;
    if dims.len() < 2 || dims[1] != channels {
        return Err(format!(
            "the shape is {shape}, but there are {channels} channels"
        ));
    }
    let num_groups = text(metadata, "groups")?;
    let stats = match text::<String>(metadata, "stats")?.as_str() {
        "batch" => Stats::Batch,
        "estimate" => Stats::Estimate,
        other => {
            return Err(format!(
                "metadata stats is '{other}', not batch or estimate"
            ));
        }
    };
    let momentum = match text::<String>(metadata, "momentum")?.as_str() {
        "None" | "none" => None,
        _ => Some(text(metadata, "momentum")?),
    };

    let elements = dims.iter().product();
    let length = |length| match length {
        Length::Elements => elements,
        Length::Channels => channels,
        Length::Groups => num_groups,
    };
    let mut tensors = BTreeMap::new();
    for (name, kind) in INPUTS {
        let values = values(&file, name, Dtype::F32, length(kind), f32::from_le_bytes)?;
        tensors.insert(name.to_owned(), values);
    }
    let (mut expected, mut scale) = (BTreeMap::new(), BTreeMap::new());
    let mut pytorch_f32_error = BTreeMap::new();
    for (name, kind) in EXPECTED {
        let entry = format!("expected.{name}");
        let values = values(&file, &entry, Dtype::F64, length(kind), f64::from_le_bytes)?;
        expected.insert(name.to_owned(), values);
        scale.insert(name.to_owned(), size(metadata, &format!("scale.{name}"))?);
        let error = size(metadata, &format!("pytorch_f32_error.{name}"))?;
        pytorch_f32_error.insert(name.to_owned(), error);
    }

    Ok(Golden {
        name: text(metadata, "name")?,
        dims,
        num_groups,
        eps: text(metadata, "eps")?,
        eps_f64: text(metadata, "eps")?,
        stats,
        momentum,
        moving_speed: text(metadata, "moving_speed")?,
        training: text(metadata, "training")?,
        tensors,
        expected,
        scale,
        pytorch_f32_error,
    })
}

/// A value of the metadata.
fn text<T: FromStr<Err: std::fmt::Display>>(
    metadata: &HashMap<String, String>,
    key: &str,
) -> Result<T, String> {
    let text = metadata
        .get(key)
        .ok_or_else(|| format!("no metadata {key}"))?;
    text.parse()
        .map_err(|error| format!("metadata {key} is '{text}': {error}"))
}

/// A magnitude in the metadata: not negative, infinite or NaN, which would spoil a comparison.
fn size(metadata: &HashMap<String, String>, key: &str) -> Result<f64, String> {
    let size: f64 = text(metadata, key)?;
    if size.is_finite() && size >= 0.0 {
        Ok(size)
    } else {
        Err(format!("metadata {key} is {size}, not a magnitude"))
    }
}

/// The values of an entry.
fn values<T, const BYTES: usize>(
    file: &SafeTensors,
    name: &str,
    dtype: Dtype,
    len: usize,
    from_le_bytes: fn([u8; BYTES]) -> T,
) -> Result<Vec<T>, String> {
    let tensor = file
        .tensor(name)
        .map_err(|error| format!("{name}: {error}"))?;
    if tensor.dtype() != dtype {
        return Err(format!("{name} is {:?}, not {dtype:?}", tensor.dtype()));
    }
    let (chunks, _) = tensor.data().as_chunks();
    if chunks.len() != len {
        return Err(format!("{name} has {} elements, not {len}", chunks.len()));
    }
    Ok(chunks.iter().map(|&bytes| from_le_bytes(bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pixel.batch.train.safetensors")
    }

    #[test]
    fn every_file_loads_and_is_what_its_name_says() {
        let paths = paths();
        assert!(paths.len() >= 48, "{} golden files", paths.len());
        for path in paths {
            let golden = load(&path).unwrap();
            assert_eq!(path.file_stem().unwrap(), golden.name.as_str());
            let parts: Vec<_> = golden.name.split('.').collect();
            assert_eq!(golden.stats == Stats::Batch, parts[1] == "batch");
            assert_eq!(golden.training, parts[2] == "train");
        }
    }

    #[test]
    fn a_file_holds_these_values() {
        let golden = load(fixture()).unwrap();
        assert_eq!(golden.dims, [9, 6, 1, 1]);
        assert_eq!(golden.num_groups, 3);
        assert_eq!((golden.eps, golden.eps_f64), (1e-5, 1e-5));
        assert_eq!((golden.momentum, golden.moving_speed), (Some(0.1), 0.05));
        assert_eq!(golden.scale["grad_x"], 1.430293198117282);
        assert_eq!(golden.pytorch_f32_error["grad_x"], 1.444e-4);
        // The scale of y is its largest magnitude: the values are those of the entry.
        let y = &golden.expected["y"];
        let largest = y.iter().fold(0.0f64, |largest, y| largest.max(y.abs()));
        assert_eq!(largest, golden.scale["y"]);
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let missing = load("no/such.safetensors").unwrap_err();
        assert!(missing.starts_with("no/such.safetensors: "), "{missing}");

        let bytes = std::fs::read(fixture()).unwrap();
        // The same length, so that only the one thing is wrong.
        let with = |from: &str, to: &str| {
            assert_eq!(from.len(), to.len());
            let at = bytes
                .windows(from.len())
                .position(|window| window == from.as_bytes())
                .unwrap();
            let mut bytes = bytes.clone();
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
            parse(&bytes).unwrap_err()
        };
        for (error, word) in [
            (parse(&bytes[..bytes.len() - 1]).unwrap_err(), "ncomplete"),
            (parse(&[]).unwrap_err(), "eader"),
            (with("\"groups\"", "\"gruops\""), "groups"),
            (
                with("\"groups\":\"3\"", "\"groups\":\"x\""),
                "groups is 'x'",
            ),
            (with("\"groups\":\"3\"", "\"groups\":\"2\""), "weight has 3"),
            (
                with("\"channels\":\"6\"", "\"channels\":\"5\""),
                "5 channels",
            ),
            (with("[9, 6, 1, 1]", "[8, 6, 1, 1]"), "x has 54 elements"),
            (with("[9, 6, 1, 1]", "[9, 6, a, 1]"), "shape"),
            (with("\"batch\"", "\"botch\""), "stats is 'botch'"),
            (with("expected.y", "expected.z"), "expected.y"),
            (with("\"scale.y\"", "\"scale.z\""), "scale.y"),
            (
                with("\"training\":\"true\"", "\"training\":\"True\""),
                "training",
            ),
        ] {
            assert!(error.contains(word), "'{error}' does not name '{word}'");
        }
    }

    #[test]
    fn a_folder_without_files_is_an_error() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        assert!(files(&src).unwrap_err().contains("no *.safetensors file"));
        assert!(files(&src.join("nowhere")).is_err());
    }
}
