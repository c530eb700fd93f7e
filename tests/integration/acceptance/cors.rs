//! X8, X9: what browsers are told, in real Envoy, before authentication and on every response.

use std::sync::Arc;

use gatehouse_tests::http::{Message, Request, serve::response};
use serde_json::{Value, json};

use super::gate::{AGENTS, EVIL, Gate, Plan, document, get, token, verdict};

const APP: &str = "https://app.greenlang.ai";
const ALLOW: &str = "access-control-allow-origin";
const VARY_PREFLIGHT: &str =
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

fn with_cors() -> Value {
    let mut document = document();
    document["cors"] = json!({
        "origins": [APP, "https://*.greenlang.dev"], "credentials": true, "private_network": true,
    });
    document
}

/// An upstream with words of its own on CORS.
fn chatty(request: &Message) -> Message {
    let mut answer = gatehouse_tests::http::serve::echo(request);
    for (name, value) in
        [("Access-Control-Allow-Origin", "*"), ("Access-Control-Max-Age", "9"), ("Vary", "Cookie")]
    {
        answer = answer.with(name, value);
    }
    answer
}

fn plan() -> Plan {
    Plan { document: with_cors(), upstream: Arc::new(chatty), ..Plan::default() }
}

fn preflight(origin: &str) -> Request {
    Request::new("OPTIONS", AGENTS)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "authorization,content-type")
}

/// What a response says to scripts, sorted.
fn told(answer: &Message) -> Vec<String> {
    let mut told: Vec<String> = answer
        .headers
        .iter()
        .map(|(name, _)| String::from_utf8_lossy(name).to_ascii_lowercase())
        .filter(|name| name.starts_with("access-control-"))
        .collect();
    told.sort();
    told
}

#[test]
fn x9_a_preflight_is_answered_at_the_edge_without_a_credential() {
    let gate = Gate::with(plan());
    for origin in [APP, "https://a.b.greenlang.dev"] {
        let answer = gate.send(&preflight(origin).header("X-Tenant-ID", EVIL));
        assert_eq!((answer.status().unwrap(), answer.body.as_slice()), (204, &b""[..]));
        assert_eq!(answer.headers.all(ALLOW), [origin]);
        assert_eq!(answer.headers.all("access-control-allow-credentials"), ["true"]);
        assert_eq!(answer.headers.all("access-control-allow-methods"), ["GET, HEAD, POST"]);
        assert_eq!(answer.headers.all("access-control-max-age"), ["600"]);
        assert!(answer.header("access-control-allow-headers").contains("authorization"));
        assert_eq!(
            answer.headers.all("vary"),
            [format!("{VARY_PREFLIGHT}, Access-Control-Request-Private-Network")]
        );
        assert_eq!(answer.headers.all("x-ratelimit-limit"), [""; 0], "R16: free");
    }
    let private = preflight(APP).header("Access-Control-Request-Private-Network", "true");
    let answer = gate.send(&private);
    assert_eq!(answer.headers.all("access-control-allow-private-network"), ["true"]);
    for foreign in [
        "https://evilgreenlang.ai",
        "https://app.greenlang.ai.evil",
        "https://evilgreenlang.dev",
        "https://greenlang.dev",
        "https://evil.com:443.greenlang.dev",
        "http://app.greenlang.ai",
        "https://app.greenlang.ai:8443",
        "null",
    ] {
        let answer = gate.send(&preflight(foreign));
        assert_eq!(answer.status().unwrap(), 204, "{foreign}");
        assert_eq!(told(&answer), [""; 0], "{foreign}");
    }
    assert!(gate.upstream_saw().is_empty());
    // No preflight: it asks for nothing, or where nothing is.
    gate.denies(&Request::new("OPTIONS", AGENTS).header("Origin", APP), "401 credential_missing");
    let mut nowhere = Request::new("OPTIONS", "/api/v1/nowhere").header("Origin", APP);
    nowhere = nowhere.header("Access-Control-Request-Method", "GET");
    gate.denies(&nowhere, "401 credential_missing");
}

#[test]
fn x9_responses_name_our_origin_once_and_a_foreign_one_never() {
    let gate = Gate::with(plan());
    let bearer = token();
    let ours = gate.send(&get().bearer(&bearer).header("Origin", APP));
    assert_eq!(verdict(&ours), "200");
    assert_eq!(ours.headers.all(ALLOW), [APP]);
    assert_eq!(ours.headers.all("vary"), ["Cookie, Origin"]);
    let expected = ["access-control-allow-credentials", ALLOW, "access-control-expose-headers"];
    assert_eq!(told(&ours), expected, "the upstream's own are gone");
    for foreign in [get(), get().header("Origin", "https://evil"), get().header("Origin", "null")] {
        let answer = gate.send(&foreign.bearer(&bearer));
        assert_eq!(verdict(&answer), "200", "CORS is no access control");
        assert_eq!(told(&answer), [""; 0]);
        assert_eq!(answer.headers.all("vary"), ["Cookie, Origin"]);
    }
    let twice = get().header("Origin", APP).header("Origin", APP).bearer(&bearer);
    assert_eq!(told(&gate.send(&twice)), [""; 0]);
}

#[test]
fn x8_scripts_of_our_origin_read_every_refusal() {
    let gate = Gate::with(Plan {
        upstream: Arc::new(|_| response(500, &[("content-type", "text/plain")], "x")),
        ..plan()
    });
    let bearer = token();
    for (request, status) in [
        (get(), 401),
        (get().bearer("x"), 401),
        (Request::new("DELETE", AGENTS).bearer(&bearer), 405),
        (Request::new("GET", "/api/v9/x"), 404),
        (Request::new("GET", "/api//v1"), 400),
        (get().bearer(&bearer), 500),
    ] {
        let answer = gate.send(&request.header("Origin", APP));
        assert_eq!(answer.status().unwrap(), status);
        assert_eq!(answer.headers.all(ALLOW), [APP], "{status}");
        assert_eq!(answer.headers.all("vary"), ["Origin"], "{status}");
        let exposed = answer.header("access-control-expose-headers");
        for name in [
            "ratelimit",
            "ratelimit-policy",
            "retry-after",
            "www-authenticate",
            "deprecation",
            "sunset",
            "link",
        ] {
            assert!(exposed.split(", ").any(|ours| ours == name), "{name}: {exposed}");
        }
        if matches!(status, 401) {
            assert_eq!(answer.headers.all("cache-control"), ["no-store"]);
        }
    }
    gate.envoy.stat("wasm.suite.vm_reload_success").unwrap();
}
