//! `bcnorm info --plan SHAPE --card NAME`: what a plan would take on a card that is not here.
//!
//! A prediction by a small model, fitted to what one H200 took (benches/RESULTS.md; the test below holds both side by side).
//! A step takes a launch, then one invocation's path through the code, then the longer of its bytes and its instructions.
//! Caches are not in the model: that the L2 holds a tensor made copies faster on the H200, and plans hardly.

use crate::request::{Direction, Request};
use crate::table::{Table, size, title};
use anyhow::{Context as _, Result};
use bcnorm::kernels::{Family, Spec};
use bcnorm::plan::{Limits, Step};
use bcnorm::{Plan, Tuning};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use std::fmt;

/// What the model knows of a card. Clocks are those that vendors state as highest.
#[derive(Debug)]
pub struct Card {
    name: &'static str,
    /// Bytes a second, as the vendor states them.
    bandwidth: f64,
    /// Invocations that issue an instruction in a clock.
    lanes: f64,
    /// Clocks a second.
    clock: f64,
    /// The most invocations that a lane holds at a time.
    resident: f64,
    /// Registers that they share.
    registers: f64,
    /// Invocations of a subgroup.
    subgroup: u32,
}

/// The cards, each with the sources of its numbers.
static CARDS: [Card; 7] = [
    // NVIDIA's H100 datasheet (SXM): 3.35 TB/s, 66.9 TFLOPS of f32 = 132 SMs x 128 lanes x 2 x 1.98 GHz. Its whitepaper: 2,048
    // threads and 65,536 registers an SM.
    Card::new("h100", 3350.0, 16_896.0, 1.98, 16.0, 512.0, 32),
    // NVIDIA's H200 datasheet: 4.8 TB/s, the chip of the H100.
    Card::new("h200", 4800.0, 16_896.0, 1.98, 16.0, 512.0, 32),
    // NVIDIA's Ada whitepaper: 1,008 GB/s, 128 SMs x 128 lanes, 2.52 GHz, 1,536 threads and 65,536 registers an SM.
    Card::new("rtx-4090", 1008.0, 16_384.0, 2.52, 12.0, 512.0, 32),
    // AMD's specification: 960 GB/s, 6,144 stream processors (their second issue slot is not counted), 2.5 GHz boost. AMD's ISA
    // guide of RDNA 3: 16 waves a SIMD of 32 lanes, 192 KiB of registers.
    Card::new("rx-7900-xtx", 960.0, 6144.0, 2.5, 16.0, 1536.0, 32),
    // Intel's specification: 560 GB/s, 2.1 GHz. chipsandcheese.com/2022/10/20/microbenchmarking-intels-arc-a770: 4,096 lanes
    // (512 units of 8). 8 threads a unit, of 16 invocations, and 128 registers of 32 bytes a thread (Intel's Xe-HPG guide).
    Card::new("arc-a770", 560.0, 4096.0, 2.1, 16.0, 1024.0, 8),
    // Apple: 100 GB/s, 10 cores. askgeek.io: 1.398 GHz, 3.578 TFLOPS = 1,280 lanes x 2 x 1.398 GHz.
    // github.com/philipturner/metal-benchmarks: 3,072 threads a core of 128 lanes, 384 KB of registers.
    Card::new("m2", 100.0, 1280.0, 1.398, 24.0, 768.0, 32),
    // Snapdragon 8 Gen 3: LPDDR5X at 4,800 MHz, 64 bits = 76.8 GB/s; 903 MHz (as reported, not by
    // Qualcomm). Mesa's a7xx_gpu.py: 6 cores of 4,096 fibers, 96 vec4 registers = 384; 256 lanes a core are derived, 16 fibers each.
    Card::new("adreno-750", 76.8, 1536.0, 0.903, 16.0, 384.0, 64),
];

/// The share of a card's bandwidth that kernels reach. Fitted to the H200, as the next four are: other cards have no numbers
/// of their own until one is measured.
const BANDWIDTH_SHARE: f64 = 0.84;
/// The share of a card's clocks in which its lanes issue.
const ISSUE_SHARE: f64 = 0.9;
/// Seconds from the end of a dispatch to the first instructions of the next, which waits for it.
const LAUNCH: f64 = 1.2e-6;
/// Clocks between two instructions of one invocation that nothing else hides.
const CLOCKS: f64 = 6.0;
/// Seconds from a load to its value, while memory is not busy. No vendor states it.
const LATENCY: f64 = 0.3e-6;
/// Words that an invocation asks for at once, of each tensor (`CHUNK` in the shaders).
const CHUNK: f64 = 4.0;
/// Instructions of the copy kernel, which copies a word of 16 bytes.
const COPY: f64 = 20.0;

