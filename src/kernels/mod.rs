//! The kernels: one name each for the WGSL file, its entry point, the CPU mirror in
//! [`stages`](crate::stages), the debug label and the bench id.

mod source;

pub use source::wgsl;

use crate::tables::{Affine, AffineBackward, Channel, GradientPair, Group, Moments, Products};

/// What one element of a binding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Element {
    /// `WIDTH` consecutive elements of a tensor, as the storage part declares them.
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
    /// Its size, for words of `width` elements.
    pub fn bytes(self, width: u32) -> u64 {
        match self {
            Element::Word => 4 * u64::from(width),
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
}

/// What a kernel needs from the specialization, and so which parts are put before its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Reads tensors word by word and reduces: storage and reduction parts.
    RowReduce,
    /// Maps tensors word by word: the storage part.
    RowMap,
    /// Works on tables and reduces: the reduction part.
    Fold,
    /// Works on tables, each invocation for itself.
    Table,
}

/// A kernel's declaration; it drives bind group layouts, validation, and a test compares it with
/// what naga reads from the WGSL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// The one name.
    pub name: &'static str,
    /// Text of `shaders/<name>.wgsl`.
    pub text: &'static str,
    /// Which parts it needs.
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
    /// Forward 1b: moments of the parts of a row -> of the row.
    RowFold,
    /// Counts the batch.
    BatchCount,
    /// Forward 2a: moments over segments of a large batch.
    SampleFold,
    /// Forward 2: moments of every channel -> statistics in force, running statistics.
    ChannelFold,
    /// Forward 3: statistics of every (sample, group) -> the affine map of every row.
    GroupFold,
    /// Forward 4: y from x.
    RowAffine,
    /// Backward 1: x, dy -> mean of dy and its product with x, of every row (or part).
    RowProducts,
    /// Backward 1b: products of the parts of a row -> of the row.
    RowFoldBackward,
    /// Backward 2: terms of all parameter gradients.
    GroupFoldBackward,
    /// Backward 3a: sums over segments of a large batch.
    SampleFoldBackward,
    /// Backward 3: parameter gradients; what the channel part subtracts.
    ChannelFoldBackward,
    /// Backward 4a: the affine map of every row.
    RowCoefficientsBackward,
    /// Backward 4: dx from x and dy.
    RowAffineBackward,
}

const fn read(name: &'static str, element: Element) -> BindingDecl {
    BindingDecl {
        name,
        access: Access::Read,
        element,
    }
}

