//! `cargo xtask test`.

use std::process::ExitCode;

/// The options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Prove the two commands of the README in a root that has nothing.
    #[arg(long)]
    pub fresh: bool,
}

/// Runs it.
pub fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not written yet")
}
