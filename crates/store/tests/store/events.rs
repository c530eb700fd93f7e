//! Events against a real PostgreSQL: what is stored is what the events add up to, at every moment; what is published is in
//! order and misses nothing that commits late.

use std::time::Duration;

use gatehouse_contract::{AgentId, AgentVersionId, ExecutionId};
use gatehouse_events::{Agent, Aggregate, Execution, Kind};
use gatehouse_execution::{EndReason, Record, outcome::Outcome};
use gatehouse_store::{
    Job, OffsetDateTime, OpCtx,
    attempts::Claimed,
    dead_letters::Filter,
    paging::Page,
    versions::{NewVersion, Terms, Wanted},
};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Db, offer, refused, run, with_db};

/// Numbers that look random and are the same in every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: usize) -> usize {
        // Knuth's MMIX; the high bits are the good ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// An agent as the tables have it, in the form in which events add up to it.
async fn stored_agent(db: &Db, op: &OpCtx, id: AgentId) -> Agent {
    let (name, description, created_at, deleted_at) = sqlx::query_as(
        "SELECT name, description, created_at, deleted_at FROM agents WHERE id = $1",
    )
    .bind(id.as_uuid())
    .fetch_one(&mut db.root().await)
    .await
    .unwrap();
    let mut tx = db.store.tenant(op).await.unwrap();
    let versions = tx.list_versions(id, &Page::first(100), Wanted::default()).await.unwrap();
    let versions = versions.into_iter().map(|one| {
        let version = gatehouse_events::agent::Version {
            version: one.version,
            image: one.image,
            created_at: one.created_at,
            promoted_at: one.promoted_at,
            deprecated_at: one.deprecated_at,
            deprecation: one.deprecation,
        };
        (one.id, version)
    });
    Agent { name, description, created_at, deleted_at, versions: versions.collect() }
}

/// An execution as the table has it.
async fn stored_execution(db: &Db, op: &OpCtx, id: ExecutionId) -> Execution {
    let one = db.store.tenant(op).await.unwrap().execution(id).await.unwrap().unwrap();
    let (worker, epoch): (Option<String>, i64) =
        sqlx::query_as("SELECT worker, lease_epoch FROM executions WHERE id = $1")
            .bind(id.as_uuid())
            .fetch_one(&mut db.root().await)
            .await
            .unwrap();
    Execution {
        agent_id: one.agent,
        version_id: one.version,
        state: one.state,
        attempt: one.attempt,
        lease_epoch: u64::try_from(epoch).unwrap(),
        worker,
        input: one.input,
        output: one.output,
        end_reason: one.end_reason,
        error: one.error,
        created_at: one.created_at,
        started_at: one.started_at,
        completed_at: one.completed_at,
    }
}

async fn now(db: &Db) -> OffsetDateTime {
    sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut db.root().await).await.unwrap()
}

async fn change_agent(db: &Db, op: &OpCtx, id: AgentId, dice: &mut Dice, step: usize) {
    let mut tx = db.store.tenant(op).await.unwrap();
    let agent = tx.lock_agent(id).await.unwrap().unwrap();
    let versions = tx.list_versions(id, &Page::first(100), Wanted::default()).await.unwrap();
    let any = (!versions.is_empty()).then(|| &versions[dice.below(versions.len())]);
    match (dice.below(4), any) {
        (0, _) => {
            let description = (dice.below(2) == 0).then(|| format!("step {step}"));
            let name = format!("agent-{}", dice.below(3));
            tx.update_agent(&agent, &name, description.as_deref()).await.unwrap();
        }
        (1, Some(version)) => drop(tx.promote_version(version).await.unwrap()),
        (2, Some(version)) => {
            let message = (dice.below(2) == 0).then(|| format!("step {step}"));
            tx.deprecate_version(version, message.as_deref()).await.unwrap();
        }
        _ => {
            let image = format!("fuel@sha256:{}", "a".repeat(64));
            let new = NewVersion {
                id: AgentVersionId::new(Uuid::new_v4()),
                agent: id,
                version: format!("1.0.{step}"),
                image,
                terms: Terms::default(),
            };
            tx.create_version(&new).await.unwrap();
        }
    }
    // Now and then nothing of it happened.
    if dice.below(5) > 0 {
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn an_agent_is_what_its_events_add_up_to_at_every_time() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let (mut dice, id) = (Dice(1), AgentId::new(Uuid::new_v4()));
        let before = now(&db).await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.create_agent(id, "agent", Some("first")).await.unwrap();
        tx.commit().await.unwrap();
        let mut seen = Vec::new();
        for step in 0..60 {
            change_agent(&db, &a, id, &mut dice, step).await;
            seen.push((now(&db).await, stored_agent(&db, &a, id).await));
        }
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert!(tx.delete_agent(id).await.unwrap());
        tx.commit().await.unwrap();
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.agent_at(id, Some(before)).await.unwrap(), None);
        for (at, stored) in seen {
            assert_eq!(tx.agent_at(id, Some(at)).await.unwrap(), Some(stored), "at {at}");
        }
        let last = tx.agent_at(id, None).await.unwrap().unwrap();
        assert!(last.deleted_at.is_some());
        assert_eq!(last, stored_agent(&db, &a, id).await);
        let told = tx.history(Aggregate::Agent, id.as_uuid(), None, 200).await.unwrap();
        let numbers: Vec<u64> = told.iter().rev().map(|one| one.seq).collect();
        assert_eq!(numbers, (1..=told.len() as u64).collect::<Vec<_>>(), "without gaps");
        assert_eq!(told[0].event.kind(), Kind::AgentDeleted);
        assert_eq!((told[0].subject.as_str(), told[0].request_id.as_str()), ("tester", "r1"));
    })
    .await;
}

