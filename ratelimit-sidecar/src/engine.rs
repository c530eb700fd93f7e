//! Decides checks and leases: what stands between the routes (JSON and gRPC) and the store. Checks of the same limits
//! join one question to the store, questions travel together, passes are taken ahead, and while the store is away a
//! tier's policy answers.
//! Knows neither HTTP nor Redis. The rules by which no limit is exceeded are in `engine/core.rs`.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gatehouse_contract::{
    TenantId,
    sidecar::{CheckAnswer, CheckAsk, LeaseAnswer, LeaseAsk, QuotaWarning},
};
use gatehouse_ratelimit::{
    Asked, Decision, Memory, Name, Rule, Standing, Take, Timestamp, policy::MAX_AHEAD,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

mod book;
mod breaker;
mod compiled;
mod core;
mod group;
mod holders;
mod ledger;
mod pump;
mod quota;
#[cfg(test)]
mod simulation;

use self::{
    book::Book,
    breaker::Breaker,
    compiled::Compiled,
    core::{Ask, Core, GroupId, Step, Verdict},
    group::{Mode, Waiter},
    holders::Holders,
    ledger::Ledger,
    quota::Quotas,
};
pub use self::{group::Wants, pump::run};
use crate::{
    config::{self, Away, Bounds, Limits},
    metrics::{Metrics, Outcome},
};

/// Shards: a check holds one for less than a microsecond.
const SHARDS: usize = 16;
/// Windows in the ledger of one shard, leases of VMs in its book, and windows while the store is away.
const WINDOWS: usize = 32 * 1024;
const LEASES: usize = 4096;
const LOCAL_KEYS: usize = 16 * 1024;
/// Longest name of a VM, in bytes; a longer one gets no leases.
const HOLDER_BYTES: usize = 64;

/// No verdict can be had, and the tier's policy for that is `closed`: 503 `limiter_unavailable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the limit cannot be decided")]
pub struct Unavailable;

/// The handle that routes hold; cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

/// What is asked, wherever its parts lie.
#[derive(Debug, Clone, Copy)]
pub struct Check<'a> {
    pub tenant: TenantId,
    pub asked: Asked<'a>,
    pub cost: u32,
    /// Charged whatever the limits say.
    pub forced: bool,
}

/// What was decided, before it takes the wire's form.
#[derive(Debug, Clone)]
pub struct Decided {
    pub rules: Arc<[Rule]>,
    pub decision: Decision,
    pub lease: Option<gatehouse_contract::sidecar::Lease>,
    pub degraded: bool,
    pub day_used_percent: Option<u8>,
}

struct Shared {
    limits: Limits,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    shards: Vec<Mutex<Shard>>,
    queue: mpsc::UnboundedSender<Queued>,
    /// Checks that wait for the store.
    waiting: AtomicUsize,
    breaker: Breaker,
    start: Instant,
    /// The store's clock at [`Self::start`], in milliseconds, as far as its last answer told.
    store_start_ms: AtomicU64,
    /// The run of the whole store, where it has one; else 0.
    run: AtomicU64,
    /// Sidecars that were last seen alive.
    live: AtomicU32,
    holders: Mutex<Holders>,
    quotas: Quotas,
    stop: watch::Sender<bool>,
    taken: Mutex<Option<Inbox>>,
}

struct Shard {
    core: Core<oneshot::Sender<Verdict>>,
    compiled: Compiled,
    /// What is let pass while the store is away.
    local: Memory,
}

/// A group whose take is due.
#[derive(Debug, Clone, Copy)]
struct Queued {
    shard: usize,
    group: GroupId,
}

/// What [`run`] reads.
struct Inbox {
    queue: mpsc::UnboundedReceiver<Queued>,
    warnings: mpsc::Receiver<QuotaWarning>,
}

/// Counts those who wait, however they stop to.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

// === impl Engine ===

