//! Calls the gateway as any client would: tokens by client credentials, JSON over HTTP.
//! Knows the routes' form and nothing of what stands behind them.

use anyhow::Context;
use gatehouse_contract::{
    AgentId, AgentVersionId, ApiKeyId, ExecutionId, Role, TenantId, Tier, UserId, header,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    http::{self, Answer},
    stack::instance::Client,
};

/// Why the platform acts for a tenant: every such call is audited with it.
const REASON: &str = "seeding a demo tenant";

/// A caller of the gateway.
#[derive(Debug, Clone)]
pub struct Api {
    gateway: String,
}

/// An API key as it was shown, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Key {
    /// Its id.
    pub id: ApiKeyId,
    /// The key itself.
    pub key: String,
}

/// A request to send.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The method.
    pub method: &'a str,
    /// The path with its query, raw.
    pub path: &'a str,
    /// The bearer token.
    pub token: Option<&'a str>,
    /// Further headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// The JSON body.
    pub body: Option<&'a Value>,
}

impl<'a> Call<'a> {
    /// `GET path`.
    pub fn get(path: &'a str) -> Self {
        Self { method: "GET", path, token: None, headers: &[], body: None }
    }

    /// `POST path` with a JSON body.
    pub fn post(path: &'a str, body: &'a Value) -> Self {
        Self { method: "POST", path, token: None, headers: &[], body: Some(body) }
    }

    /// With a bearer token.
    #[must_use]
    pub fn token(self, token: &'a str) -> Self {
        Self { token: Some(token), ..self }
    }

    /// With further headers.
    #[must_use]
    pub fn headers(self, headers: &'a [(&'a str, &'a str)]) -> Self {
        Self { headers, ..self }
    }
}

impl Api {
    /// A caller of the gateway at this address.
    pub fn new(gateway: String) -> Self {
        Self { gateway }
    }

    /// Sends a request.
    pub fn send(&self, call: Call<'_>) -> anyhow::Result<Answer> {
        let bearer = call.token.map(|token| format!("Bearer {token}"));
        let mut headers = call.headers.to_vec();
        if let Some(bearer) = &bearer {
            headers.push(("authorization", bearer));
        }
        let body = call.body.map(Value::to_string).unwrap_or_default();
        if call.body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let url = format!("{}{}", self.gateway, call.path);
        http::send(call.method, &url, &headers, body.as_bytes())
    }

    /// Sends a request and wants this status.
    pub fn want(&self, status: u16, call: Call<'_>) -> anyhow::Result<Answer> {
        let answer = self.send(call)?;
        anyhow::ensure!(
            answer.status == status,
            "{} {} answered {} instead of {status}: {}",
            call.method,
            call.path,
            answer.status,
            answer.body
        );
        Ok(answer)
    }

    /// A token by client credentials (RFC 6749 §4.4).
    pub fn token(&self, client: &Client) -> anyhow::Result<String> {
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}",
            escape(&client.client_id),
            escape(&client.client_secret)
        );
        let url = format!("{}/oauth2/token", self.gateway);
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = http::send("POST", &url, &headers, form.as_bytes())?;
        anyhow::ensure!(
            answer.status == 200,
            "POST /oauth2/token answered {}: {}",
            answer.status,
            answer.body
        );
        let token = answer.text("/access_token");
        anyhow::ensure!(!token.is_empty(), "POST /oauth2/token answered without a token");
        Ok(token)
    }

    /// Makes a tenant. `None`: the slug is taken.
    pub fn make_tenant(
        &self,
        platform: &str,
        slug: &str,
        tier: Tier,
    ) -> anyhow::Result<Option<TenantId>> {
        let body = json!({"name": format!("Demo {tier}"), "slug": slug, "tier": tier});
        let call = Call::post("/api/v1/factory/tenants", &body).token(platform);
        let answer = self.send(call)?;
        if answer.status == 409 {
            return Ok(None);
        }
        anyhow::ensure!(
            answer.status == 202,
            "POST /api/v1/factory/tenants answered {}: {}",
            answer.status,
            answer.body
        );
        id(&answer, "/tenant_id").map(Some)
    }

    /// Makes an OAuth client with a role in a tenant.
    pub fn make_client(
        &self,
        platform: &str,
        tenant: TenantId,
        role: Role,
    ) -> anyhow::Result<Client> {
        let body = json!({"name": format!("demo {role}"), "role": role});
        let path = format!("/api/v1/factory/tenants/{tenant}/clients");
        let reason = [(header::IMPERSONATION_REASON, REASON)];
        let call = Call::post(&path, &body).token(platform).headers(&reason);
        let answer = self.want(201, call)?;
        serde_json::from_str(&answer.body).context("reading the new client")
    }

    /// Makes an API key with a role; `token` is the platform's or, up to their own role, a member's of the tenant.
    pub fn make_key(
        &self,
        token: &str,
        tenant: TenantId,
        name: &str,
        role: Role,
    ) -> anyhow::Result<Key> {
        let body = json!({"name": name, "environment": "demo", "roles": [role]});
        let path = format!("/api/v1/factory/tenants/{tenant}/api-keys");
        let reason = [(header::IMPERSONATION_REASON, REASON)];
        let answer = self.want(201, Call::post(&path, &body).token(token).headers(&reason))?;
        serde_json::from_str(&answer.body).context("reading the new key")
    }

    /// Makes a user with a role in a tenant.
    pub fn make_user(
        &self,
        platform: &str,
        tenant: TenantId,
        email: &str,
        role: Role,
    ) -> anyhow::Result<UserId> {
        let body = json!({"email": email, "role": role});
        let path = format!("/api/v1/factory/tenants/{tenant}/users");
        let reason = [(header::IMPERSONATION_REASON, REASON)];
        let call = Call::post(&path, &body).token(platform).headers(&reason);
        id(&self.want(201, call)?, "/id")
    }

    /// Registers an agent.
    pub fn make_agent(&self, token: &str, name: &str) -> anyhow::Result<AgentId> {
        let body = json!({"name": name, "description": "litres and fuel type to kg CO2e"});
        id(&self.want(201, Call::post("/api/v1/registry/agents", &body).token(token))?, "/id")
    }

    /// Registers a version of an agent.
    pub fn make_version(
        &self,
        token: &str,
        agent: AgentId,
        image: &str,
    ) -> anyhow::Result<AgentVersionId> {
        let body = json!({"version": "1.0.0", "image": image});
        let path = format!("/api/v1/registry/agents/{agent}/versions");
        id(&self.want(201, Call::post(&path, &body).token(token))?, "/id")
    }

    /// Submits an execution.
    pub fn execute(
        &self,
        token: &str,
        version: AgentVersionId,
        input: &Value,
    ) -> anyhow::Result<(ExecutionId, Answer)> {
        let body = json!({"agent_version_id": version, "input": input});
        let call = Call::post("/api/v1/runtime/executions", &body).token(token);
        let answer = self.want(202, call)?;
        Ok((id(&answer, "/id")?, answer))
    }
}

/// An id in an answer's body.
fn id<T: std::str::FromStr>(answer: &Answer, pointer: &str) -> anyhow::Result<T> {
    answer
        .text(pointer)
        .parse()
        .ok()
        .with_context(|| format!("the answer has no id at {pointer}: {}", answer.body))
}

/// Percent-encodes a form's value.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_value_cannot_add_a_field() {
        assert_eq!(escape("a-B_1.~"), "a-B_1.~");
        assert_eq!(escape("a&b=c+d %"), "a%26b%3Dc%2Bd%20%25");
    }
}
