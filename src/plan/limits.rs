//! What a device grants, and what it may refuse of a plan.

use super::{Plan, within};
use crate::error::Error;
use crate::kernels::workgroup_memory;
use crate::role::RoleKind;

/// The limits of a device that plans depend on, under WebGPU's names for them (in snake case).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Largest storage binding in bytes.
    pub max_storage_buffer_binding_size: u64,
    /// Largest buffer in bytes.
    pub max_buffer_size: u64,
    /// Invocations of a workgroup.
    pub max_compute_invocations_per_workgroup: u32,
    /// Invocations of a workgroup in x.
    pub max_compute_workgroup_size_x: u32,
    /// Workgroups of a dispatch in one dimension.
    pub max_compute_workgroups_per_dimension: u32,
    /// Storage buffers of a kernel.
    pub max_storage_buffers_per_shader_stage: u32,
    /// Bytes of workgroup memory.
    pub max_compute_workgroup_storage_size: u32,
    /// What offsets of storage bindings are multiples of.
    pub min_storage_buffer_offset_alignment: u32,
    /// Invocations of the device's smallest subgroups, a power of two, where kernels may use the feature
    /// `subgroups`; 1 where they may not. In workgroups of one dimension, invocations with equal
    /// `local_invocation_index / subgroup_size` must be in one subgroup, in this order: all drivers known do
    /// so, no standard says so.
    pub subgroup_size: u32,
}

/// WebGPU's default limits: what any device grants.
impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_storage_buffer_binding_size: 128 << 20,
            max_buffer_size: 256 << 20,
            max_compute_invocations_per_workgroup: 256,
            max_compute_workgroup_size_x: 256,
            max_compute_workgroups_per_dimension: 65_535,
            max_storage_buffers_per_shader_stage: 8,
            max_compute_workgroup_storage_size: 16 << 10,
            min_storage_buffer_offset_alignment: 256,
            subgroup_size: 1,
        }
    }
}

#[cfg(feature = "wgpu")]
impl Limits {
    /// All that a device grants, its subgroups too where it was requested with `Features::SUBGROUP`.
    pub fn of(device: &wgpu::Device) -> Limits {
        let mut limits = Limits::from(&device.limits());
        if device.features().contains(wgpu::Features::SUBGROUP) {
            let smallest = device.adapter_info().subgroup_min_size;
            limits.subgroup_size = 1 << smallest.checked_ilog2().unwrap_or(0);
        }
        limits
    }
}

/// Without subgroups, which are no limit of wgpu's.
#[cfg(feature = "wgpu")]
impl From<&wgpu::Limits> for Limits {
    fn from(limits: &wgpu::Limits) -> Self {
        Limits {
            max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size,
            max_buffer_size: limits.max_buffer_size,
            max_compute_invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
            max_compute_workgroup_size_x: limits.max_compute_workgroup_size_x,
            max_compute_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            max_storage_buffers_per_shader_stage: limits.max_storage_buffers_per_shader_stage,
            max_compute_workgroup_storage_size: limits.max_compute_workgroup_storage_size,
            min_storage_buffer_offset_alignment: limits.min_storage_buffer_offset_alignment,
            subgroup_size: 1,
        }
    }
}

/// Everything of a plan that a device may refuse.
pub(super) fn check(plan: &Plan, limits: &Limits) -> Result<(), Error> {
    let binding = limits.max_storage_buffer_binding_size;
    for step in plan.steps() {
        let tensor = step.bindings.iter().find(|role| role.is_tensor());
        let Some(role) = tensor else { continue };
        let whole = plan.need(*role).map_or(0, |need| need.bytes);
        within(
            || {
                let name = step.spec.kernel.name();
                format!("the size in bytes of what {name} binds of {role}")
            },
            step.window.map_or(whole, |window| window.bytes),
            binding,
            "max_storage_buffer_binding_size of the device",
            "plan with Tuning::for_device of this device, which makes windows",
        )?;
    }
    let batch = plan.tensor().num_samples() > 1;
    for need in plan.needs().iter().filter(|need| !need.role.is_tensor()) {
        // Of tables that grow with the batch.
        let way_out = match batch && need.role.has_samples() {
            true => "request the device with the adapter's limits, or split the batch",
            false => "request the device with the adapter's limits, or use fewer channels",
        };
        within(
            || format!("the size of {} in bytes", need.role),
            need.bytes,
            binding,
            "max_storage_buffer_binding_size of the device",
            way_out,
        )?;
        if need.role.kind() != RoleKind::Caller {
            within(
                || format!("the size of table {} in bytes", need.role),
                need.bytes,
                limits.max_buffer_size,
                "max_buffer_size of the device",
                way_out,
            )?;
        }
    }
    for step in plan.steps() {
        let name = step.spec.kernel.name();
        let size = step.spec.workgroup_size;
        let most = limits
            .max_compute_invocations_per_workgroup
            .min(limits.max_compute_workgroup_size_x);
        within(
            || format!("the workgroup of {name}"),
            u64::from(size),
            u64::from(most),
            "max_compute_invocations_per_workgroup of the device",
            "plan with Tuning::for_device of this device",
        )?;
        within(
            || format!("the subgroup size of {name}"),
            u64::from(step.spec.subgroup_size),
            u64::from(limits.subgroup_size),
            "subgroup_min_size of the device (1 without the feature)",
            "request the device with the feature subgroups, or tune with subgroup_size=1",
        )?;
        let [x, y] = step.workgroups;
        within(
            || format!("the dispatch of {name}"),
            u64::from(x.max(y)),
            u64::from(limits.max_compute_workgroups_per_dimension),
            "max_compute_workgroups_per_dimension of the device",
            "plan with Tuning::for_device of this device",
        )?;
        within(
            || format!("the storage buffers of {name}"),
            step.bindings.len() as u64,
            u64::from(limits.max_storage_buffers_per_shader_stage),
            "max_storage_buffers_per_shader_stage of the device",
            "request a device with at least 8",
        )?;
        within(
            || format!("the workgroup memory of {name} in bytes"),
            u64::from(workgroup_memory(&step.spec)),
            u64::from(limits.max_compute_workgroup_storage_size),
            "max_compute_workgroup_storage_size of the device",
            "plan with smaller workgroups (tuning.workgroup_size, column_workgroup_size, fold_workgroup_size)",
        )?;
    }
    Ok(())
}
