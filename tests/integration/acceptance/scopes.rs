//! J24, and J3's scopes: what a token's scopes and roles are read from, and what their lack is answered with.

use serde_json::{Value, json};

use super::gate::{
    AGENTS, ALLOWED, Gate, TENANT, changed, claims, get, issuer, signed, verdict, with_claim,
};
use gatehouse_tests::http::Request;

const LACKS: &str = "403 scope_insufficient";
const INVALID: &str = "401 token_invalid";

#[test]
fn j3_a_missing_scope_is_named_in_the_challenge() {
    let gate = Gate::document(issuer(&json!({"required_scopes": ["agents.use", "openid"]})));
    let with = |scope: &str| get().bearer(&with_claim("scope", json!(scope)));
    gate.allows(&with("openid agents.use other"));
    for lacking in ["openid", "agents.user openid", "AGENTS.USE openid", ""] {
        let answer = gate.denies(&with(lacking), LACKS);
        let challenge = answer.header("www-authenticate");
        assert!(challenge.contains(r#"error="insufficient_scope""#), "{challenge}");
        assert!(challenge.contains(r#"scope="agents.use openid""#), "{challenge}");
        assert_eq!(answer.headers.all("cache-control"), ["no-store"]);
    }
    // Without a token nothing is insufficient.
    let answer = gate.denies(&get(), "401 credential_missing");
    assert!(!answer.header("www-authenticate").contains("scope"));
}

#[test]
fn j24_scopes_are_read_in_every_form_that_issuers_write() {
    let gate = Gate::document(issuer(&json!({"required_scopes": ["b"]})));
    let check = |name: &str, value: Value, expected: &str| {
        assert_eq!(gate.judges(&with_claim(name, value.clone())), expected, "{name}: {value}");
    };
    for name in ["scope", "scp"] {
        check(name, json!("a b c"), ALLOWED);
        check(name, json!("b"), ALLOWED);
        check(name, json!(["a", "b"]), ALLOWED);
        check(name, json!("a bb"), LACKS);
        check(name, json!(["a"]), LACKS);
        check(name, json!([]), LACKS);
        check(name, json!(["a b"]), INVALID);
        check(name, json!(["b", 7]), INVALID);
        check(name, json!({"b": true}), INVALID);
        check(name, json!(true), INVALID);
    }
    check("scopes", json!("b"), LACKS);
    drop(gate);

    // Roles by pointer, through names with dots, slashes and tildes.
    let url = "https://greenlang.example/roles";
    for (pointer, place) in [
        ("/https:~1~1greenlang.example~1roles", json!({url: ["ops", "devs"]})),
        ("/realm.access/roles", json!({"realm.access": {"roles": "devs"}})),
        ("/a~0b/c~1d", json!({"a~b": {"c/d": ["devs"]}})),
    ] {
        let roles = json!({"claim": pointer, "map": {"devs": "developer", "read": "viewer"}});
        let gate = Gate::document(issuer(&json!({"roles": roles})));
        let with = |place: &Value| {
            let mut claims = changed(claims(), "sub", json!("stranger-to-the-record"));
            for (name, value) in place.as_object().unwrap() {
                claims[name] = value.clone();
            }
            signed(&claims)
        };
        let create = |token: &str| Request::new("POST", AGENTS).bearer(token).json(&json!({}));
        let saw = gate.allows(&create(&with(&place)));
        assert_eq!(saw.headers.all("x-user-roles"), ["developer"], "{pointer}");
        assert_eq!(saw.headers.all("x-tenant-id"), [TENANT]);
        let text = place.to_string();
        let reader: Value = serde_json::from_str(&text.replace("devs", "read")).unwrap();
        gate.allows(&get().bearer(&with(&reader)));
        gate.denies(&create(&with(&reader)), "403 permission_denied");
        let nobody: Value = serde_json::from_str(&text.replace("devs", "unmapped")).unwrap();
        gate.denies(&get().bearer(&with(&nobody)), "403 permission_denied");
        let wrong = gate.send(&get().bearer(&with_claim("sub", json!("stranger-to-the-record"))));
        assert_eq!(verdict(&wrong), "403 permission_denied", "no such claim");
    }
}
