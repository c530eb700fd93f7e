//! What the worker counts, in Prometheus' text form. Labels are bounded: reasons, results and points, never a tenant.
//! Knows no listener.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use gatehouse_execution::{EndReason, Hook};
use tokio::sync::watch;

use crate::{driver::Starts, egress::Asked, image, reload::InEffect};

/// The media type of the text form.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What came of a changed configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// It is in effect.
    Taken,
    /// It has mistakes.
    Refused,
    /// It changes what only a start can.
    NeedsRestart,
}

/// What came of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It runs here.
    Made,
    /// Somebody else's, ended, or without a slot.
    NotOurs,
    /// The database was away.
    Failed,
    /// It could not be read.
    Parked,
}

/// How a run was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// The worker goes away.
    HandedBack,
    /// The lease was another's.
    LeaseLost,
}

/// The counters; cheap to clone, all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    claims: [AtomicU64; Claim::ALL.len()],
    ends: [AtomicU64; EndReason::ALL.len()],
    run_us: AtomicU64,
    given_up: [AtomicU64; GivenUp::ALL.len()],
    warned: AtomicU64,
    running: AtomicU64,
    spooled: AtomicU64,
    dropped: AtomicU64,
    reloads: [AtomicU64; Reloaded::ALL.len()],
    reload: AtomicU64,
    hooks: [[AtomicU64; 2]; Hook::ALL.len()],
}

/// What others know at the moment of asking.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// Messages that were put aside; none where Redis did not say.
    pub parked: Option<u64>,
    /// Results that wait for the database.
    pub spool: usize,
    /// How runs began, where sandboxes are made in advance.
    pub starts: Option<Starts>,
    /// What runs have asked outside, where they may.
    pub asked: Option<Asked>,
    /// What was done for images, where there are any.
    pub images: Option<image::Told>,
    /// Bytes of running logs that went to Redis, and that were left out.
    pub log_bytes: (u64, u64),
}

/// Counted down when the run is over, however it ends.
#[derive(Debug)]
pub struct Running(Metrics);

// === impl Claim, GivenUp, Reloaded ===

impl Claim {
    const ALL: [Self; 4] = [Self::Made, Self::NotOurs, Self::Failed, Self::Parked];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::NotOurs => "not_ours",
            Self::Failed => "failed",
            Self::Parked => "parked",
        }
    }
}

impl GivenUp {
    const ALL: [Self; 2] = [Self::HandedBack, Self::LeaseLost];

    const fn as_str(self) -> &'static str {
        match self {
            Self::HandedBack => "handed_back",
            Self::LeaseLost => "lease_lost",
        }
    }
}

impl Reloaded {
    const ALL: [Self; 3] = [Self::Taken, Self::Refused, Self::NeedsRestart];

    /// What `/readyz` and `/metrics` call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Refused => "refused",
            Self::NeedsRestart => "needs_restart",
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// Counts a message.
    pub fn claimed(&self, claim: Claim) {
        add(self.0.claims.get(claim as usize), 1);
    }

