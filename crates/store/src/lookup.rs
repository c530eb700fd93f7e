//! What must be known before the tenant is: an OAuth client by its id, a principal by tenant and subject, and the
//! platform's keys. Each is a function in the database that returns by exact key (`migrations/0004_lookups.sql`).

use gatehouse_contract::{ClientId, Roles, TenantId, TenantStatus, sidecar::PrincipalFacts};
use serde_json::Value;
use uuid::Uuid;

use crate::{Error, Store};

/// A client that presents its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthClient {
    /// Its tenant.
    pub tenant: TenantId,
    /// Whether that tenant may act.
    pub status: TenantStatus,
    /// SHA-256 of its secret; compare in constant time.
    pub secret_sha256: [u8; 32],
}

/// A key that verifiers must know.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedKey {
    /// Its id.
    pub kid: String,
    /// The public key (RFC 7517 §4).
    pub jwk: Value,
}

/// The key that signs.
#[derive(Clone, PartialEq)]
pub struct SigningKey {
    /// Its id.
    pub kid: String,
    /// The public key (RFC 7517 §4).
    pub jwk: Value,
    /// The private key as its owner sealed it.
    pub sealed_private: Vec<u8>,
}

/// The door to the look-ups.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a>(&'a Store);

impl Store {
    /// Looks up by exact key, without a tenant.
    pub const fn lookup(&self) -> Lookup<'_> {
        Lookup(self)
    }
}

impl Lookup<'_> {
    /// The client with this id.
    pub async fn oauth_client(&self, id: ClientId) -> Result<Option<OauthClient>, Error> {
        let row: Option<(Uuid, Vec<u8>, String)> = sqlx::query_as(
            "SELECT tenant_id, secret_sha256, tenant_status FROM lookup_oauth_client($1)",
        )
        .bind(id.as_uuid())
        .fetch_optional(&self.0.app)
        .await?;
        row.map(|(tenant, secret, status)| {
            Ok(OauthClient {
                tenant: TenantId::new(tenant),
                status: status.parse().map_err(|_| Error::Unreadable { what: "status" })?,
                secret_sha256: secret
                    .try_into()
                    .map_err(|_| Error::Unreadable { what: "secret_sha256" })?,
            })
        })
        .transpose()
    }

    /// What the record says of `subject` within `tenant`; `None` where either is unknown.
    pub async fn principal(
        &self,
        tenant: TenantId,
        subject: Uuid,
    ) -> Result<Option<PrincipalFacts>, Error> {
        let row: Option<(String, String, Vec<String>, bool, i64)> = sqlx::query_as(
            "SELECT status, tier, roles, platform, epoch FROM lookup_principal($1, $2)",
        )
        .bind(tenant.as_uuid())
        .bind(subject)
        .fetch_optional(&self.0.app)
        .await?;
        let Some((status, tier, roles, platform, epoch)) = row else { return Ok(None) };
        let roles: Result<Roles, _> = roles.iter().map(|role| role.parse()).collect();
        Ok(Some(PrincipalFacts {
            status: status.parse().map_err(|_| Error::Unreadable { what: "status" })?,
            tier: tier.parse().map_err(|_| Error::Unreadable { what: "tier" })?,
            roles: roles.map_err(|_| Error::Unreadable { what: "role" })?,
            platform,
            epoch: u64::try_from(epoch).map_err(|_| Error::Unreadable { what: "epoch" })?,
            ..PrincipalFacts::member(tenant, subject)
        }))
    }

    /// The keys whose tokens may be alive, the one that signs first.
    pub async fn published_keys(&self) -> Result<Vec<PublishedKey>, Error> {
        let rows: Vec<(String, Value)> =
            sqlx::query_as("SELECT kid, public_jwk FROM published_signing_keys()")
                .fetch_all(&self.0.app)
                .await?;
        Ok(rows.into_iter().map(|(kid, jwk)| PublishedKey { kid, jwk }).collect())
    }

    /// The key that signs; `None` before the first one was made.
    pub async fn signing_key(&self) -> Result<Option<SigningKey>, Error> {
        let row: Option<(String, Value, Vec<u8>)> =
            sqlx::query_as("SELECT kid, public_jwk, sealed_private FROM current_signing_key()")
                .fetch_optional(&self.0.app)
                .await?;
        Ok(row.map(|(kid, jwk, sealed_private)| SigningKey { kid, jwk, sealed_private }))
    }
}
