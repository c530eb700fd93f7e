//! Lifecycle hooks (LFH-001) around real attempts: their order, what a hook that fails, hangs or crashes does at each point,
//! and what becomes of CLEANUP and ON_ERROR when the worker does not live to run them.

use gatehouse_contract::{AgentId, AgentVersionId, ExecutionId};
use gatehouse_execution::{EndReason, ExecutionState, Hook, Hooks};
use gatehouse_store::{
    OpCtx,
    hooks::{HookRun, HookState},
    versions::Terms,
};
use rustix::process::Signal;
use serde_json::{Map, Value, json};

use crate::system::{System, Worker, wait_for};

const IMAGE: &str = "none@sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// What the driver "sim" makes of a hook.
fn script(script: &Value, timeout_s: u64) -> Value {
    json!({"command": [script.to_string()], "timeout_s": timeout_s})
}

async fn agent(
    system: &System,
    op: &OpCtx,
    image: &str,
    hooks: Value,
) -> (AgentId, AgentVersionId) {
    let hooks = Hooks::from_json(&hooks).unwrap();
    system.agent_with(op, image, Terms { hooks, ..Terms::default() }).await
}

/// All eight, each at once, with `change` in the place of some.
fn eight(change: &[(Hook, Value)]) -> Value {
    let mut hooks: Map<String, Value> =
        Hook::ALL.into_iter().map(|hook| (hook.to_string(), script(&json!({}), 10))).collect();
    for (hook, of) in change {
        hooks.insert(hook.to_string(), of.clone());
    }
    Value::Object(hooks)
}

async fn runs(system: &System, op: &OpCtx, id: ExecutionId) -> Vec<HookRun> {
    system.store.tenant(op).await.unwrap().hook_runs(id).await.unwrap()
}

/// What is recorded of an attempt: `cleanup=done`, in the order of the points.
fn told(runs: &[HookRun], epoch: u64) -> String {
    let of = runs.iter().filter(|run| run.lease_epoch == epoch);
    let words: Vec<String> = of
        .map(|run| {
            let state = match run.state {
                HookState::Owed => "owed",
                HookState::Done => "done",
                HookState::Failed => "failed",
                HookState::Skipped => "skipped",
            };
            format!("{}={state}", run.hook)
        })
        .collect();
    words.join(" ")
}

/// The runs that the driver began, in the order in which it did.
fn began(system: &System) -> Vec<String> {
    let journal = std::fs::read_to_string(system.state_dir().join("sim.log")).unwrap();
    let begun = journal.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    begun
        .filter(|words| ["began", "hook"].contains(&words[0]))
        .map(|words| words[1].to_owned())
        .collect()
}

const BEFORE: &str =
    "pre_init=done post_init=done pre_validate=done post_validate=done pre_execute=done";

#[tokio::test]
async fn ee36_hooks_come_in_their_order_around_the_agent_and_are_recorded_once() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = agent(&system, &op, IMAGE, eight(&[])).await;
    let config = system.sim(&[&op], json!({}));
    let worker = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    for (input, state, reason, after) in [
        (
            json!({}),
            ExecutionState::Completed,
            EndReason::Completed,
            "post_execute=done on_error=skipped cleanup=done",
        ),
        (
            json!({"end": "failed"}),
            ExecutionState::Failed,
            EndReason::Failed,
            "post_execute=done on_error=done cleanup=done",
        ),
        (
            json!({"end": "oom_killed"}),
            ExecutionState::Failed,
            EndReason::OomKilled,
            "post_execute=done on_error=done cleanup=done",
        ),
        (
            json!({"ms": 600_000}),
            ExecutionState::Cancelled,
            EndReason::Cancelled,
            "post_execute=done on_error=done cleanup=done",
        ),
    ] {
        let before = began(&system).len();
        let id = system.submit(&op, agent, input.clone()).await;
        if state == ExecutionState::Cancelled {
            wait_for("the agent", || async {
                let begun = began(&system);
                if begun.contains(&id.to_string()) { Ok(()) } else { Err(format!("{begun:?}")) }
            })
            .await;
            let mut tx = system.store.tenant(&op).await.unwrap();
            tx.cancel_execution(id).await.unwrap();
            tx.commit().await.unwrap();
        }
        let done = system.reaches(&op, id, state).await;
        assert_eq!(done.end_reason, Some(reason), "{input}");
        let runs = runs(&system, &op, id).await;
        assert_eq!(told(&runs, 1), format!("{BEFORE} {after}"), "{input}");
        // What the driver saw is what is recorded, in that order, with the agent in its place.
        let order: Vec<String> = began(&system).split_off(before);
        let mut expected: Vec<String> = runs
            .iter()
            .filter(|run| run.state == HookState::Done)
            .map(|run| run.run_id.to_string())
            .collect();
        expected.insert(5, id.to_string());
        assert_eq!(order, expected, "{input}: {}", worker.log());
    }
}

