//! X3 and the document's own changes of headers and queries, in real Envoy.

use std::sync::Arc;

use gatehouse_tests::http::{Connection, Request, serve};
use serde_json::{Value, json};

use super::gate::{AGENTS, ALLOWED, EVIL, Gate, Plan, SUBJECT, TENANT, document, token, verdict};

fn with(name: &str, value: Value) -> Value {
    let mut document = document();
    document[name] = value;
    document
}

#[test]
fn headers_and_query_reach_the_upstream_changed_and_nobody_poses() {
    let document = with(
        "transforms",
        json!({
            "request": {
                "headers": [
                    {"set": "x-org", "value": "${tenant} ${user}"},
                    {"add": "x-list", "value": "${version}"},
                    {"remove": "x-debug"},
                    {"rename": "x-old", "to": "x-new"},
                ],
                "query": [
                    {"remove": "debug"},
                    {"rename": "page", "to": "offset"},
                    {"set": "org", "value": "${tenant}"},
                ],
            },
            "response": {"headers": [
                {"set": "strict-transport-security", "value": "max-age=1"},
                {"add": "x-list", "value": "${request_id}"},
                {"rename": "x-theirs", "to": "x-ours"},
            ]},
        }),
    );
    let upstream = |request: &gatehouse_tests::http::Message| {
        serve::echo(request).with("X-List", "theirs").with("X-Theirs", "1")
    };
    let gate = Gate::with(Plan { document, upstream: Arc::new(upstream), ..Plan::default() });
    let path = format!("{AGENTS}?a=%2f&debug=1&&page=2&org={EVIL}&b");
    let request = Request::new("GET", &path)
        .bearer(&token())
        .header("X-Org", EVIL)
        .header("x-org", EVIL)
        .header("X-List", "client")
        .header("X-Debug", "1")
        .header("X-Old", "${tenant}")
        .header("X-Request-ID", "r1");
    let answer = gate.send(&request);
    assert_eq!(verdict(&answer), ALLOWED);
    let saw = serve::seen(&answer).unwrap();
    assert!(
        saw.start.starts_with(&format!("GET {AGENTS}?a=%2f&&offset=2&b&org={TENANT} ")),
        "{}",
        saw.start
    );
    assert_eq!(saw.headers.all("x-org"), [format!("{TENANT} {SUBJECT}")]);
    assert_eq!(saw.headers.all("x-list").join(","), "client,v1");
    assert_eq!(saw.headers.all("x-new"), ["${tenant}"]);
    assert_eq!(saw.headers.all("x-debug").len() + saw.headers.all("x-old").len(), 0);
    assert_eq!(answer.headers.all("x-list"), ["theirs", "r1"]);
    assert_eq!((answer.header("x-ours"), answer.headers.all("x-theirs").len()), ("1".into(), 0));
    // Answers of our own carry it, too.
    let refused = gate.send(&Request::new("GET", AGENTS));
    assert_eq!(verdict(&refused), "401 credential_missing");
    assert_eq!(refused.headers.all("strict-transport-security"), ["max-age=1"]);
    // On a public route nobody is known: what the client says does not stand in.
    let public = Request::new("GET", super::gate::PUBLIC).header("X-Org", EVIL);
    assert_eq!(gate.allows(&public).headers.all("x-org"), [""; 0]);
}

#[test]
fn x3_a_request_over_its_bounds_is_refused_and_never_truncated() {
    let sizes = json!({"max_body_bytes": 1000, "max_headers": 20, "max_header_bytes": 8000});
    let gate = Gate::document(with("sizes", sizes));
    let post = || Request::new("POST", AGENTS).bearer(&token());
    let json_of = |size: usize| json!("x".repeat(size - 2));
    gate.allows(&post().json(&json_of(1000)));
    gate.upstream_saw();
    gate.denies(&post().json(&json_of(1001)), "413 body_too_large");
    assert!(gate.upstream_saw().is_empty());
    // Without a length it is counted as it comes.
    let chunked = |size: usize| {
        let head = post().header("Transfer-Encoding", "chunked").bytes();
        let mut client = Connection::open(gate.envoy.listen).unwrap();
        client.send(&head).unwrap();
        let chunk = format!("64\r\n{}\r\n", "x".repeat(100));
        for _ in 0..size / 100 {
            // Who is refused in the middle may be cut off.
            if client.send(chunk.as_bytes()).is_err() {
                break;
            }
        }
        drop(client.send(b"0\r\n\r\n"));
        client.response().unwrap()
    };
    assert_eq!(verdict(&chunked(1000)), ALLOWED);
    assert_eq!(gate.upstream_saw().pop().unwrap().body.len(), 1000);
    assert_eq!(verdict(&chunked(1100)), "413 body_too_large");
    assert!(gate.upstream_saw().is_empty(), "no upstream took a part for the whole");
    let many = (0..20).fold(post(), |request, n| request.header(&format!("X-{n}"), "1"));
    gate.denies(&many, "431 headers_too_large");
    gate.denies(&post().header("X-Long", &"x".repeat(8000)), "431 headers_too_large");
    gate.sound();
}
