//! HLSL, as wgpu-hal's DX12 has naga write it (`dx12/device.rs`, `dx12/shader_compilation.rs`).

use crate::Kernel;
use anyhow::{Context, Result, anyhow};
use bcnorm::kernels::{Access, Spec};
use naga::back::hlsl::{self, BindTarget};

pub use naga::back::hlsl::ShaderModel;

/// The HLSL of a kernel, and its entry point's name there. FXC takes shader model 5.1, DXC those from 6.0 on.
///
/// # Errors
/// What naga refuses.
pub fn hlsl(kernel: &Kernel, model: ShaderModel) -> Result<(String, String)> {
    let pipeline = hlsl::PipelineOptions {
        entry_point: Some((naga::ShaderStage::Compute, kernel.entry_point())),
    };
    let options = options(&kernel.spec, model);
    let mut source = String::new();
    let mut names = hlsl::Writer::new(&mut source, &options, &pipeline)
        .write(&kernel.module, &kernel.info, None)
        .context("naga writes no HLSL")?
        .entry_point_names;
    let name = names.pop().context("naga wrote no entry point")?;
    Ok((source, name.map_err(|error| anyhow!("{error}"))?))
}

/// A pipeline layout's options, with what wgpu adds for a stage: checks as for any module of WGSL, and workgroup memory as
/// it is, as `src/gpu/mod.rs` asks for all but Metal.
fn options(spec: &Spec, shader_model: ShaderModel) -> hlsl::Options {
    let mut options = hlsl::Options {
        shader_model,
        fake_missing_bindings: false,
        zero_initialize_workgroup_memory: false,
        restrict_indexing: true,
        force_loop_bounding: true,
        ..Default::default()
    };
    let mut bind = |binding, register| {
        let target = BindTarget {
            register,
            ..Default::default()
        };
        let place = naga::ResourceBinding { group: 0, binding };
        options.binding_map.insert(place, target);
    };
    // Registers are counted by their kinds: b, t and u.
    bind(0, 0);
    let (mut read, mut written) = (0, 0);
    for (number, binding) in spec.bindings() {
        let count = match binding.access {
            Access::Read => &mut read,
            Access::ReadWrite => &mut written,
        };
        bind(number, *count);
        *count += 1;
    }
    // The number of workgroups is a root constant behind the uniform.
    options.special_constants_binding = Some(BindTarget {
        register: 1,
        ..Default::default()
    });
    options
}
