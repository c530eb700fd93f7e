//! What attempts leave behind: one row for each however it ended and however often that is said, charged where it is the
//! tenant's and not the platform's, and a day that is used up lets nothing more in.

use std::time::Duration;

use gatehouse_contract::{ExecutionId, TenantId};
use gatehouse_events::Aggregate;
use gatehouse_execution::{
    Digest, EndReason, ExecutionState, Limits, Record,
    outcome::{Outcome, Usage},
    provenance::{self, Config, FORM, Provenance},
    sandbox::SandboxId,
};
use gatehouse_store::{
    Error, Job, OffsetDateTime, OpCtx,
    attempts::Claimed,
    executions::{NewExecution, Terms},
    metering::{Attempt, Spent},
    paging::Page,
    quotas::Quotas,
    usage::Counted,
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    executions::{claim, completed, ended, sweep},
    harness::{Db, offer, run, with_db},
};

fn used(cpu_ms: u64, tokens: u64) -> Record {
    let usage = Usage {
        cpu_us: cpu_ms * 1000 + 499,
        memory_peak_bytes: 64 << 20,
        egress_requests: tokens.min(3),
        tokens,
        ..Usage::default()
    };
    Record { usage, wall: Duration::from_millis(1500), ..Record::default() }
}

pub async fn report(
    db: &Db,
    op: &OpCtx,
    held: &Claimed,
    outcome: &Outcome,
    record: &Record,
) -> Option<ExecutionState> {
    let mut tx = db.store.tenant(op).await.unwrap();
    let (id, epoch) = (held.execution, held.lease_epoch);
    let state = tx.complete_execution(id, epoch, outcome, record).await.unwrap();
    tx.commit().await.unwrap();
    state
}

pub async fn attempts(db: &Db, op: &OpCtx, id: ExecutionId) -> Vec<Attempt> {
    db.store.tenant(op).await.unwrap().attempts(id, &Page::first(100)).await.unwrap()
}

/// A tenant whose day is the database's.
async fn today(db: &Db) -> OpCtx {
    let mut op = db.tenant("tenant-a").await;
    op.now = sqlx::query_scalar("SELECT now()").fetch_one(&mut db.root().await).await.unwrap();
    op
}

async fn count(db: &Db, op: &OpCtx, what: Counted) -> u64 {
    db.store.tenant(op).await.unwrap().used(what).await.unwrap()
}

async fn quotas(db: &Db, op: &OpCtx, quotas: Quotas) {
    let mut tx = db.store.admin(op, "a test's limits").await.unwrap();
    tx.set_quotas(op.tenant, &quotas).await.unwrap();
    tx.commit().await.unwrap();
}

const WHOLE: Spent = Spent {
    wall_ms: 1500,
    cpu_ms: 40_000,
    peak_memory_bytes: 64 << 20,
    tokens: 7,
    egress_requests: 3,
    charged: true,
};

#[tokio::test]
async fn res3_each_attempt_is_one_row_with_its_end_and_counts_where_it_is_the_tenants() {
    with_db(async |db| {
        let a = today(&db).await;
        let b = db.tenant("tenant-b").await;
        let agent = db.agent(&a, "fuel").await;
        let (mut cpu_ms, mut tokens) = (0, 0);
        for (outcome, charged) in [
            (completed(), true),
            (ended(EndReason::Failed), true),
            (ended(EndReason::Timeout), true),
            (ended(EndReason::Cancelled), true),
            (ended(EndReason::OomKilled), true),
            (ended(EndReason::ImageError), false),
        ] {
            let id = db.execution(&a, agent).await;
            offer(&db).await;
            assert_eq!(attempts(&db, &a, id).await, [], "it has not begun");
            let held = claim(&db, &a, id, "w1").await.unwrap();
            let running = attempts(&db, &a, id).await;
            assert_eq!((running.len(), running[0].reason, running[0].used), (1, None, None));
            assert!(report(&db, &a, &held, &outcome, &used(40_000, 7)).await.is_some());
            // However often it is said, and by whom.
            assert_eq!(report(&db, &a, &held, &outcome, &used(80_000, 9)).await, None);
            assert_eq!(report(&db, &b, &held, &outcome, &used(80_000, 9)).await, None);
            let found = attempts(&db, &a, id).await;
            assert_eq!(found.len(), 1, "{found:?}");
            let of = (found[0].attempt, found[0].lease_epoch, found[0].reason);
            assert_eq!(of, (1, Some(1), Some(outcome.reason)));
            assert_eq!(found[0].used, Some(Spent { charged, ..WHOLE }), "{}", outcome.reason);
            assert_eq!(found[0].started_at, running[0].started_at);
            assert!(found[0].ended_at >= Some(found[0].started_at));
            assert_eq!(attempts(&db, &b, id).await, [], "another tenant sees none");
            if charged {
                cpu_ms += 40_000;
                tokens += 7;
            }
            // Whole minutes, and what is beyond them is not lost.
            assert_eq!(count(&db, &a, Counted::ComputeMinutes).await, cpu_ms / 60_000);
            assert_eq!(count(&db, &a, Counted::Tokens).await, tokens);
        }
        let days = {
            let mut tx = db.store.tenant(&a).await.unwrap();
            let day = a.now.date();
            tx.usage(day, day, 10).await.unwrap()
        };
        assert_eq!((days[0].compute_minutes, days[0].tokens), (200_000 / 60_000, 35));
        let metered = days[0].metered.unwrap();
        assert_eq!((metered.attempts, metered.cpu_ms, metered.tokens), (6, 240_000, 42));
    })
    .await;
}

