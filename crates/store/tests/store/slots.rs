//! Slots: however many workers there are and whatever ends them, no more of a tenant run at any instant than may, and what
//! is lost is free again. What cannot run waits, and keeps nobody else waiting.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use gatehouse_contract::ExecutionId;
use gatehouse_execution::{EndReason, ExecutionState, Record};
use gatehouse_store::{Job, OpCtx, attempts::Claimed, quotas::Quotas};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{
    events::Dice,
    executions::{beat, claim, completed, ended, report, state},
    harness::{Db, offer, offers, run, with_db},
};

async fn limit(db: &Db, op: &OpCtx, slots: Option<u64>) {
    let mut tx = db.store.admin(op, "a test's limit").await.unwrap();
    let quotas = Quotas { max_concurrent_executions: slots, ..Quotas::default() };
    tx.set_quotas(op.tenant, &quotas).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_tenants_last_slot_is_had_and_the_one_after_it_waits_in_its_place() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let (of_a, of_b) = (db.agent(&a, "fuel").await, db.agent(&b, "fuel").await);
        limit(&db, &a, Some(2)).await;
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(db.execution(&a, of_a).await);
        }
        let theirs = db.execution(&b, of_b).await;
        assert_eq!(offer(&db).await, 3, "two of one tenant, one of the other");
        assert_eq!(offer(&db).await, 0, "no slot is left");
        let first = claim(&db, &a, ids[0], "w1").await.unwrap();
        assert!(claim(&db, &b, theirs, "w1").await.is_some(), "another tenant's slots are its own");
        // An offer from before the limit went down: the claim decides.
        limit(&db, &a, Some(1)).await;
        assert!(claim(&db, &a, ids[1], "w2").await.is_none());
        assert_eq!(state(&db, &a, ids[1]).await, ExecutionState::Pending);
        assert_eq!(offer(&db).await, 0);
        report(&db, &a, &first, &completed()).await.unwrap();
        assert_eq!(offer(&db).await, 1);
        assert!(claim(&db, &a, ids[2], "w2").await.is_none(), "not its turn yet");
        let second = claim(&db, &a, ids[1], "w2").await.unwrap();
        assert_eq!((second.lease_epoch, second.attempt), (1, 1), "what had no slot was no attempt");
        // No slots at all, and then the tier's.
        limit(&db, &a, Some(0)).await;
        report(&db, &a, &second, &completed()).await.unwrap();
        assert_eq!(offer(&db).await, 0);
        limit(&db, &a, None).await;
        assert_eq!(offer(&db).await, 2);
    })
    .await;
}

#[tokio::test]
async fn ee29_a_tenants_p0_goes_before_its_own_p3_and_never_past_its_slots() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let of_a = db.agent(&a, "fuel").await;
        limit(&db, &a, Some(1)).await;
        let slow = db.execution(&a, of_a).await;
        run(&mut db.root().await, "UPDATE executions SET priority = 3").await;
        assert_eq!(offer(&db).await, 1);
        let urgent = db.execution(&a, of_a).await;
        let sql = format!("UPDATE executions SET priority = 0 WHERE id = '{urgent}'");
        run(&mut db.root().await, &sql).await;
        assert_eq!(offer(&db).await, 1, "the offered P3 does not keep it out");
        let held = claim(&db, &a, urgent, "w1").await.unwrap();
        assert!(claim(&db, &a, slow, "w1").await.is_none(), "one slot is one slot");
        assert_eq!(state(&db, &a, slow).await, ExecutionState::Pending);
        report(&db, &a, &held, &completed()).await.unwrap();
        offer(&db).await;
        assert!(claim(&db, &a, slow, "w1").await.is_some());
    })
    .await;
}

/// What the workers of the checker share.
struct Field {
    op: OpCtx,
    /// The last ones that were offered.
    ids: Mutex<Vec<ExecutionId>>,
    stop: AtomicBool,
    /// Runs that were lost on purpose.
    crashes: AtomicU32,
    /// Claims that found no slot.
    full: AtomicU32,
}

