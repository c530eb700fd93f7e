//! The external issuers of identities that a tenant registered. The client secret comes and goes sealed.
//! Knows no protocol, and not who their subjects are ([`crate::identities`]).

use std::collections::BTreeMap;

use gatehouse_contract::{IssuerId, Role, TenantId, sidecar::Change};
use serde_json::{Map, Value, json};
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Error, Within, lookup::Lookup, paging::Page};

/// How a client proves itself at the token endpoint (RFC 6749 §2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// In the header.
    Basic,
    /// In the form.
    Post,
    /// Not at all: a public client, which has PKCE alone.
    None,
}

/// Who says which roles a user of an issuer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolesSource {
    /// The record; groups decide at the first sign-in alone.
    Record,
    /// The provider's groups, at every sign-in.
    Token,
}

/// What may be decided about an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// For people.
    pub name: String,
    /// `iss`, byte for byte.
    pub issuer: String,
    /// Who we are there.
    pub client_id: String,
    /// How we prove it.
    pub client_auth: ClientAuth,
    /// Where the keys are; `None` asks the discovery document.
    pub jwks_uri: Option<String>,
    /// What a sign-in asks for.
    pub scopes: Vec<String>,
    /// What `aud` of a bearer token must name, one of them.
    pub audiences: Vec<String>,
    /// The algorithms that it may sign with.
    pub algorithms: Vec<String>,
    /// Nobody who comes from there is ever more.
    pub max_role: Role,
    /// Where a token says who it is about.
    pub subject_claim: String,
    /// Where it says the address.
    pub email_claim: String,
    /// Where it says the groups; `None` has none.
    pub groups_claim: Option<String>,
    /// What its groups are here.
    pub role_map: BTreeMap<String, Role>,
    /// By JSON pointer: what a token must say to be taken at all.
    pub required_claims: BTreeMap<String, String>,
    /// Who says which roles its users hold.
    pub roles_source: RolesSource,
    /// Whether people may sign in through it.
    pub allow_sign_in: bool,
    /// Whether its tokens are taken as bearer tokens.
    pub allow_bearer: bool,
    /// Whether a bearer token must say that it is an access token (`typ: at+jwt`, RFC 9068).
    pub access_tokens_only: bool,
    /// Whether it may do anything.
    pub enabled: bool,
}

/// A registered issuer.
#[derive(Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its id.
    pub id: IssuerId,
    /// The one tenant that it speaks for.
    pub tenant: TenantId,
    /// What was decided about it.
    pub settings: Settings,
    /// Whether the platform named its addresses, which may then be an exception of the operator's.
    pub by_platform: bool,
    /// When it was registered.
    pub created_at: OffsetDateTime,
    /// Grows with every change: what was fetched for it before is of another one.
    pub epoch: i64,
    /// The client secret; from a look-up alone.
    pub sealed_client_secret: Option<Vec<u8>>,
}

#[derive(sqlx::FromRow)]
struct Row {
    tenant_id: Uuid,
    id: Uuid,
    name: String,
    issuer: String,
    client_id: String,
    #[sqlx(default)]
    sealed_client_secret: Option<Vec<u8>>,
    client_auth: String,
    jwks_uri: Option<String>,
    scopes: Vec<String>,
    audiences: Vec<String>,
    algorithms: Vec<String>,
    max_role: String,
    subject_claim: String,
    email_claim: String,
    groups_claim: Option<String>,
    role_map: Json<BTreeMap<String, String>>,
    required_claims: Json<BTreeMap<String, String>>,
    roles_source: String,
    allow_sign_in: bool,
    allow_bearer: bool,
    access_tokens_only: bool,
    enabled: bool,
    by_platform: bool,
    created_at: OffsetDateTime,
    epoch: i64,
}

/// Every column but the secret, which has no grant.
macro_rules! columns {
    ($before:expr, $after:literal) => {
        concat!(
            $before,
            " tenant_id, id, name, issuer, client_id, client_auth, jwks_uri, scopes, audiences, algorithms, max_role,
             subject_claim, email_claim, groups_claim, role_map, required_claims, roles_source,
             allow_sign_in, allow_bearer, enabled, access_tokens_only, by_platform, created_at, epoch ",
            $after
        )
    };
}

