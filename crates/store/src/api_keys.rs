//! The API keys of one tenant: made, listed, replaced with an overlap, ended.
//! Knows nothing of a key's text: it stores the mark and never reads it back.

use gatehouse_contract::{ApiKeyId, Roles, sidecar::Change};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Error, Within, audit,
    members::{Changed, roles},
    paging::Page,
};

/// By which a service that holds the pepper knows a key again.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyMark {
    /// Which pepper made it.
    pub pepper_id: String,
    /// HMAC-SHA-256 of the whole key under that pepper.
    pub hmac: [u8; 32],
}

/// A key to be made.
pub struct NewApiKey<'a> {
    /// Its id.
    pub id: ApiKeyId,
    /// For people.
    pub name: &'a str,
    /// The environment that its text names.
    pub environment: &'a str,
    /// Its mark.
    pub mark: KeyMark,
    /// What it may do, within what its owner may.
    pub roles: Roles,
    /// The permissions that it is narrowed to; `None` is all that the roles hold.
    pub scopes: Option<&'a [String]>,
    /// The member above which it never is; `None` where the platform makes it.
    pub owner: Option<Uuid>,
    /// When it ends by itself.
    pub expires_at: Option<OffsetDateTime>,
}

/// What the record says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// Its id.
    pub id: ApiKeyId,
    /// For people.
    pub name: String,
    /// The environment that its text names.
    pub environment: String,
    /// What it may do, within what its owner may.
    pub roles: Roles,
    /// The permissions that it is narrowed to.
    pub scopes: Option<Vec<String>>,
    /// The member above which it never is.
    pub owner: Option<Uuid>,
    /// The subject who made it.
    pub created_by: String,
    /// When.
    pub created_at: OffsetDateTime,
    /// When it ends by itself.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was ended.
    pub revoked_at: Option<OffsetDateTime>,
    /// The key that it took over from.
    pub rotated_from: Option<ApiKeyId>,
    /// Until when it opens beside its successor.
    pub overlap_until: Option<OffsetDateTime>,
    /// When it was last used, to within the sidecars' batches.
    pub last_used_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    name: String,
    environment: String,
    roles: Vec<String>,
    scopes: Option<Vec<String>>,
    owner: Option<Uuid>,
    created_by: String,
    created_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
    rotated_from: Option<Uuid>,
    overlap_until: Option<OffsetDateTime>,
    last_used_at: Option<OffsetDateTime>,
}

impl TryFrom<Row> for ApiKeyRecord {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: ApiKeyId::new(row.id),
            name: row.name,
            environment: row.environment,
            roles: roles(&row.roles)?,
            scopes: row.scopes,
            owner: row.owner,
            created_by: row.created_by,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            rotated_from: row.rotated_from.map(ApiKeyId::new),
            overlap_until: row.overlap_until,
            last_used_at: row.last_used_at,
        })
    }
}

