//! Members of a tenant: several roles, suspension, removal, and the last admin who stays.

use gatehouse_contract::{ApiKeyId, ClientId, Role, Roles, UserId};
use gatehouse_store::{
    Error, OpCtx,
    members::{Changed, Member, NewClient, Which},
};
use uuid::Uuid;

use crate::harness::{Db, key, with_db};

async fn user(db: &Db, op: &OpCtx, email: &str, role: Role) -> Member {
    let id = UserId::new(Uuid::new_v4());
    let mut tx = db.store.tenant(op).await.unwrap();
    tx.within().create_user(id, email, role).await.unwrap();
    tx.commit().await.unwrap();
    Member::User(id)
}

async fn client(db: &Db, op: &OpCtx, role: Role) -> Member {
    let id = ClientId::new(Uuid::new_v4());
    let new = NewClient { id, name: "client", secret_sha256: [9; 32] };
    let mut tx = db.store.tenant(op).await.unwrap();
    tx.within().create_client(&new, role).await.unwrap();
    tx.commit().await.unwrap();
    Member::Client(id)
}

/// What waits in the outbox, and then nothing.
async fn told(db: &Db) -> Vec<String> {
    let query = "WITH gone AS (DELETE FROM outbox RETURNING id, payload)
        SELECT payload ->> 'kind' || ' ' || coalesce(payload ->> 'subject', payload ->> 'credential',
            payload ->> 'tenant', payload ->> 'deny') FROM gone ORDER BY id";
    sqlx::query_scalar(query).fetch_all(&mut db.root().await).await.unwrap()
}

async fn facts(db: &Db, op: &OpCtx, member: Member) -> Option<(String, bool, u64)> {
    let facts = db.store.lookup().principal(op.tenant, member.id()).await.unwrap()?;
    Some((facts.roles.to_string(), facts.suspended, facts.epoch))
}

#[tokio::test]
async fn a_member_has_several_roles_and_each_change_is_told_audited_and_newer() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let member = user(&db, &a, "a@example.com", Role::Viewer).await;
        told(&db).await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.within().grant_role(member, Role::Developer).await.unwrap(), Changed::Yes);
        assert_eq!(tx.within().grant_role(member, Role::Developer).await.unwrap(), Changed::No);
        tx.commit().await.unwrap();
        assert_eq!(told(&db).await, [format!("subject {}", member.id())]);
        let (roles, _, before) = facts(&db, &a, member).await.unwrap();
        assert_eq!(roles, "viewer,developer");
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.within().revoke_role(member, Role::Developer).await.unwrap(), Changed::Yes);
        assert_eq!(tx.within().revoke_role(member, Role::Operator).await.unwrap(), Changed::No);
        let nobody = Member::User(UserId::new(Uuid::new_v4()));
        assert_eq!(tx.within().grant_role(nobody, Role::Viewer).await.unwrap(), Changed::Missing);
        tx.commit().await.unwrap();
        let (roles, _, after) = facts(&db, &a, member).await.unwrap();
        assert_eq!(roles, "viewer");
        assert!(after > before, "a role that went makes the facts newer, too");
        assert_eq!(told(&db).await, [format!("subject {}", member.id())]);
        let audited: Vec<String> = sqlx::query_scalar(
            "SELECT action || ' ' || target_id FROM tenant_audit WHERE action LIKE 'role.%' ORDER BY id",
        )
        .fetch_all(&mut db.root().await)
        .await
        .unwrap();
        assert_eq!(
            audited,
            [format!("role.grant {}", member.id()), format!("role.revoke {}", member.id())]
        );
    })
    .await;
}

#[tokio::test]
async fn a_change_that_is_rolled_back_is_not_told() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let member = user(&db, &a, "a@example.com", Role::Viewer).await;
        told(&db).await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().set_suspended(member, true).await.unwrap();
        drop(tx);
        assert_eq!(told(&db).await, Vec::<String>::new());
        assert!(!facts(&db, &a, member).await.unwrap().1);
    })
    .await;
}

