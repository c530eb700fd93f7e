//! How a service ends: one line per cause on stderr and an exit code by `sysexits.h`.
//! Knows nothing of logs: these lines are for the person who started the process.

use std::{fmt, process::ExitCode};

/// Bad usage or a configuration with mistakes (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// Something that is needed cannot be had, such as a port (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// Something broke on our side (`EX_SOFTWARE`).
pub const SOFTWARE: u8 = 70;
/// A dependency is set up in a way that the service refuses (`EX_CONFIG`).
pub const REFUSED: u8 = 78;

/// Why the process ends before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The exit code.
    pub code: u8,
    /// One line per cause, each naming the cause and the mend.
    pub lines: Vec<String>,
}

impl Stop {
    /// Mistakes in the configuration or on the command line: one line each.
    pub fn usage(lines: Vec<String>) -> Self {
        Self { code: USAGE, lines }
    }

    /// Something that is needed cannot be had.
    pub fn unavailable(line: impl Into<String>) -> Self {
        Self { code: UNAVAILABLE, lines: vec![line.into()] }
    }

    /// A dependency breaks a rule without which starting would be unsafe.
    pub fn refused(line: impl Into<String>) -> Self {
        Self { code: REFUSED, lines: vec![line.into()] }
    }

    /// A failure that no rule foresaw, with its causes.
    pub fn software(error: &dyn std::error::Error) -> Self {
        Self { code: SOFTWARE, lines: vec![chain(error)] }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for Stop {}

/// An error and its sources on one line, for logs.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.replace(['\n', '\r'], " ")
}

/// Runs a service's `main` on a runtime of its own and turns its end into an exit code. Prints the lines of a
/// [`Stop`] to stderr, each behind `gatehouse-<name>: `.
pub fn run<F>(name: &str, main: F) -> ExitCode
where
    F: Future<Output = Result<(), Stop>>,
{
    run_on(&mut tokio::runtime::Builder::new_multi_thread(), name, main)
}

/// As [`run`], on one thread. What is ready at the same time runs in its order, so that many small answers leave in
/// one write; several threads hand tasks to each other, at a system call each.
pub fn run_on_one<F>(name: &str, main: F) -> ExitCode
where
    F: Future<Output = Result<(), Stop>>,
{
    run_on(&mut tokio::runtime::Builder::new_current_thread(), name, main)
}

fn run_on<F>(runtime: &mut tokio::runtime::Builder, name: &str, main: F) -> ExitCode
where
    F: Future<Output = Result<(), Stop>>,
{
    let ended = match runtime.enable_all().build() {
        Ok(runtime) => {
            let ended = runtime.block_on(main);
            // Bounded: a blocking task that hangs must not keep the process.
            runtime.shutdown_timeout(std::time::Duration::from_secs(2));
            ended
        }
        Err(error) => Err(Stop::unavailable(format!(
            "cannot start a runtime: {error}; check the process's limits on threads and files"
        ))),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            for line in &stop.lines {
                eprintln!("gatehouse-{name}: {line}");
            }
            ExitCode::from(stop.code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_chain_is_one_line_with_every_cause() {
        assert_eq!(chain(&Outer(std::io::Error::other("in\nner"))), "outer: in ner");
    }
}
