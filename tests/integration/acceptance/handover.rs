//! T1, T2, T3, T9 for chains of single modules: the module `auth` alone, and with a second module behind it, to which
//! the caller is handed over by filter state (design §3), never by headers.

use gatehouse_contract::header;
use gatehouse_tests::{
    env, envoy,
    http::{Message, Request},
};
use gatehouse_xtask::render::{Document, envoy::filter};
use serde_json::{Value, json};

use super::gate::{
    AGENTS, EVIL, Gate, PUBLIC, Patch, Plan, SUBJECT, TENANT, VIEWER, claims, document, get,
    signed, token, with_claim,
};

/// What the second module saw: the probe, in a VM of its own.
const TOLD: &str = "x-p-told";
/// What Envoy itself read at the same place.
const READ: &str = "x-test-read";

/// The repository's document without what other modules see to.
fn identity_alone() -> Value {
    let mut document = document();
    for part in ["versions", "limiter"] {
        document.as_object_mut().unwrap().remove(part);
    }
    document
}

/// Puts filters between the first one and the router.
fn behind_it(filters: Vec<Value>) -> Patch {
    Box::new(move |bootstrap| {
        let chain = envoy::manager(bootstrap)?.get_mut("http_filters")?.as_array_mut()?;
        chain.splice(1..1, filters.clone());
        Some(())
    })
}

/// A module of somebody else's, and a filter of Envoy's, that look for the caller.
fn readers() -> Vec<Value> {
    let value = "%FILTER_STATE(wasm.gatehouse_identity:PLAIN)%";
    let append = json!({
        "header": {"key": READ, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    });
    let envoys_own = json!({
        "name": "reader",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": [{"append": append}]},
        },
    });
    vec![probe(), envoys_own]
}

fn probe() -> Value {
    json!({
        "name": "probe",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "probe",
                "vm_config": {
                    "vm_id": "probe",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": env::path(env::PROBE).unwrap()}},
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": "tell gatehouse_identity",
                },
            },
        },
    })
}

/// The caller that both readers saw; `None` if neither saw one.
#[track_caller]
fn told(saw: &Message) -> Option<Value> {
    let (told, read) = (saw.header(TOLD), saw.header(READ));
    let Some(text) = told.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        assert!(["", "-"].contains(&read.as_str()), "{told} beside {read}");
        assert_eq!(told, "not found");
        return None;
    };
    let caller: Value = serde_json::from_str(&text.replace("\\\"", "\"")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&read).unwrap(), caller);
    Some(caller)
}

/// Every identity header, in two spellings, as a client might claim to be somebody.
fn forged(request: Request) -> Request {
    header::IDENTITY.iter().fold(request, |request, name| {
        request.header(name, EVIL).header(&name.replace('-', "_"), EVIL)
    })
}

#[track_caller]
fn clean(saw: &Message) {
    let text = String::from_utf8_lossy(&saw.bytes()).into_owned();
    assert!(!text.contains(EVIL), "{text}");
}

