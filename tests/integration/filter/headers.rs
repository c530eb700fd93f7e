//! Trust headers: whatever a client sends under our names is gone, in every spelling, on every path.

use gatehouse_contract::header;
use gatehouse_tests::vm::Headers;

use super::gate::{Gate, TENANT, forwarded, refusal, request, token};

/// What a client would call itself.
const EVIL: &str = "11111111-1111-4111-8111-111111111111";

/// Sends `extra` with a request; no value of the client's may reach the upstream.
fn check(public: bool, extra: &[(&str, &str)]) {
    let mut gate = Gate::open();
    let bearer = format!("Bearer {}", token());
    let mut headers = if public {
        request("GET", "/.well-known/jwks.json", None)
    } else {
        request("GET", "/api/v1/registry/agents", Some(&bearer))
    };
    headers.extend(extra);
    let upstream = forwarded(gate.send(&headers));
    for (name, value) in upstream.iter() {
        let text = String::from_utf8_lossy(value);
        assert!(!text.contains(EVIL), "{extra:?} left {}: {text}", String::from_utf8_lossy(name));
    }
    let ours: Vec<_> = upstream
        .iter()
        .filter(|(name, _)| header::spells(name, header::TENANT_ID))
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect();
    if public {
        assert_eq!(ours, [], "{extra:?}");
    } else {
        let expected = (header::TENANT_ID.as_bytes().to_vec(), TENANT.as_bytes().to_vec());
        assert_eq!(ours, [expected], "{extra:?}");
    }
}

#[test]
fn t2_no_spelling_of_an_identity_header_reaches_the_upstream() {
    for public in [false, true] {
        for name in [
            "X-Tenant-ID",
            "x-tenant-id",
            "x_tenant_id",
            "X-Tenant_ID",
            "X_Tenant-Id",
            "X-TENANT-ID",
            "x-gatehouse-context",
            "X_Gatehouse_Context",
            "x-user-id",
            "X-User-Roles",
            "x_user_roles",
            "x-tenant-tier",
            "X-Auth-Method",
        ] {
            check(public, &[(name, EVIL)]);
        }
        check(public, &[("x-tenant-id", EVIL), ("x_tenant_id", EVIL), ("x-tenant_id", EVIL)]);
        check(public, &[("baggage", &format!("tenant.id={EVIL}"))]);
        check(public, &[("baggage", &format!("a=1, tenant.id = {EVIL};p=2 ,b=2"))]);
        check(public, &[("x-tenant-id", "")]);
    }
}

#[test]
fn a_body_is_held_until_its_request_is_judged_and_for_ever_when_refused() {
    let mut gate = Gate::open();
    let bearer = format!("Bearer {}", token());
    let sent = request("POST", "/api/v1/registry/agents", Some(&bearer));
    let stream = gate.vm.request(Headers::new(sent), false).unwrap();
    assert!(!gate.vm.body(stream, 10, true).unwrap(), "the sidecar has not answered");
    forwarded(gate.finish(stream));
    assert!(gate.vm.body(stream, 10, true).unwrap());

    let sent = request("POST", "/api/v1/registry/agents", None);
    let refused = gate.vm.request(Headers::new(sent), false).unwrap();
    assert!(!gate.vm.body(refused, 10, true).unwrap(), "it was answered with 401");
}

#[test]
fn t5_protected_names_in_trailers_are_dropped() {
    let mut gate = Gate::open();
    let bearer = format!("Bearer {}", token());
    let headers = request("POST", "/api/v1/registry/agents", Some(&bearer));
    let stream = gate.vm.request(Headers::new(headers), false).unwrap();
    forwarded(gate.finish(stream));
    let sent = [("X-Tenant-ID", EVIL), ("x_user_roles", "admin"), ("checksum", "1")];
    let left = gate.vm.trailers(stream, Headers::new(sent)).unwrap();
    let left: Vec<_> = left.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
    assert_eq!(left, ["checksum"]);
}

