//! Where credentials stand, and what of them the upstream sees.

use super::*;

fn world(sources: Value) -> World {
    World::with(move |document| {
        document["sources"] = sources;
        document["sessions"] = true.into();
    })
}

fn token() -> String {
    sign("rsa", &claims())
}

fn key() -> String {
    let environment = "test".parse().unwrap();
    gatehouse_authn::api_key::compose(&environment, TENANT.parse().unwrap(), [7; 32])
}

const SESSION: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn seen<'e>(end: &'e End, name: &str) -> Vec<&'e str> {
    end.upstream().remove(name).unwrap_or_default()
}

#[test]
fn j4_one_credential_over_all_places_and_kinds_on_every_path() {
    let mut world = world(json!({"cookie": "token", "query": "access_token"}));
    let (bearer, key) = (format!("Bearer {}", token()), key());
    let cookie = format!("token={}", token());
    let session = format!("__Host-gatehouse={SESSION}");
    let in_query = format!("{AGENTS}?access_token={}", token());
    let all = [
        ("authorization", bearer.as_str()),
        ("x-api-key", &key),
        ("cookie", &cookie),
        ("cookie", &session),
    ];
    for (index, one) in all.iter().enumerate() {
        assert_eq!(world.send("GET", AGENTS, &[*one]).verdict(), "passed", "{one:?}");
        for other in &all[index + 1..] {
            for path in [AGENTS, "/.well-known/jwks.json", "/nothing"] {
                let end = world.send("GET", path, &[*one, *other]);
                assert_eq!(end.verdict(), "400 credential_malformed", "{one:?} {other:?} {path}");
                let challenge = end.header("www-authenticate").unwrap();
                assert!(challenge.contains("error=\"invalid_request\""), "{challenge}");
            }
        }
        assert_eq!(world.send("GET", &in_query, &[*one]).verdict(), "400 credential_malformed");
    }
    let twice = format!("{in_query}&access_token={}", token());
    assert_eq!(world.send("GET", &twice, &[]).verdict(), "400 credential_malformed");
    assert_eq!(world.send("GET", &in_query, &[]).verdict(), "passed");
    let twice = [("cookie", cookie.as_str()), ("cookie", &cookie)];
    assert_eq!(world.send("GET", AGENTS, &twice).verdict(), "400 credential_malformed");
    let with_basic = [("authorization", "Basic YTpi"), ("x-api-key", &key)];
    assert_eq!(world.send("GET", AGENTS, &with_basic).verdict(), "passed", "J5: no credential");
}

#[test]
fn j26_a_token_in_the_query_leaves_the_path_and_no_cache_keeps_the_answer() {
    let mut world = world(json!({"query": "access_token"}));
    let token = token();
    for (query, left) in [
        (format!("?access_token={token}"), ""),
        (format!("?a=%2f&access_token={token}&b=1&a=2"), "?a=%2f&b=1&a=2"),
        (format!("?access%5Ftoken={token}&"), "?"),
    ] {
        let end = world.send("GET", &format!("{AGENTS}{query}"), &[]);
        assert_eq!(seen(&end, ":path"), [format!("{AGENTS}{left}")], "{query}");
        assert_eq!(seen(&end, "authorization"), [format!("Bearer {token}")]);
        let edits = world.suite.on_response(end.record(), &[(":status", "200")]);
        assert!(edits.contains(&Edit::Set("cache-control".into(), "no-store".into())));
    }
    let end = world.send("GET", &format!("{AGENTS}?access_token=x"), &[]);
    assert_eq!(end.verdict(), "401 token_invalid");
    assert_eq!(end.header("cache-control"), Some("no-store"));
    let end = world.send("GET", &format!("{AGENTS}?a=1"), &[("authorization", &good())]);
    let edits = world.suite.on_response(end.record(), &[(":status", "200")]);
    assert!(
        !edits.iter().any(|edit| matches!(edit, Edit::Set(name, _) if name == "cache-control"))
    );
}

#[test]
fn j26_a_token_in_the_query_is_none_unless_asked_for() {
    let mut world = World::new();
    let end = world.send("GET", &format!("{AGENTS}?access_token={}", token()), &[]);
    assert_eq!(end.verdict(), "401 credential_missing");
    let cookie = format!("token={}", token());
    assert_eq!(
        world.send("GET", AGENTS, &[("cookie", &cookie)]).verdict(),
        "401 credential_missing"
    );
}

