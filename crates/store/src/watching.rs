//! What somebody waits for: whether executions went on, asked once for all that are waited for; what was told of one since
//! an event; and the warning that its time runs out.
//! Knows neither who waits nor for how long.

use gatehouse_contract::{ExecutionId, TenantId};
use gatehouse_events::{Aggregate, Event, event::ExecutionTimeRunsOut};
use uuid::Uuid;

use crate::{Error, Store, TenantTx, events::Recorded, executions::count};

/// Most executions that one query asks for.
const AT_ONCE: usize = 4096;

/// An execution that is waited for.
pub type Place = (TenantId, ExecutionId);

impl Store {
    /// Of these executions, each with the number of the last event that is known, those that have newer ones, with the number
    /// of their newest. One query for up to some thousands of them, whosesoever they are.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn executions_beyond(
        &self,
        known: &[(Place, u64)],
    ) -> Result<Vec<(Place, u64)>, Error> {
        let mut moved = Vec::new();
        for known in known.chunks(AT_ONCE) {
            let tenants: Vec<Uuid> = known.iter().map(|((of, _), _)| of.as_uuid()).collect();
            let ids: Vec<Uuid> = known.iter().map(|((_, id), _)| id.as_uuid()).collect();
            let seen: Vec<i64> =
                known.iter().map(|(_, seen)| i64::try_from(*seen).unwrap_or(i64::MAX)).collect();
            let rows: Vec<(i64, i64)> =
                sqlx::query_as("SELECT n, seq FROM executions_beyond($1, $2, $3)")
                    .bind(tenants)
                    .bind(ids)
                    .bind(seen)
                    .fetch_all(&self.app)
                    .await?;
            moved.extend(rows.into_iter().filter_map(|(n, seq)| {
                let at = usize::try_from(n).ok()?.checked_sub(1)?;
                let (place, _) = known.get(at)?;
                Some((*place, u64::try_from(seq).ok()?))
            }));
        }
        Ok(moved)
    }
}

impl TenantTx<'_> {
    /// The events of an execution behind `after`, in their order; at most `limit`, at most [`crate::events::PAGE`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn told_since(
        &mut self,
        id: ExecutionId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Recorded>, Error> {
        self.events_after((Aggregate::Execution, id.as_uuid()), after, limit).await
    }

    /// Tells that an attempt has used 80 % of its time (RES-001), once per attempt however often it is called. `false` where
    /// it was told, or the execution does not run under this epoch any more.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn warn_execution(
        &mut self,
        id: ExecutionId,
        lease_epoch: u64,
    ) -> Result<bool, Error> {
        let warned: Option<(i32, i32)> = sqlx::query_as(
            "UPDATE executions SET warned_epoch = lease_epoch
             WHERE id = $1 AND lease_epoch = $2 AND state = 'running' AND warned_epoch IS DISTINCT FROM $2
             RETURNING attempt, timeout_s",
        )
        .bind(id.as_uuid())
        .bind(i64::try_from(lease_epoch).unwrap_or(i64::MAX))
        .fetch_optional(self.connection())
        .await?;
        let Some((attempt, timeout_s)) = warned else { return Ok(false) };
        let told = Event::ExecutionTimeRunsOut(ExecutionTimeRunsOut {
            lease_epoch,
            attempt: count(attempt)?,
            timeout_s: count(timeout_s)?,
        });
        self.append(id.as_uuid(), &told).await?;
        Ok(true)
    }
}