#[test]
fn t1_the_module_auth_strips_what_clients_claim_and_hands_the_caller_over() {
    let gate = Gate::with(Plan {
        document: identity_alone(),
        module: env::AUTH,
        bootstrap: behind_it(readers()),
        ..Plan::default()
    });
    let viewer = with_claim("sub", json!(VIEWER));
    for (bearer, subject, role) in [
        (token(), SUBJECT, "developer"),
        (viewer, VIEWER, "viewer"),
        (token(), SUBJECT, "developer"),
    ] {
        let saw = gate.allows(&forged(get().bearer(&bearer)));
        clean(&saw);
        assert_eq!(saw.headers.all(header::TENANT_ID), [TENANT]);
        assert_eq!(saw.headers.all(header::USER_ID), [subject]);
        assert_eq!(
            told(&saw).unwrap(),
            json!({
                "tenant": TENANT, "tier": "enterprise", "subject": subject, "roles": [role],
                "platform": false, "method": "jwt", "scopes": null, "limits": null,
            })
        );
    }
    // Nobody calls: nobody is handed over, whoever the client says it is. Nor is the owner of a token on a route that
    // asks for none, nor who called on this connection before.
    for public in [Request::new("GET", PUBLIC), Request::new("GET", PUBLIC).bearer(&token())] {
        let saw = gate.allows(&forged(public));
        clean(&saw);
        assert_eq!(saw.headers.all(header::TENANT_ID), [""; 0]);
        assert_eq!(told(&saw), None);
    }
    // What is refused reaches no module behind.
    gate.upstream_saw();
    gate.denies(&forged(get()), "401 credential_missing");
    gate.denies(&forged(get().bearer("x.y.z")), "401 token_invalid");
    let mut expired = claims();
    expired["exp"] = json!(1_000_000);
    gate.denies(&get().bearer(&signed(&expired)), "401 token_invalid");
    let create = forged(Request::new("POST", AGENTS).bearer(&with_claim("sub", json!(VIEWER))));
    gate.denies(&create, "403 permission_denied");
    assert_eq!(gate.upstream_saw().len(), 0);
    gate.sound();
}

#[test]
fn t2_without_the_module_before_it_a_reader_finds_nobody() {
    // The fused module needs to tell nobody, and the state cannot be brought by a client.
    let names = ["gatehouse_identity", "wasm.gatehouse_identity", "x-gatehouse-identity"];
    let claimed = |request: Request| {
        names.iter().fold(request, |request, name| request.header(name, r#"{"tenant":"x"}"#))
    };
    let gate = Gate::with(Plan { bootstrap: behind_it(readers()), ..Plan::default() });
    assert_eq!(told(&gate.allows(&claimed(get().bearer(&token())))), None);
    drop(gate);

    let alone: Patch = Box::new(|bootstrap| {
        let chain = envoy::manager(bootstrap)?.get_mut("http_filters")?.as_array_mut()?;
        chain.splice(0..1, readers());
        Some(())
    });
    let gate = Gate::with(Plan { bootstrap: alone, ..Plan::default() });
    assert_eq!(told(&gate.allows(&claimed(get().bearer(&token())))), None);
}

#[test]
fn t3_two_modules_of_ours_in_one_chain_agree_on_one_caller() {
    let text = document().to_string();
    let suite = env::path(env::SUITE).unwrap().display().to_string();
    let mut second = filter(&Document::parse(&text).unwrap(), &suite);
    second["name"] = json!("second");
    let chain = [vec![second], readers()].concat();
    let gate = Gate::with(Plan {
        document: identity_alone(),
        module: env::AUTH,
        bootstrap: behind_it(chain),
        ..Plan::default()
    });
    for _ in 0..2 {
        let saw = gate.allows(&forged(get().bearer(&token())));
        clean(&saw);
        for (name, expected) in [
            (header::TENANT_ID, TENANT),
            (header::USER_ID, SUBJECT),
            (header::USER_ROLES, "developer"),
            (header::AUTH_METHOD, "jwt"),
        ] {
            assert_eq!(saw.headers.all(name), [expected], "{name}");
        }
        assert_eq!(told(&saw).unwrap()["subject"], SUBJECT);
        let answer = gate.send(&get().bearer(&token()));
        assert_eq!(answer.headers.all("x-request-id").len(), 1);
        assert_eq!(answer.headers.all("api-version"), ["v1"]);
    }
    let saw = gate.allows(&forged(Request::new("GET", PUBLIC)));
    clean(&saw);
    assert_eq!((told(&saw), saw.headers.all(header::TENANT_ID)), (None, vec![]));
    // The first refuses for both; what only the second sees to is refused by it.
    gate.denies(&get(), "401 credential_missing");
    let unknown = Request::new("GET", "/api/v9/registry/agents").bearer(&token());
    let refused = gate.send(&unknown);
    assert!(matches!(refused.status().unwrap(), 403 | 404), "{refused:?}");
    gate.sound();
}
