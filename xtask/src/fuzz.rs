//! `cargo xtask fuzz`: the fuzz targets for longer than the tests run them. Knows how they are started, not what they
//! look for.

use std::process::ExitCode;

use crate::{command, repo};

/// The options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The number that makes the inputs; another one makes others.
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Only this target (fuzz/src/targets.rs).
    target: Option<String>,
}

/// Runs it. Builds with the checks of development, so that an overflow is seen too.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    command::catch_signals()?;
    let root = repo::root()?;
    let mut cargo = repo::cargo(&root);
    cargo.args(["run", "--quiet", "--package", "gatehouse-fuzz", "--"]);
    cargo.args(["--seconds", &args.seconds.to_string(), "--start", &args.start.to_string()]);
    cargo.args(&args.target);
    let good = cargo.status()?.success();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
