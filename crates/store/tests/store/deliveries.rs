//! Deliveries of events against a real PostgreSQL: one per event and endpoint whatever happens at the same time, taken by
//! one process at a time, and settled by nobody else.

use std::{collections::BTreeSet, time::Duration};

use gatehouse_contract::WebhookId;
use gatehouse_events::{Event, Kind, event::QuotaThresholdReached};
use gatehouse_store::{
    OffsetDateTime, OpCtx,
    deliveries::{Lease, Outcome, Round, Seen},
    paging::Page,
    webhooks::{Delivery, Settings},
};
use serde_json::Value;
use uuid::Uuid;

use crate::harness::{Db, run, with_db};

const NOTHING: Seen = Seen { status: None, error: None };
const LEASE: Duration = Duration::from_secs(60);

fn settings(events: &[&str]) -> Settings {
    Settings {
        url: "https://hooks.example/".to_owned(),
        description: None,
        events: events.iter().map(ToString::to_string).collect(),
        enabled: true,
    }
}

async fn endpoint(db: &Db, op: &OpCtx, settings: &Settings) -> WebhookId {
    let id = WebhookId::new(Uuid::new_v4());
    let mut tx = db.store.tenant(op).await.unwrap();
    tx.within().create_webhook(id, settings, b"sealed").await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn deliveries(db: &Db, op: &OpCtx, id: WebhookId) -> Vec<Delivery> {
    let mut tx = db.store.tenant(op).await.unwrap();
    tx.within().list_deliveries(id, &Page::first(1000), None).await.unwrap()
}

fn kinds(deliveries: &[Delivery]) -> Vec<&str> {
    let mut kinds: Vec<&str> = deliveries.iter().map(|one| one.event_kind.as_str()).collect();
    kinds.sort_unstable();
    kinds
}

async fn take(db: &Db, endpoints: u32, each: u32, lease: Duration) -> Vec<Round> {
    let mut tx = db.store.delivering().await.unwrap();
    let rounds = tx.take(endpoints, each, lease).await.unwrap();
    tx.commit().await.unwrap();
    rounds
}

async fn settle(db: &Db, lease: &Lease, id: Uuid, outcome: Outcome) -> bool {
    let mut tx = db.store.delivering().await.unwrap();
    let taken = tx.settle(lease, id, outcome, NOTHING).await.unwrap();
    tx.commit().await.unwrap();
    taken
}

async fn give_back(db: &Db, lease: &Lease, rest: Duration) {
    let mut tx = db.store.delivering().await.unwrap();
    tx.give_back(lease, rest).await.unwrap();
    tx.commit().await.unwrap();
}

/// Tells `count` events, each in a transaction of its own.
async fn tell(db: &Db, op: &OpCtx, count: u64) {
    for used in 0..count {
        let mut tx = db.store.tenant(op).await.unwrap();
        tx.append(op.tenant.as_uuid(), &quota(used)).await.unwrap();
        tx.commit().await.unwrap();
    }
}

fn quota(used: u64) -> Event {
    let (quota, day) = ("executions".to_owned(), "2026-01-01".to_owned());
    Event::QuotaThresholdReached(QuotaThresholdReached { quota, percent: 80, day, used, limit: 10 })
}

const QUOTA: &[&str] = &["quota.threshold_reached"];

#[tokio::test]
async fn aex4_an_event_is_one_delivery_for_each_endpoint_that_wants_it() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let agents = endpoint(&db, &a, &settings(&["agent.created"])).await;
        let both = endpoint(&db, &a, &settings(&["agent.created", "version.published"])).await;
        let paused = Settings { enabled: false, ..settings(&["agent.created"]) };
        let paused = endpoint(&db, &a, &paused).await;
        let theirs = endpoint(&db, &b, &settings(&["agent.created"])).await;
        db.agent(&a, "fuel").await;
        // What is taken back was never told.
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.append(
            Uuid::new_v4(),
            &Event::AgentDeleted(gatehouse_events::event::AgentDeleted {
                deleted_at: OffsetDateTime::UNIX_EPOCH,
            }),
        )
        .await
        .unwrap();
        drop(tx);
        assert_eq!(kinds(&deliveries(&db, &a, agents).await), ["agent.created"]);
        assert_eq!(kinds(&deliveries(&db, &a, both).await), ["agent.created", "version.published"]);
        assert_eq!(deliveries(&db, &a, paused).await, []);
        assert_eq!(deliveries(&db, &b, theirs).await, []);
        // Both are told of the event under its own id.
        let ids = |of: &[Delivery]| -> BTreeSet<Uuid> {
            of.iter()
                .filter(|one| one.event_kind == "agent.created")
                .map(|one| one.event_id)
                .collect()
        };
        let event = ids(&deliveries(&db, &a, agents).await);
        assert_eq!(event, ids(&deliveries(&db, &a, both).await));
        let told: Uuid =
            sqlx::query_scalar("SELECT id FROM event_store WHERE kind = 'agent.created'")
                .fetch_one(&mut db.root().await)
                .await
                .unwrap();
        assert_eq!(event, BTreeSet::from([told]));
        // What is sent can be read by the job alone, and says whose it is and of what.
        let rounds = take(&db, 10, 10, LEASE).await;
        assert_eq!(rounds.len(), 2);
        for due in rounds.iter().flat_map(|round| &round.due) {
            let body: Value = serde_json::from_slice(due.body.as_ref().unwrap()).unwrap();
            assert_eq!(body["data"]["tenant_id"], a.tenant.to_string());
            assert!(body["data"]["agent_id"].is_string() && body["timestamp"].is_string());
        }
    })
    .await;
}

