//! The program behind `cargo xtask bench revocation`. Parses the command line and nothing else.

use std::process::ExitCode;

use clap::Parser;
use gatehouse_tests::bench::revocation;

fn main() -> ExitCode {
    match revocation::run(&revocation::Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-revocation: {error:#}");
            ExitCode::FAILURE
        }
    }
}
