//! One run on this machine: bundle, control group, an engine's process in the foreground, and everything gone again
//! afterwards, however it ended. Knows neither PostgreSQL nor Redis nor images: it is given a root file system.
//!
//! runsc's traps that shape this file (measured): it joins a group that exists and leaves it; its exit code does
//! not tell an out-of-memory kill; a stopped sandbox blocks every runsc command for ever, so that the end is
//! always brought about by SIGKILL to the group's processes and never by asking runsc.

mod bundle;
mod engine;
mod guest;
pub mod pool;
mod prepared;
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
    egress::Hosts,
    oci::Start,
    outcome::{Exit, Run},
    sandbox::{self, SandboxId},
};
use serde_json::Value;
use tokio::{
    process::Command,
    time::{Instant, timeout},
};
use tracing::warn;

use crate::{
    cgroup,
    driver::{self, Watch},
    egress::{Asked, Egress, Network, Session},
    left::Left,
    process::Started,
    state_dir::StateDir,
};
use bundle::Bundle;
use guest::{Guest, Streams};

pub(crate) use bundle::DOCUMENT;
pub use engine::{Engine, Entry};
pub use prepared::{Fallback, Prepared};
pub use runtime::{Runtime, Stamp, Unusable};
pub use sweep::Swept;

/// How long killed processes may take to be gone, and the kernel to let go of their group.
const DEATH: Duration = Duration::from_secs(5);
/// How long the engine may take to end after its sandbox has been killed.
const ENGINE_END: Duration = Duration::from_secs(3);
/// How long to wait for the engine before its sandbox is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
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
    /// It may ask hosts, and there is no way to the outside here.
    #[error("this worker gives agents no network")]
    NoEgress,
    /// The bundle, its mounts, its network, or the engine's process.
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
    /// What it may ask; nothing is no network.
    pub egress: &'a Hosts,
    /// Until when its agent must have been started.
    pub start_until: Instant,
}

/// What a sandbox is made of before it is known what its agent reads.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Names the sandbox, its group and its bundle.
    pub id: SandboxId,
    /// The image's start line.
    pub start: &'a Start,
    /// The image's files.
    pub rootfs: &'a Path,
    /// What it may use.
    pub limits: &'a Limits,
    /// Whether it has a network.
    pub networked: bool,
}

/// Where a sandbox is: all of it on this machine that is not a process.
#[derive(Debug)]
struct Place {
    name: String,
    group: cgroup::Group,
    bundle: Bundle,
    network: Option<Network>,
}

