//! One fault at a time under load: a part is stalled, killed and begun again while clients never stop asking, and the
//! checker judges what they saw. When and for how long comes from a seed. Knows what is promised of each case, and
//! nothing of how the product keeps it.

use std::{fmt, path::Path, time::Duration};

use anyhow::{Context, Result};
use gatehouse_contract::Tier;
use serde_json::json;

use crate::{
    checker::{self, Entry, Outcome, Promise},
    envoy::Gateway,
    fleet::{Fleet, Settings, Stalled, ask, tenant, way},
    front::Outside,
    load::{Clock, Load, Log, Plan},
};

/// Sidecars of every case.
const SIDECARS: usize = 2;
/// Limits of the three tiers, one tenant each: the least is always asked for one by one, the others by leases.
const LIMITS: [u32; 3] = [40, 200, 1000];
const CLIENTS: usize = 32;
/// How long the filter waits; a machine that builds at the same time must not turn slowness into refusals.
const CALL_OUT_MS: u64 = 500;
/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(8);
/// How long after a fault it may take until every sidecar has seen it.
const NOTICED: Duration = Duration::from_millis(800);

/// Of a sidecar for its store: a machine that builds at the same time must not make outages of its own, and a real
/// one is seen before [`NOTICED`] is over.
const DEADLINE: Duration = Duration::from_millis(250);

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Redis is stopped (SIGSTOP) and goes on.
    RedisStalled,
    /// Redis is killed (SIGKILL) and begins again, with its data or without.
    RedisKilled {
        /// Whether it keeps its data.
        data: bool,
    },
    /// A sidecar is stopped and goes on.
    SidecarStalled,
    /// A sidecar is killed and begins again.
    SidecarKilled,
    /// One of two Envoys is killed and begins again.
    EnvoyKilled,
}

/// A case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What happens.
    pub fault: Fault,
    /// The policy for the time without a store.
    pub away: &'static str,
}

/// Every case.
pub const CASES: &[Case] = &[
    case("redis-stalled-closed", Fault::RedisStalled, "closed"),
    case("redis-killed-closed", Fault::RedisKilled { data: true }, "closed"),
    case("redis-emptied-closed", Fault::RedisKilled { data: false }, "closed"),
    case("redis-stalled-local", Fault::RedisStalled, "local"),
    case("redis-killed-local", Fault::RedisKilled { data: true }, "local"),
    case("redis-emptied-local", Fault::RedisKilled { data: false }, "local"),
    case("sidecar-stalled", Fault::SidecarStalled, "closed"),
    case("sidecar-killed", Fault::SidecarKilled, "closed"),
    case("envoy-killed", Fault::EnvoyKilled, "closed"),
];

const fn case(name: &'static str, fault: Fault, away: &'static str) -> Case {
    Case { name, fault, away }
}

/// What came of a case.
#[derive(Debug, Clone)]
pub struct Line {
    /// Which.
    pub case: Case,
    /// Of when and how long.
    pub seed: u64,
    /// Allowed, denied, refused for another reason, lost.
    pub tally: [usize; 4],
    /// Requests whose connection broke, which were asked again.
    pub cut: u64,
    /// The longest time to an answer.
    pub longest: Duration,
    /// The fullest window of each tenant, and its limit.
    pub fullest: Vec<(u32, u32)>,
    /// What was not kept.
    pub broken: Vec<String>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [allowed, denied, unavailable, lost] = self.tally;
        let full = self.fullest.iter().map(|(most, limit)| format!("{most}/{limit}"));
        write!(
            f,
            "{:<22} seed {:<3} {allowed:>6} allowed {denied:>6} denied {unavailable:>6} unavailable {lost} lost \
             {:>4} cut; longest {:>5} ms; fullest {}; {}",
            self.case.name,
            self.seed,
            self.cut,
            self.longest.as_millis(),
            full.collect::<Vec<_>>().join(" "),
            if self.broken.is_empty() { "kept".to_owned() } else { self.broken.join("; ") },
        )
    }
}

/// Moments that are the same for the same seed (xorshift).
struct Moments(u64);

impl Moments {
    fn between(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(from_ms + self.0 % (to_ms - from_ms))
    }
}

/// Plays a case with windows of this length.
pub fn play(case: &Case, seed: u64, window: Duration) -> Result<Line> {
    let dir = tempfile::Builder::new().prefix("gatehouse-chaos-").tempdir()?;
    let played = run(case, seed, window, dir.path());
    if played.as_ref().map_or(true, |line| !line.broken.is_empty()) {
        eprintln!("logs are in {}", dir.keep().display());
    }
    played
}

