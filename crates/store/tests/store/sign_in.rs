//! Issuers, the users that their subjects are, sign-ins under way and sessions.

use std::{collections::BTreeMap, time::Duration as Wait};

use gatehouse_contract::{IssuerId, Role, Roles, UserId, sidecar::Change};
use gatehouse_store::{
    Error, OffsetDateTime, OpCtx,
    identities::Standing,
    issuers::{ClientAuth, RolesSource, Settings},
    members::Member,
    sessions::{Attempt, NewSession},
};
use time::Duration;
use uuid::Uuid;

use crate::harness::{Db, refused, rows, run, with_db};

const IDP: &str = "https://idp.example";

fn settings() -> Settings {
    Settings {
        name: "IdP".to_owned(),
        issuer: IDP.to_owned(),
        client_id: "us".to_owned(),
        client_auth: ClientAuth::Basic,
        jwks_uri: None,
        scopes: vec!["openid".to_owned()],
        audiences: vec!["https://api.example".to_owned()],
        algorithms: vec!["RS256".to_owned()],
        max_role: Role::Developer,
        subject_claim: "/sub".to_owned(),
        email_claim: "/email".to_owned(),
        groups_claim: Some("/groups".to_owned()),
        role_map: BTreeMap::from([("dev".to_owned(), Role::Developer)]),
        required_claims: BTreeMap::from([("/hd".to_owned(), "example.com".to_owned())]),
        roles_source: RolesSource::Token,
        allow_sign_in: true,
        access_tokens_only: true,
        allow_bearer: true,
        enabled: true,
    }
}

/// An issuer of the tenant, entered by the tenant itself.
async fn issuer(db: &Db, op: &OpCtx) -> IssuerId {
    let id = IssuerId::new(Uuid::new_v4());
    let mut tx = db.store.tenant(op).await.unwrap();
    tx.within().create_issuer(id, &settings(), Some(b"sealed")).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn user(db: &Db, op: &OpCtx, email: &str) -> UserId {
    let id = UserId::new(Uuid::new_v4());
    let mut tx = db.store.tenant(op).await.unwrap();
    tx.within().create_federated_user(id, email, Roles::NONE.with(Role::Developer)).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn session(db: &Db, op: &OpCtx, of: (UserId, IssuerId), secret: u8) -> Uuid {
    let new = NewSession {
        id: Uuid::new_v4(),
        secret_sha256: [secret; 32],
        user: of.0,
        issuer: of.1,
        idle: Wait::from_secs(1800),
        expires_at: OffsetDateTime::now_utc() + Duration::hours(12),
    };
    let mut tx = db.store.tenant(op).await.unwrap();
    tx.within().create_session(&new).await.unwrap();
    tx.commit().await.unwrap();
    new.id
}

async fn told(db: &Db) -> Vec<Change> {
    let payloads: Vec<serde_json::Value> =
        sqlx::query_scalar("SELECT payload FROM outbox ORDER BY id")
            .fetch_all(&mut db.root().await)
            .await
            .unwrap();
    payloads.into_iter().map(|payload| serde_json::from_value(payload).unwrap()).collect()
}

#[tokio::test]
async fn an_issuer_reads_as_it_was_entered_and_keeps_its_secret() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let id = issuer(&db, &a).await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        let found = tx.within().issuer(id).await.unwrap().unwrap();
        assert_eq!((&found.settings, found.by_platform), (&settings(), false));
        assert_eq!(found.sealed_client_secret, None, "a door has no way to the secret");
        let other = IssuerId::new(Uuid::new_v4());
        let again = tx.within().create_issuer(other, &settings(), Some(b"x")).await;
        assert!(matches!(again, Err(Error::Conflict { .. })));
        drop(tx);
        let mut tx = db.store.tenant(&b).await.unwrap();
        assert!(tx.within().issuer(id).await.unwrap().is_none(), "another tenant's");
        assert!(!tx.within().delete_issuer(id).await.unwrap());
        assert!(
            tx.within()
                .list_issuers(&gatehouse_store::paging::Page::first(100))
                .await
                .unwrap()
                .is_empty()
        );
        drop(tx);
        let looked = db.store.lookup().issuer(id).await.unwrap().unwrap();
        assert_eq!(looked.sealed_client_secret.as_deref(), Some(&b"sealed"[..]));
        let mut changed = settings();
        changed.max_role = Role::Viewer;
        let mut tx = db.store.tenant(&a).await.unwrap();
        let kept = tx.within().replace_issuer(id, &changed, None).await.unwrap().unwrap();
        assert_eq!(kept.settings.max_role, Role::Viewer);
        tx.commit().await.unwrap();
        let looked = db.store.lookup().issuer(id).await.unwrap().unwrap();
        assert_eq!(looked.sealed_client_secret.as_deref(), Some(&b"sealed"[..]));
        assert!(looked.epoch > found.epoch);
        changed.client_auth = ClientAuth::None;
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().replace_issuer(id, &changed, None).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        let looked = db.store.lookup().issuer(id).await.unwrap().unwrap();
        assert_eq!(looked.sealed_client_secret, None, "a public client has none");
        let mut app = db.raw("gatehouse_app").await;
        run(
            &mut app,
            &format!("BEGIN; SELECT set_config('app.current_tenant_id', '{}', true)", a.tenant),
        )
        .await;
        assert_eq!(refused(&mut app, "SELECT sealed_client_secret FROM issuers").await, "42501");
    })
    .await;
}

