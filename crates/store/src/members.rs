//! A tenant's record and who acts in it: users and clients with their roles. The same rows can be made through
//! the tenant's door by its admin and through the admin door by the platform.
//! Knows nothing of secrets but their hash.

use gatehouse_contract::{ClientId, Role, TenantId, TenantStatus, Tier, UserId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{AdminTx, Error, TenantTx};

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

async fn insert_user(
    connection: &mut PgConnection,
    tenant: TenantId,
    id: UserId,
    email: &str,
    role: Role,
) -> Result<(), Error> {
    sqlx::query("INSERT INTO users (tenant_id, id, email) VALUES ($1, $2, $3)")
        .bind(tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(email)
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO memberships (tenant_id, user_id, role) VALUES ($1, $2, $3)")
        .bind(tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(role.as_str())
        .execute(connection)
        .await?;
    Ok(())
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

async fn insert_client_role(
    connection: &mut PgConnection,
    tenant: TenantId,
    client: ClientId,
    role: Role,
) -> Result<(), Error> {
    sqlx::query("INSERT INTO memberships (tenant_id, client_id, role) VALUES ($1, $2, $3)")
        .bind(tenant.as_uuid())
        .bind(client.as_uuid())
        .bind(role.as_str())
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

    /// Makes a user with a role. An address that is taken is [`Error::Conflict`].
    pub async fn create_user(&mut self, id: UserId, email: &str, role: Role) -> Result<(), Error> {
        let tenant = self.op.tenant;
        insert_user(self.connection(), tenant, id, email, role).await?;
        self.audit("user.create", "user", id).await
    }

    /// Makes a client with a role.
    pub async fn create_client(&mut self, new: &NewClient<'_>, role: Role) -> Result<(), Error> {
        let tenant = self.op.tenant;
        insert_client(self.connection(), tenant, new).await?;
        insert_client_role(self.connection(), tenant, new.id, role).await?;
        self.audit("client.create", "client", new.id).await
    }
}

impl AdminTx<'_> {
    /// As [`TenantTx::create_user`], in any tenant; an unknown tenant is [`Error::Missing`].
    pub async fn create_user(
        &mut self,
        tenant: TenantId,
        id: UserId,
        email: &str,
        role: Role,
    ) -> Result<(), Error> {
        insert_user(self.connection(), tenant, id, email, role).await?;
        self.audit(tenant, "user.create", "user", id).await
    }

    /// As [`TenantTx::create_client`], in any tenant; an unknown tenant is [`Error::Missing`].
    pub async fn create_client(
        &mut self,
        tenant: TenantId,
        new: &NewClient<'_>,
        role: Role,
    ) -> Result<(), Error> {
        insert_client(self.connection(), tenant, new).await?;
        insert_client_role(self.connection(), tenant, new.id, role).await?;
        self.audit(tenant, "client.create", "client", new.id).await
    }
}
