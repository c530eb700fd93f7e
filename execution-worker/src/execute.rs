//! One message of the queue: claim the execution, run it, report its end under the epoch of the claim.
//! PostgreSQL decides at both ends; the message only says where to look.

use std::sync::{Arc, OnceLock};

use gatehouse_contract::TenantId;
use gatehouse_execution::{
    EndReason, Hook, Limits, Record,
    outcome::{Exit, Outcome, Run},
    provenance::Provenance,
    sandbox::SandboxId,
};
use gatehouse_redis_kit::queue;
use gatehouse_service::{Shutdown, exit::chain};
use gatehouse_store::{
    Actor, Error as StoreError, OffsetDateTime, OpCtx, Store,
    attempts::{self, Claimant},
    sweep::Held,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::{
    driver::{self, Driver, Notice, Stop, Task, Watch},
    ghosts::Working,
    hooks::{Busy, owed},
    leases::{Leases, Why},
    live::{self, Live, Say},
    metrics::{self, GivenUp, Metrics},
    output,
    provenance::{self, Ran},
    pulse::Pulse,
    reload::InEffect,
    spool::{Report, Spool},
};

/// What every message needs.
pub struct Shared {
    pub store: Store,
    pub driver: Box<dyn Driver>,
    pub pulse: Pulse,
    pub leases: Leases,
    pub working: Working,
    pub spool: Spool,
    pub busy: Arc<Busy>,
    pub metrics: Metrics,
    pub live: Live,
    /// The configuration, at each moment.
    pub effect: watch::Receiver<InEffect>,
    /// Of this start of the worker.
    pub incarnation: String,
    /// Turns true when runs must end now and go back to the queue.
    pub hand_back: watch::Receiver<bool>,
}

/// Why a run was ended from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The lease is another's: nothing may be reported.
    LeaseLost,
    /// Its caller wants it ended, and is told so under this lease.
    Cancelled,
    /// The worker goes away: the execution goes back, its attempt not counted.
    HandBack,
}

/// A run that is over, and what it left.
pub(crate) struct Ended {
    pub(crate) how: Result<Outcome, Stopped>,
    pub(crate) record: Record,
}

/// What ends a run before its time.
#[derive(Clone, Copy)]
pub(crate) enum Heed<'a> {
    /// Its caller, a lost lease, and the worker's own end.
    All(Held),
    /// The last two: its caller was heard.
    Lease(Held),
    /// There is no lease: a worker that goes away ends it.
    Worker(&'a Shutdown),
}

/// What became of a message.
pub enum Claimed {
    /// It is to be run here.
    Yes(Box<Claim>),
    /// Somebody else's, ended, cancelled, or without a slot: done with it.
    No,
    /// The database is away: leave it to be claimed again.
    NotNow,
}

/// What is to be run, and in whose name.
pub struct Claim {
    op: OpCtx,
    claimed: attempts::Claimed,
    /// The configuration at that moment: this run keeps it.
    effect: InEffect,
    /// The runs of the hooks that it owes.
    owed: Vec<(Hook, Uuid)>,
}

impl Shared {
    /// Claims what a message names.
    pub async fn claim(&self, job: queue::Job) -> Claimed {
        let op = self.op(job.tenant);
        let effect = self.effect.borrow().clone();
        match self.try_claim(&op, job, &effect).await {
            Ok(Some((claimed, owed))) => {
                self.metrics.claimed(metrics::Claim::Made);
                Claimed::Yes(Box::new(Claim { op, claimed, effect, owed }))
            }
            // A message twice is the ordinary case.
            Ok(None) => {
                self.metrics.claimed(metrics::Claim::NotOurs);
                Claimed::No
            }
            Err(error) if error.is_unavailable() => {
                self.metrics.claimed(metrics::Claim::Failed);
                warn!(execution.id = %job.execution, error = %chain(&error), "could not claim");
                Claimed::NotNow
            }
            Err(error) => {
                self.metrics.claimed(metrics::Claim::Failed);
                // The row stays queued: it is offered again, a minute from now.
                error!(execution.id = %job.execution, error = %chain(&error), "could not claim");
                Claimed::No
            }
        }
    }

