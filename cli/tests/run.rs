//! `bcnorm run`: stored activations through the norm and back into a file.

mod common;

use common::{File, bcnorm, fail, golden_file, succeed};
use safetensors::Dtype;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A folder with a golden case's input, upstream gradient and parameters in files of their own.
struct Setting {
    folder: tempfile::TempDir,
    golden: File,
}

impl Setting {
    fn new(case: &str) -> Setting {
        let setting = Setting {
            folder: tempfile::tempdir().expect("a folder"),
            golden: File::read(&golden_file(case)),
        };
        let golden = &setting.golden;
        golden.only("x").write(&setting.path("x.safetensors"));
        golden.only("grad_y").write(&setting.path("dy.safetensors"));
        setting.params().write(&setting.path("params.safetensors"));
        setting
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn groups(&self) -> usize {
        self.golden.metadata["groups"].parse().expect("a number")
    }

    /// The state dict as PyTorch saves it: weight and bias of shape (1, G, 1).
    fn params(&self) -> File {
        let mut params = File::default();
        for name in [
            "weight",
            "bias",
            "bn.weight",
            "bn.bias",
            "bn.running_mean",
            "bn.running_var",
        ] {
            let tensor = self.golden.tensors[name].clone();
            params.tensors.insert(name.to_owned(), tensor);
        }
        for name in ["weight", "bias"] {
            let tensor = params.tensors.get_mut(name).expect("there");
            tensor.1 = vec![1, self.groups(), 1];
        }
        let count = (Dtype::I64, vec![], 41i64.to_le_bytes().to_vec());
        params
            .tensors
            .insert("bn.num_batches_tracked".into(), count);
        params
    }

    fn args(&self, more: &[&str]) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["run".into()];
        for (option, file) in [
            ("--input", "x.safetensors"),
            ("--params", "params.safetensors"),
            ("--output", "out.safetensors"),
        ] {
            if !more.contains(&option) {
                args.extend([option.into(), self.path(file).into()]);
            }
        }
        if !more.contains(&"--groups") {
            args.extend(["--groups".into(), self.groups().to_string().into()]);
        }
        // Names of files are relative to the folder.
        for word in more {
            let file = word.ends_with(".safetensors") || word.ends_with(".npy");
            args.push(if file {
                self.path(word).into()
            } else {
                word.into()
            });
        }
        args
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.folder.path())
            .expect("a folder")
            .count()
    }
}

fn largest_error(got: &[f32], expected: &[f64], scale: f64) -> f64 {
    assert_eq!(got.len(), expected.len());
    let errors = got.iter().zip(expected).map(|(&got, &expected)| {
        let error = (f64::from(got) - expected).abs() / scale;
        if error.is_nan() { f64::INFINITY } else { error }
    });
    errors.fold(0.0, f64::max)
}

#[test]
fn outputs_are_the_golden_ones() {
    for (case, adapter) in [
        ("small.batch.train", None),
        ("small.batch.train", Some("cpu")),
        ("odd49.batch.train", None),
        ("small.estimate.eval", None),
        ("onegroup.estimate.train", None),
        ("onegroup.estimate.train", Some("CPU")),
        ("eps1e-3.batch.eval", None),
    ] {
        let setting = Setting::new(case);
        let golden = &setting.golden;
        let speed = golden.metadata["moving_speed"].clone();
        let eps = golden.metadata["eps"].clone();
        let mut more = vec!["--grad", "dy.safetensors", "--eps", &eps];
        if case.contains("estimate") {
            more.extend(["--stats", "estimate", "--moving-speed", &speed]);
        }
        more.push(if case.contains("eval") {
            "--eval"
        } else {
            "--train"
        });
        if let Some(adapter) = adapter {
            more.extend(["--adapter", adapter]);
        }
        succeed(setting.args(&more));
        let out = File::read(&setting.path("out.safetensors"));
        for (name, expected) in [
            ("y", "y"),
            ("grad_x", "grad_x"),
            ("grad_bn.weight", "grad_bn.weight"),
            ("grad_bn.bias", "grad_bn.bias"),
            ("grad_weight", "grad_weight"),
            ("grad_bias", "grad_bias"),
            ("bn.running_mean", "bn.running_mean_after"),
            ("bn.running_var", "bn.running_var_after"),
        ] {
            let number = |key: String| -> f64 { golden.metadata[&key].parse().expect("a number") };
            let bar = number(format!("pytorch_f32_error.{expected}")).max(1e-6);
            let error = largest_error(
                &out.floats(name),
                &golden.doubles(&format!("expected.{expected}")),
                number(format!("scale.{expected}")),
            );
            assert!(
                error <= bar,
                "{case} on {adapter:?}: {name} is off by {error}"
            );
        }
        let dims = |name: &str| out.tensors[name].1.clone();
        assert_eq!(dims("y"), golden.tensors["x"].1);
        assert_eq!(dims("grad_x"), golden.tensors["x"].1);
        assert_eq!(dims("grad_weight"), [1, setting.groups(), 1]);
        let counter = &out.tensors["bn.num_batches_tracked"];
        let count: i64 = if case.contains("batch.train") { 42 } else { 41 };
        assert_eq!(counter.2, count.to_le_bytes(), "{case}");
        assert_eq!(out.tensors.len(), 9);
        assert!(!out.metadata["adapter"].is_empty());
    }
}

