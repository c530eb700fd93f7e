//! A whole worker whose images are in a registry alone: a run from the first byte that is pulled to its result, and what
//! becomes of runs whose image is another's, is not what it is called, comes too late, or breaks off on its way.

mod gate;

use std::{fs, path::Path};

use gatehouse_contract::ExecutionId;
use gatehouse_execution::{EndReason, ExecutionState, ImageRef};
use gatehouse_store::{OpCtx, executions, metering::Attempt, paging::Page};
use serde_json::{Value, json};

use crate::{
    registry::{Registry, layer_of, tls::Authority},
    support::publish,
    system::{System, Worker, get, wait_for},
};
use gate::{Gate, Passage};

/// Documents are smaller, layers larger.
const HELD_AFTER: usize = 64 << 10;

/// The configuration of a worker with this registry and no store.
fn config(system: &System, registry: &Value, change: Value) -> Value {
    let mut config = system.config(change);
    config["image_registry"] = registry.clone();
    config.as_object_mut().unwrap().remove("image_store");
    config
}

async fn started(system: &System, config: &Value) -> Worker {
    system.ready(Worker::spawn(system.dir.path(), config)).await
}

/// Pushes the test agent that is started with `args`.
fn push(system: &System, registry: &Registry, op: &OpCtx, args: &[&str]) -> ImageRef {
    let layout = system.layout(op, "agent");
    publish(&layout, args);
    registry.push(&layout, op.tenant, "agent")
}

async fn submit(system: &System, op: &OpCtx, image: &ImageRef) -> ExecutionId {
    let agent = system.agent(op, &image.to_string()).await;
    system.submit(op, agent, json!({})).await
}

async fn attempts(system: &System, op: &OpCtx, id: ExecutionId) -> Vec<Attempt> {
    let mut tx = system.store.tenant(op).await.unwrap();
    let mut attempts = tx.attempts(id, &Page::first(10)).await.unwrap();
    attempts.sort_by_key(|attempt| attempt.attempt);
    attempts
}

/// Waits until the first attempt has ended.
async fn first_end(system: &System, op: &OpCtx, id: ExecutionId) -> (EndReason, bool) {
    wait_for("the first attempt's end", || async {
        let seen = attempts(system, op, id).await;
        let end = seen.first().and_then(|first| Some((first.reason?, first.used?.charged)));
        end.ok_or(format!("{seen:?}"))
    })
    .await
}

fn metric(worker: &Worker, sample: &str) -> f64 {
    let text = get(worker.admin, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample}: {text}")).parse().unwrap()
}

#[tokio::test]
async fn an_image_of_a_registry_alone_is_run_under_tls_and_a_password() {
    let (system, mut registry) = (System::start().await, Registry::start());
    let (op, other) = (system.tenant().await, system.tenant().await);
    let image = push(&system, &registry, &op, &["print", "{\"ran\":true}"]);
    let own = push(&system, &registry, &other, &["print", "2"]);
    let layer = layer_of(&system.layout(&other, "agent"));
    let authority = Authority::new();
    registry.secure(&authority, "localhost", 2100);
    let worker = started(&system, &config(&system, &registry.trusted(&authority), json!({}))).await;
    let id = submit(&system, &op, &image).await;
    let done = system.reaches(&op, id, ExecutionState::Completed).await;
    assert_eq!((done.output, done.attempt), (Some(json!({"ran": true})), 1));
    // By its real digest, whose every byte is here: missing, as one that never was.
    let id = submit(&system, &other, &image).await;
    let refused = system.reaches(&other, id, ExecutionState::Failed).await;
    assert_eq!(refused.end_reason, Some(EndReason::ImageError), "{refused:?}");
    let said = refused.error.unwrap();
    assert_eq!(said, format!("the image {image} does not exist"));
    // Its own of the same layer, which is here: nothing is pulled again, nor where the same is asked for again.
    for (op, image, output) in [(&op, &image, json!({"ran": true})), (&other, &own, json!(2))] {
        let id = submit(&system, op, image).await;
        let done = system.reaches(op, id, ExecutionState::Completed).await;
        assert_eq!(done.output, Some(output));
    }
    assert_eq!(registry.asked("GET", &layer.digest.to_string()), 1, "a layer was pulled twice");
    let samples = [
        ("images_total{result=\"found\"}", 2.0),
        ("images_total{result=\"unpacked\"}", 1.0),
        ("images_total{result=\"failed\"}", 1.0),
        ("image_evictions_total", 0.0),
        ("image_budget_bytes", f64::from(20 << 10) * f64::from(1 << 20)),
    ];
    for (sample, expected) in samples {
        let name = format!("gatehouse_worker_{sample}");
        assert!(
            (metric(&worker, &name) - expected).abs() < 0.5,
            "{}",
            get(worker.admin, "/metrics")
        );
    }
    let pulled = metric(&worker, "gatehouse_worker_image_pulled_bytes_total");
    assert_eq!(pulled.to_string(), layer.size.to_string());
    assert!(metric(&worker, "gatehouse_worker_image_kept_bytes") > pulled);
    let log = worker.log();
    assert!(!log.contains("s3cret") && !log.contains("Basic"), "{log}");
}

