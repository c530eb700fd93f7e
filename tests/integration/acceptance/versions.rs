//! V1–V13: which version answers, where Envoy routes it, and how a version ends.

use std::{sync::Arc, time::Duration};

use gatehouse_tests::{
    envoy,
    h2::client::{Answer, Connection, block_on},
    http::{
        Message, Request,
        serve::{self, Server, response},
    },
    wait,
};
use gatehouse_xtask::render::envoy::cluster;
use serde_json::{Value, json};
use sfv::{BareItem, Item, Parser};

use super::gate::{
    AGENTS, ALLOWED, Gate, OTHER_TENANT, PUBLIC, Plan, SUBJECT, TENANT, VIEWER, document, token,
    verdict, with_claim,
};

const V1: &str = "application/vnd.greenlang.v1+json";
const V2: &str = "application/vnd.greenlang.v2+json";
/// The agents of whichever version.
const UNVERSIONED: &str = "/api/registry/agents";

/// Serves three versions; `more` goes into `versions`.
fn serving(more: &Value) -> Value {
    let mut document = document();
    document["versions"] = json!({"served": ["v1", "v2", "v1-beta"], "default": "v1"});
    for (name, value) in more.as_object().unwrap() {
        document["versions"][name] = value.clone();
    }
    document
}

/// `v1` is deprecated and ends on this day, with `more`.
fn ending(sunset: &str, more: &Value) -> Value {
    let mut end = json!({
        "version": "v1", "deprecated": "2024-01-01", "sunset": sunset, "successor": "v2",
        "guide": "https://docs.greenlang.ai/<ü>",
    });
    for (name, value) in more.as_object().unwrap() {
        end[name] = value.clone();
    }
    serving(&json!({"lifecycle": [end]}))
}

const PAST: &str = "2025-06-01";
const FAR: &str = "2099-06-01";
const FAR_SUNSET: &str = "Mon, 01 Jun 2099 00:00:00 GMT";
const DEPRECATION: &str = "@1704067200";
const GUIDE: &str = "https://docs.greenlang.ai/%3C%C3%BC%3E";

fn link(below: &str) -> String {
    format!(
        "</api/v2{below}>; rel=\"successor-version\", <{GUIDE}>; rel=\"deprecation\", <{GUIDE}>; rel=\"sunset\""
    )
}

fn get(path: &str) -> Request {
    Request::new("GET", path).bearer(&token())
}

/// What became of it, by which version.
fn said(answer: &Message) -> String {
    format!("{} {}", verdict(answer), answer.header("api-version"))
}

/// The answer says how its version ends, each of it once.
#[track_caller]
fn ends(answer: &Message, link: &str) {
    for (name, expected) in [
        ("deprecation", DEPRECATION),
        ("sunset", FAR_SUNSET),
        ("link", link),
        ("api-version", "v1"),
    ] {
        assert_eq!(answer.headers.all(name), [expected], "{name}: {answer:?}");
    }
}

#[test]
fn v1_only_exact_tokens_name_a_version() {
    let gate = Gate::document(serving(&json!({})));
    for (path, expected) in [
        (AGENTS, "200 v1"),
        ("/api/v2/registry/agents", "200 v2"),
        ("/api/v1-beta/registry/agents", "200 v1-beta"),
        ("/api/v10/registry/agents", "404 version_unknown v1"),
        ("/api/v2-beta/registry/agents", "404 version_unknown v1"),
        ("/api/v01/registry/agents", "404 version_unknown v1"),
        ("/api/V1/registry/agents", "404 version_unknown v1"),
        ("/api/v1.1/registry/agents", "404 version_unknown v1"),
        ("/api/v1", "404 not_found v1"),
        ("/apiv1/registry/agents", "404 not_found v1"),
    ] {
        assert_eq!(said(&gate.send(&get(path))), expected, "{path}");
    }
    gate.sound();
}

