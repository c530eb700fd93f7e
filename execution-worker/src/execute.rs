//! One message of the queue: claim the execution, run it, report its end under the epoch of the claim.
//! PostgreSQL decides at both ends; the message only says where to look.

use std::sync::{Arc, OnceLock};

use gatehouse_contract::TenantId;
use gatehouse_execution::{
    EndReason, Limits, Record,
    outcome::{Exit, Outcome, Run},
    provenance::Provenance,
    sandbox::SandboxId,
};
use gatehouse_redis_kit::queue;
use gatehouse_service::exit::chain;
use gatehouse_store::{
    Actor, Error as StoreError, OffsetDateTime, OpCtx, Store, attempts, sweep::Held,
};
use tokio::{sync::watch, time::Instant};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use crate::{
    driver::{self, Driver, Notice, Stop, Task, Watch},
    ghosts::Working,
    leases::{Leases, Why},
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
    pub metrics: Metrics,
    /// The configuration, at each moment.
    pub effect: watch::Receiver<InEffect>,
    /// Of this start of the worker.
    pub incarnation: String,
    /// Turns true when runs must end now and go back to the queue.
    pub hand_back: watch::Receiver<bool>,
}

/// Why a run was ended from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// The lease is another's: nothing may be reported.
    LeaseLost,
    /// Its caller wants it ended, and is told so under this lease.
    Cancelled,
    /// The worker goes away: the execution goes back, its attempt not counted.
    HandBack,
}

/// A run that is over, and what it left.
struct Ended {
    how: Result<Outcome, Stopped>,
    record: Record,
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
}

impl Shared {
    /// Claims what a message names.
    pub async fn claim(&self, job: queue::Job) -> Claimed {
        let op = self.op(job.tenant);
        let effect = self.effect.borrow().clone();
        match self.try_claim(&op, job).await {
            Ok(Some(claimed)) => {
                self.metrics.claimed(metrics::Claim::Made);
                Claimed::Yes(Box::new(Claim { op, claimed, effect }))
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
        let Claim { op, claimed, effect } = claim;
        let _running = self.metrics.running();
        let started = Instant::now();
        let Ended { how, record } = self.run(&op, &claimed, &effect).await;
        let outcome = match how {
            Ok(outcome) => outcome,
            Err(Stopped::Cancelled) => ended(EndReason::Cancelled, "cancelled".to_owned()),
            Err(Stopped::HandBack) => return self.hand_back(&op, &claimed).await,
            Err(Stopped::LeaseLost) => {
                self.metrics.given_up(GivenUp::LeaseLost);
                warn!(execution.id = %claimed.execution, epoch = claimed.lease_epoch,
                    "ended a run whose lease is lost");
                self.meter_lost(&op, &claimed, &record).await;
                return;
            }
        };
        let provenance = self.provenance(&op, &claimed, &effect, &outcome);
        let record = Record { provenance, ..record };
        let report = Report {
            tenant: op.tenant,
            execution: claimed.execution,
            lease_epoch: claimed.lease_epoch,
            attempt: claimed.attempt,
            hooks: false,
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
        self.hand_back(&claim.op, &claim.claimed).await;
    }

    /// In whose name the worker acts for a tenant.
    pub fn op(&self, tenant: TenantId) -> OpCtx {
        OpCtx {
            tenant,
            subject: format!("worker:{}", self.incarnation),
            actor: Actor::System,
            request_id: Uuid::new_v4().to_string(),
            traceparent: None,
            now: OffsetDateTime::now_utc(),
        }
    }

    async fn try_claim(
        &self,
        op: &OpCtx,
        job: queue::Job,
    ) -> Result<Option<attempts::Claimed>, StoreError> {
        let mut tx = self.store.tenant(op).await?;
        let claimed = tx.claim_execution(job.execution, self.incarnation.as_str()).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    async fn run(&self, op: &OpCtx, claimed: &attempts::Claimed, effect: &InEffect) -> Ended {
        let Ok(epoch) = u32::try_from(claimed.lease_epoch) else {
            let how = Ok(broken("the lease epoch is beyond what a sandbox id holds"));
            return Ended { how, record: Record::default() };
        };
        let (start_timeout, grace) = (effect.live.start, effect.live.grace);
        let limits = Limits { start_timeout, grace, ..claimed.limits };
        let task = Task {
            id: SandboxId { execution: claimed.execution, epoch },
            tenant: op.tenant,
            image: &claimed.image,
            input: &claimed.input,
            limits: &limits,
        };
        let mut why = None;
        let (halt, stop) = watch::channel(Stop::No);
        let stopping = async {
            let stopped = self.stopped(op, claimed).await;
            halt.send_replace(stopped.urgency());
            why = Some(stopped);
            self.pulse.lost().await;
            halt.send_replace(Stop::AtOnce);
            std::future::pending().await
        };
        let began = OnceLock::new();
        let tell = |notice| match notice {
            Notice::Started => {
                began.get_or_init(Instant::now);
                debug!(execution.id = %claimed.execution, "started");
            }
            Notice::TimeRunsOut => {
                self.metrics.warned();
                warn!(execution.id = %claimed.execution, "used 80 % of its time");
            }
        };
        let ran = tokio::select! {
            ran = self.driver.run(task, Watch { stop, tell: &tell, log: None }) => ran,
            never = stopping => never,
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
            (Err(error), None) => {
                error!(execution.id = %claimed.execution, error = %chain(&error),
                    "the driver failed");
                Ok(broken("the sandbox could not be made"))
            }
        };
        Ended { how, record }
    }

    /// Ends when the run must.
    async fn stopped(&self, op: &OpCtx, claimed: &attempts::Claimed) -> Stopped {
        let mut hand_back = self.hand_back.clone();
        let (tenant, execution) = (op.tenant, claimed.execution);
        let lease = self.leases.enter(Held { tenant, execution, lease_epoch: claimed.lease_epoch });
        tokio::select! {
            () = self.pulse.lost() => Stopped::LeaseLost,
            why = lease.ends() => match why {
                Why::Lost => Stopped::LeaseLost,
                Why::Cancelled => Stopped::Cancelled,
            },
            asked = hand_back.wait_for(|asked| *asked) => {
                drop(asked);
                Stopped::HandBack
            }
        }
    }

    async fn hand_back(&self, op: &OpCtx, claimed: &attempts::Claimed) {
        let released = async {
            let mut tx = self.store.tenant(op).await?;
            let released = tx.release_execution(claimed.execution, claimed.lease_epoch).await?;
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

impl Stopped {
    /// How soon it must be over: where another may begin, at once.
    const fn urgency(self) -> Stop {
        match self {
            Self::Cancelled => Stop::Gently,
            Self::LeaseLost | Self::HandBack => Stop::AtOnce,
        }
    }
}

fn ended(reason: EndReason, message: String) -> Outcome {
    Outcome { reason, output: None, message: Some(message) }
}

/// Our fault: tried again. The cause is in the log, not in what the tenant reads.
fn broken(message: &str) -> Outcome {
    ended(EndReason::SandboxError, message.to_owned())
}
