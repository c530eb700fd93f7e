//! Warm starts with real runsc of both versions: a prepared sandbox is its key's alone and serves one run, whatever is wrong
//! with it ends in a cold run, there are never more than may be, and in the end none.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use gatehouse_contract::TenantId;
use gatehouse_execution::{
    EndReason, ImageRef, Limits, egress::NONE, outcome::Run, sandbox::SandboxId,
};
use gatehouse_execution_worker::{
    driver::{Driver, Error, Notice, Stop, Task, Watch, local::Local},
    image::{self, Images},
    process,
    sandbox::pool::Bounds,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    conformance::prepared_for,
    egress::{Upstream, egress, hosts},
    images::copy,
    support::{Bench, groups_of, limits, new_id, part, processes_of, publish, runsc},
    system::wait_for,
};

/// More than any of these tests needs.
pub const BOUNDS: Bounds =
    Bounds { max: 4, per_key: 2, memory_bytes: 256 << 20, idle: Duration::from_secs(600) };

/// A driver that prepares sandboxes, a tenant, and its image.
pub struct Ground {
    pub bench: Bench,
    pub driver: Local,
    pub tenant: TenantId,
    pub image: ImageRef,
    store: TempDir,
}

impl Ground {
    pub async fn with_runsc(runsc: &Path, bounds: Bounds) -> Self {
        Self::of(runsc, bounds, &["script"]).await
    }

    /// Its image starts the test agent with `args`.
    async fn of(runsc: &Path, bounds: Bounds, args: &[&str]) -> Self {
        Self::on(Bench::with_runsc(runsc).await, bounds, args)
    }

    fn on(bench: Bench, bounds: Bounds, args: &[&str]) -> Self {
        // As the worker does: a sandbox whose maker has ended is waited for.
        process::adopt_orphans().unwrap();
        let store = tempfile::tempdir().unwrap();
        let images =
            Images::new(store.path().to_owned(), bench.state.images(), image::Bounds::default());
        let driver = Local::new(bench.sandboxes.clone(), images).with_warm(bounds);
        let tenant = TenantId::new(Uuid::new_v4());
        let image = publish(&store.path().join(tenant.to_string()).join("test-agent"), args);
        Self { bench, driver, tenant, image: image.parse().unwrap(), store }
    }

    /// Another tenant with the same image.
    fn other_tenant(&self) -> TenantId {
        let tenant = TenantId::new(Uuid::new_v4());
        copy(&self.layout(self.tenant), &self.layout(tenant));
        tenant
    }

    fn layout(&self, tenant: TenantId) -> std::path::PathBuf {
        self.store.path().join(tenant.to_string()).join("test-agent")
    }

    fn task<'a>(&'a self, input: &'a Value, limits: &'a Limits) -> Task<'a> {
        Task {
            id: new_id(),
            tenant: self.tenant,
            image: &self.image,
            input,
            limits,
            egress: &NONE,
            command: None,
        }
    }

    async fn run(&self, task: Task<'_>) -> Result<Run, Error> {
        let (_never, stop) = watch::channel(Stop::No);
        let run = self.driver.run(task, Watch { stop, tell: &|_: Notice| {}, log: None }).await;
        self.bench.assert_nothing_left(task.id);
        run
    }

    fn cold(&self, why: &str) -> u64 {
        let starts = self.driver.starts().unwrap();
        starts.cold.iter().find(|(word, _)| *word == why).map(|(_, count)| *count).unwrap()
    }

    /// Drains, after which nothing is left of what was prepared.
    pub async fn end(self) {
        self.driver.drain().await;
        assert_eq!(self.driver.starts().unwrap().prepared, 0);
        assert_eq!(prepared_groups(&self.bench), Vec::<String>::new());
        for dir in [self.bench.state.bundles(), self.bench.state.runsc()] {
            let left: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert!(left.is_empty(), "{left:?} is left");
        }
    }
}

