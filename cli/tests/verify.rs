//! `bcnorm verify` on the golden vectors of the repository.

mod common;

use common::{File, bcnorm, command, fail, golden, golden_file, json_lines, succeed};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
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

#[test]
fn golden_vectors_pass_on_every_adapter_and_the_cpu() {
    let folder = golden();
    let text = succeed([
        "verify".as_ref(),
        folder.as_os_str(),
        "--cpu".as_ref(),
        "--json".as_ref(),
    ]);
    let lines = json_lines(&text);
    let mut runs: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for line in &lines {
        let object = line.as_object().expect("an object");
        let fields: Vec<&str> = object.keys().map(String::as_str).collect();
        assert_eq!(
            fields,
            [
                "adapter",
                "backend",
                "errors",
                "file",
                "pass",
                "pytorch_f32_errors"
            ]
        );
        assert_eq!(line["pass"], Value::Bool(true), "{line}");
        for tensor in TENSORS {
            let error = line["errors"][tensor].as_f64().expect("a number");
            let theirs = line["pytorch_f32_errors"][tensor]
                .as_f64()
                .expect("a number");
            assert!(error <= theirs.max(1e-6), "{tensor}: {line}");
        }
        for errors in ["errors", "pytorch_f32_errors"] {
            assert_eq!(
                line[errors].as_object().map(|o| o.len()),
                Some(TENSORS.len())
            );
        }
        let text = |field: &str| line[field].as_str().expect("text").to_owned();
        runs.entry((text("adapter"), text("backend")))
            .or_default()
            .insert(text("file"));
    }
    assert!(runs.contains_key(&("cpu".to_owned(), "Cpu".to_owned())));
    assert!(runs.len() >= 2, "no GPU adapter ran: {:?}", runs.keys());
    let files = std::fs::read_dir(golden())
        .expect("golden files")
        .filter(|entry| {
            let path = entry.as_ref().expect("an entry").path();
            path.extension().is_some_and(|end| end == "safetensors")
        });
    let files = files.count();
    assert!(files > 10);
    assert!(runs.values().all(|seen| seen.len() == files), "{runs:?}");
    assert_eq!(lines.len(), files * runs.len());
}

#[test]
fn the_table_is_for_people() {
    let file = golden_file("small.batch.train");
    let text = succeed(["verify".as_ref(), file.as_os_str(), "--cpu".as_ref()]);
    for part in [
        "CPU executor",
        "small.batch.train",
        "worst error",
        "pass",
        "1 of 1 pass",
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
    let output = bcnorm([
        "verify".as_ref(),
        folder.path().as_os_str(),
        "--adapter".as_ref(),
        "cpu".as_ref(),
        "--json".as_ref(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("24 of 25 runs failed"), "{stderr}");
    let lines = json_lines(&String::from_utf8(output.stdout).expect("UTF-8"));
    assert_eq!(lines.len(), 25);
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

    let output = bcnorm([
        "verify".as_ref(),
        folder.path().as_os_str(),
        path("nowhere").as_os_str(),
        "--adapter".as_ref(),
        "cpu".as_ref(),
        "--json".as_ref(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let lines = json_lines(&String::from_utf8(output.stdout).expect("UTF-8"));
    assert_eq!(lines.len(), 1, "the good one runs");
    assert_eq!(lines[0]["pass"], Value::Bool(true));
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
    let stderr = fail(1, ["verify".as_ref(), folder.path().as_os_str()]);
    assert!(stderr.contains("holds no .safetensors file"), "{stderr}");
    assert!(stderr.contains("nothing was verified"), "{stderr}");
    fail(2, ["verify"]);
    fail(2, ["verify", "--nonsense"]);
}

#[test]
fn adapters_are_listed_and_chosen() {
    let list = succeed(["verify", "--list-adapters", "--cpu"]);
    assert!(list.lines().count() >= 2, "{list}");
    assert!(list.contains("CPU executor"), "{list}");
    let file = golden_file("small.batch.train");
    let args = [
        "verify".as_ref(),
        file.as_os_str(),
        "--adapter".as_ref(),
        "no such".as_ref(),
    ];
    let stderr = fail(1, args);
    let first = list.lines().next().expect("an adapter");
    assert!(
        stderr.contains("\"no such\"") && stderr.contains(first),
        "{stderr}"
    );
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let mut child = command()
        .args([
            "verify".as_ref(),
            golden().as_os_str(),
            "--adapter".as_ref(),
        ])
        .args(["cpu", "--json"])
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
