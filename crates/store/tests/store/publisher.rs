//! The publisher's part of the store against a real PostgreSQL: what is published is in order, misses nothing that commits
//! late, and waits for nothing but what stands in front of it.

use std::time::Duration;

use gatehouse_contract::ExecutionId;
use gatehouse_events::{Aggregate, Event, Kind, event::QuotaThresholdReached};
use gatehouse_store::{
    Job,
    executions::{NewExecution, Terms},
    publisher::{Taken, Term, Unfit, Unsent, What},
};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Db, offer, op, with_db};

/// For as long as one process is taken to be sending.
const BUSY: Duration = Duration::from_secs(60);

async fn begin(db: &Db) -> Option<Term> {
    let mut publishing = db.store.publishing().await.unwrap();
    let term = publishing.begin().await.unwrap();
    publishing.commit().await.unwrap();
    term
}

async fn read(db: &Db, term: Term, limit: u32) -> Option<Vec<Taken>> {
    let mut publishing = db.store.publishing().await.unwrap();
    let taken = publishing.take(term, limit, BUSY).await.unwrap();
    publishing.commit().await.unwrap();
    taken
}

async fn settle(db: &Db, term: Term, gone: &[Taken]) {
    let rows: Vec<i64> = gone.iter().map(|one| one.row).collect();
    let mut publishing = db.store.publishing().await.unwrap();
    publishing.settle(term, &rows, &[]).await.unwrap();
    publishing.commit().await.unwrap();
}

/// As a publisher that begins, reads, publishes and ends.
async fn take(db: &Db, limit: u32) -> Vec<Unsent> {
    let term = begin(db).await.unwrap();
    let taken = read(db, term, limit).await.unwrap();
    settle(db, term, &taken).await;
    taken.into_iter().filter_map(|one| one.event.unwrap()).collect()
}

fn kinds(taken: &[Unsent]) -> Vec<Option<Kind>> {
    let kind = |one: &Unsent| match &one.what {
        What::Told { kind, .. } => Some(*kind),
        What::Tombstone => None,
    };
    taken.iter().map(kind).collect()
}

#[tokio::test]
async fn what_is_published_is_opened_once_and_keeps_inputs_back() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let of = db.agent(&a, "fuel").await;
        let execution = db.execution(&a, of).await;
        offer(&db).await;
        let term = begin(&db).await.unwrap();
        let first = read(&db, term, 100).await.unwrap();
        let first: Vec<Unsent> = first.into_iter().filter_map(|one| one.event.unwrap()).collect();
        // While it may be sending nobody else begins.
        assert_eq!(begin(&db).await, None);
        settle(&db, term, &[]).await;
        // Whoever took them ended before it had sent them: they wait as before.
        let taken = take(&db, 100).await;
        assert_eq!(taken, first);
        assert_eq!(
            kinds(&taken),
            [
                Kind::AgentCreated,
                Kind::VersionPublished,
                Kind::ExecutionSubmitted,
                Kind::ExecutionQueued
            ]
            .map(Some)
        );
        let What::Told { payload, .. } = &taken[2].what else { panic!("a tombstone") };
        assert_eq!(payload.get("agent_id"), Some(&json!(of.0)));
        assert_eq!(payload.get("input"), None);
        assert_eq!((taken[2].aggregate, taken[2].seq), (Aggregate::Execution, 1));
        assert_eq!(taken[2].aggregate_id, execution.as_uuid());
        assert_eq!(take(&db, 100).await, [], "once");
    })
    .await;
}

#[tokio::test]
async fn what_commits_late_is_not_missed_and_an_aggregate_keeps_its_order() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let (slow, quick) = (db.agent(&a, "slow").await, db.agent(&a, "quick").await);
        take(&db, 100).await;
        // Begun first, and so with the lower numbers, committed last.
        let mut late = db.store.tenant(&a).await.unwrap();
        let version = late.version(slow.1).await.unwrap().unwrap();
        late.promote_version(&version).await.unwrap();
        let mut early = db.store.tenant(&a).await.unwrap();
        let version = early.version(quick.1).await.unwrap().unwrap();
        early.promote_version(&version).await.unwrap();
        early.commit().await.unwrap();
        // Another transaction on the same agent waits for the first one, so that its event has the higher number.
        let (store, op) = (db.store.clone(), a.clone());
        let next = tokio::spawn(async move {
            let mut tx = store.tenant(&op).await.unwrap();
            let version = tx.version(slow.1).await.unwrap().unwrap();
            tx.deprecate_version(&version, None).await.unwrap();
            tx.commit().await.unwrap();
        });
        let taken = take(&db, 100).await;
        assert_eq!(
            taken.iter().map(|one| one.aggregate_id).collect::<Vec<_>>(),
            [quick.0.as_uuid()]
        );
        late.commit().await.unwrap();
        next.await.unwrap();
        let taken = take(&db, 1).await.into_iter().chain(take(&db, 100).await).collect::<Vec<_>>();
        assert_eq!(kinds(&taken), [Kind::VersionPromoted, Kind::VersionDeprecated].map(Some));
        let numbers: Vec<u64> = taken.iter().map(|one| one.seq).collect();
        assert_eq!(numbers, [3, 4]);
    })
    .await;
}

