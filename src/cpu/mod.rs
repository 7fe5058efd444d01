//! The CPU executor: it runs plans in f32, on several threads.
//!
//! A kernel whose mirror in [`stages`](crate::stages) would be slow has a file of its name here: tiles of values, which become
//! vector registers, and work items on threads. All others are their mirrors.

mod activation;
pub(crate) mod channel_fold;
mod column;
pub(crate) mod column_affine;
pub(crate) mod column_affine_backward;
pub(crate) mod column_moments;
pub(crate) mod column_products;
pub(crate) mod element_affine;
pub(crate) mod element_affine_backward;
pub(crate) mod element_products;
pub(crate) mod element_terms;
pub(crate) mod group_fold;
pub(crate) mod group_fold_backward;
mod parallel;
pub(crate) mod row_affine;
pub(crate) mod row_affine_backward;
mod row_blocks;
pub(crate) mod row_moments;
pub(crate) mod row_products;
mod tile;
mod vector;

use crate::desc::DType;
use crate::error::Error;
use crate::kernels::Access;
use crate::plan::{BufferRequirement, Plan, Step};
use crate::role::{Role, RoleKind};
use crate::stages::Call;
use crate::tuning::Tuning;
use bytemuck::Pod;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::Range;

/// Host memory by [`Role`]: u32s, seen as f32, as u32, or as the entries of a table.
#[derive(Debug, Clone, Default)]
pub struct Buffers {
    u32s: BTreeMap<Role, Vec<u32>>,
}

impl Buffers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a tensor or a parameter.
    pub fn set(&mut self, role: Role, values: Vec<f32>) {
        self.u32s
            .insert(role, bytemuck::allocation::cast_vec(values));
    }

    /// Gives a counter, or a tensor of 16-bit elements, two in a u32 (the first in its lower half).
    pub fn set_u32(&mut self, role: Role, values: Vec<u32>) {
        self.u32s.insert(role, values);
    }

    /// Gives a table.
    pub fn set_table<T: Pod>(&mut self, role: Role, entries: &[T]) {
        self.u32s
            .insert(role, bytemuck::pod_collect_to_vec(entries));
    }

    /// A tensor or a parameter.
    pub fn get(&self, role: Role) -> Option<&[f32]> {
        self.u32s.get(&role).map(|u32s| bytemuck::cast_slice(u32s))
    }

    /// A counter, or a tensor of 16-bit elements.
    pub fn get_u32(&self, role: Role) -> Option<&[u32]> {
        self.u32s.get(&role).map(Vec::as_slice)
    }

    /// A table's entries.
    pub fn get_table<T: Pod>(&self, role: Role) -> Option<Vec<T>> {
        self.u32s
            .get(&role)
            .map(|u32s| bytemuck::pod_collect_to_vec(u32s))
    }

    /// Takes a tensor or a parameter out.
    pub fn take(&mut self, role: Role) -> Option<Vec<f32>> {
        self.u32s.remove(&role).map(bytemuck::allocation::cast_vec)
    }

    /// Whether a buffer, if it is there, is as long as a plan needs it.
    fn check_length(&self, need: &BufferRequirement) -> Result<(), Error> {
        match self.u32s.get(&need.role) {
            Some(found) if found.len() != u32s(need) => Err(Error::Length {
                what: need.role.to_string(),
                found: found.len(),
                expected: u32s(need),
            }),
            _ => Ok(()),
        }
    }
}

/// Words of a buffer.
fn u32s(need: &BufferRequirement) -> usize {
    usize::try_from(need.bytes / 4).unwrap_or(usize::MAX)
}

/// Runs plans on the CPU.
#[derive(Debug, Clone, Copy)]
pub struct Executor {
    threads: NonZero<usize>,
    /// From how many u32s of its bindings on a step is given other threads than the caller's.
    least_u32s: usize,
}

