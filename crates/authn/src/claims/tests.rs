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
            issuer: "https://auth.example".into(),
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
        ("application/dpop+jwt", false, false),
        // As long as the prefix that may be there.
        ("certificate/at+jwt", false, false),
        ("certificate/jwt", false, false),
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

const HEADER: &str = r#"{"alg":"ES256"}"#;

/// Good claims with `more` members (each with a comma in front).
fn claims_and(more: &str) -> String {
    let claims = claims("", "");
    format!("{}{more}}}", claims.strip_suffix('}').unwrap())
}

#[test]
fn j20_a_longest_lifetime_is_held_from_iat_to_exp() {
    let longest = |seconds| Rules {
        max_lifetime: Some(Duration::from_secs(seconds)),
        leeway: Duration::from_secs(60),
        ..rules()
    };
    let issued = |at: &str| claims_and(&format!(r#","iat":{at}"#));
    check_with(&longest(100), HEADER, &issued("1700000000"), Ok(()));
    check_with(&longest(99), HEADER, &issued("1700000000"), Err(R::LifetimeTooLong));
    check_with(&longest(100), HEADER, &issued("1699999999.5"), Err(R::LifetimeTooLong));
    check_with(&longest(100), HEADER, &claims_and(""), Err(R::IssueTimeMissing));
    check_with(&rules(), HEADER, &claims_and(""), Ok(()));
    check_with(&rules(), HEADER, &issued("1"), Ok(()));
    // Issued after it expires, within the leeway: odd, but short.
    let odd = claims("exp", "1699999990").replace('}', r#","iat":1700000000}"#);
    check_with(&longest(1), HEADER, &odd, Ok(()));
    let told = judged(HEADER, &issued("1699999999.25"), &rules()).unwrap();
    assert_eq!(told.issued_at, Some(Duration::from_millis(1_699_999_999_250)));
}

#[test]
fn j24_the_subject_stands_where_the_rules_say() {
    let by = |pointer: &str| Rules { subject_claim: pointer.parse().unwrap(), ..rules() };
    let subject = |rules: &Rules, more: &str| {
        judged(HEADER, &claims_and(more), rules).map(|claims| claims.subject)
    };
    assert_eq!(subject(&rules(), r#","oid":"o-1""#), Ok("client-1".to_owned()));
    assert_eq!(subject(&by("/oid"), r#","oid":"o-1""#), Ok("o-1".to_owned()));
    let url = by("/https:~1~1x.example~1user.id");
    assert_eq!(subject(&url, r#","https://x.example/user.id":"u""#), Ok("u".to_owned()));
    assert_eq!(subject(&by("/oid"), ""), Err(R::SubjectMissing));
    assert_eq!(subject(&by("/oid"), r#","oid":["o-1"]"#), Err(R::SubjectMissing));
    assert_eq!(subject(&by("/oid"), r#","oid":"a b""#), Err(R::SubjectInvalid));
}

#[test]
fn j24_roles_are_mapped_from_groups_by_their_whole_names() {
    let map = [("ops", Role::Operator), ("/dev.team", Role::Developer), ("a,b", Role::Admin)];
    let map = map.map(|(group, role)| (group.to_owned(), role)).into();
    let claim: Pointer = "/https:~1~1x.example~1groups".parse().unwrap();
    let mapped = Rules { roles: Some(RolesClaim { claim, map }), ..rules() };
    let roles = |rules: &Rules, groups: &str| {
        let groups = match groups {
            "" => String::new(),
            groups => format!(r#","https://x.example/groups":{groups}"#),
        };
        let judged = judged(HEADER, &claims_and(&groups), rules)?;
        Ok(judged.roles.map(|roles| roles.to_string()))
    };
    let given = |roles: &str| Ok(Some(roles.to_owned()));
    assert_eq!(roles(&mapped, r#"["ops","/dev.team","other"]"#), given("operator,developer"));
    assert_eq!(roles(&mapped, r#""ops""#), given("operator"));
    // Per value, never on a joined string (acceptance T7).
    assert_eq!(roles(&mapped, r#"["a","b"]"#), given(""));
    assert_eq!(roles(&mapped, r#"["ops,/dev.team"]"#), given(""));
    for none in ["", "[]", r#""""#, r#""Ops""#, r#""admin""#, r#"["viewer"]"#, r#"["op","s"]"#] {
        assert_eq!(roles(&mapped, none), given(""), "{none}");
    }
    for bad in ["1", "null", "{}", r#"["ops",1]"#, r#"[["ops"]]"#, r#"{"ops":true}"#] {
        assert_eq!(roles(&mapped, bad), Err(R::RolesInvalid), "{bad}");
        assert_eq!(roles(&rules(), bad), Ok(None), "{bad}");
    }
    assert_eq!(R::RolesInvalid.reason().status(), 403);
}

#[test]
fn j24_scopes_are_a_string_or_a_list_in_scope_or_scp() {
    let scopes = |more: &str| {
        judged(HEADER, &claims_and(more), &rules())
            .map(|claims| claims.scopes.iter().map(str::to_owned).collect::<Vec<_>>().join("|"))
    };
    let given = |scopes: &str| Ok(scopes.to_owned());
    assert_eq!(scopes(""), given(""));
    assert_eq!(scopes(r#","scope":"a b:c""#), given("a|b:c"));
    assert_eq!(scopes(r#","scope":" a  b ""#), given("a|b"));
    assert_eq!(scopes(r#","scope":["a","b:c"]"#), given("a|b:c"));
    assert_eq!(scopes(r#","scp":["a"]"#), given("a"));
    assert_eq!(scopes(r#","scp":"a b""#), given("a|b"));
    assert_eq!(scopes(r#","scope":"a","scp":"b""#), given("a"));
    assert_eq!(scopes(r#","scope":"","scp":"b""#), given(""));
    for bad in
        ["1", "null", "{}", "[1]", r#"["a b"]"#, r#""a\tb""#, r#""\"""#, r#""a\\""#, r#""ä""#]
    {
        assert_eq!(scopes(&format!(r#","scope":{bad}"#)), Err(R::ScopeInvalid), "{bad}");
    }
    let elsewhere = Rules { scope_claim: Some(Pointer::to("perms")), ..rules() };
    let claims = judged(HEADER, &claims_and(r#","perms":["x"],"scope":"y""#), &elsewhere).unwrap();
    assert_eq!(claims.scopes.to_string(), "x");
    assert!(claims.scopes.has("x") && !claims.scopes.has("y") && !claims.scopes.has(""));
}

#[test]
fn j3_a_required_scope_that_is_missing_is_403() {
    let needs = |scopes: &[&str]| Rules {
        required_scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        ..rules()
    };
    let scope = |scopes: &str| claims_and(&format!(r#","scope":"{scopes}""#));
    check_with(&needs(&["read"]), HEADER, &scope("write read"), Ok(()));
    check_with(&needs(&["read", "write"]), HEADER, &scope("write read"), Ok(()));
    check_with(&needs(&[]), HEADER, &claims_and(""), Ok(()));
    let refused = Err(R::ScopeInsufficient);
    check_with(&needs(&["read", "admin"]), HEADER, &scope("write read"), refused);
    for near in ["", "Read", "reader", "rea", "read:all"] {
        check_with(&needs(&["read"]), HEADER, &scope(near), refused);
    }
    check_with(&needs(&["read"]), HEADER, &claims_and(""), refused);
    // A token that is not good for other reasons says so instead.
    let expired = claims("exp", &NOW.to_string());
    check_with(&needs(&["read"]), HEADER, &expired, Err(R::Expired));
    assert_eq!(R::ScopeInsufficient.reason().status(), 403);
}

#[test]
fn a_token_with_an_id_has_a_mark_and_another_has_none() {
    let with_id = judged(HEADER, &claims("jti", r#""t-1""#), &rules()).unwrap();
    assert_eq!(with_id.mark(), Some(revocation::mark("https://auth.example", "t-1")));
    assert_eq!(judged(HEADER, &claims("", ""), &rules()).unwrap().mark(), None);
}
