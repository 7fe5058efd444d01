//! Batch statistics of several ranks, as `torch.nn.SyncBatchNorm` has them: each rank has a device of its own and its
//! share of the batch, and what they gather by is the caller's (MPI, say).

use super::{Bindings, PreparedPlan, device, transfer};
use crate::Role;
use crate::error::Error;

/// Submits a plan that was made with a `world_size`. Where it exchanges
/// ([`Plan::all_gather_before`](crate::Plan::all_gather_before)), this waits for the device, as [`transfer::read`] does,
/// gives `all_gather` this rank's entries and takes those of all ranks, in order of rank; they are of one length on all
/// ranks, those with an empty share too. A plan that does not exchange is submitted whole.
///
/// # Errors
/// Those of [`PreparedPlan::bind`]; [`Error::Length`] where `all_gather` returns no whole number of ranks or too few;
/// those of [`transfer::read`].
pub async fn submit(
    prepared: &PreparedPlan,
    queue: &wgpu::Queue,
    bindings: &Bindings,
    all_gather: impl FnOnce(Vec<u32>) -> Vec<u32>,
) -> Result<(), Error> {
    let (plan, device) = (prepared.plan(), prepared.owner.device());
    let bound = prepared.bind(bindings)?;
    let submit = |steps| {
        transfer::submit(device, queue, "a plan", |encoder| {
            bound.encode_steps(&mut encoder.begin_compute_pass(&Default::default()), steps);
            Ok(())
        })
    };
    let Some(exchange) = plan.all_gather_before() else {
        return submit(0..plan.steps().len());
    };
    submit(0..exchange)?;
    let (own, gathered) = EXCHANGED
        .into_iter()
        .find_map(|(own, gathered)| Some((plan.need(own)?, gathered)))
        .expect("a plan that exchanges has a table of what");
    let (table, offset) = bindings.buffer(own.role)?;
    let len = own.bytes as usize / 4;
    let entries = transfer::read(device, queue, table, offset, len).await?;
    let all = all_gather(entries);
    // A plan of an empty share may read none of them.
    if let Some(need) = plan.need(gathered) {
        let expected = need.bytes as usize / 4;
        if all.len() != expected {
            return Err(Error::Length {
                what: "the entries gathered from all ranks, in words of 32 bits".into(),
                found: all.len(),
                expected,
            });
        }
        let (table, offset) = bindings.buffer(gathered)?;
        device::guarded(device, "the gathered entries", || {
            queue.write_buffer(table, offset, bytemuck::cast_slice(&all));
            Ok(())
        })?;
    }
    submit(exchange..plan.steps().len())
}

/// What a plan gathers of each rank, and where it reads it.
const EXCHANGED: [(Role, Role); 2] = [
    (Role::ChannelMoments, Role::GatheredMoments),
    (Role::GradientSums, Role::GatheredGradients),
];
