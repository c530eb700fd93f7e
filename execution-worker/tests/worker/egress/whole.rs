//! The way to the outside through a whole worker: tunnels, the hundred requests of a run, whose a credential is, and a worker
//! that may not make networks.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use gatehouse_contract::ExecutionId;
use gatehouse_execution::{EndReason, ExecutionState};
use gatehouse_execution_worker::egress::{PORT, PROXY};
use gatehouse_store::{
    OffsetDateTime, OpCtx, metering::Spent, paging::Page, usage::Counted, versions::Terms,
};
use serde_json::{Value, json};

use super::Upstream;
use crate::{
    support::processes_of,
    system::{System, Worker, get, wait_for},
};

/// A system with a tenant, and an upstream that its workers know.
struct Outside {
    system: System,
    upstream: Upstream,
    op: OpCtx,
}

impl Outside {
    async fn start() -> Self {
        let (system, upstream) = (System::start().await, Upstream::start().await);
        let op = system.tenant().await;
        Self { system, upstream, op }
    }

    fn host(&self) -> String {
        format!("localhost:{}", self.upstream.port())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.host())
    }

    fn asked_for(&self) -> Value {
        let (ca, host) = (self.upstream.ca_file(), self.host());
        json!({"egress": {"ca_file": ca, "private_upstreams": [format!("https://{host}")]}})
    }

    /// Submits the test agent that is started with `args`; it may ask the upstream, where it has a `way`.
    async fn submit(&self, args: &[&str], way: bool) -> ExecutionId {
        let image = self.system.publish_test_agent(&self.op, args);
        let egress = if way { vec![self.host()] } else { Vec::new() };
        let terms = Terms { egress, ..Terms::default() };
        let agent = self.system.agent_with(&self.op, &image, terms).await;
        self.system.submit(&self.op, agent, json!({"ms": 3_000_000})).await
    }

    async fn completes(&self, args: &[&str], way: bool) -> Value {
        let id = self.submit(args, way).await;
        self.system.reaches(&self.op, id, ExecutionState::Completed).await.output.unwrap()
    }

    /// What the agent was told that fails for a refusal, and what its attempt used.
    async fn is_denied(&self, args: &[&str]) -> (String, Spent) {
        let id = self.submit(args, true).await;
        let failed = self.system.reaches(&self.op, id, ExecutionState::Failed).await;
        assert_eq!(failed.end_reason, Some(EndReason::EgressDenied), "{failed:?}");
        (failed.error.unwrap(), self.attempt(id).await.1)
    }

    /// How the first attempt ended, once it has.
    async fn attempt(&self, id: ExecutionId) -> (EndReason, Spent) {
        wait_for("the first attempt's end", || async {
            let mut tx = self.system.store.tenant(&self.op).await.unwrap();
            let seen = tx.attempts(id, &Page::first(10)).await.unwrap();
            let first = seen.iter().find(|attempt| attempt.attempt == 1);
            let end = first.and_then(|first| Some((first.reason?, first.used?)));
            end.ok_or(format!("{seen:?}"))
        })
        .await
    }
}

#[tokio::test]
async fn res1_a_run_asks_a_hundred_times_and_through_no_tunnel_and_its_tokens_are_the_tenants() {
    let outside = Outside::start().await;
    let worker = outside.system.worker(outside.asked_for()).await;
    let tunnel = format!("CONNECT {}", outside.host());
    let (said, used) = outside.is_denied(&["ask", &tunnel]).await;
    assert!(said.contains("CONNECT is not served"), "{said}");
    assert_eq!((used.egress_requests, outside.upstream.requests()), (0, 0));
    let url = outside.url("openai");
    let asks = |count: usize| ["ask"].into_iter().chain(vec![&*url; count]).collect::<Vec<_>>();
    let answered = outside.completes(&asks(100), true).await;
    assert_eq!(answered, json!({"statuses": vec![200; 100]}));
    assert_eq!(outside.upstream.requests(), 100);
    // The next run has a hundred of its own; the request beyond them never leaves.
    let (said, used) = outside.is_denied(&asks(101)).await;
    assert!(said.contains("the limit of 100 requests is reached"), "{said}");
    assert_eq!(outside.upstream.requests(), 200);
    assert_eq!((used.egress_requests, used.tokens), (100, 4200));
    // Of today: the test's own operations are of 1970.
    let today = OpCtx { now: OffsetDateTime::now_utc(), ..outside.op.clone() };
    let mut tx = outside.system.store.tenant(&today).await.unwrap();
    assert_eq!(tx.used(Counted::Tokens).await.unwrap(), 8400);
    let metrics = get(worker.admin, "/metrics");
    for sample in
        ["requests_total{result=\"2xx\"} 200", "requests_total{result=\"egress_connect\"} 1"]
    {
        assert!(metrics.contains(&format!("gatehouse_worker_egress_{sample}")), "{metrics}");
    }
    assert!(get(worker.admin, "/readyz").contains("proxy"), "{}", get(worker.admin, "/readyz"));
}

