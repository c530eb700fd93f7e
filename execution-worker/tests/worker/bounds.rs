//! What an agent and a machine do to the worker at their worst: everything at once, fifty sandboxes under a worker that is
//! killed, a disk that is full.

use std::{fs, path::Path, process::Command, time::Duration};

use gatehouse_execution::{EndReason, ExecutionState, Limits};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    support::{Bench, groups_of, limits, part, processes_of, runsc},
    system::{System, get, wait_for},
};

/// What the kernel charges a group beyond its limit, so that who is killed can end.
const DYING_BYTES: u64 = 1 << 20;
/// How much later than its bound an agent may be gone, its sandbox made and removed, on a loaded machine.
const LATE: Duration = Duration::from_secs(8);

#[tokio::test]
async fn ee16_ee24_an_agent_that_forks_is_deaf_and_fills_disk_and_memory_is_dead_at_its_bound() {
    let bounded = Limits {
        memory_bytes: 160 << 20,
        scratch_bytes: 16 << 20,
        processes: 16,
        timeout: Duration::from_secs(4),
        grace: Duration::from_secs(1),
        ..limits()
    };
    for runsc in [runsc(), part("GATEHOUSE_TEST_RUNSC_2022").into()] {
        let bench = Bench::with_runsc(&runsc).await;
        for (end, reason) in [
            ("sleep", EndReason::Timeout),
            ("memory", EndReason::OomKilled),
            ("exit", EndReason::DiskFull),
        ] {
            let began = Instant::now();
            // Also sees that no process, group, mount or bundle is left.
            let run = bench.run(&["everything", end], &bounded).await;
            let took = began.elapsed();
            let what = format!("{end} under {}: {run:?} after {took:?}", runsc.display());
            assert_eq!(run.outcome().reason, reason, "{what}");
            assert!(run.disk_full, "{what}");
            // What is being killed may still be charged, beyond the limit.
            assert!(run.usage.memory_peak_bytes <= bounded.memory_bytes + DYING_BYTES, "{what}");
            let bound = bounded.timeout + bounded.grace;
            assert!(took < bound + LATE, "{what}");
            // Neither SIGTERM nor the exit of its first process is what ended the daemons.
            assert!(end != "sleep" || took >= bound, "{what}");
        }
    }
}

#[tokio::test]
async fn num21_a_gibibyte_of_scratch_is_there_and_counts_as_memory() {
    const MIB: u64 = 1 << 20;
    for runsc in [runsc(), part("GATEHOUSE_TEST_RUNSC_2022").into()] {
        let bench = Bench::with_runsc(&runsc).await;
        // With the memory for it: all of it, and not a byte more.
        let roomy = Limits { memory_bytes: 1536 * MIB, ..limits() };
        let run = bench.run(&["bomb", "scratch", "1025"], &roomy).await;
        let outcome = run.outcome();
        assert_eq!((outcome.reason, run.disk_full), (EndReason::DiskFull, true), "{run:?}");
        assert!(run.stdout.bytes.starts_with(b"{\"got\":10"), "{run:?}");
        assert_eq!(run.scratch_bytes, 1024 * MIB, "{run:?}");
        assert_eq!(run.usage.oom_kills, 0, "{run:?}");
        // With the default's: until the memory is used up, which is told of as what it is.
        let run = bench.run(&["bomb", "scratch", "1025"], &limits()).await;
        let (outcome, peak) = (run.outcome(), run.usage.memory_peak_bytes);
        assert_eq!(outcome.reason, EndReason::OomKilled, "{run:?}");
        assert!(peak <= 512 * MIB + DYING_BYTES && run.scratch_bytes > 384 * MIB, "{run:?}");
        let said = format!("(peak {peak} bytes, {} of them files in /tmp)", run.scratch_bytes);
        assert!(outcome.message.unwrap().contains(&said), "{run:?}");
        // As much as was refused before.
        let run = bench.run(&["bomb", "scratch", "384"], &limits()).await;
        let stored = json!({"got": 384, "most": 384});
        assert_eq!(run.outcome().output, Some(stored), "{run:?}");
    }
}

