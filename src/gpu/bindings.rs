//! Buffers by role, checked before anything is recorded.

use super::device::Owner;
use super::transfer;
use crate::error::Error;
use crate::plan::{BoundBuffer, Plan, Window};
use crate::role::{Role, RoleKind};
use std::collections::BTreeMap;

/// A caller's buffer from a byte offset on.
#[derive(Debug, Clone)]
struct Slot {
    buffer: wgpu::Buffer,
    offset: u64,
    /// Whose it is, where that is known.
    owner: Option<Owner>,
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
    pub fn with_offset(self, role: Role, buffer: &wgpu::Buffer, offset: u64) -> Self {
        self.with_owner(role, buffer, offset, None)
    }

    /// Binds a buffer whose owner is known.
    pub(crate) fn with_owner(
        mut self,
        role: Role,
        buffer: &wgpu::Buffer,
        offset: u64,
        owner: Option<&Owner>,
    ) -> Self {
        let slot = Slot {
            buffer: buffer.clone(),
            offset,
            owner: owner.cloned(),
        };
        self.slots.insert(role, slot);
        self
    }

    /// Binds every table.
    #[must_use]
    pub fn with_tables(mut self, tables: &Tables) -> Self {
        for (&role, buffer) in &tables.buffers {
            self = self.with_owner(role, buffer, 0, tables.owner.as_ref());
        }
        self
    }

    /// Checks them against a plan of an owner's, all of whose bindings may be read_write.
    pub(super) fn validate(
        &self,
        plan: &Plan,
        owner: &Owner,
        read_write: bool,
    ) -> Result<(), Error> {
        for (role, slot) in &self.slots {
            if let Some(of) = &slot.owner {
                owner.check(of, role)?;
            }
        }
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
        let limits = owner.device().limits();
        plan.check_buffers(&buffers.collect::<Vec<_>>(), read_write, &(&limits).into())
    }

    /// The buffer of a role, and where it begins.
    pub(super) fn buffer(&self, role: Role) -> Result<(&wgpu::Buffer, u64), Error> {
        let slot = self.slots.get(&role);
        slot.map(|slot| (&slot.buffer, slot.offset))
            .ok_or_else(|| Error::Missing { roles: vec![role] })
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
    /// None where there are none.
    owner: Option<Owner>,
    buffers: BTreeMap<Role, wgpu::Buffer>,
}

impl Tables {
    pub(super) fn new(owner: &Owner, plan: &Plan, shared: Option<&Tables>) -> Result<Self, Error> {
        let mut tables = shared.cloned().unwrap_or_default();
        if let Some(of) = &tables.owner {
            owner.check(of, "the tables to share")?;
        }
        tables.owner = Some(owner.clone());
        for need in plan.needs() {
            if need.role.kind() == RoleKind::Caller {
                continue;
            }
            let fits = |buffer: &wgpu::Buffer| buffer.size() >= need.bytes;
            if tables.buffers.get(&need.role).is_some_and(fits) {
                continue;
            }
            let buffer = transfer::zeroed(owner.device(), need.role.name(), need.bytes)?;
            tables.buffers.insert(need.role, buffer);
        }
        Ok(tables)
    }

    /// The buffer of a table.
    pub fn get(&self, role: Role) -> Option<&wgpu::Buffer> {
        self.buffers.get(&role)
    }

    /// The memory that they take, in bytes.
    pub fn bytes(&self) -> u64 {
        self.buffers.values().map(wgpu::Buffer::size).sum()
    }

    /// All tables.
    pub fn iter(&self) -> impl Iterator<Item = (Role, &wgpu::Buffer)> {
        self.buffers.iter().map(|(&role, buffer)| (role, buffer))
    }
}