macro_rules! update {
    ($secret:literal) => {
        columns!(
            concat!(
                "UPDATE issuers SET name = $3, issuer = $4, client_id = $5, client_auth = $6, jwks_uri = $7, scopes = $8,
                audiences = $9, algorithms = $10, max_role = $11, subject_claim = $12, email_claim = $13,
                groups_claim = $14, role_map = $15, required_claims = $16, roles_source = $17, allow_sign_in = $18,
                allow_bearer = $19, enabled = $20, access_tokens_only = $21, by_platform = $22",
                $secret,
                " WHERE tenant_id = $1 AND id = $2 RETURNING"
            ),
            ""
        )
    };
}

impl Within<'_> {
    /// Registers an issuer. One of this name that the tenant has already is [`Error::Conflict`].
    pub async fn create_issuer(
        &mut self,
        id: IssuerId,
        settings: &Settings,
        sealed_client_secret: Option<&[u8]>,
    ) -> Result<Issuer, Error> {
        let query = sqlx::query_as(columns!(
            "INSERT INTO issuers (tenant_id, id, name, issuer, client_id, client_auth, jwks_uri, scopes, audiences,
                algorithms, max_role, subject_claim, email_claim, groups_claim, role_map,
                required_claims, roles_source, allow_sign_in, allow_bearer, enabled, access_tokens_only, by_platform,
                sealed_client_secret)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
                $22, $23)
             RETURNING",
            ""
        ));
        let row: Row = bind(query, self.tenant, id, settings)
            .bind(self.reason.is_some())
            .bind(sealed_client_secret)
            .fetch_one(&mut *self.connection)
            .await?;
        let mut new = told(settings);
        if sealed_client_secret.is_some() {
            new.insert("client_secret".to_owned(), REDACTED.into());
        }
        self.audit_change("issuer.create", "issuer", id, json!({"new": new})).await?;
        self.issuer_changed(&settings.issuer).await?;
        row.try_into()
    }

    /// Replaces what was decided; `sealed_client_secret` of `None` keeps the secret that is there, unless the client
    /// is public now. Every session that came through it ends. `None` where there is no such issuer.
    pub async fn replace_issuer(
        &mut self,
        id: IssuerId,
        settings: &Settings,
        sealed_client_secret: Option<&[u8]>,
    ) -> Result<Option<Issuer>, Error> {
        let Some(before) = self.issuer(id).await? else { return Ok(None) };
        // Whoever names an address answers for it: what the platform named stays the platform's only while it stays
        // as it is.
        let same = before.settings.issuer == settings.issuer
            && before.settings.jwks_uri == settings.jwks_uri;
        let by_platform = self.reason.is_some() || (before.by_platform && same);
        // The secret cannot be read here, so that it cannot be written back either: it is named where it changes.
        let changes_secret =
            settings.client_auth == ClientAuth::None || sealed_client_secret.is_some();
        let query =
            if changes_secret { update!(", sealed_client_secret = $23") } else { update!("") };
        let query = bind(sqlx::query_as(query), self.tenant, id, settings).bind(by_platform);
        let query = if changes_secret { query.bind(sealed_client_secret) } else { query };
        let row: Option<Row> = query.fetch_optional(&mut *self.connection).await?;
        let Some(row) = row else { return Ok(None) };
        let ended = self.end_sessions_of_issuer(id).await?;
        let (mut old, mut new) = (told(&before.settings), told(settings));
        let same: Vec<String> = old
            .iter()
            .filter(|(name, was)| new.get(*name) == Some(was))
            .map(|(name, _)| name.clone())
            .collect();
        for name in same {
            old.remove(&name);
            new.remove(&name);
        }
        if changes_secret {
            new.insert("client_secret".to_owned(), REDACTED.into());
        }
        new.insert("sessions_ended".to_owned(), ended.into());
        let change = json!({"old": old, "new": new});
        self.audit_change("issuer.update", "issuer", id, change).await?;
        self.issuer_changed(&before.settings.issuer).await?;
        row.try_into().map(Some)
    }

    /// Removes an issuer; its sessions end. Who its subjects are stays known, should it come back. `false` where there
    /// is none.
    pub async fn delete_issuer(&mut self, id: IssuerId) -> Result<bool, Error> {
        let Some(before) = self.issuer(id).await? else { return Ok(false) };
        let ended = self.end_sessions_of_issuer(id).await?;
        sqlx::query("DELETE FROM issuers WHERE tenant_id = $1 AND id = $2")
            .bind(self.tenant.as_uuid())
            .bind(id.as_uuid())
            .execute(&mut *self.connection)
            .await?;
        let change = json!({"old": told(&before.settings), "new": {"sessions_ended": ended}});
        self.audit_change("issuer.delete", "issuer", id, change).await?;
        self.issuer_changed(&before.settings.issuer).await?;
        Ok(true)
    }

    /// An issuer, without its secret.
    pub async fn issuer(&mut self, id: IssuerId) -> Result<Option<Issuer>, Error> {
        let row: Option<Row> =
            sqlx::query_as(columns!("SELECT", "FROM issuers WHERE tenant_id = $1 AND id = $2"))
                .bind(self.tenant.as_uuid())
                .bind(id.as_uuid())
                .fetch_optional(&mut *self.connection)
                .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// A page of the issuers, without their secrets.
    pub async fn list_issuers(&mut self, page: &Page) -> Result<Vec<Issuer>, Error> {
        let rows: Vec<Row> = sqlx::query_as(columns!(
            "SELECT",
            "FROM issuers WHERE tenant_id = $1 AND (created_at, id) < ($2, $3)
             ORDER BY created_at DESC, id DESC LIMIT $4"
        ))
        .bind(self.tenant.as_uuid())
        .bind(page.after.created_at)
        .bind(page.after.id)
        .bind(page.limit)
        .fetch_all(&mut *self.connection)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Every fact of the tenant may have come through it, and whoever holds its keys may hold others.
    async fn issuer_changed(&mut self, issuer: &str) -> Result<(), Error> {
        let tenant = self.tenant;
        self.publish(&[Change::Tenant { tenant }, Change::Keys { issuer: issuer.to_owned() }]).await
    }
}

/// What the audit says of a secret.
const REDACTED: &str = "redacted";

/// What the audit says of an issuer.
fn told(settings: &Settings) -> Map<String, Value> {
    let of_roles: Map<String, Value> = settings
        .role_map
        .iter()
        .map(|(group, role)| (group.clone(), role.as_str().into()))
        .collect();
    let told = json!({
        "name": settings.name,
        "issuer": settings.issuer,
        "client_id": settings.client_id,
        "client_auth": settings.client_auth.as_str(),
        "jwks_uri": settings.jwks_uri,
        "scopes": settings.scopes,
        "audiences": settings.audiences,
        "algorithms": settings.algorithms,
        "max_role": settings.max_role,
        "subject_claim": settings.subject_claim,
        "email_claim": settings.email_claim,
        "groups_claim": settings.groups_claim,
        "role_map": of_roles,
        "required_claims": settings.required_claims,
        "roles_source": settings.roles_source.as_str(),
        "sign_in": settings.allow_sign_in,
        "bearer": settings.allow_bearer,
        "access_tokens_only": settings.access_tokens_only,
        "enabled": settings.enabled,
    });
    match told {
        Value::Object(told) => told,
        _ => Map::new(),
    }
}

impl Lookup<'_> {
    /// The issuer with this id, its secret included.
    pub async fn issuer(&self, id: IssuerId) -> Result<Option<Issuer>, Error> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM lookup_issuer($1)")
            .bind(id.as_uuid())
            .fetch_optional(&self.0.app)
            .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// The issuer whose keys judge a bearer token that claims this `iss` and this tenant. Where the tenant has none of
    /// that name it is another tenant's: compare, before anything is believed.
    pub async fn token_issuer(
        &self,
        issuer: &str,
        tenant: TenantId,
    ) -> Result<Option<Issuer>, Error> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM lookup_token_issuer($1, $2)")
            .bind(issuer)
            .bind(tenant.as_uuid())
            .fetch_optional(&self.0.app)
            .await?;
        row.map(TryInto::try_into).transpose()
    }
}

