//! The change feed and what is remembered of credentials, on a private Redis with the services' own users.

#![cfg(test)]

#[path = "support/private.rs"]
mod private;

use std::time::Duration;

use gatehouse_contract::{
    ApiKeyId, TenantId,
    sidecar::{Change, Denied, PrincipalFacts},
};
use gatehouse_redis_kit::{
    Link,
    cred::{Holder, Keys, Permissions, Projected},
    feed::{Error, Feed, News, Position, Reader, Reading, Writer},
};
use uuid::Uuid;

use private::Redis;

const DEADLINE: Duration = Duration::from_secs(5);
const HOUR_S: u64 = 3600;

impl Redis {
    fn writer(&self) -> Writer {
        Writer::new(&self.address("control"), DEADLINE).unwrap()
    }

    fn reader(&self) -> Reader {
        Reader::new(&self.address("sidecar"), DEADLINE).unwrap()
    }

    async fn admin<T: redis::FromRedisValue>(&self, line: &str) -> T {
        let link = Link::new(&self.address("admin"), DEADLINE).unwrap();
        let mut words = line.split(' ');
        let mut cmd = redis::cmd(words.next().unwrap());
        cmd.arg(words.collect::<Vec<_>>());
        link.query(&cmd).await.unwrap()
    }
}

fn tenant(n: u128) -> TenantId {
    TenantId::new(Uuid::from_u128(n))
}

fn changed(n: u64) -> Change {
    Change::Subject { tenant: tenant(7), subject: n.to_string() }
}

fn now_s() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn token(name: &str, until_s: u64) -> Denied {
    Denied::Token { token: name.to_owned(), until_s }
}

async fn feed(reader: &Reader, epoch: Option<&str>, after: u64) -> Feed {
    match reader.read(epoch, after).await.unwrap() {
        Reading::Feed(feed) => feed,
        other => panic!("{other:?}"),
    }
}

