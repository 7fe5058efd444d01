//! Tensors and parameters in files: reading, checking, and writing whole files or none.

use crate::npy;
use anyhow::{Context as _, Result, bail, ensure};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its shape.
    pub dims: Vec<usize>,
    /// Its values in row-major order.
    pub values: Vec<f32>,
}

/// Reads one tensor from a `.npy` or `.safetensors` file: the one called `name`, or the only one.
pub fn read_tensor(path: &Path, name: Option<&str>, default: &str) -> Result<Tensor> {
    let bytes = read(path)?;
    let tensor = if path
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("npy"))
    {
        match name {
            Some(name) => bail!(
                "{}: a .npy file holds one tensor without a name, so there is no \"{name}\"",
                path.display()
            ),
            None => npy::parse(&bytes).map(|(dims, values)| Tensor { dims, values }),
        }
    } else {
        pick(&bytes, name, default)
    };
    tensor.with_context(|| path.display().to_string())
}

fn pick(bytes: &[u8], name: Option<&str>, default: &str) -> Result<Tensor> {
    let file = SafeTensors::deserialize(bytes).context("not in safetensors format")?;
    let mut names = file.names();
    names.sort_unstable();
    let name = match (name, names.as_slice()) {
        (Some(name), _) => name,
        (None, names) if names.contains(&default) => default,
        (None, [only]) => only,
        (None, []) => bail!("holds no tensor"),
        (None, names) => bail!(
            "holds {} tensors and none is called \"{default}\": name one of {}",
            names.len(),
            names.join(", ")
        ),
    };
    let Ok(tensor) = file.tensor(name) else {
        bail!("holds no tensor \"{name}\"; there are {}", names.join(", "));
    };
    ensure!(
        tensor.dtype() == Dtype::F32,
        "tensor \"{name}\" is {:?}, expected F32: convert it first (tensor.float() in PyTorch)",
        tensor.dtype()
    );
    Ok(Tensor {
        dims: tensor.shape().to_vec(),
        values: floats(&tensor),
    })
}

fn floats(tensor: &TensorView) -> Vec<f32> {
    let (chunks, _) = tensor.data().as_chunks();
    chunks
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect()
}

/// Parameters and running state of a norm, by PyTorch's names.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// `weight`.
    pub weight: Tensor,
    /// `bias`.
    pub bias: Tensor,
    /// `bn.weight`.
    pub bn_weight: Vec<f32>,
    /// `bn.bias`.
    pub bn_bias: Vec<f32>,
    /// `bn.running_mean`.
    pub running_mean: Vec<f32>,
    /// `bn.running_var`.
    pub running_var: Vec<f32>,
    /// `bn.num_batches_tracked`.
    pub num_batches_tracked: u32,
    /// `bn.estbn_moving_speed`: there for `EstBN` alone.
    pub moving_speed: Option<f32>,
}

/// Reads a state dict for `channels` channels and `groups` groups. The error lists everything that
/// is missing, extra or misshapen.
pub fn read_params(path: &Path, channels: usize, groups: usize) -> Result<Params> {
    let bytes = read(path)?;
    parse_params(&bytes, channels, groups).with_context(|| path.display().to_string())
}

fn parse_params(bytes: &[u8], channels: usize, groups: usize) -> Result<Params> {
    let file = SafeTensors::deserialize(bytes).context("not in safetensors format")?;
    let mut reader = ParamsReader {
        file,
        known: Vec::new(),
        problems: Vec::new(),
    };
    let per_group: [&[usize]; 2] = [&[1, groups, 1], &[groups]];
    let per_channel: [&[usize]; 1] = [&[channels]];
    let weight = reader.tensor("weight", &per_group);
    let bias = reader.tensor("bias", &per_group);
    let bn_weight = reader.tensor("bn.weight", &per_channel);
    let bn_bias = reader.tensor("bn.bias", &per_channel);
    let running_mean = reader.tensor("bn.running_mean", &per_channel);
    let running_var = reader.tensor("bn.running_var", &per_channel);
    let num_batches_tracked = reader.counter("bn.num_batches_tracked");
    let speed = "bn.estbn_moving_speed";
    let moving_speed = match reader.file.tensor(speed) {
        Ok(_) => reader.tensor(speed, &[&[1], &[]]),
        Err(_) => None,
    };
    reader.list_extra();

    let params = (|| {
        Some(Params {
            weight: weight?,
            bias: bias?,
            bn_weight: bn_weight?.values,
            bn_bias: bn_bias?.values,
            running_mean: running_mean?.values,
            running_var: running_var?.values,
            num_batches_tracked: num_batches_tracked?,
            moving_speed: moving_speed.and_then(|tensor| tensor.values.first().copied()),
        })
    })();
    match params {
        Some(params) if reader.problems.is_empty() => Ok(params),
        _ => bail!(
            "the parameters do not fit a norm of {channels} channels in {groups} groups:\n  {}",
            reader.problems.join("\n  ")
        ),
    }
}

