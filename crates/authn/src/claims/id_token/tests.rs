//! ID tokens: a good one with one thing replaced. Every token is really signed.

use super::*;
use crate::{Algorithm, KeySet, Portable, Refusal as R, jws, testing as t};

const NOW: u64 = 1_700_000_000;

fn claims(name: &str, value: &str) -> String {
    let mut members = vec![
        ("iss", r#""https://idp.example""#.to_owned()),
        ("aud", r#""us""#.to_owned()),
        ("sub", r#""ada""#.to_owned()),
        ("oid", r#""0a""#.to_owned()),
        ("iat", NOW.to_string()),
        ("exp", (NOW + 100).to_string()),
        ("nonce", r#""n-1""#.to_owned()),
    ];
    members.retain(|(known, _)| *known != name);
    if !value.is_empty() {
        members.push((name, value.to_owned()));
    }
    let members: Vec<_> =
        members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

fn judged(header: &str, claims: &str, subject: &str) -> Result<Identity, BadIdToken> {
    let token = t::sign(Algorithm::Es256, header, claims);
    let keys: KeySet = t::set(&[t::ec("{}")]);
    let token = jws::parse(token.as_bytes()).unwrap();
    let token = jws::verify_with(&token, &keys, Algorithm::ALL, &Portable).unwrap();
    let rules = IdRules {
        issuer: "https://idp.example".to_owned(),
        client_id: "us".to_owned(),
        nonce: "n-1".to_owned(),
        leeway: Duration::ZERO,
        subject_claim: subject.parse().unwrap(),
    };
    judge(&token, &rules, Duration::from_secs(NOW))
}

fn check(name: &str, value: &str, expected: Result<(), BadIdToken>) {
    let got = judged(r#"{"alg":"ES256"}"#, &claims(name, value), "/sub");
    assert_eq!(got.map(drop), expected, "{name} {value}");
}

#[test]
fn a_good_id_token_tells_who_signed_in() {
    let good = claims("", "");
    let subject = |pointer| judged(r#"{"alg":"ES256"}"#, &good, pointer).unwrap().subject;
    assert_eq!((subject("/sub"), subject("/oid")), ("ada".to_owned(), "0a".to_owned()));
    for (typ, expected) in [("JWT", true), ("jwt", true), ("at+jwt", false), ("logout+jwt", false)]
    {
        let got = judged(&format!(r#"{{"alg":"ES256","typ":"{typ}"}}"#), &good, "/sub");
        assert_eq!(got.is_ok(), expected, "{typ}");
    }
}

#[test]
fn an_id_token_of_another_issuer_party_time_or_sign_in_is_refused() {
    let refused = |refusal: R| Err(BadIdToken::Refused(refusal));
    check("iss", r#""https://idp.example/""#, refused(R::IssuerUnknown));
    check("aud", r#""them""#, refused(R::AudienceMismatch));
    check("aud", "", refused(R::AudienceMismatch));
    check("aud", r#"["us"]"#, Ok(()));
    check("aud", r#"["us","them"]"#, Err(BadIdToken::Party));
    check("azp", r#""us""#, Ok(()));
    check("azp", r#""them""#, Err(BadIdToken::Party));
    check("azp", "null", Err(BadIdToken::Party));
    check("exp", &(NOW + 1).to_string(), Ok(()));
    check("exp", &NOW.to_string(), refused(R::Expired));
    check("iat", &(NOW + 1).to_string(), refused(R::IssuedInFuture));
    check("iat", "", Err(BadIdToken::NoIssueTime));
    check("nonce", r#""n-2""#, Err(BadIdToken::Nonce));
    check("nonce", "", Err(BadIdToken::Nonce));
    check("nonce", "1", Err(BadIdToken::Nonce));
    check("sub", "", refused(R::SubjectMissing));
    check("cnf", "{}", refused(R::BindingUnsupported));
}
