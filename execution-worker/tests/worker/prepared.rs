//! Warm starts of the whole worker: what the lease says, what a crash leaves, and what the metrics tell.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use gatehouse_contract::ExecutionId;
use gatehouse_execution::ExecutionState;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    support::{groups_of, part, processes_of, runsc},
    system::{System, Worker, get, wait_for},
};

/// What the execution's row says runs it.
fn sandbox_of(system: &System, id: ExecutionId) -> String {
    let (postgres, database) = (part("GATEHOUSE_TEST_POSTGRES"), system.database_url("app"));
    let server = postgres.rsplit_once('/').unwrap().0;
    let name = database.rsplit_once('/').unwrap().1;
    let out = Command::new("psql")
        .arg(format!("{server}/{name}"))
        .args(["--no-psqlrc", "--tuples-only", "--no-align", "--command"])
        .arg(format!("SELECT sandbox FROM executions WHERE id = '{id}'"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

async fn counts(worker: &Worker, line: &str) {
    wait_for(line, || async {
        let text = get(worker.admin, "/metrics");
        if text.lines().any(|found| found == line) { Ok(()) } else { Err(text) }
    })
    .await;
}

fn warm() -> Value {
    json!({"warm": {"max": 2, "per_key": 1}})
}

#[tokio::test]
async fn ee40_the_lease_names_the_sandbox_that_runs_it() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_test_agent(&op, &["wait"])).await;
    let mut worker = system.worker(warm()).await;
    let first = system.submit(&op, agent, json!({"ms": 1})).await;
    system.reaches(&op, first, ExecutionState::Completed).await;
    assert_eq!(
        sandbox_of(&system, first),
        format!("{first}-00000001"),
        "a cold run has its own name"
    );
    counts(&worker, "gatehouse_worker_prepared 1").await;
    let second = system.submit(&op, agent, json!({"ms": 2000})).await;
    system.reaches(&op, second, ExecutionState::Running).await;
    let named = sandbox_of(&system, second);
    assert!(named.ends_with("-00000000") && named.len() == 45, "{named}");
    assert!(!processes_of(&named).is_empty(), "{named} is not what runs");
    assert!(processes_of(&format!("{second}-")).is_empty(), "another runs, too");
    let done = system.reaches(&op, second, ExecutionState::Completed).await;
    assert_eq!((done.attempt, done.output), (1, Some(json!({"waited": 2000}))));
    assert!(groups_of(&named).is_empty());
    counts(&worker, "gatehouse_worker_warm_starts_total 1").await;
    counts(&worker, "gatehouse_worker_cold_starts_total{reason=\"missing\"} 1").await;
    counts(&worker, "gatehouse_worker_prepared 1").await;
    worker.signal(Signal::TERM);
    assert!(worker.ended().await.success(), "{}", worker.log());
    for dir in ["bundles", "runsc"] {
        let left: Vec<_> = fs::read_dir(system.state_dir().join(dir)).unwrap().collect();
        assert!(left.is_empty(), "{left:?} is left in {dir}");
    }
    let name = fs::read_to_string(system.state_dir().join("worker")).unwrap();
    assert_eq!(groups_of(&name), Vec::<PathBuf>::new(), "a prepared sandbox is left");
}

/// A runsc that hangs instead of starting an agent while `hang` is there, and says which process does.
fn hanging(dir: &Path) -> PathBuf {
    let (place, here, real) = (dir.join("runsc.sh"), dir.display(), runsc());
    let script = format!(
        "#!/bin/sh\nfor word; do [ \"$word\" = start ] && [ -e {here}/hang ] && \
         {{ echo $$ >{here}/aside; /bin/mv {here}/aside {here}/reached; exec /bin/sleep 600; }}; done\nexec {} \"$@\"\n",
        real.display()
    );
    fs::write(&place, script).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    place
}

#[tokio::test]
async fn ee39_a_worker_that_dies_between_the_name_and_the_start_leaves_no_run() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_test_agent(&op, &["wait"])).await;
    let runsc = hanging(system.dir.path());
    let config = json!({"runsc": runsc, "warm": {"max": 2}});
    let mut worker = system.worker(config.clone()).await;
    let first = system.submit(&op, agent, json!({"ms": 1})).await;
    system.reaches(&op, first, ExecutionState::Completed).await;
    counts(&worker, "gatehouse_worker_prepared 1").await;
    fs::write(system.dir.path().join("hang"), "").unwrap();
    let second = system.submit(&op, agent, json!({"ms": 5})).await;
    let stuck = wait_for("the start", || async {
        let pid = fs::read_to_string(system.dir.path().join("reached"));
        pid.map_err(|error| error.to_string())
    })
    .await;
    // Named and not started: the moment between the two.
    worker.signal(Signal::KILL);
    worker.ended().await;
    kill_process(Pid::from_raw(stuck.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    fs::remove_file(system.dir.path().join("hang")).unwrap();
    let named = sandbox_of(&system, second);
    assert!(named.ends_with("-00000000"), "{named}");
    assert!(!groups_of(&named).is_empty(), "nothing was left, so nothing is shown");
    let again = system.worker(config).await;
    assert_eq!(processes_of(&named), Vec::<String>::new());
    assert_eq!(groups_of(&named), Vec::<PathBuf>::new());
    let done = system.reaches(&op, second, ExecutionState::Completed).await;
    assert_eq!((done.attempt, done.output), (2, Some(json!({"waited": 5}))), "{}", again.log());
    assert_eq!(sandbox_of(&system, second), format!("{second}-00000002"));
}
