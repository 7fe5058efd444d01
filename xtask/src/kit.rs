//! An archive that measures a GPU on a machine that has its driver, and neither a toolchain nor a network:
//! the command, golden files, and a script that runs both (`xtask/kit`).

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::args::Args;
use crate::say;
use crate::workspace::{cargo, workspace};

const HELP: &str = "\
cargo xtask kit: one archive that measures a GPU on an x86-64 Linux machine that has
its driver, and neither a toolchain nor a network

Usage: cargo xtask kit [OPTIONS]

It builds the command, and packs it with golden files, a Vulkan loader (Debian's
libvulkan1, where apt-get can fetch it) and a script:

  tar -xf bcnorm-kit-x86_64-linux.tar.gz
  bcnorm-kit-x86_64-linux/measure.sh          # 8 minutes; --help lists its options

Options:
  --out FILE      the archive [default: target/kit/bcnorm-kit-x86_64-linux.tar.gz]
  --binary FILE   pack this command rather than build one
  --no-install    fetch nothing: the archive has no Vulkan loader
  -h, --help      this text";

/// The folder that the archive unpacks into.
const NAME: &str = "bcnorm-kit-x86_64-linux";

/// What it is for.
const TARGET: &str = "x86_64-unknown-linux-gnu";

const README: &str = include_str!("../kit/README.txt");

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    help: bool,
    out: Option<PathBuf>,
    binary: Option<PathBuf>,
}

/// Does what the command line asks for.
pub fn run(args: Args) -> ExitCode {
    let options = match read(args.rest) {
        Ok(options) => options,
        Err(message) => {
            say(&format!("error: {message}; see `cargo xtask kit --help`"));
            return ExitCode::from(2);
        }
    };
    if options.help {
        let _ = writeln!(io::stdout(), "{HELP}");
        return ExitCode::SUCCESS;
    }
    match make(&options, args.install) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn read(args: Vec<OsString>) -> Result<Options, String> {
    let mut options = Options::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        let value = match text.as_ref() {
            "-h" | "--help" => {
                options.help = true;
                continue;
            }
            "--out" => &mut options.out,
            "--binary" => &mut options.binary,
            _ => return Err(format!("unknown argument '{text}'")),
        };
        let file = args.next().ok_or_else(|| format!("{text} needs a file"))?;
        *value = Some(file.into());
    }
    Ok(options)
}

/// Makes the archive.
fn make(options: &Options, download: bool) -> Result<()> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the kit is for x86-64 Linux, and is made there"
    );
    let root = workspace();
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => build(&root)?,
    };
    let stage = tempfile::tempdir().context("a folder for temporary files")?;
    let kit = stage.path().join(NAME);
    for folder in ["golden", "vulkan", "licences"] {
        fs::create_dir_all(kit.join(folder))?;
    }
    let command = kit.join("bcnorm");
    strip(&binary, &command)?;
    for (from, to) in [
        ("xtask/kit/measure.sh", "measure.sh"),
        ("benches/torch_bcnorm.py", "torch_bcnorm.py"),
        ("LICENSE-MIT", "licences/LICENSE-MIT"),
        ("LICENSE-APACHE", "licences/LICENSE-APACHE"),
    ] {
        fs::copy(root.join(from), kit.join(to)).with_context(|| from.to_owned())?;
    }
    executable(&kit.join("measure.sh"))?;
    let golden = golden(&root.join("tests/golden"), &kit.join("golden"))?;
    ensure!(golden > 0, "tests/golden has no golden files");

    let loader = match download {
        true => fetch_loader(&stage.path().join("loader"), &kit),
        false => Err(anyhow::anyhow!("nothing is fetched, as --no-install asks")),
    };
    let licences = licences(&root);
    if let Err(error) =
        licences.and_then(|text| Ok(fs::write(kit.join("licences/crates.txt"), text)?))
    {
        say(&format!("note: no list of the crates' licences: {error:#}"));
    }
    let mut glibc = newest_glibc(&fs::read(&command)?);
    if let Ok(loader) = &loader {
        glibc = glibc.max(newest_glibc(&fs::read(&loader.file)?));
    }
    let (major, minor) =
        glibc.context("the command needs no version of glibc: is it one for Linux?")?;
    let glibc = format!("{major}.{minor}");
    let version = version(&root);
    fs::write(kit.join("VERSION"), format!("{version}\n"))?;
    let readme = README
        .replacen("VERSION", &version, 1)
        .replacen("GLIBC", &glibc, 1);
    fs::write(kit.join("README.txt"), readme)?;

    let out = match &options.out {
        Some(out) => out.clone(),
        None => root.join(format!("target/kit/{NAME}.tar.gz")),
    };
    let bytes = pack(stage.path(), &out)?;
    say(&format!(
        "{}: {:.1} MB; {version}; {golden} golden files; needs glibc {glibc}",
        out.display(),
        bytes as f64 / 1e6
    ));
    match loader {
        Ok(loader) => say(&format!("with Vulkan's loader, {}", loader.package)),
        Err(error) => say(&format!("without a Vulkan loader: {error:#}")),
    }
    Ok(())
}

