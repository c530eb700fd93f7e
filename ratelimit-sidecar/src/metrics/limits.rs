//! What is counted of limits: verdicts, the store, leases, outages.
//! Knows no engine: it is told.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gatehouse_contract::{TenantId, Tier};

use super::text::{Histogram, Seconds, Text};
use crate::top::{self, By, Top};

/// Upper bounds of a round trip to the store, in microseconds.
const ROUND_TRIP_US: [u64; 9] = [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000];
/// Upper bounds of a batch, in takes.
const BATCH: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Allowed,
    Denied,
    /// Charged whatever the limits say: an internal caller, or a cost that was known afterwards.
    Bypassed,
    /// Let pass without the store.
    DegradedAllowed,
    /// Denied without the store.
    DegradedDenied,
    /// No verdict: the tier's policy is `closed`.
    Unavailable,
}

/// Who holds a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// This sidecar, from the store.
    Sidecar,
    /// A VM, from this sidecar.
    Vm,
}

/// What becomes of a lease's passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passes {
    Granted,
    /// Of a sidecar's lease: spent on checks or handed down. Of a VM's: granted and not handed back.
    Used,
    Returned,
    /// The lease ended before they were used, and they were not handed back.
    Expired,
}

#[derive(Debug)]
pub struct Limits {
    checks: [[AtomicU64; Outcome::ALL.len()]; Tier::ALL.len()],
    round_trip: Histogram<{ ROUND_TRIP_US.len() }>,
    batch: Histogram<{ BATCH.len() }>,
    coalesced: AtomicU64,
    queue_full: AtomicU64,
    leases: [[AtomicU64; Passes::ALL.len()]; Level::ALL.len()],
    degraded_us: AtomicU64,
    store_away: AtomicBool,
    breaker_open: AtomicBool,
    breaker_opened: AtomicU64,
    runs: AtomicU64,
    live: AtomicUsize,
    decided: AtomicBool,
    ledger: AtomicUsize,
    top: Mutex<Top>,
    start: Instant,
}

// === impl Outcome, Level, Passes ===

impl Outcome {
    const ALL: [Self; 6] = [
        Self::Allowed,
        Self::Denied,
        Self::Bypassed,
        Self::DegradedAllowed,
        Self::DegradedDenied,
        Self::Unavailable,
    ];

    /// Of a verdict.
    pub const fn of(allowed: bool, forced: bool, degraded: bool) -> Self {
        match (forced, degraded, allowed) {
            (true, _, _) => Self::Bypassed,
            (false, false, true) => Self::Allowed,
            (false, false, false) => Self::Denied,
            (false, true, true) => Self::DegradedAllowed,
            (false, true, false) => Self::DegradedDenied,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Bypassed => "bypassed",
            Self::DegradedAllowed => "degraded_allowed",
            Self::DegradedDenied => "degraded_denied",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Level {
    const ALL: [Self; 2] = [Self::Sidecar, Self::Vm];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Vm => "vm",
        }
    }
}

impl Passes {
    const ALL: [Self; 4] = [Self::Granted, Self::Used, Self::Returned, Self::Expired];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Used => "used",
            Self::Returned => "returned",
            Self::Expired => "expired",
        }
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            checks: Default::default(),
            round_trip: Histogram::new(&ROUND_TRIP_US),
            batch: Histogram::new(&BATCH),
            coalesced: AtomicU64::new(0),
            queue_full: AtomicU64::new(0),
            leases: Default::default(),
            degraded_us: AtomicU64::new(0),
            store_away: AtomicBool::new(false),
            breaker_open: AtomicBool::new(false),
            breaker_opened: AtomicU64::new(0),
            runs: AtomicU64::new(0),
            live: AtomicUsize::new(0),
            decided: AtomicBool::new(false),
            ledger: AtomicUsize::new(0),
            top: Mutex::default(),
            start: Instant::now(),
        }
    }
}

