//! Which version answers a request, what that does to it, and how a version ends (acceptance V3–V14).

use super::*;
use gatehouse_contract::rbac::Matrix;

use crate::{VersionSource, matrix::Routes};

const V1: &str = "application/vnd.greenlang.v1+json";
const V2: &str = "application/vnd.greenlang.v2+json";

/// Serves `v1`, `v2` and `v1-beta`; `more` goes into `versions`.
fn world(more: Value) -> World {
    World::with(|document| {
        document["versions"] = json!({"served": ["v1", "v2", "v1-beta"], "default": "v1"});
        for (name, value) in more.as_object().unwrap() {
            document["versions"][name] = value.clone();
        }
    })
}

/// `v1` was deprecated a year before now and ends at `sunset`, with `more`.
fn ending(sunset: &str, more: Value) -> World {
    let mut end = json!({
        "version": "v1", "deprecated": "2026-01-15", "sunset": sunset, "successor": "v2",
        "guide": "https://docs.greenlang.ai/v2",
    });
    for (name, value) in more.as_object().unwrap() {
        end[name] = value.clone();
    }
    world(json!({"lifecycle": [end]}))
}

/// In seconds since the epoch, [`NOW`] is 2027-01-15T08:00:00Z.
const AFTER: &str = "2027-02-15";
const BEFORE: &str = "2027-01-15T07:59:59Z";

const LINK: &str = "</api/v2/registry/agents>; rel=\"successor-version\", \
                    <https://docs.greenlang.ai/v2>; rel=\"deprecation\", \
                    <https://docs.greenlang.ai/v2>; rel=\"sunset\"";

/// A good `GET` with these headers beside the token; how it ended, which version answered, and by what.
fn get(world: &mut World, path: &str, headers: &[(&str, &str)]) -> (End, String) {
    let good = good();
    let mut all = vec![("authorization", good.as_str())];
    all.extend_from_slice(headers);
    let end = world.send("GET", path, &all);
    let record = end.record();
    let source = record.source.map_or("nothing", VersionSource::as_str);
    let said = format!("{} {} by {source}", end.verdict(), record.version.as_ref().unwrap());
    (end, said)
}

fn counted(world: &mut World) -> Vec<String> {
    let names: Vec<String> = world.suite.counter_names().collect();
    let counts = world.suite.take_counts(&mut world.vm).into_iter();
    let counts = counts.map(|(place, count)| format!("{} {count}", names[place]));
    counts.filter_map(|line| Some(line.strip_prefix("gatehouse_version_")?.to_owned())).collect()
}

/// What the client sees of an upstream's response.
fn response(world: &World, record: &RequestRecord, theirs: &[(&str, &str)]) -> Vec<String> {
    let mut headers: Vec<(String, String)> =
        theirs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    // Envoy asks twice of a reply of our own.
    for _ in 0..2 {
        for edit in world.suite.on_response(record, &headers) {
            match edit {
                Edit::Set(name, value) => {
                    headers.retain(|(theirs, _)| *theirs != *name);
                    headers.push((name.to_string(), value.to_string()));
                }
                Edit::Remove(name) => headers.retain(|(theirs, _)| *theirs != *name),
                Edit::Add(..) | Edit::UpstreamUri(_) => panic!("not of a version"),
            }
        }
    }
    let wanted = ["api-version", "deprecation", "sunset", "link", "vary"];
    headers.retain(|(name, _)| wanted.contains(&name.as_str()));
    headers.sort();
    headers.into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
}

