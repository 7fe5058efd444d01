//! State dicts as safetensors, the format that `safetensors.torch` reads and writes.

use super::state::{StateDict, StateValue, module_prefix};
use crate::error::Error;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, io};

/// Reads a state dict from the bytes of a safetensors file. F16, BF16, F32 and F64 are read into f32,
/// rounded to the nearest; of integers, single i64 values (`num_batches_tracked`).
///
/// # Errors
/// [`Error::Checkpoint`] with every entry that is neither or has a value beyond f32's range, or with
/// what is wrong with the bytes.
pub fn from_bytes(bytes: &[u8]) -> Result<StateDict, Error> {
    module_from_bytes(bytes, "")
}

/// Reads the entries of one module from the bytes of a model's file: see [`load_module`].
///
/// # Errors
/// As [`from_bytes`]; where there is no such module, with those that there are.
pub fn module_from_bytes(bytes: &[u8], module: &str) -> Result<StateDict, Error> {
    read(bytes, module).map_err(|problems| failed(None, problems))
}

/// Reads one tensor of a file that is open already, by the rules of [`from_bytes`].
///
/// # Errors
/// [`Error::Checkpoint`] if the tensor is of another type, or has a value beyond f32's range.
pub fn from_view(view: &TensorView) -> Result<StateValue, Error> {
    value(view).map_err(|problem| failed(None, vec![format!("the tensor {problem}")]))
}

/// The bytes of a safetensors file with a state dict.
///
/// # Errors
/// [`Error::Checkpoint`] with every entry whose values do not fill its shape.
pub fn to_bytes(state: &StateDict) -> Result<Vec<u8>, Error> {
    write(state).map_err(|problems| failed(None, problems))
}

/// Reads a safetensors file: see [`from_bytes`].
///
/// # Errors
/// [`Error::Checkpoint`], with the file's name.
pub fn load(path: impl AsRef<Path>) -> Result<StateDict, Error> {
    load_module(path, "")
}

/// Reads the entries of one module from a model's file, under the names that they have within the
/// module, as [`take_module`](super::take_module) gives them. The others may be of any type.
///
/// # Errors
/// As [`load`]; where the file has no such module, with those that it has.
pub fn load_module(path: impl AsRef<Path>, module: &str) -> Result<StateDict, Error> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|error| io_failed(path, "cannot be read", error))?;
    read(&bytes, module).map_err(|problems| failed(Some(path), problems))
}

/// Writes a state dict to a safetensors file. The file is whole at any moment, the old one or the new
/// one: it is written under a temporary name beside, then renamed.
///
/// # Errors
/// [`Error::Checkpoint`], with the file's name; the file is unchanged then.
pub fn save(state: &StateDict, path: impl AsRef<Path>) -> Result<(), Error> {
    let path = path.as_ref();
    let bytes = write(state).map_err(|problems| failed(Some(path), problems))?;
    let beside = beside(path);
    let written = fs::File::create_new(&beside)
        .and_then(|mut file| {
            file.write_all(&bytes)?;
            // The name must not reach the disk before the content does.
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        // What failed is told; that nothing could be removed after it, is not.
        let _ = fs::remove_file(&beside);
        io_failed(path, "cannot be written", error)
    })
}

/// A name in the same folder that no other save of this or another process uses.
fn beside(path: &Path) -> PathBuf {
    static SAVES: AtomicU32 = AtomicU32::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let save = SAVES.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}.{save}.tmp", std::process::id()))
}

fn failed(path: Option<&Path>, problems: Vec<String>) -> Error {
    let file = match path {
        Some(path) => path.display().to_string(),
        None => "the safetensors data".into(),
    };
    Error::Checkpoint {
        file,
        problems,
        source: None,
    }
}

fn io_failed(path: &Path, what: &str, error: io::Error) -> Error {
    Error::Checkpoint {
        file: path.display().to_string(),
        problems: vec![what.into()],
        source: Some(error.into()),
    }
}

fn read(bytes: &[u8], module: &str) -> Result<StateDict, Vec<String>> {
    let file = SafeTensors::deserialize(bytes)
        // As text, and no source: some of its messages quote names of the file, which a terminal must not obey.
        .map_err(|error| error.to_string().escape_debug().to_string())
        .map_err(|error| vec![format!("not a safetensors file: {error}")])?;
    let prefix = module_prefix(module);
    let mut state = StateDict::new();
    let mut problems = Vec::new();
    for (name, view) in file.iter() {
        let Some(inner) = name.strip_prefix(&prefix) else {
            continue;
        };
        match value(&view) {
            Ok(value) => {
                state.insert(inner.to_owned(), value);
            }
            Err(problem) => problems.push(format!("{} {problem}", name.escape_debug())),
        }
    }
    if state.is_empty() && problems.is_empty() && !prefix.is_empty() {
        return Err(vec![no_module(module, &file)]);
    }
    // The file's own order is by type.
    problems.sort();
    if problems.is_empty() {
        Ok(state)
    } else {
        Err(problems)
    }
}

