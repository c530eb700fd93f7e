//! The life of an execution in the database: offered, claimed once, reported under its epoch, healed after a loss.

use std::time::Duration;

use gatehouse_contract::{AgentVersionId, ExecutionId};
use gatehouse_execution::{
    EndReason, ExecutionState, Limits, Record,
    limits::{Limit, Named},
    outcome::Outcome,
};
use gatehouse_store::{
    Job, OpCtx,
    attempts::Claimed,
    executions::{NewExecution, Terms},
    sweep::{Held, Swept},
    versions::{self, NewVersion},
};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Db, offer, offers, refused, run, with_db};

pub fn completed() -> Outcome {
    Outcome { reason: EndReason::Completed, output: Some(json!({"kg": 2.3})), message: None }
}

pub fn ended(reason: EndReason) -> Outcome {
    Outcome { reason, output: None, message: Some("why".to_owned()) }
}

pub async fn claim(db: &Db, op: &OpCtx, id: ExecutionId, worker: &str) -> Option<Claimed> {
    let mut tx = db.store.tenant(op).await.unwrap();
    let claimed = tx.claim_execution(id, worker).await.unwrap();
    tx.commit().await.unwrap();
    claimed
}

pub async fn report(
    db: &Db,
    op: &OpCtx,
    claimed: &Claimed,
    outcome: &Outcome,
) -> Option<ExecutionState> {
    let mut tx = db.store.tenant(op).await.unwrap();
    let state = tx
        .complete_execution(claimed.execution, claimed.lease_epoch, outcome, &Record::default())
        .await;
    tx.commit().await.unwrap();
    state.unwrap()
}

pub async fn state(db: &Db, op: &OpCtx, id: ExecutionId) -> ExecutionState {
    db.store.tenant(op).await.unwrap().execution(id).await.unwrap().unwrap().state
}

pub async fn sweep(db: &Db, lease: Duration, offered: Duration) -> (Swept, u64) {
    let mut tx = db.store.system(Job::Sweep).await.unwrap();
    let swept = tx.expire_leases(lease).await.unwrap();
    let stale = tx.unqueue_stale(offered).await.unwrap();
    tx.commit().await.unwrap();
    (swept, stale)
}

pub async fn beat(db: &Db, worker: &str) {
    let mut tx = db.store.system(Job::Heartbeat).await.unwrap();
    tx.beat(worker).await.unwrap();
    tx.commit().await.unwrap();
}

async fn runs_of(db: &Db, worker: &str) -> Vec<Held> {
    db.store.system(Job::Watch).await.unwrap().runs_of(worker).await.unwrap()
}

#[tokio::test]
async fn an_execution_goes_from_pending_to_completed() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = db.execution(&a, db.agent(&a, "fuel").await).await;
        assert_eq!(state(&db, &a, id).await, ExecutionState::Pending);
        assert!(claim(&db, &a, id, "w1").await.is_none(), "not offered yet");
        assert_eq!(offer(&db).await, 1);
        assert_eq!(offer(&db).await, 0, "once");
        let claimed = claim(&db, &a, id, "w1").await.unwrap();
        assert_eq!((claimed.lease_epoch, claimed.attempt), (1, 1));
        assert_eq!((claimed.agent_name.as_str(), claimed.version.as_str()), ("fuel", "1.0.0"));
        assert_eq!(claimed.image.name.as_str(), "fuel");
        assert_eq!(claimed.input, json!({"litres": 1}));
        assert!(claim(&db, &a, id, "w2").await.is_none(), "another worker");
        let done = report(&db, &a, &claimed, &completed()).await;
        assert_eq!(done, Some(ExecutionState::Completed));
        let stored = db.store.tenant(&a).await.unwrap().execution(id).await.unwrap().unwrap();
        assert_eq!(stored.output, Some(json!({"kg": 2.3})));
        assert!(stored.started_at.is_some() && stored.completed_at.is_some());
        assert_eq!(report(&db, &a, &claimed, &completed()).await, None, "reported once");
    })
    .await;
}

