//! Lifecycle hooks: what an attempt owes is somebody's whatever becomes of its worker, is taken by one, and ends once.

use std::time::Duration;

use gatehouse_contract::ExecutionId;
use gatehouse_execution::{EndReason, Hook};
use gatehouse_store::{
    Job, OpCtx,
    attempts::{Claimant, Claimed},
    hooks::{HookEnd, HookRun, HookState, Owed},
};
use uuid::Uuid;

use crate::{
    executions::{beat, claim, completed, report, sweep},
    harness::{Db, offer, refused, rows, run, with_db},
};

const LEASE: Duration = Duration::from_secs(60);

async fn owe(db: &Db, op: &OpCtx, held: &Claimed, worker: &str) -> [Uuid; 2] {
    let runs = [Uuid::new_v4(), Uuid::new_v4()];
    let owed = [(Hook::OnError, runs[0]), (Hook::Cleanup, runs[1])];
    let mut tx = db.store.tenant(op).await.unwrap();
    tx.owe_hooks(held.execution, held.lease_epoch, worker, &owed).await.unwrap();
    tx.commit().await.unwrap();
    runs
}

async fn take(db: &Db, worker: &str, busy: &[Uuid]) -> Vec<Owed> {
    let mut tx = db.store.system(Job::Hooks).await.unwrap();
    let taken = tx.take_owed(worker, busy, LEASE, 10).await.unwrap();
    tx.commit().await.unwrap();
    taken
}

async fn end(
    db: &Db,
    op: &OpCtx,
    held: &Claimed,
    (hook, run_id): (Hook, Uuid),
    worker: &str,
) -> bool {
    let mut tx = db.store.tenant(op).await.unwrap();
    let (execution, lease_epoch) = (held.execution, held.lease_epoch);
    let (well, reason) = (true, EndReason::Completed);
    let end = HookEnd { execution, lease_epoch, hook, run_id, worker, well, reason };
    let counted = tx.hook_ended(&end).await.unwrap();
    tx.commit().await.unwrap();
    counted
}

async fn hooks(db: &Db, op: &OpCtx, id: ExecutionId) -> Vec<HookRun> {
    db.store.tenant(op).await.unwrap().hook_runs(id).await.unwrap()
}

#[tokio::test]
async fn ee36_a_lost_attempts_hooks_are_taken_by_one_in_their_order_and_end_once() {
    with_db(async |db| {
        let op = db.tenant("tenant-a").await;
        let id = db.execution(&op, db.agent(&op, "fuel").await).await;
        offer(&db).await;
        beat(&db, "w1").await;
        let held = claim(&db, &op, id, "w1").await.unwrap();
        let [on_error, cleanup] = owe(&db, &op, &held, "w1").await;
        beat(&db, "w2").await;
        assert_eq!(take(&db, "w2", &[]).await, [], "the attempt runs");
        // Its worker is gone: first the lease, then what it owes.
        run(
            &mut db.root().await,
            "UPDATE worker_heartbeats SET beat_at = now() - interval '1 hour' WHERE worker = 'w1'",
        )
        .await;
        assert_eq!(take(&db, "w2", &[]).await, [], "nobody has taken the lease yet");
        sweep(&db, LEASE, LEASE).await;
        let taken = take(&db, "w2", &[]).await;
        let told: Vec<_> = taken.iter().map(|owed| (owed.hook, owed.run_id, owed.taken)).collect();
        assert_eq!(told, [(Hook::OnError, on_error, 1)], "on_error first, under its run's id");
        assert_eq!((taken[0].tenant, taken[0].execution, taken[0].lease_epoch), (op.tenant, id, 1));
        assert_eq!(take(&db, "w3", &[]).await, [], "w2 has it and lives");
        assert_eq!(take(&db, "w2", &[on_error]).await, [], "it is being run");
        assert!(!end(&db, &op, &held, (Hook::OnError, on_error), "w1").await, "w1 had it once");
        assert!(!end(&db, &op, &held, (Hook::OnError, Uuid::new_v4()), "w2").await, "another run");
        assert!(end(&db, &op, &held, (Hook::OnError, on_error), "w2").await);
        assert!(!end(&db, &op, &held, (Hook::OnError, on_error), "w2").await, "twice");
        // w2 crashes within the next one: it runs again, under the same id.
        assert_eq!(take(&db, "w2", &[]).await[0].run_id, cleanup);
        run(
            &mut db.root().await,
            "UPDATE worker_heartbeats SET beat_at = now() - interval '1 hour' WHERE worker = 'w2'",
        )
        .await;
        let again = take(&db, "w3", &[]).await;
        assert_eq!((again[0].run_id, again[0].taken), (cleanup, 2));
        assert!(end(&db, &op, &held, (Hook::Cleanup, cleanup), "w3").await);
        assert_eq!(take(&db, "w3", &[]).await, []);
        let states: Vec<_> =
            hooks(&db, &op, id).await.iter().map(|run| (run.hook, run.state)).collect();
        assert_eq!(states, [(Hook::OnError, HookState::Done), (Hook::Cleanup, HookState::Done)]);
    })
    .await;
}