/// The command, built as the tests build it: with one beside it, which turns features of dependencies on. With
/// others the command would be compiled a second time.
fn build(root: &Path) -> Result<PathBuf> {
    let mut build = Command::new(cargo());
    build.args(["build", "--release", "--workspace", "--bin", "bcnorm"]);
    build.args(["--test", "command"]);
    let status = build.current_dir(root).status().context("cargo")?;
    ensure!(status.success(), "cargo build failed");
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), |target| root.join(target));
    Ok(target.join("release/bcnorm"))
}

/// A copy without symbols; with them where there is no `strip`.
fn strip(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| from.display().to_string())?;
    executable(to)?;
    if let Err(error) = output(Command::new("strip").arg(to)) {
        say(&format!(
            "note: the command is packed with its symbols: {error:#}"
        ));
    }
    Ok(())
}

#[cfg(unix)]
fn executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(
        file,
        fs::Permissions::from_mode(0o755),
    )?)
}

#[cfg(not(unix))]
fn executable(_: &Path) -> Result<()> {
    Ok(())
}

/// Copies golden files, with those in folders; returns how many.
fn golden(from: &Path, to: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            count += golden(&source, &target)?;
        } else if source
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            fs::copy(&source, &target)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Vulkan's loader in the kit.
struct Loader {
    file: PathBuf,
    package: String,
}

/// Fetches Debian's package of it, and takes the library and its licence.
fn fetch_loader(folder: &Path, kit: &Path) -> Result<Loader> {
    const LICENCE: &str = "usr/share/doc/libvulkan1/copyright";
    fs::create_dir_all(folder)?;
    let mut fetch = Command::new("apt-get");
    fetch.args([
        "-q",
        "-o",
        "Acquire::Retries=2",
        "download",
        "libvulkan1:amd64",
    ]);
    output(fetch.current_dir(folder).env("LC_ALL", "C"))?;
    let package = files(folder)?.pop().context("apt-get fetched nothing")?;
    output(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(&package)
            .arg(folder.join("files")),
    )?;
    let unpacked = folder.join("files");
    let libraries = files(&unpacked.join("usr/lib/x86_64-linux-gnu"))?;
    let library = libraries.iter().find(|file| !file.is_symlink());
    let file = kit.join("vulkan/libvulkan.so.1");
    fs::copy(library.context("the package has no library")?, &file)?;
    fs::copy(unpacked.join(LICENCE), kit.join("licences/libvulkan1.txt"))?;
    let name = package.file_stem().unwrap_or_default();
    Ok(Loader {
        file,
        package: name.to_string_lossy().into_owned(),
    })
}

/// The paths in a folder, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(paths)
}