#[test]
fn what_comes_out_goes_in_again() {
    let setting = Setting::new("small.batch.train");
    succeed(setting.args(&["--momentum", "none"]));
    let out = File::read(&setting.path("out.safetensors"));
    let mut params = setting.params();
    for name in [
        "bn.running_mean",
        "bn.running_var",
        "bn.num_batches_tracked",
    ] {
        params
            .tensors
            .insert(name.to_owned(), out.tensors[name].clone());
    }
    params.write(&setting.path("next.safetensors"));
    out.only("y").write(&setting.path("y.safetensors"));
    let more = [
        "--params",
        "next.safetensors",
        "--input",
        "y.safetensors",
        "--output",
        "z.safetensors",
    ];
    succeed(setting.args(&more));
    let next = File::read(&setting.path("z.safetensors"));
    assert_eq!(
        next.tensors["bn.num_batches_tracked"].2,
        43i64.to_le_bytes()
    );
    assert_eq!(next.tensors.len(), 4);
}

#[test]
fn npy_files_are_read() {
    let setting = Setting::new("small.batch.train");
    let x = setting.golden.floats("x");
    let (_, dims, bytes) = &setting.golden.tensors["x"];
    write_npy(&setting.path("x.npy"), "<f4", dims, bytes);
    let doubles: Vec<u8> = x.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
    write_npy(&setting.path("x64.npy"), "<f8", dims, &doubles);
    succeed(setting.args(&[]));
    succeed(setting.args(&["--input", "x.npy", "--output", "a.safetensors"]));
    succeed(setting.args(&["--input", "x64.npy", "--output", "b.safetensors"]));
    let y = |name: &str| File::read(&setting.path(name)).floats("y");
    assert_eq!(y("out.safetensors"), y("a.safetensors"));
    assert_eq!(y("out.safetensors"), y("b.safetensors"));

    std::fs::write(setting.path("text.npy"), "1.0 2.0\n").expect("written");
    let stderr = fail(
        1,
        setting.args(&["--input", "text.npy", "--output", "c.safetensors"]),
    );
    assert!(
        stderr.contains("text.npy") && stderr.contains("numpy.save"),
        "{stderr}"
    );
    write_npy(&setting.path("ints.npy"), "<i4", dims, bytes);
    let stderr = fail(
        1,
        setting.args(&["--input", "ints.npy", "--output", "c.safetensors"]),
    );
    assert!(stderr.contains("<i4"), "{stderr}");
}

