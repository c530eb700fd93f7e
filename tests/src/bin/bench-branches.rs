//! The program behind `cargo xtask bench branches`. Parses nothing.

use std::process::ExitCode;

use gatehouse_tests::bench::edge;

fn main() -> ExitCode {
    match edge::branches::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-branches: {error:#}");
            ExitCode::FAILURE
        }
    }
}
