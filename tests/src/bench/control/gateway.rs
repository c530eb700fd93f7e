//! The control API through Envoy: a read with all filters beside the same Envoy without any, and every class of endpoint
//! at an even rate over many tenants. Services and clients are optimised. Knows nothing of what filters do.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::{Role, Tier};
use gatehouse_load::{hex, summary::Summary};
use gatehouse_xtask::bench::figures::Figure;
use serde_json::{Value, json};

use super::{Bench, ratio};
use crate::{
    env,
    envoy::{Gateway, configuration, manager},
    http::Request,
    world::{Limiter, Plan, World, document},
};

/// So many that no limit of any is near: of an enterprise tenant's, the closest is the 10 agents a minute.
const TENANTS: usize = 240;
/// How often each asks before the questions begin anew.
const REPEATED: usize = 3;
/// One side's turn.
const TURN: Duration = Duration::from_millis(250);
/// Requests per second of all classes together (specification: 100 ms at p95).
const RATES: &[(&str, u32)] =
    &[("read", 150), ("list", 75), ("create", 25), ("change", 25), ("submit", 25)];
const AGENTS: &str = "/api/v1/registry/agents";
const NAME: &str = "measured";
const VERSION: &str = "1.0.0";

/// Somebody who asks.
struct Caller {
    token: String,
    /// Whose it is.
    tenant: String,
    /// One of its agents.
    agent: String,
}

/// Questions in a file, and where they go.
struct Class<'a> {
    name: &'a str,
    questions: PathBuf,
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let plan = Plan { limiter: Limiter::Redis, signatures: "native", worker: false };
    let world = World::start(plan)?;
    let callers = (0..TENANTS).map(|_| caller(&world)).collect::<Result<Vec<_>>>()?;
    // Envoys of our own: nothing of the harness stands between them and the control API.
    let start = |name: &str, filtered: bool| -> Result<Gateway> {
        let dir = bench.dir.join(name);
        std::fs::create_dir_all(&dir)?;
        let (suite, document) = (env::path(env::SUITE)?, document(plan)?);
        let control = world.control_listen;
        let made = configuration(&dir, &suite, &document, control, world.sidecar_listen)?;
        if !filtered {
            made.patch(|bootstrap| {
                let filters = manager(bootstrap)?.get_mut("http_filters")?.as_array_mut()?;
                filters.retain(|filter| {
                    filter.get("name").is_some_and(|n| n == "envoy.filters.http.router")
                });
                (filters.len() == 1).then_some(())
            })?;
        }
        Gateway::run(&dir, made)
    };
    let filtered = start("filtered", true)?;
    let mut figures = Vec::new();
    if bench.options.wants("gateway_ratio") {
        let bare = start("bare", false)?;
        let sides = (filtered.listen, bare.listen);
        // Each request another tenant's: nothing that was remembered of one is of use for the next.
        let spread = class(bench.dir, "read", &callers, 0)?;
        gateway_ratio(bench, &spread, sides)?;
        // And one client that goes on, which is what a client does.
        let one = callers.first().context("no callers")?;
        unlimited(&world, one)?;
        let steady = class(bench.dir, "read", std::slice::from_ref(one), 0)?;
        figures.push(gateway_ratio(bench, &steady, sides)?);
    }
    if bench.options.wants("p95_ms_at_rate") {
        figures.push(at_rate(bench, &callers, filtered.listen)?);
    }
    Ok(figures)
}

fn caller(world: &World) -> Result<Caller> {
    let (tenant, _, token) = world.caller(Tier::Enterprise, Role::Admin)?;
    // As much of an image as the control API looks at: nobody runs it here.
    let digest = "a".repeat(64);
    let layout = world.images.join(&tenant.id).join(NAME);
    std::fs::create_dir_all(layout.join("blobs/sha256"))?;
    std::fs::write(layout.join("blobs/sha256").join(&digest), "{}")?;
    let index = json!({"manifests": [{"digest": format!("sha256:{digest}")}]});
    std::fs::write(layout.join("index.json"), index.to_string())?;
    let make = |path: &str, body: &Value| -> Result<String> {
        let answer = Request::new("POST", path).bearer(&token).json(body).send(world.gateway)?;
        ensure!(answer.status()? == 201, "POST {path}: {answer:?}");
        let id = answer.json()?.get("id").and_then(Value::as_str).map(str::to_owned);
        id.with_context(|| format!("POST {path} made nothing"))
    };
    let agent = make(AGENTS, &json!({"name": NAME}))?;
    let body = json!({"version": VERSION, "image": format!("{NAME}@sha256:{digest}")});
    make(&format!("{AGENTS}/{agent}/versions"), &body)?;
    Ok(Caller { token, tenant: tenant.id, agent })
}

/// Limits that no bench reaches.
fn unlimited(world: &World, caller: &Caller) -> Result<()> {
    let most = 16_777_215;
    let route = format!("{AGENTS}/{{agent}}");
    let body = json!({
        "per_window": most,
        "endpoints": [{"method": "GET", "route": route, "per_window": most}],
    });
    let path = format!("/api/v1/factory/tenants/{}/limits", caller.tenant);
    let request = Request::new("PUT", &path).bearer(&world.token(&world.platform)?).json(&body);
    let request = request.header("If-Match", "*").header("X-Gatehouse-Reason", "bench");
    let answer = request.send(world.gateway)?;
    ensure!(answer.status()? == 200, "PUT {path}: {answer:?}");
    Ok(())
}

