//! Ids, protected headers, paths and versions; and bytes that nobody meant.

use super::*;

/// Every spelling under which some upstream would read a tenant's id.
const SPELLINGS: &[&str] =
    &["X-Tenant-ID", "x_tenant_id", "X-Tenant_ID", "x-gatehouse-context", "X_User_Roles"];

#[test]
fn t1_identity_headers_are_gone_on_public_routes_too() {
    let mut world = World::new();
    let spoofed: Vec<_> = SPELLINGS.iter().map(|name| (*name, "evil")).collect();
    let end = world.send("POST", "/oauth2/token", &spoofed);
    let upstream = end.upstream();
    assert!(!upstream.values().flatten().any(|value| value.contains("evil")), "{upstream:?}");
    assert!(!upstream.contains_key("x-tenant-id"));
}

#[test]
fn t2_t3_the_upstream_sees_one_value_and_it_is_ours() {
    let mut world = World::new().roles(&[Role::Viewer, Role::Developer], false);
    let good = good();
    let mut headers: Vec<_> = SPELLINGS.iter().map(|name| (*name, "evil")).collect();
    headers.push(("authorization", &good));
    let end = world.send("GET", AGENTS, &headers);
    let upstream = end.upstream();
    for (name, expected) in [
        ("x-tenant-id", TENANT),
        ("x-tenant-tier", "pro"),
        ("x-user-id", "s"),
        ("x-user-roles", "viewer,developer"),
        ("x-auth-method", "jwt"),
        ("x-request-id", &*end.record().request_id),
        ("authorization", good.as_str()),
    ] {
        assert_eq!(upstream[name], [expected], "{name}");
    }
    assert!(!upstream.values().flatten().any(|value| value.contains("evil")), "{upstream:?}");
}

#[test]
fn t2_a_protected_header_that_came_twice_is_refused_before_anything_else() {
    let mut world = World::new();
    for name in gatehouse_contract::header::IDENTITY.iter().chain(&["x-request-id"]) {
        let upper = name.to_ascii_uppercase();
        for path in [AGENTS, "/oauth2/token"] {
            let end = world.send("POST", path, &[(name, "a"), (&upper, "b")]);
            assert_eq!(end.verdict(), "400 header_invalid", "{name} {path}");
        }
        let end = world.send("POST", "/oauth2/token", &[(name, "a")]);
        assert_eq!(end.verdict(), "passed", "{name}");
    }
}

#[test]
fn t4_connection_cannot_take_our_headers_away() {
    let mut world = World::new();
    let good = good();
    let headers = [("authorization", good.as_str()), ("connection", "close, X-Tenant-ID")];
    let end = world.send("GET", AGENTS, &headers);
    assert_eq!(end.upstream()["connection"], ["close"]);
    let headers = [("authorization", good.as_str()), ("connection", "Upgrade")];
    let end = world.send("GET", AGENTS, &headers);
    assert_eq!(end.upstream()["connection"], ["Upgrade"], "an upgrade is left alone (J35)");
}

#[test]
fn t10_baggage_names_our_tenant_beside_the_clients_members() {
    let mut world = World::new();
    let good = good();
    let ours = format!("a=1,b=2,tenant.id={TENANT}");
    let headers =
        [("authorization", good.as_str()), ("baggage", "a=1,tenant.id=evil"), ("baggage", "b=2")];
    assert_eq!(world.send("GET", AGENTS, &headers).upstream()["baggage"], [ours.as_str()]);
    let public = |world: &mut World, value: &str| {
        let end = world.send("POST", "/oauth2/token", &[("baggage", value)]);
        end.upstream().get("baggage").map(|values| values.join("|"))
    };
    assert_eq!(public(&mut world, "tenant.id=evil,a=1").as_deref(), Some("a=1"));
    assert_eq!(public(&mut world, "tenant.id=evil"), None);
}

