//! A sign-in from the first request to the logout, and what must not pass on the way.

use serde_json::{Value, json};

use super::{Browser, ORIGIN, Provider, code, refused, register, world};
use crate::http::send;

const AGENTS: &str = "/api/v1/registry/agents";

fn ada() -> Value {
    json!({"ada": {"email": "ada@example.com", "email_verified": true, "groups": ["makers", "x"]}})
}

#[test]
fn a_person_signs_in_acts_and_signs_out() {
    let provider = Provider::start(ada());
    let world = world(&[&provider]);
    let tenant = world.tenant("tenant-a");
    let issuer = register(&world, &tenant, &provider, json!({}));
    let mut browser = Browser::default();
    let back = browser.sign_in(&world, &issuer, "ada");
    assert_eq!((back.status, back.header("location")), (303, Some("/app")), "{}", back.text);
    assert_eq!(back.header("cache-control"), Some("no-store"));
    let cookies: Vec<&str> = back
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie")
        .map(|(_, cookie)| cookie.as_str())
        .collect();
    let session = browser.session().unwrap().to_owned();
    assert_eq!(
        cookies,
        [
            format!(
                "__Host-gatehouse={session}; Path=/; Max-Age=43200; Secure; HttpOnly; SameSite=Lax"
            ),
            "__Host-gatehouse-login=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax".to_owned(),
        ]
    );
    // 256 bits that nobody can read in the database.
    assert_eq!(session.len(), 43);
    let stored = world.database.query("SELECT encode(secret_sha256, 'escape') FROM sessions");
    assert!(!stored.contains(&session));

    let known = world.ask_principal(&json!({"kind": "session", "session": session}));
    assert_eq!(known.status, 200, "{}", known.text);
    let facts = known.json();
    assert_eq!((&facts["roles"], &facts["platform"]), (&json!(["developer"]), &json!(false)));
    assert_eq!(facts["tenant"], json!(tenant.id));
    let user = world.database.query("SELECT user_id FROM user_identities");
    assert_eq!(facts["subject"], json!(user));
    let id = world.database.query("SELECT id FROM sessions");
    assert_eq!(facts["credential"], json!(id));
    assert!(facts["expires_at_s"].as_u64().is_some());

    assert_eq!(browser.get(&world, AGENTS).status, 200);
    // Its role makes agents; what changes something comes from our own pages.
    let make = |headers: &[(&str, &str)]| {
        browser.call(&world, "POST", AGENTS, headers, Some(r#"{"name":"fuel"}"#))
    };
    refused(&make(&[]), 403, "permission_denied");
    refused(&make(&[("origin", "https://evil.test")]), 403, "permission_denied");
    refused(&make(&[("origin", "null")]), 403, "permission_denied");
    refused(&make(&[("origin", ORIGIN), ("origin", ORIGIN)]), 403, "permission_denied");
    assert_eq!(make(&[("origin", ORIGIN)]).status, 201);
    let path = format!("/api/v1/factory/tenants/{}/issuers", tenant.id);
    refused(&browser.get(&world, &path), 403, "permission_denied");
    // One credential per request.
    let bearer = format!("Bearer {}", world.platform);
    let both = browser.call(&world, "GET", AGENTS, &[("authorization", &bearer)], None);
    refused(&both, 400, "credential_malformed");

    let logout =
        |origin: &str| browser.call(&world, "POST", "/oauth2/logout", &[("origin", origin)], None);
    refused(&logout("https://evil.test"), 403, "permission_denied");
    assert_eq!(browser.get(&world, AGENTS).status, 200, "another page signs nobody out");
    let out = logout(ORIGIN);
    assert_eq!(out.status, 204, "{}", out.text);
    assert!(out.header("set-cookie").unwrap().starts_with("__Host-gatehouse=; Path=/; Max-Age=0;"));
    let after = browser.get(&world, AGENTS);
    refused(&after, 401, "token_invalid");
    assert!(after.header("www-authenticate").is_some());
    assert_eq!(world.ask_principal(&json!({"kind": "session", "session": session})).status, 401);
    assert_eq!(logout(ORIGIN).status, 204, "twice is once");
    let told = world.database.query("SELECT payload FROM outbox WHERE kind = 'credential'");
    assert!(told.contains(&id), "{told}");
    let audited = world.database.query(&format!(
        "SELECT string_agg(action, ' ' ORDER BY id) FROM tenant_audit WHERE tenant_id = '{}'",
        tenant.id
    ));
    // A sign-in is one row, which names all that it did.
    let all = "tenant.create issuer.create session.create agent.create session.revoke";
    assert_eq!(audited, all);
    let rows = world.as_platform(
        "GET",
        &format!("/api/v1/factory/tenants/{}/audit?action=session.create", tenant.id),
        "what a sign-in did",
        None,
    );
    let with = rows.json()["items"][0]["details"]["with"].clone();
    let did: Vec<&str> =
        with.as_array().unwrap().iter().map(|one| one["action"].as_str().unwrap()).collect();
    assert_eq!(did, ["user.create", "user.link"], "{with}");
}

#[test]
fn a_sign_in_comes_back_to_its_own_browser_with_its_own_state_once() {
    let provider = Provider::start(ada());
    let world = world(&[&provider]);
    let issuer = register(&world, &world.tenant("tenant-a"), &provider, json!({}));
    let mut victim = Browser::default();
    let mut attacker = Browser::default();
    // Login CSRF: the attacker's own answer in somebody else's browser, with and without a sign-in of its own.
    let back = attacker.through_provider(&world, &issuer, "ada");
    refused(&victim.go(&world, &back, None), 400, "credential_malformed");
    let own = victim.through_provider(&world, &issuer, "ada");
    refused(&victim.go(&world, &back, None), 400, "credential_malformed");
    assert_eq!(victim.session(), None);
    // State.
    let state = |url: &str| {
        let at = url.find("state=").unwrap() + 6;
        url[at..at + 43].to_owned()
    };
    let swapped = own.replace(&state(&own), &state(&back));
    refused(&victim.go(&world, &swapped, None), 400, "credential_malformed");
    let changed = own.replace(&state(&own), &"A".repeat(43));
    refused(&victim.go(&world, &changed, None), 400, "credential_malformed");
    let twice = format!("{own}&state={}", state(&own));
    refused(&victim.go(&world, &twice, None), 400, "path_invalid");
    let without = own.replace("state=", "stale=");
    refused(&victim.go(&world, &without, None), 400, "credential_malformed");
    // The right one passes, and only once.
    let browser_cookie = victim.cookie("__Host-gatehouse-login").unwrap().to_owned();
    assert_eq!(victim.go(&world, &own, None).status, 303);
    assert!(victim.session().is_some());
    victim.set_cookie("__Host-gatehouse-login", &browser_cookie);
    refused(&victim.go(&world, &own, None), 400, "credential_malformed");
}

#[test]
fn a_code_is_redeemed_once_by_its_own_sign_in_and_at_its_own_provider() {
    let provider = Provider::start(ada());
    let world = world(&[&provider]);
    let issuer = register(&world, &world.tenant("tenant-a"), &provider, json!({}));
    let part = |url: &str, name: &str| {
        let at = url.find(&format!("{name}=")).unwrap() + name.len() + 1;
        let rest = &url[at..];
        rest[..rest.find('&').unwrap_or(rest.len())].to_owned()
    };
    // A stolen code in another sign-in: PKCE's verifier is another.
    let mut one = Browser::default();
    let stolen = one.through_provider(&world, &issuer, "ada");
    let mut two = Browser::default();
    let own = two.through_provider(&world, &issuer, "ada");
    let injected = own.replace(&part(&own, "code"), &part(&stolen, "code"));
    refused(&two.go(&world, &injected, None), 400, "credential_malformed");
    // A sign-in that was tried is over, even with its own code.
    refused(&two.go(&world, &own, None), 400, "credential_malformed");
    // RFC 9207: another provider's answer, or none where the provider names itself.
    let mut three = Browser::default();
    let own = three.through_provider(&world, &issuer, "ada");
    let mixed = own.replace(&part(&own, "iss"), "https%3A%2F%2Fother.test");
    refused(&three.go(&world, &mixed, None), 400, "credential_malformed");
    let own = three.through_provider(&world, &issuer, "ada");
    let nameless = own.replace("iss=", "was=");
    refused(&three.go(&world, &nameless, None), 400, "credential_malformed");
    assert_eq!(three.session(), None);
    assert_eq!(three.sign_in(&world, &issuer, "ada").status, 303);
    // Used at another sign-in.
    let used = part(&own, "code");
    let own = three.through_provider(&world, &issuer, "ada");
    let again = own.replace(&part(&own, "code"), &used);
    refused(&three.go(&world, &again, None), 400, "credential_malformed");
}

#[test]
fn what_the_browser_brings_in_advance_is_no_session_afterwards() {
    let provider = Provider::start(ada());
    let world = world(&[&provider]);
    let issuer = register(&world, &world.tenant("tenant-a"), &provider, json!({}));
    let mut browser = Browser::default();
    let planted = "A".repeat(43);
    browser.set_cookie("__Host-gatehouse", &planted);
    assert_eq!(browser.sign_in(&world, &issuer, "ada").status, 303);
    let first = browser.session().unwrap().to_owned();
    assert_ne!(first, planted);
    let with = |value: &str| {
        let cookie = format!("__Host-gatehouse={value}");
        send("GET", &format!("{}{AGENTS}", world.service.url), &[("cookie", &cookie)], None)
    };
    refused(&with(&planted), 401, "token_invalid");
    assert_eq!(with(&first).status, 200);
    // Another id at every sign-in; the one before ends.
    assert_eq!(browser.sign_in(&world, &issuer, "ada").status, 303);
    let second = browser.session().unwrap().to_owned();
    assert_ne!(first, second);
    assert_eq!(with(&second).status, 200);
    refused(&with(&first), 401, "token_invalid");
    for bad in ["", "x", &format!("{second}A"), &second[1..]] {
        assert_eq!(code(&with(bad)).0, 401, "{bad}");
    }
    let cookie = format!("__Host-gatehouse={second}; __Host-gatehouse={second}");
    let url = format!("{}{AGENTS}", world.service.url);
    refused(&send("GET", &url, &[("cookie", &cookie)], None), 400, "credential_malformed");
}

#[test]
fn nobody_is_sent_elsewhere_and_unknown_issuers_are_not_there() {
    let provider = Provider::start(ada());
    let world = world(&[&provider]);
    let issuer = register(&world, &world.tenant("tenant-a"), &provider, json!({}));
    let begin = |query: &str| {
        send("GET", &format!("{}/oauth2/login?{query}", world.service.url), &[], None)
    };
    let good = begin(&format!("issuer={issuer}&return_to=/app%3Fa%3Db"));
    assert_eq!(good.status, 303, "{}", good.text);
    let place = good.header("location").unwrap();
    assert!(place.starts_with(&format!("{}/auth?response_type=code&", provider.issuer)), "{place}");
    assert!(place.contains("code_challenge_method=S256") && !place.contains("client_secret"));
    assert_eq!(good.header("referrer-policy"), Some("no-referrer"));
    for bad in ["//evil.test", "https://evil.test", "/%5Cevil.test", "evil", "/%09/evil.test"] {
        let answer = begin(&format!("issuer={issuer}&return_to={bad}"));
        refused(&answer, 400, "path_invalid");
    }
    refused(&begin("issuer=0191d6b0-7c3e-7aaa-8bbb-0123456789ab"), 404, "not_found");
    refused(&begin("issuer=x"), 404, "not_found");
    refused(&begin(""), 404, "not_found");
    refused(&begin(&format!("issuer={issuer}&issuer={issuer}")), 400, "path_invalid");
}
