//! What agents log: the end of it per attempt, sealed and kept with the attempt's end, and the seal of what is seen of it
//! while an attempt goes on. Nobody knows what is in it, so that all of it counts as personal.
//! Knows nothing of lines, nor of where a running attempt's log is.

use std::{fmt, sync::Arc};

use gatehouse_contract::ExecutionId;
use gatehouse_execution::outcome::Captured;
use time::OffsetDateTime;

use crate::{
    Error, OpCtx, Store, TenantTx,
    data_keys::Cipher,
    executions::{count, epoch},
};

/// Where tails are sealed; execution and epoch name the row.
const TAIL: &str = "execution_logs.tail";
/// Where the parts of a running attempt's log are sealed, wherever they lie.
const LIVE: &str = "execution_logs.live";

/// Most attempts that are told of.
const ATTEMPTS: i64 = 200;

/// Of an attempt that has ended, what its log had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHead {
    /// The claim that ran it.
    pub lease_epoch: u64,
    /// 1 is the first.
    pub attempt: u32,
    /// When it began.
    pub at: OffsetDateTime,
    /// All bytes that were written.
    pub total_bytes: u64,
}

/// The claim under which an execution runs or ran last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// 0 before the first claim.
    pub lease_epoch: u64,
    /// Of that claim.
    pub attempt: u32,
    /// Whether it runs under it now.
    pub running: bool,
    /// Whether it is settled.
    pub settled: bool,
}

/// Seals and opens the parts of one tenant's running logs.
#[derive(Clone)]
pub struct LogSeal(Arc<Cipher>);

#[derive(sqlx::FromRow)]
struct HeadRow {
    lease_epoch: i64,
    attempt: i32,
    at: OffsetDateTime,
    total_bytes: i64,
}

// === impl LogSeal ===

impl fmt::Debug for LogSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogSeal").field(&self.0).finish()
    }
}

impl LogSeal {
    /// Seals the part of an attempt's log that begins at the byte `from`.
    ///
    /// # Errors
    /// [`Error::Unreadable`] where no randomness is to be had.
    pub fn seal(
        &self,
        (execution, epoch, from): (ExecutionId, u64, u64),
        part: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.0.seal(LIVE, format_args!("{execution}/{epoch}/{from}"), part)
    }

    /// Seals the end of an attempt's log for its row.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn seal_tail(
        &self,
        (execution, epoch): (ExecutionId, u64),
        tail: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.0.seal(TAIL, name(execution, epoch), tail)
    }

    /// Opens what [`Self::seal`] made for the same place.
    ///
    /// # Errors
    /// [`Error::Unreadable`] for anything else.
    pub fn open(
        &self,
        (execution, epoch, from): (ExecutionId, u64, u64),
        sealed: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.0.open(LIVE, format_args!("{execution}/{epoch}/{from}"), sealed)
    }
}

impl Store {
    /// The seal of a tenant's running logs.
    ///
    /// # Errors
    /// As [`TenantTx::log_seal`].
    pub async fn log_seal(&self, op: &OpCtx) -> Result<LogSeal, Error> {
        self.tenant(op).await?.log_seal().await
    }
}

impl TenantTx<'_> {
    /// The seal of the tenant's running logs.
    ///
    /// # Errors
    /// [`Error::Erased`] of a tenant whose key was destroyed.
    pub async fn log_seal(&mut self) -> Result<LogSeal, Error> {
        Ok(LogSeal(self.cipher().await?))
    }

    /// Keeps the end of what an attempt logged, with the attempt's end: the claim must be `lease_epoch`'s and its row
    /// locked. One that logged nothing has no row.
    pub(crate) async fn keep_log(
        &mut self,
        id: ExecutionId,
        lease_epoch: u64,
        log: &Captured,
    ) -> Result<(), Error> {
        if log.total_bytes == 0 {
            return Ok(());
        }
        let sealed = self.log_seal().await?.seal_tail((id, lease_epoch), &log.bytes)?;
        sqlx::query(
            "INSERT INTO execution_logs (tenant_id, execution_id, lease_epoch, at, attempt, total_bytes, sealed_tail)
             SELECT tenant_id, id, lease_epoch, started_at, attempt, $3, $4 FROM executions
             WHERE id = $1 AND lease_epoch = $2 AND started_at IS NOT NULL
             ON CONFLICT DO NOTHING",
        )
        .bind(id.as_uuid())
        .bind(i64::try_from(lease_epoch).unwrap_or(i64::MAX))
        .bind(i64::try_from(log.total_bytes).unwrap_or(i64::MAX))
        .bind(sealed)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// The attempts whose end left a log, the newest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn logs(&mut self, id: ExecutionId) -> Result<Vec<LogHead>, Error> {
        let rows: Vec<HeadRow> = sqlx::query_as(
            "SELECT lease_epoch, attempt, at, total_bytes FROM execution_logs
             WHERE tenant_id = $1 AND execution_id = $2 ORDER BY lease_epoch DESC LIMIT $3",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(ATTEMPTS)
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// The end of what the attempt of a claim logged; `None` where it left nothing.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn log_of(
        &mut self,
        id: ExecutionId,
        lease_epoch: u64,
    ) -> Result<Option<Captured>, Error> {
        let row: Option<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT total_bytes, sealed_tail FROM execution_logs
             WHERE tenant_id = $1 AND execution_id = $2 AND lease_epoch = $3",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(i64::try_from(lease_epoch).unwrap_or(i64::MAX))
        .fetch_optional(self.connection())
        .await?;
        let Some((total, sealed)) = row else { return Ok(None) };
        let bytes = self.cipher().await?.open(TAIL, name(id, lease_epoch), &sealed)?;
        Ok(Some(Captured { bytes, total_bytes: bytes_of(total)? }))
    }

    /// Under which claim an execution runs or ran last; `None` where there is no such execution.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn last_run(&mut self, id: ExecutionId) -> Result<Option<Run>, Error> {
        let row: Option<(i64, i32, String)> = sqlx::query_as(
            "SELECT lease_epoch, attempt, state FROM executions WHERE tenant_id = $1 AND id = $2",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        let Some((lease_epoch, attempt, state)) = row else { return Ok(None) };
        let state = crate::executions::state(&state)?;
        Ok(Some(Run {
            lease_epoch: epoch(lease_epoch)?,
            attempt: count(attempt)?,
            running: state == gatehouse_execution::ExecutionState::Running,
            settled: state.is_settled(),
        }))
    }
}

impl TryFrom<HeadRow> for LogHead {
    type Error = Error;

    fn try_from(row: HeadRow) -> Result<Self, Error> {
        Ok(Self {
            lease_epoch: epoch(row.lease_epoch)?,
            attempt: count(row.attempt)?,
            at: row.at,
            total_bytes: bytes_of(row.total_bytes)?,
        })
    }
}

fn bytes_of(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::Unreadable { what: "log" })
}

fn name(id: ExecutionId, lease_epoch: u64) -> String {
    format!("{id}/{lease_epoch}")
}
