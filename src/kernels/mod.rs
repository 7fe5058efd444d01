//! The kernels: one name each for the WGSL file, its entry point, the CPU mirror in
//! [`stages`](crate::stages), the debug label and the bench id.

mod source;
mod text;

pub use source::{browser_wgsl, wgsl};

use crate::desc::{Activation, DType};
use crate::tables::{
    Affine, AffineBackward, Channel, GradientPair, Group, GroupGradient, Moments, Products,
    RowGradient,
};

/// What one element of a binding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Element {
    /// Consecutive elements of a tensor ([`Spec::width`]), as the storage part declares them (`Stored`).
    Word,
    /// A parameter.
    F32,
    /// A counter.
    U32,
    /// A table of the struct of this name.
    Struct {
        /// Name in WGSL and in [`tables`](crate::tables).
        name: &'static str,
        /// Size in bytes.
        size: u32,
    },
}

impl Element {
    /// Its size in a binding of this specialization.
    pub fn bytes(self, spec: &Spec) -> u64 {
        match self {
            // A single 16-bit element is read from the u32 that it shares.
            Element::Word => (spec.dtype.bytes() * u64::from(spec.width)).max(4),
            Element::F32 | Element::U32 => 4,
            Element::Struct { size, .. } => u64::from(size),
        }
    }
}

/// How a kernel uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// One storage binding of a kernel. Binding 0 is the uniform
/// [`Params`](crate::params::Params); these follow from 1, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindingDecl {
    /// Name of the WGSL variable.
    pub name: &'static str,
    /// Read or written.
    pub access: Access,
    /// Element type.
    pub element: Element,
    /// Whether a specialization may go without it: its text then lacks what stands between `// #if <name>` and
    /// `// #end`.
    pub optional: bool,
}

/// How a kernel goes over its data: which specializations it has depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Reads tensors with channels first, word by word, and reduces.
    RowReduce,
    /// Maps tensors with channels first, word by word.
    RowMap,
    /// Reads tensors with channels last, a word of channels at each position, and reduces.
    ColumnReduce,
    /// Maps tensors with channels last.
    ColumnMap,
    /// Reads the elements of a (sample, group) as rows of their own, and reduces.
    ElementReduce,
    /// Reads elements as rows of their own, a word of a sample's at each sample.
    ElementColumn,
    /// Works on tables and reduces.
    Fold,
    /// Works on tables, each invocation for itself.
    Table,
}

impl Family {
    /// Whether lanes that share an item merge what they have by `reduce_moments`, `reduce_products` or
    /// `reduce_pair`, side by side: so that those of a subgroup can do without workgroup memory. (With channels
    /// last lanes are a tile of channels apart.)
    pub fn reduces_side_by_side(self) -> bool {
        matches!(
            self,
            Family::RowReduce | Family::ElementReduce | Family::Fold
        )
    }

    /// Whether its kernels touch tensors.
    pub fn is_tensor_sized(self) -> bool {
        !matches!(self, Family::Fold | Family::Table)
    }
}

/// A kernel's declaration; it drives bind group layouts, validation, and a test compares it with
/// what naga reads from the WGSL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// The one name.
    pub name: &'static str,
    /// Text of `shaders/<name>.wgsl`.
    pub text: &'static str,
    /// How it goes over its data.
    pub family: Family,
    /// Storage bindings, from binding 1.
    pub bindings: &'static [BindingDecl],
}