/// The control groups of sandboxes that were made in advance.
fn prepared_groups(bench: &Bench) -> Vec<String> {
    let mut names: Vec<String> = groups_of(bench.state.worker())
        .iter()
        .flat_map(|group| fs::read_dir(group).into_iter().flatten().flatten())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with("-00000000"))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The processes of `id`'s control group.
fn members(id: SandboxId) -> Vec<Pid> {
    let group = groups_of(&id.to_string())
        .into_iter()
        .find(|path| path.to_string_lossy().contains("/pids/"));
    let group = group.or_else(|| groups_of(&id.to_string()).into_iter().next()).unwrap();
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
}

fn signal(id: SandboxId, signal: Signal) {
    for pid in members(id) {
        kill_process(pid, signal).unwrap();
    }
}

/// And waits for its end: until then it may be taken for one that lives.
async fn kill(id: SandboxId) {
    signal(id, Signal::KILL);
    wait_for("its death", || async {
        let left = members(id);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

fn completed(run: &Run, input: &Value) {
    let bytes = input.to_string().len();
    let expected = json!({"stdin_bytes": bytes, "file_bytes": bytes});
    assert_eq!(run.outcome().output, Some(expected), "{run:?}");
}

async fn each_version(test: impl AsyncFn(Ground)) {
    for runsc in [runsc(), part("GATEHOUSE_TEST_RUNSC_2022").into()] {
        test(Ground::with_runsc(&runsc, BOUNDS).await).await;
    }
}

#[tokio::test]
async fn ee40_a_prepared_sandbox_is_its_keys_alone_and_serves_one_run() {
    each_version(async |ground| {
        let (input, limits) = (json!({"n": 1}), limits());
        let task = ground.task(&input, &limits);
        let id = prepared_for(&ground.driver, task).await;
        assert!(!processes_of(&id.to_string()).is_empty(), "the name is not the sandbox's");
        let cold = ground.run(ground.task(&input, &limits)).await.unwrap();
        let warm = ground.run(task).await.unwrap();
        completed(&warm, &input);
        ground.bench.assert_nothing_left(id);
        // What its making took is not the run's.
        assert!(
            warm.usage.cpu_us > 0 && warm.usage.cpu_us < cold.usage.cpu_us,
            "{warm:?} {cold:?}"
        );
        assert_eq!(ground.driver.starts().unwrap().warm, 1);
        // Two runs of this key have ended since: both may be prepared for, and nobody else gets one.
        wait_for("two", || async {
            let starts = ground.driver.starts().unwrap();
            if starts.prepared == 2 { Ok(()) } else { Err(format!("{starts:?}")) }
        })
        .await;
        let smaller = Limits { memory_bytes: limits.memory_bytes - 1, ..limits };
        let image = format!("test-agent@sha256:{}", "0".repeat(64)).parse().unwrap();
        for (other, what) in [
            (Task { tenant: ground.other_tenant(), ..task }, "tenant"),
            (Task { limits: &smaller, ..task }, "limits"),
            (Task { image: &image, ..task }, "image"),
        ] {
            assert_eq!(ground.driver.set_aside(&other), None, "another {what}");
        }
        let tasks = [task, Task { id: new_id(), ..task }, Task { id: new_id(), ..task }];
        let [one, two, three] = tasks.map(|task| ground.driver.set_aside(&task));
        assert!(one.is_some() && two.is_some() && one != two && one != Some(id), "{one:?} {two:?}");
        assert_eq!(three, None, "none is given twice");
        assert_eq!(ground.driver.set_aside(&task), one, "asked again it is the same");
        for (task, id) in tasks.into_iter().zip([one.unwrap(), two.unwrap()]) {
            ground.driver.release(task.id).await;
            ground.bench.assert_nothing_left(id);
        }
        // One whose sandbox was released, or never was, is a cold run like any other.
        completed(&ground.run(task).await.unwrap(), &input);
        ground.end().await;
    })
    .await;
}

/// The taint test. Each run leaves a mark wherever it can, and finds none of those before it; a second process of the same
/// run finds them all, so that there is something to be found.
#[tokio::test]
async fn ee40_nothing_crosses_between_two_tenants_or_two_runs_of_one() {
    for runsc in [runsc(), part("GATEHOUSE_TEST_RUNSC_2022").into()] {
        let ground = Ground::of(&runsc, BOUNDS, &["taint", "all"]).await;
        let limits = limits();
        for (tenant, secret) in [
            (ground.tenant, "one of A"),
            (ground.tenant, "two of A"),
            (ground.other_tenant(), "of B"),
        ] {
            let input = json!({"secret": secret});
            let task = Task { tenant, ..ground.task(&input, &limits) };
            let id = prepared_for(&ground.driver, task).await;
            let run = ground.run(task).await.unwrap();
            ground.bench.assert_nothing_left(id);
            let said = run.outcome().output.unwrap_or_else(|| panic!("{run:?}"));
            assert_eq!(said["read"], input, "another's input");
            assert_eq!(said["found"], json!([]), "{secret} found what was another's");
            let (left, after) =
                (said["left"].as_array().unwrap(), said["after"].as_array().unwrap());
            for mark in ["a file in /tmp", "a file in /run/agent", "a process", "shared memory"] {
                assert!(left.contains(&json!(mark)), "{mark} was not left: {said}");
            }
            let unseen: Vec<_> = left.iter().filter(|mark| !after.contains(mark)).collect();
            assert!(unseen.is_empty(), "the control does not see {unseen:?}: {said}");
        }
        assert_eq!(ground.driver.starts().unwrap().warm, 3);
        ground.end().await;
    }
}

#[tokio::test]
async fn ee40_a_prepared_sandbox_has_a_way_out_for_its_run_alone() {
    let upstream = Upstream::start().await;
    let url = format!("http://api.example.com:{}/openai", upstream.port());
    let listed = hosts(&[&format!("api.example.com:{}", upstream.port())]);
    for runsc in [runsc(), part("GATEHOUSE_TEST_RUNSC_2022").into()] {
        let way = egress(&upstream, "api.example.com");
        let bench = Bench::with_runsc(&runsc).await.with_egress(way, hosts(&[]));
        let ground = Ground::on(bench, BOUNDS, &["ask", &url]);
        let (input, limits) = (json!({}), limits());
        let task = Task { egress: &listed, ..ground.task(&input, &limits) };
        let id = prepared_for(&ground.driver, task).await;
        let without = Task { id: new_id(), egress: &NONE, ..task };
        assert_eq!(ground.driver.set_aside(&without), None, "one with a network was set aside");
        let run = ground.run(task).await.unwrap();
        ground.bench.assert_nothing_left(id);
        assert_eq!(run.outcome().output, Some(json!({"statuses": [200]})), "{run:?}");
        assert_eq!(run.usage.egress_requests, 1, "of this run alone");
        assert_eq!(ground.driver.starts().unwrap().warm, 1);
        ground.end().await;
    }
}

#[tokio::test]
async fn ee39_whatever_is_wrong_with_a_prepared_sandbox_the_run_is_made_cold_and_none_is_lost() {
    each_version(async |ground| {
        let (input, limits) = (json!({"n": 2}), limits());
        let task = ground.task(&input, &limits);
        // It died while it waited: seen by the claim.
        let id = prepared_for(&ground.driver, task).await;
        completed(&ground.run(task).await.unwrap(), &input);
        ground.bench.assert_nothing_left(id);
        let waiting = wait_for("another", || async {
            prepared_groups(&ground.bench).first().cloned().ok_or_else(String::new)
        })
        .await;
        wait_for("readiness", || async {
            let starts = ground.driver.starts().unwrap();
            if starts.prepared == 1 { Ok(()) } else { Err(format!("{starts:?}")) }
        })
        .await;
        let waiting: SandboxId = waiting.parse().unwrap();
        kill(waiting).await;
        assert_eq!(ground.driver.set_aside(&task), None, "a dead sandbox was set aside");
        assert_eq!(ground.cold("died"), 1);
        // It dies, or hangs, after the claim: the run goes on under the name that the lease has.
        for (how, why) in [(Signal::KILL, "died"), (Signal::STOP, "not_started")] {
            let id = prepared_for(&ground.driver, task).await;
            let before = ground.cold(why);
            match how {
                Signal::KILL => kill(id).await,
                how => signal(id, how),
            }
            completed(&ground.run(task).await.unwrap(), &input);
            ground.bench.assert_nothing_left(id);
            let starts = ground.driver.starts();
            assert_eq!(ground.cold(why), before + 1, "{how:?}: {starts:?}");
        }
        // Its tenant has withdrawn the image since.
        let id = prepared_for(&ground.driver, task).await;
        fs::remove_dir_all(ground.layout(ground.tenant)).unwrap();
        let refused = ground.run(task).await;
        assert!(matches!(refused, Err(Error::Image(_))), "{refused:?}");
        ground.bench.assert_nothing_left(id);
        ground.end().await;
    })
    .await;
}

#[tokio::test]
async fn ee39_another_runsc_in_its_place_starts_no_sandbox_of_the_one_before() {
    for real in [runsc(), part("GATEHOUSE_TEST_RUNSC_2022").into()] {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("runsc");
        let install = || {
            let aside = dir.path().join("aside");
            fs::write(&aside, format!("#!/bin/sh\nexec {} \"$@\"\n", real.display())).unwrap();
            fs::set_permissions(&aside, fs::Permissions::from_mode(0o755)).unwrap();
            fs::rename(aside, &place).unwrap();
        };
        install();
        let ground = Ground::with_runsc(&place, BOUNDS).await;
        let (input, limits) = (json!({}), limits());
        let task = ground.task(&input, &limits);
        prepared_for(&ground.driver, task).await;
        ground.run(task).await.unwrap();
        wait_for("another", || async {
            let starts = ground.driver.starts().unwrap();
            if starts.prepared == 1 { Ok(()) } else { Err(format!("{starts:?}")) }
        })
        .await;
        install();
        assert_eq!(ground.driver.set_aside(&task), None);
        completed(&ground.run(task).await.unwrap(), &input);
        ground.end().await;
    }
}

#[tokio::test]
async fn ee40_a_rush_of_many_keys_makes_no_more_than_may_be() {
    let bounds = Bounds { max: 2, ..BOUNDS };
    let ground = Ground::with_runsc(&runsc(), bounds).await;
    let tenants: Vec<TenantId> = (0..6).map(|_| ground.other_tenant()).collect();
    let (input, limits) = (json!({}), limits());
    let runs = async {
        for pair in tenants.chunks(3) {
            let runs = pair.iter().map(|tenant| {
                let task = Task { tenant: *tenant, ..ground.task(&input, &limits) };
                ground.run(task)
            });
            for run in join_all(runs.collect()).await {
                assert_eq!(run.unwrap().outcome().reason, EndReason::Completed);
            }
        }
        wait_for("both to be there", || async {
            let starts = ground.driver.starts().unwrap();
            if starts.prepared == 2 { Ok(()) } else { Err(format!("{starts:?}")) }
        })
        .await;
    };
    let looks = async {
        loop {
            let seen = prepared_groups(&ground.bench);
            assert!(seen.len() <= bounds.max, "{seen:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        () = runs => {}
        () = looks => {}
    }
    ground.end().await;
}

async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut done = Vec::new();
    while !futures.is_empty() {
        let (at, output) = std::future::poll_fn(|context| {
            for (at, future) in futures.iter_mut().enumerate() {
                if let std::task::Poll::Ready(output) = future.as_mut().poll(context) {
                    return std::task::Poll::Ready((at, output));
                }
            }
            std::task::Poll::Pending
        })
        .await;
        drop(futures.remove(at));
        done.push(output);
    }
    done
}
