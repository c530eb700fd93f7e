//! Gateways in front of a fleet: real Envoys with the compiled module, and around them who is not ours: an identity
//! provider that publishes one key, a record in which every tenant has one member, and an upstream.
//! Knows nothing of how a limit is counted.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use gatehouse_contract::{
    Role, TenantId, Tier,
    sidecar::{INTERNAL_PRINCIPAL_PATH, PrincipalAsk, PrincipalFacts},
};
use serde_json::{Value, json};

use crate::{
    env,
    envoy::{self, Configuration},
    fleet::ROUTE,
    http::{
        Message, Request,
        serve::{self, Server, json_response},
    },
    load::{self, Way},
    token::{Key, jwks},
};

/// As which the provider issues.
pub const ISSUER: &str = "https://auth.greenlang.local";
const AUDIENCE: &str = "https://api.greenlang.local";
/// The one member of every tenant.
const SUBJECT: &str = "7d7c9c5e-4f62-4b4e-9d0e-6d1f4f3c0001";
/// Longer than the product's own: a machine that builds at the same time must not turn slowness into refusals.
const IDENTITY_MS: u64 = 10_000;

/// Who is outside.
pub struct Outside {
    key: Key,
    keys: Server,
    record: Server,
    upstream: Server,
}

impl Outside {
    /// Every tenant is of `tier`.
    pub fn start(tier: Tier) -> Result<Self> {
        Self::with_tiers(move |_| tier)
    }

    /// A tenant's tier is what `tier` says.
    pub fn with_tiers(tier: impl Fn(TenantId) -> Tier + Send + Sync + 'static) -> Result<Self> {
        let key = Key::generate("key-1")?;
        let keys = keys(jwks(&[&key])?)?;
        let record = record(tier)?;
        let upstream = Server::start(Arc::new(|_| serve::response(200, &[], "ok")))?;
        Ok(Self { key, keys, record, upstream })
    }

    /// What the sidecars must know of them ([`crate::fleet::Settings::more`]).
    pub fn members(&self) -> Value {
        members(&self.keys, &self.record)
    }

    /// Where the upstream is.
    pub fn upstream(&self) -> SocketAddr {
        self.upstream.address
    }

    /// An Envoy's configuration with the module in front of this sidecar, under the repository's document with
    /// `limiter` in it. `changes` go over the document.
    pub fn gateway_with(
        &self,
        dir: &Path,
        sidecar: SocketAddr,
        changes: &Value,
        limiter: &Value,
    ) -> Result<Configuration> {
        std::fs::create_dir_all(dir)?;
        let mut document: Value =
            serde_json::from_str(include_str!("../../examples/gateway/suite.json"))?;
        let members = document.as_object_mut().context("a document")?;
        members.insert("limiter".to_owned(), limiter.clone());
        let patience = json!({"sidecar": {"identity_timeout_ms": IDENTITY_MS}});
        crate::fleet::merge(&mut document, &patience);
        crate::fleet::merge(&mut document, changes);
        let suite = env::path(env::SUITE)?;
        envoy::configuration(dir, &suite, &document, self.upstream.address, sidecar)
    }

    /// A request of a tenant's member, as clients under load send it again and again.
    pub fn way(&self, key: u32, tenant: TenantId) -> Result<Way> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_secs();
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "client_id": SUBJECT,
            "tenant_id": tenant, "iat": now - 10, "exp": now + 3000, "jti": tenant,
        });
        let token = self.key.jwt(&self.key.header(), &claims)?;
        let request = Request::new("GET", ROUTE).bearer(&token).bytes();
        Ok(Way { key, request: Arc::from(request), read: load::gateway_answer })
    }
}

/// An identity provider that publishes this key set.
pub fn keys(set: Value) -> Result<Server> {
    Server::start(Arc::new(move |_| json_response(200, &set)))
}

/// A record in which everybody is a developer of an active tenant, whose tier is what `tier` says.
pub fn record(tier: impl Fn(TenantId) -> Tier + Send + Sync + 'static) -> Result<Server> {
    Server::start(Arc::new(move |request| answer(&tier, request)))
}

/// What sidecars must know of both.
pub fn members(keys: &Server, record: &Server) -> Value {
    json!({
        "issuers": [{"issuer": ISSUER, "jwks": format!("http://{}/keys", keys.address)}],
        "control_api": {"internal": format!("http://{}", record.address)},
    })
}

fn answer(tier: impl Fn(TenantId) -> Tier, request: &Message) -> Message {
    if !request.start.starts_with(&format!("POST {INTERNAL_PRINCIPAL_PATH} ")) {
        return json_response(204, &json!({}));
    }
    match serde_json::from_slice::<PrincipalAsk>(&request.body) {
        Ok(PrincipalAsk::Subject { tenant, subject, .. }) => {
            let facts = PrincipalFacts {
                roles: [Role::Developer].into_iter().collect(),
                tier: tier(tenant),
                epoch: 1,
                ..PrincipalFacts::member(tenant, subject)
            };
            json_response(200, &serde_json::to_value(facts).unwrap_or_default())
        }
        _ => json_response(401, &json!({})),
    }
}