#[tokio::test]
async fn a_layer_that_was_changed_at_the_registry_is_never_run() {
    let (system, registry) = (System::start().await, Registry::start());
    let op = system.tenant().await;
    let image = push(&system, &registry, &op, &["print", "1"]);
    let file = registry.file(layer_of(&system.layout(&op, "agent")).digest);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let config = config(&system, &json!({"url": registry.url()}), json!({}));
    let worker = started(&system, &config).await;
    let id = submit(&system, &op, &image).await;
    let refused = system.reaches(&op, id, ExecutionState::Failed).await;
    assert_eq!((refused.end_reason, refused.attempt), (Some(EndReason::ImageError), 1));
    let used = attempts(&system, &op, id).await[0].used.unwrap();
    assert!(!used.charged && used.wall_ms == 0, "{used:?}");
    assert!(metric(&worker, "gatehouse_worker_images_total{result=\"failed\"}") > 0.5);
    // The same bytes as they were: the same digest runs.
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let id = submit(&system, &op, &image).await;
    system.reaches(&op, id, ExecutionState::Completed).await;
}

#[tokio::test]
async fn ee17_a_pull_that_outlasts_the_start_is_no_timeout_and_is_there_for_the_next_attempt() {
    let (system, registry) = (System::start().await, Registry::start());
    let op = system.tenant().await;
    let image = push(&system, &registry, &op, &["sleep"]);
    let layer = layer_of(&system.layout(&op, "agent")).digest;
    let gate = Gate::to(registry.port, HELD_AFTER).await;
    gate.set(Passage::Hold);
    let change = json!({"start_s": 1, "grace_s": 0});
    let mut config = config(&system, &json!({"url": gate.url()}), change);
    let worker = started(&system, &config).await;
    let agent = system.agent(&op, &image.to_string()).await;
    let mut terms = executions::Terms::default();
    terms.limits.set(gatehouse_execution::limits::Limit::Timeout, 1).unwrap();
    let id = system.submit_on(&op, agent, json!({}), terms).await;
    // Its start's time, not its own: another reason, nothing charged, tried again.
    assert_eq!(first_end(&system, &op, id).await, (EndReason::ImageUnavailable, false));
    let waits = system.execution(&op, id).await;
    assert!(!waits.state.is_settled(), "{waits:?}");
    assert_eq!(waits.error.as_deref(), Some("the image was not there within 1 s"));
    // Live: only the pull was to be late.
    config["start_s"] = json!(60);
    fs::write(&worker.file, config.to_string()).unwrap();
    gate.set(Passage::Open);
    let ended = system.reaches(&op, id, ExecutionState::Timeout).await;
    assert_eq!(ended.end_reason, Some(EndReason::Timeout));
    let all = attempts(&system, &op, id).await;
    let last = all.last().unwrap().used.unwrap();
    assert!(last.charged && last.wall_ms >= 1000 && all[0].used.unwrap().wall_ms == 0, "{all:?}");
    assert_eq!(registry.asked("GET", &layer.to_string()), 1, "what was pulled was pulled again");
}

#[tokio::test]
async fn a_registry_that_goes_away_within_a_layer_is_asked_again_and_once_for_two_runs() {
    let (system, registry) = (System::start().await, Registry::start());
    let op = system.tenant().await;
    let image = push(&system, &registry, &op, &["print", "1"]);
    let layer = layer_of(&system.layout(&op, "agent")).digest;
    let gate = Gate::to(registry.port, HELD_AFTER).await;
    gate.set(Passage::Hold);
    let config = config(&system, &json!({"url": gate.url()}), json!({"concurrency": 4}));
    let worker = started(&system, &config).await;
    let first = submit(&system, &op, &image).await;
    gate.holds().await;
    gate.set(Passage::Cut);
    assert_eq!(first_end(&system, &op, first).await, (EndReason::ImageUnavailable, false));
    let left = |kind: &str| kept(&system.state_dir(), kind);
    assert_eq!((left("layers"), left("roots")), (0, 0));
    // Again, and two at once while it is on its way.
    gate.set(Passage::Hold);
    let second = submit(&system, &op, &image).await;
    gate.holds().await;
    let third = submit(&system, &op, &image).await;
    for id in [second, third] {
        system.reaches(&op, id, ExecutionState::Running).await;
    }
    gate.set(Passage::Open);
    for id in [first, second, third] {
        let done = system.reaches(&op, id, ExecutionState::Completed).await;
        assert_eq!(done.output, Some(json!(1)));
    }
    let pulls = registry.asked("GET", &layer.to_string());
    assert_eq!(pulls, 2, "one that was cut, and one for all");
    assert!(
        (metric(&worker, "gatehouse_worker_images_total{result=\"unpacked\"}") - 1.0).abs() < 0.5
    );
}

/// How many images of a kind are kept.
fn kept(state: &Path, kind: &str) -> usize {
    fs::read_dir(state.join("images").join(kind)).map_or(0, Iterator::count)
}
