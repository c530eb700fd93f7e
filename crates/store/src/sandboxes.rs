//! Which sandbox runs an attempt: written under its lease, before anything is started in it.
//! Knows nothing of what a sandbox is.

use gatehouse_contract::ExecutionId;
use gatehouse_execution::{ExecutionState, sandbox::SandboxId};

use crate::{Error, TenantTx};

impl TenantTx<'_> {
    /// Writes that `sandbox` runs the attempt that holds the lease `lease_epoch` of `id`. `false` where that lease is over:
    /// then nothing may be started.
    ///
    /// # Errors
    /// [`Error`] of the database.
    pub async fn name_sandbox(
        &mut self,
        id: ExecutionId,
        lease_epoch: u64,
        sandbox: SandboxId,
    ) -> Result<bool, Error> {
        let written = sqlx::query(
            "UPDATE executions SET sandbox = $4 WHERE id = $1 AND lease_epoch = $2 AND state = $3",
        )
        .bind(id.as_uuid())
        .bind(i64::try_from(lease_epoch).unwrap_or(i64::MAX))
        .bind(ExecutionState::Running.as_str())
        .bind(sandbox.to_string())
        .execute(self.connection())
        .await?;
        Ok(written.rows_affected() == 1)
    }
}
