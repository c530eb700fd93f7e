//! What the queue costs: from a submit to its claim, claims and completions per second, and how long the most urgent wait
//! behind what is not. Times are the database's own, of events and rows.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gatehouse_contract::{ExecutionId, Tier};
use gatehouse_store::executions::Terms;
use gatehouse_xtask::bench::figures::{Figure, spread};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Bench, at_least, at_most, bare, bare::Bare, percentile};
use crate::{
    engine::{Engine, PATIENCE, Plan, Tenant, worker::Driver},
    wait,
};

/// So many work side by side in the worker: what its connections to the database allow.
const SIDE_BY_SIDE: usize = 16;
/// What waits of the one tenant.
const FLOOD: u32 = 100_000;
/// Between two submits at a light load.
const STEP: Duration = Duration::from_millis(40);

/// One worker with the sim driver on stores of its own.
pub(super) fn engine(tiers: &[Tier], concurrency: u32) -> Result<Engine> {
    let mut engine = Engine::start(Plan { durable: true, tiers })?;
    let more = json!({"concurrency": concurrency, "lease_s": 15});
    engine.worker(Driver::Sim, &more, 0)?;
    Ok(engine)
}

fn submit(engine: &Engine, tenant: &Tenant, priority: u8) -> Result<Uuid> {
    let id = ExecutionId::new(Uuid::new_v4());
    let terms = Terms { priority, ..Terms::default() };
    engine.runtime.block_on(tenant.submit(&engine.store, id, json!({}), terms))?;
    Ok(id.as_uuid())
}

/// Milliseconds from the submit's event to the offer's and to the claim's, of each of these.
fn waits(engine: &Engine, ids: &[Uuid]) -> Result<(Vec<f64>, Vec<f64>)> {
    let list: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
    let sql = format!(
        "SELECT extract(epoch FROM min(q.at) - s.at) * 1000, extract(epoch FROM min(c.at) - s.at) * 1000 FROM event_store s
         JOIN event_store q USING (tenant_id, aggregate_kind, aggregate_id)
         JOIN event_store c USING (tenant_id, aggregate_kind, aggregate_id)
         WHERE s.aggregate_kind = 'execution' AND s.kind = 'execution.submitted' AND q.kind = 'execution.queued'
         AND c.kind = 'execution.started' AND s.aggregate_id IN ({}) GROUP BY s.aggregate_id, s.at",
        list.join(", ")
    );
    let mut observer = engine.postgres.observer();
    wait::until("all are claimed", PATIENCE, || {
        let answer = observer.ask(&sql)?;
        let pair = |line: &str| -> Result<(f64, f64)> {
            let (offered, claimed) = line.split_once('|').context("two columns")?;
            Ok((offered.parse()?, claimed.parse()?))
        };
        let values: (Vec<f64>, Vec<f64>) =
            answer.lines().map(pair).collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok((values.0.len() == ids.len()).then_some(values))
    })
}

/// `claim_ratio`.
pub(super) fn claim(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let engine = engine(&[Tier::Pro], 64)?;
    engine.raise_limits(1000)?;
    let tenant = engine.tenants.first().context("no tenant")?;
    let mut bare = Bare::start(&engine, 0)?;
    let each = if bench.options.quick { 60 } else { 150 };
    let mut ratios = Vec::new();
    for round in 0..=bench.rounds() {
        let (mut ids, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..each {
            let next = Instant::now() + STEP;
            ids.push(submit(&engine, tenant, 1)?);
            theirs.push(bare.once()?.as_secs_f64() * 1000.0);
            wait::until_instant(next);
        }
        let (offered, ours) = waits(&engine, &ids)?;
        let (offered, half) = (percentile(&offered, 50)?, percentile(&ours, 50)?);
        let (ours, theirs) = (percentile(&ours, 95)?, percentile(&theirs, 95)?);
        bench.say(&format!(
            "claim: p95 {ours:.2} ms (p50 {half:.2}, offered {offered:.2}), bare {theirs:.2} ms"
        ));
        // The first one fills caches.
        if round > 0 {
            ratios.push(ours / theirs);
        }
    }
    Ok(vec![at_most("claim_ratio", "ratio", (3.0, 1.5), &ratios)?])
}

/// Has so many wait at once, submitted long ago.
pub(super) fn fill(
    engine: &Engine,
    tenant: &Tenant,
    count: u32,
    priority: u8,
    input: &Value,
) -> Result<()> {
    let (id, agent, version) = (tenant.op.tenant, tenant.agent, tenant.version);
    let sql = format!(
        "INSERT INTO executions (tenant_id, id, agent_id, agent_version_id, priority, timeout_s, input,
            created_by)
         SELECT '{id}', gen_random_uuid(), '{agent}', '{version}', {priority}, 3600, '{input}', 'bench'
         FROM generate_series(1, {count})"
    );
    engine.postgres.ask("gatehouse", &sql)?;
    engine.postgres.ask("gatehouse", "ANALYZE executions").map(drop)
}

