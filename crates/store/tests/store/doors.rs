//! What the doors and look-ups do, and that they leave their trace.

use gatehouse_contract::{AgentId, ClientId, Role, TenantId, TenantStatus, Tier, UserId};
use gatehouse_store::{Error, admin::NewSigningKey, members::NewClient};
use serde_json::json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::harness::{op, rows, with_db};

fn client(id: ClientId) -> NewClient<'static> {
    NewClient { id, name: "client", secret_sha256: [9; 32] }
}

#[tokio::test]
async fn a_mutation_and_its_audit_row_share_their_fate() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let count = async || -> i64 {
            let audit = "SELECT count(*) FROM tenant_audit WHERE action = 'agent.create'";
            sqlx::query_scalar(audit).fetch_one(&mut db.root().await).await.unwrap()
        };
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.create_agent(AgentId::new(Uuid::new_v4()), "fuel", None).await.unwrap();
        drop(tx);
        assert_eq!(count().await, 0);
        db.agent(&a, "fuel").await;
        assert_eq!(count().await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_dropped_transaction_leaves_no_tenant_on_its_connection() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        db.agent(&a, "fuel").await;
        let b = db.tenant("tenant-b").await;
        // More rounds than the pool has connections: each is used again after the other tenant.
        for _ in 0..40 {
            let mut tx = db.store.tenant(&a).await.unwrap();
            assert_eq!(
                tx.list_agents(&gatehouse_store::paging::Page::first(100), None)
                    .await
                    .unwrap()
                    .len(),
                1
            );
            drop(tx);
            let mut tx = db.store.tenant(&b).await.unwrap();
            assert_eq!(
                tx.list_agents(&gatehouse_store::paging::Page::first(100), None).await.unwrap(),
                []
            );
            tx.commit().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn the_admin_door_is_recorded_even_when_its_work_fails() {
    with_db(async |db| {
        let caller = op(TenantId::new(Uuid::new_v4()));
        let tx = db.store.admin(&caller, "looked and left").await.unwrap();
        drop(tx);
        let reasons: Vec<String> =
            sqlx::query_scalar("SELECT reason FROM admin_access ORDER BY id")
                .fetch_all(&mut db.root().await)
                .await
                .unwrap();
        assert_eq!(reasons, ["looked and left"]);
        // No reason, no entry.
        assert!(db.store.admin(&caller, "").await.is_err());
    })
    .await;
}

/// Each statement is short, and no pause is long: the whole ends all the same, and nothing of it is left.
#[tokio::test]
async fn rls4_a_transaction_of_the_platform_ends_when_its_time_is_over_whatever_it_does() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let store = db.store.clone().with_admin_limit(std::time::Duration::from_millis(300));
        let mut tx = store.admin(&a, "a long look").await.unwrap();
        let own = client(ClientId::new(Uuid::new_v4()));
        tx.within(a.tenant).create_client(&own, Role::Viewer).await.unwrap();
        let ended = tokio::time::timeout(std::time::Duration::from_secs(30), async {
            loop {
                if let Err(error) = tx.tenant(a.tenant).await {
                    break error;
                }
            }
        });
        let error = ended.await.expect("the transaction goes on");
        assert!(error.is_unavailable(), "{error:?}");
        tx.commit().await.unwrap_err();
        let mut root = db.root().await;
        let open = "SELECT FROM pg_stat_activity WHERE datname = current_database()
            AND usename = 'gatehouse_admin' AND xact_start IS NOT NULL";
        assert_eq!(rows(&mut root, open).await, 0);
        assert_eq!(rows(&mut root, "SELECT FROM oauth_clients").await, 0);
        // The door opens again, and what ends in time lasts: nobody ends another's session.
        let mut tx = store.admin(&a, "a short one").await.unwrap();
        tx.within(a.tenant).create_client(&own, Role::Viewer).await.unwrap();
        tx.commit().await.unwrap();
        let tx = store.admin(&a, "left open").await.unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(30), async {
            while rows(&mut root, open).await > 0 {}
        })
        .await
        .expect("a transaction that does nothing goes on");
        // Too late to make it last, even for whoever has not noticed.
        let error = tx.commit().await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        assert_eq!(rows(&mut root, "SELECT FROM oauth_clients").await, 1);
    })
    .await;
}