#[tokio::test]
async fn ee36_what_is_skipped_is_taken_by_nobody_and_another_attempts_hooks_are_its_own() {
    with_db(async |db| {
        let (op, other) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let id = db.execution(&op, db.agent(&op, "fuel").await).await;
        offer(&db).await;
        beat(&db, "w1").await;
        let held = claim(&db, &op, id, "w1").await.unwrap();
        let [_, cleanup] = owe(&db, &op, &held, "w1").await;
        let mut tx = db.store.tenant(&op).await.unwrap();
        tx.skip_hooks(id, held.lease_epoch + 1, &Hook::OWED).await.unwrap();
        tx.skip_hooks(id, held.lease_epoch, &[Hook::OnError]).await.unwrap();
        tx.commit().await.unwrap();
        report(&db, &op, &held, &completed()).await.unwrap();
        // A worker that lives and put it down takes it again.
        let taken = take(&db, "w1", &[]).await;
        assert_eq!(taken.iter().map(|owed| owed.run_id).collect::<Vec<_>>(), [cleanup]);
        assert!(hooks(&db, &other, id).await.is_empty(), "another tenant's");
        assert!(!end(&db, &op, &held, (Hook::Cleanup, cleanup), "w2").await);
        assert!(end(&db, &op, &held, (Hook::Cleanup, cleanup), "w1").await);
        // Neither job nor tenant makes one owed again.
        let mut app = db.raw("gatehouse_app").await;
        run(&mut app, &format!("SET app.current_tenant_id = '{}'", op.tenant)).await;
        let error = refused(&mut app, "UPDATE hook_runs SET run_id = gen_random_uuid()").await;
        assert_eq!(error, "42501");
        let old = "UPDATE hook_runs SET ended_at = now() - interval '91 days'";
        run(&mut db.root().await, old).await;
        let mut job = db.store.system(Job::Hooks).await.unwrap();
        assert_eq!(job.forget_hooks(Duration::from_secs(90 * 86_400), 100).await.unwrap(), 2);
        job.commit().await.unwrap();
        assert_eq!(rows(&mut db.root().await, "SELECT 1 FROM hook_runs").await, 0);
    })
    .await;
}

#[tokio::test]
async fn lfh3_a_claim_keeps_the_configuration_that_it_was_made_under() {
    with_db(async |db| {
        let op = db.tenant("tenant-a").await;
        let id = db.execution(&op, db.agent(&op, "fuel").await).await;
        offer(&db).await;
        let mut tx = db.store.tenant(&op).await.unwrap();
        let claimant = Claimant { worker: "w1", config: Some("0123456789abcdef") };
        tx.claim_execution(id, claimant).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        let sql = "SELECT 1 FROM executions WHERE config_version = '0123456789abcdef'";
        assert_eq!(rows(&mut db.root().await, sql).await, 1);
    })
    .await;
}
