//! What a tenant has beside its record: organizations, configuration, quotas and what is counted against them.

use std::sync::Arc;

use gatehouse_contract::{OrganizationId, TenantId};
use gatehouse_store::{
    Error, OpCtx, TenantTx,
    members::Changed,
    organizations::{Edited, Organization, OrganizationFilter},
    paging::Page,
    quotas::Quotas,
    usage::Counted,
};
use serde_json::json;
use tokio::sync::Barrier;
use uuid::Uuid;

use crate::harness::{Db, op, refused, run, with_db};

fn organization() -> OrganizationId {
    OrganizationId::new(Uuid::new_v4())
}

async fn make(tx: &mut TenantTx<'_>, name: &str, parent: Option<OrganizationId>) -> OrganizationId {
    let id = organization();
    tx.within().create_organization(id, parent, name).await.unwrap();
    id
}

async fn place(
    db: &Db,
    op: &OpCtx,
    what: &Organization,
    below: OrganizationId,
) -> Result<Edited<Organization>, Error> {
    let mut tx = db.store.tenant(op).await?;
    let moved =
        tx.within().change_organization(what.id, what.revision, &what.name, Some(below)).await?;
    tx.commit().await?;
    Ok(moved)
}

/// A new transaction after one that failed and holds its locks still.
async fn again<'op>(db: &Db, op: &'op OpCtx, failed: Option<TenantTx<'op>>) -> TenantTx<'op> {
    drop(failed);
    db.store.tenant(op).await.unwrap()
}

fn conflict<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Conflict { constraint }) => constraint,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn of_two_moves_that_close_a_circle_one_fails() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        // Each round is a race; without the wait for the tenant's other moves some round closes a circle.
        for round in 0..20 {
            let mut tx = db.store.tenant(&a).await.unwrap();
            let (one, other) = (
                make(&mut tx, &format!("one {round}"), None).await,
                make(&mut tx, &format!("other {round}"), None).await,
            );
            let one = tx.within().organization(one).await.unwrap().unwrap();
            let other = tx.within().organization(other).await.unwrap().unwrap();
            tx.commit().await.unwrap();
            let at_once = Arc::new(Barrier::new(2));
            let go = |what: Organization, below: OrganizationId| {
                let (db, a, at_once) = (Arc::clone(&db), a.clone(), Arc::clone(&at_once));
                tokio::spawn(async move {
                    at_once.wait().await;
                    place(&db, &a, &what, below).await
                })
            };
            let (first, second) =
                tokio::join!(go(one.clone(), other.id), go(other.clone(), one.id));
            let (first, second) = (first.unwrap(), second.unwrap());
            assert!(first.is_ok() != second.is_ok(), "round {round}: {first:?} {second:?}");
            let lost = if first.is_ok() { second } else { first };
            assert_eq!(conflict(lost), "organizations_no_cycle");
        }
    })
    .await;
}

#[tokio::test]
async fn organizations_are_a_tree_of_eight_levels_at_most() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        let mut chain = vec![make(&mut tx, "level 1", None).await];
        for level in 2..=8 {
            chain.push(make(&mut tx, &format!("level {level}"), chain.last().copied()).await);
        }
        let apart = make(&mut tx, "apart", None).await;
        let below = make(&mut tx, "below", Some(apart)).await;
        tx.commit().await.unwrap();

        let mut tx = again(&db, &a, None).await;
        let ninth = tx.within().create_organization(organization(), Some(chain[7]), "x").await;
        assert_eq!(conflict(ninth), "organizations_depth");
        // A subtree of two under the seventh level would reach the ninth.
        tx = again(&db, &a, Some(tx)).await;
        let moved = tx.within().change_organization(apart, 1, "apart", Some(chain[6])).await;
        assert_eq!(conflict(moved), "organizations_depth");
        tx = again(&db, &a, Some(tx)).await;
        let moved = tx.within().change_organization(apart, 1, "apart", Some(chain[5])).await;
        assert!(matches!(moved, Ok(Edited::Done(_))), "{moved:?}");
        for (what, under) in [(chain[0], chain[7]), (chain[2], chain[2])] {
            tx = again(&db, &a, Some(tx)).await;
            let moved = tx.within().change_organization(what, 1, "x", Some(under)).await;
            assert_eq!(conflict(moved), "organizations_no_cycle");
        }
        tx = again(&db, &a, Some(tx)).await;
        let tree = tx.within().organizations_from(apart).await.unwrap();
        assert_eq!(tree.iter().map(|one| one.id).collect::<Vec<_>>(), [apart, below]);
        assert_eq!(tx.within().organizations_from(chain[0]).await.unwrap().len(), 8);
        assert_eq!(
            tx.within()
                .list_organizations(&Page::first(3), &OrganizationFilter::default())
                .await
                .unwrap()
                .len(),
            3
        );
        let full = tx.within().delete_organization(apart).await;
        assert!(conflict(full).starts_with("organizations_"));
        tx = again(&db, &a, Some(tx)).await;
        assert!(tx.within().delete_organization(below).await.unwrap());
        assert!(tx.within().delete_organization(apart).await.unwrap());
        assert!(!tx.within().delete_organization(apart).await.unwrap());
        drop(tx);
        // A snapshot from before the wait would not see the other's move.
        let mut app = db.raw("gatehouse_app").await;
        run(&mut app, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
        run(&mut app, &format!("SET LOCAL app.current_tenant_id = '{}'", a.tenant)).await;
        let insert = format!(
            "INSERT INTO organizations (tenant_id, id, name) VALUES ('{}', gen_random_uuid(), 'x')",
            a.tenant
        );
        assert_eq!(refused(&mut app, &insert).await, "25000");
    })
    .await;
}