#[test]
fn v3_v5_the_path_then_accept_then_the_pin_then_the_default() {
    for (pin, path, accept, expected, forwarded) in [
        (None, AGENTS, None, "passed v1 by path", AGENTS),
        (None, AGENTS, Some(V2), "passed v1 by path", AGENTS),
        (Some("v2"), AGENTS, Some(V2), "passed v1 by path", AGENTS),
        (
            Some("v1"),
            "/api/v2/registry/agents",
            None,
            "passed v2 by path",
            "/api/v2/registry/agents",
        ),
        (None, "/api/registry/agents", Some(V2), "passed v2 by accept", "/api/v2/registry/agents"),
        (
            Some("v1-beta"),
            "/api/registry/agents",
            Some(V2),
            "passed v2 by accept",
            "/api/v2/registry/agents",
        ),
        (
            Some("v1-beta"),
            "/api/registry/agents",
            None,
            "passed v1-beta by pin",
            "/api/v1-beta/registry/agents",
        ),
        (Some("v1"), "/api/registry/agents", Some("*/*"), "passed v1 by pin", AGENTS),
        (None, "/api/registry/agents", Some("application/json"), "passed v1 by default", AGENTS),
        (None, "/api/registry/agents?q=%41&tenant_id=", None, "404 not_found v1 by default", ""),
        (
            None,
            "/api/registry/agents?q=%41",
            None,
            "passed v1 by default",
            "/api/v1/registry/agents?q=%41",
        ),
        (
            Some("v2"),
            "/api/registry/%61gents?a=b",
            None,
            "passed v2 by pin",
            "/api/v2/registry/agents?a=b",
        ),
        // A pin to what is not served any more is none.
        (Some("v0"), "/api/registry/agents", None, "passed v1 by default", AGENTS),
    ] {
        let mut world = world(json!({}));
        world.principal.1.version_pin = pin.map(str::to_owned);
        let accept: Vec<_> = accept.iter().map(|value| ("accept", *value)).collect();
        let (end, said) = get(&mut world, path, &accept);
        assert_eq!(said, expected, "{pin:?} {path} {accept:?}");
        let End::Passed { .. } = &end else { continue };
        assert_eq!(end.upstream()[":path"], [forwarded], "{pin:?} {path} {accept:?}");
        let unversioned = path.starts_with("/api/registry");
        let original = path.replace("%61", "a");
        let kept = unversioned.then(|| vec![original.as_str()]);
        assert_eq!(end.upstream().get("x-envoy-original-path").cloned(), kept, "{path}");
        // What was consulted is what a cache must look at.
        let vary = response(&world, end.record(), &[("vary", "Cookie")]).join(" ");
        let says = if unversioned { "vary: Cookie, Accept" } else { "vary: Cookie" };
        assert!(vary.ends_with(says), "{path}: {vary}");
    }
}

#[test]
fn v5_a_public_route_answers_the_same_to_whoever_asks() {
    let mut world = World::with(|document| {
        document["versions"] = json!({"served": ["v1", "v2"], "default": "v1"});
        document["verify_on_public"] = true.into();
    });
    world.principal.1.version_pin = Some("v2".to_owned());
    let (_, said) = get(&mut world, "/api/openapi.json", &[]);
    assert_eq!(said, "passed v1 by default");
    let (_, said) = get(&mut world, "/api/registry/agents", &[]);
    assert_eq!(said, "passed v2 by pin");
}

#[test]
fn v5_a_pin_that_is_not_served_is_counted_and_noted() {
    let mut world = world(json!({}));
    world.principal.1.version_pin = Some("v0\n".to_owned());
    let (end, _) = get(&mut world, "/api/registry/agents", &[]);
    let note = format!(
        "tenant {TENANT} is pinned to version v0\\n, which is not served: the default answers"
    );
    assert_eq!(end.record().notes, [note]);
    let (end, _) = get(&mut world, "/api/registry/agents", &[]);
    assert_eq!(end.record().notes, [""; 0]);
    assert_eq!(counted(&mut world), ["v1_pro 2", "pin_not_served 2"]);
}

