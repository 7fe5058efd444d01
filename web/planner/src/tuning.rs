//! Limits and tunings.

use crate::error::Failure;
use bcnorm::kernels::f16_probe_wgsl;
use bcnorm::plan;
use wasm_bindgen::prelude::*;

/// `bcnorm::plan::Limits`: WebGPU's defaults, until set otherwise.
#[wasm_bindgen]
#[derive(Clone, Copy)]
pub struct Limits {
    pub(crate) limits: plan::Limits,
}

#[wasm_bindgen]
impl Limits {
    /// In this order: GPUSupportedLimits' maxStorageBufferBindingSize, maxBufferSize,
    /// maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupSizeX, maxComputeWorkgroupsPerDimension,
    /// maxStorageBuffersPerShaderStage, maxComputeWorkgroupStorageSize, minStorageBufferOffsetAlignment; then the
    /// size of subgroups, 1 where they cannot be used; whether the device reads f16 as the library does, whether it
    /// writes f16 so, 1 or 0.
    #[wasm_bindgen(constructor)]
    pub fn new(values: &[f64]) -> Result<Limits, Failure> {
        let &[
            binding,
            buffer,
            invocations,
            size_x,
            workgroups,
            buffers,
            memory,
            alignment,
            subgroup_size,
            native_unpack,
            native_pack,
        ] = values
        else {
            return Err(Failure::new(
                "limit",
                format!("expected 11 limits, got {}", values.len()),
            ));
        };
        let mut limits = plan::Limits::default();
        limits.max_storage_buffer_binding_size = binding as u64;
        limits.max_buffer_size = buffer as u64;
        limits.max_compute_invocations_per_workgroup = invocations as u32;
        limits.max_compute_workgroup_size_x = size_x as u32;
        limits.max_compute_workgroups_per_dimension = workgroups as u32;
        limits.max_storage_buffers_per_shader_stage = buffers as u32;
        limits.max_compute_workgroup_storage_size = memory as u32;
        limits.min_storage_buffer_offset_alignment = alignment as u32;
        limits.subgroup_size = subgroup_size as u32;
        limits.native_unpack = native_unpack == 1.0;
        limits.native_pack = native_pack == 1.0;
        Ok(Limits { limits })
    }
}

/// The text of the probe that asks a device how it converts f16: `bcnorm::kernels::f16_probe_wgsl`.
#[wasm_bindgen(js_name = f16Probe)]
pub fn f16_probe() -> String {
    f16_probe_wgsl()
}

/// `bcnorm::Tuning`.
#[wasm_bindgen]
#[derive(Clone, Copy)]
pub struct Tuning {
    pub(crate) tuning: bcnorm::Tuning,
}

#[wasm_bindgen]
impl Tuning {
    /// For an adapter that describes itself so.
    #[wasm_bindgen(js_name = forName)]
    pub fn for_name(name: &str, software: bool, limits: &Limits) -> Tuning {
        let tuning = bcnorm::Tuning::for_name(name, software).within(&limits.limits);
        Tuning { tuning }
    }

    /// Of a text, as `bcnorm tune --save` writes it.
    pub fn parse(text: &str) -> Result<Tuning, Failure> {
        let tuning = text.parse()?;
        Ok(Tuning { tuning })
    }

    /// The text.
    pub fn text(&self) -> String {
        self.tuning.to_string()
    }
}