#[tokio::test]
async fn aex4_every_kind_that_can_be_asked_for_is_delivered_and_no_other() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let all: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        let id = endpoint(&db, &a, &settings(&all)).await;
        let mut root = db.root().await;
        for kind in &all {
            for payload in [r#"{"state": "queued"}"#, r#"{"state": "dead_letter"}"#] {
                sqlx::query(
                    "INSERT INTO event_outbox (tenant_id, event_id, aggregate_kind, aggregate_id, seq, kind, payload)
                     VALUES ($1, gen_random_uuid(), 'execution', gen_random_uuid(), 0, $2, $3::jsonb)",
                )
                .bind(a.tenant.as_uuid())
                .bind(kind)
                .bind(payload)
                .execute(&mut root)
                .await
                .unwrap();
            }
        }
        let told = deliveries(&db, &a, id).await;
        let mut kinds = kinds(&told);
        // Twice, and once more for a worker's loss after which no attempt follows.
        assert_eq!(kinds.iter().filter(|kind| **kind == "execution.given_up").count(), 3);
        kinds.dedup();
        assert_eq!(
            kinds,
            [
                "agent.created", "agent.deleted", "agent.updated", "execution.cancelled",
                "execution.completed", "execution.failed", "execution.given_up",
                "execution.time_runs_out", "execution.timed_out", "quota.threshold_reached",
                "version.deprecated", "version.promoted", "version.published",
            ]
        );
        assert_eq!(told.len(), 27);
    })
    .await;
}

/// Whichever of the two comes first, no event fails for an endpoint that goes.
#[tokio::test]
async fn aex4_an_endpoint_that_is_removed_meanwhile_fails_no_event() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        for event_first in [true, false] {
            let id = endpoint(&db, &a, &settings(QUOTA)).await;
            let mut telling = db.store.tenant(&a).await.unwrap();
            let mut removing = db.store.tenant(&a).await.unwrap();
            let event = quota(1);
            if event_first {
                telling.append(a.tenant.as_uuid(), &event).await.unwrap();
                let before = removing.within().lock_webhook(id).await.unwrap().unwrap();
                let (told, removed) = tokio::join!(telling.commit(), async {
                    removing.within().delete_webhook(&before).await?;
                    removing.commit().await
                });
                told.unwrap();
                removed.unwrap();
            } else {
                let before = removing.within().lock_webhook(id).await.unwrap().unwrap();
                removing.within().delete_webhook(&before).await.unwrap();
                let (told, removed) = tokio::join!(
                    async {
                        telling.append(a.tenant.as_uuid(), &event).await?;
                        telling.commit().await
                    },
                    async {
                        db.until_one_waits().await;
                        removing.commit().await
                    }
                );
                told.unwrap();
                removed.unwrap();
            }
            let left: i64 = sqlx::query_scalar("SELECT count(*) FROM webhook_deliveries")
                .fetch_one(&mut db.root().await)
                .await
                .unwrap();
            assert_eq!(left, 0);
        }
    })
    .await;
}

