//! The program behind `cargo xtask bench chaos`: the faults of the chaos test again and again, each time at other
//! moments, with a table of every run. Parses the command line and nothing else.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use gatehouse_tests::chaos::{CASES, play};
use gatehouse_xtask::command;

/// What to run.
#[derive(Debug, Parser)]
#[command(name = "bench-chaos", about = "Run it as `cargo xtask bench chaos`")]
struct Options {
    /// Only cases whose name contains this.
    figure: Option<String>,
    /// Each case three times instead of twenty.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<bool> {
    command::catch_signals()?;
    let wanted = |name: &str| options.figure.as_ref().is_none_or(|part| name.contains(part));
    let (mut played, mut broken) = (0, 0);
    for seed in 1..=if options.quick { 3 } else { 20 } {
        for case in CASES.iter().filter(|case| wanted(case.name)) {
            if command::interrupted() {
                anyhow::bail!("interrupted");
            }
            let line = play(case, seed, Duration::from_secs(2))?;
            println!("{line}");
            played += 1;
            broken += usize::from(!line.broken.is_empty());
        }
    }
    anyhow::ensure!(played > 0, "no case of this name");
    println!("{played} runs, {broken} broken");
    Ok(broken == 0)
}
