//! A tenant's record and who acts in it: users and clients with their status and roles.
//! Knows nothing of secrets but their hash, and nothing of who may change whom.

mod read;

use gatehouse_contract::{
    ClientId, Role, Roles, TenantId, TenantStatus, Tier, UserId, sidecar::Change,
};
use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::read::Which;
use crate::{
    Error, TenantTx, Within,
    addresses::{NAME, Person},
};

/// A tenant's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Unique in the installation.
    pub slug: String,
    /// For people.
    pub name: String,
    /// What it pays for.
    pub tier: Tier,
    /// Whether it may act.
    pub status: TenantStatus,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// A client to be made. Its secret is known to its owner alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewClient<'a> {
    /// Its id.
    pub id: ClientId,
    /// For people.
    pub name: &'a str,
    /// SHA-256 of its secret.
    pub secret_sha256: [u8; 32],
}

/// Who acts in a tenant and can be told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// A human.
    User(UserId),
    /// A program with a secret.
    Client(ClientId),
}

/// What the record says of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// Who.
    pub member: Member,
    /// A user's e-mail address, a client's name.
    pub name: String,
    /// A user's own name, where it was told.
    pub full_name: Option<String>,
    /// Whether it may act.
    pub suspended: bool,
    /// What it may do.
    pub roles: Roles,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It was made.
    Yes,
    /// It was so already.
    No,
    /// There is no such one in this tenant.
    Missing,
}

/// Keeps the admins of one tenant from leaving at the same time: an advisory lock in this space, by tenant.
const ADMINS_LOCK: i64 = 0x6761_7465_0001;

impl Member {
    /// Its id as a principal's subject.
    pub const fn id(self) -> Uuid {
        match self {
            Self::User(id) => id.as_uuid(),
            Self::Client(id) => id.as_uuid(),
        }
    }

    /// `user` or `client`, as in the audit.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Client(_) => "client",
        }
    }
}

pub(crate) type TenantRow = (Uuid, String, String, String, String, OffsetDateTime);

impl TryFrom<TenantRow> for Tenant {
    type Error = Error;

    fn try_from((id, slug, name, tier, status, created_at): TenantRow) -> Result<Self, Error> {
        Ok(Self {
            id: TenantId::new(id),
            slug,
            name,
            tier: tier.parse().map_err(|_| Error::Unreadable { what: "tier" })?,
            status: status.parse().map_err(|_| Error::Unreadable { what: "status" })?,
            created_at,
        })
    }
}

/// Roles as they are stored.
pub(crate) fn roles(names: &[String]) -> Result<Roles, Error> {
    let roles: Result<Roles, _> = names.iter().map(|role| role.parse()).collect();
    roles.map_err(|_| Error::Unreadable { what: "role" })
}

pub(crate) async fn tenant(
    connection: &mut PgConnection,
    id: TenantId,
) -> Result<Option<Tenant>, Error> {
    let row: Option<TenantRow> = sqlx::query_as(
        "SELECT id, slug, name, tier, status, created_at FROM tenants WHERE id = $1",
    )
    .bind(id.as_uuid())
    .fetch_optional(connection)
    .await?;
    row.map(TryInto::try_into).transpose()
}

pub(crate) async fn insert_client(
    connection: &mut PgConnection,
    tenant: TenantId,
    new: &NewClient<'_>,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO oauth_clients (tenant_id, id, name, secret_sha256) VALUES ($1, $2, $3, $4)",
    )
    .bind(tenant.as_uuid())
    .bind(new.id.as_uuid())
    .bind(new.name)
    .bind(new.secret_sha256.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

impl TenantTx<'_> {
    /// The tenant's own record.
    pub async fn record(&mut self) -> Result<Option<Tenant>, Error> {
        let id = self.op.tenant;
        tenant(self.connection(), id).await
    }
}

