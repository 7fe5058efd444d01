//! The CPU executor: runs plans with the mirrors in [`stages`], in f32, on several
//! threads.

use crate::error::Error;
use crate::kernels::{Access, KernelId};
use crate::plan::{Need, Plan, Step};
use crate::role::{Role, RoleKind};
use crate::stages;
use crate::tables::{Affine, AffineBackward, Channel, GradientPair, Group, Moments, Products};
use crate::tuning::Tuning;
use bytemuck::Pod;
use std::collections::BTreeMap;
use std::num::NonZero;

/// Host memory by [`Role`]: words of 4 bytes, seen as f32, as u32, or as the entries of a table.
#[derive(Debug, Clone, Default)]
pub struct Buffers {
    words: BTreeMap<Role, Vec<u32>>,
}

impl Buffers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a tensor or a parameter.
    pub fn set(&mut self, role: Role, values: Vec<f32>) {
        self.words
            .insert(role, bytemuck::allocation::cast_vec(values));
    }

    /// Gives a counter.
    pub fn set_u32(&mut self, role: Role, values: Vec<u32>) {
        self.words.insert(role, values);
    }

    /// Gives a table.
    pub fn set_table<T: Pod>(&mut self, role: Role, entries: &[T]) {
        self.words
            .insert(role, bytemuck::pod_collect_to_vec(entries));
    }

    /// A tensor or a parameter.
    pub fn get(&self, role: Role) -> Option<&[f32]> {
        self.words
            .get(&role)
            .map(|words| bytemuck::cast_slice(words))
    }

    /// A counter.
    pub fn get_u32(&self, role: Role) -> Option<&[u32]> {
        self.words.get(&role).map(Vec::as_slice)
    }

    /// A table's entries.
    pub fn get_table<T: Pod>(&self, role: Role) -> Option<Vec<T>> {
        self.words
            .get(&role)
            .map(|words| bytemuck::pod_collect_to_vec(words))
    }

    /// Takes a tensor or a parameter out.
    pub fn take(&mut self, role: Role) -> Option<Vec<f32>> {
        self.words.remove(&role).map(bytemuck::allocation::cast_vec)
    }
}

/// Runs plans on the CPU.
#[derive(Debug, Clone, Copy)]
pub struct Executor {
    threads: NonZero<usize>,
}

impl Default for Executor {
    fn default() -> Self {
        Self::new()
    }
}

impl Executor {
    /// With as many threads as the machine runs at once.
    pub fn new() -> Self {
        let one = NonZero::<usize>::MIN;
        Self {
            threads: std::thread::available_parallelism().unwrap_or(one),
        }
    }

    /// With a number of threads of the caller's (0 counts as 1).
    pub fn with_threads(threads: usize) -> Self {
        Self {
            threads: NonZero::new(threads).unwrap_or(NonZero::<usize>::MIN),
        }
    }

    /// The tuning to plan with. A plan made for a GPU runs as well.
    pub fn tuning(&self) -> Tuning {
        Tuning::CPU
    }

    /// Runs a plan. Tables, and tensors that are only written, are allocated where they are
    /// missing; tables stay in `buffers`, so that backward can follow forward.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::Length`]; nothing has run then.
    pub fn run(&self, plan: &Plan, buffers: &mut Buffers) -> Result<(), Error> {
        self.check(plan, buffers)?;
        for step in plan.steps() {
            self.run_step(step, buffers)?;
        }
        Ok(())
    }

    fn check(&self, plan: &Plan, buffers: &mut Buffers) -> Result<(), Error> {
        let words = |need: &Need| usize::try_from(need.bytes / 4).unwrap_or(usize::MAX);
        let missing: Vec<Role> = plan
            .needs()
            .iter()
            .filter(|need| is_given(need) && !buffers.words.contains_key(&need.role))
            .map(|need| need.role)
            .collect();
        if !missing.is_empty() {
            return Err(Error::Missing { roles: missing });
        }
        for need in plan.needs() {
            let resized = need.role.kind() != RoleKind::Caller && !is_given(need);
            if let (false, Some(found)) = (resized, buffers.words.get(&need.role))
                && found.len() != words(need)
            {
                return Err(Error::Length {
                    what: need.role.to_string(),
                    found: found.len(),
                    expected: words(need),
                });
            }
        }
        for need in plan.needs() {
            let buffer = buffers.words.entry(need.role).or_default();
            buffer.resize(words(need), 0);
        }
        Ok(())
    }