// === impl ClientAuth ===

impl ClientAuth {
    /// Its name as in RFC 8414 and in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "client_secret_basic",
            Self::Post => "client_secret_post",
            Self::None => "none",
        }
    }
}

impl std::str::FromStr for ClientAuth {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "client_secret_basic" => Ok(Self::Basic),
            "client_secret_post" => Ok(Self::Post),
            "none" => Ok(Self::None),
            _ => Err(Error::Unreadable { what: "client_auth" }),
        }
    }
}

// === impl RolesSource ===

impl RolesSource {
    /// Its name in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Token => "token",
        }
    }
}

impl std::str::FromStr for RolesSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "record" => Ok(Self::Record),
            "token" => Ok(Self::Token),
            _ => Err(Error::Unreadable { what: "roles_source" }),
        }
    }
}

// === impl Issuer ===

impl TryFrom<Row> for Issuer {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let role_map: Result<BTreeMap<String, Role>, Error> =
            row.role_map.0.into_iter().map(|(group, role)| Ok((group, role_of(&role)?))).collect();
        Ok(Self {
            id: IssuerId::new(row.id),
            tenant: TenantId::new(row.tenant_id),
            settings: Settings {
                name: row.name,
                issuer: row.issuer,
                client_id: row.client_id,
                client_auth: row.client_auth.parse()?,
                jwks_uri: row.jwks_uri,
                scopes: row.scopes,
                audiences: row.audiences,
                algorithms: row.algorithms,
                max_role: role_of(&row.max_role)?,
                subject_claim: row.subject_claim,
                email_claim: row.email_claim,
                groups_claim: row.groups_claim,
                role_map: role_map?,
                required_claims: row.required_claims.0,
                roles_source: row.roles_source.parse()?,
                allow_sign_in: row.allow_sign_in,
                allow_bearer: row.allow_bearer,
                access_tokens_only: row.access_tokens_only,
                enabled: row.enabled,
            },
            by_platform: row.by_platform,
            created_at: row.created_at,
            epoch: row.epoch,
            sealed_client_secret: row.sealed_client_secret,
        })
    }
}