/// Names every kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum KernelId {
    /// Forward 1: x -> moments of every row (or part of a row).
    RowMoments,
    /// Forward 1 with channels last.
    ColumnMoments,
    /// Forward 1b: moments of the parts of a row -> of the row.
    RowFold,
    /// Counts the batch, where the momentum is cumulative.
    BatchCount,
    /// Forward 2a: moments over segments of a large batch.
    SampleFold,
    /// Forward 2: moments of every channel -> statistics in force, running statistics.
    ChannelFold,
    /// Forward 3: statistics of every (sample, group) -> the affine map of every row.
    GroupFold,
    /// Forward 3 without a group part: the affine map of every row from its channel alone.
    RowCoefficients,
    /// Running statistics of InstanceNorm.
    RunningFold,
    /// Forward 4: y from x.
    RowAffine,
    /// Forward 4 with channels last.
    ColumnAffine,
    /// Backward 1: x, dy -> mean of dy and its product with x, of every row (or part).
    RowProducts,
    /// Backward 1 with channels last.
    ColumnProducts,
    /// Backward 1b: products of the parts of a row -> of the row.
    RowFoldBackward,
    /// Backward 2: what the group part makes of dy, and the terms of all parameter gradients.
    GroupFoldBackward,
    /// Backward 2 without a group part: terms of the parameter gradients.
    RowTermsBackward,
    /// Backward 3a: sums over segments of a large batch.
    SampleFoldBackward,
    /// Backward 3: parameter gradients; what the channel part subtracts.
    ChannelFoldBackward,
    /// Backward 4a: the affine map of every row.
    RowCoefficientsBackward,
    /// Backward 4: dx from x and dy.
    RowAffineBackward,
    /// Backward 4 with channels last.
    ColumnAffineBackward,
    /// Forward 3 and 4 for short rows: groups' statistics and y, from x.
    ElementAffine,
    /// Backward 1 and 2 for short rows: what the group part makes of dy.
    ElementProducts,
    /// Backward 3a for short rows: terms of the gradients per channel.
    ElementTerms,
    /// Backward 4 for short rows: dx from x and dy.
    ElementAffineBackward,
}

const fn binding(
    name: &'static str,
    access: Access,
    element: Element,
    optional: bool,
) -> BindingDecl {
    BindingDecl {
        name,
        access,
        element,
        optional,
    }
}

const fn read(name: &'static str, element: Element) -> BindingDecl {
    binding(name, Access::Read, element, false)
}

const fn read_optional(name: &'static str, element: Element) -> BindingDecl {
    binding(name, Access::Read, element, true)
}

const fn write(name: &'static str, element: Element) -> BindingDecl {
    binding(name, Access::ReadWrite, element, false)
}

const fn write_optional(name: &'static str, element: Element) -> BindingDecl {
    binding(name, Access::ReadWrite, element, true)
}

macro_rules! table {
    ($name:ident) => {
        Element::Struct {
            name: stringify!($name),
            size: size_of::<$name>() as u32,
        }
    };
}

const MOMENTS: Element = table!(Moments);
const CHANNEL: Element = table!(Channel);
const GROUP: Element = table!(Group);
const GROUP_GRADIENT: Element = table!(GroupGradient);
const AFFINE: Element = table!(Affine);
const PRODUCTS: Element = table!(Products);
const PAIR: Element = table!(GradientPair);
const ROW_GRADIENT: Element = table!(RowGradient);
const AFFINE_BACKWARD: Element = table!(AffineBackward);
use Element::{F32, U32, Word};

/// The kernels: id, name, family, bindings. Everything else follows.
macro_rules! kernels {
    ($($id:ident $name:literal $family:ident [$($binding:expr),* $(,)?])*) => {
        impl KernelId {
            /// Every kernel, in the order of use.
            pub const ALL: &[KernelId] = &[$(KernelId::$id),*];

            /// Its declaration.
            pub fn kernel(self) -> &'static Kernel {
                match self {
                    $(KernelId::$id => {
                        const KERNEL: Kernel = Kernel {
                            name: $name,
                            text: text::shader!(concat!("../../shaders/", $name, ".wgsl")),
                            family: Family::$family,
                            bindings: &[$($binding),*],
                        };
                        &KERNEL
                    })*
                }
            }
        }
    };
}

