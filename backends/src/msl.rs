//! Metal's language, as wgpu-hal's Metal has naga write it (`metal/device.rs`).

use crate::Kernel;
use anyhow::{Context, Result, anyhow};
use bcnorm::kernels::Access;
use naga::back::msl::{self, BindTarget, EntryPointResources};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};

/// The text of a kernel in a version of the language.
///
/// # Errors
/// What naga refuses.
pub fn msl(kernel: &Kernel, version: (u8, u8)) -> Result<String> {
    let mut resources = EntryPointResources::default();
    let storage = kernel.spec.bindings();
    let storage = storage.map(|(number, binding)| (number, binding.access == Access::ReadWrite));
    let mut slots = 0;
    for (slot, (binding, mutable)) in (0..).zip([(0, false)].into_iter().chain(storage)) {
        let target = BindTarget {
            buffer: Some(slot),
            mutable,
            ..Default::default()
        };
        let place = naga::ResourceBinding { group: 0, binding };
        resources.resources.insert(place, target);
        slots = slot + 1;
    }
    // Where the lengths of the buffers are.
    resources.sizes_buffer = Some(slots);
    let options = msl::Options {
        lang_version: version,
        per_entry_point_map: [(kernel.entry_point(), resources)].into(),
        fake_missing_bindings: false,
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Restrict,
            buffer: BoundsCheckPolicy::Restrict,
            image_load: BoundsCheckPolicy::Restrict,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        // `PipelineCompilationOptions` of src/gpu/mod.rs: Metal alone wants it.
        zero_initialize_workgroup_memory: true,
        ..Default::default()
    };
    let pipeline = msl::PipelineOptions {
        entry_point: Some((naga::ShaderStage::Compute, kernel.entry_point())),
        vertex_pulling_transform: true,
        ..Default::default()
    };
    let (source, info) = msl::write_string(&kernel.module, &kernel.info, &options, &pipeline)
        .context("naga writes no MSL")?;
    for name in info.entry_point_names {
        name.map_err(|error| anyhow!("{error}"))?;
    }
    Ok(source)
}
