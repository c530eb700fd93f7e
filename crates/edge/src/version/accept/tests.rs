//! Tests of media types.

use super::{super::tests::versions, *};

/// What becomes of these `Accept` headers where `v1`, `v2` and `v1-beta` are served.
#[track_caller]
fn check(values: &[&str], expected: &str) {
    let versions = versions(&["v1", "v2", "v1-beta"]);
    let got = match Accepted::read(values.iter().map(|value| value.as_bytes()), &versions) {
        Err(Malformed::TooLong) => "too long".to_owned(),
        Err(Malformed::Version) => "bad version".to_owned(),
        Err(Malformed::Weight) => "bad weight".to_owned(),
        Ok(accepted) if accepted.only_unknown() => "unknown".to_owned(),
        Ok(accepted) => {
            let name = |place: usize| ["v1", "v2", "v1-beta"][place];
            let best = accepted.best.map_or("any", name).to_owned();
            let without: String = (0..3)
                .filter(|place| accepted.excludes(*place))
                .map(|place| format!(" not {}", name(place)))
                .collect();
            best + &without
        }
    };
    assert_eq!(got, expected, "{values:?}");
}

#[test]
fn v2_a_media_type_names_a_version() {
    for (value, expected) in [
        ("application/vnd.greenlang.v1+json", "v1"),
        ("application/vnd.greenlang.v1-beta+json", "v1-beta"),
        ("application/vnd.greenlang.agents.v2+json", "v2"),
        ("application/vnd.greenlang.agents.list.v2+json", "v2"),
        ("application/vnd.greenlang.v2", "v2"),
        ("APPLICATION/VND.GreenLang.V2+JSON", "v2"),
        ("application/vnd.greenlang+json;version=1", "v1"),
        ("application/vnd.greenlang+json; Version = \"2\"", "v2"),
        ("application/vnd.greenlang+json;version=v1-beta", "v1-beta"),
        ("application/vnd.greenlang.agents+json;charset=utf-8;version=2;q=0.5", "v2"),
        ("application/vnd.greenlang.v2+json ; profile=\"a,b;version=1\"", "v2"),
        ("  application/vnd.greenlang.v2+json\t", "v2"),
        // No opinion.
        ("", "any"),
        ("*/*", "any"),
        ("application/*", "any"),
        ("application/json", "any"),
        ("application/json;version=9", "any"),
        ("text/html, */*;q=0.8", "any"),
        ("application/vnd.greenlang+json", "any"),
        ("application/vnd.greenlang.agents+json", "any"),
        ("application/vnd.github.v3+json", "any"),
        ("application/vnd.greenlangx.v9+json", "any"),
        ("application/vnd.greenlang.v9+xml", "any"),
        ("application/vnd", "any"),
        ("vnd.", "any"),
        (", ,", "any"),
        // Not served.
        ("application/vnd.greenlang.v9+json", "unknown"),
        ("application/vnd.greenlang.v10+json", "unknown"),
        ("application/vnd.greenlang.v1.1+json", "unknown"),
        ("application/vnd.greenlang.v01+json", "unknown"),
        ("application/vnd.greenlang+json;version=9", "unknown"),
        // Malformed.
        ("application/vnd.greenlang+json;version=", "bad version"),
        ("application/vnd.greenlang+json;version=\"\"", "bad version"),
        ("application/vnd.greenlang+json;version=\"1", "bad version"),
        ("application/vnd.greenlang+json;version=1/2", "bad version"),
        ("application/vnd.greenlang+json;version=1;version=1", "bad version"),
        ("application/vnd.greenlang.v1+json;version=1", "bad version"),
        ("application/vnd.greenlang.v1+json;q=2", "bad weight"),
        ("application/vnd.greenlang.v1+json;q=", "bad weight"),
        ("application/vnd.greenlang.v1+json;q=0.1234", "bad weight"),
        ("application/vnd.greenlang.v1+json;q=1.001", "bad weight"),
        ("application/vnd.greenlang.v1+json;q=-1", "bad weight"),
    ] {
        check(&[value], expected);
    }
}

