//! Reads the entries and the metadata of a golden file.

use crate::oracle::Stats;
use bcnorm::{ChannelStats, DType, NormDesc, NormKind};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};

/// The largest error that passes: 1e-6, or PyTorch's own in f32 where that is larger.
pub(super) fn bar(pytorch_f32_error: &BTreeMap<String, f64>, name: &str) -> f64 {
    pytorch_f32_error
        .get(name)
        .copied()
        .unwrap_or(0.0)
        .max(1e-6)
}

/// Reads entries and collects what is wrong, so that one look names it all.
pub(super) struct Reader<'a> {
    pub(super) file: &'a SafeTensors<'a>,
    pub(super) metadata: &'a HashMap<String, String>,
    /// Of the 48 first ones, which lack most of the metadata.
    first: bool,
    known: Vec<String>,
    missing_tensors: Vec<String>,
    missing_metadata: Vec<String>,
    pub(super) problems: Vec<String>,
}

/// Names of which the first few tell enough.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 6;
    match names.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

/// `[2, 3]`.
pub(super) fn parse_shape(text: &str) -> Option<Vec<usize>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    inner
        .split(',')
        .map(|size| size.trim().parse().ok())
        .collect()
}

/// What comes out, by name.
pub(super) struct Expectations {
    pub(super) expected: BTreeMap<String, Vec<f64>>,
    pub(super) scale: BTreeMap<String, f64>,
    pub(super) pytorch_f32_error: BTreeMap<String, f64>,
}