impl Card {
    const fn new(
        name: &'static str,
        gigabytes: f64,
        lanes: f64,
        gigahertz: f64,
        resident: f64,
        registers: f64,
        subgroup: u32,
    ) -> Self {
        Self {
            name,
            bandwidth: gigabytes * 1e9,
            lanes,
            clock: gigahertz * 1e9,
            resident,
            registers,
            subgroup,
        }
    }

    /// The tuning for GPUs within WebGPU's default limits, with the card's subgroups and its own conversions of f16.
    fn tuning(&self) -> Tuning {
        let mut limits = Limits::DEFAULT;
        limits.subgroup_size = self.subgroup;
        (limits.native_unpack, limits.native_pack) = (true, true);
        Tuning::GPU.within(&limits)
    }

    /// Seconds for some work, and what takes most of them.
    fn time(&self, work: &Work) -> (f64, Bound) {
        // What runs at a time, and by Little's law what memory gives it.
        let resident = self.resident.min((self.registers / work.registers).floor());
        let flying = work.invocations.min(resident.max(1.0) * self.lanes);
        let attainable = flying * work.bytes_at_once / LATENCY;
        let most = self.bandwidth * BANDWIDTH_SHARE;
        let memory = work.bytes / attainable.min(most);
        let arithmetic = work.instructions / (self.lanes * self.clock * ISSUE_SHARE);
        // An invocation's own instructions, one after the other.
        let path = work.instructions / work.invocations * CLOCKS / self.clock;
        let bound = match () {
            () if LAUNCH + path > memory.max(arithmetic) => Bound::Launch,
            () if arithmetic > memory => Bound::Arithmetic,
            () if attainable < most => Bound::Latency,
            () => Bound::Memory,
        };
        (LAUNCH + path + memory.max(arithmetic), bound)
    }
}

/// What takes most of a step's time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Bound {
    /// Bytes, at the card's bandwidth.
    Memory,
    /// Bytes, of which too few are asked for at a time.
    Latency,
    /// Instructions.
    Arithmetic,
    /// Beginning, and one invocation's way to the end.
    Launch,
}

/// What a dispatch does.
#[derive(Debug)]
struct Work {
    invocations: f64,
    /// Read and written: tensors, parameters and tables.
    bytes: f64,
    /// Bytes that an invocation asks for before it waits.
    bytes_at_once: f64,
    /// Instructions of all invocations.
    instructions: f64,
    /// Registers of an invocation.
    registers: f64,
}

impl Work {
    fn of(plan: &Plan, request: &Request, step: &Step) -> Result<Self> {
        let spec = &step.spec;
        let code = Code::of(spec)?;
        let [x, y] = step.workgroups.map(f64::from);
        let invocations = x * y * f64::from(spec.workgroup_size);
        let tensor = request.tensor.bytes();
        let tensor = step.window.map_or(tensor, |window| window.bytes);
        let values = tensor as f64 / spec.dtype.bytes() as f64;
        let tables = step.bindings.iter().filter(|role| !role.is_tensor());
        let tables = tables.filter_map(|role| plan.need(*role));
        let tensors = plan.step_bytes(step);
        let bytes = (tensors + tables.map(|need| need.bytes).sum::<u64>()) as f64;
        let word = f64::from(spec.width) * spec.dtype.bytes() as f64;
        let transfers = (tensors as f64 / tensor as f64).max(1.0);
        Ok(Self {
            invocations,
            bytes,
            bytes_at_once: (bytes / invocations).min(CHUNK * word.max(4.0) * transfers),
            instructions: invocations * code.fixed + values * code.a_value,
            registers: code.registers,
        })
    }

    /// A copy of a tensor, 16 bytes an invocation.
    fn copy(bytes: u64) -> Self {
        let invocations = (bytes as f64 / 16.0).ceil();
        Self {
            invocations,
            bytes: 2.0 * bytes as f64,
            bytes_at_once: 32.0,
            instructions: invocations * COPY,
            registers: 16.0,
        }
    }
}

/// A kernel's code as AMD's compiler makes it for RDNA 2, which stands for that of every card.
#[derive(Debug)]
struct Code {
    registers: f64,
    /// Instructions that every invocation runs.
    fixed: f64,
    /// Instructions for a value of the tensor.
    a_value: f64,
}

/// What `cargo xtask isa --model` wrote: kernel, storage, words, registers, instructions, those of the main loop, those a value.
const INSTRUCTIONS: &str = include_str!("instructions.tsv");

