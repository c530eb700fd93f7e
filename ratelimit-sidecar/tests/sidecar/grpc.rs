//! Envoy's rate limit service over the filters' port: a raw HTTP/2 client, and Envoy's own filter in a real Envoy.

use std::{
    io::Write,
    process::{Child, Command, Stdio},
};

use axum::{Router, body::Bytes, http::Request};
use gatehouse_contract::TenantId;
use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::process::{Redis, Sidecar, config, env, memory, redis, until};

#[path = "../../src/grpc/wire.rs"]
mod wire;

use wire::{Code, Descriptor, Entry, RateLimitRequest, RateLimitResponse, UInt64Value};

const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
const AGENTS: &str = "/api/v1/registry/agents";

fn tenant() -> TenantId {
    TenantId::new(Uuid::new_v4())
}

fn question(tenant: TenantId, tier: &str, route: &str) -> RateLimitRequest {
    let tenant = tenant.to_string();
    let entries = [("tenant_id", &*tenant), ("tier", tier), ("method", "POST"), ("route", route)];
    let entry = |(key, value): (&str, &str)| Entry { key: key.into(), value: value.into() };
    let entries = entries.into_iter().map(entry).collect();
    let descriptor = Descriptor { entries, ..Descriptor::default() };
    RateLimitRequest { domain: "gatehouse".into(), descriptors: vec![descriptor], hits_addend: 0 }
}

/// One call on a connection of its own: the answer, or the status.
async fn call(
    sidecar: &Sidecar,
    path: &str,
    question: &RateLimitRequest,
) -> Result<RateLimitResponse, String> {
    let at = sidecar.url.strip_prefix("http://").unwrap();
    let stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("{}{path}", sidecar.url))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    let message = question.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    let framed = [&[0][..], &length.to_be_bytes(), &message].concat();
    body.send_data(Bytes::from(framed), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-gatehouse-sidecar"], "1");
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    if let Some(status) = answer.headers().get("grpc-status") {
        return Err(status.to_str().unwrap().to_owned());
    }
    let mut body = answer.into_body();
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        whole.extend_from_slice(&data);
    }
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    drop(client);
    connection.abort();
    let (prefix, message) = whole.split_at(5);
    assert_eq!(prefix, [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes()].concat());
    Ok(RateLimitResponse::decode(message).unwrap())
}

/// `name left/of`, then what the client would see.
fn shown(answer: &RateLimitResponse) -> String {
    let [status] = &answer.statuses[..] else { panic!("{answer:?}") };
    assert_eq!(status.code, answer.overall_code);
    let limit = status.current_limit.as_ref().unwrap();
    let verdict = if answer.overall_code() == Code::Ok { "+" } else { "-" };
    let name = limit.name.escape_ascii();
    format!("{verdict} {name} {}/{}", status.limit_remaining, limit.requests_per_unit)
}

fn header<'a>(answer: &'a RateLimitResponse, name: &str) -> Option<&'a str> {
    let mut all = answer.response_headers_to_add.iter();
    all.find(|header| header.key == name).map(|header| header.value.as_str())
}

/// The same windows as those of the JSON route.
#[tokio::test]
async fn a_tenants_minute_over_grpc() {
    let limits = json!({"limits": {"tiers": {"free": 12}, "burst_multiplier": 0}});
    let sidecar = Sidecar::start(&config(&redis(&env("GATEHOUSE_TEST_REDIS")), limits));
    sidecar.until_ready().await;
    let tenant = tenant();
    let mut asked = question(tenant, "free", AGENTS);
    let mut got = Vec::new();
    for hits in [Some(0), Some(1), None, Some(8), Some(1), Some(0)] {
        asked.descriptors[0].hits_addend = hits.map(|value| UInt64Value { value });
        got.push(shown(&call(&sidecar, PATH, &asked).await.unwrap()));
    }
    assert_eq!(
        got,
        [
            "+ tenant 12/12",
            "+ endpoint 9/10",
            "+ endpoint 8/10",
            "+ endpoint 0/10",
            "- endpoint 0/10",
            "- endpoint 0/10"
        ]
    );
    let other = call(&sidecar, PATH, &question(tenant, "free", "/x")).await.unwrap();
    assert_eq!(shown(&other), "+ tenant 1/12");
    let denied = call(&sidecar, PATH, &asked).await.unwrap();
    let retry: u32 = header(&denied, "retry-after").unwrap().parse().unwrap();
    assert!((55..=61).contains(&retry), "{retry}");
    assert_eq!(header(&denied, "x-ratelimit-remaining"), Some("0"));
    assert_eq!(header(&denied, "content-type"), Some("application/problem+json"));
    let reset = denied.statuses[0].duration_until_reset.unwrap().seconds;
    assert!(reset <= i64::from(retry) && reset > 0);
    let policies = header(&denied, "ratelimit-policy").unwrap();
    assert_eq!(policies, "\"endpoint\";q=10;w=60, \"tenant\";q=12;w=60");

    let counted = "gatehouse_ratelimit_checks_total{tier=\"free\",outcome=\"denied\"}";
    assert_eq!(sidecar.metric(counted).await, Some(3));
}

