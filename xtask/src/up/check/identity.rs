//! Rows about who may call: tokens, tenant context, roles, versions, key rotation.

use std::time::{Duration, Instant};

use anyhow::Context;
use gatehouse_contract::{Role, header, sidecar};
use serde_json::{Value, json};

use super::{
    Seen, Table, World,
    capture::Capture,
    refused, refused_at_gateway, seen,
    token::{Signer, Token},
};
use crate::{
    http::{self, Answer},
    report::seconds,
    stack::instance::url,
    up::api::{Api, Call},
};

const AGENTS: &str = "/api/v1/registry/agents";
const EXECUTIONS: &str = "/api/v1/runtime/executions";
/// A new key is published for two seconds before it signs, here.
const NEW_KEY: Duration = Duration::from_secs(40);
/// Two workers are both met by this many connections but once in a thousand times.
const IN_A_ROW: usize = 11;
/// Beyond every leeway (RFC 8725 tolerates seconds, ours is 60).
const LONG_AGO_S: i64 = 3600;

pub fn rows(world: &World, table: &mut Table) {
    no_token(world, table);
    bad_tokens(world, table);
    by_itself(world, table);
    context(world, table);
    roles(world, table);
    versions(world, table);
    internal(world, table);
    rotation(world, table);
}

fn list(world: &World, token: &str) -> anyhow::Result<Answer> {
    world.api.send(Call::get(AGENTS).token(token))
}

/// Red when the route's permission is set to `public` in `rbac.json`: then the control API answers instead.
fn no_token(world: &World, table: &mut Table) {
    table.row("no token is refused", || {
        refused_at_gateway(&world.api.send(Call::get(AGENTS))?, 401, "credential_missing").map(seen)
    });
}

/// Red one by one when the check of that claim, or of the signature, is taken out of the filter; the good token
/// beside them shows that it is the claim, and not the hand that signed, which is refused.
fn bad_tokens(world: &World, table: &mut Table) {
    let dir = world.instance.dir.join("check");
    let hands = table.row("a token signed by hand with the real key is accepted", || {
        let token = world.token(&world.pro, Role::Viewer)?;
        let real = Signer::real(&world.instance, &dir)?;
        let good = Token::read(&token)?;
        let answer = list(world, &real.sign(&good.clone().claim("jti", json!("by-hand")))?)?;
        anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        let text = format!("200, kid {}", good.kid());
        Ok(Seen { value: (good, real), text })
    });
    let Some((good, real)) = hands else { return };
    let now = good.claims.get("iat").and_then(Value::as_i64).unwrap_or_default();
    let mut bad = |name: &str, make: &dyn Fn() -> anyhow::Result<String>| {
        table.row(name, || {
            let answer = list(world, &make()?)?;
            let words = refused_at_gateway(&answer, 401, "token_invalid")?;
            anyhow::ensure!(words.contains("error=\"invalid_token\""), "{words}");
            Ok(seen(words))
        });
    };
    bad("a forged token (the right kid, another key) is refused", &|| {
        Signer::throwaway(&dir)?.sign(&good)
    });
    bad("alg none is refused", &|| Ok(good.clone().unsigned()));
    bad("an expired token is refused", &|| {
        let old = good.clone().claim("exp", json!(now - LONG_AGO_S));
        real.sign(
            &old.claim("iat", json!(now - 2 * LONG_AGO_S))
                .claim("nbf", json!(now - 2 * LONG_AGO_S)),
        )
    });
    bad("a token for another audience is refused", &|| {
        real.sign(&good.clone().claim("aud", json!("https://elsewhere.example")))
    });
    bad("a token of another issuer is refused", &|| {
        real.sign(&good.clone().claim("iss", json!("https://elsewhere.example")))
    });
}

/// Red when the control API trusts the gateway: when it reads `X-Tenant-ID`, or skips the token or the matrix.
fn by_itself(world: &World, table: &mut Table) {
    table.row("the control API refuses by itself, without the gateway", || {
        let direct = Api::new(url(world.instance.ports.control));
        let ours = world.pro.id.to_string();
        let claimed = [
            (header::TENANT_ID, ours.as_str()),
            (header::USER_ROLES, "admin"),
            (header::AUTH_METHOD, "jwt"),
        ];
        let answer = direct.send(Call::get(AGENTS).headers(&claimed))?;
        let nobody = refused(&answer, 401, "credential_missing")?;
        let token = world.token(&world.pro, Role::Viewer)?;
        let forged =
            Signer::throwaway(&world.instance.dir.join("check"))?.sign(&Token::read(&token)?)?;
        let answer = direct.send(Call::get(AGENTS).token(&forged).headers(&claimed))?;
        refused(&answer, 401, "token_invalid")?;
        let body = json!({"name": "not-allowed"});
        let call = Call::post(AGENTS, &body).token(&token).headers(&claimed);
        refused(&direct.send(call)?, 403, "permission_denied")?;
        Ok(seen(format!("{nobody}; 401 token_invalid; 403 permission_denied")))
    });
}

