//! `/v1/jwks`, with a real HTTP server as the issuer.

use std::sync::Arc;

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::process::{Script, Server, Sidecar};

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

/// J13.
#[tokio::test]
async fn an_unknown_key_is_asked_for_once_and_not_again_within_the_cool_down() {
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

#[tokio::test]
async fn keys_are_kept_while_the_issuer_is_down() {
    let idp = Server::start(&Script::new(set(&["a"]))).await;
    let sidecar = Sidecar::with_issuer(idp.at);
    let (_, before) = sidecar.get(ASK).await;
    idp.stop().await;
    let (status, after) = sidecar.get(&format!("{ASK}&kid=b")).await;
    assert_eq!((status, &after["jwks"]), (200, &before["jwks"]));
    assert_eq!(sidecar.metric("gatehouse_jwks_fetches_total{outcome=\"failed\"}").await, Some(1));
}

#[tokio::test]
async fn an_issuer_that_was_never_there_is_503() {
    let idp = Server::start(&Script::new(set(&[]))).await;
    let at = idp.at;
    idp.stop().await;
    unavailable(Sidecar::with_issuer(at).get(ASK).await);
}

/// What an issuer answers; none of it is taken.
async fn check_refused(answer: impl Fn() -> Response + Send + Sync + 'static) {
    let idp = Server::start(&Script::new(answer)).await;
    let sidecar = Sidecar::with_issuer(idp.at);
    unavailable(sidecar.get(ASK).await);
    assert_eq!(idp.asked(), 1);
    // Within the pause after a failure nobody is asked again.
    unavailable(sidecar.get(ASK).await);
    assert_eq!(idp.asked(), 1);
}

#[tokio::test]
async fn what_is_out_of_bounds_is_not_taken() {
    let padded = |bytes: usize| {
        let text = json!({"keys": [], "x": ""}).to_string();
        text.replace("\"x\":\"\"", &format!("\"x\":\"{}\"", "x".repeat(bytes - text.len())))
    };
    let fits = padded(64 * 1024);
    let idp = Server::start(&Script::new(move || fits.clone().into_response())).await;
    assert_eq!(Sidecar::with_issuer(idp.at).get(ASK).await.0, 200);
    let large = padded(64 * 1024 + 1);
    check_refused(move || large.clone().into_response()).await;
    check_refused(set(&["a"; 101])).await;
    check_refused(|| "<html>".into_response()).await;
    check_refused(|| StatusCode::INTERNAL_SERVER_ERROR.into_response()).await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(&Script::new(set(&["evil"]))).await;
    let to = format!("http://{}/jwks", elsewhere.at);
    check_refused(move || (StatusCode::FOUND, [(header::LOCATION, to.clone())]).into_response())
        .await;
    assert_eq!(elsewhere.asked(), 0);
}

#[tokio::test]
async fn an_issuer_that_nobody_configured_is_404_and_no_issuer_is_422() {
    let idp = Server::start(&Script::new(set(&[]))).await;
    let sidecar = Sidecar::with_issuer(idp.at);
    assert_eq!(sidecar.get("/v1/jwks?issuer=https%3A%2F%2Fevil").await.0, 404);
    assert_eq!(sidecar.get("/v1/jwks").await.0, 422);
    assert_eq!(idp.asked(), 0);
}
