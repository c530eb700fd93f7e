//! What every driver keeps, as one function over a driver. The agent acts by its input's script, which the simulating
//! driver reads itself.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use gatehouse_contract::TenantId;
use gatehouse_execution::{
    EndReason, ImageRef, Limits, egress,
    outcome::{Exit, Run},
    sandbox::SandboxId,
};
use gatehouse_execution_worker::{
    driver::{Driver, Error, Notice, Stop, Task, Watch, local::Local, sim::Sim},
    image::{Bounds, Images},
    process,
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use uuid::Uuid;

use crate::{
    support::{Bench, limits, new_id, part, publish, runsc},
    system::wait_for,
    warm::{BOUNDS, Ground},
};

/// How much later than its bound a run may end.
const LATE: Duration = Duration::from_secs(1);

/// A driver under test.
struct Subject<'a> {
    driver: &'a dyn Driver,
    tenant: TenantId,
    image: ImageRef,
    /// Fails where something of the run is left.
    nothing_left: &'a dyn Fn(SandboxId),
    /// Whether every run begins in a sandbox that was made in advance.
    warm: bool,
}

/// When and how a run is stopped.
type Halt = Option<(Duration, Stop)>;

struct Ran {
    run: Run,
    notices: Vec<Notice>,
    /// From the agent's start, or from the beginning where there was none.
    took: Duration,
}

impl Subject<'_> {
    async fn run(&self, input: Value, limits: &Limits, halt: Halt) -> Result<Ran, Error> {
        let task = Task {
            id: new_id(),
            tenant: self.tenant,
            image: &self.image,
            input: &input,
            limits,
            egress: &egress::NONE,
            command: None,
        };
        let mut id = task.id;
        if self.warm {
            id = prepared_for(self.driver, task).await;
        }
        let told = Mutex::new((Instant::now(), Vec::new()));
        let (halted, started) = watch::channel(false);
        let tell = |notice| {
            let mut told = told.lock().unwrap();
            if notice == Notice::Started {
                told.0 = Instant::now();
                halted.send_replace(true);
            }
            told.1.push(notice);
        };
        let (sender, stop) = watch::channel(Stop::No);
        let halting = async {
            let mut started = started;
            started.wait_for(|started| *started).await.unwrap();
            if let Some((after, urgency)) = halt {
                tokio::time::sleep(after).await;
                sender.send_replace(urgency);
            }
            std::future::pending().await
        };
        let run = async {
            tokio::select! {
                run = self.driver.run(task, Watch { stop, tell: &tell, log: None }) => run,
                never = halting => never,
            }
        };
        let run = timeout(Duration::from_secs(60), run).await.expect("a run ends");
        (self.nothing_left)(id);
        let (began, notices) = told.into_inner().unwrap();
        run.map(|run| Ran { run, notices, took: began.elapsed() })
    }

    async fn ends(&self, script: Value, limits: &Limits, reason: EndReason) -> Ran {
        let ran = self.run(script.clone(), limits, None).await.unwrap();
        assert_eq!(ran.run.outcome().reason, reason, "{script}: {:?}", ran.run);
        ran
    }

    async fn stopped(&self, script: Value, limits: &Limits, stop: Stop, within: Duration) -> Ran {
        let after = Duration::from_millis(300);
        let ran = self.run(script.clone(), limits, Some((after, stop))).await.unwrap();
        assert_eq!(ran.run.exit, Exit::Cancelled, "{script}: {:?}", ran.run);
        assert!(ran.took < after + within + LATE, "{script} {stop:?}: took {:?}", ran.took);
        ran
    }
}

/// The suite.
async fn conforms(subject: &Subject<'_>) {
    let all = limits();
    // Each end has its reason.
    let ran = subject.ends(json!({}), &all, EndReason::Completed).await;
    assert_eq!(ran.notices, [Notice::Started]);
    subject.ends(json!({"end": "failed"}), &all, EndReason::Failed).await;
    subject.ends(json!({"end": "retry_asked"}), &all, EndReason::RetryAsked).await;
    subject.ends(json!({"end": "output_invalid"}), &all, EndReason::OutputInvalid).await;
    let small = Limits { memory_bytes: 96 << 20, ..all };
    let ran = subject.ends(json!({"end": "oom_killed"}), &small, EndReason::OomKilled).await;
    assert!(ran.run.usage.memory_peak_bytes <= small.memory_bytes);
    let small = Limits { scratch_bytes: 4 << 20, ..all };
    subject.ends(json!({"end": "disk_full"}), &small, EndReason::DiskFull).await;
    // Its time limit, of which it is warned; then SIGTERM, and after the grace period SIGKILL (edge 16).
    let (timeout, grace) = (Duration::from_secs(1), Duration::from_secs(1));
    let short = Limits { timeout, grace, ..all };
    for (script, grace) in [
        (json!({"end": "timeout"}), Duration::ZERO),
        (json!({"end": "timeout", "ignores_term": true}), grace),
    ] {
        let ran = subject.ends(script.clone(), &short, EndReason::Timeout).await;
        assert_eq!(ran.notices, [Notice::Started, Notice::TimeRunsOut], "{script}");
        let bound = timeout + grace;
        assert!(ran.took >= bound && ran.took < bound + LATE, "{script}: took {:?}", ran.took);
    }
    // A run that is stopped (AEX-005).
    let still = json!({"ms": 60_000});
    let deaf = json!({"ms": 60_000, "ignores_term": true});
    subject.stopped(still.clone(), &short, Stop::Gently, Duration::ZERO).await;
    let ran = subject.stopped(deaf.clone(), &short, Stop::Gently, grace).await;
    assert!(ran.took >= grace, "killed before its grace was over: {:?}", ran.took);
    let patient = Limits { grace: Duration::from_secs(30), ..all };
    subject.stopped(deaf, &patient, Stop::AtOnce, Duration::ZERO).await;
    // Output is bounded and counted; what comes last is kept.
    let noise: u64 = 8 << 20;
    let ran = subject.ends(json!({"noise_bytes": noise}), &all, EndReason::Completed).await;
    assert!(ran.run.stdout.total_bytes > noise && ran.run.stdout.is_cut());
    assert_eq!(ran.run.stdout.bytes.len(), all.output_bytes);
    // The input arrives byte by byte, in both places.
    let input = json!({"fuel": "dieſel \u{1F6E2}\n\"", "long": "x".repeat(300_000)});
    let ran = subject.ends(input.clone(), &all, EndReason::Completed).await;
    let bytes = input.to_string().len();
    assert_eq!(ran.run.outcome().output, Some(json!({"stdin_bytes": bytes, "file_bytes": bytes})));
}