#[tokio::test]
async fn what_the_platform_changes_in_a_tenant_is_audited_with_its_reason() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        let own = client(ClientId::new(Uuid::new_v4()));
        tx.within().create_client(&own, Role::Viewer).await.unwrap();
        tx.commit().await.unwrap();
        let platform = op(TenantId::new(Uuid::new_v4()));
        let mut tx = db.store.admin(&platform, "they asked for one").await.unwrap();
        let new = client(ClientId::new(Uuid::new_v4()));
        tx.within(a.tenant).create_client(&new, Role::Viewer).await.unwrap();
        tx.commit().await.unwrap();
        let reasons: Vec<Option<String>> =
            sqlx::query_scalar("SELECT reason FROM tenant_audit WHERE tenant_id = $1 ORDER BY id")
                .bind(a.tenant.as_uuid())
                .fetch_all(&mut db.root().await)
                .await
                .unwrap();
        let reasons: Vec<_> = reasons.iter().map(Option::as_deref).collect();
        assert_eq!(reasons, [Some("a test's tenant"), None, Some("they asked for one")]);
    })
    .await;
}

#[tokio::test]
async fn clashes_and_missing_parts_are_told_apart() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        db.agent(&a, "fuel").await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        let twice = tx.create_agent(AgentId::new(Uuid::new_v4()), "fuel", None).await;
        assert!(matches!(twice, Err(Error::Conflict { .. })), "{twice:?}");
        let mut tx = db.store.admin(&a, "a test").await.unwrap();
        let slug =
            tx.create_tenant(TenantId::new(Uuid::new_v4()), "tenant-a", "x", Tier::Pro).await;
        assert!(matches!(slug, Err(Error::Conflict { .. })), "{slug:?}");
        let mut tx = db.store.admin(&a, "a test").await.unwrap();
        let nobody = TenantId::new(Uuid::new_v4());
        let new = client(ClientId::new(Uuid::new_v4()));
        let made = tx.within(nobody).create_client(&new, Role::Viewer).await;
        assert!(matches!(made, Err(Error::Missing { .. })), "{made:?}");
    })
    .await;
}

#[tokio::test]
async fn a_deleted_agent_is_gone_and_its_name_free() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let (agent, version) = db.agent(&a, "fuel").await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert!(tx.delete_agent(agent).await.unwrap());
        assert!(!tx.delete_agent(agent).await.unwrap());
        assert_eq!(tx.agent(agent).await.unwrap(), None);
        assert_eq!(tx.version(version).await.unwrap(), None);
        assert_eq!(tx.version_named("fuel", Some("1.0.0")).await.unwrap(), None);
        tx.commit().await.unwrap();
        db.agent(&a, "fuel").await;
    })
    .await;
}

