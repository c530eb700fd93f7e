//! J26–J29: tokens in queries and cookies, what the upstream sees of a credential, and public routes that verify.

use gatehouse_tests::http::Request;
use serde_json::{Value, json};

use super::gate::{AGENTS, ALLOWED, Gate, PUBLIC, document, get, token, verdict, with_claim};

fn with_sources(sources: Value) -> Value {
    let mut document = document();
    document["sources"] = sources;
    document
}

fn expired() -> String {
    with_claim("exp", json!(super::gate::now_s() - 3600))
}

#[test]
fn j26_a_token_in_the_query_is_taken_where_allowed_and_leaves_no_trace() {
    let off = Gate::open();
    let target = |query: &str| Request::new("GET", &format!("{AGENTS}?{query}"));
    off.denies(&target(&format!("access_token={}", token())), "401 credential_missing");
    drop(off);

    let gate = Gate::document(with_sources(json!({"query": "access_token", "forward": false})));
    let good = token();
    for (query, left) in [
        (format!("access_token={good}"), String::new()),
        (format!("a=1&access_token={good}&b=%2f//"), "?a=1&b=%2f//".to_owned()),
        (format!("access_token={good}&&x=&y"), "?&x=&y".to_owned()),
        (format!("z&access_token={good}"), "?z".to_owned()),
        (format!("Access_Token=x&access_token={good}"), "?Access_Token=x".to_owned()),
    ] {
        let request = target(&query);
        let answer = gate.send(&request);
        assert_eq!(verdict(&answer), ALLOWED, "{query}");
        let control = answer.header("cache-control");
        assert!(control.contains("no-store") || control.contains("private"), "{control}");
        let saw = gate.allows(&request);
        assert_eq!(saw.start, format!("GET {AGENTS}{left} HTTP/1.1"));
        assert_eq!(saw.headers.all("authorization"), [""; 0]);
        assert!(!String::from_utf8_lossy(&saw.bytes()).contains(&good));
    }
    for (query, expected) in [
        (format!("access_token={good}&access_token={good}"), "400 credential_malformed"),
        (format!("access_token={good}&a=1&access_token="), "400 credential_malformed"),
        (format!("access_token={}", expired()), "401 token_invalid"),
        ("access_token=".to_owned(), "401 token_invalid"),
        ("access_token".to_owned(), "401 token_invalid"),
        ("a=access_token".to_owned(), "401 credential_missing"),
        (String::new(), "401 credential_missing"),
    ] {
        assert_eq!(gate.verdict(&target(&query)), expected, "{query}");
    }
    // Beside another credential it is one too many.
    let both = target(&format!("access_token={good}")).bearer(&good);
    gate.denies(&both, "400 credential_malformed");
    // A header still does, and its answer may be kept.
    let answer = gate.send(&get().bearer(&good));
    assert_eq!((verdict(&answer).as_str(), answer.header("cache-control").as_str()), (ALLOWED, ""));
    // Neither the access log nor any other line names the token.
    let log = gate.envoy.process.log();
    assert!(
        log.contains(AGENTS) && !log.contains(&good) && !log.contains("access_token="),
        "{log}"
    );
}

