//! The browser package and its page: built, served, tested, measured.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};

use crate::args::WebAction;
use crate::say;
use crate::setup::{self, Scope};
use crate::system::System;
use crate::workspace::{cargo, workspace};

const TARGET: &str = "wasm32-unknown-unknown";

/// Set where a browser test that cannot run is a failure.
pub const REQUIRE: &str = "BCNORM_REQUIRE_BROWSER";

/// Builds, then does what is asked.
pub fn run(action: WebAction, install: bool) -> ExitCode {
    let mut system = match action {
        WebAction::Test | WebAction::Bench => setup::prepare(Scope::Test, install).system,
        WebAction::Build | WebAction::Serve | WebAction::Tint => System::probe(),
    };
    if !(system.program("node") && system.program("npm")) {
        if let Err(why) = setup::install(&system, &["nodejs", "npm"], install) {
            say(&format!("set-up: {why}"));
        }
        system = System::probe();
    }
    let web = Web {
        root: workspace(),
        system,
        install,
    };
    let lacking = web.lacking(action);
    if let Some(lacking) = lacking {
        let required = env::var_os(REQUIRE).is_some_and(|value| !value.is_empty());
        if action == WebAction::Test && !required {
            say(&format!("the tests in a browser are skipped: {lacking}"));
            return ExitCode::SUCCESS;
        }
        say(&format!("error: {lacking}"));
        return ExitCode::FAILURE;
    }
    let done = web.build().and_then(|()| match action {
        WebAction::Build => {
            say(&format!(
                "built {}: any host can serve it",
                web.page().display()
            ));
            Ok(())
        }
        WebAction::Serve => web.node(&["web/serve.mjs"], &[web.page().into()]),
        WebAction::Test => web.test(),
        WebAction::Tint => web.tint(),
        WebAction::Bench => web.bench(),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The workspace as the browser's tools see it.
struct Web {
    root: PathBuf,
    system: System,
    install: bool,
}

/// How WebAssembly is compiled.
enum Compiler {
    /// By the toolchain that runs this, which has the target.
    Own,
    /// By Debian's, which compiles the standard library anew.
    Debian,
}

impl Web {
    /// Where the built page lies.
    fn page(&self) -> PathBuf {
        self.root.join("target/web")
    }

    /// What is missing on this machine and could not be installed.
    fn lacking(&self, action: WebAction) -> Option<String> {
        if !self.system.program("node") || !self.system.program("npm") {
            let how = "install them: on Debian nodejs and npm, elsewhere https://nodejs.org";
            return Some(format!(
                "Node.js (20.19 or later) and npm are missing; {how}"
            ));
        }
        let browser = env::var_os("CHROMIUM")
            .map_or_else(|| PathBuf::from("/usr/bin/chromium"), PathBuf::from);
        let needs_browser = matches!(action, WebAction::Test | WebAction::Bench);
        (needs_browser && !browser.is_file()).then(|| {
            format!(
                "there is no Chromium at {}: install it, or say in CHROMIUM where it is",
                browser.display()
            )
        })
    }

    /// The package into web/dist, the page into target/web.
    fn build(&self) -> Result<()> {
        let compiler = self.compiler()?;
        self.packages("web")?;
        for (name, features) in [("planner", &[][..]), ("cpu", &["--features", "cpu"])] {
            let wasm = self.compile(&compiler, "bcnorm-planner", features)?;
            let folder = self.root.join("web/src").join(name);
            self.bind(&wasm, &folder, &format!("bcnorm_{name}"))?;
        }
        let dist = self.root.join("web/dist");
        remove(&dist)?;
        self.tsc(&["-p", "web"], &[])?;
        for name in ["planner", "cpu"] {
            let (from, to) = (self.root.join("web/src").join(name), dist.join(name));
            copy(&from, &to, |file| !file.ends_with(".wasm.d.ts"))?;
            let wasm = to.join(format!("bcnorm_{name}_bg.wasm")).into_os_string();
            let optimize = "web/node_modules/binaryen/bin/wasm-opt";
            self.node(&[optimize, "-Oz"], &[wasm.clone(), "-o".into(), wasm])?;
        }
        self.assemble(&dist)
    }

    /// The page: any host can serve the folder, under any path.
    fn assemble(&self, dist: &Path) -> Result<()> {
        let page = self.page();
        remove(&page)?;
        let out = ["--outDir".into(), page.clone().into()];
        self.tsc(&["-p", "examples/web"], &out)?;
        let of = |name: &str| self.root.join(name);
        let is = |ends: &'static [&'static str]| {
            move |file: &str| ends.iter().any(|end| file.ends_with(end))
        };
        copy(&of("examples/web"), &page, is(&[".html", ".css", ".jpg"]))?;
        copy(dist, &page.join("bcnorm"), is(&[".js", ".wasm"]))?;
        copy(
            &of("cli/assets/photos"),
            &page.join("photos"),
            is(&[".jpg"]),
        )?;
        copy(&of("cli/shaders"), &page.join("shaders"), is(&[".wgsl"]))?;
        copy(
            &of("examples/digits"),
            &page.join("digits"),
            is(&[".gz", ".md"]),
        )?;
        // What the "Train" tab trains with, and its licences.
        let tfjs = page.join("tfjs");
        fs::create_dir_all(&tfjs).with_context(|| tfjs.display().to_string())?;
        for file in [
            "web/node_modules/@tensorflow/tfjs-core/dist/tf-core.es2017.min.js",
            "web/node_modules/@tensorflow/tfjs-layers/dist/tf-layers.es2017.min.js",
            "web/node_modules/@tensorflow/tfjs-backend-webgpu/dist/tf-backend-webgpu.es2017.min.js",
            "examples/web/tfjs/NOTICE",
            "LICENSE-APACHE",
        ] {
            let source = of(file);
            let name = source.file_name().context("a file")?;
            fs::copy(&source, tfjs.join(name)).with_context(|| source.display().to_string())?;
        }
        let golden = copy(
            &of("tests/golden"),
            &page.join("golden"),
            is(&[".safetensors"]),
        )?;
        let names: Vec<String> = golden.iter().map(|name| format!("\"{name}\"")).collect();
        let index = format!("[{}]\n", names.join(",\n"));
        write(&page.join("golden/index.json"), &index)
    }

    /// Every test of web/test.
    fn test(&self) -> Result<()> {
        // onnxruntime-web is among the tests, too.
        self.packages("web/bench")?;
        // A Rust program in the browser.
        let wasm = self.compile(&self.compiler()?, "bcnorm-wasm-example", &[])?;
        self.bind(&wasm, &self.root.join("target/wasm-example"), "example")?;
        // The native side of the comparison bit by bit.
        self.command()?;
        let folder = self.root.join("web/test");
        let tests = listed(&folder)?
            .into_iter()
            .filter(|name| name.ends_with(".test.mjs"));
        let files: Vec<OsString> = tests.map(|name| folder.join(name).into()).collect();
        ensure!(
            !files.is_empty(),
            "there are no tests in {}",
            folder.display()
        );
        self.node(&["--test", "--test-reporter=spec"], &files)
    }

    /// Every shader of every plan through Tint, by Dawn for Node.
    fn tint(&self) -> Result<()> {
        let file = self.root.join("web/test/tint.test.mjs");
        self.node(&["--test", "--test-reporter=spec"], &[file.into()])
    }

    /// The package beside its peers, and beside the native run.
    fn bench(&self) -> Result<()> {
        self.packages("web/bench")?;
        self.command()?;
        let native = self.root.join("target/release/bcnorm");
        let args = [
            "--root".into(),
            self.page().into(),
            "--native".into(),
            native.into(),
        ];
        self.node(&["web/bench/run.mjs"], &args)
    }

    /// The native command, as the tests build it: of the whole workspace, and with a test beside it, since both
    /// turn features of dependencies on. With others wgpu would be compiled a second time.
    fn command(&self) -> Result<()> {
        let build = ["build", "--release", "--workspace"];
        self.cargo(
            &[&build[..], &["--bin", "bcnorm", "--test", "command"]].concat(),
            &[],
        )
    }

    /// A compiler for WebAssembly; installs what is missing where it may.
    fn compiler(&self) -> Result<Compiler> {
        if setup::rust_target(&self.system, TARGET, self.install) {
            return Ok(Compiler::Own);
        }
        let packages = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];
        let there =
            || Path::new("/usr/bin/wasm-ld-19").is_file() && Path::new("/usr/bin/rustc").is_file();
        if !there() {
            let installed = setup::install(&self.system, &packages, self.install);
            installed.map_err(anyhow::Error::msg).with_context(|| {
                let packages = packages.join(" ");
                format!(
                    "the target {TARGET} is missing: rustup target add {TARGET}, or, on Debian, install \
                     {packages}"
                )
            })?;
        }
        ensure!(
            there(),
            "Debian's rustc-web and lld-19 are not where they belong, in /usr/bin"
        );
        Ok(Compiler::Debian)
    }

    /// The WebAssembly of a package.
    fn compile(&self, compiler: &Compiler, package: &str, features: &[&str]) -> Result<PathBuf> {
        let file = format!("{TARGET}/web/{}.wasm", package.replace('-', "_"));
        let build = [
            "build",
            "--profile",
            "web",
            "-p",
            package,
            "--target",
            TARGET,
        ];
        let args = [&build, features].concat();
        if let Compiler::Own = compiler {
            self.cargo(&args, &[])?;
            let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
            return Ok(target
                .unwrap_or_else(|| self.root.join("target"))
                .join(file));
        }
        // Another compiler's folder of its own: the two would build each other's work anew.
        let target = self.root.join("target/wasm");
        let mut command = Command::new("/usr/bin/cargo");
        command
            .args(args)
            .args(["-Z", "build-std=std,panic_abort", "--target-dir"])
            .arg(&target)
            .env("PATH", "/usr/bin:/bin")
            .env("RUSTC", "/usr/bin/rustc")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld-19")
            .env_remove("RUSTUP_TOOLCHAIN");
        self.finish(command)?;
        Ok(target.join(file))
    }

    /// The module around it, by the wasm-bindgen of this workspace's lock file.
    fn bind(&self, wasm: &Path, folder: &Path, name: &str) -> Result<()> {
        remove(folder)?;
        let tail = [wasm.into(), folder.into(), name.into()];
        self.cargo(&["run", "--release", "-p", "bcnorm-bindgen", "--"], &tail)
    }

    /// npm's packages, as the lock file has them, where they are not that already.
    fn packages(&self, folder: &str) -> Result<()> {
        let folder = self.root.join(folder);
        let modified = |name: &str| fs::metadata(folder.join(name)).and_then(|m| m.modified());
        let installed = modified("node_modules/.package-lock.json");
        if let (Ok(installed), Ok(locked)) = (installed, modified("package-lock.json"))
            && installed >= locked
        {
            return Ok(());
        }
        let mut npm = Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" });
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        npm.current_dir(&folder);
        self.finish(npm)
    }

    fn tsc(&self, args: &[&str], more: &[OsString]) -> Result<()> {
        self.node(
            &[&["web/node_modules/typescript/bin/tsc"], args].concat(),
            more,
        )
    }

    fn node(&self, args: &[&str], more: &[OsString]) -> Result<()> {
        let mut node = Command::new("node");
        node.args(args).args(more).current_dir(&self.root);
        if let Some(manifest) = self.system.swiftshader() {
            node.env("SWIFTSHADER_ICD", manifest);
        }
        self.finish(node)
    }

    fn cargo(&self, args: &[&str], more: &[OsString]) -> Result<()> {
        let mut command = Command::new(cargo());
        command.args(args).args(more).current_dir(&self.root);
        self.finish(command)
    }

    /// Runs a command, and says which.
    fn finish(&self, mut command: Command) -> Result<()> {
        let words: Vec<_> = [command.get_program()]
            .into_iter()
            .chain(command.get_args())
            .map(OsStr::to_string_lossy)
            .collect();
        let line = words.join(" ");
        say(&format!("$ {line}"));
        if command.get_current_dir().is_none() {
            command.current_dir(&self.root);
        }
        let status = command.status().with_context(|| line.clone())?;
        ensure!(status.success(), "{line}: {status}");
        Ok(())
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            bail!("{}: {error}", folder.display())
        }
        _ => Ok(()),
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| file.display().to_string())
}