kernels! {
    RowMoments "row_moments" RowReduce [
        read("x", Word),
        write("row_parts", MOMENTS),
    ]
    ColumnMoments "column_moments" ColumnReduce [
        read("x", Word),
        write("row_parts", MOMENTS),
    ]
    RowFold "row_fold" Fold [
        read("row_parts", MOMENTS),
        write("rows", MOMENTS),
    ]
    BatchCount "batch_count" Table [
        write("num_batches_tracked", U32),
    ]
    SampleFold "sample_fold" Fold [
        read("rows", MOMENTS),
        write("channel_parts", MOMENTS),
    ]
    ChannelFold "channel_fold" Fold [
        read_optional("channel_parts", MOMENTS),
        read_optional("bn_weight", F32),
        read_optional("bn_bias", F32),
        read_optional("weight", F32),
        write_optional("num_batches_tracked", U32),
        write_optional("running_mean", F32),
        write_optional("running_var", F32),
        write("channels", CHANNEL),
    ]
    GroupFold "group_fold" Fold [
        read("rows", MOMENTS),
        read("channels", CHANNEL),
        read_optional("weight", F32),
        read_optional("bias", F32),
        write("groups", GROUP),
        write("coefficients", AFFINE),
    ]
    RowCoefficients "row_coefficients" Table [
        read("channels", CHANNEL),
        write_optional("rows", MOMENTS),
        write("coefficients", AFFINE),
    ]
    RunningFold "running_fold" Fold [
        read("rows", MOMENTS),
        write("running_mean", F32),
        write("running_var", F32),
    ]
    RowAffine "row_affine" RowMap [
        read_optional("x", Word),
        read("coefficients", AFFINE),
        read_optional("residual", Word),
        write("y", Word),
    ]
    ColumnAffine "column_affine" ColumnMap [
        read_optional("x", Word),
        read("coefficients", AFFINE),
        read_optional("residual", Word),
        write("y", Word),
    ]
    RowProducts "row_products" RowReduce [
        read("x", Word),
        read("grad_y", Word),
        read("rows", MOMENTS),
        read_optional("coefficients", AFFINE),
        read_optional("residual", Word),
        write("product_parts", PRODUCTS),
    ]
    ColumnProducts "column_products" ColumnReduce [
        read("x", Word),
        read("grad_y", Word),
        read("rows", MOMENTS),
        read_optional("coefficients", AFFINE),
        read_optional("residual", Word),
        write("product_parts", PRODUCTS),
    ]
    RowFoldBackward "row_fold_backward" Fold [
        read("product_parts", PRODUCTS),
        write("products", PRODUCTS),
    ]
    GroupFoldBackward "group_fold_backward" Fold [
        read("rows", MOMENTS),
        read("products", PRODUCTS),
        read("channels", CHANNEL),
        read("groups", GROUP),
        write_optional("gradient_terms", PAIR),
        write("row_gradients", ROW_GRADIENT),
    ]
    RowTermsBackward "row_terms_backward" Table [
        read("rows", MOMENTS),
        read("products", PRODUCTS),
        read("channels", CHANNEL),
        write_optional("gradient_terms", PAIR),
        write("row_gradients", ROW_GRADIENT),
    ]
    SampleFoldBackward "sample_fold_backward" Fold [
        read("gradient_terms", PAIR),
        write("gradient_parts", PAIR),
    ]
    ChannelFoldBackward "channel_fold_backward" Fold [
        read("gradient_parts", PAIR),
        read_optional("channels", CHANNEL),
        write_optional("grad_bn_weight", F32),
        write_optional("grad_bn_bias", F32),
        write_optional("grad_weight", F32),
        write_optional("grad_bias", F32),
        write_optional("channel_gradients", PAIR),
    ]
    RowCoefficientsBackward "row_coefficients_backward" Table [
        read("rows", MOMENTS),
        read("products", PRODUCTS),
        read("channels", CHANNEL),
        read("row_gradients", ROW_GRADIENT),
        read_optional("channel_gradients", PAIR),
        write("coefficients_backward", AFFINE_BACKWARD),
    ]
    RowAffineBackward "row_affine_backward" RowMap [
        read_optional("x", Word),
        read("grad_y", Word),
        read("coefficients_backward", AFFINE_BACKWARD),
        read_optional("coefficients", AFFINE),
        read_optional("residual", Word),
        write("grad_x", Word),
        write_optional("grad_residual", Word),
    ]
    ColumnAffineBackward "column_affine_backward" ColumnMap [
        read_optional("x", Word),
        read("grad_y", Word),
        read("coefficients_backward", AFFINE_BACKWARD),
        read_optional("coefficients", AFFINE),
        read_optional("residual", Word),
        write("grad_x", Word),
        write_optional("grad_residual", Word),
    ]
    ElementAffine "element_affine" ElementReduce [
        read("channels", CHANNEL),
        read_optional("x", Word),
        read_optional("weight", F32),
        read_optional("bias", F32),
        read_optional("residual", Word),
        write_optional("groups", GROUP),
        write("y", Word),
    ]
    ElementProducts "element_products" ElementReduce [
        read("channels", CHANNEL),
        read("x", Word),
        read("grad_y", Word),
        read("groups", GROUP),
        write_optional("affine_terms", PAIR),
        write("group_gradients", GROUP_GRADIENT),
    ]
    ElementTerms "element_terms" ElementColumn [
        read("channels", CHANNEL),
        read("x", Word),
        read("grad_y", Word),
        read("group_gradients", GROUP_GRADIENT),
        write_optional("channel_terms", PAIR),
        write_optional("affine_terms", PAIR),
    ]
    ElementAffineBackward "element_affine_backward" ElementColumn [
        read("channels", CHANNEL),
        read("x", Word),
        read("grad_y", Word),
        read("group_gradients", GROUP_GRADIENT),
        read_optional("channel_gradients", PAIR),
        write("grad_x", Word),
    ]
}

