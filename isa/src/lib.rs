//! What AMD's compiler makes of bcnorm's kernels, without an AMD GPU: Mesa's RADV has a null device, which compiles
//! for real and runs nothing.
//!
//! - [`plans`]: which kernels
//! - [`device`]: the compiler
//! - [`assembly`]: loops and loads of the final code
//! - [`mod@figures`], [`report`]: what is said of it
//! - [`model`]: what `bcnorm info --card` is given of it

pub mod assembly;
pub mod device;
pub mod figures;
pub mod model;
pub mod plans;
pub mod report;

use anyhow::{Result, ensure};
use device::{Compiled, Compiler, FORCE_FAMILY};
use figures::Figures;
use plans::Entry;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, thread};

/// Families of all generations since GCN 3 (RADV's names). Which of them there are, the installed Mesa decides: 22.3 has the
/// first four.
pub const FAMILIES: [&str; 6] = [
    "polaris10",
    "vega10",
    "navi10",
    "navi21",
    "navi31",
    "gfx1201",
];

/// A compiler for a family. RADV ends a process that asks for a family that it does not know.
///
/// # Errors
/// Where there is no RADV.
pub fn compiler(family: &str) -> Result<Compiler> {
    // SAFETY: no other thread runs: those of `compile` have ended, and drivers start theirs with a device.
    unsafe { env::set_var(FORCE_FAMILY, family) };
    Compiler::new()
}

/// Compiles kernels on all processors and gives what `keep` makes of each, in their order.
///
/// # Errors
/// The first kernel that is refused.
pub fn compile<T: Send>(
    compiler: &Compiler,
    entries: &[Entry],
    keep: impl Fn(&Entry, Compiled) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(entries.len()));
    let work = || {
        while let index = next.fetch_add(1, Ordering::Relaxed)
            && let Some(entry) = entries.get(index)
        {
            let result = compiler
                .compile(&entry.spec)
                .and_then(|compiled| keep(entry, compiled));
            let result = result.map_err(|error| {
                error.context(format!("{} ({})", entry.spec.kernel.name(), entry.plan))
            });
            if let Ok(mut results) = results.lock() {
                results.push((index, result));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().unwrap_or_default();
    results.sort_by_key(|(index, _)| *index);
    ensure!(
        results.len() == entries.len(),
        "a thread that compiles has ended"
    );
    results.into_iter().map(|(_, result)| result).collect()
}

/// The figures of kernels on a family.
///
/// # Errors
/// As [`compile`].
pub fn figures(family: &str, compiler: &Compiler, entries: &[Entry]) -> Result<Vec<Figures>> {
    compile(compiler, entries, |entry, compiled| {
        Figures::new(family, &entry.plan, &entry.spec, &compiled)
    })
}
