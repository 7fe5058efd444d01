//! A plan against what a device grants.

use super::Plan;
use crate::error::{Error, within};
use crate::kernels::workgroup_memory;
use crate::limits::Limits;
use crate::role::RoleKind;

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
            "request the device with the feature subgroups, or tune with limits.subgroup_size=1",
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
            "plan with smaller workgroups (the workgroup_size of tuning.reduction, map, columns and fold)",
        )?;
    }
    Ok(())
}
