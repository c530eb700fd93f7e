//! CORS before everything that may refuse (ADR 0005), on every response.

use super::*;

const APP: &str = "https://app.greenlang.ai";
const ALLOW: &str = "access-control-allow-origin";

fn world(cors: Value) -> World {
    World::with(|document| {
        document["cors"] = json!({"origins": [APP], "credentials": true});
        for (name, value) in cors.as_object().unwrap() {
            document["cors"][name] = value.clone();
        }
    })
}

fn preflight(world: &mut World, path: &str, origin: &str) -> End {
    let asks = ("access-control-request-method", "DELETE");
    world.send("OPTIONS", path, &[("origin", origin), asks])
}

/// The response that the client gets for this one of the upstream, or of ours.
fn response(world: &World, end: &End, theirs: &[(&str, &str)]) -> Vec<(String, String)> {
    let edits = world.suite.on_response(end.record(), theirs);
    let mut headers: Vec<(String, String)> =
        theirs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for edit in edits {
        let (name, value) = match edit {
            Edit::Set(name, value) => (name, Some(value.to_string())),
            Edit::Remove(name) => (name, None),
            other => panic!("{other:?}"),
        };
        headers.retain(|(ours, _)| !ours.eq_ignore_ascii_case(&name));
        headers.extend(value.map(|value| (name.to_string(), value)));
    }
    headers
}

fn values<'h>(headers: &'h [(String, String)], name: &str) -> Vec<&'h str> {
    headers.iter().filter(|(ours, _)| ours == name).map(|(_, value)| value.as_str()).collect()
}

