//! J34: gRPC callers get a status in trailers alone, gRPC-Web callers the same in headers.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gatehouse_tests::h2::client::{Answer, Connection, block_on};
use serde_json::json;

use super::gate::{AGENTS, Gate, ISSUER, Plan, VIEWER, token, with_claim};

/// Sends a unary call in this dialect; the answer over HTTP/2.
fn call(gate: &Gate, content_type: &str, authorization: Option<&str>) -> Answer {
    let mut request = http::Request::builder()
        .method("POST")
        .uri(format!("http://api.greenlang.local{AGENTS}"))
        .header("content-type", content_type)
        .header("te", "trailers");
    if let Some(value) = authorization {
        request = request.header("authorization", format!("Bearer {value}"));
    }
    let request = request.body(()).unwrap();
    let listen = gate.envoy.listen;
    block_on(async move {
        let connection = Connection::open(listen).await?;
        connection.send(request, Some(vec![0, 0, 0, 0, 0])).await
    })
    .unwrap()
}

/// A refusal without body, whose status is this and stands once; everything in the first and only header block.
#[track_caller]
fn refused(answer: &Answer, code: &str, message: &str) {
    assert_eq!(answer.head.status(), 200, "{answer:?}");
    assert_eq!(answer.all("grpc-status"), [code], "{answer:?}");
    assert_eq!(answer.all("grpc-message"), [message], "{answer:?}");
    assert!(answer.trailers.is_none(), "trailers only: {answer:?}");
    if answer.all("content-type").concat().starts_with("application/grpc-web") {
        // There trailers are a frame of the body.
        let text = answer.all("content-type").concat().contains("-text");
        let body = if text { STANDARD.decode(&answer.body).unwrap() } else { answer.body.to_vec() };
        let lines = format!("grpc-status:{code}\r\ngrpc-message:{message}\r\n");
        assert_eq!(body.first(), Some(&0x80), "{answer:?}");
        assert_eq!(body.get(5..), Some(lines.as_bytes()), "{answer:?}");
        assert_eq!(answer.all("access-control-expose-headers"), ["grpc-status, grpc-message"]);
    } else {
        assert!(answer.body.is_empty(), "{answer:?}");
    }
    assert_eq!(answer.all("x-request-id").len(), 1, "{answer:?}");
    let text = format!("{answer:?}");
    assert!(!text.contains("4294967295") && !text.contains("problem+json"), "{text}");
}

#[test]
fn j34_grpc_callers_are_refused_by_a_status_and_no_body() {
    let plan = Plan {
        sidecar: json!({"limits": {
            "endpoints": [{"method": "POST", "route": AGENTS, "per_minute": 2}],
        }}),
        ..Plan::default()
    };
    let gate = Gate::with(plan);
    let good = token();
    let viewer = with_claim("sub", json!(VIEWER));
    for (content_type, own) in [
        ("application/grpc", "application/grpc"),
        ("application/grpc+proto", "application/grpc"),
        ("application/grpc-web", "application/grpc-web+proto"),
        ("application/grpc-web+proto", "application/grpc-web+proto"),
        ("application/grpc-web-text", "application/grpc-web-text+proto"),
        ("application/grpc-web-text+proto", "application/grpc-web-text+proto"),
    ] {
        let missing = call(&gate, content_type, None);
        refused(&missing, "16", "Authentication is required");
        assert_eq!(missing.all("www-authenticate"), [r#"Bearer realm="gatehouse""#]);
        assert!(
            missing.all("content-type").concat().starts_with(own),
            "{content_type}: {missing:?}"
        );
        refused(&call(&gate, content_type, Some("x")), "16", "The access token is not valid");
        let denied = call(&gate, content_type, Some(&viewer));
        refused(&denied, "7", "The caller's roles do not allow this");
        assert_eq!(denied.all("www-authenticate"), [""; 0]);
    }
    // The nearest neighbour that passes, twice, and then the limit.
    for _ in 0..2 {
        let passed = call(&gate, "application/grpc", Some(&good));
        assert_eq!(passed.all("grpc-status"), [""; 0], "{passed:?}");
        assert!(!passed.body.is_empty());
    }
    let limited = call(&gate, "application/grpc", Some(&good));
    refused(&limited, "8", "The rate limit is used up");
    refused(&call(&gate, "application/grpc-web", Some(&good)), "8", "The rate limit is used up");
    // JSON callers beside them get problems, and so does what Envoy does not take for gRPC: never 200 without a status.
    for other in [
        "application/json",
        "Application/gRPC",
        "application/grpc;charset=utf-8",
        "application/grpcx",
        "application/grpc-weblog",
    ] {
        let json = call(&gate, other, None);
        assert_eq!(json.head.status(), 401, "{other}: {json:?}");
        assert_eq!(json.all("grpc-status"), [""; 0], "{other}");
        assert_eq!(json.all("content-type"), ["application/problem+json"], "{other}");
    }
    gate.outside().members.clear();
    drop(gate);

    // Nobody can say who it is.
    let keys = vec![(ISSUER.to_owned(), 500, json!({}))];
    let away = Gate::with(Plan { keys, ..Plan::default() });
    let answer = call(&away, "application/grpc", Some(&good));
    refused(&answer, "14", "Identities cannot be checked at the moment");
}
