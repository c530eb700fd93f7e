//! The committed vectors through both verifiers in real Envoy: their verdicts are each other's and the expected ones.

use std::collections::{BTreeMap, BTreeSet};

use gatehouse_tests::http::Connection;
use serde_json::{Value, json};

use super::gate::{ALLOWED, Gate, Plan, document, get, verdict};

/// What a client sees of a vector's verdict.
fn seen(word: &str) -> &'static str {
    match word {
        "valid" => ALLOWED,
        "tenant_missing" => "403 tenant_missing",
        "tenant_invalid" => "403 tenant_invalid",
        "subject_invalid" => "403 permission_denied",
        "scope_insufficient" => "403 scope_insufficient",
        "credential_twice" => "400 credential_malformed",
        _ => "401 token_invalid",
    }
}

/// The vectors' issuers with keys; the one with a secret that is written down in this repository is refused at load.
fn gate(vectors: &Value, signatures: &str) -> Gate {
    let mut document = document();
    document["signatures"] = json!(signatures);
    // Roles are no matter here: who is known passes.
    document["rbac"] = json!("shadow");
    let issuers: Vec<&Value> = with_keys(vectors).collect();
    let entry = |issuer: &&Value| {
        json!({
            "issuer": issuer["issuer"],
            "audiences": [vectors["audience"]],
            "algorithms": issuer["algorithms"],
            "tenants": [vectors["tenant"]],
            "max_role": "viewer",
            "roles": {"claim": "/groups", "map": {"x": "viewer"}},
        })
    };
    document["issuers"] = issuers.iter().map(entry).collect();
    let name = |issuer: &&Value| issuer["issuer"].as_str().unwrap().to_owned();
    let keys = issuers.iter().map(|issuer| (name(issuer), 200, issuer["jwks"].clone())).collect();
    let issuers = issuers.iter().map(name).collect();
    Gate::with(Plan { document, issuers, keys, ..Plan::default() })
}

fn with_keys(vectors: &Value) -> impl Iterator<Item = &Value> {
    vectors["issuers"].as_array().unwrap().iter().filter(|issuer| issuer.get("jwks").is_some())
}

#[test]
fn j7_every_vector_has_one_verdict_through_both_verifiers() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../crates/authn/testdata/vectors.json")).unwrap();
    let keyed: Vec<&Value> = with_keys(&vectors).map(|issuer| &issuer["issuer"]).collect();
    let of_keyed = |vector: &&Value| keyed.contains(&&vector["issuer"]);
    let list: Vec<&Value> =
        vectors["vectors"].as_array().unwrap().iter().filter(of_keyed).collect();
    let mut verdicts: Vec<BTreeMap<&str, String>> = Vec::new();
    for signatures in ["native", "portable"] {
        let gate = gate(&vectors, signatures);
        let mut connection: Option<Connection> = None;
        let judged = list.iter().map(|vector| {
            let token = vector["token"].as_str().unwrap();
            let mut open = match connection.take() {
                Some(open) => open,
                None => Connection::open(gate.envoy.listen).unwrap(),
            };
            open.send(&get().bearer(token).bytes()).unwrap();
            let answer = open.response().unwrap();
            if answer.headers.all("connection") != ["close"] {
                connection = Some(open);
            }
            (vector["name"].as_str().unwrap(), verdict(&answer))
        });
        verdicts.push(judged.collect());
        let log = gate.envoy.process.log();
        assert!(!log.contains("signatures are checked in the module"), "{log}");
        assert_eq!(gate.envoy.stat("wasm.suite.vm_reload_success").unwrap(), 0);
    }
    let mut wrong = Vec::new();
    for vector in &list {
        let name = vector["name"].as_str().unwrap();
        let expected = seen(vector["verdict"].as_str().unwrap());
        let got: Vec<&String> = verdicts.iter().filter_map(|judged| judged.get(name)).collect();
        if got != [expected, expected] {
            wrong.push(format!("{name}: {got:?}, not {expected} ({})", vector["verdict"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), list.len());

    // What the two hundred vectors are asked to be, for the algorithms that both verifiers have natively.
    let native = ["RS256", "RS384", "RS512", "ES256", "ES384"];
    let shared: Vec<&Value> = list
        .iter()
        .copied()
        .filter(|vector| native.contains(&vector["algorithm"].as_str().unwrap()))
        .collect();
    let tokens: BTreeSet<&str> = shared.iter().map(|v| v["token"].as_str().unwrap()).collect();
    let faults: BTreeSet<&str> = shared.iter().filter_map(|v| v["fault"].as_str()).collect();
    let refused = shared.iter().filter(|v| v["verdict"] != "valid").count();
    assert!(tokens.len() >= 200 && faults.len() >= 10, "{} {}", tokens.len(), faults.len());
    assert!(refused * 2 >= shared.len() && refused < shared.len(), "{refused} of {}", shared.len());
    for algorithm in native {
        assert!(shared.iter().any(|v| v["algorithm"] == algorithm && v["verdict"] == "valid"));
    }
}