    /// Counts an attempt whose end is stored.
    pub fn ended(&self, reason: EndReason, took: Duration) {
        add(at(&EndReason::ALL, reason).and_then(|at| self.0.ends.get(at)), 1);
        self.0.run_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Counts a run that others go on with.
    pub fn given_up(&self, how: GivenUp) {
        add(self.0.given_up.get(how as usize), 1);
    }

    /// Counts a run that has used 80 % of its time.
    pub fn warned(&self) {
        self.0.warned.fetch_add(1, Relaxed);
    }

    /// Counts a result that was put into the spool.
    pub fn spooled(&self) {
        self.0.spooled.fetch_add(1, Relaxed);
    }

    /// Counts a result of the spool that nobody waits for any more.
    pub fn dropped(&self) {
        self.0.dropped.fetch_add(1, Relaxed);
    }

    /// Counts a changed file, and remembers what became of it.
    pub fn reloaded(&self, how: Reloaded) {
        add(self.0.reloads.get(how as usize), 1);
        self.0.reload.store(how as u64, Relaxed);
    }

    /// What became of the last changed file.
    pub fn last_reload(&self) -> Reloaded {
        let last = self.0.reload.load(Relaxed);
        Reloaded::ALL.into_iter().find(|how| *how as u64 == last).unwrap_or(Reloaded::Taken)
    }

    /// Counts a run of a hook.
    pub fn hook(&self, hook: Hook, well: bool) {
        let of = at(&Hook::ALL, hook).and_then(|at| self.0.hooks.get(at));
        add(of.and_then(|of| of.get(usize::from(!well))), 1);
    }

    /// Counts a run that goes on until the value is dropped.
    pub fn running(&self) -> Running {
        self.0.running.fetch_add(1, Relaxed);
        Running(self.clone())
    }

    /// `/metrics`, for the admin listener.
    pub fn router<F>(
        &self,
        effect: watch::Receiver<InEffect>,
        gauges: impl Fn() -> F + Clone + Send + Sync + 'static,
    ) -> Router
    where
        F: Future<Output = Gauges> + Send + 'static,
    {
        let metrics = self.clone();
        let text = async move || {
            let effect = effect.borrow().clone();
            ([("content-type", MEDIA_TYPE)], metrics.render(&effect, &gauges().await))
        };
        Router::new().route("/metrics", get(text))
    }

    fn render(&self, effect: &InEffect, gauges: &Gauges) -> String {
        let counters = &self.0;
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
            let mut write = || {
                writeln!(text, "# HELP gatehouse_worker_{name} {help}")?;
                writeln!(text, "# TYPE gatehouse_worker_{name} {kind}")?;
                samples.iter().try_for_each(|(labels, value)| {
                    writeln!(text, "gatehouse_worker_{name}{labels} {value}")
                })
            };
            // Writing into a string cannot fail.
            write().unwrap_or_default();
        };
        let of = |label: &str, word: &str, counter: &AtomicU64| {
            (format!("{{{label}=\"{word}\"}}"), number(counter))
        };
        let bare = |value: f64| [(String::new(), value)];
        let samples: Vec<_> = Claim::ALL
            .iter()
            .zip(&counters.claims)
            .map(|(claim, counter)| of("result", claim.as_str(), counter))
            .collect();
        family("claims_total", "counter", "Messages taken from the queue.", &samples);
        let samples: Vec<_> = EndReason::ALL
            .iter()
            .zip(&counters.ends)
            .map(|(reason, counter)| of("reason", reason.as_str(), counter))
            .collect();
        family("ends_total", "counter", "Attempts whose end was stored.", &samples);
        #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
        let seconds = counters.run_us.load(Relaxed) as f64 / 1e6;
        let help = "Seconds from claim to stored end, summed.";
        family("attempt_seconds_sum", "counter", help, &bare(seconds));
        let samples: Vec<_> = GivenUp::ALL
            .iter()
            .zip(&counters.given_up)
            .map(|(how, counter)| of("how", how.as_str(), counter))
            .collect();
        family("given_up_total", "counter", "Runs that others go on with.", &samples);
        let help = "Runs that used 80 % of their time.";
        family("time_warnings_total", "counter", help, &bare(number(&counters.warned)));
        family("running", "gauge", "Runs at this moment.", &bare(number(&counters.running)));
        #[expect(clippy::cast_precision_loss, reason = "at most 256")]
        let most = effect.live.concurrency as f64;
        family("concurrency", "gauge", "Runs at most.", &bare(most));
        let help = "Results kept until the database is back.";
        family("spooled_total", "counter", help, &bare(number(&counters.spooled)));
        let help = "Kept results whose lease was another's by then.";
        family("spool_dropped_total", "counter", help, &bare(number(&counters.dropped)));
        #[expect(clippy::cast_precision_loss, reason = "bounded by the concurrency")]
        let spool = gauges.spool as f64;
        family("spool", "gauge", "Results that wait for the database.", &bare(spool));
        if let Some(starts) = &gauges.starts {
            #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
            let count = |count: u64| count as f64;
            #[expect(clippy::cast_precision_loss, reason = "at most 256")]
            let prepared = starts.prepared as f64;
            family("prepared", "gauge", "Sandboxes that wait for a run.", &bare(prepared));
            let help = "Runs in a sandbox that was made in advance.";
            family("warm_starts_total", "counter", help, &bare(count(starts.warm)));
            let cold = |(why, cold): &(&str, u64)| (format!("{{reason=\"{why}\"}}"), count(*cold));
            let samples: Vec<_> = starts.cold.iter().map(cold).collect();
            family("cold_starts_total", "counter", "Runs in a new one, by why.", &samples);
        }
        if let Some(asked) = &gauges.asked {
            #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
            let count = |count: u64| count as f64;
            let result =
                |(result, n): (&&str, &u64)| (format!("{{result=\"{result}\"}}"), count(*n));
            let samples: Vec<_> = asked.results.iter().map(result).collect();
            let help = "Requests of agents to the outside, of runs that have ended.";
            family("egress_requests_total", "counter", help, &samples);
            let help = "Tokens that answers said they cost.";
            family("egress_tokens_total", "counter", help, &bare(count(asked.tokens)));
            let help = "Bytes of answers.";
            family("egress_bytes_total", "counter", help, &bare(count(asked.bytes)));
        }
        if let Some(told) = &gauges.images {
            #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
            let bare = |count: u64| bare(count as f64);
            #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
            let samples =
                [("found", told.found), ("unpacked", told.unpacked), ("failed", told.failed)]
                    .map(|(result, n)| (format!("{{result=\"{result}\"}}"), n as f64));
            let help = "Images of runs: kept from earlier, unpacked, or not to be had.";
            family("images_total", "counter", help, &samples);
            let help = "Bytes of layers that came from the registry.";
            family("image_pulled_bytes_total", "counter", help, &bare(told.bytes));
            let standing = &told.standing;
            family("image_kept_bytes", "gauge", "Bytes of kept images.", &bare(standing.bytes));
            let help = "Bytes of images that may be kept.";
            family("image_budget_bytes", "gauge", help, &bare(standing.budget));
            let help = "Kept layers and root file systems that had to make room.";
            family("image_evictions_total", "counter", help, &bare(standing.evicted));
        }
        if let Some(parked) = gauges.parked {
            #[expect(clippy::cast_precision_loss, reason = "at most some thousand are kept")]
            family("parked", "gauge", "Messages that nobody could read.", &bare(parked as f64));
        }
        let (told, dropped) = gauges.log_bytes;
        #[expect(clippy::cast_precision_loss, reason = "exact up to petabytes")]
        let samples = [("told", told), ("dropped", dropped)]
            .map(|(result, bytes)| (format!("{{result=\"{result}\"}}"), bytes as f64));
        family("log_bytes_total", "counter", "What running logs said, told or left out.", &samples);
        let samples: Vec<_> = Reloaded::ALL
            .iter()
            .zip(&counters.reloads)
            .map(|(how, counter)| of("result", how.as_str(), counter))
            .collect();
        family("reloads_total", "counter", "Changed configuration files.", &samples);
        let info = [(format!("{{version=\"{}\"}}", effect.version), 1.0)];
        family("config_info", "gauge", "The configuration in effect.", &info);
        let samples: Vec<_> = Hook::ALL
            .iter()
            .zip(&counters.hooks)
            .flat_map(|(hook, [well, ill])| [(hook, "done", well), (hook, "failed", ill)])
            .map(|(hook, result, counter)| {
                (format!("{{hook=\"{hook}\",result=\"{result}\"}}"), number(counter))
            })
            .collect();
        family("hooks_total", "counter", "Runs of lifecycle hooks.", &samples);
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.running.fetch_sub(1, Relaxed);
    }
}

fn at<T: PartialEq>(all: &[T], one: T) -> Option<usize> {
    all.iter().position(|other| *other == one)
}

fn add(counter: Option<&AtomicU64>, count: u64) {
    if let Some(counter) = counter {
        counter.fetch_add(count, Relaxed);
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
fn number(counter: &AtomicU64) -> f64 {
    counter.load(Relaxed) as f64
}
