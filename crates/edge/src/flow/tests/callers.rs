//! Tenants, principals and roles.

use super::*;

fn check(world: &mut World, method: &str, path: &str, expected: &str) {
    let end = world.send(method, path, &[("authorization", &good())]);
    assert_eq!(end.verdict(), expected, "{method} {path}");
}

fn check_token(world: &mut World, authorization: &str, expected: &str) {
    let end = world.send("GET", AGENTS, &[("authorization", authorization)]);
    assert_eq!(end.verdict(), expected);
    if expected.starts_with("403") {
        assert_eq!(end.header("www-authenticate"), None, "a 403 has no challenge (J3)");
        assert_eq!(end.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn j25_the_tenant_must_be_named_valid_and_active() {
    let mut world = World::new();
    check_token(&mut world, &good(), "passed");
    check_token(&mut world, &claiming("tenant_id", None), "403 tenant_missing");
    for bad in [json!("acme"), json!(7), json!(format!("{{{TENANT}}}")), json!([TENANT])] {
        check_token(&mut world, &claiming("tenant_id", Some(bad)), "403 tenant_invalid");
    }
    for status in TenantStatus::ALL {
        let mut world = World::new();
        world.principal.1.status = *status;
        let active = *status == TenantStatus::Active;
        let expected = if active { "passed" } else { "403 tenant_inactive" };
        check_token(&mut world, &good(), expected);
    }
}

#[test]
fn t6_a_subject_that_no_header_can_carry_is_refused() {
    let mut world = World::new();
    for bad in ["a\r\nx-tenant-id: b", "a\u{0}", "\u{e9}", "a b"] {
        check_token(&mut world, &claiming("sub", Some(bad.into())), "403 permission_denied");
    }
    check_token(&mut world, &claiming("sub", Some("user@acme.example".into())), "passed");
}

#[test]
fn t6_a_subject_of_the_record_that_no_header_can_carry_is_refused() {
    for (subject, expected) in [
        ("7d7c9c5e-4f62-4b4e-9d0e-6d1f4f3c0001", "passed"),
        ("a\r\nx-tenant-id: b", "403 permission_denied"),
        ("a b", "403 permission_denied"),
        ("", "403 permission_denied"),
    ] {
        let mut world = World::new();
        world.principal.1.subject = subject.to_owned();
        check_token(&mut world, &good(), expected);
    }
}

#[test]
fn j25_an_answer_of_the_record_for_another_tenant_is_none() {
    let mut world = World::new();
    world.principal.1.tenant = OTHER_TENANT.parse().unwrap();
    check_token(&mut world, &good(), "503 identity_unavailable");
    world.principal.1.tenant = TENANT.parse().unwrap();
    check_token(&mut world, &good(), "passed");
}

#[test]
fn an_issuer_speaks_for_its_own_tenants_only() {
    let listed =
        |tenants: Value| World::with(move |document| document["issuers"][0]["tenants"] = tenants);
    check_token(&mut listed(json!([TENANT])), &good(), "passed");
    check_token(&mut listed(json!([OTHER_TENANT])), &good(), "403 tenant_invalid");
    check_token(&mut listed(json!([])), &good(), "403 tenant_invalid");
    check_token(&mut listed(json!("from_record")), &good(), "passed");
    let mut unknown = listed(json!("from_record"));
    unknown.principal.0 = 404;
    check_token(&mut unknown, &good(), "403 tenant_invalid");
    assert_eq!(unknown.asked(), ["/v1/jwks", "/v1/principal"]);
}

#[test]
fn a_record_that_cannot_be_asked_is_503_and_is_not_remembered() {
    let mut world = World::new();
    world.away = vec!["/v1/principal"];
    check_token(&mut world, &good(), "503 identity_unavailable");
    world.away.clear();
    world.principal.0 = 500;
    check_token(&mut world, &good(), "503 identity_unavailable");
    world.principal.0 = 200;
    check_token(&mut world, &good(), "passed");
}

#[test]
fn roles_open_what_the_matrix_says_and_nothing_else() {
    let execution = "/api/v1/runtime/executions";
    for (role, read, create, run) in [
        (Role::Viewer, true, false, false),
        (Role::Operator, true, false, true),
        (Role::Developer, true, true, true),
        (Role::Admin, true, true, true),
    ] {
        for (method, path, allowed) in
            [("GET", AGENTS, read), ("POST", AGENTS, create), ("POST", execution, run)]
        {
            let mut world = World::new().roles(&[role], false);
            let expected = if allowed { "passed" } else { "403 permission_denied" };
            check(&mut world, method, path, expected);
            assert_eq!(world.asked().contains(&"/v1/lease"), allowed, "a denial is not charged");
        }
    }
    check(&mut World::new().roles(&[], false), "GET", AGENTS, "403 permission_denied");
}

#[test]
fn an_issuer_grants_no_role_above_its_highest() {
    let highest = |role: Option<&str>| {
        let role = role.map(str::to_owned);
        World::with(move |document| document["issuers"][0]["max_role"] = json!(role))
    };
    let both = [Role::Viewer, Role::Admin];
    check(&mut highest(Some("admin")).roles(&both, false), "POST", AGENTS, "passed");
    let mut world = highest(Some("operator")).roles(&both, false);
    check(&mut world, "POST", AGENTS, "403 permission_denied");
    check(&mut world, "GET", AGENTS, "passed");
    check(&mut highest(None).roles(&both, false), "GET", AGENTS, "403 permission_denied");
}

#[test]
fn platform_operations_need_the_membership_and_an_issuer_that_may_assert_it() {
    let tenants = "/api/v1/factory/tenants";
    let issuer = |platform: bool| {
        World::with(move |document| {
            document["issuers"][0]["platform"] = platform.into();
            document["issuers"][0]["tenants"] = "from_record".into();
        })
    };
    check(&mut issuer(true).roles(&[], true), "POST", tenants, "passed");
    check(&mut issuer(false).roles(&[], true), "POST", tenants, "403 permission_denied");
    let mut admin = issuer(true).roles(&[Role::Admin], false);
    check(&mut admin, "POST", tenants, "403 permission_denied");
}

#[test]
fn unknown_routes_and_methods_are_told_to_authenticated_callers_only() {
    let mut world = World::new();
    for nothing in ["/api/v1/nope", "/", "/internal/v1/principal", "/api/v1/registry/agents/"] {
        check(&mut world, "POST", nothing, "404 not_found");
        assert_eq!(world.send("POST", nothing, &[]).verdict(), "401 credential_missing");
    }
    for method in ["PATCH", "post", "OPTIONS"] {
        let end = world.send(method, AGENTS, &[("authorization", &good())]);
        assert_eq!(end.verdict(), "405 method_not_allowed", "{method}");
        assert_eq!(end.header("allow"), Some("GET, HEAD, POST"));
    }
    assert_eq!(world.send("PATCH", AGENTS, &[]).verdict(), "401 credential_missing");
    let end = world.send("GET", "/oauth2/token", &[]);
    assert_eq!(
        (end.verdict().as_str(), end.header("allow")),
        ("405 method_not_allowed", Some("POST"))
    );
}

#[test]
fn j33_head_is_get_without_a_body() {
    let mut world = World::new().roles(&[Role::Viewer], false);
    check(&mut world, "HEAD", AGENTS, "passed");
    assert!(world.calls.last().unwrap().contains(r#""method":"GET""#), "{:?}", world.calls);
}
