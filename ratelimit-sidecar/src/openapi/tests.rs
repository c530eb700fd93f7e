//! The document against the routes, and against the wire types: every member that a type can have stands in its
//! schema and the other way round, and what may be left out is not required there.

use std::collections::{BTreeMap, BTreeSet};

use gatehouse_contract::{
    Problem, Reason, Role, TenantId, Tier,
    sidecar::{
        Change, ChangesAnswer, CheckAnswer, CheckAsk, Denied, EndpointOverride, JwksAnswer, Lease,
        LeaseAnswer, LeaseAsk, LeaseReturn, LimitState, Overrides, PrincipalAsk, PrincipalFacts,
    },
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::DOCUMENT;
use crate::{
    routes,
    store::MemoryStore,
    top::{Answer, By, Entry},
};

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

#[test]
fn every_route_is_described_and_every_description_is_a_route() {
    let document = document();
    let described = document["paths"].as_object().unwrap().iter().map(|(path, item)| {
        let methods = item.as_object().unwrap().keys().filter(|name| *name != "servers");
        (path.clone(), methods.cloned().collect::<BTreeSet<_>>())
    });
    let served = routes::public::<MemoryStore>().into_iter().chain(routes::admin());
    let served = served.map(|(path, methods, _)| {
        (path.to_owned(), methods.iter().map(|method| (*method).to_owned()).collect())
    });
    let mut served: BTreeMap<String, BTreeSet<String>> = served.collect();
    for of_every_service in ["/livez", "/readyz"] {
        served.insert(of_every_service.to_owned(), ["get".to_owned()].into());
    }
    assert_eq!(described.collect::<BTreeMap<_, _>>(), served);
}

#[test]
fn operations_have_names_of_their_own_and_references_lead_somewhere() {
    let document = document();
    let mut names = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values().filter(|value| value.is_object()) {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{name} stands twice");
        }
    }
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(to) = members.get("$ref").and_then(Value::as_str) {
                    assert!(document.pointer(to.strip_prefix('#').unwrap()).is_some(), "{to}");
                }
                members.values().for_each(|value| walk(value, document));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, document)),
            _ => {}
        }
    }
    walk(&document, &document);
}

