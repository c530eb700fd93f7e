//! What is seen of executions while they go on: how far they are, what was told since, the warning, and their logs.

use gatehouse_contract::{ExecutionId, TenantId};
use gatehouse_events::{Execution, Kind};
use gatehouse_execution::{
    EndReason, Record,
    outcome::{Captured, Outcome},
};
use gatehouse_store::{Error, Job, OpCtx, attempts::Claimed};
use uuid::Uuid;

use crate::harness::{Db, offer, rows, run, with_db};

const SAID: &str = "planted in a log";

async fn claim(db: &Db, op: &OpCtx, id: ExecutionId) -> Claimed {
    offer(db).await;
    let mut tx = db.store.tenant(op).await.unwrap();
    let claimed = tx.claim_execution(id, "w").await.unwrap().unwrap();
    tx.commit().await.unwrap();
    claimed
}

async fn end(db: &Db, op: &OpCtx, claimed: &Claimed, reason: EndReason, log: &[u8]) {
    let outcome = Outcome { reason, output: None, message: None };
    let log = Captured { bytes: log.to_vec(), total_bytes: log.len() as u64 + 7 };
    let record = Record { log, ..Record::default() };
    let (id, epoch) = (claimed.execution, claimed.lease_epoch);
    let mut tx = db.store.tenant(op).await.unwrap();
    tx.complete_execution(id, epoch, &outcome, &record).await.unwrap();
    tx.commit().await.unwrap();
}

async fn warn(db: &Db, op: &OpCtx, id: ExecutionId, epoch: u64) -> bool {
    let mut tx = db.store.tenant(op).await.unwrap();
    let warned = tx.warn_execution(id, epoch).await.unwrap();
    tx.commit().await.unwrap();
    warned
}

#[tokio::test]
async fn one_query_says_which_of_all_went_on_and_tells_of_nobody_else() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let of_a = db.execution(&a, db.agent(&a, "fuel").await).await;
        let of_b = db.execution(&b, db.agent(&b, "fuel").await).await;
        let beyond = async |known: &[((TenantId, ExecutionId), u64)]| {
            let mut moved = db.store.executions_beyond(known).await.unwrap();
            moved.sort_by_key(|(place, _)| known.iter().position(|(one, _)| one == place));
            moved
        };
        let (ours, theirs) = ((a.tenant, of_a), (b.tenant, of_b));
        assert_eq!(beyond(&[(ours, 0), (theirs, 0)]).await, [(ours, 1), (theirs, 1)]);
        assert_eq!(beyond(&[(ours, 1), (theirs, 1)]).await, []);
        // Under another tenant's name nothing is found, nor is what is not there.
        let nothing = ExecutionId::new(Uuid::new_v4());
        assert_eq!(beyond(&[((b.tenant, of_a), 0), ((a.tenant, nothing), 0)]).await, []);
        offer(&db).await;
        assert_eq!(beyond(&[(ours, 1), (theirs, 1)]).await, [(ours, 2), (theirs, 2)]);
        // And it is one query for very many.
        let many = (0..10_000).map(|n| ((a.tenant, ExecutionId::new(Uuid::from_u128(n))), 0));
        let many: Vec<_> = many.chain([(ours, 1)]).collect();
        assert_eq!(beyond(&many).await, [(ours, 2)]);
        let mut tx = db.store.tenant(&a).await.unwrap();
        let told = tx.told_since(of_a, 1, 10).await.unwrap();
        assert_eq!(told.iter().map(|one| one.seq).collect::<Vec<_>>(), [2]);
        assert!(tx.told_since(of_b, 0, 10).await.unwrap().is_empty(), "another tenant's");
        assert!(tx.last_run(of_b).await.unwrap().is_none(), "another tenant's");
    })
    .await;
}