/// Lives as a worker does, and dies now and then: with what it holds, and in the midst of a transaction.
async fn worker(db: Arc<Db>, field: Arc<Field>, seed: u64) {
    let mut dice = Dice(seed);
    let mut name = format!("w{seed}-{}", Uuid::new_v4());
    let mut held: Vec<Claimed> = Vec::new();
    while !field.stop.load(SeqCst) {
        beat(&db, &name).await;
        let id = {
            let ids = field.ids.lock().unwrap();
            ids[dice.below(ids.len())]
        };
        match dice.below(12) {
            // What it holds it holds for a while, in which it may die.
            0..=6 if held.len() < 2 => match claim(&db, &field.op, id, &name).await {
                Some(claimed) => held.push(claimed),
                None => drop(field.full.fetch_add(1, SeqCst)),
            },
            7 => {
                // Ends before its commit: nothing was claimed.
                let mut tx = db.store.tenant(&field.op).await.unwrap();
                drop(tx.claim_execution(id, name.as_str()).await.unwrap());
            }
            8 => {
                field.crashes.fetch_add(u32::try_from(held.len()).unwrap(), SeqCst);
                held.clear();
                name = format!("w{seed}-{}", Uuid::new_v4());
            }
            9 => {
                let mut tx = db.store.tenant(&field.op).await.unwrap();
                if dice.below(40) == 0 {
                    tx.cancel_execution(id).await.unwrap();
                }
                tx.commit().await.unwrap();
            }
            _ => {}
        }
        if !held.is_empty() && dice.below(6) == 0 {
            let one = held.remove(dice.below(held.len()));
            let mut tx = db.store.tenant(&field.op).await.unwrap();
            let (id, epoch) = (one.execution, one.lease_epoch);
            match dice.below(5) {
                0 => drop(tx.release_execution(id, epoch).await.unwrap()),
                1 => {
                    let outcome = ended(EndReason::RetryAsked);
                    tx.complete_execution(id, epoch, &outcome, &Record::default()).await.unwrap();
                }
                _ => drop(
                    tx.complete_execution(id, epoch, &completed(), &Record::default())
                        .await
                        .unwrap(),
                ),
            }
            tx.commit().await.unwrap();
        }
    }
}

async fn heal(db: &Db, lease: Duration) {
    let mut tx = db.store.system(Job::Sweep).await.unwrap();
    tx.expire_leases(lease).await.unwrap();
    tx.unqueue_stale(Duration::from_millis(300)).await.unwrap();
    tx.commit().await.unwrap();
}

/// How many run, and how many may, at one instant.
async fn seen(root: &mut sqlx::PgConnection) -> (i64, i64) {
    sqlx::query_as(
        "SELECT (SELECT count(*) FROM executions WHERE state = 'running'),
            (SELECT max_concurrent_executions FROM tenant_quotas)",
    )
    .fetch_one(root)
    .await
    .unwrap()
}

#[tokio::test]
async fn ee31_at_no_instant_more_run_than_may_whatever_ends_their_workers() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let of_a = db.agent(&a, "fuel").await;
        limit(&db, &a, Some(4)).await;
        let mut ids = Vec::new();
        for _ in 0..300 {
            ids.push(db.execution(&a, of_a).await);
        }
        let field = Arc::new(Field {
            op: a.clone(),
            ids: Mutex::new(ids),
            stop: AtomicBool::new(false),
            crashes: AtomicU32::new(0),
            full: AtomicU32::new(0),
        });
        let mut workers = tokio::task::JoinSet::new();
        for seed in 0..8 {
            workers.spawn(worker(Arc::clone(&db), Arc::clone(&field), seed));
        }
        let lease = Duration::from_secs(1);
        let (healing, again) = (Arc::clone(&db), Arc::clone(&field));
        workers.spawn(async move {
            while !again.stop.load(SeqCst) {
                let mut tx = healing.store.system(Job::Feeder).await.unwrap();
                let offers = offers(&mut tx, 6).await;
                tx.mark_queued(&offers).await.unwrap();
                tx.commit().await.unwrap();
                {
                    let mut ids = again.ids.lock().unwrap();
                    ids.extend(offers.iter().map(|offer| offer.execution));
                    let old = ids.len().saturating_sub(12);
                    ids.drain(..old);
                }
                heal(&healing, lease).await;
                let due = "UPDATE executions SET due_at = now() WHERE state = 'retry'";
                run(&mut healing.root().await, due).await;
            }
        });
        let mut root = db.root().await;
        let (mut most, mut before, mut looks) = (0, (0, 4), 0_u32);
        let until = Instant::now() + Duration::from_secs(12);
        while Instant::now() < until {
            if looks % 400 == 399 {
                let next = if looks % 800 == 399 { 2 } else { 4 };
                limit(&db, &a, Some(next)).await;
            }
            let now = seen(&mut root).await;
            // What ran when the limit went down goes on; nothing begins until there is room.
            let since = if now.1 == before.1 { before.0 } else { before.1 };
            assert!(now.0 <= now.1.max(since), "{now:?} after {before:?}");
            (most, before, looks) = (most.max(now.0), now, looks + 1);
        }
        field.stop.store(true, SeqCst);
        while let Some(ended) = workers.join_next().await {
            ended.unwrap();
        }
        let told: Vec<(String, i64)> =
            sqlx::query_as("SELECT kind, count(*) FROM event_store GROUP BY kind ORDER BY kind")
                .fetch_all(&mut root)
                .await
                .unwrap();
        let (crashes, full) = (field.crashes.load(SeqCst), field.full.load(SeqCst));
        assert!(looks > 500 && crashes > 5 && full > 20, "{looks} looks, {crashes} crashes, {full} without a slot: {told:?}");
        assert_eq!(most, 4, "the slots were all in use at some time");
        // Every worker is gone now. What they held is free within the lease, and nothing is lost.
        let began = Instant::now();
        while seen(&mut root).await.0 > 0 {
            heal(&db, lease).await;
            assert!(began.elapsed() < Duration::from_secs(30), "slots are not free");
        }
        let held: i64 = sqlx::query_scalar("SELECT count(*) FROM executions").fetch_one(&mut root).await.unwrap();
        assert_eq!(held, 300);
        let twice: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT FROM event_store WHERE kind IN ('execution.completed', 'execution.cancelled',
                'execution.given_up') GROUP BY aggregate_id HAVING count(*) > 1) AS twice",
        )
        .fetch_one(&mut root)
        .await
        .unwrap();
        assert_eq!(twice, 0, "one end each");
    })
    .await;
}

