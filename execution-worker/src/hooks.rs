//! Lifecycle hooks around an agent (LFH-001): each in a sandbox of its own, in a fixed order. What an attempt owes (ON_ERROR,
//! CLEANUP) is written down with its claim and ended with its end, in the same transactions; who loses the attempt between
//! them leaves it to [`recover`], under the same run id.
//! Knows nothing of how a sandbox is made.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gatehouse_contract::{ExecutionId, TenantId};
use gatehouse_execution::{
    EndReason, Hook, Hooks, ImageRef, Limits, Record, egress,
    hooks::Command,
    outcome::{Exit, Outcome, Run, Usage},
    sandbox::SandboxId,
};
use gatehouse_service::{Shutdown, exit::chain};
use gatehouse_store::{
    Error as StoreError, Job, OpCtx, TenantTx,
    attempts::Claimed,
    hooks::{HookEnd, Owed},
    sweep::Held,
};
use serde_json::{Value, json};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::{
    driver::{self, Task},
    execute::{Ended, Heed, Shared, Stopped, broken, ended},
    reload::InEffect,
};

/// A hook that was taken so often ends workers: it is given up.
const POISON: u32 = 3;
/// How long what ended is kept, and how much of it goes at a time.
const KEPT: Duration = Duration::from_secs(90 * 86_400);
const FORGET_AT_ONCE: u32 = 1000;

/// What became of a hook in its attempt, told with the attempt's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// Which.
    pub hook: Hook,
    /// Under which id.
    pub run_id: Uuid,
    /// How it ended; none where the attempt did not need it.
    pub end: Option<EndReason>,
}

/// The runs that attempts of this worker have in their own hands: nobody takes them.
#[derive(Debug, Default)]
pub struct Busy(Mutex<BTreeSet<Uuid>>);

/// Some of [`Busy`].
#[derive(Debug)]
pub struct Owing {
    busy: Arc<Busy>,
    runs: Vec<Uuid>,
}

/// Whose hooks are run.
struct Around<'a> {
    tenant: TenantId,
    execution: ExecutionId,
    lease_epoch: u64,
    image: &'a ImageRef,
    input: &'a Value,
    limits: Limits,
    hooks: &'a Hooks,
}

/// The runs of what `hooks` owes, named before any of it begins.
pub fn owed(hooks: &Hooks) -> Vec<(Hook, Uuid)> {
    let declared = Hook::OWED.into_iter().filter(|hook| hooks.get(*hook).is_some());
    declared.map(|hook| (hook, Uuid::new_v4())).collect()
}

/// Whether a hook that ended so did what it is for: it is asked for no result.
pub const fn is_well(reason: EndReason) -> bool {
    matches!(reason, EndReason::Completed | EndReason::OutputInvalid)
}

/// What ran of an attempt's hooks, and what that cost.
#[derive(Debug, Default)]
struct Log {
    ran: Vec<Ran>,
    used: Usage,
}

impl Shared {
    /// The attempt with the hooks around it: those before the agent, the agent, what follows. None of them takes the place of
    /// what the agent came to, but one before it that does not end well keeps it from beginning.
    pub(crate) async fn attempt(
        &self,
        op: &OpCtx,
        claimed: &Claimed,
        effect: &InEffect,
        owed: &[(Hook, Uuid)],
    ) -> (Ended, Vec<Ran>) {
        let around = Around {
            tenant: op.tenant,
            execution: claimed.execution,
            lease_epoch: claimed.lease_epoch,
            image: &claimed.image,
            input: &claimed.input,
            limits: effect.limits(claimed.limits),
            hooks: &claimed.hooks,
        };
        let mut log = Log::default();
        let mut attempt = match self.before(&around, &mut log).await {
            Some(how) => Ended { how, record: Record::default() },
            None => {
                let mut attempt = self.run(op, claimed, effect).await;
                let last = (Hook::PostExecute, Uuid::new_v4());
                self.after(&around, last, &mut attempt, &mut log).await;
                attempt
            }
        };
        for (hook, run_id) in owed {
            if *hook == Hook::OnError && attempt.reason() == Some(EndReason::Completed) {
                log.ran.push(Ran { hook: *hook, run_id: *run_id, end: None });
            } else {
                self.after(&around, (*hook, *run_id), &mut attempt, &mut log).await;
            }
        }
        attempt.record.usage = sum(attempt.record.usage, log.used);
        (attempt, log.ran)
    }