#[tokio::test]
async fn an_address_is_the_platforms_only_while_the_platform_named_it() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = IssuerId::new(Uuid::new_v4());
        let mut tx = db.store.admin(&a, "a test's issuer").await.unwrap();
        let made = tx.within(a.tenant).create_issuer(id, &settings(), Some(b"x")).await.unwrap();
        assert!(made.by_platform);
        tx.commit().await.unwrap();
        let mut renamed = settings();
        renamed.name = "Other".to_owned();
        let mut tx = db.store.tenant(&a).await.unwrap();
        let kept = tx.within().replace_issuer(id, &renamed, None).await.unwrap().unwrap();
        assert!(kept.by_platform, "the address is still what the platform named");
        drop(tx);
        for (issuer, jwks) in [("http://127.0.0.1:1", None), (IDP, Some("http://127.0.0.1:1/jwks"))]
        {
            let mut moved = settings();
            moved.issuer = issuer.to_owned();
            moved.jwks_uri = jwks.map(str::to_owned);
            let mut tx = db.store.tenant(&a).await.unwrap();
            let moved = tx.within().replace_issuer(id, &moved, None).await.unwrap().unwrap();
            assert!(!moved.by_platform, "{issuer} {jwks:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_same_subject_at_two_issuers_is_two_users_and_an_invitation_is_found_once() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        issuer(&db, &a).await;
        // One address at two providers.
        let (one, two) =
            (user(&db, &a, "ada@example.com").await, user(&db, &a, "ada@example.com").await);
        let mut tx = db.store.tenant(&a).await.unwrap();
        let mut within = tx.within();
        within.link_identity(one, IDP, "ada").await.unwrap();
        within.link_identity(two, "https://other.example", "ada").await.unwrap();
        assert_eq!(within.identity(IDP, "ada").await.unwrap(), Some(one));
        assert_eq!(within.identity("https://other.example", "ada").await.unwrap(), Some(two));
        assert_eq!(within.identity(IDP, "Ada").await.unwrap(), None, "byte for byte");
        tx.commit().await.unwrap();
        let who = async |tenant, issuer, subject| {
            let found = db.store.lookup().identity(tenant, issuer, subject).await.unwrap();
            (found.user, found.issuer)
        };
        let taken = Standing::Taken(Role::Developer);
        assert_eq!(who(a.tenant, IDP, "ada").await, (Some(one), taken));
        assert_eq!(who(a.tenant, IDP, "bob").await, (None, taken));
        assert_eq!(
            who(a.tenant, "https://other.example", "ada").await,
            (Some(two), Standing::Unknown)
        );
        assert_eq!(who(b.tenant, IDP, "ada").await, (None, Standing::Elsewhere), "another tenant");
        let mut tx = db.store.tenant(&a).await.unwrap();
        let mut within = tx.within();
        assert_eq!(within.invited("ada@example.com").await.unwrap(), None, "nobody was invited");
        let invited = UserId::new(Uuid::new_v4());
        within.create_user(invited, "Bob@example.com", Role::Viewer).await.unwrap();
        assert_eq!(within.invited("bob@example.com").await.unwrap(), Some(invited));
        within.link_identity(invited, IDP, "bob").await.unwrap();
        assert_eq!(within.invited("bob@example.com").await.unwrap(), None, "it was taken up");
    })
    .await;
}

#[tokio::test]
async fn roles_follow_the_groups_but_the_last_admin_stays() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let who = user(&db, &a, "ada@example.com").await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        let mut within = tx.within();
        let roles = |list: &[Role]| list.iter().copied().collect::<Roles>();
        assert!(within.set_roles(who, roles(&[Role::Admin, Role::Viewer])).await.unwrap());
        assert!(!within.set_roles(who, roles(&[Role::Viewer])).await.unwrap(), "the only admin");
        within
            .create_user(UserId::new(Uuid::new_v4()), "b@example.com", Role::Admin)
            .await
            .unwrap();
        assert!(within.set_roles(who, roles(&[Role::Viewer])).await.unwrap());
        tx.commit().await.unwrap();
        let held: Vec<String> =
            sqlx::query_scalar("SELECT role FROM memberships WHERE user_id = $1")
                .bind(who.as_uuid())
                .fetch_all(&mut db.root().await)
                .await
                .unwrap();
        assert_eq!(held, ["viewer"]);
    })
    .await;
}

