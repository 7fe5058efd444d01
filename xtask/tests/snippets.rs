//! README's programs for crates of other workspaces, which no test of this one compiles: each is part of the crate's own README,
//! whose programs its documentation tests compile.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;

#[test]
fn programs_of_other_workspaces_are_those_of_their_readmes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let readme = read("README.md");
    let own = [
        read("integrations/burn/README.md"),
        read("integrations/mpi/README.md"),
    ];
    let ignored = readme.split("```rust,ignore\n").skip(1);
    let programs: Vec<&str> = ignored
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(programs.len(), own.len());
    for (program, own) in programs.iter().zip(&own) {
        assert!(own.contains(program), "not in its own README:\n{program}");
    }
}