/// The names in a folder, in order.
fn listed(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<String>>>()?;
    names.sort();
    Ok(names)
}

/// Copies the files of a folder, and of those in it, whose names are wanted; their paths in it. What npm and
/// tsc put beside the sources is none of these.
fn copy(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool + Copy) -> Result<Vec<String>> {
    let mut copied = Vec::new();
    for name in listed(from)? {
        let (source, target) = (from.join(&name), to.join(&name));
        if name == "node_modules" {
            continue;
        }
        if source.is_dir() {
            let inner = copy(&source, &target, wanted)?;
            copied.extend(inner.into_iter().map(|inner| format!("{name}/{inner}")));
        } else if wanted(&name) {
            fs::create_dir_all(to).with_context(|| to.display().to_string())?;
            fs::copy(&source, &target).with_context(|| source.display().to_string())?;
            copied.push(name);
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_copied_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let (from, to) = (root.join("from"), root.join("to"));
        for name in ["a.jpg", "b.txt", "in/c.jpg", "node_modules/d.jpg"] {
            let file = from.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, name).unwrap();
        }
        let copied = copy(&from, &to, |name| name.ends_with(".jpg")).unwrap();
        assert_eq!(copied, ["a.jpg", "in/c.jpg"]);
        assert_eq!(fs::read_to_string(to.join("in/c.jpg")).unwrap(), "in/c.jpg");
        assert!(!to.join("b.txt").exists() && !to.join("node_modules").exists());
        let error = copy(&root.join("none"), &to, |_| true).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
        remove(&to).unwrap();
        remove(&to).unwrap();
    }
}
