//! X10: what each host is told for its access log, where, and at what cost.

use serde_json::json;

use gatehouse_tests::vm::Headers;

use super::gate::{Gate, SIDECAR_OF_KONG, TENANT, document, forwarded, request, token};

const AGENTS: &str = "/api/v1/registry/agents";

fn gate(host: &str, access_log: bool) -> Gate {
    let mut document = document();
    document["access_log"] = access_log.into();
    document["limiter"] = json!({"local": {"per_minute": 1000}});
    if host == "kong" {
        document["host"] = host.into();
        document["signatures"] = "portable".into();
        document["sidecar"]["target"] = SIDECAR_OF_KONG.into();
    }
    Gate::with(&document, host == "envoy")
}

/// What a remembered caller's request says, and what it costs.
fn told(gate: &mut Gate, property: &str) -> (Option<String>, u64) {
    let bearer = format!("Bearer {}", token());
    let headers = request("GET", AGENTS, Some(&bearer));
    forwarded(gate.send(&headers));
    gate.vm.take_counts();
    let stream = gate.vm.request(Headers::new(headers.iter().copied()), true).unwrap();
    forwarded(gate.finish(stream));
    let calls = gate.vm.take_counts().values().map(|count| count.calls).sum();
    let line = gate.vm.filter_state(stream, property);
    (line.map(|line| String::from_utf8(line.to_vec()).unwrap()), calls)
}

#[test]
fn x10_each_host_is_told_one_line_by_one_call_and_none_unasked() {
    for (host, property) in
        [("envoy", "gatehouse_log"), ("kong", "kong\0ctx\0shared\0gatehouse_log")]
    {
        let (nothing, bare) = told(&mut gate(host, false), property);
        assert_eq!(nothing, None, "{host}");
        let (line, calls) = told(&mut gate(host, true), property);
        assert_eq!(calls, bare + 1, "{host}");
        let line = line.unwrap();
        assert!(line.starts_with(&format!("tenant={TENANT} tier=")), "{host}: {line}");
        assert!(line.contains(" version_by=path limit=allowed remaining="), "{host}: {line}");
    }
}