    /// Runs one step of a plan on buffers that have the sizes the plan needs: stages are
    /// addressable, as on the GPU.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn run_step(&self, step: &Step, buffers: &mut Buffers) -> Result<(), Error> {
        let mut missing = step.bindings.clone();
        missing.retain(|role| !buffers.words.contains_key(role));
        if !missing.is_empty() {
            return Err(Error::Missing { roles: missing });
        }
        // Written buffers leave the map while the step runs, so that it can read the others.
        let declared = step.spec.kernel.kernel().bindings;
        let mut written: Vec<(Role, Vec<u32>)> = Vec::new();
        for (&role, binding) in step.bindings.iter().zip(declared) {
            if binding.access == Access::ReadWrite {
                let words = buffers.words.remove(&role).unwrap_or_default();
                written.push((role, words));
            }
        }
        let reads: Vec<&[u32]> = step
            .bindings
            .iter()
            .filter_map(|role| buffers.words.get(role).map(Vec::as_slice))
            .collect();
        {
            let mut writes: Vec<&mut [u32]> = written
                .iter_mut()
                .map(|(_, words)| &mut words[..])
                .collect();
            self.dispatch(step, &reads, &mut writes);
        }
        buffers.words.extend(written);
        Ok(())
    }

    /// The mirror of the step's kernel; `reads` and `writes` are its bindings of each access, in
    /// order.
    fn dispatch(&self, step: &Step, reads: &[&[u32]], writes: &mut [&mut [u32]]) {
        let (params, width, threads) = (&step.params, step.spec.width, self.threads);
        match (step.spec.kernel, reads, writes) {
            (KernelId::RowMoments, [x], [parts]) => {
                stages::row_moments(threads, params, width, f32s(x), table_mut(parts));
            }
            (KernelId::RowFold, [parts], [rows]) => {
                stages::row_fold(params, table(parts), table_mut(rows));
            }
            (KernelId::BatchCount, [], [count]) => stages::batch_count(count),
            (KernelId::SampleFold, [rows], [parts]) => {
                stages::sample_fold(params, table(rows), table_mut(parts));
            }
            (KernelId::ChannelFold, [parts, weight, bias, count], [mean, var, channels]) => {
                let running = stages::RunningStatistics {
                    mean: bytemuck::cast_slice_mut(mean),
                    var: bytemuck::cast_slice_mut(var),
                };
                stages::channel_fold(
                    params,
                    table::<Moments>(parts),
                    f32s(weight),
                    f32s(bias),
                    count[0],
                    running,
                    table_mut::<Channel>(channels),
                );
            }
            (KernelId::GroupFold, [rows, channels, weight, bias], [groups, coefficients]) => {
                stages::group_fold(
                    params,
                    table(rows),
                    table(channels),
                    f32s(weight),
                    f32s(bias),
                    table_mut::<Group>(groups),
                    table_mut::<Affine>(coefficients),
                );
            }
            (KernelId::RowAffine, [x, coefficients], [y]) => {
                let y = bytemuck::cast_slice_mut(y);
                stages::row_affine(threads, params, f32s(x), table(coefficients), y);
            }
            (KernelId::RowProducts, [x, grad_y, rows], [parts]) => {
                stages::row_products(
                    threads,
                    params,
                    width,
                    f32s(x),
                    f32s(grad_y),
                    table(rows),
                    table_mut::<Products>(parts),
                );
            }
            (KernelId::RowFoldBackward, [parts], [products]) => {
                stages::row_fold_backward(params, table(parts), table_mut(products));
            }
            (KernelId::GroupFoldBackward, [rows, products, channels, groups], [terms]) => {
                stages::group_fold_backward(
                    params,
                    table(rows),
                    table(products),
                    table(channels),
                    table(groups),
                    table_mut::<GradientPair>(terms),
                );
            }
            (KernelId::SampleFoldBackward, [terms], [parts]) => {
                stages::sample_fold_backward(params, table(terms), table_mut(parts));
            }
            (
                KernelId::ChannelFoldBackward,
                [parts],
                [bn_weight, bn_bias, weight, bias, channel_gradients],
            ) => {
                let gradients = stages::ParameterGradients {
                    bn_weight: bytemuck::cast_slice_mut(bn_weight),
                    bn_bias: bytemuck::cast_slice_mut(bn_bias),
                    weight: bytemuck::cast_slice_mut(weight),
                    bias: bytemuck::cast_slice_mut(bias),
                };
                let channel_gradients = table_mut(channel_gradients);
                stages::channel_fold_backward(params, table(parts), gradients, channel_gradients);
            }
            (
                KernelId::RowCoefficientsBackward,
                [rows, products, channels, groups, terms, channel_gradients],
                [coefficients],
            ) => {
                stages::row_coefficients_backward(
                    params,
                    table(rows),
                    table(products),
                    table(channels),
                    table(groups),
                    table(terms),
                    table(channel_gradients),
                    table_mut::<AffineBackward>(coefficients),
                );
            }
            (KernelId::RowAffineBackward, [x, grad_y, coefficients], [grad_x]) => {
                stages::row_affine_backward(
                    threads,
                    params,
                    step.spec.accumulate,
                    f32s(x),
                    f32s(grad_y),
                    table(coefficients),
                    bytemuck::cast_slice_mut(grad_x),
                );
            }
            // The planner binds what the kernel declares (tests/reflection.rs).
            (kernel, _, _) => unreachable!("{} with other bindings", kernel.name()),
        }
    }
}

/// Whether the plan expects something in the buffer: what it only reads (scratch aside: the table of
/// an empty batch is read by no one), and the state that it updates.
fn is_given(need: &Need) -> bool {
    match need.role {
        Role::RunningMean | Role::RunningVar | Role::NumBatchesTracked => true,
        role => need.access == Access::Read && role.kind() != RoleKind::Scratch,
    }
}

fn f32s(words: &[u32]) -> &[f32] {
    bytemuck::cast_slice(words)
}

fn table<T: Pod>(words: &[u32]) -> &[T] {
    bytemuck::cast_slice(words)
}

fn table_mut<T: Pod>(words: &mut [u32]) -> &mut [T] {
    bytemuck::cast_slice_mut(words)
}
