//! One run on this machine: bundle, control group, an engine's process in the foreground, and everything gone again
//! afterwards, however it ended. Knows neither PostgreSQL nor Redis nor images: it is given a root file system.
//!
//! runsc's traps that shape this file (measured): it joins a group that exists and leaves it; its exit code does
//! not tell an out-of-memory kill; a stopped sandbox blocks every runsc command for ever, so that the end is
//! always brought about by SIGKILL to the group's processes and never by asking runsc.

mod bundle;
mod engine;
mod runtime;
mod sweep;
mod watched;

use std::{
    io,
    os::unix::process::ExitStatusExt,
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
    time::{Instant, timeout},
};
use tracing::warn;

use crate::{
    capture, cgroup,
    driver::{self, Watch},
    process::Started,
    state_dir::StateDir,
};
use bundle::Bundle;

pub(crate) use bundle::DOCUMENT;
pub use engine::{Engine, Entry};
pub use runtime::{Runtime, Unusable};
pub use sweep::Swept;

/// How long killed processes may take to be gone, and the kernel to let go of their group.
const DEATH: Duration = Duration::from_secs(5);
/// How long the engine may take to end after its sandbox has been killed.
const ENGINE_END: Duration = Duration::from_secs(3);
/// How long to wait for the engine before its sandbox is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long the pipes may stay open after the engine has ended.
const PIPES: Duration = Duration::from_secs(2);
/// An engine's exit code for its own failures. An agent can end with it, too: the engine's log decides.
const ENGINE_FAILED: i32 = 128;
/// As much must be free for another run: its bundle and the engine's state and log.
const ROOM_BYTES: u64 = 16 << 20;
/// As many files must be free for another run.
const ROOM_FILES: u64 = 64;

/// Why a run could not be made. Whoever asked may try again: the agent was not at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image's start line.
    #[error(transparent)]
    Start(#[from] sandbox::Error),
    /// The control group.
    #[error(transparent)]
    Group(#[from] cgroup::Error),
    /// The bundle, its mounts, or the engine's process.
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
    /// Until when its agent must have been started.
    pub start_until: Instant,
}

/// Runs agents with an engine.
#[derive(Debug)]
pub struct Sandboxes {
    engine: Engine,
    groups: cgroup::Groups,
    bundles: PathBuf,
}

pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io { what, source }
}

impl Sandboxes {
    /// Sandboxes of the worker that holds `state`, in control groups below `cgroup_root`.
    pub fn new(
        engine: Engine,
        state: &StateDir,
        cgroup_root: &Path,
    ) -> Result<Self, cgroup::Error> {
        let groups = cgroup::Groups::open(cgroup_root, state.worker())?;
        Ok(Self { engine, groups, bundles: state.bundles() })
    }

    /// What makes the processes.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Whether the folder of bundles has room for another run's parts, else [`driver::Error::Full`].
    pub fn has_room(&self) -> Result<(), driver::Error> {
        let stat = rustix::fs::statvfs(&self.bundles)
            .map_err(|error| driver::Error::Broken(io::Error::from(error).into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        // A file system that counts no files has none of them free.
        if free < ROOM_BYTES || (stat.f_files > 0 && stat.f_favail < ROOM_FILES) {
            let place = self.bundles.display();
            let files = stat.f_favail;
            return Err(driver::Error::Full(format!(
                "{place} has {free} bytes and {files} files left; free some"
            )));
        }
        Ok(())
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

    /// Runs `job` to its end: its own, its time limit, or what `watch` asks for (then [`Exit::Cancelled`]). Nothing of
    /// it is left afterwards. Do not drop the future: that leaves a sandbox to the next sweep.
    pub async fn run(&self, job: Job<'_>, watch: Watch<'_>) -> Result<Run, Error> {
        let name = job.id.to_string();
        let group = self.groups.create(&name, &self.limits_of(&job))?;
        let outcome = match Bundle::create(&self.bundles, &job, &group.runtime_path()) {
            Ok(bundle) => {
                let ran = self.in_bundle(&job, &bundle, &group, watch).await;
                // Also where the engine has ended by itself: nothing may survive its run.
                let dead = group.kill(DEATH).await;
                // A process that is not reaped is still there for runsc, which waits for it to be gone.
                self.engine.children().reap();
                self.engine.forget(&name).await;
                let gone = bundle.remove();
                ran.and_then(|run| {
                    dead?;
                    gone.map(|()| run)
                })
            }
            Err(error) => Err(error),
        };
        self.engine.children().reap();
        if let Err(error) = group.remove(DEATH).await {
            warn!(sandbox = name, error = %error, "left a control group to the next sweep");
        }
        outcome
    }

    /// gVisor keeps the limit of processes itself, the machine's kernel by the group.
    const fn limits_of(&self, job: &Job<'_>) -> Limits {
        let limits = *job.limits;
        match self.engine {
            Engine::Runsc(_) => limits,
            Engine::Process(_) => Limits { host_pids: limits.processes, ..limits },
        }
    }

    async fn in_bundle(
        &self,
        job: &Job<'_>,
        bundle: &Bundle,
        group: &cgroup::Group,
        watch: Watch<'_>,
    ) -> Result<Run, Error> {
        let mut child = self.start(job, bundle, group)?;
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
        let exit = match watched::to_its_end(&mut child, job, watch, &self.engine).await {
            watched::Ended::ByItself(status) => {
                let status = status.map_err(io_error("waiting for the engine"))?;
                match status.code() {
                    Some(ENGINE_FAILED) => bundle.why_the_engine_failed(),
                    Some(code) => Exit::Agent(code),
                    // A signal: the agent's own, where its process is the engine's.
                    None => self.signalled(&status),
                }
            }
            watched::Ended::ByUs(exit) => {
                self.end(&mut child, group).await?;
                exit
            }
        };
        // Before the group goes.
        let usage = group.usage();
        feed.abort();
        Ok(Run {
            exit,
            usage,
            disk_full: bundle.is_full(),
            result_file: bundle.result(job.limits.output_bytes)?,
            stdout: finish(stdout).await,
            stderr: finish(stderr).await,
        })
    }

    fn signalled(&self, status: &std::process::ExitStatus) -> Exit {
        match (&self.engine, status.signal()) {
            (Engine::Process(_), Some(signal)) => Exit::Agent(128 + signal),
            // Something outside killed runsc.
            (Engine::Process(_), None) | (Engine::Runsc(_), _) => Exit::Sandbox,
        }
    }

    fn start(
        &self,
        job: &Job<'_>,
        bundle: &Bundle,
        group: &cgroup::Group,
    ) -> Result<Started, Error> {
        let (id, log) = (job.id.to_string(), bundle.log());
        let mut command =
            Command::from(self.engine.command(&id, bundle.path(), &log, &group.tasks()));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        self.engine.children().spawn(&mut command).map_err(io_error("starting the engine"))
    }

    /// Ends what runs. The agent's processes first: runsc then sees that they are gone and cleans up by itself.
    /// Again and again, since it may still be starting some.
    async fn end(&self, child: &mut Child, group: &cgroup::Group) -> Result<(), Error> {
        let until = tokio::time::Instant::now() + ENGINE_END;
        while tokio::time::Instant::now() < until {
            group.kill(DEATH).await?;
            if timeout(LOOK_AGAIN, child.wait()).await.is_ok() {
                return Ok(());
            }
        }
        runtime::kill_group_of(child);
        let failed = io_error("waiting for a killed engine");
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
