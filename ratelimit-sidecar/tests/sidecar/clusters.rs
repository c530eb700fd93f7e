//! R2, R14: a Redis Cluster of three under the sidecar: checks, leases, and one of its servers that stands still, is gone
//! or begins anew. Its tenants are answered by their tier's policy at once, and the others by their own servers.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use gatehouse_contract::{TenantId, Tier, sidecar::CheckAsk};
use rustix::process::Signal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::process::{Redis, Sidecar, config, until, wait_for};

const LIMIT: u64 = 12;
/// How long the sidecar waits for a server.
const DEADLINE_MS: u64 = 300;

/// A sidecar over three servers, and a tenant of each, which used nothing.
struct Bench {
    nodes: Vec<Redis>,
    sidecar: Sidecar,
    tenants: [TenantId; 3],
}

impl Bench {
    async fn start(away: &str) -> Self {
        let nodes: Vec<Redis> = (0..3)
            .map(|_| {
                let bus = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
                Redis::start_with(&[
                    "--cluster-enabled",
                    "yes",
                    "--cluster-node-timeout",
                    "2000",
                    "--cluster-port",
                    &bus.port().to_string(),
                ])
            })
            .collect();
        let mut join = Command::new("redis-cli");
        join.args(["--user", "admin", "--cluster", "create"])
            .args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())))
            .args(["--cluster-replicas", "0", "--cluster-yes"])
            .env("REDISCLI_AUTH", "test");
        let joined = join.output().unwrap();
        assert!(joined.status.success(), "{joined:?}");
        let urls: Vec<String> = nodes.iter().map(|node| node.url("sidecar", "test")).collect();
        let store = json!({"kind": "redis_cluster", "urls": urls});
        let sidecar = Sidecar::start(&config(
            &store,
            json!({
                "limits": {
                    "tiers": {"free": {"per_window": LIMIT, "away": away}},
                    "endpoint_default": "unlimited",
                    "burst_multiplier": 0,
                },
                "redis_timeout_ms": DEADLINE_MS,
            }),
        ));
        let tenants = [0, 1, 2].map(|node| tenant_of(&nodes[node]));
        let bench = Self { nodes, sidecar, tenants };
        for node in 0..3 {
            assert_eq!(bench.decided(node).await, LIMIT);
        }
        bench
    }

    /// One check of the tenant of this node: status and body.
    async fn check(&self, node: usize, cost: u32) -> (u16, Value) {
        self.sidecar.check(&ask(self.tenants[node], cost)).await
    }

    /// Waits for the store's own word on what is left to the tenant of this node.
    async fn decided(&self, node: usize) -> u64 {
        until("the server to decide", async || {
            let (status, body) = self.check(node, 0).await;
            let decided = status == 200 && body["degraded"] != true;
            decided.then(|| body["limits"][0]["remaining"].as_u64().unwrap())
        })
        .await
    }

    /// One request of the tenant of this node that its server lets pass.
    async fn passes(&self, node: usize) {
        let (status, body) = self.check(node, 1).await;
        assert_eq!((status, &body["allowed"]), (200, &json!(true)), "{body}");
        assert_ne!(body["degraded"], true, "decided without its server: {body}");
    }

    /// Waits until the tier's policy answers the tenant of this node.
    async fn degraded(&self, node: usize) {
        until("the policy to decide", async || {
            let (status, body) = self.check(node, 0).await;
            (status == 503 || body["degraded"] == true).then_some(())
        })
        .await;
    }

    async fn metric(&self, name: &str) -> u64 {
        self.sidecar.metric(&format!("gatehouse_ratelimit_{name}")).await.unwrap()
    }
}

fn ask(tenant: TenantId, cost: u32) -> CheckAsk {
    CheckAsk {
        tenant,
        tier: Tier::Free,
        limits: None,
        subject: None,
        method: "GET".into(),
        route: "/api/v1/registry/agents".into(),
        cost,
        forced: false,
    }
}