impl Limits {
    /// A check ended; `charged` is what its tenant's windows hold more because of it, passes that were handed down
    /// with it among them.
    pub fn checked(&self, tenant: TenantId, tier: Tier, outcome: Outcome, charged: u64) {
        let index = Outcome::ALL.iter().position(|known| *known == outcome);
        let row = Tier::ALL.iter().position(|known| *known == tier);
        let row = row.and_then(|row| self.checks.get(row));
        if let Some(count) = row.zip(index).and_then(|(row, index)| row.get(index)) {
            count.fetch_add(1, Relaxed);
        }
        let mut top = self.top.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Outcome::Allowed | Outcome::Bypassed | Outcome::DegradedAllowed => {
                top.charged(tenant, charged, self.start.elapsed());
            }
            Outcome::Denied | Outcome::DegradedDenied => top.denied(tenant, self.start.elapsed()),
            Outcome::Unavailable => {}
        }
    }

    /// The heaviest tenants of the last minute.
    pub fn top(&self, by: By, limit: usize) -> top::Answer {
        let mut top = self.top.lock().unwrap_or_else(PoisonError::into_inner);
        top.answer(by, limit, self.start.elapsed())
    }

    /// One round trip to the store.
    pub fn store_took(&self, time: Duration) {
        self.round_trip.saw(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// So many takes went in one round trip.
    pub fn batched(&self, takes: usize) {
        self.batch.saw(takes as u64);
    }

    /// So many checks went along with another one's take.
    pub fn coalesced(&self, checks: usize) {
        self.coalesced.fetch_add(checks as u64, Relaxed);
    }

    /// A check found no room in the queue.
    pub fn queue_was_full(&self) {
        self.queue_full.fetch_add(1, Relaxed);
    }

    /// What became of so many passes of a lease.
    pub fn leased(&self, level: Level, passes: Passes, many: u64) {
        let level = Level::ALL.iter().position(|known| *known == level);
        let index = Passes::ALL.iter().position(|known| *known == passes);
        let row = level.and_then(|level| self.leases.get(level));
        if let Some(count) = row.zip(index).and_then(|(row, index)| row.get(index)) {
            count.fetch_add(many, Relaxed);
        }
    }

    /// For so long the store did not decide.
    pub fn degraded_for(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.degraded_us.fetch_add(us, Relaxed);
    }

    /// Notes that the store works; true when it was away before.
    pub fn store_is_up(&self) -> bool {
        self.store_away.load(Relaxed) && self.store_away.swap(false, Relaxed)
    }

    /// Notes that the store is away; true when it worked before.
    pub fn store_is_away(&self) -> bool {
        !self.store_away.swap(true, Relaxed)
    }

    pub fn set_breaker(&self, open: bool) {
        if !self.breaker_open.swap(open, Relaxed) && open {
            self.breaker_opened.fetch_add(1, Relaxed);
        }
    }

    /// The store began anew.
    pub fn new_run(&self) {
        self.runs.fetch_add(1, Relaxed);
    }

    /// Sidecars that the store saw alive, this one among them.
    pub fn set_live(&self, sidecars: usize) {
        self.live.store(sidecars, Relaxed);
    }

    /// The store decides, and told who lives.
    pub fn store_has_decided(&self) {
        self.decided.store(true, Relaxed);
    }

    /// Whether it ever did.
    pub fn has_decided(&self) -> bool {
        self.decided.load(Relaxed)
    }

    /// Windows that the ledger holds.
    pub fn set_ledger(&self, windows: usize) {
        self.ledger.store(windows, Relaxed);
    }

    pub fn render(&self, text: &mut Text) {
        let name = "gatehouse_ratelimit_checks_total";
        text.head(name, "counter", "Checks by tier and outcome");
        for (tier, row) in Tier::ALL.iter().zip(&self.checks) {
            for (outcome, value) in Outcome::ALL.iter().zip(row) {
                let labels = format!("{{tier=\"{tier}\",outcome=\"{}\"}}", outcome.as_str());
                text.line(name, &labels, value.load(Relaxed));
            }
        }
        let named = ("gatehouse_ratelimit_store_seconds", "Round trip to the store");
        self.round_trip.render(text, named, Seconds);
        let named = ("gatehouse_ratelimit_batch_takes", "Takes in one round trip to the store");
        self.batch.render(text, named, std::convert::identity);
        let name = "gatehouse_ratelimit_lease_passes_total";
        text.head(name, "counter", "Passes of leases by holder and what became of them");
        for (level, row) in Level::ALL.iter().zip(&self.leases) {
            for (passes, value) in Passes::ALL.iter().zip(row) {
                let (holder, state) = (level.as_str(), passes.as_str());
                let labels = format!("{{holder=\"{holder}\",state=\"{state}\"}}");
                text.line(name, &labels, value.load(Relaxed));
            }
        }
        for (name, help, value) in [
            ("coalesced_total", "Checks that went along with another one's take", &self.coalesced),
            ("queue_full_total", "Checks that found no room in the queue", &self.queue_full),
            ("breaker_opened_total", "How often the store was left alone", &self.breaker_opened),
            ("store_runs_total", "How often the store began anew", &self.runs),
        ] {
            let name = format!("gatehouse_ratelimit_{name}");
            text.one(&name, "counter", help, value.load(Relaxed));
        }
        let name = "gatehouse_ratelimit_degraded_seconds_total";
        let help = "Time in which the store did not decide";
        text.one(name, "counter", help, Seconds(self.degraded_us.load(Relaxed)));
        let flag = |value: &AtomicBool| usize::from(value.load(Relaxed));
        let count = |value: &AtomicUsize| value.load(Relaxed);
        for (name, help, value) in [
            ("store_away", "1 while limits cannot be decided", flag(&self.store_away)),
            ("breaker_open", "1 while the store is left alone", flag(&self.breaker_open)),
            ("live_sidecars", "Sidecars that the store saw alive", count(&self.live)),
            ("ledger_windows", "Windows that the ledger holds", count(&self.ledger)),
        ] {
            text.one(&format!("gatehouse_ratelimit_{name}"), "gauge", help, value);
        }
    }
}
