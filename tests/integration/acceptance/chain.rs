//! Chains of single modules in real Envoy: in their order they do what the fused module does, request by request; in
//! any other nobody passes who should not. V12, R6, T1 for chains.

use gatehouse_contract::header;
use gatehouse_tests::{
    env, envoy,
    http::{Message, Request},
};
use gatehouse_xtask::render::{Document, envoy::filter};
use serde_json::{Value, json};

use super::gate::{
    AGENTS, EVIL, Gate, PUBLIC, Patch, Plan, VIEWER, document, get, token, with_claim,
};

const ORIGIN: &str = "https://app.greenlang.ai";

const VERSION: &str = env::VERSION;
const AUTH: &str = env::AUTH;
const RATE_LIMIT: &str = env::RATE_LIMIT;
const TRANSFORM: &str = env::TRANSFORM;

/// The repository's document, with a second version and every call a question of its own.
fn whole() -> Value {
    let mut document = document();
    document["versions"] = json!({"served": ["v1", "v2"], "default": "v1"});
    document["limiter"] = json!({"away": "closed", "leases": false});
    document["cors"] = json!({"origins": [ORIGIN], "credentials": true});
    document["sources"] = json!({"query": "access_token", "forward": false});
    document["transforms"] = json!({
        "request": {
            "headers": [{"set": "x-team", "value": "${tenant}/${tier}/${user} at ${route}"}],
            "query": [{"remove": "debug"}],
        },
        "response": {"headers": [{"set": "x-served", "value": "to ${tenant}"}]},
    });
    document
}

/// Puts these modules in the fused one's place, each with the same document.
fn instead(modules: &'static [&'static str]) -> Patch {
    Box::new(move |bootstrap| {
        let document = Document::parse(&whole().to_string()).ok()?;
        let filters: Option<Vec<Value>> = modules
            .iter()
            .map(|module| {
                let path = env::path(module).ok()?.display().to_string();
                let mut filter = filter(&document, &path);
                filter["name"] = json!(module);
                Some(filter)
            })
            .collect();
        let chain = envoy::manager(bootstrap)?.get_mut("http_filters")?.as_array_mut()?;
        chain.splice(0..1, filters?);
        Some(())
    })
}

fn chain(modules: &'static [&'static str], sidecar: Value) -> Gate {
    Gate::with(Plan { document: whole(), bootstrap: instead(modules), sidecar, ..Plan::default() })
}

/// What the client and the upstream saw, without what differs between any two requests.
fn seen(gate: &Gate, request: &Request) -> (Value, Vec<Value>) {
    let without = |message: &Message| {
        let changing = ["x-request-id", "date", "x-envoy-upstream-service-time", "content-length"];
        let mut headers: Vec<(String, String)> = message
            .headers
            .iter()
            .map(|(name, value)| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_ascii_lowercase();
                let (name, value) = (text(name), text(value));
                if name != "vary" {
                    return (name, value);
                }
                // A set: each module adds what it looked at.
                let mut looked_at: Vec<&str> = value.split(", ").collect();
                looked_at.sort_unstable();
                (name, looked_at.join(", "))
            })
            .filter(|(name, _)| !changing.contains(&name.as_str()) && name != header::CONTEXT)
            .collect();
        headers.sort();
        json!([message.start, headers])
    };
    gate.upstream_saw();
    let answer = gate.send(request);
    let mut client = without(&answer);
    if answer.header("content-type") == "application/problem+json" {
        let mut problem = answer.json().unwrap();
        let members = problem.as_object_mut().unwrap();
        members.retain(|name, _| !matches!(name.as_str(), "instance" | "request_id"));
        client = json!([client, problem]);
    }
    (client, gate.upstream_saw().iter().map(without).collect())
}

