//! `cargo xtask codegen`.

use std::process::ExitCode;

/// The options of `cargo xtask codegen`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it.
pub fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not written yet")
}