/// Takes entries and notes what is wrong with them.
struct ParamsReader<'a> {
    file: SafeTensors<'a>,
    known: Vec<&'static str>,
    problems: Vec<String>,
}

impl<'a> ParamsReader<'a> {
    fn entry(
        &mut self,
        name: &'static str,
        dtype: Dtype,
        shapes: &[&[usize]],
    ) -> Option<TensorView<'a>> {
        self.known.push(name);
        let expected: Vec<String> = shapes.iter().map(|shape| format!("{shape:?}")).collect();
        let expected = format!("{dtype:?} of shape {}", expected.join(" or "));
        let Ok(tensor) = self.file.tensor(name) else {
            self.problems
                .push(format!("{name} is missing: expected {expected}"));
            return None;
        };
        if tensor.dtype() != dtype || !shapes.contains(&tensor.shape()) {
            self.problems.push(format!(
                "{name} is {:?} of shape {:?}: expected {expected}",
                tensor.dtype(),
                tensor.shape()
            ));
            return None;
        }
        Some(tensor)
    }

    fn tensor(&mut self, name: &'static str, shapes: &[&[usize]]) -> Option<Tensor> {
        let tensor = self.entry(name, Dtype::F32, shapes)?;
        Some(Tensor {
            dims: tensor.shape().to_vec(),
            values: floats(&tensor),
        })
    }

    fn counter(&mut self, name: &'static str) -> Option<u32> {
        let tensor = self.entry(name, Dtype::I64, &[&[], &[1]])?;
        let bytes = *tensor.data().first_chunk::<8>()?;
        let count = i64::from_le_bytes(bytes);
        let narrow = u32::try_from(count).ok();
        if narrow.is_none() {
            self.problems
                .push(format!("{name} is {count}: expected 0 to {}", u32::MAX));
        }
        narrow
    }

    fn list_extra(&mut self) {
        let mut extra = self.file.names();
        extra.retain(|name| !self.known.contains(name));
        extra.sort_unstable();
        for name in extra {
            self.problems
                .push(format!("{name} is no entry of a BCNorm"));
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Tensors to write, and what is said about them.
#[derive(Debug, Default)]
pub struct Contents {
    tensors: Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)>,
    metadata: HashMap<String, String>,
}

impl Contents {
    /// Adds an f32 tensor.
    pub fn floats(&mut self, name: &'static str, dims: &[usize], values: &[f32]) {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.tensors.push((name, Dtype::F32, dims.to_vec(), bytes));
    }

    /// Adds an i64 without dimensions.
    pub fn integer(&mut self, name: &'static str, value: i64) {
        let bytes = value.to_le_bytes().to_vec();
        self.tensors.push((name, Dtype::I64, Vec::new(), bytes));
    }

    /// Adds a remark.
    pub fn remark(&mut self, name: &str, text: impl ToString) {
        self.metadata.insert(name.to_owned(), text.to_string());
    }

    /// The file's bytes.
    pub fn serialize(&self) -> Result<Vec<u8>> {
        let mut views = Vec::with_capacity(self.tensors.len());
        for (name, dtype, dims, bytes) in &self.tensors {
            views.push((*name, TensorView::new(*dtype, dims.clone(), bytes)?));
        }
        let metadata = Some(self.metadata.clone());
        Ok(safetensors::serialize(views, metadata)?)
    }
}

/// A file that will be written, checked before the work that fills it.
#[derive(Debug)]
pub struct Destination {
    path: PathBuf,
    force: bool,
}

impl Destination {
    /// Checks that a file can be made there, and that none is unless `force` allows to replace it.
    pub fn new(path: &Path, force: bool) -> Result<Self> {
        let shown = path.display();
        ensure!(path.file_name().is_some(), "{shown} names no file to write");
        let folder = folder_of(path);
        ensure!(
            folder.is_dir(),
            "cannot write {shown}: there is no folder {}",
            folder.display()
        );
        ensure!(!path.is_dir(), "cannot write {shown}: it is a folder");
        // A dangling link is something too.
        let exists = path.symlink_metadata().is_ok();
        ensure!(
            force || !exists,
            "{shown} exists: choose another name, or replace it with --force"
        );
        Ok(Self {
            path: path.to_owned(),
            force,
        })
    }

    /// Writes the file, whole or not at all: to a temporary file beside it, then by renaming that.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        let shown = self.path.display();
        let context = || format!("cannot write {shown}");
        let mut builder = tempfile::Builder::new();
        builder.prefix(".bcnorm-").suffix(".partial");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // As any new file, less the umask.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let mut file = builder
            .tempfile_in(folder_of(&self.path))
            .with_context(context)?;
        file.write_all(bytes).with_context(context)?;
        file.as_file().sync_all().with_context(context)?;
        let written = if self.force {
            file.persist(&self.path)
        } else {
            file.persist_noclobber(&self.path)
        };
        // The temporary file goes with the error.
        written.map_err(|error| error.error).with_context(context)?;
        Ok(())
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.safetensors");
        let destination = Destination::new(&path, false).unwrap();
        // Somebody else is faster.
        fs::write(&path, "theirs").unwrap();
        destination.write(b"ours").unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        let error = Destination::new(&path, false).unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        Destination::new(&path, true)
            .unwrap()
            .write(b"ours")
            .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ours");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        Destination::new(folder.path(), true).unwrap_err();
        Destination::new(&folder.path().join("no/where"), true).unwrap_err();
        Destination::new(Path::new(".."), true).unwrap_err();
    }

    #[test]
    fn everything_wrong_with_parameters_is_listed_at_once() {
        let mut contents = Contents::default();
        contents.floats("weight", &[3], &[1.0; 3]);
        contents.floats("bn.weight", &[4], &[1.0; 4]);
        contents.floats("bn.num_batches_tracked", &[1], &[1.0]);
        contents.floats("conv.weight", &[1], &[1.0]);
        let bytes = contents.serialize().unwrap();
        let error = format!("{:#}", parse_params(&bytes, 4, 2).unwrap_err());
        for part in [
            "weight is F32 of shape [3]: expected F32 of shape [1, 2, 1] or [2]",
            "\n  bias is missing: expected F32 of shape [1, 2, 1] or [2]",
            "bn.bias is missing: expected F32 of shape [4]",
            "bn.running_mean is missing",
            "bn.running_var is missing",
            "bn.num_batches_tracked is F32 of shape [1]: expected I64",
            "conv.weight is no entry",
        ] {
            assert!(error.contains(part), "\"{error}\" lacks \"{part}\"");
        }
        assert!(!error.contains("bn.weight is"), "{error}");
    }

    #[test]
    fn a_tensor_is_picked_by_name_or_because_it_is_alone() {
        let mut contents = Contents::default();
        contents.floats("a", &[1, 2], &[1.0, 2.0]);
        let one = contents.serialize().unwrap();
        assert_eq!(pick(&one, None, "x").unwrap().dims, [1, 2]);
        contents.floats("x", &[2], &[3.0, 4.0]);
        let two = contents.serialize().unwrap();
        assert_eq!(pick(&two, None, "x").unwrap().values, [3.0, 4.0]);
        assert_eq!(pick(&two, Some("a"), "x").unwrap().values, [1.0, 2.0]);
        pick(&two, None, "grad_y").unwrap_err();
        pick(&two, Some("b"), "x").unwrap_err();
        contents.integer("count", 3);
        let error = pick(&contents.serialize().unwrap(), Some("count"), "x").unwrap_err();
        assert!(error.to_string().contains("I64"), "{error}");
        pick(b"garbage", None, "x").unwrap_err();
    }
}
