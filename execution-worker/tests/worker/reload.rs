//! A configuration that changes under a running worker (LFH-003): live within a second however the file is changed, kept out
//! where it is wrong, and none of what runs notices.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use gatehouse_contract::Tier;
use gatehouse_execution::ExecutionState;
use gatehouse_store::OpCtx;
use serde_json::{Value, json};

use crate::system::{System, Worker, get, wait_for};

const IMAGE: &str = "none@sha256:0000000000000000000000000000000000000000000000000000000000000000";
/// A change is live within this.
const LIVE: Duration = Duration::from_secs(1);

fn with(config: &Value, concurrency: u64) -> String {
    let mut config = config.clone();
    config["concurrency"] = json!(concurrency);
    config.to_string()
}

fn metric(worker: &Worker, name: &str) -> String {
    let text = get(worker.admin, "/metrics");
    let line = text.lines().find(|line| line.starts_with(&format!("gatehouse_worker_{name}")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

/// Waits until the worker runs at most `concurrency`, and says how long that took.
async fn live(worker: &Worker, concurrency: u64) -> Duration {
    let began = Instant::now();
    let wanted = format!("gatehouse_worker_concurrency {concurrency}");
    wait_for(&wanted, || async {
        let seen = metric(worker, "concurrency ");
        if seen == wanted { Ok(()) } else { Err(seen) }
    })
    .await;
    began.elapsed()
}

fn renamed(file: &Path, text: &str) {
    let aside = file.with_extension("new");
    fs::write(&aside, text).unwrap();
    fs::rename(aside, file).unwrap();
}

/// As Kubernetes updates a mounted ConfigMap: `file → ..data/file`, `..data → ..<time>`, and `..data` is swapped.
fn mounted(mount: &Path, time: u32, text: &str) {
    let data = mount.join(format!("..{time}"));
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("worker.json"), text).unwrap();
    symlink(format!("..{time}"), mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
}

async fn large_tenant(system: &System) -> OpCtx {
    let op = system.tenant().await;
    let mut tx = system.store.admin(&op, "a test's tier").await.unwrap();
    tx.set_tier(op.tenant, Tier::Enterprise).await.unwrap();
    tx.commit().await.unwrap();
    op
}

#[tokio::test]
async fn ee37_a_change_is_live_in_a_second_however_it_is_made_and_a_bad_one_never() {
    let system = System::start().await;
    let op = system.tenant().await;
    let mount = system.dir.path().join("mount");
    fs::create_dir(&mount).unwrap();
    let config = system.sim(&[&op], json!({"concurrency": 1}));
    let worker = Worker::spawn(system.dir.path(), &config);
    // From the first look on the file is a link.
    mounted(&mount, 1, &with(&config, 1));
    fs::remove_file(&worker.file).unwrap();
    symlink(mount.join("..data/worker.json"), &worker.file).unwrap();
    let worker = system.ready(worker).await;
    let version = metric(&worker, "config_info");
    mounted(&mount, 2, &with(&config, 2));
    let took = live(&worker, 2).await;
    assert!(took <= LIVE, "swapped: {took:?}");
    assert_ne!(metric(&worker, "config_info"), version);
    renamed(&worker.file, &with(&config, 3));
    let took = live(&worker, 3).await;
    assert!(took <= LIVE, "renamed: {took:?}");
    fs::write(&worker.file, with(&config, 4)).unwrap();
    let took = live(&worker, 4).await;
    assert!(took <= LIVE, "written over: {took:?}");
    // Wrong ones: each is named once, and what is in effect stays.
    let whole = with(&config, 5);
    let fixed = whole.replace("\"lease_s\":3", "\"lease_s\":4");
    for (text, result, part) in [
        (&whole[..whole.len() / 2], "refused", "not JSON"),
        (with(&config, 0).as_str(), "refused", "$.concurrency"),
        (fixed.as_str(), "needs_restart", "lease_s"),
    ] {
        renamed(&worker.file, text);
        let said = format!("\"configuration\":\"{result}\"");
        wait_for(&said, || async {
            let (seen, log) = (get(worker.admin, "/readyz"), worker.log());
            let told =
                log.lines().any(|line| line.contains("kept the changed") && line.contains(part));
            if seen.contains(&said) && told { Ok(()) } else { Err(seen) }
        })
        .await;
        assert!(
            get(worker.admin, "/readyz").starts_with("HTTP/1.1 200"),
            "it goes on with the old"
        );
        assert_eq!(metric(&worker, "concurrency "), "gatehouse_worker_concurrency 4");
    }
    assert!(metric(&worker, "reloads_total{result=\"refused\"").ends_with(" 2"));
    fs::remove_file(&worker.file).unwrap();
    wait_for("the missing file", || async {
        let log = worker.log();
        if log.contains("cannot be read") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(metric(&worker, "concurrency "), "gatehouse_worker_concurrency 4");
    // Rapid flips end in the last.
    for flip in 0..200 {
        renamed(&worker.file, &with(&config, 10 + flip % 7));
    }
    renamed(&worker.file, &with(&config, 9));
    let took = live(&worker, 9).await;
    assert!(took <= LIVE, "flips: {took:?}");
    let seen = get(worker.admin, "/readyz");
    assert!(seen.contains("\"configuration\":\"taken\""), "{seen}");
}

#[tokio::test]
async fn ee37_a_hundred_runs_keep_what_they_began_with_and_a_lower_limit_binds_new_ones() {
    let system = System::start().await;
    let op = large_tenant(&system).await;
    let agent = system.agent(&op, IMAGE).await;
    let config = system.sim(&[&op], json!({"concurrency": 100}));
    let worker = system.ready(Worker::spawn(system.dir.path(), &config)).await;
    let before = metric(&worker, "config_info");
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(system.submit(&op, agent, json!({"ms": 20_000})).await);
    }
    wait_for("a hundred runs", || async {
        let seen = metric(&worker, "running ");
        if seen == "gatehouse_worker_running 100" { Ok(()) } else { Err(seen) }
    })
    .await;
    renamed(&worker.file, &with(&config, 3));
    live(&worker, 3).await;
    let mut later = Vec::new();
    for _ in 0..9 {
        later.push(system.submit(&op, agent, json!({"ms": 300})).await);
    }
    for id in ids {
        let done = system.reaches(&op, id, ExecutionState::Completed).await;
        assert_eq!((done.attempt, done.losses), (1, 0), "a change ended what ran");
    }
    let mut most = 0;
    wait_for("what came later", || {
        let seen = metric(&worker, "running ");
        most = most.max(seen.rsplit(' ').next().unwrap().parse::<u32>().unwrap());
        async {
            let mut done = 0;
            for id in &later {
                let state = system.execution(&op, *id).await.state;
                done += u32::from(state == ExecutionState::Completed);
            }
            if done == 9 { Ok(()) } else { Err(format!("{done} done")) }
        }
    })
    .await;
    assert!((1..=3).contains(&most), "{most} at once, where 3 may");
    // The version of before on the first hundred, the new one on the others.
    let count = |version: String| {
        let version = version.split('"').nth(1).unwrap().to_owned();
        system.rows(&format!("SELECT count(*) FROM executions WHERE config_version = '{version}'"))
    };
    assert_eq!(count(before), 100);
    assert_eq!(count(metric(&worker, "config_info")), 9);
}
