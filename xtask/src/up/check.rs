//! `cargo xtask up --check`.

use std::process::ExitCode;

use crate::stack::instance::Instance;

/// Runs it.
pub fn run(_instance: &Instance) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not written yet")
}