#[test]
fn v2_accept_names_a_version() {
    let gate = Gate::document(serving(&json!({})));
    let junk = format!("{V2};a=\"{}\"", "x".repeat(8 * 1024));
    for (accept, expected) in [
        (V2, "200 v2"),
        ("application/vnd.greenlang.agents.v2+json", "200 v2"),
        ("application/vnd.greenlang+json;version=2", "200 v2"),
        ("application/vnd.greenlang+json; version=\"1-beta\"", "200 v1-beta"),
        (
            "text/html, application/vnd.greenlang.v1+json;q=0.3, application/vnd.greenlang.v2+json;q=0.4",
            "200 v2",
        ),
        ("*/*", "200 v1"),
        ("application/vnd.greenlang.v1+json;q=0, */*", "406 version_not_acceptable v1"),
        ("application/vnd.greenlang.v9+json, */*;q=0.1", "200 v1"),
        (&junk, "400 version_invalid v1"),
        (&"x".repeat(8 * 1024), "200 v1"),
    ] {
        let answer = gate.send(&get(UNVERSIONED).header("Accept", accept));
        assert_eq!(said(&answer), expected, "{accept:.60}");
    }
    // Two headers are one list.
    let split = get(UNVERSIONED).header("Accept", "text/html;q=0.9").header("Accept", V2);
    assert_eq!(said(&gate.send(&split)), "200 v2");
    // Bytes that nobody meant.
    let raw = get(UNVERSIONED).raw(b"Accept", b"application/vnd.greenlang.\xff\xfe;version=\"");
    assert_eq!(verdict(&gate.send(&raw)), "400 version_invalid");
    gate.sound();
}

#[test]
fn v3_the_path_beats_accept_unless_the_gateway_is_strict() {
    let gate = Gate::document(serving(&json!({})));
    let both = get(AGENTS).header("Accept", V2);
    assert_eq!(said(&gate.send(&both)), "200 v1");
    assert_eq!(said(&gate.send(&get(AGENTS).header("Accept", V1))), "200 v1");
    let counted = || gate.envoy.stat("wasmcustom.gatehouse_version_v1_contradicted");
    wait::until("a contradiction", Duration::from_secs(20), || Ok((counted()? == 1).then_some(())))
        .unwrap();
    let noted = "gatehouse: a path names version v1, and Accept contradicts it: the path wins";
    assert!(gate.envoy.log().contains(noted));

    let strict = Gate::document(serving(&json!({"strict": true})));
    let refused = strict.denies(&both, "400 version_invalid");
    assert_eq!(refused.headers.all("vary"), ["Accept"]);
    assert_eq!(said(&strict.send(&get(AGENTS).header("Accept", V1))), "200 v1");
}

#[test]
fn v4_what_is_not_served_is_refused_by_its_source() {
    let gate = Gate::document(serving(&json!({})));
    for (path, accept, expected) in [
        ("/api/v9/registry/agents", "*/*", "404 version_unknown"),
        (UNVERSIONED, "application/vnd.greenlang.v9+json", "406 version_not_acceptable"),
        (UNVERSIONED, "application/vnd.greenlang+json;version=", "400 version_invalid"),
    ] {
        let answer = gate.denies(&get(path).header("Accept", accept), expected);
        assert_eq!(answer.json().unwrap()["supported"], json!(["v1", "v2", "v1-beta"]));
        let linked = answer.headers.all("link");
        let expected: &[&str] = match answer.status().unwrap() {
            400 => &[],
            _ => &["</api/v1/registry/agents>; rel=\"alternate\""],
        };
        assert_eq!(linked, expected, "{path} {accept}");
    }
    assert_eq!(gate.upstream_saw().len(), 0);
}

#[test]
fn v5_a_path_without_a_version_has_the_tenants_pin_then_the_default() {
    let gate = Gate::document(serving(&json!({})));
    assert_eq!(said(&gate.send(&get(UNVERSIONED))), "200 v1");
    // Another subject's record is not remembered yet.
    let pin = |subject: &str, version: &str| {
        let members = &mut gate.outside().members;
        let key = (TENANT.to_owned(), subject.to_owned());
        members.get_mut(&key).unwrap().version_pin = Some(version.to_owned());
    };
    pin(VIEWER, "v2");
    let viewer = with_claim("sub", json!(VIEWER));
    let pinned = Request::new("GET", UNVERSIONED).bearer(&viewer);
    assert_eq!(said(&gate.send(&pinned)), "200 v2");
    assert_eq!(said(&gate.send(&pinned.header("Accept", V1))), "200 v1");
    assert_eq!(said(&gate.send(&Request::new("GET", AGENTS).bearer(&viewer))), "200 v1");
    // No pin is asked for where nobody needs to be known.
    assert_eq!(said(&gate.send(&Request::new("GET", PUBLIC))), "200 v1");
}

