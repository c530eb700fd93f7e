//! `/v1/principal`, with a real HTTP server as the control API's internal listener.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{
    Problem, Reason, TenantId, Tier,
    problem::MEDIA_TYPE,
    sidecar::{PrincipalAsk, PrincipalFacts},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::process::{Script, Server, Sidecar, config, memory};

fn ask(subject: &str) -> Value {
    let ask = PrincipalAsk::Subject {
        issuer: "https://idp".into(),
        tenant: TenantId::new(Uuid::from_u128(7)),
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
            ..PrincipalFacts::member(TenantId::new(Uuid::from_u128(7)), "s")
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

#[tokio::test]
async fn facts_are_asked_for_and_kept_for_a_moment_per_subject() {
    let control = Server::start(&Script::new(facts(1))).await;
    let sidecar = Sidecar::with_control(control.at);
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
    let kept = sidecar.metric("gatehouse_principal_cache_hits_total").await;
    assert!(kept.is_some_and(|hits| hits > 0), "{kept:?}");
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
