//! From a mutation's answer until its row of the audit is in the signed chain, with the sealer as it runs everywhere
//! (specification NUM-033). Knows the sealer by its metric alone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::{Role, Tier};
use gatehouse_xtask::bench::figures::Figure;
use serde_json::json;

use super::Bench;
use crate::{
    http::Request,
    wait,
    world::{Limiter, Plan, World},
};

/// A row waits behind every transaction of the cluster that began before it, such as an ANALYZE of what was filled before.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two mutations: no part of the sealer's own beat, so that they come at every moment of it.
const STEP: Duration = Duration::from_millis(137);

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let plan = Plan { limiter: Limiter::Memory, signatures: "native", worker: false };
    let world = World::start(plan)?;
    let (_, _, token) = world.caller(Tier::Enterprise, Role::Developer)?;
    let rows = if bench.options.quick { 40 } else { 200 };
    let mut seconds = Vec::new();
    for row in 0..rows {
        std::thread::sleep(STEP);
        let before = sealed(&world)?;
        let body = json!({"name": format!("sealed-{row}")});
        let create = Request::new("POST", "/api/v1/registry/agents").bearer(&token).json(&body);
        // Past the gateway: it lets a tenant make ten agents a minute.
        let answer = create.send(world.control_listen)?;
        let began = Instant::now();
        ensure!(answer.status()? == 201, "creating an agent: {answer:?}");
        wait::until("the row in the chain", PATIENCE, || {
            Ok((sealed(&world)? > before).then_some(()))
        })?;
        // The first one may have waited for rows that starting the world wrote.
        if row > 0 {
            seconds.push(began.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let place = (seconds.len() * 95).div_ceil(100).saturating_sub(1);
    let p95 = *seconds.get(place).context("no rows")?;
    let last = seconds.last().copied().unwrap_or_default();
    bench
        .shown
        .push_str(&format!("sealed: of {} rows the slowest after {last:.3} s\n", seconds.len()));
    let figure = Figure::new("audit_sealed_p95_s", "s", (1.0, 0.8), &[p95]);
    Ok(vec![figure.context("no rounds of audit_sealed_p95_s")?])
}

/// How many rows were sealed so far.
fn sealed(world: &World) -> Result<f64> {
    super::metric(world, "gatehouse_audit_sealed_rows_total")
}
