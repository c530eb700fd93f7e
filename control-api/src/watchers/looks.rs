//! The two looks: at the numbers of executions' events in the record, and at the ends of running logs in Redis.
//! Knows nobody who waits.

use std::error::Error;

use gatehouse_contract::{ExecutionId, TenantId};
use gatehouse_redis_kit::{link, logs};
use gatehouse_store::Store;

use super::Watched;

/// Asks for all that is waited for at once.
pub trait Look<K>: Send {
    type Error: Error + 'static;

    /// Of those that are known up to these numbers, the ones that have greater numbers now.
    fn beyond(
        &self,
        known: &[(K, u64)],
    ) -> impl Future<Output = Result<Vec<(K, u64)>, Self::Error>> + Send;
}

/// Executions, by the numbers of their events.
pub struct Executions(pub Store);

/// Running logs, by their ends.
pub struct Logs(pub logs::Logs);

impl Watched for (TenantId, ExecutionId) {
    fn tenant(&self) -> TenantId {
        self.0
    }
}

impl Watched for logs::Place {
    fn tenant(&self) -> TenantId {
        self.tenant
    }
}

impl Look<(TenantId, ExecutionId)> for Executions {
    type Error = gatehouse_store::Error;

    async fn beyond(
        &self,
        known: &[((TenantId, ExecutionId), u64)],
    ) -> Result<Vec<((TenantId, ExecutionId), u64)>, Self::Error> {
        self.0.executions_beyond(known).await
    }
}

impl Look<logs::Place> for Logs {
    type Error = link::Error;

    async fn beyond(
        &self,
        known: &[(logs::Place, u64)],
    ) -> Result<Vec<(logs::Place, u64)>, Self::Error> {
        self.0.beyond(known).await
    }
}
