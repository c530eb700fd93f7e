//! Exports that were tampered with, each in one way. The key is a test key of `crates/authn`.

use gatehouse_authn::KeySet;
use gatehouse_contract::TenantId;
use rsa::{
    BigUint, RsaPrivateKey,
    pkcs1v15::SigningKey,
    sha2::Sha256,
    signature::{SignatureEncoding as _, Signer as _},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

const RSA: &str = include_str!("../../../authn/testdata/rsa.private.jwk.json");
const OTHER: &str = include_str!("../../../authn/testdata/rsa3072.private.jwk.json");

fn jwk(private: &str) -> Value {
    serde_json::from_str(private).unwrap()
}

/// Under the same id: a forger would use it.
fn keys(private: &str) -> KeySet {
    let jwk = jwk(private);
    let public =
        json!({"keys": [{"kty": "RSA", "alg": "RS256", "kid": "k", "n": jwk["n"], "e": jwk["e"]}]});
    KeySet::parse(public.to_string().as_bytes()).unwrap()
}

fn sign(private: &str, typ: &str, payload: &impl serde::Serialize) -> String {
    let jwk = jwk(private);
    let number = |name: &str| {
        BigUint::from_bytes_be(&URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap())
    };
    let key = RsaPrivateKey::from_components(
        number("n"),
        number("e"),
        number("d"),
        vec![number("p"), number("q")],
    )
    .unwrap();
    let part = |value: String| URL_SAFE_NO_PAD.encode(value);
    let header = json!({"alg": "RS256", "kid": "k", "typ": typ}).to_string();
    let signed = format!("{}.{}", part(header), part(serde_json::to_string(payload).unwrap()));
    let signature = SigningKey::<Sha256>::new(key).sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

fn tenant(n: u128) -> TenantId {
    TenantId::new(Uuid::from_u128(n))
}

fn details(id: u64) -> (Value, Digest) {
    (
        json!({"new": {"email": format!("{id}@example.com")}}),
        Digest::new([u8::try_from(id).unwrap(); 32]),
    )
}

fn row(of: TenantId, id: u64) -> Row {
    let (values, salt) = details(id);
    Row {
        action: "user.create".to_owned(),
        at: format!("2026-01-01T00:00:0{}Z", id % 10),
        commitment: Some(commit(&salt, &values)),
        id,
        reason: None,
        request_id: format!("r{id}"),
        subject: "s".to_owned(),
        subject_kind: Some("user".to_owned()),
        target_id: id.to_string(),
        target_kind: "user".to_owned(),
        tenant: of,
    }
}

/// Seals of the rows named, signed.
fn chain(of: TenantId, seals: &[&[u64]]) -> Vec<Line> {
    let mut lines = vec![Line::Start { version: VERSION, tenant: of, begin: None }];
    let (mut prev, mut total, mut last) = (Digest::ZERO, 0, None);
    for (seq, ids) in (1..).zip(seals) {
        let rows: Vec<Row> = ids.iter().map(|id| row(of, *id)).collect();
        total += u64::try_from(rows.len()).unwrap();
        let sealed = rows.iter().map(|row| (row.id, row.hash())).collect();
        let seal = Seal { prev, rows: sealed, sealed_at: 100 + seq, seq, tenant: of, total };
        prev = seal.hash();
        let head = sign(RSA, HEAD_TYPE, &seal.head("https://auth.example"));
        for row in rows {
            let (values, salt) = details(row.id);
            lines.push(Line::Row { row: Box::new(row), details: Some(values), salt: Some(salt) });
        }
        last = Some(head.clone());
        lines.push(Line::Seal { seal, head });
    }
    let seals = u64::try_from(seals.len()).unwrap();
    lines.push(Line::End { seals, rows: total, waiting: 0, head: last, kid: Some("k".to_owned()) });
    lines
}

fn good() -> Vec<Line> {
    chain(tenant(1), &[&[3, 1, 4], &[5, 9], &[]])
}

fn verify_with(lines: &[Line], kept: Option<Head>) -> Result<Verified, Broken> {
    let keys = keys(RSA);
    let mut verifier = Verifier::new(&keys, kept);
    for line in lines {
        verifier.line(&serde_json::to_string(line).unwrap())?;
    }
    verifier.finish()
}

fn refused(lines: &[Line]) -> String {
    verify_with(lines, None).expect_err("it must be refused").to_string()
}

/// The place of a row's line.
fn at(lines: &[Line], id: u64) -> usize {
    lines.iter().position(|line| matches!(line, Line::Row { row, .. } if row.id == id)).unwrap()
}

#[test]
fn an_export_as_it_was_made_verifies_with_and_without_its_values() {
    let lines = good();
    let shown = verify_with(&lines, None).unwrap();
    assert_eq!((shown.rows, shown.seals, shown.waiting), (5, 3, 0));
    assert_eq!(shown.head.unwrap().seq, 3);
    let erased: Vec<Line> = lines
        .into_iter()
        .map(|line| match line {
            Line::Row { row, .. } => Line::Row { row, details: None, salt: None },
            line => line,
        })
        .collect();
    verify_with(&erased, None).unwrap();
    let empty = verify_with(&chain(tenant(1), &[]), None).unwrap();
    assert_eq!((empty.rows, empty.head), (0, None));
}

#[test]
fn mtd5_a_changed_row_is_named() {
    for change in [
        (|row: &mut Row| row.action = "user.delete".to_owned()) as fn(&mut Row),
        |row| row.subject = "somebody".to_owned(),
        |row| row.subject_kind = None,
        |row| row.at = "2026-01-01T00:00:00Z".to_owned(),
        |row| row.reason = Some("because".to_owned()),
        |row| row.request_id.push('x'),
        |row| row.target_id.push('x'),
        |row| row.target_kind.push('x'),
    ] {
        let mut lines = good();
        let place = at(&lines, 1);
        let Line::Row { row, .. } = &mut lines[place] else { panic!() };
        change(row);
        assert_eq!(refused(&lines), "row 1 was changed");
    }
}

#[test]
fn mtd5_changed_values_are_named_and_cannot_be_swapped_in() {
    let mut lines = good();
    let place = at(&lines, 9);
    let Line::Row { details, .. } = &mut lines[place] else { panic!() };
    *details = Some(json!({"new": {"email": "other@example.com"}}));
    assert_eq!(refused(&lines), "row 9 is not what was sealed: its values were changed");
    // A commitment that fits the new values is another row.
    let Line::Row { row, details, salt } = &mut lines[place] else { panic!() };
    row.commitment = Some(commit(&salt.unwrap(), details.as_ref().unwrap()));
    assert_eq!(refused(&lines), "row 9 was changed");
    let Line::Row { row, .. } = &mut lines[place] else { panic!() };
    row.commitment = None;
    assert!(refused(&lines).contains("row 9"));
}

#[test]
fn mtd5_a_removed_added_or_moved_row_is_named() {
    let mut lines = good();
    lines.remove(at(&lines, 3));
    assert_eq!(refused(&lines), "row 3 is missing: it was sealed by seal 1");
    let mut lines = good();
    lines.remove(at(&lines, 4));
    assert_eq!(refused(&lines), "row 4 is missing: it was sealed by seal 1");
    let mut lines = good();
    let added = Line::Row { row: Box::new(row(tenant(1), 6)), details: None, salt: None };
    lines.insert(at(&lines, 9), added);
    assert_eq!(refused(&lines), "row 6 was added: seal 2 does not know it");
    let mut lines = good();
    let (one, four) = (at(&lines, 1), at(&lines, 4));
    lines.swap(one, four);
    assert_eq!(refused(&lines), "row 4 is not in its place");
    // From one seal into the other.
    let mut lines = good();
    let four = lines.remove(at(&lines, 4));
    lines.insert(at(&lines, 5), four);
    assert!(refused(&lines).contains("row 4"));
    let mut lines = good();
    let other = Line::Row { row: Box::new(row(tenant(2), 6)), details: None, salt: None };
    lines.insert(at(&lines, 9), other);
    assert!(refused(&lines).starts_with("row 6 is of tenant"));
}

#[test]
fn mtd5_a_seal_that_was_made_to_fit_breaks_its_head() {
    // The row and its seal say the same, and the seal behind follows: only the signatures do not.
    let forged = chain(tenant(1), &[&[3, 2, 4], &[5, 9], &[]]);
    let mut lines = good();
    for (line, other) in lines.iter_mut().zip(forged) {
        match (line, other) {
            (Line::Seal { seal, .. }, Line::Seal { seal: other, .. }) => *seal = other,
            (line @ Line::Row { .. }, other) => *line = other,
            _ => {}
        }
    }
    assert_eq!(
        refused(&lines),
        "the head of seal 1 is not good: it says something else of the seal"
    );
}

#[test]
fn mtd5_a_cut_tail_is_seen() {
    let whole = good();
    for keep in 1..whole.len() {
        assert_eq!(refused(&whole[..keep]), Broken::CutOff.to_string(), "{keep} lines");
    }
    // The last seals are gone and the end stays.
    let mut lines = good();
    let end = lines.pop().unwrap();
    while !matches!(lines.last(), Some(Line::Seal { seal, .. }) if seal.seq == 1) {
        lines.pop();
    }
    lines.push(end);
    assert!(refused(&lines).contains("the tail is cut off"), "{}", refused(&lines));
    let Some(Line::End { seals, rows, .. }) = lines.last_mut() else { panic!() };
    (*seals, *rows) = (1, 3);
    assert_eq!(
        refused(&lines),
        "the signed head is of seal 3, and the last seal is 1: the tail is cut off"
    );
    // Everything was rolled back to an older head: whoever kept a newer one sees it.
    let older = chain(tenant(1), &[&[3, 1, 4]]);
    verify_with(&older, None).unwrap();
    let kept = verify_with(&good(), None).unwrap().head.unwrap();
    assert_eq!(verify_with(&older, Some(kept.clone())).unwrap_err(), Broken::Kept(3));
    verify_with(&good(), Some(kept)).unwrap();
    let of_older = verify_with(&older, None).unwrap().head.unwrap();
    verify_with(&good(), Some(of_older.clone())).unwrap();
    let rewritten = chain(tenant(1), &[&[3, 1], &[5]]);
    assert_eq!(verify_with(&rewritten, Some(of_older)).unwrap_err(), Broken::Kept(1));
    let mut lines = good();
    lines.remove(at(&lines, 5) - 1);
    assert_eq!(refused(&lines), "seal 2 stands where seal 1 belongs");
}

#[test]
fn mtd5_a_forged_or_foreign_head_is_refused() {
    let forge = |head: String| {
        let mut lines = good();
        let Some(Line::End { head: last, .. }) = lines.last_mut() else { panic!() };
        *last = Some(head);
        refused(&lines)
    };
    let Some(Line::Seal { seal, head }) = good().into_iter().rev().nth(1) else { panic!() };
    let says = seal.head("https://auth.example");
    assert!(forge(sign(OTHER, HEAD_TYPE, &says)).starts_with("the head of seal 3 is not good"));
    assert_eq!(
        forge(sign(RSA, "at+jwt", &says)),
        "the head of seal 3 is not good: it is no audit head"
    );
    let other = Head { tenant: tenant(2), ..says.clone() };
    assert_eq!(
        forge(sign(RSA, HEAD_TYPE, &other)),
        "the head of seal 3 is not good: it is another tenant's"
    );
    for other in [Head { hash: Digest::ZERO, ..says.clone() }, Head { total: 4, ..says }] {
        assert_eq!(
            forge(sign(RSA, HEAD_TYPE, &other)),
            "the head of seal 3 is not good: it says something else of the seal"
        );
    }
    let mut changed = head;
    changed.pop();
    assert!(forge(changed).starts_with("the head of seal 3 is not good"));
    // A whole export of another tenant under this one's name.
    let mut lines = chain(tenant(2), &[&[1]]);
    lines[0] = Line::Start { version: VERSION, tenant: tenant(1), begin: None };
    assert!(refused(&lines).contains("row 1 is of tenant"));
    lines.remove(1);
    assert_eq!(refused(&lines), "seal 1 is of another tenant");
}

#[test]
fn what_is_no_export_is_said_to_be_none() {
    let keys = keys(RSA);
    for text in ["", "{}", "[]", "null", r#"{"kind":"other"}"#, r#"{"kind":"start","version":1}"#] {
        let error = Verifier::new(&keys, None).line(text).unwrap_err();
        assert!(matches!(error, Broken::Form(_)), "{text}: {error}");
    }
    let unknown = Line::Start { version: 2, tenant: tenant(1), begin: None };
    assert_eq!(verify_with(&[unknown], None).unwrap_err(), Broken::Version(2));
    assert_eq!(verify_with(&good()[1..], None).unwrap_err(), Broken::Start);
    let mut lines = good();
    lines.push(lines[1].clone());
    assert_eq!(verify_with(&lines, None).unwrap_err(), Broken::AfterEnd);
}

/// What `gatehouse verify audit` is tested with, so that its goldens are this format.
#[test]
fn the_sample_of_the_command_line_is_an_export_of_today() {
    let lines: Vec<String> =
        good().iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
    assert_eq!(lines.concat(), include_str!("../../../../cli/tests/data/audit.jsonl"));
}

/// The export whose first seals are no longer kept: behind seal 1, as `typ` says and `says` of it.
fn begun(typ: &str, says: impl Fn(&mut Head)) -> Vec<Line> {
    let mut lines = good();
    let place = lines.iter().position(|line| matches!(line, Line::Seal { .. })).unwrap();
    let Line::Seal { seal, .. } = &lines[place] else { panic!() };
    let mut head = seal.head("https://auth.example");
    says(&mut head);
    let begin = Some(sign(RSA, typ, &head));
    lines.drain(..=place);
    lines.insert(0, Line::Start { version: VERSION, tenant: tenant(1), begin });
    lines
}

#[test]
fn mtd5_an_export_whose_first_months_are_over_says_where_it_begins() {
    let lines = begun(BEGIN_TYPE, |_| {});
    let shown = verify_with(&lines, None).unwrap();
    assert_eq!(shown.begin.as_ref().map(|begin| (begin.seq, begin.total)), Some((1, 3)));
    assert_eq!((shown.rows, shown.seals), (5, 3));
    // A head is no such statement, and nobody else makes one.
    let of_head = begun(HEAD_TYPE, |_| {});
    assert_eq!(refused(&of_head), "where it begins is not good: it is no audit head");
    let mut forged = lines.clone();
    let Line::Start { begin, .. } = &mut forged[0] else { panic!() };
    let Line::Seal { seal, .. } = &good()[4] else { panic!() };
    *begin = Some(sign(OTHER, BEGIN_TYPE, &seal.head("https://auth.example")));
    assert!(refused(&forged).starts_with("where it begins is not good: "));
    let of_another = begun(BEGIN_TYPE, |head| head.tenant = tenant(2));
    assert_eq!(refused(&of_another), "where it begins is not good: it is another tenant's");
    // What follows must follow that seal, with as many rows before.
    assert_eq!(
        refused(&begun(BEGIN_TYPE, |head| head.hash = Digest::ZERO)),
        "seal 2 does not follow the seal before it"
    );
    assert_eq!(
        refused(&begun(BEGIN_TYPE, |head| head.total = 2)),
        "seal 2 counts its rows wrongly"
    );
    assert_eq!(
        refused(&begun(BEGIN_TYPE, |head| head.seq = 2)),
        "seal 2 stands where seal 3 belongs"
    );
    // Without it they are missing.
    let mut without = lines.clone();
    let Line::Start { begin, .. } = &mut without[0] else { panic!() };
    *begin = None;
    assert_eq!(refused(&without), "seal 2 stands where seal 1 belongs");
    // A head that was kept is of the chain, or cannot be compared with it.
    let kept = |place: usize| match &good()[place] {
        Line::Seal { seal, .. } => seal.head("https://auth.example"),
        line => panic!("{line:?}"),
    };
    verify_with(&lines, Some(kept(4))).unwrap();
    let other = Head { hash: Digest::ZERO, ..kept(4) };
    assert_eq!(verify_with(&lines, Some(other)).unwrap_err(), Broken::Kept(1));
    let older = Head { seq: 0, ..kept(4) };
    assert_eq!(
        verify_with(&lines, Some(older)).unwrap_err(),
        Broken::KeptBefore { kept: 0, begin: 1 }
    );
}
