//! From a specialization to what a GPU's driver is given: by naga, with the options that wgpu 30 gives it.
//!
//! - `spirv` for Vulkan, `hlsl` for DirectX 12, `msl` for Metal, `glsl` for OpenGL: a feature each, and a module and a function of that
//!   name
//! - [`covering_specs`]: which specializations stand for all

#[cfg(feature = "glsl")]
pub mod glsl;
#[cfg(feature = "hlsl")]
pub mod hlsl;
#[cfg(feature = "msl")]
pub mod msl;
mod specs;
#[cfg(feature = "spirv")]
pub mod spirv;

pub use specs::covering_specs;

use anyhow::{Result, anyhow};
use bcnorm::kernels::{Spec, wgsl};
use naga::Module;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

/// A kernel as naga knows it.
#[derive(Debug)]
pub struct Kernel {
    /// What its text depends on.
    pub spec: Spec,
    /// Its text, parsed.
    pub module: Module,
    /// What validation found.
    pub info: ModuleInfo,
}

impl Kernel {
    /// Parses and validates a specialization's text, with no capability that it does not need.
    ///
    /// # Errors
    /// What naga refuses, as it says it.
    pub fn new(spec: Spec) -> Result<Self> {
        let text = wgsl(&spec);
        let module = naga::front::wgsl::parse_str(&text)
            .map_err(|error| anyhow!(error.emit_to_string(&text)))?;
        let mut capabilities = Capabilities::empty();
        capabilities.set(Capabilities::SUBGROUP, spec.subgroup_size > 1);
        // The conversions of f16, which WGSL's core has.
        let native = spec.native_unpack || spec.native_pack;
        capabilities.set(Capabilities::SHADER_FLOAT16_IN_FLOAT32, native);
        let info = Validator::new(ValidationFlags::all(), capabilities)
            .validate(&module)
            .map_err(|error| anyhow!(error.emit_to_string(&text)))?;
        Ok(Self { spec, module, info })
    }

    /// The name of its entry point.
    pub fn entry_point(&self) -> String {
        self.spec.kernel.name().to_owned()
    }
}
