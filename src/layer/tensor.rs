//! Tensors on the GPU.

use crate::desc::TensorDesc;
use crate::error::Error;
use crate::gpu::transfer;
use crate::role::Role;

/// A tensor on the GPU: a buffer, an offset, and what lies there. Cloning shares the buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    buffer: wgpu::Buffer,
    offset: u64,
    desc: TensorDesc,
}

impl Tensor {
    /// Uploads f32 values, given in the order in memory that `desc` says (channels first or last),
    /// rounded to its type.
    ///
    /// # Errors
    /// [`Error::Length`] where `values` is not as long as the shape asks.
    pub fn new(device: &wgpu::Device, desc: &TensorDesc, values: &[f32]) -> Result<Tensor, Error> {
        if values.len() as u64 != desc.elements() {
            return Err(Error::Length {
                what: format!("the data for a tensor of shape {:?}", desc.dims()),
                found: values.len(),
                expected: desc.elements() as usize,
            });
        }
        let buffer = transfer::upload_as(device, "tensor", desc.dtype(), values);
        Ok(Tensor::from_buffer(&buffer, 0, desc.clone()))
    }

    /// Uploads an f32 tensor with channels first: (N, C, *spatial) row by row.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::TooManyElements`], and [`Error::Length`] where `values` is not as
    /// long as the shape asks.
    pub fn from_slice(
        device: &wgpu::Device,
        dims: &[usize],
        values: &[f32],
    ) -> Result<Tensor, Error> {
        Tensor::new(device, &TensorDesc::new(dims)?, values)
    }

    /// Views a caller's buffer from a byte offset. Whether it is large enough, aligned, and has the
    /// flag STORAGE is checked where it is used.
    pub fn from_buffer(buffer: &wgpu::Buffer, offset: u64, desc: TensorDesc) -> Tensor {
        Tensor {
            buffer: buffer.clone(),
            offset,
            desc,
        }
    }

    /// A tensor of the same description in a buffer of its own, zeroed.
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`] where this tensor's own buffer cannot hold it: a size that is a
    /// mistake is not allocated.
    pub(super) fn like(
        &self,
        device: &wgpu::Device,
        role: Role,
        new: Role,
    ) -> Result<Tensor, Error> {
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
        let buffer = transfer::zeroed(device, new.name(), needed);
        Ok(Tensor::from_buffer(&buffer, 0, self.desc.clone()))
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
    /// Those of [`transfer::read`].
    pub async fn read(
        &self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
    ) -> Result<Vec<f32>, Error> {
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