/// Red when the filter's strip step is taken out (the client's spelling arrives), or its set step (nothing does).
fn context(world: &World, table: &mut Table) {
    table.row("the upstream gets our tenant context, never the client's", || {
        let capture = Capture::begin(&world.instance)?;
        let token = world.token(&world.pro, Role::Viewer)?;
        let ours = world.pro.id.to_string();
        let foreign = world.other.id.to_string();
        let spellings = [
            "X-Tenant-ID",
            "x-tenant-id",
            "X_TENANT_ID",
            "x_tenant-Id",
            "X-User-Roles",
            "X_Auth_Method",
        ];
        for (n, spelling) in spellings.iter().enumerate() {
            let mark = format!("name=spelling-{n}");
            let head = format!(
                "GET {AGENTS}?{mark} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
                 Authorization: Bearer {token}\r\n{spelling}: {foreign}\r\n\r\n"
            );
            let answer = http::raw(world.instance.ports.gateway, &head)?;
            anyhow::ensure!(answer.status == 200, "{spelling}: {}: {}", answer.status, answer.body);
            let fields = capture.fields(&mark)?;
            let all = |name: &str| -> Vec<&str> {
                fields
                    .iter()
                    .filter(|(there, _)| header::spells(there.as_bytes(), name))
                    .map(|(_, value)| value.as_str())
                    .collect()
            };
            let arrived = fields.iter().find(|(_, value)| value.contains(&foreign));
            anyhow::ensure!(arrived.is_none(), "{spelling} reached the upstream as {arrived:?}");
            for (name, expected) in [
                (header::TENANT_ID, ours.as_str()),
                (header::TENANT_TIER, "pro"),
                (header::USER_ROLES, "viewer"),
                (header::AUTH_METHOD, "jwt"),
            ] {
                anyhow::ensure!(all(name) == [expected], "{spelling}: {name} is {:?}", all(name));
            }
            for name in [header::USER_ID, header::REQUEST_ID] {
                anyhow::ensure!(all(name).len() == 1, "{spelling}: {name} is {:?}", all(name));
            }
        }
        Ok(seen(format!(
            "x-tenant-id {ours}, tier pro, roles viewer; {} spellings gone",
            spellings.len()
        )))
    });
}

/// Red when a viewer is added to `agents:write` or `executions:run` in `rbac.json`.
fn roles(world: &World, table: &mut Table) {
    let agent = format!("{AGENTS}/{}", uuid::Uuid::new_v4());
    for (name, method, path, role) in [
        ("a viewer may not create an agent", "POST", AGENTS, Role::Viewer),
        ("an operator may not create an agent", "POST", AGENTS, Role::Operator),
        ("a viewer may not execute", "POST", EXECUTIONS, Role::Viewer),
        ("a viewer may not delete an agent", "DELETE", agent.as_str(), Role::Viewer),
    ] {
        table.row(name, || {
            let token = world.token(&world.pro, role)?;
            let body = json!({"name": "not-allowed"});
            let body = (method == "POST").then_some(&body);
            let call = Call { method, body, ..Call::get(path) };
            refused_at_gateway(&world.api.send(call.token(&token))?, 403, "permission_denied")
                .map(seen)
        });
    }
    table.row("a developer may create an agent", || {
        let token = world.token(&world.pro, Role::Developer)?;
        let body = json!({"name": "allowed"});
        let answer = world.api.want(201, Call::post(AGENTS, &body).token(&token))?;
        Ok(seen(format!("201, id {}", answer.text("/id"))))
    });
    table.row("a route that no rule names is denied", || {
        let token = world.token(&world.pro, Role::Admin)?;
        let answer = world.api.send(Call::get("/api/v1/registry/nothing").token(&token))?;
        anyhow::ensure!(matches!(answer.status, 403 | 404), "{}: {}", answer.status, answer.body);
        refused_at_gateway(&answer, answer.status, &answer.text("/code")).map(seen)
    });
}