#[tokio::test]
async fn res1_an_attempt_is_warned_once_and_under_its_own_lease_alone() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = db.execution(&a, db.agent(&a, "fuel").await).await;
        assert!(!warn(&db, &a, id, 0).await, "it does not run");
        let claimed = claim(&db, &a, id).await;
        assert!(!warn(&db, &a, id, 2).await, "another's lease");
        assert!(warn(&db, &a, id, 1).await);
        assert!(!warn(&db, &a, id, 1).await, "it was told");
        end(&db, &a, &claimed, EndReason::RetryAsked, b"x").await;
        assert!(!warn(&db, &a, id, 1).await, "it has ended");
        run(&mut db.root().await, "UPDATE executions SET due_at = now()").await;
        let again = claim(&db, &a, id).await;
        assert!(!warn(&db, &a, id, 1).await, "the lease before");
        assert!(warn(&db, &a, id, again.lease_epoch).await, "each attempt has its own");
        let mut tx = db.store.tenant(&a).await.unwrap();
        let told = tx.told_since(id, 0, 100).await.unwrap();
        let warned: Vec<u64> = told
            .iter()
            .filter(|one| one.event.kind() == Kind::ExecutionTimeRunsOut)
            .map(|one| one.seq)
            .collect();
        assert_eq!(warned.len(), 2);
        // It is one of the events that the state is rebuilt from, and changes nothing of it.
        let whole: Execution = tx.execution_at(id, None).await.unwrap().unwrap();
        assert_eq!(whole.attempt, 2);
        // And waits to be published, as all do.
        let waits = "SELECT FROM event_outbox WHERE kind = 'execution.time_runs_out'";
        assert_eq!(rows(&mut db.root().await, waits).await, 2);
    })
    .await;
}

#[tokio::test]
async fn the_end_of_each_attempts_log_is_kept_sealed_and_goes_with_the_tenant() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let id = db.execution(&a, db.agent(&a, "fuel").await).await;
        let first = claim(&db, &a, id).await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        let last = tx.last_run(id).await.unwrap().unwrap();
        assert_eq!((last.lease_epoch, last.attempt, last.running, last.settled), (1, 1, true, false));
        let seal = tx.log_seal().await.unwrap();
        drop(tx);
        end(&db, &a, &first, EndReason::RetryAsked, SAID.as_bytes()).await;
        run(&mut db.root().await, "UPDATE executions SET due_at = now()").await;
        let second = claim(&db, &a, id).await;
        end(&db, &a, &second, EndReason::Failed, b"second\xff").await;
        // What comes late from the lease before is not kept.
        end(&db, &a, &first, EndReason::Failed, b"late").await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        let heads = tx.logs(id).await.unwrap();
        let shown: Vec<_> =
            heads.iter().map(|head| (head.lease_epoch, head.attempt, head.total_bytes)).collect();
        assert_eq!(shown, [(2, 2, 14), (1, 1, SAID.len() as u64 + 7)]);
        let log = tx.log_of(id, 1).await.unwrap().unwrap();
        assert_eq!((log.bytes.as_slice(), log.is_cut()), (SAID.as_bytes(), true));
        assert_eq!(tx.log_of(id, 2).await.unwrap().unwrap().bytes, b"second\xff");
        assert!(tx.log_of(id, 3).await.unwrap().is_none());
        drop(tx);
        let mut theirs = db.store.tenant(&b).await.unwrap();
        assert!(theirs.logs(id).await.unwrap().is_empty());
        assert!(theirs.log_of(id, 1).await.unwrap().is_none());
        drop(theirs);
        let plain = format!("SELECT FROM execution_logs WHERE position('{SAID}' in encode(sealed_tail, 'escape')) > 0");
        assert_eq!(rows(&mut db.root().await, &plain).await, 0);
        // A part of a running log opens in its place alone, under its tenant's key alone.
        let sealed = seal.seal((id, 1, 10), SAID.as_bytes()).unwrap();
        assert_eq!(seal.open((id, 1, 10), &sealed).unwrap(), SAID.as_bytes());
        for place in [(id, 2, 10), (id, 1, 11), (ExecutionId::new(Uuid::new_v4()), 1, 10)] {
            assert!(seal.open(place, &sealed).is_err(), "{place:?}");
        }
        let other = db.store.log_seal(&b).await.unwrap();
        assert!(other.open((id, 1, 10), &sealed).is_err());
        let mut admin = db.store.admin(&a, "a test").await.unwrap();
        admin.request_erasure(a.tenant).await.unwrap();
        admin.commit().await.unwrap();
        loop {
            let mut job = db.store.system(Job::Erasure).await.unwrap();
            let more = job.erase(a.tenant, 1).await.unwrap();
            job.commit().await.unwrap();
            if !more {
                break;
            }
        }
        db.store.forget_key(a.tenant);
        assert_eq!(rows(&mut db.root().await, "SELECT FROM execution_logs").await, 0);
        assert!(matches!(db.store.log_seal(&a).await, Err(Error::Erased)));
    })
    .await;
}