/// A tenant whose windows are on this server, as that says once all know who keeps what.
fn tenant_of(node: &Redis) -> TenantId {
    wait_for("the cluster", || node.command("CLUSTER INFO").contains("state:ok").then_some(()));
    let tenants = std::iter::repeat_with(|| TenantId::new(Uuid::new_v4()));
    let kept =
        |tenant: &TenantId| node.command(&format!("GET rl:{{{tenant}}}:x")).starts_with("$-1");
    tenants.take(200).find(kept).unwrap()
}

#[tokio::test]
async fn r14_a_server_of_a_cluster_that_stands_still_costs_the_others_nothing_and_its_own_tenants_no_wait()
 {
    let bench = Bench::start("local").await;
    for node in 0..3 {
        bench.passes(node).await;
    }
    bench.nodes[0].signal(Signal::STOP);
    // Its first ones wait for the deadline, then nobody does: of these each would.
    let (begin, mut slow) = (Instant::now(), 0);
    for n in 0..60 {
        let asked = Instant::now();
        let (status, body) = bench.check(0, 0).await;
        slow += usize::from(asked.elapsed() >= Duration::from_millis(DEADLINE_MS));
        assert_eq!((status, &body["degraded"]), (200, &json!(true)), "{body}");
        for other in [1, 2] {
            let (status, body) = bench.check(other, u32::from(n % 10 == 0)).await;
            assert_eq!((status, body["degraded"] == true), (200, false), "{n} {other}: {body}");
        }
    }
    assert!(slow < 20, "{slow} of 60 waited, {:?} in all", begin.elapsed());
    let (status, body) = bench.check(0, 1).await;
    assert_eq!((status, &body["degraded"]), (200, &json!(true)), "the share decides: {body}");
    // The store is not left alone for one of its servers.
    assert_eq!(bench.metric("breaker_opened_total").await, 0);
    for other in [1, 2] {
        assert_eq!(bench.decided(other).await, LIMIT - 7);
    }
    bench.nodes[0].signal(Signal::CONT);
    // What its share let pass is charged beside what was charged before.
    until("the charge", async || (bench.decided(0).await == LIMIT - 2).then_some(())).await;
}

#[tokio::test]
async fn r14_a_server_of_a_cluster_that_begins_anew_is_told_and_the_others_are_not_asked_to_wait() {
    let mut bench = Bench::start("local").await;
    for node in [0, 0, 0, 1] {
        bench.passes(node).await;
    }
    bench.nodes[0].kill();
    bench.degraded(0).await;
    for _ in 0..60 {
        bench.degraded(0).await;
    }
    assert_eq!(bench.metric("breaker_opened_total").await, 0, "left alone for one server");
    bench.passes(1).await;
    bench.passes(2).await;
    // With its slots and without its data.
    bench.nodes[0].restart();
    assert_eq!(bench.decided(0).await, LIMIT - 3);
    assert_eq!(bench.decided(1).await, LIMIT - 2);
    assert_eq!(bench.decided(2).await, LIMIT - 1);
}

#[tokio::test]
async fn r14_a_cluster_that_is_down_refuses_everybody_and_charges_nobody() {
    let mut bench = Bench::start("closed").await;
    for node in 0..3 {
        bench.passes(node).await;
    }
    bench.nodes[0].kill();
    // A cluster that must be whole (Redis' default) serves nobody once the others have noticed.
    wait_for("the others to notice", || {
        let told = bench.nodes[1].command(&format!("GET rl:{{{}}}:x", bench.tenants[1]));
        told.starts_with("-CLUSTERDOWN").then_some(())
    });
    for node in 0..3 {
        bench.degraded(node).await;
        let (status, body) = bench.check(node, 1).await;
        assert_eq!((status, &body["code"]), (503, &json!("limiter_unavailable")), "{node}");
    }
    bench.nodes[0].restart();
    for node in 0..3 {
        assert_eq!(bench.decided(node).await, LIMIT - 1, "{node}");
    }
}
