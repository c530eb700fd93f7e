//! A worker that is cut off from one of its servers, or whose clock is wrong: what it ran is not lost, and nothing counts
//! twice. On two threads: the way to a server is a task of the test.

use std::{path::PathBuf, process::Command, time::Duration};

use gatehouse_execution::{EndReason, ExecutionState};
use gatehouse_store::{Job, OpCtx};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    proxy::Proxy,
    system::{System, Worker, get, wait_for},
};

const IMAGE: &str = "none@sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// A worker whose way to the database can be cut.
async fn behind(system: &System, op: &OpCtx, change: Value) -> (Proxy, Value) {
    let url = system.database_url("app");
    let (_, rest) = url.rsplit_once('@').unwrap();
    let port: u16 = rest.split(['/', ':']).nth(1).unwrap().parse().unwrap();
    let proxy = Proxy::to(port).await;
    let way = |role: &str| {
        system.database_url(role).replace(&format!(":{port}/"), &format!(":{}/", proxy.port))
    };
    let mut config = system.sim(&[op], change);
    config["database"] = json!({"app": way("app"), "system": way("system")});
    (proxy, config)
}

async fn says(worker: &Worker, line: &str) {
    wait_for(line, || async {
        let log = worker.log();
        if log.contains(line) { Ok(()) } else { Err(log) }
    })
    .await;
}

