//! Issuers whose keys are where their discovery document says (acceptance J39).

use std::net::SocketAddr;

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::process::{Script, Server, Sidecar, config, memory, until};

const WELL_KNOWN: &str = "/t/.well-known/openid-configuration";

fn keys() -> Response {
    axum::Json(json!({"keys": [{"kid": "a"}]})).into_response()
}

/// An issuer at `http://<its address>/t`; `discovery` gets that and answers.
async fn idp(discovery: impl Fn(&str) -> Response + Send + Sync + 'static) -> Server {
    let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let issuer = format!("http://{at}/t");
    let script = Script::by_path(move |path| match path {
        WELL_KNOWN => discovery(&issuer),
        "/keys" => keys(),
        _ => StatusCode::NOT_FOUND.into_response(),
    });
    Server::at(at, &script).await
}

fn document(issuer: &str, jwks_uri: &str) -> Response {
    axum::Json(json!({"issuer": issuer, "jwks_uri": jwks_uri, "x": 1})).into_response()
}

fn sidecar(idp: SocketAddr, allow: &[SocketAddr], more: Value) -> Sidecar {
    let mut config = config(&memory(), more);
    config["allow"] = allow.iter().map(|at| format!("http://{at}")).collect();
    config["issuers"] = json!([{"issuer": format!("http://{idp}/t"), "discovery": true}]);
    Sidecar::start(&config)
}

async fn ask(sidecar: &Sidecar, idp: SocketAddr) -> u16 {
    sidecar.get(&format!("/v1/jwks?issuer=http://{idp}/t")).await.0
}

#[tokio::test]
async fn j39_keys_are_found_where_the_issuers_document_says() {
    let idp = idp(|issuer| document(issuer, &issuer.replace("/t", "/keys"))).await;
    let sidecar = sidecar(idp.at, &[idp.at], json!({}));
    assert_eq!(ask(&sidecar, idp.at).await, 200);
    assert_eq!((idp.bodies(WELL_KNOWN).len(), idp.bodies("/keys").len()), (1, 1));
}

/// `discovery` is refused, and `elsewhere` is never asked.
async fn check_refused(
    discovery: impl Fn(&str) -> Response + Send + Sync + 'static,
    elsewhere: &Server,
) {
    let idp = idp(discovery).await;
    let sidecar = sidecar(idp.at, &[idp.at], json!({}));
    assert_eq!(ask(&sidecar, idp.at).await, 503);
    assert_eq!(idp.bodies("/keys").len(), 0);
    assert_eq!(elsewhere.asked(), 0);
}

#[tokio::test]
async fn j39_a_document_of_another_issuer_or_to_another_place_is_not_followed() {
    let elsewhere = Server::start(&Script::new(keys)).await;
    let at = elsewhere.at;
    let here = |issuer: &str| issuer.replace("/t", "/keys");
    check_refused(move |issuer| document(&format!("{issuer}/"), &here(issuer)), &elsewhere).await;
    check_refused(move |issuer| document("https://idp.example", &here(issuer)), &elsewhere).await;
    // Without TLS at an address that nobody named; and with TLS at a private one.
    check_refused(move |issuer| document(issuer, &format!("http://{at}/")), &elsewhere).await;
    check_refused(move |issuer| document(issuer, &format!("https://{at}/")), &elsewhere).await;
    check_refused(move |issuer| document(issuer, "file:///etc/passwd"), &elsewhere).await;
    check_refused(
        move |_| {
            let to = format!("http://{at}{WELL_KNOWN}");
            (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
        },
        &elsewhere,
    )
    .await;
    check_refused(|_| "<html>".into_response(), &elsewhere).await;
    check_refused(|_| axum::Json(json!({"issuer": 1})).into_response(), &elsewhere).await;
}

/// Named or not: our own internal listener is no issuer's.
#[tokio::test]
async fn j39_a_document_cannot_lead_to_our_own_internal_listener() {
    let control = Server::start(&Script::new(keys)).await;
    let at = control.at;
    let idp = idp(move |issuer| document(issuer, &format!("http://{at}/keys"))).await;
    let more = json!({"control_api": {"internal": format!("http://{at}")}});
    let refused = sidecar(idp.at, &[idp.at, at], more);
    assert_eq!(ask(&refused, idp.at).await, 503);
    assert_eq!(control.asked(), 0);
    let allowed = sidecar(idp.at, &[idp.at, at], json!({}));
    assert_eq!(ask(&allowed, idp.at).await, 200);
}

/// The document moved: after a failure it is read again.
#[tokio::test]
async fn j39_discovery_is_repeated_after_a_failure() {
    let moved = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = std::sync::Arc::clone(&moved);
    let old = Server::start(&Script::new(keys)).await;
    let at = old.at;
    let idp = idp(move |issuer| {
        let there = state.load(std::sync::atomic::Ordering::SeqCst);
        let url = if there { issuer.replace("/t", "/keys") } else { format!("http://{at}/") };
        document(issuer, &url)
    })
    .await;
    let keys = json!({"keys": {"refresh_s": 1, "refresh_min_s": 1}});
    let sidecar = sidecar(idp.at, &[idp.at, at], keys);
    assert_eq!(ask(&sidecar, idp.at).await, 200);
    moved.store(true, std::sync::atomic::Ordering::SeqCst);
    old.stop().await;
    until("the keys of the new place", async || (!idp.bodies("/keys").is_empty()).then_some(()))
        .await;
    assert_eq!(ask(&sidecar, idp.at).await, 200);
}