#[tokio::test]
async fn res3_attempt_after_attempt_is_metered_and_a_page_begins_behind_another() {
    with_db(async |db| {
        let a = today(&db).await;
        let id = db.execution(&a, db.agent(&a, "fuel").await).await;
        let ends = [EndReason::RetryAsked, EndReason::SandboxError, EndReason::RetryAsked];
        for reason in ends {
            run(&mut db.root().await, "UPDATE executions SET due_at = now()").await;
            offer(&db).await;
            let held = claim(&db, &a, id, "w1").await.unwrap();
            report(&db, &a, &held, &ended(reason), &used(1000, 0)).await.unwrap();
        }
        let found = attempts(&db, &a, id).await;
        let seen: Vec<_> = found.iter().map(|one| (one.attempt, one.reason.unwrap())).collect();
        assert_eq!(seen, [(3, ends[2]), (2, ends[1]), (1, ends[0])]);
        let charged: Vec<bool> = found.iter().map(|one| one.used.unwrap().charged).collect();
        assert_eq!(charged, [true, false, true]);
        let mut page = Page::first(1);
        page.after.created_at = found[0].started_at;
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.attempts(id, &page).await.unwrap(), found[1..2]);
    })
    .await;
}

async fn left(db: &Db, execution: ExecutionId, epoch: u32, cpu_ms: u64) -> bool {
    let mut tx = db.store.system(Job::Sweep).await.unwrap();
    let usage = used(cpu_ms, 0).usage;
    let known = tx.meter_left(SandboxId { execution, epoch }, &usage).await.unwrap();
    tx.commit().await.unwrap();
    known
}

#[tokio::test]
async fn ee32_a_lost_attempt_is_metered_from_what_is_left_of_it_and_never_charged() {
    with_db(async |db| {
        let a = today(&db).await;
        let agent = db.agent(&a, "fuel").await;
        let minute = Duration::from_secs(60);
        let spent = async |id| {
            let found = attempts(&db, &a, id).await;
            let of = |one: &Attempt| (one.reason, one.used.map(|used| (used.cpu_ms, used.charged)));
            found.iter().map(of).collect::<Vec<_>>()
        };
        let lost = |cpu_ms| (Some(EndReason::Lost), Some((cpu_ms, false)));

        // The lease runs out, then the machine comes back and counts; then the run that went on elsewhere reports.
        let id = db.execution(&a, agent).await;
        offer(&db).await;
        let held = claim(&db, &a, id, "never beats").await.unwrap();
        assert_eq!(sweep(&db, Duration::ZERO, minute).await.0.requeued, 1);
        assert_eq!(spent(id).await, [lost(0)]);
        for _ in 0..2 {
            assert!(left(&db, id, 1, 90_000).await);
            assert_eq!(spent(id).await, [lost(90_000)]);
        }
        assert_eq!(report(&db, &a, &held, &completed(), &used(120_000, 0)).await, None);
        assert_eq!(spent(id).await, [lost(120_000)]);
        assert!(!left(&db, id, 2, 1000).await, "no such attempt");
        assert!(!left(&db, ExecutionId::new(Uuid::new_v4()), 1, 1000).await);

        // The machine comes back before the lease has run out. It ran in a sandbox with a name of its own.
        let id = db.execution(&a, agent).await;
        offer(&db).await;
        claim(&db, &a, id, "never beats").await.unwrap();
        let warm = ExecutionId::new(Uuid::new_v4());
        let named = format!("UPDATE executions SET sandbox = '{warm}-00000000' WHERE id = '{id}'");
        run(&mut db.root().await, &named).await;
        assert!(!left(&db, id, 1, 90_000).await);
        assert!(left(&db, warm, 0, 90_000).await);
        assert_eq!(spent(id).await, [lost(90_000)]);
        assert_eq!(sweep(&db, Duration::ZERO, minute).await.0.requeued, 1);
        assert_eq!(spent(id).await, [lost(90_000)], "the row stays");

        // The result was there after all: it is its end, and is charged once.
        let id = db.execution(&a, agent).await;
        offer(&db).await;
        let held = claim(&db, &a, id, "never beats").await.unwrap();
        assert!(left(&db, id, 1, 90_000).await);
        assert_eq!(count(&db, &a, Counted::ComputeMinutes).await, 0, "until here nothing is");
        report(&db, &a, &held, &completed(), &used(60_000, 0)).await.unwrap();
        assert!(!left(&db, id, 1, 180_000).await, "it ended by itself");
        assert_eq!(spent(id).await, [(Some(EndReason::Completed), Some((90_000, true)))]);
        assert_eq!(count(&db, &a, Counted::ComputeMinutes).await, 1);
    })
    .await;
}

