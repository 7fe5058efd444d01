//! Reads golden vectors: one call of a norm per file, with what PyTorch made of it in f64.
//! `tests/golden/README.md` says what a file holds.

use crate::chain::{self, Chain};
use crate::problem::{Problem, input_name, output_name};
use bcnorm::{Activation, ChannelStats, DType, Fusion, NormDesc, NormKind, Role, TensorDesc};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

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
    /// The norm, as a caller of the library describes it.
    pub norm: NormDesc,
    /// N, C and the spatial dimensions; Weight Standardization: O, 1 and the filters' dimensions.
    pub dims: Vec<usize>,
    /// G.
    pub num_groups: usize,
    /// The epsilon as PyTorch's f64 run took it: 1e-5 is no f32, and the difference shows from 1e-8 on
    /// where a variance is 0.
    pub eps_f64: f64,
    /// The kind of channel statistics.
    pub stats: Stats,
    /// Of [`Stats::Batch`], in f64; none means a cumulative average.
    pub momentum: Option<f64>,
    /// Of [`Stats::Estimate`], in f64.
    pub moving_speed: f64,
    /// Training, or evaluation.
    pub training: bool,
    /// How the tensors are stored.
    pub dtype: DType,
    /// What is applied after the norm.
    pub fusion: Fusion,
    /// Batches tracked before the call.
    pub num_batches_tracked: u32,
    /// What goes in: `x`, `grad_y`, and what there is of `residual`, `bn.weight`, `bn.bias`, `weight`,
    /// `bias`, and of `running_mean` and `running_var`, which are called `bn.running_mean` and
    /// `bn.running_var` with BCNorm.
    pub tensors: BTreeMap<String, Vec<f32>>,
    /// What comes out: `y`, `grad_x`, and what there is of `grad_residual`, `grad_bn.weight`,
    /// `grad_bn.bias`, `grad_weight`, `grad_bias`, and of `running_mean_after` and `running_var_after`,
    /// with BCNorm behind `bn.`.
    pub expected: BTreeMap<String, Vec<f64>>,
    /// What an error is divided by, under the names of `expected`.
    pub scale: BTreeMap<String, f64>,
    /// PyTorch's own error in f32, under the names of `expected`; nothing of 16-bit cases.
    pub pytorch_f32_error: BTreeMap<String, f64>,
}

impl Golden {
    /// The largest error that an f32 output may have: 1e-6, or PyTorch's own where that is larger.
    pub fn bar(&self, name: &str) -> f64 {
        bar(&self.pytorch_f32_error, name)
    }
}

pub(crate) fn bar(pytorch_f32_error: &BTreeMap<String, f64>, name: &str) -> f64 {
    pytorch_f32_error
        .get(name)
        .copied()
        .unwrap_or(0.0)
        .max(1e-6)
}

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
    let problem = Problem::from_golden(&golden);
    problem.check().map_err(|error| error.to_string())?;
    Ok(File::Norm(Box::new(golden)))
}

/// Reads entries and collects what is wrong, so that one look names it all.
pub(crate) struct Reader<'a> {
    file: &'a SafeTensors<'a>,
    metadata: &'a HashMap<String, String>,
    /// Of the 48 first ones, which lack most of the metadata.
    first: bool,
    known: Vec<String>,
    missing_tensors: Vec<String>,
    missing_metadata: Vec<String>,
    pub(crate) problems: Vec<String>,
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
fn parse_shape(text: &str) -> Option<Vec<usize>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    inner
        .split(',')
        .map(|size| size.trim().parse().ok())
        .collect()
}

/// What comes out, by name.
pub(crate) struct Expectations {
    pub(crate) expected: BTreeMap<String, Vec<f64>>,
    pub(crate) scale: BTreeMap<String, f64>,
    pub(crate) pytorch_f32_error: BTreeMap<String, f64>,
}

/// What the metadata say of the norm.
pub(crate) struct Settings {
    pub(crate) norm: NormDesc,
    pub(crate) eps_f64: f64,
    pub(crate) stats: Stats,
    pub(crate) momentum: Option<f64>,
    pub(crate) moving_speed: f64,
    pub(crate) training: bool,
    pub(crate) num_batches_tracked: u32,
}