#[test]
fn v3_a_contradiction_is_counted_and_in_strict_mode_refused() {
    let mut lenient = world(json!({}));
    let (end, said) = get(&mut lenient, AGENTS, &[("accept", V2)]);
    assert_eq!(said, "passed v1 by path");
    let note = "a path names version v1, and Accept contradicts it: the path wins";
    assert_eq!(end.record().notes, [note]);
    for accept in
        [V1, "*/*", "application/vnd.greenlang.v2+json, application/vnd.greenlang.v1+json;q=0.1"]
    {
        get(&mut lenient, AGENTS, &[("accept", accept)]);
    }
    get(&mut lenient, AGENTS, &[("accept", "application/vnd.greenlang+json;version=")]);
    assert_eq!(counted(&mut lenient), ["v1_pro 5", "v1_contradicted 2"]);

    let mut strict = world(json!({"strict": true}));
    for (accept, expected) in [
        (V1, "passed v1 by path"),
        ("*/*", "passed v1 by path"),
        (V2, "400 version_invalid v1 by nothing"),
        ("application/vnd.greenlang+json;version=", "400 version_invalid v1 by nothing"),
    ] {
        let (end, said) = get(&mut strict, AGENTS, &[("accept", accept)]);
        assert_eq!(said, expected, "{accept}");
        if let End::Refused(_) = &end {
            assert_eq!(end.problem()["supported"], json!(["v1", "v2", "v1-beta"]));
            assert_eq!(end.header("vary"), Some("Accept"));
        }
    }
}

#[test]
fn v4_what_is_not_served_is_refused_by_its_source_and_lists_what_is() {
    let mut world = world(json!({}));
    let unversioned = "/api/registry/agents";
    for (path, accept, expected) in [
        ("/api/v9/registry/agents", "*/*", "404 version_unknown"),
        (unversioned, "application/vnd.greenlang.v9+json", "406 version_not_acceptable"),
        (unversioned, "application/vnd.greenlang.v1+json;q=0", "406 version_not_acceptable"),
        (unversioned, "application/vnd.greenlang+json;version=", "400 version_invalid"),
    ] {
        let (end, said) = get(&mut world, path, &[("accept", accept)]);
        assert!(said.starts_with(expected), "{path} {accept}: {said}");
        assert_eq!(end.problem()["supported"], json!(["v1", "v2", "v1-beta"]));
        let link = "</api/v1/registry/agents>; rel=\"alternate\"";
        let expected = (end.reply().status != 400).then_some(link);
        assert_eq!(end.header("link"), expected, "{path} {accept}");
    }
    // Nobody needs to be known for it.
    let end = world.send("GET", "/api/v9/registry/agents", &[]);
    assert_eq!(end.verdict(), "404 version_unknown");
    // What Accept leaves out is left out, whoever chose it.
    let mut world = self::world(json!({}));
    world.principal.1.version_pin = Some("v2".to_owned());
    let not = |version: &str| format!("{version};q=0, */*");
    for (accept, expected) in
        [(not(V1), "passed v2 by pin"), (not(V2), "406 version_not_acceptable v2 by pin")]
    {
        assert_eq!(get(&mut world, unversioned, &[("accept", &accept)]).1, expected);
    }
}

#[test]
fn v6_a_body_of_another_version_is_415() {
    let mut world = world(json!({}));
    world.principal.1.version_pin = Some("v2".to_owned());
    for (path, content, expected) in [
        (AGENTS, "application/json", "passed v1 by path"),
        (AGENTS, V1, "passed v1 by path"),
        (AGENTS, V2, "415 media_type_unsupported v1 by path"),
        (AGENTS, "application/vnd.greenlang.v9+json", "415 media_type_unsupported v1 by path"),
        ("/api/registry/agents", V2, "passed v2 by pin"),
        ("/api/registry/agents", V1, "415 media_type_unsupported v2 by pin"),
    ] {
        let (_, said) = get(&mut world, path, &[("content-type", content)]);
        assert_eq!(said, expected, "{path} {content}");
    }
}

