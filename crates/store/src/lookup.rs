//! What must be known before the tenant is: an OAuth client or an API key by its id, a principal by tenant and subject,
//! and the platform's keys. Each is a function in the database that returns by exact key (`migrations/0004_lookups.sql`,
//! `0006_credentials.sql`).

use gatehouse_contract::{
    ApiKeyId, ClientId, Roles, TenantId, TenantStatus, sidecar::PrincipalFacts,
};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Error, Store,
    api_keys::KeyMark,
    members::roles,
    quotas::LimitsRow,
    revocations::{ends_s, seconds},
};

/// A client that presents its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthClient {
    /// Its tenant.
    pub tenant: TenantId,
    /// Whether that tenant may act.
    pub status: TenantStatus,
    /// Whether the client itself was suspended.
    pub suspended: bool,
    /// SHA-256 of its secret; compare in constant time.
    pub secret_sha256: [u8; 32],
}

/// What the record says of a token's subject, and of the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Of the subject.
    pub facts: PrincipalFacts,
    /// Whether this very token was revoked.
    pub token_revoked: bool,
    /// The subject's tokens that were issued before this, in seconds since the Unix epoch, were revoked.
    pub issued_before_s: Option<u64>,
}

impl Standing {
    /// Whether the token that was issued then is worth nothing; one that does not say when is among the old.
    pub fn denies(&self, issued_at_s: Option<u64>) -> bool {
        let old = |before_s| issued_at_s.is_none_or(|at_s| at_s < before_s);
        self.token_revoked || self.issued_before_s.is_some_and(old)
    }
}

/// A key that presents its id.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its mark; compare in constant time.
    pub mark: KeyMark,
    /// Neither revoked, nor expired, nor without its owner.
    pub alive: bool,
    /// What it may do.
    pub facts: PrincipalFacts,
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

#[derive(sqlx::FromRow)]
struct StandingRow {
    status: String,
    tier: String,
    roles: Vec<String>,
    platform: bool,
    epoch: i64,
    suspended: bool,
    issued_before: Option<OffsetDateTime>,
    token_revoked: bool,
    #[sqlx(flatten)]
    limits: LimitsRow,
    version_pin: Option<String>,
}

#[derive(sqlx::FromRow)]
struct KeyRow {
    tenant_id: Uuid,
    pepper_id: String,
    hmac: Vec<u8>,
    alive: bool,
    expires_at: Option<OffsetDateTime>,
    scopes: Option<Vec<String>>,
    status: String,
    tier: String,
    roles: Vec<String>,
    owner_roles: Option<Vec<String>>,
    suspended: bool,
    epoch: i64,
    #[sqlx(flatten)]
    limits: LimitsRow,
    version_pin: Option<String>,
}

fn epoch(stored: i64) -> Result<u64, Error> {
    u64::try_from(stored).map_err(|_| Error::Unreadable { what: "epoch" })
}

/// The door to the look-ups.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a>(pub(crate) &'a Store);

impl Store {
    /// Looks up by exact key, without a tenant.
    pub const fn lookup(&self) -> Lookup<'_> {
        Lookup(self)
    }
}

