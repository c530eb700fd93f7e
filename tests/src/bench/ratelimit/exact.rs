//! How many too many, and how many too few.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use gatehouse_contract::Tier;
use gatehouse_xtask::bench::figures::Figure;
use serde_json::json;

use super::{
    Bench,
    charges::{self, Charges},
};
use crate::{
    checker::{Entry, Outcome, fullest, tally},
    envoy::Gateway,
    fleet::{Fleet, Settings, ask, relay::Relay, tenant, way},
    front::Outside,
    load::{Clock, Load, Plan},
};

const LIMITS: [u32; 3] = [60, 600, 6000];
const TIERS: [Tier; 3] = [Tier::Free, Tier::Pro, Tier::Enterprise];
const CLIENTS: usize = 64;
/// How many sidecars are asked, and by whom: by the clients at their sockets, or by the compiled module in an Envoy before
/// each, with so many workers.
const FRONTS: [(usize, Option<u8>); 5] =
    [(1, None), (2, None), (8, None), (1, Some(2)), (2, Some(1))];
/// What a second at the clients may hold beyond the burst: a lease is charged to it whole at the grant, and used up
/// to its end (design §3.4: at most 1.2 ×).
const BURST_AND_LEASES: (u32, u32) = (12, 10);

/// Requests over the limit, counted from the clients' 200s, over all windows.
pub(super) fn over_admitted(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let window = bench.options.window();
    let mut worst = 0;
    writeln!(
        bench.shown,
        "fullest window of {window:?} at limits 60/600/6000 (through Envoy 60/600), 64 clients each:"
    )?;
    // Times the limit's rate: five in the product's window; in a short one that would be no guard.
    let guard = if bench.options.quick { 1 } else { 5 };
    for (sidecars, workers) in FRONTS {
        let name = match workers {
            None => format!("{sidecars} sidecars"),
            Some(workers) => format!("{sidecars} Envoys of {workers} workers, leases"),
        };
        // At the same time, each over a Redis of its own.
        let both = std::thread::scope(|scope| {
            let shared = &*bench;
            let crowd = |burst| move || crowd(shared, sidecars, workers, burst);
            let (off, on) = (scope.spawn(crowd(0)), scope.spawn(crowd(guard)));
            [("off", off), ("on", on)].map(|(burst, load)| (burst, load.join()))
        });
        for (burst, load) in both {
            let name = format!("{name}, burst {burst}");
            let load = load.map_err(|_| anyhow!("{name}: the load broke"))?;
            let (over, text) = load.context(name.clone())?;
            worst = worst.max(over);
            writeln!(bench.shown, "  {name}: {text}")?;
        }
    }
    writeln!(
        bench.shown,
        "  second: the most that clients saw, at most 1.2 × the guard; granted: what the sidecars' logs say was charged in any\n\
         second, at most the guard itself"
    )?;
    // Every run counts, not the middle one.
    let worst = [f64::from(worst)];
    Ok(Figure::new("over_admitted", "requests", (0.0, 0.0), &worst).into_iter().collect())
}