    /// Runs what was claimed, and reports its end.
    pub async fn run_to_end(self: &Arc<Self>, claim: Claim) {
        let Claim { op, claimed, effect, owed } = claim;
        let _running = self.metrics.running();
        let _owing = self.busy.with(&owed);
        let started = Instant::now();
        let (Ended { how, record }, hooks) = if claimed.hooks.is_empty() {
            (self.run(&op, &claimed, &effect).await, Vec::new())
        } else {
            self.attempt(&op, &claimed, &effect, &owed).await
        };
        let outcome = match how {
            Ok(outcome) => outcome,
            Err(Stopped::Cancelled) => ended(EndReason::Cancelled, "cancelled".to_owned()),
            Err(Stopped::HandBack) => {
                self.record_hooks(&op, &claimed, &hooks).await;
                return self.hand_back(&op, &claimed, &[Hook::OnError]).await;
            }
            Err(Stopped::LeaseLost) => {
                self.record_hooks(&op, &claimed, &hooks).await;
                self.metrics.given_up(GivenUp::LeaseLost);
                warn!(execution.id = %claimed.execution, epoch = claimed.lease_epoch,
                    "ended a run whose lease is lost");
                self.meter_lost(&op, &claimed, &record).await;
                return;
            }
        };
        let record =
            Record { provenance: self.provenance(&op, &claimed, &effect, &outcome), ..record };
        let report = Report {
            tenant: op.tenant,
            execution: claimed.execution,
            lease_epoch: claimed.lease_epoch,
            attempt: claimed.attempt,
            hooks,
            outcome,
            record,
        };
        self.report(report, started).await;
    }

    /// Adds what a run used to the row of its attempt, where whoever took its lease has written that. For the record alone.
    async fn meter_lost(&self, op: &OpCtx, claimed: &attempts::Claimed, record: &Record) {
        let metered = async {
            let mut tx = self.store.tenant(op).await?;
            tx.meter_lost(claimed.execution, claimed.lease_epoch, record).await?;
            tx.commit().await
        };
        if let Err(error) = metered.await {
            warn!(execution.id = %claimed.execution, error = %chain(&error), "could not say what a lost run used");
        }
    }

    /// Where a result came from.
    fn provenance(
        &self,
        op: &OpCtx,
        claimed: &attempts::Claimed,
        effect: &InEffect,
        outcome: &Outcome,
    ) -> Option<Provenance> {
        let runtime = self.driver.runtime();
        let (driver, config_version) = (self.driver.name(), &*effect.version);
        let ran = Ran { driver, runtime: &runtime, config_version };
        provenance::of(op.tenant, claimed, ran, outcome).unwrap_or_else(|error| {
            warn!(execution.id = %claimed.execution, %error, "a result has no provenance");
            None
        })
    }

    /// Gives back what was claimed when the worker was already going away: nothing of it has begun.
    pub async fn hand_over(&self, claim: Claim) {
        self.driver.release(name(&claim.claimed)).await;
        self.hand_back(&claim.op, &claim.claimed, &Hook::OWED).await;
    }

    /// In whose name the worker acts for a tenant.
    pub fn op(&self, tenant: TenantId) -> OpCtx {
        op_of(&self.incarnation, tenant)
    }

    async fn try_claim(
        &self,
        op: &OpCtx,
        job: queue::Job,
        effect: &InEffect,
    ) -> Result<Option<(attempts::Claimed, Vec<(Hook, Uuid)>)>, StoreError> {
        let claimant = Claimant { worker: &self.incarnation, config: Some(&effect.version) };
        let mut tx = self.store.tenant(op).await?;
        let claimed = tx.claim_execution(job.execution, claimant).await?;
        let owed = claimed.as_ref().map(|claimed| owed(&claimed.hooks)).unwrap_or_default();
        if let Some(claimed) = &claimed
            && !owed.is_empty()
        {
            let epoch = claimed.lease_epoch;
            tx.owe_hooks(claimed.execution, epoch, &self.incarnation, &owed).await?;
        }
        let Some(claimed) = claimed else {
            tx.commit().await?;
            return Ok(None);
        };
        // In the row before anything is started in it.
        let limits = effect.limits(claimed.limits);
        let sandbox = self.driver.set_aside(&task(op, &claimed, &limits));
        let sandbox = sandbox.unwrap_or(name(&claimed));
        let named = async {
            tx.name_sandbox(claimed.execution, claimed.lease_epoch, sandbox).await?;
            tx.commit().await
        };
        if let Err(error) = named.await {
            self.driver.release(name(&claimed)).await;
            return Err(error);
        }
        Ok(Some((claimed, owed)))
    }