#[tokio::test]
async fn many_workers_claim_and_one_has_it() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = db.execution(&a, db.agent(&a, "fuel").await).await;
        offer(&db).await;
        let mut workers = tokio::task::JoinSet::new();
        for n in 0..12 {
            let (db, a) = (db.clone(), a.clone());
            workers.spawn(async move { claim(&db, &a, id, &format!("w{n}")).await.is_some() });
        }
        let won = workers.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1);
    })
    .await;
}

#[tokio::test]
async fn another_tenants_execution_cannot_be_claimed_or_ended() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let b = db.tenant("tenant-b").await;
        let id = db.execution(&a, db.agent(&a, "fuel").await).await;
        offer(&db).await;
        assert!(claim(&db, &b, id, "w1").await.is_none());
        let claimed = claim(&db, &a, id, "w1").await.unwrap();
        assert_eq!(report(&db, &b, &claimed, &completed()).await, None);
        assert_eq!(db.store.tenant(&b).await.unwrap().execution(id).await.unwrap(), None);
        assert_eq!(state(&db, &a, id).await, ExecutionState::Running);
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_is_faster_than_the_feeders_commit_waits_for_it() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = db.execution(&a, db.agent(&a, "fuel").await).await;
        let mut feeder = db.store.system(Job::Feeder).await.unwrap();
        let offers = offers(&mut feeder, 1).await;
        let mut other = db.store.system(Job::Feeder).await.unwrap();
        assert!(!other.leads().await.unwrap(), "one feeder at a time");
        drop(other);
        let (fast, again) = (db.clone(), a.clone());
        let worker = tokio::spawn(async move { claim(&fast, &again, id, "w1").await });
        // The worker is at the row's lock.
        db.until_one_waits().await;
        feeder.mark_queued(&offers).await.unwrap();
        feeder.commit().await.unwrap();
        assert!(worker.await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn a_lost_worker_loses_its_lease_and_its_late_result_does_not_count() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = db.execution(&a, db.agent(&a, "fuel").await).await;
        let minute = Duration::from_secs(60);
        beat(&db, "w1").await;
        offer(&db).await;
        let first = claim(&db, &a, id, "w1").await.unwrap();
        assert_eq!(sweep(&db, minute, minute).await, (Swept::default(), 0), "it beats");
        run(&mut db.root().await, "UPDATE worker_heartbeats SET beat_at = now() - interval '61 s'")
            .await;
        let requeued = Swept { requeued: 1, ..Swept::default() };
        assert_eq!(sweep(&db, minute, minute).await, (requeued, 1), "and is offered again at once");
        assert_eq!(state(&db, &a, id).await, ExecutionState::Pending);
        offer(&db).await;
        beat(&db, "w2").await;
        let second = claim(&db, &a, id, "w2").await.unwrap();
        assert_eq!((second.lease_epoch, second.attempt), (2, 2));
        let held = Held { tenant: a.tenant, execution: id, lease_epoch: second.lease_epoch };
        assert_eq!(runs_of(&db, "w2").await, [held]);
        assert_eq!(runs_of(&db, "w1").await, []);
        assert_eq!(report(&db, &a, &first, &ended(EndReason::Failed)).await, None);
        let done = report(&db, &a, &second, &completed()).await;
        assert_eq!(done, Some(ExecutionState::Completed));
    })
    .await;
}