#[tokio::test]
async fn a_sign_in_comes_back_once_and_to_its_own_browser() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        let id = issuer(&db, &a).await;
        let attempt = |state: u8, minutes: i64| Attempt {
            state_sha256: [state; 32],
            browser_sha256: [9; 32],
            issuer: id,
            nonce: "n".to_owned(),
            sealed_verifier: vec![1],
            return_to: "/app".to_owned(),
            expires_at: OffsetDateTime::now_utc() + Duration::minutes(minutes),
        };
        let mut tx = db.store.tenant(&a).await.unwrap();
        let (good, late) = (attempt(1, 10), attempt(2, -1));
        tx.within().begin_login(&late).await.unwrap();
        tx.within().begin_login(&good).await.unwrap();
        // Nobody has forgotten this one yet.
        tx.within().begin_login(&attempt(4, -1)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(db.store.lookup().login([1; 32]).await.unwrap(), Some(a.tenant));
        assert_eq!(db.store.lookup().login([3; 32]).await.unwrap(), None);
        assert_eq!(db.store.lookup().login([2; 32]).await.unwrap(), None, "forgotten: too late");
        let take = async |op: &OpCtx, state: u8, browser: u8| {
            let mut tx = db.store.tenant(op).await.unwrap();
            let taken = tx.within().take_login([state; 32], [browser; 32]).await.unwrap();
            tx.commit().await.unwrap();
            taken.is_some()
        };
        assert!(!take(&a, 1, 8).await, "another browser");
        assert!(!take(&b, 1, 9).await, "another tenant");
        assert!(!take(&a, 4, 9).await, "too late");
        assert!(take(&a, 1, 9).await);
        assert!(!take(&a, 1, 9).await, "a second time");
    })
    .await;
}

#[tokio::test]
async fn a_session_lives_until_idle_absolute_end_revocation_or_its_issuers_end() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = issuer(&db, &a).await;
        let who = user(&db, &a, "ada@example.com").await;
        let alive = async |secret: u8| db.store.lookup().session([secret; 32]).await.unwrap();
        let one = session(&db, &a, (who, id), 1).await;
        let found = alive(1).await.unwrap();
        assert_eq!((found.id, found.tenant, found.user), (one, a.tenant, who));
        assert_eq!(found.max_role, Role::Developer);
        assert!(found.ends_at <= OffsetDateTime::now_utc() + Duration::minutes(30));
        assert!(alive(2).await.is_none());
        let mut root = db.root().await;
        run(&mut root, "UPDATE sessions SET last_seen_at = now() - interval '31 min'").await;
        assert!(alive(1).await.is_none(), "not used for too long");
        run(&mut root, "UPDATE sessions SET last_seen_at = now() - interval '29 min'").await;
        assert!(alive(1).await.is_some());
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().touch_session(one).await.unwrap();
        tx.commit().await.unwrap();
        assert!(alive(1).await.unwrap().last_seen_at > found.last_seen_at - Duration::seconds(60));
        run(&mut root, "UPDATE sessions SET expires_at = now() - interval '1 s'").await;
        assert!(alive(1).await.is_none(), "at the latest then, used or not");
        let two = session(&db, &a, (who, id), 2).await;
        assert_eq!(rows(&mut root, "SELECT 1 FROM sessions").await, 1, "what ended is gone");
        let before = told(&db).await.len();
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert!(tx.within().revoke_session(two).await.unwrap());
        assert!(!tx.within().revoke_session(two).await.unwrap());
        tx.commit().await.unwrap();
        assert!(alive(2).await.is_none());
        assert_eq!(told(&db).await[before..], [Change::Credential { credential: two.to_string() }]);
        session(&db, &a, (who, id), 3).await;
        let mut off = settings();
        off.enabled = false;
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().replace_issuer(id, &off, None).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        assert!(alive(3).await.is_none(), "with its issuer");
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().replace_issuer(id, &settings(), None).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        assert!(alive(3).await.is_none(), "and it does not come back");
        session(&db, &a, (who, id), 4).await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert!(tx.within().delete_issuer(id).await.unwrap());
        tx.commit().await.unwrap();
        assert!(alive(4).await.is_none());
        assert!(told(&db).await.contains(&Change::Keys { issuer: IDP.to_owned() }));
    })
    .await;
}