fn requests() -> Vec<Request> {
    let by = |method: &str, path: &str| Request::new(method, path).bearer(&token());
    let viewer = with_claim("sub", json!(VIEWER));
    let mut requests = vec![
        get().bearer(&token()),
        get(),
        get().bearer("x.y.z"),
        get().bearer(&viewer),
        Request::new("POST", AGENTS).bearer(&viewer),
        by("GET", "/api/registry/agents"),
        by("GET", "/api/registry/agents").header("accept", "application/vnd.greenlang.v2+json"),
        by("GET", "/api/registry/agents").header("accept", "application/vnd.greenlang.v7+json"),
        by("GET", "/api/registry/../registry//agents?a=%2f"),
        by("GET", "/api/v9/registry/agents"),
        by("GET", "/api/v1/registry/agents?debug=1&a=b"),
        Request::new("GET", &format!("{AGENTS}?a=b&access_token={}&debug=1", token())),
        Request::new("GET", &format!("{PUBLIC}?access_token={}", token())),
        by("GET", &format!("{AGENTS}?access_token={}", token())),
        by("GET", "/api/v1/nothing"),
        by("PATCH", AGENTS),
        by("GET", "/api/v1/registry/%2e%2e/%00"),
        by("GET", AGENTS).header("x-request-id", "one").header("x-request-id", "two"),
        Request::new("GET", PUBLIC),
        Request::new("OPTIONS", AGENTS)
            .header("origin", "https://a.b")
            .header("access-control-request-method", "GET"),
        Request::new("OPTIONS", AGENTS)
            .header("origin", ORIGIN)
            .header("access-control-request-method", "GET"),
        by("GET", AGENTS).header("origin", ORIGIN),
        by("GET", AGENTS).header("origin", "https://evilgreenlang.ai"),
        by("GET", "/api/registry/agents").header("origin", ORIGIN),
        get().header("origin", ORIGIN),
        by("GET", "/api/v9/registry/agents").header("origin", ORIGIN),
        by("PATCH", AGENTS).header("origin", ORIGIN),
    ];
    let forged = header::IDENTITY.iter().fold(by("GET", AGENTS), |request, name| {
        request.header(name, EVIL).header(&name.replace('-', "_"), EVIL)
    });
    requests.push(forged);
    requests
}

#[test]
fn v12_single_modules_in_their_order_do_what_the_fused_one_does() {
    let fused = Gate::with(Plan { document: whole(), ..Plan::default() });
    let single = chain(&[VERSION, AUTH, RATE_LIMIT, TRANSFORM], json!({}));
    // Both have asked for keys before they are compared.
    for gate in [&fused, &single] {
        gate.allows(&get().bearer(&token()));
    }
    for request in requests() {
        let (client, upstream) = seen(&fused, &request);
        assert_eq!(seen(&single, &request), (client, upstream), "{request:?}");
    }
    fused.sound();
    single.sound();
}

#[test]
fn r1_a_chain_of_single_modules_lets_no_more_pass_than_the_limit() {
    let limits = json!({"limits": {"tiers": {"free": 3, "pro": 3, "enterprise": 3}}});
    let gate = chain(&[VERSION, AUTH, RATE_LIMIT], limits);
    for left in ["2", "1", "0"] {
        let answer = gate.send(&get().bearer(&token()));
        assert_eq!(
            (answer.status().unwrap(), answer.header("x-ratelimit-remaining").as_str()),
            (200, left)
        );
    }
    gate.upstream_saw();
    gate.denies(&get().bearer(&token()), "429 quota_exceeded");
    // What is refused before is not charged, and what is free stays so.
    gate.denies(&get(), "401 credential_missing");
    gate.allows(&Request::new("GET", PUBLIC));
    assert_eq!(gate.upstream_saw().len(), 1);
}

#[test]
fn r17_in_a_wrong_order_nobody_passes_who_should_not() {
    let orders: [&'static [&'static str]; 4] = [
        &[RATE_LIMIT, AUTH, VERSION],
        &[VERSION, RATE_LIMIT, AUTH],
        &[VERSION, RATE_LIMIT],
        &[RATE_LIMIT],
    ];
    for order in orders {
        let gate = chain(order, json!({}));
        for request in [get().bearer(&token()), get(), get().header("gatehouse_identity", "{}")] {
            gate.denies(&request, "503 identity_unavailable");
        }
        assert_eq!(gate.upstream_saw().len(), 0, "{order:?}");
        // It refuses; it is not broken.
        gate.allows(&Request::new("GET", PUBLIC));
    }
    // Roles are asked about the path as it came: what has no version yet is nobody's route.
    let gate = chain(&[AUTH, VERSION, RATE_LIMIT], json!({}));
    gate.denies(&Request::new("GET", "/api/registry/agents").bearer(&token()), "404 not_found");
    gate.denies(&get(), "401 credential_missing");
    let saw = gate.allows(&get().bearer(&token()));
    assert_eq!(saw.start, format!("GET {AGENTS} HTTP/1.1"));
    gate.sound();
}