#[tokio::test]
async fn pis4_a_runs_proxy_and_its_credential_are_nobody_elses() {
    let outside = Outside::start().await;
    let mut change = outside.asked_for();
    change["concurrency"] = json!(4);
    let _worker = outside.system.worker(change).await;
    let url = outside.url("openai");
    // One that goes on, with its proxy open.
    let going = outside.submit(&["wait"], true).await;
    wait_for("the sandbox", || async {
        let seen = processes_of(&going.to_string());
        if seen.len() < 2 { Err(format!("{seen:?}")) } else { Ok(()) }
    })
    .await;
    let proxy = outside.completes(&["proxy"], true).await;
    let proxy = proxy.as_str().unwrap();
    assert!(proxy.starts_with("http://run:") && proxy.ends_with(&format!("@{PROXY}:{PORT}")));
    // An ended run's, shown to another run's proxy.
    let borrowed = outside.submit(&["ask_by", proxy, &url], true).await;
    let (reason, used) = outside.attempt(borrowed).await;
    assert_eq!((reason, used.egress_requests), (EndReason::Failed, 0));
    let error = outside.system.execution(&outside.op, borrowed).await.error.unwrap();
    assert!(error.contains("egress_credential") || error.contains("asked in vain"), "{error}");
    assert_eq!(outside.upstream.requests(), 0);
    // The same program with its own.
    assert_eq!(outside.completes(&["ask", &url], true).await, json!({"statuses": [200]}));
    // A run without a way reaches nobody's proxy, and no process of the machine does.
    let at = SocketAddr::from((PROXY, PORT));
    let reached = outside.completes(&["reach", &at.to_string()], false).await;
    assert_eq!(reached, json!({"reached": [], "links": 1}));
    let near = Duration::from_secs(1);
    assert!(TcpStream::connect_timeout(&at, near).is_err(), "the machine reaches a run's proxy");
    let open = outside.system.execution(&outside.op, going).await;
    assert_eq!(open.state, ExecutionState::Running, "the proxy was open all the while");
}

/// Becomes a worker that is root and may change no network.
const WITHOUT_NET_ADMIN: [&str; 4] = [
    "setpriv",
    "--bounding-set=-net_admin",
    "--inh-caps=-net_admin",
    env!("CARGO_BIN_EXE_gatehouse-execution-worker"),
];

#[tokio::test]
async fn pis4_a_worker_that_may_make_no_network_says_so_and_runs_no_version_that_needs_one() {
    let outside = Outside::start().await;
    let dir = outside.system.dir.path();
    let mend = "give the worker CAP_NET_ADMIN";
    // What was asked for and cannot be is no worker.
    let asked = outside.system.config(outside.asked_for());
    let mut refused = Worker::spawn_by(dir, &asked, &WITHOUT_NET_ADMIN, &[]);
    let status = refused.ended().await;
    let log = refused.log();
    assert_eq!(status.code(), Some(69), "{log}");
    let line =
        log.lines().find(|line| line.contains("$.egress")).unwrap_or_else(|| panic!("{log}"));
    for part in ["agents cannot be given a network", "Operation not permitted", mend] {
        assert!(line.contains(part), "no {part:?}: {line}");
    }
    // Where nothing was said it runs what needs none.
    let config = outside.system.config(json!({}));
    let worker = Worker::spawn_by(dir, &config, &WITHOUT_NET_ADMIN, &[]);
    let worker = outside.system.ready(worker).await;
    let log = worker.log();
    assert!(log.contains("AGENTS HAVE NO NETWORK HERE") && log.contains(mend), "{log}");
    assert!(get(worker.admin, "/readyz").contains("none"));
    assert_eq!(outside.completes(&["print", "1"], false).await, json!(1));
    // What names hosts is not run, not even without a network: its agent needs none, and would be done.
    let id = outside.submit(&["print", "1"], true).await;
    let (reason, used) = outside.attempt(id).await;
    assert_eq!((reason, used.charged, used.wall_ms), (EndReason::SandboxError, false, 0));
    let waits = outside.system.execution(&outside.op, id).await;
    assert_eq!(waits.error.as_deref(), Some("this worker gives agents no network"));
    // Nor does a network that is switched off keep such a worker from its start.
    drop(worker);
    let config = outside.system.config(json!({"egress": {"enabled": false}}));
    let worker = Worker::spawn_by(dir, &config, &WITHOUT_NET_ADMIN, &[]);
    assert!(!outside.system.ready(worker).await.log().contains("NO NETWORK HERE"));
}
