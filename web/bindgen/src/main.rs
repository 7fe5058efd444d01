//! Makes an ES module of a WebAssembly file: `bcnorm-bindgen FILE.wasm FOLDER NAME`. The tool wasm-bindgen
//! must be of the very version of the crate that the file was built with; as a dependency of this workspace it
//! is, by its one lock file.

use anyhow::{Result, bail};
use std::env;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [input, folder, name] = args.as_slice() else {
        bail!("usage: bcnorm-bindgen FILE.wasm FOLDER NAME");
    };
    let mut bindgen = Bindgen::new();
    bindgen
        .input_path(input)
        .out_name(name)
        .typescript(true)
        .omit_default_module_path(false)
        .remove_name_section(true)
        .remove_producers_section(true);
    bindgen.web(true)?;
    bindgen.generate(folder)
}
