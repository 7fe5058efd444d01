//! Files against lists.

use super::specs::{spec, specs};
use bcnorm::kernels::{KernelId, wgsl};
use naga::valid::Capabilities;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[path = "../../../examples/print_wgsl.rs"]
#[allow(dead_code)]
mod print_wgsl;

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
        assert!(
            text.starts_with("// "),
            "{name} does not open with what a workgroup owns"
        );
    }
}

/// The folders of parts, and `parts` itself: names by their path from there, and texts.
fn parts() -> Vec<(String, String)> {
    let folder = shaders().join("parts");
    let mut parts = files(&folder, "wgsl");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let within = path.file_name().unwrap().to_str().unwrap();
            let files = files(&path, "wgsl").into_iter();
            parts.extend(files.map(|(name, text)| (format!("{within}/{name}"), text)));
        }
    }
    parts
}

#[test]
fn every_part_is_used() {
    let texts: Vec<String> = specs().iter().map(wgsl).collect();
    for (name, text) in parts() {
        assert!(
            text.starts_with("// "),
            "{name} does not open with a comment"
        );
        // (The constants are written.)
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("// #"));
        let code: String = code.map(|line| format!("{line}\n")).collect();
        assert!(
            name == "spec" || texts.iter().any(|whole| whole.contains(&code)),
            "no kernel has the part {name}"
        );
    }
}

/// All that a file imports, and what that imports: before each what it needs, each once.
fn imports<'a>(text: &str, parts: &'a [(String, String)], found: &mut Vec<&'a (String, String)>) {
    let lines = text.lines();
    for import in lines.filter_map(|line| line.strip_prefix("// #import ")) {
        let part = parts.iter().find(|(name, _)| name == import);
        let part = part.unwrap_or_else(|| panic!("there is no part {import}"));
        if !found.contains(&part) {
            imports(&part.1, parts, found);
            found.push(part);
        }
    }
}

/// A file behind the files that it imports, as they are written; of words of several widths the first, of uniforms the
/// largest, which has what the others have.
fn with_imports(name: &str, text: &str, parts: &[(String, String)]) -> String {
    let is_word = |name: &str| name.starts_with("storage/word_");
    let is_uniform = |name: &str| name.starts_with("params/") && name != "params/blocks";
    let mut found = Vec::new();
    imports(text, parts, &mut found);
    let own = found.iter().filter(|(part, _)| is_uniform(part));
    let uniform = own
        .rev()
        .max_by_key(|(_, text)| text.lines().count())
        .copied();
    let word = found.iter().find(|(part, _)| is_word(part)).copied();
    let mut whole = String::new();
    for part in found {
        let replaced = (is_word(&part.0) && (Some(part) != word || is_word(name)))
            || (is_uniform(&part.0) && Some(part) != uniform);
        if !replaced {
            whole += &part.1;
        }
    }
    whole + text
}

/// Every file is WGSL by itself, with what it imports: directives are comments.
#[test]
fn files_are_valid_by_themselves() {
    let parts = parts();
    let kernels = files(&shaders(), "wgsl");
    let probes = files(&shaders().join("probes"), "wgsl");
    assert_eq!(parts.len() + kernels.len() + probes.len(), 81);
    for (name, text) in parts.iter().chain(&kernels).chain(&probes) {
        let text = with_imports(name, text, &parts);
        let module = naga::front::wgsl::parse_str(&text)
            .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&text)));
        let flags = naga::valid::ValidationFlags::all();
        let capabilities = Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        naga::valid::Validator::new(flags, capabilities)
            .validate(&module)
            .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&text)));
    }
}

/// What is written for a specialization has the names and the types of the file that it stands in for.
#[test]
fn constants_are_those_of_the_file() {
    let declared = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("const "));
        let names = lines.filter_map(|line| line.split(" =").next());
        names.map(str::to_owned).collect()
    };
    let file = std::fs::read_to_string(shaders().join("parts/spec.wgsl")).unwrap();
    let names = declared(&file);
    let text = wgsl(&spec(KernelId::RowCoefficients));
    assert_eq!(declared(&text)[..names.len()], names);
}

#[test]
fn every_kernel_has_a_mirror_of_its_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stages");
    let files = files(&folder, "rs");
    for &kernel in KernelId::ALL {
        let named = files.iter().find(|(name, _)| name == kernel.name());
        let (_, text) = named.unwrap_or_else(|| panic!("no mirror of {}", kernel.name()));
        let openings = ["(", "<"].map(|next| format!("\npub fn {}{next}", kernel.name()));
        let found: usize = openings.iter().map(|o| text.matches(o).count()).sum();
        assert_eq!(found, 1, "mirrors of {}", kernel.name());
        let shader = format!("shaders/{}.wgsl", kernel.name());
        assert!(text.starts_with("//! ") && text.lines().next().unwrap().contains(&shader));
    }
}

/// The example prints every kernel by its name alone, and what else can be asked of it.
#[test]
fn every_kernel_is_printed() {
    let spec = |line: &str| {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        print_wgsl::spec(&arguments)
    };
    for &kernel in KernelId::ALL {
        let spec = spec(kernel.name()).unwrap();
        assert_eq!((spec.kernel, spec.check()), (kernel, Ok(())));
        assert!(!spec.accumulate, "{spec:?}");
    }
    let fused = spec("row_affine_backward relu f16 native without=residual accumulate").unwrap();
    assert_eq!(fused.check(), Ok(()));
    assert!(fused.native_pack && fused.accumulate && fused.has("coefficients"));
    let reads = spec("row_moments f16 native lanes=64 subgroup=32").unwrap();
    assert_eq!(reads.check(), Ok(()));
    assert!(reads.native_unpack && !reads.native_pack);
    for nothing in ["no_kernel", "row_moments width=3", "row_moments blue"] {
        assert_eq!(spec(nothing), None, "{nothing}");
    }
}
