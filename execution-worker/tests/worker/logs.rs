//! What agents log: as much of it as is kept, wherever it is, however much there is, and nothing of it in the worker's own.

use std::{fs, time::Duration};

use gatehouse_contract::ExecutionId;
use gatehouse_execution::{
    ExecutionState, Limits,
    limits::{Limit, Named},
    outcome::Captured,
};
use gatehouse_redis_kit::logs::{Logs, Place};
use gatehouse_store::{
    OpCtx,
    executions::{NewExecution, Terms},
};
use serde_json::json;
use uuid::Uuid;

use crate::system::{System, Worker, get, wait_for};

/// What reading more than is kept may add to the worker's memory at its highest.
const FLAT_BYTES: u64 = 24 << 20;

/// The most that a process ever had in memory.
fn highest_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

async fn kept(system: &System, op: &OpCtx, id: ExecutionId) -> Captured {
    let mut tx = system.store.tenant(op).await.unwrap();
    tx.log_of(id, 1).await.unwrap().unwrap_or_default()
}

/// Runs one that shouts, and returns what is kept of it.
async fn shouted(
    (system, worker): (&System, &Worker),
    op: &OpCtx,
    (place, kind, bytes): (&str, &str, u64),
) -> Captured {
    let image = system.publish_test_agent(op, &["shout", place, kind, &bytes.to_string()]);
    let agent = system.agent(op, &image).await;
    let process = worker.process.0.id();
    let before = highest_bytes(process);
    let id = system.submit(op, agent, json!({})).await;
    system.reaches(op, id, ExecutionState::Completed).await;
    let more = highest_bytes(process).saturating_sub(before);
    assert!(more < FLAT_BYTES, "{bytes} bytes of {kind} to {place} took {more}");
    kept(system, op, id).await
}

#[tokio::test]
async fn ee21_whatever_is_written_without_end_is_read_counted_and_not_held() {
    let system = System::start().await;
    let op = system.tenant().await;
    let worker = system.worker(json!({})).await;
    let both = (&system, &worker);
    // What a first run takes of memory is none of the next ones'.
    shouted(both, &op, ("stderr", "lines", 1 << 20)).await;
    let most = Limits::default().log_bytes;
    for (kind, bytes) in [("lines", 512 << 20), ("line", 1 << 30), ("garbage", 64 << 20)] {
        let log = shouted(both, &op, ("stderr", kind, bytes)).await;
        assert_eq!((log.total_bytes, log.bytes.len()), (bytes, most), "{kind}");
    }
    let log = shouted(both, &op, ("stdout", "line", 256 << 20)).await;
    assert_eq!(log, Captured::default(), "what is written to standard output is no log");
    // Little of that went to Redis, and all that did not was counted.
    let metrics = get(worker.admin, "/metrics");
    assert!(metrics.contains("gatehouse_worker_log_bytes_total{result=\"told\"}"), "{metrics}");
    let said = worker.log();
    for word in ["a hundred bytes", "without an end", "owned"] {
        assert!(!said.contains(word), "what agents say is in the worker's log");
    }
}

async fn live(system: &System, op: &OpCtx, id: ExecutionId) -> Vec<u8> {
    let url = system.redis.url().replace("worker:", "control:");
    let logs = Logs::new(&url.parse().unwrap(), Duration::from_secs(3)).unwrap();
    let seal = system.store.log_seal(op).await.unwrap();
    let place = Place { tenant: op.tenant, execution: id, epoch: 1 };
    let mut said = Vec::new();
    for part in logs.behind(&place, 0).await.unwrap() {
        assert!(!part.sealed.windows(5).any(|found| found == b"words"), "it is sealed");
        said.extend(seal.open((id, 1, part.from), &part.sealed).unwrap());
    }
    said
}

#[tokio::test]
async fn a_log_is_seen_while_it_is_written_and_its_end_is_kept() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_test_agent(&op, &["say"])).await;
    let _worker = system.worker(json!({})).await;
    let id = system.submit(&op, agent, json!({"ms": 3000})).await;
    wait_for("the first words", || async {
        let said = live(&system, &op, id).await;
        if said == b"first words\n" { Ok(()) } else { Err(String::from_utf8(said).unwrap()) }
    })
    .await;
    assert_eq!(system.execution(&op, id).await.state, ExecutionState::Running);
    system.reaches(&op, id, ExecutionState::Completed).await;
    assert_eq!(kept(&system, &op, id).await.bytes, b"first words\nlast words\n");
}

#[tokio::test]
async fn without_redis_a_run_goes_on_and_the_end_of_its_log_is_kept() {
    let mut system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_test_agent(&op, &["say"])).await;
    let worker = system.worker(json!({})).await;
    let id = system.submit(&op, agent, json!({"ms": 2000})).await;
    system.reaches(&op, id, ExecutionState::Running).await;
    system.redis.stop();
    system.reaches(&op, id, ExecutionState::Completed).await;
    assert_eq!(kept(&system, &op, id).await.bytes, b"first words\nlast words\n");
    assert!(!worker.log().contains("words"));
}

#[tokio::test]
async fn res1_who_looks_on_is_told_once_that_the_time_runs_out() {
    let system = System::start().await;
    let op = system.tenant().await;
    let (agent, version) = system.agent(&op, &system.publish_test_agent(&op, &["wait"])).await;
    let _worker = system.worker(json!({})).await;
    let id = ExecutionId::new(Uuid::new_v4());
    let mut limits = Named::default();
    limits.set(Limit::Timeout, 2).unwrap();
    let terms = Terms { limits, ..Terms::default() };
    let input = json!({"ms": 60_000});
    let mut tx = system.store.tenant(&op).await.unwrap();
    tx.submit_execution(&NewExecution { id, agent, version, input, terms }).await.unwrap();
    tx.commit().await.unwrap();
    let told = async || {
        let mut tx = system.store.tenant(&op).await.unwrap();
        let told = tx.told_since(id, 0, 100).await.unwrap();
        told.into_iter().map(|one| one.event.kind().as_str()).collect::<Vec<_>>()
    };
    system.reaches(&op, id, ExecutionState::Timeout).await;
    let kinds = told().await;
    let end = ["execution.started", "execution.time_runs_out", "execution.timed_out"];
    assert!(kinds.ends_with(&end), "{kinds:?}");
}