#[tokio::test]
async fn ee36_a_hook_that_fails_hangs_or_crashes_has_its_outcome_at_each_point() {
    let system = System::start().await;
    let op = system.tenant().await;
    let config = system.sim(&[&op], json!({"concurrency": 10}));
    let _worker = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    let mut waiting = Vec::new();
    for hook in Hook::ALL {
        for (how, timeout_s, reason) in [
            (json!({"end": "failed"}), 10, EndReason::Failed),
            (json!({"end": "timeout"}), 1, EndReason::Timeout),
            // As a process that a signal ends.
            (json!({"end": "oom_killed"}), 10, EndReason::OomKilled),
        ] {
            let agent = agent(&system, &op, IMAGE, eight(&[(hook, script(&how, timeout_s))])).await;
            // ON_ERROR comes only where there is one.
            let input = if hook == Hook::OnError { json!({"end": "failed"}) } else { json!({}) };
            waiting.push((hook, reason, system.submit(&op, agent, input).await));
        }
    }
    for (hook, reason, id) in waiting {
        let keeps_out = Hook::BEFORE.contains(&hook);
        let state = match hook {
            Hook::OnError => ExecutionState::Failed,
            _ if keeps_out => ExecutionState::Failed,
            _ => ExecutionState::Completed,
        };
        let done = system.reaches(&op, id, state).await;
        let error = done.error.unwrap_or_default();
        let runs = runs(&system, &op, id).await;
        let of = runs.iter().find(|run| run.hook == hook).unwrap();
        assert_eq!((of.state, of.end_reason), (HookState::Failed, Some(reason)), "{hook} {reason}");
        let told = told(&runs, 1);
        assert!(!told.contains("owed"), "{told}");
        if keeps_out {
            // Its own time limit is not the agent's.
            let expected = if reason == EndReason::Timeout { EndReason::Failed } else { reason };
            assert_eq!(done.end_reason, Some(expected), "{hook} {reason}");
            assert!(error.starts_with(&format!("the hook {hook}: ")), "{error}");
            assert!(!began(&system).contains(&id.to_string()), "the agent ran after {hook}");
            assert!(told.ends_with("on_error=done cleanup=done"), "{hook}: {told}");
            assert!(!told.contains("post_execute"), "{hook}: {told}");
        } else {
            assert!(!error.contains("hook"), "{hook} took the result's place: {error}");
            let last = runs.last().unwrap();
            assert_eq!(last.hook, Hook::Cleanup, "{told}");
        }
    }
}

