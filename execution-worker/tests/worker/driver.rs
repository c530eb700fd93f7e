//! The sandbox driver with real runsc: what an agent can see, how each end is told apart, and that nothing is left.

use std::{fs, time::Duration};

use gatehouse_execution::{EndReason, Limits, oci::Start, outcome::Exit};
use serde_json::json;
use tokio::time::Instant;

use crate::support::{Bench, limits, new_id, rootfs};

async fn check(args: &[&str], limits: &Limits, reason: EndReason, message: &str) {
    let run = Bench::new().await.run(args, limits).await;
    let outcome = run.outcome();
    assert_eq!(outcome.reason, reason, "{args:?}: {run:?}");
    let said = outcome.message.unwrap_or_default();
    assert!(said.contains(message), "{args:?}: {said:?} lacks {message:?}");
}

#[tokio::test]
async fn an_agent_sees_its_input_and_little_else() {
    let run = Bench::new().await.run(&["look"], &limits()).await;
    let output = run.outcome().output.unwrap_or_else(|| panic!("{run:?}"));
    let kernel = String::from_utf8_lossy(&run.stdout.bytes).lines().next().unwrap().to_owned();
    assert!(kernel.starts_with("Linux version 4.4.0"), "not gVisor's kernel: {kernel}");
    assert_ne!(kernel, fs::read_to_string("/proc/version").unwrap().trim());
    let expected = json!({
        "same": true,
        "uid": "1000 1000 1000 1000",
        "caps": "0000000000000000 0000000000000000",
        "write_root": "ReadOnlyFilesystem",
        "write_input": "PermissionDenied",
        "remove_input": "PermissionDenied",
        "write_tmp": "done",
        "env": ["HOME", "PATH"],
        "mounts": output["mounts"],
        "links": ["lo"],
    });
    assert_eq!(output, expected);
    assert!(run.usage.cpu_us > 1000 && run.usage.memory_peak_bytes > 1 << 20, "{run:?}");
}

#[tokio::test]
async fn each_end_has_its_reason() {
    check(&["exit", "3"], &limits(), EndReason::Failed, "exit code 3: the last words").await;
    check(&["exit", "75"], &limits(), EndReason::RetryAsked, "the last words").await;
    check(&["exit", "128"], &limits(), EndReason::Failed, "exit code 128").await;
    check(&["print", "no json"], &limits(), EndReason::OutputInvalid, "not acceptable").await;
    check(&["print", ""], &limits(), EndReason::OutputInvalid, "no result").await;
    check(&["print", "{\"a\":1}"], &limits(), EndReason::Completed, "").await;
}

#[tokio::test]
async fn the_result_file_is_taken_before_standard_output() {
    let run = Bench::new().await.run(&["file", "{\"from\":\"file\"}"], &limits()).await;
    assert_eq!(run.outcome().output, Some(json!({"from": "file"})), "{run:?}");
    let small = Limits { output_bytes: 10, ..limits() };
    check(&["file", "{\"a\":\"0123456789\"}"], &small, EndReason::OutputInvalid, "at most 10")
        .await;
}

#[tokio::test]
async fn a_result_that_is_a_link_is_not_followed() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "{\"stolen\":true}").unwrap();
    let target = secret.path().to_str().unwrap();
    check(&["link", target], &limits(), EndReason::OutputInvalid, "no result").await;
    check(&["link", "/proc/self/environ"], &limits(), EndReason::OutputInvalid, "no result").await;
}

#[tokio::test]
async fn a_flood_of_output_is_counted_and_cut() {
    let bench = Bench::new().await;
    let run = bench.run(&["spam", "lines"], &limits()).await;
    assert_eq!(run.outcome().output, Some(json!({"after": "the flood"})));
    assert!(run.stdout.total_bytes > 64 << 20 && run.stdout.bytes.len() == 1 << 20);
    check(&["spam", "line"], &limits(), EndReason::OutputInvalid, "the last line").await;
}

#[tokio::test]
async fn ee23_the_memory_limit_kills_and_is_told_by_its_counter_with_the_peak() {
    let small = Limits { memory_bytes: 96 << 20, ..limits() };
    let run = Bench::new().await.run(&["memory"], &small).await;
    let outcome = run.outcome();
    assert_eq!(outcome.reason, EndReason::OomKilled, "{run:?}");
    let peak = run.usage.memory_peak_bytes;
    assert!(run.usage.oom_kills >= 1 && peak > 32 << 20 && peak <= 96 << 20, "{run:?}");
    let message = outcome.message.unwrap_or_default();
    assert!(message.contains(&format!("peak {peak} bytes")), "{message}");
    // The nearest that fits.
    check(&["print", "1"], &small, EndReason::Completed, "").await;
}

