//! Says what is being done, step by step, each with its time; and how a command fails: one line per fault,
//! each naming the cause and the mend. Knows nothing of what the steps do.
//!
//! Progress goes to stderr, so that what a command prints for use (endpoints, tables) stands alone on stdout.

use std::{
    fmt,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// The exit codes, after sysexits(3): scripts tell a bad document from a part that is away.
pub mod exit {
    /// The command line or a document is wrong.
    pub const USAGE: u8 = 64;
    /// A part is missing, does not start, or its port is taken.
    pub const UNAVAILABLE: u8 = 69;
    /// Nothing can be written: the disk is full or read-only.
    pub const CANT_WRITE: u8 = 73;
    /// Ctrl-C.
    pub const INTERRUPTED: u8 = 130;
}

/// Why a command cannot go on: one line per fault.
#[derive(Debug)]
pub struct Faults {
    /// Each is `cause; mend`.
    pub lines: Vec<String>,
    /// The process's exit code.
    pub exit: u8,
}

impl Faults {
    /// A single fault.
    pub fn one(exit: u8, line: impl Into<String>) -> Self {
        Self { lines: vec![line.into()], exit }
    }

    /// The end that Ctrl-C asks for.
    pub fn interrupted() -> Self {
        Self::one(exit::INTERRUPTED, "stopped by a signal; run it again to go on")
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for Faults {}

/// Prints `error` to stderr, one line per fault, and returns the exit code that goes with it.
pub fn complain(error: &anyhow::Error) -> u8 {
    // A full disk shows up in the middle of anything: it is named as such wherever it happened.
    if let Some(line) = disk_full(error) {
        eprintln!("xtask: {line}");
        return exit::CANT_WRITE;
    }
    match error.downcast_ref::<Faults>() {
        Some(faults) => {
            for line in &faults.lines {
                eprintln!("xtask: {line}");
            }
            faults.exit
        }
        None => {
            eprintln!("xtask: {error:#}");
            1
        }
    }
}

fn disk_full(error: &anyhow::Error) -> Option<String> {
    let full = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull)
            // Programs that we run can only say it.
            || cause.to_string().contains("No space left on device")
    });
    full.then(|| {
        let what = error.to_string();
        let what = what.lines().next().unwrap_or_default().trim_end_matches(':');
        format!("the disk is full ({what}); free some space, or set GATEHOUSE_HOME to a directory on another disk")
    })
}

/// The progress of a command.
#[derive(Debug)]
pub struct Report {
    quiet: bool,
    colour: bool,
    total: usize,
    done: usize,
    began: Instant,
}

impl Report {
    /// Progress on stderr.
    pub fn new() -> Self {
        Self { quiet: false, ..Self::quiet() }
    }

    /// No progress: for tests, which start stacks of their own.
    pub fn quiet() -> Self {
        Self {
            quiet: true,
            colour: colours(&std::io::stderr()),
            total: 0,
            done: 0,
            began: Instant::now(),
        }
    }

    /// Announces `count` more steps, so that the total is right before they begin.
    pub fn expect(&mut self, count: usize) {
        self.total += count;
    }

    /// Time since the first step.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Does `work` as one step. What `work` writes into its argument is shown beside the time.
    pub fn step<T>(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut String) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.done += 1;
        self.total = self.total.max(self.done);
        let width = self.total.to_string().len().max(2);
        self.say(format_args!("[{:>width$}/{:>width$}] {name} … ", self.done, self.total));
        let began = Instant::now();
        let mut note = String::new();
        let result = work(&mut note);
        if !note.is_empty() {
            note.push_str(", ");
        }
        let took = seconds(began.elapsed());
        match &result {
            Ok(_) => self.say(format_args!("{note}{}\n", self.paint(GREEN, &took))),
            Err(_) => self.say(format_args!("{} after {took}\n", self.paint(RED, "failed"))),
        }
        result
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        paint(self.colour, colour, text)
    }

    fn say(&self, what: fmt::Arguments<'_>) {
        if !self.quiet {
            let mut stderr = std::io::stderr().lock();
            // A closed stderr is no reason to stop the work.
            drop(stderr.write_fmt(what).and_then(|()| stderr.flush()));
        }
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

/// ANSI codes of the few colours in use.
pub const GREEN: &str = "32";
/// For what is broken.
pub const RED: &str = "31";
/// For headings.
pub const BOLD: &str = "1";

/// Whether to colour what goes to `stream` (no-color.org).
pub fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `text` in `colour`, if colours are on.
pub fn paint(on: bool, colour: &str, text: &str) -> String {
    if on { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// A duration for people.
pub fn seconds(time: Duration) -> String {
    let s = time.as_secs_f64();
    if s < 100.0 {
        format!("{s:.1} s")
    } else {
        format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (ms, expected) in [(40, "0.0 s"), (4_120, "4.1 s"), (185_000, "3 min 5 s")] {
            assert_eq!(seconds(Duration::from_millis(ms)), expected);
        }
    }

    #[test]
    fn a_full_disk_is_named_wherever_it_happened() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = anyhow::Error::new(full).context("writing x");
        assert!(disk_full(&error).unwrap().contains("writing x"));
        assert!(disk_full(&anyhow::anyhow!("else")).is_none());
    }
}
