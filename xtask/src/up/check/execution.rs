//! Rows about agents and executions: registered, stored, queued, run in a sandbox, and seen by nobody else.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Context;
use gatehouse_contract::{ExecutionId, Role, TenantId};
use serde_json::{Value, json};

use super::{Seen, Table, World, refused, seen};
use crate::{
    http::Answer,
    stack::{instance::DATABASE, postgres::Psql, redis::Client},
    up::{
        api::Call,
        seed::{AGENT, Agent, Seeder},
    },
};

/// A cold sandbox takes a fraction of a second; a loaded machine much longer.
const DEADLINE: Duration = Duration::from_secs(60);
/// What gVisor says of itself, whatever the host runs.
const GVISOR: &str = "Linux version 4.4.0";

pub fn rows(world: &mut World, table: &mut Table) {
    let agent = table.row("an agent and its version are registered", || {
        let World { instance, api, platform, pro, layout, .. } = world;
        let seeder = Seeder { instance, api, platform };
        seeder.agent(pro, layout)?;
        let agent = pro.agent.clone().context("no agent")?;
        let text = format!("{} as {}", agent.version, agent.image);
        Ok(Seen { value: agent, text })
    });
    let Some(agent) = agent else { return };
    foreign_image(world, &agent, table);
    let run = table.row("an execution completes in a gVisor sandbox", || run(world, &agent));
    let Some(execution) = run else { return };
    table.row("an execution is cancelled and tried again", || again(world, &agent, execution));
    isolation(world, execution, table);
}

/// Red when the control API looks into another tenant's folder of the image store, or into none.
fn foreign_image(world: &World, agent: &Agent, table: &mut Table) {
    table.row("another tenant's image is a 404", || {
        let token = world.token(&world.other, Role::Developer)?;
        let id = world.api.make_agent(&token, AGENT)?;
        let path = format!("/api/v1/registry/agents/{id}/versions");
        let body = json!({"version": "1.0.0", "image": agent.image});
        let answer = world.api.send(Call::post(&path, &body).token(&token))?;
        refused(&answer, 404, "not_found").map(seen)
    });
    table.row("a version that names a path is refused", || {
        let token = world.token(&world.pro, Role::Developer)?;
        let path = format!("/api/v1/registry/agents/{}/versions", agent.id);
        let digest = agent.image.rsplit('@').next().unwrap_or_default();
        let foreign = format!("../{}/{AGENT}@{digest}", world.pro.id);
        let body = json!({"version": "1.0.1", "image": foreign});
        let answer = world.api.send(Call::post(&path, &body).token(&token))?;
        refused(&answer, 422, "body_invalid").map(seen)
    });
}

/// Red when the worker is stopped (it stays pending), when its runsc is replaced by a script that runs the agent
/// on the host (the kernel line is the host's), when the feeder is taken out (nothing is added to the stream).
fn run(world: &World, agent: &Agent) -> anyhow::Result<Seen<ExecutionId>> {
    let token = world.token(&world.pro, Role::Operator)?;
    let before = added(world)?;
    let input = json!({"fuel": "diesel", "litres": 100});
    let (id, accepted) = world.api.execute(&token, agent.version, &input)?;
    let location = accepted.header("location").context("202 without Location")?;
    anyhow::ensure!(location.ends_with(&id.to_string()), "Location is {location}");
    anyhow::ensure!(accepted.header("retry-after").is_some(), "202 without Retry-After");
    let done = settled(world, &token, id)?;
    let state = done.text("/state");
    anyhow::ensure!(state == "completed", "{state}: {}", done.body);
    let kernel = done.text("/output/kernel");
    let host = fs::read_to_string("/proc/version").context("reading the host's kernel line")?;
    anyhow::ensure!(
        kernel.trim() != host.trim() && kernel.starts_with(GVISOR),
        "the kernel line is not gVisor's: {kernel:?}"
    );
    anyhow::ensure!(added(world)? > before, "nothing was added to a Redis stream");
    let kg = done.text("/output/kg_co2e");
    anyhow::ensure!(!kg.is_empty(), "no kg_co2e in {}", done.body);
    Ok(Seen { value: id, text: format!("100 l of diesel = {kg} kg CO2e on \"{kernel}\"") })
}

