//! Tenants and their clients, made and used through the gateway like anybody would.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use gatehouse_contract::{Role, Tier};
use serde_json::{Value, json};

use super::World;
use crate::{
    http::{Message, Request},
    wait,
};

/// Why the platform acts for a tenant, for its audit.
const REASON: &str = "integration test";

/// How long setting the stage may take.
const SETTING: Duration = Duration::from_secs(20);

/// An OAuth client.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
}

impl Client {
    pub(super) fn read(made: &Value) -> Result<Self> {
        let text = |name: &str| {
            made.get(name).and_then(Value::as_str).map(str::to_owned).context(name.to_owned())
        };
        Ok(Self { id: text("client_id")?, secret: text("client_secret")? })
    }
}

/// A tenant.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its id.
    pub id: String,
}

impl World {
    /// Asks for a token as this client.
    pub fn ask_token(&self, client: &Client) -> Result<Message> {
        let basic = STANDARD.encode(format!("{}:{}", client.id, client.secret));
        let body = "grant_type=client_credentials";
        let mut request = Request::new("POST", "/oauth2/token")
            .header("Authorization", &format!("Basic {basic}"))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("Content-Length", &body.len().to_string())
            .bytes();
        request.extend_from_slice(body.as_bytes());
        crate::http::exchange(self.gateway, &request)
    }

    /// A fresh token of this client.
    pub fn token(&self, client: &Client) -> Result<String> {
        let answer = self.ask_token(client)?;
        ensure!(answer.status()? == 200, "{answer:?}");
        let token = answer.json()?.get("access_token").and_then(Value::as_str).map(str::to_owned);
        token.context("no access_token")
    }

    /// A new tenant.
    pub fn tenant(&self, tier: Tier) -> Result<Tenant> {
        let slug = format!("t-{}", uuid::Uuid::new_v4().simple());
        let body = json!({"name": slug, "slug": slug, "tier": tier.as_str()});
        let made = self.as_platform("/api/v1/factory/tenants", &body)?;
        let id = made.get("tenant_id").and_then(Value::as_str);
        let id = id.context("an operation without its tenant")?;
        Ok(Tenant { id: id.to_owned() })
    }

    /// A new client of a tenant.
    pub fn client(&self, tenant: &Tenant, role: Role) -> Result<Client> {
        let path = format!("/api/v1/factory/tenants/{}/clients", tenant.id);
        let body = json!({"name": format!("{role} of a test"), "role": role.as_str()});
        Client::read(&self.as_platform(&path, &body)?)
    }

    /// A tenant, a client of it with this role, and its token.
    pub fn caller(&self, tier: Tier, role: Role) -> Result<(Tenant, Client, String)> {
        let tenant = self.tenant(tier)?;
        let client = self.client(&tenant, role)?;
        let token = self.token(&client)?;
        Ok((tenant, client, token))
    }

    /// Creates something as the platform; what was made. A 503 is asked again, as `Retry-After` says: this sets the
    /// stage, and a busy machine may need a second for a first connection.
    pub fn as_platform(&self, path: &str, body: &Value) -> Result<Value> {
        wait::until(&format!("POST {path}"), SETTING, || {
            let token = self.token(&self.platform)?;
            let request = Request::new("POST", path).bearer(&token).json(body);
            let answer = request.header("X-Gatehouse-Reason", REASON).send(self.gateway)?;
            match answer.status()? {
                201 | 202 => Ok(Some(answer.json())),
                503 => bail!("{} {}", answer.start, answer.json()?),
                _ => Ok(Some(Err(anyhow!("POST {path}: {} {}", answer.start, answer.json()?)))),
            }
        })?
    }
}