#[test]
fn v2_weights_choose_and_exclude() {
    const V1: &str = "application/vnd.greenlang.v1+json";
    const V2: &str = "application/vnd.greenlang.v2+json";
    const V9: &str = "application/vnd.greenlang.v9+json";
    for (values, expected) in [
        (vec![format!("{V1};q=0.5, {V2}")], "v2"),
        (vec![format!("{V1};q=0.5, {V2};q=0.501")], "v2"),
        (vec![format!("{V2}, {V1}")], "v2"),
        (vec![format!("{V1}, {V2};q=1.0")], "v1"),
        (vec![format!("{V2};q=0.1"), V1.to_owned()], "v1"),
        (vec![V9.to_owned(), format!("{V1};q=0.1")], "v1"),
        // What names a version has an opinion; what names none has none.
        (vec![format!("*/*, {V2};q=0.1")], "v2"),
        (vec![format!("{V9}, */*;q=0.1")], "any"),
        (vec![V9.to_owned(), "*/*".to_owned()], "any"),
        (vec![format!("{V9}, */*;q=0")], "unknown"),
        (vec![format!("{V9};q=0")], "any"),
        // 0 excludes.
        (vec![format!("{V1};q=0, */*")], "any not v1"),
        (vec![format!("{V1};q=0.000")], "any not v1"),
        (vec![format!("{V1};q=0, {V2};q=0.3")], "v2 not v1"),
        (vec![format!("{V1}, {V1};q=0")], "any not v1"),
        (vec![format!("{V1}, {V2};q=0.3, {V1};q=0")], "v2 not v1"),
    ] {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        check(&values, expected);
    }
}

#[test]
fn v2_junk_costs_bounded_work_and_is_refused_whole() {
    let most = |times: usize| vec!["application/vnd.greenlang.v1+json"; times].join(",");
    check(&[&most(32)], "v1");
    check(&[&most(33)], "too long");
    check(&[&most(16), &most(17)], "too long");
    let long = format!("application/vnd.greenlang.v1+json;a=\"{}\"", "\\\"".repeat(4096));
    check(&[&long], "too long");
    check(&["x", &"y".repeat(MAX_BYTES)], "too long");
    // Never a panic, whatever the bytes.
    let versions = versions(&["v1"]);
    for junk in [b"application/vnd.greenlang.\xff\x00v".as_slice(), b"\"", b"\\", b";=;q", b";,;"] {
        for end in 0..=junk.len() {
            let _read = Accepted::read(std::iter::once(&junk[..end]), &versions);
            let _read = Content::read(&junk[..end], &versions);
        }
    }
}

#[test]
fn v3_what_contradicts_a_path() {
    let versions = versions(&["v1", "v2"]);
    for (value, expected) in [
        ("*/*", false),
        ("application/vnd.greenlang.v1+json", false),
        ("application/vnd.greenlang.v2+json, application/vnd.greenlang.v1+json;q=0.1", false),
        ("application/vnd.greenlang.v2+json, */*;q=0.1", false),
        ("application/vnd.greenlang+json", false),
        ("application/vnd.greenlang.v2+json;q=0", false),
        ("application/vnd.greenlang.v2+json", true),
        ("application/vnd.greenlang.v9+json", true),
        ("application/vnd.greenlang.v1+json;q=0", true),
        ("application/vnd.greenlang.v1+json;q=0, */*", true),
    ] {
        let accepted = Accepted::read(std::iter::once(value.as_bytes()), &versions).unwrap();
        assert_eq!(accepted.contradicts(0), expected, "{value}");
    }
}

#[test]
fn v6_a_body_fits_its_own_version_and_says_nothing_where_it_names_none() {
    let versions = versions(&["v1", "v2"]);
    for (value, first, second) in [
        ("application/json", true, true),
        ("application/vnd.greenlang+json", true, true),
        ("application/vnd.other.v9+json", true, true),
        ("application/vnd.greenlang.v1+json; charset=utf-8", true, false),
        ("application/vnd.greenlang+json;version=2", false, true),
        ("application/vnd.greenlang.v9+json", false, false),
        ("application/vnd.greenlang+json;version=", false, false),
    ] {
        let content = Content::read(value.as_bytes(), &versions);
        assert_eq!((content.fits(0), content.fits(1)), (first, second), "{value}");
    }
}

#[test]
fn vendors_are_found_by_a_search_for_bytes() {
    for (value, expected) in [
        ("", false),
        ("vnd", false),
        ("*/*", false),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false),
        ("vnd.", true),
        ("application/VND.x", true),
        ("a, application/vnd.greenlang.v1+json", true),
        ("vvnd", false),
        ("vvnd.", true),
    ] {
        assert_eq!(names_vendor(value.as_bytes()), expected, "{value}");
    }
}