#[tokio::test]
async fn what_is_not_understood_is_refused_and_a_closed_tier_without_its_store_too() {
    let mut server = Redis::start();
    // Strict: a lease that lives would go on for a moment without the store.
    let limits = json!({"limits": {"mode": "strict", "tiers": {"pro": {"away": "closed"}}}});
    let store = redis(&server.url("sidecar", "test"));
    let sidecar = Sidecar::start(&config(&store, limits));
    let good = question(tenant(), "pro", "/x");
    until("a verdict", async || call(&sidecar, PATH, &good).await.ok()).await;
    let refused = async |edit: &dyn Fn(&mut RateLimitRequest)| {
        let mut asked = good.clone();
        edit(&mut asked);
        call(&sidecar, PATH, &asked).await.unwrap_err()
    };
    assert_eq!(refused(&|asked| asked.domain = "envoy".into()).await, "3");
    assert_eq!(refused(&|asked| drop(asked.descriptors[0].entries.pop())).await, "3");
    assert_eq!(refused(&|asked| asked.descriptors[0].entries[0].value = "x".into()).await, "3");
    assert_eq!(refused(&|asked| asked.descriptors.push(good.descriptors[0].clone())).await, "3");
    let other = "/envoy.service.ratelimit.v3.RateLimitService/Other";
    assert_eq!(call(&sidecar, other, &good).await.unwrap_err(), "12");
    server.kill();
    assert_eq!(call(&sidecar, PATH, &good).await.unwrap_err(), "14");
    let free = call(&sidecar, PATH, &question(tenant(), "free", "/x")).await.unwrap();
    assert_eq!(free.overall_code(), Code::Ok, "local is the default");
}

/// Ends with its owner.
struct Envoy(Child);

impl Drop for Envoy {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().unwrap();
    }
}

/// Envoy's documented way to this service: one descriptor of headers and a name per route.
fn bootstrap(listen: u16, sidecar: &str, upstream: u16) -> Value {
    let cluster = |name: &str, at: u16, http2: bool| {
        let mut cluster = json!({
            "name": name, "connect_timeout": "1s", "type": "STATIC",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint":
                {"address": {"socket_address": {"address": "127.0.0.1", "port_value": at}}}}]}]},
        });
        if http2 {
            cluster["typed_extension_protocol_options"] = json!({
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}}}});
        }
        cluster
    };
    let from_header = |header: &str, key: &str| json!({"request_headers": {"header_name": header, "descriptor_key": key}});
    let route = json!({
        "match": {"path": AGENTS},
        "route": {"cluster": "upstream", "rate_limits": [{"actions": [
            from_header("x-tenant-id", "tenant_id"),
            from_header("x-tenant-tier", "tier"),
            from_header(":method", "method"),
            {"generic_key": {"descriptor_key": "route", "descriptor_value": AGENTS}}]}]}});
    let sidecar = sidecar.rsplit(':').next().unwrap().parse().unwrap();
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    json!({"static_resources": {
        "listeners": [{"name": "l",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": listen}},
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "in",
                    "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
                    "http_filters": [
                        {"name": "envoy.filters.http.ratelimit", "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
                            "domain": "gatehouse", "failure_mode_deny": true, "timeout": "1s",
                            "rate_limit_service": {"transport_api_version": "V3",
                                "grpc_service": {"envoy_grpc": {"cluster_name": "sidecar"}}}}},
                        {"name": "envoy.filters.http.router", "typed_config": {"@type": router}}]}}]}]}],
        "clusters": [cluster("sidecar", sidecar, true), cluster("upstream", upstream, false)]}})
}

#[tokio::test]
async fn envoys_own_filter_limits_by_this_service() {
    let sidecar = Sidecar::start(&config(&memory(), json!({"limits": {"burst_multiplier": 0}})));
    let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = upstream.local_addr().unwrap().port();
    let router = Router::new().fallback(async || "upstream");
    let serving = tokio::spawn(async move { axum::serve(upstream, router).await.unwrap() });
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap().port();
    drop(free);
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("envoy.json");
    let text = bootstrap(listen, &sidecar.url, at).to_string();
    std::fs::File::create(&file).unwrap().write_all(text.as_bytes()).unwrap();
    let mut command = Command::new(env("GATEHOUSE_TEST_ENVOY"));
    command.arg("-c").arg(&file).args(["--disable-hot-restart", "--concurrency", "1"]);
    command.args(["--log-level", "critical"]).stdin(Stdio::null()).stdout(Stdio::null());
    let envoy = Envoy(command.spawn().unwrap());

    let ask = async |tenant: &str| {
        let request = sidecar.client.post(format!("http://127.0.0.1:{listen}{AGENTS}"));
        request.header("x-tenant-id", tenant).header("x-tenant-tier", "free").send().await.ok()
    };
    let tenant = tenant().to_string();
    until("Envoy to answer", async || ask("no tenant").await).await;
    for left in (0..10).rev() {
        let answer = ask(&tenant).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-ratelimit-limit"], "10");
        assert_eq!(answer.headers()["x-ratelimit-remaining"], left.to_string());
        assert_eq!(answer.text().await.unwrap(), "upstream");
    }
    let denied = ask(&tenant).await.unwrap();
    assert_eq!(denied.status(), 429);
    let headers = denied.headers();
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers["x-envoy-ratelimited"], "true");
    assert_eq!(headers["ratelimit-policy"], "\"endpoint\";q=10;w=60, \"tenant\";q=60;w=60");
    let retry: u32 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((55..=61).contains(&retry), "{retry}");
    let body: Value = denied.json().await.unwrap();
    assert_eq!(body["code"], "quota_exceeded");
    // A descriptor that is not understood is an error of the service, and the filter is told to deny on those.
    let answer = ask("no tenant").await.unwrap();
    assert_eq!(answer.status(), 500);
    let another = ask(&self::tenant().to_string()).await.unwrap();
    assert_eq!(another.headers()["x-ratelimit-remaining"], "9");
    drop(envoy);
    serving.abort();
}