#[test]
fn j27_a_cookie_is_read_as_rfc_6265_says_and_it_alone_is_removed() {
    let off = Gate::open();
    let cookie = |value: &str| get().header("Cookie", value);
    off.denies(&cookie(&format!("token={}", token())), "401 credential_missing");
    drop(off);

    let gate = Gate::document(with_sources(json!({"cookie": "token", "forward": false})));
    let good = token();
    for (value, left) in [
        (format!("token={good}"), None),
        (format!("a=b=c; token={good}; d=\"e\""), Some("a=b=c; d=\"e\"")),
        (format!("token={good}; a="), Some("a=")),
        (format!("nonsense; token={good}"), Some("nonsense")),
        (format!("Token=x; token={good}; tokens=y"), Some("Token=x; tokens=y")),
    ] {
        let saw = gate.allows(&cookie(&value));
        assert_eq!(saw.headers.one("cookie").as_deref(), left, "{value}");
        assert!(!String::from_utf8_lossy(&saw.bytes()).contains(&good), "{value}");
    }
    for (value, expected) in [
        (format!("token={good}; token={good}"), "400 credential_malformed"),
        (format!("token={good}; a=1; token="), "400 credential_malformed"),
        (format!("token={}", expired()), "401 token_invalid"),
        ("token=".to_owned(), "401 token_invalid"),
        (format!("token={good}="), "401 token_invalid"),
        (format!("Token={good}"), "401 credential_missing"),
        ("token".to_owned(), "401 credential_missing"),
        ("=".to_owned(), "401 credential_missing"),
        (";;; ;=;".to_owned(), "401 credential_missing"),
    ] {
        assert_eq!(gate.verdict(&cookie(&value)), expected, "{value}");
    }
    let both = cookie(&format!("token={good}")).bearer(&good);
    gate.denies(&both, "400 credential_malformed");
    // HTTP/2 splits cookies into headers of their own (RFC 9113 §8.2.3).
    let ours = format!("token={good}");
    let head = |pieces: &[&str]| -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut head: Vec<(Vec<u8>, Vec<u8>)> =
            [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", AGENTS)]
                .map(|(name, value)| (name.into(), value.into()))
                .into();
        head.extend(pieces.iter().map(|piece| (b"cookie".to_vec(), piece.as_bytes().to_vec())));
        head
    };
    let send = |pieces: &[&str]| {
        let head = head(pieces);
        let fields: Vec<(&[u8], &[u8])> = head.iter().map(|(n, v)| (&n[..], &v[..])).collect();
        gate.exchange_h2(&fields)
    };
    let saw = send(&["a=1", &ours, "b=2"]).unwrap();
    assert_eq!(saw.headers.all("cookie"), ["a=1; b=2"]);
    assert!(send(&["a=1", "b=2"]).is_none());
    assert!(send(&[&ours, "a=1", &ours]).is_none());
    // Any bytes: a verdict, and no trap.
    for value in [b"\xff=\xfe".as_slice(), b"token=\xff", b"=;=;\x80", b"token"] {
        let verdict = verdict(&gate.send(&get().raw(b"Cookie", value)));
        assert!(verdict.starts_with("40"), "{value:?}: {verdict}");
    }
    gate.sound();
}

#[test]
fn j28_what_is_not_forwarded_reaches_no_upstream_on_any_route() {
    let good = token();
    let query = |path: &str| Request::new("GET", &format!("{path}?access_token={good}"));
    let cookie = |path: &str| Request::new("GET", path).header("Cookie", &format!("token={good}"));
    let bearer = |path: &str| Request::new("GET", path).bearer(&good);
    for optional in [false, true] {
        for forward in [false, true] {
            let mut document = with_sources(
                json!({"cookie": "token", "query": "access_token", "forward": forward}),
            );
            document["verify_on_public"] = json!(optional);
            let gate = Gate::document(document);
            for path in [AGENTS, PUBLIC] {
                for request in [query(path), cookie(path), bearer(path)] {
                    let saw = gate.allows(&request);
                    let what =
                        format!("forward {forward}, optional {optional}: {}", request.line());
                    let expected = if forward { vec![format!("Bearer {good}")] } else { vec![] };
                    assert_eq!(saw.headers.all("authorization"), expected, "{what}");
                    assert_eq!(saw.headers.all("cookie"), [""; 0], "{what}");
                    assert!(!saw.start.contains("access_token"), "{what}");
                }
            }
            gate.allows(&Request::new("GET", PUBLIC));
        }
    }
}

#[test]
fn j29_on_a_public_route_that_verifies_a_bad_token_is_no_anonymous() {
    let plain = Gate::open();
    let public = || Request::new("GET", PUBLIC);
    for request in [public(), public().bearer(&token()), public().bearer(&expired())] {
        plain.allows(&request);
    }
    drop(plain);
    let mut document = document();
    document["verify_on_public"] = json!(true);
    let gate = Gate::document(document);
    let saw = gate.allows(&public());
    assert_eq!(saw.headers.all("x-tenant-id"), [""; 0]);
    let saw = gate.allows(&public().bearer(&token()));
    assert_eq!(saw.headers.all("x-tenant-id"), [super::gate::TENANT]);
    for bad in [expired(), "x".to_owned(), String::new()] {
        let answer = gate.denies(&public().bearer(&bad), "401 token_invalid");
        assert!(answer.header("www-authenticate").contains("invalid_token"));
    }
    // Another scheme is no credential, so that its bearer is anonymous.
    gate.allows(&public().header("Authorization", "Basic eDp5"));
    gate.denies(&public().bearer(&token()).bearer(&token()), "400 credential_malformed");
}
