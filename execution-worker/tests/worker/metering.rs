//! What an attempt is metered with, beside what an observer reads of its control group; and that a worker which is killed
//! loses nothing of it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use gatehouse_execution::{EndReason, ExecutionState};
use gatehouse_store::{OffsetDateTime, OpCtx, metering::Attempt, paging::Page, usage::Counted};
use serde_json::json;

use crate::{
    support::{groups_of, processes_of},
    system::{System, wait_for},
};

/// Microseconds of processor time that the group has used, whichever version of control groups there is.
fn cpu_us(group: &Path) -> Option<u64> {
    if let Ok(text) = fs::read_to_string(group.join("cpuacct.usage")) {
        return text.trim().parse::<u64>().ok().map(|ns| ns / 1000);
    }
    let text = fs::read_to_string(group.join("cpu.stat")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("usage_usec "))?.parse().ok()
}

/// The last reading of the group called `name` before it was gone.
fn observed(name: String, stop: Arc<AtomicBool>) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let mut last = 0;
        let mut groups: Vec<PathBuf> = Vec::new();
        while !stop.load(SeqCst) {
            // One tree after the other is made.
            if last == 0 {
                groups = groups_of(&name);
            }
            last = groups.iter().find_map(|group| cpu_us(group)).unwrap_or(last);
            thread::sleep(Duration::from_millis(1));
        }
        last
    })
}

async fn attempts(
    system: &System,
    op: &OpCtx,
    id: gatehouse_contract::ExecutionId,
) -> Vec<Attempt> {
    system.store.tenant(op).await.unwrap().attempts(id, &Page::first(10)).await.unwrap()
}

#[tokio::test]
async fn res3_processor_time_is_the_control_groups_within_a_twentieth() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_test_agent(&op, &["burn", "1500"])).await;
    let _worker = system.worker(json!({})).await;
    let id = system.submit(&op, agent, json!({})).await;
    let stop = Arc::new(AtomicBool::new(false));
    let observer = observed(format!("{id}-00000001"), Arc::clone(&stop));
    system.reaches(&op, id, ExecutionState::Completed).await;
    stop.store(true, SeqCst);
    let seen = observer.join().unwrap() / 1000;
    let used = attempts(&system, &op, id).await[0].used.unwrap();
    let metered = u64::try_from(used.cpu_ms).unwrap();
    // On a busy machine it is not all of the time.
    assert!(seen > 300, "the observer saw {seen} ms");
    assert!(metered.abs_diff(seen) * 20 <= seen, "metered {metered} ms, the group had {seen} ms");
    assert!(used.wall_ms >= 1000, "{used:?}");
    assert!(used.peak_memory_bytes > 1 << 20, "{used:?}");
    assert!(used.charged);
}

#[tokio::test]
async fn ee32_a_killed_workers_run_is_metered_by_its_next_start_and_not_charged() {
    let system = System::start().await;
    let op = system.tenant().await;
    let agent = system.agent(&op, &system.publish_test_agent(&op, &["burn", "600000"])).await;
    let worker = system.worker(json!({})).await;
    let id = system.submit(&op, agent, json!({})).await;
    let name = format!("{id}-00000001");
    wait_for("a second of processor time", || {
        let used = groups_of(&name).iter().find_map(|group| cpu_us(group)).unwrap_or(0);
        async move { if used > 1_000_000 { Ok(()) } else { Err(used.to_string()) } }
    })
    .await;
    // SIGKILL: what it ran goes on without it.
    drop(worker);
    assert!(!processes_of(&id.to_string()).is_empty(), "nothing is left to be found");
    let worker = system.worker(json!({})).await;
    let lost = wait_for("what the lost run used", || async {
        let found = attempts(&system, &op, id).await;
        let lost = found.iter().find(|one| one.lease_epoch == Some(1));
        match lost.and_then(|lost| Some((lost.reason?, lost.used?))) {
            Some((EndReason::Lost, used)) if used.cpu_ms > 0 => Ok(used),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(lost.cpu_ms >= 1000 && !lost.charged, "{lost:?}");
    assert!(lost.peak_memory_bytes > 1 << 20, "{lost:?}");
    // Of today: the test's own operations are of 1970.
    let today = OpCtx { now: OffsetDateTime::now_utc(), ..op };
    let mut tx = system.store.tenant(&today).await.unwrap();
    assert_eq!(tx.used(Counted::ComputeMinutes).await.unwrap(), 0);
    drop(worker);
}