    pub(crate) async fn run(
        &self,
        op: &OpCtx,
        claimed: &attempts::Claimed,
        effect: &InEffect,
    ) -> Ended {
        let limits = effect.limits(claimed.limits);
        let task = task(op, claimed, &limits);
        let (began, runs_out) = (OnceLock::new(), Notify::new());
        let (say, heard) = live::channel();
        let tell = |notice| match notice {
            Notice::Started => {
                began.get_or_init(Instant::now);
                debug!(execution.id = %claimed.execution, "started");
            }
            Notice::TimeRunsOut => {
                self.metrics.warned();
                warn!(execution.id = %claimed.execution, "used 80 % of its time");
                runs_out.notify_one();
            }
        };
        let (tenant, execution) = (op.tenant, claimed.execution);
        let held = Held { tenant, execution, lease_epoch: claimed.lease_epoch };
        let telling = async {
            let log = self.live.tell(&self.store, op, held, heard);
            tokio::join!(log, live::warn_of_its_end(&self.store, op, held, &runs_out));
            std::future::pending().await
        };
        let (ran, why) = tokio::select! {
            driven = self.drive(Heed::All(held), task, &tell, Some(say)) => driven,
            never = telling => never,
        };
        let wall = began.get().map(Instant::elapsed).unwrap_or_default();
        let usage = ran.as_ref().map(|run| run.usage).unwrap_or_default();
        let log = ran.as_ref().map(|run| run.stderr.clone()).unwrap_or_default();
        let record = Record { usage, wall, provenance: None, log };
        let how = match (ran, why) {
            (Ok(Run { exit: Exit::Cancelled, .. }) | Err(_), Some(why)) => Err(why),
            (Ok(run), _) => {
                info!(execution.id = %claimed.execution, exit = ?run.exit, cpu.us = run.usage.cpu_us,
                    memory.peak_bytes = run.usage.memory_peak_bytes, "ran");
                Ok(output::judged(claimed.output_schema.as_ref(), run.outcome()))
            }
            (Err(driver::Error::Image(said)), None) => Ok(ended(EndReason::ImageError, said)),
            (Err(driver::Error::ImageAway(said)), None) => {
                Ok(ended(EndReason::ImageUnavailable, said))
            }
            (Err(error @ driver::Error::NoEgress), None) => {
                error!(execution.id = %claimed.execution, error = %error,
                    "a version that names hosts was not run");
                Ok(broken("this worker gives agents no network"))
            }
            (Err(error), None) => {
                error!(execution.id = %claimed.execution, error = %chain(&error),
                    "the driver failed");
                Ok(broken("the sandbox could not be made"))
            }
        };
        Ended { how, record }
    }

    /// Runs a task until it ends, or until it must: then it says why, too.
    pub(crate) async fn drive(
        &self,
        heed: Heed<'_>,
        task: Task<'_>,
        tell: &(dyn Fn(Notice) + Send + Sync),
        log: Option<Say>,
    ) -> (Result<Run, driver::Error>, Option<Stopped>) {
        let mut why = None;
        let (halt, stop) = watch::channel(Stop::No);
        let stopping = async {
            let stopped = self.stopped(heed).await;
            halt.send_replace(stopped.urgency());
            why = Some(stopped);
            self.pulse.lost().await;
            halt.send_replace(Stop::AtOnce);
            std::future::pending().await
        };
        let ran = tokio::select! {
            ran = self.driver.run(task, Watch { stop, tell, log }) => ran,
            never = stopping => never,
        };
        (ran, why)
    }

