//! What devices grant, and the bounds of every plan that no device states. A leaf: tunings and plans both need it.

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
    /// Whether `unpack2x16float` has the bits of the library's own conversion of f16 on the device, which WGSL does not
    /// promise: `false` unless someone looked (`gpu::probe`). Results then have the same bits either way, where the driver's
    /// compiler keeps the arithmetic beside the conversions as it is; FXC, for one, orders it anew in each text, and
    /// variances differ in their last bit.
    pub native_unpack: bool,
    /// The same of `pack2x16float`.
    pub native_pack: bool,
}

impl Limits {
    /// WebGPU's default limits: what any device grants.
    pub const DEFAULT: Limits = Limits {
        max_storage_buffer_binding_size: 128 << 20,
        max_buffer_size: 256 << 20,
        max_compute_invocations_per_workgroup: 256,
        max_compute_workgroup_size_x: 256,
        max_compute_workgroups_per_dimension: 65_535,
        max_storage_buffers_per_shader_stage: 8,
        max_compute_workgroup_storage_size: 16 << 10,
        min_storage_buffer_offset_alignment: 256,
        subgroup_size: 1,
        native_unpack: false,
        native_pack: false,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
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
            native_unpack: false,
            native_pack: false,
        }
    }
}

/// llvmpipe ends an invocation after about this many loop iterations, without an error; no kernel
/// is planned to run more, over all of its loops.
pub const MAX_ITERATIONS: u32 = 65_000;

/// Most invocations of a workgroup, whatever the tuning says: no device has as many.
pub const MAX_WORKGROUP_SIZE: u32 = 1 << 16;

/// The largest subgroups that WebGPU knows of.
pub const MAX_SUBGROUP_SIZE: u32 = 128;

/// Most words of neighbouring channels that an invocation takes together: kernels are written out for each.
pub const MAX_COLUMN_WORDS: u32 = 16;

/// Most invocations that share a column of a fold where the tuning's lanes would iterate too often: what WebGPU grants a
/// workgroup.
pub const MAX_FOLD_LANES: u32 = 256;

/// Most windows of a tensor: each is a dispatch with a bind group of its own, so that a binding limit far below any
/// device's would make plans that take minutes and gigabytes. The largest tensor takes 128 with WebGPU's default.
pub const MAX_WINDOWS: usize = 4096;

/// Offsets of windows are multiples of this many bytes: no device asks for a larger alignment of storage bindings.
pub const WINDOW_ALIGNMENT: u64 = 256;

/// Most bytes between the uniforms of two steps: WebGPU's default alignment of them is 256.
pub const MAX_UNIFORM_STRIDE: u64 = 4096;
