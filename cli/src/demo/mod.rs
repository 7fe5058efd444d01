//! Placeholder.

/// Arguments of `bcnorm demo`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs it.
pub fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("not there yet")
}
