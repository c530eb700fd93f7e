//! The door of one tenant: a transaction in which row security shows that tenant's rows and no others.
//! What can be done behind it is beside the data: [`crate::agents`], [`crate::executions`], [`crate::members`].

use std::sync::Arc;

use gatehouse_contract::TenantId;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Transaction};

use crate::{
    Error, OpCtx, Store, audit,
    data_keys::{Cipher, Keys},
};

/// What a tenant's transaction begins with, in one round trip. Local to the transaction, so that the next user of the
/// connection starts without a tenant, in our pool and in one between us and the database.
///
/// Nothing but a parsed id comes into the text: thirty-two hexadecimal digits and four dashes, whatever it is.
pub fn enter(tenant: TenantId) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "BEGIN; SET LOCAL app.current_tenant_id = '{}'; SET LOCAL statement_timeout = '5s';
         SET LOCAL idle_in_transaction_session_timeout = '10s'",
        tenant.as_uuid().hyphenated(),
    ))
}

/// An open transaction of one tenant. Dropped without [`Self::commit`] it leaves no trace.
pub struct TenantTx<'op> {
    transaction: Transaction<'static, Postgres>,
    pub(crate) op: &'op OpCtx,
    keys: Keys,
}

impl Store {
    /// Opens a transaction that sees `op.tenant` alone.
    pub async fn tenant<'op>(&self, op: &'op OpCtx) -> Result<TenantTx<'op>, Error> {
        let transaction = self.app.begin_with(enter(op.tenant)).await?;
        Ok(TenantTx { transaction, op, keys: Keys::new(self.vault.clone()) })
    }
}

impl TenantTx<'_> {
    /// Makes it last.
    pub async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await.map_err(Into::into)
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    pub(crate) fn parts(&mut self) -> (&mut PgConnection, &OpCtx) {
        (&mut self.transaction, self.op)
    }

    pub(crate) fn parts_and_keys(&mut self) -> (&mut PgConnection, &OpCtx, &mut Keys) {
        (&mut self.transaction, self.op, &mut self.keys)
    }

    /// The tenant's key.
    pub(crate) async fn cipher(&mut self) -> Result<Arc<Cipher>, Error> {
        self.keys.of(&mut self.transaction, self.op.tenant).await
    }

    pub(crate) async fn audit(
        &mut self,
        action: &'static str,
        target_kind: &'static str,
        target_id: impl ToString,
    ) -> Result<(), Error> {
        let target_id = target_id.to_string();
        let entry = audit::Entry {
            tenant: self.op.tenant,
            action,
            target_kind,
            target_id,
            reason: None,
            details: None,
        };
        audit::write(&mut self.transaction, self.op, entry).await
    }
}
