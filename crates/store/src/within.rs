//! One tenant's members and credentials, written the same way through both doors that may: the tenant's own and the
//! admin's. What every write here needs: its audit row, and the outbox row that tells whoever remembers facts.
//! Knows nothing of who may do what.

use std::sync::Arc;

use gatehouse_contract::{TenantId, sidecar::Change};
use serde_json::{Map, Value};
use sqlx::PgConnection;

use crate::{
    AdminTx, Error, OpCtx, TenantTx,
    audit::{self, Details},
    data_keys::{Cipher, Keys},
};

/// One tenant within an open transaction. Every statement names the tenant besides what row security does: behind the
/// admin door nothing else would.
pub struct Within<'t> {
    pub(crate) connection: &'t mut PgConnection,
    pub(crate) op: &'t OpCtx,
    pub(crate) tenant: TenantId,
    pub(crate) reason: Option<&'t str>,
    keys: &'t mut Keys,
    /// Where what was done waits for the one row that tells of it; `None` writes each at once.
    gathered: Option<&'t mut Vec<Done>>,
}

/// Something that was done, and has no row of the audit yet.
pub(crate) struct Done {
    pub(crate) action: &'static str,
    pub(crate) target_kind: &'static str,
    pub(crate) target_id: String,
    pub(crate) values: Map<String, Value>,
}

impl TenantTx<'_> {
    /// The tenant's own members and credentials.
    pub fn within(&mut self) -> Within<'_> {
        let (connection, op, keys, gathered) = self.all_parts();
        Within { connection, op, tenant: op.tenant, reason: None, keys, gathered }
    }
}

impl AdminTx<'_> {
    /// The members and credentials of any tenant.
    pub fn within(&mut self, tenant: TenantId) -> Within<'_> {
        let (connection, op, reason, keys) = self.parts_and_keys();
        Within { connection, op, tenant, reason: Some(reason), keys, gathered: None }
    }
}

impl Within<'_> {
    /// Whose members and credentials these are.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Writes the row of what was done, where there is nothing to tell of it.
    pub(crate) async fn audit(
        &mut self,
        action: &'static str,
        target_kind: &'static str,
        target_id: impl ToString,
    ) -> Result<(), Error> {
        self.audit_change(action, target_kind, target_id, Value::Object(Map::new())).await
    }

    /// Writes the row of what was done, with what was before and after: objects `old` and `new`, without secrets.
    pub(crate) async fn audit_change(
        &mut self,
        action: &'static str,
        target_kind: &'static str,
        target_id: impl ToString,
        values: Value,
    ) -> Result<(), Error> {
        let target_id = target_id.to_string();
        if let Some(gathered) = &mut self.gathered {
            let Value::Object(values) = values else {
                return Err(Error::Unreadable { what: "values" });
            };
            gathered.push(Done { action, target_kind, target_id, values });
            return Ok(());
        }
        let details = Some(Details::seal(&*self.cipher().await?, &values)?);
        let (tenant, reason) = (self.tenant, self.reason);
        let entry = audit::Entry { tenant, action, target_kind, target_id, reason, details };
        audit::write(self.connection, self.op, entry).await
    }

    /// The tenant's key.
    pub(crate) async fn cipher(&mut self) -> Result<Arc<Cipher>, Error> {
        self.keys.of(self.connection, self.tenant).await
    }

    pub(crate) async fn publish(&mut self, changes: &[Change]) -> Result<(), Error> {
        publish(self.connection, self.tenant, changes).await
    }
}

/// Puts changes into the outbox of the transaction that makes them.
pub(crate) async fn publish(
    connection: &mut PgConnection,
    tenant: TenantId,
    changes: &[Change],
) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let kinds: Vec<&str> = changes.iter().map(kind).collect();
    let payloads: Result<Vec<Value>, _> = changes.iter().map(serde_json::to_value).collect();
    let payloads = payloads.map_err(|_| Error::Unreadable { what: "change" })?;
    sqlx::query(
        "INSERT INTO outbox (tenant_id, kind, payload)
         SELECT $1, c.kind, c.payload FROM unnest($2::text[], $3::jsonb[]) AS c (kind, payload)",
    )
    .bind(tenant.as_uuid())
    .bind(kinds)
    .bind(payloads)
    .execute(connection)
    .await?;
    Ok(())
}

const fn kind(change: &Change) -> &'static str {
    match change {
        Change::Tenant { .. } => "tenant",
        Change::Subject { .. } => "subject",
        Change::Credential { .. } => "credential",
        Change::Keys { .. } => "keys",
        Change::Deny(_) => "deny",
    }
}
