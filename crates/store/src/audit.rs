//! One audit row per mutation, in the mutation's transaction. Every mutating method of this crate calls it.
//! Knows nothing of the mutation but its name and target.

use gatehouse_contract::TenantId;
use sqlx::PgConnection;

use crate::{Error, OpCtx};

/// What was done to what.
pub(crate) struct Entry<'a> {
    pub(crate) tenant: TenantId,
    /// `kind.verb`, e.g. `agent.create`.
    pub(crate) action: &'static str,
    pub(crate) target_kind: &'static str,
    pub(crate) target_id: String,
    /// Why, where the admin door was used.
    pub(crate) reason: Option<&'a str>,
}

pub(crate) async fn write(
    connection: &mut PgConnection,
    op: &OpCtx,
    entry: Entry<'_>,
) -> Result<(), Error> {
    // The application has no grant on `reason`: only the admin door may state one.
    let statement = match entry.reason {
        None => sqlx::query(
            "INSERT INTO tenant_audit (tenant_id, subject, request_id, action, target_kind, target_id)
             VALUES ($1, $2, $3, $4, $5, $6)",
        ),
        Some(_) => sqlx::query(
            "INSERT INTO tenant_audit (tenant_id, subject, request_id, action, target_kind, target_id, reason)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        ),
    };
    let statement = statement
        .bind(entry.tenant.as_uuid())
        .bind(&op.subject)
        .bind(&op.request_id)
        .bind(entry.action)
        .bind(entry.target_kind)
        .bind(entry.target_id);
    let statement = match entry.reason {
        None => statement,
        Some(reason) => statement.bind(reason.to_owned()),
    };
    statement.execute(connection).await?;
    Ok(())
}
