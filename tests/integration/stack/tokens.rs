//! Tokens: the control API's own, and those that it would never issue.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use gatehouse_contract::{Role, Tier};
use gatehouse_tests::{
    http::Request,
    token::{Key, unsigned},
    world::{AUDIENCE, ISSUER, World},
};
use serde_json::{Value, json};

use super::{AGENTS, refusal, request};

const INVALID: &str = "401 token_invalid";
const PASSES: &str = "passes the gateway";

pub fn bad_tokens_are_refused(world: &World) -> Result<()> {
    let (tenant, client, issued) = world.caller(Tier::Enterprise, Role::Viewer)?;
    let key = &world.test_key;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let good = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": client.id, "client_id": client.id,
        "tenant_id": tenant.id, "iat": now - 600, "nbf": now - 600, "exp": now + 300, "jti": "t",
    });
    let with = |name: &str, value: Value| -> Result<String> {
        let mut claims = good.clone();
        claims[name] = value;
        key.jwt(&key.header(), &claims)
    };
    let stranger = Key::generate(&key.id)?;
    let (text, signature) = issued.rsplit_once('.').context("not three parts")?;
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[7] ^= 0x10;
    let claims: Value = {
        let part = text.split_once('.').context("no claims")?.1;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap())?
    };
    let other_tenant = world.tenant(Tier::Free)?;
    let table: Vec<(&str, String, &str)> = vec![
        ("issued", issued.clone(), "200"),
        // The nearest to each refusal: the same claims, signed by a published key. The gateway lets it pass; the
        // control API, which asks nobody but itself, does not know that key.
        ("signed by the published test key", key.jwt(&key.header(), &good)?, PASSES),
        ("forged", stranger.jwt(&stranger.header(), &good)?, INVALID),
        ("expired", with("exp", json!(now - 120))?, INVALID),
        ("expired within the leeway", with("exp", json!(now - 5))?, PASSES),
        ("wrong audience", with("aud", json!("https://other.local"))?, INVALID),
        ("wrong issuer", with("iss", json!("https://evil.local"))?, INVALID),
        ("not yet valid", with("nbf", json!(now + 3600))?, INVALID),
        ("none", format!("{}.", unsigned(&json!({"alg": "none"}), &claims)), INVALID),
        (
            "None, the header alone replaced",
            {
                let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"None"}"#);
                let rest = issued.split_once('.').context("no dot")?.1;
                format!("{header}.{rest}")
            },
            INVALID,
        ),
        (
            "one bit of the signature",
            format!("{text}.{}", URL_SAFE_NO_PAD.encode(flipped)),
            INVALID,
        ),
        (
            "another algorithm's name",
            key.jwt(&json!({"alg": "RS512", "kid": key.id}), &good)?,
            INVALID,
        ),
        ("no claims", key.jwt(&key.header(), &json!({}))?, INVALID),
        (
            "a tenant that it is not of",
            with("tenant_id", json!(other_tenant.id))?,
            "403 tenant_invalid",
        ),
        (
            "a subject that nobody knows",
            with("sub", json!(uuid::Uuid::new_v4()))?,
            "403 tenant_invalid",
        ),
    ];
    for (name, token, expected) in table {
        let (request, id) = request("GET", AGENTS);
        let answer = request.bearer(&token).send(world.gateway)?;
        let reached = world.upstream_saw(&id).len();
        let got = match answer.status()? {
            200 => "200".to_owned(),
            401 if reached == 1 => PASSES.to_owned(),
            _ => refusal(&answer),
        };
        assert_eq!(got, expected, "{name}");
        let passes = expected == "200" || expected == PASSES;
        assert_eq!(reached, usize::from(passes), "{name}: times that the upstream saw it");
        let challenge = answer.headers.all("www-authenticate").concat();
        if expected == INVALID {
            assert!(challenge.contains(r#"error="invalid_token""#), "{name}: {challenge}");
        } else if expected != PASSES {
            assert_eq!(challenge, "", "{name}");
        }
    }
    Ok(())
}

pub fn keys_rotate_once_without_a_refused_request(world: &World) -> Result<()> {
    let (_, client, before) = world.caller(Tier::Enterprise, Role::Viewer)?;
    let pass = |token: &str, when: &str| -> Result<()> {
        let answer = Request::new("GET", AGENTS).bearer(token).send(world.gateway)?;
        assert_eq!(answer.status()?, 200, "{when}: {answer:?}");
        Ok(())
    };
    pass(&before, "before")?;
    let ids = || -> Result<Vec<String>> {
        let set = Request::new("GET", "/.well-known/jwks.json").send(world.gateway)?.json()?;
        let keys = set["keys"].as_array().context("no keys")?.clone();
        Ok(keys.iter().filter_map(|key| key["kid"].as_str().map(str::to_owned)).collect())
    };
    let old = ids()?;
    world.as_platform("/api/v1/factory/signing-keys", &json!({}))?;
    let new = ids()?;
    assert!(old.iter().all(|id| new.contains(id)), "{old:?} to {new:?}");
    assert_eq!(new.len(), old.len() + 1);
    world.keys.take();
    let after = world.token(&client)?;
    let id = |token: &str| -> Result<Value> {
        let header = token.split('.').next().context("no header")?;
        Ok(serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(header).unwrap())?["kid"]
            .clone())
    };
    assert_ne!(id(&before)?, id(&after)?, "the new key signs");
    for round in 0..10 {
        pass(&after, &format!("after, round {round}"))?;
        pass(&before, &format!("the old one, round {round}"))?;
    }
    // Two workers met the new key; the identity provider was asked once for them all.
    let asked = world.keys.take().len();
    assert!(asked <= 1, "the keys were fetched {asked} times");
    Ok(())
}
