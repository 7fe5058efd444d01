//! The modules for burn: a workspace of their own, so that burn's dependencies are in no other build. Built in one profile,
//! into `target/burn`.

use crate::tasks::Step;

/// A cargo command in that workspace.
fn step(name: &'static str, command: &str, args: &[&str]) -> Step {
    let place = [
        "--manifest-path",
        "integrations/burn/Cargo.toml",
        "--target-dir",
        "target/burn",
    ];
    Step::new(name, &[&[command], &place[..], args].concat())
}

/// Its formatting.
pub fn fmt() -> Step {
    let manifest = "integrations/burn/Cargo.toml";
    Step::new(
        "fmt, burn",
        &["fmt", "--manifest-path", manifest, "--check"],
    )
}

/// Its lints.
pub fn clippy() -> Step {
    let strict = ["--all-targets", "--", "-D", "warnings"];
    step("clippy, burn", "clippy", &strict)
}

/// Its documentation.
pub fn doc() -> Step {
    step("doc, burn", "doc", &["--no-deps"])
}

/// Its tests, those in the documentation too.
pub fn test() -> Step {
    step("test, burn", "test", &[])
}

/// Beside burn's own modules.
pub fn bench() -> Step {
    step("bench, burn", "bench", &["--profile", "dev"])
}
