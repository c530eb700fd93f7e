//! The engine's tasks: two that carry questions to the store, one that keeps time (ends of leases, signs of life,
//! debts, probes of a store that is left alone), one that tells of quotas. No timers hold questions back: what comes
//! while two are under way goes together in the next.
//! Knows no check.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use gatehouse_contract::sidecar::QuotaWarning;
use gatehouse_ratelimit::{Declaration, Refused, Return, Run, Take, Taken};
use gatehouse_service::exit::chain;
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tracing::{info, trace, warn};

use super::{
    Engine, Queued, Shared, Verdict,
    breaker::{Ended, Turned},
    core::{Asking, Tally},
    lock,
};
use crate::{
    control::{Control, Unanswered},
    metrics::{Level, Passes},
    store::{Away, Pulse, Store, Untaken},
};

/// Questions to the store under way at once.
const CALLS: usize = 2;
/// Takes, returns, declarations and debts in one call.
const BATCH: usize = 64;
/// How often ends of leases are looked for.
const TICK: Duration = Duration::from_millis(20);
/// Between two signs of life, and up to a fifth more or less.
const PULSE: Duration = Duration::from_millis(250);
/// Where the log says what was charged and credited, for whoever counts it against a limit: `RUST_LOG=charges=trace`.
const CHARGES: &str = "charges";
/// Between two sweeps of what nobody asks for any more.
const SWEEP: Duration = Duration::from_secs(1);

type Asked = Asking<oneshot::Sender<Verdict>>;

/// Starts the engine's tasks; they end some time after [`Engine::stop`].
pub fn run<S: Store>(engine: &Engine, store: &Arc<S>, control: &Control, tasks: &mut JoinSet<()>) {
    let Some(inbox) = lock(&engine.0.taken).take() else { return };
    let queue = Arc::new(Mutex::new(inbox.queue));
    for _ in 0..CALLS {
        let pump = Pump { shared: Arc::clone(&engine.0), store: Arc::clone(store) };
        tasks.spawn(pump.ask_all(Arc::clone(&queue)));
    }
    let pump = Pump { shared: Arc::clone(&engine.0), store: Arc::clone(store) };
    tasks.spawn(pump.keep());
    tasks.spawn(tell(inbox.warnings, control.clone(), engine.0.stop.subscribe()));
}

/// Ends when it is told to, or when nobody is left to tell.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    while !*stop.borrow_and_update() {
        if stop.changed().await.is_err() {
            return;
        }
    }
}

async fn tell(
    mut warnings: mpsc::Receiver<QuotaWarning>,
    control: Control,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let warning = tokio::select! {
            warning = warnings.recv() => warning,
            () = stopped(&mut stop) => None,
        };
        let Some(warning) = warning else { return };
        match control.quota_warning(&warning).await {
            Ok(()) | Err(Unanswered::NotConfigured) => {}
            Err(error) => {
                let tenant = warning.tenant;
                warn!(tenant.id = %tenant, error = %chain(&error), "a quota warning cannot be told");
            }
        }
    }
}

struct Pump<S> {
    shared: Arc<Shared>,
    store: Arc<S>,
}

/// What the keeper remembers.
#[derive(Default)]
struct Kept {
    runs: Vec<Run>,
    pulse_at: Duration,
    sweep_at: Duration,
}

