//! A tenant's own limits: who may set them, whose facts have them, and what is told of them.

use gatehouse_contract::{
    ApiKeyId, Role, TenantId, UserId,
    sidecar::{EndpointOverride, Overrides, PrincipalFacts, QuotaWarning},
};
use gatehouse_store::{OpCtx, members::Changed};
use uuid::Uuid;

use crate::harness::{Db, key, refused, with_db};

fn limits() -> Overrides {
    let endpoint = EndpointOverride {
        method: "POST".to_owned(),
        route: "/api/v1/registry/agents".to_owned(),
        per_window: 0,
    };
    Overrides {
        per_window: Some(16_777_215),
        burst_multiplier: Some(0),
        per_day: Some(u32::MAX),
        endpoints: vec![endpoint],
    }
}

async fn set(db: &Db, op: &OpCtx, tenant: TenantId, limits: &Overrides) -> Changed {
    let mut tx = db.store.admin(op, "a test").await.unwrap();
    let changed = tx.set_limits(tenant, limits).await.unwrap();
    tx.commit().await.unwrap();
    changed
}

async fn count(db: &Db, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&mut db.root().await).await.unwrap()
}

/// Of a user, of a key, and of somebody whom the record does not know.
async fn facts(db: &Db, op: &OpCtx, user: Uuid, key: ApiKeyId) -> [PrincipalFacts; 3] {
    let lookup = db.store.lookup();
    [
        lookup.principal(op.tenant, user).await.unwrap().unwrap(),
        lookup.api_key(key).await.unwrap().unwrap().facts,
        lookup.outsider(op.tenant, "ext:x").await.unwrap().unwrap(),
    ]
}

#[tokio::test]
async fn a_tenants_limits_are_in_the_facts_of_every_kind_of_principal() {
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
        let ((of_a, key_a), (of_b, key_b)) = (people[0], people[1]);
        let before = facts(&db, &a, of_a, key_a).await;
        assert!(before.iter().all(|facts| facts.limits.is_none()));

        assert_eq!(set(&db, &b, a.tenant, &limits()).await, Changed::Yes);
        let after = facts(&db, &a, of_a, key_a).await;
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(after.limits, Some(limits()));
            assert!(after.epoch > before.epoch, "they are newer");
        }
        let others = facts(&db, &b, of_b, key_b).await;
        assert!(others.iter().all(|facts| facts.limits.is_none()));
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.within().limits().await.unwrap(), limits());

        assert_eq!(set(&db, &b, a.tenant, &Overrides::default()).await, Changed::Yes);
        let cleared = facts(&db, &a, of_a, key_a).await;
        for (before, after) in after.iter().zip(&cleared) {
            assert_eq!(after.limits, None);
            assert!(after.epoch > before.epoch, "what went makes them newer, too");
        }
    })
    .await;
}

#[tokio::test]
async fn a_change_of_limits_is_told_and_audited_once_and_of_a_tenant_alone() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        sqlx::raw_sql("DELETE FROM outbox").execute(&mut db.root().await).await.unwrap();
        assert_eq!(set(&db, &a, a.tenant, &limits()).await, Changed::Yes);
        assert_eq!(set(&db, &a, a.tenant, &limits()).await, Changed::No);
        let nobody = TenantId::new(Uuid::new_v4());
        assert_eq!(set(&db, &a, nobody, &limits()).await, Changed::Missing);
        let told = "SELECT count(*) FROM outbox WHERE kind = 'tenant'";
        let audited = "SELECT count(*) FROM tenant_audit WHERE action = 'tenant.limits' AND reason = 'a test'";
        assert_eq!((count(&db, told).await, count(&db, audited).await), (1, 1));
        // What is not committed is neither set nor told.
        let mut tx = db.store.admin(&a, "a test").await.unwrap();
        tx.set_limits(a.tenant, &Overrides::default()).await.unwrap();
        drop(tx);
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.within().limits().await.unwrap(), limits());
        assert_eq!((count(&db, told).await, count(&db, audited).await), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_tenant_reads_its_limits_and_changes_none() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        set(&db, &a, a.tenant, &limits()).await;
        let mut app = db.raw("gatehouse_app").await;
        let act_as = format!("SET app.current_tenant_id = '{}'", b.tenant);
        sqlx::raw_sql(sqlx::AssertSqlSafe(act_as)).execute(&mut app).await.unwrap();
        let seen: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT tenant_id FROM tenant_quotas")
            .fetch_all(&mut app)
            .await
            .unwrap();
        assert_eq!(seen, [b.tenant.as_uuid()], "its own, made with it; not another tenant's");
        for statement in [
            "UPDATE tenant_quotas SET max_api_calls = 5",
            "DELETE FROM tenant_quotas",
            "INSERT INTO tenant_quotas (tenant_id) SELECT id FROM tenants",
            "UPDATE quota_alerts SET used = 0",
            "DELETE FROM quota_alerts",
        ] {
            assert_eq!(refused(&mut app, statement).await, "42501", "{statement}");
        }
        // The bounds stand in the schema, too.
        let mut tx = db.store.admin(&a, "a test").await.unwrap();
        let beyond = Overrides { per_window: Some(16_777_216), ..Overrides::default() };
        let error = tx.set_limits(a.tenant, &beyond).await.unwrap_err();
        assert_eq!(error.sqlstate().as_deref(), Some("23514"));
    })
    .await;
}

#[tokio::test]
async fn a_days_warning_is_recorded_once_whoever_tells_it() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let tell = async |op: &OpCtx, day: u32, used: u32| {
            let warning = QuotaWarning { tenant: op.tenant, day, used, limit: 100 };
            let mut tx = db.store.tenant(op).await.unwrap();
            let new = tx.within().record_quota_warning(&warning).await.unwrap();
            tx.commit().await.unwrap();
            new
        };
        // The two sidecars of a test at the same time.
        let (one, other) = tokio::join!(tell(&a, 20_000, 80), tell(&a, 20_000, 81));
        assert!(one != other, "one of them is the first");
        assert!(!tell(&a, 20_000, 95).await);
        assert!(tell(&a, 20_001, 80).await, "the next day");
        assert!(tell(&b, 20_000, 80).await, "another tenant");
        let audited = "SELECT count(*) FROM tenant_audit WHERE action = 'quota.warning'";
        assert_eq!(count(&db, audited).await, 3);
        let day =
            "SELECT count(*) FROM quota_alerts WHERE day = DATE '2024-10-04' AND percent = 80";
        assert_eq!(count(&db, day).await, 2);
    })
    .await;
}
