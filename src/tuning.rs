//! Every choice that depends on the adapter, in one place: how rows are shared out to invocations.
//!
//! The planner reads a [`Tuning`]; nothing else in the library asks what the adapter is.

mod check;
mod text;

pub(crate) use check::check;

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

/// How the planner shares out work. Fields may be changed freely: any values give right results, or
/// an error from the planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuning {
    /// What the numbers were chosen for.
    pub class: AdapterClass,
    /// Invocations of a workgroup in the tensor-sized kernels.
    pub workgroup_size: u32,
    /// Most invocations that share a row, or a part of one, in a reduction: a power of two.
    pub reduce_lanes: u32,
    /// Most invocations that share a row, or a part of one, in a map: a power of two.
    pub map_lanes: u32,
    /// Reductions: words (4 elements) that a lane should have before the row gets another lane.
    pub words_per_lane: u32,
    /// Reductions: the least words that lanes and parts are given where rows alone make too few invocations. What a
    /// lane costs beside its words (the ends of its part, the merges with the other lanes) is that of some 20 words.
    pub min_words_per_lane: u32,
    /// Maps: words that a lane should have before the row gets another lane. Maps share nothing between lanes, and
    /// neighbours should work on neighbouring words: few.
    pub map_words_per_lane: u32,
    /// Most words of a lane, 195,000 at most: rows are split into more parts beyond. It bounds the
    /// loops (llvmpipe ends an invocation after 65,535 iterations, silently) and the growth of
    /// rounding.
    pub max_words_per_lane: u32,
    /// Invocations wanted in flight: rows are split into parts until there are as many.
    pub min_invocations: u32,
    /// Invocations of a workgroup in the kernels on tables.
    pub fold_workgroup_size: u32,
    /// Most invocations that share a column of a table: a power of two.
    pub fold_lanes: u32,
    /// Entries that a lane should have before the column gets another lane.
    pub entries_per_lane: u32,
    /// Invocations wanted in a fold: where there are fewer columns, they get lanes, in spite of
    /// `fold_lanes`. (For llvmpipe, where one invocation of eight would do all the work of a vector: at one group of 2,042
    /// channels forward takes 4.1 copies with it, 12.5 without.)
    pub min_fold_invocations: u32,
    /// Batches of more samples than this are folded in two steps.
    pub samples_per_segment: u32,
    /// Adjacent invocations that are reduced by subgroup shuffles instead of workgroup memory: a power of two, the
    /// smallest subgroup of the device at most ([`Limits::subgroup_size`]); 1 disables them, and kernels need no feature.
    /// The bits of a result do not depend on it. (On an H200 shuffles save 1 us of a call: 7 % at (16, 512, 7, 7), 1 % at
    /// (32, 256, 56, 56).)
    pub subgroup_size: u32,
    /// Channels last: words of neighbouring channels that a workgroup of a reduction should read at one position
    /// before lanes share them out by positions. A power of two.
    pub column_tile: u32,
    /// Channels last: most words of neighbouring channels that an invocation takes together, 16 at most, where
    /// lanes do not share a part. Processors want to read along positions, not across them; the more words, the
    /// longer kernels take to compile.
    pub column_words: u32,
    /// Invocations of a workgroup in the reductions with channels last, which need 80 bytes of workgroup
    /// memory each: 128 at most under WebGPU's default limits.
    pub column_workgroup_size: u32,
    /// Rows of at most this many elements have no tables of their own: every element is made a row where
    /// it is needed. (Where groups lie together in memory: channels first.)
    pub short_row: u32,
    /// Longest row, in elements, over which a batch norm is planned as C L columns reduced over N, where L is less than N.
    /// (Channels first.)
    pub short_batch_row: u32,
    /// Most elements of a group that a forward without a backward takes in one kernel, which reads x once. It computes
    /// more for an element than the kernels on rows.
    pub fused_group: u32,
    /// Most elements of a tensor that is taken so: of a larger one that costs more than the dispatches and the read of x
    /// that it saves.
    pub fused_elements: u32,
    /// Most workgroups in one dimension of a dispatch (65,535 by WebGPU's default).
    pub max_workgroups: u32,
    /// Most bytes of a tensor that one dispatch binds (128 MiB by WebGPU's default): larger tensors are
    /// worked on in windows.
    pub max_binding_bytes: u64,
}

