//! `bcnorm verify` on the golden vectors of the repository.

use crate::common::{File, bcnorm, command, fail, golden, golden_file, json_lines, succeed, words};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

const TENSORS: [&str; 8] = [
    "bn.running_mean_after",
    "bn.running_var_after",
    "grad_bias",
    "grad_bn.bias",
    "grad_bn.weight",
    "grad_weight",
    "grad_x",
    "y",
];

/// A command line: paths and options.
fn line(paths: &[&Path], options: &str) -> Vec<OsString> {
    let mut line = vec![OsString::from("verify")];
    line.extend(paths.iter().map(|path| path.into()));
    line.extend(words(options).into_iter().map(OsString::from));
    line
}

/// How many lines a file gives on one adapter: one a layout.
const LAYOUTS: usize = 2;

/// Golden files of a folder, those of its subfolders apart.
fn count_files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).expect("golden files");
    let files = entries.filter(|entry| {
        let path = entry.as_ref().expect("an entry").path();
        path.extension().is_some_and(|end| end == "safetensors")
    });
    files.count()
}

#[test]
fn golden_vectors_pass_on_every_adapter_and_the_cpu() {
    let folder = golden();
    let text = succeed(line(&[&folder], "--cpu --json"));
    let lines = json_lines(&text);
    let mut runs: BTreeMap<(String, String, String), BTreeSet<String>> = BTreeMap::new();
    let mut norms = BTreeSet::new();
    for line in &lines {
        let object = line.as_object().expect("an object");
        let text = |field: &str| line[field].as_str().expect("text").to_owned();
        let file = text("file");
        let given = !file.contains("family");
        let half = text("dtype") != "f32";
        let mut fields: BTreeSet<&str> = object.keys().map(String::as_str).collect();
        for field in [
            "adapter",
            "backend",
            "dtype",
            "errors",
            "file",
            "layout",
            "norm",
            "pass",
            "pytorch_f32_errors",
        ] {
            assert!(fields.remove(field), "{field}: {line}");
        }
        // Only 16-bit tensors are measured in units in the last place.
        let more: &[&str] = if half { &["exact", "ulps"] } else { &[] };
        assert_eq!(fields, BTreeSet::from_iter(more.iter().copied()), "{line}");
        assert_eq!(line["pass"], Value::Bool(true), "{line}");
        let errors = line["errors"].as_object().expect("errors");
        let theirs = line["pytorch_f32_errors"].as_object().expect("errors");
        assert_eq!(theirs.len(), if half { 0 } else { errors.len() }, "{line}");
        if given {
            let tensors: Vec<&str> = errors.keys().map(String::as_str).collect();
            assert_eq!(tensors, TENSORS);
            assert_eq!((text("norm").as_str(), half), ("bc_norm", false));
        }
        assert!(errors.contains_key("y"), "{line}");
        for (tensor, error) in errors {
            let error = error.as_f64().expect("a number");
            if let Some(ulps) = line["ulps"].get(tensor) {
                assert!(ulps.as_u64().expect("a number") <= 1, "{tensor}: {line}");
                let exact = line["exact"][tensor].as_f64().expect("a number");
                assert!((0.98..=1.0).contains(&exact), "{tensor}: {line}");
                continue;
            }
            let theirs = theirs
                .get(tensor)
                .map_or(0.0, |e| e.as_f64().expect("a number"));
            assert!(error <= theirs.max(1e-6), "{tensor}: {line}");
        }
        norms.insert(text("norm"));
        runs.entry((text("adapter"), text("backend"), text("layout")))
            .or_default()
            .insert(file);
    }
    for layout in ["channels_first", "channels_last"] {
        let cpu = ["cpu", "Cpu", layout].map(str::to_owned).into();
        assert!(runs.contains_key(&cpu), "{:?}", runs.keys());
    }
    assert!(
        runs.len() >= 2 * LAYOUTS,
        "no GPU adapter ran: {:?}",
        runs.keys()
    );
    // The seven kinds, and the paper's chain of two.
    assert_eq!(norms.len(), 8, "{norms:?}");
    let (given, family) = (
        count_files(&golden()),
        count_files(&golden().join("family")),
    );
    assert!(given == 48 && family > 100, "{given} {family}");
    assert!(
        runs.values().all(|seen| seen.len() == given + family),
        "{runs:?}"
    );
    assert_eq!(lines.len(), (given + family) * runs.len());
}

