//! Tensors in files: reading, and writing whole files or none.

use crate::npy;
use crate::partial::{self, folder_of};
use crate::text::printable;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bcnorm::layer::{StateValue, checkpoint};
use bcnorm::{DType, host};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub dims: Vec<usize>,
    /// Its values in row-major order.
    pub values: Vec<f32>,
}

/// Reads one tensor of floats from a `.npy` or `.safetensors` file: the one called `name`, or the only
/// one.
pub fn read_tensor(path: &Path, name: Option<&str>, default: &str) -> Result<Tensor> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let extension = path.extension();
    let tensor = match name {
        _ if !extension.is_some_and(|end| end.eq_ignore_ascii_case("npy")) => {
            pick(&bytes, name, default)
        }
        Some(name) => Err(anyhow!(
            "a .npy file holds one tensor without a name, so there is no {name:?}"
        )),
        None => npy::parse(&bytes).and_then(|view| values(&view)),
    };
    tensor.with_context(|| path.display().to_string())
}

fn pick(bytes: &[u8], name: Option<&str>, default: &str) -> Result<Tensor> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| {
        // Some of its messages quote names of the file.
        anyhow!(
            "not in safetensors format: {}",
            error.to_string().escape_debug()
        )
    })?;
    let mut names = file.names();
    names.sort_unstable();
    let list = || {
        let names = names.iter().map(|name| name.escape_debug().to_string());
        names.collect::<Vec<String>>().join(", ")
    };
    let name = match (name, names.as_slice()) {
        (Some(name), _) => name,
        (None, names) if names.contains(&default) => default,
        (None, [only]) => only,
        (None, []) => bail!("holds no tensor"),
        (None, names) => bail!(
            "holds {} tensors and none is called \"{default}\": name one of {}",
            names.len(),
            list()
        ),
    };
    let Ok(tensor) = file.tensor(name) else {
        bail!("holds no tensor {name:?}; there are {}", list());
    };
    values(&tensor).with_context(|| format!("tensor {name:?}"))
}

/// The values of a tensor of floats, by the library's rules.
fn values(view: &TensorView) -> Result<Tensor> {
    ensure!(
        matches!(
            view.dtype(),
            Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64
        ),
        "it is {}, expected F16, BF16, F32 or F64: convert it first (tensor.float() in PyTorch)",
        view.dtype()
    );
    match checkpoint::from_view(view) {
        Ok(StateValue::F32 { dims, values }) => Ok(Tensor { dims, values }),
        Ok(_) => bail!("it holds no floats"),
        // Which file that is, is known here.
        Err(bcnorm::Error::Checkpoint { problems, .. }) => bail!(problems.join("; ")),
        Err(error) => Err(error.into()),
    }
}

/// Tensors to write, and what is said about them.
#[derive(Debug, Default)]
pub struct Contents {
    tensors: Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)>,
    pub metadata: HashMap<String, String>,
}

impl Contents {
    /// Adds a tensor, rounded to a type.
    pub fn floats(&mut self, name: &'static str, dtype: DType, dims: &[usize], values: &[f32]) {
        let words = host::pack(dtype, values).into_iter();
        let mut bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        // An odd number of 16-bit values fills its last word with another.
        bytes.truncate(values.len() * dtype.bytes() as usize);
        let stored = match dtype {
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            _ => Dtype::F32,
        };
        self.tensors.push((name, stored, dims.to_vec(), bytes));
    }

    /// Adds an i64 without dimensions.
    pub fn integer(&mut self, name: &'static str, value: i64) {
        let bytes = value.to_le_bytes().to_vec();
        self.tensors.push((name, Dtype::I64, Vec::new(), bytes));
    }

    pub fn serialize(&self) -> Result<Vec<u8>> {
        let views = self.tensors.iter().map(|(name, dtype, dims, bytes)| {
            Ok((*name, TensorView::new(*dtype, dims.clone(), bytes)?))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        Ok(safetensors::serialize(views, Some(self.metadata.clone()))?)
    }
}

/// A file that will be written, checked before the work that fills it.
#[derive(Debug)]
pub struct Destination {
    /// As the user calls it.
    path: PathBuf,
    /// What is written: where a link leads to, if it is one.
    target: PathBuf,
    force: bool,
}

impl Destination {
    /// Checks that a file can be made there: that there is none unless `force` allows to replace it,
    /// that it may be written, and that it is none of the `inputs`, which are known by their options.
    ///
    /// Through a link the file is replaced that it leads to.
    pub fn new(path: &Path, force: bool, inputs: &[(&str, &Path)]) -> Result<Self> {
        let shown = path.display();
        ensure!(path.file_name().is_some(), "{shown} names no file to write");
        let folder = folder_of(path);
        ensure!(
            folder.is_dir(),
            "cannot write {shown}: there is no folder {}",
            folder.display()
        );
        ensure!(!path.is_dir(), "cannot write {shown}: it is a folder");
        let found = match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            found => Some(found.with_context(|| format!("cannot write {shown}"))?),
        };
        let target = match found {
            None => path.to_owned(),
            Some(found) => {
                for (option, input) in inputs {
                    ensure!(
                        !is_same_file(path, input),
                        "{shown} is {option}, and inputs are not overwritten: choose another name"
                    );
                }
                ensure!(
                    force,
                    "{shown} exists: choose another name, or replace it with --force"
                );
                replaceable(path, found.is_symlink())?
            }
        };
        check_writable(folder_of(&target)).with_context(|| format!("cannot write {shown}"))?;
        Ok(Self {
            path: path.to_owned(),
            target,
            force,
        })
    }

    /// Writes the file, whole or not at all: to a temporary file beside it, then by renaming that. A
    /// file that is replaced leaves its permissions to the new one, and its owner where the system
    /// allows that.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        let write = || {
            let old = match fs::metadata(&self.target) {
                Ok(old) => Some(old),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            partial::write(&self.target, old.is_some(), self.force, |file| {
                if let Some(old) = old {
                    #[cfg(unix)]
                    {
                        use std::os::unix::fs::{MetadataExt as _, fchown};
                        let _ = fchown(&*file, Some(old.uid()), Some(old.gid()));
                    }
                    file.set_permissions(old.permissions())?;
                }
                file.write_all(bytes)?;
                file.sync_all()
            })
        };
        write().with_context(|| format!("cannot write {self}"))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.path.to_string_lossy()))
    }
}

