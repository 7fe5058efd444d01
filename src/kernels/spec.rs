//! What a kernel's text depends on.

use super::KernelId;
use super::declare::{BindingDecl, Reduced};
use crate::desc::{Activation, DType};
use crate::tables::{GradientPair, Moments, Products};

/// Everything a kernel's text depends on: two steps with equal specializations share a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Spec {
    /// Which kernel.
    pub kernel: KernelId,
    /// Invocations of a workgroup.
    pub workgroup_size: u32,
    /// Invocations that share a work item: a power of two that divides `workgroup_size`.
    pub lanes: u32,
    /// Adjacent invocations, of which as many as this are reduced by subgroup shuffles: a power of two that divides
    /// `lanes`. 1 disables shuffles: all values go through workgroup memory, and the text needs no feature; otherwise it
    /// needs `subgroups`, which browsers want to read of (`enable subgroups;`) and naga does not.
    pub subgroup_size: u32,
    /// How tensors are stored.
    pub dtype: DType,
    /// Whether f16 is read by the device's own conversion (`unpack2x16float`), not by integers.
    pub native_unpack: bool,
    /// Whether f16 is written by the device's own conversion (`pack2x16float`), not by integers.
    pub native_pack: bool,
    /// Elements of a tensor word: 4; where rows are shorter, or a tensor (with channels last, its channels) no multiple
    /// of 4, what can be written alone: 1 of f32, 2 of 16 bits, a u32. Reductions with channels last may read
    /// single elements of 16 bits, 1.
    pub width: u32,
    /// Words of neighbouring channels that an invocation takes together, with channels last: 1 where `lanes` is more.
    /// Each is a work item.
    pub column_words: u32,
    /// Whether rows begin at words (row length a multiple of `width`); with channels last, whether
    /// positions do; of short rows, whether a word is all one channel's.
    pub aligned: bool,
    /// Of short rows: whether a group's words are a chunk of each lane, which stays in registers.
    pub resident: bool,
    /// Whether the gradient of x is added to what is there.
    pub accumulate: bool,
    /// What the second pass applies.
    pub activation: Activation,
    /// Bit i: the kernel's i-th binding, which is optional, is not there.
    pub absent: u16,
}

impl Spec {
    /// A kernel on tables: single elements of f32, nothing fused or left out.
    pub(crate) const fn new(kernel: KernelId, workgroup_size: u32, lanes: u32) -> Self {
        Self {
            kernel,
            workgroup_size,
            lanes,
            subgroup_size: 1,
            dtype: DType::F32,
            native_unpack: false,
            native_pack: false,
            width: 1,
            column_words: 1,
            aligned: true,
            resident: false,
            accumulate: false,
            activation: Activation::None,
            absent: 0,
        }
    }

    /// What its figures are filed under (`cargo xtask isa --model`, `bcnorm info --card`): the kernel, how it reads and writes
    /// tensors (`f16 native`: by the device's own conversions), and whether its words have 4 elements or fewer. Kernels on
    /// tables have no words.
    pub fn filed_under(&self) -> [&'static str; 3] {
        let storage = match self.native_unpack || self.native_pack {
            true => "f16 native",
            false => self.dtype.name(),
        };
        let kernel = self.kernel.kernel();
        match (kernel.family.is_tensor_sized(), self.width) {
            (false, _) => [kernel.name, "-", "-"],
            (true, 4) => [kernel.name, storage, "wide"],
            (true, _) => [kernel.name, storage, "narrow"],
        }
    }

    /// A text of every field, in few bytes: equal ones are of equal specializations.
    pub fn key(&self) -> String {
        let &Spec {
            kernel,
            workgroup_size,
            lanes,
            subgroup_size,
            dtype,
            native_unpack,
            native_pack,
            width,
            column_words,
            aligned,
            resident,
            accumulate,
            activation,
            absent,
        } = self;
        let fields = [
            workgroup_size,
            lanes,
            subgroup_size,
            dtype as u32,
            native_unpack.into(),
            native_pack.into(),
            width,
            column_words,
            aligned.into(),
            resident.into(),
            accumulate.into(),
            activation as u32,
            absent.into(),
        ];
        let mut key = kernel.name().to_owned();
        for field in fields {
            key.push(' ');
            key.push_str(&field.to_string());
        }
        key
    }

    /// The bindings that are there, with their numbers.
    pub fn bindings(&self) -> impl Iterator<Item = (u32, &'static BindingDecl)> {
        let absent = self.absent;
        (1..)
            .zip(self.kernel.kernel().bindings)
            .filter(move |&(number, _)| absent >> (number - 1) & 1 == 0)
    }
}

/// Bytes of workgroup memory that a kernel uses, of the lanes that reduce through it: for every reduction an entry of each
/// subgroup, of each invocation where shuffles are disabled (`shaders/parts/reduction/shared.wgsl`); with channels last one
/// of every other invocation (`columns_shared.wgsl`); none where all lanes are in a subgroup. A test compares it with what
/// naga says.
pub fn workgroup_memory(spec: &Spec) -> u32 {
    if spec.lanes == spec.subgroup_size {
        return 0;
    }
    // A count, then words of `width` elements, each at a multiple of its size.
    let columns = |words: u32| (words + 1) * 4 * spec.width;
    let all = spec.workgroup_size / spec.subgroup_size;
    let half = spec.workgroup_size / 2;
    let reduces = spec.kernel.kernel().reduces.iter();
    reduces
        .map(|reduced| match reduced {
            Reduced::Moments => size_of::<Moments>() as u32 * all,
            Reduced::Products => size_of::<Products>() as u32 * all,
            Reduced::Pair => size_of::<GradientPair>() as u32 * all,
            Reduced::ColumnMoments => columns(3) * half,
            Reduced::ColumnProducts => columns(4) * half,
        })
        .sum()
}