/// Runs agents with an engine.
#[derive(Debug)]
pub struct Sandboxes {
    engine: Engine,
    groups: cgroup::Groups,
    bundles: PathBuf,
    left: Left,
    egress: Option<Egress>,
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
        Ok(Self {
            engine,
            groups,
            bundles: state.bundles(),
            left: Left::new(state.left()),
            egress: None,
        })
    }

    /// Opens a way to the outside for the runs to come, or closes it.
    pub fn set_egress(&mut self, egress: Option<Egress>) {
        self.egress = egress;
    }

    /// What runs have asked outside, where they may.
    pub fn asked(&self) -> Option<Asked> {
        self.egress.as_ref().map(Egress::asked)
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
        let place = self.make(&job.plan()).await?;
        let ran = match self.open(&job, &place) {
            Ok(session) => {
                let mut ran = self.in_place(&job, &place, watch).await;
                close(session, ran.as_mut().ok()).await;
                ran
            }
            Err(error) => Err(error),
        };
        self.clear(place).await.and(ran)
    }

    /// The control group and the bundle of `plan`. On an error nothing is left.
    async fn make(&self, plan: &Plan<'_>) -> Result<Place, Error> {
        let name = plan.id.to_string();
        let network = match (plan.networked, &self.egress) {
            (false, _) => None,
            (true, None) => return Err(Error::NoEgress),
            (true, Some(_)) => Some(Network::make().await.map_err(io_error("making a network"))?),
        };
        let group = self.groups.create(&name, &self.limits_of(plan.limits))?;
        let egress = network.as_ref().map(Network::environment);
        let made = Bundle::create(&self.bundles, plan, &group.runtime_path(), egress.as_deref());
        match made {
            Ok(bundle) => Ok(Place { name, group, bundle, network }),
            Err(error) => {
                self.ungroup(&name, group).await;
                Err(error)
            }
        }
    }

    /// Ends what still runs in `place`, and removes everything.
    async fn clear(&self, place: Place) -> Result<(), Error> {
        // The network goes with its last process and the last of these.
        let Place { name, group, bundle, network: _network } = place;
        // Also where the engine has ended by itself: nothing may survive its run.
        let dead = group.kill(DEATH).await;
        self.engine.children().reap();
        self.engine.forget(&name);
        let gone = bundle.remove();
        self.ungroup(&name, group).await;
        dead?;
        gone
    }

    /// Opens the way to the outside, where `job` has one.
    fn open(&self, job: &Job<'_>, place: &Place) -> Result<Option<Session>, Error> {
        let (Some(egress), Some(network)) = (&self.egress, &place.network) else { return Ok(None) };
        let opened = egress.open(network, job.id, job.egress, job.limits.egress_requests);
        opened.map(Some).map_err(io_error("opening the way to the outside"))
    }

    async fn ungroup(&self, name: &str, group: cgroup::Group) {
        if let Err(error) = group.remove(DEATH).await {
            warn!(sandbox = name, error = %error, "left a control group to the next sweep");
        }
    }

    /// gVisor keeps the limit of processes itself, the machine's kernel by the group.
    const fn limits_of(&self, limits: &Limits) -> Limits {
        let limits = *limits;
        match self.engine {
            Engine::Runsc(_) => limits,
            Engine::Process(_) => Limits { host_pids: limits.processes, ..limits },
        }
    }

    async fn in_place(
        &self,
        job: &Job<'_>,
        place: &Place,
        mut watch: Watch<'_>,
    ) -> Result<Run, Error> {
        place.bundle.put_input(job.input)?;
        let mut guest = Guest::of_engine(self.start(place)?);
        let streams = guest.flow(job, watch.log.take());
        let ended = match watched::until_started(&mut guest, job, &mut watch, &self.engine).await {
            None => watched::to_its_end(&mut guest, job, watch, &self.engine).await,
            Some(ended) => ended,
        };
        self.judged(job, place, guest, (streams, ended)).await
    }

    /// What the run was that ended so. Its place is still there.
    async fn judged(
        &self,
        job: &Job<'_>,
        place: &Place,
        mut guest: Guest,
        (streams, ended): (Streams, watched::Ended),
    ) -> Result<Run, Error> {
        let exit = match ended {
            watched::Ended::ByItself(status) => {
                let status = status.map_err(io_error("waiting for the engine"))?;
                match status.code() {
                    Some(ENGINE_FAILED) => place.bundle.why_the_engine_failed(),
                    Some(code) => Exit::Agent(code),
                    // A signal: the agent's own, where its process is the engine's.
                    None => self.signalled(&status),
                }
            }
            watched::Ended::ByUs(exit) => {
                self.end(&mut guest, &place.group).await?;
                exit
            }
        };
        // The counters go with the group, the files with the bundle.
        let usage = place.group.usage();
        let (disk_full, scratch_bytes) = (place.bundle.is_full(), place.bundle.scratch_bytes());
        let result_file = place.bundle.result(job.limits.output_bytes)?;
        let (stdout, stderr) = streams.finish().await;
        let egress_denied = None;
        Ok(Run {
            exit,
            usage,
            disk_full,
            scratch_bytes,
            egress_denied,
            result_file,
            stdout,
            stderr,
        })
    }

    fn signalled(&self, status: &std::process::ExitStatus) -> Exit {
        match (&self.engine, status.signal()) {
            (Engine::Process(_), Some(signal)) => Exit::Agent(128 + signal),
            // Something outside killed runsc.
            (Engine::Process(_), None) | (Engine::Runsc(_), _) => Exit::Sandbox,
        }
    }

    fn start(&self, place: &Place) -> Result<Started, Error> {
        let (bundle, tasks) = (&place.bundle, place.group.tasks());
        let (paths, network) = ((bundle.path(), &*bundle.log()), place.network.as_ref());
        let command = self.engine.command(&place.name, paths, &tasks, network);
        self.spawn(command).map_err(io_error("starting the engine"))
    }

    fn spawn(&self, command: std::process::Command) -> io::Result<Started> {
        let mut command = Command::from(command);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        self.engine.children().spawn(&mut command)
    }

    /// Ends what runs. The agent's processes first: runsc then sees that they are gone and cleans up by itself.
    /// Again and again, since it may still be starting some.
    async fn end(&self, guest: &mut Guest, group: &cgroup::Group) -> Result<(), Error> {
        let until = tokio::time::Instant::now() + ENGINE_END;
        while tokio::time::Instant::now() < until {
            group.kill(DEATH).await?;
            if timeout(LOOK_AGAIN, guest.wait()).await.is_ok() {
                return Ok(());
            }
        }
        guest.kill_engine();
        let failed = io_error("waiting for a killed engine");
        match timeout(DEATH, guest.wait()).await {
            Ok(ended) => ended.map(drop).map_err(failed),
            Err(elapsed) => Err(failed(elapsed.into())),
        }
    }
}

// === impl Job ===

impl<'a> Job<'a> {
    /// The part that does not depend on what the agent reads.
    pub fn plan(&self) -> Plan<'a> {
        Plan {
            id: self.id,
            start: self.start,
            rootfs: self.rootfs,
            limits: self.limits,
            networked: !self.egress.is_empty(),
        }
    }
}

/// Closes the way to the outside, and notes what `run` asked.
async fn close(session: Option<Session>, run: Option<&mut Run>) {
    let Some(session) = session else { return };
    let asked = session.end().await;
    if let Some(run) = run {
        run.usage.egress_requests = asked.requests;
        run.usage.tokens = asked.tokens;
        run.egress_denied = asked.denied;
    }
}
