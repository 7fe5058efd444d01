//! What a registry would get: the library, and nothing of the packages beside it.
#![allow(missing_docs)]

use std::env;
use std::path::Path;
use std::process::Command;

#[test]
fn the_library_is_packaged_alone_and_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    let output = Command::new(cargo)
        .args(["package", "--list", "--package", "bcnorm"])
        .args(["--allow-dirty", "--offline"])
        .current_dir(root)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let listed = String::from_utf8(output.stdout).unwrap();
    let listed: Vec<String> = listed.lines().map(|line| line.replace('\\', "/")).collect();
    for file in &listed {
        let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
        let wanted = match folder {
            "" => [
                ".cargo_vcs_info.json",
                "ARCHITECTURE.md",
                "Cargo.lock",
                "Cargo.toml",
                "Cargo.toml.orig",
                "LICENSE-APACHE",
                "LICENSE-MIT",
                "README.md",
            ]
            .contains(&name),
            // Without the folders in it, which are packages of their own.
            "examples" => name.ends_with(".rs") || name.ends_with(".py"),
            "docs" => name.ends_with(".md") || name.ends_with(".svg"),
            _ => folder.starts_with("src") || folder.starts_with("shaders"),
        };
        assert!(wanted, "{file} is packaged");
    }
    for file in [
        "src/lib.rs",
        "src/plan/split.rs",
        "shaders/parts/params/blocks.wgsl",
        "shaders/row_moments.wgsl",
        "examples/layer.rs",
        "README.md",
        "docs/numerics.md",
        "docs/two-passes-dark.svg",
        "LICENSE-MIT",
    ] {
        assert!(
            listed.iter().any(|listed| listed == file),
            "{file} is not packaged"
        );
    }
}