type QueryAs<'q> = sqlx::query::QueryAs<'q, sqlx::Postgres, Row, sqlx::postgres::PgArguments>;

/// Binds `$1` to `$21`.
fn bind<'q>(
    query: QueryAs<'q>,
    tenant: TenantId,
    id: IssuerId,
    settings: &'q Settings,
) -> QueryAs<'q> {
    let roles: serde_json::Map<String, Value> = settings
        .role_map
        .iter()
        .map(|(group, role)| (group.clone(), role.as_str().into()))
        .collect();
    query
        .bind(tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(&settings.name)
        .bind(&settings.issuer)
        .bind(&settings.client_id)
        .bind(settings.client_auth.as_str())
        .bind(&settings.jwks_uri)
        .bind(&settings.scopes)
        .bind(&settings.audiences)
        .bind(&settings.algorithms)
        .bind(settings.max_role.as_str())
        .bind(&settings.subject_claim)
        .bind(&settings.email_claim)
        .bind(&settings.groups_claim)
        .bind(Json(roles))
        .bind(Json(&settings.required_claims))
        .bind(settings.roles_source.as_str())
        .bind(settings.allow_sign_in)
        .bind(settings.allow_bearer)
        .bind(settings.enabled)
        .bind(settings.access_tokens_only)
}

fn role_of(name: &str) -> Result<Role, Error> {
    name.parse().map_err(|_| Error::Unreadable { what: "role" })
}
