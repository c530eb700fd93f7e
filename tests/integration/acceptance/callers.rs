//! T8, T9: which tenant a caller may act for, and that every kind of credential brings the same context.

use gatehouse_authn::api_key::{self, Environment};
use gatehouse_contract::{Role, header};
use gatehouse_tests::http::{Message, Request};
use serde_json::{Value, json};

use super::gate::{
    ADMIN, AGENTS, Gate, OTHER_TENANT, SUBJECT, TENANT, document, get, member, token, with_claim,
};

/// A tenant that nobody has.
const NOBODYS: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ee";

/// A problem's body without what differs from request to request.
fn body(answer: &Message) -> Value {
    let mut body = answer.json().unwrap();
    body.as_object_mut().unwrap().retain(|name, _| name != "request_id" && name != "instance");
    body
}

#[test]
fn t8_another_tenant_is_a_missing_one_but_for_the_platform_with_a_reason() {
    let mut document = document();
    document["tenant_host_suffix"] = json!(".api.greenlang.local");
    let gate = Gate::document(document);
    let admin = with_claim("sub", json!(ADMIN));
    let path = |tenant: &str| Request::new("GET", &format!("/api/v1/factory/tenants/{tenant}"));
    let query = |tenant: &str| Request::new("GET", &format!("{AGENTS}?a=1&tenant_id={tenant}"));
    let host = |tenant: &str| {
        get().without("Host").header("Host", &format!("{tenant}.api.greenlang.local"))
    };
    let platform = {
        let subject = "7d7c9c5e-4f62-4b4e-9d0e-6d1f4f3c0009";
        let mut facts = member(TENANT, subject, &[Role::Admin]);
        facts.platform = true;
        gate.outside().members.insert((TENANT.to_owned(), subject.to_owned()), facts);
        with_claim("sub", json!(subject))
    };
    let reason = |request: Request| request.header("X-Gatehouse-Reason", "ticket 4711");
    for (what, named) in
        [("path", &path as &dyn Fn(&str) -> Request), ("query", &query), ("host", &host)]
    {
        gate.allows(&named(TENANT).bearer(&admin));
        gate.allows(&named(&TENANT.to_uppercase().to_lowercase()).bearer(&token()));
        let other = gate.denies(&named(OTHER_TENANT).bearer(&admin), "404 not_found");
        let missing = gate.denies(&named(NOBODYS).bearer(&admin), "404 not_found");
        assert_eq!(body(&other), body(&missing), "{what}");
        gate.denies(&named("not-an-id").bearer(&admin), "404 not_found");
        // A reason alone opens nothing, nor does the platform without one.
        gate.denies(&reason(named(OTHER_TENANT)).bearer(&admin), "404 not_found");
        gate.denies(&named(OTHER_TENANT).bearer(&platform), "404 not_found");
        let blank = named(OTHER_TENANT).bearer(&platform).header("X-Gatehouse-Reason", " ");
        gate.denies(&blank, "404 not_found");
        let saw = gate.allows(&reason(named(OTHER_TENANT)).bearer(&platform));
        // Who calls stays who calls; the upstream reads the reason.
        assert_eq!(saw.headers.all("x-tenant-id"), [TENANT], "{what}");
        assert_eq!(saw.headers.all("x-gatehouse-reason"), ["ticket 4711"], "{what}");
    }
    // Two names that differ are none.
    let both =
        Request::new("GET", &format!("/api/v1/factory/tenants/{TENANT}?tenant_id={OTHER_TENANT}"));
    gate.denies(&both.bearer(&admin), "404 not_found");
    let twice = Request::new("GET", &format!("{AGENTS}?tenant_id={TENANT}&tenant_id={TENANT}"));
    gate.denies(&twice.bearer(&admin), "404 not_found");
    gate.allows(&host("API").without("Host").header("Host", "api.greenlang.local").bearer(&admin));
}

#[test]
fn t9_every_credential_brings_the_same_context() {
    let mut document = document();
    document["sessions"] = json!(true);
    let gate = Gate::document(document);
    let environment: Environment = "live".parse().unwrap();
    let id = "0191d6b0-7c3e-7aaa-8bbb-0123456789f0".parse().unwrap();
    let key = api_key::compose(&environment, id, [7; 32]);
    let narrow = api_key::compose(&environment, id, [8; 32]);
    let unknown = api_key::compose(&environment, id, [9; 32]);
    let session = "s".repeat(43);
    let facts = |credential: &str| {
        let mut facts = member(TENANT, SUBJECT, &[Role::Developer]);
        facts.credential = Some(credential.to_owned());
        facts
    };
    let mut narrowed = facts("narrow");
    narrowed.scopes = Some(vec!["agents:read".to_owned()]);
    for (shown, facts) in [(&key, facts("key")), (&narrow, narrowed), (&session, facts("session"))]
    {
        gate.outside().credentials.insert(shown.clone(), facts);
    }
    let by_token = |request: Request| request.bearer(&token());
    let by_key = |request: Request| request.header("X-API-Key", &key);
    let by_session =
        |request: Request| request.header("Cookie", &format!("a=1; __Host-gatehouse={session}"));
    let shapes: Vec<Vec<(String, String)>> = [
        ("jwt", &by_token as &dyn Fn(Request) -> Request),
        ("api_key", &by_key),
        ("session", &by_session),
    ]
    .iter()
    .map(|(method, shown)| {
        let saw = gate.allows(&shown(get()));
        assert_eq!(saw.headers.all("x-auth-method"), [*method]);
        header::IDENTITY
            .iter()
            .filter(|name| **name != header::AUTH_METHOD)
            .chain([&header::BAGGAGE])
            .map(|name| ((*name).to_owned(), saw.headers.all(name).join("|")))
            .collect()
    })
    .collect();
    let [token, key_shape, session_shape] = shapes.as_slice() else { panic!("{shapes:?}") };
    assert_eq!((token, token), (key_shape, session_shape));
    assert!(
        token.iter().any(|(name, value)| name == "x-tenant-id" && value == TENANT),
        "{token:?}"
    );
    assert!(token.iter().any(|(name, value)| name == "x-user-id" && value == SUBJECT), "{token:?}");

    // The nearest denies: a key of nobody, a mistyped one, one that is narrowed, two credentials.
    let with_key = |key: &str| get().header("X-API-Key", key);
    gate.denies(&with_key(&unknown), "401 token_invalid");
    let mistyped =
        format!("{}{}", &key[..key.len() - 1], if key.ends_with('0') { '1' } else { '0' });
    gate.denies(&with_key(&mistyped), "401 token_invalid");
    gate.denies(&with_key(""), "401 token_invalid");
    gate.allows(&with_key(&narrow));
    let create = Request::new("POST", AGENTS).json(&json!({}));
    gate.allows(&by_key(create.clone()));
    gate.denies(&create.header("X-API-Key", &narrow), "403 permission_denied");
    gate.denies(&by_token(by_key(get())), "400 credential_malformed");
    gate.denies(&by_session(by_key(get())), "400 credential_malformed");
    let other = get().header("Cookie", &format!("__Host-gatehouse={}", "t".repeat(43)));
    gate.denies(&other, "401 token_invalid");
}
