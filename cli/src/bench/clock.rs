//! What times a submission: the device's timestamps at the ends of its pass where they can be trusted, the
//! wall clock from submission to completion otherwise.

use anyhow::{Context as _, Result};
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
    /// From the first to the last dispatch, by the device.
    Timestamps(Stamps),
}

/// Two timestamps and where they are resolved to.
#[derive(Debug)]
pub struct Stamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    /// Seconds of a tick.
    period: f64,
}

/// One submission by both clocks, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Elapsed {
    wall: f64,
    stamps: Option<f64>,
}

impl Clock {
    /// Timestamps where the device has them, not yet to be trusted.
    pub fn new(gpu: &Gpu) -> Self {
        let has = gpu.device.features();
        if !has.contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Clock::Wall;
        }
        Clock::Timestamps(Stamps {
            queries: gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("bench"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            }),
            resolved: gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("bench timestamps"),
                size: 16,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            }),
            period: f64::from(gpu.queue.get_timestamp_period()) * 1e-9,
        })
    }

    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Clock::Wall => "wall",
            Clock::Timestamps(_) => "timestamps",
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
        let stamps = match self {
            Clock::Wall => None,
            Clock::Timestamps(stamps) => Some(stamps),
        };
        let timestamp_writes = stamps.map(|stamps| wgpu::ComputePassTimestampWrites {
            query_set: &stamps.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("bench"),
            timestamp_writes,
        });
        record(&mut pass);
        drop(pass);
        if let Some(stamps) = stamps {
            encoder.resolve_query_set(&stamps.queries, 0..2, &stamps.resolved, 0);
        }
        let commands = encoder.finish();
        let start = Instant::now();
        queue.submit([commands]);
        device.poll(wgpu::PollType::wait_indefinitely())?;
        let wall = start.elapsed().as_secs_f64();
        let stamps = match stamps {
            None => None,
            Some(stamps) => {
                let ticks = read::<u64>(device, queue, &stamps.resolved, 0, 2);
                let ticks = pollster::block_on(ticks)?;
                let [begin, end] = ticks[..] else {
                    anyhow::bail!("two timestamps were asked for");
                };
                Some(end.saturating_sub(begin) as f64 * stamps.period)
            }
        };
        Ok(Elapsed { wall, stamps })
    }

    /// What of a submission counts.
    pub fn seconds(&self, elapsed: Elapsed) -> f64 {
        match self {
            Clock::Wall => elapsed.wall,
            Clock::Timestamps(_) => elapsed.stamps.unwrap_or(0.0),
        }
    }

    /// The clock to use, given a long submission by both, and why it is the wall clock where there are
    /// timestamps.
    pub fn trusted(self, long: Elapsed) -> Result<(Self, Option<String>)> {
        if matches!(self, Clock::Wall) {
            return Ok((self, None));
        }
        let stamps = long.stamps.context("no timestamps came back")?;
        if agree(long.wall, stamps) {
            return Ok((self, None));
        }
        let why = format!(
            "its timestamps say {:.3} ms of a submission that took {:.3} ms: the wall clock is used",
            1e3 * stamps,
            1e3 * long.wall
        );
        Ok((Clock::Wall, Some(why)))
    }
}

fn agree(wall: f64, stamps: f64) -> bool {
    (stamps / wall - 1.0).abs() <= TOLERANCE
}

impl Elapsed {
    /// By the wall clock, in seconds.
    pub fn wall(self) -> f64 {
        self.wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_not_trusted() {
        assert!(agree(0.2, 0.199) && agree(0.2, 0.205));
        for stamps in [0.0, 0.18, 0.22, 2e5, f64::NAN] {
            assert!(!agree(0.2, stamps), "{stamps}");
        }
    }
}
