//! Cancelling, giving up and starting anew: one end each, whoever comes first, and nothing ends twice.

use std::{sync::Arc, time::Duration};

use gatehouse_contract::{ExecutionId, WebhookId};
use gatehouse_events::{Aggregate, Kind};
use gatehouse_execution::{EndReason, ExecutionState, Record, outcome::Outcome};
use gatehouse_store::{
    Job, OpCtx,
    attempts::Cancel,
    dead_letters::Filter,
    members::Changed,
    sweep::{Held, Swept},
    usage::Counted,
    webhooks::Settings,
};
use uuid::Uuid;

use crate::{
    executions::{beat, claim, completed, ended, report, state, sweep},
    harness::{Db, offer, run, with_db},
    metering,
};

async fn cancel(db: &Db, op: &OpCtx, id: ExecutionId) -> Option<Cancel> {
    let mut tx = db.store.tenant(op).await.unwrap();
    let cancelled = tx.cancel_execution(id).await.unwrap();
    tx.commit().await.unwrap();
    cancelled
}

async fn told(db: &Db, op: &OpCtx, id: ExecutionId) -> Vec<Kind> {
    let mut tx = db.store.tenant(op).await.unwrap();
    let told = tx.history(Aggregate::Execution, id.as_uuid(), None, 200).await.unwrap();
    told.iter().rev().map(|one| one.event.kind()).collect()
}

async fn to_end(db: &Db, worker: &str) -> Vec<Held> {
    db.store.system(Job::Watch).await.unwrap().to_end(worker).await.unwrap()
}

#[tokio::test]
async fn ee14_each_state_has_its_outcome_of_a_cancel_and_one_end() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let agent = db.agent(&a, "fuel").await;
        let ended_once = async |id| {
            let ends = told(&db, &a, id).await;
            let ends = ends.into_iter().filter(|kind| *kind == Kind::ExecutionCancelled);
            assert_eq!(ends.count(), 1);
            assert_eq!(state(&db, &a, id).await, ExecutionState::Cancelled);
            let again = Cancel::Ended(ExecutionState::Cancelled);
            assert_eq!(cancel(&db, &a, id).await, Some(again), "once");
        };
        let pending = db.execution(&a, agent).await;
        assert_eq!(cancel(&db, &b, pending).await, None, "another tenant's is none");
        assert_eq!(cancel(&db, &a, pending).await, Some(Cancel::Done));
        ended_once(pending).await;
        assert_eq!(offer(&db).await, 0);

        let queued = db.execution(&a, agent).await;
        offer(&db).await;
        assert_eq!(cancel(&db, &a, queued).await, Some(Cancel::Done));
        assert!(claim(&db, &a, queued, "w1").await.is_none(), "its message comes to nothing");
        ended_once(queued).await;

        // Running, and its worker is told; what it reports then is the end, whatever it is.
        for (outcome, end) in [
            (ended(EndReason::Cancelled), ExecutionState::Cancelled),
            (ended(EndReason::RetryAsked), ExecutionState::Cancelled),
            (ended(EndReason::SandboxError), ExecutionState::Cancelled),
            (completed(), ExecutionState::Completed),
            (ended(EndReason::Timeout), ExecutionState::Timeout),
        ] {
            let id = db.execution(&a, agent).await;
            offer(&db).await;
            let held = claim(&db, &a, id, "w1").await.unwrap();
            assert_eq!(to_end(&db, "w1").await, []);
            assert_eq!(cancel(&db, &a, id).await, Some(Cancel::Asked));
            assert_eq!(cancel(&db, &a, id).await, Some(Cancel::Asked), "again");
            let lease = Held { tenant: a.tenant, execution: id, lease_epoch: held.lease_epoch };
            assert_eq!(to_end(&db, "w1").await, [lease]);
            assert_eq!(report(&db, &a, &held, &outcome).await, Some(end));
            assert_eq!(to_end(&db, "w1").await, []);
            assert_eq!(cancel(&db, &a, id).await, Some(Cancel::Ended(end)));
        }

        // Running, and its worker hands it back, or is lost.
        let released = db.execution(&a, agent).await;
        offer(&db).await;
        let held = claim(&db, &a, released, "w1").await.unwrap();
        cancel(&db, &a, released).await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert!(tx.release_execution(released, held.lease_epoch).await.unwrap());
        tx.commit().await.unwrap();
        ended_once(released).await;
        let lost = db.execution(&a, agent).await;
        offer(&db).await;
        claim(&db, &a, lost, "never beats").await.unwrap();
        cancel(&db, &a, lost).await;
        let swept = sweep(&db, Duration::ZERO, Duration::from_secs(60)).await.0;
        assert_eq!(swept, Swept { cancelled: 1, ..Swept::default() });
        ended_once(lost).await;

        // Between two attempts.
        let retry = db.execution(&a, agent).await;
        offer(&db).await;
        let held = claim(&db, &a, retry, "w1").await.unwrap();
        report(&db, &a, &held, &ended(EndReason::RetryAsked)).await;
        assert_eq!(cancel(&db, &a, retry).await, Some(Cancel::Done));
        ended_once(retry).await;
        let audited: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM tenant_audit WHERE action = 'execution.cancel'",
        )
        .fetch_one(&mut db.root().await)
        .await
        .unwrap();
        assert_eq!(audited, 10, "one row for each that changed something");
    })
    .await;
}

