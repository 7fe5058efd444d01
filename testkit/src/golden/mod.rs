//! Reads golden vectors: one call of a norm per file, with what PyTorch made of it in f64, or several in
//! a chain. `tests/golden/README.md` says what a file holds.

pub mod chain;
mod norm;
mod reader;

pub use norm::Golden;

use chain::Chain;
use reader::Reader;
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What a golden file holds.
#[derive(Clone, Debug, PartialEq)]
pub enum File {
    /// A call of a norm.
    Norm(Box<Golden>),
    /// Weight Standardization, a convolution and BCNorm in a row.
    Chain(Box<Chain>),
}

/// The golden files at hand that hold a call of a norm: those in `tests/golden`, and those in the folder
/// that `BCNORM_GOLDEN` names, with their subfolders. A file name comes once; the order is by file name.
///
/// # Panics
/// When `tests/golden` or the folder that `BCNORM_GOLDEN` names holds no golden file: a test over
/// no files would pass.
pub fn paths() -> Vec<PathBuf> {
    let mut found = all_paths();
    found.retain(|path| !chain::is_named(path));
    found
}

/// Those that hold a [`Chain`].
pub fn chain_paths() -> Vec<PathBuf> {
    let mut found = all_paths();
    found.retain(|path| chain::is_named(path));
    found
}

fn all_paths() -> Vec<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut found = files_in(&checkout).unwrap_or_else(|error| panic!("{error}"));
    if let Some(folder) = std::env::var_os("BCNORM_GOLDEN") {
        let more = files_in(Path::new(&folder));
        found.extend(more.unwrap_or_else(|error| panic!("BCNORM_GOLDEN: {error}")));
    }
    // Stable: of two files of one name the fixture stays.
    found.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    found.dedup_by(|a, b| a.file_name() == b.file_name());
    found
}

/// The golden files of a folder and of the folders in it, of which there must be some, by path.
///
/// # Errors
/// Where a folder cannot be listed, or holds none.
pub fn files_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let fail = |error| format!("cannot list {}: {error}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let path = entry.path();
            // Links to folders are not followed: they may lead in a circle.
            if entry.file_type().map_err(fail)?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "safetensors") && !path.is_dir() {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        return Err(format!("{} holds no .safetensors file", folder.display()));
    }
    found.sort();
    Ok(found)
}

/// Reads a golden file that holds a call of a norm.
///
/// # Errors
/// Names the file and all that is wrong with it.
pub fn load(path: impl AsRef<Path>) -> Result<Golden, String> {
    let path = path.as_ref();
    match read(path)? {
        File::Norm(golden) => Ok(*golden),
        File::Chain(_) => Err(format!("{} holds more than a norm", path.display())),
    }
}

/// Reads a golden file.
///
/// # Errors
/// Names the file and all that is wrong with it.
pub fn read(path: &Path) -> Result<File, String> {
    let bytes = std::fs::read(path);
    let bytes = bytes.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    parse(&bytes).map_err(|error| format!("{} is no golden file: {error}", path.display()))
}

