//! Upload and readback.

use crate::desc::DType;
use crate::error::Error;
use crate::host;

/// A buffer that holds `bytes`, padded to a multiple of 4 (and 4 bytes at least).
pub fn buffer_with_bytes(
    device: &wgpu::Device,
    label: &str,
    bytes: &[u8],
    usage: wgpu::BufferUsages,
) -> wgpu::Buffer {
    let size = (bytes.len() as u64).next_multiple_of(4).max(4);
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size,
        usage,
        mapped_at_creation: true,
    });
    // Only a lost device hands out a buffer that is not mapped; whoever uses the buffer hears of
    // the loss.
    if let Ok(mut view) = buffer.get_mapped_range_mut(..) {
        view.slice(..bytes.len()).copy_from_slice(bytes);
    }
    buffer.unmap();
    buffer
}

/// A storage buffer with the given values: STORAGE, COPY_SRC and COPY_DST.
pub fn upload(device: &wgpu::Device, label: &str, values: &[f32]) -> wgpu::Buffer {
    buffer_with_bytes(device, label, bytemuck::cast_slice(values), STORAGE)
}

/// As [`upload`], rounded to a tensor's type (16-bit values to the nearest, ties to even).
pub fn upload_as(device: &wgpu::Device, label: &str, dtype: DType, values: &[f32]) -> wgpu::Buffer {
    let words = host::pack(dtype, values);
    buffer_with_bytes(device, label, bytemuck::cast_slice(&words), STORAGE)
}

/// A storage buffer for `len` f32 values, zeroed: STORAGE, COPY_SRC and COPY_DST.
pub fn zeros(device: &wgpu::Device, label: &str, len: u64) -> wgpu::Buffer {
    zeroed(device, label, len * 4)
}

/// A storage buffer of `bytes` bytes (4 at least), zeroed: STORAGE, COPY_SRC and COPY_DST.
pub fn zeroed(device: &wgpu::Device, label: &str, bytes: u64) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: bytes.next_multiple_of(4).max(4),
        usage: STORAGE,
        mapped_at_creation: false,
    })
}

const STORAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_SRC)
    .union(wgpu::BufferUsages::COPY_DST);

/// Reads `len` values of any plain type from a buffer (COPY_SRC) at a byte offset: submits a copy,
/// waits for it, maps. Natively this blocks the calling thread on the device while it is polled; in
/// a browser it yields.
///
/// # Errors
/// [`Error::Length`] where the buffer is too short, [`Error::Device`] where the device is lost.
pub async fn read<T: bytemuck::Pod>(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    buffer: &wgpu::Buffer,
    offset: u64,
    len: usize,
) -> Result<Vec<T>, Error> {
    let size = size_of::<T>() as u64;
    let bytes = len as u64 * size;
    if bytes == 0 {
        return Ok(Vec::new());
    }
    // Copies begin and end at multiples of 4, which values of 16 bits need not.
    let end = buffer.size() / 4 * 4;
    if offset.checked_add(bytes).is_none_or(|last| last > end) {
        return Err(Error::Length {
            what: "the buffer to read".into(),
            found: (end.saturating_sub(offset) / size) as usize,
            expected: len,
        });
    }
    let skipped = (offset % 4) as usize;
    let copied = (skipped as u64 + bytes).next_multiple_of(4);
    let staging = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("bcnorm readback"),
        size: copied,
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor {
        label: Some("bcnorm readback"),
    });
    encoder.copy_buffer_to_buffer(buffer, offset - skipped as u64, &staging, 0, copied);
    queue.submit([encoder.finish()]);

    let (sender, receiver) = futures_intrusive::channel::shared::oneshot_channel();
    staging
        .slice(..)
        .map_async(wgpu::MapMode::Read, move |result| {
            // The receiver lives until this is sent.
            let _ = sender.send(result);
        });
    device
        .poll(wgpu::PollType::wait_indefinitely())
        .map_err(|error| Error::Device(error.to_string()))?;
    let mapped = receiver.receive().await;
    let lost = || Error::Device("the device was lost before the buffer could be read".into());
    mapped
        .ok_or_else(lost)?
        .map_err(|error| Error::Device(error.to_string()))?;
    let view = staging
        .get_mapped_range(..)
        .map_err(|error| Error::Device(error.to_string()))?;
    // Mapped memory is aligned for any plain type, but a copy asks for no promise.
    Ok(bytemuck::pod_collect_to_vec(
        &view[skipped..skipped + bytes as usize],
    ))
}

/// Reads `len` values of a tensor's type as f32: see [`read`].
///
/// # Errors
/// Those of [`read`].
pub async fn read_as(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    buffer: &wgpu::Buffer,
    offset: u64,
    len: usize,
    dtype: DType,
) -> Result<Vec<f32>, Error> {
    if dtype == DType::F32 {
        return read(device, queue, buffer, offset, len).await;
    }
    let bits: Vec<u16> = read(device, queue, buffer, offset, len).await?;
    let value = |bits: u16| match dtype {
        DType::F16 => half::f16::from_bits(bits).to_f32(),
        _ => half::bf16::from_bits(bits).to_f32(),
    };
    Ok(bits.into_iter().map(value).collect())
}