/// The execution, once nothing more happens to it.
fn settled(
    world: &World,
    token: &str,
    id: impl std::fmt::Display + Copy,
) -> anyhow::Result<Answer> {
    let began = Instant::now();
    loop {
        let answer = get(world, token, id)?;
        anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        let state = answer.text("/state");
        if matches!(
            state.as_str(),
            "completed" | "failed" | "timeout" | "dead_letter" | "cancelled"
        ) {
            return Ok(answer);
        }
        anyhow::ensure!(began.elapsed() < DEADLINE, "still {state} after {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Red when a cancel of what has ended changes it, when more than the version's limits are taken, when another try is not
/// a new execution that names the first, when nobody may look for dead letters.
fn again(world: &World, agent: &Agent, done: ExecutionId) -> anyhow::Result<Seen<()>> {
    const RUNS: &str = "/api/v1/runtime/executions";
    const LETTERS: &str = "/api/v1/runtime/dead-letters";
    let token = world.token(&world.pro, Role::Operator)?;
    let post = |path: &str, body: &Value| world.api.send(Call::post(path, body).token(&token));
    let cancel = |id: &str| post(&format!("{RUNS}/{id}/cancel"), &json!({}));
    let ended = cancel(&done.to_string())?;
    let state = ended.text("/state");
    anyhow::ensure!(ended.status == 200 && state == "completed", "{}", ended.body);
    refused(&post(&format!("{RUNS}/{done}/retry"), &json!({}))?, 409, "conflict")?;
    let greedy = json!({"agent_version_id": agent.version, "limits": {"timeout_s": 3600}});
    refused(&post(RUNS, &greedy)?, 422, "body_invalid")?;
    let input = json!({"fuel": "diesel", "litres": 1});
    let (id, _) = world.api.execute(&token, agent.version, &input)?;
    let first = cancel(&id.to_string())?;
    anyhow::ensure!(first.status == 200, "{}", first.body);
    let first = settled(world, &token, id)?.text("/state");
    let letters = world.api.send(Call::get(LETTERS).token(&token))?;
    anyhow::ensure!(letters.status == 200, "{}", letters.body);
    let replayed = post(&format!("{LETTERS}/replay"), &json!({"limit": 1}))?;
    anyhow::ensure!(replayed.status == 202, "{}", replayed.body);
    if first == "completed" {
        // Its worker was faster than the cancel.
        return Ok(seen("it completed before it was cancelled; its end stands"));
    }
    anyhow::ensure!(first == "cancelled", "{first}");
    let second = post(&format!("{RUNS}/{id}/retry"), &json!({}))?;
    anyhow::ensure!(second.status == 202, "{}", second.body);
    let second = second.text("/id");
    let second = settled(world, &token, second.as_str())?;
    let (state, of) = (second.text("/state"), second.text("/retry_of"));
    anyhow::ensure!(state == "completed" && of == id.to_string(), "{}", second.body);
    Ok(seen("cancelled; another one that names it completed"))
}

fn get(world: &World, token: &str, id: impl std::fmt::Display) -> anyhow::Result<Answer> {
    let path = format!("/api/v1/runtime/executions/{id}");
    world.api.send(Call::get(&path).token(token))
}

/// How many entries were ever added to the queue's streams.
fn added(world: &World) -> anyhow::Result<u64> {
    let redis = Client {
        program: &world.instance.redis_cli,
        port: world.instance.ports.redis,
        secrets: &world.instance.secrets,
    };
    let mut sum = 0;
    for stream in redis.ask(&["KEYS", "queue:p*"])?.lines().filter(|line| !line.is_empty()) {
        let info = redis.ask(&["XINFO", "STREAM", stream])?;
        let mut lines = info.lines();
        let count = lines.find(|line| *line == "entries-added").and(lines.next());
        sum += count.and_then(|count| count.parse::<u64>().ok()).context("no entries-added")?;
    }
    Ok(sum)
}

/// Red when the control API reads executions by id alone with row security off; when row security is switched off
/// on the table (`ALTER TABLE executions DISABLE ROW LEVEL SECURITY`); when the 404s' details differ.
fn isolation(world: &World, execution: ExecutionId, table: &mut Table) {
    table.row("another tenant sees the 404 of a missing one", || {
        let token = world.token(&world.other, Role::Admin)?;
        let theirs = get(world, &token, execution)?;
        let words = refused(&theirs, 404, "not_found")?;
        let missing = get(world, &token, uuid::Uuid::now_v7())?;
        let body = |answer: &Answer| {
            let mut body = answer.json();
            if let Some(members) = body.as_object_mut() {
                members.remove("request_id");
                members.remove("instance");
            }
            (answer.status, body)
        };
        anyhow::ensure!(
            body(&theirs) == body(&missing) && body(&theirs).1 != Value::Null,
            "{} differs from {}",
            theirs.body,
            missing.body
        );
        Ok(seen(format!("{words}, the same body")))
    });
    table.row("the stored row is visible to its tenant alone", || {
        let sql = format!("SELECT state FROM executions WHERE id = '{execution}'");
        let own = as_app(world, Some(world.pro.id), &sql)?;
        anyhow::ensure!(own == "completed", "its tenant sees {own:?}");
        for (who, tenant) in [("another tenant", Some(world.other.id)), ("no tenant", None)] {
            let rows = as_app(world, tenant, &sql)?;
            anyhow::ensure!(rows.is_empty(), "{who} sees {rows:?}");
        }
        Ok(seen("gatehouse_app: 1 row under its tenant, 0 under another, 0 without"))
    });
}

fn as_app(world: &World, tenant: Option<TenantId>, sql: &str) -> anyhow::Result<String> {
    let psql = Psql {
        program: world.instance.psql.clone(),
        port: world.instance.ports.postgres,
        user: "gatehouse_app",
        password: &world.instance.secrets.app,
        database: DATABASE,
    };
    let set = tenant
        .map(|tenant| format!("SET app.current_tenant_id = '{tenant}';\n"))
        .unwrap_or_default();
    Ok(psql.run(&format!("{set}{sql};\n"))?.trim().to_owned())
}
