//! `/v1/principal`, with a real HTTP server as the control API's internal listener.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{
    Problem, Reason, TenantId, Tier,
    problem::MEDIA_TYPE,
    sidecar::{Change, Denied, PrincipalAsk, PrincipalFacts},
};
use gatehouse_redis_kit::cred::{Holder, Permissions};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::process::{Redis, Relay, Script, Server, Sidecar, config, memory, until};

fn tenant() -> TenantId {
    TenantId::new(Uuid::from_u128(7))
}

fn ask(subject: &str) -> Value {
    let ask = PrincipalAsk::Subject {
        issuer: "https://idp".into(),
        tenant: tenant(),
        subject: subject.into(),
        token: None,
        issued_at_s: None,
        vouched: false,
    };
    serde_json::to_value(ask).unwrap()
}

fn facts(epoch: u64) -> impl Fn() -> Response + Send + Sync + 'static {
    move || {
        axum::Json(PrincipalFacts {
            tier: Tier::Pro,
            epoch,
            ..PrincipalFacts::member(tenant(), "s")
        })
        .into_response()
    }
}

fn problem() -> Response {
    let body = Problem::new(Reason::NotFound).to_json();
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response()
}

async fn check(sidecar: &Sidecar, subject: &str, expected: (u16, &str)) {
    let (status, body) = sidecar.post("/v1/principal", &ask(subject)).await;
    let word = body["code"].as_str().or(body["tier"].as_str());
    assert_eq!((status, word), (expected.0, Some(expected.1)), "{body}");
}

const FROM_MEMORY: &str = "gatehouse_principal_cache_hits_total{cache=\"memory\"}";
const FROM_REDIS: &str = "gatehouse_principal_cache_hits_total{cache=\"redis\"}";

