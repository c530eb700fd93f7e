//! Agents with a way to the outside, in real sandboxes: what they reach, what they do not, and a whole worker around one.

use std::{
    net::{IpAddr, TcpListener, UdpSocket},
    path::Path,
};

use gatehouse_execution::{EndReason, ExecutionState, Limits, limits::Limit};
use gatehouse_execution_worker::egress::{Egress, PORT, PROXY};
use gatehouse_store::{executions, paging::Page, versions::Terms};
use serde_json::{Value, json};

use super::{Upstream, egress, hosts};
use crate::{
    support::{Bench, limits, part},
    system::{System, get},
};

/// Every way out that is not the proxy; the machine itself listens at `port` of all its addresses.
fn ways(port: u16) -> Vec<String> {
    // Where packets to the internet would leave from; nothing is sent.
    let out = UdpSocket::bind("0.0.0.0:0").unwrap();
    drop(out.connect("192.0.32.1:9"));
    let here = out.local_addr().unwrap().ip();
    let mut ways: Vec<String> = [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "192.0.2.0",
        "192.0.2.3",
        "1.1.1.1",
        "8.8.8.8",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[2606:4700::1111]",
    ]
    .map(|host| format!("{host}:{port}"))
    .into();
    // Where that is the agent's own address as well, it asks itself.
    if here != IpAddr::from([192, 0, 2, 2]) {
        ways.push(format!("{here}:{port}"));
    }
    ways.extend([22, 53, 80, port].map(|port| format!("{PROXY}:{port}")));
    ways
}

async fn reaches_the_proxy_alone(bench: Bench) {
    let upstream = Upstream::start().await;
    let url = format!("http://api.example.com:{}/openai", upstream.port());
    let listed = hosts(&[&format!("api.example.com:{}", upstream.port())]);
    let bench = bench.with_egress(egress(&upstream, "api.example.com"), listed);
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let ways = ways(listener.local_addr().unwrap().port());
    let args: Vec<&str> = ["reach"].into_iter().chain(ways.iter().map(String::as_str)).collect();
    let run = bench.run(&args, &limits()).await;
    let output = run.outcome().output.unwrap_or_else(|| panic!("{run:?}"));
    assert_eq!(output, json!({"reached": [], "links": 2}), "{run:?}");
    // The same program finds what is there: the proxy's port, and none of its others.
    let run = bench.run(&["reach", &format!("{PROXY}:{PORT}")], &limits()).await;
    let output = run.outcome().output.unwrap_or_else(|| panic!("{run:?}"));
    assert_eq!(output["reached"], json!([format!("tcp {PROXY}:{PORT}")]));
    assert_eq!((run.usage.egress_requests, run.egress_denied), (0, None));
    // And what it asks there is counted.
    let run = bench.run(&["ask", &url, &url], &limits()).await;
    assert_eq!(run.outcome().output, Some(json!({"statuses": [200, 200]})), "{run:?}");
    assert_eq!((run.usage.egress_requests, run.usage.tokens), (2, 84));
    // An agent that fails after a refusal ended for it.
    let run = bench.run(&["ask", &url, "http://other.example/"], &limits()).await;
    let outcome = run.outcome();
    assert_eq!(outcome.reason, EndReason::EgressDenied, "{run:?}");
    let said = outcome.message.unwrap();
    assert!(said.contains("other.example is not among the version's egress hosts"), "{said}");
    let few = Limits { egress_requests: 1, ..limits() };
    let outcome = bench.run(&["ask", &url, &url], &few).await.outcome();
    assert_eq!(outcome.reason, EndReason::EgressDenied);
    assert!(outcome.message.unwrap().contains("the limit of 1 requests is reached"));
}

#[tokio::test]
async fn an_agent_in_runsc_reaches_its_proxy_and_nothing_else() {
    reaches_the_proxy_alone(Bench::new().await).await;
}

#[tokio::test]
async fn an_agent_in_runsc_of_2022_reaches_its_proxy_and_nothing_else() {
    reaches_the_proxy_alone(Bench::with_runsc(Path::new(&part("GATEHOUSE_TEST_RUNSC_2022"))).await)
        .await;
}