    /// Runs what comes before the agent. What it returns is the attempt's end.
    async fn before(&self, around: &Around<'_>, log: &mut Log) -> Option<Result<Outcome, Stopped>> {
        for hook in Hook::BEFORE {
            let Some(command) = around.hooks.get(hook) else { continue };
            let run_id = Uuid::new_v4();
            let ended = self.hook(around, (hook, run_id), command, None, Heed::All(around.held()));
            let (outcome, usage) = match ended.await {
                Ok(ended) => ended,
                Err(stopped) => return Some(Err(stopped)),
            };
            log.used = sum(log.used, usage);
            log.ran.push(Ran { hook, run_id, end: Some(outcome.reason) });
            if let Some(refusal) = hook.refusal(&outcome) {
                return Some(Ok(refusal));
            }
        }
        None
    }

    /// Runs a hook that follows the agent, where one is declared. A lease that is lost meanwhile is the attempt's end.
    async fn after(
        &self,
        around: &Around<'_>,
        (hook, run_id): (Hook, Uuid),
        attempt: &mut Ended,
        log: &mut Log,
    ) {
        let (Some(command), Some(reason)) = (around.hooks.get(hook), attempt.reason()) else {
            return;
        };
        // Whoever cancels has ended the agent: what follows is for this.
        let heed = Heed::Lease(around.held());
        match self.hook(around, (hook, run_id), command, Some(reason), heed).await {
            Ok((outcome, usage)) => {
                log.used = sum(log.used, usage);
                // What failed of ours is owed still.
                if outcome.reason != EndReason::SandboxError || !Hook::OWED.contains(&hook) {
                    log.ran.push(Ran { hook, run_id, end: Some(outcome.reason) });
                }
            }
            Err(Stopped::LeaseLost) => attempt.how = Err(Stopped::LeaseLost),
            // The worker goes away: what is owed is another's, what the agent came to is told.
            Err(Stopped::HandBack | Stopped::Cancelled) => {}
        }
    }

    /// Runs a hook to its end, or until it must.
    async fn hook(
        &self,
        around: &Around<'_>,
        (hook, run_id): (Hook, Uuid),
        command: &Command,
        reason: Option<EndReason>,
        heed: Heed<'_>,
    ) -> Result<(Outcome, Usage), Stopped> {
        let Ok(epoch) = u32::try_from(around.lease_epoch) else {
            return Ok((
                broken("the lease epoch is beyond what a sandbox id holds"),
                Usage::default(),
            ));
        };
        let input = json!({
            "hook": hook.as_str(),
            "run_id": run_id,
            "execution_id": around.execution,
            "lease_epoch": around.lease_epoch,
            "end_reason": reason.map(EndReason::as_str),
            "input": around.input,
        });
        let limits = Limits { timeout: command.timeout, ..around.limits };
        let task = Task {
            id: SandboxId { execution: ExecutionId::new(run_id), epoch },
            tenant: around.tenant,
            image: around.image,
            input: &input,
            limits: &limits,
            egress: &egress::NONE,
            command: Some(&command.line),
        };
        let (ran, why) = self.drive(heed, task, &|_| {}, None).await;
        let usage = ran.as_ref().map(|run| run.usage).unwrap_or_default();
        let outcome = match (ran, why) {
            (Ok(Run { exit: Exit::Cancelled, .. }) | Err(_), Some(why)) => return Err(why),
            (Ok(run), _) => run.outcome(),
            (Err(driver::Error::Image(said)), None) => ended(EndReason::ImageError, said),
            (Err(error), None) => {
                error!(execution.id = %around.execution, hook = %hook, error = %chain(&error),
                    "the driver failed");
                broken("the sandbox could not be made")
            }
        };
        self.metrics.hook(hook, is_well(outcome.reason));
        info!(execution.id = %around.execution, hook = %hook, run.id = %run_id,
            reason = %outcome.reason, "ran a hook");
        Ok((outcome, usage))
    }

    /// What ran of an attempt that is another's by now.
    pub(crate) async fn record_hooks(&self, op: &OpCtx, claimed: &Claimed, ran: &[Ran]) {
        if ran.is_empty() {
            return;
        }
        let recorded = async {
            let mut tx = self.store.tenant(op).await?;
            self.hooks_ended(&mut tx, claimed.execution, claimed.lease_epoch, ran).await?;
            tx.commit().await
        };
        if let Err(error) = recorded.await {
            warn!(execution.id = %claimed.execution, error = %chain(&error), "could not record hooks");
        }
    }

    pub(crate) async fn hooks_ended(
        &self,
        tx: &mut TenantTx<'_>,
        execution: ExecutionId,
        lease_epoch: u64,
        ran: &[Ran],
    ) -> Result<(), StoreError> {
        for Ran { hook, run_id, end } in ran {
            let Some(reason) = *end else { continue };
            tx.hook_ended(&HookEnd {
                execution,
                lease_epoch,
                hook: *hook,
                run_id: *run_id,
                worker: &self.incarnation,
                well: is_well(reason),
                reason,
            })
            .await?;
        }
        Ok(())
    }

