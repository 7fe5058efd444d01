//! GLSL, as wgpu-hal's GL has naga write it (`gles/device.rs`).

use crate::Kernel;
use anyhow::{Context, Result};
use naga::back::glsl::{self, WriterFlags};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};

pub use naga::back::glsl::Version;

/// The text of a kernel in a version of the language. OpenGL has no subgroups in wgpu.
///
/// # Errors
/// What naga refuses.
pub fn glsl(kernel: &Kernel, version: Version) -> Result<String> {
    let place = |binding| naga::ResourceBinding { group: 0, binding };
    // Uniforms and storage are counted apart.
    let storage = kernel.spec.bindings().map(|(number, _)| place(number));
    let options = glsl::Options {
        version,
        writer_flags: WriterFlags::ADJUST_COORDINATE_SPACE | WriterFlags::FORCE_POINT_SIZE,
        binding_map: storage.zip(0..).chain([(place(0), 0)]).collect(),
        // `PipelineCompilationOptions` of src/gpu/mod.rs.
        zero_initialize_workgroup_memory: false,
    };
    let pipeline = glsl::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: kernel.entry_point(),
        multiview: None,
    };
    let unchecked = BoundsCheckPolicies {
        index: BoundsCheckPolicy::Unchecked,
        buffer: BoundsCheckPolicy::Unchecked,
        image_load: BoundsCheckPolicy::Unchecked,
        binding_array: BoundsCheckPolicy::Unchecked,
    };
    let mut source = String::new();
    glsl::Writer::new(
        &mut source,
        &kernel.module,
        &kernel.info,
        &options,
        &pipeline,
        unchecked,
    )
    .and_then(|mut writer| writer.write())
    .context("naga writes no GLSL")?;
    Ok(source)
}