#[test]
fn p6_headers_that_replace_the_method_are_refused() {
    let mut world = World::new();
    for name in ["X-HTTP-Method-Override", "x_http_method", "x-method-override"] {
        let end = world.send("POST", "/oauth2/token", &[(name, "DELETE")]);
        assert_eq!(end.verdict(), "400 header_invalid", "{name}");
    }
}

#[test]
fn p7_what_is_judged_is_what_is_forwarded() {
    let mut world = World::new();
    let good = good();
    let mut path = |target: &str| {
        let end = world.send("GET", target, &[("authorization", &good)]);
        match &end {
            End::Passed { .. } => end.upstream()[":path"].join("|"),
            End::Refused(_) => end.verdict(),
        }
    };
    assert_eq!(path("/api/v1/registry/%61gents?q=%2F..%2f"), "/api/v1/registry/agents?q=%2F..%2f");
    assert_eq!(path("/api/v1/registry/agents"), "/api/v1/registry/agents");
    for ambiguous in [
        "/api/v1/registry/../registry/agents",
        "/api/v1//registry/agents",
        "/api/v1/registry%2fagents",
        "/api/v1/registry/agents;x=1",
        "/api/v1/registry\\agents",
        "/internal%2fv1/principal",
        "",
        "*",
        "http://gateway/api/v1/registry/agents",
    ] {
        assert_eq!(path(ambiguous), "400 path_invalid", "{ambiguous}");
    }
}

#[test]
fn p1_a_request_without_one_target_is_refused() {
    let mut world = World::new();
    for headers in [
        vec![(":method", "GET")],
        vec![(":method", "GET"), (":path", "/"), (":path", "/")],
        vec![(":path", "/")],
        vec![],
    ] {
        assert_eq!(world.send_raw(&headers).verdict(), "400 path_invalid", "{headers:?}");
    }
}

#[test]
fn v4_an_unknown_version_is_404_and_lists_those_that_are_served() {
    let mut world = World::new();
    for path in ["/api/v2/registry/agents", "/api/v10", "/api/V1/x", "/api/v1-beta/x"] {
        let end = world.send("GET", path, &[]);
        assert_eq!(end.verdict(), "404 version_unknown", "{path}");
        assert_eq!(end.problem()["supported"], json!(["v1"]));
        assert_eq!(end.header("api-version"), Some("v1"));
    }
    assert_eq!(world.send("GET", AGENTS, &[]).verdict(), "401 credential_missing");
}

#[test]
fn x10_a_sound_request_id_is_kept_and_any_other_is_replaced() {
    let mut world = World::new();
    let end = world.send("GET", AGENTS, &[("x-request-id", "client-7")]);
    assert_eq!(end.header("x-request-id"), Some("client-7"));
    assert_eq!(end.problem()["request_id"], "client-7");
    for bad in ["", "a b", "<script>", "a,b"] {
        let end = world.send("POST", "/oauth2/token", &[("x-request-id", bad)]);
        let id = end.record().request_id.clone();
        assert_eq!(id.len(), 36, "{bad:?}");
        assert_eq!(end.upstream()["x-request-id"], [&*id]);
    }
}

#[test]
fn x10_an_unsound_trace_goes_with_its_state() {
    const SOUND: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut world = World::new();
    for (traces, kept) in [
        (vec![SOUND], true),
        (vec!["00-0-0-0"], false),
        (vec![SOUND, SOUND], false),
        (vec![SOUND, "00-0-0-0"], false),
    ] {
        let mut headers = vec![("tracestate", "a=1")];
        headers.extend(traces.iter().map(|trace| ("traceparent", *trace)));
        let end = world.send("POST", "/oauth2/token", &headers);
        let upstream = end.upstream();
        let expected = kept.then(|| vec![SOUND]);
        assert_eq!(upstream.get("traceparent").cloned(), expected, "{traces:?}");
        assert_eq!(upstream.contains_key("tracestate"), kept, "{traces:?}");
    }
}

