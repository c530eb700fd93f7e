//! Events from the outbox to Kafka through the real publisher, beside the same events taken out and thrown away. The
//! broker is librdkafka's own, over TCP. Knows no SQL but the rows that it writes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::Tier;
use gatehouse_xtask::bench::figures::Figure;
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use serde_json::json;

use super::{Bench, doors};
use crate::{
    wait,
    world::{Limiter, Plan, World},
};

/// As the store's bench writes.
const EVENTS: u32 = 30_000;
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let cluster: MockCluster<'static, DefaultProducerContext> =
        MockCluster::new(1).context("the broker")?;
    let plan = Plan { limiter: Limiter::Memory, signatures: "native", worker: false };
    let kafka = json!({"kafka": {"brokers": [cluster.bootstrap_servers()]}});
    let world = World::start_with(plan, kafka)?;
    let tenant = world.tenant(Tier::Free)?;
    let rounds = if bench.options.quick { 5 } else { 9 };
    let mut ratios = Vec::new();
    for round in 0..=rounds {
        let published = published(&world, &tenant.id)?;
        let taken = doors::told(bench, "outbox")?;
        let taken = doors::rounds(&taken, "events_per_second")?;
        let taken = taken.first().context("the store's bench took nothing")?;
        if round > 0 {
            ratios.push(published / taken);
        }
        bench.shown.push_str(&format!("outbox: {published:.0} events/s to Kafka\n"));
    }
    let figure = Figure::at_least("outbox_ratio", "ratio", (0.5, 0.8), &ratios);
    Ok(vec![figure.context("no rounds of outbox_ratio")?])
}

/// Has so many events wait all at once; how many of them were published per second, first and last tenth left out.
fn published(world: &World, tenant: &str) -> Result<f64> {
    let before = count(world)?;
    let fill = format!(
        "SET app.current_tenant_id = '{tenant}';
         INSERT INTO event_outbox (tenant_id, event_id, aggregate_kind, aggregate_id, seq, kind, payload)
         SELECT '{tenant}', gen_random_uuid(), 'execution', gen_random_uuid(), 2, 'execution.queued', '{{}}'
         FROM generate_series(1, {EVENTS})"
    );
    world.database.read("app", &fill)?;
    let all = f64::from(EVENTS);
    let reached = |part: f64| {
        wait::until("events in Kafka", PATIENCE, || {
            let now = count(world)? - before;
            Ok((now >= all * part).then_some((now, Instant::now())))
        })
    };
    let (first, began) = reached(0.1)?;
    let (last, ended) = reached(0.9)?;
    reached(1.0)?;
    ensure!(last > first, "all were published at once");
    Ok((last - first) / (ended - began).as_secs_f64())
}

/// How many were published so far.
fn count(world: &World) -> Result<f64> {
    super::metric(world, "gatehouse_events_published_total")
}
