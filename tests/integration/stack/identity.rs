//! Who calls, and what the upstream is told of it.

use anyhow::Result;
use gatehouse_contract::{Role, Tier, header};
use gatehouse_tests::{
    h2::{self, End},
    http::{Request, exchange},
    world::{MARK, World},
};

use super::{AGENTS, refusal, request};

/// What a client would call itself.
const EVIL: &str = "11111111-1111-4111-8111-111111111111";

pub fn no_token_is_401_with_a_challenge(world: &World) -> Result<()> {
    let (request, id) = request("GET", AGENTS);
    let answer = request.send(world.gateway)?;
    assert_eq!(refusal(&answer), "401 credential_missing");
    assert_eq!(answer.headers.all("www-authenticate"), [r#"Bearer realm="gatehouse""#]);
    assert_eq!(answer.headers.all("cache-control"), ["no-store"]);
    assert_eq!(answer.headers.all("api-version"), ["v1"]);
    assert_eq!(world.upstream_saw(&id).len(), 0);
    Ok(())
}

pub fn a_good_token_brings_the_tenant_context(world: &World) -> Result<()> {
    let (tenant, client, token) = world.caller(Tier::Pro, Role::Developer)?;
    let (request, id) = request("GET", AGENTS);
    let answer = request.bearer(&token).send(world.gateway)?;
    assert_eq!(answer.status()?, 200, "{answer:?}");
    assert_eq!(answer.headers.all("x-ratelimit-limit"), ["600"]);
    assert_eq!(answer.headers.all("api-version"), ["v1"]);
    for name in header::IDENTITY {
        assert_eq!(answer.headers.all(name), [""; 0], "{name} is not for the client");
    }
    let seen = world.upstream_saw(&id);
    assert_eq!(seen.len(), 1);
    for (name, value) in [
        ("x-tenant-id", tenant.id.as_str()),
        ("x-tenant-tier", "pro"),
        ("x-user-id", &client.id),
        ("x-user-roles", "developer"),
        ("x-auth-method", "jwt"),
        ("authorization", &format!("Bearer {token}")),
        ("x-request-id", &answer.header("x-request-id")),
        ("baggage", &format!("tenant.id={}", tenant.id)),
    ] {
        assert_eq!(seen[0].headers.all(name), [value], "{name}");
    }
    Ok(())
}

pub fn no_spelling_of_a_tenant_header_reaches_the_upstream(world: &World) -> Result<()> {
    let (tenant, _, token) = world.caller(Tier::Enterprise, Role::Viewer)?;
    let spoofs: [&[(&str, &str)]; 12] = [
        &[("X-Tenant-ID", EVIL)],
        &[("x-tenant-id", EVIL)],
        &[("x_tenant_id", EVIL)],
        &[("X-Tenant_ID", EVIL)],
        &[("X_TENANT-id", EVIL)],
        &[("x_tenant_id", EVIL), ("X-Tenant_ID", EVIL), ("X-TENANT-ID", EVIL)],
        &[("X-Tenant-ID", "")],
        &[("Connection", "X-Tenant-ID"), ("X-Tenant-ID", EVIL)],
        &[("Connection", "keep-alive, X-Tenant-ID, X-User-Roles")],
        &[("X-User-Roles", "admin"), ("X-User-ID", EVIL), ("x_tenant_tier", "enterprise")],
        &[("X-Gatehouse-Context", EVIL), ("x_gatehouse_context", EVIL)],
        &[("Baggage", &format!("tenant.id={EVIL}")), ("Baggage", "a=1")],
    ];
    for spoof in spoofs {
        let (mut request, id) = request("GET", AGENTS);
        request = request.bearer(&token);
        for (name, value) in spoof {
            request = request.header(name, value);
        }
        let answer = request.send(world.gateway)?;
        assert_eq!(answer.status()?, 200, "{spoof:?}: {answer:?}");
        check_upstream(world, &id, &tenant.id, &format!("{spoof:?}"));
    }
    // The same name twice is refused outright: no host may choose one of them.
    let (twice, id) = request("GET", AGENTS);
    let twice = twice.bearer(&token).header("X-Tenant-ID", EVIL).header("x-tenant-id", EVIL);
    let answer = twice.send(world.gateway)?;
    assert_eq!(refusal(&answer), "400 header_invalid");
    assert_eq!(world.upstream_saw(&id).len(), 0);
    // Public routes are cleaned, too.
    let (public, id) = request("GET", "/.well-known/jwks.json");
    assert_eq!(public.header("x_tenant_id", EVIL).send(world.gateway)?.status()?, 200);
    let seen = world.upstream_saw(&id);
    assert_eq!(seen.len(), 1);
    assert!(!String::from_utf8_lossy(&seen[0].bytes()).contains(EVIL));
    in_trailers(world, &tenant.id, &token)
}

/// Trailers of both protocols.
fn in_trailers(world: &World, tenant: &str, token: &str) -> Result<()> {
    let id = uuid::Uuid::new_v4().to_string();
    let bytes = format!(
        "GET {AGENTS} HTTP/1.1\r\nHost: a\r\nX-Test-Mark: {id}\r\nAuthorization: Bearer {token}\r\n\
         TE: trailers\r\nTrailer: X-Tenant-ID\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\nX-Tenant-ID: {EVIL}\r\nx_tenant_id: {EVIL}\r\n\r\n"
    );
    let answer = exchange(world.gateway, bytes.as_bytes())?;
    assert_eq!(answer.status()?, 200, "{answer:?}");
    check_upstream(world, &id, tenant, "trailers of HTTP/1.1");

    let id = uuid::Uuid::new_v4().to_string();
    let bearer = format!("Bearer {token}");
    let head: [(&[u8], &[u8]); 7] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"a"),
        (b":path", AGENTS.as_bytes()),
        (MARK.as_bytes(), id.as_bytes()),
        (b"authorization", bearer.as_bytes()),
        (b"x_tenant_id", EVIL.as_bytes()),
    ];
    let trailers: [(&[u8], &[u8]); 1] = [(b"x-tenant-id", EVIL.as_bytes())];
    assert_eq!(h2::exchange(world.gateway, &head, b"", &trailers)?, End::Answered);
    check_upstream(world, &id, tenant, "HTTP/2");
    Ok(())
}