#[tokio::test]
async fn an_organization_hangs_under_its_own_tenants_alone() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let mut tx = db.store.tenant(&b).await.unwrap();
        let theirs = make(&mut tx, "theirs", None).await;
        tx.commit().await.unwrap();
        let mut tx = db.store.tenant(&a).await.unwrap();
        let hung = tx.within().create_organization(organization(), Some(theirs), "x").await;
        assert!(matches!(hung, Err(Error::Missing { .. })), "{hung:?}");
        // It holds the tenant's turn until it ends.
        drop(tx);
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.within().organization(theirs).await.unwrap(), None);
        assert_eq!(tx.within().organizations_from(theirs).await.unwrap(), []);
        assert!(!tx.within().delete_organization(theirs).await.unwrap());
        let changed = tx.within().change_organization(theirs, 1, "x", None).await.unwrap();
        assert_eq!(changed, Edited::Missing);
        drop(tx);
        // The same through the platform's door, where row security shows all: every statement names the tenant.
        let platform = op(TenantId::new(Uuid::new_v4()));
        let mut tx = db.store.admin(&platform, "a test").await.unwrap();
        assert_eq!(tx.within(a.tenant).organization(theirs).await.unwrap(), None);
        assert!(tx.within(b.tenant).organization(theirs).await.unwrap().is_some());
        let hung = tx.within(a.tenant).create_organization(organization(), Some(theirs), "x").await;
        assert!(matches!(hung, Err(Error::Missing { .. })), "{hung:?}");
    })
    .await;
}

#[tokio::test]
async fn a_change_that_names_an_old_revision_changes_nothing() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        let mut within = tx.within();
        let id = organization();
        within.create_organization(id, None, "one").await.unwrap();
        let Edited::Done(second) = within.change_organization(id, 1, "two", None).await.unwrap()
        else {
            panic!("not changed")
        };
        assert_eq!((second.revision, second.name.as_str()), (2, "two"));
        let late = within.change_organization(id, 1, "three", None).await.unwrap();
        assert_eq!(late, Edited::Stale);

        let document =
            |text: &str| json!({"branding": {"name": text}}).as_object().unwrap().clone();
        let empty = within.config().await.unwrap();
        assert_eq!((empty.revision, empty.document.len()), (0, 0));
        let first = within.replace_config(0, 1, &document("one")).await.unwrap();
        assert!(matches!(first, Edited::Done(config) if config.revision == 1));
        let lost = within.replace_config(0, 1, &document("other")).await.unwrap();
        assert_eq!(lost, Edited::Stale);
        let second = within.replace_config(1, 2, &document("two")).await.unwrap();
        let Edited::Done(second) = second else { panic!("{second:?}") };
        assert_eq!((second.revision, second.schema_version), (2, 2));
        assert_eq!(within.config().await.unwrap(), second);
        assert_eq!(within.replace_config(1, 2, &document("x")).await.unwrap(), Edited::Stale);
        tx.commit().await.unwrap();
        let mut tx = db.store.tenant(&a).await.unwrap();
        let long = within_bytes(gatehouse_store::tenant_config::MOST_BYTES);
        let refused = tx.within().replace_config(2, 2, &long).await.unwrap_err();
        assert_eq!(refused.sqlstate().as_deref(), Some("23514"));
    })
    .await;
}

fn within_bytes(bytes: usize) -> serde_json::Map<String, serde_json::Value> {
    json!({"x": "y".repeat(bytes)}).as_object().unwrap().clone()
}