const fn write(name: &'static str, element: Element) -> BindingDecl {
    BindingDecl {
        name,
        access: Access::ReadWrite,
        element,
    }
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
const AFFINE: Element = table!(Affine);
const PRODUCTS: Element = table!(Products);
const PAIR: Element = table!(GradientPair);
const AFFINE_BACKWARD: Element = table!(AffineBackward);
use Element::{F32, U32, Word};

macro_rules! kernel {
    ($name:literal, $family:ident, [$($binding:expr),* $(,)?]) => {
        Kernel {
            name: $name,
            text: include_str!(concat!("../../shaders/", $name, ".wgsl")),
            family: Family::$family,
            bindings: &[$($binding),*],
        }
    };
}

impl KernelId {
    /// Every kernel, in the order of use.
    pub const ALL: &[KernelId] = &[
        KernelId::RowMoments,
        KernelId::RowFold,
        KernelId::BatchCount,
        KernelId::SampleFold,
        KernelId::ChannelFold,
        KernelId::GroupFold,
        KernelId::RowAffine,
        KernelId::RowProducts,
        KernelId::RowFoldBackward,
        KernelId::GroupFoldBackward,
        KernelId::SampleFoldBackward,
        KernelId::ChannelFoldBackward,
        KernelId::RowCoefficientsBackward,
        KernelId::RowAffineBackward,
    ];

    /// Its declaration.
    pub fn kernel(self) -> &'static Kernel {
        const ROW_MOMENTS: Kernel = kernel!(
            "row_moments",
            RowReduce,
            [read("x", Word), write("row_parts", MOMENTS)]
        );
        const ROW_FOLD: Kernel = kernel!(
            "row_fold",
            Fold,
            [read("row_parts", MOMENTS), write("rows", MOMENTS)]
        );
        const BATCH_COUNT: Kernel =
            kernel!("batch_count", Table, [write("num_batches_tracked", U32)]);
        const SAMPLE_FOLD: Kernel = kernel!(
            "sample_fold",
            Fold,
            [read("rows", MOMENTS), write("channel_parts", MOMENTS)]
        );
        const CHANNEL_FOLD: Kernel = kernel!(
            "channel_fold",
            Fold,
            [
                read("channel_parts", MOMENTS),
                read("bn_weight", F32),
                read("bn_bias", F32),
                read("num_batches_tracked", U32),
                write("running_mean", F32),
                write("running_var", F32),
                write("channels", CHANNEL),
            ]
        );
        const GROUP_FOLD: Kernel = kernel!(
            "group_fold",
            Fold,
            [
                read("rows", MOMENTS),
                read("channels", CHANNEL),
                read("weight", F32),
                read("bias", F32),
                write("groups", GROUP),
                write("coefficients", AFFINE),
            ]
        );
        const ROW_AFFINE: Kernel = kernel!(
            "row_affine",
            RowMap,
            [
                read("x", Word),
                read("coefficients", AFFINE),
                write("y", Word)
            ]
        );
        const ROW_PRODUCTS: Kernel = kernel!(
            "row_products",
            RowReduce,
            [
                read("x", Word),
                read("grad_y", Word),
                read("rows", MOMENTS),
                write("product_parts", PRODUCTS),
            ]
        );
        const ROW_FOLD_BACKWARD: Kernel = kernel!(
            "row_fold_backward",
            Fold,
            [read("product_parts", PRODUCTS), write("products", PRODUCTS)]
        );
        const GROUP_FOLD_BACKWARD: Kernel = kernel!(
            "group_fold_backward",
            Fold,
            [
                read("rows", MOMENTS),
                read("products", PRODUCTS),
                read("channels", CHANNEL),
                read("groups", GROUP),
                write("gradient_terms", PAIR),
            ]
        );
        const SAMPLE_FOLD_BACKWARD: Kernel = kernel!(
            "sample_fold_backward",
            Fold,
            [read("gradient_terms", PAIR), write("gradient_parts", PAIR)]
        );
        const CHANNEL_FOLD_BACKWARD: Kernel = kernel!(
            "channel_fold_backward",
            Fold,
            [
                read("gradient_parts", PAIR),
                write("grad_bn_weight", F32),
                write("grad_bn_bias", F32),
                write("grad_weight", F32),
                write("grad_bias", F32),
                write("channel_gradients", PAIR),
            ]
        );
        const ROW_COEFFICIENTS_BACKWARD: Kernel = kernel!(
            "row_coefficients_backward",
            Table,
            [
                read("rows", MOMENTS),
                read("products", PRODUCTS),
                read("channels", CHANNEL),
                read("groups", GROUP),
                read("gradient_terms", PAIR),
                read("channel_gradients", PAIR),
                write("coefficients_backward", AFFINE_BACKWARD),
            ]
        );
        const ROW_AFFINE_BACKWARD: Kernel = kernel!(
            "row_affine_backward",
            RowMap,
            [
                read("x", Word),
                read("grad_y", Word),
                read("coefficients_backward", AFFINE_BACKWARD),
                write("grad_x", Word),
            ]
        );
        match self {
            KernelId::RowMoments => &ROW_MOMENTS,
            KernelId::RowFold => &ROW_FOLD,
            KernelId::BatchCount => &BATCH_COUNT,
            KernelId::SampleFold => &SAMPLE_FOLD,
            KernelId::ChannelFold => &CHANNEL_FOLD,
            KernelId::GroupFold => &GROUP_FOLD,
            KernelId::RowAffine => &ROW_AFFINE,
            KernelId::RowProducts => &ROW_PRODUCTS,
            KernelId::RowFoldBackward => &ROW_FOLD_BACKWARD,
            KernelId::GroupFoldBackward => &GROUP_FOLD_BACKWARD,
            KernelId::SampleFoldBackward => &SAMPLE_FOLD_BACKWARD,
            KernelId::ChannelFoldBackward => &CHANNEL_FOLD_BACKWARD,
            KernelId::RowCoefficientsBackward => &ROW_COEFFICIENTS_BACKWARD,
            KernelId::RowAffineBackward => &ROW_AFFINE_BACKWARD,
        }
    }

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
    /// Elements of a tensor word: 4, or 1 where the tensor is no whole number of words of 4.
    pub width: u32,
    /// Whether rows begin at words (row length a multiple of `width`).
    pub aligned: bool,
    /// Whether the tensor output is added to what is there.
    pub accumulate: bool,
    /// Whether tensor kernels hide their first differences from the compiler, which may otherwise
    /// reorder them (Metal, DX12).
    pub fence: bool,
}