/// The sandbox that waits for a run like `task`, after another one like it.
pub async fn prepared_for(driver: &dyn Driver, task: Task<'_>) -> SandboxId {
    let (_never, stop) = watch::channel(Stop::No);
    let first = Task { id: new_id(), input: &json!({}), ..task };
    driver.run(first, Watch { stop, tell: &|_| {}, log: None }).await.unwrap();
    wait_for("a prepared sandbox", || async {
        driver.set_aside(&task).ok_or_else(|| format!("{:?}", driver.starts()))
    })
    .await
}

/// A driver of this machine. An image that is not there is told apart from an agent that fails.
async fn local_conforms(bench: Bench) {
    // As the worker does: else it is up to the machine's first process when a dead sandbox is gone.
    process::adopt_orphans().unwrap();
    let store = tempfile::tempdir().unwrap();
    let tenant = TenantId::new(Uuid::new_v4());
    let layout = store.path().join(tenant.to_string()).join("test-agent");
    let image: ImageRef = publish(&layout, &["script"]).parse().unwrap();
    let images = Images::new(store.path().to_owned(), bench.state.images(), Bounds::default());
    let driver = Local::new(Arc::clone(&bench.sandboxes), images);
    let nothing_left = |id| bench.assert_nothing_left(id);
    let subject =
        Subject { driver: &driver, tenant, image, nothing_left: &nothing_left, warm: false };
    conforms(&subject).await;
    let missing = format!("none@sha256:{}", "0".repeat(64)).parse().unwrap();
    let subject = Subject { image: missing, ..subject };
    let refused = subject.run(json!({}), &limits(), None).await.map(|ran| ran.run);
    assert!(matches!(refused, Err(Error::Image(_))), "{refused:?}");
}

#[tokio::test]
async fn runsc_conforms() {
    local_conforms(Bench::new().await).await;
}

#[tokio::test]
async fn runsc_of_2022_on_ptrace_conforms() {
    local_conforms(Bench::with_runsc(Path::new(&part("GATEHOUSE_TEST_RUNSC_2022"))).await).await;
}

/// The same suite, and every run of it in a sandbox that was made before the run was known.
async fn conforms_warm(runsc: &Path) {
    let ground = Ground::with_runsc(runsc, BOUNDS).await;
    let nothing_left = |id| ground.bench.assert_nothing_left(id);
    let subject = Subject {
        driver: &ground.driver,
        tenant: ground.tenant,
        image: ground.image.clone(),
        nothing_left: &nothing_left,
        warm: true,
    };
    conforms(&subject).await;
    let starts = ground.driver.starts().unwrap();
    assert!(starts.warm >= 13, "{starts:?}");
    let fell_back = starts.cold.iter().filter(|(why, count)| *why != "missing" && *count > 0);
    assert_eq!(fell_back.count(), 0, "{starts:?}");
    ground.end().await;
}

#[tokio::test]
async fn runsc_conforms_warm() {
    conforms_warm(&runsc()).await;
}

#[tokio::test]
async fn runsc_of_2022_conforms_warm() {
    conforms_warm(Path::new(&part("GATEHOUSE_TEST_RUNSC_2022"))).await;
}

#[tokio::test]
async fn process_conforms() {
    local_conforms(Bench::of_process().await).await;
}

#[tokio::test(start_paused = true)]
async fn sim_conforms() {
    let image = format!("any@sha256:{}", "0".repeat(64)).parse().unwrap();
    let (driver, tenant) = (Sim::default(), TenantId::new(Uuid::new_v4()));
    let subject = Subject { driver: &driver, tenant, image, nothing_left: &|_| {}, warm: false };
    conforms(&subject).await;
}
