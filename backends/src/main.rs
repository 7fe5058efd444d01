//! Writes every kernel in every language that wgpu has naga write, and has the checkers of the Khronos Group read those that they
//! know. `cargo xtask shaders` runs it.

use anyhow::{Context, Result, bail, ensure};
use bcnorm::kernels::Spec;
use bcnorm_backends::glsl::{Version, glsl};
use bcnorm_backends::hlsl::{ShaderModel, hlsl};
use bcnorm_backends::msl::msl;
use bcnorm_backends::spirv::spirv;
use bcnorm_backends::{Kernel, covering_specs};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

/// A language, for devices of a kind.
struct Target {
    name: &'static str,
    /// Whether wgpu has subgroups there.
    subgroups: bool,
    write: fn(&Kernel) -> Result<Vec<u8>>,
    /// What reads it, with its arguments before the file.
    checker: Option<&'static [&'static str]>,
}

const SPIRV_VAL: &str = "spirv-val";
const GLSLANG: &str = "glslangValidator";

const TARGETS: &[Target] = &[
    Target {
        name: "SPIR-V 1.0, Vulkan 1.0",
        subgroups: false,
        write: |kernel| Ok(words(&spirv(kernel, (1, 0), false)?)),
        checker: Some(&[SPIRV_VAL, "--target-env", "vulkan1.0"]),
    },
    Target {
        name: "SPIR-V 1.6, Vulkan 1.3",
        subgroups: true,
        write: |kernel| Ok(words(&spirv(kernel, (1, 6), true)?)),
        checker: Some(&[SPIRV_VAL, "--target-env", "vulkan1.3"]),
    },
    Target {
        name: "GLSL ES 3.10",
        subgroups: false,
        write: |kernel| Ok(glsl(kernel, Version::new_gles(310))?.into_bytes()),
        checker: Some(&[GLSLANG, "-S", "comp"]),
    },
    Target {
        name: "GLSL 4.30",
        subgroups: false,
        write: |kernel| Ok(glsl(kernel, Version::Desktop(430))?.into_bytes()),
        checker: Some(&[GLSLANG, "-S", "comp"]),
    },
    Target {
        name: "HLSL 5.1, for FXC",
        subgroups: false,
        write: |kernel| Ok(hlsl(kernel, ShaderModel::V5_1)?.0.into_bytes()),
        checker: None,
    },
    Target {
        name: "HLSL 6.0, for DXC",
        subgroups: true,
        write: |kernel| Ok(hlsl(kernel, ShaderModel::V6_0)?.0.into_bytes()),
        checker: None,
    },
    Target {
        name: "MSL 2.4",
        subgroups: true,
        write: |kernel| Ok(msl(kernel, (2, 4))?.into_bytes()),
        checker: None,
    },
];

