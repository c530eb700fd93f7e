//! What a request costs in host calls and memory: budgets, since both creep silently.

use gatehouse_tests::vm::Headers;

use serde_json::json;

use super::gate::{Gate, document, forwarded, request, token};

/// Host calls of a request whose token and principal are remembered and whose limit this VM keeps: the time, the
/// header map, one per header that is set (five of context, baggage, the request id).
const CALLS_LOCAL: u64 = 9;
/// On a pass that was taken along: the monotonic clock comes on top.
const CALLS_LEASED: u64 = 10;
/// With the sidecar's limit: the clock, the call-out, its answer (context, headers, body, time) and the resume.
const CALLS_REMEMBERED: u64 = 16;
/// Of its response: the header map, and one per header that is set (request id, version, five of the limit).
const CALLS_RESPONSE: u64 = 8;
/// Bytes that cross for it beside the header map itself: the call-out both ways and the headers that are set.
const BYTES_REMEMBERED: u64 = 1024;
/// Host calls of the first request: two more call-outs and one signature.
const CALLS_FIRST: u64 = 29;
/// Of a refusal for want of a credential: the time, the header map, the reason, the reply; then its own response.
const CALLS_REFUSAL: u64 = 8;
/// Requests for the memory test.
const MANY: usize = 2000;

#[test]
fn a_request_reads_its_header_map_once_and_keeps_its_budget() {
    let mut gate = Gate::open();
    let bearer = format!("Bearer {}", token());
    let mut headers = request("GET", "/api/v1/registry/agents", Some(&bearer));
    headers.push(("x-tenant-id", "x"));
    let map: usize = headers.iter().map(|(n, v)| n.len() + v.len() + 10).sum::<usize>() + 4;
    for (name, calls, reads) in [("first", CALLS_FIRST, 4), ("remembered", CALLS_REMEMBERED, 2)] {
        gate.vm.take_counts();
        forwarded(gate.send(&headers));
        let counts = gate.vm.take_counts();
        let all: u64 = counts.values().map(|count| count.calls).sum();
        let bytes: u64 = counts.values().map(|count| count.bytes).sum();
        println!("{name}: {all} host calls, {bytes} bytes: {counts:#?}");
        // One read for the request, and one per call-out for the sidecar's marker.
        assert_eq!(counts["proxy_get_header_map_pairs"].calls, reads, "{name}: {counts:#?}");
        assert!(!counts.contains_key("proxy_get_header_map_value"), "{name}: {counts:#?}");
        assert!(all <= calls, "{name}: {all} host calls: {counts:#?}");
        if name == "remembered" {
            let own = bytes - u64::try_from(map).unwrap();
            assert!(own <= BYTES_REMEMBERED, "{own} bytes: {counts:#?}");
        }
    }
}

#[test]
fn a_remembered_request_that_asks_nobody_costs_what_its_headers_cost() {
    let mut document = document();
    document["limiter"] = json!({"local": {"per_minute": 1000}});
    let mut gate = Gate::with(&document, true);
    let bearer = format!("Bearer {}", token());
    let headers = request("GET", "/api/v1/registry/agents", Some(&bearer));
    forwarded(gate.send(&headers));
    let sum = |gate: &mut Gate| {
        let counts = gate.vm.take_counts();
        (counts.values().map(|count| count.calls).sum::<u64>(), counts)
    };
    sum(&mut gate);
    let stream = gate.vm.request(Headers::new(headers.iter().copied()), true).unwrap();
    forwarded(gate.finish(stream));
    let (calls, counts) = sum(&mut gate);
    assert!(calls <= CALLS_LOCAL, "{calls}: {counts:#?}");
    // The upstream's own headers cost nothing but their bytes; what is not for clients costs one call each.
    let upstream = [(":status", "200"), ("content-type", "text/plain"), ("etag", "x")];
    gate.vm.respond(stream, Headers::new(upstream)).unwrap();
    let (calls, counts) = sum(&mut gate);
    assert!(calls <= CALLS_RESPONSE, "{calls}: {counts:#?}");
}

#[test]
fn a_pass_that_was_taken_along_costs_one_look_at_the_clock() {
    let mut document = document();
    document["limiter"] = json!({});
    let mut gate = Gate::with(&document, true);
    gate.sidecar.lease = json!({"lease": {"id": 1, "passes": 8, "ttl_ms": 100}});
    let bearer = format!("Bearer {}", token());
    let headers = request("GET", "/api/v1/registry/agents", Some(&bearer));
    for _ in 0..2 {
        forwarded(gate.send(&headers));
    }
    gate.take_asked();
    gate.vm.take_counts();
    forwarded(gate.send(&headers));
    assert_eq!(gate.take_asked(), [""; 0]);
    let counts = gate.vm.take_counts();
    let all: u64 = counts.values().map(|count| count.calls).sum();
    assert!(all <= CALLS_LEASED, "{all}: {counts:#?}");
    assert_eq!(counts["clock_time_get"].calls, 1);
}

#[test]
fn a_refusal_costs_less_than_a_pass() {
    let mut gate = Gate::open();
    gate.vm.take_counts();
    gate.send(&request("GET", "/api/v1/registry/agents", None));
    let counts = gate.vm.take_counts();
    let all: u64 = counts.values().map(|count| count.calls).sum();
    println!("refusal: {all} host calls: {counts:#?}");
    assert!(all <= CALLS_REFUSAL, "{counts:#?}");
}

#[test]
fn x11_memory_stays_flat_over_many_requests() {
    let mut gate = Gate::open();
    let bearer = format!("Bearer {}", token());
    let headers = request("GET", "/api/v1/registry/agents", Some(&bearer));
    let run = |gate: &mut Gate, count: usize| {
        for _ in 0..count {
            let stream = gate.vm.request(Headers::new(headers.iter().copied()), true).unwrap();
            forwarded(gate.finish(stream));
            gate.vm.respond(stream, Headers::new([(":status", "200")])).unwrap();
            gate.vm.finish(stream).unwrap();
            gate.asked.clear();
            gate.vm.take_log();
        }
        gate.vm.memory_bytes()
    };
    let warm = run(&mut gate, 50);
    assert_eq!(run(&mut gate, MANY), warm);
}
