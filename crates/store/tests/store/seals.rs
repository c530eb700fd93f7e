//! The audit's chain in the database: what may be written by whom, and that sealing misses nothing, however late it is
//! committed. Heads are text here: who signs is tested where keys are.

use gatehouse_audit::{Digest, Row, Seal};
use gatehouse_contract::{Role, TenantId, UserId};
use gatehouse_store::{Error, Job, OpCtx, seals::Unsealed};
use uuid::Uuid;

use crate::harness::{Db, refused, rows, run, with_db};

async fn mutate(db: &Db, op: &OpCtx) {
    let mut tx = db.store.tenant(op).await.unwrap();
    let email = format!("{}@example.com", Uuid::new_v4().simple());
    tx.within().create_user(UserId::new(Uuid::new_v4()), &email, Role::Viewer).await.unwrap();
    tx.commit().await.unwrap();
}

/// Waits for what `wanted` rows: other databases of the cluster have transactions, too, which hold the horizon back.
async fn unsealed(db: &Db, wanted: usize) -> Vec<Unsealed> {
    let begun = std::time::Instant::now();
    loop {
        let mut tx = db.store.system(Job::Sealer).await.unwrap();
        let found = tx.unsealed(1000).await.unwrap();
        tx.commit().await.unwrap();
        if found.len() >= wanted {
            return found;
        }
        assert!(begun.elapsed().as_secs() < 60, "{} rows of {wanted}", found.len());
        tokio::task::yield_now().await;
    }
}

fn seal(tenant: TenantId, seq: u64, prev: Digest, total: u64, of: &[Row]) -> Seal {
    let rows = of.iter().map(|row| (row.id, row.hash())).collect();
    Seal { prev, rows, sealed_at: 5, seq, tenant, total }
}