/// What the metadata say of the norm.
pub(super) struct Settings {
    pub(super) norm: NormDesc,
    pub(super) eps_f64: f64,
    pub(super) stats: Stats,
    pub(super) training: bool,
    pub(super) num_batches_tracked: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a SafeTensors<'a>, metadata: &'a HashMap<String, String>) -> Self {
        Self {
            file,
            metadata,
            first: !metadata.contains_key("norm"),
            known: Vec::new(),
            missing_tensors: Vec::new(),
            missing_metadata: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// What was read, or all that was wrong.
    pub(super) fn finish<T>(mut self, read: Option<T>) -> Result<T, String> {
        if read.is_some() {
            self.list_unknown();
        }
        let missing = [
            ("tensors", self.missing_tensors),
            ("metadata", self.missing_metadata),
        ];
        let problems: Vec<String> = missing
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("missing {what}: {}", list(&names)))
            .chain(self.problems)
            .collect();
        match read {
            Some(read) if problems.is_empty() => Ok(read),
            _ => Err(problems.join("; ")),
        }
    }

    /// Entries that nobody asked for: an optional one with a slip in its name would go unnoticed.
    fn list_unknown(&mut self) {
        let mut unknown: Vec<String> = self.file.names().into_iter().map(str::to_owned).collect();
        unknown.retain(|name| !self.known.contains(name));
        unknown.sort_unstable();
        if !unknown.is_empty() {
            self.problems
                .push(format!("unexpected tensors: {}", list(&unknown)));
        }
    }

    /// The shape of an entry without which nothing else can be read.
    pub(super) fn shape_of(&mut self, name: &str) -> Option<Vec<usize>> {
        match self.file.tensor(name) {
            Ok(tensor) => Some(tensor.shape().to_vec()),
            Err(_) => {
                self.missing_tensors.push(name.to_owned());
                None
            }
        }
    }

    /// Reads what describes the norm. Which parameters and running statistics there are is what the file
    /// holds of them; the first files hold all.
    pub(super) fn settings(&mut self, kind: NormKind, channels: usize) -> Option<Settings> {
        let groups = self.number("groups", |text| text.parse::<usize>().ok());
        let eps = self.number("eps", |text| text.parse::<f32>().ok());
        let eps_f64 = eps.and_then(|_| self.number("eps", |text| text.parse::<f64>().ok()));
        let training = self.number("training", |text| text.parse::<bool>().ok());
        let estimate = self.number("stats", |text| match text {
            "batch" => Some(false),
            "estimate" => Some(true),
            _ => None,
        });
        let momentum = match estimate {
            Some(true) => Some(None),
            _ => self.number("momentum", |text| match text {
                "" | "None" | "none" => Some(None),
                _ => text.parse::<f64>().ok().map(Some),
            }),
        };
        let moving_speed = match estimate {
            Some(true) => self.number("moving_speed", |text| text.parse::<f64>().ok()),
            _ => Some(0.0),
        };
        let num_batches_tracked =
            self.option("num_batches_tracked", 0, |text| text.parse::<u32>().ok());
        let track = self.option("track_running_stats", true, |text| {
            text.parse::<bool>().ok()
        });
        let per_channel = self.option("affine", false, |text| match text {
            "per_group" => Some(false),
            "per_channel" => Some(true),
            _ => None,
        });
        let (groups, estimate) = (groups?, estimate?);

        let plain = match kind {
            NormKind::BatchNorm => NormDesc::batch_norm(channels),
            NormKind::EstBn => NormDesc::est_bn(channels),
            NormKind::GroupNorm => NormDesc::group_norm(groups, channels),
            NormKind::InstanceNorm => NormDesc::instance_norm(channels),
            NormKind::LayerNorm => NormDesc::layer_norm(channels),
            NormKind::BcNorm => NormDesc::bc_norm(channels, groups),
            NormKind::WeightStandardization => NormDesc::weight_standardization(),
            other => {
                self.problems
                    .push(format!("norm \"{}\" is new", other.name()));
                return None;
            }
        };
        if plain.num_groups != groups {
            self.problems.push(format!(
                "metadata \"groups\" is {groups}, but {} has {}",
                kind.name(),
                plain.num_groups
            ));
        }
        let estimates = match kind {
            NormKind::BcNorm => estimate,
            _ => kind == NormKind::EstBn,
        };
        if estimates != estimate {
            self.problems.push(format!(
                "metadata \"stats\" is not what {} has",
                kind.name()
            ));
        }

        let there = |name: &str| self.first || self.file.tensor(name).is_ok();
        let both = kind == NormKind::BcNorm;
        let running = if both {
            "bn.running_mean"
        } else {
            "running_mean"
        };
        let has_running = there(running);
        let stats = match estimate {
            false => Stats::Batch {
                momentum: momentum?,
            },
            true => Stats::Estimate {
                moving_speed: moving_speed?,
            },
        };
        let channel_stats = match stats {
            Stats::Batch { momentum } => ChannelStats::Batch {
                momentum: momentum.map(|momentum| momentum as f32),
            },
            Stats::Estimate { moving_speed } => ChannelStats::Estimate {
                moving_speed: moving_speed as f32,
            },
        };
        let plain = match plain.kind {
            NormKind::GroupNorm | NormKind::LayerNorm | NormKind::WeightStandardization => plain,
            _ => plain.with_stats(channel_stats),
        };
        let norm = plain
            .with_eps(eps?)
            .with_weight(there("weight"))
            .with_bias(there("bias"))
            .with_bn_weight(!both || there("bn.weight"))
            .with_bn_bias(!both || there("bn.bias"))
            .with_per_channel_affine(!both || per_channel?)
            .with_track_running_stats(has_running);
        if track? != has_running {
            self.problems.push(format!(
                "metadata \"track_running_stats\" is {}, but there {} {running}",
                !has_running,
                if has_running { "is a" } else { "is no" }
            ));
        }
        Some(Settings {
            norm,
            eps_f64: eps_f64?,
            stats,
            training: training?,
            num_batches_tracked: num_batches_tracked?,
        })
    }

    /// Reads what comes out.
    pub(super) fn expectations<'n>(
        &mut self,
        outputs: impl IntoIterator<Item = (&'n str, usize)>,
        dtype: DType,
    ) -> Expectations {
        let mut all = Expectations {
            expected: BTreeMap::new(),
            scale: BTreeMap::new(),
            pytorch_f32_error: BTreeMap::new(),
        };
        for (name, len) in outputs {
            let entry = format!("expected.{name}");
            if let Some(values) = self.values(&entry, Dtype::F64, len, f64::from_le_bytes) {
                all.expected.insert(name.to_owned(), values);
            }
            if let Some(scale) = self.magnitude(&format!("scale.{name}")) {
                all.scale.insert(name.to_owned(), scale);
            }
            if dtype == DType::F32
                && let Some(error) = self.magnitude(&format!("pytorch_f32_error.{name}"))
            {
                all.pytorch_f32_error.insert(name.to_owned(), error);
            }
        }
        all
    }

    /// A value of the metadata.
    pub(super) fn number<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
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

    /// A value of the metadata that the first files lack, where it is `first`.
    pub(super) fn option<T>(
        &mut self,
        key: &str,
        first: T,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        match self.first {
            true => Some(first),
            false => self.number(key, parse),
        }
    }

    /// A scale or an error of the metadata. A NaN or an infinity there would let anything pass.
    fn magnitude(&mut self, key: &str) -> Option<f64> {
        self.number(key, |text| {
            text.parse()
                .ok()
                .filter(|value: &f64| value.is_finite() && *value >= 0.0)
        })
    }

    /// The values of an entry that is stored in a type of the library's.
    pub(super) fn floats(&mut self, name: &str, dtype: DType, length: usize) -> Option<Vec<f32>> {
        match dtype {
            DType::F16 => self.values(name, Dtype::F16, length, |bytes| {
                f16::from_le_bytes(bytes).to_f32()
            }),
            DType::BF16 => self.values(name, Dtype::BF16, length, |bytes| {
                bf16::from_le_bytes(bytes).to_f32()
            }),
            _ => self.values(name, Dtype::F32, length, f32::from_le_bytes),
        }
    }

    /// The values of an entry.
    fn values<T, const BYTES: usize>(
        &mut self,
        name: &str,
        dtype: Dtype,
        length: usize,
        from_le_bytes: fn([u8; BYTES]) -> T,
    ) -> Option<Vec<T>> {
        self.known.push(name.to_owned());
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