#[test]
fn j27_only_the_tokens_cookie_goes() {
    let mut world = world(json!({"cookie": "token"}));
    let token = token();
    let cookies =
        [("cookie", "a=1; b==".to_owned()), ("cookie", format!("c=\"x\"; token={token};d"))];
    let headers: Vec<_> = cookies.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let end = world.send("GET", AGENTS, &headers);
    assert_eq!(seen(&end, "cookie"), ["a=1; b==; c=\"x\";d"]);
    assert_eq!(seen(&end, "authorization"), [format!("Bearer {token}")]);
    let end = world.send("GET", AGENTS, &[("cookie", &format!("token={token}"))]);
    assert_eq!(seen(&end, "cookie"), [""; 0]);
    for broken in ["token=", "token=a.b", "token=a=b"] {
        assert_eq!(world.send("GET", AGENTS, &[("cookie", broken)]).verdict(), "401 token_invalid");
    }
    assert_eq!(
        world.send("GET", AGENTS, &[("cookie", "token")]).verdict(),
        "401 credential_missing"
    );
}

#[test]
fn j28_what_is_not_forwarded_is_gone_on_success_and_in_optional_mode() {
    let sources = json!({"cookie": "token", "query": "access_token", "forward": false});
    let mut world = World::with(|document| {
        document["sources"] = sources;
        document["sessions"] = true.into();
        document["verify_on_public"] = true.into();
    });
    let (bearer, key) = (format!("Bearer {}", token()), key());
    let cookie = format!("a=1; token={}", token());
    let session = format!("a=1; __Host-gatehouse={SESSION}");
    for path in [AGENTS, "/.well-known/jwks.json"] {
        for (name, value) in [
            ("authorization", bearer.as_str()),
            ("X-API-Key", &key),
            ("x_api_key", &key),
            ("cookie", &cookie),
            ("cookie", &session),
        ] {
            let end = world.send("GET", path, &[(name, value)]);
            let upstream = end.upstream();
            assert!(!upstream.contains_key("authorization"), "{path} {name}: {upstream:?}");
            assert!(
                !upstream.keys().any(|name| name.starts_with("x-api") || name.starts_with("x_api"))
            );
            let left: &[&str] = if name == "cookie" { &["a=1"] } else { &[] };
            assert_eq!(seen(&end, "cookie"), left, "{path} {name}");
            assert_eq!(seen(&end, "x-tenant-id"), [TENANT], "known on public routes, too");
        }
        let end = world.send("GET", &format!("{path}?access_token={}&a=1", token()), &[]);
        assert_eq!(seen(&end, ":path"), [format!("{path}?a=1")]);
        assert_eq!(seen(&end, "authorization"), [""; 0]);
        let basic = world.send("GET", "/.well-known/jwks.json", &[("authorization", "Basic YTpi")]);
        assert_eq!(seen(&basic, "authorization"), ["Basic YTpi"], "not ours to take away");
    }
}

#[test]
fn j28_what_is_forwarded_stays_where_upstreams_look_for_it() {
    let mut world = world(json!({"forward": true}));
    let session = format!("a=1; __Host-gatehouse={SESSION}");
    let key = key();
    let end = world.send("GET", AGENTS, &[("cookie", &session)]);
    assert_eq!(seen(&end, "cookie"), [session.as_str()], "the control API checks it again");
    let end = world.send("GET", AGENTS, &[("x-api-key", &key)]);
    assert_eq!(seen(&end, "x-api-key"), [key.as_str()]);
}

