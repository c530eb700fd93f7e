//! A real process of a test: its output in a file, its end in good order or by force, whatever the test does.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use crate::wait;

/// How much of a log a failure shows.
const TAIL_LINES: usize = 40;

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with its output in `<dir>/<name>.log`.
    pub fn start(name: &str, dir: &Path, mut command: Command) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        let err = out.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Waits until `ready` says so; fails at once when the process ends first.
    pub fn wait_ready(&mut self, mut ready: impl FnMut() -> bool) -> Result<()> {
        let what = format!("{} is ready", self.name);
        let ended = wait::until(&what, wait::START, || {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(Some(status)));
            }
            Ok(ready().then_some(None))
        });
        match ended {
            Ok(None) => Ok(()),
            Ok(Some(status)) => bail!("{} ended with {status}:\n{}", self.name, self.tail()),
            Err(error) => Err(error.context(self.tail())),
        }
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(TAIL_LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, such as the one that stops it until it is told to go on.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no id")?;
        rustix::process::kill_process(id, signal)
            .with_context(|| format!("sending {signal:?} to {}", self.name))
    }

    /// Ends it at once (SIGKILL), as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        self.child.wait().with_context(|| format!("waiting for {}", self.name))?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let id = self.child.id().to_string();
        // The shell's own: a minimal Debian has no program of this name.
        Command::new("sh").args(["-c", "kill -TERM $0", &id]).status().context("running kill")?;
        wait::until(&format!("{} ends", self.name), Duration::from_secs(15), || {
            Ok(self.child.try_wait()?)
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A destructor has nobody to tell: the process is gone one way or the other.
        if self.stop().is_err() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