async fn readyz(worker: &Worker, part: &str) {
    wait_for(part, || async {
        let seen = get(worker.admin, "/readyz");
        if seen.contains(part) { Ok(()) } else { Err(seen) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ee09_a_result_waits_for_the_database_and_outlives_its_worker() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, IMAGE).await;
    let (proxy, config) = behind(&system, &op, json!({"lease_s": 20})).await;
    let mut first = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    let id = system.submit(&op, agent, json!({"ms": 1500})).await;
    system.reaches(&op, id, ExecutionState::Running).await;
    proxy.cut();
    says(&first, "keeping the result").await;
    readyz(&first, r#""spool":"down""#).await;
    let metrics = get(first.admin, "/metrics");
    assert!(metrics.contains("gatehouse_worker_spool 1\n"), "{metrics}");
    first.signal(Signal::KILL);
    first.ended().await;
    proxy.heal();
    let second = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    let done = system.reaches(&op, id, ExecutionState::Completed).await;
    assert_eq!((done.attempt, done.end_reason), (1, Some(EndReason::Completed)));
    assert!(done.output.is_some());
    // And it takes work.
    let next = system.submit(&op, agent, json!({})).await;
    system.reaches(&op, next, ExecutionState::Completed).await;
    assert!(second.log().contains("\"results.kept\":1"), "{}", second.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ee09_nothing_is_taken_while_results_wait_and_one_whose_lease_went_on_is_dropped() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, IMAGE).await;
    let (proxy, config) = behind(&system, &op, json!({"lease_s": 60})).await;
    let worker = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    let id = system.submit(&op, agent, json!({"ms": 1000})).await;
    system.reaches(&op, id, ExecutionState::Running).await;
    proxy.cut();
    says(&worker, "keeping the result").await;
    says(&worker, "takes nothing").await;
    // As if another had seen it dead.
    let mut sweep = system.store.system(Job::Sweep).await.unwrap();
    assert_eq!(sweep.expire_leases(Duration::ZERO).await.unwrap().requeued, 1);
    sweep.commit().await.unwrap();
    proxy.heal();
    says(&worker, "the result came after the lease was lost").await;
    let done = system.reaches(&op, id, ExecutionState::Completed).await;
    assert_eq!(done.attempt, 2, "run again, since nobody waited");
    wait_for("readiness", || async {
        let seen = get(worker.admin, "/readyz");
        if seen.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(seen) }
    })
    .await;
    let metrics = get(worker.admin, "/metrics");
    assert!(metrics.contains("gatehouse_worker_spool_dropped_total 1\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ee10_a_commit_whose_fate_is_unknown_is_told_again_and_counts_once() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, IMAGE).await;
    let (proxy, config) = behind(&system, &op, json!({"lease_s": 60})).await;
    let worker = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    let id = system.submit(&op, agent, json!({"ms": 1000})).await;
    system.reaches(&op, id, ExecutionState::Running).await;
    // The claim's own commit is over: the next one is the report's.
    proxy.lose_a_commit();
    says(&worker, "the result was stored before").await;
    assert!(proxy.has_lost());
    let done = system.execution(&op, id).await;
    assert_eq!((done.state, done.attempt), (ExecutionState::Completed, 1));
    let metrics = get(worker.admin, "/metrics");
    assert!(metrics.contains("gatehouse_worker_spool_dropped_total 0\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ee11_cut_off_from_the_database_a_run_ends_before_another_begins() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, IMAGE).await;
    let (proxy, config) = behind(&system, &op, json!({"worker_id": "cut"})).await;
    let cut = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    let id = system.submit(&op, agent, json!({"ms": 6000})).await;
    system.reaches(&op, id, ExecutionState::Running).await;
    let other = system.dir.path().join("other").display().to_string();
    let config = system.sim(&[&op], json!({"worker_id": "whole", "state_dir": other}));
    let _whole = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    proxy.cut();
    wait_for("the second attempt", || async {
        let seen = system.execution(&op, id).await;
        if seen.attempt == 2 { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    let log = cut.log();
    assert!(log.contains("ended a run whose lease is lost"), "two at once: {log}");
    proxy.heal();
    let done = system.reaches(&op, id, ExecutionState::Completed).await;
    assert_eq!((done.attempt, done.losses), (2, 1));
    readyz(&cut, "HTTP/1.1 200").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ee11_cut_off_from_redis_runs_go_on_and_new_work_comes_when_it_is_back() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, IMAGE).await;
    let url = system.redis.url();
    let port: u16 = url.rsplit_once(':').unwrap().1.parse().unwrap();
    let proxy = Proxy::to(port).await;
    let way = url.replace(&port.to_string(), &proxy.port.to_string());
    let config = system.sim(&[&op], json!({"redis": way}));
    let worker = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    let id = system.submit(&op, agent, json!({"ms": 4000})).await;
    system.reaches(&op, id, ExecutionState::Running).await;
    proxy.cut();
    // LFH-002: readiness falls, liveness stands.
    readyz(&worker, r#""redis":"down""#).await;
    readyz(&worker, r#""database":"up""#).await;
    assert!(get(worker.admin, "/livez").starts_with("HTTP/1.1 200"));
    let late = system.submit(&op, agent, json!({})).await;
    let done = system.reaches(&op, id, ExecutionState::Completed).await;
    assert_eq!(done.attempt, 1, "Redis has no say in a run");
    assert_eq!(system.execution(&op, late).await.attempt, 0);
    proxy.heal();
    system.reaches(&op, late, ExecutionState::Completed).await;
    readyz(&worker, "HTTP/1.1 200").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lfh2_liveness_has_no_dependency_and_readiness_follows_the_database() {
    let system = System::start().await;
    let op = system.tenant().await;
    let (proxy, config) = behind(&system, &op, json!({})).await;
    let worker = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    proxy.cut();
    readyz(&worker, r#""database":"down""#).await;
    readyz(&worker, r#""lease":"down""#).await;
    assert!(get(worker.admin, "/livez").starts_with("HTTP/1.1 200"));
    proxy.heal();
    readyz(&worker, "HTTP/1.1 200").await;
}

/// A library that moves the wall clock of the process that loads it.
fn skew(system: &System) -> PathBuf {
    let (source, library) = (system.dir.path().join("skew.c"), system.dir.path().join("skew.so"));
    std::fs::write(
        &source,
        "#define _GNU_SOURCE\n#include <stdlib.h>\n#include <sys/syscall.h>\n#include <time.h>\n#include <unistd.h>\n\
         int clock_gettime(clockid_t clock, struct timespec *now) {\n\
         int failed = syscall(SYS_clock_gettime, clock, now);\n\
         const char *by = getenv(\"SKEW_S\");\n\
         if (!failed && clock == CLOCK_REALTIME && by) now->tv_sec += atoi(by);\n\
         return failed;\n}\n",
    )
    .unwrap();
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .status()
        .unwrap();
    assert!(made.success(), "the clock's library does not compile");
    library
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ee12_workers_whose_clocks_are_ten_minutes_off_hold_and_take_leases_as_others_do() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, IMAGE).await;
    let library = skew(&system).display().to_string();
    let mut workers = Vec::new();
    for by in ["600", "-600"] {
        let state = system.dir.path().join(by).display().to_string();
        let change = json!({"state_dir": state, "concurrency": 2, "worker_id": format!("w{by}")});
        let config = system.sim(&[&op], change);
        let vars = [("LD_PRELOAD", library.as_str()), ("SKEW_S", by)];
        let worker = Worker::spawn_with(system.dir.path(), &config, &vars);
        workers.push(system.ready(worker).await);
    }
    // Longer than the lease.
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(system.submit(&op, agent, json!({"ms": 4000})).await);
    }
    for id in ids {
        let done = system.reaches(&op, id, ExecutionState::Completed).await;
        assert_eq!((done.attempt, done.losses), (1, 0), "a lease was lost to a clock");
    }
    // The log's times say that the clocks were off.
    let hours: Vec<String> = workers
        .iter()
        .map(|worker| {
            let log = worker.log();
            let (_, at) = log.split_once("\"timestamp\":\"").unwrap();
            at.split('"').next().unwrap().to_owned()
        })
        .collect();
    assert!(hours[0] > hours[1], "the clocks are not off: {hours:?}");
    // Two on each; those of the one that is killed go to the other, at the database's time.
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(system.submit(&op, agent, json!({"ms": 5000})).await);
    }
    for id in &ids {
        system.reaches(&op, *id, ExecutionState::Running).await;
    }
    workers[0].signal(Signal::KILL);
    let mut losses = 0;
    for id in ids {
        losses += system.reaches(&op, id, ExecutionState::Completed).await.losses;
    }
    assert_eq!(losses, 2);
}