#[test]
fn several_folders_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = File::read(&golden_file("small.batch.train"));
    std::fs::create_dir_all(folder.path().join("a/b")).expect("folders");
    std::fs::create_dir(folder.path().join("c")).expect("a folder");
    good.write(&folder.path().join("a/one.safetensors"));
    good.write(&folder.path().join("a/b/two.safetensors"));
    good.write(&folder.path().join("c/three.safetensors"));
    let [a, c] = ["a", "c"].map(|name| folder.path().join(name));
    let lines = json_lines(&succeed(line(&[&a, &c], "--adapter cpu --json")));
    let files: BTreeSet<&str> = lines
        .iter()
        .filter_map(|line| line["file"].as_str())
        .collect();
    assert_eq!((lines.len(), files.len()), (3 * LAYOUTS, 3));
}

#[test]
fn the_table_is_for_people() {
    let file = golden_file("small.batch.train");
    let text = succeed(line(&[&file], "--cpu"));
    for part in [
        "CPU executor",
        "small.batch.train",
        "worst error",
        "pass",
        "channels_last",
        "2 of 2 pass",
    ] {
        assert!(text.contains(part), "\"{text}\" lacks \"{part}\"");
    }
    assert!(
        !text.contains('\u{1b}'),
        "colours without a terminal: {text:?}"
    );
}

#[test]
fn one_wrong_value_fails_in_any_tensor() {
    let good = File::read(&golden_file("small.batch.train"));
    let folder = tempfile::tempdir().expect("a folder");
    // Not a NaN where it is expected, either: what comes out is none.
    for (number, wrong) in [f64::NAN, f64::INFINITY, 1e-3].into_iter().enumerate() {
        for tensor in TENSORS {
            let mut file = good.clone();
            let entry = format!("expected.{tensor}");
            let last = file.doubles(&entry).len() - 1;
            let scale: f64 = file.metadata[&format!("scale.{tensor}")]
                .parse()
                .expect("a scale");
            file.set_double(&entry, last, file.doubles(&entry)[last] + wrong * scale);
            file.write(&folder.path().join(format!("{tensor}.{number}.safetensors")));
        }
    }
    good.write(&folder.path().join("good.safetensors"));
    let output = bcnorm(line(&[folder.path()], "--adapter cpu --json"));
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("48 of 50 runs failed"), "{stderr}");
    let lines = json_lines(&String::from_utf8(output.stdout).expect("UTF-8"));
    assert_eq!(lines.len(), 25 * LAYOUTS);
    for line in lines {
        let file = line["file"].as_str().expect("text");
        assert_eq!(
            line["pass"],
            Value::Bool(file.ends_with("good.safetensors")),
            "{line}"
        );
        for tensor in TENSORS {
            let error = &line["errors"][tensor];
            let wrong =
                file.contains(&format!("/{tensor}.")) || file.contains(&format!("\\{tensor}."));
            // An infinite error is null in JSON.
            assert_eq!(
                error.as_f64().is_none_or(|error| error > 9e-4),
                wrong,
                "{line}"
            );
        }
    }
}

#[test]
fn one_wrong_value_fails_in_16_bits() {
    let good = File::read(&golden().join("family/batch_norm.f16_relu_residual.train.safetensors"));
    let folder = tempfile::tempdir().expect("a folder");
    let tensors = [
        "y",
        "grad_x",
        "grad_residual",
        "grad_weight",
        "running_var_after",
    ];
    for tensor in tensors {
        let mut file = good.clone();
        let entry = format!("expected.{tensor}");
        let values = file.doubles(&entry);
        // f16 resolves 1/1024 and finer of a value: this is two units at least.
        let (at, value) = (0..values.len())
            .map(|i| (i, values[i]))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .expect("values");
        file.set_double(&entry, at, value * (1.0 + 2.5 / 1024.0));
        file.write(&folder.path().join(format!("{tensor}.safetensors")));
    }
    let output = bcnorm(line(&[folder.path()], "--adapter cpu --json"));
    assert_eq!(output.status.code(), Some(1));
    let lines = json_lines(&String::from_utf8(output.stdout).expect("UTF-8"));
    assert_eq!(lines.len(), tensors.len() * LAYOUTS);
    assert!(
        lines.iter().all(|line| line["pass"] == Value::Bool(false)),
        "{lines:?}"
    );
}

