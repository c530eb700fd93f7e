//! Limits in the compiled module: passes that it took along, who bypasses them, what a response costs, and what the
//! host is told of it all.

use std::time::Duration;

use gatehouse_contract::sidecar::{CheckAsk, LeaseAsk};
use gatehouse_tests::vm::{Answer, Headers, Standing};
use serde_json::{Value, json};

use super::gate::{
    Fate, Gate, TICK, allowed, denied, document, forwarded, refusal, request, token,
};

const PATH: &str = "/api/v1/registry/agents";
const PEER: &str = "spiffe://mesh.local/ns/factory/sa/worker";

struct Limited {
    gate: Gate,
    bearer: String,
}

impl Limited {
    /// The credential and the principal are remembered.
    fn with(limiter: Value) -> Self {
        let mut document = document();
        document["limiter"] = limiter;
        let mut limited =
            Self { gate: Gate::with(&document, true), bearer: format!("Bearer {}", token()) };
        forwarded(limited.send());
        limited.gate.take_asked();
        limited
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        request("GET", PATH, Some(&self.bearer))
    }

    fn send(&mut self) -> Standing {
        let headers = request("GET", PATH, Some(&self.bearer));
        self.gate.send(&headers)
    }

    /// What the last question to the limiter said.
    fn asked(&self) -> LeaseAsk {
        serde_json::from_slice(&self.gate.asked.last().expect("asked").body).unwrap()
    }

    fn counter(&self, name: &str) -> i64 {
        let name = format!("gatehouse_limiter_{name}");
        let metrics = self.gate.vm.metrics();
        metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value).unwrap()
    }
}

fn lease(passes: u32) -> Value {
    json!({"lease": {"id": 5, "passes": passes, "ttl_ms": 100}})
}

#[test]
fn passes_are_used_until_their_time_is_over_and_then_handed_back() {
    let mut limited = Limited::with(json!({}));
    limited.gate.sidecar.lease = lease(3);
    forwarded(limited.send());
    assert_eq!(limited.asked().want, 1);
    forwarded(limited.send());
    assert_eq!(limited.gate.take_asked().len(), 1, "the second asked nobody");
    // By the host's monotonic clock.
    limited.gate.vm.advance(Duration::from_millis(99)).unwrap();
    forwarded(limited.send());
    assert_eq!(limited.gate.take_asked(), [""; 0]);
    limited.gate.vm.advance(Duration::from_millis(1)).unwrap();
    limited.gate.sidecar.lease = json!({});
    forwarded(limited.send());
    let returns = limited.asked().returns;
    assert_eq!(returns.iter().map(|back| (back.lease, back.unused)).collect::<Vec<_>>(), [(5, 1)]);
    limited.gate.pass(TICK);
    assert_eq!(limited.counter("free_leased"), 2);
    assert_eq!(limited.counter("free_allowed"), 3);
    assert_eq!(limited.counter("passes_granted"), 3);
    assert_eq!(limited.counter("passes_expired"), 1);
    assert_eq!(limited.counter("passes_returned"), 1);
}

#[test]
fn r14_an_outage_costs_no_questions_and_the_share_is_charged_afterwards() {
    let mut limited = Limited::with(json!({}));
    limited.gate.sidecar.lease = json!({"share": 30});
    forwarded(limited.send());
    limited.gate.sidecar.check = Fate::TimedOut;
    limited.gate.take_asked();
    for _ in 0..20 {
        forwarded(limited.send());
    }
    assert_eq!(limited.gate.take_asked().len(), 5);
    limited.gate.sidecar.check = Fate::Says(allowed(3));
    limited.gate.pass(TICK);
    let charge: CheckAsk = serde_json::from_slice(&limited.gate.told.last().unwrap().body).unwrap();
    assert_eq!((charge.cost, charge.forced), (20, true));
    forwarded(limited.send());
    assert_eq!(limited.gate.take_asked(), ["POST /v1/lease"], "the charge showed that it is back");
    assert_eq!(limited.counter("breaker_opened"), 1);
    assert_eq!(limited.counter("free_shared"), 20);
}

#[test]
fn r15_only_a_certificate_that_this_connection_verified_bypasses() {
    let mut limited = Limited::with(json!({"bypass": {"spiffe_ids": [PEER]}}));
    limited.gate.sidecar.check = Fate::Says(denied(9));
    let mut check = |mtls: &[u8], valid: &[u8], uri: &str, passes: bool| {
        let vm = &mut limited.gate.vm;
        vm.set_property("connection\0mtls", mtls);
        vm.set_property("connection\0peer_certificate_valid", valid);
        vm.set_property("connection\0uri_san_peer_certificate", uri.as_bytes());
        let standing = limited.send();
        let what = format!("{mtls:?} {valid:?} {uri}");
        match standing {
            Standing::Forwarded(_) => assert!(passes, "{what}"),
            other => {
                assert!(!passes, "{what}");
                assert_eq!(refusal(other), "429 quota_exceeded");
            }
        }
    };
    check(&[0], &[0], "", false);
    check(&[1], &[1], PEER, true);
    // Envoy's ACCEPT_UNTRUSTED shows the certificate, and a resumed session was not verified again.
    check(&[1], &[0], PEER, false);
    check(&[0], &[1], PEER, false);
    check(&[1], b"", PEER, false);
    check(b"true", b"true", PEER, false);
    check(&[1], &[1], "spiffe://mesh.local/ns/factory/sa/other", false);
    limited.gate.pass(TICK);
    let charge: CheckAsk = serde_json::from_slice(&limited.gate.told[0].body).unwrap();
    assert_eq!((charge.cost, charge.forced), (1, true), "metered");
    assert_eq!(limited.counter("free_bypassed"), 1);
}

