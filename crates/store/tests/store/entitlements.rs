//! What a tenant may have: by its tier or its own, window by window, whoever takes at the same time.

use std::sync::Arc;

use gatehouse_contract::{AgentId, ExecutionId, TenantId, Tier};
use gatehouse_store::{
    Error, OffsetDateTime, OpCtx,
    executions::{NewExecution, Terms},
    quotas::Quotas,
    usage::Counted,
};
use serde_json::json;
use time::{Duration, macros::datetime};
use uuid::Uuid;

use crate::harness::{Db, with_db};

async fn set(db: &Db, op: &OpCtx, quotas: Quotas) {
    let mut tx = db.store.admin(op, "a test").await.unwrap();
    tx.set_quotas(op.tenant, &quotas).await.unwrap();
    tx.commit().await.unwrap();
}

async fn tier(db: &Db, op: &OpCtx, tenant: TenantId, tier: Tier) {
    let mut tx = db.store.admin(op, "a test").await.unwrap();
    tx.change_tenant(tenant, None, Some(tier)).await.unwrap();
    tx.commit().await.unwrap();
}

/// `Err` is what is used of how much, and when it begins anew.
async fn take(
    db: &Db,
    op: &OpCtx,
    what: Counted,
    amount: u64,
) -> Result<(), (u64, u64, Option<OffsetDateTime>)> {
    let mut tx = db.store.tenant(op).await.unwrap();
    match tx.take(what, amount).await {
        Ok(()) => tx.commit().await.map_err(|error| panic!("{error}")),
        Err(Error::QuotaExceeded { limit, used, resets_at, .. }) => Err((used, limit, resets_at)),
        Err(error) => panic!("{error}"),
    }
}

async fn alerts(db: &Db) -> Vec<(String, i16, String)> {
    let rows = "SELECT quota, percent, day::text FROM quota_alerts ORDER BY day, quota, percent";
    sqlx::query_as(rows).fetch_all(&mut db.root().await).await.unwrap()
}

async fn events(db: &Db) -> i64 {
    let count = "SELECT count(*) FROM event_store WHERE kind = 'quota.threshold_reached'";
    sqlx::query_scalar(count).fetch_one(&mut db.root().await).await.unwrap()
}

#[tokio::test]
async fn a_day_ends_at_midnight_utc_and_not_a_moment_later() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        set(&db, &a, Quotas { max_executions_per_day: Some(5), ..Quotas::default() }).await;
        let midnight = datetime!(2026-03-01 00:00 UTC);
        let at = |now: OffsetDateTime| OpCtx { now, ..a.clone() };
        let last = at(midnight - Duration::NANOSECOND);
        take(&db, &last, Counted::Executions, 5).await.unwrap();
        let refused = take(&db, &last, Counted::Executions, 1).await;
        assert_eq!(refused, Err((5, 5, Some(midnight))), "it says when to come again");
        // The same moment, as somebody elsewhere writes it.
        let elsewhere = at(last.now.to_offset(time::macros::offset!(+9)));
        assert!(take(&db, &elsewhere, Counted::Executions, 1).await.is_err());
        take(&db, &at(midnight), Counted::Executions, 5).await.unwrap();
        assert!(take(&db, &at(midnight), Counted::Executions, 1).await.is_err());
        // What does not begin anew is the same on every day.
        take(&db, &last, Counted::Agents, 99).await.unwrap();
        assert_eq!(take(&db, &at(midnight), Counted::Agents, 2).await, Err((99, 100, None)));
        // One alert per window and threshold: two days of executions; of agents 99 are 80 % and not all.
        let told = alerts(&db).await;
        let expected = [
            ("agents", 80, "2026-02-28"),
            ("executions", 80, "2026-02-28"),
            ("executions", 100, "2026-02-28"),
            ("executions", 80, "2026-03-01"),
            ("executions", 100, "2026-03-01"),
        ];
        let expected =
            expected.map(|(quota, percent, day)| (quota.to_owned(), percent, day.to_owned()));
        assert_eq!(told, expected);
        assert_eq!(events(&db).await, 5);
    })
    .await;
}