#[test]
fn bad_files_are_named_and_the_others_still_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let good = File::read(&golden_file("small.batch.train"));
    good.write(&path("good.safetensors"));
    std::fs::write(path("garbage.safetensors"), "hello").expect("written");
    std::fs::write(path("empty.safetensors"), "").expect("written");
    let bytes = std::fs::read(path("good.safetensors")).expect("read");
    std::fs::write(path("short.safetensors"), &bytes[..bytes.len() - 9]).expect("written");
    let mut file = good.clone();
    file.tensors.remove("expected.grad_x");
    file.tensors.remove("bn.bias");
    file.metadata.remove("scale.y");
    file.write(&path("lacking.safetensors"));
    let mut file = good.clone();
    file.metadata.insert("groups".into(), "3".into());
    file.write(&path("groups.safetensors"));
    let mut file = good.clone();
    file.metadata.insert("scale.y".into(), "inf".into());
    file.write(&path("scale.safetensors"));
    let mut file = good.clone();
    file.metadata
        .insert("pytorch_f32_error.y".into(), "NaN".into());
    file.write(&path("nan.safetensors"));

    let output = bcnorm(line(
        &[folder.path(), &path("nowhere")],
        "--adapter cpu --json",
    ));
    assert_eq!(output.status.code(), Some(1));
    let lines = json_lines(&String::from_utf8(output.stdout).expect("UTF-8"));
    assert_eq!(lines.len(), LAYOUTS, "the good one runs");
    assert!(lines.iter().all(|line| line["pass"] == Value::Bool(true)));
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    for (file, reason) in [
        ("garbage.safetensors", "not in safetensors format"),
        ("empty.safetensors", "not in safetensors format"),
        ("short.safetensors", "not in safetensors format"),
        (
            "lacking.safetensors",
            "missing tensors: bn.bias, expected.grad_x; missing metadata: scale.y",
        ),
        ("groups.safetensors", "\"weight\" has 4 values, expected 3"),
        ("scale.safetensors", "scale.y"),
        ("nan.safetensors", "pytorch_f32_error.y"),
        ("nowhere", "cannot read"),
    ] {
        let named = stderr.lines().find(|line| line.contains(file));
        let line = named.unwrap_or_else(|| panic!("{file} is not named: {stderr}"));
        assert!(line.contains(reason), "\"{line}\" lacks \"{reason}\"");
    }
}

#[test]
fn nothing_verified_is_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let stderr = fail(1, line(&[folder.path()], ""));
    assert!(stderr.contains("holds no .safetensors file"), "{stderr}");
    assert!(stderr.contains("nothing was verified"), "{stderr}");
    fail(2, ["verify"]);
    fail(2, ["verify", "--nonsense"]);
}

#[test]
fn adapters_are_listed_and_chosen() {
    let list = json_lines(&succeed(words("info --json")).replace('\n', ""));
    let file = golden_file("small.batch.train");
    let stderr = fail(1, line(&[&file], "--adapter no-such"));
    let first = list[0]["adapters"][0]["name"].as_str().expect("an adapter");
    assert!(
        stderr.contains("\"no-such\"") && stderr.contains(first),
        "{stderr}"
    );
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let mut child = command()
        .args(line(&[&golden()], "--adapter cpu --json"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let mut stderr = String::new();
    let pipe = child.stderr.as_mut().expect("piped");
    pipe.read_to_string(&mut stderr).expect("read");
    let status = child.wait().expect("ended");
    assert!(!stderr.contains("panicked"), "{stderr}");
    #[cfg(unix)]
    assert_eq!(status.code(), Some(141), "{stderr}");
    #[cfg(not(unix))]
    assert!(!status.success());
}
