//! Programs of ranks, whose errors end the whole job.

use mpi::Threading;
use mpi::topology::SimpleCommunicator;
use mpi::traits::Communicator;
use std::fmt::Display;
use std::process::ExitCode;

/// What the job ends with where a rank fails.
const FAILED: i32 = 1;

/// Initializes MPI, runs `job` with the communicator of all ranks, and finalizes MPI. Any thread of a rank may call
/// MPI, one at a time (`MPI_THREAD_SERIALIZED`): frameworks compute in threads of their own.
///
/// Where one rank fails, the others would wait in their next exchange for good. So an error that `job` returns, and a panic in any
/// thread, is printed with the rank, and ends all ranks of the job (`MPI_Abort`). A rank that is killed ends them by
/// `mpirun`'s own doing.
///
/// ```no_run
/// # use std::process::ExitCode;
/// fn main() -> ExitCode {
///     bcnorm_mpi::run(|world| {
///         use mpi::traits::Communicator;
///         println!("rank {} of {}", world.rank(), world.size());
///         Ok::<(), std::io::Error>(())
///     })
/// }
/// ```
pub fn run<E: Display>(job: impl FnOnce(&SimpleCommunicator) -> Result<(), E>) -> ExitCode {
    let Some((universe, provided)) = mpi::initialize_with_threading(Threading::Serialized) else {
        eprintln!("error: MPI is initialized already: let `bcnorm_mpi::run` do that, once");
        return ExitCode::FAILURE;
    };
    let world = universe.world();
    if provided < Threading::Serialized {
        end(format!(
            "this MPI lets only {provided:?} threads call it: use one that was built with threads"
        ));
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        end("it panicked");
    }));
    if let Err(error) = job(&world) {
        end(error);
    }
    ExitCode::SUCCESS
}

fn end(what: impl Display) -> ! {
    let world = SimpleCommunicator::world();
    let (rank, size) = (world.rank(), world.size());
    eprintln!("error: rank {rank} of {size} ends the job: {what}");
    world.abort(FAILED)
}
