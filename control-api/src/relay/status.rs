//! What the relay tells operators: a word for readiness, and metrics. Knows no clock but the monotonic one.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Sidecars take a heartbeat that is older for silence.
const SILENT: Duration = Duration::from_secs(5);

/// Shared by the relay and the admin listener.
#[derive(Debug, Default)]
pub struct Status {
    /// Of the last heartbeat by this process, while it leads.
    beaten: Mutex<Option<Instant>>,
    published: AtomicU64,
    began: AtomicU64,
    /// Changes that wait, and since when the oldest does; `None` while the outbox cannot be read.
    waits: Mutex<Option<(u64, Instant)>>,
}

impl Status {
    /// `leads`, or `follows`: another process leads, or nobody can.
    pub fn word(&self) -> &'static str {
        if self.age().is_some_and(|age| age < SILENT) { "leads" } else { "follows" }
    }

    pub(super) fn beat(&self) {
        *self.beaten.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(super) fn follows(&self) {
        *self.beaten.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn published(&self, changes: usize) {
        self.published.fetch_add(u64::try_from(changes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn began(&self) {
        self.began.fetch_add(1, Ordering::Relaxed);
    }

    /// How many changes wait, and how long the oldest has.
    pub(super) fn waits(&self, found: Option<(u64, Duration)>) {
        let now = Instant::now();
        let since = |age| now.checked_sub(age).unwrap_or(now);
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) =
            found.map(|(changes, age)| (changes, since(age)));
    }

    /// The lines of what waits; none while that is not known.
    fn backlog(&self) -> String {
        let waits = *self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((changes, since)) = waits else { return String::new() };
        let age = if changes == 0 { 0.0 } else { since.elapsed().as_secs_f64() };
        format!(
            "# HELP gatehouse_relay_backlog_changes Changes in the outbox that are not published.\n\
             # TYPE gatehouse_relay_backlog_changes gauge\n\
             gatehouse_relay_backlog_changes {changes}\n\
             # HELP gatehouse_relay_backlog_oldest_seconds For how long the oldest of them has waited.\n\
             # TYPE gatehouse_relay_backlog_oldest_seconds gauge\n\
             gatehouse_relay_backlog_oldest_seconds {age:.3}\n"
        )
    }

    fn age(&self) -> Option<Duration> {
        self.beaten.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    /// The text form of Prometheus.
    pub fn render(&self) -> String {
        let leads = u8::from(self.word() == "leads");
        let published = self.published.load(Ordering::Relaxed);
        let began = self.began.load(Ordering::Relaxed);
        format!(
            "# HELP gatehouse_relay_leads Whether this process writes the change feed.\n\
             # TYPE gatehouse_relay_leads gauge\n\
             gatehouse_relay_leads {leads}\n\
             # HELP gatehouse_relay_changes_total Changes published.\n\
             # TYPE gatehouse_relay_changes_total counter\n\
             gatehouse_relay_changes_total {published}\n\
             # HELP gatehouse_relay_epochs_total Feeds begun anew.\n\
             # TYPE gatehouse_relay_epochs_total counter\n\
             gatehouse_relay_epochs_total {began}\n{}",
            self.backlog()
        )
    }
}
