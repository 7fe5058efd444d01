//! From a specialization to SPIR-V, as wgpu makes it.

use anyhow::{Context, Result};
use bcnorm::kernels::{Spec, wgsl};
use naga::back::spv::{self, Capability};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// The SPIR-V of a kernel. With other options than wgpu-hal 30 has for such a device (`vulkan/adapter.rs`,
/// `naga_options`) the figures mislead: naga's own zero workgroup memory by one invocation, and count no turns of loops.
pub fn spirv(spec: &Spec) -> Result<Vec<u32>> {
    let text = wgsl(spec);
    let module = naga::front::wgsl::parse_str(&text).context("naga refuses the text")?;
    let info = Validator::new(
        ValidationFlags::all(),
        Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16_IN_FLOAT32,
    )
    .validate(&module)
    .context("naga refuses the module")?;
    let mut capabilities = vec![Capability::Shader, Capability::Matrix];
    if spec.subgroup_size > 1 {
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
        // Vulkan 1.3.
        lang_version: (1, 6),
        flags: spv::WriterFlags::empty(),
        capabilities: Some(capabilities.into_iter().collect()),
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Restrict,
            // RADV has robustBufferAccess2.
            buffer: BoundsCheckPolicy::Unchecked,
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
        entry_point: spec.kernel.name().to_owned(),
    };
    spv::write_vec(&module, &info, &options, Some(&pipeline)).context("naga writes no SPIR-V")
}