#[tokio::test]
async fn aex4_of_many_processes_each_delivery_is_one_s_at_a_time() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        for _ in 0..5 {
            endpoint(&db, &a, &settings(QUOTA)).await;
        }
        tell(&db, &a, 20).await;
        let mut handed = Vec::new();
        while handed.len() < 100 {
            let (one, two, three) = tokio::join!(
                take(&db, 2, 7, LEASE),
                take(&db, 2, 7, LEASE),
                take(&db, 2, 7, LEASE)
            );
            let rounds: Vec<Round> = [one, two, three].concat();
            let endpoints: BTreeSet<_> = rounds.iter().map(|round| round.lease.endpoint).collect();
            assert_eq!(endpoints.len(), rounds.len(), "an endpoint is one's");
            assert!(!rounds.is_empty(), "{} were handed out", handed.len());
            for round in rounds {
                assert!(round.due.len() <= 7);
                for due in &round.due {
                    handed.push(due.id);
                    assert!(settle(&db, &round.lease, due.id, Outcome::Delivered).await);
                    // Whoever says it twice is not heard.
                    assert!(!settle(&db, &round.lease, due.id, Outcome::Failed).await);
                }
                give_back(&db, &round.lease, Duration::ZERO).await;
            }
        }
        let ids: BTreeSet<Uuid> = handed.iter().copied().collect();
        assert_eq!((ids.len(), handed.len()), (100, 100), "none twice and none lost");
        assert_eq!(take(&db, 10, 10, LEASE).await, []);
    })
    .await;
}

#[tokio::test]
async fn aex4_who_comes_back_after_the_lease_writes_nothing() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = endpoint(&db, &a, &settings(QUOTA)).await;
        tell(&db, &a, 1).await;
        let stale = take(&db, 1, 1, Duration::ZERO).await.remove(0);
        let fresh = take(&db, 1, 1, LEASE).await.remove(0);
        assert_eq!(stale.due, fresh.due, "the same id and the same bytes");
        assert!(fresh.lease.epoch > stale.lease.epoch);
        let due = fresh.due[0].id;
        assert!(!settle(&db, &stale.lease, due, Outcome::Failed).await);
        give_back(&db, &stale.lease, Duration::ZERO).await;
        assert_eq!(take(&db, 1, 1, LEASE).await, [], "nor does it give back what is another's");
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert!(!tx.end_gone_webhook(&stale.lease, due).await.unwrap());
        tx.commit().await.unwrap();
        assert!(settle(&db, &fresh.lease, due, Outcome::Delivered).await);
        let left = deliveries(&db, &a, id).await;
        assert_eq!((left[0].state.as_str(), left[0].attempt), ("delivered", 1));
        assert!(
            db.store
                .tenant(&a)
                .await
                .unwrap()
                .within()
                .webhook(id)
                .await
                .unwrap()
                .unwrap()
                .settings
                .enabled
        );
    })
    .await;
}

#[tokio::test]
async fn aex4_much_that_waits_at_one_endpoint_holds_up_no_other() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let busy = endpoint(&db, &a, &settings(QUOTA)).await;
        tell(&db, &a, 50).await;
        let quiet = endpoint(&db, &b, &settings(QUOTA)).await;
        tell(&db, &b, 1).await;
        // The busy one is somebody's, and rests then: the other's turn comes at once.
        let first = take(&db, 1, 8, LEASE).await.remove(0);
        let second = take(&db, 1, 8, LEASE).await.remove(0);
        let found = BTreeSet::from([first.lease.endpoint, second.lease.endpoint]);
        assert_eq!(found, BTreeSet::from([busy, quiet]));
        for round in [first, second] {
            give_back(&db, &round.lease, LEASE).await;
        }
        assert_eq!(take(&db, 10, 8, LEASE).await, [], "both rest");
        let mut root = db.root().await;
        run(&mut root, "UPDATE webhook_endpoints SET leased_until = NULL").await;
        // The one that was served longest ago is next.
        run(&mut root, &format!("UPDATE webhook_endpoints SET served_at = now() - interval '1 hour' WHERE id = '{quiet}'")).await;
        assert_eq!(take(&db, 1, 8, LEASE).await[0].lease.endpoint, quiet);
    })
    .await;
}

