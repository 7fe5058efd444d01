//! States of a network in safetensors files, as PyTorch's `state_dict` names them, whose metadata say what the network is,
//! and where its run stands: the optimizer has no state of its own.

use crate::network::{Entry, NormKind};
use crate::training::{Settings, Trainer};
use anyhow::{Context as _, Result, anyhow, ensure};
use clap::ValueEnum;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A state, and what is said about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Where it was read, for messages.
    path: PathBuf,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Stored>,
}

#[derive(Debug, Clone, PartialEq)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    pub settings: Settings,
    /// Steps done.
    pub step: usize,
    /// Seconds of training.
    pub seconds: f64,
}

impl Checkpoint {
    /// What a run needs to go on.
    pub fn of(trainer: &Trainer, progress: &Progress) -> Self {
        let floats = |name: String, shape: Vec<usize>, values: &[f32]| {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes());
            let stored = Stored {
                dtype: Dtype::F32,
                shape,
                bytes: bytes.collect(),
            };
            (name, stored)
        };
        let mut tensors = BTreeMap::new();
        let Progress {
            settings,
            step,
            seconds,
        } = progress;
        let (state, speed) = trainer.state();
        for Entry {
            name,
            shape,
            values,
            ..
        } in state
        {
            if let Some(norm) = name.strip_suffix("running_mean") {
                let counted = Stored {
                    dtype: Dtype::I64,
                    shape: Vec::new(),
                    bytes: (*step as i64).to_le_bytes().to_vec(),
                };
                tensors.insert(format!("{norm}num_batches_tracked"), counted);
                if settings.norm == NormKind::BcnEst {
                    let name = format!("{norm}estbn_moving_speed");
                    tensors.extend([floats(name, vec![1], &[speed as f32])]);
                }
            }
            tensors.extend([floats(name, shape, &values)]);
        }
        let where_it_stands = [
            ("step", step.to_string()),
            ("seconds", seconds.to_string()),
            ("crc32", crc32(&tensors)),
        ];
        let metadata = settings.described().into_iter().chain(where_it_stands);
        Self {
            path: PathBuf::new(),
            metadata: metadata
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            tensors,
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, is not whole, or was changed since it was written, if its metadata tell.
    pub fn read(path: &Path) -> Result<Self> {
        let name = || path.display().to_string();
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", name()))?;
        let not_whole = |error: safetensors::SafeTensorError| {
            // Some of its messages quote the file.
            let error = error.to_string().escape_debug().to_string();
            anyhow!("{}: not a whole safetensors file: {error}", name())
        };
        let file = SafeTensors::deserialize(&bytes).map_err(not_whole)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(not_whole)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let tensors = file.iter().map(|(name, view)| {
            let stored = Stored {
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            };
            (name.to_owned(), stored)
        });
        let tensors = tensors.collect();
        if let Some(written) = metadata.get("crc32") {
            let found = crc32(&tensors);
            ensure!(
                *written == found,
                "{}: its values were damaged: their CRC-32 is {found}, and was {written} when it was written",
                name()
            );
        }
        Ok(Self {
            path: path.to_owned(),
            metadata: metadata.into_iter().collect(),
            tensors,
        })
    }

    /// Writes a file: the whole of it or, whatever happens meanwhile, nothing.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn write(&self, path: &Path) -> Result<()> {
        let views = self.tensors.iter().map(|(name, stored)| {
            let view = TensorView::new(stored.dtype, stored.shape.clone(), &stored.bytes)?;
            Ok((name, view))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        let metadata: HashMap<_, _> = self.metadata.clone().into_iter().collect();
        let bytes = safetensors::serialize(views, Some(metadata))?;
        replace(path, &bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// A value of the metadata.
    fn said<T: FromStr>(&self, key: &str) -> Result<T> {
        let value = self.metadata.get(key).with_context(|| {
            format!(
                "{}: its metadata lack {key}, so it is no checkpoint to go on from: start with its weights by --init",
                self.path.display()
            )
        })?;
        let wrong = || anyhow!("{}: {key}={value:?} in its metadata", self.path.display());
        value.parse().map_err(|_| wrong())
    }

    /// The norm that its metadata name, if they do.
    pub fn norm(&self) -> Option<NormKind> {
        let name = self.metadata.get("norm")?;
        NormKind::from_str(name, false).ok()
    }

    /// Whether its metadata speak of Weight Standardization, if they do.
    pub fn ws(&self) -> Option<bool> {
        match self.metadata.get("ws")?.as_str() {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }

    /// Where its run stands.
    ///
    /// # Errors
    /// Where its metadata do not say.
    pub fn progress(&self) -> Result<Progress> {
        let settings = Settings {
            norm: NormKind::from_str(&self.said::<String>("norm")?, false)
                .map_err(anyhow::Error::msg)
                .with_context(|| self.path.display().to_string())?,
            ws: self.said::<u8>("ws")? != 0,
            batch: self.said("batch")?,
            lr: self.said("lr")?,
            epochs: self.said("epochs")?,
            seed: self.said("seed")?,
        };
        Ok(Progress {
            settings,
            step: self.said("step")?,
            seconds: self.said("seconds")?,
        })
    }

    /// Its values for a network of such a state.
    ///
    /// # Errors
    /// Where the file is of another network, what it lacks and has that the network does not.
    pub fn state(&self, network: &[Entry]) -> Result<Vec<Entry>> {
        // What burn's norms do not keep.
        let counted = |name: &str| {
            let ends = ["num_batches_tracked", "estbn_moving_speed"];
            ends.iter().any(|end| name.ends_with(end))
        };
        let wanted = |name: &str| network.iter().any(|entry| entry.name == name);
        let mut problems: Vec<String> = self
            .tensors
            .keys()
            .filter(|name| !counted(name) && !wanted(name))
            .map(|name| format!("has {name}, which the network has not"))
            .collect();
        let mut entries = Vec::new();
        for entry in network {
            match self.values(&entry.name, &entry.shape) {
                Ok(values) => entries.push(Entry {
                    values,
                    ..entry.clone()
                }),
                Err(problem) => problems.push(problem),
            }
        }
        self.without_problems(problems)?;
        Ok(entries)
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let stored = self.tensors.get(name).ok_or(format!("lacks {name}"))?;
        if stored.dtype != Dtype::F32 || stored.shape != shape {
            let Stored {
                dtype,
                shape: found,
                ..
            } = stored;
            return Err(format!(
                "{name} is {dtype} of {found:?}, expected F32 of {shape:?}"
            ));
        }
        let values = stored.bytes.as_chunks().0.iter();
        Ok(values.map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    fn without_problems(&self, problems: Vec<String>) -> Result<()> {
        const SHOWN: usize = 4;
        let more = match problems.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let of = match self.norm() {
            Some(norm) => format!(" (its metadata say --norm {norm})"),
            None => String::new(),
        };
        ensure!(
            problems.is_empty(),
            "{}: of another network{of}: {}{more}",
            self.path.display(),
            problems[..problems.len().min(SHOWN)].join("; ")
        );
        Ok(())
    }
}

fn crc32(tensors: &BTreeMap<String, Stored>) -> String {
    let mut hasher = crc32fast::Hasher::new();
    for (name, stored) in tensors {
        hasher.update(name.as_bytes());
        hasher.update(&stored.bytes);
    }
    format!("{:08x}", hasher.finalize())
}

/// Puts a file in the place of another, in one moment: it is written beside it first, and is on the disk by then.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The name, too.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn checkpoint(value: f32) -> Checkpoint {
        let stored = Stored {
            dtype: Dtype::F32,
            shape: vec![40_000],
            bytes: value.to_le_bytes().repeat(40_000),
        };
        let tensors = BTreeMap::from([("x".to_owned(), stored)]);
        let metadata = BTreeMap::from([("crc32".to_owned(), crc32(&tensors))]);
        Checkpoint {
            path: PathBuf::new(),
            metadata,
            tensors,
        }
    }

    /// Who reads while it is written finds one or the other, and nothing is left beside it.
    #[test]
    fn a_file_is_whole_at_any_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        checkpoint(1.0).write(&path).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..100 {
                    checkpoint(i as f32).write(&path).unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                let values = Checkpoint::read(&path).unwrap().values("x", &[40_000]);
                let values = values.unwrap();
                assert!(values.iter().all(|value| *value == values[0]));
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        checkpoint(1.0).write(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        let refused = |bytes: &[u8], why: &str| {
            fs::write(&path, bytes).unwrap();
            let error = format!("{:#}", Checkpoint::read(&path).unwrap_err());
            assert!(
                error.contains(why) && error.contains("x.safetensors"),
                "{error}"
            );
        };
        for len in [0, 7, 40, whole.len() / 2, whole.len() - 1] {
            refused(&whole[..len], "not a whole safetensors file");
        }
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        refused(&damaged, "CRC-32");
        fs::remove_file(&path).unwrap();
        let error = Checkpoint::read(&path).unwrap_err();
        assert!(format!("{error:#}").contains("cannot read"), "{error:#}");
    }
}
