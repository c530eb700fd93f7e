//! API keys, revoked tokens and the outbox that tells of them.

use std::time::Duration as Wait;

use gatehouse_contract::{
    ApiKeyId, Role, Roles, UserId,
    sidecar::{Change, Denied},
};
use gatehouse_store::{
    Job, OffsetDateTime,
    api_keys::KeyMark,
    members::{Changed, Member},
    relay::FeedState,
};
use time::Duration;
use uuid::Uuid;

use crate::harness::{key, run, with_db};

#[tokio::test]
async fn a_key_is_never_above_its_owner() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let owner = Member::User(UserId::new(Uuid::new_v4()));
        let id = ApiKeyId::new(Uuid::new_v4());
        let mut tx = db.store.tenant(&a).await.unwrap();
        let mut within = tx.within();
        within
            .create_user(UserId::new(owner.id()), "o@example.com", Role::Developer)
            .await
            .unwrap();
        within.grant_role(owner, Role::Viewer).await.unwrap();
        let mut new = key(id.as_uuid());
        new.owner = Some(owner.id());
        new.roles = [Role::Viewer, Role::Developer].into_iter().collect();
        new.scopes = Some(&[]);
        assert!(within.create_api_key(&new).await.is_err(), "no scope at all is a mistake");
        drop(tx);
        let scopes = ["agents:read".to_owned()];
        let mut tx = db.store.tenant(&a).await.unwrap();
        let mut within = tx.within();
        within
            .create_user(UserId::new(owner.id()), "o@example.com", Role::Developer)
            .await
            .unwrap();
        within.grant_role(owner, Role::Viewer).await.unwrap();
        new.scopes = Some(&scopes);
        within.create_api_key(&new).await.unwrap();
        tx.commit().await.unwrap();
        let found = db.store.lookup().api_key(id).await.unwrap().unwrap();
        assert_eq!(found.facts.roles.to_string(), "viewer,developer");
        assert_eq!(found.facts.scopes.as_deref(), Some(scopes.as_slice()));
        assert_eq!(found.facts.subject, id.to_string());
        assert!(!found.facts.platform);
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().revoke_role(owner, Role::Developer).await.unwrap();
        tx.commit().await.unwrap();
        let found = db.store.lookup().api_key(id).await.unwrap().unwrap();
        assert_eq!(found.facts.roles.to_string(), "viewer");
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().revoke_role(owner, Role::Viewer).await.unwrap();
        tx.commit().await.unwrap();
        let found = db.store.lookup().api_key(id).await.unwrap().unwrap();
        assert_eq!(found.facts.roles, Roles::NONE);
    })
    .await;
}

#[tokio::test]
async fn a_rotated_key_opens_until_its_overlap_ends_and_is_rotated_once() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let (old, new) = (ApiKeyId::new(Uuid::new_v4()), ApiKeyId::new(Uuid::new_v4()));
        let mark = KeyMark { pepper_id: "p2".to_owned(), hmac: [4; 32] };
        let now = OffsetDateTime::now_utc();
        let mut tx = db.store.tenant(&a).await.unwrap();
        let mut first = key(old.as_uuid());
        first.expires_at = Some(now + Duration::days(1));
        tx.within().create_api_key(&first).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = db.store.tenant(&a).await.unwrap();
        let until = now + Duration::hours(1);
        let made = tx.within().rotate_api_key(old, new, &mark, until).await.unwrap().unwrap();
        assert_eq!((made.id, made.rotated_from), (new, Some(old)));
        assert_eq!((made.name.as_str(), made.roles.to_string().as_str()), ("key", "viewer"));
        let life = made.expires_at.unwrap() - made.created_at;
        assert!(
            (life - Duration::days(1)).abs() < Duration::minutes(5),
            "as long as the first: {life}"
        );
        let other = ApiKeyId::new(Uuid::new_v4());
        let again = tx.within().rotate_api_key(old, other, &mark, until).await.unwrap();
        assert_eq!(again, None, "it has a successor");
        tx.commit().await.unwrap();
        let find = async |id| db.store.lookup().api_key(id).await.unwrap().unwrap();
        assert!(find(old).await.alive && find(new).await.alive);
        assert_eq!(find(old).await.facts.expires_at_s, u64::try_from(until.unix_timestamp()).ok());
        run(
            &mut db.root().await,
            &format!(
                "UPDATE api_keys SET overlap_until = now() - interval '1 s' WHERE id = '{old}'"
            ),
        )
        .await;
        assert!(!find(old).await.alive && find(new).await.alive);
        // An expired and a revoked key have no successor.
        let mut tx = db.store.tenant(&a).await.unwrap();
        assert_eq!(tx.within().revoke_api_key(new).await.unwrap(), Changed::Yes);
        assert_eq!(tx.within().revoke_api_key(new).await.unwrap(), Changed::No);
        assert_eq!(tx.within().revoke_api_key(other).await.unwrap(), Changed::Missing);
        assert_eq!(tx.within().rotate_api_key(new, other, &mark, until).await.unwrap(), None);
        tx.commit().await.unwrap();
        assert!(!find(new).await.alive);
        let expired = ApiKeyId::new(Uuid::new_v4());
        let mut late = key(expired.as_uuid());
        late.expires_at = Some(now - Duration::seconds(1));
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().create_api_key(&late).await.unwrap();
        tx.commit().await.unwrap();
        assert!(!find(expired).await.alive);
    })
    .await;
}