#[test]
fn v9_every_answer_says_how_its_version_ends() {
    let mut world = ending(AFTER, json!({}));
    let expected = [
        "api-version: v1".to_owned(),
        "deprecation: @1768435200".to_owned(),
        format!("link: {LINK}"),
        "sunset: Mon, 15 Feb 2027 00:00:00 GMT".to_owned(),
    ];
    let (passed, _) = get(&mut world, AGENTS, &[]);
    for status in ["200", "201", "204", "304", "404", "502"] {
        let theirs = [(":status", status), ("api-version", "v7")];
        assert_eq!(response(&world, passed.record(), &theirs), expected, "{status}");
    }
    let unknown = world.send("GET", AGENTS, &[]);
    assert_eq!(unknown.verdict(), "401 credential_missing");
    world.check["allowed"] = false.into();
    let (over, _) = get(&mut world, AGENTS, &[]);
    assert_eq!(over.verdict(), "429 quota_exceeded");
    let grpc = world.send("POST", AGENTS, &[("content-type", "application/grpc")]);
    for refused in [unknown, over, grpc] {
        assert_eq!(refused.header("deprecation"), Some("@1768435200"));
        assert_eq!(refused.header("sunset"), Some("Mon, 15 Feb 2027 00:00:00 GMT"));
        assert_eq!(refused.header("link"), Some(LINK));
        // Once more on its way out.
        let sent: Vec<_> =
            refused.reply().headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(response(&world, refused.record(), &sent), expected);
    }
    let (other, _) = get(&mut world, "/api/v2/registry/agents", &[]);
    assert_eq!(response(&world, other.record(), &[]), ["api-version: v2"]);
    let public = world.send("POST", "/oauth2/token", &[]);
    assert_eq!(response(&world, public.record(), &[]), ["api-version: v1"]);
}

#[test]
fn v10_what_is_gone_is_410_but_for_grace_and_dry_runs() {
    let problem = |end: &End| {
        assert_eq!(end.header("link"), Some(LINK));
        assert_eq!(end.problem()["supported"], json!(["v2", "v1-beta"]));
    };
    // Nobody has grace: nobody needs to be known.
    let mut world = ending(BEFORE, json!({}));
    let end = world.send("GET", AGENTS, &[]);
    assert_eq!(end.verdict(), "410 version_gone");
    problem(&end);
    assert_eq!(world.asked(), [""; 0]);
    let (_, said) = get(&mut world, "/api/v2/registry/agents", &[]);
    assert_eq!(said, "passed v2 by path");
    assert_eq!(counted(&mut world), ["v1_refused 1", "v2_pro 1"]);

    // Somebody has: who it is comes first, and is never refused early.
    for (path, accept) in
        [(AGENTS, "*/*"), ("/api/registry/agents", V1), ("/api/registry/agents", "*/*")]
    {
        let mut graced = ending(BEFORE, json!({"grace": [TENANT]}));
        assert_eq!(
            graced.send("GET", path, &[("accept", accept)]).verdict(),
            "401 credential_missing"
        );
        let (end, said) = get(&mut graced, path, &[("accept", accept)]);
        assert!(said.starts_with("passed v1"), "{path} {accept}: {said}");
        let note = format!("tenant {TENANT} (pro) uses the deprecated version v1, named by ");
        assert!(end.record().notes[0].starts_with(&note), "{:?}", end.record().notes);
        assert!(end.record().notes[0].ends_with(", and passes by grace"));
        let mut other = ending(BEFORE, json!({"grace": [OTHER_TENANT]}));
        let (end, said) = get(&mut other, path, &[("accept", accept)]);
        assert!(said.starts_with("410 version_gone v1"), "{path} {accept}: {said}");
        problem(&end);
    }

    let mut dry = ending(BEFORE, json!({"dry_run": true}));
    let (end, said) = get(&mut dry, AGENTS, &[]);
    assert_eq!(said, "passed v1 by path");
    assert!(end.record().notes[0].ends_with(", and passes by the dry run alone"));
    assert_eq!(counted(&mut dry), ["v1_pro 1", "v1_would_refuse 1"]);
}

