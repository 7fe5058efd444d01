//! What a kernel's declaration is made of.

use super::spec::Spec;
use crate::params::Uniform;
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

/// One storage binding of a kernel. Binding 0 is the uniform; these follow from 1, in order.
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

/// What the lanes of an item reduce to one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reduced {
    /// [`Moments`], by `reduce_moments`.
    Moments,
    /// [`Products`], by `reduce_products`.
    Products,
    /// Two sums, by `reduce_pair`.
    Pair,
    /// The moments of a word's channels, by `reduce_column_moments`.
    ColumnMoments,
    /// The products of a word's channels, by `reduce_column_products`.
    ColumnProducts,
}

/// A kernel's uniform, binding 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniformDecl {
    /// `shaders/parts/params/<file>.wgsl` declares it.
    pub file: &'static str,
    /// Names and sizes in bytes of its members, in order.
    pub members: &'static [(&'static str, usize)],
    /// Its size in bytes.
    pub size: u64,
}

impl UniformDecl {
    pub(super) const fn of<T: Uniform>() -> Self {
        Self {
            file: T::FILE,
            members: T::MEMBERS,
            size: size_of::<T>() as u64,
        }
    }
}

/// A kernel's declaration: bind group layouts, the space of its specializations, the planner's loops and the executor
/// follow from it, and tests compare it with what naga reads from the WGSL.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// The one name.
    pub name: &'static str,
    /// Text of `shaders/<name>.wgsl`.
    pub text: &'static str,
    /// Its uniform.
    pub params: UniformDecl,
    /// How it goes over its data.
    pub family: Family,
    /// How often it goes over an item's entries (of a table; of a group, its words): what bounds the entries of a lane
    /// (65,000 iterations in all: `MAX_ITERATIONS` in src/limits.rs).
    pub loops: u32,
    /// What its lanes reduce, each through an array of workgroup memory of its own.
    pub reduces: &'static [Reduced],
    /// Storage bindings, from binding 1.
    pub bindings: &'static [BindingDecl],
    /// Which of its optional bindings go together, and with which activation.
    pub accepts: fn(&Spec) -> bool,
}

pub(super) const fn binding(
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

pub(super) const fn read(name: &'static str, element: Element) -> BindingDecl {
    binding(name, Access::Read, element, false)
}

pub(super) const fn read_optional(name: &'static str, element: Element) -> BindingDecl {
    binding(name, Access::Read, element, true)
}

pub(super) const fn write(name: &'static str, element: Element) -> BindingDecl {
    binding(name, Access::ReadWrite, element, false)
}

pub(super) const fn write_optional(name: &'static str, element: Element) -> BindingDecl {
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

pub(super) const MOMENTS: Element = table!(Moments);
pub(super) const CHANNEL: Element = table!(Channel);
pub(super) const GROUP: Element = table!(Group);
pub(super) const GROUP_GRADIENT: Element = table!(GroupGradient);
pub(super) const AFFINE: Element = table!(Affine);
pub(super) const PRODUCTS: Element = table!(Products);
pub(super) const PAIR: Element = table!(GradientPair);
pub(super) const ROW_GRADIENT: Element = table!(RowGradient);
pub(super) const AFFINE_BACKWARD: Element = table!(AffineBackward);