fn write_npy(path: &Path, descr: &str, dims: &[usize], data: &[u8]) {
    let sizes: Vec<String> = dims.iter().map(usize::to_string).collect();
    let header = format!(
        "{{'descr': '{descr}', 'fortran_order': False, 'shape': ({},), }}\n",
        sizes.join(", ")
    );
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn an_existing_file_stays_without_force() {
    let setting = Setting::new("small.batch.train");
    let out = setting.path("out.safetensors");
    std::fs::write(&out, "precious").expect("written");
    let before = setting.files();
    let stderr = fail(1, setting.args(&[]));
    assert!(stderr.contains("--force"), "{stderr}");
    assert_eq!(std::fs::read(&out).expect("there"), b"precious");
    succeed(setting.args(&["--force"]));
    assert!(File::read(&out).tensors.contains_key("y"));
    // No temporary file is left.
    assert_eq!(setting.files(), before);
}

#[test]
fn wrong_requests_are_explained_and_write_nothing() {
    let setting = Setting::new("small.batch.train");
    std::fs::write(setting.path("garbage.safetensors"), "hello").expect("written");
    let mut half = setting.golden.only("x");
    let (dtype, dims, bytes) = half.tensors.get_mut("x").expect("x");
    *dtype = Dtype::F16;
    dims[0] *= 2;
    assert_eq!(bytes.len(), 2 * dims.iter().product::<usize>());
    half.write(&setting.path("half.safetensors"));
    let mut two = setting.golden.only("grad_y");
    two.tensors.extend(setting.golden.only("weight").tensors);
    two.write(&setting.path("two.safetensors"));
    let mut params = setting.params();
    params.tensors.remove("bn.bias");
    params
        .tensors
        .insert("conv.weight".into(), (Dtype::F32, vec![1], vec![0; 4]));
    params.tensors.get_mut("weight").expect("there").1 = vec![setting.groups(), 1];
    params.write(&setting.path("odd.safetensors"));
    setting
        .golden
        .only("weight")
        .write(&setting.path("flat.safetensors"));
    let before = setting.files();
    for (status, more, reasons) in [
        (1, &["--groups", "3"][..], &["3", "8", "divisor"][..]),
        (1, &["--groups", "0"], &["divisor"]),
        (2, &["--groups", "-1"], &["--groups"]),
        (
            1,
            &["--input", "nowhere.safetensors"],
            &["nowhere.safetensors"],
        ),
        (
            1,
            &["--input", "garbage.safetensors"],
            &["not in safetensors format"],
        ),
        (1, &["--input", "half.safetensors"], &["F16", "F32"]),
        (1, &["--input", "two.safetensors"], &["grad_y, weight"]),
        (1, &["--input-name", "z"], &["no tensor \"z\"", "x"]),
        (
            1,
            &["--input", "flat.safetensors"],
            &["no channel dimension"],
        ),
        (
            1,
            &["--params", "odd.safetensors"],
            &[
                "bn.bias is missing",
                "conv.weight",
                "weight is F32 of shape [4, 1]",
            ],
        ),
        (
            1,
            &["--params", "garbage.safetensors"],
            &["not in safetensors format"],
        ),
        (1, &["--grad", "flat.safetensors"], &["[4]", "[3, 8, 5, 7]"]),
        (1, &["--adapter", "no such"], &["no such", "there are"]),
        (1, &["--eps", "-1"], &["eps"]),
        (1, &["--momentum", "1.5"], &["momentum", "0 to 1"]),
        (2, &["--momentum", "much"], &["none"]),
        (
            1,
            &["--stats", "estimate", "--moving-speed", "NaN"],
            &["estbn_moving_speed"],
        ),
        (
            1,
            &["--stats", "batch", "--moving-speed", "0.1"],
            &["--moving-speed"],
        ),
        (2, &["--train", "--eval"], &["--train"]),
        (1, &["--output", "out.npy"], &[".safetensors"]),
    ] {
        let stderr = fail(status, setting.args(more));
        for reason in reasons {
            assert!(
                stderr.contains(reason),
                "{more:?}: \"{stderr}\" lacks \"{reason}\""
            );
        }
    }
    let mut args = setting.args(&["--output"]);
    args.push(setting.path("no/folder/out.safetensors").into());
    assert!(fail(1, args).contains("no folder"));
    assert_eq!(setting.files(), before);
}

#[test]
fn the_estimate_is_known_by_its_parameters() {
    let setting = Setting::new("onegroup.estimate.train");
    let mut params = setting.params();
    let speed: f32 = setting.golden.metadata["moving_speed"]
        .parse()
        .expect("a number");
    let entry = (Dtype::F32, vec![1], speed.to_le_bytes().to_vec());
    params.tensors.insert("bn.estbn_moving_speed".into(), entry);
    params.write(&setting.path("est.safetensors"));
    let text = succeed(setting.args(&["--params", "est.safetensors"]));
    assert!(text.contains("estimate statistics"), "{text}");
    let more = [
        "--stats",
        "estimate",
        "--moving-speed",
        "0.05",
        "--output",
        "b.safetensors",
    ];
    succeed(setting.args(&more));
    let y = |name: &str| File::read(&setting.path(name)).floats("y");
    assert_eq!(y("out.safetensors"), y("b.safetensors"));
    let more = ["--params", "est.safetensors", "--stats", "batch", "--force"];
    let stderr = fail(1, setting.args(&more));
    assert!(stderr.contains("EstBN"), "{stderr}");
}

#[test]
fn an_empty_batch_is_legal() {
    let setting = Setting::new("small.batch.train");
    let mut empty = setting.golden.only("x");
    let x = empty.tensors.get_mut("x").expect("x");
    x.1[0] = 0;
    x.2.clear();
    empty.write(&setting.path("empty.safetensors"));
    for adapter in [&[][..], &["--adapter", "cpu"]] {
        let mut more = vec![
            "--input",
            "empty.safetensors",
            "--grad",
            "empty.safetensors",
            "--force",
        ];
        more.extend(adapter);
        let output = bcnorm(setting.args(&more));
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let out = File::read(&setting.path("out.safetensors"));
        assert!(out.floats("y").is_empty());
        assert_eq!(out.floats("grad_bn.weight"), [0.0; 8]);
        let params = setting.params();
        for name in [
            "bn.running_mean",
            "bn.running_var",
            "bn.num_batches_tracked",
        ] {
            assert_eq!(out.tensors[name].2, params.tensors[name].2, "{name}");
        }
    }
}