fn elsewhere<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Position {
    match outcome {
        Err(Error::Elsewhere(position)) => position,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_published_is_read_in_order_and_once() {
    let redis = Redis::start();
    let (writer, reader) = (redis.writer(), redis.reader());
    assert_eq!(reader.read(None, 0).await.unwrap(), Reading::None);
    assert_eq!(writer.state().await.unwrap(), Position::default());

    let old = token("old", now_s() + HOUR_S);
    writer.begin("one", std::slice::from_ref(&old)).await.unwrap();
    let first = feed(&reader, None, 0).await;
    assert_eq!((first.epoch.as_str(), first.sequence, first.heartbeat_age), ("one", 0, None));
    assert_eq!(first.news, News::Snapshot(vec![old.clone()]));

    let denied = Denied::IssuedBefore {
        tenant: tenant(7),
        subject: "u".into(),
        before_s: now_s(),
        until_s: now_s() + HOUR_S,
    };
    let changes = [changed(1), Change::Deny(denied.clone()), changed(3)];
    assert_eq!(writer.publish("one", 0, &changes).await.unwrap(), 3);
    writer.beat("one", 3).await.unwrap();
    let heard = feed(&reader, Some("one"), 0).await;
    assert_eq!((heard.sequence, &heard.news), (3, &News::Changes(changes.to_vec())));
    assert!(heard.heartbeat_age.is_some_and(|age| age < DEADLINE), "{heard:?}");
    let rest = feed(&reader, Some("one"), 2).await;
    assert_eq!((rest.sequence, rest.news), (3, News::Changes(vec![changed(3)])));
    assert_eq!(feed(&reader, Some("one"), 3).await.news, News::Changes(Vec::new()));

    // Whoever knows another epoch, or nothing, gets the deny list as it stands.
    for epoch in [None, Some("two")] {
        let News::Snapshot(mut list) = feed(&reader, epoch, 3).await.news else { panic!() };
        list.sort();
        let mut expected = vec![old.clone(), denied.clone()];
        expected.sort();
        assert_eq!(list, expected);
    }
}

#[tokio::test]
async fn the_heartbeat_has_an_age_by_redis_clock() {
    let redis = Redis::start();
    let (writer, reader) = (redis.writer(), redis.reader());
    writer.begin("one", &[]).await.unwrap();
    for (ahead_ms, expected) in [(-6_000_i64, Some(6)), (60_000, None)] {
        let (s, _): (i64, i64) = redis.admin("TIME").await;
        let _: () = redis.admin(&format!("SET feed:heartbeat {}", s * 1000 + ahead_ms)).await;
        let age = feed(&reader, Some("one"), 0).await.heartbeat_age;
        let near = |age: Duration| age.as_secs_f64() - expected.unwrap_or_default() as f64;
        assert_eq!(age.is_some(), expected.is_some(), "{age:?}");
        assert!(age.is_none_or(|age| (0.0..3.0).contains(&near(age))), "{age:?}");
    }
}

/// Both believe that they lead: what the slower one says is refused whole, and tells it where the feed stands.
#[tokio::test]
async fn two_leaders_do_not_interleave() {
    let redis = Redis::start();
    let (one, two, reader) = (redis.writer(), redis.writer(), redis.reader());
    one.begin("e", &[]).await.unwrap();
    one.publish("e", 0, &[changed(1)]).await.unwrap();
    two.publish("e", 1, &[changed(2)]).await.unwrap();
    let late = [changed(9), Change::Deny(token("t", now_s() + HOUR_S))];
    let stand = Position { epoch: Some("e".into()), sequence: 2 };
    assert_eq!(elsewhere(one.publish("e", 1, &late).await), stand);
    assert_eq!(elsewhere(one.beat("e", 1).await), stand);
    assert_eq!(elsewhere(one.publish("e", 7, &late).await), stand, "nor ahead of it");
    let heard = feed(&reader, Some("e"), 0).await;
    assert_eq!(heard.news, News::Changes(vec![changed(1), changed(2)]));
    assert_eq!(heard.heartbeat_age, None);
    assert_eq!(feed(&reader, None, 0).await.news, News::Snapshot(Vec::new()));

    two.begin("f", &[]).await.unwrap();
    let stand = Position { epoch: Some("f".into()), sequence: 0 };
    assert_eq!(elsewhere(one.publish("e", 2, &late).await), stand);
    assert_eq!(elsewhere(one.publish("e", 0, &late).await), stand);
}

#[tokio::test]
async fn of_many_writers_at_once_one_wins_each_sequence() {
    let redis = Redis::start();
    redis.writer().begin("e", &[]).await.unwrap();
    let mut writing = tokio::task::JoinSet::new();
    for n in 0..8_u64 {
        let writer = redis.writer();
        writing.spawn(async move {
            let (mut after, mut won) = (0, Vec::new());
            while won.len() < 20 {
                match writer.publish("e", after, &[changed(n), changed(n)]).await {
                    Ok(last) => {
                        won.push(last);
                        after = last;
                    }
                    other => after = elsewhere(other).sequence,
                }
            }
            won
        });
    }
    let mut all = Vec::new();
    while let Some(won) = writing.join_next().await {
        all.extend(won.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (1..=160).map(|n| n * 2).collect::<Vec<_>>());
    let News::Changes(changes) = feed(&redis.reader(), Some("e"), 0).await.news else { panic!() };
    assert_eq!(changes.len(), 320);
    assert!(changes.chunks(2).all(|pair| pair[0] == pair[1]), "a batch was torn");
}

#[tokio::test]
async fn a_gap_or_an_unreadable_change_is_a_snapshot_and_lost_data_is_silence() {
    let redis = Redis::start();
    let (writer, reader) = (redis.writer(), redis.reader());
    writer.begin("e", &[token("t", now_s() + HOUR_S)]).await.unwrap();
    let changes: Vec<_> = (1..=5).map(changed).collect();
    writer.publish("e", 0, &changes).await.unwrap();
    let snapshot = || News::Snapshot(vec![token("t", now_s() + HOUR_S)]);
    let _: u64 = redis.admin("XTRIM feed:changes MAXLEN 2").await;
    assert_eq!(feed(&reader, Some("e"), 3).await.news, News::Changes(changes[3..].to_vec()));
    for after in [0, 2] {
        let heard = feed(&reader, Some("e"), after).await;
        let News::Snapshot(list) = &heard.news else { panic!("{heard:?}") };
        assert_eq!((heard.sequence, list.len()), (5, 1), "{:?}", snapshot());
    }
    assert_eq!(reader.read(Some("e"), 6).await.unwrap(), Reading::WentBack);
    let _: String = redis.admin(r#"XADD feed:changes 6-0 c {"kind":"of_tomorrow"}"#).await;
    let heard = feed(&reader, Some("e"), 5).await;
    assert!(matches!(heard.news, News::Snapshot(_)) && heard.sequence == 6, "{heard:?}");
    let _: u64 = redis.admin(r#"ZADD feed:denied 9999999999 {"deny":"of_tomorrow"}"#).await;
    reader.read(None, 0).await.unwrap_err();
}

/// A Redis that came back from an old copy: the writer says so, begins anew, and a reader that knew the old epoch
/// loads the deny list.
#[tokio::test]
async fn an_old_copy_is_recognised_by_its_position() {
    let redis = Redis::start();
    let (writer, reader) = (redis.writer(), redis.reader());
    writer.begin("e", &[]).await.unwrap();
    writer.publish("e", 0, &[changed(1)]).await.unwrap();
    // As if the second change had never reached the copy.
    let _: () = redis.admin("COPY feed:changes copy:changes").await;
    writer.publish("e", 1, &[changed(2)]).await.unwrap();
    let _: () = redis.admin("COPY copy:changes feed:changes REPLACE").await;
    assert_eq!(elsewhere(writer.beat("e", 2).await).sequence, 1);
    assert_eq!(reader.read(Some("e"), 2).await.unwrap(), Reading::WentBack);
    writer.begin("f", &[token("t", now_s() + HOUR_S)]).await.unwrap();
    let heard = feed(&reader, Some("e"), 2).await;
    assert_eq!((heard.epoch.as_str(), heard.sequence), ("f", 0));
    assert!(matches!(heard.news, News::Snapshot(list) if list.len() == 1));
    let _: () = redis.admin("FLUSHALL").await;
    assert_eq!(elsewhere(writer.beat("f", 0).await), Position::default());
    assert_eq!(reader.read(Some("f"), 0).await.unwrap(), Reading::None);
}

#[tokio::test]
async fn entries_that_expired_by_themselves_leave_the_deny_list() {
    let redis = Redis::start();
    let (writer, reader) = (redis.writer(), redis.reader());
    let live = token("live", now_s() + HOUR_S);
    writer.begin("e", &[token("gone", now_s() - HOUR_S), live.clone()]).await.unwrap();
    assert_eq!(feed(&reader, None, 0).await.news, News::Snapshot(vec![live]));
    writer.publish("e", 0, &[changed(1)]).await.unwrap();
    assert_eq!(redis.admin::<u64>("ZCARD feed:denied").await, 1);
}

fn facts(n: u64) -> PrincipalFacts {
    PrincipalFacts { epoch: n, ..PrincipalFacts::member(tenant(7), "u") }
}

fn subject(vouched: bool) -> Holder<'static> {
    Holder::Subject { issuer: "https://idp", subject: "u", vouched }
}

#[tokio::test]
async fn cached_facts_end_with_a_change_of_their_tenant_their_key_or_the_epoch() {
    let redis = Redis::start();
    let writer = redis.writer();
    let cache = Permissions::new(&redis.address("control"), DEADLINE).unwrap();
    let read = Permissions::new(&redis.address("sidecar"), DEADLINE).unwrap();
    let id = ApiKeyId::new(Uuid::from_u128(9));
    let (key, mine) = (Holder::Key(id), tenant(7));
    writer.begin("e", &[]).await.unwrap();
    let mut at = 0;
    let credential = |id: ApiKeyId| Change::Credential { credential: id.to_string() };
    for (change, subject_lives, key_lives) in [
        (Change::Tenant { tenant: mine }, false, false),
        (Change::Subject { tenant: mine, subject: "another".into() }, false, false),
        (credential(id), true, false),
        (Change::Tenant { tenant: tenant(8) }, true, true),
        (credential(ApiKeyId::new(Uuid::from_u128(10))), true, true),
        (Change::Keys { issuer: "https://idp".into() }, true, true),
    ] {
        for holder in [subject(false), key] {
            let generation = cache.generation(mine, holder).await.unwrap();
            cache.put(mine, holder, &generation, &facts(1)).await.unwrap();
            assert_eq!(read.get(mine, holder, "e").await.unwrap(), Some(facts(1)));
        }
        assert_eq!(read.get(mine, subject(true), "e").await.unwrap(), None, "asked otherwise");
        assert_eq!(read.get(tenant(8), subject(false), "e").await.unwrap(), None, "elsewhere");
        assert_eq!(read.get(mine, key, "d").await.unwrap(), None, "another epoch");
        at = writer.publish("e", at, std::slice::from_ref(&change)).await.unwrap();
        let lives = read.get(mine, subject(false), "e").await.unwrap().is_some();
        assert_eq!(lives, subject_lives, "{change:?}");
        assert_eq!(read.get(mine, key, "e").await.unwrap().is_some(), key_lives, "{change:?}");
    }
    writer.begin("f", &[]).await.unwrap();
    for epoch in ["e", "f"] {
        assert_eq!(read.get(mine, subject(false), epoch).await.unwrap(), None);
    }
}

/// The generation is read before the record: a change in between makes what is written after it void.
#[tokio::test]
async fn facts_that_were_read_before_a_change_are_not_served_after_it() {
    let redis = Redis::start();
    let writer = redis.writer();
    let cache = Permissions::new(&redis.address("control"), DEADLINE).unwrap();
    writer.begin("e", &[]).await.unwrap();
    let before = cache.generation(tenant(7), subject(false)).await.unwrap();
    writer.publish("e", 0, &[Change::Tenant { tenant: tenant(7) }]).await.unwrap();
    cache.put(tenant(7), subject(false), &before, &facts(1)).await.unwrap();
    assert_eq!(cache.get(tenant(7), subject(false), "e").await.unwrap(), None);
    let after = cache.generation(tenant(7), subject(false)).await.unwrap();
    cache.put(tenant(7), subject(false), &after, &facts(2)).await.unwrap();
    assert_eq!(cache.get(tenant(7), subject(false), "e").await.unwrap(), Some(facts(2)));
}

#[tokio::test]
async fn a_projected_key_is_found_until_it_is_removed_and_absence_is_final_for_one_epoch() {
    let redis = Redis::start();
    let writer = redis.writer();
    let keys = Keys::new(&redis.address("control"), DEADLINE).unwrap();
    let read = Keys::new(&redis.address("sidecar"), DEADLINE).unwrap();
    let id = |n| ApiKeyId::new(Uuid::from_u128(n));
    let key = |ends: Option<u64>| Projected {
        tenant: tenant(7),
        pepper_id: "p1".into(),
        hmac: [9; 32],
        expires_at_s: ends,
    };
    writer.begin("e", &[]).await.unwrap();
    let later = Some(now_s() + HOUR_S);
    keys.put_all(&[(id(1), key(None)), (id(2), key(later)), (id(3), key(Some(1)))]).await.unwrap();
    keys.complete("e").await.unwrap();
    let found = |n| {
        let read = &read;
        async move {
            let found = read.find(id(n)).await.unwrap();
            (found.key, found.complete)
        }
    };
    let complete = Some("e".to_owned());
    assert_eq!(found(1).await, (Some(key(None)), complete.clone()));
    assert_eq!(found(2).await, (Some(key(later)), complete.clone()));
    assert_eq!(found(3).await, (None, complete.clone()), "expired");
    assert_eq!(found(4).await, (None, complete.clone()));
    keys.remove(id(1)).await.unwrap();
    assert_eq!(found(1).await, (None, complete));
    writer.begin("f", &[]).await.unwrap();
    assert_eq!(found(4).await, (None, None));
    let _: () = redis.admin(&format!("SET cred:key:{} nonsense", id(5).as_uuid())).await;
    read.find(id(5)).await.unwrap_err();
}

/// Who reads may not write, and nobody reaches beyond (design §3.3).
#[tokio::test]
async fn a_sidecar_cannot_write_the_feed_nor_a_key() {
    let redis = Redis::start();
    redis.writer().begin("e", &[]).await.unwrap();
    let sidecar = redis.address("sidecar");
    let writer = Writer::new(&sidecar, DEADLINE).unwrap();
    for outcome in [writer.begin("f", &[]).await, writer.beat("e", 0).await] {
        let Err(Error::Redis(error)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.code(), Some("NOPERM"));
    }
    let keys = Keys::new(&sidecar, DEADLINE).unwrap();
    let refused = keys.complete("e").await.unwrap_err();
    assert_eq!(refused.code(), Some("NOPERM"));
    let worker = Reader::new(&redis.address("worker"), DEADLINE).unwrap();
    worker.read(None, 0).await.unwrap_err();
}
