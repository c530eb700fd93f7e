//! `/v1/changes`, with a real Redis and a relay's writes.

use std::time::{Duration, Instant};

use gatehouse_contract::{
    TenantId,
    sidecar::{Change, ChangesAnswer, Denied},
};
use serde_json::json;
use uuid::Uuid;

use crate::process::{Redis, Relay, Script, Server, Sidecar, config, memory, until};

async fn changes(sidecar: &Sidecar, query: &str) -> ChangesAnswer {
    let (status, body) = sidecar.get(&format!("/v1/changes{query}")).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_value(body).unwrap()
}

fn tenant(n: u128) -> Change {
    Change::Tenant { tenant: TenantId::new(Uuid::from_u128(n)) }
}

fn denied(name: &str) -> Denied {
    Denied::Token { token: name.into(), until_s: u64::MAX / 2 }
}

async fn start(redis: &Redis) -> Sidecar {
    let nobody = "127.0.0.1:9".parse().unwrap();
    Sidecar::with_feed(redis, nobody, json!({})).await
}

#[tokio::test]
async fn a_filter_hears_a_change_within_a_second_and_a_new_one_the_deny_list() {
    let redis = Redis::start();
    let relay = Relay::start(&redis).await;
    let sidecar = start(&redis).await;
    let first = changes(&sidecar, "").await;
    assert_eq!((first.epoch.as_str(), first.snapshot), ("e1", Some(Vec::new())));
    let begin = Instant::now();
    relay.publish(tenant(1)).await;
    relay.publish(Change::Deny(denied("t"))).await;
    let heard = until("two changes", async || {
        let heard = changes(&sidecar, "?epoch=e1&after=0").await;
        (heard.sequence == 2).then_some(heard)
    })
    .await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(heard.changes, [tenant(1), Change::Deny(denied("t"))]);
    assert!(heard.alive && heard.snapshot.is_none());
    let rest = changes(&sidecar, "?epoch=e1&after=1").await;
    assert_eq!(rest.changes, [Change::Deny(denied("t"))]);
    assert!(changes(&sidecar, "?epoch=e1&after=2").await.changes.is_empty());
    for query in ["", "?epoch=e0&after=2", "?epoch=e1&after=3"] {
        let snapshot = changes(&sidecar, query).await;
        assert_eq!(snapshot.snapshot, Some(vec![denied("t")]), "{query}");
        assert_eq!((snapshot.changes.len(), snapshot.sequence), (0, 2));
    }
    assert_eq!(sidecar.get("/v1/changes?after=x").await.0, 422);
    assert_eq!(sidecar.metric("gatehouse_feed_alive").await, Some(1));
    assert_eq!(sidecar.metric("gatehouse_feed_denied").await, Some(1));
}

#[tokio::test]
async fn without_a_feed_every_answer_is_silence() {
    let idp = Server::start(&Script::new(|| {
        axum::response::IntoResponse::into_response(r#"{"keys":[{"kid":"a"}]}"#)
    }))
    .await;
    let issuers = json!([{"issuer": "https://idp", "jwks": format!("http://{}/", idp.at)}]);
    let in_memory = Sidecar::start(&config(&memory(), json!({"issuers": issuers})));
    assert!(!changes(&in_memory, "").await.alive);
    assert_eq!(in_memory.metric("gatehouse_feed_alive").await, Some(0));
    // Generations of keys are the sidecar's own word.
    let keys = async || changes(&in_memory, "").await.keys.remove("https://idp");
    until("the generation", keys).await;
    // Redis is there, and nobody ever wrote a feed.
    let redis = Redis::start();
    let url = redis.url("sidecar", "test");
    let sidecar = Sidecar::start(&config(&json!({"kind": "redis", "url": url}), json!({})));
    assert!(!changes(&sidecar, "").await.alive);
}

#[tokio::test]
async fn a_relay_without_a_heartbeat_for_five_seconds_is_silence_until_it_is_back() {
    let redis = Redis::start();
    let relay = Relay::start(&redis).await;
    let sidecar = start(&redis).await;
    relay.fall_silent();
    let begin = Instant::now();
    let silent = async || (!changes(&sidecar, "?epoch=e1&after=0").await.alive).then_some(());
    until("silence", silent).await;
    assert!((4.5..7.0).contains(&begin.elapsed().as_secs_f64()), "{:?}", begin.elapsed());
    relay.writer.beat("e1", 0).await.unwrap();
    let alive = async || changes(&sidecar, "?epoch=e1&after=0").await.alive.then_some(());
    until("life", alive).await;
}

#[tokio::test]
async fn a_redis_that_came_back_empty_is_silence_until_a_new_epoch_brings_the_deny_list() {
    let mut redis = Redis::start();
    let relay = Relay::start(&redis).await;
    let sidecar = start(&redis).await;
    relay.publish(Change::Deny(denied("t"))).await;
    redis.kill();
    redis.restart();
    let silent = async || (!changes(&sidecar, "?epoch=e1&after=1").await.alive).then_some(());
    until("silence", silent).await;
    relay.begin("e2", &[denied("t"), denied("u")]).await;
    let heard = until("the new epoch", async || {
        let heard = changes(&sidecar, "?epoch=e1&after=1").await;
        (heard.epoch == "e2" && heard.alive).then_some(heard)
    })
    .await;
    let mut list = heard.snapshot.unwrap();
    list.sort();
    assert_eq!(list, [denied("t"), denied("u")]);
}
