//! The set-up: sees that the drivers are there that a task needs, and on Linux
//! installs the missing ones with apt-get.

use std::env;
use std::env::consts::OS;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::say;
use crate::system::System;

/// What the drivers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One Vulkan driver, whichever.
    Demo,
    /// llvmpipe for Vulkan and for GL, and SwiftShader where it can be had.
    Test,
}

/// What the set-up left behind.
#[derive(Debug)]
pub struct Outcome {
    /// The machine, after any installation.
    pub system: System,
    /// Whether there is any driver at all to run on.
    pub usable: bool,
    /// Whether all is there that the scope asks for.
    pub complete: bool,
    /// Adapters that should exist now: a test run without one of them lacks something.
    pub adapters: Vec<&'static str>,
}

/// Looks, installs what is missing unless told not to, and says what came of it.
pub fn prepare(scope: Scope, install: bool) -> Outcome {
    let mut system = System::probe();
    if OS != "linux" {
        say(match OS {
            "macos" => "set-up: macOS runs on Metal; nothing to install",
            "windows" => "set-up: Windows runs on DX12; nothing to install",
            _ => "set-up: nothing is installed on this system; its own Vulkan or GL is used",
        });
        return Outcome {
            system,
            usable: true,
            complete: true,
            adapters: Vec::new(),
        };
    }
    let mut lacks = Lacks::of(&system, scope);
    let mut why = String::new();
    let mut chromium = false;
    if lacks.any() {
        let apt = apt_prefix(
            install,
            |name| system.program(name),
            is_root(),
            io::stdin().is_terminal(),
        );
        match apt {
            Ok(prefix) => {
                if let Err(failure) = fill(&lacks, &system, &prefix) {
                    why = failure;
                }
                system = System::probe();
                lacks = Lacks::of(&system, scope);
            }
            Err(reason) => why = reason,
        }
        chromium = lacks.swiftshader && chromium_candidate();
    }
    let problems = problems(&lacks, &system, chromium);
    if problems.is_empty() {
        say(&format!("set-up: {}", summary(&lacks, &system, scope)));
    } else {
        if !why.is_empty() {
            say(&format!("set-up: {why}"));
        }
        for problem in &problems {
            say(&format!("set-up: {problem}"));
        }
    }
    let loads = system.vulkan_loader().is_some();
    Outcome {
        usable: loads && !system.usable_drivers().is_empty(),
        complete: problems.is_empty(),
        adapters: adapters(&system, chromium),
        system,
    }
}

/// Installs packages of Debian's; an error says why that could not be.
pub fn install(system: &System, packages: &[&str], install: bool) -> Result<(), String> {
    let terminal = io::stdin().is_terminal();
    let prefix = apt_prefix(install, |name| system.program(name), is_root(), terminal)?;
    // A stale list may do: the installation says whether it did.
    let _ = apt(&prefix, &["update"]);
    add(&prefix, packages)
}

/// What goes before a command that takes root, or why that cannot be.
pub fn as_root(system: &System) -> Result<Vec<&'static str>, String> {
    let terminal = io::stdin().is_terminal();
    root_prefix(|name| system.program(name), is_root(), terminal)
}

/// Whether the toolchain that runs this has the standard library of a target; rustup adds it where it may.
pub fn rust_target(system: &System, target: &str, install: bool) -> bool {
    let there = || {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let printed = Command::new(rustc)
            .args(["--print", "target-libdir", "--target", target])
            .output();
        printed.is_ok_and(|output| {
            let folder = String::from_utf8_lossy(&output.stdout);
            output.status.success() && Path::new(folder.trim()).is_dir()
        })
    };
    if !there() && install && system.program("rustup") {
        say(&format!("set-up: adding the target {target} with rustup"));
        // Where that fails, the target is not there.
        let _ = Command::new("rustup")
            .args(["target", "add", target])
            .stdout(Stdio::null())
            .status();
    }
    there()
}

/// What is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lacks {
    /// Vulkan's loader.
    loader: bool,
    /// A Vulkan driver: any for the demo, llvmpipe for the tests.
    driver: bool,
    /// Mesa's EGL and its software renderer.
    gl: bool,
    /// SwiftShader.
    swiftshader: bool,
}