/// The upstream saw this request once, with our tenant once, and nothing of what the client claimed.
#[track_caller]
fn check_upstream(world: &World, id: &str, tenant: &str, what: &str) {
    let seen = world.upstream_saw(id);
    assert_eq!(seen.len(), 1, "{what}");
    let text = String::from_utf8_lossy(&seen[0].bytes()).into_owned();
    assert!(!text.contains(EVIL), "{what}: {text}");
    let ours: Vec<(String, String)> = seen[0]
        .headers
        .iter()
        .chain(seen[0].trailers.iter())
        .filter(|(name, _)| header::spells(name, header::TENANT_ID))
        .map(|(n, v)| {
            (String::from_utf8_lossy(n).into_owned(), String::from_utf8_lossy(v).into_owned())
        })
        .collect();
    assert_eq!(ours, [("x-tenant-id".to_owned(), tenant.to_owned())], "{what}");
    assert_eq!(seen[0].headers.all("x-user-roles"), ["viewer"], "{what}");
}

pub fn nothing_internal_is_routed(world: &World) -> Result<()> {
    let (_, _, token) = world.caller(Tier::Enterprise, Role::Admin)?;
    for path in [
        "/internal/v1/principal",
        "//internal/v1/principal",
        "/%69nternal/v1/principal",
        "/api/../internal/v1/principal",
        "/api/v1/..%2f..%2finternal/v1/principal",
        "/api/v1/%2e%2e/%2e%2e/internal/v1/principal",
        "/.well-known/../internal/v1/principal",
        "/INTERNAL/v1/principal",
        "/livez",
        "/metrics",
    ] {
        let (request, id) = request("POST", path);
        let answer = request.bearer(&token).header("Content-Length", "0").send(world.gateway)?;
        assert!(matches!(answer.status()?, 400 | 403 | 404), "{path}: {}", answer.start);
        assert_eq!(world.upstream_saw(&id).len(), 0, "{path}");
    }
    Ok(())
}

pub fn the_native_verifier_was_taken(world: &World) -> Result<()> {
    let log = world.envoy.process.log();
    assert!(!log.contains("signatures are checked in the module"), "{log}");
    Request::new("GET", AGENTS).send(world.gateway).map(drop)
}