#[tokio::test]
async fn an_agent_on_the_machines_kernel_reaches_its_proxy_and_nothing_else() {
    reaches_the_proxy_alone(Bench::of_process().await).await;
}

#[tokio::test]
async fn without_hosts_there_is_no_network_and_without_a_way_no_run() {
    let way = || Egress::new(&Default::default(), Vec::new()).unwrap();
    let bench = Bench::new().await.with_egress(way(), hosts(&[]));
    let run = bench.run(&["reach", &format!("{PROXY}:{PORT}")], &limits()).await;
    assert_eq!(run.outcome().output, Some(json!({"reached": [], "links": 1})), "{run:?}");
    // A worker that cannot, and a version that wants to.
    let mut bench = Bench::new().await;
    bench.egress = Some(hosts(&["api.example.com"]));
    let refused = bench.start(&Default::default(), &limits()).await;
    let refused = refused.unwrap_err().to_string();
    assert_eq!(refused, "this worker gives agents no network");
}

#[tokio::test]
async fn a_worker_lets_a_version_ask_its_hosts_and_meters_it() {
    let (upstream, system) = (Upstream::start().await, System::start().await);
    let host = format!("localhost:{}", upstream.port());
    let op = system.tenant().await;
    let worker = system
        .worker(json!({"egress": {
            "ca_file": upstream.ca_file(), "private_upstreams": [format!("https://{host}")],
        }}))
        .await;
    let url = |path: &str| format!("http://{host}{path}");
    let (openai, anthropic) = (url("/openai"), url("/anthropic"));
    let run = async |args: &[&str], egress: &[&str], limit: Option<u64>| {
        let image = system.publish_test_agent(&op, args);
        let egress = egress.iter().map(|host| (*host).to_owned()).collect();
        let agent = system.agent_with(&op, &image, Terms { egress, ..Terms::default() }).await;
        let mut terms = executions::Terms::default();
        if let Some(most) = limit {
            terms.limits.set(Limit::EgressRequests, most).unwrap();
        }
        system.submit_on(&op, agent, Value::Null, terms).await
    };
    let id = run(&["ask", &openai, &anthropic], &[&host], None).await;
    let done = system.reaches(&op, id, ExecutionState::Completed).await;
    assert_eq!(done.output, Some(json!({"statuses": [200, 200]})));
    let mut tx = system.store.tenant(&op).await.unwrap();
    let attempts = tx.attempts(id, &Page::first(1)).await.unwrap();
    let used = attempts[0].used.unwrap();
    assert_eq!((used.egress_requests, used.tokens), (2, 42 + 40), "{used:?}");
    for (args, egress, limit, said) in [
        (
            ["ask", "http://other.example/"].as_slice(),
            [&*host].as_slice(),
            None,
            "not among the version's",
        ),
        (&["ask", &openai, &openai], &[&host], Some(1), "the limit of 1 requests"),
    ] {
        let id = run(args, egress, limit).await;
        let failed = system.reaches(&op, id, ExecutionState::Failed).await;
        assert_eq!(failed.end_reason, Some(EndReason::EgressDenied), "{failed:?}");
        assert!(failed.error.as_ref().unwrap().contains(said), "{failed:?}");
    }
    let metrics = get(worker.admin, "/metrics");
    for sample in [
        "gatehouse_worker_egress_requests_total{result=\"2xx\"} 3",
        "gatehouse_worker_egress_requests_total{result=\"egress_host\"} 1",
        "gatehouse_worker_egress_requests_total{result=\"egress_requests\"} 1",
        "gatehouse_worker_egress_tokens_total 124",
    ] {
        assert!(metrics.contains(sample), "no {sample}: {metrics}");
    }
    // Nothing of credentials or paths is in the log.
    let log = worker.log();
    assert!(log.contains("asked the outside") && log.contains("localhost"), "{log}");
    assert!(!log.contains("/openai") && !log.contains("run:"), "{log}");
}
