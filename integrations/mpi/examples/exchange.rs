//! What the exchange costs: a training step of a SyncNorm against one of a Norm, which exchanges nothing, on the same share.
//!
//!     cargo xtask mpi --bench
#![allow(missing_docs)]

#[path = "../tests/mpirun/mod.rs"]
mod mpirun;

use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::{Norm, NormDesc, Tensor};
use bcnorm_mpi::{Error, SyncNorm};
use mpi::collective::SystemOperation;
use mpi::traits::{Communicator, CommunicatorCollectives};
use mpirun::{is_rank, mpirun};
use pollster::block_on;
use std::process::ExitCode;
use std::time::Instant;

const ROUNDS: usize = 15;

fn main() -> ExitCode {
    if is_rank() {
        return rank();
    }
    for ranks in [1, 2, 4] {
        let status = mpirun(ranks).status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("error: mpirun -n {ranks} failed");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn rank() -> ExitCode {
    bcnorm_mpi::run(|world| {
        let gpu = block_on(Gpu::new(DeviceLimits::Default))?;
        let pipelines = Pipelines::new(&gpu.device);
        let first = world.rank() == 0;
        if first {
            println!("{} ranks, each on {}", world.size(), gpu.describe());
            println!(
                "BCNorm, forward and backward, milliseconds (medians of {ROUNDS}, the slowest rank's)"
            );
            println!("share of a rank      alone   with exchange   exchange");
        }
        for dims in [[2, 64, 14, 14], [2, 64, 56, 56], [2, 512, 7, 7]] {
            let desc = NormDesc::bc_norm(dims[1], 8);
            let values = vec![0.5; dims.iter().product()];
            let x = Tensor::from_slice(&gpu.device, &dims, &values)?;
            let mut alone = Norm::new(&pipelines, desc)?;
            let mut sync = SyncNorm::new(&pipelines, desc, world)?;
            let mut times = [Vec::new(), Vec::new()];
            for round in 0..=ROUNDS {
                for (way, times) in times.iter_mut().enumerate() {
                    world.barrier();
                    let begin = Instant::now();
                    let grad_x = if way == 0 {
                        let (y, saved) = alone.forward(&gpu.queue, &x)?;
                        alone.backward(&gpu.queue, saved, &y)?.x
                    } else {
                        let (y, saved) = sync.forward(&gpu.queue, &x, None)?;
                        sync.backward(&gpu.queue, saved, &y)?.0
                    };
                    block_on(grad_x.read(&gpu.device, &gpu.queue))?;
                    let own = begin.elapsed().as_secs_f64() * 1e3;
                    let mut slowest = 0.0;
                    world.all_reduce_into(&own, &mut slowest, SystemOperation::max());
                    // The first round compiles.
                    if round > 0 {
                        times.push(slowest);
                    }
                }
            }
            let [alone, sync] = times.map(|mut times: Vec<f64>| {
                times.sort_by(f64::total_cmp);
                times[ROUNDS / 2]
            });
            if first {
                let share = format!("{dims:?}");
                println!("{share:18} {alone:7.2} {sync:15.2} {:10.2}", sync - alone);
            }
        }
        Ok::<(), Error>(())
    })
}
