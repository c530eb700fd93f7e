//! Several sidecars over one store, as processes that can be stopped, killed and started again, and the questions
//! that clients ask them. Real parts; knows nothing of how a limit is counted.

pub mod redis;
pub mod relay;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::{
    TenantId, Tier,
    sidecar::{CHECK_PATH, CheckAnswer, CheckAsk},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use uuid::Uuid;

use self::redis::Redis;
use crate::{
    cluster::Cluster,
    env,
    http::{Message, Request},
    load::{self, Way},
    process::Process,
    wait::{self, address, is_ok},
};

/// The route that tests ask for.
pub const ROUTE: &str = "/api/v1/registry/agents";
/// The gRPC domain of the tests' sidecars.
pub const DOMAIN: &str = "gatehouse";

/// Keys that no test asks for, where nobody listens.
const NOBODY: &str = "http://127.0.0.1:1/keys";

/// Where windows are kept.
#[derive(Debug)]
pub enum Store {
    /// One Redis.
    Redis(Redis),
    /// Three masters.
    Cluster(Cluster),
}

/// What sidecars are told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The length of a window.
    pub window: Duration,
    /// The limits of the free, pro and enterprise tiers.
    pub tiers: [u32; 3],
    /// At most this many times the limit ÷ window in any second; 0 is off.
    pub burst: u32,
    /// Endpoints with limits of their own: (method, route, limit).
    pub endpoints: Vec<(&'static str, &'static str, u32)>,
    /// The limit of every other endpoint.
    pub endpoint_default: u32,
    /// Requests per UTC day of every tier.
    pub per_day: Option<u32>,
    /// What every tier's requests are answered while the store is away: `local`, `open` or `closed`.
    pub away: &'static str,
    /// `auto`, `lease` or `strict`.
    pub mode: &'static str,
    /// How long a sidecar waits for its store.
    pub deadline: Duration,
    /// Further members of the document, or other values of these.
    pub more: Value,
    /// `RUST_LOG`, where it is not the product's own.
    pub log: Option<&'static str>,
}

impl Default for Settings {
    /// The product's limits within 60 s, without the burst guard and with no limit of an endpoint in the way. A store
    /// that is late is waited for: a machine that builds at the same time must not turn slowness into an outage.
    fn default() -> Self {
        Self {
            window: Duration::from_secs(60),
            tiers: [60, 600, 6000],
            burst: 0,
            endpoints: Vec::new(),
            endpoint_default: 10_000_000,
            per_day: None,
            away: "closed",
            mode: "auto",
            deadline: Duration::from_millis(500),
            more: json!({}),
            log: None,
        }
    }
}

impl Settings {
    fn limits(&self) -> Value {
        let [free, pro, enterprise] = self.tiers.map(|max| {
            let mut tier = json!({"per_window": max, "away": self.away});
            if let (Some(per_day), Some(members)) = (self.per_day, tier.as_object_mut()) {
                members.insert("per_day".to_owned(), per_day.into());
            }
            tier
        });
        let endpoint = |(method, route, max): &(&str, &str, u32)| json!({"method": method, "route": route, "per_minute": max});
        json!({
            "tiers": {"free": free, "pro": pro, "enterprise": enterprise},
            "endpoints": self.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            "endpoint_default": self.endpoint_default,
            "window_s": self.window.as_secs(),
            "burst_multiplier": self.burst,
            "mode": self.mode,
        })
    }
}

/// One sidecar. Killed or stopped, it can begin again at the same address.
#[derive(Debug)]
pub struct Sidecar {
    /// Its process.
    pub process: Process,
    /// Where filters ask it.
    pub listen: SocketAddr,
    /// Its own pages.
    pub admin: SocketAddr,
    name: String,
    config: PathBuf,
    log: Option<&'static str>,
}

/// Sidecars over one store. Dropped, the sidecars end first.
#[derive(Debug)]
pub struct Fleet {
    /// The sidecars.
    pub sidecars: Vec<Sidecar>,
    /// Their store.
    pub store: Store,
}