impl<S: Store> Pump<S> {
    async fn ask_all(self, queue: Arc<Mutex<mpsc::UnboundedReceiver<Queued>>>) {
        let mut stop = self.shared.stop.subscribe();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            batch.clear();
            let mut queued = queue.lock().await;
            tokio::select! {
                _ = queued.recv_many(&mut batch, BATCH) => {}
                () = stopped(&mut stop) => return,
            }
            drop(queued);
            self.ask(&batch).await;
        }
    }

    async fn ask(&self, batch: &[Queued]) {
        let shared = &*self.shared;
        let (now, live) = (shared.now(), shared.live.load(Relaxed).max(1));
        let run = Some(shared.run.load(Relaxed)).filter(|run| *run > 0).map(Run);
        let mut takes = Vec::with_capacity(batch.len());
        let mut asked = Vec::with_capacity(batch.len());
        for queued in batch {
            let Some(shard) = shared.shards.get(queued.shard) else { continue };
            // Dropped with their waiters where there is no room in the ledger: their tier's policy answers.
            let mut shard = lock(shard);
            let asking = shard.core.ask(now, queued.group, (live, run), |whom| !whom.is_closed());
            drop(shard);
            if let Ok(Some((take, asking))) = asking {
                shared.metrics.limits.coalesced(asking.waiters.len().saturating_sub(1));
                takes.push(take);
                asked.push((queued.shard, asking));
            }
        }
        if takes.is_empty() {
            return;
        }
        if shared.breaker.is_open() {
            return asked.into_iter().for_each(|(shard, asking)| self.give_up(shard, asking));
        }
        let mut again = (Vec::new(), Vec::new());
        for ((take, (shard, asking)), taken) in takes.iter().zip(asked).zip(self.take(&takes).await)
        {
            match taken {
                Ok(taken) => self.answered(shard, asking, take, &taken),
                Err(Untaken::Refused(Refused::Anew(run))) => {
                    if self.declare_tenant(shard, take, run).await {
                        again.0.push(Take { run: Some(run), ..take.clone() });
                        again.1.push((shard, asking));
                    } else {
                        self.give_up(shard, asking);
                    }
                }
                Err(_) => self.give_up(shard, asking),
            }
        }
        // Nothing was charged the first time.
        let (takes, asked) = again;
        if takes.is_empty() {
            return;
        }
        for ((take, (shard, asking)), taken) in takes.iter().zip(asked).zip(self.take(&takes).await)
        {
            match taken {
                Ok(taken) => self.answered(shard, asking, take, &taken),
                Err(_) => self.give_up(shard, asking),
            }
        }
    }

    /// One call, of which the breaker and the metrics hear. As many answers as takes.
    async fn take(&self, takes: &[Take]) -> Vec<Result<Taken, Untaken>> {
        let shared = &*self.shared;
        let sent = shared.now();
        let mut taken = self.store.take(takes).await;
        taken.resize_with(takes.len(), || Err(Untaken::Away(Away::Short)));
        let now = shared.now();
        shared.metrics.limits.batched(takes.len());
        shared.metrics.limits.store_took(now.saturating_sub(sent));
        let away = taken.iter().filter_map(|taken| match taken {
            Err(Untaken::Away(away)) => Some(away),
            Ok(_) | Err(Untaken::Refused(_)) => None,
        });
        // Of a server that is left alone nobody heard anything, and of the others nothing by it.
        let apart = away.clone().filter(|away| away.is_apart()).count();
        let (many, first) = (away.clone().count() - apart, away.clone().find(|a| !a.is_apart()));
        if apart < takes.len() {
            // One node of many that is away is not the store.
            self.ended(now, first.filter(|_| many * 2 > takes.len() - apart));
        }
        if let Some(taken) = taken.iter().find_map(|taken| taken.as_ref().ok()) {
            let sent_ms = u64::try_from(sent.as_millis()).unwrap_or(u64::MAX);
            shared.store_start_ms.store(taken.at.as_ms().saturating_sub(sent_ms), Relaxed);
        }
        taken
    }

    fn ended(&self, now: Duration, away: Option<&Away>) {
        let shared = &*self.shared;
        let how = match away {
            None => Ended::Answered,
            Some(away) if away.is_late() => Ended::Late,
            Some(_) => Ended::Failed,
        };
        match away {
            None if shared.metrics.limits.store_is_up() => info!("limits are decided again"),
            // One line when it begins; the metrics count the rest.
            Some(away) if shared.metrics.limits.store_is_away() => {
                warn!(error = %chain(away), "limits cannot be decided");
            }
            None | Some(_) => {}
        }
        if shared.breaker.ended(now, how) == Turned::Opened {
            shared.metrics.limits.set_breaker(true);
            warn!("the store of limits is left alone but for probes");
        }
    }

    fn answered(&self, shard: usize, asking: Asked, take: &Take, taken: &Taken) {
        let shared = &*self.shared;
        let (group, now) = (asking.group, shared.now());
        let charged = take.cost.saturating_mul(taken.waiting.saturating_add(taken.ahead));
        trace!(target: CHARGES, tenant = %take.tenant, at_ms = taken.at.as_ms(), charged, "charged");
        let Some(core) = shared.shards.get(shard) else { return };
        let again = lock(core).core.answered(
            now,
            asking,
            take,
            taken,
            |whom| !whom.is_closed(),
            // Whoever went away in this moment was charged for nothing, once.
            |whom, verdict| whom.send(verdict).map_or((), drop),
        );
        self.requeue(again, shard, group);
    }

    /// Those who wait are dropped: their tier's policy answers.
    fn give_up(&self, shard: usize, asking: Asked) {
        let group = asking.group;
        let Some(core) = self.shared.shards.get(shard) else { return };
        let again = lock(core).core.failed(group);
        drop(asking);
        self.requeue(again, shard, group);
    }

    fn requeue(&self, again: bool, shard: usize, group: super::GroupId) {
        if again {
            // Only after the end is nobody there.
            self.shared.queue.send(Queued { shard, group }).unwrap_or_default();
        }
    }

    /// Declares what one tenant's windows held; false when that failed, or somebody else is at it.
    async fn declare_tenant(&self, shard: usize, take: &Take, run: Run) -> bool {
        let Some(core) = self.shared.shards.get(shard) else { return false };
        let now = self.shared.store_now(self.shared.now());
        let declared = lock(core).core.ledger.declarations_of(take.tenant, run, now);
        match declared {
            Some(declared) => self.declare(shard, &declared, run).await,
            None => false,
        }
    }

    /// Declares and notes which tenants are now in `run`.
    async fn declare(&self, shard: usize, declared: &[Declaration], run: Run) -> bool {
        let Some(core) = self.shared.shards.get(shard) else { return false };
        let answers = self.store.declare(declared).await;
        if let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err()) {
            warn!(error = %chain(error), "what was charged cannot be declared");
        }
        let mut taken: Vec<bool> =
            answers.into_iter().map(|answer| answer.unwrap_or(false)).collect();
        taken.resize(declared.len(), false);
        // Of each tenant all or nothing.
        let mut tenants = HashMap::new();
        for (declaration, done) in declared.iter().zip(&taken) {
            *tenants.entry(declaration.tenant).or_insert(true) &= *done;
        }
        let mut core = lock(core);
        tenants.iter().for_each(|(tenant, done)| core.core.ledger.declared(*tenant, run, *done));
        taken.into_iter().all(|done| done)
    }

    async fn keep(self) {
        let mut stop = self.shared.stop.subscribe();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut kept = Kept::default();
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick(&mut kept).await,
                () = stopped(&mut stop) => break,
            }
        }
        // What is leased and not used.
        let now = self.shared.now();
        let mut returns = Vec::new();
        for shard in &self.shared.shards {
            returns.extend(lock(shard).core.end_all(now));
        }
        self.give_back(&returns).await;
    }

    async fn tick(&self, kept: &mut Kept) {
        let shared = &*self.shared;
        let (now, mut returns, mut tally) = (shared.now(), Vec::new(), Tally::default());
        let sweep = now >= kept.sweep_at;
        let (mut windows, mut owing) = (0, false);
        for shard in &shared.shards {
            let mut shard = lock(shard);
            shard.core.due(now);
            returns.append(&mut shard.core.returns());
            tally.add(&shard.core.tally());
            owing |= shard.core.ledger.is_owing();
            if sweep {
                let at = shared.store_now(now);
                shard.core.sweep(now);
                shard.core.ledger.sweep(at);
                shard.local.sweep(at);
            }
            windows += shard.core.ledger.len();
        }
        if sweep {
            kept.sweep_at = now + SWEEP;
        }
        self.count(&tally, windows);
        if shared.breaker.is_open() {
            shared.metrics.limits.degraded_for(shared.breaker.open_for(now));
            if shared.breaker.may_probe(now, chance(now)) {
                self.probe(kept).await;
            }
            return;
        }
        self.give_back(&returns).await;
        if now >= kept.pulse_at {
            self.pulse(kept).await;
        }
        if owing {
            self.pay().await;
        }
    }

    fn count(&self, tally: &Tally, windows: usize) {
        let limits = &self.shared.metrics.limits;
        for (level, passes, many) in [
            (Level::Sidecar, Passes::Granted, tally.granted),
            (Level::Sidecar, Passes::Used, tally.used),
            (Level::Sidecar, Passes::Returned, tally.returned),
            (Level::Sidecar, Passes::Expired, tally.lost),
            (Level::Vm, Passes::Granted, tally.vm_granted),
            (Level::Vm, Passes::Used, tally.vm_used),
            (Level::Vm, Passes::Returned, tally.vm_returned),
            (Level::Vm, Passes::Expired, tally.vm_lost),
        ] {
            if many > 0 {
                limits.leased(level, passes, many);
            }
        }
        limits.set_ledger(windows);
    }

    /// Sent once: what does not arrive is lost.
    async fn give_back(&self, returns: &[Return]) {
        for chunk in returns.chunks(BATCH) {
            if let Err(error) = self.store.give_back(chunk).await {
                tracing::debug!(error = %chain(&error), "passes of leases are lost");
                return;
            }
            for Return { tenant, cost, passes, at, .. } in chunk {
                let (at_ms, credited) = (at.as_ms(), cost.saturating_mul(*passes));
                trace!(target: CHARGES, %tenant, at_ms, credited, "credited");
            }
        }
    }

    /// True when the store answered and knows all that it must.
    async fn pulse(&self, kept: &mut Kept) -> bool {
        let shared = &*self.shared;
        let now = shared.now();
        kept.pulse_at = now + PULSE.mul_f64(0.8 + 0.4 * chance(now));
        let pulse = self.store.pulse().await;
        self.ended(shared.now(), pulse.as_ref().err());
        match pulse {
            Ok(pulse) => self.heed(kept, pulse).await,
            Err(_) => false,
        }
    }

    /// Takes over who lives, and declares everything to what began anew.
    async fn heed(&self, kept: &mut Kept, pulse: Pulse) -> bool {
        let shared = &*self.shared;
        // A store that began anew has not heard of all yet: until it has settled nobody's share grows.
        let known = if pulse.settled { 1 } else { shared.live.load(Relaxed) };
        let live = pulse.live.max(known);
        shared.live.store(live, Relaxed);
        shared.metrics.limits.set_live(usize::try_from(live).unwrap_or(usize::MAX));
        if pulse.settled {
            shared.metrics.limits.store_has_decided();
        }
        let fresh: Vec<Run> =
            pulse.runs.iter().copied().filter(|run| !kept.runs.contains(run)).collect();
        for run in &fresh {
            if !kept.runs.is_empty() {
                shared.metrics.limits.new_run();
                warn!("a store of limits began anew, declaring what was charged");
            }
            for (index, shard) in shared.shards.iter().enumerate() {
                let now = shared.store_now(shared.now());
                let declared = lock(shard).core.ledger.declarations(&pulse.runs, *run, now);
                // A part of the store that is another's says no: its tenants are declared when it asks.
                if !declared.is_empty()
                    && !self.declare(index, &declared, *run).await
                    && pulse.runs.len() == 1
                {
                    return false;
                }
            }
        }
        let one = if let [run] = *pulse.runs { run.0 } else { 0 };
        shared.run.store(one, Relaxed);
        kept.runs = pulse.runs;
        true
    }

    /// Asks a store that is left alone for a sign of life. Before anything is granted again, it is told what was let
    /// pass meanwhile.
    async fn probe(&self, kept: &mut Kept) {
        let shared = &*self.shared;
        let Ok(pulse) = self.store.pulse().await else { return };
        if !self.heed(kept, pulse).await || !self.pay().await {
            return;
        }
        if shared.breaker.probed(shared.now()) == Turned::Closed {
            shared.metrics.limits.set_breaker(false);
            if shared.metrics.limits.store_is_up() {
                info!("limits are decided again");
            }
        }
    }

    /// Charges what was let pass without the store; true when nothing is owed any more.
    async fn pay(&self) -> bool {
        let shared = &*self.shared;
        for shard in &shared.shards {
            loop {
                let now = shared.store_now(shared.now());
                let debts = lock(shard).core.ledger.debts(now, BATCH);
                if debts.is_empty() {
                    break;
                }
                let takes: Vec<Take> = debts
                    .iter()
                    .map(|debt| Take {
                        forced: true,
                        run: debt.run,
                        ..Take::one(debt.tenant, [debt.rule.clone()].into(), debt.amount)
                    })
                    .collect();
                let taken = self.store.take(&takes).await;
                let mut ledger = lock(shard);
                let ledger = &mut ledger.core.ledger;
                let mut paid = true;
                for (index, debt) in debts.iter().enumerate() {
                    match taken.get(index) {
                        Some(Ok(taken)) => ledger.paid(debt, taken.at, taken.run),
                        Some(Err(_)) | None => {
                            ledger.unpaid(debt, now);
                            paid = false;
                        }
                    }
                }
                if !paid {
                    return false;
                }
            }
        }
        true
    }
}

/// From 0 to 1; enough to keep sidecars from asking in step.
fn chance(now: Duration) -> f64 {
    f64::from(now.subsec_nanos() % 1000) / 1000.0
}
