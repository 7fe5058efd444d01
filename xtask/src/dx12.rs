//! DirectX 12, under wine: the command and the tests as programs for Windows, their HLSL by naga, compiled by Microsoft's
//! FXC, run by vkd3d on llvmpipe.

mod wine;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::args::Args;
use crate::say;
use crate::setup;
use crate::system::System;
use crate::tasks::{Report, conclude};
use crate::workspace::{cargo, workspace};
use wine::{FXC, Session, Wine};

const HELP: &str = "\
cargo xtask dx12: bcnorm on DirectX 12, without Windows

Usage: cargo xtask dx12 [OPTIONS] [-- NAMES]

Builds for Windows, and runs under wine: the golden files, the tests that matter most
there, and Microsoft's compiler FXC on the texts of all kernels. Without an option
that names a part, all three, of the texts every tenth.

Options:
  --verify       that part: `bcnorm verify` on all golden files
  --test         that part: tests of the suite; with NAMES those whose names have one
                 of them, whichever they are
  --shaders      that part: FXC on every text
  --json FILE    with FXC on the texts: a line a text, with the numbers of instructions
                 and of registers
  --no-install   install nothing: say what is missing and how to get it
  -h, --help     this text

Exit status: 1 where something failed, 2 for a wrong command line, 3 where it could not
be prepared (a download failed, say).

Wine 10 or later is taken if this system has it. Elsewhere debootstrap, as root, makes a
Debian with it, 1.5 GB in ~/.cache/bcnorm/dx12 (XDG_CACHE_HOME), which is kept; to be
rid of it, delete the folder. FXC comes with the npm package webgpu.";

const TARGET: &str = "x86_64-pc-windows-gnu";

/// Debian's compiler for it, which links.
const LINKER: (&str, &str) = ("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64");

/// The modules of the suite that run: what a driver or a compiler can get wrong.
const MODULES: [&str; 7] = [
    "errors",
    "nan",
    "native_f16",
    "property",
    "stages",
    "sums",
    "windows",
];

/// Tests that fail on this DX12 through no fault of the library, and why. They run, and must fail.
const EXPECTED: &[(&str, &str)] = &[(
    "native_f16::kernels_have_the_same_bits",
    "FXC contracts and orders the arithmetic of each text anew: variances differ in their last bit",
)];

/// Of the texts, every so many-th goes through FXC where all parts run.
const SAMPLE: &str = "10";

/// The part's names, as options have them.
const PARTS: [&str; 3] = ["--verify", "--test", "--shaders"];

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    /// The parts, of [`PARTS`].
    parts: Vec<&'static str>,
    /// Where the figures of the texts go.
    json: Option<PathBuf>,
    /// Parts of tests' names; all of [`MODULES`] without any.
    names: Vec<String>,
}

impl Options {
    /// Reads what follows `dx12`; nothing where help is wanted.
    fn parse(rest: Vec<OsString>) -> Result<Option<Self>, String> {
        let (mut parts, mut json, mut names) = (Vec::new(), None, Vec::new());
        let mut rest = rest.into_iter();
        while let Some(arg) = rest.next() {
            let text = arg.to_string_lossy();
            match &*text {
                "-h" | "--help" => return Ok(None),
                "--json" => {
                    let file = rest.next().filter(|file| !file.is_empty());
                    json = Some(file.ok_or("'--json' wants a file behind it")?.into());
                }
                "--" => {
                    let words = rest.by_ref().map(|name| name.to_string_lossy().into());
                    names = words.collect();
                }
                part => match PARTS.into_iter().find(|known| *known == part) {
                    Some(part) if !parts.contains(&part) => parts.push(part),
                    Some(_) => {}
                    None => {
                        let why = "see `cargo xtask dx12 --help`";
                        return Err(format!("unknown option '{part}' of dx12; {why}"));
                    }
                },
            }
        }
        let all = parts.is_empty();
        let options = Self {
            parts: if all { PARTS.to_vec() } else { parts },
            json,
            names,
        };
        if options.json.is_some() && (all || !options.has("--shaders")) {
            return Err("'--json' goes with '--shaders'".to_owned());
        }
        if !options.names.is_empty() && (all || !options.has("--test")) {
            return Err("names of tests go with '--test'".to_owned());
        }
        Ok(Some(options))
    }

    fn has(&self, part: &str) -> bool {
        self.parts.contains(&part)
    }
}