/// The newest version of glibc that a program names; the versions of its symbols stand in it as text.
fn newest_glibc(program: &[u8]) -> Option<(u32, u32)> {
    const PREFIX: &[u8] = b"GLIBC_";
    let starts = program.windows(PREFIX.len()).enumerate();
    let starts = starts.filter(|(_, window)| *window == PREFIX);
    let versions = starts.filter_map(|(start, _)| {
        let rest = &program[start + PREFIX.len()..];
        let end = rest
            .iter()
            .position(|byte| !byte.is_ascii_digit() && *byte != b'.');
        let text = std::str::from_utf8(&rest[..end?]).ok()?;
        let (major, minor) = text.split_once('.')?;
        let minor = minor.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    versions.max()
}

/// The licences of all crates that are in the command: each text once, under the crates that have it.
fn licences(root: &Path) -> Result<String> {
    let mut tree = Command::new(cargo());
    tree.args([
        "tree",
        "--offline",
        "--locked",
        "-p",
        "bcnorm-cli",
        "-e",
        "normal",
    ])
    .args(["--target", TARGET])
    .args(["--prefix", "none", "--format", "{p}|{l}"]);
    let tree = output(tree.current_dir(root))?;
    let mut crates = BTreeMap::new();
    // "name v1.2.3 (proc-macro)|MIT (*)"; the workspace's own have a path in brackets.
    for (package, licence) in tree.lines().filter_map(|line| line.split_once('|')) {
        let mut words = package.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            continue;
        };
        if words.all(|word| !word.starts_with("(/")) {
            let licence = licence.trim_end_matches(" (*)").to_owned();
            crates.insert(
                (name.to_owned(), version.trim_start_matches('v').to_owned()),
                licence,
            );
        }
    }
    ensure!(!crates.is_empty(), "cargo tree lists no crates");
    let mut metadata = Command::new(cargo());
    metadata
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .args(["--filter-platform", TARGET]);
    let metadata: Value = serde_json::from_str(&output(metadata.current_dir(root))?)?;
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let field = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
        let (name, version) = (field("name"), field("version"));
        if !crates.contains_key(&(name.clone(), version.clone())) {
            continue;
        }
        let manifest = PathBuf::from(field("manifest_path"));
        for file in files(manifest.parent().unwrap_or(Path::new(".")))? {
            let title = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .to_uppercase();
            if ["LICEN", "COPYING", "NOTICE"]
                .iter()
                .any(|start| title.starts_with(start))
            {
                // A folder of them, or no text: the list says which licence it is.
                if let Ok(text) = fs::read_to_string(&file) {
                    texts
                        .entry(text)
                        .or_default()
                        .push(format!("{name} {version}"));
                }
            }
        }
    }
    let list = crates.iter();
    let list: String = list
        .map(|((name, version), licence)| format!("{name} {version}: {licence}\n"))
        .collect();
    let texts = texts.iter();
    let texts = texts
        .map(|(text, crates)| format!("\n{}\n{}:\n\n{text}\n", "=".repeat(80), crates.join(", ")));
    Ok(format!(
        "The crates in bcnorm, and their licences\n\n{list}{}",
        texts.collect::<String>()
    ))
}

/// The version, and the commit where git knows it.
fn version(root: &Path) -> String {
    let git = |args: &[&str]| output(Command::new("git").args(args).current_dir(root));
    let commit = git(&["rev-parse", "--short", "HEAD"]).map(|commit| {
        let changes = git(&["status", "--porcelain", "--untracked-files=no"]);
        let changed = changes.is_ok_and(|changes| !changes.trim().is_empty());
        let changed = if changed { ", changed since" } else { "" };
        format!(" ({}{changed})", commit.trim())
    });
    format!(
        "bcnorm {}{}",
        env!("CARGO_PKG_VERSION"),
        commit.unwrap_or_default()
    )
}

/// Packs the kit, and returns the archive's bytes.
fn pack(stage: &Path, out: &Path) -> Result<u64> {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    // Whole or not at all.
    let file =
        tempfile::NamedTempFile::new_in(folder).with_context(|| folder.display().to_string())?;
    let mut tar = Command::new("tar");
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "-czf",
    ]);
    output(tar.arg(file.path()).arg("-C").arg(stage).arg(NAME))?;
    let bytes = file.path().metadata()?.len();
    let file = file
        .persist(out)
        .with_context(|| out.display().to_string())?;
    readable(&file)?;
    Ok(bytes)
}

/// As other files are: a temporary one is its owner's alone.
#[cfg(unix)]
fn readable(file: &fs::File) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(file.set_permissions(fs::Permissions::from_mode(0o644))?)
}

#[cfg(not(unix))]
fn readable(_: &fs::File) -> Result<()> {
    Ok(())
}

/// Standard output of a command that must succeed; an error is the last line of what it complained.
fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| name.clone())?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{name}: {}",
            stderr.trim_end().lines().last().unwrap_or("it failed")
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        read(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn options_are_read() {
        let read = options("--binary b --out o.tar.gz").unwrap();
        assert_eq!(read.out, Some("o.tar.gz".into()));
        assert_eq!(read.binary, Some("b".into()));
        assert!(options("--out o -h").unwrap().help);
        for (line, culprit) in [("--out", "--out"), ("--fast", "'--fast'"), ("x", "'x'")] {
            let error = options(line).unwrap_err();
            assert!(error.contains(culprit), "{error}");
        }
    }

    #[test]
    fn the_newest_glibc_is_found() {
        let program = b"\x7fELF GLIBC_2.4\0GLIBC_2.17\0GLIBC_PRIVATE\0GLIBC_2.3.4\0GLIBC_2.9\0";
        assert_eq!(newest_glibc(program), Some((2, 17)));
        assert_eq!(newest_glibc(b"nothing GLIBC_2."), None);
    }

    #[test]
    fn the_readme_has_its_places() {
        assert_eq!(README.matches("VERSION").count(), 1);
        assert_eq!(README.matches("GLIBC").count(), 1);
    }
}
