//! A sample agent: litres and fuel type to kg CO2e.
//!
//! The agent protocol: input as JSON on standard input (or in `/run/agent/input.json`), the result as one JSON
//! line on standard output, logs on standard error, exit code 1 for an input that cannot be calculated.
//! Knows nothing of Gatehouse beyond that.

mod calculation;

use std::{
    fs,
    io::{self, Read, Write},
    process::ExitCode,
};

use calculation::Invalid;
use serde_json::Value;

const INPUT_FILE: &str = "/run/agent/input.json";
const MAX_INPUT_BYTES: u64 = 64 << 10;

fn main() -> ExitCode {
    eprintln!("fuel-emissions {} starts", env!("CARGO_PKG_VERSION"));
    match run() {
        Ok(line) => match writeln!(io::stdout(), "{line}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("cannot write the result: {error}");
                ExitCode::FAILURE
            }
        },
        Err(Invalid(cause)) => {
            eprintln!("{cause}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, Invalid> {
    let text = input().map_err(|error| Invalid(format!("cannot read the input: {error}")))?;
    if text.len() as u64 > MAX_INPUT_BYTES {
        return Err(Invalid(format!("the input is larger than {MAX_INPUT_BYTES} bytes")));
    }
    let input: Value = serde_json::from_str(&text)
        .map_err(|error| Invalid(format!("the input is not JSON: {error}")))?;
    let mut result = calculation::calculate(&input)?;
    // Shows where the calculation ran: in gVisor this is the sandbox's own kernel.
    let kernel = fs::read_to_string("/proc/version").unwrap_or_else(|error| error.to_string());
    let kernel = kernel.lines().next().unwrap_or_default();
    result.insert("kernel".to_owned(), Value::from(kernel));
    Ok(Value::Object(result).to_string())
}

fn input() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().take(MAX_INPUT_BYTES + 1).read_to_string(&mut text)?;
    if !text.trim().is_empty() {
        return Ok(text);
    }
    fs::File::open(INPUT_FILE)?.take(MAX_INPUT_BYTES + 1).read_to_string(&mut text)?;
    Ok(text)
}
