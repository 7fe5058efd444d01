//! Several ranks of an MPI job, each on a device of its own with its share of every batch. Batch statistics are those of all
//! ranks, and gradients are averaged, so that all of them have the same network after every step.

use crate::args::Usage;
use crate::network::{Network, read};
use burn::module::{Module as _, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use std::process::ExitCode;

/// One rank among those of a job.
#[derive(Debug, Clone, Copy)]
pub struct Ranks {
    /// Which one this is.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Which one this is among those on the same machine.
    pub on_machine: usize,
}

impl Ranks {
    /// A process of its own.
    pub const ALONE: Self = Self {
        rank: 0,
        size: 1,
        on_machine: 0,
    };

    /// Whether this is the one that writes and prints.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// Puts the mean over all ranks into each of the values. Collective.
    pub fn average(&self, values: &mut [f32]) {
        if self.size > 1 {
            mpi::sum(values);
            let size = self.size as f32;
            values.iter_mut().for_each(|value| *value /= size);
        }
    }

    /// Whether any rank says so. Collective.
    pub fn any(&self, this: bool) -> bool {
        let mut share = [f32::from(u8::from(this))];
        self.average(&mut share);
        share[0] > 0.0
    }

    /// The mean over all ranks of the gradients of a network's parameters. Collective.
    pub fn averaged(
        &self,
        network: &Network,
        mut gradients: GradientsParams,
        device: &Device,
    ) -> GradientsParams {
        if self.size == 1 {
            return gradients;
        }
        // All of them at once: one wait for the device, one exchange.
        let mut taken = Taken {
            gradients: &mut gradients,
            params: Vec::new(),
            flat: Vec::new(),
        };
        network.visit(&mut taken);
        let Taken { params, flat, .. } = taken;
        let mut values = read(Tensor::cat(flat, 0));
        self.average(&mut values);
        let len = values.len();
        let values = Tensor::<1>::from_data(TensorData::new(values, [len]), device);
        network.visit(&mut Given {
            gradients: &mut gradients,
            params,
            values,
            begin: 0,
        });
        gradients
    }

    /// Makes the batch statistics of a device's norms those of all ranks.
    pub fn synchronize(&self, device: &Device) {
        if self.size > 1 {
            mpi::synchronize(device, *self);
        }
    }
}

/// Takes the gradients out, flat.
struct Taken<'a> {
    gradients: &'a mut GradientsParams,
    params: Vec<ParamId>,
    flat: Vec<Tensor<1>>,
}

impl ModuleVisitor for Taken<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.params.push(param.id);
            self.flat.push(gradient.flatten(0, D - 1));
        }
    }
}

/// Puts others in for those that were taken.
struct Given<'a> {
    gradients: &'a mut GradientsParams,
    params: Vec<ParamId>,
    values: Tensor<1>,
    begin: usize,
}

impl ModuleVisitor for Given<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.params.contains(&param.id) {
            let shape = param.val().dims();
            let end = self.begin + shape.iter().product::<usize>();
            let values = self.values.clone().slice(self.begin..end);
            self.gradients.register(param.id, values.reshape(shape));
            self.begin = end;
        }
    }
}

pub use mpi::run;

/// How a process of its own ends.
fn end(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
    })
}

#[cfg(feature = "mpi")]
mod mpi {
    use super::{Ranks, end};
    use bcnorm_burn::AllGather;
    use burn::tensor::Device;
    use mpi::collective::SystemOperation;
    use mpi::topology::SimpleCommunicator;
    use mpi::traits::{Communicator, CommunicatorCollectives};
    use std::num::NonZero;
    use std::process::ExitCode;

    /// Runs `job` as a rank: an error ends all ranks of several.
    pub fn run(job: impl FnOnce(Ranks) -> anyhow::Result<ExitCode>) -> ExitCode {
        let mut code = ExitCode::SUCCESS;
        let ended = bcnorm_mpi::run(|world| {
            let ranks = Ranks {
                rank: world.rank() as usize,
                size: world.size() as usize,
                on_machine: world.split_shared(world.rank()).rank() as usize,
            };
            match job(ranks) {
                Err(error) if ranks.size > 1 => Err(format!("{error:#}")),
                result => {
                    code = end(result);
                    Ok(())
                }
            }
        });
        if ended == ExitCode::SUCCESS {
            code
        } else {
            ended
        }
    }

    /// Puts the sum over all ranks into each of the values.
    pub fn sum(values: &mut [f32]) {
        let own = values.to_vec();
        let world = SimpleCommunicator::world();
        world.all_reduce_into(&own[..], values, SystemOperation::sum());
    }

    pub fn synchronize(device: &Device, ranks: Ranks) {
        bcnorm_burn::synchronize(device, ranks);
    }

    impl AllGather for Ranks {
        fn world_size(&self) -> NonZero<u32> {
            NonZero::new(self.size as u32).unwrap_or(NonZero::<u32>::MIN)
        }

        fn all_gather(&self, own: Vec<u32>) -> Vec<u32> {
            let mut all = vec![0; own.len() * self.size];
            SimpleCommunicator::world().all_gather_into(&own[..], &mut all[..]);
            all
        }
    }
}

/// Without MPI there is one rank.
#[cfg(not(feature = "mpi"))]
mod mpi {
    use super::{Ranks, end};
    use burn::tensor::Device;
    use std::process::ExitCode;

    pub fn run(job: impl FnOnce(Ranks) -> anyhow::Result<ExitCode>) -> ExitCode {
        end(job(Ranks::ALONE))
    }

    pub fn sum(_: &mut [f32]) {}

    pub fn synchronize(_: &Device, _: Ranks) {}
}
