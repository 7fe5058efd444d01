//! What a registry would get: the library, and nothing of the packages beside it; the command, and what it needs.
#![allow(missing_docs)]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// What a program prints, which must succeed.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Cargo in a folder, without a network.
fn cargo(folder: &Path, arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(arguments).arg("--offline").current_dir(folder);
    cargo
}

#[test]
fn the_library_is_packaged_alone_and_whole() {
    let list = ["package", "--list", "-p", "bcnorm", "--allow-dirty"];
    let listed = printed(&mut cargo(root(), &list));
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
            "docs" => [".md", ".svg", ".png", ".jpg"]
                .iter()
                .any(|end| name.ends_with(end)),
            _ => folder.starts_with("src") || folder.starts_with("shaders"),
        };
        assert!(wanted, "{file} is packaged");
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let pictures: Vec<&str> = readme
        .split("![")
        .skip(1)
        .filter_map(|picture| picture.split_once("](")?.1.split(')').next())
        .collect();
    assert!(pictures.len() >= 4, "{pictures:?}");
    let files = [
        "src/lib.rs",
        "src/plan/split.rs",
        "shaders/parts/params/blocks.wgsl",
        "shaders/row_moments.wgsl",
        "examples/layer.rs",
        "README.md",
        "docs/numerics.md",
        "docs/two-passes-dark.svg",
        "LICENSE-APACHE",
        "LICENSE-MIT",
    ];
    for file in files.into_iter().chain(pictures) {
        assert!(
            listed.iter().any(|listed| listed == file),
            "{file} is not packaged"
        );
    }
}

/// Cargo and npm take licences from the package's own folder only.
#[test]
fn every_published_package_has_the_licences() {
    for folder in ["cli", "testkit", "web", "integrations/mpi"] {
        for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
            let copy = root().join(folder).join(name);
            let copy =
                fs::read(&copy).unwrap_or_else(|error| panic!("{}: {error}", copy.display()));
            let original = fs::read(root().join(name)).unwrap();
            assert!(copy == original, "{folder}/{name} is not {name}");
        }
    }
}

/// The code block of a language in a Markdown text that has some words in it.
fn block<'a>(text: &'a str, language: &str, words: &str) -> &'a str {
    let fence = format!("```{language}\n");
    let mut blocks = text
        .split(&fence)
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    blocks
        .find(|block| block.contains(words))
        .unwrap_or_else(|| panic!("no block of {language} has {words}"))
}

/// The packages of library, testkit and command, away from the workspace: a project of README's own lines, and the
/// command. The folder is the same on every run, so only the first compiles the dependencies.
#[test]
fn the_packages_build_in_another_project() {
    let target = root().join("target/packed");
    let folder = target.join("project");
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(folder.join("consumer/src")).unwrap();
    let packages = ["bcnorm", "bcnorm-testkit", "bcnorm-cli"];
    let mut package = cargo(root(), &["package", "--no-verify", "--allow-dirty"]);
    package.args(packages.map(|name| format!("--package={name}")));
    printed(package.arg("--target-dir").arg(&target));
    for name in packages {
        let unpacked = format!("{name}-{}", env!("CARGO_PKG_VERSION"));
        let archive = target.join(format!("package/{unpacked}.crate"));
        let mut tar = Command::new("tar");
        // -m: dated today. By the archive's date, 2006, cargo would take every file for what it checked before.
        printed(tar.arg("-xzmf").arg(archive).arg("-C").arg(&folder));
        fs::rename(folder.join(unpacked), folder.join(name)).unwrap();
        for file in ["README.md", "LICENSE-APACHE", "LICENSE-MIT"] {
            assert!(folder.join(name).join(file).is_file(), "{name}: {file}");
        }
    }

    let readme = fs::read_to_string(folder.join("bcnorm/README.md")).unwrap();
    let dependencies = block(&readme, "toml", "[dependencies]");
    let consumer = format!("[package]\nname = \"consumer\"\nedition = \"2024\"\n\n{dependencies}");
    let workspace = "[workspace]\nmembers = [\"consumer\", \"bcnorm-cli\"]\nresolver = \"3\"\n\n\
        [patch.crates-io]\nbcnorm = { path = \"bcnorm\" }\nbcnorm-testkit = { path = \"bcnorm-testkit\" }\n";
    for (file, text) in [
        ("Cargo.toml", workspace),
        ("consumer/Cargo.toml", &consumer),
        ("consumer/src/main.rs", block(&readme, "rust", "fn main()")),
    ] {
        fs::write(folder.join(file), text).unwrap();
    }
    // The versions that are on this machine.
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let mut check = cargo(&folder, &["check", "-p", "consumer", "-p", "bcnorm-cli"]);
    printed(check.arg("--target-dir").arg(&target));
}
