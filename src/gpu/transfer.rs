//! Upload and readback.

use crate::error::Error;

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

/// A storage buffer for `len` values, zeroed: STORAGE, COPY_SRC and COPY_DST.
pub fn zeros(device: &wgpu::Device, label: &str, len: u64) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: (len * 4).max(4),
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
    let bytes = (len * size_of::<T>()) as u64;
    if bytes == 0 {
        return Ok(Vec::new());
    }
    if offset
        .checked_add(bytes)
        .is_none_or(|end| end > buffer.size())
    {
        return Err(Error::Length {
            what: "the buffer to read".into(),
            found: (buffer.size().saturating_sub(offset) / size_of::<T>() as u64) as usize,
            expected: len,
        });
    }
    let staging = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("bcnorm readback"),
        size: bytes.next_multiple_of(4),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor {
        label: Some("bcnorm readback"),
    });
    encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, bytes.next_multiple_of(4));
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
    Ok(bytemuck::pod_collect_to_vec(&view[..bytes as usize]))
}
