//! Starts that are refused: one clear line each, the right exit code, nothing left running.

use std::{fs, net::TcpListener};

use serde_json::{Value, json};

use crate::system::{System, Worker};

/// Starts the worker with `change` and compares its lines (logs left out) and its exit code.
async fn check(system: &System, change: Value, code: i32, parts: &[&str]) {
    let mut worker = Worker::spawn(system.dir.path(), &system.config(change));
    let status = worker.ended().await;
    let log = worker.log();
    let lines: Vec<_> = log.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!(status.code(), Some(code), "{log}");
    assert_eq!(lines.len(), parts.len(), "{log}");
    for (line, part) in lines.iter().zip(parts) {
        assert!(line.starts_with("gatehouse-execution-worker: "), "{line}");
        assert!(line.contains(part), "{line:?} lacks {part:?}");
    }
}

#[tokio::test]
async fn each_missing_part_is_one_line_with_its_mend() {
    let mut system = System::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let sys = &system;
    check(sys, json!({"admin_listen": address}), 69, &["is taken by another process; stop it"])
        .await;
    check(
        sys,
        json!({"runsc": "/nonexistent/runsc"}),
        69,
        &["$.runsc: /nonexistent/runsc cannot be run: No such file or directory"],
    )
    .await;
    check(sys, json!({"runsc": "/bin/true"}), 69, &["it does not call itself runsc"]).await;
    let file = system.dir.path().join("a-file");
    fs::write(&file, "").unwrap();
    check(sys, json!({"state_dir": file}), 69, &["choose a folder that this user can write"]).await;
    let owner = sys.database_url("owner");
    let app = sys.database_url("app");
    check(sys, json!({"database": {"app": owner, "system": app}}), 78, &["$.database: "]).await;
    // A tenant's key is sealed under the file's of before.
    let op = sys.tenant().await;
    let agent = sys.agent(&op, &sys.publish_sample(&op)).await;
    sys.submit(&op, agent, json!({"fuel": "petrol", "litres": 2})).await;
    let other = system.dir.path().join("another-key");
    fs::write(&other, "b".repeat(64)).unwrap();
    check(sys, json!({"key_file": other}), 78, &["$.key_file: "]).await;
    let nobody = "postgres://gatehouse_app:x@127.0.0.1:1/none";
    check(
        sys,
        json!({"database": {"app": nobody, "system": nobody}}),
        69,
        &["start PostgreSQL or correct the URL"],
    )
    .await;
    system.redis.stop();
    check(&system, json!({}), 69, &["start Redis or correct the URL"]).await;
}

#[tokio::test]
async fn every_mistake_of_the_configuration_is_a_line() {
    let system = System::start().await;
    let change = json!({"runsc": "runsc", "lease_s": 1, "concurency": 3, "redis": "http://x"});
    check(
        &system,
        change,
        64,
        &[
            "$.redis: not a URL of the right scheme",
            "$.runsc: \"runsc\" is relative; write the absolute path of gVisor's runsc",
            "$.lease_s: 1 does not fit; write a whole number from 3 to 600",
            "$.concurency: unknown field; did you mean \"concurrency\"?",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_second_worker_in_the_same_folder_is_refused() {
    let system = System::start().await;
    let _first = system.worker(json!({})).await;
    check(&system, json!({}), 69, &["is in use by another worker; stop it"]).await;
}
