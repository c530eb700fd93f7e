//! `cargo xtask wasm`.

use std::process::ExitCode;

/// The options of `cargo xtask wasm`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it.
pub fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not written yet")
}