#[tokio::test]
async fn ee36_a_cleanup_whose_worker_is_killed_runs_again_under_its_id_and_is_recorded_once() {
    let system = System::start().await;
    let op = system.tenant().await;
    let cleanup = script(&json!({"ms": 2500}), 10);
    let agent =
        agent(&system, &op, IMAGE, json!({"cleanup": cleanup, "on_error": script(&json!({}), 5)}))
            .await;
    let config = system.sim(&[&op], json!({}));
    let mut worker = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    let id = system.submit(&op, agent, json!({})).await;
    let first = wait_for("the cleanup", || async {
        let runs = runs(&system, &op, id).await;
        let cleanup =
            runs.iter().find(|run| run.hook == Hook::Cleanup).map(|run| run.run_id.to_string());
        let begun = began(&system);
        cleanup.filter(|run| begun.contains(run)).ok_or_else(|| format!("{runs:?} {begun:?}"))
    })
    .await;
    worker.signal(Signal::KILL);
    worker.ended().await;
    let _second = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    let done = system.reaches(&op, id, ExecutionState::Completed).await;
    assert_eq!((done.attempt, done.losses), (2, 1));
    wait_for("both attempts' hooks", || async {
        let runs = runs(&system, &op, id).await;
        let (lost, whole) = (told(&runs, 1), told(&runs, 2));
        let ended =
            lost == "on_error=done cleanup=done" && whole == "on_error=skipped cleanup=done";
        if ended { Ok(()) } else { Err(format!("{lost}; {whole}")) }
    })
    .await;
    let times = began(&system).iter().filter(|run| **run == first).count();
    assert_eq!(times, 2, "begun, and begun again");
    let journal = std::fs::read_to_string(system.state_dir().join("sim.log")).unwrap();
    let ended =
        journal.lines().filter(|line| line.starts_with(&format!("hooked {first} "))).count();
    assert_eq!(ended, 1);
}

#[tokio::test]
async fn ee36_what_a_drained_worker_owes_is_run_by_another() {
    let system = System::start().await;
    let op = system.tenant().await;
    let hooks = json!({"cleanup": script(&json!({}), 5), "on_error": script(&json!({}), 5)});
    let agent = agent(&system, &op, IMAGE, hooks).await;
    let config = system.sim(&[&op], json!({"drain_s": 0}));
    let mut worker = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    let id = system.submit(&op, agent, json!({"ms": 2000})).await;
    wait_for("the agent", || async {
        let begun = began(&system);
        if begun.contains(&id.to_string()) { Ok(()) } else { Err(format!("{begun:?}")) }
    })
    .await;
    worker.signal(Signal::TERM);
    assert!(worker.ended().await.success());
    assert_eq!(told(&runs(&system, &op, id).await, 1), "on_error=skipped cleanup=owed");
    let _next = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    let done = system.reaches(&op, id, ExecutionState::Completed).await;
    assert_eq!((done.attempt, done.losses), (1, 0), "a hand-back counts for nothing");
    wait_for("the cleanup of the attempt that was given back", || async {
        let told = told(&runs(&system, &op, id).await, 1);
        if told == "on_error=skipped cleanup=done" { Ok(()) } else { Err(told) }
    })
    .await;
}

#[tokio::test]
async fn ee36_hooks_are_programs_of_the_image_in_sandboxes_of_their_own() {
    let system = System::start().await;
    let op = system.tenant().await;
    let image = system.publish_test_agent(&op, &["wait"]);
    let _worker = system.worker(json!({})).await;
    let with = |exit: &str| {
        json!({
            "pre_execute": {"command": ["/agent", "exit", exit], "timeout_s": 20},
            "cleanup": {"command": ["/agent", "exit", "0"], "timeout_s": 20},
        })
    };
    let well = agent(&system, &op, &image, with("0")).await;
    let ill = agent(&system, &op, &image, with("3")).await;
    let well = system.submit(&op, well, json!({"ms": 1})).await;
    let ill = system.submit(&op, ill, json!({"ms": 1})).await;
    let done = system.reaches(&op, well, ExecutionState::Completed).await;
    assert_eq!(done.output, Some(json!({"waited": 1})));
    assert_eq!(told(&runs(&system, &op, well).await, 1), "pre_execute=done cleanup=done");
    let failed = system.reaches(&op, ill, ExecutionState::Failed).await;
    let error = failed.error.unwrap();
    assert!(error.starts_with("the hook pre_execute: exit code 3"), "{error}");
    assert_eq!(told(&runs(&system, &op, ill).await, 1), "pre_execute=failed cleanup=done");
}
