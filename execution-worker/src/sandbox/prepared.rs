//! Sandboxes that are made before it is known what runs in them: kernel, group, mounts and limits are there, and no
//! instruction of the image has been executed. Each is for one run. Knows neither whose it is nor how many there are.
//!
//! `runsc create` makes one and ends; its kernel's process is then an orphan and our child, whose exit code is the
//! agent's. `runsc start` starts the image's own start line: what the agent finds is what it finds in a cold run.

use std::{fs, io, time::Duration};

use gatehouse_execution::{
    outcome::{Run, Usage},
    sandbox::SandboxId,
};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{
    Engine, Error, Job, Place, Plan, Sandboxes, close,
    guest::{Guest, Pipes},
    io_error,
    runtime::{self, Stamp},
    watched,
};
use crate::driver::Watch;

/// How long runsc may take to make a sandbox: a hundred times what it takes.
const CREATE: Duration = Duration::from_secs(10);
/// The process id of the sandbox's kernel, within the bundle.
const PID: &str = "pid";

/// A sandbox in which nothing has run.
#[derive(Debug)]
pub struct Prepared {
    id: SandboxId,
    place: Place,
    guest: Guest,
    stamp: Stamp,
}

/// Why a prepared sandbox was not used. The run is made from the beginning, and nothing of it is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fallback {
    /// None was there.
    Missing,
    /// It died while it waited.
    Died,
    /// The image's files or runsc are not those that it was made with.
    Stale,
    /// It did not start.
    NotStarted,
}

impl Fallback {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Missing, Self::Died, Self::Stale, Self::NotStarted];

    /// As metrics and logs call it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Died => "died",
            Self::Stale => "stale",
            Self::NotStarted => "not_started",
        }
    }
}

// === impl Prepared ===

impl Prepared {
    /// Its name, for ever: of the one run, too.
    pub const fn id(&self) -> SandboxId {
        self.id
    }

    /// Why it cannot be used (now, by the runsc that `stamp` names), where it cannot.
    pub fn fault(&mut self, stamp: Option<Stamp>) -> Option<Fallback> {
        if stamp != Some(self.stamp) {
            return Some(Fallback::Stale);
        }
        (!self.guest.is_alive()).then_some(Fallback::Died)
    }

    /// What it holds of the machine's memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.place.group.usage().memory_peak_bytes
    }
}

// === impl Sandboxes ===

impl Sandboxes {
    /// Which runsc makes sandboxes in advance; none where the engine cannot.
    pub fn stamp(&self) -> Option<Stamp> {
        match &self.engine {
            Engine::Runsc(runtime) => runtime.stamp(),
            Engine::Process(_) => None,
        }
    }

    /// Makes a sandbox without starting anything in it. On an error nothing is left.
    pub async fn prepare(&self, plan: &Plan<'_>) -> Result<Prepared, Error> {
        let unable = || io_error("making a sandbox in advance");
        let Some(stamp) = self.stamp() else {
            return Err(unable()(io::ErrorKind::Unsupported.into()));
        };
        let place = self.make(plan).await?;
        match self.create(&place).await {
            Ok(guest) => Ok(Prepared { id: plan.id, place, guest, stamp }),
            Err(error) => {
                self.clear(place).await?;
                Err(unable()(error))
            }
        }
    }

    async fn create(&self, place: &Place) -> io::Result<Guest> {
        let Engine::Runsc(runtime) = &self.engine else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let pid_file = place.bundle.path().join(PID);
        let (bundle, log) = (place.bundle.path(), place.bundle.log());
        let (paths, network) = ((bundle, &*log, &*pid_file), place.network.as_ref());
        let mut maker = self.spawn(runtime.create(&place.name, paths, network))?;
        let pipes = Pipes::of(&mut maker);
        let Ok(status) = timeout(CREATE, maker.wait()).await else {
            runtime::kill_group_of(&maker);
            return Err(io::ErrorKind::TimedOut.into());
        };
        let status = status?;
        if !status.success() {
            return Err(io::Error::other(status.to_string()));
        }
        let pid = fs::read_to_string(&pid_file)?;
        let pid = pid.trim().parse().map_err(|_| io::Error::other("no process id"))?;
        let process = self.engine.children().adopt(pid)?;
        // One that died at once may have left its number to another.
        if !place.group.holds(pid) {
            return Err(io::Error::other("it died"));
        }
        Ok(Guest::of_sandbox(process, pipes))
    }

    /// As [`Sandboxes::run`], in `prepared`, which is gone afterwards. `Err` within `Ok` where nothing was run: then the
    /// agent has not been seen to start, and the same job may be run from the beginning under the same id.
    pub async fn run_prepared(
        &self,
        prepared: Prepared,
        job: Job<'_>,
        watch: Watch<'_>,
    ) -> Result<Result<Run, Fallback>, Error> {
        let Prepared { id, place, mut guest, .. } = prepared;
        debug_assert_eq!(id, job.id, "a run has the name of its sandbox");
        let ran = if guest.is_alive() {
            self.opened(&job, &place, guest, watch).await
        } else {
            Ok(Err(Fallback::Died))
        };
        self.clear(place).await.and(ran)
    }

    async fn opened(
        &self,
        job: &Job<'_>,
        place: &Place,
        guest: Guest,
        watch: Watch<'_>,
    ) -> Result<Result<Run, Fallback>, Error> {
        let session = self.open(job, place)?;
        let mut ran = self.in_prepared(job, place, guest, watch).await;
        close(session, ran.as_mut().ok().and_then(|ran| ran.as_mut().ok())).await;
        ran
    }

    async fn in_prepared(
        &self,
        job: &Job<'_>,
        place: &Place,
        mut guest: Guest,
        mut watch: Watch<'_>,
    ) -> Result<Result<Run, Fallback>, Error> {
        let Engine::Runsc(runtime) = &self.engine else { return Ok(Err(Fallback::NotStarted)) };
        place.bundle.put_input(job.input)?;
        let before = place.group.usage();
        let streams = guest.flow(job, watch.log.take());
        let log = place.bundle.log();
        let start = runtime.start(&place.name, &log, place.network.as_ref());
        let ended = match watched::until(job, &mut watch, start).await {
            Ok(Ok(())) => watched::to_its_end(&mut guest, job, watch, &self.engine).await,
            Ok(Err(cause)) => {
                warn!(sandbox = place.name, cause, "a prepared sandbox did not start");
                return Ok(Err(Fallback::NotStarted));
            }
            Err(ended) => ended,
        };
        let run = self.judged(job, place, guest, (streams, ended)).await?;
        Ok(Ok(Run { usage: since(before, run.usage), ..run }))
    }

    /// Removes `prepared`, unused.
    pub async fn discard(&self, prepared: Prepared) {
        let Prepared { place, .. } = prepared;
        debug!(sandbox = place.name, "removes a prepared sandbox");
        if let Err(error) = self.clear(place).await {
            warn!(error = %error, "left a prepared sandbox to the next sweep");
        }
    }
}

/// What the run used: what making its sandbox took is not its own. The peak of memory is the whole sandbox's, whenever
/// it was made.
const fn since(before: Usage, mut usage: Usage) -> Usage {
    usage.cpu_us = usage.cpu_us.saturating_sub(before.cpu_us);
    usage.oom_kills = usage.oom_kills.saturating_sub(before.oom_kills);
    usage.pids_refused = usage.pids_refused.saturating_sub(before.pids_refused);
    usage
}
