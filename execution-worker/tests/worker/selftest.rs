//! A worker starts with a runtime whose limits bite, and with no other (lesson 23). No database is needed: it is asked
//! for afterwards.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::json;

use crate::{
    support::{groups_of, part, runsc},
    system::{Worker, free_port},
};

/// Starts a worker with `runsc` in runsc's place and returns its exit code and log.
async fn start(dir: &Path, runsc: &str) -> (Option<i32>, String) {
    fs::write(dir.join("key"), "0f".repeat(32)).unwrap();
    fs::create_dir_all(dir.join("store")).unwrap();
    let nobody = "postgres://gatehouse_app:x@127.0.0.1:1/none";
    let config = json!({
        "admin_listen": format!("127.0.0.1:{}", free_port()),
        "database": {"app": nobody, "system": nobody},
        "redis": "redis://worker:x@127.0.0.1:1",
        "key_file": dir.join("key"),
        "image_store": dir.join("store"),
        "state_dir": dir.join("state"),
        "runsc": runsc,
    });
    let mut worker = Worker::spawn(dir, &config);
    let code = worker.ended().await.code();
    let state = dir.join("state");
    assert!(!state.join("selftest").exists(), "the self-test's files are left");
    assert_eq!(fs::read_dir(state.join("bundles")).unwrap().count(), 0, "bundles are left");
    let name = fs::read_to_string(state.join("worker")).unwrap();
    for group in groups_of(&name) {
        // Its own, empty.
        fs::remove_dir(group).unwrap();
    }
    (code, worker.log())
}

async fn bites(runsc: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (code, log) = start(dir.path(), runsc).await;
    assert!(log.contains("the limits of sandboxes were seen to bite"), "{log}");
    assert!(log.contains("start PostgreSQL"), "{log}");
    assert_eq!(code, Some(69), "{log}");
}

/// A runsc that is called through `script`, which ends with what becomes its arguments.
async fn is_refused(script: &str, limits: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runsc.sh");
    let real = runsc();
    fs::write(
        &path,
        format!("#!/bin/sh\nPATH=/bin:/usr/bin\n{script}\nexec {} \"$@\"\n", real.display()),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, log) = start(dir.path(), path.to_str().unwrap()).await;
    let line = log.lines().find(|line| line.contains("limits that do not bite")).unwrap_or(&log);
    assert_eq!(code, Some(78), "{log}");
    for limit in limits {
        assert!(line.contains(&format!("{limit} (")), "{line:?} does not name {limit}");
    }
    assert!(line.contains("use a runsc that this worker knows"), "no mend: {line}");
}

#[tokio::test]
async fn both_versions_prove_their_limits() {
    bites(runsc().to_str().unwrap()).await;
    bites(&part("GATEHOUSE_TEST_RUNSC_2022")).await;
}

#[tokio::test]
async fn a_runsc_that_joins_no_group_is_refused() {
    is_refused(
        "[ \"$1\" = --version ] || set -- --ignore-cgroups \"$@\"",
        &["memory", "cpu", "pids"],
    )
    .await;
}

#[tokio::test]
async fn a_runsc_with_a_network_is_refused() {
    // In a namespace of its own even the host's network would be none.
    let script = "for word; do shift; [ \"$before\" = --bundle ] && bundle=$word; before=$word; \
        [ \"$word\" = --network=none ] && word=--network=host; set -- \"$@\" \"$word\"; done\n\
        [ -n \"$bundle\" ] && sed -i -e 's/{\"type\":\"network\"},//' $bundle/config.json";
    is_refused(script, &["network"]).await;
}

#[tokio::test]
async fn a_runsc_that_passes_over_what_the_document_says_is_refused() {
    let script = "for word; do [ \"$before\" = --bundle ] && bundle=$word; before=$word; done\n\
        [ -n \"$bundle\" ] && sed -i -e 's/RLIMIT_FSIZE/RLIMIT_RTPRIO/' -e 's/RLIMIT_NOFILE/RLIMIT_NICE/' \
        -e 's/\"uid\":1000/\"uid\":0/' -e 's/\"readonly\":true/\"readonly\":false/' $bundle/config.json";
    is_refused(script, &["file size", "open files", "user"]).await;
}
