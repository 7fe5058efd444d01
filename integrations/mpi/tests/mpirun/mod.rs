//! Programs that start themselves as several ranks.

use std::ffi::OsStr;
use std::process::Command;

/// Set where this program is a rank.
const RANK: &str = "BCNORM_MPI_RANK";

/// Whether this program is a rank.
pub fn is_rank() -> bool {
    std::env::var_os(RANK).is_some()
}

/// This program as `ranks` ranks.
pub fn mpirun(ranks: usize) -> Command {
    mpirun_program(
        ranks,
        std::env::current_exe().expect("the path of this program"),
    )
}

/// A program as `ranks` ranks, with as many on a machine as there are. The variables are for Open MPI, others pass over them.
pub fn mpirun_program(ranks: usize, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("mpirun");
    command
        .args(["-n", &ranks.to_string()])
        .arg(program)
        .env(RANK, "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
    command
}
