//! A driver that runs nothing: what would have happened stands in the execution's input. For tests and benches of
//! everything around a driver, ten thousands of runs in one worker. Keeps what the trait promises, on tokio's clock; and
//! writes down which runs began and ended, beside everything that the worker tells the database.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use gatehouse_execution::{
    EndReason,
    outcome::{EXIT_RETRY, Exit, Run},
    sandbox::SandboxId,
};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{Driver, Error, Notice, Running, Stop, Task, Watch, asked};

/// Runs by script.
#[derive(Debug, Default)]
pub struct Sim {
    journal: Option<File>,
}

/// The part of the input that says what happens; of a command, its first word. Input that says nothing completes at once.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Script {
    /// How long the agent works, in milliseconds.
    ms: u64,
    /// How it ends; `timeout` works for ever.
    end: Option<EndReason>,
    /// Whether SIGTERM changes nothing.
    ignores_term: bool,
    /// How much is written to standard output before the result.
    noise_bytes: u64,
}

impl Sim {
    /// One that appends to the file at `path` a line when a run begins and one when it ends: the word (`began` and `ended`, of
    /// a hook `hook` and `hooked`), the execution or the hook's run, and the epoch of its claim. Each is one write, so that a worker that is killed leaves whole lines.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn recording(path: &Path) -> io::Result<Self> {
        let journal = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { journal: Some(journal) })
    }

    fn record(&self, what: &str, id: SandboxId) -> Result<(), Error> {
        let Some(mut journal) = self.journal.as_ref() else { return Ok(()) };
        let line = format!("{what} {} {}\n", id.execution, id.epoch);
        journal.write_all(line.as_bytes()).map_err(|error| Error::Broken(Box::new(error)))
    }

    async fn recorded(&self, task: Task<'_>, watch: Watch<'_>) -> Result<Run, Error> {
        // A hook's run is a part of its attempt, and no run of an agent.
        let words = if task.command.is_some() { ["hook", "hooked"] } else { ["began", "ended"] };
        let [began, ended] = words;
        self.record(began, task.id)?;
        let run = Self::pretend(task, watch).await?;
        self.record(ended, task.id)?;
        Ok(run)
    }

    async fn pretend(task: Task<'_>, mut watch: Watch<'_>) -> Result<Run, Error> {
        let script = match task.command {
            Some(line) => line.first().and_then(|text| serde_json::from_str(text).ok()),
            None => Script::deserialize(task.input).ok(),
        };
        let script = script.unwrap_or_default();
        let end = script.end.unwrap_or(EndReason::Completed);
        if end == EndReason::ImageError {
            return Err(Error::Image("the script has no image".to_owned()));
        }
        let limits = task.limits;
        if end == EndReason::SandboxError {
            return Ok(Run::ended(Exit::Sandbox));
        }
        (watch.tell)(Notice::Started);
        let began = Instant::now();
        let limit = began + limits.timeout;
        let done = match end {
            EndReason::Timeout => None,
            _ => Some(began + Duration::from_millis(script.ms)),
        };
        let works = async |done: Option<Instant>| match done {
            Some(done) => sleep_until(done).await,
            None => std::future::pending().await,
        };
        let mut urgent = watch.stop.clone();
        let asked_to_end = async {
            tokio::select! {
                () = asked(&mut watch.stop, Stop::Gently) => Exit::Cancelled,
                () = sleep_until(limit) => Exit::TimeLimit,
            }
        };
        let warn = async {
            sleep_until(began + limits.warn_after()).await;
            (watch.tell)(Notice::TimeRunsOut);
            std::future::pending::<()>().await;
        };
        let exit = tokio::select! {
            biased;
            () = works(done) => return Ok(ended(end, &script, task)),
            () = warn => Exit::Sandbox,
            exit = asked_to_end => exit,
        };
        if script.ignores_term {
            tokio::select! {
                () = works(done) => {}
                () = asked(&mut urgent, Stop::AtOnce) => {}
                () = tokio::time::sleep(limits.grace) => {}
            }
        }
        Ok(Run::ended(exit))
    }
}

fn ended(end: EndReason, script: &Script, task: Task<'_>) -> Run {
    let mut ended = Run::ended(match end {
        EndReason::Completed | EndReason::OutputInvalid => Exit::Agent(0),
        EndReason::RetryAsked => Exit::Agent(EXIT_RETRY),
        EndReason::OomKilled => Exit::Agent(137),
        _ => Exit::Agent(1),
    });
    ended.disk_full = end == EndReason::DiskFull;
    ended.usage.oom_kills = u64::from(end == EndReason::OomKilled);
    ended.usage.pids_refused = u64::from(end == EndReason::Pids);
    let text = if end == EndReason::OutputInvalid {
        b"no json\n".to_vec()
    } else {
        let read = task.input.to_string().len();
        format!("{}\n", json!({"stdin_bytes": read, "file_bytes": read})).into_bytes()
    };
    ended.stdout.total_bytes = script.noise_bytes + text.len() as u64;
    let most = task.limits.output_bytes;
    let noise = usize::try_from(script.noise_bytes).unwrap_or(usize::MAX);
    ended.stdout.bytes = vec![b'\n'; noise.min(most.saturating_sub(text.len()))];
    ended.stdout.bytes.extend(text);
    ended
}

impl Driver for Sim {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn runtime(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn run<'a>(&'a self, task: Task<'a>, watch: Watch<'a>) -> Running<'a> {
        Box::pin(self.recorded(task, watch))
    }
}
