//! How much room limits take: in Redis, and in a sidecar.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::Tier;
use gatehouse_xtask::bench::figures::Figure;

use super::Bench;
use crate::{
    fleet::{Fleet, Settings, ask, question, tenant},
    wait,
};

/// Tenants that are active at once.
const ACTIVE: usize = 10_000;

/// Bytes of a full window, and what is left of it two windows later.
pub(super) fn redis(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let window = Duration::from_secs(3);
    let settings =
        Settings { window, mode: "strict", tiers: [60, 600, 6000], ..Settings::default() };
    let fleet = Fleet::over_redis(bench.dir, 1, &settings)?;
    let (sidecar, redis) = (fleet.sidecars.first().context("no sidecar")?, fleet.store.redis()?);
    let mut bytes = Vec::new();
    for (tier, limit) in [(Tier::Free, 60), (Tier::Enterprise, 6000)] {
        let tenant = tenant();
        // Spread over the window's slots until it is full.
        for _ in 0..20 {
            sidecar.check(&ask(tenant, tier, "GET", limit / 20))?;
            std::thread::sleep(window / 24);
        }
        let keys = redis.ask(&["--scan", "--pattern", &format!("rl:{{{tenant}}}:*")])?;
        for key in keys.lines().filter(|key| key.contains(":tenant:")) {
            let used: f64 = redis.ask(&["MEMORY", "USAGE", key])?.trim().parse()?;
            writeln!(bench.shown, "a full window at limit {limit}: {used} bytes in Redis")?;
            bytes.push(used);
        }
    }
    ensure!(bytes.len() == 2, "{} windows of tenants in Redis", bytes.len());
    wait::until_instant(std::time::Instant::now() + 2 * window);
    let left = redis.ask(&["--scan", "--pattern", "rl:{*"])?;
    let left = left.lines().filter(|line| !line.is_empty()).count() as f64;
    let most = bytes.iter().copied().fold(0.0, f64::max);
    Ok([
        Figure::new("redis_bytes_per_limit", "bytes", (400.0, 240.0), &[most]),
        Figure::new("keys_left", "keys", (0.0, 0.0), &[left]),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// Resident memory with many active tenants.
pub(super) fn sidecar(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let settings = Settings { burst: 5, ..Settings::default() };
    let fleet = Fleet::over_redis(bench.dir, 1, &settings)?;
    let sidecar = fleet.sidecars.first().context("no sidecar")?;
    let empty = resident_mb(sidecar.process.id())?;
    let asks = (0..ACTIVE).map(|_| question(&ask(tenant(), Tier::Enterprise, "GET", 1)));
    let file = bench.questions("active", asks)?;
    let seconds = if bench.options.quick { 4 } else { 10 };
    let summary =
        bench.load("grpc", &[sidecar.listen], &file, (2, 32), Duration::from_secs(seconds))?;
    ensure!(summary.answered() > 2 * ACTIVE, "too slow to touch every tenant twice: {summary:?}");
    let full = resident_mb(sidecar.process.id())?;
    writeln!(
        bench.shown,
        "a sidecar: {empty:.1} MB at start, {full:.1} MB with {ACTIVE} active tenants"
    )?;
    Ok(Figure::new("sidecar_rss_mb", "MB", (32.0, 16.0), &[full]).into_iter().collect())
}

fn resident_mb(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
    Ok(kib / 1024.0)
}