/// Red when `v9` is added to the document's `versions.served`.
fn versions(world: &World, table: &mut Table) {
    table.row("/api/v1 is routed", || {
        let token = world.token(&world.pro, Role::Viewer)?;
        let answer = world.api.want(200, Call::get(AGENTS).token(&token))?;
        let version = answer.header(header::API_VERSION).context("no api-version")?;
        anyhow::ensure!(version == "v1", "api-version is {version:?}");
        Ok(seen("200, api-version v1"))
    });
    table.row("an unknown version is a 404 that lists the served ones", || {
        let token = world.token(&world.pro, Role::Viewer)?;
        let path = AGENTS.replace("/v1/", "/v9/");
        let answer = world.api.send(Call::get(&path).token(&token))?;
        let words = refused_at_gateway(&answer, 404, "version_unknown")?;
        let supported = answer.json().get("supported").cloned().unwrap_or_default();
        anyhow::ensure!(supported == json!(["v1"]), "supported is {supported}");
        Ok(seen(format!("{words}, supported {supported}")))
    });
}

/// Red when `/internal` is added to the gateway's routes, or a segment that climbs is forwarded as it came. The caller
/// holds the platform membership: it is the route that is missing, not a right.
fn internal(world: &World, table: &mut Table) {
    table.row("/internal is routed in no spelling", || {
        let ask = format!(
            r#"{{"issuer":"x","tenant":"{}","subject":"{}"}}"#,
            world.pro.id,
            world.pro.client(Role::Admin)?.client_id
        );
        let mut statuses = Vec::new();
        for path in [
            sidecar::INTERNAL_PRINCIPAL_PATH,
            "/api/v1/../../internal/v1/principal",
            "/api/v1/%2e%2e/%2e%2e/internal/v1/principal",
            "/api/..%2finternal/v1/principal",
            "//internal/v1/principal",
            "/%69nternal/v1/principal",
        ] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
                 Authorization: Bearer {}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{ask}",
                world.platform,
                ask.len()
            );
            let answer = http::raw(world.instance.ports.gateway, &head)?;
            anyhow::ensure!(
                matches!(answer.status, 400 | 403 | 404) && !answer.body.contains("epoch"),
                "{path}: {}: {}",
                answer.status,
                answer.body
            );
            statuses.push(answer.status.to_string());
        }
        Ok(seen(statuses.join(" ")))
    });
}

/// Red when the control API signs with a key at once, or the sidecar is not told that it is published, or drops the old
/// key.
fn rotation(world: &World, table: &mut Table) {
    table.row("keys rotate: no token is refused before, after or meanwhile", || {
        let before = world.token(&world.pro, Role::Viewer)?;
        let old = Token::read(&before)?.kid();
        let body = json!({});
        let call = Call::post("/api/v1/factory/signing-keys", &body).token(&world.platform);
        let new = world.api.want(201, call)?.text("/kid");
        anyhow::ensure!(old != new, "both keys are {old}");
        let began = Instant::now();
        let after = loop {
            let token = world.token(&world.pro, Role::Viewer)?;
            let kid = Token::read(&token)?.kid();
            if kid == new {
                break token;
            }
            anyhow::ensure!(kid == old, "signed by {kid}, which is neither");
            anyhow::ensure!(began.elapsed() < NEW_KEY, "still {old} signs after {NEW_KEY:?}");
            std::thread::sleep(Duration::from_millis(100));
        };
        let signed = began.elapsed();
        // Each of Envoy's workers knows the key already, and each request here is a connection of its own.
        for _ in 0..IN_A_ROW {
            for token in [&after, &before] {
                let answer = list(world, token)?;
                let kid = Token::read(token)?.kid();
                anyhow::ensure!(answer.status == 200, "{kid}: {}: {}", answer.status, answer.body);
            }
        }
        let issuer = Token::read(&after)?.claims.get("iss").cloned().unwrap_or_default();
        let issuer = issuer.as_str().unwrap_or_default();
        let page =
            format!("{}{}?issuer={issuer}", url(world.instance.ports.sidecar), sidecar::JWKS_PATH);
        let answer = http::send("GET", &page, &[], &[])?;
        anyhow::ensure!(
            answer.header(header::SIDECAR_MARKER) == Some("1"),
            "the sidecar's answer has no marker"
        );
        let jwks = answer.text("/jwks");
        anyhow::ensure!(
            jwks.contains(&old) && jwks.contains(&new),
            "the sidecar's keys lack {old} or {new}: {jwks}"
        );
        Ok(seen(format!(
            "{old} → {new}, which signs after {}; both accepted, the sidecar serves both",
            seconds(signed)
        )))
    });
}