/// `queue_ratio`.
pub(super) fn throughput(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let tiers = [Tier::Pro, Tier::Pro, Tier::Pro, Tier::Pro];
    let engine = engine(&tiers, 256)?;
    engine.raise_limits(100_000)?;
    let (each, span) = if bench.options.quick { (600, 2) } else { (2500, 6) };
    let mut observer = engine.postgres.observer();
    let mut ratios = Vec::new();
    for round in 0..=bench.rounds() {
        for tenant in &engine.tenants {
            fill(&engine, tenant, each, 1, &json!({}))?;
        }
        wait::until("all have ended", PATIENCE, || {
            let left =
                observer.ask("SELECT count(*) FROM executions WHERE state <> 'completed'")?;
            anyhow::ensure!(left == "0", "{left} are left");
            Ok(Some(()))
        })?;
        // First and last tenth left out: they are the begin and the end, not the rate.
        let sql = "SELECT count(*) * 0.8 / extract(epoch FROM percentile_disc(0.9) WITHIN GROUP (ORDER BY completed_at)
            - percentile_disc(0.1) WITHIN GROUP (ORDER BY completed_at)) FROM executions";
        let ours: f64 = observer.ask(sql)?.parse()?;
        observer.ask("TRUNCATE executions CASCADE")?;
        let theirs = bare::rate(&engine, SIDE_BY_SIDE, Duration::from_secs(span))?;
        bench.say(&format!("queue: {ours:.0} a second, bare {theirs:.0}"));
        if round > 0 {
            ratios.push(ours / theirs);
        }
    }
    Ok(vec![at_least("queue_ratio", "ratio", (0.3, 0.6), &ratios)?])
}

/// `p0_wait_ratio`.
pub(super) fn p0_wait(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let engine = engine(&[Tier::Pro, Tier::Free], 256)?;
    let (Some(urgent), Some(flood)) = (engine.tenants.first(), engine.tenants.get(1)) else {
        anyhow::bail!("no tenants");
    };
    let each = if bench.options.quick { 50 } else { 150 };
    let rounds = bench.rounds().min(5);
    let mut observer = engine.postgres.observer();
    let measure = || -> Result<f64> {
        let mut ids = Vec::new();
        for _ in 0..each {
            let next = Instant::now() + STEP;
            ids.push(submit(&engine, urgent, 0)?);
            wait::until_instant(next);
        }
        percentile(&waits(&engine, &ids)?.1, 95)
    };
    let mut ratios = Vec::new();
    measure()?;
    for _ in 0..rounds {
        let idle = measure()?;
        fill(&engine, flood, FLOOD, 3, &json!({"ms": 100}))?;
        wait::until("the flood is worked on", PATIENCE, || {
            let sql = format!(
                "SELECT count(*) FROM executions WHERE tenant_id = '{}' AND state = 'completed'",
                flood.op.tenant
            );
            Ok((observer.ask(&sql)? != "0").then_some(()))
        })?;
        let behind = measure()?;
        let left = format!(
            "SELECT count(*) FROM executions WHERE tenant_id = '{}' AND state = 'pending'",
            flood.op.tenant
        );
        let left = observer.ask(&left)?;
        bench.say(&format!("p0: p95 {behind:.2} ms while {left} P3 wait, idle {idle:.2} ms"));
        ratios.push(behind / idle);
        let gone = format!(
            "DELETE FROM executions WHERE tenant_id = '{}' AND state = 'pending'",
            flood.op.tenant
        );
        observer.ask(&gone)?;
        observer.ask("VACUUM ANALYZE executions")?;
    }
    let [least, _, most] = spread(&ratios).context("no rounds")?;
    bench.say(&format!("p0: {least:.2} to {most:.2} times the idle wait"));
    Ok(vec![at_most("p0_wait_ratio", "ratio", (2.0, 1.2), &ratios)?])
}