/// An endpoint that is told of every end.
async fn terminal_endpoint(db: &Db, op: &OpCtx) -> WebhookId {
    let id = WebhookId::new(Uuid::new_v4());
    let ends = [Kind::ExecutionCompleted, Kind::ExecutionTimedOut, Kind::ExecutionCancelled];
    let settings = Settings {
        url: "https://hooks.example/".to_owned(),
        description: None,
        events: ends.iter().map(|kind| kind.as_str().to_owned()).collect(),
        enabled: true,
    };
    let mut tx = db.store.tenant(op).await.unwrap();
    tx.within().create_webhook(id, &settings, b"sealed").await.unwrap();
    tx.commit().await.unwrap();
    id
}

#[tokio::test]
async fn ee15_of_cancel_result_and_timeout_at_once_one_wins() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let agent = db.agent(&a, "fuel").await;
        let hook = terminal_endpoint(&db, &a).await;
        let mut ends = std::collections::BTreeMap::new();
        // 10 000 by GATEHOUSE_TEST_RACES.
        let races = std::env::var("GATEHOUSE_TEST_RACES").map_or(200, |races| races.parse().unwrap());
        for _ in 0..races {
            let id = db.execution(&a, agent).await;
            offer(&db).await;
            let held = Arc::new(claim(&db, &a, id, "w1").await.unwrap());
            let mut racers = tokio::task::JoinSet::new();
            let timeout = ended(EndReason::Timeout);
            let handed_back = ended(EndReason::Cancelled);
            for outcome in [completed(), timeout, handed_back] {
                let (db, a, held) = (Arc::clone(&db), a.clone(), Arc::clone(&held));
                racers.spawn(async move {
                    let record = Record { wall: Duration::from_millis(7), ..Record::default() };
                    metering::report(&db, &a, &held, &outcome, &record).await.is_some()
                });
            }
            let (cancelling, op) = (Arc::clone(&db), a.clone());
            racers.spawn(async move {
                cancel(&cancelling, &op, id).await;
                false
            });
            let won = racers.join_all().await.into_iter().filter(|won| *won).count();
            assert_eq!(won, 1);
            let kinds = told(&db, &a, id).await;
            let terminal: Vec<&Kind> = kinds
                .iter()
                .filter(|kind| {
                    matches!(
                        kind,
                        Kind::ExecutionCompleted
                            | Kind::ExecutionTimedOut
                            | Kind::ExecutionCancelled
                    )
                })
                .collect();
            assert_eq!(terminal.len(), 1, "{kinds:?}");
            let metered = metering::attempts(&db, &a, id).await;
            assert_eq!(metered.len(), 1, "{metered:?}");
            assert_eq!(metered[0].used.unwrap().wall_ms, 7, "the winner's: {metered:?}");
            *ends.entry(terminal[0].as_str()).or_insert(0) += 1;
        }
        assert!(ends.len() >= 2, "the race was one: {ends:?}");
        let sent = "SELECT count(*), count(DISTINCT event_id) FROM webhook_deliveries WHERE endpoint_id = $1";
        let sent: (i64, i64) = sqlx::query_as(sent)
            .bind(hook.as_uuid())
            .fetch_one(&mut db.root().await)
            .await
            .unwrap();
        assert_eq!(sent, (races, races), "one delivery for each end");
    })
    .await;
}

#[tokio::test]
async fn ee25_a_lost_worker_costs_no_attempt_until_the_third() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = db.execution(&a, db.agent(&a, "fuel").await).await;
        let once = "UPDATE executions SET max_attempts = 1";
        run(&mut db.root().await, once).await;
        for attempt in 1..=2 {
            offer(&db).await;
            assert_eq!(claim(&db, &a, id, "never beats").await.unwrap().attempt, attempt);
            let minute = Duration::from_secs(60);
            assert_eq!(sweep(&db, Duration::ZERO, minute).await.0.requeued, 1, "not its fault");
        }
        offer(&db).await;
        let held = claim(&db, &a, id, "w1").await.unwrap();
        assert_eq!(held.attempt, 3);
        // Its own one attempt ends as it ends.
        let end = report(&db, &a, &held, &ended(EndReason::RetryAsked)).await;
        assert_eq!(end, Some(ExecutionState::DeadLetter));
    })
    .await;
}

async fn executions_charged(db: &Db, op: &OpCtx) -> u64 {
    db.store.tenant(op).await.unwrap().used(Counted::Executions).await.unwrap()
}

