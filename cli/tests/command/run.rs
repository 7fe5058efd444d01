//! `bcnorm run`: stored activations through the norm and back into a file.

use crate::common::{File, bcnorm, fail, golden_file, succeed, words};
use bcnorm::layer::{StateDict, checkpoint, state};
use bcnorm::{Activation, ChannelStats, DType, NormKind};
use bcnorm_testkit::compare::judge;
use bcnorm_testkit::golden;
use bcnorm_testkit::names::{input_name, is_tensor};
use safetensors::Dtype;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The running statistics.
const RUNNING: [&str; 3] = [
    "bn.running_mean",
    "bn.running_var",
    "bn.num_batches_tracked",
];

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
        params.put(RUNNING[2], Dtype::I64, &[], 41i64.to_le_bytes().to_vec());
        params
    }

    /// A command line; names of files are relative to the folder.
    fn args(&self, line: &str) -> Vec<OsString> {
        let more = words(line);
        let given = |option: &str| more.contains(&option);
        let mut args = vec!["run".to_owned()];
        for (option, file) in [
            ("--input", "x.safetensors"),
            ("--params", "params.safetensors"),
            ("--output", "out.safetensors"),
        ] {
            if !given(option) {
                args.extend([option, file].map(String::from));
            }
        }
        if !given("--groups") {
            args.extend(["--groups".to_owned(), self.groups().to_string()]);
        }
        args.extend(more.iter().map(|word| (*word).to_owned()));
        let is_file = |word: &str| word.ends_with(".safetensors") || word.ends_with(".npy");
        let path = |word: String| {
            if is_file(&word) {
                self.path(&word).into()
            } else {
                word.into()
            }
        };
        args.into_iter().map(path).collect()
    }

    fn read(&self, name: &str) -> File {
        File::read(&self.path(name))
    }

    /// Runs a command line that must succeed: what it prints, and the output.
    fn run(&self, line: &str) -> (String, File) {
        let text = succeed(self.args(&format!("{line} --force")));
        (text, self.read("out.safetensors"))
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
        let of = |name: &str| &golden.metadata[name];
        let mut line = format!("--grad dy.safetensors --eps {}", of("eps"));
        if case.contains("estimate") {
            line += &format!(" --stats estimate --moving-speed {}", of("moving_speed"));
        }
        line += if case.contains("eval") {
            " --eval"
        } else {
            " --train"
        };
        if let Some(adapter) = adapter {
            line += &format!(" --adapter {adapter}");
        }
        let (_, out) = setting.run(&line);
        for name in [
            "y",
            "grad_x",
            "grad_bn.weight",
            "grad_bn.bias",
            "grad_weight",
            "grad_bias",
            "bn.running_mean",
            "bn.running_var",
        ] {
            let after = if name.contains("running") {
                "_after"
            } else {
                ""
            };
            let expected = format!("{name}{after}");
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
    let (_, out) = setting.run("--momentum none");
    let mut params = setting.params();
    for name in RUNNING {
        params
            .tensors
            .insert(name.to_owned(), out.tensors[name].clone());
    }
    params.write(&setting.path("next.safetensors"));
    out.only("y").write(&setting.path("y.safetensors"));
    let (_, next) = setting.run("--params next.safetensors --input y.safetensors");
    assert_eq!(next.tensors[RUNNING[2]].2, 43i64.to_le_bytes());
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
    let y = |line: &str| setting.run(line).1.floats("y");
    let expected = y("");
    assert_eq!(expected, y("--input x.npy"));
    assert_eq!(expected, y("--input x64.npy"));

    std::fs::write(setting.path("text.npy"), "1.0 2.0\n").expect("written");
    write_npy(&setting.path("ints.npy"), "<i4", dims, bytes);
    for (file, reason) in [("text.npy", "numpy.save"), ("ints.npy", "<i4")] {
        let line = format!("--input {file} --output c.safetensors");
        let stderr = fail(1, setting.args(&line));
        assert!(stderr.contains(file) && stderr.contains(reason), "{stderr}");
    }
}

/// The bytes of values in a type.
fn stored(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    match dtype {
        Dtype::F64 => {
            let wide = values.iter().map(|&value| f64::from(value));
            wide.flat_map(f64::to_le_bytes).collect()
        }
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        _ => {
            let dtype = match dtype {
                Dtype::F16 => DType::F16,
                _ => DType::BF16,
            };
            let words = bcnorm::host::pack(dtype, values).into_iter();
            let mut bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
            bytes.truncate(2 * values.len());
            bytes
        }
    }
}

const TYPES: [Dtype; 4] = [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64];

/// Small integers are numbers of all types: whatever a file's type, the output is the same.
#[test]
fn floats_of_any_width_are_read() {
    let setting = Setting::new("small.batch.train");
    let rounded = |file: &File, dtype: Dtype| {
        let mut file = file.clone();
        for (was, _, bytes) in file.tensors.values_mut() {
            if *was == Dtype::F32 {
                let (chunks, _) = bytes.as_chunks();
                let values = chunks
                    .iter()
                    .map(|&b| (8.0 * f32::from_le_bytes(b)).round());
                *bytes = stored(dtype, &values.collect::<Vec<f32>>());
                *was = dtype;
            }
        }
        file
    };
    let mut outputs = Vec::new();
    for dtype in TYPES {
        let x = rounded(&setting.golden.only("x"), dtype);
        let grad_y = rounded(&setting.golden.only("grad_y"), dtype);
        x.write(&setting.path("x.safetensors"));
        grad_y.write(&setting.path("dy.safetensors"));
        rounded(&setting.params(), dtype).write(&setting.path("params.safetensors"));
        outputs.push(setting.run("--adapter cpu --grad dy.safetensors").1.tensors);
        if let Some(descr) = match dtype {
            Dtype::F16 => Some("<f2"),
            Dtype::F32 => Some("<f4"),
            Dtype::F64 => Some("<f8"),
            _ => None,
        } {
            for (name, file) in [("x", &x), ("grad_y", &grad_y)] {
                let (_, dims, bytes) = &file.tensors[name];
                write_npy(&setting.path(&format!("{name}.npy")), descr, dims, bytes);
            }
            let line = "--adapter cpu --input x.npy --grad grad_y.npy";
            outputs.push(setting.run(line).1.tensors);
        }
    }
    assert_eq!(outputs.len(), 7);
    assert!(outputs.iter().all(|output| *output == outputs[0]));
}

/// What a number cannot be without becoming infinite is refused, with its place.
#[test]
fn values_out_of_range_are_refused() {
    let setting = Setting::new("small.batch.train");
    let x = setting.golden.floats("x");
    let (_, dims, _) = setting.golden.tensors["x"].clone();
    let mut wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    // Infinities and NaN are values like others; the second that is too large is not named.
    (wide[3], wide[4]) = (f64::INFINITY, f64::NAN);
    wide[1] = 1e-300;
    let index = |n: usize, c: usize| (n * dims[1] + c) * dims[2] * dims[3] + 9;
    (wide[index(1, 6)], wide[index(2, 0)]) = (-1e300, 1e300);
    let bytes: Vec<u8> = wide.iter().flat_map(|x| x.to_le_bytes()).collect();
    write_npy(&setting.path("wide.npy"), "<f8", &dims, &bytes);
    let mut file = File::default();
    file.put("x", Dtype::F64, &dims, bytes);
    file.write(&setting.path("wide.safetensors"));
    let mut params = setting.params();
    let var: Vec<u8> = [1.0f64, 1.0, 1e39, 1.0, 1.0, 1.0, 1.0, 1.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    params.put("bn.running_var", Dtype::F64, &[8], var);
    params.write(&setting.path("params64.safetensors"));
    let mut x = x;
    x[index(1, 6)] = 65520.0;
    let mut large = setting.golden.only("x");
    large.put("x", Dtype::F32, &dims, stored(Dtype::F32, &x));
    large.write(&setting.path("large.safetensors"));
    let place = "[1, 6, 1, 2]";
    for (line, reasons) in [
        ("--input wide.npy", &["-1e300", place][..]),
        ("--input wide.safetensors", &["\"x\"", "-1e300", place]),
        ("--grad wide.npy", &["wide.npy", "-1e300", place]),
        ("--residual wide.npy", &["wide.npy", "-1e300", place]),
        (
            "--params params64.safetensors",
            &["bn.running_var has 1e39 at [2]"],
        ),
        (
            "--input large.safetensors --dtype f16",
            &["6.552e4", place, "--dtype"],
        ),
    ] {
        let stderr = fail(1, setting.args(&format!("--adapter cpu {line}")));
        for reason in reasons {
            assert!(stderr.contains(reason), "\"{stderr}\" lacks \"{reason}\"");
        }
    }
    setting.run("--adapter cpu --input large.safetensors --dtype bf16");
}

/// Every norm, type and fusion, from files as PyTorch makes them.
#[test]
fn the_family_is_run() {
    let mut kinds = BTreeSet::new();
    let layouts = ["first", "last"].iter().cycle();
    for (path, layout) in golden::paths().iter().zip(layouts) {
        let case = golden::load(path).expect("a golden file");
        let (norm, name) = (&case.norm, &case.name);
        let setting = Setting {
            folder: tempfile::tempdir().expect("a folder"),
            golden: File::read(path),
        };
        let problem = case.problem();
        let at = |name: &str| setting.path(&format!("{name}.safetensors"));
        let filters = norm.kind == NormKind::WeightStandardization;
        let tensor_type = match case.dtype {
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            _ => Dtype::F32,
        };
        for tensor in ["x", "grad_y", "residual"] {
            if let Some(values) = case.tensors.get(tensor) {
                let mut dims = case.dims.clone();
                if filters {
                    dims.remove(1);
                }
                let mut file = File::default();
                file.put(tensor, tensor_type, &dims, stored(tensor_type, values));
                file.write(&at(tensor));
            }
        }
        // In a model, beside a module that is none of ours.
        let mut model = File::default();
        let mut put = |name: &str, dtype, dims: &[usize], bytes| {
            model.put(format!("layer1.0.bn1.{name}"), dtype, dims, bytes);
        };
        let mut entries = state::entries(norm);
        for entry in &entries {
            let tensor = input_name(norm, entry.role).expect("a name");
            let bytes = stored(Dtype::F32, &case.tensors[tensor]);
            put(entry.name, Dtype::F32, &entry.dims, bytes);
        }
        entries.retain(|entry| entry.gradient.is_some());
        if let Some(count) = state::batch_count(norm) {
            let bytes = i64::from(case.num_batches_tracked).to_le_bytes().to_vec();
            put(count, Dtype::I64, &[], bytes);
        }
        if let Some((speed, value)) = state::moving_speed(norm) {
            put(speed, Dtype::F32, &[1], stored(Dtype::F32, &[value]));
        }
        let no_entries = model.tensors.is_empty();
        model.put("layer1.0.bn10.mask", Dtype::BOOL, &[1], vec![1]);
        model.write(&at("model"));
        // With the parameters there is always an affine of both, or none.
        let half = norm.weight && !norm.bias && norm.kind != NormKind::LayerNorm
            || norm.bn_weight != norm.bn_bias && norm.kind == NormKind::BcNorm
            || norm.bias && !norm.weight;

        let mut args: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
            args.extend([name.into(), value.as_ref().to_owned()]);
        };
        option("--norm", &norm.kind.name());
        option("--input", &at("x"));
        option("--grad", &at("grad_y"));
        let optional = [NormKind::InstanceNorm, NormKind::WeightStandardization];
        if !no_entries {
            option("--params", &at("model"));
            option("--module", &"layer1.0.bn1");
        } else if !optional.contains(&norm.kind) {
            checkpoint::save(&StateDict::new(), at("empty")).expect("written");
            option("--params", &at("empty"));
        }
        if matches!(norm.kind, NormKind::BcNorm | NormKind::GroupNorm) {
            option("--groups", &norm.num_groups.to_string());
        }
        option("--eps", &norm.eps.to_string());
        option("--dtype", &case.dtype.name());
        option("--layout", layout);
        if case.fusion.residual {
            option("--residual", &at("residual"));
        }
        let activation = match case.fusion.activation {
            Activation::Relu => "relu",
            Activation::Silu => "silu",
            _ => "none",
        };
        option("--activation", &activation);
        if let (true, ChannelStats::Batch { momentum }) = (norm.has_running_stats(), norm.stats) {
            let momentum = momentum.map_or("none".to_owned(), |m| m.to_string());
            option("--momentum", &momentum);
        }
        option("--adapter", &"cpu");
        option("--output", &at("out"));
        args.insert(0, "run".into());
        args.push(if case.training { "--train" } else { "--eval" }.into());
        if half {
            assert!(fail(1, args).contains("missing key"), "{name}");
            continue;
        }
        succeed(args);
        kinds.insert(norm.kind.name());
        let out = File::read(&at("out"));
        let count = state::batch_count(norm);
        assert_eq!(
            out.tensors.len(),
            case.expected.len() + count.iter().len(),
            "{name}"
        );
        for (expected, values) in &case.expected {
            let found = expected.strip_suffix("_after").unwrap_or(expected);
            let (dtype, dims, bytes) = &out.tensors[found];
            let is_tensor = is_tensor(found);
            let (wanted, as_x) = match is_tensor {
                true => (tensor_type, case.dtype),
                false => (Dtype::F32, DType::F32),
            };
            assert_eq!(*dtype, wanted, "{name}: {found}");
            let elements: usize = dims.iter().product();
            let mut words = bytes.clone();
            words.resize(bytes.len().next_multiple_of(4), 0);
            let words: Vec<u32> = bytemuck::pod_collect_to_vec(&words);
            let got = bcnorm::host::unpack(as_x, &words, elements);
            let finding = judge(
                case.dtype,
                found,
                &got,
                values,
                case.scale[expected],
                case.bar(expected),
            );
            assert_eq!(finding.wrong, None, "{name}");
            // A gradient has the shape of its parameter.
            let parameter = entries
                .iter()
                .find(|entry| found.strip_prefix("grad_") == Some(entry.name));
            if let Some(parameter) = parameter {
                assert_eq!(*dims, parameter.dims, "{name}");
            }
        }
        if let Some(count) = count {
            let after = i64::from(problem.num_batches_tracked_after());
            assert_eq!(out.tensors[count].2, after.to_le_bytes(), "{name}");
        }
    }
    assert_eq!(kinds.len(), NormKind::ALL.len(), "{kinds:?}");
}

/// The library's rules: other names, shapes and counts, and what PyTorch's `affine=False` and
/// `track_running_stats=False` leave out.
#[test]
fn state_dicts_are_read_as_the_library_does() {
    let setting = Setting::new("small.batch.train");
    let plain = setting.params();
    let expected = setting.run("--adapter cpu").1.floats("y");
    let run = |params: &File, line: &str| {
        params.write(&setting.path("other.safetensors"));
        setting.run(&format!("--adapter cpu --params other.safetensors {line}"))
    };

    let mut theirs = File::default();
    for (name, tensor) in &plain.tensors {
        let name = match name.strip_prefix("bn.") {
            Some(inner) => format!("pbn.{inner}"),
            None => name.clone(),
        };
        theirs.tensors.insert(name, tensor.clone());
    }
    assert_eq!(run(&theirs, "").1.floats("y"), expected);
    // Estimates of the same names: the speed joins them.
    let speed = "--stats estimate --moving-speed 0.5";
    let estimated = run(&plain, speed).1.floats("y");
    assert_eq!(run(&theirs, speed).1.floats("y"), estimated);
    assert_ne!(estimated, expected);

    let mut shaped = plain.clone();
    let groups = setting.groups();
    for (name, dims) in [
        ("weight", vec![groups]),
        ("bias", vec![groups, 1]),
        ("bn.weight", vec![1, 8, 1, 1]),
        (RUNNING[2], vec![1]),
    ] {
        shaped.tensors.get_mut(name).expect("there").1 = dims;
    }
    assert_eq!(run(&shaped, "").1.floats("y"), expected);

    let count = |count: i64| {
        let mut params = plain.clone();
        params.put(RUNNING[2], Dtype::I64, &[], count.to_le_bytes().to_vec());
        run(&params, "").1.tensors[RUNNING[2]].2.clone()
    };
    let limit = i64::from(u32::MAX);
    for before in [0, limit - 1, limit, limit + 1, i64::MAX - 1] {
        assert_eq!(count(before), (before + 1).to_le_bytes());
    }

    let without = |names: &[&str]| {
        let mut params = plain.clone();
        params
            .tensors
            .retain(|name, _| !names.contains(&name.as_str()));
        params
    };
    let (text, _) = run(&without(&["weight", "bias"]), "");
    assert!(text.contains("without weight, without bias"), "{text}");
    let (text, out) = run(&without(&RUNNING), "");
    assert!(text.contains("without running statistics"), "{text}");
    assert_eq!(out.tensors.keys().collect::<Vec<_>>(), ["y"]);
    let mut wide = plain.clone();
    for (name, value) in [("weight", 1.0), ("bias", 0.0)] {
        wide.put(
            name,
            Dtype::F32,
            &[1, 8, 1],
            stored(Dtype::F32, &[value; 8]),
        );
    }
    let (text, _) = run(&wide, "");
    assert!(text.contains("affine per channel"), "{text}");

    // A module that is not there; a model given as a module.
    let mut model = File::default();
    for (name, tensor) in &plain.tensors {
        let name = format!("layer1.0.bn1.{name}");
        model.tensors.insert(name, tensor.clone());
    }
    let of_model = run(&model, "--module layer1.0.bn1").1;
    assert_eq!(of_model.floats("y"), expected);
    for module in ["--module layer1.0.bn", ""] {
        let line = format!("--params other.safetensors --force {module}");
        let stderr = fail(1, setting.args(&line));
        assert!(stderr.contains("layer1.0.bn1, layer1.0.bn1.bn"), "{stderr}");
    }
}

#[test]
fn a_negative_variance_is_noticed() {
    let setting = Setting::new("small.batch.eval");
    let mut params = setting.params();
    let entry = params.tensors.get_mut("bn.running_var").expect("there");
    entry.2[12..16].copy_from_slice(&(-0.25f32).to_le_bytes());
    params.write(&setting.path("odd.safetensors"));
    let line = "--params odd.safetensors --eval --adapter cpu";
    let output = bcnorm(setting.args(line));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.starts_with("warning: ") && stderr.contains("below 0 or NaN (the first: -0.25)"),
        "{stderr}"
    );
    // And all else is quiet.
    let output = bcnorm(setting.args("--eval --force"));
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// No name of a file's moves the cursor or begins a line, and no cause is told twice.
#[test]
fn messages_are_plain_text_said_once() {
    let setting = Setting::new("small.batch.train");
    let x = setting.golden.tensors["x"].clone();
    let evil = "a\x1b[31mRED\n\u{9b}2Jerror: b\u{202e}";
    let mut file = setting.params();
    file.tensors.insert(evil.to_owned(), x.clone());
    file.write(&setting.path("evil.safetensors"));
    let mut two = setting.golden.only("x");
    two.tensors.insert(evil.to_owned(), x);
    two.tensors.insert("b".to_owned(), two.tensors["x"].clone());
    let x = two.tensors.remove("x").expect("there");
    two.tensors.insert("c".to_owned(), x);
    two.write(&setting.path("two.safetensors"));
    let mut module = File::default();
    for (name, tensor) in setting.params().tensors {
        module.tensors.insert(format!("{evil}.{name}"), tensor);
    }
    module.write(&setting.path("module.safetensors"));
    std::fs::write(
        setting.path("json.safetensors"),
        b"\x08\0\0\0\0\0\0\0{\"a\": 1}",
    )
    .expect("written");
    // A name in a message of the format's own reader.
    let header = serde_json::json!({evil: {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}});
    let mut bytes = (header.to_string().len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.to_string().as_bytes());
    bytes.extend([0; 8]);
    std::fs::write(setting.path("offset.safetensors"), bytes).expect("written");
    let verified = fail(
        1,
        [
            "verify".as_ref(),
            setting.path("evil.safetensors").as_os_str(),
        ],
    );
    assert!(
        !verified.contains('\x1b') && verified.lines().count() == 2,
        "{verified:?}"
    );
    for line in [
        "--params evil.safetensors",
        "--params module.safetensors",
        "--params module.safetensors --module b",
        "--input two.safetensors",
        "--input two.safetensors --input-name \x1b[1m",
        "--params json.safetensors",
        "--input json.safetensors",
        "--params offset.safetensors",
        "--input offset.safetensors",
    ] {
        let stderr = fail(1, setting.args(line));
        let text = stderr.strip_suffix('\n').expect("an end");
        let control = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(control), "{text:?}");
        assert!(!text.contains("\n\\u{9b}"), "{text:?}");
        assert!(!text.contains("\n2J"), "{text:?}");
        assert!(text.matches("at line 1 column").count() <= 1, "{text}");
    }
}

