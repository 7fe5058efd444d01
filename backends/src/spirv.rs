//! SPIR-V, as wgpu-hal's Vulkan has naga write it (`vulkan/adapter.rs`, `naga_options`).

use crate::Kernel;
use anyhow::{Context, Result};
use naga::back::spv::{self, Capability};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};

/// The SPIR-V of a kernel in a version of the language, for a device that has robustBufferAccess2 or not. With other options than
/// wgpu's the figures of a compiler mislead: naga's own zero workgroup memory by one invocation, and count no turns of loops.
///
/// # Errors
/// What naga refuses.
pub fn spirv(kernel: &Kernel, version: (u8, u8), robust: bool) -> Result<Vec<u32>> {
    let mut capabilities = vec![Capability::Shader, Capability::Matrix];
    if kernel.spec.subgroup_size > 1 {
        capabilities.extend([
            Capability::GroupNonUniform,
            Capability::GroupNonUniformVote,
            Capability::GroupNonUniformArithmetic,
            Capability::GroupNonUniformBallot,
            Capability::GroupNonUniformShuffle,
            Capability::GroupNonUniformShuffleRelative,
            Capability::GroupNonUniformQuad,
        ]);
    }
    let options = spv::Options {
        lang_version: version,
        flags: spv::WriterFlags::empty(),
        capabilities: Some(capabilities.into_iter().collect()),
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Restrict,
            buffer: match robust {
                true => BoundsCheckPolicy::Unchecked,
                false => BoundsCheckPolicy::Restrict,
            },
            image_load: BoundsCheckPolicy::Unchecked,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        // `PipelineCompilationOptions` of src/gpu/mod.rs.
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: true,
        emit_int_div_checks: true,
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: kernel.entry_point(),
    };
    spv::write_vec(&kernel.module, &kernel.info, &options, Some(&pipeline))
        .context("naga writes no SPIR-V")
}
