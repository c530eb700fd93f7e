//! What is personal or secret at rest: sealed under the tenant's key, sealed anew when the file's key changes, found by a
//! keyed hash, and gone when the tenant is.

use std::process::Command;

use gatehouse_contract::{ExecutionId, Role, TenantId, UserId};
use gatehouse_execution::{EndReason, Record, outcome::Outcome};
use gatehouse_store::{
    Error, Job, OpCtx, Store, Urls,
    api_keys::NewApiKey,
    audit::Filter,
    executions::{NewExecution, Terms},
    members::{Changed, Which},
    paging::Page,
};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Db, key, keys, offer, rows, run, with_db};

const EMAIL: &str = "Planted.Address@example.com";
const INPUT: &str = "planted input";
const FAULT: &str = "planted fault";
const OUTPUT: &str = "planted output";
/// Everything that is looked for, in any case.
const PLANTED: &[&str] = &["planted", "706c616e746564"];

fn dump(db: &Db) -> String {
    let bin = std::env::var("GATEHOUSE_TEST_PG_BIN")
        .expect("GATEHOUSE_TEST_PG_BIN is not set: run `cargo xtask test`");
    let out = Command::new(format!("{bin}/pg_dump")).arg(db.root_url()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The lines of a dump in which something planted is.
fn found(dump: &str) -> Vec<&str> {
    let planted = |line: &&str| {
        let line = line.to_lowercase();
        PLANTED.iter().any(|word| line.contains(word))
    };
    dump.lines().filter(planted).collect()
}

/// A tenant with a planted value in every field that has any.
async fn plant(db: &Db, slug: &str) -> (OpCtx, ExecutionId) {
    let op = db.tenant(slug).await;
    let of = db.agent(&op, "agent").await;
    let id = ExecutionId::new(Uuid::new_v4());
    let mut tx = db.store.tenant(&op).await.unwrap();
    let mut within = tx.within();
    let user = UserId::new(Uuid::new_v4());
    within.create_named_user(user, (EMAIL, Some("Planted Name")), Role::Admin).await.unwrap();
    within.create_api_key(&NewApiKey { name: "planted key", ..key(Uuid::new_v4()) }).await.unwrap();
    let input = json!({"text": INPUT});
    let terms = Terms::default();
    let new = NewExecution { id, agent: of.0, version: of.1, input, terms };
    tx.submit_execution(&new).await.unwrap();
    tx.commit().await.unwrap();
    offer(db).await;
    let mut tx = db.store.tenant(&op).await.unwrap();
    let claimed = tx.claim_execution(id, "w").await.unwrap().unwrap();
    assert_eq!(claimed.input, json!({"text": INPUT}));
    tx.commit().await.unwrap();
    let mut tx = db.store.tenant(&op).await.unwrap();
    let outcome = Outcome {
        reason: EndReason::Completed,
        output: Some(json!({"text": OUTPUT})),
        message: Some(FAULT.to_owned()),
    };
    tx.complete_execution(id, claimed.lease_epoch, &outcome, &Record::default())
        .await
        .unwrap()
        .unwrap();
    tx.commit().await.unwrap();
    (op, id)
}

async fn erase(db: &Db, tenant: TenantId) {
    loop {
        let mut job = db.store.system(Job::Erasure).await.unwrap();
        let more = job.erase(tenant, 2).await.unwrap();
        job.commit().await.unwrap();
        if !more {
            break;
        }
    }
    db.store.forget_key(tenant);
}

#[tokio::test]
async fn personal_values_are_sealed_at_rest_and_read_as_they_were_written() {
    with_db(async |db| {
        let (op, id) = plant(&db, "sealed").await;
        let dump = dump(&db);
        let left = found(&dump);
        // A key's name is a label that its tenant shows around; everything else is sealed.
        assert!(left.iter().all(|line| line.contains("planted key")), "{left:#?}");
        let mut tx = db.store.tenant(&op).await.unwrap();
        let read = tx.execution(id).await.unwrap().unwrap();
        assert_eq!(
            (read.input, read.output),
            (json!({"text": INPUT}), Some(json!({"text": OUTPUT})))
        );
        assert_eq!(read.error.as_deref(), Some(FAULT));
        let mut within = tx.within();
        let users = within.list_users(&Page::first(10), Which::default()).await.unwrap();
        assert_eq!(
            (users[0].name.as_str(), users[0].full_name.as_deref()),
            (EMAIL, Some("Planted Name"))
        );
        // However it is written, it is the same address.
        assert!(within.invited(&EMAIL.to_uppercase()).await.unwrap().is_some());
        assert!(within.invited("other@example.com").await.unwrap().is_none());
        let (id, email) = (UserId::new(Uuid::new_v4()), EMAIL.to_lowercase());
        let error = within.create_user(id, &email, Role::Viewer).await.unwrap_err();
        assert!(
            matches!(&error, Error::Conflict { constraint } if constraint == "users_email"),
            "{error:?}"
        );
        drop(tx);
        let mut tx = db.store.tenant(&op).await.unwrap();
        let told = tx.within().audit_page(&Filter::default(), None, 50).await.unwrap();
        let made = told.iter().find(|told| told.row.action == "user.create").unwrap();
        assert_eq!(made.details.as_ref().unwrap()["new"]["email"], EMAIL);
        let commitment =
            gatehouse_audit::commit(&made.salt.unwrap(), made.details.as_ref().unwrap());
        assert_eq!(made.row.commitment, Some(commitment));
        // The same address in another tenant is found by something else.
        let (other, _) = plant(&db, "other").await;
        let index = |op: &OpCtx| {
            format!("SELECT DISTINCT email_index FROM users WHERE tenant_id = '{}'", op.tenant)
        };
        let both = format!("{} INTERSECT {}", index(&op), index(&other));
        assert_eq!(rows(&mut db.root().await, &both).await, 0);
    })
    .await;
}

#[tokio::test]
async fn another_key_takes_over_and_the_one_before_may_go() {
    with_db(async |db| {
        let (op, id) = plant(&db, "rekeyed").await;
        let (during, after) = (keys("ba"), keys("b"));
        let url = |role: &str| db.url(&format!("gatehouse_{role}"));
        let urls = Urls { app: url("app"), admin: Some(url("admin")), system: Some(url("system")) };
        let reads = async |keys: &gatehouse_store::MasterKeys| {
            let store = Store::connect(&urls).await.unwrap().with_keys(keys.clone());
            let mut tx = store.tenant(&op).await.unwrap();
            tx.execution(id).await.map(|found| found.unwrap().input)
        };
        let judged = async |keys: &gatehouse_store::MasterKeys| {
            Store::connect(&urls).await.unwrap().with_keys(keys.clone()).judge_keys().await
        };
        judged(&keys("a")).await.unwrap();
        judged(&during).await.unwrap();
        let error = judged(&after).await.unwrap_err();
        assert!(matches!(error, Error::Locked(_)), "{error:?}");
        let error = reads(&after).await.unwrap_err();
        assert!(matches!(error, Error::Locked(_)), "{error:?}");
        let without = Store::connect(&urls).await.unwrap();
        let error = without.tenant(&op).await.unwrap().execution(id).await.unwrap_err();
        assert!(matches!(error, Error::NoKeyFile), "{error:?}");
        let mut job = db.store.system(Job::Rekey).await.unwrap();
        let error = job.rewrap(&after, 10).await.unwrap_err();
        assert!(matches!(error, Error::Locked(_)), "{error:?}");
        drop(job);
        let mut job = db.store.system(Job::Rekey).await.unwrap();
        assert_eq!(job.rewrap(&during, 10).await.unwrap(), 1);
        assert_eq!(job.rewrap(&during, 10).await.unwrap(), 0, "again changes nothing");
        job.commit().await.unwrap();
        assert_eq!(reads(&after).await.unwrap(), json!({"text": INPUT}));
        judged(&after).await.unwrap();
        let error = judged(&keys("a")).await.unwrap_err();
        assert!(matches!(error, Error::Locked(_)), "{error:?}");
        let error = reads(&keys("a")).await.unwrap_err();
        assert!(matches!(error, Error::Locked(_)), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn rows_from_before_are_read_found_and_sealed_in_batches() {
    with_db(async |db| {
        let (op, id) = plant(&db, "old").await;
        // As the build before this one left them.
        let user = Uuid::new_v4();
        let before = format!(
            "UPDATE executions SET input = '{{\"text\": \"{INPUT}\"}}', sealed_input = NULL,
                output = '{{\"text\": \"{OUTPUT}\"}}', sealed_output = NULL, error = '{FAULT}', sealed_error = NULL;
             INSERT INTO users (tenant_id, id, email) VALUES ('{0}', '{user}', 'Old.Planted@example.com')",
            op.tenant
        );
        run(&mut db.root().await, &before).await;
        let reads = async || {
            let mut tx = db.store.tenant(&op).await.unwrap();
            let read = tx.execution(id).await.unwrap().unwrap();
            assert_eq!((read.input, read.output), (json!({"text": INPUT}), Some(json!({"text": OUTPUT}))));
            assert_eq!(read.error.as_deref(), Some(FAULT));
            let found = tx.within().invited("old.planted@EXAMPLE.com").await.unwrap();
            assert_eq!(found, Some(UserId::new(user)));
            let (id, email) = (UserId::new(Uuid::new_v4()), "old.planted@example.com");
            let again = tx.within().create_user(id, email, Role::Viewer).await;
            assert!(matches!(again.unwrap_err(), Error::Conflict { .. }));
        };
        reads().await;
        let mut done = 0;
        loop {
            let mut tx = db.store.tenant(&op).await.unwrap();
            let sealed = tx.seal_rows(1).await.unwrap();
            tx.commit().await.unwrap();
            done += sealed;
            if sealed == 0 {
                break;
            }
        }
        assert_eq!(done, 2);
        let text = dump(&db);
        assert!(found(&text).iter().all(|line| line.contains("planted key")));
        reads().await;
        let mut job = db.store.system(Job::Sealing).await.unwrap();
        assert_eq!(job.tenants_after(None, 10).await.unwrap(), [op.tenant]);
        assert_eq!(job.tenants_after(Some(op.tenant), 10).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn an_erased_tenant_leaves_nothing_to_read_and_its_chain() {
    with_db(async |db| {
        let (op, _) = plant(&db, "planted-slug").await;
        let (kept, kept_run) = plant(&db, "kept").await;
        let tenant = op.tenant;
        let mut tx = db.store.admin(&op, "asked for it").await.unwrap();
        assert_eq!(tx.request_erasure(tenant).await.unwrap(), Changed::Yes);
        assert_eq!(tx.request_erasure(tenant).await.unwrap(), Changed::No);
        let nobody = TenantId::new(Uuid::new_v4());
        assert_eq!(tx.request_erasure(nobody).await.unwrap(), Changed::Missing);
        tx.commit().await.unwrap();
        let hashes = async || {
            let mut tx = db.store.tenant(&op).await.unwrap();
            let page = tx.within().audit_page(&Filter::default(), None, 50).await.unwrap();
            page.iter().map(|told| (told.row.id, told.row.hash())).collect::<Vec<_>>()
        };
        let before = hashes().await;
        let mut job = db.store.system(Job::Erasure).await.unwrap();
        assert_eq!(job.to_erase(10).await.unwrap(), [tenant]);
        assert!(!job.erase(kept.tenant, 10).await.unwrap(), "nobody asked for it");
        drop(job);
        erase(&db, tenant).await;
        erase(&db, tenant).await;
        // What is planted is the other tenant's alone: the name of its key.
        let text = dump(&db);
        let left = found(&text);
        assert!(left.iter().all(|line| line.contains("planted key") && line.contains(&kept.tenant.to_string())), "{left:#?}");
        // The audit is whole, and its values are gone.
        assert_eq!(hashes().await, before);
        let mut tx = db.store.tenant(&op).await.unwrap();
        let page = tx.within().audit_page(&Filter::default(), None, 50).await.unwrap();
        assert!(page.len() > 4 && page.iter().all(|told| told.details.is_none()), "{page:?}");
        // Nothing can be sealed for it again.
        let id = UserId::new(Uuid::new_v4());
        let again = tx.within().create_user(id, "a@example.com", Role::Viewer).await;
        assert!(matches!(again.unwrap_err(), Error::Erased));
        drop(tx);
        let mut tx = db.store.admin(&op, "how far").await.unwrap();
        let progress = tx.erasure(tenant).await.unwrap().unwrap();
        assert!(progress.erased_rows > 5 && progress.key_destroyed_at.is_some(), "{progress:?}");
        assert!(progress.finished_at.is_none(), "what was remembered elsewhere has not expired: {progress:?}");
        drop(tx);
        run(&mut db.root().await, "UPDATE erasures SET requested_at = now() - interval '1 hour'").await;
        erase(&db, tenant).await;
        let mut tx = db.store.admin(&op, "how far").await.unwrap();
        assert!(tx.erasure(tenant).await.unwrap().unwrap().finished_at.is_some());
        // The other tenant is as it was.
        let mut tx = db.store.tenant(&kept).await.unwrap();
        assert_eq!(tx.execution(kept_run).await.unwrap().unwrap().input, json!({"text": INPUT}));
        assert!(tx.within().invited(EMAIL).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn every_table_of_a_tenant_is_erased_or_kept_for_a_reason() {
    with_db(async |db| {
        // Nobody may remove: audit, seals and what is wrong with them, events. Told to verifiers and pruned by the relay: the outbox. The platform's
        // own: who used the admin door. Emptied: the key. Read for tombstones: the heads of events. The erasure itself, and the operation that asked for it.
        let kept = ["admin_access", "audit_breaks", "audit_seals", "data_keys", "erasures", "event_heads", "event_store", "operations", "outbox", "tenant_audit"];
        let tables: Vec<(String, bool)> = sqlx::query_as(
            "SELECT c.relname::text, EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'job_erasure')
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
             ORDER BY 1",
        )
        .fetch_all(&mut db.root().await)
        .await
        .unwrap();
        assert!(tables.len() > 25, "{tables:?}");
        for (table, erased) in tables {
            let expected = !kept.contains(&table.as_str()) || ["data_keys", "erasures", "event_heads"].contains(&table.as_str());
            assert_eq!(erased, expected, "{table}: erase it in crates/store/src/erasure.rs, or say why not here");
        }
    })
    .await;
}