#[tokio::test]
async fn ee32_what_was_poisoned_is_given_back_and_charged_when_it_completes_after_all() {
    with_db(async |db| {
        let a = today(&db).await;
        let id = db.execution(&a, db.agent(&a, "fuel").await).await;
        let charged = async || count(&db, &a, Counted::Executions).await;
        assert_eq!(charged().await, 1);
        let poison = async || {
            for attempt in 1..=3 {
                offer(&db).await;
                assert_eq!(claim(&db, &a, id, "never beats").await.unwrap().attempt, attempt);
                let swept = sweep(&db, Duration::ZERO, Duration::from_secs(60)).await.0;
                assert_eq!(swept.given_up, u64::from(attempt == 3));
            }
        };
        poison().await;
        assert_eq!(charged().await, 0);
        let replay = async || {
            let mut tx = db.store.tenant(&a).await.unwrap();
            tx.replay_execution(id).await.unwrap();
            tx.commit().await.unwrap();
        };
        replay().await;
        db.execution(&a, db.agent(&a, "other").await).await;
        run(&mut db.root().await, "UPDATE executions SET due_at = now() WHERE state = 'pending'")
            .await;
        assert_eq!(charged().await, 1, "the other one's");
        poison().await;
        assert_eq!(charged().await, 1, "given back once");
        replay().await;
        offer(&db).await;
        let held = claim(&db, &a, id, "w1").await.unwrap();
        report(&db, &a, &held, &completed(), &Record::default()).await.unwrap();
        assert_eq!(charged().await, 2, "it has a result");
        let found = attempts(&db, &a, id).await;
        let lost = found.iter().filter(|one| one.reason == Some(EndReason::Lost)).count();
        assert_eq!((found.len(), lost), (7, 6), "attempts of each start have rows of their own");
    })
    .await;
}

#[tokio::test]
async fn res4_minutes_and_tokens_tell_at_80_and_100_and_then_let_nothing_in_until_midnight() {
    with_db(async |db| {
        let mut a = today(&db).await;
        let agent = db.agent(&a, "fuel").await;
        let few = Quotas {
            max_compute_minutes_per_day: Some(10),
            max_tokens_per_day: Some(100),
            ..Quotas::default()
        };
        quotas(&db, &a, few).await;
        let submit = async |op: &OpCtx| {
            let mut tx = db.store.tenant(op).await.unwrap();
            let (id, input) = (ExecutionId::new(Uuid::new_v4()), json!({}));
            let (agent, version) = agent;
            let new = NewExecution { id, agent, version, input, terms: Terms::default() };
            match tx.submit_execution(&new).await {
                Ok(_) => tx.commit().await.map(|()| Ok(id)).unwrap(),
                Err(Error::QuotaExceeded { what, limit, used, resets_at }) => {
                    Err((what, used, limit, resets_at))
                }
                Err(error) => panic!("{error}"),
            }
        };
        let run_one = async |op: &OpCtx, cpu_ms, tokens| {
            let id = submit(op).await.unwrap();
            offer(&db).await;
            let held = claim(&db, op, id, "w1").await.unwrap();
            report(&db, op, &held, &completed(), &used(cpu_ms, tokens)).await.unwrap();
        };
        let alerts = async || {
            let rows = "SELECT quota, percent FROM quota_alerts ORDER BY quota, percent";
            let found: Vec<(String, i16)> =
                sqlx::query_as(rows).fetch_all(&mut db.root().await).await.unwrap();
            let told = "SELECT count(*) FROM event_store WHERE kind = 'quota.threshold_reached'";
            let told: i64 = sqlx::query_scalar(told).fetch_one(&mut db.root().await).await.unwrap();
            assert_eq!(usize::try_from(told).unwrap(), found.len(), "each is told");
            found
        };
        let minutes = |percent| ("compute_minutes".to_owned(), percent);
        run_one(&a, 479_000, 0).await;
        assert_eq!(alerts().await, []);
        run_one(&a, 1_000, 0).await;
        assert_eq!(alerts().await, [minutes(80)], "8 of 10");
        run_one(&a, 1_000_000, 0).await;
        assert_eq!(
            alerts().await,
            [minutes(100), minutes(80)].map(|one| one).into_iter().rev().collect::<Vec<_>>()
        );
        let (what, used, limit, resets_at) = submit(&a).await.unwrap_err();
        assert_eq!((what, used, limit), (Counted::ComputeMinutes, 24, 10), "what ran was let run");
        let midnight = resets_at.unwrap();
        assert_eq!(midnight, a.now.date().next_day().unwrap().midnight().assume_utc());

        quotas(&db, &a, Quotas { max_compute_minutes_per_day: Some(100), ..few }).await;
        run_one(&a, 0, 100).await;
        let (what, used, limit, _) = submit(&a).await.unwrap_err();
        assert_eq!((what, used, limit), (Counted::Tokens, 100, 100));
        assert_eq!(alerts().await.len(), 4);
        // The next day begins with nothing; a quota of nothing blocks.
        a.now = midnight;
        submit(&a).await.unwrap();
        quotas(&db, &a, Quotas { max_tokens_per_day: Some(0), ..Quotas::default() }).await;
        assert_eq!(submit(&a).await.unwrap_err().0, Counted::Tokens);
    })
    .await;
}

