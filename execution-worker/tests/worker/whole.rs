//! From a row that is pending to a row that has ended, with every part real.

use gatehouse_execution::{EndReason, ExecutionState};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    support::{groups_of, processes_of},
    system::{System, get, wait_for},
};

#[tokio::test]
async fn a_pending_execution_is_completed_in_gvisor() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_sample(&op)).await;
    let worker = system.worker(json!({})).await;
    let id = system.submit(&op, agent, json!({"fuel": "diesel", "litres": 12.5})).await;
    let done = system.reaches(&op, id, ExecutionState::Completed).await;
    let output = done.output.unwrap();
    assert_eq!(output["kg_co2e"], json!(31.409875), "{output}");
    let kernel = output["kernel"].as_str().unwrap();
    assert!(kernel.starts_with("Linux version 4.4.0"), "not gVisor's kernel: {kernel}");
    assert_ne!(kernel, std::fs::read_to_string("/proc/version").unwrap().trim());
    assert_eq!((done.attempt, done.end_reason), (1, Some(EndReason::Completed)));
    assert!(get(worker.admin, "/livez").starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn what_cannot_be_run_ends_with_its_reason() {
    let system = System::start().await;
    let (op, other) = (system.tenant().await, system.tenant().await);
    let theirs = system.publish_sample(&other);
    let ours = system.publish_test_agent(&op, &["print", "no json"]);
    let _worker = system.worker(json!({})).await;
    for (image, reason, message) in [
        // Another tenant's, by its real digest: as missing as one that never was.
        (theirs.as_str(), EndReason::ImageError, "does not exist"),
        (&format!("none@sha256:{}", "0".repeat(64)), EndReason::ImageError, "does not exist"),
        (&ours, EndReason::OutputInvalid, "not acceptable JSON"),
    ] {
        let agent = system.agent(&op, image).await;
        let id = system.submit(&op, agent, json!({})).await;
        let failed = system.reaches(&op, id, ExecutionState::Failed).await;
        assert_eq!(failed.end_reason, Some(reason), "{failed:?}");
        assert!(failed.error.unwrap().contains(message));
        assert_eq!(failed.output, None);
    }
    // The nearest that is allowed: the same digest for the tenant that owns it.
    let agent = system.agent(&other, &theirs).await;
    let id = system.submit(&other, agent, json!({"fuel": "lpg", "litres": 1})).await;
    system.reaches(&other, id, ExecutionState::Completed).await;
}

#[tokio::test]
async fn an_agent_that_asks_again_is_run_again_until_its_attempts_are_used_up() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_test_agent(&op, &["exit", "75"])).await;
    let _worker = system.worker(json!({})).await;
    let id = system.submit(&op, agent, json!({})).await;
    let given_up = system.reaches(&op, id, ExecutionState::DeadLetter).await;
    assert_eq!((given_up.attempt, given_up.end_reason), (3, Some(EndReason::RetryAsked)));
}

#[tokio::test]
async fn the_first_signal_lets_runs_end() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_test_agent(&op, &["wait"])).await;
    let mut worker = system.worker(json!({})).await;
    let id = system.submit(&op, agent, json!({"ms": 2500})).await;
    system.reaches(&op, id, ExecutionState::Running).await;
    let late = {
        worker.signal(Signal::TERM);
        system.submit(&op, agent, json!({"ms": 1})).await
    };
    assert!(worker.ended().await.success(), "{}", worker.log());
    let done = system.execution(&op, id).await;
    assert_eq!((done.state, done.attempt), (ExecutionState::Completed, 1), "{done:?}");
    let left = system.execution(&op, late).await;
    assert_eq!(left.attempt, 0, "a draining worker took new work: {left:?}");
}

#[tokio::test]
async fn the_second_signal_hands_runs_back_without_counting_them() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_test_agent(&op, &["wait"])).await;
    let mut worker = system.worker(json!({})).await;
    let id = system.submit(&op, agent, json!({"ms": 3_000_000})).await;
    wait_for("the sandbox", || async {
        let seen = processes_of(&id.to_string());
        if seen.len() < 2 { Err(format!("{seen:?}")) } else { Ok(()) }
    })
    .await;
    worker.signal(Signal::TERM);
    wait_for("the drain", || async {
        let log = worker.log();
        if log.contains("shutdown asked for") { Ok(()) } else { Err(log) }
    })
    .await;
    worker.signal(Signal::TERM);
    assert!(worker.ended().await.success(), "{}", worker.log());
    let back = system.execution(&op, id).await;
    assert_eq!((back.state, back.attempt), (ExecutionState::Queued, 0), "{back:?}");
    assert_eq!(processes_of(&id.to_string()), Vec::<String>::new());
    let name = std::fs::read_to_string(system.state_dir().join("worker")).unwrap();
    assert!(groups_of(&name).is_empty(), "the worker's own group is left");
}

#[tokio::test]
async fn a_lease_that_is_taken_away_ends_the_run() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_test_agent(&op, &["wait"])).await;
    let _worker = system.worker(json!({})).await;
    let id = system.submit(&op, agent, json!({"ms": 3_000_000})).await;
    wait_for("the sandbox", || async {
        let seen = processes_of(&id.to_string());
        if seen.len() < 2 { Err(format!("{seen:?}")) } else { Ok(()) }
    })
    .await;
    // As another worker's report under this epoch would.
    let mut tx = system.store.tenant(&op).await.unwrap();
    let outcome = gatehouse_execution::outcome::Outcome {
        reason: EndReason::Cancelled,
        output: None,
        message: None,
    };
    tx.complete_execution(id, 1, &outcome, &gatehouse_execution::Record::default())
        .await
        .unwrap()
        .unwrap();
    tx.commit().await.unwrap();
    wait_for("the sandbox's end", || async {
        let seen = processes_of(&id.to_string());
        if seen.is_empty() { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    assert_eq!(system.execution(&op, id).await.state, ExecutionState::Cancelled);
}
