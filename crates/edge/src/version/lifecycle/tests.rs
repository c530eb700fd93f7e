//! Tests of the end of a version.

use super::*;

const TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";

/// Deprecated on 1 June 2026, gone a year later, in a brown-out for an hour on 1 May.
fn life(link: Link) -> Rc<Lifecycle> {
    let at = |text: &str| date::from_iso(text).unwrap();
    Rc::new(Lifecycle {
        deprecated: Date::deprecation(at("2026-06-01")),
        sunset: Date::sunset(at("2027-06-01")),
        link,
        brownouts: vec![Window {
            from_s: at("2027-05-01T10:00:00Z"),
            until_s: at("2027-05-01T11:00:00Z"),
        }],
        grace: vec![TENANT.parse().unwrap()],
        dry_run: false,
    })
}

#[test]
fn v10_v14_the_phase_depends_on_the_second_alone() {
    let life = life(Link::None);
    let until_s = date::from_iso("2027-05-01T11:00:00Z").unwrap();
    for (now, deprecated, closed) in [
        ("2026-05-31T23:59:59Z", false, None),
        ("2026-06-01", true, None),
        ("2027-05-01T09:59:59Z", true, None),
        ("2027-05-01T10:00:00Z", true, Some(Closed::BrownOut { until_s })),
        ("2027-05-01T10:59:59Z", true, Some(Closed::BrownOut { until_s })),
        ("2027-05-01T11:00:00Z", true, None),
        ("2027-05-31T23:59:59Z", true, None),
        ("2027-06-01", true, Some(Closed::Gone)),
        ("2099-01-01", true, Some(Closed::Gone)),
    ] {
        let now_s = date::from_iso(now).unwrap();
        assert_eq!((life.is_deprecated(now_s), life.closed(now_s)), (deprecated, closed), "{now}");
    }
}

#[test]
fn v8_links_are_mapped_per_path_and_cannot_be_broken_out_of() {
    const GUIDE: &str = "https://docs.example/a\"><b>\\ü";
    const QUOTED: &str = "<https://docs.example/a%22%3E%3Cb%3E%5C%C3%BC>";
    let to = |link: Link| Notice::new(&life(link), "/agents/7").link.map(|text| text.to_string());
    for (successor, guide, sunset, expected) in [
        (None, None, true, None),
        (Some("v2"), None, true, Some("</api/v2/agents/7>; rel=\"successor-version\"".to_owned())),
        (None, Some(GUIDE), false, Some(format!("{QUOTED}; rel=\"deprecation\""))),
        (
            Some("v2"),
            Some(GUIDE),
            true,
            Some(format!(
                "</api/v2/agents/7>; rel=\"successor-version\", {QUOTED}; rel=\"deprecation\", {QUOTED}; rel=\"sunset\""
            )),
        ),
    ] {
        assert_eq!(to(Link::new(successor, guide, sunset)), expected);
    }
}

/// What the client sees of the upstream's `theirs`, after ours was added once and a second time.
#[track_caller]
fn seen(theirs: &[(&str, &str)]) -> Vec<(String, String)> {
    let notice = Notice::new(&life(Link::new(Some("v2"), None, true)), "/agents");
    let mut headers: Vec<(String, String)> =
        theirs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for pass in 0..2 {
        let mut edits = Vec::new();
        notice.edits(&headers, &mut edits);
        assert!(pass == 0 || edits.is_empty(), "a second time: {edits:?}");
        for edit in edits {
            let Edit::Set(name, value) = edit else { panic!("{edit:?}") };
            headers.retain(|(theirs, _)| !theirs.eq_ignore_ascii_case(&name));
            headers.push((name.to_string(), value.to_string()));
        }
    }
    headers.sort();
    headers
}

#[test]
fn v9_the_earliest_wins_and_nothing_is_said_twice() {
    const DEPRECATED: &str = "@1780272000";
    const SUNSET_AT: &str = "Tue, 01 Jun 2027 00:00:00 GMT";
    const SUCCESSOR: &str = "</api/v2/agents>; rel=\"successor-version\"";
    let check = |theirs: &[(&str, &str)], deprecation: &str, sunset: &str, link: &str| {
        let expected = [("deprecation", deprecation), ("link", link), ("sunset", sunset)];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(seen(theirs), expected, "{theirs:?}");
    };
    check(&[], DEPRECATED, SUNSET_AT, SUCCESSOR);
    // Theirs are later, earlier, twice, of the drafts before the RFC, or nothing.
    check(&[("Deprecation", "@1790000000")], DEPRECATED, SUNSET_AT, SUCCESSOR);
    check(&[("deprecation", "@1780271999")], "@1780271999", SUNSET_AT, SUCCESSOR);
    check(&[("deprecation", "@1780271999;a=1")], "@1780271999;a=1", SUNSET_AT, SUCCESSOR);
    check(
        &[("deprecation", "@1790000000"), ("deprecation", "@1600000000")],
        "@1600000000",
        SUNSET_AT,
        SUCCESSOR,
    );
    let draft = "Sun, 06 Nov 1994 08:49:37 GMT";
    check(&[("deprecation", draft)], draft, SUNSET_AT, SUCCESSOR);
    for junk in ["true", "", "@", "@x", "@-1", "\u{e9}", "1780271999"] {
        check(&[("deprecation", junk), ("sunset", junk)], DEPRECATED, SUNSET_AT, SUCCESSOR);
    }
    let earlier = "Mon, 31 May 2027 00:00:00 GMT";
    check(&[("sunset", earlier)], DEPRECATED, earlier, SUCCESSOR);
    check(&[("sunset", "Wed, 02 Jun 2027 00:00:00 GMT")], DEPRECATED, SUNSET_AT, SUCCESSOR);
    check(&[("sunset", SUNSET_AT), ("sunset", SUNSET_AT)], DEPRECATED, SUNSET_AT, SUCCESSOR);
    // Links stand beside theirs.
    let theirs = "</agents?page=2>; rel=\"next\"";
    let both = format!("{theirs}, {SUCCESSOR}");
    check(&[("Link", theirs)], DEPRECATED, SUNSET_AT, &both);
    let three = format!("<a>; rel=a, <b>; rel=b, {SUCCESSOR}");
    check(&[("link", "<a>; rel=a"), ("link", "<b>; rel=b")], DEPRECATED, SUNSET_AT, &three);
    check(&[("link", &three)], DEPRECATED, SUNSET_AT, &three);
}

#[test]
fn v7_a_date_of_our_own_has_the_forms_of_its_rfc() {
    let life = life(Link::None);
    assert_eq!(&*life.deprecated.text, "@1780272000");
    assert_eq!(
        life.sunset.as_ref().map(|sunset| &*sunset.text),
        Some("Tue, 01 Jun 2027 00:00:00 GMT")
    );
}