impl Lacks {
    /// Compares what is there with what the scope asks for. Where the user has
    /// chosen the Vulkan drivers, any of them will do and no other is wanted.
    fn of(system: &System, scope: Scope) -> Self {
        let drivers = system.drivers();
        let test = scope == Scope::Test;
        let chosen = system.pinned().is_some();
        Self {
            loader: system.vulkan_loader().is_none(),
            driver: if test && !chosen {
                !drivers.iter().any(|driver| driver.is_lavapipe())
            } else {
                system.usable_drivers().is_empty()
            },
            gl: test && !system.mesa_gl(),
            swiftshader: test
                && !chosen
                && system.swiftshader().is_none()
                && !drivers.iter().any(|driver| driver.is_swiftshader()),
        }
    }

    /// Whether anything is missing.
    fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Debian's packages for it, Chromium aside.
    fn packages(&self, system: &System) -> Vec<&'static str> {
        let mut packages = Vec::new();
        let driver = self.driver && system.pinned().is_none();
        if self.loader || driver {
            packages.push("libvulkan1");
        }
        if driver {
            packages.push("mesa-vulkan-drivers");
        }
        if self.gl {
            packages.extend(["libegl1", "libegl-mesa0", "libgles2", "libgl1-mesa-dri"]);
        }
        packages
    }
}

/// What to say of all that is still missing, with the way to get it. SwiftShader
/// counts only where it can be installed.
fn problems(lacks: &Lacks, system: &System, chromium: bool) -> Vec<String> {
    let mut problems = Vec::new();
    let mut names = Vec::new();
    match system.pinned() {
        Some(name) if lacks.driver => problems.push(format!(
            "{name} is set, but no driver's manifest and library are where it points: \
             correct or unset it"
        )),
        _ if lacks.driver => names.push("Vulkan driver (Mesa's llvmpipe will do)"),
        _ => {}
    }
    if lacks.loader {
        names.push("Vulkan loader (libvulkan.so.1)");
    }
    if lacks.gl {
        names.push("Mesa EGL with its software renderer");
    }
    if !names.is_empty() {
        let how = instructions(lacks, system);
        problems.push(format!("missing: {}. {how}", names.join(", ")));
    }
    if lacks.swiftshader && chromium {
        problems.push(format!(
            "missing: SwiftShader, which Chromium ships. Install it: {} chromium",
            apt_line()
        ));
    }
    problems
}

/// One line for when nothing is wrong.
fn summary(lacks: &Lacks, system: &System, scope: Scope) -> String {
    let drivers = system.usable_drivers();
    let names: Vec<&str> = drivers
        .iter()
        .map(|driver| driver.library.as_str())
        .collect();
    let drivers = names.join(", ");
    match (scope, system.pinned()) {
        (_, Some(name)) => format!("Vulkan drivers as {name} has it: {drivers}"),
        (Scope::Demo, None) => format!("Vulkan drivers found: {drivers}"),
        (Scope::Test, None) if lacks.swiftshader => {
            "llvmpipe is here, for Vulkan and GL; SwiftShader is not (Chromium and Chrome \
             ship it, and no package of it was found): the tests go without"
                .to_owned()
        }
        (Scope::Test, None) => "llvmpipe (Vulkan and GL) and SwiftShader are here".to_owned(),
    }
}

/// The adapters that a complete set-up yields, by the tests' names for them. With a
/// GPU, Mesa's EGL offers that rather than llvmpipe.
fn adapters(system: &System, chromium: bool) -> Vec<&'static str> {
    let drivers = system.drivers();
    let chosen = system.pinned().is_some();
    let mut adapters = Vec::new();
    if !chosen || drivers.iter().any(|driver| driver.is_lavapipe()) {
        adapters.push("llvmpipe-vulkan");
    }
    if !system.has_gpu() {
        adapters.push("llvmpipe-gl");
    }
    let extra = !chosen && (chromium || system.swiftshader().is_some());
    if extra || drivers.iter().any(|driver| driver.is_swiftshader()) {
        adapters.push("swiftshader-vulkan");
    }
    adapters
}

