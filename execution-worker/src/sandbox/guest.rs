//! The process whose end is the run's, and what goes in and out of it. Knows neither how it was made nor when it must end.

use std::{io, process::ExitStatus, time::Duration};

use gatehouse_execution::outcome::Captured;
use tokio::{
    io::AsyncWriteExt,
    process::{ChildStderr, ChildStdin, ChildStdout},
    task::JoinHandle,
    time::timeout,
};

use super::{Job, runtime};
use crate::{
    capture,
    live::Say,
    process::{Adopted, Started},
};

/// How long the pipes may stay open after the engine has ended.
const PIPES: Duration = Duration::from_secs(2);

/// The three pipes of an agent, our ends.
#[derive(Debug)]
pub struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

/// A process, and its streams once they flow.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    pipes: Pipes,
}

#[derive(Debug)]
enum Process {
    /// The engine's, which lives as long as its sandbox.
    Engine(Started),
    /// The sandbox's own, whose maker has ended.
    Sandbox(Adopted),
}

/// What flows while a run goes on.
#[derive(Debug)]
pub struct Streams {
    feed: JoinHandle<()>,
    stdout: Option<JoinHandle<Captured>>,
    stderr: Option<JoinHandle<Captured>>,
}

// === impl Pipes ===

impl Pipes {
    /// Those of `child`.
    pub fn of(child: &mut Started) -> Self {
        Self { stdin: child.stdin.take(), stdout: child.stdout.take(), stderr: child.stderr.take() }
    }
}

// === impl Guest ===

impl Guest {
    /// In an engine that stays.
    pub fn of_engine(mut child: Started) -> Self {
        let pipes = Pipes::of(&mut child);
        Self { process: Process::Engine(child), pipes }
    }

    /// In a sandbox whose maker has ended.
    pub const fn of_sandbox(process: Adopted, pipes: Pipes) -> Self {
        Self { process: Process::Sandbox(process), pipes }
    }

    /// Lets input and output flow; `log` hears standard error. Once.
    pub fn flow(&mut self, job: &Job<'_>, log: Option<Say>) -> Streams {
        let input = job.input.to_string();
        let stdin = self.pipes.stdin.take();
        let feed = tokio::spawn(async move {
            if let Some(mut stdin) = stdin {
                // An agent that does not read its input is no failure.
                drop(stdin.write_all(input.as_bytes()).await);
            }
        });
        let stdout = self.pipes.stdout.take();
        let stderr = self.pipes.stderr.take();
        let (output_bytes, log_bytes) = (job.limits.output_bytes, job.limits.log_bytes);
        Streams {
            feed,
            stdout: stdout.map(|pipe| tokio::spawn(capture::tail(pipe, output_bytes))),
            stderr: stderr.map(|pipe| tokio::spawn(capture::told(pipe, log_bytes, log))),
        }
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.process {
            Process::Engine(child) => child.wait().await,
            Process::Sandbox(process) => process.wait().await,
        }
    }

    /// Whether it lives.
    pub fn is_alive(&mut self) -> bool {
        match &mut self.process {
            Process::Engine(child) => matches!(child.try_wait(), Ok(None)),
            Process::Sandbox(process) => matches!(process.try_wait(), Ok(None)),
        }
    }

    /// The engine's process, where it stays.
    pub fn engine(&self) -> Option<u32> {
        match &self.process {
            Process::Engine(child) => child.id(),
            Process::Sandbox(_) => None,
        }
    }

    /// SIGKILL to the engine and what it started. A sandbox's own process is its control group's.
    pub fn kill_engine(&self) {
        if let Process::Engine(child) = &self.process {
            runtime::kill_group_of(child);
        }
    }
}

// === impl Streams ===

impl Streams {
    /// Standard output and standard error, after the guest's end.
    pub async fn finish(self) -> (Captured, Captured) {
        self.feed.abort();
        (finish(self.stdout).await, finish(self.stderr).await)
    }
}

/// What was captured; a pipe that something still holds open gives nothing.
async fn finish(reader: Option<JoinHandle<Captured>>) -> Captured {
    let Some(reader) = reader else { return Captured::default() };
    let abort = reader.abort_handle();
    match timeout(PIPES, reader).await {
        Ok(Ok(captured)) => captured,
        Ok(Err(_)) | Err(_) => {
            abort.abort();
            Captured::default()
        }
    }
}