/// Reads the bytes of a golden file.
///
/// # Errors
/// Names all that is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<File, String> {
    let fail = |error| format!("not in safetensors format: {error}");
    let file = SafeTensors::deserialize(bytes).map_err(fail)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(fail)?;
    let empty = HashMap::new();
    let mut reader = Reader::new(&file, header.metadata().as_ref().unwrap_or(&empty));
    if reader
        .metadata
        .get("norm")
        .is_some_and(|n| n == chain::NORM)
    {
        let chain = reader.chain();
        return reader
            .finish(chain)
            .map(|chain| File::Chain(Box::new(chain)));
    }
    let golden = reader.golden();
    let golden = reader.finish(golden)?;
    // Lengths, groups, ranges: what the library itself objects to.
    golden
        .problem()
        .check()
        .map_err(|error| error.to_string())?;
    Ok(File::Norm(Box::new(golden)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Stats;
    use bcnorm::{Activation, DType, NormDesc, NormKind};
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;
    use std::collections::BTreeMap;

    fn fixture() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/pixel.batch.train.safetensors")
    }

    #[test]
    fn every_file_loads_and_is_what_its_name_says() {
        let paths = paths();
        assert!(paths.len() >= 48, "{} golden files", paths.len());
        for path in paths {
            let golden = load(&path).unwrap();
            assert_eq!(path.file_stem().unwrap(), golden.name.as_str());
            let parts: Vec<_> = golden.name.split('.').collect();
            assert_eq!(golden.training, parts.contains(&"train"), "{}", golden.name);
            if path.parent().unwrap().ends_with("family") {
                assert_eq!(golden.norm.kind.name(), parts[0]);
            } else {
                assert_eq!(golden.norm.kind, NormKind::BcNorm);
                let batch = matches!(golden.stats, Stats::Batch { .. });
                assert_eq!(batch, parts[1] == "batch");
            }
        }
        for path in chain_paths() {
            assert!(matches!(read(&path), Ok(File::Chain(_))));
            load(&path).unwrap_err();
        }
    }

    #[test]
    fn a_file_holds_these_values() {
        let golden = load(fixture()).unwrap();
        assert_eq!(golden.dims, [9, 6, 1, 1]);
        assert_eq!((golden.num_groups, golden.norm.num_groups), (3, 3));
        assert_eq!((golden.norm.eps, golden.eps_f64), (1e-5, 1e-5));
        assert_eq!(
            golden.stats,
            Stats::Batch {
                momentum: Some(0.1)
            }
        );
        assert_eq!(golden.scale["grad_x"], 1.430293198117282);
        assert_eq!(golden.pytorch_f32_error["grad_x"], 1.444e-4);
        assert_eq!((golden.bar("grad_x"), golden.bar("y")), (1.444e-4, 1e-6));
        // The scale of y is its largest magnitude: the values are those of the entry.
        let y = &golden.expected["y"];
        let largest = y.iter().fold(0.0f64, |largest, y| largest.max(y.abs()));
        assert_eq!(largest, golden.scale["y"]);
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let missing = load("no/such.safetensors").unwrap_err();
        assert!(
            missing.starts_with("cannot read no/such.safetensors: "),
            "{missing}"
        );

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
            (with("\"groups\"", "\"gruops\""), "missing metadata: groups"),
            (
                with("\"groups\":\"3\"", "\"groups\":\"x\""),
                "\"groups\" is \"x\"",
            ),
            (
                with("\"groups\":\"3\"", "\"groups\":\"2\""),
                "\"weight\" has 3 values, expected 2",
            ),
            (with("\"channels\":\"6\"", "\"channels\":\"5\""), "says 5"),
            (with("[9, 6, 1, 1]", "[8, 6, 1, 1]"), "says [8, 6, 1, 1]"),
            (with("[9, 6, 1, 1]", "[9, 6, a, 1]"), "shape"),
            (with("\"batch\"", "\"botch\""), "\"stats\" is \"botch\""),
            (
                with("expected.y", "expected.z"),
                "missing tensors: expected.y",
            ),
            (
                with("expected.y", "expected.z"),
                "unexpected tensors: expected.z",
            ),
            (with("\"scale.y\"", "\"scale.z\""), "scale.y"),
            (
                with("\"training\":\"true\"", "\"training\":\"True\""),
                "training",
            ),
        ] {
            assert!(error.contains(word), "'{error}' does not name '{word}'");
        }
    }

    /// A file of the family, its entries and metadata.
    struct Made {
        metadata: HashMap<String, String>,
        tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    }

    impl Made {
        /// GroupNorm without a bias, on bf16, behind a residual and ReLU.
        fn new() -> Self {
            let metadata = [
                ("name", "group_norm.made.train"),
                ("norm", "group_norm"),
                ("dtype", "bf16"),
                ("layout", "channels_first"),
                ("shape", "[2, 4, 3]"),
                ("channels", "4"),
                ("groups", "2"),
                ("eps", "0.001"),
                ("stats", "batch"),
                ("momentum", "0.1"),
                ("num_batches_tracked", "0"),
                ("track_running_stats", "false"),
                ("training", "true"),
                ("affine", "per_channel"),
                ("activation", "relu"),
                ("residual", "true"),
                ("scale.y", "2"),
                ("scale.grad_x", "1"),
                ("scale.grad_residual", "1"),
                ("scale.grad_weight", "3"),
            ];
            let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
            let mut made = Self {
                metadata: metadata.into(),
                tensors: BTreeMap::new(),
            };
            for name in ["x", "grad_y", "residual"] {
                made.put(name, Dtype::BF16, &[2, 4, 3], [0xc0, 0x3f]);
            }
            made.put("weight", Dtype::F32, &[4], 2f32.to_le_bytes());
            for name in ["y", "grad_x", "grad_residual"] {
                made.put(
                    &format!("expected.{name}"),
                    Dtype::F64,
                    &[2, 4, 3],
                    1f64.to_le_bytes(),
                );
            }
            made.put("expected.grad_weight", Dtype::F64, &[4], 1f64.to_le_bytes());
            made
        }

        fn put<const BYTES: usize>(
            &mut self,
            name: &str,
            dtype: Dtype,
            shape: &[usize],
            value: [u8; BYTES],
        ) {
            let data = value.repeat(shape.iter().product());
            self.tensors
                .insert(name.to_owned(), (dtype, shape.to_vec(), data));
        }

        fn set(mut self, key: &str, value: &str) -> Self {
            self.metadata.insert(key.to_owned(), value.to_owned());
            self
        }

        fn parse(&self) -> Result<File, String> {
            let views = self.tensors.iter().map(|(name, (dtype, shape, data))| {
                (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
            });
            parse(&safetensors::serialize(views, Some(self.metadata.clone())).unwrap())
        }
    }

    #[test]
    fn a_file_of_the_family_is_read() {
        let Ok(File::Norm(golden)) = Made::new().parse() else {
            panic!("{:?}", Made::new().parse());
        };
        let norm = NormDesc::group_norm(2, 4)
            .with_eps(0.001)
            .with_weight(true)
            .with_bias(false);
        assert_eq!(golden.norm, norm);
        assert_eq!(golden.dtype, DType::BF16);
        assert!(golden.fusion.residual);
        assert_eq!(golden.fusion.activation, Activation::Relu);
        assert_eq!(golden.tensors["x"], [1.5; 24]);
        assert_eq!(golden.tensors["weight"], [2.0; 4]);
        assert_eq!(golden.expected.len(), 4);
        assert!(golden.pytorch_f32_error.is_empty());
        assert_eq!(golden.bar("y"), 1e-6);
        let problem = golden.problem();
        assert_eq!(problem.residual, [1.5; 24]);
        assert!(problem.bias.is_empty() && problem.running_mean.is_empty());
    }

    #[test]
    fn all_that_is_wrong_with_a_file_is_named_at_once() {
        let mut made = Made::new()
            .set("track_running_stats", "true")
            .set("groups", "3");
        made.tensors.remove("expected.grad_x");
        made.metadata.remove("scale.y");
        made.put("wieght", Dtype::F32, &[4], 2f32.to_le_bytes());
        let error = made.parse().unwrap_err();
        for part in [
            "missing tensors: expected.grad_x",
            "missing metadata: scale.y",
            "unexpected tensors: wieght",
            "\"track_running_stats\" is true, but there is no running_mean",
        ] {
            assert!(error.contains(part), "\"{error}\" lacks \"{part}\"");
        }
        for (key, value, part) in [
            ("norm", "norm", "\"norm\" is \"norm\""),
            ("dtype", "f64", "\"dtype\" is \"f64\""),
            ("dtype", "f16", "\"x\" is BF16, expected F16"),
            ("layout", "channels_last", "\"layout\" is \"channels_last\""),
            ("activation", "gelu", "\"activation\" is \"gelu\""),
            (
                "residual",
                "false",
                "unexpected tensors: expected.grad_residual, residual",
            ),
            ("stats", "estimate", "\"stats\" is not what group_norm has"),
            ("affine", "none", "\"affine\" is \"none\""),
            ("groups", "3", "3"),
        ] {
            let error = Made::new().set(key, value).parse().unwrap_err();
            assert!(error.contains(part), "\"{error}\" lacks \"{part}\"");
        }
        let mut made = Made::new();
        made.put("residual", Dtype::BF16, &[2, 12], [0xc0, 0x3f]);
        let error = made.parse().unwrap_err();
        assert!(error.contains("\"residual\" has shape [2, 12]"), "{error}");
    }

    #[test]
    fn folders_are_looked_into() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        assert!(
            files_in(&src)
                .unwrap_err()
                .contains("holds no .safetensors file")
        );
        let nowhere = files_in(&src.join("nowhere")).unwrap_err();
        assert!(nowhere.starts_with("cannot list "), "{nowhere}");
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
        assert!(files_in(&tests).unwrap().len() >= 48);
    }
}