#[tokio::test]
async fn ee19_what_a_killed_worker_leaves_of_fifty_sandboxes_is_swept_and_nothing_else() {
    const TENANTS: usize = 5;
    const EACH: usize = 10;
    let system = System::start().await;
    // Another worker's sandbox, on the same machine.
    let bystander = Bench::new().await;
    let args = ["sleep"];
    let long = Limits { timeout: Duration::from_secs(600), grace: Duration::ZERO, ..limits() };
    let sweeping = async {
        let mut first = system.worker(json!({"concurrency": TENANTS * EACH})).await;
        let mut old = Vec::new();
        for _ in 0..TENANTS {
            let op = system.tenant().await;
            let agent = system.agent(&op, &system.publish_test_agent(&op, &["wait"])).await;
            for _ in 0..EACH {
                let id = system.submit(&op, agent, json!({"ms": 600_000})).await;
                old.push(format!("{id}-00000001"));
            }
        }
        wait_for("fifty sandboxes", || async {
            let alive = old.iter().filter(|id| processes_of(id).len() >= 2).count();
            if alive == old.len() { Ok(()) } else { Err(format!("{alive}")) }
        })
        .await;
        let theirs = bystander.state.worker().to_owned();
        assert!(groups_of(&theirs).iter().any(|group| has_child(group)), "no bystander runs");
        first.signal(Signal::KILL);
        first.ended().await;
        let survive = old.iter().filter(|id| !processes_of(id).is_empty()).count();
        assert_eq!(survive, old.len(), "what died by itself is not swept");
        // Ready means swept.
        let second = system.worker(json!({"concurrency": 1})).await;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for id in &old {
            assert_eq!(processes_of(id), Vec::<String>::new(), "{}", second.log());
            assert_eq!(groups_of(id), Vec::<std::path::PathBuf>::new());
            assert!(!mounts.contains(id.as_str()), "a mount of {id} is left");
            assert!(!system.state_dir().join("bundles").join(id).exists());
        }
        let namespaces = fs::read_dir("/var/run/netns").into_iter().flatten().flatten();
        let left = namespaces.filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            old.iter().any(|id| name.contains(id.as_str()))
        });
        assert_eq!(left.count(), 0, "network namespaces are left");
        assert!(groups_of(&theirs).iter().any(|group| has_child(group)), "swept another's");
        drop(second);
    };
    tokio::select! {
        run = bystander.run(&args, &long) => panic!("the bystander ended: {run:?}"),
        () = sweeping => {}
    }
    bystander.sandboxes.sweep().await.unwrap();
    for group in groups_of(&fs::read_to_string(system.state_dir().join("worker")).unwrap()) {
        drop(fs::remove_dir(group));
    }
}

fn has_child(group: &Path) -> bool {
    fs::read_dir(group).unwrap().flatten().any(|entry| entry.path().is_dir())
}

/// A small file system, unmounted when it is not needed any more.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(at).status();
        assert!(status.unwrap().success());
        Self(at)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0).status());
    }
}

#[tokio::test]
async fn ee20_on_a_full_disk_nothing_is_begun_and_what_runs_ends_well() {
    let system = System::start().await;
    let state = system.state_dir();
    let _small = Small::mount(&state, "1g");
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_test_agent(&op, &["wait"])).await;
    let worker = system.worker(json!({})).await;
    let running = system.submit(&op, agent, json!({"ms": 4000})).await;
    let sandbox = running.to_string();
    wait_for("the sandbox", || async {
        let seen = processes_of(&sandbox);
        if seen.len() < 2 { Err(format!("{seen:?}")) } else { Ok(()) }
    })
    .await;
    // Somebody else fills the disk: less is left than a run needs.
    let free = rustix::fs::statvfs(&state).map(|stat| stat.f_bavail * stat.f_frsize).unwrap();
    let filler = state.join("filler");
    let most = (free - (4 << 20)).to_string();
    let filled = Command::new("fallocate").args(["--length", &most]).arg(&filler).status();
    assert!(filled.unwrap().success());
    wait_for("unreadiness", || async {
        let reply = get(worker.admin, "/readyz");
        if reply.starts_with("HTTP/1.1 503") { Ok(()) } else { Err(reply) }
    })
    .await;
    // A read that was under way may still have brought one.
    wait_for("the refusal to take more", || async {
        let log = worker.log();
        if log.contains("no room for another run") { Ok(()) } else { Err(log) }
    })
    .await;
    let waiting = system.submit(&op, agent, json!({"ms": 1})).await;
    let done = system.reaches(&op, running, ExecutionState::Completed).await;
    assert_eq!((done.attempt, done.end_reason), (1, Some(EndReason::Completed)));
    let left = system.execution(&op, waiting).await;
    assert_eq!(left.attempt, 0, "begun on a full disk: {left:?}");
    fs::remove_file(filler).unwrap();
    let done = system.reaches(&op, waiting, ExecutionState::Completed).await;
    assert_eq!(done.attempt, 1, "{done:?}");
    drop(worker);
}
