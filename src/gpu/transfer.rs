//! Upload, readback, and calls that submit.

use super::device;
use crate::desc::DType;
use crate::error::Error;
use crate::host;

/// A buffer that holds `bytes`, padded to a multiple of 4 (and 4 bytes at least).
///
/// # Errors
/// [`Error::Limit`] beyond the device's `max_buffer_size`; [`Error::Device`] where it has no memory for it
/// or is lost (natively: a browser reports both to the device's `uncapturederror` event).
pub fn buffer_with_bytes(
    device: &wgpu::Device,
    label: &str,
    bytes: &[u8],
    usage: wgpu::BufferUsages,
) -> Result<wgpu::Buffer, Error> {
    create(device, label, bytes.len() as u64, usage, Some(bytes))
}

/// A storage buffer with the given values: STORAGE, COPY_SRC and COPY_DST.
///
/// # Errors
/// Those of [`buffer_with_bytes`].
pub fn upload(device: &wgpu::Device, label: &str, values: &[f32]) -> Result<wgpu::Buffer, Error> {
    buffer_with_bytes(device, label, bytemuck::cast_slice(values), STORAGE)
}

/// As [`upload`], rounded to a tensor's type (16-bit values to the nearest, ties to even).
///
/// # Errors
/// Those of [`buffer_with_bytes`].
pub fn upload_as(
    device: &wgpu::Device,
    label: &str,
    dtype: DType,
    values: &[f32],
) -> Result<wgpu::Buffer, Error> {
    // Before the values are converted, which takes as much memory once more.
    let bytes = values.len() as u64 * dtype.bytes();
    check_size(device, label, bytes)?;
    let words = host::pack(dtype, values);
    buffer_with_bytes(device, label, bytemuck::cast_slice(&words), STORAGE)
}

/// A storage buffer for `len` f32 values, zeroed: STORAGE, COPY_SRC and COPY_DST.
///
/// # Errors
/// Those of [`buffer_with_bytes`].
pub fn zeros(device: &wgpu::Device, label: &str, len: u64) -> Result<wgpu::Buffer, Error> {
    zeroed(device, label, len.saturating_mul(4))
}

/// A storage buffer of `bytes` bytes (4 at least), zeroed: STORAGE, COPY_SRC and COPY_DST.
///
/// # Errors
/// Those of [`buffer_with_bytes`].
pub fn zeroed(device: &wgpu::Device, label: &str, bytes: u64) -> Result<wgpu::Buffer, Error> {
    create(device, label, bytes, STORAGE, None)
}

const STORAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_SRC)
    .union(wgpu::BufferUsages::COPY_DST);

/// Every buffer that the library makes is made here.
fn create(
    device: &wgpu::Device,
    label: &str,
    bytes: u64,
    usage: wgpu::BufferUsages,
    content: Option<&[u8]>,
) -> Result<wgpu::Buffer, Error> {
    check_size(device, label, bytes)?;
    let size = bytes.next_multiple_of(4).max(4);
    let what = format_args!("a buffer of {size} bytes ({label})");
    device::guarded(device, what, || {
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: content.is_some(),
        });
        if let Some(content) = content {
            // A buffer that could not be made is not mapped.
            let mut view = buffer
                .get_mapped_range_mut(..)
                .map_err(|error| device::failed(what, error))?;
            view.slice(..content.len()).copy_from_slice(content);
            drop(view);
            buffer.unmap();
        }
        Ok(buffer)
    })
}

/// Refuses a buffer larger than the device's largest.
pub(crate) fn check_size(device: &wgpu::Device, label: &str, bytes: u64) -> Result<(), Error> {
    let limit = device.limits().max_buffer_size;
    if bytes <= limit {
        return Ok(());
    }
    Err(Error::Limit {
        what: format!("the size of {label} in bytes"),
        value: bytes,
        limit,
        limit_name: "max_buffer_size of the device",
        way_out: "request the device with the adapter's limits, or use smaller tensors",
    })
}