#[tokio::test]
async fn two_hundred_at_a_limit_of_ten_give_ten() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let (db, a) = (Arc::clone(&db), a.clone());
            all.spawn(async move {
                let mut tx = db.store.tenant(&a).await.unwrap();
                let taken = tx.charge(Counted::Agents, 1, 10).await.unwrap();
                tx.commit().await.unwrap();
                taken.is_some()
            });
        }
        let taken = all.join_all().await.into_iter().filter(|taken| *taken).count();
        assert_eq!(taken, 10);
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.used(Counted::Agents).await.unwrap(), 10);
        tx.release(Counted::Agents, 3).await.unwrap();
        assert_eq!(tx.charge(Counted::Agents, 4, 10).await.unwrap(), None);
        assert_eq!(tx.charge(Counted::Agents, 3, 10).await.unwrap(), Some(10));
        assert_eq!(tx.charge(Counted::Tokens, 11, 10).await.unwrap(), None, "the first at all");
        tx.release(Counted::Agents, 99).await.unwrap();
        assert_eq!(tx.used(Counted::Agents).await.unwrap(), 0);
        // What is rolled back took nothing, and another tenant has its own.
        drop(tx);
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.used(Counted::Agents).await.unwrap(), 10);
        drop(tx);
        let mut tx = db.store.tenant(&b).await.unwrap();
        assert_eq!(tx.charge(Counted::Agents, 10, 10).await.unwrap(), Some(10));
        // The next day begins anew.
        assert_eq!(tx.charge(Counted::Executions, 10, 10).await.unwrap(), Some(10));
        tx.commit().await.unwrap();
        let tomorrow = OpCtx { now: b.now + time::Duration::days(1), ..b.clone() };
        let mut tx = db.store.tenant(&tomorrow).await.unwrap();
        assert_eq!(tx.charge(Counted::Executions, 10, 10).await.unwrap(), Some(10));
        assert_eq!(tx.charge(Counted::Agents, 1, 10).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_tenant_has_one_row_of_quotas_from_its_first_moment() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let mut root = db.root().await;
        let count =
            "SELECT count(*) FROM tenant_quotas WHERE tenant_id = $1 AND max_agents IS NULL";
        let rows: i64 =
            sqlx::query_scalar(count).bind(a.tenant.as_uuid()).fetch_one(&mut root).await.unwrap();
        assert_eq!(rows, 1, "NULL is the tier's");
        // What was begun and not committed leaves neither.
        let other = TenantId::new(Uuid::new_v4());
        let mut tx = db.store.admin(&a, "a test").await.unwrap();
        tx.create_tenant(other, "tenant-b", "b", gatehouse_contract::Tier::Pro).await.unwrap();
        drop(tx);
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM tenant_quotas")
            .fetch_one(&mut root)
            .await
            .unwrap();
        assert_eq!(rows, 1);
        let bound = "UPDATE tenant_quotas SET max_agents = -1";
        assert_eq!(refused(&mut root, bound).await, "23514");
    })
    .await;
}

#[tokio::test]
async fn events_of_an_aggregate_are_numbered_without_gaps_whoever_writes_them() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let aggregate = Uuid::new_v4();
        let write = |tenant: TenantId| {
            let db = Arc::clone(&db);
            async move {
                let mut app = db.raw("gatehouse_app").await;
                let insert = format!(
                    "INSERT INTO event_store (tenant_id, aggregate_kind, aggregate_id, id, kind, schema_version,
                        sealed_payload, subject, request_id)
                     VALUES ('{tenant}', 'agent', '{aggregate}', gen_random_uuid(), 'made', 1, '\\x00', 's', 'r')"
                );
                for round in 0..10 {
                    run(&mut app, &format!("BEGIN; SET LOCAL app.current_tenant_id = '{tenant}'; {insert}")).await;
                    // What is rolled back leaves no gap.
                    run(&mut app, if round % 3 == 2 { "ROLLBACK" } else { "COMMIT" }).await;
                }
            }
        };
        tokio::join!(write(a.tenant), write(a.tenant), write(a.tenant), write(b.tenant));
        let mut root = db.root().await;
        for (tenant, expected) in [(a.tenant, 21), (b.tenant, 7)] {
            let seqs: Vec<i64> =
                sqlx::query_scalar("SELECT seq FROM event_store WHERE tenant_id = $1 ORDER BY seq")
                    .bind(tenant.as_uuid())
                    .fetch_all(&mut root)
                    .await
                    .unwrap();
            assert_eq!(seqs, (1..=expected).collect::<Vec<i64>>());
        }
        let mut app = db.raw("gatehouse_app").await;
        for statement in [
            "UPDATE event_store SET kind = 'x'",
            "DELETE FROM event_store",
            "DELETE FROM event_heads",
            "INSERT INTO event_store (tenant_id, seq) VALUES (gen_random_uuid(), 1)",
        ] {
            assert_eq!(refused(&mut app, statement).await, "42501", "{statement}");
        }
    })
    .await;
}

#[tokio::test]
async fn quotas_are_the_platforms_to_set_and_the_tiers_where_it_says_nothing() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let quotas =
            Quotas { max_agents: Some(0), max_tokens_per_day: Some(5), ..Quotas::default() };
        let mut tx = db.store.admin(&a, "they pay for less").await.unwrap();
        assert_eq!(tx.set_quotas(a.tenant, &quotas).await.unwrap(), Changed::Yes);
        assert_eq!(tx.set_quotas(a.tenant, &quotas).await.unwrap(), Changed::No);
        let nobody = TenantId::new(Uuid::new_v4());
        assert_eq!(tx.set_quotas(nobody, &quotas).await.unwrap(), Changed::Missing);
        tx.commit().await.unwrap();
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.within().quotas().await.unwrap(), quotas);
        drop(tx);
        let mut tx = db.store.tenant(&b).await.unwrap();
        assert_eq!(tx.within().quotas().await.unwrap(), Quotas::default());
        let audited = "SELECT FROM tenant_audit WHERE action = 'tenant.quotas'";
        assert_eq!(crate::harness::rows(&mut db.root().await, audited).await, 1);
    })
    .await;
}
