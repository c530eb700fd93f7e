//! `e2e_p95_ms`: from the first byte of a submit through Envoy to the first poll that sees the result, four clients at a
//! time, each run in a sandbox made for it. Any answer but a good one voids the run. Knows what clients know.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::{Role, Tier};
use gatehouse_xtask::bench::figures::Figure;
use serde_json::{Value, json};

use super::{Bench, at_most, percentile};
use crate::{
    engine::copy,
    env,
    http::Request,
    wait,
    world::{Limiter, Plan, World},
};

const EXECUTIONS: &str = "/api/v1/runtime/executions";
const AGENTS: &str = "/api/v1/registry/agents";
const NAME: &str = "fuel-emissions";
/// At a time.
const CLIENTS: usize = 4;
/// Between two polls.
const POLL: Duration = Duration::from_millis(25);
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let plan = Plan { limiter: Limiter::Redis, signatures: "native", worker: true };
    let world = World::start(plan)?;
    let layout = env::path(env::AGENT)?;
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json"))?)?;
    let digest = index.pointer("/manifests/0/digest").and_then(Value::as_str);
    let version =
        json!({"version": "1.0.0", "image": format!("{NAME}@{}", digest.context("no manifest")?)});
    let mut tokens = Vec::new();
    for _ in 0..CLIENTS {
        let (tenant, _, token) = world.caller(Tier::Enterprise, Role::Developer)?;
        copy(&layout, &world.images.join(&tenant.id).join(NAME))?;
        let agent = good(&world, "POST", AGENTS, &token, Some(&json!({"name": NAME})))?;
        let agent = agent.get("id").and_then(Value::as_str).context("no agent")?;
        good(&world, "POST", &format!("{AGENTS}/{agent}/versions"), &token, Some(&version))?;
        tokens.push(token);
    }
    let each = if bench.options.quick { 10 } else { 50 };
    let rounds = if bench.options.quick { 1 } else { 3 };
    let mut p95s = Vec::new();
    for round in 0..=rounds {
        let times = std::thread::scope(|scope| {
            let clients: Vec<_> =
                tokens.iter().map(|token| scope.spawn(|| client(&world, token, each))).collect();
            let ended = clients.into_iter().map(|client| client.join());
            ended
                .map(|times| times.map_err(|_| anyhow::anyhow!("a client panicked"))?)
                .collect::<Result<Vec<_>>>()
        })?;
        let times = times.concat();
        let (p50, p95) = (percentile(&times, 50)?, percentile(&times, 95)?);
        bench.say(&format!("e2e: {} runs, p50 {p50:.0} ms, p95 {p95:.0} ms", times.len()));
        // The first one unpacks images.
        if round > 0 {
            p95s.push(p95);
        }
    }
    Ok(vec![at_most("e2e_p95_ms", "ms", (2000.0, 400.0), &p95s)?])
}

/// One run after the other; the milliseconds of each.
fn client(world: &World, token: &str, runs: usize) -> Result<Vec<f64>> {
    let body =
        json!({"agent": NAME, "version": "1.0.0", "input": {"fuel": "diesel", "litres": 100}});
    let mut times = Vec::new();
    for _ in 0..runs {
        let began = Instant::now();
        let made = good(world, "POST", EXECUTIONS, token, Some(&body))?;
        let id = made.get("id").and_then(Value::as_str).context("no execution")?;
        let path = format!("{EXECUTIONS}/{id}");
        loop {
            let seen = good(world, "GET", &path, token, None)?;
            match seen.get("state").and_then(Value::as_str) {
                Some("completed") => break,
                Some("pending" | "queued" | "running") => {}
                other => anyhow::bail!("ended as {other:?}: {seen}"),
            }
            ensure!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {seen}");
            wait::until_instant(Instant::now() + POLL);
        }
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(times)
}

/// A good answer, or the end of the measurement.
fn good(
    world: &World,
    method: &str,
    path: &str,
    token: &str,
    body: Option<&Value>,
) -> Result<Value> {
    let request = Request::new(method, path).bearer(token);
    let request = match body {
        Some(body) => request.json(body),
        None => request,
    };
    let answer = request.send(world.gateway)?;
    let status = answer.status()?;
    ensure!((200..300).contains(&status), "{method} {path}: {status} {:?}", answer.json());
    answer.json()
}
