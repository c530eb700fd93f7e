//! Starts the long-running processes of an instance: each marked, recorded, in a group of its own, with its
//! log in a file, and waits until it is ready. Knows nothing of what they are.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::process::Signal;
use serde_json::Value;

use super::record::{MARK, Process, Run};
use crate::{
    command::{ending, interrupted, last_lines},
    report::{Faults, exit},
};

/// A process of the instance.
#[derive(Debug)]
pub struct Part {
    /// What people call it.
    pub title: &'static str,
    process: Process,
    child: Child,
    stop: Signal,
    mend: &'static str,
    log: PathBuf,
}

/// How a part is started.
pub struct Start<'a> {
    /// What people call it.
    pub title: &'static str,
    /// The log's name.
    pub log: &'a str,
    /// What asks it to end in good order.
    pub stop: Signal,
    /// What a person does when it does not start.
    pub mend: &'static str,
    /// The program.
    pub command: Command,
}

impl Part {
    /// Starts it.
    pub fn start(run: &Run, start: Start<'_>) -> anyhow::Result<Self> {
        let Start { title, log, stop, mend, mut command } = start;
        let log = run.dir().join("log").join(format!("{log}.log"));
        let out = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let also = out.try_clone().context("sharing the log file")?;
        let child = command
            .env(MARK, run.dir())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(also)
            .process_group(0)
            .spawn()
            .map_err(|error| {
                let program = command.get_program().to_string_lossy();
                let line = format!(
                    "{title} cannot be started ({error}); check that {program} can be run here"
                );
                Faults::one(exit::UNAVAILABLE, line)
            })?;
        let process = Process::of(title, child.id());
        let mut part = match process {
            Ok(process) => Self { title, process, child, stop, mend, log },
            Err(_) => {
                // It ended at once: its log says why.
                let mut child = child;
                let status = child.wait().with_context(|| format!("waiting for {title}"))?;
                return Err(died(title, mend, &log, &ending(status)));
            }
        };
        if let Err(error) = run.note(&part.process) {
            // Unrecorded it would outlive a crash of ours.
            part.stop();
            return Err(error);
        }
        Ok(part)
    }

    /// Waits until `ready` says so. Fails when the process ends first, `limit` passes, or Ctrl-C comes.
    pub fn wait_ready(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + limit;
        let mut pause = Duration::from_millis(5);
        loop {
            // The order matters: a stranger on the same port must not pass for a process that has ended.
            if let Some(status) = self.child.try_wait()? {
                return Err(died(self.title, self.mend, &self.log, &ending(status)));
            }
            if ready() && self.child.try_wait()?.is_none() {
                return Ok(());
            }
            if interrupted() {
                return Err(Faults::interrupted().into());
            }
            if Instant::now() >= until {
                let why = format!("not ready within {} s", limit.as_secs());
                return Err(died(self.title, self.mend, &self.log, &why));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its end, if it has ended: what `up` shows when a part dies on its own.
    pub fn ended(&mut self) -> Option<anyhow::Error> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(died(self.title, self.mend, &self.log, &ending(status)))
    }

    /// Asks it to end, without waiting.
    pub fn ask_to_stop(&self) {
        self.process.signal(self.stop);
    }

    /// Ends it: in good order within 15 s, else by force.
    pub fn stop(&mut self) {
        self.ask_to_stop();
        let until = Instant::now() + Duration::from_secs(15);
        while self.runs() {
            if Instant::now() >= until {
                self.process.signal(Signal::KILL);
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Reaps it; an error means that it is reaped already.
        drop(self.child.wait());
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

fn died(title: &str, mend: &str, log: &Path, how: &str) -> anyhow::Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    let words = telling(&text);
    let line =
        format!("{title} does not run ({how}): {words}; {mend}; its log is {}", log.display());
    // A full disk is told apart by `report::complain`.
    if words.contains("No space left on device") {
        return anyhow::anyhow!(line);
    }
    Faults::one(exit::UNAVAILABLE, line).into()
}

/// The words of a log that most likely say why: the last error, else the last line. Without what stands before the
/// error's mark, which is the time.
fn telling(log: &str) -> String {
    let said = |mark: &str| {
        log.lines().rev().find_map(|line| line.find(mark).and_then(|at| line.get(at..)))
    };
    let words = ["FATAL", "Fatal", "[critical]"]
        .into_iter()
        .find_map(said)
        .map_or_else(|| plain(&last_lines(log, 1)), str::to_owned);
    let words = words.trim_start_matches("# ").trim();
    if words.is_empty() { "it said nothing".to_owned() } else { words.to_owned() }
}

/// The message of a log line in JSON; other lines as they are.
fn plain(line: &str) -> String {
    let record: Value = serde_json::from_str(line).unwrap_or_default();
    match record.get("message").and_then(Value::as_str) {
        Some(message) => message.to_owned(),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_telling_line_is_the_last_error() {
        for (log, expected) in
            [("a\nFATAL: x\nLOG: bye", "FATAL: x"), ("a\nb\n", "b"), ("", "it said nothing")]
        {
            assert_eq!(telling(log), expected);
        }
    }
}
