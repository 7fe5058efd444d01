//! The CPU executor: runs plans with the mirrors in [`stages`], in f32, on several
//! threads.

use crate::desc::DType;
use crate::error::Error;
use crate::kernels::{Access, KernelId, Spec};
use crate::plan::{BufferRequirement, Plan, Step};
use crate::role::{Role, RoleKind};
use crate::stages::{self, Element};
use crate::tuning::Tuning;
use bytemuck::Pod;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::Range;

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

    /// Gives a counter, or a tensor of 16-bit elements, two in a u32 (the first in its lower half).
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

    /// A counter, or a tensor of 16-bit elements.
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

    /// Whether a buffer, if it is there, is as long as a plan needs it.
    fn check_length(&self, need: &BufferRequirement) -> Result<(), Error> {
        match self.words.get(&need.role) {
            Some(found) if found.len() != words(need) => Err(Error::Length {
                what: need.role.to_string(),
                found: found.len(),
                expected: words(need),
            }),
            _ => Ok(()),
        }
    }
}

/// Words of a buffer.
fn words(need: &BufferRequirement) -> usize {
    usize::try_from(need.bytes / 4).unwrap_or(usize::MAX)
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
    /// missing; tables stay in `buffers`, so that backward can follow forward. Of a plan with an
    /// [exchange](Plan::exchange) it runs all steps: use [`run_steps`](Self::run_steps) there.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::Length`]; nothing has run then.
    pub fn run(&self, plan: &Plan, buffers: &mut Buffers) -> Result<(), Error> {
        self.run_steps(plan, 0..plan.steps().len(), buffers)
    }

    /// Runs some steps of a plan: those before and those after [`Plan::exchange`], say. Indices beyond
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
            .filter(|need| is_given(need) && !buffers.words.contains_key(&need.role))
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
            let buffer = buffers.words.entry(need.role).or_default();
            buffer.resize(words(need), 0);
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
        if !plan.steps().contains(step) {
            return Err(Error::ForeignStep {
                kernel: step.spec.kernel.name(),
            });
        }
        let mut missing = step.bindings.clone();
        missing.retain(|role| !buffers.words.contains_key(role));
        if !missing.is_empty() {
            return Err(Error::Missing { roles: missing });
        }
        for need in plan.needs() {
            if step.bindings.contains(&need.role) {
                buffers.check_length(need)?;
            }
        }
        self.run_checked(plan, step, buffers);
        Ok(())
    }

    /// Runs one of the plan's steps on buffers that are there and as long as the plan says.
    fn run_checked(&self, plan: &Plan, step: &Step, buffers: &mut Buffers) {
        // Written buffers leave the map while the step runs, so that it can read the others.
        let mut written: Vec<(Role, Vec<u32>)> = Vec::new();
        for (&role, (_, binding)) in step.bindings.iter().zip(step.spec.bindings()) {
            if binding.access == Access::ReadWrite {
                let words = buffers.words.remove(&role).unwrap_or_default();
                written.push((role, words));
            }
        }
        {
            // By binding, as the kernel declares them; `None` for those that are not there.
            let mut roles = step.bindings.iter();
            let mut writes = written.iter_mut();
            let (mut reads, mut outputs) = (Vec::new(), Vec::new());
            for (index, binding) in step.spec.kernel.kernel().bindings.iter().enumerate() {
                let role = (step.spec.absent >> index & 1 == 0)
                    .then(|| roles.next())
                    .flatten();
                match binding.access {
                    Access::Read => {
                        let words = role.and_then(|role| buffers.words.get(role));
                        reads.push(words.map(Vec::as_slice));
                    }
                    Access::ReadWrite => {
                        let words = role.and_then(|_| writes.next());
                        outputs.push(words.map(|(_, words)| &mut words[..]));
                    }
                }
            }
            let elements = plan.tensor().elements() as usize;
            match step.spec.dtype {
                DType::F32 => self.dispatch::<f32>(step, elements, &reads, &mut outputs),
                DType::F16 => self.dispatch::<half::f16>(step, elements, &reads, &mut outputs),
                DType::BF16 => self.dispatch::<half::bf16>(step, elements, &reads, &mut outputs),
            }
        }
        buffers.words.extend(written);
    }

    /// The mirror of the step's kernel; `reads` and `writes` are its bindings of each access, in
    /// order.
    fn dispatch<T: Element>(
        &self,
        step: &Step,
        elements: usize,
        reads: &[Option<&[u32]>],
        writes: &mut [Option<&mut [u32]>],
    ) {
        let (params, spec, threads) = (&step.params, &step.spec, self.threads);
        let width = spec.width;
        fn whole<T: Element>(words: &[u32], elements: usize) -> &[T] {
            &bytemuck::cast_slice(words)[..elements]
        }
        let tensor = |words| whole::<T>(words, elements);
        match (spec.kernel, reads, writes) {
            (KernelId::RowMoments, &[Some(x)], [Some(parts)]) => {
                stages::row_moments(threads, params, width, tensor(x), table_mut(parts));
            }
            (KernelId::ColumnMoments, &[Some(x)], [Some(parts)]) => {
                stages::column_moments(threads, params, width, tensor(x), table_mut(parts));
            }
            (KernelId::RowFold, &[Some(parts)], [Some(rows)]) => {
                stages::row_fold(params, table(parts), table_mut(rows));
            }
            (KernelId::BatchCount, [], [Some(count)]) => stages::batch_count(count),
            (KernelId::SampleFold, &[Some(rows)], [Some(parts)]) => {
                stages::sample_fold(params, table(rows), table_mut(parts));
            }
            (
                KernelId::ChannelFold,
                &[parts, bn_weight, bn_bias, weight],
                [count, mean, var, Some(channels)],
            ) => {
                let running = match (mean, var) {
                    (Some(mean), Some(var)) => Some(stages::RunningStatistics {
                        mean: bytemuck::cast_slice_mut(mean),
                        var: bytemuck::cast_slice_mut(var),
                    }),
                    _ => None,
                };
                stages::channel_fold(
                    params,
                    parts.map(table).unwrap_or_default(),
                    bn_weight.map(f32s),
                    bn_bias.map(f32s),
                    weight.map(f32s),
                    count.as_deref_mut(),
                    running,
                    table_mut(channels),
                );
            }
            (
                KernelId::GroupFold,
                &[Some(rows), Some(channels), weight, bias],
                [Some(groups), Some(coefficients)],
            ) => {
                stages::group_fold(
                    params,
                    table(rows),
                    table(channels),
                    weight.map(f32s),
                    bias.map(f32s),
                    table_mut(groups),
                    table_mut(coefficients),
                );
            }
            (KernelId::RowCoefficients, &[Some(channels)], [rows, Some(coefficients)]) => {
                let rows = rows.as_deref_mut().map(table_mut);
                let coefficients = table_mut(coefficients);
                stages::row_coefficients(params, table(channels), rows, coefficients);
            }
            (KernelId::RunningFold, &[Some(rows)], [Some(mean), Some(var)]) => {
                let running = stages::RunningStatistics {
                    mean: bytemuck::cast_slice_mut(mean),
                    var: bytemuck::cast_slice_mut(var),
                };
                stages::running_fold(params, table(rows), running);
            }
            (KernelId::RowAffine, &[x, Some(coefficients), residual], [Some(y)]) => {
                stages::row_affine(
                    threads,
                    params,
                    width,
                    spec.activation,
                    x.map(tensor),
                    table(coefficients),
                    residual.map(tensor),
                    tensor_mut::<T>(y, elements),
                );
            }
            (KernelId::ColumnAffine, &[x, Some(coefficients), residual], [Some(y)]) => {
                stages::column_affine(
                    threads,
                    params,
                    width,
                    spec.aligned,
                    spec.activation,
                    x.map(tensor),
                    table(coefficients),
                    residual.map(tensor),
                    tensor_mut::<T>(y, elements),
                );
            }
            (
                KernelId::RowProducts | KernelId::ColumnProducts,
                &[Some(x), Some(grad_y), Some(rows), coefficients, residual],
                [Some(parts)],
            ) => {
                let products = match spec.kernel {
                    KernelId::RowProducts => stages::row_products,
                    _ => stages::column_products,
                };
                products(
                    threads,
                    params,
                    width,
                    tensor(x),
                    tensor(grad_y),
                    table(rows),
                    recompute(spec, coefficients, residual.map(tensor)),
                    table_mut(parts),
                );
            }
            (KernelId::RowFoldBackward, &[Some(parts)], [Some(products)]) => {
                stages::row_fold_backward(params, table(parts), table_mut(products));
            }
            (
                KernelId::GroupFoldBackward,
                &[Some(rows), Some(products), Some(channels), Some(groups)],
                [terms, Some(row_gradients)],
            ) => {
                stages::group_fold_backward(
                    params,
                    table(rows),
                    table(products),
                    table(channels),
                    table(groups),
                    terms.as_deref_mut().map(table_mut),
                    table_mut(row_gradients),
                );
            }
            (
                KernelId::RowTermsBackward,
                &[Some(rows), Some(products), Some(channels)],
                [terms, Some(row_gradients)],
            ) => {
                stages::row_terms_backward(
                    params,
                    table(rows),
                    table(products),
                    table(channels),
                    terms.as_deref_mut().map(table_mut),
                    table_mut(row_gradients),
                );
            }
            (KernelId::SampleFoldBackward, &[Some(terms)], [Some(parts)]) => {
                stages::sample_fold_backward(params, table(terms), table_mut(parts));
            }
            (
                KernelId::ChannelFoldBackward,
                &[Some(parts), channels],
                [bn_weight, bn_bias, weight, bias, channel_gradients],
            ) => {
                let gradients = stages::ParameterGradients {
                    bn_weight: bn_weight.as_deref_mut().map(bytemuck::cast_slice_mut),
                    bn_bias: bn_bias.as_deref_mut().map(bytemuck::cast_slice_mut),
                    weight: weight.as_deref_mut().map(bytemuck::cast_slice_mut),
                    bias: bias.as_deref_mut().map(bytemuck::cast_slice_mut),
                };
                stages::channel_fold_backward(
                    params,
                    table(parts),
                    channels.map(table),
                    gradients,
                    channel_gradients.as_deref_mut().map(table_mut),
                );
            }
            (
                KernelId::RowCoefficientsBackward,
                &[
                    Some(rows),
                    Some(products),
                    Some(channels),
                    Some(row_gradients),
                    channel_gradients,
                ],
                [Some(coefficients)],
            ) => {
                stages::row_coefficients_backward(
                    params,
                    table(rows),
                    table(products),
                    table(channels),
                    table(row_gradients),
                    channel_gradients.map(table),
                    table_mut(coefficients),
                );
            }
            (
                KernelId::RowAffineBackward,
                &[
                    x,
                    Some(grad_y),
                    Some(coefficients_backward),
                    coefficients,
                    residual,
                ],
                [Some(grad_x), grad_residual],
            ) => {
                stages::row_affine_backward(
                    threads,
                    params,
                    width,
                    spec.accumulate,
                    x.map(tensor),
                    tensor(grad_y),
                    table(coefficients_backward),
                    recompute(spec, coefficients, residual.map(tensor)),
                    tensor_mut::<T>(grad_x, elements),
                    grad_residual
                        .as_deref_mut()
                        .map(|words| tensor_mut::<T>(words, elements)),
                );
            }
            (
                KernelId::ColumnAffineBackward,
                &[
                    x,
                    Some(grad_y),
                    Some(coefficients_backward),
                    coefficients,
                    residual,
                ],
                [Some(grad_x), grad_residual],
            ) => {
                stages::column_affine_backward(
                    threads,
                    params,
                    width,
                    spec.aligned,
                    spec.accumulate,
                    x.map(tensor),
                    tensor(grad_y),
                    table(coefficients_backward),
                    recompute(spec, coefficients, residual.map(tensor)),
                    tensor_mut::<T>(grad_x, elements),
                    grad_residual
                        .as_deref_mut()
                        .map(|words| tensor_mut::<T>(words, elements)),
                );
            }
            (
                KernelId::ElementAffine,
                &[Some(channels), x, weight, bias, residual],
                [groups, Some(y)],
            ) => {
                stages::element_affine(
                    threads,
                    params,
                    width,
                    spec.activation,
                    x.map(tensor),
                    table(channels),
                    weight.map(f32s),
                    bias.map(f32s),
                    residual.map(tensor),
                    groups.as_deref_mut().map(table_mut),
                    tensor_mut::<T>(y, elements),
                );
            }
            (
                KernelId::ElementProducts,
                &[Some(channels), Some(x), Some(grad_y), Some(groups)],
                [terms, Some(gradients)],
            ) => {
                stages::element_products(
                    threads,
                    params,
                    width,
                    tensor(x),
                    tensor(grad_y),
                    table(channels),
                    table(groups),
                    terms.as_deref_mut().map(table_mut),
                    table_mut(gradients),
                );
            }
            (
                KernelId::ElementTerms,
                &[Some(channels), Some(x), Some(grad_y), Some(gradients)],
                [channel_terms, affine_terms],
            ) => {
                stages::element_terms(
                    threads,
                    params,
                    tensor(x),
                    tensor(grad_y),
                    table(channels),
                    table(gradients),
                    channel_terms.as_deref_mut().map(table_mut),
                    affine_terms.as_deref_mut().map(table_mut),
                );
            }
            (
                KernelId::ElementAffineBackward,
                &[
                    Some(channels),
                    Some(x),
                    Some(grad_y),
                    Some(group_gradients),
                    channel_gradients,
                ],
                [Some(grad_x)],
            ) => {
                stages::element_affine_backward(
                    threads,
                    params,
                    spec.accumulate,
                    tensor(x),
                    tensor(grad_y),
                    table(channels),
                    table(group_gradients),
                    channel_gradients.map(table),
                    tensor_mut::<T>(grad_x, elements),
                );
            }
            // The planner binds what the kernel declares (tests/suite/reflection).
            (kernel, _, _) => unreachable!("{} with other bindings", kernel.name()),
        }
    }
}

/// What backward recomputes of a fused activation.
fn recompute<'a, T: Element>(
    spec: &Spec,
    coefficients: Option<&'a [u32]>,
    residual: Option<&'a [T]>,
) -> Option<stages::Recompute<'a, T>> {
    coefficients.map(|coefficients| stages::Recompute {
        activation: spec.activation,
        coefficients: table(coefficients),
        residual,
    })
}

/// A written tensor, its padding set to 0.
fn tensor_mut<T: Element>(words: &mut [u32], elements: usize) -> &mut [T] {
    let (tensor, padding) = bytemuck::cast_slice_mut::<u32, T>(words).split_at_mut(elements);
    padding.fill(T::from_f32(0.0));
    tensor
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

fn f32s(words: &[u32]) -> &[f32] {
    bytemuck::cast_slice(words)
}

fn table<T: Pod>(words: &[u32]) -> &[T] {
    bytemuck::cast_slice(words)
}

fn table_mut<T: Pod>(words: &mut [u32]) -> &mut [T] {
    bytemuck::cast_slice_mut(words)
}
