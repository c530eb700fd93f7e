//! The program behind `cargo xtask bench ratelimit`. Parses the command line and nothing else.

use std::process::ExitCode;

use clap::Parser;
use gatehouse_tests::bench::ratelimit;

fn main() -> ExitCode {
    match ratelimit::run(&ratelimit::Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-ratelimit: {error:#}");
            ExitCode::FAILURE
        }
    }
}