    /// Takes one hook that is owed by an attempt that is over, and runs it. `false` where there is none for now.
    async fn recover_one(&self, lease: Duration, shutdown: &Shutdown) -> Result<bool, StoreError> {
        // Who was cut off from the database knows nothing of others.
        if !self.pulse.judges() {
            return Ok(false);
        }
        let mut job = self.store.system(Job::Hooks).await?;
        let taken = job.take_owed(&self.incarnation, &self.busy.runs(), lease, 1).await?;
        job.commit().await?;
        let Some(owed) = taken.first() else { return Ok(false) };
        let op = self.op(owed.tenant);
        let Some(reason) = self.run_owed(&op, owed, shutdown).await? else { return Ok(false) };
        let ran = Ran { hook: owed.hook, run_id: owed.run_id, end: Some(reason) };
        let mut tx = self.store.tenant(&op).await?;
        self.hooks_ended(&mut tx, owed.execution, owed.lease_epoch, &[ran]).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// How the hook ended; none where it is still owed, or was never declared.
    async fn run_owed(
        &self,
        op: &OpCtx,
        owed: &Owed,
        shutdown: &Shutdown,
    ) -> Result<Option<EndReason>, StoreError> {
        info!(execution.id = %owed.execution, hook = %owed.hook, run.id = %owed.run_id, taken = owed.taken,
            "took a hook that is owed");
        if owed.taken > POISON {
            return Ok(Some(EndReason::Poison));
        }
        let mut tx = self.store.tenant(op).await?;
        let hooked = tx.hooked(owed.execution).await?;
        let hooked = hooked.filter(|hooked| hooked.hooks.get(owed.hook).is_some());
        let Some(hooked) = hooked else {
            tx.skip_hooks(owed.execution, owed.lease_epoch, &[owed.hook]).await?;
            tx.commit().await?;
            return Ok(None);
        };
        drop(tx);
        let around = Around {
            tenant: op.tenant,
            execution: owed.execution,
            lease_epoch: owed.lease_epoch,
            image: &hooked.image,
            input: &hooked.input,
            limits: self.effect.borrow().limits(hooked.limits),
            hooks: &hooked.hooks,
        };
        let Some(command) = hooked.hooks.get(owed.hook) else { return Ok(None) };
        let (run, heed) = ((owed.hook, owed.run_id), Heed::Worker(shutdown));
        let ended = self.hook(&around, run, command, None, heed).await;
        Ok(match ended {
            // Ours to mend: it is taken again.
            Ok((Outcome { reason: EndReason::SandboxError, .. }, _)) | Err(_) => None,
            Ok((outcome, _)) => Some(outcome.reason),
        })
    }
}

/// Runs what attempts owe that are over, until the shutdown.
pub async fn recover(shared: Arc<Shared>, lease: Duration, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(lease / 3) => {}
        }
        let recovered = async {
            while !shutdown.is_requested() && shared.recover_one(lease, &shutdown).await? {}
            let mut job = shared.store.system(Job::Hooks).await?;
            job.forget_hooks(KEPT, FORGET_AT_ONCE).await?;
            job.commit().await
        };
        match recovered.await {
            Ok(()) => {}
            Err(error) if error.is_unavailable() => {
                warn!(error = %chain(&error), "could not look for hooks that are owed");
            }
            Err(error) => error!(error = %chain(&error), "could not run a hook that is owed"),
        }
    }
}

// === impl Around, Busy ===

impl Around<'_> {
    const fn held(&self) -> Held {
        let Self { tenant, execution, lease_epoch, .. } = *self;
        Held { tenant, execution, lease_epoch }
    }
}

impl Busy {
    /// These are run by their own attempt, until the value is dropped.
    pub fn with(self: &Arc<Self>, owed: &[(Hook, Uuid)]) -> Owing {
        let runs: Vec<Uuid> = owed.iter().map(|(_, run)| *run).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(&runs);
        Owing { busy: Arc::clone(self), runs }
    }

    fn runs(&self) -> Vec<Uuid> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

impl Drop for Owing {
    fn drop(&mut self) {
        let mut busy = self.busy.0.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|run| !self.runs.contains(run));
    }
}

fn sum(one: Usage, other: Usage) -> Usage {
    Usage {
        oom_kills: one.oom_kills + other.oom_kills,
        pids_refused: one.pids_refused + other.pids_refused,
        cpu_us: one.cpu_us + other.cpu_us,
        memory_peak_bytes: one.memory_peak_bytes.max(other.memory_peak_bytes),
        egress_requests: one.egress_requests + other.egress_requests,
        tokens: one.tokens + other.tokens,
    }
}