// === impl Store ===

impl Store {
    /// What a sidecar's document says of it.
    pub fn document(&self) -> Value {
        match self {
            Self::Redis(redis) => json!({"kind": "redis", "url": redis.url("sidecar")}),
            Self::Cluster(cluster) => {
                json!({"kind": "redis_cluster", "urls": cluster.urls("sidecar")})
            }
        }
    }

    /// The one Redis.
    pub fn redis(&self) -> Result<&Redis> {
        match self {
            Self::Redis(redis) => Ok(redis),
            Self::Cluster(_) => anyhow::bail!("a cluster is no single Redis"),
        }
    }

    /// The one Redis, to be started again.
    pub fn redis_mut(&mut self) -> Result<&mut Redis> {
        match self {
            Self::Redis(redis) => Ok(redis),
            Self::Cluster(_) => anyhow::bail!("a cluster is no single Redis"),
        }
    }
}

// === impl Sidecar ===

impl Sidecar {
    /// Starts one and waits until it is ready.
    pub fn start(dir: &Path, name: &str, store: &Value, settings: &Settings) -> Result<Self> {
        let (listen, admin) = (address()?, address()?);
        let deadline_ms = u64::try_from(settings.deadline.as_millis())?;
        let mut document = json!({
            "listen": listen,
            "admin_listen": admin,
            "store": store,
            "redis_timeout_ms": deadline_ms,
            "issuers": [{"issuer": "https://auth.test", "jwks": NOBODY}],
            "limits": settings.limits(),
        });
        merge(&mut document, &settings.more);
        let config = dir.join(format!("{name}.json"));
        std::fs::write(&config, format!("{document:#}"))?;
        let log = settings.log;
        let process = serve(dir, name, &config, admin, log)?;
        Ok(Self { process, listen, admin, name: name.to_owned(), config, log })
    }

    /// Starts it again after its end, at the same address.
    pub fn again(&mut self) -> Result<()> {
        let dir = self.config.parent().context("no folder")?;
        self.process = serve(dir, &self.name, &self.config, self.admin, self.log)?;
        Ok(())
    }

    /// Asks it one question.
    pub fn check(&self, ask: &CheckAsk) -> Result<CheckAnswer> {
        let answer = self.post(CHECK_PATH, &serde_json::to_value(ask)?)?;
        ensure!(answer.status()? == 200, "{answer:?}");
        Ok(serde_json::from_value(answer.json()?)?)
    }

    /// Asks it anything.
    pub fn post(&self, path: &str, body: &Value) -> Result<Message> {
        Request::new("POST", path).json(body).send(self.listen)
    }

    /// Its metrics, as text.
    pub fn metrics(&self) -> Result<String> {
        let mut answer = ureq::get(format!("http://{}/metrics", self.admin)).call()?;
        Ok(answer.body_mut().read_to_string()?)
    }

    /// The sum of a metric over all its labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let own =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let text = self.metrics()?;
        let values = text.lines().filter(own).filter_map(|line| line.rsplit(' ').next());
        Ok(values.filter_map(|value| value.parse::<f64>().ok()).sum())
    }
}

fn serve(
    dir: &Path,
    name: &str,
    config: &Path,
    admin: SocketAddr,
    log: Option<&str>,
) -> Result<Process> {
    let program = env::path(env::BIN)?.join("gatehouse-ratelimit-sidecar");
    ensure!(program.exists(), "{} is not built", program.display());
    let mut command = Command::new(program);
    command.arg("serve").arg("--config").arg(config);
    command.envs(log.map(|log| ("RUST_LOG", log)));
    let mut process = Process::start(name, dir, command)?;
    let alive = format!("http://{admin}/livez");
    process.wait_ready(|| is_ok(&alive))?;
    Ok(process)
}