    /// Ends when the run must.
    async fn stopped(&self, heed: Heed<'_>) -> Stopped {
        let mut hand_back = self.hand_back.clone();
        let told = async {
            let (held, heeds_cancel) = match heed {
                Heed::All(held) => (held, true),
                Heed::Lease(held) => (held, false),
                Heed::Worker(shutdown) => {
                    shutdown.requested().await;
                    return Stopped::HandBack;
                }
            };
            let lease = self.leases.enter(held);
            match lease.ends().await {
                Why::Cancelled if heeds_cancel => Stopped::Cancelled,
                Why::Cancelled => {
                    lease.is_lost().await;
                    Stopped::LeaseLost
                }
                Why::Lost => Stopped::LeaseLost,
            }
        };
        tokio::select! {
            () = self.pulse.lost() => Stopped::LeaseLost,
            stopped = told => stopped,
            asked = hand_back.wait_for(|asked| *asked) => {
                drop(asked);
                Stopped::HandBack
            }
        }
    }

    /// Gives an execution back, which owes none of `hooks` then.
    async fn hand_back(&self, op: &OpCtx, claimed: &attempts::Claimed, hooks: &[Hook]) {
        let released = async {
            let (execution, epoch) = (claimed.execution, claimed.lease_epoch);
            let mut tx = self.store.tenant(op).await?;
            let released = tx.release_execution(execution, epoch).await?;
            if released && !claimed.hooks.is_empty() {
                tx.skip_hooks(execution, epoch, hooks).await?;
            }
            tx.commit().await.map(|()| released)
        };
        match released.await {
            Ok(released) => {
                self.metrics.given_up(GivenUp::HandedBack);
                info!(execution.id = %claimed.execution, released, "handed an execution back");
            }
            Err(error) => warn!(execution.id = %claimed.execution, error = %chain(&error),
                "could not hand an execution back; its lease will run out"),
        }
    }
}

/// In whose name a worker acts for a tenant.
pub fn op_of(worker: &str, tenant: TenantId) -> OpCtx {
    OpCtx {
        tenant,
        subject: format!("worker:{worker}"),
        actor: Actor::System,
        request_id: Uuid::new_v4().to_string(),
        traceparent: None,
        now: OffsetDateTime::now_utc(),
    }
}

impl Ended {
    /// What the attempt comes to; none where that is another's to say.
    pub(crate) fn reason(&self) -> Option<EndReason> {
        match &self.how {
            Ok(outcome) => Some(outcome.reason),
            Err(Stopped::Cancelled) => Some(EndReason::Cancelled),
            Err(Stopped::LeaseLost | Stopped::HandBack) => None,
        }
    }
}

impl Stopped {
    /// How soon it must be over: where another may begin, at once.
    const fn urgency(self) -> Stop {
        match self {
            Self::Cancelled => Stop::Gently,
            Self::LeaseLost | Self::HandBack => Stop::AtOnce,
        }
    }
}

pub(crate) fn ended(reason: EndReason, message: String) -> Outcome {
    Outcome { reason, output: None, message: Some(message) }
}

/// The attempt's name. Beyond four billion attempts it would be the one before's.
fn name(claimed: &attempts::Claimed) -> SandboxId {
    let epoch = u32::try_from(claimed.lease_epoch).unwrap_or(u32::MAX);
    SandboxId { execution: claimed.execution, epoch }
}

/// The attempt as the driver sees it.
fn task<'a>(op: &OpCtx, claimed: &'a attempts::Claimed, limits: &'a Limits) -> Task<'a> {
    Task {
        id: name(claimed),
        tenant: op.tenant,
        image: &claimed.image,
        input: &claimed.input,
        limits,
        egress: &claimed.egress,
        command: None,
    }
}

/// Our fault: tried again. The cause is in the log, not in what the tenant reads.
pub(crate) fn broken(message: &str) -> Outcome {
    ended(EndReason::SandboxError, message.to_owned())
}