#[tokio::test]
async fn another_tier_counts_at_once_and_takes_nothing_back() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        tier(&db, &b, a.tenant, Tier::Pro).await;
        take(&db, &a, Counted::Agents, 150).await.unwrap();
        tier(&db, &b, a.tenant, Tier::Free).await;
        // Above the new cap: what is there stays, and nothing more comes.
        assert_eq!(take(&db, &a, Counted::Agents, 1).await, Err((150, 100, None)));
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.release(Counted::Agents, 51).await.unwrap();
        tx.commit().await.unwrap();
        take(&db, &a, Counted::Agents, 1).await.unwrap();
        assert_eq!(take(&db, &a, Counted::Agents, 1).await, Err((100, 100, None)));
        // Its own goes before the tier's, and 0 blocks.
        set(&db, &a, Quotas { max_agents: Some(101), ..Quotas::default() }).await;
        take(&db, &a, Counted::Agents, 1).await.unwrap();
        set(
            &db,
            &a,
            Quotas { max_agents: Some(0), max_tokens_per_day: Some(0), ..Quotas::default() },
        )
        .await;
        assert!(take(&db, &a, Counted::Agents, 1).await.is_err());
        assert!(take(&db, &a, Counted::Tokens, 1).await.is_err());
        let mut tx = db.store.tenant(&a).await.unwrap();
        let standings = tx.within().standings().await.unwrap().unwrap();
        let agents = standings.iter().find(|one| one.what == Counted::Agents).unwrap();
        assert_eq!((agents.used, agents.limit, agents.own), (101, 0, true));
        drop(tx);
        take(&db, &b, Counted::Agents, 100).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn res4_two_hundred_at_once_tell_of_each_threshold_once() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        set(&db, &a, Quotas { max_executions_per_day: Some(10), ..Quotas::default() }).await;
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let (db, a) = (Arc::clone(&db), a.clone());
            all.spawn(async move { take(&db, &a, Counted::Executions, 1).await.is_ok() });
        }
        assert_eq!(all.join_all().await.into_iter().filter(|taken| *taken).count(), 10);
        let percents: Vec<i16> =
            alerts(&db).await.into_iter().map(|(_, percent, _)| percent).collect();
        assert_eq!(percents, [80, 100]);
        assert_eq!(events(&db).await, 2);
        // A larger quota and again near it on the same day: it was told.
        set(&db, &a, Quotas { max_executions_per_day: Some(11), ..Quotas::default() }).await;
        take(&db, &a, Counted::Executions, 1).await.unwrap();
        assert_eq!(events(&db).await, 2);
    })
    .await;
}

#[tokio::test]
async fn what_is_registered_and_stored_is_counted_as_it_comes_and_goes() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let of = db.agent(&a, "fuel").await;
        let used = async |what: Counted| {
            let mut tx = db.store.tenant(&a).await.unwrap();
            let standings = tx.within().standings().await.unwrap().unwrap();
            standings.into_iter().find(|one| one.what == what).unwrap().used
        };
        assert_eq!(used(Counted::Agents).await, 1);
        let other = AgentId::new(Uuid::new_v4());
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.create_agent(other, "other", None).await.unwrap();
        assert!(tx.delete_agent(other).await.unwrap());
        assert!(!tx.delete_agent(other).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(used(Counted::Agents).await, 1);
        // One that was never there takes nothing and gives nothing, also where nothing is counted.
        let b = db.tenant("tenant-b").await;
        for op in [&a, &b] {
            let mut tx = db.store.tenant(op).await.unwrap();
            let before = tx.used(Counted::Agents).await.unwrap();
            assert!(!tx.delete_agent(AgentId::new(Uuid::new_v4())).await.unwrap());
            assert_eq!(tx.used(Counted::Agents).await.unwrap(), before);
        }
        let mut tx = db.store.tenant(&a).await.unwrap();
        let input = json!({"text": "x".repeat(1000)});
        let id = ExecutionId::new(Uuid::new_v4());
        let terms = Terms::default();
        let new = NewExecution { id, agent: of.0, version: of.1, input, terms };
        tx.submit_execution(&new).await.unwrap();
        tx.commit().await.unwrap();
        let stored = "SELECT sum(octet_length(sealed_input) + coalesce(octet_length(sealed_output), 0))::bigint FROM executions";
        let stored = async || -> i64 {
            sqlx::query_scalar(stored).fetch_one(&mut db.root().await).await.unwrap()
        };
        assert_eq!(used(Counted::StorageBytes).await, u64::try_from(stored().await).unwrap());
        assert_eq!(used(Counted::QueuedExecutions).await, 1);
        // The month goes, and what was counted in it.
        let old = "UPDATE usage_counters SET day = '2020-02-01' WHERE quota = 'storage_bytes'";
        crate::harness::run(&mut db.root().await, old).await;
        assert_eq!(used(Counted::StorageBytes).await, u64::try_from(stored().await).unwrap());
    })
    .await;
}