#[test]
fn x9_a_preflight_is_answered_before_anybody_is_asked_for_a_credential() {
    let mut world = world(json!({}));
    for authorization in [None, Some("Bearer x"), Some(good().as_str())] {
        let mut headers = vec![("origin", APP), ("access-control-request-method", "POST")];
        headers.extend(authorization.map(|value| ("authorization", value)));
        let end = world.send("OPTIONS", AGENTS, &headers);
        assert_eq!(end.verdict(), "204 answered");
        assert_eq!(end.header(ALLOW), Some(APP));
        assert_eq!(end.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(end.header("access-control-allow-methods"), Some("GET, HEAD, POST"));
        assert_eq!(end.header("access-control-max-age"), Some("600"));
        assert_eq!(
            end.header("vary"),
            Some("Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
        );
        assert!(end.header("access-control-allow-headers").unwrap().contains("authorization"));
        assert_eq!(end.header("access-control-expose-headers"), None);
        assert_eq!(end.header("content-type"), None);
        assert!(end.reply().body.is_empty());
    }
    assert_eq!(world.calls, [""; 0]);
}

#[test]
fn x9_a_preflight_of_a_foreign_origin_is_told_nothing() {
    let mut world = world(json!({}));
    for foreign in ["https://evilgreenlang.ai", "https://app.greenlang.ai.evil", "null"] {
        let end = preflight(&mut world, AGENTS, foreign);
        assert_eq!(end.verdict(), "204 answered");
        let names = end.reply().headers.iter().map(|(name, _)| *name);
        assert!(names.into_iter().all(|name| !name.starts_with("access-")), "{end:?}");
        assert!(end.header("vary").unwrap().starts_with("Origin, "));
    }
    let end = preflight(&mut world, "/internal/v1/principal", APP);
    assert_eq!(end.verdict(), "401 credential_missing", "what no rule opens stays closed");
    assert_eq!(end.header(ALLOW), Some(APP));
    let bare = world.send("OPTIONS", AGENTS, &[("origin", APP)]);
    assert_eq!(bare.verdict(), "401 credential_missing");
}

#[test]
fn x9_private_networks_are_opened_on_demand_alone() {
    for (open, asked, expected) in
        [(true, "true", Some("true")), (true, "false", None), (false, "true", None)]
    {
        let mut world = world(json!({ "private_network": open }));
        let headers = [
            ("origin", APP),
            ("access-control-request-method", "GET"),
            ("access-control-request-private-network", asked),
        ];
        let end = world.send("OPTIONS", AGENTS, &headers);
        assert_eq!(end.header("access-control-allow-private-network"), expected, "{open} {asked}");
        let varies = end.header("vary").unwrap().ends_with("Private-Network");
        assert_eq!(varies, open);
    }
}

#[test]
fn x8_every_refusal_says_which_origin_may_read_it() {
    let mut world = world(json!({}));
    let bad = "Bearer x";
    for (method, path, authorization) in [
        ("GET", AGENTS, ""),
        ("GET", AGENTS, bad),
        ("GET", "/api/v9/x", bad),
        ("GET", "/a//b", bad),
        ("GET", "/oauth2/token", bad),
    ] {
        let mut headers = vec![("origin", APP)];
        if !authorization.is_empty() {
            headers.push(("authorization", authorization));
        }
        let end = world.send(method, path, &headers);
        assert_eq!(end.header(ALLOW), Some(APP), "{path}: {}", end.verdict());
        assert_eq!(end.header("vary"), Some("Origin"));
        let exposed = end.header("access-control-expose-headers").unwrap();
        for name in
            ["ratelimit", "retry-after", "www-authenticate", "deprecation", "sunset", "link"]
        {
            assert!(exposed.split(", ").any(|ours| ours == name), "{name}: {exposed}");
        }
        // Hosts that send replies of our own through the response's step double nothing.
        let Reply { status, headers, .. } = end.reply();
        let status = status.to_string();
        let mut sent = vec![(":status", status.as_str())];
        sent.extend(headers.iter().map(|(name, value)| (*name, value.as_str())));
        let twice = response(&world, &end, &sent);
        assert_eq!(values(&twice, ALLOW), [APP]);
        assert_eq!(values(&twice, "vary"), ["Origin"]);
    }
    world.check = json!({"allowed": false, "retry_after_s": 3, "limits": [
        {"name": "tenant", "limit": 600, "window_s": 60, "remaining": 0, "reset_s": 3},
    ]});
    let end = world.send("GET", AGENTS, &[("origin", APP), ("authorization", &good())]);
    assert_eq!(end.verdict(), "429 quota_exceeded");
    assert_eq!(end.header(ALLOW), Some(APP));
}

#[test]
fn x9_the_upstreams_own_words_are_replaced_and_vary_is_kept() {
    let mut world = world(json!({}));
    let theirs = [
        (":status", "200"),
        (ALLOW, "*"),
        ("access-control-allow-methods", "TRACE"),
        ("vary", "Accept-Encoding"),
    ];
    for (origin, expected) in
        [(Some(APP), vec![APP]), (Some("https://evil"), vec![]), (None, vec![])]
    {
        let good = good();
        let mut headers = vec![("authorization", good.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        let end = world.send("GET", AGENTS, &headers);
        assert_eq!(end.verdict(), "passed", "a foreign origin is judged as anybody");
        let seen = response(&world, &end, &theirs);
        assert_eq!(values(&seen, ALLOW), expected, "{origin:?}");
        assert_eq!(values(&seen, "access-control-allow-methods"), [""; 0]);
        assert_eq!(values(&seen, "vary"), ["Accept-Encoding, Origin"]);
    }
}

#[test]
fn j34_a_browser_reads_the_status_of_grpc_web() {
    let mut world = world(json!({}));
    let headers = [("origin", APP), ("content-type", "application/grpc-web+proto")];
    let end = world.send("POST", AGENTS, &headers);
    let exposed = end.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("grpc-status, grpc-message"), "{exposed}");
}

#[test]
fn without_a_word_on_cors_it_is_the_upstreams() {
    let mut world = World::new();
    assert_eq!(preflight(&mut world, AGENTS, APP).verdict(), "passed");
    let end = world.send("GET", AGENTS, &[("origin", APP), ("authorization", &good())]);
    let theirs = [(":status", "200"), (ALLOW, "*")];
    let seen = response(&world, &end, &theirs);
    assert_eq!(values(&seen, ALLOW), ["*"]);
    assert_eq!(values(&seen, "vary"), [""; 0]);
    let refused = world.send("GET", AGENTS, &[("origin", APP)]);
    assert_eq!(refused.header(ALLOW), None);
}
