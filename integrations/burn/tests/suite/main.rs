//! The modules, on burn's wgpu device by bcnorm's kernels, and on a CPU by burn's operations.

mod common;

mod calls;
mod golden;
mod network;
mod peers;

/// The library's README shows lines of this package's, which are compiled as documentation tests.
#[test]
fn the_snippet_is_compiled() {
    let [root, own] = [
        include_str!("../../../../README.md"),
        include_str!("../../README.md"),
    ];
    let (_, snippet) = root.split_once("```rust,ignore\nlet device = ").unwrap();
    let (snippet, _) = snippet.split_once("```").unwrap();
    assert!(own.contains(snippet), "{snippet}");
}
