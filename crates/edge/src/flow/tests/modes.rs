//! Documents that differ in how they judge: roles from claims, no record, shadow mode, a limit in the VM, and the
//! single module.

use super::*;
use crate::{Parts, Ruling};

fn from_claims(document: &mut Value) {
    let issuer = &mut document["issuers"][0];
    issuer["roles"] = json!({"claim": "/groups", "map": {"devs": "developer", "ops": "operator", "root": "admin"}});
    issuer["max_role"] = "developer".into();
    issuer["platform"] = false.into();
    issuer["tenants"] = json!([TENANT]);
}

fn without_record(document: &mut Value) {
    from_claims(document);
    document["sidecar"] = Value::Null;
    document["sessions"] = false.into();
    document["limiter"] = json!({"local": {"per_minute": 3}});
    document["issuers"][0]["jwks"] = json!({"inline": {"keys": [public_key("rsa")]}});
}

fn post(world: &mut World, groups: Value) -> End {
    world.send("POST", AGENTS, &[("authorization", &claiming("groups", Some(groups)))])
}

#[test]
fn roles_from_claims_are_mapped_and_capped_and_nothing_else_is_taken_from_the_token() {
    let mut world = World::with(from_claims).roles(&[Role::Admin], true);
    let end = post(&mut world, json!(["devs", "other"]));
    assert_eq!(end.upstream()["x-user-roles"], ["developer"]);
    assert_eq!(end.upstream()["x-tenant-tier"], ["pro"], "the record's");
    assert_eq!(post(&mut world, json!(["ops"])).verdict(), "403 permission_denied");
    assert_eq!(post(&mut world, json!(["root"])).verdict(), "403 permission_denied", "capped");
    assert_eq!(post(&mut world, json!("devs")).verdict(), "passed");
    let vouched = |call: &String| call.contains(r#""vouched":true"#);
    let mut world = World::with(from_claims);
    post(&mut world, json!(["devs"]));
    assert!(world.calls.iter().any(vouched), "{:?}", world.calls);
    world.changes.push(Change::Tenant { tenant: TENANT.parse().unwrap() });
    world.principal.1.suspended = true;
    assert_eq!(post(&mut world, json!(["devs"])).verdict(), "403 principal_inactive");
}

#[test]
fn an_issuer_vouches_for_nobody_where_the_record_says_for_whom_it_speaks() {
    for (tenants, vouched) in [(json!([TENANT]), true), (json!("from_record"), false)] {
        let mut world = World::with(|document| {
            from_claims(document);
            document["issuers"][0]["platform"] = false.into();
            document["issuers"][0]["tenants"] = tenants.clone();
        });
        post(&mut world, json!(["devs"]));
        let expected = format!(r#""vouched":{vouched}"#);
        assert!(world.calls.iter().any(|call| call.contains(&expected)), "{:?}", world.calls);
    }
}

#[test]
fn two_tokens_of_one_subject_keep_their_own_roles() {
    let mut world = World::with(from_claims);
    let (devs, ops) = (json!(["devs"]), json!(["ops"]));
    for _ in 0..2 {
        assert_eq!(post(&mut world, devs.clone()).upstream()["x-user-roles"], ["developer"]);
        assert_eq!(post(&mut world, ops.clone()).verdict(), "403 permission_denied");
    }
}

#[test]
fn j3_a_token_without_a_required_scope_is_told_which() {
    let mut world = World::with(|document| {
        document["issuers"][0]["required_scopes"] = json!(["gateway", "agents"]);
    });
    let with = |name: &str, scopes: Value| claiming(name, Some(scopes));
    for good in [
        with("scope", json!("agents other gateway")),
        with("scope", json!(["gateway", "agents"])),
        with("scp", json!(["gateway", "agents"])),
    ] {
        let end = world.send("GET", AGENTS, &[("authorization", &good)]);
        assert_eq!(end.verdict(), "passed");
    }
    for bad in [with("scope", json!("gateway")), with("scope", json!("agents gatewayx")), good()] {
        let end = world.send("GET", AGENTS, &[("authorization", &bad)]);
        assert_eq!(end.verdict(), "403 scope_insufficient");
        assert_eq!(
            end.header("www-authenticate"),
            Some(
                r#"Bearer realm="gatehouse", error="insufficient_scope", error_description="The access token lacks a scope", scope="gateway agents""#
            )
        );
    }
}

#[test]
fn without_a_record_the_token_says_all_but_tier_and_standing() {
    let mut world = World::with(without_record);
    let end = post(&mut world, json!(["devs"]));
    assert!(world.calls.is_empty(), "{:?}", world.calls);
    let upstream = end.upstream();
    assert_eq!(upstream["x-tenant-tier"], ["free"]);
    assert_eq!(upstream["x-user-id"], ["client-1"]);
    assert_eq!(post(&mut world, json!(["ops"])).verdict(), "403 permission_denied");
    world.now = NOW + Duration::from_secs(590);
    assert_eq!(post(&mut world, json!(["devs"])).verdict(), "passed", "nobody is silent");
    let end = world.send("GET", AGENTS, &[("x-api-key", "gk_")]);
    assert_eq!(end.verdict(), "401 credential_missing", "no keys without a record");
}

#[test]
fn r4_the_local_limit_counts_in_the_vm_and_says_so() {
    let mut world = World::with(without_record);
    let mut remaining = Vec::new();
    for _ in 0..3 {
        let end = post(&mut world, json!(["devs"]));
        let limit = end.record().limit.as_ref().unwrap();
        remaining.push((end.verdict(), limit.limit(), limit.remaining));
    }
    let passed = |left| ("passed".to_owned(), 3, left);
    assert_eq!(remaining, [passed(2), passed(1), passed(0)]);
    let end = post(&mut world, json!(["devs"]));
    assert_eq!(end.verdict(), "429 quota_exceeded");
    let retry_s: u64 = end.header("retry-after").unwrap().parse().unwrap();
    world.now += Duration::from_secs(retry_s);
    assert_eq!(post(&mut world, json!(["devs"])).verdict(), "passed", "R10");
    assert_eq!(post(&mut world, json!(["ops"])).verdict(), "403 permission_denied", "not charged");
}

#[test]
fn keys_in_the_document_verify_what_they_signed_and_no_other_issuers_tokens() {
    let mut world = World::with(without_record);
    assert_eq!(post(&mut world, json!(["devs"])).verdict(), "passed");
    let mut claims = claims();
    claims["groups"] = json!(["devs"]);
    let other = format!("Bearer {}", sign("ec", &claims));
    let end = world.send("POST", AGENTS, &[("authorization", &other)]);
    assert_eq!(end.verdict(), "401 token_invalid");
    assert!(world.calls.is_empty(), "nobody to ask: {:?}", world.calls);
}

#[test]
fn j7_a_secret_signs_for_its_issuer_alone() {
    let secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    let mut world = World::with(|document| {
        document["issuers"][0]["algorithms"] = json!(["HS256"]);
        document["issuers"][0]["secret"] = secret.into();
    });
    let key: gatehouse_authn::context::Key = secret.parse().unwrap();
    let signer = gatehouse_authn::context::Signer::new(AUDIENCE, key);
    let facts = gatehouse_authn::context::Facts {
        tenant: TENANT.parse().unwrap(),
        tier: Tier::Free,
        subject: "s".to_owned(),
        roles: Roles::NONE,
        method: gatehouse_contract::AuthMethod::Jwt,
        platform: false,
    };
    // A context is signed with HS256, too: of another type and without an issuer, it is no token.
    let context = format!("Bearer {}", signer.sign(&facts, NOW));
    let end = world.send("GET", AGENTS, &[("authorization", &context)]);
    assert_eq!(end.verdict(), "401 token_invalid");
    let end = world.send("GET", AGENTS, &[("authorization", &good())]);
    assert_eq!(end.verdict(), "401 token_invalid", "an RSA signature is none of HS256");
    assert!(world.calls.is_empty());
}

#[test]
fn in_shadow_mode_a_denial_is_noted_and_passes() {
    let mut world = World::with(|document| document["rbac"] = "shadow".into());
    world.principal.1.roles = Roles::NONE.with(Role::Viewer);
    let end = world.send("POST", AGENTS, &[("authorization", &good())]);
    assert_eq!(end.verdict(), "passed");
    let record = end.record();
    assert_eq!(record.shadowed.map(|reason| reason.code()), Some("permission_denied"));
    assert_eq!(record.decision.map(|decision| decision.ruling), Some(Ruling::NotHeld));
    let end = world.send("GET", AGENTS, &[("authorization", &good())]);
    assert_eq!(end.record().shadowed, None);
    // Only the matrix is in the shadow: who calls, for whom and where is judged as ever.
    assert_eq!(world.send("GET", AGENTS, &[]).verdict(), "401 credential_missing");
    let end = world.send("GET", "/api/v1/nope", &[("authorization", &good())]);
    assert_eq!(end.verdict(), "404 not_found");
}

#[test]
fn the_rule_that_decided_is_told() {
    let mut world = World::new().roles(&[Role::Viewer, Role::Admin], false);
    let end = world.send("POST", AGENTS, &[("authorization", &good())]);
    let decision = end.record().decision.unwrap();
    assert_eq!(decision.ruling, Ruling::Role(Role::Admin));
    let rule = world.suite.rule(decision).unwrap();
    assert_eq!((rule.template, rule.permission), (AGENTS, Some("agents:write")));
}

#[test]
fn the_single_module_tells_who_calls_and_leaves_versions_and_limits_to_others() {
    let mut document: Value = serde_json::from_str(DOCUMENT).unwrap();
    document["signatures"] = "portable".into();
    let members = document.as_object_mut().unwrap();
    members.remove("versions");
    members.remove("limiter");
    let mut world = World::new();
    (world.suite, _) = Suite::compile(&document.to_string(), Parts::Auth).unwrap();
    let end = world.send("GET", AGENTS, &[("authorization", &good()), ("x-tenant-id", "evil")]);
    assert_eq!(world.asked(), ["/v1/jwks", "/v1/principal"]);
    assert_eq!(end.upstream()["x-tenant-id"], [TENANT]);
    let handover: Value = serde_json::from_str(end.record().handover.as_ref().unwrap()).unwrap();
    assert_eq!(handover["tenant"], TENANT);
    assert_eq!(handover["roles"], json!(["developer"]));
    assert_eq!(end.record().version, None);
    let end = world.send("GET", "/api/v9/x", &[("authorization", &good())]);
    assert_eq!(end.verdict(), "404 not_found", "no version is unknown here, only the route");
    assert_eq!(world.send("POST", "/oauth2/token", &[]).record().handover, None);
    assert!(Suite::compile(&document.to_string(), Parts::Suite).is_err());
    document["host"] = "kong".into();
    document["sidecar"]["target"] = "127.0.0.1:9000".into();
    assert!(Suite::compile(&document.to_string(), Parts::Auth).is_err(), "Kong has no hand-over");
}
