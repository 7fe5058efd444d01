//! Tensors on the GPU.

use crate::desc::TensorDesc;
use crate::error::Error;
use crate::gpu::device::Owner;
use crate::gpu::{Bindings, transfer};
use crate::role::Role;
use std::sync::Arc;

/// A tensor on the GPU: a buffer, an offset, what lies there, and whose it is. Cloning shares the buffer
/// and allocates nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    buffer: wgpu::Buffer,
    offset: u64,
    desc: Arc<TensorDesc>,
    owner: Owner,
}

impl Tensor {
    /// Uploads f32 values, given in the order in memory that `desc` says (channels first or last),
    /// rounded to its type.
    ///
    /// # Errors
    /// [`Error::Length`] where `values` is not as long as the shape asks; those of
    /// [`transfer::buffer_with_bytes`]: [`Error::Limit`] beyond the device's largest buffer,
    /// [`Error::Device`].
    pub fn new(device: &wgpu::Device, desc: &TensorDesc, values: &[f32]) -> Result<Tensor, Error> {
        if values.len() as u64 != desc.elements() {
            return Err(Error::Length {
                what: format!("the data for a tensor of shape {:?}", desc.dims()),
                found: values.len(),
                expected: desc.elements() as usize,
            });
        }
        let buffer = transfer::upload_as(device, "tensor", desc.dtype(), values)?;
        Ok(Tensor::from_buffer(device, &buffer, 0, desc.clone()))
    }

    /// Uploads an f32 tensor with channels first: (N, C, *spatial) row by row.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::TooManyElements`], and those of [`new`](Self::new).
    pub fn from_slice(
        device: &wgpu::Device,
        dims: &[usize],
        values: &[f32],
    ) -> Result<Tensor, Error> {
        Tensor::new(device, &TensorDesc::new(dims)?, values)
    }

    /// Views a caller's buffer of this device from a byte offset. Whether it is large enough, aligned, and has
    /// the flag STORAGE is checked where it is used. That it is the device's cannot be checked: see
    /// [`gpu`](crate::gpu#several-devices).
    pub fn from_buffer(
        device: &wgpu::Device,
        buffer: &wgpu::Buffer,
        offset: u64,
        desc: TensorDesc,
    ) -> Tensor {
        Tensor {
            buffer: buffer.clone(),
            offset,
            desc: Arc::new(desc),
            owner: Owner::of(device),
        }
    }

    /// A tensor of the same description in a buffer of its own, zeroed.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] where this tensor's own buffer cannot hold it: a size that is a
    /// mistake is not allocated. [`Error::WrongDevice`] where it is not the owner's, whose the new one is.
    pub(super) fn like(&self, owner: &Owner, role: Role, new: Role) -> Result<Tensor, Error> {
        owner.check(&self.owner, role)?;
        let needed = self.desc.buffer_bytes();
        let size = self.buffer.size();
        if self.offset.checked_add(needed).is_none_or(|end| end > size) {
            return Err(Error::BufferTooSmall {
                role,
                needed,
                offset: self.offset,
                size,
            });
        }
        Ok(Tensor {
            buffer: transfer::zeroed(owner.device(), new.name(), needed)?,
            offset: 0,
            desc: self.desc.clone(),
            owner: owner.clone(),
        })
    }

    /// Binds it as a role.
    pub(super) fn bind(&self, bindings: Bindings, role: Role) -> Bindings {
        bindings.with_owner(role, &self.buffer, self.offset, Some(&self.owner))
    }

    /// Whether both have bytes in common.
    pub(super) fn overlaps(&self, other: &Tensor) -> bool {
        let end = |tensor: &Tensor| tensor.offset.saturating_add(tensor.desc.buffer_bytes());
        self.owner == other.owner
            && self.buffer == other.buffer
            && self.offset < end(other)
            && other.offset < end(self)
    }

    /// The shape, type and layout.
    pub fn desc(&self) -> &TensorDesc {
        &self.desc
    }

    /// The shape.
    pub fn dims(&self) -> &[usize] {
        self.desc.dims()
    }

    /// The buffer.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Where in the buffer it begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the values back as f32, in their order in memory: see [`transfer::read`].
    ///
    /// # Errors
    /// [`Error::WrongDevice`] where it is not this device's, and those of [`transfer::read`].
    pub async fn read(
        &self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
    ) -> Result<Vec<f32>, Error> {
        Owner::of(device).check(&self.owner, "the tensor to read")?;
        let len = self.desc.elements() as usize;
        let dtype = self.desc.dtype();
        transfer::read_as(device, queue, &self.buffer, self.offset, len, dtype).await
    }

    /// Refuses a tensor that is not described as the one it belongs to.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Storage`].
    pub(super) fn check_like(&self, role: Role, like: &Tensor) -> Result<(), Error> {
        let (found, expected) = (&self.desc, &like.desc);
        if found.dims() != expected.dims() {
            return Err(Error::Shape {
                what: role.name().into(),
                found: found.dims().to_vec(),
                expected: expected.dims().to_vec(),
            });
        }
        if found != expected {
            let storage = |desc: &TensorDesc| (desc.dtype(), desc.layout());
            return Err(Error::Storage {
                what: role.name().into(),
                found: storage(found),
                expected: storage(expected),
            });
        }
        Ok(())
    }
}
