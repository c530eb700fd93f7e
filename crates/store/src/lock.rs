//! Rows that are kept as they are until the transaction ends, so that what was compared with a client's `If-Match` is what
//! is then changed. Each is read in a statement of its own behind the lock: it sees what was committed while that waited.
//! Knows nothing of what is compared.

use gatehouse_contract::{AgentId, ApiKeyId, IssuerId, TenantId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    AdminTx, Error, TenantTx, Within,
    agents::Agent,
    issuers::Issuer,
    members::{Member, MemberRecord, Tenant},
};

impl AdminTx<'_> {
    /// A tenant's record, kept.
    pub async fn lock_tenant(&mut self, id: TenantId) -> Result<Option<Tenant>, Error> {
        tenant(self.connection(), id).await?;
        self.tenant(id).await
    }
}

impl TenantTx<'_> {
    /// An agent, kept.
    pub async fn lock_agent(&mut self, id: AgentId) -> Result<Option<Agent>, Error> {
        let tenant = self.op.tenant.as_uuid();
        let lock = "SELECT true FROM agents WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE";
        run(self.connection(), lock, tenant, id.as_uuid()).await?;
        self.agent(id).await
    }
}

impl Within<'_> {
    /// Keeps the tenant's record; whether there is one.
    pub async fn lock_tenant(&mut self) -> Result<bool, Error> {
        tenant(self.connection, self.tenant).await
    }

    /// A member with its roles, kept.
    pub async fn lock_member(&mut self, member: Member) -> Result<Option<MemberRecord>, Error> {
        self.lock(member).await
    }

    /// Keeps an API key; whether there is one.
    pub async fn lock_api_key(&mut self, id: ApiKeyId) -> Result<bool, Error> {
        let lock = "SELECT true FROM api_keys WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE";
        run(self.connection, lock, self.tenant.as_uuid(), id.as_uuid()).await
    }

    /// An issuer without its secret, kept.
    pub async fn lock_issuer(&mut self, id: IssuerId) -> Result<Option<Issuer>, Error> {
        let lock = "SELECT true FROM issuers WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE";
        run(self.connection, lock, self.tenant.as_uuid(), id.as_uuid()).await?;
        self.issuer(id).await
    }
}

async fn tenant(connection: &mut PgConnection, id: TenantId) -> Result<bool, Error> {
    let lock = "SELECT true FROM tenants WHERE id = $1 AND id = $2 FOR NO KEY UPDATE";
    run(connection, lock, id.as_uuid(), id.as_uuid()).await
}

async fn run(
    connection: &mut PgConnection,
    lock: &'static str,
    tenant: Uuid,
    id: Uuid,
) -> Result<bool, Error> {
    let found: Option<bool> =
        sqlx::query_scalar(lock).bind(tenant).bind(id).fetch_optional(connection).await?;
    Ok(found.is_some())
}