#[test]
fn r15_a_forwarded_certificate_of_a_client_reaches_nobody() {
    let mut limited = Limited::with(json!({"bypass": {"spiffe_ids": [PEER]}}));
    limited.gate.sidecar.check = Fate::Says(denied(9));
    let uri = format!("URI={PEER}");
    let mut headers = limited.headers();
    headers.extend([("x-forwarded-client-cert", uri.as_str()), ("x-envoy-internal", "true")]);
    let headers: Vec<(String, String)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(refusal(limited.gate.send(&headers)), "429 quota_exceeded");
    limited.gate.sidecar.check = Fate::Says(allowed(9));
    let upstream = forwarded(limited.gate.send(&headers));
    assert_eq!(upstream.all("x-forwarded-client-cert"), [""; 0]);
}

#[test]
fn r19_a_client_that_leaves_while_its_question_is_asked_harms_nobody() {
    let mut limited = Limited::with(json!({}));
    let headers = limited.headers();
    let headers = Headers::new(headers.iter().copied());
    let stream = limited.gate.vm.request(headers, true).unwrap();
    let call = limited.gate.vm.calls()[0].clone();
    limited.gate.vm.finish(stream).unwrap();
    let body = json!({"check": allowed(9), "lease": {"id": 1, "passes": 8, "ttl_ms": 100}});
    let marked = Headers::new([(":status", "200"), ("x-gatehouse-sidecar", "1")]);
    limited.gate.vm.answer(call.token, Answer::new(marked, body.to_string())).unwrap();
    assert!(!limited.gate.vm.is_dead());
    forwarded(limited.send());
    assert_eq!(limited.gate.take_asked(), ["POST /v1/lease"], "nobody got its passes");
}

#[test]
fn r20_a_request_that_becomes_a_stream_is_charged_once() {
    let mut limited = Limited::with(json!({"cost_header": "x-request-cost"}));
    for own in [
        vec![("connection", "Upgrade"), ("upgrade", "websocket")],
        vec![("accept", "text/event-stream")],
    ] {
        let mut headers = limited.headers();
        headers.extend(own);
        let headers = Headers::new(headers.iter().copied());
        let stream = limited.gate.vm.request(headers, false).unwrap();
        forwarded(limited.gate.finish(stream));
        assert_eq!(limited.gate.take_asked(), ["POST /v1/lease"]);
        // Whatever the response says, and however often the host shows it, its cost is charged once.
        limited.gate.told.clear();
        for _ in 0..2 {
            let upstream = Headers::new([(":status", "101"), ("x-request-cost", "4")]);
            let seen = limited.gate.vm.respond(stream, upstream).unwrap();
            assert_eq!(seen.all("x-request-cost"), [""; 0]);
        }
        limited.gate.vm.finish(stream).unwrap();
        limited.gate.pass(TICK);
        let charges: Vec<CheckAsk> = limited
            .gate
            .told
            .iter()
            .map(|call| serde_json::from_slice(&call.body).unwrap())
            .collect();
        assert_eq!(charges.iter().map(|charge| charge.cost).collect::<Vec<_>>(), [3]);
    }
}

#[test]
fn r9_what_a_response_says_of_limits_agrees_with_itself() {
    let mut limited = Limited::with(json!({}));
    limited.gate.sidecar.lease = lease(2);
    for remaining in ["59", "58", "57"] {
        let headers = limited.headers();
        let headers = Headers::new(headers.iter().copied());
        let stream = limited.gate.vm.request(headers, true).unwrap();
        forwarded(limited.gate.finish(stream));
        for status in ["200", "304", "401", "503"] {
            let seen =
                limited.gate.vm.respond(stream, Headers::new([(":status", status)])).unwrap();
            assert_eq!(seen.one("x-ratelimit-remaining").as_deref(), Some(remaining), "{status}");
            assert_eq!(seen.one("x-ratelimit-limit").as_deref(), Some("60"));
            assert_eq!(seen.one("x-ratelimit-reset").as_deref(), Some("0"));
            assert_eq!(seen.one("ratelimit-policy").as_deref(), Some("\"tenant\";q=60;w=60"));
            let state = format!("\"tenant\";r={remaining};t=0");
            assert_eq!(seen.one("ratelimit").as_deref(), Some(state.as_str()));
        }
        limited.gate.vm.finish(stream).unwrap();
    }
}
