//! Golden vectors: files with one call of Batch-Channel Normalization each and what it must yield
//! (format: `tests/golden/README.md` of the library).

use crate::case::{Case, Outputs, named};
use anyhow::{Context as _, Result, bail};
use bcnorm::{ChannelStats, Mode, oracle};
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A golden case.
#[derive(Debug)]
pub struct Golden {
    /// The call.
    pub case: Case,
    /// What it must yield, by golden name.
    pub expected: BTreeMap<&'static str, Expected>,
}

/// One tensor that must come out.
#[derive(Debug)]
pub struct Expected {
    /// Its values, by PyTorch in f64.
    pub values: Vec<f64>,
    /// What an error is divided by.
    pub scale: f64,
    /// PyTorch's own error in f32.
    pub pytorch_f32_error: f64,
}

impl Expected {
    /// The largest error that passes: 1e-6, or PyTorch's own where that is larger.
    pub fn bar(&self) -> f64 {
        self.pytorch_f32_error.max(1e-6)
    }
}

/// What must come out, in this order in tables.
const EXPECTED: [(&str, Size); 8] = [
    ("y", Size::Tensor),
    ("grad_x", Size::Tensor),
    ("grad_bn.weight", Size::Channels),
    ("grad_bn.bias", Size::Channels),
    ("grad_weight", Size::Groups),
    ("grad_bias", Size::Groups),
    ("bn.running_mean_after", Size::Channels),
    ("bn.running_var_after", Size::Channels),
];

#[derive(Clone, Copy)]
enum Size {
    Tensor,
    Channels,
    Groups,
}

impl Golden {
    /// The error of every expected tensor; infinite for what did not come out.
    pub fn errors(&self, outputs: &Outputs) -> BTreeMap<&'static str, f64> {
        let got: BTreeMap<_, _> = named(outputs).into_iter().collect();
        self.expected
            .iter()
            .map(|(&name, expected)| {
                let error = match got.get(name) {
                    Some(got) => oracle::error(got, &expected.values, expected.scale),
                    None => f64::INFINITY,
                };
                (name, error)
            })
            .collect()
    }
}

/// The golden files of a folder, by name.
pub fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("cannot list {}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.extension().is_some_and(|end| end == "safetensors") && !path.is_dir() {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("{} holds no .safetensors file", folder.display());
    }
    files.sort();
    Ok(files)
}

/// Reads a golden file. The error names the file and all that is wrong with it.
pub fn load(path: &Path) -> Result<Golden> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes).with_context(|| format!("{} is no golden file", path.display()))
}

/// Reads the bytes of a golden file.
pub fn parse(bytes: &[u8]) -> Result<Golden> {
    let file = SafeTensors::deserialize(bytes).context("not in safetensors format")?;
    let (_, header) = SafeTensors::read_metadata(bytes).context("not in safetensors format")?;
    let empty = HashMap::new();
    let mut reader = Reader {
        file: &file,
        metadata: header.metadata().as_ref().unwrap_or(&empty),
        missing_tensors: Vec::new(),
        missing_metadata: Vec::new(),
        problems: Vec::new(),
    };
    let golden = reader.golden();
    let problems = reader.into_problems();
    match golden {
        Some(golden) if problems.is_empty() => {
            // Lengths, groups, ranges: what the library itself objects to.
            golden.case.check()?;
            Ok(golden)
        }
        _ => bail!("{}", problems.join("; ")),
    }
}

/// Reads entries and collects what is wrong, so that one look names it all.
struct Reader<'a> {
    file: &'a SafeTensors<'a>,
    metadata: &'a HashMap<String, String>,
    missing_tensors: Vec<String>,
    missing_metadata: Vec<String>,
    problems: Vec<String>,
}

/// Names of which the first few tell enough.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 6;
    match names.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