/// One step of a worker, the feeder or the sweep.
pub async fn move_executions(
    db: &Db,
    op: &OpCtx,
    ids: &[ExecutionId],
    claims: &mut Vec<Claimed>,
    dice: &mut Dice,
) {
    let id = ids[dice.below(ids.len())];
    match dice.below(16) {
        0 | 1 => drop(offer(db).await),
        2..=6 => {
            let mut tx = db.store.tenant(op).await.unwrap();
            claims.extend(tx.claim_execution(id, "w1").await.unwrap());
            tx.commit().await.unwrap();
        }
        7 if !claims.is_empty() => {
            let held = claims.remove(dice.below(claims.len()));
            let mut tx = db.store.tenant(op).await.unwrap();
            tx.release_execution(held.execution, held.lease_epoch).await.unwrap();
            tx.commit().await.unwrap();
        }
        8 => {
            // Nobody ever beat: whatever runs is lost.
            let mut tx = db.store.system(Job::Sweep).await.unwrap();
            tx.expire_leases(Duration::from_secs(1)).await.unwrap();
            tx.commit().await.unwrap();
        }
        9 => {
            let mut tx = db.store.system(Job::Sweep).await.unwrap();
            tx.unqueue_stale(Duration::ZERO).await.unwrap();
            tx.commit().await.unwrap();
        }
        10 => {
            let mut tx = db.store.tenant(op).await.unwrap();
            tx.cancel_execution(id).await.unwrap();
            tx.commit().await.unwrap();
        }
        11 => {
            let mut tx = db.store.tenant(op).await.unwrap();
            tx.replay_dead_letters(Filter::default(), 1).await.unwrap();
            tx.commit().await.unwrap();
        }
        _ if !claims.is_empty() => {
            let held = claims.remove(dice.below(claims.len()));
            let reasons = [
                EndReason::Completed,
                EndReason::Failed,
                EndReason::RetryAsked,
                EndReason::Timeout,
                EndReason::SandboxError,
            ];
            let reason = reasons[dice.below(reasons.len())];
            let outcome = Outcome {
                reason,
                output: (reason == EndReason::Completed).then(|| json!({"kg": 2.5})),
                message: (reason != EndReason::Completed).then(|| "why".to_owned()),
            };
            let mut tx = db.store.tenant(op).await.unwrap();
            tx.complete_execution(held.execution, held.lease_epoch, &outcome, &Record::default())
                .await
                .unwrap();
            tx.commit().await.unwrap();
            run(&mut db.root().await, "UPDATE executions SET due_at = now() WHERE state = 'retry'")
                .await;
        }
        _ => drop(offer(db).await),
    }
}

#[tokio::test]
async fn an_execution_is_what_its_events_add_up_to_at_every_time() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let agent = db.agent(&a, "fuel").await;
        let mut dice = Dice(7);
        let (mut ids, mut claims, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..16 {
            ids.push(db.execution(&a, agent).await);
        }
        for _ in 0..200 {
            move_executions(&db, &a, &ids, &mut claims, &mut dice).await;
            let id = ids[dice.below(ids.len())];
            seen.push((now(&db).await, id, stored_execution(&db, &a, id).await));
        }
        let states: std::collections::BTreeSet<&str> =
            seen.iter().map(|(_, _, one)| one.state.as_str()).collect();
        assert!(states.len() >= 6, "the walk is a wide one: {states:?}");
        let mut tx = db.store.tenant(&a).await.unwrap();
        for (at, id, stored) in seen {
            assert_eq!(tx.execution_at(id, Some(at)).await.unwrap(), Some(stored), "{id} at {at}");
        }
        for id in ids {
            let rebuilt = tx.execution_at(id, None).await.unwrap();
            assert_eq!(rebuilt, Some(stored_execution(&db, &a, id).await));
        }
    })
    .await;
}

#[tokio::test]
async fn events_are_the_tenants_own_and_nobody_changes_them() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let (agent, _) = db.agent(&a, "fuel").await;
        let mut tx = db.store.tenant(&b).await.unwrap();
        let theirs = tx.history(Aggregate::Agent, agent.as_uuid(), None, 200).await.unwrap();
        assert_eq!(theirs, []);
        assert_eq!(tx.agent_at(agent, None).await.unwrap(), None);
        drop(tx);
        for role in ["gatehouse_app", "gatehouse_admin", "gatehouse_system"] {
            let mut raw = db.raw(role).await;
            for statement in ["DELETE FROM event_store", "UPDATE event_store SET kind = 'x'"] {
                assert_eq!(refused(&mut raw, statement).await, "42501", "{role}: {statement}");
            }
        }
        // What a payload says is in no table in the clear.
        let plain: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM event_store WHERE position('fuel'::bytea IN sealed_payload) > 0)
                + (SELECT count(*) FROM event_outbox WHERE payload IS NOT NULL)",
        )
        .fetch_one(&mut db.root().await)
        .await
        .unwrap();
        assert_eq!(plain, 0);
    })
    .await;
}