/// The schema that fits: of several, the one whose constants are the value's.
fn resolve<'a>(schema: &'a Value, value: &Value, document: &'a Value) -> &'a Value {
    if let Some(to) = schema["$ref"].as_str() {
        return resolve(document.pointer(&to[1..]).unwrap(), value, document);
    }
    let Some(all) = schema["oneOf"].as_array() else { return schema };
    let fits = |schema: &&Value| {
        let properties = schema["properties"].as_object().unwrap();
        properties.iter().all(|(name, of)| of.get("const").is_none_or(|is| *is == value[name]))
    };
    all.iter().find(fits).unwrap_or_else(|| panic!("no schema fits {value}"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `whole` has every member, so that the schema may have no other; `least` has only what cannot be left out. What has
/// a name of its own is compared under that name.
fn compare(schema: &Value, whole: &Value, least: &Value, document: &Value, at: &str) {
    let schema = resolve(schema, whole, document);
    if let Some(is) = schema.get("const") {
        assert_eq!(is, whole, "{at}");
        return;
    }
    assert_eq!(schema["type"], kind(whole), "{at}");
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(whole), "{at}: {whole}");
    }
    match whole {
        Value::Array(values) => {
            assert!(!values.is_empty(), "{at}: an empty list shows nothing");
            for value in values.iter().filter(|_| schema["items"].get("$ref").is_none()) {
                compare(&schema["items"], value, value, document, &format!("{at}[]"));
            }
        }
        Value::Object(members) => {
            let Some(properties) = schema["properties"].as_object() else { return };
            let names = |of: &Map<String, Value>| of.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(names(members), names(properties), "{at}");
            let required: BTreeSet<String> =
                serde_json::from_value(schema["required"].clone()).unwrap();
            assert_eq!(names(least.as_object().unwrap()), required, "{at}: required");
            for (name, value) in members {
                if properties[name].get("$ref").is_none() {
                    compare(&properties[name], value, value, document, &format!("{at}.{name}"));
                }
            }
        }
        _ => {}
    }
}

fn check(name: &str, whole: impl Serialize, least: impl Serialize) {
    let document = document();
    let schema = &document["components"]["schemas"][name];
    let (whole, least) = (serde_json::to_value(whole), serde_json::to_value(least));
    compare(schema, &whole.unwrap(), &least.unwrap(), &document, name);
}

fn tenant() -> TenantId {
    "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap()
}

fn ask(whole: bool) -> CheckAsk {
    let endpoint = EndpointOverride { method: "GET".into(), route: "/".into(), per_window: 1 };
    let limits = Overrides {
        per_window: Some(1),
        burst_multiplier: Some(1),
        per_day: Some(1),
        endpoints: vec![endpoint],
    };
    CheckAsk {
        tenant: tenant(),
        tier: Tier::Pro,
        limits: whole.then_some(limits),
        subject: whole.then(|| "u".into()),
        method: "GET".into(),
        route: "/".into(),
        cost: 1,
        forced: whole,
    }
}

fn answer(whole: bool) -> CheckAnswer {
    let limit = LimitState { name: "day".into(), limit: 1, window_s: 1, remaining: 0, reset_s: 1 };
    CheckAnswer {
        allowed: !whole,
        retry_after_s: whole.then_some(1),
        degraded: whole,
        day_used_percent: whole.then_some(80),
        limits: vec![limit],
    }
}

#[test]
fn the_wire_types_of_limits_are_described() {
    let overrides = ask(true).limits.unwrap();
    check("Overrides", &overrides, Overrides::default());
    check("EndpointOverride", &overrides.endpoints[0], &overrides.endpoints[0]);
    check("CheckAnswer", answer(true), answer(false));
    check("LimitState", &answer(true).limits[0], &answer(true).limits[0]);
    check("CheckAsk", ask(true), ask(false));
    let lease = Lease { id: 1, passes: 1, ttl_ms: 1 };
    check("Lease", lease, lease);
    let whole = LeaseAnswer { check: Some(answer(true)), lease: Some(lease), share: Some(1) };
    check("LeaseAnswer", whole, LeaseAnswer { check: None, lease: None, share: None });
    let unused = LeaseReturn { lease: 1, unused: 1 };
    check("LeaseReturn", &unused, &unused);
    let returns = vec![unused.clone()];
    let whole = LeaseAsk { holder: "vm".into(), check: Some(ask(true)), want: 1, returns };
    // What is written for a default may be left out all the same.
    let least = json!({"holder": "vm"});
    serde_json::from_value::<LeaseAsk>(least.clone()).unwrap();
    check("LeaseAsk", whole, least);
}

#[test]
fn the_wire_types_of_identity_are_described() {
    check(
        "JwksAnswer",
        JwksAnswer { generation: 1, jwks: "{}".into(), max_age_ms: 1 },
        JwksAnswer { generation: 1, jwks: "{}".into(), max_age_ms: 1 },
    );
    let mut whole = PrincipalFacts::member(tenant(), "u");
    let least = PrincipalFacts { roles: [Role::Admin].into_iter().collect(), ..whole.clone() };
    whole = PrincipalFacts {
        scopes: Some(vec!["s".into()]),
        credential: Some("c".into()),
        expires_at_s: Some(1),
        version_pin: Some("v1".into()),
        limits: ask(true).limits,
        ..least.clone()
    };
    check("PrincipalFacts", whole, least);
    let subject = |token: Option<&str>, issued_at_s| PrincipalAsk::Subject {
        issuer: "i".into(),
        tenant: tenant(),
        subject: "u".into(),
        token: token.map(str::to_owned),
        issued_at_s,
        vouched: true,
    };
    let mut least = serde_json::to_value(subject(None, None)).unwrap();
    least.as_object_mut().unwrap().remove("vouched");
    serde_json::from_value::<PrincipalAsk>(least.clone()).unwrap();
    check("PrincipalAsk", subject(Some("t"), Some(1)), least);
    let key = |client| PrincipalAsk::ApiKey { key: "k".into(), client };
    check("PrincipalAsk", key(Some("::1".into())), key(None));
    let session = |client| PrincipalAsk::Session { session: "s".into(), client };
    check("PrincipalAsk", session(Some("::1".into())), session(None));
    let token = Denied::Token { token: "t".into(), until_s: 1 };
    let before =
        Denied::IssuedBefore { tenant: tenant(), subject: "u".into(), before_s: 1, until_s: 1 };
    for denied in [&token, &before] {
        check("Denied", denied, denied);
        check("Change", Change::Deny(denied.clone()), Change::Deny(denied.clone()));
    }
    let changes = [
        Change::Tenant { tenant: tenant() },
        Change::Subject { tenant: tenant(), subject: "u".into() },
        Change::Credential { credential: "c".into() },
        Change::Keys { issuer: "i".into() },
    ];
    for change in &changes {
        check("Change", change, change);
    }
    let least = ChangesAnswer {
        epoch: "e".into(),
        sequence: 1,
        alive: true,
        changes: Vec::new(),
        snapshot: None,
        keys: BTreeMap::new(),
    };
    let whole = ChangesAnswer {
        changes: changes.to_vec(),
        snapshot: Some(vec![token, before]),
        keys: [("i".to_owned(), 1)].into(),
        ..least.clone()
    };
    check("ChangesAnswer", whole, least);
}

#[test]
fn our_own_answers_are_described() {
    let top = Answer {
        by: By::Denied,
        window_s: 60,
        total: 1,
        error: 0,
        tenants: vec![Entry { tenant: tenant(), value: 1 }],
    };
    check("Top", &top, &top);
    let problem = Problem::new(Reason::QuotaExceeded);
    check("Problem", problem.clone().detail("d").request_id("r"), problem);
}