impl Reader<'_> {
    fn into_problems(self) -> Vec<String> {
        let missing = [
            ("tensors", self.missing_tensors),
            ("metadata", self.missing_metadata),
        ];
        missing
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("missing {what}: {}", list(&names)))
            .chain(self.problems)
            .collect()
    }

    fn golden(&mut self) -> Option<Golden> {
        let Ok(x) = self.file.tensor("x") else {
            // Without it no other length is known.
            self.missing_tensors.push("x".to_owned());
            return None;
        };
        let dims = x.shape().to_vec();
        let channels = dims.get(1).copied().unwrap_or(0);
        let groups = self.number("groups", |text| text.parse::<usize>().ok());
        if let Some(declared) = self.number("channels", |text| text.parse::<usize>().ok())
            && declared != channels
        {
            self.problems.push(format!(
                "x of shape {dims:?} has {channels} channels, metadata \"channels\" says {declared}"
            ));
        }
        let eps = self.number("eps", |text| text.parse::<f32>().ok());
        let stats = self.stats();
        let training = self.number("training", |text| text.parse::<bool>().ok());

        let elements = dims.iter().product();
        let size = |size| match size {
            Size::Tensor => elements,
            Size::Channels => channels,
            Size::Groups => groups.unwrap_or(0),
        };
        let mut input =
            |name, length| self.values(name, Dtype::F32, size(length), f32::from_le_bytes);
        let x = input("x", Size::Tensor);
        let grad_y = input("grad_y", Size::Tensor);
        let bn_weight = input("bn.weight", Size::Channels);
        let bn_bias = input("bn.bias", Size::Channels);
        let weight = input("weight", Size::Groups);
        let bias = input("bias", Size::Groups);
        let running_mean = input("bn.running_mean", Size::Channels);
        let running_var = input("bn.running_var", Size::Channels);

        let mut expected = BTreeMap::new();
        for (name, length) in EXPECTED {
            let entry = format!("expected.{name}");
            let values = self.values(&entry, Dtype::F64, size(length), f64::from_le_bytes);
            let scale = self.magnitude(&format!("scale.{name}"));
            let error = self.magnitude(&format!("pytorch_f32_error.{name}"));
            if let (Some(values), Some(scale), Some(pytorch_f32_error)) = (values, scale, error) {
                let tensor = Expected {
                    values,
                    scale,
                    pytorch_f32_error,
                };
                expected.insert(name, tensor);
            }
        }
        Some(Golden {
            case: Case {
                dims,
                num_groups: groups?,
                eps: eps?,
                stats: stats?,
                mode: if training? { Mode::Train } else { Mode::Eval },
                x: x?,
                grad_y: Some(grad_y?),
                bn_weight: bn_weight?,
                bn_bias: bn_bias?,
                weight: weight?,
                bias: bias?,
                running_mean: running_mean?,
                running_var: running_var?,
                num_batches_tracked: 0,
            },
            expected,
        })
    }

    fn stats(&mut self) -> Option<ChannelStats> {
        match self.metadata.get("stats").map(String::as_str) {
            Some("batch") => {
                let momentum = self.number("momentum", |text| match text {
                    "None" | "none" => Some(None),
                    _ => text.parse().ok().map(Some),
                })?;
                Some(ChannelStats::Batch { momentum })
            }
            Some("estimate") => {
                let moving_speed = self.number("moving_speed", |text| text.parse().ok())?;
                Some(ChannelStats::Estimate { moving_speed })
            }
            Some(other) => {
                self.problems.push(format!(
                    "metadata \"stats\" is \"{other}\", expected \"batch\" or \"estimate\""
                ));
                None
            }
            None => {
                self.missing_metadata.push("stats".to_owned());
                None
            }
        }
    }

    /// A value of the metadata.
    fn number<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let Some(text) = self.metadata.get(key) else {
            self.missing_metadata.push(key.to_owned());
            return None;
        };
        let value = parse(text);
        if value.is_none() {
            self.problems.push(format!(
                "metadata \"{key}\" is \"{text}\", which makes no sense"
            ));
        }
        value
    }

    /// A scale or an error of the metadata. A NaN or an infinity there would let anything pass.
    fn magnitude(&mut self, key: &str) -> Option<f64> {
        self.number(key, |text| {
            text.parse()
                .ok()
                .filter(|value: &f64| value.is_finite() && *value >= 0.0)
        })
    }

    /// The values of an entry.
    fn values<T, const BYTES: usize>(
        &mut self,
        name: &str,
        dtype: Dtype,
        length: usize,
        from_le_bytes: fn([u8; BYTES]) -> T,
    ) -> Option<Vec<T>> {
        let Ok(tensor) = self.file.tensor(name) else {
            self.missing_tensors.push(name.to_owned());
            return None;
        };
        if tensor.dtype() != dtype {
            self.problems.push(format!(
                "tensor \"{name}\" is {:?}, expected {dtype:?}",
                tensor.dtype()
            ));
            return None;
        }
        let (chunks, _) = tensor.data().as_chunks::<BYTES>();
        if chunks.len() != length {
            self.problems.push(format!(
                "tensor \"{name}\" has {} values, expected {length}",
                chunks.len()
            ));
            return None;
        }
        Some(chunks.iter().map(|&bytes| from_le_bytes(bytes)).collect())
    }
}