#[tokio::test]
async fn last_use_goes_forward_alone_and_makes_no_fact_newer() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = ApiKeyId::new(Uuid::new_v4());
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().create_api_key(&key(id.as_uuid())).await.unwrap();
        tx.commit().await.unwrap();
        let before = db.store.lookup().api_key(id).await.unwrap().unwrap().facts.epoch;
        let used = async || {
            let mut tx = db.store.tenant(&a).await.unwrap();
            tx.within().api_key(id, None).await.unwrap().unwrap().last_used_at
        };
        assert_eq!(used().await, None);
        let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
        let unknown = ApiKeyId::new(Uuid::new_v4());
        let lookup = db.store.lookup();
        for (seen, stored) in [
            (now - Duration::hours(2), now - Duration::hours(2)),
            (now - Duration::hours(1), now - Duration::hours(1)),
            (now - Duration::hours(3), now - Duration::hours(1)),
        ] {
            lookup.record_last_used(&[(unknown, seen), (id, seen)]).await.unwrap();
            assert_eq!(used().await, Some(stored));
        }
        // A sidecar's clock that is ahead stores no future.
        lookup.record_last_used(&[(id, now + Duration::days(9))]).await.unwrap();
        assert!(used().await.unwrap() < now + Duration::days(1));
        let after = lookup.api_key(id).await.unwrap().unwrap().facts.epoch;
        assert_eq!(after, before);
    })
    .await;
}

#[tokio::test]
async fn a_revoked_token_and_tokens_issued_before_are_worth_nothing() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = UserId::new(Uuid::new_v4());
        let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
        let until = now + Duration::hours(1);
        let mark = "revoked-revoked-revoke";
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().create_user(id, "u@example.com", Role::Viewer).await.unwrap();
        assert!(tx.within().revoke_token(mark, until).await.unwrap());
        assert!(!tx.within().revoke_token(mark, until).await.unwrap(), "revoked before");
        tx.commit().await.unwrap();
        let standing = async |token| {
            let found = db.store.lookup().standing(a.tenant, id.as_uuid(), token).await;
            found.unwrap().unwrap()
        };
        assert!(standing(Some(mark)).await.denies(None));
        assert!(!standing(Some("another-another-anothe")).await.denies(None));
        assert!(!standing(None).await.denies(None));
        let at = u64::try_from(now.unix_timestamp()).unwrap();
        let cut = async |before| {
            let mut tx = db.store.tenant(&a).await.unwrap();
            let done = tx.within().revoke_tokens_of(Member::User(id), before, until).await;
            tx.commit().await.unwrap();
            done.unwrap()
        };
        assert_eq!(cut(now).await, Changed::Yes);
        // An earlier time does not bring tokens back.
        assert_eq!(cut(now - Duration::hours(1)).await, Changed::Yes);
        let standing = standing(None).await;
        for (issued, denied) in [(Some(at - 1), true), (Some(at), false), (None, true)] {
            assert_eq!(standing.denies(issued), denied, "{issued:?}");
        }
        let mut tx = db.store.tenant(&a).await.unwrap();
        let nobody = Member::User(UserId::new(Uuid::new_v4()));
        let done = tx.within().revoke_tokens_of(nobody, now, until).await.unwrap();
        assert_eq!(done, Changed::Missing);
    })
    .await;
}

