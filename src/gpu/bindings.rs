//! Buffers by role, checked before anything is recorded.

use crate::error::Error;
use crate::kernels::Access;
use crate::plan::{Need, Plan, Window};
use crate::role::{Role, RoleKind};
use std::collections::BTreeMap;

/// A caller's buffer from a byte offset on.
#[derive(Debug, Clone)]
struct Slot {
    buffer: wgpu::Buffer,
    offset: u64,
}

/// Which buffer serves each [`Role`].
#[derive(Debug, Clone, Default)]
pub struct Bindings {
    slots: BTreeMap<Role, Slot>,
}

impl Bindings {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds a buffer from its beginning.
    #[must_use]
    pub fn with(self, role: Role, buffer: &wgpu::Buffer) -> Self {
        self.with_offset(role, buffer, 0)
    }

    /// Binds a buffer from a byte offset, a multiple of the device's
    /// `min_storage_buffer_offset_alignment` (256 by default).
    #[must_use]
    pub fn with_offset(mut self, role: Role, buffer: &wgpu::Buffer, offset: u64) -> Self {
        let buffer = buffer.clone();
        self.slots.insert(role, Slot { buffer, offset });
        self
    }

    /// Binds every table.
    #[must_use]
    pub fn with_tables(mut self, tables: &Tables) -> Self {
        for (&role, buffer) in &tables.buffers {
            self = self.with(role, buffer);
        }
        self
    }

    /// Checks them against a plan.
    pub(super) fn validate(&self, plan: &Plan, limits: &wgpu::Limits) -> Result<(), Error> {
        let missing = plan.needs().iter().map(|need| need.role);
        let missing: Vec<Role> = missing.filter(|r| !self.slots.contains_key(r)).collect();
        if !missing.is_empty() {
            return Err(Error::Missing { roles: missing });
        }
        for need in plan.needs() {
            self.slots[&need.role].validate(need, limits)?;
        }
        self.check_overlaps(plan)?;
        self.check_steps(plan)
    }

    /// No written range may overlap another role's, in the same step or not.
    fn check_overlaps(&self, plan: &Plan) -> Result<(), Error> {
        for (index, a) in plan.needs().iter().enumerate() {
            for b in &plan.needs()[index + 1..] {
                let (slot_a, slot_b) = (&self.slots[&a.role], &self.slots[&b.role]);
                let written = [a, b]
                    .into_iter()
                    .find(|need| need.access == Access::ReadWrite);
                let (Some(written), true) = (written, slot_a.buffer == slot_b.buffer) else {
                    continue;
                };
                if slot_a.offset < slot_b.offset + b.bytes
                    && slot_b.offset < slot_a.offset + a.bytes
                {
                    return Err(Error::Aliasing {
                        first: a.role,
                        second: b.role,
                        written: written.role,
                        conflict: "overlapping ranges",
                    });
                }
            }
        }
        Ok(())
    }

    /// WebGPU forbids one buffer to be both read-only and written in a dispatch, even in disjoint
    /// ranges.
    fn check_steps(&self, plan: &Plan) -> Result<(), Error> {
        for step in plan.steps() {
            let declared = step.spec.bindings().map(|(_, binding)| binding);
            let uses: Vec<_> = step.bindings.iter().zip(declared).collect();
            for &(&read, a) in &uses {
                for &(&write, b) in &uses {
                    if a.access == Access::Read
                        && b.access == Access::ReadWrite
                        && self.slots[&read].buffer == self.slots[&write].buffer
                    {
                        return Err(Error::Aliasing {
                            first: read,
                            second: write,
                            written: write,
                            conflict: "WebGPU forbids it even for disjoint ranges",
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// The binding of a role, exactly as large as the plan needs; of a tensor only the window.
    pub(super) fn resource(
        &self,
        plan: &Plan,
        role: Role,
        window: Option<Window>,
    ) -> Result<wgpu::BindingResource<'_>, Error> {
        let missing = || Error::Missing { roles: vec![role] };
        let slot = self.slots.get(&role).ok_or_else(missing)?;
        let need = plan.need(role).ok_or_else(missing)?;
        let (offset, bytes) = match window {
            Some(window) if role.is_tensor() => (slot.offset + window.offset, window.bytes),
            _ => (slot.offset, need.bytes),
        };
        Ok(wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &slot.buffer,
            offset,
            size: wgpu::BufferSize::new(bytes),
        }))
    }
}

impl Slot {
    fn validate(&self, need: &Need, limits: &wgpu::Limits) -> Result<(), Error> {
        let role = need.role;
        let alignment = u64::from(limits.min_storage_buffer_offset_alignment);
        if !self.offset.is_multiple_of(alignment) {
            return Err(Error::Misaligned {
                role,
                offset: self.offset,
                alignment,
            });
        }
        let size = self.buffer.size();
        if self
            .offset
            .checked_add(need.bytes)
            .is_none_or(|end| end > size)
        {
            return Err(Error::BufferTooSmall {
                role,
                needed: need.bytes,
                offset: self.offset,
                size,
            });
        }
        let usage = self.buffer.usage();
        if !usage.contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::Usage {
                role,
                missing: "STORAGE",
                usage: format!("{usage:?}"),
            });
        }
        Ok(())
    }
}

/// The tables of a plan. Saved ones (rows, channels, groups) are what backward needs of forward.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    buffers: BTreeMap<Role, wgpu::Buffer>,
}

impl Tables {
    pub(super) fn new(device: &wgpu::Device, plan: &Plan, shared: Option<&Tables>) -> Self {
        let mut tables = shared.cloned().unwrap_or_default();
        for need in plan.needs() {
            if need.role.kind() == RoleKind::Caller {
                continue;
            }
            let fits = |buffer: &wgpu::Buffer| buffer.size() >= need.bytes;
            if tables.buffers.get(&need.role).is_some_and(fits) {
                continue;
            }
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(need.role.name()),
                size: need.bytes,
                usage: wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            tables.buffers.insert(need.role, buffer);
        }
        tables
    }

    /// The buffer of a table.
    pub fn get(&self, role: Role) -> Option<&wgpu::Buffer> {
        self.buffers.get(&role)
    }

    /// All tables.
    pub fn iter(&self) -> impl Iterator<Item = (Role, &wgpu::Buffer)> {
        self.buffers.iter().map(|(&role, buffer)| (role, buffer))
    }
}
