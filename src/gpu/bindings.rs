//! Buffers by role, checked before anything is recorded.

use crate::error::Error;
use crate::plan::{BoundBuffer, Plan, Window};
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
        let usages: Vec<_> = self.slots.values().map(|s| s.buffer.usage()).collect();
        let first_of = |slot: &Slot| self.slots.values().position(|s| s.buffer == slot.buffer);
        let buffers = self
            .slots
            .iter()
            .zip(&usages)
            .map(|((&role, slot), usage)| BoundBuffer {
                role,
                id: first_of(slot).unwrap_or_default(),
                offset: slot.offset,
                size: slot.buffer.size(),
                storage: usage.contains(wgpu::BufferUsages::STORAGE),
                usage,
            });
        plan.check_buffers(&buffers.collect::<Vec<_>>(), &limits.into())
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
