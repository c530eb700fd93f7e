//! `cargo xtask test --fresh`.

use std::process::ExitCode;

/// Runs it.
pub fn run() -> anyhow::Result<ExitCode> {
    anyhow::bail!("not written yet")
}
