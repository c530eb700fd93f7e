//! The program behind `cargo xtask bench edge`. Parses the command line and nothing else.

use std::process::ExitCode;

use clap::Parser;
use gatehouse_tests::bench::edge;

fn main() -> ExitCode {
    match edge::run(&edge::Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-edge: {error:#}");
            ExitCode::FAILURE
        }
    }
}