/// Records into an encoder of its own and submits it.
pub(crate) fn submit<T>(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    what: &'static str,
    record: impl FnOnce(&mut wgpu::CommandEncoder) -> Result<T, Error>,
) -> Result<T, Error> {
    device::guarded(device, what, || {
        let label = Some("bcnorm");
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label });
        let recorded = record(&mut encoder)?;
        queue.submit([encoder.finish()]);
        Ok(recorded)
    })
}

/// Reads `len` values of any plain type from a buffer (COPY_SRC) at a byte offset: submits a copy,
/// waits for it, maps. Natively this blocks the calling thread on the device while it is polled; in
/// a browser it yields.
///
/// Device, queue and buffer must belong together. wgpu compares ids that are unique within a
/// `wgpu::Instance` only: where they do not belong together, it tells, or panics, or, over two instances of
/// the caller's own, may read another buffer.
///
/// # Errors
/// [`Error::Length`] where the buffer is too short, [`Error::Usage`] where it lacks COPY_SRC,
/// [`Error::WrongDevice`] where the queue did not run the copy, as another device's does not, and
/// [`Error::Device`] where the device is lost or objects (natively). Where a driver loses the device during
/// the wait itself, wgpu 30 panics.
pub async fn read<T: bytemuck::Pod>(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    buffer: &wgpu::Buffer,
    offset: u64,
    len: usize,
) -> Result<Vec<T>, Error> {
    let size = size_of::<T>() as u64;
    let bytes = (len as u64).saturating_mul(size);
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
    if !buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
        return Err(Error::Usage {
            what: "the buffer to read".into(),
            missing: "COPY_SRC",
            usage: format!("{:?}", buffer.usage()),
        });
    }
    let skipped = (offset % 4) as usize;
    let copied = (skipped as u64 + bytes).next_multiple_of(4);
    // A mark is copied behind the values, where the largest buffer has room for it. A queue that refuses the
    // copies leaves zeros, which say nothing.
    let mark_bytes = if copied < device.limits().max_buffer_size {
        4
    } else {
        0
    };
    let staging_usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ;
    let label = "bcnorm readback";
    let staging = create(device, label, copied + mark_bytes, staging_usage, None)?;
    let mark_usage = wgpu::BufferUsages::COPY_SRC;
    let mark = buffer_with_bytes(device, "bcnorm mark", &MARK, mark_usage)?;
    let (sender, receiver) = futures_intrusive::channel::shared::oneshot_channel();
    device::guarded(device, "the readback", || {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor {
            label: Some("bcnorm readback"),
        });
        encoder.copy_buffer_to_buffer(buffer, offset - skipped as u64, &staging, 0, copied);
        encoder.copy_buffer_to_buffer(&mark, 0, &staging, copied, mark_bytes);
        queue.submit([encoder.finish()]);
        staging
            .slice(..)
            .map_async(wgpu::MapMode::Read, move |result| {
                // The receiver lives until this is sent.
                let _ = sender.send(result);
            });
        device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|error| device::failed("the readback", error))?;
        Ok(())
    })?;
    let mapped = receiver.receive().await;
    mapped
        .ok_or_else(|| device::lost("the readback"))?
        .map_err(|error| device::failed("the readback", error))?;
    let view = staging
        .get_mapped_range(..)
        .map_err(|error| device::failed("the readback", error))?;
    if view[copied as usize..] != MARK[..mark_bytes as usize] {
        return Err(Error::WrongDevice {
            what: "the queue to read with".into(),
        });
    }
    // Mapped memory is aligned for any plain type, but a copy asks for no promise.
    Ok(bytemuck::pod_collect_to_vec(
        &view[skipped..skipped + bytes as usize],
    ))
}

/// What no buffer holds before it is written.
const MARK: [u8; 4] = *b"mark";

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
