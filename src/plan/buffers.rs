//! Buffers against a plan, whichever executor binds them.

use super::Plan;
use super::step::BufferRequirement;
use crate::error::Error;
use crate::kernels::Access;
use crate::limits::Limits;
use crate::role::Role;
use std::fmt;

/// What an executor knows of a buffer that it binds.
#[derive(Clone, Copy)]
pub struct BoundBuffer<'a> {
    /// What it serves as.
    pub role: Role,
    /// Equal where it is the same buffer.
    pub id: usize,
    /// Where in it, in bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it may be bound as storage.
    pub storage: bool,
    /// Its usage flags, for the message where they lack that one.
    pub usage: &'a dyn fmt::Debug,
}

pub(super) fn check(
    plan: &Plan,
    buffers: &[BoundBuffer<'_>],
    read_write: bool,
    limits: &Limits,
) -> Result<(), Error> {
    let of = |role: Role| buffers.iter().find(|buffer| buffer.role == role);
    let mut needed = Vec::with_capacity(plan.needs.len());
    let mut missing = Vec::new();
    for need in &plan.needs {
        match of(need.role) {
            Some(buffer) => needed.push((need, buffer)),
            None => missing.push(need.role),
        }
    }
    if !missing.is_empty() {
        return Err(Error::Missing { roles: missing });
    }
    for (need, buffer) in &needed {
        check_one(need, buffer, limits)?;
    }
    check_overlaps(&needed)?;
    match read_write {
        true => Ok(()),
        false => check_steps(plan, &needed),
    }
}

fn check_one(
    need: &BufferRequirement,
    buffer: &BoundBuffer<'_>,
    limits: &Limits,
) -> Result<(), Error> {
    let &BufferRequirement { role, bytes, .. } = need;
    let &BoundBuffer { offset, size, .. } = buffer;
    let alignment = u64::from(limits.min_storage_buffer_offset_alignment);
    if !offset.is_multiple_of(alignment) {
        return Err(Error::Misaligned {
            role,
            offset,
            alignment,
        });
    }
    if offset.checked_add(bytes).is_none_or(|end| end > size) {
        return Err(Error::BufferTooSmall {
            role,
            needed: bytes,
            offset,
            size,
        });
    }
    if !buffer.storage {
        return Err(Error::Usage {
            what: format!("the buffer of {role}"),
            missing: "STORAGE",
            usage: format!("{:?}", buffer.usage),
        });
    }
    Ok(())
}

/// No written range may overlap another role's, in the same step or not.
fn check_overlaps(needed: &[(&BufferRequirement, &BoundBuffer<'_>)]) -> Result<(), Error> {
    for (index, (a, buffer_a)) in needed.iter().enumerate() {
        for (b, buffer_b) in &needed[index + 1..] {
            let written = [a, b]
                .into_iter()
                .find(|need| need.access == Access::ReadWrite);
            let (Some(written), true) = (written, buffer_a.id == buffer_b.id) else {
                continue;
            };
            if buffer_a.offset < buffer_b.offset + b.bytes
                && buffer_b.offset < buffer_a.offset + a.bytes
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

/// WebGPU forbids one buffer to be both read-only and written in a dispatch, even in disjoint ranges.
fn check_steps(
    plan: &Plan,
    needed: &[(&BufferRequirement, &BoundBuffer<'_>)],
) -> Result<(), Error> {
    let id = |role: Role| {
        let found = needed.iter().find(|(need, _)| need.role == role);
        found.map(|(_, buffer)| buffer.id)
    };
    for step in &plan.steps {
        let declared = step.spec.bindings().map(|(_, binding)| binding);
        let uses: Vec<_> = step.bindings.iter().zip(declared).collect();
        for &(&read, a) in &uses {
            for &(&write, b) in &uses {
                if a.access == Access::Read
                    && b.access == Access::ReadWrite
                    && id(read) == id(write)
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
