//! The tasks: cargo commands, and the environment in which they find their drivers.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::{Command as Process, ExitCode, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use crate::args::{Args, Command, HELP};
use crate::integration::{Action, Integration};
use crate::say;
use crate::setup::{self, Outcome, Scope};
use crate::system::System;
use crate::web;
use crate::workspace::{cargo, workspace};
use crate::{dx12, isa, kit, shaders};

/// The tests' name for the adapters that they must not go without.
const REQUIRE: &str = "BCNORM_REQUIRE_ADAPTERS";

/// The tests' name for taking their time.
const LONG: &str = "BCNORM_LONG";

/// Does what the command line asks for.
pub fn run(args: Args) -> ExitCode {
    match args.command {
        Command::Help => {
            let _ = writeln!(io::stdout(), "{HELP}");
            ExitCode::SUCCESS
        }
        Command::Setup => {
            let outcome = setup::prepare(Scope::Test, args.install);
            if outcome.complete {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Command::Demo => {
            let demo = ["run", "--release", "-p", "bcnorm-cli", "--", "demo"];
            program(Step::new("demo", &demo).args(args.rest), args.install)
        }
        Command::Train => program(Integration::train(args.rest), args.install),
        Command::Test { long } => test(args, long),
        Command::Web(action) => web::run(action, args.install),
        Command::Integration(which, action) => integration(which, action, args.install),
        Command::Isa => isa::run(args),
        Command::Shaders => shaders::run(args),
        Command::Dx12 => dx12::run(args),
        Command::Kit => kit::run(args),
        Command::Ci => ci(args),
    }
}

/// Runs a program that wants a Vulkan driver; its exit status is ours.
fn program(step: Step, install: bool) -> ExitCode {
    let outcome = setup::prepare(Scope::Demo, install);
    if !outcome.usable {
        say(&format!("error: no Vulkan driver, no {}", step.name));
        return ExitCode::FAILURE;
    }
    let runtime = RuntimeDir::new(&outcome.system);
    ExitCode::from(step.envs(runtime.env()).status())
}

/// Runs the tests.
fn test(args: Args, long: bool) -> ExitCode {
    let outcome = setup::prepare(Scope::Test, args.install);
    let ci =
        env::var_os("CI").is_some_and(|value| !["", "0", "false"].iter().any(|no| value == *no));
    if !outcome.usable {
        say("error: no Vulkan driver, no tests");
        return ExitCode::FAILURE;
    }
    if ci && !outcome.complete {
        say("error: CI is set, and the set-up is not complete");
        return ExitCode::FAILURE;
    }
    let runtime = RuntimeDir::new(&outcome.system);
    let mut envs = runtime.env();
    envs.extend(test_env(&outcome, ci, long));
    let nextest = has_nextest();
    if nextest && !args.rest.is_empty() {
        say("with arguments only the tests they select run, and no documentation tests");
    }
    conclude(run_all(test_steps(nextest, args.rest, &envs)))
}

/// Runs the tests of a crate for what others have, or measures it.
fn integration(which: Integration, action: Action, install: bool) -> ExitCode {
    let outcome = setup::prepare(Scope::Demo, install);
    if !outcome.usable {
        say("error: no Vulkan driver, and it wants one");
        return ExitCode::FAILURE;
    }
    if let Err(missing) = which.prepare(&outcome.system, install) {
        say(&format!("error: {missing}"));
        return ExitCode::FAILURE;
    }
    let runtime = RuntimeDir::new(&outcome.system);
    let step = match action {
        Action::Test => which.test(),
        Action::Bench => which.bench(),
    };
    conclude(run_all(vec![step.envs(runtime.env())]))
}

/// Runs every check, whatever fails, and lists the failures.
fn ci(args: Args) -> ExitCode {
    let started = Instant::now();
    let outcome = setup::prepare(Scope::Test, args.install);
    let setup = Report {
        name: "set-up",
        command: "cargo xtask setup".to_owned(),
        passed: outcome.complete,
        seconds: started.elapsed().as_secs_f32(),
        note: String::new(),
    };
    let runtime = RuntimeDir::new(&outcome.system);
    let mut envs = runtime.env();
    envs.extend(test_env(&outcome, true, true));
    let mut steps = checks(outcome.system.var("RUSTDOCFLAGS").map(OsString::from));
    steps.extend(test_steps(has_nextest(), Vec::new(), &envs));
    let mut reports = vec![setup];
    for which in Integration::ALL {
        // Where something is missing, its build says what.
        if let Err(missing) = which.prepare(&outcome.system, args.install) {
            say(&format!("set-up: {missing}"));
        }
        steps.push(which.test().envs(runtime.env()));
    }
    reports.extend(run_all(steps));
    conclude(reports)
}

/// The checks that need no driver. All of them in the tests' profile, so that the
/// dependencies are built for one profile only.
fn checks(rustdocflags: Option<OsString>) -> Vec<Step> {
    let mut flags = rustdocflags.unwrap_or_default();
    if !flags.is_empty() {
        flags.push(" ");
    }
    flags.push("-D warnings");
    let lints = |name, package: &[&str]| {
        let strict = ["--release", "--", "-D", "warnings"];
        Step::new(name, &[&["clippy"], package, &strict].concat())
    };
    let mut checks = vec![
        Step::new("fmt", &["fmt", "--all", "--check"]),
        lints("clippy", &["--workspace", "--all-targets"]),
        // The library as a program gets it that asks for no feature: the tests turn all of them on.
        lints("clippy, no features", &["-p", "bcnorm", "--lib"]),
        lints(
            "clippy, all languages",
            &["-p", "bcnorm-backends", "--features", "all"],
        ),
        Step::new("doc", &["doc", "--no-deps", "--workspace", "--release"])
            .envs(vec![("RUSTDOCFLAGS", flags.clone())]),
    ];
    for which in Integration::ALL {
        checks.extend(which.checks(flags.clone()));
    }
    checks
}

/// The test runs. nextest runs no documentation tests; `cargo test` runs them too.
fn test_steps(nextest: bool, args: Vec<OsString>, envs: &[(&'static str, OsString)]) -> Vec<Step> {
    let all = args.is_empty();
    // Cargo ignores --package beside --workspace.
    let package = |arg: &OsString| {
        let arg = arg.to_string_lossy();
        arg.starts_with("--package") || arg.starts_with("-p")
    };
    let scope: &[&str] = if args.iter().any(package) {
        &[]
    } else {
        &["--workspace"]
    };
    let mut steps = Vec::new();
    if nextest {
        let run = [&["nextest", "run", "--release"], scope].concat();
        steps.push(Step::new("test", &run).args(args));
        if all {
            // Of the workspace: one package alone has fewer features on, and wgpu would be compiled for it.
            steps.push(Step::new(
                "doctest",
                // bcnorm-checked is the library's source once more.
                &[
                    "test",
                    "--doc",
                    "--release",
                    "--workspace",
                    "--exclude",
                    "bcnorm-checked",
                ],
            ));
        }
    } else {
        let run = [&["test", "--release", "--no-fail-fast"], scope].concat();
        let mut step = Step::new("test", &run).args(args);
        if env::var_os("RUST_TEST_THREADS").is_none() {
            // As in nextest.toml.
            step = step.envs(vec![("RUST_TEST_THREADS", "2".into())]);
        }
        steps.push(step);
    }
    if all {
        // After the others: it wants the command, which they have built.
        steps.push(Step::new(
            "web",
            &["run", "-p", "xtask", "--", "web", "--test"],
        ));
    }
    steps
        .into_iter()
        .map(|step| step.envs(envs.to_vec()))
        .collect()
}

/// What the tests' environment needs: SwiftShader where the loader sees it, whether they take their time and,
/// in CI, the adapters that must be there.
fn test_env(outcome: &Outcome, ci: bool, long: bool) -> Vec<(&'static str, OsString)> {
    let mut envs = Vec::new();
    if env::consts::OS == "linux" {
        let manifest = outcome.system.swiftshader();
        envs.extend(manifest.and_then(|manifest| outcome.system.add_driver(&manifest)));
        if ci && !outcome.system.is_set(REQUIRE) {
            envs.push((REQUIRE, outcome.adapters.join(",").into()));
        }
    }
    if ci {
        envs.push((web::REQUIRE, "1".into()));
    }
    if long {
        envs.push((LONG, "1".into()));
    }
    envs
}

/// Whether cargo-nextest is installed; if not, says how to get it.
fn has_nextest() -> bool {
    let mut process = Process::new(cargo());
    process
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let found = process.status().is_ok_and(|status| status.success());
    if !found {
        say(
            "cargo-nextest is not installed, so `cargo test` runs the tests: no time limits, \
             longer output. To get it: cargo install --locked cargo-nextest, or a ready-made \
             one from https://nexte.st/docs/installation",
        );
    }
    found
}

/// One cargo command.
#[derive(Clone, Debug)]
pub struct Step {
    name: &'static str,
    args: Vec<OsString>,
    envs: Vec<(&'static str, OsString)>,
}

impl Step {
    /// A command with these arguments.
    pub fn new(name: &'static str, args: &[&str]) -> Self {
        Self {
            name,
            args: args.iter().map(OsString::from).collect(),
            envs: Vec::new(),
        }
    }

    /// More arguments.
    pub fn args(mut self, args: Vec<OsString>) -> Self {
        self.args.extend(args);
        self
    }

    /// More environment.
    pub fn envs(mut self, envs: Vec<(&'static str, OsString)>) -> Self {
        self.envs.extend(envs);
        self
    }

    /// The command as one would type it, less the folder that only quiets EGL.
    fn line(&self) -> String {
        let shown = self.envs.iter().filter(|(name, _)| *name != RUNTIME_DIR);
        let envs =
            shown.map(|(name, value)| format!("{name}={}", quoted(&value.to_string_lossy())));
        let args = self.args.iter().map(|arg| quoted(&arg.to_string_lossy()));
        let words = envs.chain(["cargo".to_owned()]).chain(args);
        words.collect::<Vec<_>>().join(" ")
    }

    /// Runs it and gives its exit status, 1 if it has none.
    pub fn status(&self) -> u8 {
        say(&format!("$ {}", self.line()));
        let folder = workspace();
        let mut process = Process::new(cargo());
        process.args(&self.args).current_dir(&folder);
        match process.envs(self.envs.iter().cloned()).status() {
            Ok(status) => status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(1),
            Err(error) => {
                say(&format!(
                    "error: cannot run cargo in {}: {error}",
                    folder.display()
                ));
                1
            }
        }
    }
}

/// A word as a shell wants it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What became of a step.
pub struct Report {
    /// The step.
    pub name: &'static str,
    /// What does it again.
    pub command: String,
    /// Whether it is well.
    pub passed: bool,
    /// How long it took.
    pub seconds: f32,
    /// What else there is to say, in a few words; or nothing.
    pub note: String,
}

/// Runs every step, also behind one that fails.
fn run_all(steps: Vec<Step>) -> Vec<Report> {
    let run = |step: Step| {
        let started = Instant::now();
        let passed = step.status() == 0;
        let seconds = started.elapsed().as_secs_f32();
        Report {
            name: step.name,
            command: step.line(),
            passed,
            seconds,
            note: String::new(),
        }
    };
    steps.into_iter().map(run).collect()
}

/// Lists what passed and what failed; any failure is ours.
pub fn conclude(reports: Vec<Report>) -> ExitCode {
    say("");
    for report in &reports {
        let verdict = if report.passed { "passed" } else { "FAILED" };
        let line = format!("{:8} {verdict} {:7.1} s", report.name, report.seconds);
        say(format!("{line}  {}", report.note).trim_end());
    }
    let failed: Vec<_> = reports.iter().filter(|report| !report.passed).collect();
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    say(&format!(
        "\n{} of {} failed. Again, one by one:",
        failed.len(),
        reports.len()
    ));
    for report in failed {
        say(&format!("  {}", report.command));
    }
    ExitCode::FAILURE
}

/// Where programs keep their sockets.
const RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";

/// A private folder for XDG_RUNTIME_DIR where that is unset: without it EGL and
/// Wayland complain at each start. Gone when dropped.
struct RuntimeDir(Option<TempDir>);

impl RuntimeDir {
    /// Makes the folder where it is missing; if that fails, there is only more noise.
    fn new(system: &System) -> Self {
        let wanted = env::consts::OS == "linux" && system.var(RUNTIME_DIR).is_none();
        let folder = || {
            tempfile::Builder::new()
                .prefix("bcnorm-xtask-")
                .tempdir()
                .ok()
        };
        Self(wanted.then(folder).flatten())
    }

    /// The variable, if it is ours to set.
    fn env(&self) -> Vec<(&'static str, OsString)> {
        let folder = self.0.iter();
        folder
            .map(|folder| (RUNTIME_DIR, folder.path().into()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(steps: &[Step]) -> Vec<String> {
        steps.iter().map(Step::line).collect()
    }

    #[test]
    fn every_test_runs_unless_some_are_selected() {
        let envs = [("A", OsString::from("b c")), (RUNTIME_DIR, "/tmp/x".into())];
        assert_eq!(
            lines(&test_steps(true, Vec::new(), &envs)),
            [
                "A='b c' cargo nextest run --release --workspace",
                "A='b c' cargo test --doc --release --workspace --exclude bcnorm-checked",
                "A='b c' cargo run -p xtask -- web --test"
            ]
        );
        let some = vec!["-E".into(), "test(a)".into()];
        assert_eq!(
            lines(&test_steps(true, some.clone(), &[])),
            ["cargo nextest run --release --workspace -E 'test(a)'"]
        );
        let one = vec!["-p".into(), "xtask".into()];
        assert_eq!(
            lines(&test_steps(true, one, &[])),
            ["cargo nextest run --release -p xtask"]
        );
        let fallback = lines(&test_steps(false, some, &[]));
        assert_eq!(fallback.len(), 1);
        assert!(
            fallback[0].ends_with("cargo test --release --no-fail-fast --workspace -E 'test(a)'")
        );
    }

    #[test]
    fn integrations_are_workspaces_of_their_own() {
        let all = lines(&checks(None));
        for which in Integration::ALL {
            let name = which.name();
            let mut steps = which.checks("-D warnings".into()).to_vec();
            assert!(steps.iter().all(|step| all.contains(&step.line())));
            steps.extend([which.test(), which.bench()]);
            if which == Integration::Burn {
                let train = Integration::train(vec!["--ws".into()]);
                assert!(train.line().ends_with("-p train-digits -- --ws"));
                steps.push(train);
            }
            for line in lines(&steps) {
                let place = format!("--manifest-path integrations/{name}/Cargo.toml");
                assert!(line.contains(&place), "{line}");
                // Formatting builds nothing.
                let built = line.contains(&format!("--target-dir target/{name}"));
                assert!(built || line.starts_with("cargo fmt"), "{line}");
            }
        }
    }

    #[test]
    fn warnings_are_errors_and_flags_are_kept() {
        let named = |flags: Option<OsString>, name: &str| {
            let mut steps = checks(flags);
            steps.retain(|step| step.name.starts_with(name));
            assert!(steps.len() > 1, "{name}");
            steps
        };
        for step in named(Some("--cfg docsrs".into()), "doc") {
            assert_eq!(
                step.envs,
                [("RUSTDOCFLAGS", "--cfg docsrs -D warnings".into())]
            );
        }
        for step in named(None, "doc") {
            assert_eq!(step.envs, [("RUSTDOCFLAGS", "-D warnings".into())]);
        }
        for step in named(None, "clippy") {
            assert!(step.line().ends_with("-- -D warnings"), "{}", step.line());
        }
    }

    #[test]
    fn one_failure_fails() {
        let report = |passed| Report {
            name: "x",
            command: String::new(),
            passed,
            seconds: 0.0,
            note: String::new(),
        };
        let code = |code: ExitCode| format!("{code:?}");
        let (good, bad) = (code(ExitCode::SUCCESS), code(ExitCode::FAILURE));
        assert_eq!(code(conclude(vec![report(true)])), good);
        assert_eq!(
            code(conclude(vec![report(true), report(false), report(true)])),
            bad
        );
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("a=b,c/d"), "a=b,c/d");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