impl Engine {
    /// `chance` makes the ids of leases differ from those of a process before this one. Decides once [`run`] runs.
    pub fn new(limits: &Limits, bounds: Bounds, metrics: &Arc<Metrics>, chance: u64) -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        let (quotas, warnings) = Quotas::new();
        let mode = match limits.mode {
            config::Mode::Auto => Mode::Auto,
            config::Mode::Lease => Mode::Lease,
            config::Mode::Strict => Mode::Strict,
        };
        let shard = |index: usize| {
            let (step, first) = (SHARDS as u64, chance / SHARDS as u64 * SHARDS as u64);
            let book = Book::new(LEASES, first.wrapping_add(index as u64), step);
            let core = Core::new(mode, Ledger::new(WINDOWS), book);
            let local = Memory::new(LOCAL_KEYS);
            Mutex::new(Shard { core, compiled: Compiled::default(), local })
        };
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Arc::new(Shared {
            limits: limits.clone(),
            bounds,
            metrics: Arc::clone(metrics),
            shards: (0..SHARDS).map(shard).collect(),
            queue,
            waiting: AtomicUsize::new(0),
            breaker: Breaker::new(breaker::Bounds {
                failures: bounds.failures,
                late_percent: bounds.late_percent,
                probe: bounds.probe,
            }),
            start: Instant::now(),
            store_start_ms: AtomicU64::new(u64::try_from(wall.as_millis()).unwrap_or(0)),
            run: AtomicU64::new(0),
            live: AtomicU32::new(1),
            holders: Mutex::default(),
            quotas,
            stop: watch::Sender::new(false),
            taken: Mutex::new(Some(Inbox { queue: queued, warnings })),
        }))
    }

    /// Whether a request may pass; a pass is charged.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn check(&self, ask: &CheckAsk) -> Result<CheckAnswer, Unavailable> {
        Ok(self.decide(ask.into(), None).await?.answer())
    }

    /// As [`Self::check`], with passes to take along for a VM, and what it hands back.
    ///
    /// # Errors
    /// [`Unavailable`]; what was handed back is taken all the same.
    pub async fn lease(&self, ask: &LeaseAsk) -> Result<LeaseAnswer, Unavailable> {
        let shared = &*self.0;
        let now = shared.now();
        let known = ask.holder.len() <= HOLDER_BYTES;
        let holders = if known { shared.holders().seen(&ask.holder, now) } else { 1 };
        for back in &ask.returns {
            if let Some(shard) = shared.shards.get(shard_of_lease(back.lease)) {
                lock(shard).core.returned(now, &ask.holder, back.lease, back.unused);
            }
        }
        let Some(check) = &ask.check else {
            return Ok(LeaseAnswer { check: None, lease: None, share: None });
        };
        let vm = (known && ask.want > 0)
            .then(|| Wants { holder: ask.holder.as_str().into(), passes: ask.want.min(MAX_AHEAD) });
        let decided = self.decide(check.into(), vm).await?;
        let live = shared.live.load(Relaxed).max(1);
        let whole = decided.rules.iter().find(|rule| rule.name == Name::Tenant);
        let live = if decided.degraded { 1 } else { live };
        let share = whole.map(|rule| rule.max / live / holders.max(1));
        let lease = decided.lease;
        Ok(LeaseAnswer { check: Some(decided.answer()), lease, share })
    }

    /// The verdict on a check, and for a VM what it takes along.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn decide(&self, ask: Check<'_>, vm: Option<Wants>) -> Result<Decided, Unavailable> {
        let limits = &self.0.metrics.limits;
        let (tenant, tier) = (ask.tenant, ask.asked.tier);
        let Ok(decided) = self.0.decide(ask, vm).await else {
            limits.checked(tenant, tier, Outcome::Unavailable, 0);
            return Err(Unavailable);
        };
        let allowed = decided.decision.allowed;
        let passes = 1 + decided.lease.map_or(0, |lease| u64::from(lease.passes));
        let charged = if allowed { passes * u64::from(ask.cost) } else { 0 };
        let outcome = Outcome::of(allowed, ask.forced, decided.degraded);
        limits.checked(tenant, tier, outcome, charged);
        Ok(decided)
    }

    /// Whether the store decides now.
    pub fn is_up(&self) -> bool {
        !self.0.breaker.is_open()
    }

    /// Checks that wait for the store now.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Relaxed)
    }

    /// Lets [`run`] end, after it has handed back what is leased.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }
}

impl Decided {
    /// The answer on the wire.
    pub fn answer(&self) -> CheckAnswer {
        CheckAnswer {
            degraded: self.degraded,
            day_used_percent: self.day_used_percent,
            ..self.decision.answer(&self.rules)
        }
    }
}

// === impl Check ===

impl<'a> From<&'a CheckAsk> for Check<'a> {
    fn from(ask: &'a CheckAsk) -> Self {
        let asked = Asked {
            tier: ask.tier,
            limits: ask.limits.as_ref(),
            subject: ask.subject.as_deref(),
            method: &ask.method,
            route: &ask.route,
        };
        Self { tenant: ask.tenant, asked, cost: ask.cost, forced: ask.forced }
    }
}

// === impl Shared ===

impl Shared {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The store's clock, as far as its last answer told.
    fn store_now(&self, now: Duration) -> Timestamp {
        Timestamp::from_ms(self.store_start_ms.load(Relaxed)).plus(now)
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        lock(&self.holders)
    }

    fn shard(&self, tenant: TenantId) -> (usize, Option<&Mutex<Shard>>) {
        // The last byte of a UUID of version 4 or 7 is random.
        let last = tenant.as_uuid().as_bytes().last().copied().unwrap_or_default();
        let index = usize::from(last) % SHARDS;
        (index, self.shards.get(index))
    }

