//! Tests of `versions`: what is served, and how versions end.

use super::*;

const TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";

/// Two versions, the first of which ends; `change` is applied to its entry.
fn ending(change: impl FnOnce(&mut Value)) -> impl FnOnce(&mut Value) {
    let mut end = json!({
        "version": "v1", "released": "2025-01-01", "deprecated": "2026-06-01",
        "sunset": "2027-06-01", "successor": "v2", "guide": "https://docs.greenlang.ai/v2",
        "brownouts": [{"from": "2027-05-01T10:00:00Z", "until": "2027-05-01T11:00:00Z"}],
        "grace": [TENANT],
    });
    change(&mut end);
    move |document| {
        document["versions"] = json!({"served": ["v1", "v2"], "default": "v2", "lifecycle": [end]});
    }
}

/// One entry with `name` replaced.
fn with(name: &'static str, value: Value) -> impl FnOnce(&mut Value) {
    ending(move |end| end[name] = value)
}

#[test]
fn v7_an_end_is_read_whole() {
    check(ending(|_| {}), &[]);
    assert_eq!(warnings(ending(|_| {})), [""; 0]);
    let (suite, _) = compile(ending(|_| {})).unwrap();
    let life = suite.versions.get(0).and_then(|version| version.life.clone()).unwrap();
    assert_eq!(&*life.deprecated.text, "@1780272000");
    assert_eq!(&*life.sunset.as_ref().unwrap().text, "Tue, 01 Jun 2027 00:00:00 GMT");
    assert_eq!(suite.versions.get(1).unwrap().life, None);
    // An entry may say no more than when a version came.
    let end = json!({"version": "v1", "released": "2025-01-01"});
    check(ending(|entry| *entry = end), &[]);
}

#[test]
fn v7_an_end_that_cannot_be_meant_is_refused() {
    let at = |name: &str, text: &str| format!("$.versions.lifecycle[0].{name}: {text}");
    let date = "write a day such as \"2027-06-01\", or an instant such as \"2027-06-01T10:00:00Z\"";
    let served = "is not served; write one of the versions in \"served\"";
    let window = |from: &str, until: &str| json!([{"from": from, "until": until}]);
    for (name, value, expected) in [
        ("version", json!("v9"), at("version", served)),
        ("successor", json!("v9"), at("successor", served)),
        ("successor", json!("v1"), at("successor", "is the version itself; write another version")),
        ("sunset", json!("2026-05-31"), String::new()),
        (
            "sunset",
            json!("2027-02-29"),
            at("sunset", &format!("\"2027-02-29\" does not fit; {date}")),
        ),
        (
            "released",
            json!("2026-06-02"),
            at("deprecated", "is before the release; write a later date"),
        ),
        (
            "guide",
            json!("http://docs"),
            at("guide", "\"http://docs\" does not fit; write an https address without spaces"),
        ),
        (
            "grace",
            json!(["acme"]),
            at("grace[0]", "\"acme\" does not fit; write a tenant's id (a UUID)"),
        ),
        (
            "brownouts",
            window("2027-05-01T11:00:00Z", "2027-05-01T11:00:00Z"),
            at("brownouts[0].until", "is not after \"from\"; write a later instant"),
        ),
        (
            "brownouts",
            window("2027-05-31", "2027-06-02"),
            at("brownouts[0].until", "is after the sunset; write an instant before it"),
        ),
        ("dryrun", json!(true), at("dryrun", "unknown field; did you mean \"dry_run\"?")),
    ] {
        if expected.is_empty() {
            // The windows are behind such a sunset, too.
            let early = ending(|end| {
                end["sunset"] = value;
                end["brownouts"] = json!([]);
            });
            check(early, &[&at("sunset", "is before the deprecation; write a later date")]);
        } else {
            check(with(name, value), &[&expected]);
        }
    }
    check(
        ending(|end| drop(end.as_object_mut().unwrap().remove("deprecated"))),
        &[
            &at("sunset", "a version ends that was never deprecated; write \"deprecated\", too"),
            &at("deprecated", &format!("missing, and the entry says how the version ends; {date}")),
        ],
    );
    check(
        |document| {
            let end = json!({"version": "v1", "deprecated": "2026-06-01"});
            document["versions"]["lifecycle"] = json!([end, end]);
        },
        &["$.versions.lifecycle: a version stands twice; write one entry per version"],
    );
}

#[test]
fn v7_an_end_that_is_allowed_and_hardly_meant_is_a_warning() {
    let at = |name: &str| vec![format!("$.versions.lifecycle[0].{name}")];
    // Specification GAV-001: twelve months.
    assert_eq!(warnings(with("deprecated", json!("2026-06-02"))), at("sunset"));
    assert_eq!(warnings(with("dry_run", json!(true))), at("dry_run"));
    let early = json!([{"from": "2026-05-31", "until": "2026-06-02"}]);
    assert_eq!(warnings(with("brownouts", early)), at("brownouts"));
}

#[test]
fn what_is_served_stands_once() {
    let many: Vec<String> = (1..=33).map(|number| format!("v{number}")).collect();
    for (served, expected) in [
        (json!(["v1", "v1"]), "$.versions.served: a version stands twice; write each once"),
        (json!(many), "$.versions.served: too many versions; list at most 32"),
    ] {
        check(|document| document["versions"]["served"] = served, &[expected]);
    }
    check(
        |document| document["versions"]["vendor"] = "green lang".into(),
        &[
            "$.versions.vendor: \"green lang\" does not fit; write letters, digits and \"-\": what follows \"application/vnd.\" in media types",
        ],
    );
}
