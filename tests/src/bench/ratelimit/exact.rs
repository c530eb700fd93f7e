//! How many too many, and how many too few.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Result, ensure};
use gatehouse_contract::Tier;
use gatehouse_xtask::bench::figures::Figure;

use super::Bench;
use crate::{
    checker::{Entry, Outcome, fullest, tally},
    fleet::{Fleet, Settings, ask, tenant, way},
    load::{Clock, Plan},
};

const LIMITS: [u32; 3] = [60, 600, 6000];
const TIERS: [Tier; 3] = [Tier::Free, Tier::Pro, Tier::Enterprise];
const CLIENTS: usize = 64;
/// What a second at the clients may hold beyond the burst: a lease is charged to it whole at the grant, and used up
/// to its end (design §3.4: at most 1.2 ×).
const BURST_AND_LEASES: (u32, u32) = (12, 10);

/// Requests over the limit, counted from the clients' 200s, over all windows.
pub(super) fn over_admitted(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let window = bench.options.window();
    let mut rounds = Vec::new();
    writeln!(bench.shown, "fullest window of {window:?} at limits 60/600/6000, 64 clients each:")?;
    for count in [1, 2, 8] {
        // Times the limit's rate: five in the product's window; in a short one that would be no guard.
        for burst in [0, if bench.options.quick { 1 } else { 5 }] {
            let dir = bench.dir.join(format!("over-{count}-{burst}"));
            std::fs::create_dir_all(&dir)?;
            let settings = Settings { window, tiers: LIMITS, burst, ..Settings::default() };
            let fleet = Fleet::over_redis(&dir, count, &settings)?;
            let clock = Clock::start();
            // Each limit has clients of its own. A pause keeps refusals from taking the machine for themselves.
            let mut loads = Vec::new();
            for (key, tier) in (0..).zip(TIERS) {
                let ways = vec![way(key, &ask(tenant(), tier, "GET", 1))?];
                let pace = Duration::from_millis(if key == 2 { 15 } else { 40 });
                let plan = Plan { clients: CLIENTS, pace, ..Plan::new(fleet.targets(), ways) };
                loads.push(plan.start(clock));
            }
            // Two edges of windows that begin with the load, and all between them.
            std::thread::sleep(window * 2 + window / 5);
            let mut seen = Vec::new();
            for (load, limit) in loads.iter_mut().zip(LIMITS) {
                let log = load.stop()?;
                let [_, _, unavailable, lost] = tally(&log.entries);
                ensure!(
                    lost == 0,
                    "{count} sidecars, limit {limit}: {lost} requests without an answer"
                );
                let most = fullest(&log.entries, window).allowed;
                let mut over = most.saturating_sub(limit);
                let mut text = format!("{most}/{limit}");
                if burst > 0 {
                    let per_second = u64::from(burst) * u64::from(limit) / window.as_secs();
                    let per_second = u32::try_from(per_second)?;
                    let second = fullest(&log.entries, Duration::from_secs(1)).allowed;
                    let may = per_second * BURST_AND_LEASES.0 / BURST_AND_LEASES.1;
                    over = over.max(second.saturating_sub(may));
                    text = format!("{text} (second {second}/{per_second})");
                }
                if unavailable > 0 {
                    text = format!("{text} ({unavailable} unavailable)");
                }
                rounds.push(f64::from(over));
                seen.push(text);
            }
            let guard = if burst == 0 { "off" } else { "on" };
            writeln!(bench.shown, "  {count} sidecars, burst {guard}: {}", seen.join("  "))?;
        }
    }
    // Every run counts, not the middle one.
    let worst = rounds.iter().copied().fold(0.0, f64::max);
    Ok(Figure::new("over_admitted", "requests", (0.0, 0.0), &[worst]).into_iter().collect())
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
