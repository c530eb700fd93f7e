//! The door of one tenant: a transaction in which row security shows that tenant's rows and no others.
//! What can be done behind it is beside the data: [`crate::agents`], [`crate::executions`], [`crate::members`].

use std::sync::Arc;

use gatehouse_contract::TenantId;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Transaction};

use crate::{
    Error, OpCtx, Store,
    data_keys::{Cipher, Keys, Vault},
    within::Done,
};

/// What a tenant's transaction begins with, in one round trip. Local to the transaction, so that the next user of the
/// connection starts without a tenant, in our pool and in one between us and the database.
pub fn enter(tenant: TenantId) -> AssertSqlSafe<String> {
    entering("BEGIN", tenant, 5)
}

/// As [`enter`], at a replica, where a read has less time: the primary is to answer what takes too long there.
pub(crate) fn enter_reading(tenant: TenantId) -> AssertSqlSafe<String> {
    entering("BEGIN READ ONLY", tenant, 2)
}

/// Nothing but a parsed id comes into the text: thirty-two hexadecimal digits and four dashes, whatever it is.
fn entering(begin: &'static str, tenant: TenantId, statement_s: u8) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "{begin}; SET LOCAL app.current_tenant_id = '{}'; SET LOCAL statement_timeout = '{statement_s}s';
         SET LOCAL idle_in_transaction_session_timeout = '10s'",
        tenant.as_uuid().hyphenated(),
    ))
}

/// An open transaction of one tenant. Dropped without [`Self::commit`] it leaves no trace.
pub struct TenantTx<'op> {
    transaction: Transaction<'static, Postgres>,
    pub(crate) op: &'op OpCtx,
    keys: Keys,
    gathered: Option<Vec<Done>>,
}

impl Store {
    /// Opens a transaction that sees `op.tenant` alone.
    pub async fn tenant<'op>(&self, op: &'op OpCtx) -> Result<TenantTx<'op>, Error> {
        let transaction = self.app.begin_with(enter(op.tenant)).await?;
        Ok(TenantTx { transaction, op, keys: Keys::new(self.vault.clone()), gathered: None })
    }
}

impl<'op> TenantTx<'op> {
    /// A transaction at a replica, which makes no key.
    pub(crate) fn reading(
        transaction: Transaction<'static, Postgres>,
        op: &'op OpCtx,
        vault: Option<Arc<Vault>>,
    ) -> Self {
        Self { transaction, op, keys: Keys::reading(vault), gathered: None }
    }
}

impl TenantTx<'_> {
    /// From here on what is done to members and credentials is told in one row of the audit: that of what is done last,
    /// which names all that led to it in `with`.
    pub fn in_one_row(&mut self) {
        self.gathered.get_or_insert_default();
    }

    /// Makes it last.
    pub async fn commit(mut self) -> Result<(), Error> {
        self.tell_gathered().await?;
        self.transaction.commit().await.map_err(Into::into)
    }

    async fn tell_gathered(&mut self) -> Result<(), Error> {
        let mut gathered = self.gathered.take().unwrap_or_default();
        let Some(mut last) = gathered.pop() else { return Ok(()) };
        let with: Vec<Value> = gathered
            .into_iter()
            .map(|done| {
                let mut told = done.values;
                told.insert("action".to_owned(), done.action.into());
                told.insert("target_kind".to_owned(), done.target_kind.into());
                told.insert("target_id".to_owned(), done.target_id.into());
                Value::Object(told)
            })
            .collect();
        if !with.is_empty() {
            last.values.insert("with".to_owned(), Value::Array(with));
        }
        let Done { action, target_kind, target_id, values } = last;
        self.within().audit_change(action, target_kind, target_id, Value::Object(values)).await
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    pub(crate) fn parts(&mut self) -> (&mut PgConnection, &OpCtx) {
        (&mut self.transaction, self.op)
    }

    pub(crate) fn all_parts(
        &mut self,
    ) -> (&mut PgConnection, &OpCtx, &mut Keys, Option<&mut Vec<Done>>) {
        (&mut self.transaction, self.op, &mut self.keys, self.gathered.as_mut())
    }

    /// The tenant's key.
    pub(crate) async fn cipher(&mut self) -> Result<Arc<Cipher>, Error> {
        self.keys.of(&mut self.transaction, self.op.tenant).await
    }
}
