//! bcnorm in what others have (integrations/): workspaces of their own, so that their dependencies are in no other build.
//! Each is built into `target/` under its name.

use std::ffi::OsString;

use crate::say;
use crate::setup;
use crate::system::System;
use crate::tasks::Step;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integration {
    /// Modules for burn.
    Burn,
    /// Batch statistics of several ranks.
    Mpi,
}

/// What to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run its tests.
    Test,
    /// Measure it.
    Bench,
}

/// What MPI's crate is built on, as Debian has it: MPI, its commands, and what reads its header. Both want it: training in burn
/// over several ranks is tested, too.
const MPI_PACKAGES: [&str; 3] = ["libopenmpi-dev", "openmpi-bin", "libclang-dev"];

impl Integration {
    /// All.
    pub const ALL: [Self; 2] = [Self::Burn, Self::Mpi];

    /// Its folder, and the name of its command.
    pub fn name(self) -> &'static str {
        match self {
            Self::Burn => "burn",
            Self::Mpi => "mpi",
        }
    }

    /// Installs what it takes beside a Vulkan driver; an error says what is missing, and how to get it.
    pub fn prepare(self, system: &System, install: bool) -> Result<(), String> {
        let complete = |system: &System| {
            let programs = ["mpirun", "mpicc"].iter().all(|name| system.program(name));
            programs && system.has_libclang()
        };
        if complete(system) {
            return Ok(());
        }
        let installed = setup::install(system, &MPI_PACKAGES, install);
        if complete(&System::probe()) {
            return Ok(());
        }
        if let Err(why) = installed {
            say(&format!("set-up: {why}"));
        }
        Err(format!(
            "missing: an MPI (mpirun, mpicc) or libclang. On Debian install {}; elsewhere Open MPI or MPICH, and libclang",
            MPI_PACKAGES.join(" ")
        ))
    }

    /// Its formatting, lints and documentation.
    pub fn checks(self, rustdocflags: OsString) -> [Step; 3] {
        let [fmt, clippy, doc] = match self {
            Self::Burn => ["fmt, burn", "clippy, burn", "doc, burn"],
            Self::Mpi => ["fmt, mpi", "clippy, mpi", "doc, mpi"],
        };
        let manifest = self.manifest();
        [
            Step::new(fmt, &["fmt", "--manifest-path", &manifest, "--check"]).args(
                self.packages()
                    .iter()
                    .map(|name| format!("--package={name}").into())
                    .collect(),
            ),
            self.step(
                clippy,
                "clippy",
                &[self.all(), &["--all-targets", "--", "-D", "warnings"]].concat(),
            ),
            self.step(doc, "doc", &[self.all(), &["--no-deps"]].concat())
                .envs(vec![("RUSTDOCFLAGS", rustdocflags)]),
        ]
    }

    /// Its tests, those in the documentation too.
    pub fn test(self) -> Step {
        match self {
            Self::Burn => self.step("test, burn", "test", self.all()),
            Self::Mpi => self.step("test, mpi", "test", self.all()),
        }
    }

    /// Its measurement.
    pub fn bench(self) -> Step {
        match self {
            Self::Burn => self.step("bench, burn", "bench", &["-p", "bcnorm-burn"]),
            Self::Mpi => self.step("bench, mpi", "run", &["--example", "exchange"]),
        }
    }

    /// The training of `train-digits`, which is a member of burn's.
    pub fn train(args: Vec<OsString>) -> Step {
        let run = ["--release", "-p", "train-digits", "--"];
        Self::Burn.step("train", "run", &run).args(args)
    }

    /// All members, with all that they can do.
    fn all(self) -> &'static [&'static str] {
        match self {
            Self::Burn => &["--workspace", "--features", "train-digits/mpi"],
            Self::Mpi => &["--workspace"],
        }
    }

    /// The members of its workspace.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Burn => &["bcnorm-burn", "train-digits"],
            Self::Mpi => &["bcnorm-mpi"],
        }
    }

    fn manifest(self) -> String {
        format!("integrations/{}/Cargo.toml", self.name())
    }

    /// A cargo command in that workspace.
    fn step(self, name: &'static str, command: &str, args: &[&str]) -> Step {
        let (manifest, target) = (self.manifest(), format!("target/{}", self.name()));
        let place = ["--manifest-path", &manifest, "--target-dir", &target];
        Step::new(name, &[&[command], &place[..], args].concat())
    }
}