#[test]
fn inputs_are_not_overwritten() {
    let setting = Setting::new("small.batch.train");
    let files = ["x.safetensors", "dy.safetensors", "params.safetensors"];
    let before = files.map(|name| std::fs::read(setting.path(name)).expect("there"));
    for (output, option) in files.into_iter().zip(["--input", "--grad", "--params"]) {
        for force in ["--force", ""] {
            let line = format!("--output {output} --grad dy.safetensors {force}");
            let stderr = fail(1, setting.args(&line));
            assert!(stderr.contains(&format!("is {option}")), "{stderr}");
        }
    }
    let after = files.map(|name| std::fs::read(setting.path(name)).expect("there"));
    assert!(before == after);
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
    let stderr = fail(1, setting.args(""));
    assert!(stderr.contains("--force"), "{stderr}");
    assert_eq!(std::fs::read(&out).expect("there"), b"precious");
    succeed(setting.args("--force"));
    assert!(File::read(&out).tensors.contains_key("y"));
    // No temporary file is left.
    assert_eq!(setting.files(), before);
}

#[test]
fn wrong_requests_are_explained_and_write_nothing() {
    let setting = Setting::new("small.batch.train");
    std::fs::write(setting.path("garbage.safetensors"), "hello").expect("written");
    let mut bits = setting.golden.only("x");
    let (dtype, dims, bytes) = bits.tensors.get_mut("x").expect("x");
    *dtype = Dtype::BOOL;
    dims[0] *= 4;
    assert_eq!(bytes.len(), dims.iter().product::<usize>());
    bits.write(&setting.path("bits.safetensors"));
    let mut two = setting.golden.only("grad_y");
    two.tensors.extend(setting.golden.only("weight").tensors);
    two.write(&setting.path("two.safetensors"));
    let mut params = setting.params();
    params.tensors.remove("bn.bias");
    params.put("conv.weight", Dtype::F32, &[1], vec![0; 4]);
    params.put("weight", Dtype::F32, &[3], vec![0; 12]);
    params.write(&setting.path("odd.safetensors"));
    setting
        .golden
        .only("weight")
        .write(&setting.path("flat.safetensors"));
    let mut one = setting.golden.only("x");
    let x = one.tensors.get_mut("x").expect("x");
    *x = (Dtype::F32, vec![1, 8], vec![0; 32]);
    one.write(&setting.path("one.safetensors"));
    let before = setting.files();
    for (status, line, reasons) in [
        (1, "--groups 3", &["3", "8", "divisor"][..]),
        (1, "--groups 0", &["divisor"]),
        (2, "--groups -1", &["--groups"]),
        (1, "--input nowhere.safetensors", &["nowhere.safetensors"]),
        (
            1,
            "--input garbage.safetensors",
            &["not in safetensors format"],
        ),
        (1, "--input bits.safetensors", &["BOOL", "F32"]),
        (1, "--input two.safetensors", &["grad_y, weight"]),
        (1, "--input-name z", &["no tensor \"z\"", "x"]),
        (1, "--input flat.safetensors", &["no channel dimension"]),
        (
            1,
            "--params odd.safetensors",
            &[
                "bc_norm of 8 channels in 4 groups",
                "\n  missing key \"bn.bias\"",
                "\n  unexpected key \"conv.weight\"",
                "\n  size mismatch for weight: shape [3]",
            ],
        ),
        (
            1,
            "--params garbage.safetensors",
            &["not a safetensors file"],
        ),
        (1, "--grad flat.safetensors", &["[4]", "[3, 8, 5, 7]"]),
        (1, "--adapter no-such", &["no-such", "there are"]),
        (1, "--eps -1", &["eps"]),
        (1, "--momentum 1.5", &["momentum", "0 to 1"]),
        (2, "--momentum much", &["none"]),
        (
            1,
            "--stats estimate --moving-speed NaN",
            &["estbn_moving_speed"],
        ),
        (1, "--stats batch --moving-speed 0.1", &["--moving-speed"]),
        (2, "--train --eval", &["--train"]),
        (2, "--norm bcnorm", &["bc_norm", "layer_norm"]),
        (1, "--norm layer_norm", &["--groups", "layer_norm"]),
        (
            1,
            "--input one.safetensors",
            &["[1, 8]", "larger batch", "--eval", "--stats estimate"],
        ),
        (1, "--output out.npy", &[".safetensors"]),
    ] {
        let stderr = fail(status, setting.args(line));
        assert!(
            !stderr.contains("::") && !stderr.contains("eval()"),
            "{stderr}"
        );
        for reason in reasons {
            assert!(
                stderr.contains(reason),
                "{line:?}: \"{stderr}\" lacks \"{reason}\""
            );
        }
    }
    let args = setting.args("--output no/folder/out.safetensors");
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
    let bytes = speed.to_le_bytes().to_vec();
    params.put("bn.estbn_moving_speed", Dtype::F32, &[1], bytes);
    params.write(&setting.path("est.safetensors"));
    let (text, out) = setting.run("--params est.safetensors");
    assert!(text.contains("estimate statistics"), "{text}");
    let (_, given) = setting.run("--stats estimate --moving-speed 0.05");
    assert_eq!(out.floats("y"), given.floats("y"));
    let stderr = fail(
        1,
        setting.args("--params est.safetensors --stats batch --force"),
    );
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
    for adapter in ["", "--adapter cpu"] {
        let line = format!("--input empty.safetensors --grad empty.safetensors {adapter}");
        let (_, out) = setting.run(&line);
        assert!(out.floats("y").is_empty());
        assert_eq!(out.floats("grad_bn.weight"), [0.0; 8]);
        let params = setting.params();
        for name in RUNNING {
            assert_eq!(out.tensors[name].2, params.tensors[name].2, "{name}");
        }
    }
}