/// How to install by hand what is missing.
fn instructions(lacks: &Lacks, system: &System) -> String {
    /// Other systems' names: the command, its packages for Vulkan, those for GL.
    const ELSEWHERE: [(&str, &str, &str, &str); 4] = [
        (
            "dnf",
            "sudo dnf install",
            "vulkan-loader mesa-vulkan-drivers",
            "mesa-libEGL libglvnd-gles mesa-dri-drivers",
        ),
        (
            "pacman",
            "sudo pacman -S",
            "vulkan-icd-loader vulkan-swrast",
            "mesa libglvnd",
        ),
        (
            "apk",
            "apk add",
            "vulkan-loader mesa-vulkan-swrast",
            "mesa-egl mesa-gles mesa-dri-gallium",
        ),
        (
            "zypper",
            "sudo zypper install",
            "libvulkan1 libvulkan_lvp",
            "Mesa-libEGL1 Mesa-dri",
        ),
    ];
    if system.program("apt-get") {
        return format!(
            "Install it: {} {}",
            apt_line(),
            lacks.packages(system).join(" ")
        );
    }
    let found = ELSEWHERE
        .into_iter()
        .find(|(name, ..)| system.program(name));
    let Some((_, command, vulkan, gl)) = found else {
        return "Install it with this system's package manager; Mesa calls llvmpipe's Vulkan \
                driver lavapipe, and its packages mesa-vulkan-drivers or vulkan-swrast"
            .to_owned();
    };
    let vulkan = if lacks.loader || lacks.driver {
        vulkan
    } else {
        ""
    };
    let packages = if lacks.gl {
        format!("{vulkan} {gl}")
    } else {
        vulkan.to_owned()
    };
    format!("Install it: {command} {}", packages.trim())
}

/// The command to type where apt-get exists.
fn apt_line() -> &'static str {
    "sudo apt-get update && sudo apt-get install --no-install-recommends"
}

/// What goes before apt-get to install with it, or why that cannot be.
fn apt_prefix(
    install: bool,
    has: impl Fn(&str) -> bool,
    root: bool,
    terminal: bool,
) -> Result<Vec<&'static str>, String> {
    if !install {
        Err("nothing installed, as --no-install asks".to_owned())
    } else if !has("apt-get") {
        Err("nothing installed: there is no apt-get here".to_owned())
    } else {
        root_prefix(has, root, terminal).map_err(|why| format!("nothing installed: {why}"))
    }
}

/// What goes before a command that takes root. Without a terminal sudo must not ask for a password.
fn root_prefix(
    has: impl Fn(&str) -> bool,
    root: bool,
    terminal: bool,
) -> Result<Vec<&'static str>, String> {
    if root {
        Ok(Vec::new())
    } else if !has("sudo") {
        Err("that takes root, and there is no sudo here".to_owned())
    } else if terminal {
        Ok(vec!["sudo"])
    } else {
        Ok(vec!["sudo", "-n"])
    }
}

/// The whole command for apt-get, in English and without questions.
fn apt_command<'a>(prefix: &[&'a str], args: &[&'a str]) -> Vec<&'a str> {
    let fixed = [
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "LC_ALL=C",
        "apt-get",
    ];
    let options = ["-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3"];
    [prefix, &fixed, &options, args].concat()
}

/// Installs what is missing; an error holds the end of what apt-get said.
fn fill(lacks: &Lacks, system: &System, prefix: &[&str]) -> Result<(), String> {
    let packages = lacks.packages(system);
    let mut result = Ok(());
    // Asking for Chromium needs lists; where they are and it has none, be quick.
    let mut updated = false;
    let mut update = || {
        if !updated {
            say("set-up: some drivers are missing; refreshing apt-get's lists");
            // A stale list may do: the installation says whether it did.
            let _ = apt(prefix, &["update"]);
        }
        updated = true;
    };
    if !packages.is_empty() {
        update();
        result = add(prefix, &packages);
    }
    if lacks.swiftshader {
        if !system.apt_lists() {
            update();
        }
        if chromium_candidate() {
            update();
            result = result.and(add(prefix, &["chromium"]));
        }
    }
    result
}

/// Installs these packages.
fn add(prefix: &[&str], packages: &[&str]) -> Result<(), String> {
    let list = packages.join(" ");
    say(&format!(
        "set-up: installing {list} with apt-get (a minute or so)"
    ));
    let args = [&["install", "-y", "--no-install-recommends"], packages].concat();
    apt(prefix, &args).map_err(|said| format!("apt-get could not install {list}:\n{said}"))
}

/// Runs apt-get; an error is the end of what it said. Some of its locks know no
/// time-out, so wait for them here: two minutes.
fn apt(prefix: &[&str], args: &[&str]) -> Result<(), String> {
    let line = apt_command(prefix, args);
    let mut patience = 12;
    loop {
        let output = Command::new(line[0])
            .args(&line[1..])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{}: {error}", line[0]))?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        if patience == 0 || !stderr.contains("Could not get lock") {
            let stdout = String::from_utf8_lossy(&output.stdout);
            return Err([tail(&stdout, 5), tail(&stderr, 15)]
                .concat()
                .trim_end()
                .to_owned());
        }
        patience -= 1;
        thread::sleep(Duration::from_secs(10));
    }
}

