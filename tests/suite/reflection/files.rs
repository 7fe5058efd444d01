//! Files against lists.

use super::specs::{spec, specs};
use bcnorm::kernels::{Family, KernelId, wgsl};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub fn shaders() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders")
}

/// Names (without ending) and texts of a folder's files with one ending, and no other files.
fn files(folder: &Path, ending: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files = Vec::new();
    for path in entries.filter(|path| path.is_file()) {
        assert_eq!(path.extension().unwrap(), ending, "{}", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        files.push((name, std::fs::read_to_string(&path).unwrap()));
    }
    assert!(!files.is_empty());
    files
}

#[test]
fn shaders_are_the_kernels() {
    let files = files(&shaders(), "wgsl");
    let in_folder: BTreeSet<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let declared: BTreeSet<&str> = KernelId::ALL.iter().map(|kernel| kernel.name()).collect();
    assert_eq!(in_folder, declared);
    assert_eq!(
        KernelId::ALL.len(),
        declared.len(),
        "a kernel is listed twice"
    );
    for (name, text) in &files {
        let kernel = KernelId::ALL
            .iter()
            .find(|kernel| kernel.name() == name)
            .unwrap();
        assert_eq!(kernel.kernel().text, text, "{name}");
        // Lines of each word that an invocation takes at a time.
        let words = match kernel.kernel().family {
            Family::ElementReduce => 4,
            _ => 1,
        };
        // And a sample.
        let each = |line: &str| {
            let lines = if line.contains('#') { words } else { 1 };
            let line = line.replace('$', "0");
            let of = |word: usize| line.replace('#', &word.to_string()) + "\n";
            (0..lines).map(of).collect::<String>()
        };
        let expected: String = text.lines().map(each).collect();
        assert!(wgsl(&spec(*kernel, 8)).ends_with(&expected), "{name}");
        assert!(
            text.starts_with("// "),
            "{name} does not open with what a workgroup owns"
        );
    }
}

#[test]
fn every_part_is_used() {
    let texts: Vec<String> = specs().iter().map(wgsl).collect();
    for (name, text) in files(&shaders().join("parts"), "wgsl") {
        assert!(
            text.starts_with("// "),
            "{name} does not open with a comment"
        );
        // Accessors are a text for each tensor; a tensor that is only read has the first part.
        let text = text.replace("TENSOR", "x");
        for text in text.split("// Where it is written:\n") {
            let other = text.replace("_x(", "_y(").replace("x[", "y[");
            assert!(
                texts
                    .iter()
                    .any(|whole| whole.contains(text) || whole.contains(&other)),
                "no kernel has the part {name}: {text}"
            );
        }
    }
}

#[test]
fn every_kernel_has_a_mirror() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stages");
    let files = files(&folder, "rs");
    for &kernel in KernelId::ALL {
        let openings = ["(", "<"].map(|next| format!("\npub fn {}{next}", kernel.name()));
        let of_file = |text: &String| {
            openings
                .iter()
                .map(|o| text.matches(o).count())
                .sum::<usize>()
        };
        let found: usize = files.iter().map(|(_, text)| of_file(text)).sum();
        assert_eq!(found, 1, "mirrors of {}", kernel.name());
    }
}
