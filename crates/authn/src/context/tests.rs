//! Contexts: what was signed is what is read, and nothing else is.

use super::*;
use crate::testing as t;

const NOW: Duration = Duration::from_secs(1_700_000_000);

fn key(byte: u8) -> Key {
    t::encode([byte; 32]).parse().unwrap()
}

fn facts() -> Facts {
    Facts {
        tenant: "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap(),
        tier: Tier::Pro,
        subject: "user-1".to_owned(),
        roles: [Role::Viewer, Role::Developer].into_iter().collect(),
        method: AuthMethod::ApiKey,
        platform: false,
    }
}

fn reader() -> Reader {
    Reader::new("control-api", &key(1), None)
}

/// Signs `payload` under `header` with the live key, and reads the result.
fn check(header: &str, payload: &str, expected: Result<Facts, Refused>) {
    let signed = format!("{}.{}", t::encode(header), t::encode(payload));
    let mac = t::hmac(Algorithm::Hs256, &[1; 32], signed.as_bytes());
    let context = format!("{signed}.{}", t::encode(mac));
    assert_eq!(reader().read(context.as_bytes(), NOW), expected, "{header} {payload}");
}

/// A good payload in which the member `name` is `value`, or absent when that is empty.
fn payload(name: &str, value: &str) -> String {
    let members = [
        ("aud", r#""control-api""#),
        ("iat", "1700000000"),
        ("exp", "1700000060"),
        ("tenant_id", r#""0191d6b0-7c3e-7aaa-8bbb-0123456789ab""#),
        ("tier", r#""pro""#),
        ("sub", r#""user-1""#),
        ("roles", r#"["viewer","developer"]"#),
        ("method", r#""api_key""#),
        ("platform", "false"),
    ];
    let members: Vec<_> = members
        .into_iter()
        .map(|(known, good)| (known, if known == name { value } else { good }))
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

#[test]
fn t9_what_was_signed_is_read_by_its_upstream_alone() {
    let context = Signer::new("control-api", key(1)).sign(&facts(), NOW);
    assert!(context.bytes().all(|byte| byte.is_ascii_graphic()));
    assert_eq!(reader().read(context.as_bytes(), NOW), Ok(facts()));
    for method in [AuthMethod::Jwt, AuthMethod::Session] {
        let platform = Facts { method, platform: true, roles: Roles::NONE, ..facts() };
        let context = Signer::new("control-api", key(1)).sign(&platform, NOW);
        assert_eq!(reader().read(context.as_bytes(), NOW), Ok(platform));
    }
    let other = Reader::new("worker", &key(1), None);
    assert_eq!(other.read(context.as_bytes(), NOW), Err(Refused::Audience));
    let other = Reader::new("control-api", &key(2), None);
    assert_eq!(other.read(context.as_bytes(), NOW), Err(Refused::Signature));
    for at in 0..context.len() {
        let mut changed = context.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(reader().read(&changed, NOW), Err(Refused::Signature), "{at}");
    }
}

#[test]
fn the_wire_form_is_this() {
    let context = Signer::new("control-api", key(1)).sign(&facts(), NOW);
    let parts: Vec<_> =
        context.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
    assert_eq!(parts[0], HEADER.as_bytes());
    assert_eq!(String::from_utf8_lossy(&parts[1]), payload("", ""));
    assert_eq!(parts.len(), 3);
}

#[test]
fn a_context_lives_for_a_minute() {
    let context = Signer::new("control-api", key(1)).sign(&facts(), NOW);
    let at = |now: Duration| reader().read(context.as_bytes(), now).map(drop);
    let second = Duration::from_secs(1);
    assert_eq!(at(NOW - LEEWAY), Ok(()));
    assert_eq!(at(NOW - LEEWAY - second), Err(Refused::Time));
    assert_eq!(at(NOW + LIFETIME + LEEWAY - second), Ok(()));
    assert_eq!(at(NOW + LIFETIME + LEEWAY), Err(Refused::Time));
    // Nobody can stretch it, not even with the key.
    check(HEADER, &payload("exp", "1700009999"), Ok(facts()));
    let long = payload("iat", "1699999900").replace("1700000060", "1700009999");
    check(HEADER, &long, Err(Refused::Time));
    check(HEADER, &payload("exp", "1699999995"), Err(Refused::Time));
}

#[test]
fn while_keys_rotate_two_are_live() {
    let context = Signer::new("control-api", key(1)).sign(&facts(), NOW);
    let read = |current: u8, previous: Option<u8>| {
        let previous = previous.map(key);
        Reader::new("control-api", &key(current), previous.as_ref())
            .read(context.as_bytes(), NOW)
            .map(drop)
    };
    assert_eq!(read(1, None), Ok(()));
    assert_eq!(read(2, Some(1)), Ok(()));
    assert_eq!(read(1, Some(2)), Ok(()));
    assert_eq!(read(2, Some(3)), Err(Refused::Signature));
    assert_eq!(read(2, None), Err(Refused::Signature));
}

#[test]
fn other_tokens_under_the_same_key_are_no_context() {
    check(HEADER, &payload("", ""), Ok(facts()));
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","typ":"JWT"}"#] {
        check(header, &payload("", ""), Err(Refused::Content));
    }
    check(
        r#"{"alg":"none","typ":"gatehouse-context+jwt"}"#,
        &payload("", ""),
        Err(Refused::Signature),
    );
    let names = ["aud", "iat", "exp", "tenant_id", "tier", "sub", "roles", "method", "platform"];
    for name in names {
        for bad in ["", "null", "{}", "1.5"] {
            check(HEADER, &payload(name, bad), Err(Refused::Content));
        }
    }
    for (name, bad) in [
        ("tenant_id", r#""acme""#),
        ("tier", r#""gold""#),
        ("roles", r#"["owner"]"#),
        ("roles", r#"["viewer",1]"#),
        ("roles", r#""viewer""#),
        ("method", r#""mtls""#),
        ("platform", "1"),
    ] {
        check(HEADER, &payload(name, bad), Err(Refused::Content));
    }
    check(HEADER, "[]", Err(Refused::Content));
    check(HEADER, r#"{"aud":"control-api","aud":"control-api"}"#, Err(Refused::Content));
}

#[test]
fn a_weak_or_broken_key_is_refused_and_none_is_shown() {
    assert_eq!(format!("{:?}", key(1)), "Key(…)");
    for good in [32, 256] {
        assert!(t::encode(vec![7; good]).parse::<Key>().is_ok());
    }
    assert!(format!("{}\n", t::encode([7; 32])).parse::<Key>().is_ok());
    for bad in [&t::encode([7; 31]), &t::encode([7; 257]), "", &"+".repeat(43), &"A".repeat(45)] {
        assert_eq!(bad.parse::<Key>().map(drop), Err(NotAKey), "{bad}");
    }
}