#[tokio::test]
async fn ee25_an_execution_that_loses_worker_after_worker_is_given_up_as_poison() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = db.execution(&a, db.agent(&a, "fuel").await).await;
        for attempt in 1..=3 {
            offer(&db).await;
            assert_eq!(claim(&db, &a, id, "never beats").await.unwrap().attempt, attempt);
            let (swept, _) = sweep(&db, Duration::ZERO, Duration::from_secs(60)).await;
            assert_eq!(swept.given_up, u64::from(attempt == 3));
        }
        let stored = db.store.tenant(&a).await.unwrap().execution(id).await.unwrap().unwrap();
        assert_eq!(stored.state, ExecutionState::DeadLetter);
        assert_eq!(stored.end_reason, Some(EndReason::Poison));
        assert!(stored.completed_at.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_retry_is_offered_when_it_is_due_and_a_released_one_does_not_count() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = db.execution(&a, db.agent(&a, "fuel").await).await;
        offer(&db).await;
        let claimed = claim(&db, &a, id, "w1").await.unwrap();
        let next = report(&db, &a, &claimed, &ended(EndReason::RetryAsked)).await;
        assert_eq!(next, Some(ExecutionState::Retry));
        let mut root = db.root().await;
        run(&mut root, "UPDATE executions SET due_at = now() + interval '1 hour'").await;
        assert_eq!(offer(&db).await, 0, "not due");
        run(&mut root, "UPDATE executions SET due_at = now()").await;
        assert_eq!(offer(&db).await, 1);
        let claimed = claim(&db, &a, id, "w1").await.unwrap();
        assert_eq!(claimed.attempt, 2);
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert!(!tx.release_execution(id, claimed.lease_epoch + 1).await.unwrap());
        assert!(tx.release_execution(id, claimed.lease_epoch).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(claim(&db, &a, id, "w2").await.unwrap().attempt, 2);
    })
    .await;
}

#[tokio::test]
async fn what_was_queued_and_never_taken_is_offered_again() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = db.execution(&a, db.agent(&a, "fuel").await).await;
        offer(&db).await;
        assert_eq!(sweep(&db, Duration::ZERO, Duration::from_secs(60)).await.1, 0);
        assert_eq!(sweep(&db, Duration::ZERO, Duration::ZERO).await.1, 1);
        assert_eq!(state(&db, &a, id).await, ExecutionState::Pending);
    })
    .await;
}

#[tokio::test]
async fn a_submission_wakes_the_feeder_when_it_commits() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let agent = db.agent(&a, "fuel").await;
        let mut listener = db.store.pending_listener().await.unwrap();
        assert!(!listener.wait(Duration::from_millis(20)).await.unwrap());
        db.execution(&a, agent).await;
        assert!(listener.wait(Duration::from_secs(5)).await.unwrap());
    })
    .await;
}

fn named(limits: &[(Limit, u64)]) -> Named {
    let mut named = Named::default();
    limits.iter().for_each(|(limit, value)| named.set(*limit, *value).unwrap());
    named
}

#[tokio::test]
async fn res1_a_claim_brings_the_limits_and_the_schema_that_the_run_is_held_to() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let (agent, plain) = db.agent(&a, "fuel").await;
        let version = AgentVersionId::new(Uuid::new_v4());
        let terms = versions::Terms {
            limits: named(&[(Limit::Memory, 128 << 20), (Limit::Timeout, 60)]),
            output_schema: Some(json!({"type": "object"})),
            ..versions::Terms::default()
        };
        let image = format!("fuel@sha256:{}", "a".repeat(64));
        let new = NewVersion { id: version, agent, version: "2.0.0".into(), image, terms };
        let asked = named(&[(Limit::Memory, 128 << 20), (Limit::Timeout, 5)]);
        let id = ExecutionId::new(Uuid::new_v4());
        let terms = Terms { priority: 0, limits: asked, max_attempts: 2, retry_of: None };
        let run = NewExecution { id, agent, version, input: json!(1), terms };
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.create_version(&new).await.unwrap();
        let made = tx.submit_execution(&run).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(made.terms, run.terms);
        let other = db.execution(&a, (agent, plain)).await;
        assert_eq!(offer(&db).await, 2);
        let claimed = claim(&db, &a, id, "w").await.unwrap();
        let timeout = Duration::from_secs(5);
        let expected = Limits { memory_bytes: 128 << 20, timeout, ..Limits::default() };
        assert_eq!((claimed.limits, claimed.max_attempts), (expected, 2));
        assert_eq!(claimed.output_schema, Some(json!({"type": "object"})));
        let claimed = claim(&db, &a, other, "w").await.unwrap();
        assert_eq!((claimed.limits, claimed.output_schema), (Limits::default(), None));
        // What a version is does not change.
        let mut app = db.raw("gatehouse_app").await;
        for column in ["limits", "input_schema", "output_schema", "egress"] {
            let change = format!("UPDATE agent_versions SET {column} = {column}");
            assert_eq!(refused(&mut app, &change).await, "42501", "{column}");
        }
    })
    .await;
}
