//! `gatehouse-fuzz`: runs the targets for as long as it is told (`cargo xtask fuzz`). Parses arguments and prints.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use gatehouse_fuzz::{Bound, TARGETS, Target, run};

#[derive(Parser)]
#[command(name = "gatehouse-fuzz", about = "Runs the fuzz targets over mutations of their seeds")]
struct Args {
    /// Seconds for each target
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The number that makes the inputs; another one makes others
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Only this target
    target: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let asked = |target: &&Target| args.target.as_deref().is_none_or(|name| name == target.name);
    let targets: Vec<_> = TARGETS.iter().filter(asked).collect();
    if targets.is_empty() {
        let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("there is no such target; known: {}", known.join(", "));
        return ExitCode::from(64);
    }
    let mut code = ExitCode::SUCCESS;
    println!("{:<16} {:>12} {:>12}", "target", "inputs", "accepted");
    for target in targets {
        match run(target, Bound::Time(Duration::from_secs(args.seconds)), args.start) {
            Ok(report) => {
                println!("{:<16} {:>12} {:>12}", target.name, report.inputs, report.accepted);
            }
            Err(error) => {
                eprintln!("{error:#}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