/// One client, which waits for each answer; the sides in turns.
fn gateway_ratio(
    bench: &mut Bench<'_>,
    reads: &Class<'_>,
    (ours, bare): (SocketAddr, SocketAddr),
) -> Result<Figure> {
    let ask = |to| load(to, &reads.questions, 1, None, TURN).map(|summary| summary.p50_us);
    // Every worker and every tenant once: what is measured is the steady state.
    for to in [ours, bare] {
        load(to, &reads.questions, 8, None, 4 * TURN)?;
    }
    let (rounds, turns) = if bench.options.quick { (5, 4) } else { (15, 8) };
    let mut ratios = Vec::new();
    let mut times = Vec::new();
    for _ in 0..rounds {
        let (mut one, mut other) = (0.0, 0.0);
        for _ in 0..turns {
            let (first, second, third, last) = (ask(ours)?, ask(bare)?, ask(bare)?, ask(ours)?);
            one += first + last;
            other += second + third;
        }
        ratios.push(one / other);
        times.push((one / f64::from(2 * turns), other / f64::from(2 * turns)));
    }
    if let Some((one, other)) = times.last() {
        let asked = std::fs::read_to_string(&reads.questions)?.lines().count() / REPEATED;
        bench.shown.push_str(&format!(
            "a read by {asked} tenants in turn: {one:.0} µs with filters, {other:.0} µs without\n"
        ));
    }
    ratio("gateway_ratio", (1.15, 1.05), &ratios)
}

/// Every class at its rate, all at once; the worst class's 95th percentile.
fn at_rate(bench: &mut Bench<'_>, callers: &[Caller], to: SocketAddr) -> Result<Figure> {
    let span = Duration::from_secs(if bench.options.quick { 8 } else { 20 });
    let rounds = if bench.options.quick { 3 } else { 5 };
    let mut worst = Vec::new();
    for round in 0..rounds {
        let classes = RATES
            .iter()
            .map(|(name, rate)| Ok((class(bench.dir, name, callers, round)?, *rate)))
            .collect::<Result<Vec<_>>>()?;
        let summaries: Vec<Result<Summary>> = std::thread::scope(|scope| {
            let running: Vec<_> = classes
                .iter()
                .map(|(class, rate)| {
                    scope.spawn(|| load(to, &class.questions, 32, Some(*rate), span))
                })
                .collect();
            running
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a load broke")))
                })
                .collect()
        });
        let mut most: f64 = 0.0;
        for ((class, rate), summary) in classes.iter().zip(summaries) {
            let summary = summary.with_context(|| class.name.to_owned())?;
            bench.shown.push_str(&format!(
                "{} at {rate}/s: p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms\n",
                class.name,
                summary.p50_us / 1e3,
                summary.p95_us / 1e3,
                summary.p99_us / 1e3
            ));
            most = most.max(summary.p95_us / 1e3);
        }
        worst.push(most);
    }
    Figure::new("p95_ms_at_rate", "ms", (100.0, 10.0), &worst).context("no rounds")
}

/// The questions of a class: enough for every tenant to ask, none twice where that would be another thing.
fn class<'a>(dir: &Path, name: &'a str, callers: &[Caller], round: usize) -> Result<Class<'a>> {
    let each = |caller: &Caller, turn: usize| -> Request {
        match name {
            "list" => Request::new("GET", &format!("{AGENTS}?limit=20")),
            "create" => {
                let name = format!("made-{round}-{turn}");
                Request::new("POST", AGENTS).json(&json!({"name": name}))
            }
            "change" => {
                let body = json!({"description": format!("in round {round}, {turn}")});
                // Whatever it was: each tenant's tag moves with every change.
                Request::new("PATCH", &format!("{AGENTS}/{}", caller.agent))
                    .header("If-Match", "*")
                    .json(&body)
            }
            "submit" => {
                let body = json!({"agent": NAME, "version": VERSION, "input": {"litres": 1}});
                Request::new("POST", "/api/v1/runtime/executions").json(&body)
            }
            _ => Request::new("GET", &format!("{AGENTS}/{}", caller.agent)),
        }
    };
    // A second turn for what is made: two of the ten that a tenant may.
    let lines: Vec<String> = (0..REPEATED)
        .flat_map(|turn| callers.iter().map(move |caller| (turn, caller)))
        .map(|(turn, caller)| hex::text(&each(caller, turn).bearer(&caller.token).bytes()))
        .collect();
    let questions = dir.join(format!("{name}.hex"));
    std::fs::write(&questions, lines.join("\n"))?;
    Ok(Class { name, questions })
}

/// The clients as a process, for one span; any answer but a good one voids the run.
fn load(
    to: SocketAddr,
    questions: &Path,
    connections: usize,
    rate: Option<u32>,
    span: Duration,
) -> Result<Summary> {
    let mut command = Command::new(env::path(env::BIN)?.join("load"));
    command.args(["gateway", &to.to_string(), "--connections", &connections.to_string()]);
    command.arg("--questions").arg(questions);
    command.args(["--span-ms", &span.as_millis().to_string()]);
    if let Some(rate) = rate {
        command.args(["--rate", &rate.to_string()]);
    }
    let output = command.output().context("running load")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "load: {errors}");
    let summary: Summary = serde_json::from_slice(&output.stdout).context("what load says")?;
    ensure!(summary.denied + summary.unavailable + summary.lost == 0, "{summary:?}");
    Ok(summary)
}