#[tokio::test]
async fn suspension_is_in_the_facts_of_users_clients_and_their_keys() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        for member in [
            user(&db, &a, "a@example.com", Role::Viewer).await,
            client(&db, &a, Role::Viewer).await,
        ] {
            let id = Uuid::new_v4();
            let mut tx = db.store.tenant(&a).await.unwrap();
            let mut new = key(id);
            new.owner = Some(member.id());
            tx.within().create_api_key(&new).await.unwrap();
            tx.commit().await.unwrap();
            told(&db).await;
            for suspended in [true, false] {
                let mut tx = db.store.tenant(&a).await.unwrap();
                let done = tx.within().set_suspended(member, suspended).await.unwrap();
                assert_eq!(done, Changed::Yes);
                tx.commit().await.unwrap();
                assert_eq!(facts(&db, &a, member).await.unwrap().1, suspended);
                let found = db.store.lookup().api_key(ApiKeyId::new(id)).await.unwrap().unwrap();
                assert_eq!((found.alive, found.facts.suspended), (true, suspended));
                let both = [format!("subject {}", member.id()), format!("subject {id}")];
                assert_eq!(told(&db).await, both);
            }
        }
        let id = client(&db, &a, Role::Viewer).await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().set_suspended(id, true).await.unwrap();
        tx.commit().await.unwrap();
        let found = db.store.lookup().oauth_client(ClientId::new(id.id())).await.unwrap();
        assert!(found.unwrap().suspended);
    })
    .await;
}

#[tokio::test]
async fn a_removed_member_is_unknown_and_its_keys_are_dead() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        for member in [
            user(&db, &a, "a@example.com", Role::Viewer).await,
            client(&db, &a, Role::Viewer).await,
        ] {
            let id = Uuid::new_v4();
            let mut tx = db.store.tenant(&a).await.unwrap();
            let mut new = key(id);
            new.owner = Some(member.id());
            tx.within().create_api_key(&new).await.unwrap();
            tx.commit().await.unwrap();
            told(&db).await;
            let mut tx = db.store.tenant(&a).await.unwrap();
            assert_eq!(tx.within().delete_member(member).await.unwrap(), Changed::Yes);
            assert_eq!(tx.within().delete_member(member).await.unwrap(), Changed::Missing);
            tx.commit().await.unwrap();
            assert_eq!(facts(&db, &a, member).await, None);
            let found = db.store.lookup().api_key(ApiKeyId::new(id)).await.unwrap().unwrap();
            assert!(!found.alive);
            assert_eq!(
                told(&db).await,
                [format!("credential {id}"), format!("subject {}", member.id())]
            );
        }
        // The address is free again.
        user(&db, &a, "a@example.com", Role::Viewer).await;
    })
    .await;
}

#[tokio::test]
async fn the_last_admin_who_may_act_stays() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let b = db.tenant("tenant-b").await;
        let last = user(&db, &a, "a@example.com", Role::Admin).await;
        let suspended = client(&db, &a, Role::Admin).await;
        // Another tenant's admin, a key with the role and a suspended admin do not count.
        user(&db, &b, "b@example.com", Role::Admin).await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        let mut new = key(Uuid::new_v4());
        new.roles = Roles::NONE.with(Role::Admin);
        tx.within().create_api_key(&new).await.unwrap();
        assert_eq!(tx.within().set_suspended(suspended, true).await.unwrap(), Changed::Yes);
        tx.commit().await.unwrap();
        let mut tx = db.store.tenant(&a).await.unwrap();
        let ways = [
            tx.within().set_suspended(last, true).await,
            tx.within().revoke_role(last, Role::Admin).await,
            tx.within().delete_member(last).await,
        ];
        for way in ways {
            assert!(matches!(way, Err(Error::LastAdmin)), "{way:?}");
        }
        // A suspended admin is no loss; and with another one, this one may go.
        assert_eq!(tx.within().revoke_role(suspended, Role::Admin).await.unwrap(), Changed::Yes);
        tx.commit().await.unwrap();
        user(&db, &a, "c@example.com", Role::Admin).await;
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.within().delete_member(last).await.unwrap(), Changed::Yes);
    })
    .await;
}

