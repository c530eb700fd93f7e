//! The program behind `cargo xtask bench execution`. Parses the command line and nothing else.

use std::process::ExitCode;

use clap::Parser;
use gatehouse_tests::bench::execution;

fn main() -> ExitCode {
    match execution::run(&execution::Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-execution: {error:#}");
            ExitCode::FAILURE
        }
    }
}