#[tokio::test]
async fn the_keys_that_judge_a_token_are_the_tenants_own_first() {
    with_db(async |db| {
        let (a, b, c) =
            (db.tenant("tenant-a").await, db.tenant("tenant-b").await, db.tenant("tenant-c").await);
        let (of_a, of_b) = (issuer(&db, &a).await, issuer(&db, &b).await);
        let judge = async |tenant, name: &str| {
            let found = db.store.lookup().token_issuer(name, tenant).await.unwrap();
            found.map(|issuer| (issuer.id, issuer.tenant))
        };
        assert_eq!(judge(a.tenant, IDP).await, Some((of_a, a.tenant)));
        assert_eq!(judge(b.tenant, IDP).await, Some((of_b, b.tenant)));
        assert_eq!(judge(c.tenant, IDP).await, Some((of_a, a.tenant)), "another's: compare");
        assert_eq!(judge(a.tenant, "https://idp.example/").await, None);
        let mut off = settings();
        off.allow_bearer = false;
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().replace_issuer(of_a, &off, None).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        assert_eq!(judge(a.tenant, IDP).await, Some((of_b, b.tenant)));
        let found = db.store.lookup().identity(a.tenant, IDP, "ada").await.unwrap();
        assert_eq!(found.issuer, Standing::Refused);
    })
    .await;
}

#[tokio::test]
async fn ending_all_tokens_of_a_user_ends_its_sessions_and_no_other() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = issuer(&db, &a).await;
        let (who, other) =
            (user(&db, &a, "a@example.com").await, user(&db, &a, "b@example.com").await);
        let alive = async |secret: u8| db.store.lookup().session([secret; 32]).await.unwrap();
        session(&db, &a, (other, id), 1).await;
        for (secret, by_platform) in [(2, false), (3, true)] {
            let ends = session(&db, &a, (who, id), secret).await;
            assert!(alive(secret).await.is_some());
            let before = told(&db).await.len();
            let (now, member) = (OffsetDateTime::now_utc(), Member::User(who));
            if by_platform {
                let mut tx = db.store.admin(&a, "a test").await.unwrap();
                tx.within(a.tenant).revoke_tokens_of(member, now, now).await.unwrap();
                tx.commit().await.unwrap();
            } else {
                let mut tx = db.store.tenant(&a).await.unwrap();
                tx.within().revoke_tokens_of(member, now, now).await.unwrap();
                tx.commit().await.unwrap();
            }
            assert!(alive(secret).await.is_none());
            let ended = Change::Credential { credential: ends.to_string() };
            assert_eq!(
                told(&db).await[before..].iter().filter(|change| **change == ended).count(),
                1
            );
        }
        assert!(alive(1).await.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_tenant_sees_its_own_issuers_identities_sign_ins_and_sessions_alone() {
    with_db(async |db| {
        let (a, b) = (db.tenant("tenant-a").await, db.tenant("tenant-b").await);
        for (secret, op) in [(1, &a), (2, &b)] {
            let (id, who) = (issuer(&db, op).await, user(&db, op, "ada@example.com").await);
            session(&db, op, (who, id), secret).await;
            let mut tx = db.store.tenant(op).await.unwrap();
            tx.within().link_identity(who, IDP, "ada").await.unwrap();
            let attempt = Attempt {
                state_sha256: [secret; 32],
                browser_sha256: [9; 32],
                issuer: id,
                nonce: "n".to_owned(),
                sealed_verifier: vec![1],
                return_to: "/".to_owned(),
                expires_at: OffsetDateTime::now_utc() + Duration::minutes(10),
            };
            tx.within().begin_login(&attempt).await.unwrap();
            tx.commit().await.unwrap();
        }
        let mut app = db.raw("gatehouse_app").await;
        for table in ["issuers", "user_identities", "login_attempts", "sessions"] {
            let all = format!("SELECT tenant_id FROM {table}");
            assert_eq!(rows(&mut app, &all).await, 0, "{table} without a tenant");
            let enter =
                format!("BEGIN; SELECT set_config('app.current_tenant_id', '{}', true)", a.tenant);
            run(&mut app, &enter).await;
            assert_eq!(rows(&mut app, &all).await, 1, "{table} of its own");
            let theirs = format!("{all} WHERE tenant_id = '{}'", b.tenant);
            assert_eq!(rows(&mut app, &theirs).await, 0, "{table} of another's");
            run(&mut app, "COMMIT").await;
        }
        run(
            &mut app,
            &format!("BEGIN; SELECT set_config('app.current_tenant_id', '{}', true)", a.tenant),
        )
        .await;
        assert_eq!(refused(&mut app, "SELECT secret_sha256 FROM sessions").await, "42501");
    })
    .await;
}