/// How many complaints of a target are printed, and how much of each.
const SHOWN: usize = 5;
const MAX_COMPLAINT: usize = 400;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// What became of a target's texts.
#[derive(Default)]
struct Outcome {
    written: AtomicUsize,
    /// Of which the checker accepted.
    accepted: AtomicUsize,
    complaints: Mutex<Vec<String>>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    ensure!(
        std::env::args_os().len() == 1,
        "bcnorm-backends takes no arguments"
    );
    for checker in [SPIRV_VAL, GLSLANG] {
        let known = Command::new(checker).arg("--version").output();
        known.with_context(|| {
            format!("{checker} does not run: install spirv-tools and glslang-tools, as Debian names them")
        })?;
    }
    let specs = covering_specs();
    let outcomes: Vec<Outcome> = TARGETS.iter().map(|_| Outcome::default()).collect();
    let folder = tempfile::tempdir().context("a folder for the texts")?;
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for number in 0..threads {
            let own = folder.path().join(number.to_string());
            let (specs, outcomes, next, failed) = (&specs, &outcomes, &next, &failed);
            fs::create_dir(&own).with_context(|| format!("cannot make {}", own.display()))?;
            scope.spawn(move || {
                while let Some(&spec) = specs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = every_target(spec, outcomes, &own) {
                        next.store(specs.len(), Ordering::Relaxed);
                        *failed.lock().unwrap() = Some(error);
                    }
                }
            });
        }
        Ok::<(), anyhow::Error>(())
    })?;
    if let Some(error) = failed.into_inner().unwrap() {
        return Err(error);
    }
    println!(
        "{} kernels, as {} specializations",
        kernels(&specs),
        specs.len()
    );
    let mut good = true;
    for (target, outcome) in TARGETS.iter().zip(outcomes) {
        let written = outcome.written.into_inner();
        let complaints = outcome.complaints.into_inner().unwrap();
        let checked = match target.checker {
            Some(checker) => format!(
                "{} of {written} pass {}",
                outcome.accepted.into_inner(),
                checker[0]
            ),
            None => "written, and checked by nothing here".to_owned(),
        };
        println!("{:<24} {written:>6} texts   {checked}", target.name);
        for complaint in complaints.iter().take(SHOWN) {
            println!("  {complaint}");
        }
        if complaints.len() > SHOWN {
            println!("  and {} more", complaints.len() - SHOWN);
        }
        good &= complaints.is_empty();
    }
    Ok(good)
}

fn kernels(specs: &[Spec]) -> usize {
    let kernels: std::collections::HashSet<_> = specs.iter().map(|spec| spec.kernel).collect();
    kernels.len()
}

/// A specialization in every language.
///
/// # Errors
/// Where a checker or the disk fails; what is wrong with a text is a complaint.
fn every_target(spec: Spec, outcomes: &[Outcome], folder: &Path) -> Result<()> {
    let kernel = Kernel::new(spec);
    let complain = |outcome: &Outcome, what: &str| {
        let complaint = format!("{}: {what}", spec.key());
        outcome.complaints.lock().unwrap().push(complaint);
    };
    let mut to_check = Vec::new();
    for (number, (target, outcome)) in TARGETS.iter().zip(outcomes).enumerate() {
        if spec.subgroup_size > 1 && !target.subgroups {
            continue;
        }
        let text = match &kernel {
            Ok(kernel) => (target.write)(kernel).map_err(|error| format!("{error:#}")),
            Err(error) => Err(format!("{error:#}")),
        };
        match (text, target.checker) {
            (Err(what), _) => complain(outcome, &what),
            (Ok(text), checker) => {
                outcome.written.fetch_add(1, Ordering::Relaxed);
                if let Some(checker) = checker {
                    let file = folder.join(number.to_string());
                    fs::write(&file, text)
                        .with_context(|| format!("cannot write {}", file.display()))?;
                    to_check.push((checker, outcome, file));
                }
            }
        }
    }
    // Those of one checker at once, where it takes several: most of the time goes into starting it.
    for together in to_check.chunk_by(|a, b| a.0 == b.0) {
        let checker = together[0].0;
        let files: Vec<&PathBuf> = together.iter().map(|(_, _, file)| file).collect();
        let all = check(checker, &files)?;
        for (_, outcome, file) in together {
            let said = match (&all, together.len()) {
                (Some(_), 2..) => &check(checker, &[file])?,
                _ => &all,
            };
            match said {
                None => {
                    outcome.accepted.fetch_add(1, Ordering::Relaxed);
                }
                Some(what) => complain(outcome, what),
            }
        }
    }
    Ok(())
}

/// What a checker says against files; nothing where they are good.
///
/// # Errors
/// Where it does not run to its end.
fn check(checker: &[&str], files: &[&PathBuf]) -> Result<Option<String>> {
    let [program, arguments @ ..] = checker else {
        bail!("no checker");
    };
    let said = Command::new(program).args(arguments).args(files).output();
    let said = said.with_context(|| format!("{program} does not run"))?;
    ensure!(said.status.code().is_some(), "{program} was killed");
    if said.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    Ok(Some(text.trim().chars().take(MAX_COMPLAINT).collect()))
}
