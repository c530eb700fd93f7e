//! What runs agents, as the rest of the worker sees it: one trait, and behind it the drivers that the configuration
//! names. A driver may be anywhere: it is given the name of an image, and nothing here is a path or a process.
//! Knows neither PostgreSQL nor Redis.

pub mod choice;
pub mod local;
mod open;
pub mod sim;
mod warm;

use std::{error::Error as StdError, fmt, pin::Pin};

use gatehouse_contract::TenantId;
use gatehouse_execution::{ImageRef, Limits, egress::Hosts, outcome::Run, sandbox::SandboxId};
use serde_json::Value;
use tokio::sync::watch;

use crate::{egress::Asked, image, live::Say};

pub use choice::Choice;
pub use open::open;

/// One attempt of one execution.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// Names the attempt: what the driver makes is called so.
    pub id: SandboxId,
    /// Whose image it is.
    pub tenant: TenantId,
    /// The image, within the tenant's prefix.
    pub image: &'a ImageRef,
    /// What the agent reads.
    pub input: &'a Value,
    /// What it may use.
    pub limits: &'a Limits,
    /// What it may ask outside; nothing is no network.
    pub egress: &'a Hosts,
    /// What is run of the image where that is not what it starts with: a program and its arguments.
    pub command: Option<&'a [String]>,
}

/// Whether a run shall end before its time. Only ever becomes more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// No.
    No,
    /// SIGTERM, then the grace period, then SIGKILL: its caller has cancelled it.
    Gently,
    /// SIGKILL: another may begin to run the same execution.
    AtOnce,
}

/// What a run tells while it goes on. Each at most once, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The agent has been started: its time begins.
    Started,
    /// [`Limits::warn_after`] has passed (RES-001).
    TimeRunsOut,
}

/// How a run is stopped, and who hears of it.
#[derive(Clone)]
pub struct Watch<'a> {
    /// A sender that is gone asks for nothing any more.
    pub stop: watch::Receiver<Stop>,
    /// Must not block.
    pub tell: &'a (dyn Fn(Notice) + Send + Sync),
    /// Who hears what it logs, while it does.
    pub log: Option<Say>,
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image is missing, changed, unsupported, or its start line cannot be used.
    #[error("{0}")]
    Image(String),
    /// The image cannot be had now. Later it may be.
    #[error("{0}")]
    ImageAway(String),
    /// There is no room for another run on this machine: nothing more should be taken.
    #[error("no room for another run: {0}")]
    Full(String),
    /// This driver does not run agents of this tenant.
    #[error("the tenant is none of this worker's demo tenants")]
    NotADemo,
    /// It may ask hosts, and this worker cannot let it.
    #[error("this worker gives agents no network")]
    NoEgress,
    /// Something of ours failed; the agent was not at fault.
    #[error("the sandbox could not be made")]
    Broken(#[source] Box<dyn StdError + Send + Sync>),
}

/// A run that goes on. Do not drop it before its end: that leaves its parts to the next sweep.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<Run, Error>> + Send + 'a>>;

/// Something that takes a moment.
pub type Done<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// How runs began, for the metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Starts {
    /// Sandboxes that wait for a run now.
    pub prepared: usize,
    /// Runs in one of those.
    pub warm: u64,
    /// Runs that were not, by why.
    pub cold: Vec<(&'static str, u64)>,
}

/// Runs agents.
///
/// What every driver keeps, held by the conformance suite (`execution-worker/tests/worker/conformance.rs`): a run ends by
/// itself, at its time limit, or within [`Limits::grace`] and a second of being stopped; each end has its reason;
/// output is bounded and counted; the input arrives byte by byte; nothing of a run is left when its future is done.
pub trait Driver: fmt::Debug + Send + Sync + 'static {
    /// Its name in the configuration.
    fn name(&self) -> &'static str;

    /// The version of what it runs agents with, as that says it.
    fn runtime(&self) -> String;

    /// Runs `task` to its end.
    fn run<'a>(&'a self, task: Task<'a>, watch: Watch<'a>) -> Running<'a>;

    /// Sets a sandbox aside that was made in advance for the tenant, image and limits of `task`, and lives; says its name,
    /// under which the task's run goes on whatever becomes of it. The task must be run or released. None where there is no
    /// such sandbox.
    fn set_aside(&self, _task: &Task<'_>) -> Option<SandboxId> {
        None
    }

    /// Removes what was set aside for the task `id`, if anything: it will not be run.
    fn release(&self, _id: SandboxId) -> Done<'_> {
        Box::pin(std::future::ready(()))
    }

    /// Makes nothing in advance any more, and removes what was made and waits. Runs go on, and may begin.
    fn drain(&self) -> Done<'_> {
        Box::pin(std::future::ready(()))
    }

    /// What runs that have ended asked outside, where they may.
    fn asked(&self) -> Option<Asked> {
        None
    }

    /// What was done for the images of runs, where this machine keeps them.
    fn images(&self) -> Option<image::Told> {
        None
    }

    /// How runs began, where sandboxes are made in advance.
    fn starts(&self) -> Option<Starts> {
        None
    }

    /// Whether another run may begin, else why not (`Err`): asked before work is taken.
    fn admits(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Lets go of what the driver holds as long as the worker lives. No run may go on.
    fn close(&self) {}
}

// === impl Stop ===

/// Ends when `stop` asks for at least `urgency`; never where nobody can ask any more.
pub async fn asked(stop: &mut watch::Receiver<Stop>, urgency: Stop) {
    if stop.wait_for(|asked| *asked >= urgency).await.is_err() {
        std::future::pending().await
    }
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("stop", &self.stop).finish_non_exhaustive()
    }
}