/// Starting threads and waiting for them costs more than it saves on smaller steps: forward and backward of (16, 512, 7, 7),
/// steps of up to 0.8 million, took 0.50 and 0.67 ms on two threads of a virtual machine, 0.34 and 0.59 on one.
const LEAST_U32S: usize = 1 << 20;

impl Default for Executor {
    fn default() -> Self {
        Self::new()
    }
}

impl Executor {
    /// With as many threads as the machine runs at once; none is started for a step of less than a million numbers.
    pub fn new() -> Self {
        let one = NonZero::<usize>::MIN;
        Self {
            threads: std::thread::available_parallelism().unwrap_or(one),
            least_u32s: LEAST_U32S,
        }
    }

    /// With a number of threads of the caller's (0 counts as 1), however small a step is.
    pub fn with_threads(threads: usize) -> Self {
        Self {
            threads: NonZero::new(threads).unwrap_or(NonZero::<usize>::MIN),
            least_u32s: 0,
        }
    }

    /// The tuning to plan with. A plan made for a GPU runs as well.
    pub fn tuning(&self) -> Tuning {
        Tuning::CPU
    }

    /// Runs a plan. Tables, and tensors that are only written, are allocated where they are
    /// missing; tables stay in `buffers`, so that backward can follow forward. Of a plan with an
    /// [all-gather](Plan::all_gather_before) it runs all steps: use [`run_steps`](Self::run_steps) there.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::Length`]; nothing has run then.
    pub fn run(&self, plan: &Plan, buffers: &mut Buffers) -> Result<(), Error> {
        self.run_steps(plan, 0..plan.steps().len(), buffers)
    }

    /// Runs some steps of a plan: those before and those after [`Plan::all_gather_before`], say. Indices beyond
    /// the plan run nothing.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_steps(
        &self,
        plan: &Plan,
        steps: Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<(), Error> {
        self.check(plan, buffers)?;
        let end = steps.end.min(plan.steps().len());
        for step in plan.steps().get(steps.start..end).unwrap_or_default() {
            self.run_checked(plan, step, buffers);
        }
        Ok(())
    }

    fn check(&self, plan: &Plan, buffers: &mut Buffers) -> Result<(), Error> {
        let missing: Vec<Role> = plan
            .needs()
            .iter()
            .filter(|need| is_given(need) && !buffers.u32s.contains_key(&need.role))
            .map(|need| need.role)
            .collect();
        if !missing.is_empty() {
            return Err(Error::Missing { roles: missing });
        }
        for need in plan.needs() {
            let resized = need.role.kind() != RoleKind::Caller && !is_given(need);
            if !resized {
                buffers.check_length(need)?;
            }
        }
        // On a machine of 32 bits memory ends before plans do.
        for need in plan.needs() {
            if need.bytes > isize::MAX as u64 {
                return Err(Error::Limit {
                    what: format!("the size of {} in bytes", need.role),
                    value: need.bytes,
                    limit: isize::MAX as u64,
                    limit_name: "memory of this machine",
                    way_out: "use a smaller tensor",
                });
            }
        }
        for need in plan.needs() {
            let buffer = buffers.u32s.entry(need.role).or_default();
            buffer.resize(u32s(need), 0);
        }
        Ok(())
    }

    /// Runs one of a plan's steps on buffers that have the sizes the plan needs: stages are
    /// addressable, as on the GPU.
    ///
    /// # Errors
    /// [`Error::ForeignStep`] for a step that is not of the plan; [`Error::Missing`] and [`Error::Length`] for
    /// the buffers that it binds. Nothing has run then.
    pub fn run_step(&self, plan: &Plan, step: &Step, buffers: &mut Buffers) -> Result<(), Error> {
        check_step(plan, step, buffers)?;
        self.run_checked(plan, step, buffers);
        Ok(())
    }