#[tokio::test]
async fn the_relay_takes_denials_first_and_waits_for_no_open_transaction() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let id = UserId::new(Uuid::new_v4());
        let until = OffsetDateTime::now_utc() + Duration::hours(1);
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().create_user(id, "u@example.com", Role::Viewer).await.unwrap();
        tx.commit().await.unwrap();
        let mut listener = db.store.outbox_listener().await.unwrap();
        // Took its place in the outbox first, and is still open.
        let mut open = db.store.tenant(&a).await.unwrap();
        open.within().grant_role(Member::User(id), Role::Developer).await.unwrap();
        let mut tx = db.store.tenant(&a).await.unwrap();
        tx.within().revoke_token(&"m".repeat(22), until).await.unwrap();
        tx.commit().await.unwrap();
        assert!(listener.wait(Wait::from_secs(20)).await.unwrap(), "it is told at once");
        let mut relay = db.store.system(Job::Relay).await.unwrap();
        let waiting = relay.waiting(100).await.unwrap();
        let kinds: Vec<bool> = waiting
            .iter()
            .map(|row| matches!(row.change, Some(Change::Deny(Denied::Token { .. }))))
            .collect();
        assert_eq!(kinds, [true, false, false], "the tenant and the user were made before it");
        let ids: Vec<i64> = waiting.iter().map(|row| row.id).collect();
        relay.mark_relayed(&ids).await.unwrap();
        relay.commit().await.unwrap();
        // The late one is found, although later rows were relayed.
        open.commit().await.unwrap();
        let mut relay = db.store.system(Job::Relay).await.unwrap();
        let waiting = relay.waiting(100).await.unwrap();
        let subject = id.to_string();
        let late = Change::Subject { tenant: a.tenant, subject };
        assert_eq!(waiting.iter().map(|row| row.change.clone()).collect::<Vec<_>>(), [Some(late)]);
        assert!(waiting[0].id < *ids.iter().max().unwrap());
        let (count, _) = relay.backlog().await.unwrap();
        assert_eq!(count, 1);
    })
    .await;
}

#[tokio::test]
async fn a_feed_begins_with_the_denials_and_keys_that_still_matter() {
    with_db(async |db| {
        let a = db.tenant("tenant-a").await;
        let now = OffsetDateTime::now_utc();
        let user = UserId::new(Uuid::new_v4());
        let mut tx = db.store.tenant(&a).await.unwrap();
        let mut within = tx.within();
        within.create_user(user, "u@example.com", Role::Viewer).await.unwrap();
        within.revoke_token(&"a".repeat(22), now + Duration::hours(1)).await.unwrap();
        within.revoke_token(&"b".repeat(22), now - Duration::hours(2)).await.unwrap();
        within.revoke_tokens_of(Member::User(user), now, now + Duration::hours(1)).await.unwrap();
        let mut ids: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
        ids.sort();
        for id in &ids {
            within.create_api_key(&key(*id)).await.unwrap();
        }
        let revoked = Uuid::new_v4();
        within.create_api_key(&key(revoked)).await.unwrap();
        within.revoke_api_key(ApiKeyId::new(revoked)).await.unwrap();
        tx.commit().await.unwrap();
        let mut relay = db.store.system(Job::Relay).await.unwrap();
        let denied = relay.deny_list().await.unwrap();
        assert_eq!(denied.len(), 2, "{denied:?}");
        let page = relay.live_keys(None, 2).await.unwrap();
        assert_eq!(page.iter().map(|key| key.id.as_uuid()).collect::<Vec<_>>(), ids[..2]);
        let rest = relay.live_keys(page.last().map(|key| key.id), 2).await.unwrap();
        assert_eq!(rest.iter().map(|key| key.id.as_uuid()).collect::<Vec<_>>(), ids[2..]);
        let some = relay.keys(&[ids[0], revoked]).await.unwrap();
        assert_eq!(some.len(), 1);
        assert_eq!(some[0].mark.hmac, [3; 32]);
        assert_eq!(
            relay.feed_state().await.unwrap(),
            FeedState { epoch: String::new(), sequence: 0 }
        );
        let state = FeedState { epoch: "e".to_owned(), sequence: 7 };
        relay.set_feed_state(&state).await.unwrap();
        relay.commit().await.unwrap();
        let mut relay = db.store.system(Job::Relay).await.unwrap();
        assert_eq!(relay.feed_state().await.unwrap(), state);
        // What has been told long ago, and denials of dead tokens, are forgotten; what waits is not.
        let all = relay.waiting(100).await.unwrap();
        relay.mark_relayed(&[all[0].id]).await.unwrap();
        relay.commit().await.unwrap();
        run(&mut db.root().await, "UPDATE outbox SET relayed_at = relayed_at - interval '1 hour'")
            .await;
        let mut relay = db.store.system(Job::Relay).await.unwrap();
        let pruned = relay.prune(Wait::from_secs(600), 100).await.unwrap();
        assert_eq!((pruned.relayed, pruned.denials), (1, 1));
        assert_eq!(relay.waiting(100).await.unwrap().len(), all.len() - 1);
        assert_eq!(relay.deny_list().await.unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn one_relay_leads_until_its_connection_ends() {
    with_db(async |db| {
        let mut leader = db.store.lead_relay().await.unwrap().expect("nobody leads yet");
        assert!(db.store.lead_relay().await.unwrap().is_none());
        leader.still_held(Wait::from_secs(5)).await.unwrap();
        run(
            &mut db.root().await,
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .await;
        assert!(leader.still_held(Wait::from_secs(5)).await.is_err());
        let next = db.store.lead_relay().await.unwrap().expect("the lead is free");
        next.give_up().await.unwrap();
        assert!(db.store.lead_relay().await.unwrap().is_some());
    })
    .await;
}
