//! Which origins are told what.

use super::*;

fn cors(origins: &[Origin]) -> Rc<Cors> {
    Rc::new(Cors {
        origins: Origins::Listed(origins.to_vec()),
        credentials: true,
        methods: None,
        headers: "authorization".into(),
        expose: "x-request-id".into(),
        max_age_s: 600,
        private_network: true,
    })
}

fn under(before: &str, after: &str) -> Origin {
    Origin::Under { before: before.into(), after: after.into() }
}

#[test]
fn x9_no_trick_with_a_suffix_makes_an_origin_ours() {
    let cors = cors(&[
        Origin::Exact("https://app.greenlang.ai".into()),
        under("https://", ".greenlang.ai"),
        under("https://", ".dev.example.com:8443"),
    ]);
    let allows = |origin: &str| cors.allowed(Single::One(origin.as_bytes()));
    for ours in [
        "https://app.greenlang.ai",
        "https://x.greenlang.ai",
        "https://a.b-c.greenlang.ai",
        "https://x.dev.example.com:8443",
    ] {
        assert_eq!(allows(ours).as_deref(), Some(ours));
    }
    for foreign in [
        "https://evilgreenlang.ai",
        "https://greenlang.ai",
        "https://.greenlang.ai",
        "https://x..greenlang.ai",
        "https://greenlang.ai.evil",
        "https://app.greenlang.ai.evil",
        "https://app.greenlang.ai.",
        "https://app.greenlang.ai:443",
        "https://app.greenlang.ai:8443",
        "https://x.dev.example.com",
        "http://app.greenlang.ai",
        "https://APP.greenlang.ai",
        "https://app.Greenlang.ai",
        "HTTPS://app.greenlang.ai",
        "https://evil.com:443.greenlang.ai",
        "https://user@app.greenlang.ai",
        "https://evil.com/.greenlang.ai",
        "https://evil.com?.greenlang.ai",
        "https://evil.com#.greenlang.ai",
        "https://evil.com\\.greenlang.ai",
        "https://evil.com%2f.greenlang.ai",
        "https://a b.greenlang.ai",
        "https://a, https://app.greenlang.ai",
        "https://app.greenlang.ai https://app.greenlang.ai",
        "https://app.greenlang.ai/",
        "https://\u{e9}.greenlang.ai",
        "null",
        "",
        "*",
    ] {
        assert_eq!(allows(foreign), None, "{foreign}");
    }
    assert_eq!(cors.allowed(Single::Absent), None);
    assert_eq!(cors.allowed(Single::Many), None);
    assert_eq!(cors.allowed(Single::One(b"https://app.greenlang.ai\xff")), None);
}

fn said(grant: &Grant) -> String {
    let headers: Vec<_> =
        grant.headers().map(|(name, value)| format!("{}={value}", &name[15..])).collect();
    headers.join(" ")
}

#[test]
fn x9_a_foreign_origin_is_told_nothing_and_ours_what_it_may() {
    let app = "https://app.greenlang.ai";
    let cors = cors(&[Origin::Exact(app.into())]);
    assert_eq!(
        said(&cors.grant(Single::One(app.as_bytes()))),
        format!("allow-origin={app} allow-credentials=true expose-headers=x-request-id")
    );
    assert_eq!(said(&cors.grant(Single::One(b"https://evil"))), "");
    let mut preflight = cors.grant(Single::One(app.as_bytes()));
    preflight.preflight("GET, HEAD", true);
    assert_eq!(
        said(&preflight),
        format!(
            "allow-origin={app} allow-credentials=true allow-methods=GET, HEAD \
             allow-headers=authorization max-age=600 allow-private-network=true"
        )
    );
    preflight.preflight("GET, HEAD", false);
    assert!(!said(&preflight).contains("private"), "it did not ask");
    let mut foreign = cors.grant(Single::One(b"https://evil"));
    foreign.preflight("GET, HEAD", true);
    assert_eq!(said(&foreign), "");
}

#[test]
fn x9_private_networks_and_methods_are_as_the_document_says() {
    let open = Rc::new(Cors {
        origins: Origins::Any,
        credentials: false,
        methods: Some(vec!["GET".to_owned(), "DELETE".to_owned()]),
        headers: "a".into(),
        expose: "b".into(),
        max_age_s: 0,
        private_network: false,
    });
    let mut grant = open.grant(Single::Absent);
    assert_eq!(said(&grant), "allow-origin=* expose-headers=b");
    grant.preflight("GET, HEAD, POST", true);
    assert_eq!(said(&grant), "allow-origin=* allow-methods=GET allow-headers=a max-age=0");
    assert_eq!(open.vary(), Vary::default());
}

#[test]
fn x9_what_the_upstream_says_is_replaced_and_never_doubled() {
    let app = "https://app.greenlang.ai";
    let cors = cors(&[Origin::Exact(app.into())]);
    let theirs = [
        (b"Access-Control-Allow-Origin".as_slice(), b"*"),
        (b"access-control-allow-origin", b"x"),
        (b"access-control-max-age", b"9"),
        (b"access-control-max-age", b"8"),
        (b"access-control-\xff", b"1"),
        (b"x-access-control", b"1"),
    ];
    let after = |origin: &str| {
        let mut edits = vec![Edit::Remove("access-control-max-age".into())];
        cors.grant(Single::One(origin.as_bytes())).edits(&theirs, &mut edits);
        let told = edits.drain(1..).map(|edit| match edit {
            Edit::Set(name, value) => format!("{name}={value}"),
            Edit::Remove(name) => format!("-{name}"),
            other => panic!("{other:?}"),
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(
        after(app),
        [
            "access-control-allow-origin=https://app.greenlang.ai",
            "access-control-allow-credentials=true",
            "access-control-expose-headers=x-request-id",
            "-access-control-max-age",
        ]
    );
    assert_eq!(after("https://evil"), ["-Access-Control-Allow-Origin", "-access-control-max-age"]);
}