#[tokio::test]
async fn facts_are_kept_for_a_moment_per_subject_and_dropped_by_a_change() {
    let redis = Redis::start();
    let relay = Relay::start(&redis).await;
    let control = Server::start(&Script::new(facts(1))).await;
    let sidecar = Sidecar::with_feed(&redis, control.at, json!({})).await;
    check(&sidecar, "one", (200, "pro")).await;
    check(&sidecar, "two", (200, "pro")).await;
    assert_eq!(control.asked(), 2, "one subject's facts are not another's");
    // Within the second the answer is kept, after it the record is asked: either way the new facts arrive.
    let begin = std::time::Instant::now();
    while control.asked() == 2 {
        check(&sidecar, "one", (200, "pro")).await;
        assert!(begin.elapsed() < std::time::Duration::from_secs(20));
    }
    assert!(begin.elapsed() < std::time::Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(sidecar.metric(FROM_MEMORY).await.is_some_and(|hits| hits > 0));

    check(&sidecar, "one", (200, "pro")).await;
    let asked = control.asked();
    relay.publish(Change::Tenant { tenant: tenant() }).await;
    let begin = std::time::Instant::now();
    until("the record to be asked", async || {
        check(&sidecar, "one", (200, "pro")).await;
        (control.asked() > asked).then_some(())
    })
    .await;
    assert!(begin.elapsed() < std::time::Duration::from_millis(800), "{:?}", begin.elapsed());
}

/// A sidecar that cannot hear of changes may not remember.
#[tokio::test]
async fn while_the_feed_is_silent_the_record_is_asked_every_time() {
    let control = Server::start(&Script::new(facts(1))).await;
    let sidecar = Sidecar::with_control(control.at);
    for asked in 1..=3 {
        check(&sidecar, "one", (200, "pro")).await;
        assert_eq!(control.asked(), asked);
    }
}

fn token(mark: &str, issued_at_s: Option<u64>) -> Value {
    let mut ask = ask("s");
    ask["token"] = mark.into();
    ask["issued_at_s"] = issued_at_s.into();
    ask
}

#[tokio::test]
async fn a_denied_token_is_401_and_another_of_the_same_subject_is_not() {
    let redis = Redis::start();
    let relay = Relay::start(&redis).await;
    let control = Server::start(&Script::new(facts(1))).await;
    let sidecar = Sidecar::with_feed(&redis, control.at, json!({})).await;
    let status = async |ask: &Value| sidecar.post("/v1/principal", ask).await.0;
    assert_eq!(status(&token("m1", Some(100))).await, 200);
    let until_s = u64::MAX / 2;
    relay.publish(Change::Deny(Denied::Token { token: "m1".into(), until_s })).await;
    let denied = async || (status(&token("m1", Some(100))).await == 401).then_some(());
    until("the token to be denied", denied).await;
    assert_eq!(status(&token("m2", Some(100))).await, 200);

    let (tenant, subject) = (tenant(), "s".to_owned());
    let before = Denied::IssuedBefore { tenant, subject, before_s: 101, until_s };
    relay.publish(Change::Deny(before)).await;
    until("the older to be denied", async || {
        (status(&token("m2", Some(100))).await == 401).then_some(())
    })
    .await;
    assert_eq!(status(&token("m2", Some(101))).await, 200);
    assert_eq!(status(&token("m2", None)).await, 401);
    // A sidecar that starts now loads the deny list.
    let late = Sidecar::with_feed(&redis, control.at, json!({})).await;
    for (ask, expected) in [(token("m1", Some(101)), 401), (token("m3", Some(101)), 200)] {
        assert_eq!(late.post("/v1/principal", &ask).await.0, expected);
    }
}

#[tokio::test]
async fn cached_permissions_spare_the_record_until_a_change() {
    let redis = Redis::start();
    let relay = Relay::start(&redis).await;
    let control = Server::start(&Script::new(facts(2))).await;
    let sidecar = Sidecar::with_feed(&redis, control.at, json!({})).await;
    let address = redis.url("control", "test").parse().unwrap();
    let cache = Permissions::new(&address, std::time::Duration::from_secs(5)).unwrap();
    let holder = Holder::Subject { issuer: "https://idp", subject: "one", vouched: false };
    let known =
        PrincipalFacts { tier: Tier::Enterprise, ..PrincipalFacts::member(tenant(), "one") };
    let generation = cache.generation(tenant(), holder).await.unwrap();
    cache.put(tenant(), holder, &generation, &known).await.unwrap();
    check(&sidecar, "one", (200, "enterprise")).await;
    assert_eq!((control.asked(), sidecar.metric(FROM_REDIS).await), (0, Some(1)));
    check(&sidecar, "two", (200, "pro")).await;
    relay.publish(Change::Subject { tenant: tenant(), subject: "one".into() }).await;
    until("the record to be asked", async || {
        let (_, body) = sidecar.post("/v1/principal", &ask("one")).await;
        (body["tier"] == "pro").then_some(())
    })
    .await;
}

/// Redis down goes to the control API, and never to allow.
#[tokio::test]
async fn with_redis_away_the_record_decides_and_with_both_away_nobody_does() {
    let mut redis = Redis::start();
    let _relay = Relay::start(&redis).await;
    let script = Script::new(facts(1));
    let control = Server::start(&script).await;
    let sidecar = Sidecar::with_feed(&redis, control.at, json!({})).await;
    check(&sidecar, "one", (200, "pro")).await;
    redis.kill();
    check(&sidecar, "two", (200, "pro")).await;
    script.set(problem);
    check(&sidecar, "three", (404, "not_found")).await;
    control.stop().await;
    check(&sidecar, "four", (503, "identity_unavailable")).await;
    let kept_no_longer = async || {
        let (status, _) = sidecar.post("/v1/principal", &ask("one")).await;
        (status == 503).then_some(())
    };
    until("what is kept to end", kept_no_longer).await;
}

#[tokio::test]
async fn a_subject_that_the_record_does_not_know_is_404_and_not_remembered() {
    let script = Script::new(problem);
    let control = Server::start(&script).await;
    let sidecar = Sidecar::with_control(control.at);
    check(&sidecar, "one", (404, "not_found")).await;
    script.set(facts(1));
    check(&sidecar, "one", (200, "pro")).await;
}

#[tokio::test]
async fn what_is_not_the_control_apis_own_word_is_503() {
    let script = Script::new(|| StatusCode::NOT_FOUND.into_response());
    let control = Server::start(&script).await;
    let sidecar = Sidecar::with_control(control.at);
    check(&sidecar, "one", (503, "identity_unavailable")).await;
    script.set(|| StatusCode::UNAUTHORIZED.into_response());
    check(&sidecar, "one", (503, "identity_unavailable")).await;
    for strange in
        ["", "{}", r#"{"status":"active","tier":"gold","roles":[],"platform":true,"epoch":1}"#]
    {
        script.set(move || strange.into_response());
        check(&sidecar, "one", (503, "identity_unavailable")).await;
    }
    script.set(|| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    check(&sidecar, "one", (503, "identity_unavailable")).await;
    script.set(|| (StatusCode::FOUND, [(header::LOCATION, "http://127.0.0.1:1/")]).into_response());
    check(&sidecar, "one", (503, "identity_unavailable")).await;
    control.stop().await;
    check(&sidecar, "one", (503, "identity_unavailable")).await;
}

#[tokio::test]
async fn a_control_api_that_does_not_answer_is_given_up_in_time() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sidecar = Sidecar::with_control(silent.local_addr().unwrap());
    let begin = std::time::Instant::now();
    check(&sidecar, "one", (503, "identity_unavailable")).await;
    assert!(begin.elapsed() < std::time::Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn without_a_control_api_nobody_is_known() {
    let sidecar = Sidecar::start(&config(&memory(), json!({})));
    check(&sidecar, "one", (503, "identity_unavailable")).await;
    let (status, body) = sidecar.post("/v1/principal", &json!({"issuer": "x"})).await;
    assert_eq!((status, &body["code"]), (422, &json!("body_invalid")));
}