#[tokio::test]
async fn ee32_what_the_platform_failed_is_not_charged_and_a_timeout_is() {
    with_db(async |db| {
        // The day of a row is the database's, and so is this operation's.
        let mut a = db.tenant("tenant-a").await;
        a.now = sqlx::query_scalar("SELECT now()").fetch_one(&mut db.root().await).await.unwrap();
        let agent = db.agent(&a, "fuel").await;
        let mut charged = 0;
        for (reason, attempts, costs) in [
            (EndReason::Completed, 1, true),
            (EndReason::Timeout, 1, true),
            (EndReason::Failed, 1, true),
            (EndReason::OomKilled, 1, true),
            (EndReason::ImageError, 1, false),
            (EndReason::SandboxError, 3, false),
            (EndReason::RetryAsked, 3, true),
        ] {
            let id = db.execution(&a, agent).await;
            for _ in 0..attempts {
                let due = "UPDATE executions SET due_at = now() WHERE state = 'retry'";
                run(&mut db.root().await, due).await;
                offer(&db).await;
                let held = claim(&db, &a, id, "w1").await.unwrap();
                report(&db, &a, &held, &Outcome { reason, ..ended(reason) }).await.unwrap();
            }
            charged += u64::from(costs);
            assert_eq!(executions_charged(&db, &a).await, charged, "{reason}");
        }
    })
    .await;
}

async fn give_up(db: &Db, op: &OpCtx, id: ExecutionId, reason: EndReason) {
    run(&mut db.root().await, "UPDATE executions SET max_attempts = 1").await;
    offer(db).await;
    let held = claim(db, op, id, "w1").await.unwrap();
    let end = report(db, op, &held, &ended(reason)).await;
    assert_eq!(end, Some(ExecutionState::DeadLetter));
}

#[tokio::test]
async fn what_was_given_up_is_listed_and_started_anew_one_or_many() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let agent = db.agent(&a, "fuel").await;
        beat(&db, "w1").await;
        let mut ids = Vec::new();
        for reason in [EndReason::RetryAsked, EndReason::SandboxError, EndReason::RetryAsked] {
            let id = db.execution(&a, agent).await;
            give_up(&db, &a, id, reason).await;
            ids.push(id);
        }
        let list = async |op: &OpCtx, filter, before, limit| {
            let mut tx = db.store.tenant(op).await.unwrap();
            tx.dead_letters(filter, before, limit).await.unwrap()
        };
        let all = list(&a, Filter::default(), None, 10).await;
        let listed: Vec<ExecutionId> = all.iter().map(|letter| letter.id).collect();
        assert_eq!(listed, [ids[2], ids[1], ids[0]], "the last one first");
        assert_eq!((all[0].attempts, all[0].losses), (1, 0));
        let page = list(&a, Filter::default(), Some((all[0].given_up_at, all[0].id)), 1).await;
        assert_eq!(page, all[1..2]);
        let asked = Filter { reason: Some(EndReason::RetryAsked), ..Filter::default() };
        assert_eq!(list(&a, asked, None, 10).await.len(), 2);
        let old = Filter { before: Some(all[2].given_up_at), ..Filter::default() };
        assert_eq!(list(&a, old, None, 10).await, []);
        assert_eq!(list(&b, Filter::default(), None, 10).await, [], "another tenant has none");

        let replay = async |op: &OpCtx, id| {
            let mut tx = db.store.tenant(op).await.unwrap();
            let changed = tx.replay_execution(id).await.unwrap();
            tx.commit().await.unwrap();
            changed
        };
        assert_eq!(replay(&b, ids[0]).await, Changed::Missing);
        assert_eq!(replay(&a, ids[0]).await, Changed::Yes);
        assert_eq!(replay(&a, ids[0]).await, Changed::No, "once");
        assert_eq!(told(&db, &a, ids[0]).await.last(), Some(&Kind::ExecutionReplayed));
        offer(&db).await;
        let held = claim(&db, &a, ids[0], "w1").await.unwrap();
        assert_eq!((held.attempt, held.lease_epoch), (1, 2), "its attempts are counted anew");
        assert_eq!(report(&db, &a, &held, &completed()).await, Some(ExecutionState::Completed));
        assert_eq!(replay(&a, ids[0]).await, Changed::No, "what has a result is not run again");

        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.replay_dead_letters(asked, 100).await.unwrap(), [ids[2]]);
        assert_eq!(tx.replay_dead_letters(Filter::default(), 0).await.unwrap(), []);
        tx.commit().await.unwrap();
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.replay_dead_letters(Filter::default(), 1).await.unwrap(), [ids[1]]);
        tx.commit().await.unwrap();
        assert_eq!(list(&a, Filter::default(), None, 10).await, []);
        let audited: Vec<String> = sqlx::query_scalar(
            "SELECT action FROM tenant_audit WHERE action LIKE 'execution.replay%' ORDER BY id",
        )
        .fetch_all(&mut db.root().await)
        .await
        .unwrap();
        let many = "execution.replay_all";
        assert_eq!(audited, ["execution.replay", many, many]);
    })
    .await;
}
