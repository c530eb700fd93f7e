//! Versions in the compiled module: what they cost the host, what it is told, and the second of a sunset.

use std::time::Duration;

use gatehouse_contract::{Role, sidecar::PrincipalFacts};
use serde_json::{Value, json};

use super::gate::{Fate, Gate, TENANT, USER, document, facts, forwarded, refusal, request, token};

const AGENTS: &str = "/api/v1/registry/agents";
const UNVERSIONED: &str = "/api/registry/agents";
/// A second before it is 2027-01-15T08:00:00Z in every test.
const SUNSET: &str = "2027-01-15T08:00:01Z";

/// Serves `v1`, which ends in a second, and `v2`.
fn ending() -> Value {
    let mut document = document();
    document["versions"] = json!({
        "served": ["v1", "v2"],
        "default": "v1",
        "lifecycle": [{
            "version": "v1", "deprecated": "2026-01-15", "sunset": SUNSET, "successor": "v2",
        }],
    });
    document
}

/// A good request with this `Accept`.
fn get<'a>(path: &'a str, bearer: &'a str, accept: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut headers = request("GET", path, Some(bearer));
    headers.push(("accept", accept));
    headers
}

#[test]
fn v14_a_worker_changes_its_answer_in_the_second_of_the_sunset() {
    let mut gate = Gate::with(&ending(), true);
    let bearer = format!("Bearer {}", token());
    let headers = get(AGENTS, &bearer, "*/*");
    // Ticks are not on the second.
    for (millis, expected) in
        [(0, None), (999, None), (1, Some("410 version_gone")), (60_000, Some("410 version_gone"))]
    {
        gate.pass(Duration::from_millis(millis));
        let standing = gate.send(&headers);
        match expected {
            None => drop(forwarded(standing)),
            Some(expected) => assert_eq!(refusal(standing), expected),
        }
    }
    let second = get("/api/v2/registry/agents", &bearer, "*/*");
    forwarded(gate.send(&second));
}

#[test]
fn v5_a_pin_that_the_record_tells_decides_after_the_call_out() {
    let mut gate = Gate::with(&ending(), true);
    let mut pinned: PrincipalFacts = serde_json::from_value(facts(&[Role::Viewer])).unwrap();
    pinned.version_pin = Some("v2".to_owned());
    gate.sidecar.principal = Fate::Says(serde_json::to_value(pinned).unwrap());
    let bearer = format!("Bearer {}", token());
    for asked in [3, 1] {
        let upstream = forwarded(gate.send(&get(&format!("{UNVERSIONED}?a=b"), &bearer, "*/*")));
        assert_eq!(upstream.all(":path"), ["/api/v2/registry/agents?a=b"]);
        assert_eq!(upstream.all("x-envoy-original-path"), ["/api/registry/agents?a=b"]);
        assert_eq!(gate.take_asked().len(), asked);
    }
    // The role is asked of the version that answers.
    let mut create = get(UNVERSIONED, &bearer, "*/*");
    create[1] = (":method", "POST");
    assert_eq!(refusal(gate.send(&create)), "403 permission_denied");
}

#[test]
fn v13_uses_are_metrics_and_tenants_of_a_deprecated_version_stand_in_the_log() {
    let mut gate = Gate::with(&ending(), true);
    let bearer = format!("Bearer {}", token());
    gate.vm.take_log();
    for path in [AGENTS, AGENTS, "/api/v2/registry/agents"] {
        forwarded(gate.send(&get(path, &bearer, "*/*")));
    }
    let lines: Vec<String> =
        gate.vm.take_log().into_iter().map(|line| format!("{line:?}")).collect();
    let told =
        format!("gatehouse: tenant {TENANT} (free) uses the deprecated version v1, named by path");
    assert_eq!(lines.iter().filter(|line| line.contains(&told)).count(), 1, "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains(USER)), "{lines:?}");
    gate.pass(Duration::from_millis(250));
    let value = |name: &str| {
        let metrics = gate.vm.metrics();
        metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    };
    assert_eq!(value("gatehouse_version_v1_free"), Some(2));
    assert_eq!(value("gatehouse_version_v2_free"), Some(1));
    assert_eq!(value("gatehouse_version_v1_contradicted"), Some(0));
}

#[test]
fn versions_cost_a_host_nothing_but_the_headers_that_they_change() {
    let mut gate = Gate::with(&ending(), true);
    let bearer = format!("Bearer {}", token());
    let mut calls = |path: &str, accept: &str| {
        let headers = get(path, &bearer, accept);
        forwarded(gate.send(&headers));
        gate.vm.take_counts();
        forwarded(gate.send(&headers));
        let counts = gate.vm.take_counts();
        counts.iter().map(|(name, count)| (*name, count.calls)).collect::<Vec<_>>()
    };
    let plain = calls("/api/v2/registry/agents", "*/*");
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    assert_eq!(calls("/api/v2/registry/agents", browser), plain);
    let named = "application/vnd.greenlang.v2+json";
    assert_eq!(calls("/api/v2/registry/agents", named), plain);
    // The path, and the path as it came.
    let more = calls(UNVERSIONED, named);
    for ((name, calls), (same, before)) in more.iter().zip(&plain) {
        assert_eq!(name, same);
        let added = if *name == "proxy_replace_header_map_value" { 2 } else { 0 };
        assert_eq!(*calls, before + added, "{name}");
    }
}