/// One load at all limits, each with a tenant and clients of its own: how many requests too many in any window, and what
/// was seen.
fn crowd(
    bench: &Bench<'_>,
    sidecars: usize,
    workers: Option<u8>,
    burst: u32,
) -> Result<(u32, String)> {
    let window = bench.options.window();
    let dir = bench.dir.join(format!("over-{sidecars}-{}-{burst}", workers.unwrap_or(0)));
    std::fs::create_dir_all(&dir)?;
    let tenants = TIERS.map(|tier| (tenant(), tier));
    let outside = Outside::with_tiers(move |tenant| {
        tenants.iter().find(|(known, _)| *known == tenant).map_or(Tier::Free, |(_, tier)| *tier)
    })?;
    let (more, log) = (outside.members(), Some(charges::LOG));
    let settings = Settings { window, tiers: LIMITS, burst, more, log, ..Settings::default() };
    let fleet = Fleet::over_redis(&dir, sidecars, &settings)?;
    let relay = Relay::start(fleet.store.redis()?, 0)?;
    let mut gateways = Vec::new();
    for (n, sidecar) in fleet.sidecars.iter().enumerate() {
        let Some(workers) = workers else { break };
        let place = dir.join(format!("envoy-{n}"));
        let changes = json!({"sidecar": {"timeout_ms": 1000}});
        let limiter = json!({"away": "closed", "leases": true});
        let mut at = outside.gateway_with(&place, sidecar.listen, &changes, &limiter)?;
        at.workers = workers;
        gateways.push(Gateway::run(&place, at)?);
    }
    let clock = Clock::start();
    let mut loads = Vec::new();
    // Behind the module a machine of two cores may not get as far as the highest limit.
    let limits = if gateways.is_empty() { 3 } else { 2 };
    for (key, (tenant, tier)) in (0..).zip(tenants).take(limits) {
        let (targets, way) = if gateways.is_empty() {
            (fleet.targets(), way(key, &ask(tenant, tier, "GET", 1))?)
        } else {
            let targets = gateways.iter().map(|gateway| gateway.listen).collect();
            (targets, outside.way(key, tenant)?)
        };
        // A pause keeps refusals from taking the machine for themselves.
        let pace = Duration::from_millis(if key == 2 { 30 } else { 80 });
        let plan = Plan { clients: CLIENTS, pace, ..Plan::new(targets, vec![way]) };
        loads.push(plan.start(clock));
    }
    // Two edges of windows that begin with the load, and all between them.
    std::thread::sleep(window * 2 + window / 5);
    let logs = loads.iter_mut().map(Load::stop).collect::<Result<Vec<_>>>()?;
    let leased = gateways.iter().map(leased).sum::<Result<u64>>()?;
    ensure!(gateways.is_empty() || leased > 0, "no request was decided on a pass");
    drop((gateways, relay));
    let (mut worst, mut seen) = (0, Vec::new());
    for ((log, limit), (tenant, _)) in logs.iter().zip(LIMITS).zip(tenants) {
        let [allowed, denied, unavailable, lost] = tally(&log.entries);
        ensure!(lost == 0, "limit {limit}: {lost} requests without an answer");
        ensure!(denied > 0, "limit {limit}: never reached");
        let most = fullest(&log.entries, window).allowed;
        let mut over = most.saturating_sub(limit);
        let mut text = format!("{most}/{limit}");
        let charges = Charges::of(&fleet, tenant)?;
        if burst > 0 {
            let per_second = u64::from(burst) * u64::from(limit) / window.as_secs();
            let per_second = u32::try_from(per_second)?;
            let second = fullest(&log.entries, Duration::from_secs(1)).allowed;
            let may = per_second * BURST_AND_LEASES.0 / BURST_AND_LEASES.1;
            let granted = u32::try_from(charges.fullest_second())?;
            over = over.max(second.saturating_sub(may)).max(granted.saturating_sub(per_second));
            text = format!("{text} (second {second}, granted {granted}, of {per_second})");
        }
        let all = charges.total() >= i64::try_from(allowed)?;
        ensure!(all || over > 0, "limit {limit}: the logs do not say all that was charged");
        if unavailable > 0 {
            text = format!("{text} ({unavailable} unavailable)");
        }
        worst = worst.max(over);
        seen.push(text);
    }
    if leased > 0 {
        seen.push(format!("{leased} on a pass"));
    }
    Ok((worst, seen.join("  ")))
}

/// How many requests a gateway's VMs decided on passes that they had taken along.
fn leased(gateway: &Gateway) -> Result<u64> {
    let of = |tier: Tier| gateway.stat(&format!("wasmcustom.gatehouse_limiter_{tier}_leased"));
    TIERS.into_iter().map(of).sum()
}

/// What leases leave unused, of what the same algorithm admits without them. In the product's own window, whatever the
/// options: what is charged ahead leaves a window later by the time of a hold, which is a part of the window's length.
/// Both sides run at the same time, each over a Redis of its own, far below what the machine can do.
pub(super) fn under_admitted(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let window = Duration::from_secs(60);
    let mut fleets = Vec::new();
    for mode in ["strict", "auto"] {
        let dir = bench.dir.join(mode);
        std::fs::create_dir_all(&dir)?;
        let settings = Settings { window, tiers: LIMITS, mode, ..Settings::default() };
        fleets.push(Fleet::over_redis(&dir, 2, &settings)?);
    }
    let mut rounds = Vec::new();
    for _ in 0..if bench.options.quick { 1 } else { 3 } {
        let mut loads = Vec::new();
        for fleet in &fleets {
            let asks =
                TIERS.iter().zip(0..).map(|(tier, key)| way(key, &ask(tenant(), *tier, "GET", 1)));
            let ways = asks.collect::<Result<Vec<_>>>()?;
            // Of each tenant about 500 in a second: its limit is reached long before its window ends.
            let plan = Plan {
                clients: CLIENTS,
                pace: Duration::from_millis(40),
                ..Plan::new(fleet.targets(), ways)
            };
            loads.push(plan.start(Clock::start()));
        }
        // The second window is where passes are missed that left the first one late.
        std::thread::sleep(window * 21 / 10);
        let mut admitted = Vec::new();
        for load in &mut loads {
            let passed = |entry: &&Entry| entry.outcome == Outcome::Allowed;
            // More requests than a double counts exactly would take years.
            admitted.push(load.stop()?.entries.iter().filter(passed).count() as f64);
        }
        if let [strict, leased] = admitted.as_slice() {
            writeln!(bench.shown, "admitted in 126 s: {strict} one by one, {leased} with leases")?;
            rounds.push((100.0 * (strict - leased) / strict).max(0.0));
        }
    }
    Ok(Figure::new("under_admitted_pct", "%", (1.0, 0.2), &rounds).into_iter().collect())
}
