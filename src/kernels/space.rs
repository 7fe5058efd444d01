//! The space of specializations: what a kernel's declaration accepts, and all of it.

use super::KernelId;
use super::declare::{Access, Element, Family};
use super::spec::Spec;
use crate::desc::{Activation, DType};
use crate::limits::{MAX_COLUMN_WORDS, MAX_SUBGROUP_SIZE, MAX_WORKGROUP_SIZE};

impl Family {
    /// How tensors of a type may be cut: elements of a word, and whether rows (positions, channels) begin at words.
    /// Tables are single f32.
    pub fn cuts(self, dtype: DType) -> &'static [(u32, bool)] {
        let half = dtype != DType::F32;
        match self {
            Family::RowReduce | Family::RowMap | Family::ElementReduce | Family::ElementColumn => {
                match half {
                    false => &[(4, true), (4, false), (1, true)],
                    true => &[(4, true), (4, false), (2, true), (2, false)],
                }
            }
            Family::ColumnReduce => match half {
                false => &[(4, true), (1, true)],
                true => &[(4, true), (2, true), (1, true)],
            },
            Family::ColumnMap => match half {
                false => &[(4, true), (1, true)],
                true => &[(4, true), (2, true), (2, false)],
            },
            Family::Fold | Family::Table => match half {
                false => &[(1, true)],
                true => &[],
            },
        }
    }
}

impl Spec {
    /// Whether a binding is there; of those that the kernel does not have, none is.
    pub fn has(&self, name: &str) -> bool {
        self.bindings().any(|(_, binding)| binding.name == name)
    }

    /// Whether its kernel writes tensors.
    pub(crate) fn writes_tensors(&self) -> bool {
        let mut bindings = self.kernel.kernel().bindings.iter();
        bindings.any(|b| b.element == Element::Word && b.access == Access::ReadWrite)
    }

    /// Whether its kernel accepts it: plans are made of no others.
    ///
    /// # Errors
    /// The name of the field that it does not accept.
    pub fn check(&self) -> Result<(), &'static str> {
        let kernel = self.kernel.kernel();
        let family = kernel.family;
        let lanes = self.lanes;
        let alone = matches!(family, Family::Table | Family::ElementColumn)
            || (family == Family::ColumnMap && !self.aligned)
            // A fold of nothing.
            || (self.kernel == KernelId::ChannelFold && !self.has("channel_parts"));
        let takes_columns = matches!(family, Family::ColumnReduce | Family::ColumnMap);
        let declared = |name| kernel.bindings.iter().any(|binding| binding.name == name);
        let activates = family.is_tensor_sized() && (declared("y") || declared("coefficients"));
        let optional = (0..).zip(kernel.bindings);
        let optional = optional.filter(|(_, binding)| binding.optional);
        let optional: u16 = optional.map(|(index, _)| 1u16 << index).sum();
        for (field, accepted) in [
            (
                "workgroup_size",
                (1..=MAX_WORKGROUP_SIZE).contains(&self.workgroup_size),
            ),
            (
                "lanes",
                lanes.is_power_of_two()
                    && self.workgroup_size.is_multiple_of(lanes)
                    && (lanes == 1 || !alone),
            ),
            (
                "subgroup_size",
                self.subgroup_size == 1
                    || (family.reduces_side_by_side()
                        && self.subgroup_size.is_power_of_two()
                        && self.subgroup_size <= lanes.min(MAX_SUBGROUP_SIZE)),
            ),
            (
                "native_unpack",
                !self.native_unpack || self.dtype == DType::F16,
            ),
            (
                "native_pack",
                !self.native_pack || (self.dtype == DType::F16 && self.writes_tensors()),
            ),
            (
                "width",
                family
                    .cuts(self.dtype)
                    .contains(&(self.width, self.aligned)),
            ),
            (
                "column_words",
                self.column_words == 1
                    || (takes_columns
                        && (lanes, self.width) == (1, 4)
                        && self.column_words.is_power_of_two()
                        && self.column_words <= MAX_COLUMN_WORDS),
            ),
            (
                "resident",
                !self.resident || family == Family::ElementReduce,
            ),
            ("accumulate", !self.accumulate || declared("grad_x")),
            (
                "activation",
                self.activation == Activation::None || activates,
            ),
            (
                "absent",
                self.absent & !optional == 0 && (kernel.accepts)(self),
            ),
        ] {
            if !accepted {
                return Err(field);
            }
        }
        Ok(())
    }

    /// The one that stands for it in [`canonical_specs`].
    #[must_use]
    pub fn canonical(&self) -> Spec {
        Spec {
            workgroup_size: 64,
            native_unpack: false,
            native_pack: false,
            resident: false,
            lanes: if self.lanes == 1 { 1 } else { 8 },
            subgroup_size: 1,
            column_words: self.column_words.min(2),
            ..*self
        }
    }
}

/// For kernels that take dy: with an activation, it is computed again from x and the forward's coefficients, with the
/// residual that was added; without one, none of that is there.
pub(super) fn fused_backward(spec: &Spec) -> bool {
    let fused = spec.activation != Activation::None;
    let declared = spec.kernel.kernel().bindings;
    let has_gradient = declared.iter().any(|b| b.name == "grad_residual");
    spec.has("coefficients") == fused
        && (fused || !spec.has("residual"))
        && (!has_gradient || spec.has("grad_residual") == spec.has("residual"))
        && (!fused || spec.has("x"))
}

/// Every specialization that plans are made of, but for the size of workgroups (64 here), the number of lanes (1 or
/// 8), the words of an invocation (1 or 2), subgroups (none), who converts f16 (integers) and whether short rows stay in
/// registers (no): see [`Spec::canonical`].
pub fn canonical_specs() -> Vec<Spec> {
    let mut specs = Vec::new();
    for &kernel in KernelId::ALL {
        let bindings = kernel.kernel().bindings;
        let tensors = bindings.iter().any(|b| b.element == Element::Word);
        let dtypes: &[DType] = match tensors {
            true => &[DType::F32, DType::F16, DType::BF16],
            false => &[DType::F32],
        };
        for &dtype in dtypes {
            for &(width, aligned) in kernel.kernel().family.cuts(dtype) {
                for absent in 0..1u16 << bindings.len() {
                    for activation in [Activation::None, Activation::Relu, Activation::Silu] {
                        for (lanes, column_words) in [(1, 1), (1, 2), (8, 1)] {
                            for accumulate in [false, true] {
                                specs.push(Spec {
                                    kernel,
                                    workgroup_size: 64,
                                    lanes,
                                    subgroup_size: 1,
                                    dtype,
                                    native_unpack: false,
                                    native_pack: false,
                                    width,
                                    column_words,
                                    aligned,
                                    resident: false,
                                    accumulate,
                                    activation,
                                    absent,
                                });
                            }
                        }
                    }
                }
            }
        }
    }
    specs.retain(|spec| spec.check().is_ok());
    specs
}
