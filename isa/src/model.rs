//! The file that `bcnorm info --card` predicts from: figures of every kernel that plans have, in few lines.

use crate::figures::Figures;
use crate::plans::{self, Entry};
use crate::{compile, compiler};
use anyhow::Result;
use bcnorm::{Activation, DType, Layout, NormKind, Tuning};
use std::collections::HashSet;
use std::fmt::Write as _;

/// The family whose instructions stand for those of all cards: RDNA 2, the newest that Mesa 22.3 knows.
pub const FAMILY: &str = "navi21";

/// Shapes whose plans have every kernel, in words of 4 elements and in narrower ones. The first plan that has a kernel gives
/// its line.
const SHAPES: [[&[usize]; 2]; 4] = [
    [&[32, 256, 56, 56], &[1, 64, 224, 224]],
    [&[512, 512, 2, 2], &[4096, 512]],
    [&[3, 67, 113, 113], &[64, 62]],
    [&[32, 258, 7, 7], &[2048, 32, 5, 5]],
];

/// A kernel for each line of the file ([`Spec::filed_under`](bcnorm::kernels::Spec::filed_under)).
fn entries() -> Vec<Entry> {
    let mut known = HashSet::new();
    let mut entries = Vec::new();
    let types = [
        (DType::F32, 0),
        (DType::BF16, 0),
        (DType::F16, 0),
        (DType::F16, 1),
    ];
    for dims in SHAPES.into_iter().flatten() {
        for &kind in [NormKind::BcNorm].iter().chain(NormKind::ALL) {
            for (dtype, native) in types {
                let tuning = Tuning::GPU.with(|t| {
                    t.limits.subgroup_size = 32;
                    (t.limits.native_unpack, t.limits.native_pack) = (native, native);
                });
                for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                    for direction in ["forward", "backward", "eval"] {
                        let none = Activation::None;
                        // Not every norm takes every shape.
                        let planned =
                            plans::plan(kind, dims, dtype, layout, direction, none, &tuning);
                        let Ok(planned) = planned else { continue };
                        let steps = planned.steps().iter();
                        let new = steps.filter(|step| known.insert(step.spec.filed_under()));
                        entries.extend(new.map(|step| Entry {
                            spec: step.spec,
                            plan: format!("{} {dims:?} {direction}", kind.name()),
                        }));
                    }
                }
            }
        }
    }
    entries.sort_by_key(|entry| entry.spec.filed_under());
    entries
}

/// The file's text, and the version of Mesa that said so.
///
/// # Errors
/// Where there is no RADV, or where it refuses a kernel.
pub fn text() -> Result<(String, String)> {
    let compiler = compiler(FAMILY)?;
    let lines = compile(&compiler, &entries(), |entry, compiled| {
        let figures = Figures::new(FAMILY, &entry.plan, &entry.spec, &compiled)?;
        let [kernel, storage, words] = entry.spec.filed_under();
        let main_loop = figures.instructions - figures.fixed_instructions;
        let a_value = figures.loop_instructions_per_value.unwrap_or(0.0);
        let (vgprs, instructions) = (figures.vgprs, figures.instructions);
        Ok(format!(
            "{kernel}\t{storage}\t{words}\t{vgprs}\t{instructions}\t{main_loop}\t{a_value}\n"
        ))
    })?;
    let mut text = String::new();
    let driver = &compiler.driver;
    let _ = writeln!(
        text,
        "# cargo xtask isa --model cli/src/info/instructions.tsv ({FAMILY}, {driver})\n\
         # kernel\tstorage\twords\tregisters\tinstructions\tof the main loop\tof it a value (0: none)"
    );
    text.extend(lines);
    Ok((text, compiler.driver.clone()))
}