/// WebGPU's default `max_storage_buffer_binding_size`.
const DEFAULT_BINDING: u64 = 128 << 20;

impl Tuning {
    /// For GPUs.
    pub const GPU: Tuning = Tuning {
        class: AdapterClass::Gpu,
        workgroup_size: 256,
        reduce_lanes: 256,
        map_lanes: 256,
        words_per_lane: 64,
        min_words_per_lane: 8,
        map_words_per_lane: 2,
        max_words_per_lane: 512,
        min_invocations: 1 << 17,
        fold_workgroup_size: 64,
        fold_lanes: 64,
        entries_per_lane: 1,
        min_fold_invocations: 1,
        samples_per_segment: 1024,
        subgroup_size: 1,
        column_tile: 16,
        column_words: 1,
        column_workgroup_size: 128,
        short_row: 4,
        short_batch_row: 16,
        fused_group: 4096,
        fused_elements: 1 << 20,
        max_workgroups: 65_535,
        max_binding_bytes: DEFAULT_BINDING,
    };

    /// For software adapters: one lane a row, no barrier; workgroups of 8 to 64 are equally fast on
    /// tensors of 6 MB (`bcnorm bench --tune`), 32 is best on small ones. Parts of fewer than 64 words save less than
    /// the dispatch that folds them costs.
    pub const SOFTWARE: Tuning = Tuning {
        class: AdapterClass::Software,
        workgroup_size: 32,
        reduce_lanes: 1,
        map_lanes: 1,
        words_per_lane: 64,
        min_words_per_lane: 64,
        map_words_per_lane: 64,
        max_words_per_lane: 1024,
        min_invocations: 512,
        fold_workgroup_size: 8,
        fold_lanes: 1,
        entries_per_lane: 4096,
        min_fold_invocations: 64,
        samples_per_segment: 256,
        subgroup_size: 1,
        column_tile: 16,
        column_words: 8,
        column_workgroup_size: 32,
        short_row: 4,
        short_batch_row: 64,
        fused_group: 0,
        fused_elements: 0,
        max_workgroups: 65_535,
        max_binding_bytes: DEFAULT_BINDING,
    };

    /// For the CPU executor.
    pub const CPU: Tuning = Tuning {
        class: AdapterClass::Cpu,
        workgroup_size: 1,
        column_words: 1,
        column_workgroup_size: 1,
        words_per_lane: 8,
        min_words_per_lane: 8,
        map_words_per_lane: 8,
        // Of words of one element, too, where the tensor is no whole number of 4.
        max_words_per_lane: 4096,
        min_invocations: 64,
        min_fold_invocations: 1,
        fold_workgroup_size: 1,
        short_row: 2,
        max_binding_bytes: u64::MAX,
        ..Tuning::SOFTWARE
    };

    /// The tuning for an adapter that is known by its name (or what else describes it) only.
    pub fn for_name(name: &str, software: bool) -> Tuning {
        if !software && !is_software(name) {
            return Tuning::GPU;
        }
        match name.to_ascii_lowercase().contains("swiftshader") {
            // It takes 1.8 times as long with 8 words.
            true => Tuning {
                column_words: 1,
                ..Tuning::SOFTWARE
            },
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

    /// The same as far as a device grants it; on a GPU with the subgroups that it has.
    #[must_use]
    pub fn within(self, limits: &Limits) -> Tuning {
        let most = limits
            .max_compute_invocations_per_workgroup
            .min(limits.max_compute_workgroup_size_x)
            .max(1);
        // Largest power of two that the device runs.
        let most = 1 << most.ilog2();
        Tuning {
            workgroup_size: self.workgroup_size.min(most),
            column_workgroup_size: self.column_workgroup_size.min(most),
            reduce_lanes: self.reduce_lanes.min(most),
            map_lanes: self.map_lanes.min(most),
            fold_workgroup_size: self.fold_workgroup_size.min(most),
            fold_lanes: self.fold_lanes.min(most),
            subgroup_size: match self.class {
                AdapterClass::Gpu => limits.subgroup_size,
                _ => self.subgroup_size.min(limits.subgroup_size),
            },
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            ..self
        }
    }
}

/// GL drivers do not say that they are software; their names do.
fn is_software(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["llvmpipe", "softpipe", "swiftshader", "basic render"]
        .iter()
        .any(|known| name.contains(known))
}