impl Code {
    fn of(spec: &Spec) -> Result<Self> {
        let key = spec.filed_under();
        let find = || {
            let mut lines = INSTRUCTIONS.lines();
            let line = lines.find(|line| line.split('\t').take(3).eq(key))?;
            let numbers = line.split('\t').skip(3).map(|text| text.parse().ok());
            let numbers: [f64; 4] = numbers.collect::<Option<Vec<f64>>>()?.try_into().ok()?;
            Some(numbers)
        };
        let [registers, instructions, main_loop, a_value] = find().with_context(|| {
            format!(
                "no instructions are known of {} ({} {})",
                key[0], key[1], key[2]
            )
        })?;
        let outside = instructions - main_loop;
        let (fixed, a_value) = match spec.kernel.kernel().family {
            // The loop's text stands there twice: what is left behind whole chunks is done as a chunk, too.
            _ if a_value > 0.0 && outside >= main_loop => (outside - main_loop, a_value),
            _ if a_value > 0.0 => (outside, a_value),
            // A turn of the loop is a word at a sample.
            Family::ElementColumn => (outside, main_loop / f64::from(spec.width)),
            // Lanes are so many that each has a turn of every loop: an entry of a table, 4 words of a group.
            _ => (instructions, 0.0),
        };
        Ok(Self {
            registers,
            fixed,
            a_value,
        })
    }
}

/// A plan on a card.
#[derive(Debug, Serialize)]
pub struct Prediction {
    card: &'static str,
    steps: Vec<PredictedStep>,
    total_us: f64,
    /// Of a copy of the tensor, by the same model.
    copy_us: f64,
    /// The share of the copy's bandwidth.
    share: f64,
}

#[derive(Debug, Serialize)]
struct PredictedStep {
    kernel: &'static str,
    bytes: u64,
    instructions: u64,
    us: f64,
    bound_by: Bound,
}

impl Prediction {
    /// Plans for a card, and predicts.
    pub fn new(card: &'static Card, request: &Request, direction: Direction) -> Result<Self> {
        Self::with(card, request, direction, &card.tuning())
    }

    fn with(
        card: &'static Card,
        request: &Request,
        direction: Direction,
        tuning: &Tuning,
    ) -> Result<Self> {
        let plan = request.plan(direction, tuning)?;
        let steps = plan.steps().iter().map(|step| {
            let work = Work::of(&plan, request, step)?;
            let (seconds, bound_by) = card.time(&work);
            Ok(PredictedStep {
                kernel: step.kernel(),
                bytes: work.bytes as u64,
                instructions: work.instructions as u64,
                us: seconds * 1e6,
                bound_by,
            })
        });
        let steps = steps.collect::<Result<Vec<_>>>()?;
        let total_us = steps.iter().map(|step| step.us).sum();
        let tensor = request.tensor.bytes();
        let copy_us = card.time(&Work::copy(tensor)).0 * 1e6;
        let copies = plan.tensor_bytes() as f64 / (2 * tensor) as f64;
        Ok(Self {
            card: card.name,
            steps,
            total_us,
            copy_us,
            share: copies * copy_us / total_us,
        })
    }
}

/// Said before all predictions.
pub const NOTE: &str = "A prediction, nothing was run: from the plan's bytes, AMD's instructions (RDNA 2, which stand for every card's), \
                        and a table of cards. Fitted to an H200; other cards are uncalibrated until one is measured. f16 is converted by \
                        the card's own instructions.";

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calibrated = match self.card {
            "h200" => "calibrated",
            _ => "uncalibrated",
        };
        writeln!(f, "{}, {calibrated}", title(self.card))?;
        let headings = "step | bytes | million instructions | us | bound by";
        let mut table = Table::new(headings.split(" | "));
        for step in &self.steps {
            let bound = format!("{:?}", step.bound_by).to_lowercase();
            let instructions = format!("{:.2}", step.instructions as f64 / 1e6);
            let us = format!("{:.1}", step.us);
            let name = step.kernel.to_owned();
            table.row([name, size(step.bytes), instructions, us, bound]);
        }
        let (total, copy, share) = (self.total_us, self.copy_us, self.share * 100.0);
        writeln!(
            f,
            "{table}  {total:.1} us; a copy of the tensor {copy:.1} us; {share:.0} % of the copy's bandwidth"
        )
    }
}

/// The cards of a list of names, or of `all`.
pub fn chosen(names: &[String]) -> impl Iterator<Item = &'static Card> {
    let all = names.iter().any(|name| name == "all");
    let is_named = move |card: &&Card| all || names.iter().any(|name| name == card.name);
    CARDS.iter().filter(is_named)
}

/// Reads a card's name, or `all`.
pub fn card_parser() -> impl TypedValueParser<Value = String> {
    let names = CARDS.iter().map(|card| card.name).chain(["all"]);
    PossibleValuesParser::new(names.map(PossibleValue::new))
}

#[cfg(test)]
mod tests;
