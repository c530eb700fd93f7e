//! The program behind `cargo xtask bench control`. Parses the command line and nothing else.

use std::process::ExitCode;

use clap::Parser;
use gatehouse_tests::bench::control;

fn main() -> ExitCode {
    match control::run(&control::Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}
