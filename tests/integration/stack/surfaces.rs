//! One error contract: whoever refuses, a client reads the same members and learns nothing of the inside.
//! Knows each listener by the configuration that its service was started with.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use gatehouse_contract::{Reason, Role, Tier};
use gatehouse_tests::{
    http::{Message, Request},
    world::World,
};
use serde_json::{Value, json};

use super::AGENTS;

/// What would tell of the inside: stores and their statements, libraries and their words, files, processes, hosts.
const INSIDE: [&str; 22] = [
    "sqlx",
    "SELECT",
    "INSERT",
    "relation",
    "postgres",
    "redis",
    "serde",
    "hyper",
    "axum",
    "reqwest",
    "envoy",
    "wasm",
    "gatehouse",
    "panick",
    "unwrap",
    ".rs",
    "/root",
    "/tmp",
    "127.0.0.1",
    "localhost",
    "expected value",
    "invalid type",
];

/// The standing of one refusal: the shape of X8, and the code.
#[track_caller]
fn problem(what: &str, answer: &Message) -> String {
    assert_eq!(
        answer.headers.all("content-type"),
        ["application/problem+json"],
        "{what}: {answer:?}"
    );
    let body = answer.json().unwrap();
    let reason = Reason::ALL.iter().find(|reason| body["code"] == reason.code());
    let reason = reason.unwrap_or_else(|| panic!("{what}: {body}"));
    let id = answer.headers.one("x-request-id").unwrap_or_else(|| panic!("{what}: {answer:?}"));
    for (member, expected) in [
        ("type", json!(reason.type_uri())),
        ("title", json!(reason.title())),
        ("status", json!(reason.status())),
        ("instance", json!(format!("urn:request:{id}"))),
        ("request_id", json!(id)),
    ] {
        assert_eq!(body[member], expected, "{what}: {member}");
    }
    assert!(body.get("detail").is_none_or(Value::is_string), "{what}: {body}");
    let status = answer.status().unwrap();
    assert_eq!(status, reason.status(), "{what}");
    if matches!(status, 401 | 403 | 429) {
        assert_eq!(answer.headers.all("cache-control"), ["no-store"], "{what}");
    }
    if status == 405 {
        assert!(!answer.header("allow").is_empty(), "{what}: {answer:?}");
    }
    let text = String::from_utf8(answer.body.clone()).unwrap();
    for inside in INSIDE {
        assert!(!text.contains(inside), "{what}: {inside:?} in {text}");
    }
    format!("{status} {}", reason.code())
}

/// An address in the configuration of one of the world's services.
fn listener(world: &World, service: &str, name: &str) -> Result<SocketAddr> {
    let text = std::fs::read_to_string(world.dir().join(format!("{service}.json")))?;
    let config: Value = serde_json::from_str(&text)?;
    let address = config[name].as_str().with_context(|| format!("{service} has no {name}"))?;
    Ok(address.parse()?)
}

pub fn x8_every_surface_refuses_in_one_shape(world: &World) -> Result<()> {
    let (_, _, token) = world.caller(Tier::Enterprise, Role::Admin)?;
    let (_, _, viewer) = world.caller(Tier::Enterprise, Role::Viewer)?;
    let at = |service, name| listener(world, service, name);
    let (control, internal) = (at("control-api", "listen")?, at("control-api", "internal_listen")?);
    let (sidecar, gateway) = (world.sidecar_listen, world.gateway);
    let get = |path: &str| Request::new("GET", path).header("x-request-id", "ask-1");
    let post = |path: &str, kind: &str, body: &str| {
        Request::new("POST", path).header("x-request-id", "ask-1").body(kind, body)
    };
    let kind = "application/json";
    let large = format!(r#"{{"name":"{}"}}"#, "a".repeat(64 * 1024));
    let mut table: Vec<(&str, SocketAddr, Request, &str)> = Vec::new();
    for (name, to) in [("the gateway", gateway), ("the control API", control)] {
        let may = |request: Request| request.bearer(&token);
        table.extend([
            (name, to, get(AGENTS), "401 credential_missing"),
            (name, to, get(AGENTS).bearer("a.b.c"), "401 token_invalid"),
            (name, to, get(AGENTS).bearer("a b"), "401 token_invalid"),
            (name, to, may(get(AGENTS)).bearer(&token), "400 credential_malformed"),
            (name, to, may(get("/api/v1/nothing")), "404 not_found"),
            (name, to, may(get("/api/v1/registry/agents/zz")), "404 not_found"),
            (name, to, may(Request::new("PATCH", AGENTS)), "405 method_not_allowed"),
            (
                name,
                to,
                post(AGENTS, kind, r#"{"name":"a"}"#).bearer(&viewer),
                "403 permission_denied",
            ),
            (name, to, may(post(AGENTS, "text/xml", "<a/>")), "415 media_type_unsupported"),
            (name, to, may(post(AGENTS, kind, &large)), "413 body_too_large"),
            (name, to, may(post(AGENTS, kind, r#"{"name":"#)), "400 body_malformed"),
            (name, to, may(post(AGENTS, kind, r#"{"nmae":"a"}"#)), "422 body_invalid"),
        ]);
    }
    table.extend([
        ("the gateway", gateway, get("/api/v1/registry/%2e%2e/x"), "400 path_invalid"),
        ("the gateway", gateway, get("/api/v99/registry/agents"), "404 version_unknown"),
        (
            "the internal listener",
            internal,
            get("/internal/v1/principal"),
            "405 method_not_allowed",
        ),
        (
            "the internal listener",
            internal,
            post("/internal/v1/principal", "text/plain", "{}"),
            "415 media_type_unsupported",
        ),
        (
            "the internal listener",
            internal,
            post("/internal/v1/principal", kind, "{"),
            "400 body_malformed",
        ),
        (
            "the internal listener",
            internal,
            post("/internal/v1/principal", kind, r#"{"kind":"api_key"}"#),
            "422 body_invalid",
        ),
        ("the sidecar", sidecar, get("/v1/principal"), "405 method_not_allowed"),
        ("the sidecar", sidecar, get("/v1/check?tenant=x"), "422 body_invalid"),
        ("the sidecar", sidecar, post("/v1/check", kind, "{"), "400 body_malformed"),
        ("the sidecar", sidecar, post("/v1/lease", kind, r#"{"want":"x"}"#), "422 body_invalid"),
        (
            "the sidecar",
            sidecar,
            post("/v1/principal", kind, r#"{"key":"gk"}"#),
            "422 body_invalid",
        ),
        ("the sidecar", sidecar, post("/v1/check", kind, &large), "413 body_too_large"),
        (
            "the internal listener",
            internal,
            post("/internal/v1/principal", kind, &large),
            "413 body_too_large",
        ),
    ]);
    let listeners = [
        ("the internal listener", internal),
        ("the sidecar", sidecar),
        ("the control API's pages", at("control-api", "admin_listen")?),
        ("the sidecar's pages", at("ratelimit-sidecar", "admin_listen")?),
        ("the worker's pages", at("execution-worker", "admin_listen")?),
    ];
    for (name, to) in listeners {
        table.push((name, to, get("/nothing"), "404 not_found"));
        if name.ends_with("pages") {
            table.push((name, to, post("/livez", kind, "{}"), "405 method_not_allowed"));
        }
    }
    for (name, to, request, expected) in table {
        let what = format!("{name}: {}", request.line());
        let answer = request.send(to).with_context(|| what.clone())?;
        assert_eq!(problem(&what, &answer), expected, "{what}: {answer:?}");
    }
    Ok(())
}