#[test]
fn v10_a_pin_leads_past_a_default_that_is_gone_and_into_one_that_is() {
    for (pin, expected) in [
        (None, "410 version_gone v1 by default"),
        (Some("v1"), "410 version_gone v1 by pin"),
        (Some("v2"), "passed v2 by pin"),
    ] {
        let mut world = ending(BEFORE, json!({}));
        world.principal.1.version_pin = pin.map(str::to_owned);
        assert_eq!(get(&mut world, "/api/registry/agents", &[]).1, expected);
    }
}

#[test]
fn v10_a_brown_out_says_when_it_ends() {
    let windows = json!([{"from": "2027-01-15T07:30:00Z", "until": "2027-01-15T08:10:00Z"}]);
    let mut world = ending(AFTER, json!({"brownouts": windows}));
    let (end, said) = get(&mut world, AGENTS, &[]);
    assert_eq!(said, "410 version_gone v1 by path");
    assert_eq!(end.header("retry-after"), Some("600"));
    assert_eq!(end.header("sunset"), Some("Mon, 15 Feb 2027 00:00:00 GMT"));
    // The version itself is not gone yet.
    assert_eq!(end.problem()["supported"], json!(["v1", "v2", "v1-beta"]));
    world.pass(Duration::from_secs(599));
    assert_eq!(get(&mut world, AGENTS, &[]).0.header("retry-after"), Some("1"));
    world.pass(Duration::from_secs(1));
    assert_eq!(get(&mut world, AGENTS, &[]).1, "passed v1 by path");
}

#[test]
fn v12_roles_limits_and_tenants_are_asked_of_the_version_that_answers() {
    let world = |pin: Option<&str>| {
        let mut world = world(json!({})).roles(&[Role::Viewer], false);
        world.principal.1.version_pin = pin.map(str::to_owned);
        world
    };
    let good = good();
    let headers = [("authorization", good.as_str())];
    for (pin, path) in [
        (None, "/api/registry/agents"),
        (Some("v2"), "/api/registry/agents"),
        (Some("v1"), "/api/v2/registry/agents"),
    ] {
        // A viewer may read and not write, however the version was found.
        let mut viewer = world(pin);
        assert_eq!(viewer.send("POST", path, &headers).verdict(), "403 permission_denied");
        assert_eq!(viewer.send("DELETE", path, &headers).verdict(), "405 method_not_allowed");
        assert_eq!(viewer.send("GET", path, &headers).verdict(), "passed");
        // One limit for all of them: no version is a way around it.
        let asked = viewer.calls.iter().find(|call| call.starts_with("/v1/lease")).unwrap();
        assert!(asked.contains("\"route\":\"/api/v1/registry/agents\""), "{asked}");
    }
    // Another tenant's is missing on every way.
    let other = format!("/api/factory/tenants/{OTHER_TENANT}");
    let own = format!("/api/factory/tenants/{TENANT}");
    for pin in [None, Some("v2")] {
        assert_eq!(world(pin).send("GET", &other, &headers).verdict(), "404 not_found", "{pin:?}");
        assert_eq!(world(pin).send("GET", &own, &headers).verdict(), "passed", "{pin:?}");
    }
    // A path that is below /api/ is nothing else's.
    assert_eq!(world(None).send("GET", "/api/oauth2/token", &headers).verdict(), "404 not_found");
    assert_eq!(world(None).send("GET", "/api/", &headers).verdict(), "404 not_found");
}

#[test]
fn v13_who_uses_a_deprecated_version_is_noted_once_a_minute() {
    let mut world = ending(AFTER, json!({}));
    let note = format!("tenant {TENANT} (pro) uses the deprecated version v1, named by path");
    let mut noted = |seconds: u64, path: &str| {
        world.pass(Duration::from_secs(seconds));
        get(&mut world, path, &[]).0.record().notes.clone()
    };
    assert_eq!(noted(0, AGENTS), [note.as_str()]);
    assert_eq!(noted(59, AGENTS), [""; 0]);
    assert_eq!(noted(0, "/api/v2/registry/agents"), [""; 0]);
    assert_eq!(noted(1, AGENTS), [note.as_str()]);
    assert_eq!(counted(&mut world), ["v1_pro 3", "v2_pro 1"]);
}

