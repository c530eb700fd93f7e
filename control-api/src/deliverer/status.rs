//! What the deliverer tells operators: a word for readiness, and metrics. Knows no clock but the monotonic one.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gatehouse_store::deliveries::Backlog;

/// What is due and not sent for longer than this is late.
const LATE: Duration = Duration::from_secs(60);

/// What becomes of attempts.
const OUTCOMES: [&str; 5] = ["delivered", "retried", "failed", "gone", "unsettled"];

/// Shared by the deliverer and the admin listener.
#[derive(Debug, Default)]
pub struct Status {
    failing: AtomicBool,
    attempts: Mutex<BTreeMap<&'static str, u64>>,
    delivered_ms: AtomicU64,
    /// What is due, and since when the oldest is; `None` while that is not known.
    waits: Mutex<Option<(u64, Instant)>>,
}

impl Status {
    /// `delivers`; `late`: something has been due for more than a minute; `failing`: the database is away.
    pub fn word(&self) -> &'static str {
        if self.failing.load(Ordering::Relaxed) {
            return "failing";
        }
        let waits = *self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        match waits {
            Some((due, since)) if due > 0 && since.elapsed() > LATE => "late",
            _ => "delivers",
        }
    }

    pub(super) fn works(&self) {
        self.failing.store(false, Ordering::Relaxed);
    }

    pub(super) fn fails(&self) {
        self.failing.store(true, Ordering::Relaxed);
    }

    /// `age` is the event's when it was sent.
    pub(super) fn attempted(&self, outcome: &'static str, age: Duration) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        *attempts.entry(outcome).or_default() += 1;
        if outcome == "delivered" {
            let ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            self.delivered_ms.fetch_add(ms, Ordering::Relaxed);
        }
    }

    pub(super) fn waits(&self, found: Option<Backlog>) {
        let now = Instant::now();
        let since = |age| now.checked_sub(age).unwrap_or(now);
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) =
            found.map(|backlog| (backlog.due, since(backlog.oldest)));
    }

    /// The lines of what waits; none while that is not known.
    fn backlog(&self) -> String {
        let waits = *self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((due, since)) = waits else { return String::new() };
        let age = if due == 0 { 0.0 } else { since.elapsed().as_secs_f64() };
        format!(
            "# HELP gatehouse_webhooks_due Deliveries that are due and not sent, up to 10 000.\n\
             # TYPE gatehouse_webhooks_due gauge\n\
             gatehouse_webhooks_due {due}\n\
             # HELP gatehouse_webhooks_oldest_due_seconds For how long the oldest of them has been.\n\
             # TYPE gatehouse_webhooks_oldest_due_seconds gauge\n\
             gatehouse_webhooks_oldest_due_seconds {age:.3}\n"
        )
    }

    /// The text form of Prometheus.
    pub fn render(&self) -> String {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of = |outcome: &str| attempts.get(outcome).copied().unwrap_or(0);
        let line = |outcome: &str| {
            let count = of(outcome);
            format!("gatehouse_webhook_attempts_total{{outcome=\"{outcome}\"}} {count}\n")
        };
        let lines = OUTCOMES.map(line).concat();
        let (delivered, ms) = (of("delivered"), self.delivered_ms.load(Ordering::Relaxed));
        let seconds = Duration::from_millis(ms).as_secs_f64();
        format!(
            "# HELP gatehouse_webhook_attempts_total Attempts to deliver, by what became of them.\n\
             # TYPE gatehouse_webhook_attempts_total counter\n\
             {lines}\
             # HELP gatehouse_webhook_lag_seconds From an event to the attempt that delivered it.\n\
             # TYPE gatehouse_webhook_lag_seconds summary\n\
             gatehouse_webhook_lag_seconds_sum {seconds:.3}\n\
             gatehouse_webhook_lag_seconds_count {delivered}\n{}",
            self.backlog()
        )
    }
}