fn document(tenant: TenantId, held: &Claimed, outcome: &Outcome, salt: &str) -> Provenance {
    let digest = |value| provenance::digest(value).unwrap();
    Provenance {
        form: FORM.to_owned(),
        salt: salt.to_owned(),
        tenant,
        execution: held.execution,
        attempt: held.attempt,
        agent: held.agent,
        version: held.version_id,
        image: held.image.clone(),
        config: Config::new(("sim", "1"), ("0.1.0", "c1"), &Limits::default(), &[]),
        input: digest(&held.input),
        output: digest(outcome.output.as_ref().unwrap()),
    }
}

#[tokio::test]
async fn ee42_a_result_is_stored_with_where_it_came_from_and_its_hash_is_told() {
    with_db(async |db| {
        let a = today(&db).await;
        let b = db.tenant("tenant-b").await;
        let agent = db.agent(&a, "fuel").await;
        let id = db.execution(&a, agent).await;
        let proven = async |op: &OpCtx, id| {
            db.store.tenant(op).await.unwrap().provenance(id).await.unwrap()
        };
        offer(&db).await;
        let held = claim(&db, &a, id, "w1").await.unwrap();
        assert_eq!(proven(&a, id).await, Some(None), "it has no result");
        let document = document(a.tenant, &held, &completed(), "salt");
        let record = Record { provenance: Some(document.clone()), ..Record::default() };
        report(&db, &a, &held, &completed(), &record).await.unwrap();
        let found = proven(&a, id).await.unwrap().unwrap();
        let hash: Digest = found.hash.parse().unwrap();
        assert_eq!(hash, document.hash().unwrap());
        let read: Provenance = serde_json::from_value(found.document).unwrap();
        assert_eq!(read, document, "as it was hashed");
        assert_eq!((found.input, found.output), (held.input.clone(), completed().output.unwrap()));
        assert_eq!(proven(&b, id).await, None, "another tenant's does not exist");
        let mut tx = db.store.tenant(&a).await.unwrap();
        let told = tx.history(Aggregate::Execution, id.as_uuid(), None, 1).await.unwrap();
        let told = told[0].event.payload().unwrap();
        assert_eq!(told["provenance_hash"], json!(hash.to_string()));
        drop(tx);

        // What did not complete has none, whatever its worker brings.
        let failed = db.execution(&a, agent).await;
        offer(&db).await;
        let held = claim(&db, &a, failed, "w1").await.unwrap();
        report(&db, &a, &held, &ended(EndReason::Failed), &record).await.unwrap();
        assert_eq!(proven(&a, failed).await, Some(None));
        let clear: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM executions WHERE position('salt'::bytea IN sealed_provenance) > 0",
        )
        .fetch_one(&mut db.root().await)
        .await
        .unwrap();
        assert_eq!(clear, 0, "the salt is sealed");
        let _: OffsetDateTime = a.now;
    })
    .await;
}
