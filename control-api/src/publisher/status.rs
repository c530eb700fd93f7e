//! What the publisher tells operators: a word for readiness, and metrics. Knows no clock but the monotonic one.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Instant,
};

use gatehouse_store::publisher::Backlog;

const FOLLOWS: u8 = 0;
const LEADS: u8 = 1;
const FAILING: u8 = 2;

/// Shared by the publisher and the admin listener.
#[derive(Debug, Default)]
pub struct Status {
    state: AtomicU8,
    published: AtomicU64,
    failures: AtomicU64,
    /// What waits, and since when the oldest does; `None` while the outbox cannot be read.
    waits: Mutex<Option<(Backlog, Instant)>>,
}

impl Status {
    /// `leads`; `parked` where it leads and some event was put aside: someone must look; `follows`: another process leads,
    /// or it is just beginning; `failing`: Kafka or the outbox is away.
    pub fn word(&self) -> &'static str {
        match self.state.load(Ordering::Relaxed) {
            LEADS if self.found().is_some_and(|(waits, _)| waits.parked > 0) => "parked",
            LEADS => "leads",
            FAILING => "failing",
            _ => "follows",
        }
    }

    pub(super) fn leads(&self) {
        self.state.store(LEADS, Ordering::Relaxed);
    }

    pub(super) fn follows(&self) {
        self.state.store(FOLLOWS, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.state.store(FAILING, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn published(&self, events: usize) {
        self.published.fetch_add(u64::try_from(events).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn waits(&self, found: Option<Backlog>) {
        let now = Instant::now();
        let since = |waits: Backlog| (waits, now.checked_sub(waits.age).unwrap_or(now));
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = found.map(since);
    }

    fn found(&self) -> Option<(Backlog, Instant)> {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines of what waits; none while that is not known.
    fn backlog(&self) -> String {
        let Some((Backlog { events, age, parked }, since)) = self.found() else {
            return String::new();
        };
        let age = if age.is_zero() { 0.0 } else { since.elapsed().as_secs_f64() };
        format!(
            "# HELP gatehouse_events_unsent Events that wait to be published; about, where there are many.\n\
             # TYPE gatehouse_events_unsent gauge\n\
             gatehouse_events_unsent {events}\n\
             # HELP gatehouse_events_oldest_seconds For how long the oldest of them that was not put aside has waited.\n\
             # TYPE gatehouse_events_oldest_seconds gauge\n\
             gatehouse_events_oldest_seconds {age:.3}\n\
             # HELP gatehouse_events_parked Events that cannot be read and were put aside.\n\
             # TYPE gatehouse_events_parked gauge\n\
             gatehouse_events_parked {parked}\n"
        )
    }

    /// The text form of Prometheus.
    pub fn render(&self) -> String {
        let leads = u8::from(self.state.load(Ordering::Relaxed) == LEADS);
        let published = self.published.load(Ordering::Relaxed);
        let failures = self.failures.load(Ordering::Relaxed);
        format!(
            "# HELP gatehouse_events_publisher_leads Whether this process publishes events.\n\
             # TYPE gatehouse_events_publisher_leads gauge\n\
             gatehouse_events_publisher_leads {leads}\n\
             # HELP gatehouse_events_published_total Events published.\n\
             # TYPE gatehouse_events_published_total counter\n\
             gatehouse_events_published_total {published}\n\
             # HELP gatehouse_events_publish_failures_total Steps that failed; what they took waits on.\n\
             # TYPE gatehouse_events_publish_failures_total counter\n\
             gatehouse_events_publish_failures_total {failures}\n{}",
            self.backlog()
        )
    }
}
