//! What is left of an execution when a part dies under it.

use gatehouse_execution::ExecutionState;
use rustix::process::Signal;
use serde_json::json;

use crate::{
    support::{groups_of, processes_of},
    system::{System, wait_for},
};

#[tokio::test]
async fn a_killed_workers_execution_is_run_again_after_its_sandbox_is_dead() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_test_agent(&op, &["wait"])).await;
    let mut first = system.worker(json!({})).await;
    let id = system.submit(&op, agent, json!({"ms": 5000})).await;
    let old = format!("{id}-00000001");
    wait_for("the sandbox", || async {
        let seen = processes_of(&old);
        if seen.len() < 2 { Err(format!("{seen:?}")) } else { Ok(()) }
    })
    .await;
    first.signal(Signal::KILL);
    first.ended().await;
    assert!(!processes_of(&old).is_empty(), "nothing survived, so nothing is shown");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&old), "a run's mount is seen outside of its worker");
    let second = system.worker(json!({})).await;
    // Ready means swept: what the first one left is gone before anything new runs.
    assert_eq!(processes_of(&old), Vec::<String>::new());
    assert!(groups_of(&old).is_empty());
    assert!(!system.state_dir().join("bundles").join(&old).exists());
    let done = system.reaches(&op, id, ExecutionState::Completed).await;
    assert_eq!((done.attempt, done.output), (2, Some(json!({"waited": 5000}))));
    drop(second);
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_loses_nothing() {
    let mut system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_sample(&op)).await;
    let worker = system.worker(json!({})).await;
    let submit = || system.submit(&op, agent, json!({"fuel": "petrol", "litres": 2}));
    let before = submit().await;
    system.reaches(&op, before, ExecutionState::Completed).await;
    system.redis.stop();
    let during = system.submit(&op, agent, json!({"fuel": "petrol", "litres": 2})).await;
    wait_for("the worker to notice", || async {
        let log = worker.log();
        if log.contains("could not read the queue") { Ok(()) } else { Err(log) }
    })
    .await;
    system.redis.restart();
    let after = system.submit(&op, agent, json!({"fuel": "petrol", "litres": 2})).await;
    for id in [during, after] {
        let done = system.reaches(&op, id, ExecutionState::Completed).await;
        assert_eq!(done.attempt, 1);
    }
}

#[tokio::test]
async fn what_was_queued_in_a_redis_that_is_gone_is_offered_again() {
    let mut system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_test_agent(&op, &["wait"])).await;
    let worker = system.worker(json!({"concurrency": 1})).await;
    let first = system.submit(&op, agent, json!({"ms": 3000})).await;
    system.reaches(&op, first, ExecutionState::Running).await;
    let second = system.submit(&op, agent, json!({"ms": 1})).await;
    // In the stream, and no place free to take it.
    system.reaches(&op, second, ExecutionState::Queued).await;
    system.redis.restart();
    for id in [first, second] {
        let done = system.reaches(&op, id, ExecutionState::Completed).await;
        assert_eq!(done.attempt, 1, "{}", worker.log());
    }
}

#[tokio::test]
async fn two_workers_complete_each_execution_once() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_sample(&op)).await;
    let other_dir = system.dir.path().join("other").display().to_string();
    let one = system.worker(json!({"worker_id": "one"})).await;
    let two = system.worker(json!({"worker_id": "two", "state_dir": other_dir})).await;
    let mut ids = Vec::new();
    for litres in 1..=12 {
        ids.push(system.submit(&op, agent, json!({"fuel": "lpg", "litres": litres})).await);
    }
    for id in ids {
        let done = system.reaches(&op, id, ExecutionState::Completed).await;
        assert_eq!(done.attempt, 1, "{done:?}");
    }
    let share = |log: String| log.matches("\"message\":\"ended\",\"execution.id\"").count();
    let (one, two) = (share(one.log()), share(two.log()));
    assert_eq!(one + two, 12, "{one} and {two}");
    let name = std::fs::read_to_string(system.dir.path().join("other/worker")).unwrap();
    for group in groups_of(&name) {
        drop(std::fs::remove_dir(group));
    }
}

#[tokio::test]
async fn a_run_whose_runsc_is_killed_is_tried_again_and_leaves_no_zombie() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_test_agent(&op, &["wait"])).await;
    let worker = system.worker(json!({})).await;
    let id = system.submit(&op, agent, json!({"ms": 1500})).await;
    let sandbox = format!("{id}-00000001");
    let runsc = wait_for("runsc and its sandbox", || async {
        let seen = children_of(worker.process.0.id());
        let inside = processes_of(&sandbox).len();
        match seen.as_slice() {
            [(pid, _)] if inside >= 3 => Ok(*pid),
            _ => Err(format!("{seen:?} and {inside} processes")),
        }
    })
    .await;
    let pid = rustix::process::Pid::from_raw(runsc).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    let done = system.reaches(&op, id, ExecutionState::Completed).await;
    assert_eq!((done.attempt, done.output), (2, Some(json!({"waited": 1500}))));
    assert_eq!(processes_of(&sandbox), Vec::<String>::new());
    wait_for("no children", || async {
        let seen = children_of(worker.process.0.id());
        if seen.is_empty() { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

/// The children of a process, with their states.
fn children_of(parent: u32) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let mut fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let state = fields.next().unwrap().to_owned();
        if fields.next() == Some(parent.to_string().as_str()) {
            found.push((entry.file_name().to_str().unwrap().parse().unwrap(), state));
        }
    }
    found
}
