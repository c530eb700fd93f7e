//! `/v1/jwks`, with a real HTTP server as the issuer.

use std::{sync::Arc, time::Duration};

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use gatehouse_contract::sidecar::Change;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::process::{Redis, Relay, Script, Server, Sidecar, config, memory, until};

const ASK: &str = "/v1/jwks?issuer=https%3A%2F%2Fidp";

fn set(kids: &[&str]) -> impl Fn() -> Response + Send + Sync + 'static {
    let keys: Vec<Value> = kids.iter().map(|kid| json!({"kid": kid, "kty": "RSA"})).collect();
    let text = json!({"keys": keys}).to_string();
    move || text.clone().into_response()
}

fn unavailable((status, body): (u16, Value)) {
    assert_eq!((status, &body["code"]), (503, &json!("identity_unavailable")));
}

#[tokio::test]
async fn keys_are_fetched_once_and_handed_on_as_they_are() {
    let idp = Server::start(&Script::new(set(&["a"]))).await;
    let sidecar = Sidecar::with_issuer(idp.at);
    let (status, first) = sidecar.get(ASK).await;
    assert_eq!(status, 200);
    assert_eq!(first["jwks"], r#"{"keys":[{"kid":"a","kty":"RSA"}]}"#);
    assert!(first["max_age_ms"].as_u64().is_some_and(|ms| (290_000..=300_000).contains(&ms)));
    let (_, second) = sidecar.get(&format!("{ASK}&kid=a")).await;
    assert_eq!(second["generation"], first["generation"]);
    assert_eq!(idp.asked(), 1);
}

#[tokio::test]
async fn a_crowd_that_comes_at_once_asks_the_issuer_once() {
    let idp = Server::start(&Script::new(set(&["a"]))).await;
    let sidecar = Arc::new(Sidecar::with_issuer(idp.at));
    let mut asking = tokio::task::JoinSet::new();
    for index in 0..32 {
        let sidecar = Arc::clone(&sidecar);
        let path = if index % 2 == 0 { ASK.to_owned() } else { format!("{ASK}&kid=a") };
        asking.spawn(async move { sidecar.get(&path).await.0 });
    }
    while let Some(status) = asking.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(idp.asked(), 1);
}

#[tokio::test]
async fn j13_an_unknown_key_is_asked_for_once_and_not_again_within_the_cool_down() {
    let script = Script::new(set(&["a"]));
    let idp = Server::start(&script).await;
    let sidecar = Sidecar::with_issuer(idp.at);
    let (_, before) = sidecar.get(ASK).await;
    script.set(set(&["a", "b"]));
    let (status, after) = sidecar.get(&format!("{ASK}&kid=b")).await;
    assert_eq!(status, 200);
    assert!(after["jwks"].as_str().unwrap().contains("\"b\""), "{after}");
    assert_ne!(before["generation"], after["generation"]);
    assert_eq!(idp.asked(), 2);
    for kid in ["c", "d", "c"] {
        let (status, same) = sidecar.get(&format!("{ASK}&kid={kid}")).await;
        assert_eq!((status, &same["generation"]), (200, &after["generation"]));
    }
    assert_eq!(idp.asked(), 2);
}

/// How many ask at once, and what for.
async fn check_crowd(kid: impl Fn(usize) -> String) -> (usize, Vec<Value>) {
    let script = Script::new(set(&["a"]));
    let idp = Server::start(&script).await;
    let sidecar = Arc::new(Sidecar::with_issuer(idp.at));
    sidecar.get(ASK).await;
    script.set(set(&["a", "new"]));
    let mut asking = tokio::task::JoinSet::new();
    for index in 0..1000 {
        let (sidecar, path) = (Arc::clone(&sidecar), format!("{ASK}&kid={}", kid(index)));
        asking.spawn(async move { sidecar.get(&path).await });
    }
    let mut answers = Vec::new();
    while let Some(answer) = asking.join_next().await {
        let (status, body) = answer.unwrap();
        assert_eq!(status, 200);
        answers.push(body);
    }
    (idp.asked(), answers)
}

#[tokio::test]
async fn j13_a_thousand_at_once_for_a_new_key_are_one_fetch_and_all_get_it() {
    let (asked, answers) = check_crowd(|_| "new".to_owned()).await;
    assert_eq!(asked, 2, "the first one and one more");
    for answer in answers {
        assert!(answer["jwks"].as_str().unwrap().contains("\"new\""), "{answer}");
    }
}

#[tokio::test]
async fn j14_a_thousand_invented_keys_are_one_fetch() {
    let (asked, _) = check_crowd(|index| format!("invented-{index}")).await;
    assert_eq!(asked, 2, "the first one and one more");
}

/// The budget for unknown keys is spent; a real rotation is seen all the same, before the next refresh by age.
#[tokio::test]
async fn j14_invented_keys_do_not_keep_a_new_key_waiting_for_the_next_refresh() {
    let script = Script::new(set(&["a"]));
    let idp = Server::start(&script).await;
    let sidecar = Sidecar::with_issuer(idp.at);
    sidecar.get(ASK).await;
    sidecar.get(&format!("{ASK}&kid=invented")).await;
    assert_eq!(idp.asked(), 2);
    script.set(set(&["a", "new"]));
    let begin = std::time::Instant::now();
    until("the new key", async || {
        sidecar.get(&format!("{ASK}&kid=invented-{:?}", begin.elapsed().as_nanos())).await;
        let (_, body) = sidecar.get(&format!("{ASK}&kid=new")).await;
        body["jwks"].as_str()?.contains("\"new\"").then_some(())
    })
    .await;
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    assert_eq!(idp.asked(), 3);
}

/// Another issuer, asked for a new invention each time, tells when a refresh would have been brought forward.
#[tokio::test]
async fn j14_a_key_that_an_issuer_is_known_not_to_have_is_no_reason_to_ask_it_again() {
    let script = Script::new(set(&["a"]));
    let (idp, other) = (Server::start(&script).await, Server::start(&script).await);
    let issuers = json!([
        {"issuer": "https://idp", "jwks": format!("http://{}/", idp.at)},
        {"issuer": "https://other", "jwks": format!("http://{}/", other.at)},
    ]);
    let sidecar = Sidecar::start(&config(&memory(), json!({"issuers": issuers})));
    // A question that comes while the first keys are fetched is answered by them.
    until("the first keys", async || {
        let other = sidecar.get("/v1/jwks?issuer=https://other").await.0;
        (sidecar.get(ASK).await.0 == 200 && other == 200).then_some(())
    })
    .await;
    let begin = std::time::Instant::now();
    until("the other's second refetch", async || {
        assert_eq!(sidecar.get(&format!("{ASK}&kid=x")).await.0, 200);
        let invented = format!("/v1/jwks?issuer=https://other&kid={}", begin.elapsed().as_nanos());
        assert_eq!(sidecar.get(&invented).await.0, 200);
        (other.asked() >= 3).then_some(())
    })
    .await;
    assert_eq!(idp.asked(), 2);
}

#[tokio::test]
async fn j13_while_the_issuer_is_down_its_keys_are_kept_and_an_unknown_one_is_503() {
    let idp = Server::start(&Script::new(set(&["a"]))).await;
    let sidecar = Sidecar::with_issuer(idp.at);
    let (_, before) = sidecar.get(ASK).await;
    idp.stop().await;
    unavailable(sidecar.get(&format!("{ASK}&kid=b")).await);
    unavailable(sidecar.get(&format!("{ASK}&kid=b")).await);
    for path in [ASK.to_owned(), format!("{ASK}&kid=a")] {
        let (status, after) = sidecar.get(&path).await;
        assert_eq!((status, &after["jwks"]), (200, &before["jwks"]));
    }
    assert_eq!(sidecar.metric(FAILED).await, Some(1));
}

#[tokio::test]
async fn j13_a_key_that_the_issuer_was_seen_not_to_have_is_told_though_it_is_down() {
    let idp = Server::start(&Script::new(set(&["a"]))).await;
    let sidecar = Sidecar::with_issuer_and(idp.at, every_second());
    sidecar.get(ASK).await;
    assert_eq!(sidecar.get(&format!("{ASK}&kid=x")).await.0, 200);
    idp.stop().await;
    until("a failed fetch", async || sidecar.metric(FAILED).await.filter(|n| *n > 0)).await;
    assert_eq!(sidecar.get(&format!("{ASK}&kid=x")).await.0, 200);
    unavailable(sidecar.get(&format!("{ASK}&kid=y")).await);
}

#[tokio::test]
async fn j19_an_issuer_that_is_away_at_the_start_is_503_and_the_metric_says_so_until_it_is_there() {
    let script = Script::new(set(&["a"]));
    let idp = Server::start(&script).await;
    let at = idp.at;
    idp.stop().await;
    let sidecar = Sidecar::with_issuer(at);
    unavailable(sidecar.get(ASK).await);
    assert_eq!(sidecar.metric("gatehouse_jwks_issuers ").await, Some(1));
    assert_eq!(sidecar.metric("gatehouse_jwks_issuers_ready ").await, Some(0));
    // Public routes go on.
    sidecar.until_ready().await;
    let _idp = Server::at(at, &script).await;
    until("the keys", async || (sidecar.get(ASK).await.0 == 200).then_some(())).await;
    assert_eq!(sidecar.metric("gatehouse_jwks_issuers_ready ").await, Some(1));
}

/// Nobody listens there.
const NOBODY: &str = "127.0.0.1:9";
const FAILED: &str = "gatehouse_jwks_fetches_total{outcome=\"failed\"}";
const ANSWERED: &str = "gatehouse_jwks_fetches_total{outcome=\"answered\"}";

fn every_second() -> Value {
    json!({"keys": {"refresh_s": 1, "refresh_min_s": 1}})
}

#[tokio::test]
async fn j15_what_an_issuer_answers_wrongly_leaves_the_old_keys() {
    let script = Script::new(set(&["a"]));
    let idp = Server::start(&script).await;
    let sidecar = Sidecar::with_issuer_and(idp.at, every_second());
    let (_, before) = sidecar.get(ASK).await;
    script.set(|| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    let failed = |n| {
        let sidecar = &sidecar;
        until("a failed fetch", async move || {
            sidecar.metric(FAILED).await.filter(|failed| *failed >= n)
        })
    };
    let mut seen = failed(1).await;
    let wrong: [Box<dyn Fn() -> Response + Send + Sync>; 2] = [
        Box::new(|| ([(header::CONTENT_TYPE, "text/html")], "<html>").into_response()),
        Box::new(|| json!({"keys": []}).to_string().into_response()),
    ];
    for answer in wrong {
        script.set(answer);
        seen = failed(seen + 1).await;
        let (status, after) = sidecar.get(ASK).await;
        assert_eq!((status, &after["jwks"]), (200, &before["jwks"]));
    }
    script.set(set(&["b"]));
    until("the new keys", async || {
        let (_, body) = sidecar.get(ASK).await;
        (body["jwks"] != before["jwks"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn j15_old_keys_end_at_max_stale() {
    let idp = Server::start(&Script::new(set(&["a"]))).await;
    let keys = json!({"keys": {"refresh_s": 1, "refresh_min_s": 1, "max_stale_s": 2}});
    let sidecar = Sidecar::with_issuer_and(idp.at, keys);
    assert_eq!(sidecar.get(ASK).await.0, 200);
    idp.stop().await;
    until("the end of the keys", async || (sidecar.get(ASK).await.0 == 503).then_some(())).await;
    assert_eq!(sidecar.metric("gatehouse_jwks_issuers_ready ").await, Some(0));
}

/// A byte every 50 ms: the connection lives, the deadline counts.
#[tokio::test]
async fn j15_a_slow_issuer_is_given_up_in_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".bytes();
                for byte in answer.chain(std::iter::repeat(b' ')) {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
    });
    let sidecar = Sidecar::with_issuer(at);
    let begin = std::time::Instant::now();
    unavailable(sidecar.get(ASK).await);
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    task.abort();
}

fn generation(changes: &Value) -> Option<u64> {
    changes["keys"]["https://idp"].as_u64()
}

/// Nobody asks for keys: the refresh by age brings it, and filters hear the new generation.
#[tokio::test]
async fn j16_a_withdrawn_key_is_gone_within_the_refresh_interval() {
    let script = Script::new(set(&["a", "leaked"]));
    let idp = Server::start(&script).await;
    let sidecar = Sidecar::with_issuer_and(idp.at, every_second());
    let old = until("a generation", async || generation(&sidecar.get("/v1/changes").await.1)).await;
    script.set(set(&["a"]));
    let begin = std::time::Instant::now();
    until("another generation", async || {
        generation(&sidecar.get("/v1/changes").await.1).filter(|new| *new != old)
    })
    .await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    let (_, body) = sidecar.get(ASK).await;
    assert!(!body["jwks"].as_str().unwrap().contains("leaked"), "{body}");
}

#[tokio::test]
async fn j17_the_issuers_max_age_counts_within_bounds() {
    for (control, expected_ms) in [
        ("max-age=120", 120_000),
        ("max-age=1", 60_000),
        ("max-age=99999", 900_000),
        ("x", 300_000),
    ] {
        let answer = set(&["a"]);
        let script =
            Script::new(move || ([(header::CACHE_CONTROL, control)], answer()).into_response());
        let idp = Server::start(&script).await;
        let (_, body) = Sidecar::with_issuer(idp.at).get(ASK).await;
        let ms = body["max_age_ms"].as_u64().unwrap();
        assert!((expected_ms - 10_000..=expected_ms).contains(&ms), "{control}: {ms}");
    }
    let answer = set(&["a"]);
    let script =
        Script::new(move || ([(header::CACHE_CONTROL, "max-age=1")], answer()).into_response());
    let idp = Server::start(&script).await;
    let sidecar = Sidecar::with_issuer_and(idp.at, json!({"keys": {"refresh_min_s": 1}}));
    until("refreshes", async || sidecar.metric(ANSWERED).await.filter(|n| *n >= 3)).await;
}

/// A feed's word is enough, though the set is young and nobody asks.
#[tokio::test]
async fn j18_a_published_key_is_there_within_a_second_of_the_feeds_word() {
    let redis = Redis::start();
    let relay = Relay::start(&redis).await;
    let script = Script::new(set(&["a"]));
    let (idp, other) = (Server::start(&script).await, Server::start(&script).await);
    let issuers = json!([
        {"issuer": "https://idp", "jwks": format!("http://{}/", idp.at)},
        {"issuer": "https://other", "jwks": format!("http://{}/", other.at)},
    ]);
    let sidecar =
        Sidecar::with_feed(&redis, NOBODY.parse().unwrap(), json!({"issuers": issuers})).await;
    let changes = async || sidecar.get("/v1/changes").await.1;
    let both = async || {
        let changes = changes().await;
        changes["keys"]["https://other"].as_u64().and_then(|_| generation(&changes))
    };
    let old = until("both generations", both).await;
    assert_eq!((idp.asked(), other.asked()), (1, 1), "the first reading of the feed is no reason");
    script.set(set(&["a", "new"]));
    let begin = std::time::Instant::now();
    relay.publish(Change::Keys { issuer: "https://idp".into() }).await;
    until("another generation", async || generation(&changes().await).filter(|new| *new != old))
        .await;
    assert!(begin.elapsed() < Duration::from_millis(1500), "{:?}", begin.elapsed());
    assert_eq!((idp.asked(), other.asked()), (2, 1), "another issuer is not asked");
}

/// What an issuer answers; none of it is taken.
async fn check_refused(answer: impl Fn() -> Response + Send + Sync + 'static) {
    let idp = Server::start(&Script::new(answer)).await;
    let sidecar = Sidecar::with_issuer(idp.at);
    let begin = std::time::Instant::now();
    for _ in 0..20 {
        unavailable(sidecar.get(ASK).await);
    }
    // Pauses of 0.25 s, 0.5 s, 1 s… (less a quarter), whoever asks.
    let bound = 2 + begin.elapsed().as_millis() / 180;
    assert!(idp.asked() as u128 <= bound, "{} within {:?}", idp.asked(), begin.elapsed());
}

#[tokio::test]
async fn j15_what_is_out_of_bounds_is_not_taken() {
    let padded = |bytes: usize| {
        let text = json!({"keys": [{}], "x": ""}).to_string();
        text.replace("\"x\":\"\"", &format!("\"x\":\"{}\"", "x".repeat(bytes - text.len())))
    };
    let fits = padded(64 * 1024);
    let idp = Server::start(&Script::new(move || fits.clone().into_response())).await;
    assert_eq!(Sidecar::with_issuer(idp.at).get(ASK).await.0, 200);
    let large = padded(64 * 1024 + 1);
    check_refused(move || large.clone().into_response()).await;
    check_refused(set(&["a"; 101])).await;
    check_refused(set(&[])).await;
    check_refused(|| json!({"keys": [{"kty": "EC", "d": "x"}]}).to_string().into_response()).await;
    check_refused(|| "<html>".into_response()).await;
    check_refused(|| StatusCode::INTERNAL_SERVER_ERROR.into_response()).await;
}

#[tokio::test]
async fn j15_a_redirect_is_not_followed() {
    let elsewhere = Server::start(&Script::new(set(&["evil"]))).await;
    let to = format!("http://{}/jwks", elsewhere.at);
    check_refused(move || (StatusCode::FOUND, [(header::LOCATION, to.clone())]).into_response())
        .await;
    assert_eq!(elsewhere.asked(), 0);
}

#[tokio::test]
async fn an_issuer_that_nobody_configured_is_404_and_no_issuer_is_422() {
    let idp = Server::start(&Script::new(set(&["a"]))).await;
    let sidecar = Sidecar::with_issuer(idp.at);
    assert_eq!(sidecar.get("/v1/jwks?issuer=https%3A%2F%2Fevil").await.0, 404);
    assert_eq!(sidecar.get("/v1/jwks").await.0, 422);
}
