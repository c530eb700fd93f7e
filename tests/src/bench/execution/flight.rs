//! `in_flight`: how many executions one worker holds, and what they take of its memory. They sleep in the sim driver; all
//! else of them is what it is with any driver.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gatehouse_contract::Tier;
use gatehouse_xtask::bench::figures::Figure;
use serde_json::json;

use super::{
    Bench, at_least, at_most,
    queue::{engine, fill},
};
use crate::{engine::PATIENCE, wait};

const FLOOR: u32 = 10_000;
const AIM: u32 = 100_000;
/// Whose they are: what a claim costs grows with what its tenant runs already.
const TENANTS: u32 = 100;
/// Until all of them are claimed.
const CLAIMED: Duration = Duration::from_secs(600);

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let most = if bench.options.quick { FLOOR } else { AIM };
    let tiers = [Tier::Enterprise; TENANTS as usize];
    let engine = engine(&tiers, most + 1000)?;
    engine.raise_limits(1_000_000)?;
    let worker = engine.workers.first().context("no worker")?;
    let empty = worker.rss()?;
    let mut observer = engine.postgres.observer();
    let mut running = move || -> Result<u32> {
        Ok(observer.ask("SELECT count(*) FROM executions WHERE state = 'running'")?.parse()?)
    };
    // Longer than any of this takes: who is counted at the end was held all the time.
    for tenant in &engine.tenants {
        fill(&engine, tenant, most / TENANTS, 1, &json!({"ms": 3_000_000}))?;
    }
    let at_floor = wait::until("the floor", CLAIMED, || {
        let now = running()?;
        ensure!(now >= FLOOR, "{now} run");
        Ok(Some(worker.rss()?))
    })?;
    let mut held = 0;
    // What was reached counts, whether it was all or not.
    let reached =
        wait::until("all are held", if most > FLOOR { CLAIMED } else { PATIENCE }, || {
            held = held.max(running()?);
            Ok((held >= most).then_some(()))
        });
    let at_end = worker.rss()?;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    bench.say(&format!(
        "in flight: {held} held with {:.0} MB, {FLOOR} with {:.0} MB, none with {:.0} MB",
        mb(at_end),
        mb(at_floor),
        mb(empty)
    ));
    if let Err(error) = reached {
        bench.say(&format!("in flight: {error:#}"));
    }
    let mut figures = vec![
        at_least(
            "in_flight",
            "executions",
            (f64::from(FLOOR), f64::from(AIM)),
            &[f64::from(held)],
        )?,
        at_most("in_flight_rss_mb", "MB", (300.0, 100.0), &[mb(at_floor)])?,
    ];
    if held >= AIM {
        figures.push(at_most("in_flight_aim_rss_mb", "MB", (1000.0, 1000.0), &[mb(at_end)])?);
    }
    Ok(figures)
}