impl Lookup<'_> {
    /// The client with this id.
    pub async fn oauth_client(&self, id: ClientId) -> Result<Option<OauthClient>, Error> {
        let row: Option<(Uuid, Vec<u8>, String, bool)> = sqlx::query_as(
            "SELECT tenant_id, secret_sha256, tenant_status, suspended FROM lookup_oauth_client($1)",
        )
        .bind(id.as_uuid())
        .fetch_optional(&self.0.app)
        .await?;
        row.map(|(tenant, secret, status, suspended)| {
            Ok(OauthClient {
                tenant: TenantId::new(tenant),
                status: status.parse().map_err(|_| Error::Unreadable { what: "status" })?,
                suspended,
                secret_sha256: secret
                    .try_into()
                    .map_err(|_| Error::Unreadable { what: "secret_sha256" })?,
            })
        })
        .transpose()
    }

    /// What the record says of `subject`, a user or a client, within `tenant`; `None` where either is unknown.
    pub async fn principal(
        &self,
        tenant: TenantId,
        subject: Uuid,
    ) -> Result<Option<PrincipalFacts>, Error> {
        Ok(self.standing(tenant, subject, None).await?.map(|standing| standing.facts))
    }

    /// As [`Self::principal`], for a token with this mark (`authn::revocation::mark`).
    pub async fn standing(
        &self,
        tenant: TenantId,
        subject: Uuid,
        token: Option<&str>,
    ) -> Result<Option<Standing>, Error> {
        let row: Option<StandingRow> = sqlx::query_as(
            "SELECT p.status, p.tier, p.roles, p.platform, p.epoch, p.suspended, p.issued_before,
                coalesce(is_token_revoked($1, $3), false) AS token_revoked,
                l.requests_per_window, l.burst_multiplier, l.max_api_calls, l.endpoint_limits,
                lookup_version_pin($1) AS version_pin
             FROM lookup_principal($1, $2) p LEFT JOIN lookup_tenant_limits($1) l ON true",
        )
        .bind(tenant.as_uuid())
        .bind(subject)
        .bind(token)
        .fetch_optional(&self.0.app)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let facts = PrincipalFacts {
            status: row.status.parse().map_err(|_| Error::Unreadable { what: "status" })?,
            suspended: row.suspended,
            tier: row.tier.parse().map_err(|_| Error::Unreadable { what: "tier" })?,
            roles: roles(&row.roles)?,
            platform: row.platform,
            version_pin: row.version_pin,
            limits: row.limits.facts()?,
            epoch: epoch(row.epoch)?,
            ..PrincipalFacts::member(tenant, subject)
        };
        let issued_before_s = row.issued_before.map(seconds);
        Ok(Some(Standing { facts, token_revoked: row.token_revoked, issued_before_s }))
    }

    /// The key with this id.
    pub async fn api_key(&self, id: ApiKeyId) -> Result<Option<ApiKey>, Error> {
        let row: Option<KeyRow> = sqlx::query_as(
            "SELECT k.*, l.*, lookup_version_pin(k.tenant_id) AS version_pin
             FROM lookup_api_key($1) k LEFT JOIN LATERAL lookup_tenant_limits(k.tenant_id) l ON true",
        )
        .bind(id.as_uuid())
        .fetch_optional(&self.0.app)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let held = roles(&row.roles)?;
        let held = match row.owner_roles {
            // The platform made it.
            None => held,
            Some(owner) => match roles(&owner)?.iter().last() {
                Some(highest) => held.up_to(highest),
                None => Roles::NONE,
            },
        };
        let hmac = row.hmac.try_into().map_err(|_| Error::Unreadable { what: "hmac" })?;
        let tenant = TenantId::new(row.tenant_id);
        let facts = PrincipalFacts {
            status: row.status.parse().map_err(|_| Error::Unreadable { what: "status" })?,
            suspended: row.suspended,
            tier: row.tier.parse().map_err(|_| Error::Unreadable { what: "tier" })?,
            roles: held,
            scopes: row.scopes,
            credential: Some(id.to_string()),
            expires_at_s: row.expires_at.map(ends_s),
            version_pin: row.version_pin,
            limits: row.limits.facts()?,
            epoch: epoch(row.epoch)?,
            ..PrincipalFacts::member(tenant, id.to_string())
        };
        let mark = KeyMark { pepper_id: row.pepper_id, hmac };
        Ok(Some(ApiKey { mark, alive: row.alive, facts }))
    }

    /// Records when keys were last used; never backwards, and keys that do not exist are passed over.
    pub async fn record_last_used(&self, seen: &[(ApiKeyId, OffsetDateTime)]) -> Result<(), Error> {
        let (ids, times): (Vec<Uuid>, Vec<OffsetDateTime>) =
            seen.iter().map(|(id, at)| (id.as_uuid(), *at)).unzip();
        sqlx::query("SELECT record_last_used($1, $2)")
            .bind(ids)
            .bind(times)
            .execute(&self.0.app)
            .await?;
        Ok(())
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
