//! What a command has to say, and how it ends: for people in lines, for programs as one JSON object.
//! Commands build one; only `main` prints it.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Read, Write},
    path::Path,
    process::ExitCode,
};

use anstream::{AutoStream, adapter::strip_str};
use serde_json::{Map, Value, json};

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
    facts: Map<String, Value>,
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

    /// Adds a member to what programs read.
    pub fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// Writes it all and gives the exit code. As JSON, what a command has said in the lines of stderr are `messages`;
    /// output that is data itself (a schema, a payload) stays as it is.
    pub fn print(self, json: bool) -> ExitCode {
        let code = ExitCode::from(self.code);
        let (stdout, stderr) = if json && (self.code != 0 || !self.facts.is_empty()) {
            (format!("{:#}\n", self.object()).into_bytes(), String::new())
        } else {
            (self.stdout, self.stderr)
        };
        // Colours for terminals only, and never against NO_COLOR. What is data is written past that.
        let written = match std::str::from_utf8(&stdout) {
            Ok(text) if text.contains(ESCAPE) => {
                AutoStream::auto(io::stdout()).write_all(text.as_bytes())
            }
            _ => io::stdout().write_all(&stdout),
        };
        let written =
            written.and_then(|()| AutoStream::auto(io::stderr()).write_all(stderr.as_bytes()));
        match written {
            // A reader that went away (`gatehouse lint … | head -1`) is not our failure.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
            Ok(()) | Err(_) => code,
        }
    }

    fn object(&self) -> Value {
        let mut facts = self.facts.clone();
        facts.insert("exit".to_owned(), json!(self.code));
        let plain = strip_str(&self.stderr).to_string();
        facts.insert("messages".to_owned(), plain.lines().collect());
        Value::Object(facts)
    }
}

const ESCAPE: char = '\u{1b}';

/// What to call a file in messages.
pub fn name(path: &Path) -> String {
    if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() }
}

/// Standard input, whose bytes a person may be expected to type.
pub fn stdin(what: &str) -> io::StdinLock<'static> {
    if io::stdin().is_terminal() {
        // It is for the person at the terminal and now, and no part of what the command says. Unread, it is lost.
        let _unread =
            writeln!(io::stderr(), "reading {what} from the terminal; end it with Ctrl-D");
    }
    io::stdin().lock()
}

/// Reads a text file, or stdin for `-`; the error is the line to print.
pub fn read(path: &Path) -> Result<String, String> {
    if path == Path::new("-") {
        let mut text = String::new();
        return match stdin("the file").read_to_string(&mut text) {
            Ok(_) => Ok(text),
            Err(error) => Err(format!("stdin: cannot be read: {error}")),
        };
    }
    if path.is_dir() {
        let path = path.display();
        return Err(format!("{path}: is a folder; name the files in it, such as {path}/*.yaml"));
    }
    std::fs::read_to_string(path)
        .map_err(|error| format!("{}: cannot be read: {error}", path.display()))
}