    /// Runs one of the plan's steps on buffers that are there and as long as the plan says.
    fn run_checked(&self, plan: &Plan, step: &Step, buffers: &mut Buffers) {
        let u32s = |role: &Role| buffers.u32s.get(role).map_or(0, Vec::len);
        let u32s = step.bindings.iter().map(u32s).sum::<usize>();
        let threads = match u32s < self.least_u32s {
            true => NonZero::<usize>::MIN,
            false => self.threads,
        };
        with_call(plan, step, buffers, |call| match step.spec.dtype {
            DType::F32 => step.params.run::<f32>(threads, call),
            DType::F16 => step.params.run::<half::f16>(threads, call),
            DType::BF16 => step.params.run::<half::bf16>(threads, call),
        });
    }
}

/// Runs one of a plan's steps by the kernel's mirror in [`stages`](crate::stages): what the executor's own kernels, and the
/// shaders, are compared with.
///
/// # Errors
/// As [`Executor::run_step`].
pub fn run_mirror(plan: &Plan, step: &Step, buffers: &mut Buffers) -> Result<(), Error> {
    check_step(plan, step, buffers)?;
    with_call(plan, step, buffers, |call| match step.spec.dtype {
        DType::F32 => step.params.run_mirror::<f32>(call),
        DType::F16 => step.params.run_mirror::<half::f16>(call),
        DType::BF16 => step.params.run_mirror::<half::bf16>(call),
    });
    Ok(())
}

/// Whether a step is of the plan, and what it binds is there.
fn check_step(plan: &Plan, step: &Step, buffers: &Buffers) -> Result<(), Error> {
    if !plan.steps().contains(step) {
        return Err(Error::ForeignStep {
            kernel: step.spec.kernel.name(),
        });
    }
    let mut missing = step.bindings.clone();
    missing.retain(|role| !buffers.u32s.contains_key(role));
    if !missing.is_empty() {
        return Err(Error::Missing { roles: missing });
    }
    for need in plan.needs() {
        if step.bindings.contains(&need.role) {
            buffers.check_length(need)?;
        }
    }
    Ok(())
}

/// Runs a step's kernel on its buffers, which are there and as long as the plan says.
fn with_call(plan: &Plan, step: &Step, buffers: &mut Buffers, run: impl FnOnce(&mut Call<'_>)) {
    // Written buffers leave the map while the step runs, so that it can read the others.
    let mut written: Vec<(Role, &'static str, Vec<u32>)> = Vec::new();
    let bound = || step.bindings.iter().zip(step.spec.bindings());
    for (&role, (_, binding)) in bound() {
        if binding.access == Access::ReadWrite {
            let u32s = buffers.u32s.remove(&role).unwrap_or_default();
            written.push((role, binding.name, u32s));
        }
    }
    let read = bound().filter(|(_, (_, binding))| binding.access == Access::Read);
    let read = read.filter_map(|(role, (_, binding))| {
        let u32s = buffers.u32s.get(role)?;
        Some((binding.name, u32s.as_slice()))
    });
    let writes = written.iter_mut();
    run(&mut Call {
        width: step.spec.width,
        aligned: step.spec.aligned,
        accumulate: step.spec.accumulate,
        activation: step.spec.activation,
        elements: plan.tensor().elements() as usize,
        reads: read.collect(),
        writes: writes
            .map(|(_, name, u32s)| (*name, &mut u32s[..]))
            .collect(),
    });
    let back = written.into_iter().map(|(role, _, u32s)| (role, u32s));
    buffers.u32s.extend(back);
}

/// Whether the plan expects something in the buffer: what it only reads (scratch aside: the table of
/// an empty batch is read by no one), and the state that it updates.
fn is_given(need: &BufferRequirement) -> bool {
    match need.role {
        // Written, and read: state, and x in place.
        Role::RunningMean | Role::RunningVar | Role::NumBatchesTracked | Role::X => true,
        role => need.access == Access::Read && role.kind() != RoleKind::Scratch,
    }
}