#[test]
fn x10_the_access_line_says_whose_request_it_was_and_how_it_was_limited() {
    let good = good();
    let line = |world: &mut World| {
        let end = world.send("POST", AGENTS, &[("authorization", &good)]);
        let reason = match &end {
            End::Passed { .. } => None,
            End::Refused(reply) => reply.reason,
        };
        world.suite.access_line(end.record(), reason)
    };
    assert_eq!(line(&mut World::new()), None);
    let mut world = World::with(|document| document["access_log"] = true.into());
    let passed = line(&mut world).unwrap();
    assert!(passed.starts_with(&format!("tenant={TENANT} tier=pro ")), "{passed}");
    assert!(passed.contains(" limit=allowed remaining=599"), "{passed}");
    world.check["allowed"] = false.into();
    let denied = line(&mut world).unwrap();
    assert!(denied.contains(" limit=denied ") && denied.ends_with("=quota_exceeded"), "{denied}");
}

#[test]
fn j34_grpc_callers_are_answered_in_grpc() {
    let mut world = World::new();
    let headers = [("content-type", "application/grpc+proto")];
    let end = world.send("POST", AGENTS, &headers);
    let reply = end.reply();
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(reply.grpc.as_ref().map(|status| status.code), Some(16));
}

/// A small generator of our own: the same bytes on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.below(256) as u8).collect()
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

#[test]
fn j30_any_bytes_end_in_a_verdict_and_none_of_them_reach_our_headers() {
    const NAMES: &[&str] = &[
        ":path",
        ":method",
        "authorization",
        "x-tenant-id",
        "x_user_id",
        "baggage",
        "connection",
        "x-request-id",
        "content-type",
        "x-http-method",
        "cookie",
        "x-api-key",
        ":authority",
        "host",
        "x-gatehouse-reason",
    ];
    const PIECES: &[&str] = &[
        "Bearer ",
        ".",
        "%2e",
        "%",
        "/",
        "/api/v1/registry/agents",
        "tenant.id=",
        ",",
        "eyJhbGciOiJSUzI1NiJ9",
        "application/grpc",
        "x-tenant-id",
        "?",
        "\u{e9}",
        "..",
        ";",
        "token=",
        "__Host-gatehouse=",
        "access_token=",
        "tenant_id=",
        "&",
        "[",
        ":",
        ".api.example.com",
    ];
    let mut random = Random(0x5eed_5eed_5eed_5eed);
    let mut world = World::with(|document| {
        document["sources"] = json!({"cookie": "token", "query": "access_token", "forward": false});
        document["sessions"] = true.into();
        document["verify_on_public"] = true.into();
        document["tenant_host_suffix"] = ".api.example.com".into();
    });
    let good = good();
    for round in 0..4_000 {
        let mut headers: Vec<(Vec<u8>, Vec<u8>)> = vec![
            (b":method".to_vec(), b"GET".to_vec()),
            (b":path".to_vec(), AGENTS.into()),
            (b"authorization".to_vec(), good.clone().into()),
        ];
        for _ in 0..random.below(6) {
            let name = match random.below(3) {
                0 => random.bytes(12),
                _ => random.pick(NAMES).into(),
            };
            let mut value = random.bytes(8);
            for _ in 0..random.below(4) {
                value.extend_from_slice(random.pick(PIECES).as_bytes());
            }
            match headers.iter().position(|(known, _)| *known == name) {
                Some(at) if random.below(4) > 0 => headers[at].1 = value,
                _ => headers.push((name, value)),
            }
        }
        let end = world.send_raw(&headers);
        if let End::Passed { .. } = &end {
            let upstream = end.upstream();
            if let Some(tenant) = upstream.get("x-tenant-id") {
                assert_eq!(tenant, &[TENANT], "round {round}");
            }
            assert!(!upstream.contains_key("x_user_id"), "round {round}");
        }
    }
}