#[tokio::test]
async fn ee28_what_waits_of_one_tenant_costs_nobody_else_a_turn_and_no_scan() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let (of_a, of_b) = (db.agent(&a, "fuel").await, db.agent(&b, "fuel").await);
        let flood = format!(
            "SET session_replication_role = replica;
             INSERT INTO executions (tenant_id, id, agent_id, agent_version_id, input, created_by, priority)
                SELECT '{}', gen_random_uuid(), '{}', '{}', '{{}}', 's', 3 FROM generate_series(1, 100000);
             ANALYZE executions",
            a.tenant.as_uuid(), of_a.0, of_a.1,
        );
        run(&mut db.root().await, &flood).await;
        let urgent = db.execution(&b, of_b).await;
        let sql = format!("UPDATE executions SET priority = 0 WHERE id = '{urgent}'");
        run(&mut db.root().await, &sql).await;
        let mut tx = db.store.system(Job::Feeder).await.unwrap();
        let found = offers(&mut tx, 16).await;
        assert_eq!((found[0].execution, found[0].stream), (urgent, 0), "the most urgent is the first");
        assert_eq!(found.len(), 11, "and of the other tenant what has a slot");
        drop(tx);
        // A round looks at some rows of each tenant, however many there are.
        let mut raw = db.raw("gatehouse_system").await;
        let as_feeder = "SET app.current_job = 'feeder'; SET enable_sort = off; SET enable_seqscan = off;
            SET enable_bitmapscan = off";
        run(&mut raw, as_feeder).await;
        for (what, query, index) in [
            (
                "the next tenant",
                "SELECT e.tenant_id FROM executions e WHERE e.state IN ('pending', 'retry')
                 AND (e.priority, e.tenant_id) > (0, 'TENANT') ORDER BY e.priority, e.tenant_id LIMIT 1",
                "priority_tenant_id_state",
            ),
            (
                "its oldest",
                "SELECT e.id FROM executions e WHERE e.tenant_id = 'TENANT' AND e.priority = 3 AND e.state = 'pending'
                 AND e.state IN ('pending', 'retry') AND coalesce(e.due_at, e.created_at) <= now()
                 ORDER BY coalesce(e.due_at, e.created_at) LIMIT 16 FOR UPDATE SKIP LOCKED",
                "priority_tenant_id_state",
            ),
            (
                "what it runs",
                "SELECT count(*) FILTER (WHERE e.state = 'running') FROM executions e
                 WHERE e.tenant_id = 'TENANT' AND e.state IN ('queued', 'running')",
                "tenant_id_state_priority",
            ),
        ] {
            let query = format!("EXPLAIN {}", query.replace("TENANT", &a.tenant.to_string()));
            let plan: Vec<String> =
                sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut raw).await.unwrap();
            let of_rows = plan.iter().filter(|line| line.contains("executions_p0"));
            let of_rows: Vec<&String> = of_rows.collect();
            let by_index = |line: &&String| line.contains(index);
            assert!(!of_rows.is_empty() && of_rows.iter().all(by_index), "{what}: {plan:#?}");
            assert!(!plan.iter().any(|line| line.contains("Sort (")), "{what}: {plan:#?}");
        }
    })
    .await;
}