#[tokio::test]
async fn the_record_of_a_principal_is_found_by_tenant_and_subject() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let b = db.tenant("tenant-b").await;
        let id = ClientId::new(Uuid::new_v4());
        let user = UserId::new(Uuid::new_v4());
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().create_client(&client(id), Role::Developer).await.unwrap();
        tx.within().create_user(user, "a@example.com", Role::Viewer).await.unwrap();
        tx.commit().await.unwrap();
        let find =
            async |tenant, subject| db.store.lookup().principal(tenant, subject).await.unwrap();
        let facts = find(a.tenant, id.as_uuid()).await.unwrap();
        assert_eq!(facts.roles.to_string(), "developer");
        assert_eq!((facts.status, facts.tier), (TenantStatus::Active, Tier::Free));
        assert!(!facts.platform);
        assert_eq!(find(a.tenant, user.as_uuid()).await.unwrap().roles.to_string(), "viewer");
        assert_eq!(find(b.tenant, id.as_uuid()).await, None, "another tenant's");
        assert_eq!(find(a.tenant, Uuid::new_v4()).await, None);

        let found = db.store.lookup().oauth_client(id).await.unwrap().unwrap();
        assert_eq!((found.tenant, found.secret_sha256), (a.tenant, [9; 32]));
        assert_eq!(
            db.store.lookup().oauth_client(ClientId::new(Uuid::new_v4())).await.unwrap(),
            None
        );

        // A change of the tenant's record makes the facts newer.
        let mut root = db.root().await;
        crate::harness::run(
            &mut root,
            &format!("UPDATE tenants SET tier = 'pro' WHERE id = '{}'", a.tenant),
        )
        .await;
        let newer = find(a.tenant, id.as_uuid()).await.unwrap();
        assert_eq!(newer.tier, Tier::Pro);
        assert!(newer.epoch > facts.epoch);
    })
    .await;
}

#[tokio::test]
async fn the_platform_membership_is_apart_from_the_roles() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = ClientId::new(Uuid::new_v4());
        let mut tx = db.store.admin(&a, "a test").await.unwrap();
        tx.create_platform_client(a.tenant, &client(id)).await.unwrap();
        assert_eq!(tx.platform_client(a.tenant, "client").await.unwrap(), Some(id));
        assert!(tx.within(a.tenant).replace_client_secret(id, [1; 32]).await.unwrap());
        tx.commit().await.unwrap();
        let facts = db.store.lookup().principal(a.tenant, id.as_uuid()).await.unwrap().unwrap();
        assert!(facts.platform);
        assert_eq!(facts.roles.to_string(), "");
        let found = db.store.lookup().oauth_client(id).await.unwrap().unwrap();
        assert_eq!(found.secret_sha256, [1; 32]);
    })
    .await;
}

#[tokio::test]
async fn one_key_signs_and_its_forerunner_stays_published_for_a_while() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let jwk = json!({"kty": "RSA"});
        let key = |kid: &'static str| NewSigningKey {
            kid,
            jwk: &jwk,
            sealed_private: b"sealed",
            issuer: "https://auth.test",
        };
        let rotate = async |kid: &'static str, from, until| {
            let mut tx = db.store.admin(&a, "a test").await.unwrap();
            let done = tx.rotate_signing_key(&key(kid), from, until).await;
            tx.commit().await.unwrap();
            done
        };
        let published = async || -> Vec<String> {
            let keys = db.store.lookup().published_keys().await.unwrap();
            keys.into_iter().map(|key| key.kid).collect()
        };
        assert!(db.store.lookup().signing_key().await.unwrap().is_none());
        let mut tx = db.store.admin(&a, "a test").await.unwrap();
        tx.create_signing_key(&key("one")).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = db.store.admin(&a, "a test").await.unwrap();
        let second = tx.create_signing_key(&key("other")).await;
        assert!(matches!(second, Err(Error::Conflict { .. })), "{second:?}");
        drop(tx);

        let now = OffsetDateTime::now_utc();
        rotate("two", now, now + Duration::hours(1)).await.unwrap();
        assert_eq!(published().await, ["two", "one"]);
        assert_eq!(db.store.lookup().signing_key().await.unwrap().unwrap().kid, "two");
        // Its tokens are dead: "two" leaves at once.
        rotate("three", OffsetDateTime::now_utc(), now - Duration::hours(1)).await.unwrap();
        assert_eq!(published().await, ["three", "one"]);
        // Published at once, signs later: meanwhile the one before does.
        let later = now + Duration::hours(1);
        rotate("four", later, later + Duration::hours(1)).await.unwrap();
        assert_eq!(published().await, ["four", "three", "one"]);
        assert_eq!(db.store.lookup().signing_key().await.unwrap().unwrap().kid, "three");
    })
    .await;
}