#[tokio::test]
async fn aex4_what_waits_for_a_paused_endpoint_is_not_taken_and_what_is_old_is_removed() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = endpoint(&db, &a, &settings(QUOTA)).await;
        tell(&db, &a, 3).await;
        let pause = async |enabled: bool| {
            let mut tx = db.store.tenant(&a).await.unwrap();
            let before = tx.within().lock_webhook(id).await.unwrap().unwrap();
            let settings = Settings { enabled, ..before.settings.clone() };
            tx.within().replace_webhook(&before, &settings).await.unwrap();
            tx.commit().await.unwrap();
        };
        pause(false).await;
        assert_eq!(take(&db, 10, 10, LEASE).await, []);
        assert_eq!(db.store.delivering().await.unwrap().backlog().await.unwrap().due, 0);
        pause(true).await;
        let waits = db.store.delivering().await.unwrap().backlog().await.unwrap();
        assert!(waits.due == 3 && waits.oldest > Duration::ZERO, "{waits:?}");
        let round = take(&db, 10, 10, LEASE).await.remove(0);
        assert!(settle(&db, &round.lease, round.due[0].id, Outcome::Retry(LEASE)).await);
        give_back(&db, &round.lease, Duration::ZERO).await;
        assert_eq!(take(&db, 10, 10, LEASE).await[0].due.len(), 2, "one waits for its time");
        let month = Duration::from_secs(30 * 86_400);
        let forget = async |limit: u32| {
            let mut tx = db.store.delivering().await.unwrap();
            let gone = tx.forget(month, limit).await.unwrap();
            tx.commit().await.unwrap();
            gone
        };
        assert_eq!(forget(10).await, 0);
        let aged = "UPDATE webhook_deliveries SET created_at = now() - interval '31 days'
            WHERE id IN (SELECT id FROM webhook_deliveries LIMIT 2)";
        run(&mut db.root().await, aged).await;
        assert_eq!((forget(1).await, forget(10).await, forget(10).await), (1, 1, 0));
        assert_eq!(deliveries(&db, &a, id).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn aex4_what_failed_or_was_delivered_is_delivered_again_under_its_id() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let id = endpoint(&db, &a, &settings(QUOTA)).await;
        tell(&db, &a, 4).await;
        let round = take(&db, 1, 4, LEASE).await.remove(0);
        let due: Vec<Uuid> = round.due.iter().map(|due| due.id).collect();
        for (one, outcome) in [
            (due[0], Outcome::Delivered),
            (due[1], Outcome::Failed),
            (due[2], Outcome::Failed),
            (due[3], Outcome::Retry(LEASE)),
        ] {
            assert!(settle(&db, &round.lease, one, outcome).await);
        }
        give_back(&db, &round.lease, Duration::ZERO).await;
        // Not by another tenant, nor through another endpoint.
        let mut tx = db.store.tenant(&b).await.unwrap();
        assert_eq!(tx.within().replay_delivery(id, due[1]).await.unwrap(), None);
        assert_eq!(tx.within().replay_failed(id, OffsetDateTime::UNIX_EPOCH).await.unwrap(), 0);
        tx.commit().await.unwrap();
        let other = endpoint(&db, &a, &settings(QUOTA)).await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.within().replay_delivery(other, due[1]).await.unwrap(), None);
        for one in [due[0], due[3]] {
            let found = tx.within().replay_delivery(id, one).await.unwrap().unwrap();
            assert_eq!((found.state.as_str(), found.attempt), ("pending", 0));
        }
        tx.commit().await.unwrap();
        let later = OffsetDateTime::now_utc() + Duration::from_secs(3600);
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.within().replay_failed(id, later).await.unwrap(), 0);
        assert_eq!(tx.within().replay_failed(id, OffsetDateTime::UNIX_EPOCH).await.unwrap(), 2);
        tx.commit().await.unwrap();
        let again = take(&db, 1, 4, LEASE).await.remove(0);
        assert_eq!(
            again.due.iter().map(|due| due.id).collect::<BTreeSet<_>>(),
            due.iter().copied().collect()
        );
        for due in again.due {
            assert!(
                round.due.iter().any(|before| before.event == due.event && before.body == due.body)
            );
        }
        let audited: Vec<String> = sqlx::query_scalar(
            "SELECT action FROM tenant_audit WHERE action LIKE 'webhook.replay%' ORDER BY id",
        )
        .fetch_all(&mut db.root().await)
        .await
        .unwrap();
        assert_eq!(audited, ["webhook.replay", "webhook.replay", "webhook.replay_failed"]);
    })
    .await;
}

#[tokio::test]
async fn aex4_an_erased_tenant_is_told_nothing_and_leaves_no_delivery() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        endpoint(&db, &a, &settings(QUOTA)).await;
        tell(&db, &a, 5).await;
        let round = take(&db, 1, 2, LEASE).await.remove(0);
        let platform = db.tenant("platform").await;
        let mut tx = db.store.admin(&platform, "a test").await.unwrap();
        tx.request_erasure(a.tenant).await.unwrap();
        tx.commit().await.unwrap();
        loop {
            let mut tx = db.store.system(gatehouse_store::Job::Erasure).await.unwrap();
            let more = tx.erase(a.tenant, 2).await.unwrap();
            tx.commit().await.unwrap();
            if !more {
                break;
            }
        }
        assert!(!settle(&db, &round.lease, round.due[0].id, Outcome::Delivered).await);
        assert_eq!(take(&db, 1, 2, LEASE).await, []);
        for table in ["webhook_deliveries", "webhook_endpoints"] {
            let left: i64 =
                sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
                    .fetch_one(&mut db.root().await)
                    .await
                    .unwrap();
            assert_eq!(left, 0, "{table}");
        }
    })
    .await;
}
