//! Counters, in Prometheus' text form. Labels are bounded: never a tenant, a route or an issuer.
//! Knows no listener.

use std::{
    fmt::Write,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use gatehouse_contract::Tier;
use gatehouse_ratelimit::Decision;

/// Upper bounds of the store's histogram, in microseconds.
const BUCKETS_US: [u64; 8] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Allowed,
    Denied,
    Unavailable,
}

/// How a question to somebody else ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Answered,
    Unknown,
    Failed,
}

#[derive(Debug, Default)]
pub struct Metrics {
    checks: [[AtomicU64; Outcome::ALL.len()]; Tier::ALL.len()],
    store_buckets: [AtomicU64; BUCKETS_US.len()],
    store_count: AtomicU64,
    store_sum_us: AtomicU64,
    store_away: AtomicBool,
    key_fetches: [AtomicU64; Asked::ALL.len()],
    principals: [AtomicU64; Asked::ALL.len()],
    principals_from_memory: AtomicU64,
    principals_from_redis: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
}

/// Why a credential was not taken, or not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Not in the form of a key.
    Malformed,
    /// Redis or our memory knows that it is nothing.
    Unknown,
    /// On the deny list.
    Denied,
    Expired,
    /// Its client showed too many that were nothing: answered 503.
    Budget,
    /// There are no peppers: answered 503.
    Unconfigured,
}

