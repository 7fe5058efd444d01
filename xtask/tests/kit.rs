//! The kit: made, unpacked, and run on whatever adapter there is.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(missing_docs)]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A kit in a folder of its own. It has no Vulkan loader: that would take a network.
struct Kit {
    folder: tempfile::TempDir,
}

impl Kit {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("new folder/kit.tar.gz");
        let mut make = Command::new(env!("CARGO_BIN_EXE_xtask"));
        make.args(["kit", "--no-install", "--out"]).arg(&archive);
        // The command that these tests were built with, else the kit builds it.
        let command = Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name("bcnorm");
        if command.exists() {
            make.arg("--binary").arg(command);
        }
        let output = make.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("needs glibc 2.") && said.contains("without a Vulkan loader"),
            "{said}"
        );
        assert!(fs::metadata(&archive).unwrap().len() < 40_000_000);
        let unpacked = Command::new("tar")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(folder.path())
            .status();
        assert!(unpacked.unwrap().success());
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder
            .path()
            .join("bcnorm-kit-x86_64-linux")
            .join(name)
    }

    fn measure(&self, args: &[&str]) -> Command {
        let mut measure = Command::new(self.path("measure.sh"));
        measure
            .args(args)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        measure
    }

    /// What is in a folder of results: the lines, and the section.
    fn results(&self, out: &str) -> (Vec<Value>, String) {
        let read =
            |name: &str| fs::read_to_string(self.folder.path().join(out).join(name)).unwrap();
        let lines = read("results.jsonl");
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        for entry in fs::read_dir(self.folder.path().join(out)).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(
                !name.to_string_lossy().ends_with(".new"),
                "{name:?} is left"
            );
        }
        (lines, read("section.md"))
    }

    fn has_adapter(&self) -> bool {
        let info = Command::new(self.path("bcnorm"))
            .args(["info", "--json"])
            .output()
            .unwrap();
        let found = String::from_utf8_lossy(&info.stdout).contains("\"default\": true");
        if !found {
            eprintln!("skipped: no GPU adapter");
        }
        found
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn result<'a>(lines: &'a [Value], part: &str) -> Option<&'a str> {
    lines.iter().find(|line| line["part"] == part)?["result"].as_str()
}

#[test]
fn it_is_whole_and_understands_its_options() {
    let kit = Kit::new();
    for (name, part) in [
        ("README.txt", "or newer with libgcc_s"),
        ("VERSION", concat!("bcnorm ", env!("CARGO_PKG_VERSION"))),
        ("licences/LICENSE-MIT", "MIT"),
        ("licences/crates.txt", "\nwgpu "),
        ("torch_bcnorm.py", "--device"),
    ] {
        let text = fs::read_to_string(kit.path(name)).unwrap();
        assert!(text.contains(part), "{name} lacks \"{part}\"");
    }
    assert!(kit.path("vulkan").is_dir());
    let checked = Command::new("bash")
        .arg("-n")
        .arg(kit.path("measure.sh"))
        .status();
    assert!(checked.unwrap().success());

    let help = kit.measure(&["--help"]).output().unwrap();
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--minutes N"));
    for (args, reason) in [
        (&["--minutes", "x"][..], "--minutes"),
        (&["--minutes", "0"], "--minutes"),
        (&["--minutes"], "needs a value"),
        (&["--only", "info,all"], "'all'"),
        (&["--fast"], "'--fast'"),
        (&["--out", "there"], "there"),
    ] {
        fs::create_dir_all(kit.folder.path().join("there")).unwrap();
        fs::write(kit.folder.path().join("there/results.jsonl"), "precious").unwrap();
        let output = kit.measure(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            said(&output).contains(reason),
            "{args:?}: {}",
            said(&output)
        );
    }
    assert_eq!(
        fs::read(kit.folder.path().join("there/results.jsonl")).unwrap(),
        b"precious"
    );
}

#[test]
fn it_measures_and_goes_on_where_a_part_fails() {
    let kit = Kit::new();
    if !kit.has_adapter() {
        return;
    }
    // One golden file, with too large an error.
    fs::remove_dir_all(kit.path("golden/family")).unwrap();
    for entry in fs::read_dir(kit.path("golden")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "small.batch.eval.safetensors" {
            fs::remove_file(path).unwrap();
        }
    }
    fs::write(kit.path("golden/broken.safetensors"), "no golden file").unwrap();
    let only = "info,verify,small-group,torch";
    let args = ["--minutes", "2", "--out", "some results", "--only", only];
    // A PyTorch that is none, and says so.
    let bin = kit.folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let python = "#!/bin/sh\n[ \"$1\" = -c ] && exit 0\necho 'error: \"no\\luck\"' >&2; exit 1\n";
    fs::write(bin.join("python3"), python).unwrap();
    let made = Command::new("chmod")
        .arg("755")
        .arg(bin.join("python3"))
        .status();
    assert!(made.unwrap().success());
    let path = format!(
        "{}:{}",
        bin.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = kit.measure(&args).env("PATH", path).output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");

    let (lines, section) = kit.results("some results");
    assert_eq!(
        lines[0]["kit"]["version"].as_str().unwrap().find("bcnorm"),
        Some(0)
    );
    assert!(lines[1]["adapters"].is_array());
    let measured = lines
        .iter()
        .filter(|line| line["norm"] == "group_norm" && line["direction"] == "eval");
    assert_eq!(measured.count(), 2);
    for (part, expected) in [
        ("info", "passed"),
        ("verify", "failed"),
        ("small-group", "passed"),
        ("torch", "failed"),
    ] {
        assert_eq!(result(&lines, part), Some(expected), "{part}: {said}");
        let summary = said.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.starts_with(&[expected, part])
        });
        assert!(summary, "{part} is not listed: {said}");
        assert!(
            section.contains(&format!("| {part} | {expected} | ")),
            "{section}"
        );
    }
    assert_eq!(result(&lines, "f32"), None);
    for part in [
        "2 of 2 runs pass",
        "### group_norm, f32, channels first",
        "(16, 512, 7, 7), 1.6 MB",
        "broken",
        "no\\luck",
    ] {
        assert!(section.contains(part), "{section}\nlacks {part}");
    }
}

#[test]
fn an_interrupt_leaves_whole_files() {
    let kit = Kit::new();
    if !kit.has_adapter() {
        return;
    }
    let args = [
        "--minutes",
        "2",
        "--out",
        "r",
        "--only",
        "verify,small-group",
    ];
    let mut child = kit.measure(&args).stderr(Stdio::null()).spawn().unwrap();
    // Once something was measured.
    let lines = kit.folder.path().join("r/parts/11-verify.jsonl");
    let begin = Instant::now();
    while fs::metadata(&lines).map_or(0, |file| file.len()) < 10_000
        && begin.elapsed() < Duration::from_secs(60)
    {
        sleep(Duration::from_millis(20));
    }
    let interrupt = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(interrupt.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let (lines, section) = kit.results("r");
    assert!(lines.iter().any(|line| line["pass"] == true));
    assert_eq!(result(&lines, "verify"), Some("cut"));
    assert_eq!(result(&lines, "small-group"), Some("skipped"));
    assert!(
        section.contains("runs pass") && section.contains("| interrupted |"),
        "{section}"
    );
}
