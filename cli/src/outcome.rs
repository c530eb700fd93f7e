//! What a command has to say, and how it ends. Commands build one; only `main` prints it.

use std::{
    fmt::Display,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

/// Refused: a mistake in a document, a token that does not pass, a request that is turned away.
pub const EXIT_REFUSED: u8 = 1;
/// `EX_USAGE` of sysexits.h.
pub const EXIT_USAGE: u8 = 64;
/// `EX_NOINPUT`: a file cannot be read, or holds something else.
pub const EXIT_INPUT: u8 = 66;

/// The output of one command.
#[derive(Debug, Default)]
pub struct Outcome {
    stdout: Vec<u8>,
    stderr: String,
    code: u8,
}

impl Outcome {
    /// Adds a line for stdout.
    pub fn say(&mut self, line: impl Display) {
        self.stdout.extend_from_slice(format!("{line}\n").as_bytes());
    }

    /// Adds bytes for stdout, just as they are.
    pub fn put(&mut self, bytes: &[u8]) {
        self.stdout.extend_from_slice(bytes);
    }

    /// Adds a line for stderr; the exit code stays.
    pub fn warn(&mut self, line: impl Display) {
        self.stderr.push_str(&format!("{line}\n"));
    }

    /// Adds a line for stderr and makes `code` the exit code, unless an earlier failure was worse.
    pub fn fail(&mut self, code: u8, line: impl Display) {
        self.warn(line);
        self.code = self.code.max(code);
    }

    /// An outcome that is this failure alone.
    pub fn failed(code: u8, line: impl Display) -> Self {
        let mut outcome = Self::default();
        outcome.fail(code, line);
        outcome
    }

    /// Writes it all and gives the exit code.
    pub fn print(self) -> ExitCode {
        let written = io::stdout()
            .write_all(&self.stdout)
            .and_then(|()| io::stderr().write_all(self.stderr.as_bytes()));
        match written {
            // A reader that went away (`gatehouse lint … | head -1`) is not our failure.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
            Ok(()) | Err(_) => ExitCode::from(self.code),
        }
    }
}

/// Reads a text file; the error is the line to print.
pub fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map_err(|error| format!("{}: cannot be read: {error}", path.display()))
}
