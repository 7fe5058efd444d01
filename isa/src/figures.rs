//! What is said of a kernel on a family: the facts of its code.

use crate::assembly::Code;
use crate::device::Compiled;
use anyhow::Result;
use bcnorm::kernels::{Access, Element, Family, Spec};
use serde::{Deserialize, Serialize};

/// A line of the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// AMD's family, as RADV calls it.
    pub family: String,
    /// The kernel.
    pub kernel: String,
    /// The first plan that has it in this specialization; with `--all` the specialization.
    pub plan: String,
    /// Vector registers of an invocation.
    pub vgprs: u64,
    /// Registers that went to memory.
    pub spills: u64,
    /// Bytes of memory of an invocation's own.
    pub scratch: u64,
    /// Bytes of workgroup memory.
    pub lds: u64,
    /// Subgroups that a SIMD unit holds at a time.
    pub waves: u64,
    /// Invocations of a subgroup.
    pub subgroup_size: u32,
    /// Instructions in all.
    pub instructions: u64,
    /// Instructions outside the main loop: prologue, ragged ends, merges, epilogue.
    pub fixed_instructions: u64,
    /// Instructions of the main loop for a value (x; or a pair of x and dy).
    pub loop_instructions_per_value: Option<f64>,
    /// The narrowest load of the main loop, in bytes.
    pub load_bytes: Option<u32>,
}

impl Figures {
    /// Of a kernel that was compiled.
    ///
    /// # Errors
    /// Where the driver has no such statistics.
    pub fn new(family: &str, plan: &str, spec: &Spec, compiled: &Compiled) -> Result<Self> {
        let code = Code::read(&compiled.assembly);
        let main = code.main_loop();
        let instructions = compiled.statistic("Instructions")?;
        let in_loop = main.map_or(0, |main| u64::from(main.instructions));
        let per_value = main.and_then(|main| {
            let values = values(spec, main.loads.iter().sum(), main.stores.iter().sum())?;
            Some((f64::from(main.instructions) / values * 100.0).round() / 100.0)
        });
        Ok(Self {
            family: family.to_owned(),
            kernel: spec.kernel.name().to_owned(),
            plan: plan.to_owned(),
            vgprs: compiled.statistic("VGPRs")?,
            spills: compiled.statistic("Spilled VGPRs")? + compiled.statistic("Spilled SGPRs")?,
            scratch: compiled.statistic("Scratch size")?,
            lds: compiled.statistic("LDS size")?,
            waves: compiled.statistic("Subgroups per SIMD")?,
            subgroup_size: compiled.subgroup_size,
            instructions,
            fixed_instructions: instructions.saturating_sub(in_loop),
            loop_instructions_per_value: per_value,
            load_bytes: main.and_then(|main| main.loads.iter().copied().min()),
        })
    }

    /// What it is of: family, kernel and plan.
    pub fn key(&self) -> (&str, &str, &str) {
        (&self.family, &self.kernel, &self.plan)
    }
}

/// Values that a turn of a loop takes, by the bytes that it moves: stores of a map are of tensors alone, and so are loads of
/// a reduction, but for those of short rows, which read tables as well.
fn values(spec: &Spec, loads: u32, stores: u32) -> Option<f64> {
    let tensors = |access| {
        let bindings = spec.bindings();
        let tensors = bindings.filter(|(_, b)| b.element == Element::Word && b.access == access);
        tensors.count() as f64 * spec.dtype.bytes() as f64
    };
    let values = match spec.kernel.kernel().family {
        Family::RowReduce | Family::ColumnReduce => f64::from(loads) / tensors(Access::Read),
        Family::RowMap | Family::ColumnMap => f64::from(stores) / tensors(Access::ReadWrite),
        _ => return None,
    };
    (values > 0.0).then_some(values)
}