/// Every pair of ways in which two admins can leave at the same time, many times over: one of them stays.
#[tokio::test]
async fn of_two_admins_who_leave_at_the_same_time_one_stays() {
    async fn leave(db: &Db, op: &OpCtx, way: usize, member: Member) -> Result<Changed, Error> {
        let mut tx = db.store.tenant(op).await?;
        let done = match way {
            0 => tx.within().set_suspended(member, true).await?,
            1 => tx.within().revoke_role(member, Role::Admin).await?,
            _ => tx.within().delete_member(member).await?,
        };
        tx.commit().await?;
        Ok(done)
    }
    with_db(async |db| {
        for round in 0..18 {
            let (one, other) = (round % 3, round / 3 % 3);
            let a = db.tenant(&format!("tenant-{round:03}")).await;
            let x = user(&db, &a, "x@example.com", Role::Admin).await;
            let y = client(&db, &a, Role::Admin).await;
            let (first, second) = tokio::join!(leave(&db, &a, one, x), leave(&db, &a, other, y));
            let gone = [&first, &second].iter().filter(|done| done.is_ok()).count();
            assert_eq!(gone, 1, "{one} {other}: {first:?} {second:?}");
            for done in [first, second] {
                assert!(matches!(done, Ok(Changed::Yes) | Err(Error::LastAdmin)), "{done:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn lists_show_one_tenants_members_whichever_door() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let b = db.tenant("tenant-b").await;
        let member = user(&db, &a, "a@example.com", Role::Viewer).await;
        let program = client(&db, &a, Role::Operator).await;
        user(&db, &b, "b@example.com", Role::Viewer).await;
        client(&db, &b, Role::Viewer).await;
        let mut tx = db.store.admin(&b, "a test").await.unwrap();
        let users = tx
            .within(a.tenant)
            .list_users(&gatehouse_store::paging::Page::first(100), Which::default())
            .await
            .unwrap();
        let clients = tx
            .within(a.tenant)
            .list_clients(&gatehouse_store::paging::Page::first(100), Which::default())
            .await
            .unwrap();
        assert_eq!(users.iter().map(|user| user.member).collect::<Vec<_>>(), [member]);
        assert_eq!(clients.iter().map(|client| client.member).collect::<Vec<_>>(), [program]);
        assert_eq!(clients[0].roles.to_string(), "operator");
        // By the admin door, too, a member is found in its tenant alone.
        assert_eq!(tx.within(b.tenant).member(member).await.unwrap(), None);
        let elsewhere = tx.within(b.tenant).set_suspended(member, true).await.unwrap();
        assert_eq!(elsewhere, Changed::Missing);
    })
    .await;
}

#[tokio::test]
async fn a_tenants_status_and_tier_are_told_and_only_where_they_change() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        told(&db).await;
        let tier = gatehouse_contract::Tier::Pro;
        let mut tx = db.store.admin(&a, "a test").await.unwrap();
        assert_eq!(tx.set_tenant_suspended(a.tenant, true).await.unwrap(), Changed::Yes);
        assert_eq!(tx.set_tenant_suspended(a.tenant, true).await.unwrap(), Changed::No);
        assert_eq!(tx.set_tenant_suspended(a.tenant, false).await.unwrap(), Changed::Yes);
        assert_eq!(tx.set_tier(a.tenant, tier).await.unwrap(), Changed::Yes);
        assert_eq!(tx.set_tier(a.tenant, tier).await.unwrap(), Changed::No);
        let nobody = gatehouse_contract::TenantId::new(Uuid::new_v4());
        assert_eq!(tx.set_tier(nobody, tier).await.unwrap(), Changed::Missing);
        assert_eq!(tx.set_tenant_suspended(nobody, true).await.unwrap(), Changed::Missing);
        tx.commit().await.unwrap();
        assert_eq!(told(&db).await, vec![format!("tenant {}", a.tenant); 3]);
        // What is being removed is not brought back.
        sqlx::query("UPDATE tenants SET status = 'deleting'")
            .execute(&mut db.root().await)
            .await
            .unwrap();
        let mut tx = db.store.admin(&a, "a test").await.unwrap();
        let done = tx.set_tenant_suspended(a.tenant, false).await;
        assert!(matches!(done, Err(Error::Conflict { .. })), "{done:?}");
    })
    .await;
}