#[tokio::test]
async fn the_time_limit_ends_everything() {
    let short = Limits { timeout: Duration::from_secs(2), ..limits() };
    rootfs();
    let started = Instant::now();
    check(&["sleep"], &short, EndReason::Timeout, "time limit").await;
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[tokio::test]
async fn what_an_agent_leaves_running_dies_with_its_run() {
    let started = Instant::now();
    check(&["orphan"], &limits(), EndReason::Completed, "").await;
    assert!(started.elapsed() < Duration::from_secs(10), "waited for an orphan");
}

#[tokio::test]
async fn disks_and_processes_are_bounded_inside() {
    let small =
        Limits { scratch_bytes: 4 << 20, exchange_bytes: 4 << 20, processes: 8, ..limits() };
    let bench = Bench::new().await;
    for dir in ["/tmp", "/run/agent"] {
        let run = bench.run(&["fill", dir], &small).await;
        assert_eq!(run.outcome().output, Some(json!({"refused": "StorageFull"})), "{dir}: {run:?}");
    }
    let run = bench.run(&["forks"], &small).await;
    let output = run.outcome().output.unwrap_or_else(|| panic!("{run:?}"));
    assert_eq!(output["refused"], "WouldBlock", "{output}");
    assert!(output["children"].as_u64().unwrap() < 8, "{output}");
}

#[tokio::test]
async fn an_entry_point_that_is_not_there_is_the_images_fault() {
    let start = Start { entrypoint: Some(vec!["/missing".to_owned()]), ..Start::default() };
    let bench = Bench::new().await;
    let run = bench.start(&start, &limits()).await.unwrap();
    assert_eq!(run.outcome().reason, EndReason::ImageError, "{run:?}");
}

#[tokio::test]
async fn ee18_a_runsc_that_breaks_or_hangs_is_told_from_an_agent_that_fails_and_leaves_nothing() {
    // It is called as `… run --bundle DIR ID`.
    let find_id = "for id; do :; done";
    let short = Limits { timeout: Duration::from_secs(1), ..limits() };
    // Ends well, but something it started lives on in the group.
    let script = format!(
        "{find_id}\n/bin/sleep 600 >/dev/null 2>&1 &\n\
         for file in $(/usr/bin/find /sys/fs/cgroup -path \"*/$id/cgroup.procs\"); do echo $! >$file; done\n\
         echo '{{}}'"
    );
    let run = Bench::broken(&script).await.run(&[], &limits()).await;
    assert_eq!(run.outcome().reason, EndReason::Completed, "{run:?}");
    // Hangs outside of the group before it starts anything, and does not listen: not the agent's time (edge 17).
    let started = Instant::now();
    let hurried = Limits { start_timeout: Duration::from_secs(1), ..limits() };
    let run = Bench::broken("trap '' TERM INT HUP\n/bin/sleep 600").await.run(&[], &hurried).await;
    assert_eq!(run.exit, Exit::StartTimeout, "{run:?}");
    assert_eq!(run.outcome().reason, EndReason::SandboxError);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // Starts the agent, and from then on hangs whatever is asked of it.
    let script = "while [ \"$1\" != --root ]; do shift; done\nroot=$2\nfor id; do :; done\n\
        case \"$*\" in *' run '*) echo '{\"status\":\"running\"}' >\"$root/${id}_sandbox:$id.state\";; esac\n\
        trap '' TERM\n/bin/sleep 600";
    let started = Instant::now();
    let hung = Limits { grace: Duration::from_secs(1), ..short };
    let run = Bench::broken(script).await.run(&[], &hung).await;
    assert_eq!(run.outcome().reason, EndReason::Timeout, "{run:?}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    // Is killed, or says that it failed.
    let run = Bench::broken("kill -9 $$").await.run(&[], &short).await;
    assert_eq!(run.outcome().reason, EndReason::SandboxError, "{run:?}");
    let script = "while [ \"$1\" != --log ]; do shift; done\n\
        echo '{\"level\":\"error\",\"msg\":\"creating container: no\"}' >$2\nexit 128";
    let run = Bench::broken(script).await.run(&[], &short).await;
    assert_eq!(run.outcome().reason, EndReason::SandboxError, "{run:?}");
}

#[tokio::test]
async fn a_start_removes_what_an_earlier_one_left_and_nothing_else() {
    let (ours, other) = (Bench::new().await, Bench::new().await);
    let sleeping = |bench: &Bench| {
        let id = new_id();
        let group = gatehouse_execution_worker::cgroup::Groups::open(
            std::path::Path::new(gatehouse_execution_worker::cgroup::ROOT),
            bench.state.worker(),
        )
        .unwrap()
        .create(&id.to_string(), &limits())
        .unwrap();
        // Any process in the group stands for a sandbox that its worker lost.
        let child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        for tree in crate::support::groups_of(&id.to_string()) {
            fs::write(tree.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        fs::create_dir_all(bench.state.bundles().join(id.to_string()).join("agent")).unwrap();
        (id, group, child)
    };
    let (our_id, _, mut our_child) = sleeping(&ours);
    let (other_id, other_group, mut other_child) = sleeping(&other);
    let reaped = tokio::task::spawn_blocking(move || our_child.wait().unwrap());
    let swept = ours.sandboxes.sweep().await.unwrap();
    assert_eq!((swept.groups, swept.bundles), (1, 1));
    assert!(!reaped.await.unwrap().success(), "the process was not killed");
    ours.assert_nothing_left(our_id);
    assert!(other_child.try_wait().unwrap().is_none(), "another worker's process was killed");
    assert!(other.state.bundles().join(other_id.to_string()).exists());
    assert_eq!(ours.sandboxes.sweep().await.unwrap(), Default::default());
    other_child.kill().unwrap();
    other_child.wait().unwrap();
    other_group.remove(Duration::from_secs(5)).await.unwrap();
}