/// Does what the command line asks for.
pub fn run(args: Args) -> ExitCode {
    let options = match Options::parse(args.rest) {
        Ok(Some(options)) => options,
        Ok(None) => {
            let _ = writeln!(io::stdout(), "{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            say(&format!("error: {error}"));
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let (mut stage, session, wine) = match Stage::prepare(&options, args.install) {
        Ok(prepared) => prepared,
        Err(error) => {
            say(&format!("error: could not be prepared: {error:#}"));
            return ExitCode::from(3);
        }
    };
    stage.session = Some(session);
    let mut reports = vec![Report {
        name: "set-up",
        command: "cargo xtask dx12".to_owned(),
        passed: true,
        seconds: started.elapsed().as_secs_f32(),
        note: String::new(),
    }];
    for &part in &options.parts {
        reports.push(stage.report(part, &options));
    }
    drop(stage);
    drop(wine);
    conclude(reports)
}

/// What all parts need.
struct Stage {
    root: PathBuf,
    /// Where the programs lie, with FXC beside them.
    folder: PathBuf,
    session: Option<Session>,
}

impl Stage {
    /// Builds, and sees that wine and FXC are there.
    fn prepare(options: &Options, install: bool) -> Result<(Self, Session, Wine)> {
        ensure!(
            cfg!(target_os = "linux"),
            "this is for Linux; on Windows `cargo xtask test` runs on DX12, on macOS use a Linux machine"
        );
        let system = System::probe();
        let root = workspace();
        if !setup::rust_target(&system, TARGET, install) {
            bail!(
                "the target {TARGET} is missing: rustup target add {TARGET}, or, without rustup, the \
                 standard library for it from where Rust comes from"
            );
        }
        if !system.program(LINKER.0) {
            let done = setup::install(&system, &[LINKER.1], install);
            done.map_err(anyhow::Error::msg).with_context(|| {
                let (program, package) = LINKER;
                format!("{program} is missing: install mingw-w64 (on Debian {package})")
            })?;
        }
        let cache = wine::cache(&system)?;
        let fxc = wine::fxc(&system, &root, &cache, install)?;
        let wine = Wine::prepare(&system, &cache, install)?;
        let folder = root.join("target/dx12");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let copy = |from: &Path, name: &str| {
            let copied = fs::copy(from, folder.join(name));
            copied.with_context(|| format!("{} to {}", from.display(), folder.display()))
        };
        copy(&fxc, FXC)?;
        for (name, file) in build(&root, options)? {
            copy(&file, &format!("{name}.exe"))?;
        }
        let session = wine.start(&root)?;
        let stage = Self {
            root,
            folder,
            session: None,
        };
        Ok((stage, session, wine))
    }

    /// Runs a part.
    fn report(&mut self, part: &'static str, options: &Options) -> Report {
        let started = Instant::now();
        let done = match part {
            "--verify" => self.verify(),
            "--test" => self.test(&options.names),
            _ => self.shaders(options),
        };
        let (passed, note) = done.unwrap_or_else(|error| (false, format!("{error:#}")));
        Report {
            name: part.trim_start_matches('-'),
            command: format!("cargo xtask dx12 {part}"),
            passed,
            seconds: started.elapsed().as_secs_f32(),
            note,
        }
    }

    /// Runs one of the programs.
    fn program(
        &mut self,
        name: &str,
        args: &[&str],
        seconds: u32,
        seen: impl FnMut(&str),
    ) -> Result<i32> {
        let program = self.folder.join(format!("{name}.exe"));
        let session = self.session.as_mut().context("wine has ended")?;
        session.run(&self.root, &program, args, seconds, seen)
    }

    /// The golden files.
    fn verify(&mut self) -> Result<(bool, String)> {
        let args = ["verify", "tests/golden", "--adapter", "dx12", "--json"];
        say(&format!("$ bcnorm.exe {}", args.join(" ")));
        let (mut good, mut all) = (0, 0);
        let status = self.program("bcnorm", &args, 3600, |line| {
            match serde_json::from_str::<Value>(line) {
                Ok(value) => {
                    all += 1;
                    good += usize::from(value["pass"] == true);
                    if value["pass"] != true {
                        say(line);
                    }
                    if usize::is_multiple_of(all, 50) {
                        say(&format!("  {good} of {all} passed"));
                    }
                }
                Err(_) => say(line),
            }
        })?;
        let passed = status == 0 && good == all && all > 0;
        Ok((passed, format!("{good} of {all}, status {status}")))
    }

    /// The tests, a process each: one that takes wine down takes no other along.
    fn test(&mut self, names: &[String]) -> Result<(bool, String)> {
        let mut tests = Vec::new();
        let args = ["--list", "--format", "terse"];
        let status = self.program("suite", &args, 60, |line| {
            tests.extend(line.strip_suffix(": test").map(str::to_owned));
        })?;
        ensure!(status == 0, "the suite does not list its tests");
        tests.retain(|test| selected(test, names));
        ensure!(!tests.is_empty(), "no test has one of these names");
        let mut wrong = Vec::new();
        for test in &tests {
            let started = Instant::now();
            let mut said = String::new();
            let status = self.program("suite", &["--exact", test], 900, |line| {
                said += &format!("  | {line}\n");
            })?;
            let seconds = started.elapsed().as_secs_f32();
            let (good, verdict) = judge(test, status == 0, EXPECTED);
            say(&format!("  {verdict} {seconds:6.1} s  {test}"));
            if !good {
                wrong.push(test.as_str());
                say(said.trim_end());
            }
        }
        let all = tests.len();
        let note = format!("{} of {all} {}", all - wrong.len(), wrong.join(" "));
        Ok((wrong.is_empty(), note))
    }

    /// FXC on the texts.
    fn shaders(&mut self, options: &Options) -> Result<(bool, String)> {
        let every = if options.parts.len() == PARTS.len() {
            SAMPLE
        } else {
            "1"
        };
        say(&format!("$ bcnorm-fxc.exe {every}"));
        let mut texts = Texts::default();
        let status = self.program("bcnorm-fxc", &[every], 7200, |line| texts.read(line))?;
        if let Some(file) = &options.json {
            let written = fs::write(file, texts.json());
            written.with_context(|| file.display().to_string())?;
        }
        for line in texts.summary() {
            say(&line);
        }
        let (failed, all) = (texts.failed, texts.lines.len());
        let note = format!("{} of {all}, status {status}", all - failed);
        Ok((status == 0 && failed == 0 && all > 0, note))
    }
}

/// Whether a test runs.
fn selected(test: &str, names: &[String]) -> bool {
    if names.is_empty() {
        let module = test.split("::").next();
        return MODULES.iter().any(|known| module == Some(known));
    }
    names.iter().any(|name| test.contains(name))
}

/// Whether a test did as it should, and what to say of it.
fn judge(test: &str, passed: bool, expected: &[(&str, &str)]) -> (bool, String) {
    let reason = expected.iter().find(|(name, _)| *name == test);
    match (passed, reason) {
        (true, None) => (true, "passed".to_owned()),
        (false, None) => (false, "FAILED".to_owned()),
        (false, Some((_, reason))) => (true, format!("failed as expected ({reason})")),
        (true, Some(_)) => (
            false,
            "PASSED, but EXPECTED in dx12.rs says otherwise".to_owned(),
        ),
    }
}

/// What FXC said of the texts, by their names.
#[derive(Default)]
struct Texts {
    lines: BTreeMap<String, Value>,
    failed: usize,
}

impl Texts {
    /// Takes a line of the program's.
    fn read(&mut self, line: &str) {
        let value = serde_json::from_str::<Value>(line).ok();
        let name = value.as_ref().and_then(|value| value["spec"].as_str());
        let (Some(name), Some(value)) = (name, &value) else {
            say(line);
            return;
        };
        if let Some(error) = value["error"].as_str() {
            self.failed += 1;
            say(&format!("FAILED  {name}\n{error}"));
        }
        self.lines.insert(name.to_owned(), value.clone());
        if self.lines.len().is_multiple_of(200) {
            say(&format!("  {} texts", self.lines.len()));
        }
    }

    /// A line a text, in the order of their names.
    fn json(&self) -> String {
        let lines = self.lines.values();
        lines.map(|value| format!("{value}\n")).collect()
    }

    /// The longest text of each kernel.
    fn summary(&self) -> Vec<String> {
        let mut longest: BTreeMap<&str, (u64, u64, usize, &str)> = BTreeMap::new();
        for (name, value) in &self.lines {
            let number = |key: &str| value[key].as_u64().unwrap_or(0);
            let (kernel, rest) = name.split_once(' ').unwrap_or((name, ""));
            let (instructions, registers, count, which) = longest.entry(kernel).or_default();
            *count += 1;
            *registers = number("temp_registers").max(*registers);
            if number("instructions") >= *instructions {
                (*instructions, *which) = (number("instructions"), rest);
            }
        }
        let row = |(kernel, (instructions, registers, count, which)): (&&str, &(_, _, _, _))| {
            format!("{kernel:24} {count:5} {instructions:12} {registers:9}  {which}")
        };
        let head =
            "kernel                   texts instructions registers  (most; the longest text)";
        [head.to_owned()]
            .into_iter()
            .chain(longest.iter().map(row))
            .collect()
    }
}

/// Builds what the parts need; the programs by name.
fn build(root: &Path, options: &Options) -> Result<Vec<(String, PathBuf)>> {
    let mut args = vec!["build", "--release", "--target", TARGET];
    args.push("--message-format=json-render-diagnostics");
    for (part, what) in PARTS.into_iter().zip([
        ["-p", "bcnorm-cli", "--bin", "bcnorm"],
        ["-p", "bcnorm", "--test", "suite"],
        ["-p", "bcnorm-fxc", "--bin", "bcnorm-fxc"],
    ]) {
        if options.has(part) {
            args.extend(what);
        }
    }
    say(&format!("$ cargo {}", args.join(" ")));
    let output = Command::new(cargo())
        .args(&args)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo")?;
    ensure!(
        output.status.success(),
        "the build for Windows failed: {}",
        output.status
    );
    let built = programs(&String::from_utf8_lossy(&output.stdout));
    ensure!(
        built.len() == options.parts.len(),
        "cargo named other programs than were asked for: {built:?}"
    );
    Ok(built)
}

/// The programs of cargo's messages, by name.
fn programs(messages: &str) -> Vec<(String, PathBuf)> {
    let messages = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let file = message["executable"].as_str()?;
        let name = message["target"]["name"].as_str()?;
        Some((name.to_owned(), PathBuf::from(file)))
    });
    messages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Options>, String> {
        Options::parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn parts_are_chosen() {
        let parts = |line| read(line).unwrap().unwrap().parts;
        assert_eq!(parts(""), PARTS);
        assert_eq!(parts("--test"), ["--test"]);
        assert_eq!(
            parts("--shaders --verify --shaders"),
            ["--shaders", "--verify"]
        );
        let all = read("--test --shaders --json a.json -- nan:: --help").unwrap();
        let all = all.unwrap();
        assert_eq!(all.json, Some("a.json".into()));
        assert_eq!(all.names, ["nan::", "--help"]);
        assert_eq!(read("--test -h"), Ok(None));
    }

    #[test]
    fn errors_name_the_culprit() {
        for (line, culprit) in [
            ("--shader", "'--shader'"),
            ("--verify nan", "'nan'"),
            ("--shaders --json", "'--json' wants"),
            ("--json a.json", "'--json' goes with"),
            ("--verify --json a.json", "'--json' goes with"),
            ("--verify -- nan::", "'--test'"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(culprit), "{line:?}: {error}");
        }
    }

    #[test]
    fn tests_are_chosen_by_module_or_name() {
        assert!(selected("nan::padding", &[]) && !selected("family::nan::x", &[]));
        let names = ["fam".to_owned(), "x".to_owned()];
        assert!(selected("family::y", &names) && !selected("nan::padding", &names));
        // The modules are there.
        for module in MODULES {
            let file = workspace().join(format!("tests/suite/{module}.rs"));
            assert!(file.is_file(), "{}", file.display());
        }
    }

    #[test]
    fn an_expected_failure_must_fail() {
        let expected = [("a::b", "vkd3d")];
        let good = |test, passed| judge(test, passed, &expected).0;
        assert!(good("a", true) && !good("a", false));
        assert!(good("a::b", false) && !good("a::b", true));
        assert!(judge("a::b", false, &expected).1.contains("vkd3d"));
    }

    #[test]
    fn cargo_names_the_programs() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"bcnorm"},"executable":null}"#,
            "\nnoise\n",
            r#"{"reason":"compiler-artifact","target":{"name":"suite"},"executable":"/t/suite-1.exe"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let suite = ("suite".to_owned(), PathBuf::from("/t/suite-1.exe"));
        assert_eq!(programs(messages), [suite]);
    }

    #[test]
    fn texts_are_summed_up() {
        let mut texts = Texts::default();
        for line in [
            r#"{"spec":"b x","instructions":7,"temp_registers":3}"#,
            r#"{"spec":"a y","instructions":5,"temp_registers":9}"#,
            r#"{"spec":"b z","instructions":6,"temp_registers":4}"#,
            r#"{"spec":"a w","error":"no"}"#,
            "noise",
        ] {
            texts.read(line);
        }
        assert_eq!((texts.lines.len(), texts.failed), (4, 1));
        assert!(
            texts.json().starts_with("{\"error\":\"no\""),
            "{}",
            texts.json()
        );
        let rows = texts.summary();
        let words = |row: &String| {
            row.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(&rows[1]), ["a", "2", "5", "9", "y"]);
        assert_eq!(words(&rows[2]), ["b", "2", "7", "4", "x"]);
    }
}
