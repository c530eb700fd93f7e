//! Claims one by one: a good token with one claim replaced, on both sides of each rule. Every token is really signed.

use super::*;
use crate::{Algorithm, KeySet, Portable, Refusal as R, jws, testing as t};

const TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
const NOW: u64 = 1_700_000_000;

fn rules() -> Rules {
    Rules {
        audiences: vec!["https://api.example".to_owned(), "other".to_owned()],
        leeway: Duration::ZERO,
        ..Rules::new("https://auth.example")
    }
}

/// A good set of claims in which `name` is `value`, or absent when that is empty.
fn claims(name: &str, value: &str) -> String {
    let mut members = vec![
        ("iss", r#""https://auth.example""#.to_owned()),
        ("aud", r#""https://api.example""#.to_owned()),
        ("sub", r#""client-1""#.to_owned()),
        ("exp", (NOW + 100).to_string()),
        ("tenant_id", format!(r#""{TENANT}""#)),
    ];
    members.retain(|(known, _)| *known != name);
    if !value.is_empty() {
        members.push((name, value.to_owned()));
    }
    let members: Vec<_> =
        members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

fn judged(header: &str, claims: &str, rules: &Rules) -> Result<Claims, R> {
    let token = t::sign(Algorithm::Es256, header, claims);
    let keys: KeySet = t::set(&[t::ec("{}")]);
    let token = jws::parse(token.as_bytes())?;
    let token = jws::verify_with(&token, &keys, Algorithm::ALL, &Portable)?;
    judge(&token, rules, Duration::from_secs(NOW))
}

fn check_with(rules: &Rules, header: &str, claims: &str, expected: Result<(), R>) {
    assert_eq!(judged(header, claims, rules).map(drop), expected, "{header} {claims}");
}

/// Replaces one claim of a good token and judges the result.
fn check(name: &str, value: &str, expected: Result<(), R>) {
    check_with(&rules(), r#"{"alg":"ES256"}"#, &claims(name, value), expected);
}

#[test]
fn a_good_token_tells_who_calls() {
    let got = judged(r#"{"alg":"ES256"}"#, &claims("jti", r#""t-1""#), &rules());
    assert_eq!(
        got,
        Ok(Claims {
            issuer: "https://auth.example".to_owned(),
            subject: "client-1".to_owned(),
            tenant: TENANT.parse().unwrap(),
            expires_at: Duration::from_secs(NOW + 100),
            issued_at: None,
            token_id: Some("t-1".to_owned()),
            roles: None,
            scopes: Scopes::default(),
        })
    );
}

#[test]
fn j20_expiry_is_required_and_exclusive() {
    check("exp", "", Err(R::ExpiryMissing));
    check("exp", &(NOW + 1).to_string(), Ok(()));
    check("exp", &NOW.to_string(), Err(R::Expired));
    check("exp", "1700000000.5", Ok(()));
    check("exp", "1700000000.0", Err(R::Expired));
    check("exp", "1.7000000001e9", Ok(()));
    check("exp", "0", Err(R::Expired));
    check("exp", &(1_u64 << 53).to_string(), Ok(()));
    for bad in [
        &((1_u64 << 53) + 1).to_string(),
        "18446744073709551615",
        "18446744073709551616",
        "1e16",
        "1e300",
        "-1",
        "-0.5",
        "\"1700000100\"",
        "null",
        "[]",
        "true",
    ] {
        check("exp", bad, Err(R::TimeInvalid));
    }
    check("exp", "1e400", Err(R::JsonInvalid));
}

#[test]
fn j20_not_before_and_issued_at_are_not_in_the_future() {
    for (name, refusal) in [("nbf", R::NotYetValid), ("iat", R::IssuedInFuture)] {
        check(name, &NOW.to_string(), Ok(()));
        check(name, "0", Ok(()));
        check(name, &(NOW + 1).to_string(), Err(refusal));
        check(name, "1700000000.25", Err(refusal));
        check(name, "\"0\"", Err(R::TimeInvalid));
        check(name, "-1", Err(R::TimeInvalid));
        check(name, "null", Err(R::TimeInvalid));
    }
}

#[test]
fn j20_leeway_counts_once_and_has_a_ceiling() {
    let header = r#"{"alg":"ES256"}"#;
    for (leeway, effective) in [(0, 0), (60, 60), (300, 300), (301, 300), (1_000_000, 300)] {
        let rules = Rules { leeway: Duration::from_secs(leeway), ..rules() };
        let at = |name, time: u64| claims(name, &time.to_string());
        check_with(&rules, header, &at("exp", NOW - effective + 1), Ok(()));
        check_with(&rules, header, &at("exp", NOW - effective), Err(R::Expired));
        check_with(&rules, header, &at("nbf", NOW + effective), Ok(()));
        check_with(&rules, header, &at("nbf", NOW + effective + 1), Err(R::NotYetValid));
        check_with(&rules, header, &at("iat", NOW + effective + 1), Err(R::IssuedInFuture));
    }
}

#[test]
fn j21_the_issuer_is_compared_byte_for_byte() {
    for bad in [
        "",
        r#""https://auth.example/""#,
        r#""https://AUTH.example""#,
        r#""https://auth.exampl""#,
        "null",
        r#"["https://auth.example"]"#,
    ] {
        check("iss", bad, Err(R::IssuerUnknown));
    }
    check("iss", r#""https:\/\/auth.example""#, Ok(()));
}

#[test]
fn j22_one_audience_must_match() {
    for good in [r#""other""#, r#"["x","other"]"#, r#"["https://api.example"]"#] {
        check("aud", good, Ok(()));
    }
    for bad in [
        "",
        r#""Other""#,
        r#""othe""#,
        r#""other/""#,
        r#""""#,
        "[]",
        r#"["x"]"#,
        "1",
        "null",
        "{}",
        r#"["other",1]"#,
        r#"[["other"]]"#,
    ] {
        check("aud", bad, Err(R::AudienceMismatch));
    }
    let open = Rules { audiences: Vec::new(), ..rules() };
    check_with(&open, r#"{"alg":"ES256"}"#, &claims("aud", ""), Ok(()));
}

#[test]
fn j23_other_kinds_of_tokens_are_refused() {
    let at_only = Rules { access_tokens_only: true, ..rules() };
    for (typ, by_default, at_mode) in [
        ("", true, false),
        ("JWT", true, false),
        ("application/jwt", true, false),
        ("at+jwt", true, true),
        ("application/AT+JWT", true, true),
        ("dpop+jwt", false, false),
        ("logout+jwt", false, false),
        ("secevent+jwt", false, false),
    ] {
        let header = match typ {
            "" => r#"{"alg":"ES256"}"#.to_owned(),
            typ => format!(r#"{{"alg":"ES256","typ":"{typ}"}}"#),
        };
        let verdict = |fits: bool| if fits { Ok(()) } else { Err(R::TypeNotAllowed) };
        check_with(&rules(), &header, &claims("", ""), verdict(by_default));
        check_with(&at_only, &header, &claims("", ""), verdict(at_mode));
    }
    for mark in ["nonce", "at_hash"] {
        let header = r#"{"alg":"ES256","typ":"at+jwt"}"#;
        check_with(&rules(), header, &claims(mark, "\"x\""), Ok(()));
        check_with(&at_only, header, &claims(mark, "\"x\""), Err(R::TypeNotAllowed));
    }
}

#[test]
fn t6_subjects_and_token_ids_fit_into_a_header() {
    let text = |len| format!("\"{}\"", "s".repeat(len));
    check("sub", &text(MAX_NAME_BYTES), Ok(()));
    check("sub", r#""auth0|a,b;c""#, Ok(()));
    for missing in ["", r#""""#, "null", "7", "[]"] {
        check("sub", missing, Err(R::SubjectMissing));
    }
    for bad in [
        &text(MAX_NAME_BYTES + 1),
        r#""a\r\nb""#,
        r#""a\u0000""#,
        r#""ä""#,
        r#"" a""#,
        r#""a\u007f""#,
    ] {
        check("sub", bad, Err(R::SubjectInvalid));
    }
    assert_eq!(R::SubjectInvalid.reason().status(), 403);
    check("jti", &text(MAX_NAME_BYTES), Ok(()));
    for bad in [&text(MAX_NAME_BYTES + 1), r#""""#, "1", "null", r#""a b""#] {
        check("jti", bad, Err(R::TokenIdInvalid));
    }
}

#[test]
fn j37_a_bound_token_is_not_taken_as_a_bearer() {
    for cnf in [r#"{"x5t#S256":"a"}"#, r#"{"jkt":"a"}"#, "{}", "null"] {
        check("cnf", cnf, Err(R::BindingUnsupported));
    }
}

#[test]
fn j25_the_tenant_is_present_and_canonical() {
    check("tenant_id", "", Err(R::TenantMissing));
    for bad in [
        "null",
        "7",
        r#""""#,
        r#""acme""#,
        r#""0191d6b07c3e7aaa8bbb0123456789ab""#,
        r#""0191d6b0-7c3e-7aaa-8bbb-0123456789ab ""#,
        r#""0191d6b0-7c3e-7aaa-8bbb-0123456789ab\r\nX: y""#,
        r#"["0191d6b0-7c3e-7aaa-8bbb-0123456789ab"]"#,
    ] {
        check("tenant_id", bad, Err(R::TenantInvalid));
    }
}

#[test]
fn a_pointer_finds_claims_with_any_name() {
    let value = format!(r#""{TENANT}""#);
    for (pointer, name, value, expected) in [
        ("/tenant_id", "tenant_id", value.clone(), Ok(())),
        ("/org/tenant", "org", format!(r#"{{"tenant":{value}}}"#), Ok(())),
        ("/https:~1~1x.example~1t.id", "https://x.example/t.id", value.clone(), Ok(())),
        ("/a~0b", "a~b", value.clone(), Ok(())),
        ("/a~01", "a~1", value.clone(), Ok(())),
        ("/", "", value.clone(), Ok(())),
        ("/org/other", "org", format!(r#"{{"tenant":{value}}}"#), Err(R::TenantMissing)),
        ("/org/0", "org", format!("[{value}]"), Err(R::TenantMissing)),
        ("/org", "org", format!(r#"{{"tenant":{value}}}"#), Err(R::TenantInvalid)),
    ] {
        let rules = Rules { tenant_claim: pointer.parse().unwrap(), ..rules() };
        let claims = format!(
            r#"{{"iss":"https://auth.example","aud":"other","sub":"s","exp":1700000100,"{name}":{value}}}"#
        );
        check_with(&rules, r#"{"alg":"ES256"}"#, &claims, expected);
    }
    for bad in ["", "tenant_id", "/a~", "/a~2", "/~ä"] {
        assert_eq!(bad.parse::<Pointer>(), Err(NotAPointer), "{bad:?}");
    }
}