/// What others know at the moment of asking.
#[derive(Debug, Default)]
pub struct Gauges {
    pub issuers: usize,
    pub issuers_ready: usize,
    pub feed_alive: bool,
    pub feed_heartbeat_age_s: Option<f64>,
    pub denied: usize,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::Unavailable];

    pub fn of(decision: &Decision) -> Self {
        if decision.allowed { Self::Allowed } else { Self::Denied }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Asked {
    const ALL: [Self; 3] = [Self::Answered, Self::Unknown, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

impl Refused {
    const ALL: [Self; 6] = [
        Self::Malformed,
        Self::Unknown,
        Self::Denied,
        Self::Expired,
        Self::Budget,
        Self::Unconfigured,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Budget => "budget",
            Self::Unconfigured => "unconfigured",
        }
    }
}

impl Metrics {
    pub fn checked(&self, tier: Tier, outcome: Outcome) {
        let row = Tier::ALL.iter().zip(&self.checks).find(|(known, _)| **known == tier);
        if let Some((_, row)) = row {
            count(&Outcome::ALL, row, outcome);
        }
    }

    pub fn store_took(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.store_count.fetch_add(1, Relaxed);
        self.store_sum_us.fetch_add(us, Relaxed);
        for (bound, bucket) in BUCKETS_US.iter().zip(&self.store_buckets) {
            if us <= *bound {
                bucket.fetch_add(1, Relaxed);
            }
        }
    }

    /// Notes that the store works; true when it was away before.
    pub fn store_is_up(&self) -> bool {
        self.store_away.load(Relaxed) && self.store_away.swap(false, Relaxed)
    }

    /// Notes that the store is away; true when it worked before.
    pub fn store_is_away(&self) -> bool {
        !self.store_away.swap(true, Relaxed)
    }

    pub fn keys_fetched(&self, how: Asked) {
        count(&Asked::ALL, &self.key_fetches, how);
    }

    pub fn principal_asked(&self, how: Asked) {
        count(&Asked::ALL, &self.principals, how);
    }

    pub fn principal_from_memory(&self) {
        self.principals_from_memory.fetch_add(1, Relaxed);
    }

    pub fn principal_from_redis(&self) {
        self.principals_from_redis.fetch_add(1, Relaxed);
    }

    pub fn refused(&self, why: Refused) {
        count(&Refused::ALL, &self.refused, why);
    }

    /// The text form (Prometheus exposition format 0.0.4).
    pub fn render(&self, gauges: &Gauges) -> String {
        let mut text = Text(String::with_capacity(4096));
        text.head("gatehouse_ratelimit_checks_total", "counter", "Checks by tier and outcome");
        for (tier, row) in Tier::ALL.iter().zip(&self.checks) {
            for (outcome, value) in Outcome::ALL.iter().zip(row) {
                let labels = format!("{{tier=\"{tier}\",outcome=\"{}\"}}", outcome.as_str());
                text.line("gatehouse_ratelimit_checks_total", &labels, value.load(Relaxed));
            }
        }
        self.render_store(&mut text);
        for (name, help, values) in [
            ("gatehouse_jwks_fetches_total", "Key set fetches by outcome", &self.key_fetches),
            ("gatehouse_principal_asks_total", "Questions to the control API", &self.principals),
        ] {
            text.head(name, "counter", help);
            for (asked, value) in Asked::ALL.iter().zip(values) {
                let labels = format!("{{outcome=\"{}\"}}", asked.as_str());
                text.line(name, &labels, value.load(Relaxed));
            }
        }
        let cached = "gatehouse_principal_cache_hits_total";
        text.head(cached, "counter", "Principals answered without the control API");
        let (memory, redis) = (&self.principals_from_memory, &self.principals_from_redis);
        text.line(cached, "{cache=\"memory\"}", memory.load(Relaxed));
        text.line(cached, "{cache=\"redis\"}", redis.load(Relaxed));
        let refused = "gatehouse_credentials_refused_total";
        text.head(refused, "counter", "Credentials refused here, by cause");
        for (why, value) in Refused::ALL.iter().zip(&self.refused) {
            text.line(refused, &format!("{{cause=\"{}\"}}", why.as_str()), value.load(Relaxed));
        }
        gauges.render(&mut text);
        text.0
    }

    fn render_store(&self, text: &mut Text) {
        let name = "gatehouse_ratelimit_store_seconds";
        text.head(name, "histogram", "Time of a decision in the store");
        let count = self.store_count.load(Relaxed);
        for (bound_us, value) in BUCKETS_US.iter().zip(&self.store_buckets) {
            let labels = format!("{{le=\"{}\"}}", Seconds(*bound_us));
            text.line(&format!("{name}_bucket"), &labels, value.load(Relaxed));
        }
        text.line(&format!("{name}_bucket"), "{le=\"+Inf\"}", count);
        text.line(&format!("{name}_sum"), "", Seconds(self.store_sum_us.load(Relaxed)));
        text.line(&format!("{name}_count"), "", count);
        let away = "gatehouse_ratelimit_store_away";
        text.head(away, "gauge", "1 while limits cannot be decided");
        text.line(away, "", u8::from(self.store_away.load(Relaxed)));
    }
}

impl Gauges {
    fn render(&self, text: &mut Text) {
        let mut line = |name: &str, help: &str, value: String| {
            text.head(name, "gauge", help);
            text.line(name, "", value);
        };
        let (issuers, ready) = (self.issuers, self.issuers_ready);
        line("gatehouse_jwks_issuers", "Issuers that are configured", issuers.to_string());
        line("gatehouse_jwks_issuers_ready", "Issuers with usable keys", ready.to_string());
        let alive = u8::from(self.feed_alive);
        line("gatehouse_feed_alive", "1 while the change feed can be believed", alive.to_string());
        line("gatehouse_feed_denied", "Entries of the deny list", self.denied.to_string());
        if let Some(age) = self.feed_heartbeat_age_s {
            let help = "Age of the relay's last heartbeat";
            line("gatehouse_feed_heartbeat_age_seconds", help, format!("{age:.3}"));
        }
    }
}

fn count<T: PartialEq>(names: &[T], values: &[AtomicU64], name: T) {
    if let Some((_, value)) = names.iter().zip(values).find(|(known, _)| **known == name) {
        value.fetch_add(1, Relaxed);
    }
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a String cannot fail.
        write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n").unwrap_or_default();
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "{name}{labels} {value}").unwrap_or_default();
    }
}

/// Microseconds, shown as seconds.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
