//! Counters, in Prometheus' text form. Labels are bounded: never a tenant, a route or an issuer.
//! Knows no listener.

mod limits;
mod text;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use self::limits::{Level, Limits, Outcome, Passes};
use self::text::Text;

/// How a question to somebody else ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Answered,
    Unknown,
    Failed,
}

#[derive(Debug, Default)]
pub struct Metrics {
    pub limits: Limits,
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
    /// Checks that wait for the store.
    pub waiting: usize,
    pub issuers: usize,
    pub issuers_ready: usize,
    pub feed_alive: bool,
    pub feed_heartbeat_age_s: Option<f64>,
    pub denied: usize,
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
        let mut text = Text(String::with_capacity(8192));
        self.limits.render(&mut text);
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
}

impl Gauges {
    fn render(&self, text: &mut Text) {
        let mut line = |name: &str, help: &str, value: String| {
            text.head(name, "gauge", help);
            text.line(name, "", value);
        };
        let waiting = self.waiting.to_string();
        line("gatehouse_ratelimit_queue_depth", "Checks that wait for the store", waiting);
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
