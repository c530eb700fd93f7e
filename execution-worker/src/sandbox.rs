//! One run in one gVisor sandbox: bundle, control group, `runsc run` in the foreground, and everything gone again
//! afterwards, however it ended. Knows neither PostgreSQL nor Redis nor images: it is given a root file system.
//!
//! runsc's traps that shape this file (measured): it joins a group that exists and leaves it; its exit code does
//! not tell an out-of-memory kill; a stopped sandbox blocks every runsc command for ever, so that the end is
//! always brought about by SIGKILL to the group's processes and never by asking runsc.

mod bundle;
mod runtime;
mod sweep;

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use gatehouse_execution::{
    Limits,
    oci::Start,
    outcome::{Captured, Exit, Run},
    sandbox::{self, SandboxId},
};
use serde_json::Value;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::timeout,
};
use tracing::warn;

use crate::{capture, cgroup, process::Started, state_dir::StateDir};
use bundle::Bundle;

pub use runtime::{Runtime, Unusable};
pub use sweep::Swept;

/// How long killed processes may take to be gone, and the kernel to let go of their group.
const DEATH: Duration = Duration::from_secs(5);
/// How long runsc may take to end after its sandbox has been killed.
const RUNSC_END: Duration = Duration::from_secs(3);
/// How long to wait for runsc before its sandbox is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long the pipes may stay open after runsc has ended.
const PIPES: Duration = Duration::from_secs(2);
/// runsc's exit code for its own failures. An agent can end with it, too: the log of runsc decides.
const RUNSC_FAILED: i32 = 128;

/// Why a run could not be made. Whoever asked may try again: the agent was not at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image's start line.
    #[error(transparent)]
    Start(#[from] sandbox::Error),
    /// The control group.
    #[error(transparent)]
    Group(#[from] cgroup::Error),
    /// The bundle, its mount, or runsc's process.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Names the sandbox, its group and its bundle.
    pub id: SandboxId,
    /// The image's start line.
    pub start: &'a Start,
    /// The image's files.
    pub rootfs: &'a Path,
    /// What the agent reads.
    pub input: &'a Value,
    /// What it may use.
    pub limits: &'a Limits,
}

/// Runs agents with runsc.
#[derive(Debug)]
pub struct Sandboxes {
    runtime: Runtime,
    groups: cgroup::Groups,
    bundles: PathBuf,
}

enum Ended {
    Process(io::Result<std::process::ExitStatus>),
    TimeLimit,
    Stopped,
}

pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

impl Sandboxes {
    /// Sandboxes of the worker that holds `state`, in control groups below `cgroup_root`.
    pub fn new(runsc: &Path, state: &StateDir, cgroup_root: &Path) -> Result<Self, cgroup::Error> {
        Ok(Self {
            runtime: Runtime::new(runsc, state.runsc()),
            groups: cgroup::Groups::open(cgroup_root, state.worker())?,
            bundles: state.bundles(),
        })
    }

    /// runsc itself, for the checks at start.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The version of the control groups: 1 or 2.
    pub fn cgroup_version(&self) -> u8 {
        self.groups.version()
    }

    /// Removes the worker's own control group, at its end.
    pub fn close(&self) {
        if let Err(error) = self.groups.close() {
            warn!(error = %error, "left the worker's control group");
        }
    }

    /// Runs `job` to its end: its own, its time limit, or `stop` (then [`Exit::Cancelled`]). Nothing of it is left
    /// afterwards. Do not drop the future: that leaves a sandbox to the next sweep.
    pub async fn run(&self, job: Job<'_>, stop: impl Future<Output = ()>) -> Result<Run, Error> {
        let name = job.id.to_string();
        let group = self.groups.create(&name, job.limits)?;
        let outcome = match Bundle::create(&self.bundles, &job, &group.runtime_path()) {
            Ok(bundle) => {
                let ran = self.in_bundle(&job, &bundle, &group, stop).await;
                // Also where runsc has ended by itself: nothing may survive its run.
                let dead = group.kill(DEATH).await;
                self.runtime.forget(&name).await;
                let gone = bundle.remove();
                ran.and_then(|run| {
                    dead?;
                    gone.map(|()| run)
                })
            }
            Err(error) => Err(error),
        };
        self.runtime.children().reap();
        if let Err(error) = group.remove(DEATH).await {
            warn!(sandbox = name, error = %error, "left a control group to the next sweep");
        }
        outcome
    }

    async fn in_bundle(
        &self,
        job: &Job<'_>,
        bundle: &Bundle,
        group: &cgroup::Group,
        stop: impl Future<Output = ()>,
    ) -> Result<Run, Error> {
        let mut child = self.start(job, bundle)?;
        let input = job.input.to_string();
        let stdin = child.stdin.take();
        let feed = tokio::spawn(async move {
            if let Some(mut stdin) = stdin {
                // An agent that does not read its input is no failure.
                drop(stdin.write_all(input.as_bytes()).await);
            }
        });
        let stdout = child
            .stdout
            .take()
            .map(|pipe| tokio::spawn(capture::tail(pipe, job.limits.output_bytes)));
        let stderr =
            child.stderr.take().map(|pipe| tokio::spawn(capture::tail(pipe, job.limits.log_bytes)));
        let ended = tokio::select! {
            status = child.wait() => Ended::Process(status),
            () = tokio::time::sleep(job.limits.timeout) => Ended::TimeLimit,
            () = stop => Ended::Stopped,
        };
        let exit = match ended {
            Ended::Process(status) => {
                let status = status.map_err(io_error("waiting for runsc"))?;
                match status.code() {
                    Some(RUNSC_FAILED) => bundle.why_runsc_failed(),
                    Some(code) => Exit::Agent(code),
                    // Something outside killed runsc.
                    None => Exit::Sandbox,
                }
            }
            Ended::TimeLimit => Exit::TimeLimit,
            Ended::Stopped => Exit::Cancelled,
        };
        if matches!(exit, Exit::TimeLimit | Exit::Cancelled) {
            self.end(&mut child, group).await?;
        }
        // Before the group goes.
        let usage = group.usage();
        feed.abort();
        Ok(Run {
            exit,
            usage,
            result_file: bundle.result(job.limits.output_bytes)?,
            stdout: finish(stdout).await,
            stderr: finish(stderr).await,
        })
    }

    fn start(&self, job: &Job<'_>, bundle: &Bundle) -> Result<Started, Error> {
        let mut command = Command::from(self.runtime.command(Some(&bundle.runsc_log())));
        command
            .args(["run", "--bundle"])
            .arg(bundle.path())
            .arg(job.id.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        self.runtime.children().spawn(&mut command).map_err(io_error("starting runsc"))
    }

    /// Ends a sandbox that runs. Its processes first: runsc then sees that it is gone and cleans up by itself.
    /// Again and again, since runsc may still be starting some.
    async fn end(&self, child: &mut Child, group: &cgroup::Group) -> Result<(), Error> {
        let until = tokio::time::Instant::now() + RUNSC_END;
        while tokio::time::Instant::now() < until {
            group.kill(DEATH).await?;
            if timeout(LOOK_AGAIN, child.wait()).await.is_ok() {
                return Ok(());
            }
        }
        runtime::kill_group_of(child);
        let failed = io_error("waiting for a killed runsc");
        match timeout(DEATH, child.wait()).await {
            Ok(ended) => ended.map(drop).map_err(failed),
            Err(elapsed) => Err(failed(elapsed.into())),
        }
    }
}

/// What was captured; a pipe that something still holds open gives nothing.
async fn finish(reader: Option<tokio::task::JoinHandle<Captured>>) -> Captured {
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
