//! Runs the built command and edits its files.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The command, as on a machine without a desktop.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bcnorm"));
    command.env_remove("XDG_RUNTIME_DIR");
    command
}

/// The words of a command line.
pub fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Runs it to its end.
pub fn bcnorm<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    let output = command().args(args).output().expect("the command starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    output
}

/// Standard output of a run that must succeed.
pub fn succeed<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let output = bcnorm(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Standard error of a run that must fail with this status.
pub fn fail<S: AsRef<OsStr>>(status: i32, args: impl IntoIterator<Item = S>) -> String {
    let output = bcnorm(args);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(stderr.contains("error: "), "no reason given: {stderr}");
    stderr
}

/// The folder of golden vectors in the repository.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

/// One of them.
pub fn golden_file(name: &str) -> PathBuf {
    golden().join(format!("{name}.safetensors"))
}

/// A safetensors file, taken apart.
#[derive(Debug, Clone, Default)]
pub struct File {
    pub tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    pub metadata: HashMap<String, String>,
}

impl File {
    pub fn read(path: &Path) -> File {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let tensors = file.iter().map(|(name, tensor)| {
            let dims = tensor.shape().to_vec();
            let tensor = (tensor.dtype(), dims, tensor.data().to_vec());
            (name.to_owned(), tensor)
        });
        File {
            tensors: tensors.collect(),
            metadata: header.metadata().clone().unwrap_or_default(),
        }
    }

    pub fn write(&self, path: &Path) {
        let views = self.tensors.iter().map(|(name, (dtype, dims, bytes))| {
            let view = TensorView::new(*dtype, dims.clone(), bytes).expect("a whole tensor");
            (name, view)
        });
        let bytes = safetensors::serialize(views, Some(self.metadata.clone())).expect("bytes");
        std::fs::write(path, bytes).expect("a writable folder");
    }

    pub fn put(&mut self, name: impl Into<String>, dtype: Dtype, dims: &[usize], bytes: Vec<u8>) {
        self.tensors
            .insert(name.into(), (dtype, dims.to_vec(), bytes));
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        let (dtype, _, bytes) = &self.tensors[name];
        assert_eq!(*dtype, Dtype::F32, "{name}");
        let (chunks, _) = bytes.as_chunks();
        chunks.iter().map(|&b| f32::from_le_bytes(b)).collect()
    }

    pub fn doubles(&self, name: &str) -> Vec<f64> {
        let (dtype, _, bytes) = &self.tensors[name];
        assert_eq!(*dtype, Dtype::F64, "{name}");
        let (chunks, _) = bytes.as_chunks();
        chunks.iter().map(|&b| f64::from_le_bytes(b)).collect()
    }

    pub fn set_double(&mut self, name: &str, index: usize, value: f64) {
        let (_, _, bytes) = self.tensors.get_mut(name).expect("the tensor");
        bytes[8 * index..8 * index + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// The part of a tensor's name, shape and data that another file gets.
    pub fn only(&self, name: &str) -> File {
        let tensor = self.tensors[name].clone();
        File {
            tensors: BTreeMap::from([(name.to_owned(), tensor)]),
            metadata: HashMap::new(),
        }
    }
}

/// Every line of JSON.
pub fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect()
}