#[test]
fn a_session_is_for_the_control_api_alone() {
    let host = |kong: bool| {
        move |document: &mut Value| {
            document["sources"] = json!({"cookie": "token"});
            document["sessions"] = false.into();
            if kong {
                document["host"] = "kong".into();
                document["sidecar"]["target"] = "127.0.0.1:9000".into();
            }
        }
    };
    let session = format!("__Host-gatehouse={SESSION}");
    let mut elsewhere = World::with(host(false));
    let end = elsewhere.send("GET", AGENTS, &[("cookie", &session)]);
    assert_eq!(end.verdict(), "401 credential_missing", "where none is taken it opens nothing");
    let bearer = ("authorization", good());
    let token = format!("token={}", token());
    let public = "/.well-known/jwks.json";
    for (cookie, left) in [
        (session.clone(), &[][..]),
        (format!("a=1; {session}; b=2"), &["a=1; b=2"]),
        (format!("{session}; a=1; {session}"), &["a=1"]),
        ("a=1; __Host-gatehouse-login=x".to_owned(), &["a=1; __Host-gatehouse-login=x"]),
    ] {
        let cookie = ("cookie", cookie.as_str());
        let known = elsewhere.send("GET", AGENTS, &[(bearer.0, &bearer.1), cookie]);
        assert_eq!(seen(&known, "cookie"), left);
        assert_eq!(seen(&elsewhere.send("GET", public, &[cookie]), "cookie"), left, "public");
    }
    // Beside a token's cookie, and in HTTP/2's pieces, both go.
    let pieces = [("cookie", session.as_str()), ("cookie", &token), ("cookie", "a=1")];
    let end = elsewhere.send("GET", AGENTS, &pieces);
    assert_eq!(seen(&end, "cookie"), ["a=1"]);
    assert!(seen(&end, "authorization")[0].starts_with("Bearer "));
    let mut kong = World::with(host(true));
    let end = kong.send("GET", public, &[("cookie", &session)]);
    assert_eq!(seen(&end, "cookie"), [""]);
    assert_eq!(kong.send("GET", public, &pieces[..2]).verdict(), "400 header_invalid");
    let mut before_it = world(json!({}));
    let end = before_it.send("GET", public, &[("cookie", &session)]);
    assert_eq!(seen(&end, "cookie"), [session.as_str()], "a logout needs it");
}

#[test]
fn j29_in_optional_mode_nobody_is_anonymous_and_a_bad_credential_is_refused() {
    let public = "/.well-known/jwks.json";
    let mut world = World::with(|document| document["verify_on_public"] = true.into());
    let end = world.send("GET", public, &[]);
    assert_eq!(seen(&end, "x-tenant-id"), [""; 0]);
    assert_eq!(seen(&world.send("GET", public, &[("authorization", &good())]), "x-user-id"), ["s"]);
    for bad in ["Bearer a.b.c", "Bearer"] {
        let end = world.send("GET", public, &[("authorization", bad)]);
        assert_eq!(end.verdict(), "401 token_invalid", "{bad}");
    }
    assert!(world.calls.is_empty());
    let mut without = World::new();
    assert_eq!(
        without.send("GET", public, &[("authorization", "Bearer a.b.c")]).verdict(),
        "passed"
    );
}

#[test]
fn a_token_that_nobody_verified_does_not_reach_our_headers_by_its_bytes() {
    let mut world = world(json!({"query": "access_token"}));
    for bad in ["a%0d%0ax-tenant-id:%20evil", "a%20b", "%00", "%ff", ""] {
        let path = format!("/.well-known/jwks.json?access_token={bad}");
        let end = world.send("GET", &path, &[]);
        assert_eq!(seen(&end, "authorization"), [""; 0], "{bad}");
        assert_eq!(seen(&end, ":path"), ["/.well-known/jwks.json"]);
    }
}

#[test]
fn on_kong_a_credential_is_blanked_and_cookies_in_several_headers_are_refused() {
    let mut world = World::with(|document| {
        document["host"] = "kong".into();
        document["sidecar"]["target"] = "127.0.0.1:9000".into();
        document["sources"] = json!({"cookie": "token", "forward": false});
    });
    let end = world.send("GET", AGENTS, &[("authorization", &good())]);
    assert_eq!(seen(&end, "authorization"), [""]);
    let cookie = format!("token={}", token());
    assert_eq!(seen(&world.send("GET", AGENTS, &[("cookie", &cookie)]), "cookie"), [""]);
    let two = [("cookie", "a=1"), ("cookie", cookie.as_str())];
    assert_eq!(world.send("GET", AGENTS, &two).verdict(), "400 header_invalid");
}
