//! What the deliverer tells operators: a word for readiness, and metrics. Knows no clock but the monotonic one.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gatehouse_store::deliveries::Backlog;

/// What is due and not sent for longer than this is late.
const LATE: Duration = Duration::from_secs(60);

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

    /// The text form of Prometheus.
    pub fn render(&self) -> String {
        let mut text = String::from(
            "# HELP gatehouse_webhook_attempts_total Attempts to deliver, by what became of them.\n\
             # TYPE gatehouse_webhook_attempts_total counter\n",
        );
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for outcome in ["delivered", "retried", "failed", "gone", "unsettled"] {
            let count = attempts.get(outcome).copied().unwrap_or(0);
            // Writing to a string does not fail.
            let _ =
                writeln!(text, "gatehouse_webhook_attempts_total{{outcome=\"{outcome}\"}} {count}");
        }
        let delivered = attempts.get("delivered").copied().unwrap_or(0);
        let seconds =
            Duration::from_millis(self.delivered_ms.load(Ordering::Relaxed)).as_secs_f64();
        let _ = write!(
            text,
            "# HELP gatehouse_webhook_lag_seconds From an event to the attempt that delivered it.\n\
             # TYPE gatehouse_webhook_lag_seconds summary\n\
             gatehouse_webhook_lag_seconds_sum {seconds:.3}\n\
             gatehouse_webhook_lag_seconds_count {delivered}\n"
        );
        let waits = *self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((due, since)) = waits {
            let age = if due == 0 { 0.0 } else { since.elapsed().as_secs_f64() };
            let _ = write!(
                text,
                "# HELP gatehouse_webhooks_due Deliveries that are due and not sent, up to 10 000.\n\
                 # TYPE gatehouse_webhooks_due gauge\n\
                 gatehouse_webhooks_due {due}\n\
                 # HELP gatehouse_webhooks_oldest_due_seconds For how long the oldest of them has been.\n\
                 # TYPE gatehouse_webhooks_oldest_due_seconds gauge\n\
                 gatehouse_webhooks_oldest_due_seconds {age:.3}\n"
            );
        }
        text
    }
}
