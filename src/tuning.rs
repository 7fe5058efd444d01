//! Every choice that depends on the adapter, in one place: how rows are shared out to invocations.
//!
//! The planner reads a [`Tuning`]; nothing else in the library asks what the adapter is.

mod check;
mod fields;
mod text;

pub(crate) use check::check;
pub use fields::{Columns, Fold, Inference, Map, Parts, PlanLimits, Reduction, ShortRows};

use crate::limits::Limits;

/// What kind of processor runs a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AdapterClass {
    /// A GPU: many invocations in flight, coalesced reads, cheap barriers.
    Gpu,
    /// A software rasterizer on a CPU (llvmpipe, SwiftShader, WARP): barriers are dear, workgroups
    /// small, every lane streams a part of its own.
    Software,
    /// The library's own CPU executor.
    Cpu,
}

/// How the planner shares out work, in groups of numbers. They may be changed freely: any values give right results, or
/// an error from the planner.
///
/// ```
/// use bcnorm::Tuning;
///
/// let tuning = Tuning::GPU.with(|t| t.fold.lanes = 16);
/// assert_eq!(tuning.fold.lanes, 16);
/// assert_eq!(tuning.map, Tuning::GPU.map);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Tuning {
    /// The class of adapter that the numbers were chosen for.
    pub class: AdapterClass,
    /// Reductions of rows.
    pub reduction: Reduction,
    /// Maps: what writes a tensor.
    pub map: Map,
    /// Parts of rows.
    pub parts: Parts,
    /// Channels last.
    pub columns: Columns,
    /// Folds of tables.
    pub fold: Fold,
    /// Rows without tables.
    pub short_rows: ShortRows,
    /// Forwards without a backward.
    pub inference: Inference,
    /// What the device grants.
    pub limits: PlanLimits,
}

impl Tuning {
    /// The same after a change.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Tuning)) -> Tuning {
        change(&mut self);
        self
    }

    /// The tuning for an adapter that is known by its name (or what else describes it) only.
    pub fn for_name(name: &str, software: bool) -> Tuning {
        if !software && !is_software(name) {
            return Tuning::GPU;
        }
        match name.to_ascii_lowercase().contains("swiftshader") {
            // It takes 1.8 times as long with 8 words.
            true => Tuning::SOFTWARE.with(|t| t.columns.words = 1),
            false => Tuning::SOFTWARE,
        }
    }

    /// The tuning for an adapter: software adapters are known by their device type.
    #[cfg(feature = "wgpu")]
    pub fn for_adapter(info: &wgpu::AdapterInfo) -> Tuning {
        let software = info.device_type == wgpu::DeviceType::Cpu;
        Tuning::for_name(&info.name, software)
    }

    /// The tuning for a device.
    #[cfg(feature = "wgpu")]
    pub fn for_device(device: &wgpu::Device) -> Tuning {
        Tuning::for_adapter(&device.adapter_info()).within(&Limits::of(device))
    }

    /// The tuning for a device that is looked at first: see [`probe`](crate::gpu::probe).
    ///
    /// # Errors
    /// Those of [`probe::limits`](crate::gpu::probe::limits).
    #[cfg(feature = "wgpu")]
    pub async fn probed(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
    ) -> Result<Tuning, crate::error::Error> {
        let limits = crate::gpu::probe::limits(device, queue).await?;
        Ok(Tuning::for_adapter(&device.adapter_info()).within(&limits))
    }

    /// The same as far as a device grants it; on a GPU with the subgroups that it has.
    #[must_use]
    pub fn within(self, limits: &Limits) -> Tuning {
        let most = limits
            .max_compute_invocations_per_workgroup
            .min(limits.max_compute_workgroup_size_x)
            .max(1);
        // Largest power of two that the device runs.
        let most = 1 << most.ilog2();
        self.with(|t| {
            for invocations in [
                &mut t.reduction.workgroup_size,
                &mut t.reduction.lanes,
                &mut t.map.workgroup_size,
                &mut t.map.lanes,
                &mut t.columns.workgroup_size,
                &mut t.fold.workgroup_size,
                &mut t.fold.lanes,
            ] {
                *invocations = most.min(*invocations);
            }
            t.limits = PlanLimits {
                max_workgroups: limits.max_compute_workgroups_per_dimension,
                max_binding_bytes: limits.max_storage_buffer_binding_size,
                subgroup_size: match t.class {
                    AdapterClass::Gpu => limits.subgroup_size,
                    _ => t.limits.subgroup_size.min(limits.subgroup_size),
                },
                native_unpack: u32::from(limits.native_unpack),
                native_pack: u32::from(limits.native_pack),
            };
        })
    }
}

/// GL drivers do not say that they are software; their names do.
fn is_software(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["llvmpipe", "softpipe", "swiftshader", "basic render"]
        .iter()
        .any(|known| name.contains(known))
}
