//! What times a submission: the device's timestamps at the ends of its pass where they can be trusted, the
//! wall clock from submission to completion otherwise.

use anyhow::Result;
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::transfer::read;
use std::time::Instant;

/// By how much the two clocks may differ on a submission of [`CALIBRATION`] seconds: the wall clock also
/// sees the submission itself and the wake-up, together well under 2 ms.
const TOLERANCE: f64 = 0.05;

/// Seconds of the submission on which the clocks are compared.
pub const CALIBRATION: f64 = 0.15;

/// What times a submission.
#[derive(Debug)]
pub enum Clock {
    /// From submission to completion.
    Wall,
    /// From the first to the last dispatch, by the device: two timestamps, where they are resolved to, and
    /// the seconds of a tick.
    Timestamps(wgpu::QuerySet, wgpu::Buffer, f64),
}

/// One submission by both clocks, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Elapsed {
    /// By the wall clock.
    pub wall: f64,
    /// By this clock.
    pub counted: f64,
}

impl Clock {
    /// Timestamps where the device has them, not yet to be trusted.
    pub fn new(gpu: &Gpu) -> Self {
        let Gpu { device, queue, .. } = gpu;
        if !device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Clock::Wall;
        }
        let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("bench"),
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let resolved = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("bench timestamps"),
            size: 16,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        Clock::Timestamps(
            queries,
            resolved,
            f64::from(queue.get_timestamp_period()) * 1e-9,
        )
    }

    pub fn name(&self) -> &'static str {
        match self {
            Clock::Wall => "wall",
            Clock::Timestamps(..) => "timestamps",
        }
    }

    /// Submits what is recorded in one compute pass, and waits.
    pub fn time(
        &self,
        gpu: &Gpu,
        record: impl FnOnce(&mut wgpu::ComputePass<'_>),
    ) -> Result<Elapsed> {
        let Gpu { device, queue, .. } = gpu;
        // Recorded before the clock starts.
        let mut encoder = device.create_command_encoder(&Default::default());
        let timestamp_writes = match self {
            Clock::Wall => None,
            Clock::Timestamps(query_set, ..) => Some(wgpu::ComputePassTimestampWrites {
                query_set,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            }),
        };
        let label = Some("bench");
        let descriptor = wgpu::ComputePassDescriptor {
            label,
            timestamp_writes,
        };
        record(&mut encoder.begin_compute_pass(&descriptor));
        if let Clock::Timestamps(queries, resolved, _) = self {
            encoder.resolve_query_set(queries, 0..2, resolved, 0);
        }
        let commands = encoder.finish();
        let start = Instant::now();
        queue.submit([commands]);
        device.poll(wgpu::PollType::wait_indefinitely())?;
        let wall = start.elapsed().as_secs_f64();
        let counted = match self {
            Clock::Wall => wall,
            Clock::Timestamps(_, resolved, period) => {
                let ticks = pollster::block_on(read::<u64>(device, queue, resolved, 0, 2))?;
                ticks[1].saturating_sub(ticks[0]) as f64 * period
            }
        };
        Ok(Elapsed { wall, counted })
    }

    /// The clock to use, given a long submission, and why it is the wall clock where there are timestamps.
    pub fn trusted(self, long: Elapsed) -> (Self, Option<String>) {
        if agree(long) {
            return (self, None);
        }
        let [stamps, wall] = [long.counted, long.wall].map(|seconds| 1e3 * seconds);
        let why = format!(
            "its timestamps say {stamps:.3} ms of a submission that took {wall:.3} ms: the wall clock is used"
        );
        (Clock::Wall, Some(why))
    }
}

fn agree(Elapsed { wall, counted }: Elapsed) -> bool {
    (counted / wall - 1.0).abs() <= TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_not_trusted() {
        let agree = |counted| agree(Elapsed { wall: 0.2, counted });
        assert!(agree(0.199) && agree(0.205));
        for stamps in [0.0, 0.18, 0.22, 2e5, f64::NAN] {
            assert!(!agree(stamps), "{stamps}");
        }
    }
}