#[test]
fn v6_vary_names_what_was_consulted_and_a_foreign_body_is_415() {
    let upstream: serve::Handler =
        Arc::new(|_| response(200, &[("vary", "Accept-Encoding"), ("x-up", "1")], "{}"));
    let gate = Gate::with(Plan { document: serving(&json!({})), upstream, ..Plan::default() });
    let vary = |request: &Request| gate.send(request).headers.all("vary").join("|");
    assert_eq!(vary(&get(AGENTS)), "Accept-Encoding");
    assert_eq!(vary(&get(AGENTS).header("Accept", V2)), "Accept-Encoding");
    assert_eq!(vary(&get(UNVERSIONED)), "Accept-Encoding, Accept");
    assert_eq!(vary(&get(UNVERSIONED).header("Accept", V2)), "Accept-Encoding, Accept");
    let create = |path: &str, kind: &str| {
        verdict(&gate.send(&Request::new("POST", path).bearer(&token()).body(kind, "{}")))
    };
    assert_eq!(create(AGENTS, V1), ALLOWED);
    assert_eq!(create(AGENTS, V2), "415 media_type_unsupported");
    assert_eq!(create("/api/v2/registry/agents", V2), ALLOWED);
    assert_eq!(create(AGENTS, "application/vnd.greenlang.v9+json"), "415 media_type_unsupported");
}

