//! Documents that the control API remembers, on a private Redis with the services' own users.

#![cfg(test)]

#[path = "support/private.rs"]
mod private;

use std::time::{Duration, Instant};

use gatehouse_contract::{TenantId, sidecar::Change};
use gatehouse_redis_kit::{
    Link,
    cache::{Documents, Place},
    feed::Writer,
};
use uuid::Uuid;

use private::Redis;

const DEADLINE: Duration = Duration::from_secs(5);

impl Redis {
    fn documents(&self) -> Documents {
        Documents::new(&self.address("control"), DEADLINE).unwrap()
    }

    async fn keys(&self) -> Vec<String> {
        let admin = Link::new(&self.address("admin"), DEADLINE).unwrap();
        let mut keys: Vec<String> = admin.query(redis::cmd("KEYS").arg("cache:*")).await.unwrap();
        keys.sort();
        keys
    }

    async fn with_feed() -> (Self, Writer) {
        let redis = Self::start();
        let writer = Writer::new(&redis.address("control"), DEADLINE).unwrap();
        writer.begin("e1", &[]).await.unwrap();
        (redis, writer)
    }
}

fn tenant(n: u128) -> TenantId {
    TenantId::new(Uuid::from_u128(n))
}

fn config(n: u128) -> Place<'static> {
    Place { tenant: tenant(n), entity: "config", id: "-" }
}

#[tokio::test]
async fn a_document_is_found_until_its_tenant_changes() {
    let (redis, writer) = Redis::with_feed().await;
    let documents = redis.documents();
    let before = documents.version(tenant(1)).await.unwrap().unwrap();
    documents.put(&config(1), &before, "one").await.unwrap();
    assert_eq!(documents.get(&config(1), &before).await.unwrap().as_deref(), Some("one"));
    assert_eq!(documents.get(&Place { id: "x", ..config(1) }, &before).await.unwrap(), None);
    let keys = redis.keys().await;
    let prefix = format!("cache:{{{}}}:", tenant(1));
    assert!(keys.iter().all(|key| key.starts_with(&prefix)), "{keys:?}");
    assert!(keys.iter().any(|key| key.starts_with(&format!("{prefix}config:-:"))), "{keys:?}");

    // By the feed, by whoever made the change, and by another epoch.
    let mut versions = vec![before];
    for step in 0..3 {
        let change = Change::Tenant { tenant: tenant(1) };
        match step {
            0 => drop(writer.publish("e1", 0, &[change]).await.unwrap()),
            1 => documents.void(tenant(1), "mark").await.unwrap(),
            _ => writer.begin("e2", &[]).await.unwrap(),
        }
        let version = documents.version(tenant(1)).await.unwrap().unwrap();
        assert_eq!(documents.get(&config(1), &version).await.unwrap(), None, "{step}");
        // Read before the change, written after it.
        let old = versions.last().unwrap();
        documents.put(&config(1), old, "stale").await.unwrap();
        assert_eq!(documents.get(&config(1), &version).await.unwrap(), None, "{step}");
        versions.push(version);
    }
    // Another tenant's change is none of it.
    let other = documents.version(tenant(2)).await.unwrap().unwrap();
    documents.put(&config(2), &other, "two").await.unwrap();
    writer.publish("e2", 0, &[Change::Tenant { tenant: tenant(1) }]).await.unwrap();
    let again = documents.version(tenant(2)).await.unwrap().unwrap();
    assert_eq!(documents.get(&config(2), &again).await.unwrap().as_deref(), Some("two"));
}

#[tokio::test]
async fn without_a_feed_nothing_is_remembered() {
    let redis = Redis::start();
    assert_eq!(redis.documents().version(tenant(1)).await.unwrap(), None);
}

#[tokio::test]
async fn of_many_processes_one_has_the_turn() {
    let (redis, _writer) = Redis::with_feed().await;
    let (one, other) = (redis.documents(), redis.documents());
    let version = one.version(tenant(1)).await.unwrap().unwrap();
    assert!(one.take_turn(&config(1), &version).await.unwrap());
    assert!(!other.take_turn(&config(1), &version).await.unwrap());
    assert!(other.take_turn(&config(2), &version).await.unwrap());
    one.put(&config(1), &version, "one").await.unwrap();
    assert_eq!(other.get(&config(1), &version).await.unwrap().as_deref(), Some("one"));
    // Who had it and is gone does not keep it.
    assert!(!one.take_turn(&config(2), &version).await.unwrap());
    let begin = Instant::now();
    while !one.take_turn(&config(2), &version).await.unwrap() {
        assert!(begin.elapsed() < DEADLINE, "the turn does not end");
    }
}

#[tokio::test]
async fn a_tenants_end_takes_away_what_is_its_own() {
    let (redis, _writer) = Redis::with_feed().await;
    let documents = redis.documents();
    for n in [1, 2] {
        let version = documents.version(tenant(n)).await.unwrap().unwrap();
        for entity in ["config", "limits"] {
            documents.put(&Place { entity, ..config(n) }, &version, "x").await.unwrap();
        }
    }
    assert_eq!(documents.remove_all(tenant(1)).await.unwrap(), 2);
    assert_eq!(documents.remove_all(tenant(1)).await.unwrap(), 0);
    let keys = redis.keys().await;
    assert_eq!(keys.len(), 3, "{keys:?}");
    assert!(keys.iter().all(|key| key.contains(&tenant(2).to_string())), "{keys:?}");
}

#[tokio::test]
async fn a_document_in_anothers_place_is_not_shown() {
    let (redis, _writer) = Redis::with_feed().await;
    let documents = redis.documents();
    let version = documents.version(tenant(1)).await.unwrap().unwrap();
    documents.put(&config(1), &version, "one").await.unwrap();
    let keys = redis.keys().await;
    let from = keys.iter().find(|key| key.contains(":config:")).unwrap();
    let to = from.replace(&tenant(1).to_string(), &tenant(2).to_string());
    let admin = Link::new(&redis.address("admin"), DEADLINE).unwrap();
    let copied: u64 = admin.query(redis::cmd("COPY").arg(from).arg(&to)).await.unwrap();
    assert_eq!(copied, 1);
    assert_eq!(documents.get(&config(2), &version).await.unwrap(), None);
}