impl Within<'_> {
    /// Makes a key. An unknown tenant is [`Error::Missing`].
    pub async fn create_api_key(&mut self, new: &NewApiKey<'_>) -> Result<ApiKeyRecord, Error> {
        sqlx::query(
            "INSERT INTO api_keys
                (tenant_id, id, name, environment, pepper_id, hmac, scopes, owner, created_by, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(self.tenant.as_uuid())
        .bind(new.id.as_uuid())
        .bind(new.name)
        .bind(new.environment)
        .bind(&new.mark.pepper_id)
        .bind(new.mark.hmac.as_slice())
        .bind(new.scopes)
        .bind(new.owner)
        .bind(&self.op.subject)
        .bind(new.expires_at)
        .execute(&mut *self.connection)
        .await?;
        let names: Vec<&str> = new.roles.iter().map(|role| role.as_str()).collect();
        sqlx::query(
            "INSERT INTO memberships (tenant_id, key_id, role) SELECT $1, $2, unnest($3::text[])",
        )
        .bind(self.tenant.as_uuid())
        .bind(new.id.as_uuid())
        .bind(names)
        .execute(&mut *self.connection)
        .await?;
        self.publish_keys(&[new.id.as_uuid()]).await?;
        let told = json!({
            "name": new.name,
            "environment": new.environment,
            "roles": new.roles,
            "scopes": new.scopes,
            "owner": new.owner,
            "expires_at": new.expires_at.map(audit::told),
        });
        self.audit_change("api_key.create", "api_key", new.id, json!({"new": told})).await?;
        self.api_key(new.id, None).await?.ok_or(Error::Unreadable { what: "API key" })
    }

    /// A page of the keys, those that ended included; of one owner where one is named.
    pub async fn list_api_keys(
        &mut self,
        page: &Page,
        owner: Option<Uuid>,
    ) -> Result<Vec<ApiKeyRecord>, Error> {
        self.read_api_keys(None, page, owner).await
    }

    /// A key by id; of one owner where one is named.
    pub async fn api_key(
        &mut self,
        id: ApiKeyId,
        owner: Option<Uuid>,
    ) -> Result<Option<ApiKeyRecord>, Error> {
        Ok(self.read_api_keys(Some(id.as_uuid()), &Page::first(1), owner).await?.pop())
    }

    async fn read_api_keys(
        &mut self,
        id: Option<Uuid>,
        page: &Page,
        owner: Option<Uuid>,
    ) -> Result<Vec<ApiKeyRecord>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT k.id, k.name, k.environment, ARRAY(SELECT m.role FROM memberships m
                WHERE m.tenant_id = k.tenant_id AND m.subject = k.id) AS roles, k.scopes, k.owner, k.created_by,
                k.created_at, k.expires_at, k.revoked_at, k.rotated_from, k.overlap_until, k.last_used_at
             FROM api_keys k WHERE k.tenant_id = $1
             AND ($2::uuid IS NULL OR k.id = $2) AND ($3::uuid IS NULL OR k.owner = $3)
             AND (k.created_at, k.id) < ($4, $5)
             ORDER BY k.created_at DESC, k.id DESC LIMIT $6",
        )
        .bind(self.tenant.as_uuid())
        .bind(id)
        .bind(owner)
        .bind(page.after.created_at)
        .bind(page.after.id)
        .bind(page.limit)
        .fetch_all(&mut *self.connection)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Gives a key another name.
    pub async fn rename_api_key(&mut self, id: ApiKeyId, name: &str) -> Result<Changed, Error> {
        self.lock_api_key(id).await?;
        let Some(before) = self.api_key(id, None).await? else { return Ok(Changed::Missing) };
        if before.name == name {
            return Ok(Changed::No);
        }
        sqlx::query("UPDATE api_keys SET name = $3 WHERE tenant_id = $1 AND id = $2")
            .bind(self.tenant.as_uuid())
            .bind(id.as_uuid())
            .bind(name)
            .execute(&mut *self.connection)
            .await?;
        let change = json!({"old": {"name": before.name}, "new": {"name": name}});
        self.audit_change("api_key.rename", "api_key", id, change).await?;
        Ok(Changed::Yes)
    }

    /// Makes a key that takes over from `old`, with its name, roles, scopes, owner and length of life; `old` opens
    /// until `overlap_until`, and never longer than before. `None` where `old` no longer opens or has a successor.
    pub async fn rotate_api_key(
        &mut self,
        old: ApiKeyId,
        new: ApiKeyId,
        mark: &KeyMark,
        overlap_until: OffsetDateTime,
    ) -> Result<Option<ApiKeyRecord>, Error> {
        let ended = sqlx::query(
            "UPDATE api_keys SET overlap_until = $3 WHERE tenant_id = $1 AND id = $2
             AND revoked_at IS NULL AND overlap_until IS NULL AND coalesce(expires_at > now(), true)",
        )
        .bind(self.tenant.as_uuid())
        .bind(old.as_uuid())
        .bind(overlap_until)
        .execute(&mut *self.connection)
        .await?;
        if ended.rows_affected() == 0 {
            return Ok(None);
        }
        sqlx::query(
            "INSERT INTO api_keys (tenant_id, id, name, environment, pepper_id, hmac, scopes, owner, created_by,
                expires_at, rotated_from)
             SELECT k.tenant_id, $3, k.name, k.environment, $4, $5, k.scopes, k.owner, $6,
                now() + (k.expires_at - k.created_at), k.id
             FROM api_keys k WHERE k.tenant_id = $1 AND k.id = $2",
        )
        .bind(self.tenant.as_uuid())
        .bind(old.as_uuid())
        .bind(new.as_uuid())
        .bind(&mark.pepper_id)
        .bind(mark.hmac.as_slice())
        .bind(&self.op.subject)
        .execute(&mut *self.connection)
        .await?;
        sqlx::query(
            "INSERT INTO memberships (tenant_id, key_id, role)
             SELECT tenant_id, $3, role FROM memberships WHERE tenant_id = $1 AND subject = $2",
        )
        .bind(self.tenant.as_uuid())
        .bind(old.as_uuid())
        .bind(new.as_uuid())
        .execute(&mut *self.connection)
        .await?;
        self.publish_keys(&[old.as_uuid(), new.as_uuid()]).await?;
        let change = json!({
            "old": {"overlap_until": null},
            "new": {"overlap_until": audit::told(overlap_until), "successor": new},
        });
        self.audit_change("api_key.rotate", "api_key", old, change).await?;
        self.api_key(new, None).await
    }

    /// Ends a key at once.
    pub async fn revoke_api_key(&mut self, id: ApiKeyId) -> Result<Changed, Error> {
        let done = sqlx::query(
            "UPDATE api_keys SET revoked_at = now() WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL",
        )
        .bind(self.tenant.as_uuid())
        .bind(id.as_uuid())
        .execute(&mut *self.connection)
        .await?;
        if done.rows_affected() == 0 {
            let known = self.api_key(id, None).await?.is_some();
            return Ok(if known { Changed::No } else { Changed::Missing });
        }
        self.publish_keys(&[id.as_uuid()]).await?;
        let change = json!({"old": {"revoked": false}, "new": {"revoked": true}});
        self.audit_change("api_key.revoke", "api_key", id, change).await?;
        Ok(Changed::Yes)
    }

    /// Ends every key of an owner and returns which; the row of the audit that tells of the owner's end names them.
    pub(crate) async fn revoke_keys_of(&mut self, owner: Uuid) -> Result<Vec<Uuid>, Error> {
        let ended: Vec<Uuid> = sqlx::query_scalar(
            "UPDATE api_keys SET revoked_at = now() WHERE tenant_id = $1 AND owner = $2 AND revoked_at IS NULL
             RETURNING id",
        )
        .bind(self.tenant.as_uuid())
        .bind(owner)
        .fetch_all(&mut *self.connection)
        .await?;
        self.publish_keys(&ended).await?;
        Ok(ended)
    }

    async fn publish_keys(&mut self, ids: &[Uuid]) -> Result<(), Error> {
        let changes: Vec<Change> =
            ids.iter().map(|id| Change::Credential { credential: id.to_string() }).collect();
        self.publish(&changes).await
    }
}
