//! Every refusal is problem+json with the request's id, whoever made it; over a real socket.

use std::time::Duration;

use axum::{Router, http::StatusCode, routing::get};
use gatehouse_contract::Reason;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{Bounds, Verbatim, finish};
use crate::{Shutdown, body::JsonBody, listen};

fn app() -> Router {
    async fn echo(body: JsonBody) -> Result<String, crate::Reply> {
        body.read(|doc| doc.text("name"))
    }
    let router = Router::new()
        .route("/panic", get(async || -> &'static str { panic!("boom") }))
        .route("/slow", get(async || std::future::pending::<()>().await))
        .route("/text", get(async || (StatusCode::FORBIDDEN, "a library's words")))
        .route(
            "/verbatim",
            get(async || (StatusCode::BAD_REQUEST, axum::Extension(Verbatim), "as it is")),
        )
        .route("/echo", axum::routing::post(echo));
    finish(router, Bounds { time: Duration::from_millis(200), body_bytes: 128, quiet: false })
}

async fn send(request: &str) -> (u16, String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, shutdown) = Shutdown::manual();
    let server = tokio::spawn(listen::serve("listen", listener, app(), shutdown));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut text))
        .await
        .expect("an answer within 5 s")
        .unwrap();
    trigger.ask();
    server.await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

async fn check(request: &str, status: u16, code: &str) -> Value {
    let (got, head, body) = send(request).await;
    assert_eq!(got, status, "{head}\n{body}");
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    assert!(head.contains("x-request-id: abc-1"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    for inside in ["boom", "library", "serde", "expected", "EOF", ".rs"] {
        assert!(!body.contains(inside), "{inside}: {body}");
    }
    let body: Value = serde_json::from_str(&body).expect(&body);
    let reason = Reason::ALL.iter().find(|reason| reason.code() == code).unwrap();
    assert_eq!(
        (&body["type"], &body["title"]),
        (&reason.type_uri().into(), &reason.title().into())
    );
    assert_eq!(body["instance"], "urn:request:abc-1");
    assert_eq!(body["code"], code);
    assert_eq!(body["status"], status);
    assert_eq!(body["request_id"], "abc-1");
    body
}

#[tokio::test]
async fn an_answer_before_its_body_says_that_the_connection_ends() {
    let head = "POST /text HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n";
    let (status, head, _) = send(head).await;
    assert_eq!(status, 405, "{head}");
    assert!(head.contains("connection: close"), "{head}");
}

fn get_of(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-request-id: abc-1\r\nconnection: close\r\n\r\n")
}

fn post_of(kind: &str, body: &str) -> String {
    format!(
        "POST /echo HTTP/1.1\r\nhost: x\r\nx-request-id: abc-1\r\nconnection: close\r\n\
         content-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn refusals_of_the_router_are_problems() {
    check(&get_of("/nothing"), 404, "not_found").await;
    let (_, head, _) = send(&get_of("/echo")).await;
    assert!(head.contains("allow: post"), "{head}");
    check(&get_of("/echo"), 405, "method_not_allowed").await;
    check(&get_of("/text"), 403, "permission_denied").await;
}

#[tokio::test]
async fn panics_and_hangs_are_answered() {
    check(&get_of("/panic"), 500, "internal").await;
    check(&get_of("/slow"), 504, "answer_timeout").await;
}

#[tokio::test]
async fn who_sends_the_body_too_slowly_is_told_so_and_let_go() {
    let whole = post_of("application/json", r#"{"name":"a"}"#);
    let half = whole.strip_suffix(r#""a"}"#).unwrap();
    check(&half.replace("connection: close\r\n", ""), 408, "request_timeout").await;
    assert_eq!(send(&whole).await.0, 200);
}

#[tokio::test]
async fn bodies_are_bounded_and_their_mistakes_named() {
    let (status, _, body) = send(&post_of("application/json", r#"{"name":"a"}"#)).await;
    assert_eq!((status, body.as_str()), (200, "a"));
    check(&post_of("text/plain", "{}"), 415, "media_type_unsupported").await;
    check(&post_of("application/json", &"x".repeat(129)), 413, "body_too_large").await;
    let body = check(&post_of("application/json", "{"), 400, "body_malformed").await;
    assert_eq!(body["detail"], "not JSON at line 1, column 1");
    check(&post_of("application/json", ""), 400, "body_malformed").await;
    check(&post_of("application/json", "[]"), 422, "body_invalid").await;
    let misspelt = post_of("application/json", r#"{"name":"a","nmae":1}"#);
    let body = check(&misspelt, 422, "body_invalid").await;
    let told = json!({"pointer": "/nmae", "detail": "unknown field; remove it; known here: name"});
    assert_eq!(body["errors"], json!([told]));
    let many: Vec<String> = (0..12).map(|n| format!(r#""{n}":0"#)).collect();
    let many = post_of("application/json", &format!("{{{}}}", many.join(",")));
    let body = check(&many, 422, "body_invalid").await;
    assert_eq!(body["errors"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn an_error_of_another_protocol_stays_as_it_is() {
    let (status, _, body) = send(&get_of("/verbatim")).await;
    assert_eq!((status, body.as_str()), (400, "as it is"));
}