/// The file that is replaced where something is at a path already.
fn replaceable(path: &Path, is_link: bool) -> Result<PathBuf> {
    let shown = path.display();
    let target = match is_link {
        false => path.to_owned(),
        true => match path.canonicalize() {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "cannot replace {shown}: it is a link that leads nowhere, to {}",
                path.read_link().unwrap_or_default().display()
            ),
            target => target.with_context(|| format!("cannot replace {shown}"))?,
        },
    };
    let found = fs::metadata(&target).with_context(|| format!("cannot replace {shown}"))?;
    ensure!(
        found.is_file(),
        "cannot replace {shown}: it is no regular file"
    );
    ensure!(
        !found.permissions().readonly(),
        "cannot replace {shown}: it is read-only; make it writable first, or choose another name"
    );
    // Renaming asks for rights in the folder alone.
    fs::OpenOptions::new()
        .write(true)
        .open(&target)
        .with_context(|| format!("cannot replace {shown}"))?;
    Ok(target)
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize()
        .is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// Checks that files can be made in a folder, by making one.
pub fn check_writable(folder: &Path) -> Result<()> {
    partial::check(folder).with_context(|| format!("no file can be made in {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.safetensors");
        let destination = Destination::new(&path, false, &[]).unwrap();
        // Somebody else is faster.
        fs::write(&path, "theirs").unwrap();
        destination.write(b"ours").unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        let error = Destination::new(&path, false, &[]).unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        let destination = Destination::new(&path, true, &[]).unwrap();
        destination.write(b"ours").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ours");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        Destination::new(folder.path(), true, &[]).unwrap_err();
        Destination::new(&folder.path().join("no/where"), true, &[]).unwrap_err();
        Destination::new(&folder.path().join("a".repeat(300)), true, &[]).unwrap_err();
        Destination::new(Path::new(".."), true, &[]).unwrap_err();
        let inputs = [("--input", path.as_path())];
        for force in [false, true] {
            let error = Destination::new(&path, force, &inputs).unwrap_err();
            assert!(error.to_string().contains("--input"), "{error}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn what_is_replaced_keeps_its_place_and_permissions() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (file, link) = (at("file"), at("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        fs::create_dir(at("elsewhere")).unwrap();
        symlink("../file", at("elsewhere/link")).unwrap();
        symlink("elsewhere/link", &link).unwrap();
        Destination::new(&link, true, &[])
            .unwrap()
            .write(b"new")
            .unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);

        let refused = |path: &Path, inputs: &[(&str, &Path)], why: &str| {
            let error = Destination::new(path, true, inputs).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(why), "{error}");
        };
        refused(&link, &[("--params", &file)], "is --params");
        symlink("nowhere", at("dangling")).unwrap();
        refused(&at("dangling"), &[], "leads nowhere");
        symlink("circle", at("circle")).unwrap();
        refused(&at("circle"), &[], "circle");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
        refused(&link, &[], "read-only");
        refused(Path::new("/dev/null"), &[], "no regular file");
        assert_eq!(fs::read(&file).unwrap(), b"new");
    }

    #[test]
    fn a_tensor_is_picked_by_name_or_because_it_is_alone() {
        let mut contents = Contents::default();
        contents.floats("a", DType::F16, &[1, 3], &[1.0, 2.0, -0.5]);
        let one = contents.serialize().unwrap();
        assert_eq!(pick(&one, None, "x").unwrap().values, [1.0, 2.0, -0.5]);
        contents.floats("x", DType::F32, &[2], &[3.0, 4.0]);
        let two = contents.serialize().unwrap();
        assert_eq!(pick(&two, None, "x").unwrap().values, [3.0, 4.0]);
        assert_eq!(pick(&two, Some("a"), "x").unwrap().dims, [1, 3]);
        pick(&two, None, "grad_y").unwrap_err();
        pick(&two, Some("b"), "x").unwrap_err();
        contents.integer("count", 3);
        let error = pick(&contents.serialize().unwrap(), Some("count"), "x").unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("\"count\": it is I64"), "{error}");
        pick(b"garbage", None, "x").unwrap_err();
    }
}
