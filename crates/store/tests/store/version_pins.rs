//! A tenant's pinned API version: who may set it, whose facts have it, and what is told of it.

use gatehouse_contract::{ApiKeyId, ApiVersion, Role, TenantId, UserId, sidecar::PrincipalFacts};
use gatehouse_store::{OpCtx, members::Changed};
use uuid::Uuid;

use crate::harness::{Db, key, refused, with_db};

async fn pin(db: &Db, op: &OpCtx, version: Option<&str>) -> Changed {
    let version: Option<ApiVersion> = version.map(|version| version.parse().unwrap());
    let mut tx = db.store.tenant(op).await.unwrap();
    let changed = tx.within().set_version_pin(version.as_ref()).await.unwrap();
    tx.commit().await.unwrap();
    changed
}

async fn pinned(db: &Db, op: &OpCtx) -> Option<String> {
    let mut tx = db.store.tenant(op).await.unwrap();
    tx.within().version_pin().await.unwrap().map(|pin| pin.to_string())
}

/// Of a user, of a key, and of somebody whom the record does not know.
async fn facts(db: &Db, op: &OpCtx, (user, key): (Uuid, ApiKeyId)) -> [PrincipalFacts; 3] {
    let lookup = db.store.lookup();
    [
        lookup.principal(op.tenant, user).await.unwrap().unwrap(),
        lookup.api_key(key).await.unwrap().unwrap().facts,
        lookup.outsider(op.tenant, "ext:x").await.unwrap().unwrap(),
    ]
}

#[tokio::test]
async fn v5_a_tenants_pin_is_in_the_facts_of_every_kind_of_principal() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let mut people = Vec::new();
        for op in [&a, &b] {
            let (user, key_id) = (Uuid::new_v4(), Uuid::new_v4());
            let mut tx = db.store.tenant(op).await.unwrap();
            let mut within = tx.within();
            within.create_user(UserId::new(user), "x@example.com", Role::Viewer).await.unwrap();
            within.create_api_key(&key(key_id)).await.unwrap();
            tx.commit().await.unwrap();
            people.push((user, ApiKeyId::new(key_id)));
        }
        let before = facts(&db, &a, people[0]).await;
        assert!(before.iter().all(|facts| facts.version_pin.is_none()));

        assert_eq!(pin(&db, &a, Some("v1-beta")).await, Changed::Yes);
        let after = facts(&db, &a, people[0]).await;
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(after.version_pin.as_deref(), Some("v1-beta"));
            assert!(after.epoch > before.epoch, "they are newer");
        }
        let others = facts(&db, &b, people[1]).await;
        assert!(others.iter().all(|facts| facts.version_pin.is_none()), "another tenant's");

        assert_eq!(pin(&db, &a, None).await, Changed::Yes);
        for (before, after) in after.iter().zip(&facts(&db, &a, people[0]).await) {
            assert_eq!(after.version_pin, None);
            assert!(after.epoch > before.epoch, "what went makes them newer, too");
        }
    })
    .await;
}

#[tokio::test]
async fn a_pin_is_told_and_audited_once_by_the_tenant_or_the_platform() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        sqlx::raw_sql("DELETE FROM outbox").execute(&mut db.root().await).await.unwrap();
        assert_eq!(pin(&db, &a, Some("v1")).await, Changed::Yes);
        assert_eq!(pin(&db, &a, Some("v1")).await, Changed::No);
        let mut tx = db.store.admin(&a, "a test").await.unwrap();
        let v2: ApiVersion = "v2".parse().unwrap();
        let changed = tx.within(a.tenant).set_version_pin(Some(&v2)).await.unwrap();
        assert_eq!(changed, Changed::Yes);
        let nobody = TenantId::new(Uuid::new_v4());
        let missing = tx.within(nobody).set_version_pin(Some(&v2)).await.unwrap();
        assert_eq!(missing, Changed::Missing);
        tx.commit().await.unwrap();
        let counted: (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM outbox WHERE kind = 'tenant'), count(*), count(reason)
             FROM tenant_audit WHERE action = 'tenant.version_pin'",
        )
        .fetch_one(&mut db.root().await)
        .await
        .unwrap();
        assert_eq!(counted, (2, 2, 1));
        // What is not committed is neither set nor told.
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().set_version_pin(None).await.unwrap();
        drop(tx);
        assert_eq!(pinned(&db, &a).await.as_deref(), Some("v2"));
    })
    .await;
}

#[tokio::test]
async fn a_tenant_pins_itself_and_changes_nothing_else_of_any_record() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let mut app = db.raw("gatehouse_app").await;
        let act_as = format!("SET app.current_tenant_id = '{}'", b.tenant);
        sqlx::raw_sql(sqlx::AssertSqlSafe(act_as)).execute(&mut app).await.unwrap();
        let done = sqlx::query("UPDATE tenants SET version_pin = 'v9'").execute(&mut app).await;
        assert_eq!(done.unwrap().rows_affected(), 1, "its own row alone");
        assert_eq!((pinned(&db, &a).await, pinned(&db, &b).await), (None, Some("v9".to_owned())));
        for (statement, state) in [
            ("UPDATE tenants SET tier = 'enterprise'", "42501"),
            ("UPDATE tenants SET status = 'active'", "42501"),
            ("UPDATE tenants SET epoch = 0", "42501"),
            // The form stands in the schema, too.
            ("UPDATE tenants SET version_pin = 'v 1'", "23514"),
            ("UPDATE tenants SET version_pin = '..'", "23514"),
            ("UPDATE tenants SET version_pin = ''", "23514"),
            ("UPDATE tenants SET version_pin = repeat('v', 33)", "23514"),
        ] {
            assert_eq!(refused(&mut app, statement).await, state, "{statement}");
        }
    })
    .await;
}
