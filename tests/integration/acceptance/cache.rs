//! J31: what a VM remembers of a token, and when it no longer does.

use std::time::{Duration, Instant};

use gatehouse_tests::{
    token::{Key, jwks},
    wait,
};
use serde_json::json;

use super::gate::{
    ALLOWED, Gate, ISSUER, Plan, SUBJECT, TENANT, claims, issuer, key, now_s, signed, token,
    with_claim,
};

const INVALID: &str = "401 token_invalid";
const AWAY: &str = "503 identity_unavailable";

#[test]
fn j31_a_verdict_is_remembered_for_its_whole_token_and_no_longer_than_it_lives() {
    let gate = Gate::document(issuer(&json!({"leeway_s": 0})));
    let short = with_claim("exp", json!(now_s() + 3));
    let good = token();
    for _ in 0..3 {
        assert_eq!(gate.judges(&good), ALLOWED);
        assert_eq!(gate.judges(&short), ALLOWED);
    }
    // A neighbour of a remembered token shares nothing with it.
    let (text, signature) = good.rsplit_once('.').unwrap();
    for at in [0, 1, signature.len() / 2, signature.len() - 2] {
        let mut bytes = signature.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let forged = format!("{text}.{}", String::from_utf8(bytes).unwrap());
        assert_eq!(gate.judges(&forged), INVALID, "at {at}");
    }
    let other = with_claim("sub", json!("somebody-else"));
    let (swapped, _) = other.rsplit_once('.').unwrap();
    assert_eq!(gate.judges(&format!("{swapped}.{signature}")), INVALID);
    assert_eq!(gate.judges(&good), ALLOWED);
    wait::until("the short token ends", Duration::from_secs(10), || {
        Ok((gate.judges(&short) == INVALID).then_some(()))
    })
    .unwrap();
    assert!(now_s() >= claims()["iat"].as_u64().unwrap());

    // Many tokens: the cache is bounded and what falls out is verified again.
    let begin = Instant::now();
    for n in 0..40 {
        let mut many = claims();
        many["jti"] = json!(format!("{n}"));
        assert_eq!(gate.judges(&signed(&many)), ALLOWED, "{n} after {:?}", begin.elapsed());
    }
    assert_eq!(gate.judges(&good), ALLOWED);

    // A key set without the key: what was verified by it ends with it.
    let next = Key::generate("key-2").unwrap();
    gate.publish(&jwks(&[&next]).unwrap());
    let rotated = next.jwt(&next.header(), &claims()).unwrap();
    wait::until("the new key is found", Duration::from_secs(45), || {
        Ok((gate.judges(&rotated) == ALLOWED).then_some(()))
    })
    .unwrap();
    assert_eq!(gate.judges(&good), INVALID);
    assert_eq!(gate.judges(&rotated), ALLOWED);
    gate.envoy.stat("wasm.suite.vm_reload_success").unwrap();
}

#[test]
fn j31_what_failed_in_passing_is_not_remembered() {
    let gate = Gate::open();
    let member = (TENANT.to_owned(), SUBJECT.to_owned());
    // Not known, then known: the refusal was not kept.
    let facts = gate.outside().members.remove(&member).unwrap();
    assert_eq!(gate.judges(&token()), "403 tenant_invalid");
    gate.outside().members.insert(member, facts);
    wait::until("the member is known", Duration::from_secs(20), || {
        Ok((gate.judges(&token()) == ALLOWED).then_some(()))
    })
    .unwrap();
    drop(gate);

    let keys = vec![(ISSUER.to_owned(), 503, json!({}))];
    let gate = Gate::with(Plan { keys, ..Plan::default() });
    assert_eq!(gate.judges(&token()), AWAY);
    gate.publish(&jwks(&[key()]).unwrap());
    wait::until("the keys are there", Duration::from_secs(45), || match gate.judges(&token()) {
        verdict if verdict == ALLOWED => Ok(Some(())),
        verdict if verdict == AWAY => Ok(None),
        verdict => panic!("{verdict}"),
    })
    .unwrap();
}