#[test]
fn t10_other_members_of_the_baggage_stay() {
    let mut gate = Gate::open();
    let bearer = format!("Bearer {}", token());
    let mut headers = request("GET", "/api/v1/registry/agents", Some(&bearer));
    let baggage = format!("a=1,tenant.id={EVIL},b=2;p");
    headers.push(("baggage", &baggage));
    let upstream = forwarded(gate.send(&headers));
    let members: Vec<String> =
        upstream.all("baggage").join(",").split(',').map(|m| m.trim().to_owned()).collect();
    for member in ["a=1", "b=2;p", &format!("tenant.id={TENANT}")] {
        assert!(members.contains(&member.to_owned()), "{member} in {members:?}");
    }
    assert_eq!(members.len(), 3, "{members:?}");
}

#[test]
fn t4_connection_cannot_delete_what_we_set() {
    for value in ["X-Tenant-ID", "keep-alive, x_tenant_id", "close,X-User-Roles,Authorization"] {
        let mut gate = Gate::open();
        let bearer = format!("Bearer {}", token());
        let mut headers = request("GET", "/api/v1/registry/agents", Some(&bearer));
        headers.push(("connection", value));
        let upstream = forwarded(gate.send(&headers));
        let left = upstream.all("connection").concat().to_ascii_lowercase().replace('_', "-");
        for name in ["x-tenant-id", "x-user-roles", "authorization"] {
            assert!(!left.contains(name), "{value}: {left}");
        }
        assert_eq!(upstream.all("x-tenant-id"), [TENANT]);
    }
}

#[test]
fn j4_ambiguous_credentials_and_identities_are_400() {
    let bearer = format!("Bearer {}", token());
    let check = |extra: &[(&str, &str)], expected: &str| {
        let mut gate = Gate::open();
        let mut headers = request("GET", "/api/v1/registry/agents", Some(&bearer));
        headers.extend(extra);
        assert_eq!(refusal(gate.send(&headers)), expected, "{extra:?}");
        assert_eq!(gate.take_asked(), [""; 0]);
    };
    check(&[("authorization", &bearer)], "400 credential_malformed");
    check(&[("Authorization", "Basic eDp5")], "400 credential_malformed");
    let mut gate = Gate::open();
    let mut public = request("POST", "/oauth2/token", Some("Basic eDp5"));
    public.push(("authorization", "Basic eDp6"));
    assert_eq!(refusal(gate.send(&public)), "400 credential_malformed");
    check(&[("x-tenant-id", EVIL), ("x-tenant-id", EVIL)], "400 header_invalid");
    check(&[("x-request-id", "a"), ("x-request-id", "b")], "400 header_invalid");
    check(&[("x-http-method-override", "DELETE")], "400 header_invalid");
}

#[test]
fn x10_a_sound_request_id_is_kept_and_any_other_replaced() {
    for (sent, kept) in
        [("0191d6b0-7c3e-7aaa-8bbb-0123456789ab", true), ("a b", false), ("", false)]
    {
        let mut gate = Gate::open();
        let bearer = format!("Bearer {}", token());
        let mut headers = request("GET", "/api/v1/registry/agents", Some(&bearer));
        headers.push(("x-request-id", sent));
        let upstream = forwarded(gate.send(&headers));
        let got = upstream.one("x-request-id").unwrap();
        assert_eq!(got == sent, kept, "{sent:?} became {got:?}");
        assert!(got.len() >= 16, "{got:?}");
    }
}

#[test]
fn p1_what_we_judge_is_what_goes_on() {
    let bearer = format!("Bearer {}", token());
    for (sent, forwarded_path) in [
        ("/api/v1/registry/agents?a=%2F..", "/api/v1/registry/agents?a=%2F.."),
        ("/api/v1/registry/%61gents", "/api/v1/registry/agents"),
        ("/api/v1/./registry/x/../agents", "/api/v1/registry/agents"),
    ] {
        let mut gate = Gate::open();
        let standing = gate.send(&request("GET", sent, Some(&bearer)));
        match standing {
            gatehouse_tests::vm::Standing::Forwarded(upstream) => {
                assert_eq!(upstream.one(":path").as_deref(), Some(forwarded_path), "{sent}");
            }
            refused => assert_eq!(refusal(refused), "400 path_invalid", "{sent}"),
        }
    }
    for broken in
        ["/api/v1/registry%2fagents", "/api/v1/%00", "/api/v1\\registry", "/a/%c0%ae", "*", ""]
    {
        let mut gate = Gate::open();
        let standing = gate.send(&request("GET", broken, Some(&bearer)));
        assert_eq!(refusal(standing), "400 path_invalid", "{broken:?}");
    }
}
