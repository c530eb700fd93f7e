//! Tests of the edge document.

use gatehouse_authn::Algorithm;
use serde_json::{Value, json};

use super::*;

const EXAMPLE: &str = include_str!("../../../../examples/gateway/suite.json");

/// Compiles the example after `change` and compares the mistakes.
fn check(change: impl FnOnce(&mut Value), expected: &[&str]) {
    let got = match compile(change) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(got, expected);
}

fn compile(change: impl FnOnce(&mut Value)) -> Result<(Suite, Vec<Warning>), Vec<Mistake>> {
    let mut document: Value = serde_json::from_str(EXAMPLE).unwrap();
    change(&mut document);
    Suite::compile(&document.to_string(), Parts::Suite)
}

fn warnings(change: impl FnOnce(&mut Value)) -> Vec<String> {
    compile(change).unwrap().1.iter().map(|warning| warning.path.clone()).collect()
}

#[test]
fn the_committed_example_compiles_without_a_warning() {
    let (suite, warnings) = Suite::compile(EXAMPLE, Parts::Suite).unwrap();
    assert_eq!(warnings, []);
    assert_eq!((suite.host(), suite.signatures()), (Host::Envoy, Signatures::Native));
    assert_eq!(suite.sidecar().unwrap().target.name, "gatehouse-sidecar");
}

#[test]
fn three_mistakes_are_three_lines_that_name_cause_and_mend() {
    check(
        |document| {
            document["host"] = "nginx".into();
            document["issuers"][0]["audience"] = json!("https://api.greenlang.local");
            document["versions"]["default"] = "v2".into();
        },
        &[
            "$.host: \"nginx\" does not fit; write \"envoy\" or \"kong\"",
            "$.issuers[0].audience: unknown field; did you mean \"audiences\"?",
            "$.versions.default: is not served; write one of the versions in \"served\"",
        ],
    );
}

#[test]
fn kong_takes_addresses_and_has_no_signatures_of_its_own() {
    let kong = |target: &'static str, signatures: &'static str| {
        move |document: &mut Value| {
            document["host"] = "kong".into();
            document["signatures"] = signatures.into();
            document["sidecar"]["target"] = target.into();
        }
    };
    for target in ["127.0.0.1:9000", "localhost:9000", "[::1]:9000", "unix:/run/sidecar.sock"] {
        check(kong(target, "portable"), &[]);
    }
    for target in ["sidecar", "sidecar:", ":9000", "sidecar:0", "sidecar:70000", "unix:x"] {
        assert!(compile(kong(target, "portable")).is_err(), "{target}");
    }
    check(
        kong("127.0.0.1:9000", "native"),
        &["$.signatures: Kong's Wasm host has no signature check to call; write \"portable\""],
    );
}

#[test]
fn a_document_that_does_not_compile_still_names_its_host() {
    assert_eq!(Suite::named_host(r#"{"host":"kong","x":1}"#), Some(Host::Kong));
    assert_eq!(Suite::named_host(r#"{"host":"envoy"}"#), Some(Host::Envoy));
    for none in ["", "[]", "{}", r#"{"host":"nginx"}"#, r#"{"host":7}"#] {
        assert_eq!(Suite::named_host(none), None, "{none}");
    }
}

#[test]
fn j21_one_issuer_stands_once() {
    check(
        |document| {
            let first = document["issuers"][0].clone();
            document["issuers"].as_array_mut().unwrap().push(first);
        },
        &["$.issuers[1].issuer: this issuer stands twice; write one entry per issuer"],
    );
    check(
        |document| document["issuers"] = json!([]),
        &["$.issuers: empty or missing; list at least one issuer of tokens"],
    );
}

#[test]
fn issuers_are_read_strictly() {
    let tenants = "write \"any\", \"from_record\" or a list of tenant ids";
    let known: Vec<_> = Algorithm::ALL.iter().map(|known| known.as_str()).collect();
    let known = known.join(", ");
    check(
        |document| document["issuers"][0]["tenants"] = "all".into(),
        &[&format!("$.issuers[0].tenants: \"all\" does not fit; {tenants}")],
    );
    check(
        |document| document["issuers"][0]["tenants"] = json!(["acme"]),
        &["$.issuers[0].tenants[0]: \"acme\" does not fit; write a tenant's id (a UUID)"],
    );
    check(
        |document| document["issuers"][0]["platform"] = false.into(),
        &[
            "$.issuers[0].tenants: \"any\" is for the platform's own issuer alone; list the tenants that it may speak for, or write \"from_record\"",
        ],
    );
    check(
        |document| document["issuers"][0]["algorithms"] = json!(["ES512"]),
        &[&format!("$.issuers[0].algorithms[0]: \"ES512\" does not fit; write one of {known}")],
    );
    check(
        |document| document["issuers"][0]["algorithms"] = json!([]),
        &[
            "$.issuers[0].algorithms: empty or missing; list the algorithms of its tokens, e.g. [\"RS256\"]",
        ],
    );
    check(
        |document| document["issuers"][0]["leeway_s"] = json!(301),
        &["$.issuers[0].leeway_s: 301 does not fit; write a whole number from 0 to 300"],
    );
    check(
        |document| document["issuers"][0]["tenant_claim"] = "tenant_id".into(),
        &[
            "$.issuers[0].tenant_claim: \"tenant_id\" does not fit; write a JSON pointer such as \"/tenant_id\"",
        ],
    );
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let at = |name: &str| vec![format!("$.issuers[0].{name}")];
    assert_eq!(warnings(|doc| doc["issuers"][0]["audiences"] = json!([])), at("audiences"), "J22");
    assert_eq!(warnings(|doc| doc["issuers"][0]["tenants"] = Value::Null), at("tenants"));
    assert_eq!(warnings(|doc| doc["limiter"] = "open".into()), ["$.limiter"]);
    let foreign = |doc: &mut Value| {
        doc["issuers"][0]["platform"] = false.into();
        doc["issuers"][0]["tenants"] = "from_record".into();
    };
    assert!(warnings(foreign).is_empty());
    let powerless = |doc: &mut Value| {
        foreign(doc);
        doc["issuers"][0]["max_role"] = Value::Null;
    };
    assert_eq!(warnings(powerless), at("max_role"));
}

#[test]
fn versions_are_path_tokens() {
    for bad in ["", "v1/x", "..", "v 1", "v%31"] {
        let change = |doc: &mut Value| doc["versions"] = json!({"served": [bad], "default": bad});
        assert!(compile(change).is_err(), "{bad:?}");
    }
    for good in ["v1", "v1-beta", "2026-11-22"] {
        check(|doc| doc["versions"] = json!({"served": [good], "default": good}), &[]);
    }
}