    async fn decide(&self, ask: Check<'_>, vm: Option<Wants>) -> Result<Decided, Unavailable> {
        let now = self.now();
        // While the store is left alone every pass of ours is for those who wait.
        let vm = vm.filter(|_| !self.breaker.is_open());
        let (index, Some(shard)) = self.shard(ask.tenant) else { return Err(Unavailable) };
        let asked = ask.asked;
        let plain = self.limits.policy.is_plain(&asked);
        let (waiting, rules) = {
            let mut own;
            let mut shard = lock(shard);
            let rules = if plain {
                self.limits.policy.rules(asked.tier, asked.method, asked.route)
            } else {
                own = shard.compiled.get(now, &asked, &self.limits.policy);
                &mut own
            };
            if rules.is_empty() {
                return Ok(unlimited(rules));
            }
            let (tenant, cost, forced) = (ask.tenant, ask.cost, ask.forced);
            let asking = Ask { tenant, rules, cost, forced, vm: vm.clone() };
            let step = shard.core.check(now, &asking);
            let waiting = match step {
                Step::Decided(verdict) => return Ok(self.told(ask.tenant, verdict, now)),
                Step::Wait(group) if !self.breaker.is_open() => {
                    self.wait(&mut shard, Queued { shard: index, group }, vm)
                }
                Step::Wait(_) | Step::Full => None,
            };
            (waiting, Arc::clone(rules))
        };
        let Some((_place, told)) = waiting else {
            return self.without(ask, &rules, now);
        };
        let until = self.start + now + self.bounds.deadline;
        match timeout_at(until, told).await {
            Ok(Ok(verdict)) => Ok(self.told(ask.tenant, verdict, self.now())),
            // Late, or the store did not say.
            Ok(Err(_)) | Err(_) => self.without(ask, &rules, self.now()),
        }
    }

    /// A place among those who wait, unless all are taken.
    fn wait(
        &self,
        shard: &mut Shard,
        queued: Queued,
        vm: Option<Wants>,
    ) -> Option<(Waiting<'_>, oneshot::Receiver<Verdict>)> {
        let place = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Relaxed) >= self.bounds.queue {
            self.metrics.limits.queue_was_full();
            return None;
        }
        let (whom, told) = oneshot::channel();
        if shard.core.join(queued.group, Waiter { whom, vm }) {
            // Only after the end is nobody there; then the deadline answers.
            self.queue.send(queued).unwrap_or_default();
        }
        Some((place, told))
    }

    fn told(&self, tenant: TenantId, verdict: Verdict, now: Duration) -> Decided {
        let Verdict { rules, decision, lease } = verdict;
        let day = self.quotas.percent(tenant, &rules, &decision, self.store_now(now));
        Decided { rules, decision, lease, degraded: false, day_used_percent: day }
    }

    /// The tier's policy for a store that does not decide. What passes is owed to the store.
    fn without(
        &self,
        ask: Check<'_>,
        rules: &Arc<[Rule]>,
        now: Duration,
    ) -> Result<Decided, Unavailable> {
        let away = self.limits.away(ask.asked.tier);
        // What is charged in any case is noted in any case; its request has passed already.
        if away == Away::Closed && !ask.forced {
            return Err(Unavailable);
        }
        let (_, Some(shard)) = self.shard(ask.tenant) else { return Err(Unavailable) };
        let (mut shard, at) = (lock(shard), self.store_now(now));
        let Shard { core, local, .. } = &mut *shard;
        // What cannot be noted cannot be charged later.
        core.ledger.open(ask.tenant, rules).map_err(|_| Unavailable)?;
        let (rules, decision) = if away == Away::Local {
            let live = self.live.load(Relaxed).max(1);
            let (tenant, cost, forced) = (ask.tenant, ask.cost, ask.forced);
            let asking = Ask { tenant, rules, cost, forced, vm: None };
            let shares = core.shares(now, &asking, live).ok_or(Unavailable)?;
            let take = Take { forced, ..Take::one(tenant, Arc::clone(&shares), cost) };
            let taken = local.take(&take, at).map_err(|_| Unavailable)?.map_err(|_| Unavailable)?;
            (shares, taken.decision)
        } else {
            (Arc::clone(rules), untouched(rules))
        };
        if decision.allowed && ask.cost > 0 {
            core.ledger.owe(ask.tenant, &rules, at, ask.cost);
        }
        Ok(Decided { rules, decision, lease: None, degraded: true, day_used_percent: None })
    }
}

/// Nothing weighs.
fn unlimited(rules: &Arc<[Rule]>) -> Decided {
    Decided {
        rules: Arc::clone(rules),
        decision: untouched(rules),
        lease: None,
        degraded: false,
        day_used_percent: None,
    }
}

/// A pass that nobody counted.
fn untouched(rules: &[Rule]) -> Decision {
    let none = Some(Duration::ZERO);
    let standings = rules.iter().map(|_| Standing { used: 0, free_in: none, pass_in: none });
    Decision { allowed: true, standings: standings.collect() }
}

/// Ids are dealt round over the shards.
fn shard_of_lease(id: u64) -> usize {
    usize::try_from(id % SHARDS as u64).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