#[tokio::test]
async fn whoever_leads_no_longer_reads_nothing_and_harms_nothing() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        db.agent(&a, "fuel").await;
        let old = begin(&db).await.unwrap();
        let sent = read(&db, old, 100).await.unwrap();
        assert_eq!(sent.len(), 2);
        assert_eq!(begin(&db).await, None, "it may still be sending");
        // Its time is over, and it is not back yet.
        sqlx::raw_sql("UPDATE event_publisher SET busy_until = clock_timestamp()")
            .execute(&mut db.root().await)
            .await
            .unwrap();
        let new = begin(&db).await.unwrap();
        assert_eq!(read(&db, old, 100).await, None);
        let again = read(&db, new, 100).await.unwrap();
        assert_eq!(again, sent, "published again, under the same ids");
        settle(&db, old, &sent).await;
        assert_eq!(begin(&db).await, None, "the new one may still be sending");
        settle(&db, new, &again).await;
        assert_eq!(take(&db, 100).await, []);
    })
    .await;
}

#[tokio::test]
async fn what_is_behind_one_that_was_put_aside_waits_with_it() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        db.agent(&a, "fuel").await;
        let term = begin(&db).await.unwrap();
        let taken = read(&db, term, 1).await.unwrap();
        let mut publishing = db.store.publishing().await.unwrap();
        publishing.settle(term, &[], &[(taken[0].row, Unfit::Schema)]).await.unwrap();
        publishing.commit().await.unwrap();
        let (theirs, _) = db.agent(&b, "fuel").await;
        let others = read(&db, term, 100).await.unwrap();
        let of = |one: &Taken| one.event.clone().unwrap().unwrap().aggregate_id;
        assert_eq!(others.iter().map(of).collect::<Vec<_>>(), [theirs.as_uuid(); 2]);
        settle(&db, term, &others).await;
        let mut publishing = db.store.publishing().await.unwrap();
        let parked = publishing.parked(10).await.unwrap();
        assert_eq!(parked.iter().map(|one| (one.seq, one.behind)).collect::<Vec<_>>(), [(1, 1)]);
        let backlog = publishing.backlog().await.unwrap();
        assert_eq!((backlog.events, backlog.parked), (2, 1));
        drop(publishing);
        // Whoever leads next tries it again.
        assert_eq!(take(&db, 100).await.iter().map(|one| one.seq).collect::<Vec<_>>(), [1, 2]);
    })
    .await;
}

#[tokio::test]
async fn a_tenant_is_told_of_through_its_own_door_alone() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let told = Event::QuotaThresholdReached(QuotaThresholdReached {
            quota: "executions".to_owned(),
            percent: 80,
            day: "2026-11-23".to_owned(),
            used: 800,
            limit: 1000,
        });
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.append(a.tenant.as_uuid(), &told).await.unwrap();
        tx.commit().await.unwrap();
        let platform = op(a.tenant);
        let mut tx = db.store.admin(&platform, "a test").await.unwrap();
        assert!(tx.within(a.tenant).append(a.tenant.as_uuid(), &told).await.is_err());
        drop(tx);
        let taken = take(&db, 100).await;
        assert_eq!(taken.iter().map(|one| one.seq).collect::<Vec<_>>(), [1]);
        // An execution of a tenant whose input is large has its event, too.
        let of = db.agent(&a, "fuel").await;
        let new = NewExecution {
            id: ExecutionId::new(Uuid::new_v4()),
            agent: of.0,
            version: of.1,
            input: json!({"text": "x".repeat(256 * 1024)}),
            terms: Terms::default(),
        };
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.submit_execution(&new).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_erased_tenant_leaves_tombstones_and_nothing_that_waits() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let of = db.agent(&a, "fuel").await;
        let execution = db.execution(&a, of).await;
        take(&db, 100).await;
        // Told, and not published yet.
        offer(&db).await;
        let (theirs, _) = db.agent(&b, "fuel").await;
        let mut tx = db.store.admin(&a, "a test").await.unwrap();
        tx.request_erasure(a.tenant).await.unwrap();
        tx.commit().await.unwrap();
        for _ in 0..3 {
            let mut more = true;
            while more {
                let mut tx = db.store.system(Job::Erasure).await.unwrap();
                more = tx.erase(a.tenant, 1).await.unwrap();
                tx.commit().await.unwrap();
            }
        }
        let taken = take(&db, 100).await;
        let of_b = taken.iter().filter(|one| one.tenant == b.tenant);
        assert!(of_b.clone().all(|one| one.aggregate_id == theirs.as_uuid()));
        assert_eq!(of_b.count(), 2);
        let taken: Vec<Unsent> = taken.into_iter().filter(|one| one.tenant == a.tenant).collect();
        assert_eq!(
            kinds(&taken),
            [None, None, Some(Kind::TenantErased)],
            "once each, in this order"
        );
        let buried: Vec<Uuid> = taken.iter().map(|one| one.aggregate_id).collect();
        assert_eq!(buried, [of.0.as_uuid(), execution.as_uuid(), a.tenant.as_uuid()]);
    })
    .await;
}