#[test]
fn v14_the_sunset_is_a_second_of_the_requests_own_time() {
    let mut world = ending("2027-01-15T08:00:01Z", json!({}));
    assert_eq!(get(&mut world, AGENTS, &[]).1, "passed v1 by path");
    world.pass(Duration::from_millis(999));
    assert_eq!(get(&mut world, AGENTS, &[]).1, "passed v1 by path");
    world.pass(Duration::from_millis(1));
    assert_eq!(get(&mut world, AGENTS, &[]).1, "410 version_gone v1 by path");
    // A clock that goes back takes the phase along.
    world.now -= Duration::from_millis(1);
    assert_eq!(get(&mut world, AGENTS, &[]).1, "passed v1 by path");
}

#[test]
fn v11_on_kong_the_upstreams_path_is_a_property() {
    let mut world = World::with(|document| {
        document["host"] = "kong".into();
        document["sidecar"]["target"] = "127.0.0.1:9000".into();
        document["versions"] = json!({"served": ["v1", "v2"], "default": "v2"});
    });
    let (end, said) = get(&mut world, "/api/registry/agents?a=b", &[]);
    assert_eq!(said, "passed v2 by default");
    assert_eq!(end.upstream()["upstream_uri"], ["/api/v2/registry/agents?a=b"]);
    assert!(!end.upstream().contains_key("x-envoy-original-path"));
}

#[test]
fn v10_a_preflight_is_answered_so_that_scripts_see_the_410() {
    let ask = [("origin", "https://app.example"), ("access-control-request-method", "GET")];
    for (path, grace) in
        [(AGENTS, json!([])), (AGENTS, json!([TENANT])), ("/api/registry/agents", json!([]))]
    {
        let mut world = ending(BEFORE, json!({"grace": grace}));
        assert_eq!(world.send("OPTIONS", path, &ask).verdict(), "passed", "{path}");
        // What only looks like one does not open it.
        let end = world.send("OPTIONS", path, &ask[..1]).verdict();
        assert!(["410 version_gone", "401 credential_missing"].contains(&&*end), "{path}: {end}");
    }
}

#[test]
fn v12_a_pinned_version_with_routes_of_its_own_has_its_own_rules() {
    let matrix = json!({
        "permissions": {"agents:read": ["viewer", "admin"], "agents:write": ["admin"]},
        "routes": [
            {"method": "GET", "path": "/api/v1/registry/agents", "permission": "agents:read"},
            {"method": "GET", "path": "/api/v1/registry/tenants/{agent}", "permission": "agents:read"},
            {"method": "GET", "path": "/api/v2/registry/agents", "permission": "agents:write"},
            {"method": "GET", "path": "/api/v2/registry/tenants/{tenant}", "permission": "agents:read"},
        ],
    });
    let tenants = format!("/api/registry/tenants/{OTHER_TENANT}");
    for (pin, path, expected) in [
        (None, "/api/registry/agents", "passed v1 by default"),
        (Some("v2"), "/api/registry/agents", "403 permission_denied v2 by pin"),
        (None, &tenants, "passed v1 by default"),
        (Some("v2"), &tenants, "404 not_found v2 by pin"),
    ] {
        let mut world = world(json!({})).roles(&[Role::Viewer], false);
        let matrix = Matrix::parse(&matrix.to_string()).unwrap();
        world.suite.routes = Routes::new(matrix, world.suite.versions.tokens());
        world.principal.1.version_pin = pin.map(str::to_owned);
        assert_eq!(get(&mut world, path, &[]).1, expected, "{pin:?} {path}");
    }
}
