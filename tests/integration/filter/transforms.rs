//! Transforms and body limits through the compiled module.

use gatehouse_tests::vm::Headers;
use serde_json::{Value, json};

use super::gate::{Gate, TENANT, document, forwarded, request, token};

const PATH: &str = "/api/v1/registry/agents";

fn gate(name: &str, value: Value) -> Gate {
    let mut document = document();
    document["limiter"] = json!({"local": {"per_minute": 1000}});
    document[name] = value;
    Gate::with(&document, true)
}

#[test]
fn headers_and_query_reach_the_upstream_changed() {
    let mut gate = gate(
        "transforms",
        json!({
            "request": {
                "headers": [
                    {"set": "x-org", "value": "${tenant}"},
                    {"add": "x-list", "value": "ours"},
                    {"remove": "x-debug"},
                ],
                "query": [{"rename": "page", "to": "offset"}],
            },
            "response": {"headers": [{"remove": "server"}, {"add": "x-list", "value": "ours"}]},
        }),
    );
    let bearer = format!("Bearer {}", token());
    let path = format!("{PATH}?a=%2f&page=2");
    let mut headers = request("GET", &path, Some(&bearer));
    headers.extend([("x-org", "evil"), ("x-org", "evil"), ("x-list", "a"), ("x-debug", "1")]);
    let stream = gate.vm.request(Headers::new(headers), true).unwrap();
    let upstream = forwarded(gate.finish(stream));
    assert_eq!(upstream.all("x-org"), [TENANT]);
    assert_eq!(upstream.all("x-list"), ["a", "ours"]);
    assert_eq!(upstream.all("x-debug"), [""; 0]);
    assert_eq!(upstream.all(":path"), [format!("{PATH}?a=%2f&offset=2")]);
    let theirs = Headers::new([(":status", "200"), ("server", "x"), ("x-list", "a")]);
    let seen = gate.vm.respond(stream, theirs).unwrap();
    assert_eq!(
        (seen.all("server").len(), seen.all("x-list")),
        (0, vec!["a".into(), "ours".into()])
    );
}

#[test]
fn x3_a_body_is_counted_as_it_comes() {
    let bearer = format!("Bearer {}", token());
    for (pieces, refused) in
        [(vec![10], false), (vec![5, 5], false), (vec![11], true), (vec![4, 4, 4], true)]
    {
        let mut gate = gate("sizes", json!({"max_body_bytes": 10}));
        forwarded(gate.send(&request("GET", PATH, Some(&bearer))));
        let headers = Headers::new(request("POST", PATH, Some(&bearer)));
        let stream = gate.vm.request(headers, false).unwrap();
        forwarded(gate.finish(stream));
        let last = pieces.len() - 1;
        for (place, piece) in pieces.iter().enumerate() {
            let goes_on = gate.vm.body(stream, *piece, place == last).unwrap();
            assert_eq!(goes_on, !(refused && place == last), "{pieces:?}");
        }
        let reply = gate.vm.late_reply(stream);
        assert_eq!(reply.map(|reply| reply.status), refused.then_some(413));
        gate.vm.finish(stream).unwrap();
    }
    // Held behind a call-out, a body is told whole every time.
    let mut gate = gate("sizes", json!({"max_body_bytes": 10}));
    let stream =
        gate.vm.request(Headers::new(request("POST", PATH, Some(&bearer))), false).unwrap();
    for (size, status) in [(4, None), (8, None), (10, None), (11, Some(413))] {
        assert!(!gate.vm.body(stream, size, false).unwrap(), "it waits");
        assert_eq!(gate.vm.late_reply(stream).map(|reply| reply.status), status);
    }
    let call = gate.vm.calls().remove(0);
    gate.vm.answer(call.token, gatehouse_tests::vm::Answer::refused()).unwrap();
    assert_eq!(gate.vm.late_reply(stream).map(|reply| reply.status), Some(413), "answered once");
}