impl Within<'_> {
    /// Makes a user without a name, with a role. An address that is taken is [`Error::Conflict`], an unknown tenant
    /// [`Error::Missing`].
    pub async fn create_user(&mut self, id: UserId, email: &str, role: Role) -> Result<(), Error> {
        self.create_named_user(id, (email, None), role).await
    }

    /// As [`Self::create_user`], with the name of whoever has the address.
    pub async fn create_named_user(
        &mut self,
        id: UserId,
        (email, name): (&str, Option<&str>),
        role: Role,
    ) -> Result<(), Error> {
        self.insert_user(id, &Person { email, name }, false).await?;
        self.insert_role(Member::User(id), role).await?;
        self.publish_member(Member::User(id)).await?;
        let new = json!({"email": email, "name": name, "role": role.as_str()});
        self.audit_change("user.create", "user", id, json!({"new": new})).await
    }

    /// Makes a client with a role; an unknown tenant is [`Error::Missing`].
    pub async fn create_client(&mut self, new: &NewClient<'_>, role: Role) -> Result<(), Error> {
        insert_client(self.connection, self.tenant, new).await?;
        self.insert_role(Member::Client(new.id), role).await?;
        self.publish_member(Member::Client(new.id)).await?;
        let told = json!({"name": new.name, "role": role.as_str()});
        self.audit_change("client.create", "client", new.id, json!({"new": told})).await
    }

    /// Suspends a member or lets it act again. The last admin who may act stays: [`Error::LastAdmin`].
    pub async fn set_suspended(
        &mut self,
        member: Member,
        suspended: bool,
    ) -> Result<Changed, Error> {
        let Some(found) = self.lock(member).await? else { return Ok(Changed::Missing) };
        if found.suspended == suspended {
            return Ok(Changed::No);
        }
        if suspended {
            self.spare_last_admin(&found).await?;
        }
        let query = match member {
            Member::User(_) => "UPDATE users SET status = $3 WHERE tenant_id = $1 AND id = $2",
            Member::Client(_) => {
                "UPDATE oauth_clients SET status = $3 WHERE tenant_id = $1 AND id = $2"
            }
        };
        sqlx::query(query)
            .bind(self.tenant.as_uuid())
            .bind(member.id())
            .bind(if suspended { "suspended" } else { "active" })
            .execute(&mut *self.connection)
            .await?;
        self.publish_member(member).await?;
        let action = match (member, suspended) {
            (Member::User(_), true) => "user.suspend",
            (Member::User(_), false) => "user.resume",
            (Member::Client(_), true) => "client.suspend",
            (Member::Client(_), false) => "client.resume",
        };
        let status = |suspended| if suspended { "suspended" } else { "active" };
        let change =
            json!({"old": {"status": status(!suspended)}, "new": {"status": status(suspended)}});
        self.audit_change(action, member.kind(), member.id(), change).await?;
        Ok(Changed::Yes)
    }

    /// Gives a member a role besides those it has.
    pub async fn grant_role(&mut self, member: Member, role: Role) -> Result<Changed, Error> {
        let Some(found) = self.lock(member).await? else { return Ok(Changed::Missing) };
        if found.roles.holds(role) {
            return Ok(Changed::No);
        }
        self.insert_role(member, role).await?;
        self.publish_member(member).await?;
        self.audit_roles("role.grant", &found, found.roles.with(role)).await?;
        Ok(Changed::Yes)
    }

    /// Takes a role away. The last admin who may act stays one: [`Error::LastAdmin`].
    pub async fn revoke_role(&mut self, member: Member, role: Role) -> Result<Changed, Error> {
        let Some(found) = self.lock(member).await? else { return Ok(Changed::Missing) };
        if !found.roles.holds(role) {
            return Ok(Changed::No);
        }
        if role == Role::Admin {
            self.spare_last_admin(&found).await?;
        }
        sqlx::query("DELETE FROM memberships WHERE tenant_id = $1 AND subject = $2 AND role = $3")
            .bind(self.tenant.as_uuid())
            .bind(member.id())
            .bind(role.as_str())
            .execute(&mut *self.connection)
            .await?;
        self.publish_member(member).await?;
        let left = found.roles.iter().filter(|held| *held != role).collect();
        self.audit_roles("role.revoke", &found, left).await?;
        Ok(Changed::Yes)
    }

    /// Gives a locked member another name, a user also none. A client without a name is [`Error::Statement`].
    pub async fn rename_member(
        &mut self,
        before: &MemberRecord,
        name: Option<&str>,
    ) -> Result<Changed, Error> {
        let (was, action) = match before.member {
            Member::User(_) => (before.full_name.as_deref(), "user.update"),
            Member::Client(_) => (Some(before.name.as_str()), "client.update"),
        };
        if was == name {
            return Ok(Changed::No);
        }
        let id = before.member.id();
        match before.member {
            Member::User(_) => {
                let cipher = self.cipher().await?;
                let sealed = name.map(|name| cipher.seal(NAME, id, name.as_bytes())).transpose()?;
                sqlx::query("UPDATE users SET sealed_name = $3 WHERE tenant_id = $1 AND id = $2")
                    .bind(self.tenant.as_uuid())
                    .bind(id)
                    .bind(sealed)
                    .execute(&mut *self.connection)
                    .await?;
            }
            Member::Client(_) => {
                sqlx::query("UPDATE oauth_clients SET name = $3 WHERE tenant_id = $1 AND id = $2")
                    .bind(self.tenant.as_uuid())
                    .bind(id)
                    .bind(name)
                    .execute(&mut *self.connection)
                    .await?;
            }
        }
        let change = json!({"old": {"name": was}, "new": {"name": name}});
        self.audit_change(action, before.member.kind(), id, change).await?;
        Ok(Changed::Yes)
    }

    async fn audit_roles(
        &mut self,
        action: &'static str,
        before: &MemberRecord,
        now: Roles,
    ) -> Result<(), Error> {
        let change = json!({"old": {"roles": before.roles}, "new": {"roles": now}});
        self.audit_change(action, before.member.kind(), before.member.id(), change).await
    }

    /// Removes a member; its keys end with it. The last admin who may act stays: [`Error::LastAdmin`].
    pub async fn delete_member(&mut self, member: Member) -> Result<Changed, Error> {
        let Some(found) = self.lock(member).await? else { return Ok(Changed::Missing) };
        self.spare_last_admin(&found).await?;
        let keys = self.revoke_keys_of(member.id()).await?;
        let query = match member {
            Member::User(_) => "DELETE FROM users WHERE tenant_id = $1 AND id = $2",
            Member::Client(_) => "DELETE FROM oauth_clients WHERE tenant_id = $1 AND id = $2",
        };
        for query in ["DELETE FROM memberships WHERE tenant_id = $1 AND subject = $2", query] {
            sqlx::query(query)
                .bind(self.tenant.as_uuid())
                .bind(member.id())
                .execute(&mut *self.connection)
                .await?;
        }
        self.publish_member(member).await?;
        let action = match member {
            Member::User(_) => "user.delete",
            Member::Client(_) => "client.delete",
        };
        let roles: Vec<&str> = found.roles.iter().map(Role::as_str).collect();
        let old = match member {
            Member::User(_) => {
                json!({"email": found.name, "name": found.full_name, "roles": roles, "api_keys": keys})
            }
            Member::Client(_) => json!({"name": found.name, "roles": roles, "api_keys": keys}),
        };
        self.audit_change(action, member.kind(), member.id(), json!({"old": old})).await?;
        Ok(Changed::Yes)
    }

    /// Gives a client another secret; the old one ends at once. `false` when there is no such client.
    pub async fn replace_client_secret(
        &mut self,
        client: ClientId,
        secret_sha256: [u8; 32],
    ) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE oauth_clients SET secret_sha256 = $3, secret_changed_at = now()
             WHERE tenant_id = $1 AND id = $2",
        )
        .bind(self.tenant.as_uuid())
        .bind(client.as_uuid())
        .bind(secret_sha256.as_slice())
        .execute(&mut *self.connection)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let change = json!({"old": {"secret": "redacted"}, "new": {"secret": "redacted"}});
        self.audit_change("client.rotate_secret", "client", client, change).await?;
        Ok(true)
    }

    /// Tells that a member's facts changed, and those of the keys that are bounded by it.
    pub(crate) async fn publish_member(&mut self, member: Member) -> Result<(), Error> {
        let keys: Vec<Uuid> = sqlx::query_scalar(
            "SELECT id FROM api_keys WHERE tenant_id = $1 AND owner = $2 AND revoked_at IS NULL",
        )
        .bind(self.tenant.as_uuid())
        .bind(member.id())
        .fetch_all(&mut *self.connection)
        .await?;
        let tenant = self.tenant;
        let changes: Vec<Change> = std::iter::once(member.id())
            .chain(keys)
            .map(|subject| Change::Subject { tenant, subject: subject.to_string() })
            .collect();
        self.publish(&changes).await
    }

    /// What the record says of a member whom nobody else changes before this transaction ends. It makes the member's
    /// epoch grow.
    pub(crate) async fn lock(&mut self, member: Member) -> Result<Option<MemberRecord>, Error> {
        let query = match member {
            Member::User(_) => "UPDATE users SET status = status WHERE tenant_id = $1 AND id = $2",
            Member::Client(_) => {
                "UPDATE oauth_clients SET status = status WHERE tenant_id = $1 AND id = $2"
            }
        };
        sqlx::query(query)
            .bind(self.tenant.as_uuid())
            .bind(member.id())
            .execute(&mut *self.connection)
            .await?;
        // A statement of its own: it sees what was committed while the one above waited.
        self.member(member).await
    }

    /// Refuses where `leaving`, who is locked, is the only admin who may act. Admins who leave the same tenant at the
    /// same time take turns here, and each counts after the one before has ended.
    async fn spare_last_admin(&mut self, leaving: &MemberRecord) -> Result<(), Error> {
        if leaving.suspended || !leaving.roles.holds(Role::Admin) {
            return Ok(());
        }
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, $2))")
            .bind(self.tenant.to_string())
            .bind(ADMINS_LOCK)
            .execute(&mut *self.connection)
            .await?;
        let others: bool = sqlx::query_scalar(
            "SELECT EXISTS (
                SELECT FROM memberships m
                LEFT JOIN users u ON u.tenant_id = m.tenant_id AND u.id = m.user_id
                LEFT JOIN oauth_clients c ON c.tenant_id = m.tenant_id AND c.id = m.client_id
                WHERE m.tenant_id = $1 AND m.role = 'admin' AND m.subject <> $2
                AND coalesce(u.status, c.status) = 'active')",
        )
        .bind(self.tenant.as_uuid())
        .bind(leaving.member.id())
        .fetch_one(&mut *self.connection)
        .await?;
        if others { Ok(()) } else { Err(Error::LastAdmin) }
    }

    pub(crate) async fn insert_role(&mut self, member: Member, role: Role) -> Result<(), Error> {
        let query = match member {
            Member::User(_) => {
                "INSERT INTO memberships (tenant_id, user_id, role) VALUES ($1, $2, $3)"
            }
            Member::Client(_) => {
                "INSERT INTO memberships (tenant_id, client_id, role) VALUES ($1, $2, $3)"
            }
        };
        sqlx::query(query)
            .bind(self.tenant.as_uuid())
            .bind(member.id())
            .bind(role.as_str())
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }
}