/// Says that a file lacks a module, and which modules it has.
fn no_module(module: &str, file: &SafeTensors) -> String {
    /// A model may have thousands.
    const SHOWN: usize = 200;
    let names = file.names();
    let modules: BTreeSet<&str> = names
        .iter()
        .filter_map(|name| Some(name.rsplit_once('.')?.0))
        .collect();
    if modules.is_empty() {
        return format!(
            "there is no module {module:?}: the file holds no modules, read it without one"
        );
    }
    let shown: Vec<String> = modules
        .iter()
        .take(SHOWN)
        .map(|module| module.escape_debug().to_string())
        .collect();
    let more = match modules.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "there is no module {module:?}; there are: {}{more}",
        shown.join(", ")
    )
}

fn value(view: &TensorView) -> Result<StateValue, String> {
    let data = view.data();
    let values = match view.dtype() {
        Dtype::F16 => floats(data, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => floats(data, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
        Dtype::F32 => floats(data, f32::from_le_bytes),
        Dtype::F64 => narrow(view.shape(), data)?,
        Dtype::I64 => {
            let value = <[u8; 8]>::try_from(data).map_err(|_| {
                let shape = view.shape();
                format!("is i64 of shape {shape:?}, expected a single value")
            })?;
            return Ok(StateValue::I64(i64::from_le_bytes(value)));
        }
        other => {
            return Err(format!(
                "is {other}, expected F16, BF16, F32, F64 or one I64"
            ));
        }
    };
    Ok(StateValue::F32 {
        dims: view.shape().to_vec(),
        values,
    })
}

/// Values of N bytes each, which need not be aligned in the file.
fn floats<const N: usize, T>(data: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    let bytes = data.as_chunks::<N>().0;
    bytes.iter().map(|&bytes| value(bytes)).collect()
}

/// f64 values, rounded to f32. A finite value that would become infinite is an error.
fn narrow(dims: &[usize], data: &[u8]) -> Result<Vec<f32>, String> {
    let wide = floats(data, f64::from_le_bytes);
    let values: Vec<f32> = wide.iter().map(|&value| value as f32).collect();
    let mut pairs = wide.iter().zip(&values);
    match pairs.position(|(wide, value)| wide.is_finite() && value.is_infinite()) {
        None => Ok(values),
        Some(index) => Err(format!(
            "has {:e} at {:?}, beyond the largest f32, {:e}: scale the values, or clip them",
            wide[index],
            position(dims, index),
            f32::MAX
        )),
    }
}

/// The indices of the element that is at `index` in row-major order.
fn position(dims: &[usize], mut index: usize) -> Vec<usize> {
    let mut position: Vec<usize> = dims
        .iter()
        .rev()
        .map(|&size| {
            let within = index % size;
            index /= size;
            within
        })
        .collect();
    position.reverse();
    position
}

fn write(state: &StateDict) -> Result<Vec<u8>, Vec<String>> {
    let mut entries = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in state {
        let (dtype, dims, bytes) = match value {
            StateValue::F32 { dims, values } => {
                // The format's own check multiplies sizes without a look at overflow.
                let len = dims
                    .iter()
                    .try_fold(1usize, |len, &size| len.checked_mul(size));
                if len != Some(values.len()) {
                    let len = values.len();
                    problems.push(format!(
                        "{name}: {len} values do not fill the shape {dims:?}"
                    ));
                    continue;
                }
                let bytes = values.iter().flat_map(|value| value.to_le_bytes());
                (Dtype::F32, dims.clone(), bytes.collect::<Vec<u8>>())
            }
            StateValue::I64(value) => (Dtype::I64, vec![], value.to_le_bytes().to_vec()),
        };
        entries.push((name, dtype, dims, bytes));
    }
    let mut views = Vec::new();
    for (name, dtype, dims, bytes) in &entries {
        // The crate multiplies the sizes unchecked.
        let bits = dims
            .iter()
            .try_fold(64usize, |bits, &size| bits.checked_mul(size));
        match bits.map(|_| TensorView::new(*dtype, dims.clone(), bytes)) {
            Some(Ok(view)) => views.push((name, view)),
            Some(Err(error)) => problems.push(format!("{}: {error}", name.escape_debug())),
            None => problems.push(format!(
                "{}: shape {dims:?} has more elements than can be counted, and {} bytes of values",
                name.escape_debug(),
                bytes.len()
            )),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    safetensors::serialize(views, None).map_err(|error| vec![error.to_string()])
}