impl KernelId {
    /// The one name.
    pub fn name(self) -> &'static str {
        self.kernel().name
    }
}

/// Everything a kernel's text depends on: two steps with equal specializations share a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// Whether the gradient of x is added to what is there.
    pub accumulate: bool,
    /// What the second pass applies.
    pub activation: Activation,
    /// Bit i: the kernel's i-th binding, which is optional, is not there.
    pub absent: u16,
}

impl Spec {
    /// A kernel on tables: single elements of f32, nothing fused or left out.
    pub const fn new(kernel: KernelId, workgroup_size: u32, lanes: u32) -> Self {
        Self {
            kernel,
            workgroup_size,
            lanes,
            subgroup_size: 1,
            dtype: DType::F32,
            width: 1,
            column_words: 1,
            aligned: true,
            accumulate: false,
            activation: Activation::None,
            absent: 0,
        }
    }

    /// The bindings that are there, with their numbers.
    pub fn bindings(&self) -> impl Iterator<Item = (u32, &'static BindingDecl)> {
        let absent = self.absent;
        (1..)
            .zip(self.kernel.kernel().bindings)
            .filter(move |&(number, _)| absent >> (number - 1) & 1 == 0)
    }
}

/// Bytes of workgroup memory that a kernel uses, of the lanes that reduce through it: for every reduction that its text
/// calls an entry of each subgroup, of each invocation where they are 1 (`shaders/parts/reduction/shared.wgsl`), with channels last one of every other (`columns_shared.wgsl`); none where all
/// lanes are in a subgroup. A test compares it with what naga says.
pub fn workgroup_memory(spec: &Spec) -> u32 {
    if spec.lanes == spec.subgroup_size {
        return 0;
    }
    // A count, then words of `width` elements, each at a multiple of its size.
    let columns = |words: u32| (words + 1) * 4 * spec.width;
    let all = spec.workgroup_size / spec.subgroup_size;
    let half = spec.workgroup_size / 2;
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