#[tokio::test]
async fn mtd5_a_row_that_commits_late_is_sealed_late_and_not_missed() {
    with_db(async |db| {
        let op = db.tenant("late").await;
        // It takes its number and its transaction first, and commits last.
        let mut late = db.store.tenant(&op).await.unwrap();
        late.within()
            .create_user(UserId::new(Uuid::new_v4()), "late@example.com", Role::Viewer)
            .await
            .unwrap();
        mutate(&db, &op).await;
        // The tenant's own row is older than both.
        let first = unsealed(&db, 1).await;
        assert_eq!(
            first.len(),
            1,
            "what came after the one that still runs waits for it: {first:?}"
        );
        let mut tx = db.store.system(Job::Sealer).await.unwrap();
        let of: Vec<Row> = first.iter().map(|found| found.row.clone()).collect();
        let one = seal(op.tenant, 1, Digest::ZERO, 1, &of);
        tx.insert_seal(&one, "h", &first[0]).await.unwrap();
        tx.commit().await.unwrap();
        late.commit().await.unwrap();
        let rest = unsealed(&db, 2).await;
        assert_eq!(rest.len(), 2);
        assert!(rest[0].tx < rest[1].tx && rest[0].row.id < rest[1].row.id);
        assert_eq!(rest[0].row.subject_kind.as_deref(), Some("client"));
        let mut tx = db.store.system(Job::Sealer).await.unwrap();
        let stored = tx.last_seal(op.tenant).await.unwrap().unwrap();
        assert_eq!((stored.hash, &stored.seal), (one.hash(), &one));
        let of: Vec<Row> = rest.iter().map(|found| found.row.clone()).collect();
        let two = seal(op.tenant, 2, one.hash(), 3, &of);
        tx.insert_seal(&two, "h", &rest[1]).await.unwrap();
        assert!(tx.unsealed(10).await.unwrap().is_empty());
        tx.commit().await.unwrap();
        // A reader has the same rows, with the same hashes, and no other tenant has any.
        let mut tx = db.store.tenant(&op).await.unwrap();
        let mut within = tx.within();
        let seals = within.seals(0, 10).await.unwrap();
        assert_eq!(seals.iter().map(|s| s.seal.seq).collect::<Vec<_>>(), [1, 2]);
        for stored in &seals {
            let shown = within.sealed_rows(&stored.seal).await.unwrap();
            let again: Vec<_> = shown.iter().map(|told| (told.row.id, told.row.hash())).collect();
            assert_eq!(again, stored.seal.rows);
        }
        assert_eq!(within.waiting_for_a_seal().await.unwrap(), 0);
        drop(tx);
        mutate(&db, &op).await;
        let mut tx = db.store.tenant(&op).await.unwrap();
        assert_eq!(tx.within().waiting_for_a_seal().await.unwrap(), 1);
        drop(tx);
        let other = db.tenant("other").await;
        let mut tx = db.store.tenant(&other).await.unwrap();
        assert!(tx.within().seals(0, 10).await.unwrap().is_empty());
        assert!(tx.within().sealed_rows(&two).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn two_sealers_cannot_both_write_a_seal() {
    with_db(async |db| {
        let op = db.tenant("twice").await;
        let found = unsealed(&db, 1).await;
        let of: Vec<Row> = found.iter().map(|found| found.row.clone()).collect();
        let one = seal(op.tenant, 1, Digest::ZERO, 1, &of);
        let mut first = db.store.system(Job::Sealer).await.unwrap();
        let mut second = db.store.system(Job::Sealer).await.unwrap();
        first.insert_seal(&one, "h", &found[0]).await.unwrap();
        first.commit().await.unwrap();
        let error = second.insert_seal(&one, "h", &found[0]).await.unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
        let lead = db.store.lead_sealer().await.unwrap().expect("nobody leads");
        assert!(db.store.lead_sealer().await.unwrap().is_none());
        lead.give_up().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn mtd5_no_role_of_a_service_changes_or_removes_an_audit_row_or_a_seal() {
    with_db(async |db| {
        let op = db.tenant("kept").await;
        mutate(&db, &op).await;
        for role in ["gatehouse_app", "gatehouse_admin", "gatehouse_system"] {
            let mut raw = db.raw(role).await;
            let set = format!(
                "SET app.current_tenant_id = '{}'; SET app.current_job = 'sealer'; SET app.is_admin = 'true'",
                op.tenant
            );
            run(&mut raw, &set).await;
            for statement in [
                "UPDATE tenant_audit SET subject = 'x'",
                "DELETE FROM tenant_audit",
                "TRUNCATE tenant_audit",
                "UPDATE audit_seals SET head = 'x'",
                "DELETE FROM audit_seals",
                "INSERT INTO tenant_audit (tenant_id, subject, request_id, action, target_kind, target_id, tx)
                 VALUES (gen_random_uuid(), 's', 'r', 'a', 'k', 't', 0)",
                "INSERT INTO tenant_audit (tenant_id, subject, request_id, action, target_kind, target_id, at)
                 VALUES (gen_random_uuid(), 's', 'r', 'a', 'k', 't', now())",
            ] {
                assert_eq!(refused(&mut raw, statement).await, "42501", "{role}: {statement}");
            }
            if role != "gatehouse_system" {
                let seal = "INSERT INTO audit_seals (tenant_id) VALUES (gen_random_uuid())";
                assert_eq!(refused(&mut raw, seal).await, "42501", "{role}");
            }
        }
        // The sealer's job sees what is hashed and no values; another job of the same role sees nothing.
        let mut raw = db.raw("gatehouse_system").await;
        run(&mut raw, "SET app.current_job = 'relay'").await;
        assert_eq!(rows(&mut raw, "SELECT id FROM tenant_audit").await, 0);
        run(&mut raw, "SET app.current_job = 'sealer'").await;
        assert_eq!(rows(&mut raw, "SELECT id FROM tenant_audit").await, 2);
        assert_eq!(refused(&mut raw, "SELECT sealed_details FROM tenant_audit").await, "42501");
    })
    .await;
}

#[tokio::test]
async fn seals_of_another_cluster_are_said_and_its_base_mends_them() {
    with_db(async |db| {
        let op = db.tenant("restored").await;
        let found = unsealed(&db, 1).await;
        let of: Vec<Row> = found.iter().map(|found| found.row.clone()).collect();
        let mut tx = db.store.system(Job::Sealer).await.unwrap();
        let ahead = Unsealed { tx: i64::from(u32::MAX) * 1000, ..found[0].clone() };
        tx.insert_seal(&seal(op.tenant, 1, Digest::ZERO, 1, &of), "h", &ahead).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = db.store.system(Job::Sealer).await.unwrap();
        let error = tx.unsealed(10).await.unwrap_err();
        assert!(matches!(error, Error::YoungerThanSealed), "{error:?}");
        drop(tx);
        let base = format!(
            "CREATE OR REPLACE FUNCTION audit_clock_base() RETURNS bigint LANGUAGE sql IMMUTABLE SET search_path = ''
             AS $$ SELECT {}::bigint $$",
            ahead.tx
        );
        run(&mut db.raw("gatehouse_owner").await, &base).await;
        // As it came with the dump.
        let restored = format!("UPDATE tenant_audit SET tx = {}", ahead.tx);
        run(&mut db.root().await, &restored).await;
        mutate(&db, &op).await;
        assert_eq!(unsealed(&db, 1).await.len(), 1, "what is written from now on is sealed");
    })
    .await;
}

#[tokio::test]
async fn a_seal_that_was_moved_past_rows_is_said() {
    with_db(async |db| {
        let op = db.tenant("moved").await;
        let found = unsealed(&db, 1).await;
        let of: Vec<Row> = found.iter().map(|found| found.row.clone()).collect();
        let mut tx = db.store.system(Job::Sealer).await.unwrap();
        tx.insert_seal(&seal(op.tenant, 1, Digest::ZERO, 1, &of), "h", &found[0]).await.unwrap();
        tx.commit().await.unwrap();
        mutate(&db, &op).await;
        let read = async || {
            let mut tx = db.store.system(Job::Sealer).await.unwrap();
            tx.unsealed(10).await.map(|rows| rows.len())
        };
        assert_eq!(unsealed(&db, 1).await.len(), 1);
        for (moved, back) in [
            ("last_tx = last_tx + 1", "last_tx = last_tx - 1"),
            ("last_id = last_id + 1", "last_id = last_id - 1"),
        ] {
            let set = async |what: &str| {
                run(&mut db.root().await, &format!("UPDATE audit_seals SET {what}")).await;
            };
            set(moved).await;
            let error = read().await.unwrap_err();
            assert!(matches!(error, Error::SealMoved), "{error:?}");
            set(back).await;
            assert_eq!(unsealed(&db, 1).await.len(), 1);
        }
    })
    .await;
}