impl<'a> Reader<'a> {
    fn new(file: &'a SafeTensors<'a>, metadata: &'a HashMap<String, String>) -> Self {
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
    fn finish<T>(mut self, read: Option<T>) -> Result<T, String> {
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

    fn golden(&mut self) -> Option<Golden> {
        let kind = self.kind();
        let shape = self.shape_of("x")?;
        let standardization = kind == Some(NormKind::WeightStandardization);
        let channels = match standardization {
            true => 1,
            false => shape.get(1).copied().unwrap_or(0),
        };
        self.check_shape(&shape, channels);
        let dtype = self.option("dtype", DType::F32, |text| {
            let all = [DType::F32, DType::F16, DType::BF16];
            all.into_iter().find(|dtype| dtype.name() == text)
        });
        self.option("layout", (), |text| {
            (text == "channels_first").then_some(())
        });
        let activation = self.option("activation", Activation::None, |text| match text {
            "none" => Some(Activation::None),
            "relu" => Some(Activation::Relu),
            "silu" => Some(Activation::Silu),
            _ => None,
        });
        let residual = self.option("residual", false, |text| text.parse().ok());
        let settings = kind.and_then(|kind| self.settings(kind, channels));
        let (settings, dtype) = (settings?, dtype?);
        let norm = settings.norm;
        let fusion = Fusion {
            activation: activation?,
            residual: residual?,
        };

        let elements = shape.iter().product();
        let mut tensors = BTreeMap::new();
        let mut take = |reader: &mut Self, name: &str, stored, len| {
            if let Some(values) = reader.floats(name, stored, len) {
                tensors.insert(name.to_owned(), values);
            }
        };
        let mut whole = vec!["x", "grad_y"];
        whole.extend(fusion.residual.then_some("residual"));
        for name in whole {
            self.check_same_shape(name, &shape);
            take(self, name, dtype, elements);
        }
        for (role, len) in parameters(&norm) {
            if let Some(name) = input_name(&norm, role) {
                take(self, name, DType::F32, len);
            }
        }

        let mut outputs = vec![(Role::Y, elements), (Role::GradX, elements)];
        outputs.extend(fusion.residual.then_some((Role::GradResidual, elements)));
        outputs.extend(parameters(&norm).map(|(role, len)| (gradient_or_state(role), len)));
        let outputs = outputs
            .into_iter()
            .filter_map(|(role, len)| Some((output_name(&norm, role)?, len)));
        let expectations = self.expectations(outputs, dtype);

        let dims = match standardization {
            true => TensorDesc::filters(&shape).map(|tensor| tensor.dims().to_vec()),
            false => Ok(shape),
        };
        Some(Golden {
            name: self.number("name", |text| Some(text.to_owned()))?,
            norm,
            dims: dims.ok()?,
            num_groups: norm.num_groups,
            eps_f64: settings.eps_f64,
            stats: settings.stats,
            momentum: settings.momentum,
            moving_speed: settings.moving_speed,
            training: settings.training,
            dtype,
            fusion,
            num_batches_tracked: settings.num_batches_tracked,
            tensors,
            expected: expectations.expected,
            scale: expectations.scale,
            pytorch_f32_error: expectations.pytorch_f32_error,
        })
    }

    /// The shape of an entry without which nothing else can be read.
    pub(crate) fn shape_of(&mut self, name: &str) -> Option<Vec<usize>> {
        match self.file.tensor(name) {
            Ok(tensor) => Some(tensor.shape().to_vec()),
            Err(_) => {
                self.missing_tensors.push(name.to_owned());
                None
            }
        }
    }

    fn kind(&mut self) -> Option<NormKind> {
        self.option("norm", NormKind::BcNorm, |text| {
            NormKind::ALL
                .iter()
                .copied()
                .find(|kind| kind.name() == text)
        })
    }

    /// Compares what the metadata say of the shape with the shape.
    fn check_shape(&mut self, shape: &[usize], channels: usize) {
        if let Some(declared) = self.number("shape", parse_shape)
            && declared != shape
        {
            self.problems.push(format!(
                "x has shape {shape:?}, metadata \"shape\" says {declared:?}"
            ));
        }
        if let Some(declared) = self.number("channels", |text| text.parse::<usize>().ok())
            && declared != channels
        {
            self.problems.push(format!(
                "x of shape {shape:?} has {channels} channels, metadata \"channels\" says {declared}"
            ));
        }
    }

    fn check_same_shape(&mut self, name: &str, shape: &[usize]) {
        if let Ok(tensor) = self.file.tensor(name)
            && tensor.shape() != shape
        {
            self.problems.push(format!(
                "tensor \"{name}\" has shape {:?}, expected {shape:?}",
                tensor.shape()
            ));
        }
    }

    /// Reads what describes the norm. Which parameters and running statistics there are is what the file
    /// holds of them; the first files hold all.
    pub(crate) fn settings(&mut self, kind: NormKind, channels: usize) -> Option<Settings> {
        let groups = self.number("groups", |text| text.parse::<usize>().ok());
        let eps = self.number("eps", |text| text.parse::<f32>().ok());
        let eps_f64 = eps.and_then(|_| self.number("eps", |text| text.parse::<f64>().ok()));
        let training = self.number("training", |text| text.parse::<bool>().ok());
        let stats = self.number("stats", |text| match text {
            "batch" => Some(Stats::Batch),
            "estimate" => Some(Stats::Estimate),
            _ => None,
        });
        let momentum = match stats {
            Some(Stats::Estimate) => Some(None),
            _ => self.number("momentum", |text| match text {
                "" | "None" | "none" => Some(None),
                _ => text.parse::<f64>().ok().map(Some),
            }),
        };
        let moving_speed = match stats {
            Some(Stats::Estimate) => self.number("moving_speed", |text| text.parse::<f64>().ok()),
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
        let (groups, stats) = (groups?, stats?);

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
            NormKind::BcNorm => stats == Stats::Estimate,
            _ => kind == NormKind::EstBn,
        };
        if estimates != (stats == Stats::Estimate) {
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
        let channel_stats = match stats {
            Stats::Batch => ChannelStats::Batch {
                momentum: momentum?.map(|momentum| momentum as f32),
            },
            Stats::Estimate => ChannelStats::Estimate {
                moving_speed: moving_speed? as f32,
            },
        };
        let plain = match plain.kind {
            NormKind::GroupNorm | NormKind::LayerNorm | NormKind::WeightStandardization => plain,
            _ => plain.with_stats(channel_stats),
        };
        let norm = plain
            .with_eps(eps?)
            .with_affine(there("weight"), there("bias"))
            .with_bn_affine(!both || there("bn.weight"), !both || there("bn.bias"))
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
            momentum: momentum?,
            moving_speed: moving_speed?,
            training: training?,
            num_batches_tracked: num_batches_tracked?,
        })
    }

    /// Reads what comes out.
    pub(crate) fn expectations<'n>(
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
    pub(crate) fn number<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
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
    fn option<T>(&mut self, key: &str, first: T, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
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
    pub(crate) fn floats(&mut self, name: &str, dtype: DType, length: usize) -> Option<Vec<f32>> {
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

/// Parameters and running statistics of a norm, with their lengths.
pub(crate) fn parameters(norm: &NormDesc) -> impl Iterator<Item = (Role, usize)> + use<> {
    let both = norm.kind == NormKind::BcNorm;
    let (channels, affine) = (norm.num_channels, norm.affine_len());
    let running = norm.has_running_stats();
    [
        (both && norm.bn_weight, Role::BnWeight, channels),
        (both && norm.bn_bias, Role::BnBias, channels),
        (norm.weight, Role::Weight, affine),
        (norm.bias, Role::Bias, affine),
        (running, Role::RunningMean, channels),
        (running, Role::RunningVar, channels),
    ]
    .into_iter()
    .filter(|(there, ..)| *there)
    .map(|(_, role, len)| (role, len))
}

/// What comes out for a parameter or a running statistic.
pub(crate) fn gradient_or_state(role: Role) -> Role {
    match role {
        Role::BnWeight => Role::GradBnWeight,
        Role::BnBias => Role::GradBnBias,
        Role::Weight => Role::GradWeight,
        Role::Bias => Role::GradBias,
        state => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

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
                assert_eq!(golden.stats == Stats::Batch, parts[1] == "batch");
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
        assert_eq!(golden.momentum, Some(0.1));
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
            .with_affine(true, false);
        assert_eq!(golden.norm, norm);
        assert_eq!(golden.dtype, DType::BF16);
        assert!(golden.fusion.residual);
        assert_eq!(golden.fusion.activation, Activation::Relu);
        assert_eq!(golden.tensors["x"], [1.5; 24]);
        assert_eq!(golden.tensors["weight"], [2.0; 4]);
        assert_eq!(golden.expected.len(), 4);
        assert!(golden.pytorch_f32_error.is_empty());
        assert_eq!(golden.bar("y"), 1e-6);
        let problem = Problem::from_golden(&golden);
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