/// Puts the members of `more` over those of `document`, objects member by member.
pub fn merge(document: &mut Value, more: &Value) {
    match (document, more) {
        (Value::Object(document), Value::Object(more)) => {
            for (name, value) in more {
                merge(document.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (document, more) => *document = more.clone(),
    }
}

// === impl Fleet ===

impl Fleet {
    /// Starts `count` sidecars over `store` and waits until all of them decide.
    pub fn start(dir: &Path, count: usize, store: Store, settings: &Settings) -> Result<Self> {
        let document = store.document();
        let sidecars: Vec<Sidecar> = (0..count)
            .map(|n| Sidecar::start(dir, &format!("sidecar-{n}"), &document, settings))
            .collect::<Result<_>>()?;
        let fleet = Self { sidecars, store };
        fleet.wait_ready()?;
        Ok(fleet)
    }

    /// Over a Redis of its own.
    pub fn over_redis(dir: &Path, count: usize, settings: &Settings) -> Result<Self> {
        Self::start(dir, count, Store::Redis(Redis::start(dir, "redis")?), settings)
    }

    /// Waits until every sidecar decides by the shared store.
    pub fn wait_ready(&self) -> Result<()> {
        for sidecar in &self.sidecars {
            wait::until("a sidecar decides", wait::START, || {
                let answer = sidecar.check(&ask(tenant(), Tier::Free, "GET", 0))?;
                ensure!(!answer.degraded, "still degraded");
                Ok(Some(()))
            })?;
        }
        Ok(())
    }

    /// Where filters ask.
    pub fn targets(&self) -> Vec<SocketAddr> {
        self.sidecars.iter().map(|sidecar| sidecar.listen).collect()
    }
}

/// A process that is stopped (SIGSTOP) until this is dropped: its connections stay open and silent.
#[derive(Debug)]
pub struct Stalled<'a>(&'a Process);

impl<'a> Stalled<'a> {
    /// Stops it and waits until each of its threads is.
    pub fn new(process: &'a Process) -> Result<Self> {
        process.signal(Signal::STOP)?;
        let stalled = Self(process);
        let tasks = format!("/proc/{}/task", process.id());
        wait::until("every thread is stopped", Duration::from_secs(10), || {
            let stopped = std::fs::read_dir(&tasks)?.flatten().all(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T'))
            });
            Ok(stopped.then_some(()))
        })?;
        Ok(stalled)
    }
}

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.signal(Signal::CONT) {
            eprintln!("stays stopped: {error:#}");
        }
    }
}

/// A tenant that nobody has seen.
pub fn tenant() -> TenantId {
    TenantId::new(Uuid::new_v4())
}

/// The question whether `cost` requests with `method` to [`ROUTE`] may pass.
pub fn ask(tenant: TenantId, tier: Tier, method: &str, cost: u32) -> CheckAsk {
    CheckAsk {
        tenant,
        tier,
        limits: None,
        subject: None,
        method: method.to_owned(),
        route: ROUTE.to_owned(),
        cost,
        forced: false,
    }
}

/// The same question, as clients under load ask it again and again.
pub fn way(key: u32, ask: &CheckAsk) -> Result<Way> {
    let request = Request::new("POST", CHECK_PATH).json(&serde_json::to_value(ask)?);
    Ok(Way { key, request: Arc::from(request.bytes()), read: load::check_answer })
}

/// The same question for gRPC.
pub fn question(ask: &CheckAsk) -> Vec<u8> {
    let (tenant, tier) = (ask.tenant.to_string(), ask.tier.as_str());
    let entries = [
        ("tenant_id", tenant.as_str()),
        ("tier", tier),
        ("method", &ask.method),
        ("route", &ask.route),
    ];
    load::grpc::question(DOMAIN, &entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_members_go_over_those_that_are_there() {
        let mut document = json!({"a": {"b": 1, "c": 2}, "d": 3});
        merge(&mut document, &json!({"a": {"c": 4, "e": {"f": 5}}, "d": [6]}));
        assert_eq!(document, json!({"a": {"b": 1, "c": 4, "e": {"f": 5}}, "d": [6]}));
    }
}