fn run(case: &Case, seed: u64, window: Duration, dir: &Path) -> Result<Line> {
    let outside = Outside::start(Tier::Enterprise)?;
    let settings = Settings {
        window,
        tiers: LIMITS,
        away: case.away,
        deadline: DEADLINE,
        more: outside.members(),
        ..Settings::default()
    };
    let mut fleet = Fleet::over_redis(dir, SIDECARS, &settings)?;
    let behind = case.fault == Fault::EnvoyKilled;
    let mut gateways = Vec::new();
    let mut targets = fleet.targets();
    let mut limits: Vec<u32> = LIMITS.to_vec();
    let ways = if behind {
        for (n, sidecar) in fleet.sidecars.iter().enumerate() {
            let place = dir.join(format!("envoy-{n}"));
            let at = outside.gateway_with(
                &place,
                sidecar.listen,
                &json!({"sidecar": {"timeout_ms": CALL_OUT_MS}}),
                &json!({"away": case.away, "leases": true}),
            )?;
            gateways.push((Gateway::run(&place, at.clone())?, place, at));
        }
        targets = gateways.iter().map(|(gateway, ..)| gateway.listen).collect();
        limits = vec![LIMITS[2]];
        vec![outside.way(0, tenant())?]
    } else {
        let ways = (0..).zip([Tier::Free, Tier::Pro, Tier::Enterprise]);
        ways.map(|(key, tier)| way(key, &ask(tenant(), tier, "GET", 1))).collect::<Result<_>>()?
    };
    let clock = Clock::start();
    let mut load = Plan { clients: CLIENTS, pace: PACE, ..Plan::new(targets, ways) }.start(clock);
    let mut moments = Moments(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    rest(window * 3 / 2 + moments.between(0, 300));
    let begin = clock.now();
    let lasts = moments.between(400, 1200);
    match case.fault {
        Fault::RedisStalled => {
            let stalled = Stalled::new(&fleet.store.redis()?.process)?;
            rest(lasts);
            drop(stalled);
        }
        Fault::RedisKilled { data } => {
            fleet.store.redis_mut()?.process.kill()?;
            rest(lasts);
            fleet.store.redis_mut()?.again(data)?;
        }
        Fault::SidecarStalled => {
            let sidecar = fleet.sidecars.first().context("no sidecar")?;
            let stalled = Stalled::new(&sidecar.process)?;
            rest(lasts);
            drop(stalled);
        }
        Fault::SidecarKilled => {
            let sidecar = fleet.sidecars.first_mut().context("no sidecar")?;
            sidecar.process.kill()?;
            rest(lasts);
            sidecar.again()?;
        }
        Fault::EnvoyKilled => {
            let (gateway, place, at) = gateways.first_mut().context("no Envoy")?;
            gateway.process.kill()?;
            rest(lasts);
            *gateway = Gateway::run(place, at.clone())?;
        }
    }
    let end = clock.now();
    fleet.wait_ready()?;
    let ready = clock.now();
    rest(window * 3 / 2);
    let log = finish(&mut load)?;
    let switches = if case.away == "local" {
        vec![(begin, (begin + NOTICED).min(end)), (end, ready + NOTICED)]
    } else {
        Vec::new()
    };
    Ok(judge(case, seed, window, &limits, switches, &log))
}

/// Nothing is waited for but time itself: the load goes on.
fn rest(span: Duration) {
    std::thread::sleep(span);
}

fn finish(load: &mut Load) -> Result<Log> {
    load.stop()
}

fn judge(
    case: &Case,
    seed: u64,
    window: Duration,
    limits: &[u32],
    switches: Vec<(Duration, Duration)>,
    log: &Log,
) -> Line {
    let (mut broken, mut fullest) = (Vec::new(), Vec::new());
    let sidecars = u32::try_from(SIDECARS).unwrap_or(1);
    for (key, limit) in (0..).zip(limits) {
        let own: Vec<Entry> = log.entries.iter().filter(|e| e.key == key).copied().collect();
        let shares = if switches.is_empty() { 0 } else { limit / sidecars * sidecars };
        let promise = Promise { window, limit: *limit, shares, switches: switches.clone() };
        broken.extend(promise.broken(&own).iter().map(|b| format!("{}: {b}", case.name)));
        fullest.push((checker::fullest(&own, window).allowed, *limit));
    }
    let took = |entry: &Entry| entry.answered.saturating_sub(entry.sent);
    if !log.entries.iter().any(|entry| entry.outcome == Outcome::Denied) {
        broken.push(format!("{}: no limit was ever reached", case.name));
    }
    Line {
        case: *case,
        seed,
        tally: checker::tally(&log.entries),
        cut: log.cut,
        longest: log.entries.iter().map(took).max().unwrap_or_default(),
        fullest,
        broken,
    }
}
