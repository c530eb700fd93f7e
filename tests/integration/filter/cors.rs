//! CORS through the compiled module: answered without a call-out, and what it costs in host calls.

use gatehouse_tests::vm::{Headers, Standing};
use serde_json::json;

use super::gate::{Gate, document, forwarded, replied, request, token};

const APP: &str = "https://app.greenlang.ai";

fn gate() -> Gate {
    let mut document = document();
    document["cors"] = json!({"origins": [APP], "credentials": true});
    document["limiter"] = json!({"local": {"per_minute": 1000}});
    Gate::with(&document, true)
}

#[test]
fn x9_a_preflight_asks_nobody() {
    let mut gate = gate();
    let mut headers = request("OPTIONS", "/api/v1/registry/agents", None);
    headers.extend([("origin", APP), ("access-control-request-method", "POST")]);
    let reply = replied(gate.send(&headers));
    assert_eq!((reply.status, reply.body.as_slice(), reply.grpc_status), (204, &b""[..], -1));
    assert_eq!(reply.headers.all("access-control-allow-origin"), [APP]);
    assert_eq!(reply.headers.all("access-control-allow-methods"), ["GET, HEAD, POST"]);
    assert_eq!(gate.take_asked(), [""; 0]);
}

#[test]
fn x9_a_response_costs_one_call_per_header() {
    let mut gate = gate();
    let bearer = format!("Bearer {}", token());
    let mut headers = request("GET", "/api/v1/registry/agents", Some(&bearer));
    headers.push(("origin", APP));
    forwarded(gate.send(&headers));
    let stream = gate.vm.request(Headers::new(headers.iter().copied()), true).unwrap();
    assert!(matches!(gate.finish(stream), Standing::Forwarded(_)));
    gate.vm.take_counts();
    let theirs = Headers::new([(":status", "200"), ("access-control-allow-origin", "*")]);
    let seen = gate.vm.respond(stream, theirs).unwrap();
    assert_eq!(seen.all("access-control-allow-origin"), [APP]);
    assert_eq!(seen.all("vary"), ["Origin"]);
    let calls: u64 = gate.vm.take_counts().values().map(|count| count.calls).sum();
    // The budget of a response (`cost`), origin, credentials, what is exposed, and `Vary`.
    assert!(calls <= 8 + 4, "{calls}");
}