/// The last lines of a text, indented.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let kept = &lines[lines.len().saturating_sub(count)..];
    kept.iter().map(|line| format!("  {line}\n")).collect()
}

/// Whether apt can install a real Chromium.
fn chromium_candidate() -> bool {
    apt_candidate("chromium").is_some()
}

/// The version of a package that apt would install.
pub fn apt_candidate(package: &str) -> Option<String> {
    let asked = Command::new("apt-cache")
        .args(["policy", package])
        .env("LC_ALL", "C")
        .output();
    candidate(&String::from_utf8_lossy(&asked.ok()?.stdout)).map(str::to_owned)
}

/// The version that `apt-cache policy` would install; Ubuntu's stand-ins for snaps
/// hold no files and count as none.
fn candidate(policy: &str) -> Option<&str> {
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))?
        .trim();
    (version != "(none)" && !version.contains("snap")).then_some(version)
}

/// Whether this is root, as `id` knows it; if it does not say, no.
fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_is_used_only_as_it_may_be() {
        let all = |_: &str| true;
        let no_sudo = |name: &str| name != "sudo";
        let none = |_: &str| false;
        let refused = |install, has: fn(&str) -> bool, root, why: &str| {
            let error = apt_prefix(install, has, root, true).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        refused(false, all, true, "--no-install");
        refused(true, none, true, "no apt-get");
        refused(true, no_sudo, false, "no sudo");
        assert_eq!(apt_prefix(true, no_sudo, true, true).unwrap(), [""; 0]);
        assert_eq!(apt_prefix(true, all, true, false).unwrap(), [""; 0]);
        assert_eq!(apt_prefix(true, all, false, true).unwrap(), ["sudo"]);
        assert_eq!(apt_prefix(true, all, false, false).unwrap(), ["sudo", "-n"]);
    }

    #[test]
    fn apt_asks_nothing() {
        let line = apt_command(&["sudo", "-n"], &["install", "-y", "libvulkan1"]).join(" ");
        assert!(
            line.starts_with("sudo -n env DEBIAN_FRONTEND=noninteractive "),
            "{line}"
        );
        assert!(
            line.contains(" apt-get -o DPkg::Lock::Timeout=120 "),
            "{line}"
        );
        assert!(line.ends_with(" install -y libvulkan1"), "{line}");
    }

    #[test]
    fn snaps_are_no_candidates() {
        let policy = |version: &str| {
            format!("chromium:\n  Installed: (none)\n  Candidate: {version}\n  Version table:\n")
        };
        assert_eq!(
            candidate(&policy("156.0.8078.79-1~deb12u1")),
            Some("156.0.8078.79-1~deb12u1")
        );
        assert_eq!(candidate(&policy("(none)")), None);
        assert_eq!(candidate(&policy("2:1snap1-0ubuntu2")), None);
        assert_eq!(candidate(""), None);
    }

    #[test]
    fn tails_are_short() {
        assert_eq!(tail("a\n\nb\nc\n", 2), "  b\n  c\n");
        assert_eq!(tail("", 2), "");
    }
}

#[cfg(all(test, unix))]
mod machine_tests {
    use super::*;
    use crate::system::fake::Machine;

    /// These pieces.
    fn lacks(names: &str) -> Lacks {
        let has = |name| names.split(' ').any(|other| other == name);
        Lacks {
            loader: has("loader"),
            driver: has("driver"),
            gl: has("gl"),
            swiftshader: has("swiftshader"),
        }
    }

