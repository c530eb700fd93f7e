//! What limits cost a request in real Envoy: with passes that were taken along, with a call-out each, and with Envoy's
//! own ratelimit filter over gRPC to the same sidecar. An upstream of its own stands behind each, since Envoy's filter
//! leaves direct responses out.

use std::{fmt::Write as _, net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use gatehouse_contract::{TenantId, Tier};
use gatehouse_xtask::{bench::figures::Figure, render::envoy::cluster};
use serde_json::{Value, json};

use super::{Bench, median};
use crate::{
    bench::cpu,
    env,
    envoy::Gateway,
    fleet::{DOMAIN, Fleet, ROUTE, Settings, relay::Relay, tenant},
    front::Outside,
    load::Way,
    process::Process,
    summary::Summary,
    wait,
};

/// No limit is in the way.
const PLENTY: u32 = 16_000_000;

/// One way through an Envoy.
struct Side {
    process: u32,
    address: SocketAddr,
    file: std::path::PathBuf,
}

impl Side {
    fn new(
        bench: &Bench<'_>,
        name: &str,
        process: u32,
        address: SocketAddr,
        way: &Way,
    ) -> Result<Self> {
        let file = bench.questions(name, super::bytes(std::slice::from_ref(way)))?;
        Ok(Self { process, address, file })
    }

    fn load(&self, bench: &Bench<'_>, clients: usize, span: Duration) -> Result<Summary> {
        let summary = bench.load("gateway", &[self.address], &self.file, (clients, 1), span)?;
        ensure!(summary.denied + summary.unavailable + summary.lost == 0, "{summary:?}");
        Ok(summary)
    }

    /// The median of a request of one client that is alone, in µs.
    fn alone(&self, bench: &Bench<'_>) -> Result<f64> {
        Ok(self.load(bench, 1, bench.options.slice())?.p50_us)
    }

    /// Adds Envoy's processor time in µs and the requests of one go, with 16 on their way.
    fn go(&self, bench: &Bench<'_>, (spent_us, answered): &mut (f64, f64)) -> Result<()> {
        let before = cpu::spent(self.process)?;
        let summary = self.load(bench, 16, GO)?;
        let spent = cpu::spent(self.process)?.saturating_sub(before);
        *spent_us += spent.as_secs_f64() * 1e6;
        *answered += summary.answered() as f64;
        Ok(())
    }
}

/// Short, and in turns there and back: what else this machine does meets all sides alike.
const GO: Duration = Duration::from_millis(300);
/// Turns in a round.
const TURNS: usize = 4;

/// Envoy's processor time per request in µs on each of `sides`.
fn costs(bench: &Bench<'_>, sides: [&Side; 4]) -> Result<[f64; 4]> {
    let mut sums = [(0.0, 0.0); 4];
    for _ in 0..TURNS {
        for (side, sum) in sides.iter().zip(&mut sums) {
            side.go(bench, sum)?;
        }
        for (side, sum) in sides.iter().zip(&mut sums).rev() {
            side.go(bench, sum)?;
        }
    }
    Ok(sums.map(|(spent_us, answered)| spent_us / answered))
}

pub(super) fn ratios(bench: &mut Bench<'_>) -> Result<Vec<Figure>> {
    let outside = Outside::start(Tier::Enterprise)?;
    let more = outside.members();
    let settings = Settings { tiers: [PLENTY; 3], burst: 5, more, ..Settings::default() };
    let fleet = Fleet::over_redis(bench.dir, 1, &settings)?;
    let sidecar = fleet.sidecars.first().context("no sidecar")?;
    // Where the feed is silent, every request asks for its principal.
    let relay = Relay::start(fleet.store.redis()?, 0)?;
    let tenant = tenant();
    let way = outside.way(0, tenant)?;
    let mut gateways = Vec::new();
    for (name, limiter) in [
        // As near to no limit as the module can be: it counts to a million by itself.
        ("none", json!({"local": {"per_minute": 1_000_000}})),
        ("callout", json!({"leases": false})),
        ("lease", json!({"leases": true})),
    ] {
        let dir = bench.dir.join(name);
        let changes = json!({"sidecar": {"timeout_ms": 1000}});
        let mut at = outside.gateway_with(&dir, sidecar.listen, &changes, &limiter)?;
        at.workers = 1;
        gateways.push((name, Gateway::run(&dir, at)?));
    }
    let side = |name: &str| -> Result<Side> {
        let found = gateways.iter().find(|(there, _)| *there == name).context("no gateway")?;
        Side::new(bench, name, found.1.process.id(), found.1.listen, &way)
    };
    let (none, callout, lease) = (side("none")?, side("callout")?, side("lease")?);
    let native = Native::start(bench.dir, outside.upstream(), sidecar.listen, tenant)?;
    let own = Side::new(bench, "native", native.process.id(), native.limited, &way)?;
    let bare = Side::new(bench, "bare", native.process.id(), native.bare, &way)?;
    for side in [&none, &callout, &lease, &own, &bare] {
        side.load(bench, 4, bench.options.slice())?;
    }
    let (mut latency, mut processor) = (Vec::new(), Vec::new());
    let mut last = [0.0; 7];
    for _ in 0..bench.options.rounds() {
        let base = none.alone(bench)?;
        let (asked, leased) = (callout.alone(bench)? - base, lease.alone(bench)? - base);
        latency.push((leased / asked).max(0.0));
        let [without, with, theirs, plain] = costs(bench, [&none, &callout, &own, &bare])?;
        processor.push((with - without) / (theirs - plain));
        last = [base, asked, leased, without, with, theirs, plain];
    }
    let [base, asked, leased, without, with, theirs, plain] = last;
    writeln!(
        bench.shown,
        "p50 of one client: {base:.0} µs without limits, +{asked:.0} with a call-out, +{leased:.0} with a lease (last round)\n\
         Envoy's time per request: {without:.0} µs without limits, {with:.0} with a call-out; {plain:.0} without filter, {theirs:.0} with its own (last round; middle ratio {:.2})",
        median(&processor)?
    )?;
    let used = native.count("ratelimit.ok")?;
    ensure!(used > 100, "Envoy's own filter let {used} requests pass: it was not on the way");
    drop(relay);
    Ok([
        Figure::new("lease_latency_ratio", "ratio", (0.25, 0.1), &latency),
        Figure::new("callout_cpu_ratio", "ratio", (1.5, 1.2), &processor),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// An Envoy with its own filter on one listener and nothing on the other.
struct Native {
    process: Process,
    limited: SocketAddr,
    bare: SocketAddr,
    admin: SocketAddr,
}

impl Native {
    fn start(
        dir: &Path,
        upstream: SocketAddr,
        sidecar: SocketAddr,
        tenant: TenantId,
    ) -> Result<Self> {
        let dir = dir.join("native");
        std::fs::create_dir_all(&dir)?;
        let (limited, bare, admin) = (wait::address()?, wait::address()?, wait::address()?);
        let mut grpc = cluster("ratelimit", sidecar);
        if let Some(members) = grpc.as_object_mut() {
            members.insert(
                "typed_extension_protocol_options".to_owned(),
                json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }}),
            );
        }
        let filter = json!({
            "name": "envoy.filters.http.ratelimit",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
                "domain": DOMAIN,
                "timeout": "1s",
                "failure_mode_deny": true,
                "rate_limit_service": {
                    "grpc_service": {"envoy_grpc": {"cluster_name": "ratelimit"}},
                    "transport_api_version": "V3",
                },
            },
        });
        let bootstrap = json!({
            "admin": {"address": socket(admin)},
            "node": {"id": "bench", "cluster": "bench"},
            "static_resources": {
                "listeners": [
                    listener("limited", limited, vec![filter], tenant),
                    listener("bare", bare, vec![], tenant),
                ],
                "clusters": [grpc, cluster("upstream", upstream)],
            },
        });
        let file = dir.join("envoy.json");
        std::fs::write(&file, format!("{bootstrap:#}"))?;
        let mut command = Command::new(env::path(env::ENVOY)?);
        command.arg("--config-path").arg(&file);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]);
        let mut process = Process::start("envoy", &dir, command)?;
        let ready = format!("http://{admin}/ready");
        process.wait_ready(|| wait::is_ok(&ready) && wait::accepts(limited))?;
        Ok(Self { process, limited, bare, admin })
    }

    /// The sum of the counters that end so.
    fn count(&self, name: &str) -> Result<u64> {
        let url = format!("http://{}/stats?format=json&usedonly", self.admin);
        let stats: Value = ureq::get(&url).call()?.body_mut().read_json()?;
        let all = stats.get("stats").and_then(Value::as_array).context("no stats")?;
        let ours = all.iter().filter(|stat| {
            stat.get("name").and_then(Value::as_str).is_some_and(|n| n.ends_with(name))
        });
        Ok(ours.filter_map(|stat| stat.get("value")?.as_u64()).sum())
    }
}

fn listener(name: &str, at: SocketAddr, mut filters: Vec<Value>, tenant: TenantId) -> Value {
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    let entry = |key: &str, value: String| json!({"generic_key": {"descriptor_key": key, "descriptor_value": value}});
    let actions = [
        entry("tenant_id", tenant.to_string()),
        entry("tier", "enterprise".to_owned()),
        entry("method", "GET".to_owned()),
        entry("route", ROUTE.to_owned()),
    ];
    json!({
        "name": name,
        "address": socket(at),
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name,
                "route_config": {"name": name, "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{
                        "match": {"prefix": "/"},
                        "route": {"cluster": "upstream", "rate_limits": [{"actions": actions}]},
                    }],
                }]},
                "http_filters": filters,
            },
        }]}],
    })
}

fn socket(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}
