//! `cargo xtask bench revocation`: how long a revoked API key still passes, from the moment in which whoever revokes it
//! has the 2xx until every worker of a real Envoy has refused it, over many keys, through the real control API, relay,
//! Redis and sidecar. Knows nothing of how the news travels.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use gatehouse_contract::{Role, Tier, header};
use gatehouse_xtask::{
    bench::figures::{Figure, Machine, Outcome, spread},
    command, repo,
    report::{Faults, Report},
};
use serde_json::{Value, json};

use crate::{
    http::{Connection, Message, Request},
    wait,
    world::{Limiter, Plan, Tenant, World},
};

/// Keys that are revoked.
const KEYS: usize = 100;
/// So many keys share a tenant, so that its limit is far away.
const KEYS_PER_TENANT: usize = 5;
/// Connections that ask in turn: the kernel spreads them over the workers, which is checked.
const CONNECTIONS: usize = 12;
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(2);
/// No key passes longer than this, or the run is void.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is promised (design §3.1).
const FLOOR_S: f64 = 1.0;
/// What is wished for.
const AIM_S: f64 = 0.5;

const PATH: &str = "/api/v1/registry/agents";

/// What to run.
#[derive(Debug, Clone, Default, clap::Parser)]
#[command(name = "bench-revocation", about = "Run it as `cargo xtask bench revocation`")]
pub struct Options {
    /// Only figures whose id contains this; there is one.
    pub figure: Option<String>,
    /// The same: a key needs less than half a second.
    #[arg(long)]
    pub quick: bool,
}

/// Measures, prints and writes; whether the floor is held.
pub fn run(_options: &Options) -> Result<bool> {
    command::catch_signals()?;
    let machine = Machine::this();
    let mut report = Report::new();
    report.expect(3);
    let plan = Plan { limiter: Limiter::Redis, signatures: "native", worker: false };
    let world = report.step("Start the system", |_| World::start(plan))?;
    let keys = report.step("Make keys", |_| keys(&world))?;
    let mut connections = connections(&world)?;
    let times = report.step("Revoke them", |_| {
        keys.iter().map(|key| revoked(&world, key, &mut connections)).collect::<Result<Vec<f64>>>()
    })?;
    let mut sorted = times.clone();
    sorted.sort_by(f64::total_cmp);
    // The least time that 99 of 100 do not exceed.
    let place = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
    let value = *sorted.get(place).context("no keys")?;
    let figure = Figure {
        id: "revocation_p99_s".to_owned(),
        value,
        unit: "s".to_owned(),
        floor: FLOOR_S,
        aim: AIM_S,
        ok: value <= FLOOR_S,
        runs: spread(&times).context("no keys")?,
        more: false,
    };
    let outcome = Outcome { machine, figures: vec![figure] };
    let path = outcome.write(&repo::target(&repo::root()?), "revocation")?;
    println!(
        "{KEYS} keys, each revoked while {CONNECTIONS} connections to two workers use it; from the 2xx to the last refusal"
    );
    outcome.print();
    println!("written to {}", path.display());
    Ok(outcome.ok())
}

struct Key {
    tenant: Tenant,
    id: String,
    text: String,
}

fn keys(world: &World) -> Result<Vec<Key>> {
    let mut keys = Vec::new();
    while keys.len() < KEYS {
        let tenant = world.tenant(Tier::Enterprise)?;
        let path = format!("/api/v1/factory/tenants/{}/api-keys", tenant.id);
        for _ in 0..KEYS_PER_TENANT {
            let body = json!({"name": "bench", "environment": "bench", "roles": [Role::Viewer]});
            let made = world.as_platform(&path, &body)?;
            let text = |name: &str| {
                let text = made.get(name).and_then(Value::as_str).map(str::to_owned);
                text.with_context(|| format!("a key without {name}"))
            };
            let (id, text) = (text("id")?, text("key")?);
            keys.push(Key { tenant: tenant.clone(), id, text });
        }
    }
    Ok(keys)
}

/// Connections that both workers hold some of.
fn connections(world: &World) -> Result<Vec<Connection>> {
    let to: SocketAddr = world.gateway;
    let connections = (0..CONNECTIONS).map(|_| Connection::open(to)).collect::<Result<Vec<_>>>()?;
    let held = |worker: u8| {
        let of = format!("listener.127.0.0.1_{}.worker_{worker}.downstream_cx_active", to.port());
        world.envoy.stat(&of)
    };
    wait::until("connections on both workers", PATIENCE, || {
        let (one, other) = (held(0)?, held(1)?);
        Ok((one > 0 && other > 0).then_some(()))
    })?;
    Ok(connections)
}

/// Seconds from the revoking call's 2xx until every connection has met a refusal.
fn revoked(world: &World, key: &Key, connections: &mut [Connection]) -> Result<f64> {
    if command::interrupted() {
        return Err(Faults::interrupted().into());
    }
    let request = Request::new("GET", PATH).header(header::API_KEY, &key.text).bytes();
    let ask = |connection: &mut Connection| -> Result<Message> {
        connection.send(&request)?;
        connection.response()
    };
    // Every worker knows it before it goes: what is not remembered would be refused at once.
    for connection in &mut *connections {
        wait::until("a pass with a new key", PATIENCE, || {
            let answer = ask(connection)?;
            // The upstream's own answer: nobody else's counts as a pass.
            let passed = !answer.header("x-envoy-upstream-service-time").is_empty();
            Ok((answer.status()? == 200 && passed).then_some(()))
        })?;
    }
    let token = world.token(&world.platform)?;
    let path = format!("/api/v1/factory/tenants/{}/api-keys/{}", key.tenant.id, key.id);
    let revoke = Request::new("DELETE", &path).bearer(&token);
    let answer = revoke.header(header::IMPERSONATION_REASON, "bench").send(world.gateway)?;
    let began = Instant::now();
    ensure!(matches!(answer.status()?, 200..=299), "revoking: {answer:?}");
    let mut open: Vec<&mut Connection> = connections.iter_mut().collect();
    let mut last = Duration::ZERO;
    while !open.is_empty() {
        let mut passing = Vec::new();
        for connection in open {
            let answer = ask(connection)?;
            match answer.status()? {
                401 => last = began.elapsed(),
                // Nothing else is a refusal of the key, whatever it is.
                _ => passing.push(connection),
            }
        }
        open = passing;
        if began.elapsed() > PATIENCE {
            bail!("a key still passes after {PATIENCE:?}");
        }
        std::thread::sleep(PAUSE);
    }
    for connection in connections {
        let answer = ask(connection)?;
        ensure!(answer.status()? == 401, "a refused key passes again: {answer:?}");
    }
    Ok(last.as_secs_f64())
}