    #[test]
    fn each_missing_piece_is_named_and_no_other() {
        let bare = Machine::bare();
        let all = lacks("loader driver gl swiftshader");
        assert_eq!(Lacks::of(&bare.system, Scope::Test), all);
        let demo = Lacks::of(&bare.system, Scope::Demo);
        assert_eq!(demo, lacks("loader driver"));
        assert_eq!(
            demo.packages(&bare.system),
            ["libvulkan1", "mesa-vulkan-drivers"]
        );

        let full = Machine::bare().loader().lavapipe().gl().swiftshader();
        for scope in [Scope::Demo, Scope::Test] {
            let lacks = Lacks::of(&full.system, scope);
            assert!(!lacks.any(), "{lacks:?}");
            assert!(problems(&lacks, &full.system, true).is_empty());
        }
        let only = |machine: Machine| Lacks::of(&machine.system, Scope::Test);
        let lavapipe_only = Machine::bare().loader().lavapipe();
        assert_eq!(only(lavapipe_only.gl()), lacks("swiftshader"));
        let no_gl = Machine::bare().loader().lavapipe().swiftshader();
        assert_eq!(only(no_gl), lacks("gl"));
        let no_loader = Machine::bare().lavapipe().gl().swiftshader();
        assert_eq!(only(no_loader), lacks("loader"));
    }

    #[test]
    fn tests_want_llvmpipe_beside_a_gpu() {
        let machine = Machine::bare()
            .loader()
            .driver(
                "/usr/share/vulkan/icd.d/radeon_icd.json",
                "libvulkan_radeon.so",
            )
            .file("/dev/dri/renderD128", "");
        assert!(!Lacks::of(&machine.system, Scope::Demo).any());
        let lacks = Lacks::of(&machine.system, Scope::Test);
        assert!(lacks.driver);
        assert!(
            lacks
                .packages(&machine.system)
                .contains(&"mesa-vulkan-drivers")
        );
        assert_eq!(adapters(&machine.system, false), ["llvmpipe-vulkan"]);
    }

    #[test]
    fn a_wrong_choice_of_drivers_is_the_users_to_mend() {
        let machine = Machine::bare()
            .loader()
            .lavapipe()
            .gl()
            .var("VK_ICD_FILENAMES", "/no.json");
        let found = Lacks::of(&machine.system, Scope::Test);
        assert_eq!(found, lacks("driver"));
        assert!(found.packages(&machine.system).is_empty());
        let problems = problems(&found, &machine.system, false);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("VK_ICD_FILENAMES"), "{problems:?}");
        assert_eq!(adapters(&machine.system, true), ["llvmpipe-gl"]);
    }

    #[test]
    fn adapters_follow_the_drivers() {
        let full = Machine::bare().loader().lavapipe().gl().swiftshader();
        let all = ["llvmpipe-vulkan", "llvmpipe-gl", "swiftshader-vulkan"];
        assert_eq!(adapters(&full.system, false), all);
        let without = Machine::bare().loader().lavapipe().gl();
        assert_eq!(adapters(&without.system, false), all[..2]);
        assert_eq!(
            adapters(&without.system, true),
            all,
            "what can be installed is expected"
        );
        let file = "/usr/lib/chromium/vk_swiftshader_icd.json";
        let chosen = full.var("VK_DRIVER_FILES", file);
        assert_eq!(adapters(&chosen.system, false), all[1..]);
    }

    #[test]
    fn every_package_manager_gets_its_names() {
        let vulkan = lacks("loader driver");
        for (program, package) in [
            ("apt-get", "mesa-vulkan-drivers"),
            ("dnf", "mesa-vulkan-drivers"),
            ("pacman", "vulkan-swrast"),
            ("apk", "mesa-vulkan-swrast"),
            ("zypper", "libvulkan_lvp"),
            ("nix", "lavapipe"),
        ] {
            let machine = Machine::bare()
                .file(&format!("/usr/bin/{program}"), "")
                .var("PATH", "/usr/bin");
            let said = problems(&vulkan, &machine.system, false).concat();
            assert!(
                said.contains("libvulkan.so.1") && said.contains(package),
                "{said}"
            );
            assert!(!said.to_lowercase().contains("egl"), "{said}");
        }
    }
}
