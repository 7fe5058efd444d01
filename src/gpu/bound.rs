//! Plans made ready for a device, and with their buffers.

use super::Kernel;
use super::bindings::{Bindings, Tables};
use super::device::{self, Owner};
use crate::error::Error;
use crate::params::UNIFORM_BYTES;
use crate::plan::Plan;
use std::ops::Range;
use std::sync::Arc;

/// A plan made ready for a device: compiled kernels and uniforms.
#[derive(Debug)]
pub struct PreparedPlan {
    pub(super) owner: Owner,
    pub(super) plan: Plan,
    pub(super) kernels: Vec<Arc<Kernel>>,
    pub(super) uniforms: Option<wgpu::Buffer>,
    pub(super) stride: u64,
    pub(super) read_write: bool,
}

impl PreparedPlan {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Allocates the tables of this plan that are not in `shared` already. Tables of a forward plan
    /// are what its backward plan reads: make the backward's with the forward's as `shared`.
    ///
    /// # Errors
    /// [`Error::WrongDevice`] where `shared` is another device's; those of
    /// [`transfer::zeroed`](super::transfer::zeroed).
    pub fn create_tables(&self, shared: Option<&Tables>) -> Result<Tables, Error> {
        Tables::new(&self.owner, &self.plan, shared)
    }

    /// Records the plan into an encoder or a compute pass.
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind).
    pub fn encode(&self, target: &mut impl Target, bindings: &Bindings) -> Result<(), Error> {
        self.bind(bindings)?.encode(target);
        Ok(())
    }

    /// Checks the buffers and makes the bind groups, once for any number of recordings: what a training
    /// loop with buffers of its own keeps from step to step.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::BufferTooSmall`], [`Error::Misaligned`], [`Error::Usage`],
    /// [`Error::Aliasing`], [`Error::WrongDevice`] where tables are another device's, [`Error::Device`] where
    /// this one is lost or refuses a buffer (natively); nothing is recorded then.
    pub fn bind(&self, bindings: &Bindings) -> Result<BoundPlan, Error> {
        bindings.validate(&self.plan, &self.owner, self.read_write)?;
        device::guarded(self.owner.device(), "binding", || self.bound(bindings))
    }

    fn bound(&self, bindings: &Bindings) -> Result<BoundPlan, Error> {
        let mut dispatches = Vec::with_capacity(self.kernels.len());
        for (index, (step, kernel)) in self.plan.steps().iter().zip(&self.kernels).enumerate() {
            let Some(uniforms) = &self.uniforms else {
                break;
            };
            let mut entries = vec![wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: uniforms,
                    offset: self.stride * index as u64,
                    size: wgpu::BufferSize::new(UNIFORM_BYTES as u64),
                }),
            }];
            for ((binding, _), &role) in step.spec.bindings().zip(&step.bindings) {
                let resource = bindings.resource(&self.plan, role, step.window)?;
                entries.push(wgpu::BindGroupEntry { binding, resource });
            }
            let group = self
                .owner
                .device()
                .create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some(step.spec.kernel.name()),
                    layout: &kernel.layout,
                    entries: &entries,
                });
            dispatches.push(Dispatch {
                kernel: kernel.clone(),
                group,
                workgroups: step.workgroups,
            });
        }
        Ok(BoundPlan { dispatches })
    }
}

/// What work is recorded into: a [`wgpu::CommandEncoder`], in which each plan has a compute pass of its own, or a
/// [`wgpu::ComputePass`] of the caller's.
pub trait Target: sealed::InPass {}

impl Target for wgpu::CommandEncoder {}

impl Target for wgpu::ComputePass<'_> {}

mod sealed {
    /// Records into a pass.
    pub trait InPass {
        fn in_pass(&mut self, record: &mut dyn FnMut(&mut wgpu::ComputePass<'_>));
    }

    impl InPass for wgpu::CommandEncoder {
        fn in_pass(&mut self, record: &mut dyn FnMut(&mut wgpu::ComputePass<'_>)) {
            record(&mut self.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("bcnorm"),
                timestamp_writes: None,
            }));
        }
    }

    impl InPass for wgpu::ComputePass<'_> {
        fn in_pass(&mut self, record: &mut dyn FnMut(&mut wgpu::ComputePass<'_>)) {
            record(self);
        }
    }
}

/// One step of a plan with its buffers.
#[derive(Debug)]
struct Dispatch {
    kernel: Arc<Kernel>,
    group: wgpu::BindGroup,
    workgroups: [u32; 2],
}

/// A plan with its buffers: ready to be recorded, any number of times. It owns what it needs (it keeps
/// the buffers alive, too), so it can be stored without its [`PreparedPlan`]. Recording it checks nothing,
/// allocates nothing of its own and makes no bind groups (`tests/suite/hot_path.rs`).
#[derive(Debug)]
pub struct BoundPlan {
    dispatches: Vec<Dispatch>,
}

impl BoundPlan {
    /// Records the plan into an encoder, in which it makes a compute pass of its own, or into a compute pass of the
    /// caller's, of which it sets pipelines and bind group 0.
    pub fn encode(&self, target: &mut (impl Target + ?Sized)) {
        if !self.dispatches.is_empty() {
            target.in_pass(&mut |pass| self.encode_steps(pass, 0..self.dispatches.len()));
        }
    }

    /// Records some steps of the plan into a compute pass of the caller's: those before and those after
    /// [`Plan::all_gather_before`], say. Indices beyond the plan record nothing.
    pub fn encode_steps(&self, pass: &mut wgpu::ComputePass<'_>, steps: Range<usize>) {
        let end = steps.end.min(self.dispatches.len());
        for dispatch in &self.dispatches[steps.start.min(end)..end] {
            pass.set_pipeline(&dispatch.kernel.pipeline);
            pass.set_bind_group(0, &dispatch.group, &[]);
            let [x, y] = dispatch.workgroups;
            pass.dispatch_workgroups(x, y, 1);
        }
    }

    /// Records one step of the plan: stages are addressable, for tests, measurements, and callers
    /// that put work of their own between them (an all-reduce of channel moments, say). An index
    /// beyond the plan records nothing.
    pub fn encode_step(&self, pass: &mut wgpu::ComputePass<'_>, index: usize) {
        self.encode_steps(pass, index..index.saturating_add(1));
    }
}
