//! What a stopped Redis costs a check.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, Result};
use gatehouse_contract::Tier;
use gatehouse_xtask::bench::figures::Figure;

use super::Bench;
use crate::fleet::{Fleet, Settings, Stalled, ask, question, tenant};

const WAYS: (usize, usize) = (2, 32);

pub(super) fn stalled(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    // The product's own deadline and policy.
    let deadline = Duration::from_millis(25);
    let tiers = [10_000_000; 3];
    let settings =
        Settings { mode: "strict", away: "local", deadline, tiers, ..Settings::default() };
    let deadline_us = settings.deadline.as_secs_f64() * 1e6;
    let fleet = Fleet::over_redis(bench.dir, 1, &settings)?;
    let sidecar = fleet.sidecars.first().context("no sidecar")?;
    let asks = (0..1000).map(|_| question(&ask(tenant(), Tier::Enterprise, "GET", 1)));
    let file = bench.questions("many", asks)?;
    let load = |span| bench.load("grpc", &[sidecar.listen], &file, WAYS, span);
    let (mut stopped, mut open) = (Vec::new(), Vec::new());
    let (mut healthy_us, mut open_us, mut first_us) = (0.0, 0.0, 0.0);
    for _ in 0..bench.options.rounds().min(7) {
        fleet.wait_ready()?;
        load(Duration::from_millis(300))?;
        let healthy = load(bench.options.slice())?;
        let stalled = Stalled::new(&fleet.store.redis()?.process)?;
        // As long as it takes to see that nobody answers: every check that waits, waits now.
        let first = load(Duration::from_millis(40))?;
        let broken = load(bench.options.slice())?;
        drop(stalled);
        stopped.push(first.p99_us / deadline_us);
        open.push(broken.p99_us / healthy.p99_us);
        (healthy_us, open_us, first_us) = (healthy.p99_us, broken.p99_us, first.p99_us);
    }
    writeln!(
        bench.shown,
        "p99 of a check: {healthy_us:.0} µs, {first_us:.0} µs as Redis stops (deadline {deadline_us:.0} µs), {open_us:.0} µs with the breaker open (last round)"
    )?;
    Ok([
        Figure::new("stalled_ratio", "ratio", (1.5, 1.1), &stopped),
        Figure::new("breaker_ratio", "ratio", (1.0, 0.3), &open),
    ]
    .into_iter()
    .flatten()
    .collect())
}
