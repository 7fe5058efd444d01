//! Asks a device what WGSL leaves to it, once: by running a kernel that has nothing to do with any plan. Kernels may then use
//! what the device does as the library would.

use super::{device, transfer};
use crate::error::Error;
use crate::kernels::f16_probe_wgsl;
use crate::limits::Limits;

/// Patterns of f16, each of them an invocation's.
const PATTERNS: u32 = 1 << 16;
const WORKGROUPS: u32 = PATTERNS / 256;

/// [`Limits::of`] a device, and how it converts f16. Submits a dispatch to the queue and waits for it, as
/// [`transfer::read`] does.
///
/// # Errors
/// [`Error::Device`] where the device is lost, [`Error::WrongDevice`] where the queue is another's.
pub async fn limits(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Limits, Error> {
    let [unpack, pack] = f16(device, queue, &f16_probe_wgsl()).await?;
    let mut limits = Limits::of(device);
    limits.native_unpack = unpack == PATTERNS;
    limits.native_pack = pack == PATTERNS;
    Ok(limits)
}

/// Of how many patterns a text of the probe finds that the device reads, and writes, what the library does. Devices that have
/// no such functions do neither.
#[doc(hidden)]
pub async fn f16(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    text: &str,
) -> Result<[u32; 2], Error> {
    let label = Some("bcnorm probe_f16");
    let agree = transfer::zeros(device, "the counts of probe_f16", 2)?;
    let ran = device::guarded(device, "probe_f16", || {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label,
            source: wgpu::ShaderSource::Wgsl(text.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: None,
            module: &module,
            entry_point: Some("probe_f16"),
            compilation_options: Default::default(),
            cache: None,
        });
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry {
                binding: 0,
                resource: agree.as_entire_binding(),
            }],
        });
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label });
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label,
                timestamp_writes: None,
            });
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &bind_group, &[]);
            pass.dispatch_workgroups(WORKGROUPS, 1, 1);
        }
        queue.submit([encoder.finish()]);
        Ok(())
    });
    if ran.is_err() && !device::is_lost(device) {
        // It refuses the text: not all adapters by GL have the functions.
        return Ok([0, 0]);
    }
    ran?;
    let counts = transfer::read(device, queue, &agree, 0, 2).await?;
    Ok([counts[0], counts[1]])
}
