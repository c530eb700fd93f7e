//! How an attempt's end reaches the database: at once, or out of the spool when the database is back. It is told again after a
//! commit of unknown fate; the lease epoch makes one of them count.
//! Knows nothing of sandboxes.

use std::{sync::Arc, time::Duration};

use gatehouse_execution::{EndReason, ExecutionState, Hook, Record, outcome::Outcome};
use gatehouse_service::{Shutdown, exit::chain};
use gatehouse_store::Error as StoreError;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use crate::{
    execute::Shared,
    metrics::GivenUp,
    spool::{Error as SpoolError, Report},
};

/// Between attempts to report, while the database is away.
const AGAIN: Duration = Duration::from_millis(500);

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// It is stored; this follows.
    Now(ExecutionState),
    /// It was stored before: of the commit before this one nobody knew.
    Before,
    /// Its lease was another's: the result counts no more.
    TooLate,
}

impl Shared {
    /// Stores the end of an attempt, or keeps it until it can be.
    pub async fn report(self: &Arc<Self>, report: Report, started: Instant) {
        let mut away = match self.tell(&report).await {
            Err(error) if error.is_unavailable() => error,
            told => return self.log(&report, told, Some(started)),
        };
        warn!(execution.id = %report.execution, error = %chain(&away), "could not report, keeping the result");
        match self.in_spool(report.clone(), |spool, report| spool.put(report)).await {
            Ok(()) => return self.metrics.spooled(),
            Err(error) => {
                error!(execution.id = %report.execution, error = %chain(&error), "could not keep a result");
            }
        }
        // In memory, then: lost with this process, and with it the lease.
        loop {
            warn!(execution.id = %report.execution, error = %chain(&away), "could not report, trying again");
            sleep(AGAIN).await;
            away = match self.tell(&report).await {
                Err(error) if error.is_unavailable() => error,
                told => return self.log(&report, told, Some(started)),
            };
        }
    }

    /// Tells what the spool keeps, of this start and of earlier ones, until the shutdown and then until `shutdown` insists or
    /// nothing is kept.
    pub async fn empty_spool(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.requested() => if self.spool.waiting() == 0 { return },
                () = self.spool.filled() => {}
            }
            if !self.tell_kept().await {
                tokio::select! {
                    () = shutdown.insisted() => return,
                    () = sleep(AGAIN) => {}
                }
            }
        }
    }

    /// Whether the database took what there was.
    async fn tell_kept(self: &Arc<Self>) -> bool {
        let this = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || this.spool.reports()).await;
        let reports = match read {
            Ok(Ok(reports)) => reports,
            Ok(Err(error)) => {
                error!(error = %chain(&error), "the spool cannot be read");
                return false;
            }
            Err(error) => {
                error!(error = %chain(&error), "the spool cannot be read");
                return false;
            }
        };
        for report in reports {
            match self.tell(&report).await {
                Err(error) if error.is_unavailable() => return false,
                told => {
                    if matches!(told, Ok(Told::TooLate)) {
                        self.metrics.dropped();
                    }
                    self.log(&report, told, None);
                }
            }
            let removed = self.in_spool(report, |spool, report| spool.remove(report)).await;
            if let Err(error) = removed {
                error!(error = %chain(&error), "a kept result cannot be removed");
                return false;
            }
        }
        true
    }

    async fn in_spool(
        self: &Arc<Self>,
        report: Report,
        act: impl FnOnce(&crate::spool::Spool, &Report) -> Result<(), SpoolError> + Send + 'static,
    ) -> Result<(), SpoolError> {
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || act(&this.spool, &report)).await;
        done.unwrap_or(Err(SpoolError::Form))
    }

    /// One time. A result that the database refuses for what it says is told without that: the execution would else be
    /// running for ever.
    async fn tell(&self, report: &Report) -> Result<Told, StoreError> {
        let told = self.tell_once(report).await;
        match &told {
            Err(error) if !error.is_unavailable() => {
                error!(execution.id = %report.execution, error = %chain(error), "could not report");
            }
            _ => return told,
        }
        let message = Some("the result cannot be stored".to_owned());
        let outcome = Outcome { reason: EndReason::OutputInvalid, output: None, message };
        let record = Record { provenance: None, ..report.record.clone() };
        self.tell_once(&Report { outcome, record, ..report.clone() }).await
    }

    async fn tell_once(&self, report: &Report) -> Result<Told, StoreError> {
        let op = self.op(report.tenant);
        let (id, epoch, outcome) = (report.execution, report.lease_epoch, &report.outcome);
        let mut tx = self.store.tenant(&op).await?;
        let state = tx.complete_execution(id, epoch, outcome, &report.record).await?;
        self.hooks_ended(&mut tx, id, epoch, &report.hooks).await?;
        let Some(state) = state else {
            let seen = tx.execution(id).await?;
            // What a lost run used is kept all the same.
            tx.commit().await?;
            let ours = seen.is_some_and(|seen| {
                seen.attempt == report.attempt && seen.end_reason == Some(outcome.reason)
            });
            return Ok(if ours { Told::Before } else { Told::TooLate });
        };
        let needless: Vec<Hook> =
            report.hooks.iter().filter(|ran| ran.end.is_none()).map(|ran| ran.hook).collect();
        // A result that could not be stored after all is an error.
        if !needless.is_empty() && outcome.reason == EndReason::Completed {
            tx.skip_hooks(id, epoch, &needless).await?;
        }
        tx.commit().await?;
        Ok(Told::Now(state))
    }

    fn log(&self, report: &Report, told: Result<Told, StoreError>, started: Option<Instant>) {
        let took = started.map(|started| started.elapsed()).unwrap_or_default();
        let Report { execution, attempt, lease_epoch, .. } = report;
        match told {
            Ok(Told::Now(state)) => {
                self.metrics.ended(report.outcome.reason, took);
                info!(execution.id = %execution, attempt, state = %state,
                    reason = %report.outcome.reason, took_ms = took.as_millis(), "ended");
            }
            Ok(Told::Before) => {
                info!(execution.id = %execution, attempt, "the result was stored before");
            }
            Ok(Told::TooLate) => {
                self.metrics.given_up(GivenUp::LeaseLost);
                warn!(execution.id = %execution, epoch = lease_epoch,
                    "the result came after the lease was lost");
            }
            Err(error) => {
                error!(execution.id = %execution, error = %chain(&error), "could not report");
            }
        }
    }
}