/// A call in gRPC; the answer over HTTP/2.
fn grpc(gate: &Gate, bearer: Option<&str>) -> Answer {
    let mut request = http::Request::builder()
        .method("POST")
        .uri(format!("http://api.greenlang.local{AGENTS}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(bearer) = bearer {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    let request = request.body(()).unwrap();
    let listen = gate.envoy.listen;
    let call = async move {
        Connection::open(listen).await?.send(request, Some(vec![0, 0, 0, 0, 0])).await
    };
    block_on(call).unwrap()
}

#[test]
fn v8_v9_every_answer_says_how_its_version_ends() {
    let upstream: serve::Handler = Arc::new(|request| {
        let status = request.header("x-status").parse().unwrap_or(200);
        response(status, &[("content-type", "application/json")], "")
    });
    let plan = Plan {
        document: ending(FAR, &json!({})),
        upstream,
        sidecar: json!({"limits": {
            "endpoints": [{"method": "DELETE", "route": format!("{AGENTS}/{{agent}}"), "per_minute": 0}],
        }}),
        ..Plan::default()
    };
    let gate = Gate::with(plan);
    let agents = link("/registry/agents");
    for status in ["200", "201", "204", "304", "404", "500", "503"] {
        let answer = gate.send(&get(AGENTS).header("X-Status", status));
        assert_eq!(answer.status().unwrap().to_string(), status);
        ends(&answer, &agents);
    }
    ends(
        &gate.send(&get("/api/v1/registry/agents/7%3C%22%C3%BC?q=1")),
        &link("/registry/agents/7%3C%22%C3%BC"),
    );
    ends(&gate.send(&Request::new("HEAD", AGENTS).bearer(&token())), &agents);
    ends(&gate.denies(&Request::new("GET", AGENTS), "401 credential_missing"), &agents);
    let viewer = with_claim("sub", json!(VIEWER));
    ends(
        &gate.denies(&Request::new("POST", AGENTS).bearer(&viewer), "403 permission_denied"),
        &agents,
    );
    let delete = Request::new("DELETE", "/api/v1/registry/agents/7").bearer(&token());
    ends(&gate.denies(&delete, "429 quota_exceeded"), &link("/registry/agents/7"));
    // Metadata of gRPC, of a call that passed and of one that did not.
    let good = token();
    for bearer in [None, Some(good.as_str())] {
        let answer = grpc(&gate, bearer);
        for (name, expected) in
            [("deprecation", DEPRECATION), ("sunset", FAR_SUNSET), ("link", &agents)]
        {
            assert_eq!(answer.all(name), [expected], "{answer:?}");
        }
    }
    // The successor has no end, and what has no version neither.
    for path in ["/api/v2/registry/agents", PUBLIC] {
        let answer = gate.send(&get(path));
        for name in ["deprecation", "sunset", "link"] {
            assert_eq!(answer.headers.all(name), [""; 0], "{path} {name}");
        }
    }
}

#[test]
fn v7_v9_structured_values_parse_and_the_earliest_date_wins() {
    let upstream: serve::Handler = Arc::new(|request| {
        let deprecation = request.header("x-deprecation");
        let sunset = request.header("x-sunset");
        let headers = [
            ("deprecation", deprecation.as_str()),
            ("sunset", sunset.as_str()),
            ("link", "</api/v1/registry/agents?page=2>; rel=\"next\""),
        ];
        response(200, &headers, "{}")
    });
    let document = ending(FAR, &json!({}));
    let gate = Gate::with(Plan { document, upstream, ..Plan::default() });
    let earlier = "Sun, 31 May 2099 00:00:00 GMT";
    for (deprecation, sunset, expected) in [
        ("@1704067201", "Tue, 02 Jun 2099 00:00:00 GMT", (DEPRECATION, FAR_SUNSET)),
        ("@1704067199", earlier, ("@1704067199", earlier)),
        ("true", "soon", (DEPRECATION, FAR_SUNSET)),
    ] {
        let request = get(AGENTS).header("X-Deprecation", deprecation).header("X-Sunset", sunset);
        let answer = gate.send(&request);
        assert_eq!(answer.headers.all("deprecation"), [expected.0], "{answer:?}");
        assert_eq!(answer.headers.all("sunset"), [expected.1], "{answer:?}");
        let both =
            format!("</api/v1/registry/agents?page=2>; rel=\"next\", {}", link("/registry/agents"));
        assert_eq!(answer.headers.all("link"), [both], "{answer:?}");
        // An independent reader of RFC 9651.
        let value = answer.headers.one("deprecation").unwrap();
        let item: Item = Parser::new(&value).parse().unwrap();
        assert!(matches!(item.bare_item, BareItem::Date(_)), "{item:?}");
    }
}

#[test]
fn v10_what_is_gone_is_410_but_for_those_with_grace() {
    let gone = Gate::document(ending(PAST, &json!({})));
    let answer = gone.denies(&Request::new("GET", AGENTS), "410 version_gone");
    assert_eq!(answer.headers.all("link"), [link("/registry/agents")]);
    assert_eq!(answer.headers.all("sunset"), ["Sun, 01 Jun 2025 00:00:00 GMT"]);
    assert_eq!(answer.json().unwrap()["supported"], json!(["v2", "v1-beta"]));
    gone.denies(&get(UNVERSIONED), "410 version_gone");
    assert_eq!(said(&gone.send(&get("/api/v2/registry/agents"))), "200 v2");
    assert_eq!(grpc(&gone, None).all("grpc-status"), ["12"]);

    let graced = Gate::document(ending(PAST, &json!({"grace": [TENANT]})));
    let other = with_claim("tenant_id", json!(OTHER_TENANT));
    for path in [AGENTS, UNVERSIONED] {
        graced.denies(&Request::new("GET", path), "401 credential_missing");
        assert_eq!(said(&graced.send(&get(path))), "200 v1", "{path}");
        graced.denies(&Request::new("GET", path).bearer(&other), "410 version_gone");
    }

    let brownouts = json!([{"from": "2024-06-01", "until": "2099-05-01T10:00:00Z"}]);
    let brown = Gate::document(ending(FAR, &json!({"brownouts": brownouts})));
    let answer = brown.denies(&get(AGENTS), "410 version_gone");
    let back_s: u64 = answer.headers.one("retry-after").unwrap().parse().unwrap();
    assert!(back_s > 3600 && answer.headers.all("sunset") == [FAR_SUNSET], "{answer:?}");

    let dry = Gate::document(ending(PAST, &json!({"dry_run": true})));
    assert_eq!(said(&dry.send(&get(AGENTS))), "200 v1");
}

/// Routes and a cluster for the second version, before those of the rest.
fn second(address: std::net::SocketAddr) -> super::gate::Patch {
    Box::new(move |bootstrap| {
        let clusters = bootstrap.pointer_mut("/static_resources/clusters")?.as_array_mut()?;
        clusters.push(cluster("second", address));
        let hosts = envoy::manager(bootstrap)?.get_mut("route_config")?;
        let routes = hosts.pointer_mut("/virtual_hosts/0/routes")?.as_array_mut()?;
        let route = json!({"match": {"prefix": "/api/v2/"}, "route": {"cluster": "second"}});
        routes.insert(0, route);
        Some(())
    })
}

#[test]
fn v11_the_version_that_was_found_chooses_envoys_route() {
    let here: serve::Handler = Arc::new(|request| {
        let original = request.header("x-envoy-original-path");
        response(
            200,
            &[("x-cluster", "second"), ("x-original", &original), ("x-line", &request.start)],
            "",
        )
    });
    let server = Server::start(here).unwrap();
    let upstream: serve::Handler = Arc::new(|request| {
        let original = request.header("x-envoy-original-path");
        response(
            200,
            &[("x-cluster", "first"), ("x-original", &original), ("x-line", &request.start)],
            "",
        )
    });
    let plan = Plan {
        document: serving(&json!({})),
        bootstrap: second(server.address),
        upstream,
        ..Plan::default()
    };
    let gate = Gate::with(plan);
    let key = (TENANT.to_owned(), VIEWER.to_owned());
    gate.outside().members.get_mut(&key).unwrap().version_pin = Some("v2".to_owned());
    let viewer = with_claim("sub", json!(VIEWER));
    let pinned = || Request::new("GET", "/api/registry/agents?q=1").bearer(&viewer);
    for (request, cluster, line, original) in [
        (get(AGENTS), "first", AGENTS, ""),
        (get("/api/v2/registry/agents"), "second", "/api/v2/registry/agents", ""),
        // A client does not write the log.
        (get(AGENTS).header("X-Envoy-Original-Path", "/forged"), "first", AGENTS, ""),
        (get(UNVERSIONED), "first", AGENTS, UNVERSIONED),
        (get(UNVERSIONED).header("Accept", V2), "second", "/api/v2/registry/agents", UNVERSIONED),
        // The record is asked first, then it is known.
        (pinned(), "second", "/api/v2/registry/agents?q=1", "/api/registry/agents?q=1"),
        (pinned(), "second", "/api/v2/registry/agents?q=1", "/api/registry/agents?q=1"),
        (
            pinned().header("Accept", V1),
            "first",
            "/api/v1/registry/agents?q=1",
            "/api/registry/agents?q=1",
        ),
    ] {
        let answer = gate.send(&request);
        let line = format!("GET {line} HTTP/1.1");
        let got = ["x-cluster", "x-line", "x-original"].map(|name| answer.header(name));
        assert_eq!(got, [cluster, line.as_str(), original], "{}: {answer:?}", request.line());
    }
    // The access log has the path as it came.
    let logged = || gate.envoy.log().matches("\"path\":\"/api/registry/agents\"").count();
    wait::until("the access log", Duration::from_secs(20), || Ok((logged() == 5).then_some(())))
        .unwrap();
}

#[test]
fn v12_roles_and_limits_are_those_of_the_version_that_answers() {
    let mut document = serving(&json!({}));
    document["limiter"] = json!({"leases": false, "away": "closed"});
    let plan = Plan {
        document,
        sidecar: json!({"limits": {
            "mode": "strict",
            "endpoints": [{"method": "POST", "route": AGENTS, "per_minute": 3}],
        }}),
        ..Plan::default()
    };
    let gate = Gate::with(plan);
    let viewer = with_claim("sub", json!(VIEWER));
    let create =
        |path: &str, bearer: &str| Request::new("POST", path).bearer(bearer).json(&json!({}));
    let paths = [AGENTS, UNVERSIONED, "/api/v2/registry/agents"];
    for path in paths {
        gate.denies(&create(path, &viewer), "403 permission_denied");
        gate.allows(&create(path, &token()));
    }
    for path in paths {
        gate.denies(&create(path, &token()), "429 quota_exceeded");
    }
    gate.denies(&create(UNVERSIONED, &token()).header("Accept", V2), "429 quota_exceeded");
    // Another tenant's is missing on every way.
    let other = format!("/api/factory/tenants/{OTHER_TENANT}");
    for accept in [V1, V2] {
        gate.denies(&get(&other).header("Accept", accept), "404 not_found");
    }
}

#[test]
fn v13_uses_are_counted_and_tenants_of_a_deprecated_version_noted() {
    let gate = Gate::document(ending(FAR, &json!({})));
    for _ in 0..3 {
        gate.send(&get(AGENTS));
    }
    gate.send(&get("/api/v2/registry/agents"));
    for (version, expected) in [("v1", 3), ("v2", 1)] {
        let name = format!("wasmcustom.gatehouse_version_{version}_enterprise");
        wait::until(&name, Duration::from_secs(20), || {
            let counted = gate.envoy.stat(&name)?;
            assert!(counted <= expected, "{name} {counted}");
            Ok((counted == expected).then_some(()))
        })
        .unwrap();
    }
    let noted = format!(
        "gatehouse: tenant {TENANT} (enterprise) uses the deprecated version v1, named by path"
    );
    assert_eq!(gate.envoy.log().matches(&noted).count(), 1);
    assert!(!gate.envoy.log().contains(SUBJECT), "nobody but the tenant is named");
}
