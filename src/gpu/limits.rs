//! What a device may refuse of a plan.

use crate::error::Error;
use crate::kernels::Spec;
use crate::plan::Plan;
use crate::role::RoleKind;
use crate::tables::{GradientPair, Moments, Products};

/// Everything of a plan that a device may refuse.
pub(super) fn check(plan: &Plan, limits: &wgpu::Limits) -> Result<(), Error> {
    let check = |what: String, value: u64, limit: u64, limit_name, way_out| {
        if value <= limit {
            return Ok(());
        }
        Err(Error::Limit {
            what,
            value,
            limit,
            limit_name,
            way_out,
        })
    };
    let binding = limits.max_storage_buffer_binding_size;
    for step in plan.steps() {
        let tensor = step.bindings.iter().find(|role| role.is_tensor());
        let Some(role) = tensor else { continue };
        let whole = plan.need(*role).map_or(0, |need| need.bytes);
        check(
            format!(
                "the size in bytes of what {} binds of {role}",
                step.spec.kernel.name()
            ),
            step.window.map_or(whole, |window| window.bytes),
            binding,
            "max_storage_buffer_binding_size of the device",
            "plan with Tuning::for_device of this device, which makes windows",
        )?;
    }
    for need in plan.needs().iter().filter(|need| !need.role.is_tensor()) {
        check(
            format!("the size of {} in bytes", need.role),
            need.bytes,
            binding,
            "max_storage_buffer_binding_size of the device",
            "request the device with the adapter's limits, or split the batch",
        )?;
        if need.role.kind() != RoleKind::Caller {
            check(
                format!("the size of table {} in bytes", need.role),
                need.bytes,
                limits.max_buffer_size,
                "max_buffer_size of the device",
                "request the device with the adapter's limits, or split the batch",
            )?;
        }
    }
    for step in plan.steps() {
        let name = step.spec.kernel.name();
        let size = step.spec.workgroup_size;
        let most = limits
            .max_compute_invocations_per_workgroup
            .min(limits.max_compute_workgroup_size_x);
        check(
            format!("the workgroup of {name}"),
            u64::from(size),
            u64::from(most),
            "max_compute_invocations_per_workgroup of the device",
            "plan with Tuning::for_device of this device",
        )?;
        let [x, y] = step.workgroups;
        check(
            format!("the dispatch of {name}"),
            u64::from(x.max(y)),
            u64::from(limits.max_compute_workgroups_per_dimension),
            "max_compute_workgroups_per_dimension of the device",
            "plan with Tuning::for_device of this device",
        )?;
        check(
            format!("the storage buffers of {name}"),
            step.bindings.len() as u64,
            u64::from(limits.max_storage_buffers_per_shader_stage),
            "max_storage_buffers_per_shader_stage of the device",
            "request a device with at least 8",
        )?;
        check(
            format!("the workgroup memory of {name} in bytes"),
            u64::from(workgroup_memory(&step.spec)),
            u64::from(limits.max_compute_workgroup_storage_size),
            "max_compute_workgroup_storage_size of the device",
            "plan with smaller workgroups (tuning.workgroup_size, column_workgroup_size, fold_workgroup_size)",
        )?;
    }
    Ok(())
}

/// Bytes of workgroup memory that a kernel uses, of the lanes that reduce through it: an entry of each
/// invocation for every reduction that its text calls (`shaders/parts/reduce_shared.wgsl`), with channels
/// last one of every other (`reduce_columns_shared.wgsl`). A test compares it with what naga says.
pub fn workgroup_memory(spec: &Spec) -> u32 {
    if spec.lanes == 1 {
        return 0;
    }
    // A count, then words of `width` elements, each at a multiple of its size.
    let columns = |words: u32| (words + 1) * 4 * spec.width;
    let (all, half) = (spec.workgroup_size, spec.workgroup_size / 2);
    let reductions = [
        ("reduce_moments(", size_of::<Moments>() as u32 * all),
        ("reduce_products(", size_of::<Products>() as u32 * all),
        ("reduce_pair(", size_of::<GradientPair>() as u32 * all),
        ("reduce_column_moments(", columns(3) * half),
        ("reduce_column_products(", columns(4) * half),
    ];
    let text = spec.kernel.kernel().text;
    let called = reductions.iter().filter(|(call, _)| text.contains(call));
    called.map(|(_, bytes)| bytes).sum()
}
