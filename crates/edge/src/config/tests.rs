//! Tests of the edge document.

use gatehouse_authn::Algorithm;
use serde_json::{Value, json};

use super::*;

mod cors;
mod limiter;
mod shape;
mod versions;
mod warned;

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

#[test]
fn keys_come_from_one_place() {
    let keys: Value = serde_json::from_str(gatehouse_authn::probe::KEYS).unwrap();
    let jwks = |value: Value| move |document: &mut Value| document["issuers"][0]["jwks"] = value;
    check(jwks("sidecar".into()), &[]);
    check(jwks(json!({"inline": keys})), &[]);
    let direct = json!({"target": "login", "authority": "login.example", "path": "/keys"});
    check(jwks(direct.clone()), &[]);
    assert_eq!(warnings(jwks(direct.clone())), ["$.issuers[0].jwks"]);
    check(
        jwks(json!({"inline": {"keys": []}})),
        &["$.issuers[0].jwks.inline: the key set is empty; write the issuer's public keys"],
    );
    check(
        jwks(json!({"inline": {"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}})),
        &[
            "$.issuers[0].jwks.inline.keys[0]: the RSA modulus is not valid; remove or replace this key",
        ],
    );
    check(
        jwks("file".into()),
        &[
            "$.issuers[0].jwks: \"file\" does not fit; write \"sidecar\", {\"inline\": {\"keys\": […]}} or {\"target\": …, \"path\": …}",
        ],
    );
    let mut bad = direct;
    bad["path"] = "keys".into();
    bad["refresh_s"] = 1.into();
    check(
        jwks(bad),
        &[
            "$.issuers[0].jwks.path: \"keys\" does not fit; write the key set's path, such as \"/.well-known/jwks.json\"",
            "$.issuers[0].jwks.refresh_s: 1 does not fit; write a whole number from 30 to 86400",
        ],
    );
}

#[test]
fn j7_a_secret_is_strong_and_alone() {
    let good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    let secret = |secret: &str, algorithms: Value| {
        let secret = secret.to_owned();
        move |document: &mut Value| {
            document["issuers"][0]["secret"] = secret.into();
            document["issuers"][0]["algorithms"] = algorithms;
        }
    };
    let hs256 = || json!(["HS256"]);
    check(secret(good, hs256()), &[]);
    assert_eq!(warnings(secret(good, hs256())), ["$.issuers[0].secret"]);
    for (text, algorithms) in [
        (&good[..42], hs256()),
        (good, json!(["HS384"])),
        (good, json!(["HS256", "RS256"])),
        (good, json!(["RS256"])),
        (&"A".repeat(43), hs256()),
        (&format!("{good}="), hs256()),
        ("", hs256()),
    ] {
        let refused = compile(secret(text, algorithms.clone())).map(drop).unwrap_err();
        let at: Vec<_> = refused.iter().map(|mistake| mistake.path.as_str()).collect();
        assert_eq!(at, ["$.issuers[0].secret"], "{text} {algorithms}");
        assert!(!refused[0].to_string().contains("AAECAw"), "a secret is not shown: {refused:?}");
    }
    check(
        |document| document["issuers"][0]["algorithms"] = json!(["HS256"]),
        &[
            "$.issuers[0].algorithms: HS256, HS384 and HS512 need a secret; write \"secret\", or remove the algorithms of that kind",
        ],
    );
    let beside = move |document: &mut Value| {
        secret(good, hs256())(document);
        document["issuers"][0]["jwks"] = "sidecar".into();
    };
    check(beside, &["$.issuers[0].jwks: beside a secret; write one of the two"]);
}

#[test]
fn without_a_sidecar_everything_must_be_at_hand_and_what_is_lost_is_told() {
    let none = |document: &mut Value| {
        document["sidecar"] = Value::Null;
        document["issuers"][0]["tenants"] = "from_record".into();
        document["sessions"] = true.into();
        document["api_keys"] = true.into();
    };
    check(
        none,
        &[
            "$.issuers[0].jwks: there is no sidecar to ask; write the keys inline, or name where to fetch them",
            "$.issuers[0].tenants: there is no sidecar to ask; list the tenants that it may speak for",
            "$.issuers[0].roles: there is no sidecar to ask; write {\"claim\": …, \"map\": …} to take roles from the token",
            "$.api_keys: only the record knows them, and there is no sidecar to ask; name a sidecar, or write false",
            "$.sessions: only the record knows them, and there is no sidecar to ask; name a sidecar, or write false",
            "$.limiter: without a sidecar every request would be refused; name a sidecar, or write {\"local\": {\"per_minute\": 600}}",
        ],
    );
    let whole = |document: &mut Value| {
        document["sidecar"] = Value::Null;
        document["limiter"] = json!({"local": {"per_minute": 600}});
        document["sessions"] = false.into();
        let issuer = &mut document["issuers"][0];
        issuer["jwks"] = json!({"target": "login", "authority": "login.example", "path": "/keys"});
        issuer["roles"] = json!({"claim": "/groups", "map": {"devs": "developer"}});
    };
    check(whole, &[]);
    assert_eq!(warnings(whole), ["$.sidecar", "$.issuers[0].jwks", "$.limiter"]);
}

#[test]
fn credentials_places_are_names_that_have_one_spelling() {
    let sources = |value: Value| move |document: &mut Value| document["sources"] = value;
    check(sources(json!({"cookie": "access-token", "query": "access_token"})), &[]);
    assert_eq!(
        warnings(sources(json!({"query": "access_token"}))),
        ["$.sources.query", "$.sources.forward"]
    );
    assert_eq!(
        warnings(sources(json!({"query": "access_token", "forward": false}))),
        ["$.sources.query"]
    );
    for bad in ["", "a b", "a=b", "a;b", "a%62", "\u{e9}"] {
        assert!(compile(sources(json!({"cookie": bad}))).is_err(), "{bad}");
        assert!(compile(sources(json!({"query": bad}))).is_err(), "{bad}");
    }
    check(
        sources(json!({"cookie": "__Host-gatehouse"})),
        &[
            "$.sources.cookie: this cookie is for browser sessions; choose another name, or set \"sessions\"",
        ],
    );
}

#[test]
fn a_session_that_ended_would_bar_the_sign_in_where_public_routes_verify() {
    let both = |sessions: bool, verify: bool| {
        move |document: &mut Value| {
            document["sessions"] = sessions.into();
            document["verify_on_public"] = verify.into();
        }
    };
    assert_eq!(warnings(both(true, true)), ["$.verify_on_public"]);
    assert_eq!(warnings(both(true, false)), [""; 0]);
    assert_eq!(warnings(both(false, true)), [""; 0]);
}

#[test]
fn roles_and_scopes_of_tokens_are_read_strictly() {
    let roles = |value: Value| move |document: &mut Value| document["issuers"][0]["roles"] = value;
    check(roles("record".into()), &[]);
    check(roles(json!({"claim": "/https:~1~1a.example~1groups", "map": {"a.b": "viewer"}})), &[]);
    check(
        roles(json!({"claim": "groups", "map": {"a": "owner"}})),
        &[
            "$.issuers[0].roles.claim: \"groups\" does not fit; write a JSON pointer such as \"/groups\"",
            "$.issuers[0].roles.map.a: \"owner\" does not fit; write viewer, operator, developer or admin",
        ],
    );
    check(
        roles("token".into()),
        &[
            "$.issuers[0].roles: \"token\" does not fit; write \"record\" or {\"claim\": \"/groups\", \"map\": {\"group\": \"role\"}}",
        ],
    );
    check(
        |document| document["issuers"][0]["required_scopes"] = json!(["a b"]),
        &["$.issuers[0].required_scopes[0]: \"a b\" does not fit; write a scope without spaces"],
    );
}

#[test]
fn contexts_name_each_upstream_once_and_their_keys_come_from_the_environment() {
    let sign =
        |value: Value| move |document: &mut Value| document["context"] = json!({"sign": value});
    let one = json!({"audience": "a", "key_env": "A", "previous_key_env": "OLD_A"});
    check(sign(json!([one])), &[]);
    check(
        sign(
            json!([one, {"audience": "b", "key_env": "A"}, {"audience": "c", "prefix": "/c", "key_env": "C"}]),
        ),
        &[
            "$.context.sign[2].prefix: \"/c\" does not fit; write a path that begins and ends with a slash, such as \"/api/\"",
        ],
    );
    check(
        sign(json!([one, {"audience": "b", "key_env": "A"}])),
        &[
            "$.context.sign[1].prefix: this path stands twice; write one entry per upstream",
            "$.context.sign[1].key_env: this key stands twice; give each upstream a key of its own",
        ],
    );
    check(
        |document| document["context"] = json!({"headers": ["x-tenant"]}),
        &[
            "$.context.headers[0]: \"x-tenant\" does not fit; write x-tenant-id, x-tenant-tier, x-user-id, x-user-roles or x-auth-method",
        ],
    );
    let good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    let keys = |environment: &dyn Fn(&str) -> Option<String>| {
        let (suite, _) = compile(sign(json!([one]))).unwrap();
        let told: Vec<String> = match suite.with_keys(environment) {
            Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect(),
            Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
        };
        told
    };
    let only = |wanted: &'static str, value: &'static str| {
        move |name: &str| (name == wanted).then(|| value.to_owned())
    };
    assert_eq!(keys(&|_| Some(good.to_owned())), [""; 0]);
    assert_eq!(
        keys(&only("OLD_A", good)),
        ["$.context.sign[0].key_env: A is not set: OLD_A signs"]
    );
    assert_eq!(
        keys(&only("A", "short")),
        [
            "$.context.sign[0].key_env: what A holds is no key; expected 32 to 256 bytes as base64url without padding"
        ]
    );
    assert_eq!(
        keys(&|_| None),
        ["$.context.sign[0].key_env: A is not set; give the VM this environment variable"]
    );
}

#[test]
fn on_kong_nothing_is_signed() {
    check(
        |document| {
            document["host"] = "kong".into();
            document["signatures"] = "portable".into();
            document["sidecar"]["target"] = "127.0.0.1:9000".into();
            document["context"] = json!({"sign": [{"audience": "a", "key_env": "A"}]});
        },
        &[
            "$.context.sign: Kong gives filters no environment to take keys from; remove it: there the service verifies the credential itself",
        ],
    );
}

/// The documents of `docs/configuration.md`, each with the module that it is for.
fn documented() -> Vec<(Parts, &'static str)> {
    let text = include_str!("../../../../docs/configuration.md");
    let block = |block: &'static str| {
        let (module, rest) = block.split_once('\n').unwrap();
        let parts = match module {
            "suite" => Parts::Suite,
            "auth" => Parts::Auth,
            other => panic!("{other}"),
        };
        (parts, rest.split("```").next().unwrap())
    };
    text.split("```json ").skip(1).map(block).collect()
}

#[test]
fn every_documented_document_compiles() {
    let documents = documented();
    assert_eq!(documents.len(), 3);
    for (parts, text) in documents {
        if let Err(mistakes) = Suite::compile(text, parts) {
            panic!("{mistakes:?}\n{text}");
        }
    }
}

/// What the reader takes somewhere, by what it says of a member that it does not know.
fn known(text: &str, parts: Parts, pointer: &str) -> Vec<String> {
    let mut document: Value = serde_json::from_str(text).unwrap();
    document.pointer_mut(pointer).unwrap()["zzzzzz"] = json!(1);
    let mistakes = Suite::compile(&document.to_string(), parts).map(drop).unwrap_err();
    let known = mistakes.iter().find_map(|mistake| mistake.mend.split_once("known here: "));
    known.unwrap().1.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_key_that_is_read_is_documented() {
    let documentation = include_str!("../../../../docs/configuration.md");
    let documents = documented();
    let (none, every) = (documents[0].1, documents[1].1);
    for (text, pointer) in [
        (every, ""),
        (every, "/sidecar"),
        (every, "/issuers/0"),
        (every, "/sources"),
        (every, "/versions"),
        (every, "/versions/lifecycle/0"),
        (every, "/versions/lifecycle/0/brownouts/0"),
        (every, "/context"),
        (every, "/cors"),
        (every, "/transforms"),
        (every, "/transforms/request"),
        (every, "/transforms/request/headers/0"),
        (every, "/transforms/request/query/0"),
        (every, "/transforms/response"),
        (every, "/sizes"),
        (every, "/envelope"),
        (every, "/context/sign/0"),
        (none, "/issuers/0/jwks"),
        (none, "/issuers/0/roles"),
        (none, "/limiter/local"),
        (every, "/limiter"),
        (every, "/limiter/local_share"),
        (every, "/limiter/away"),
        (every, "/limiter/costs/0"),
        (every, "/limiter/bypass"),
    ] {
        for key in known(text, Parts::Suite, pointer) {
            let row = documentation.contains(&format!("| `{key}` |"));
            let within = documentation.contains(&format!("\"{key}\""));
            assert!(row || within, "{key} at {pointer:?} is not documented");
        }
    }
}
