//! What is counted against quotas, in the transaction that uses it: of many at the same time none gets past the limit.
//! Knows nothing of where a limit comes from.

use time::Date;

use crate::{Error, TenantTx};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Registered agents.
    Agents,
    /// Bytes that are stored.
    StorageBytes,
    /// Executions that were submitted on a day.
    Executions,
    /// Minutes of processor time on a day.
    ComputeMinutes,
    /// Tokens on a day.
    Tokens,
}

impl Counted {
    /// Its name in the tables of quotas.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::StorageBytes => "storage_bytes",
            Self::Executions => "executions",
            Self::ComputeMinutes => "compute_minutes",
            Self::Tokens => "tokens",
        }
    }

    /// Whether it begins anew with every UTC day.
    pub const fn is_daily(self) -> bool {
        matches!(self, Self::Executions | Self::ComputeMinutes | Self::Tokens)
    }

    /// The day of its row. What does not begin anew has one row.
    fn day(self, op: &crate::OpCtx) -> Date {
        let day = if self.is_daily() { op.now } else { time::OffsetDateTime::UNIX_EPOCH };
        day.to_offset(time::UtcOffset::UTC).date()
    }
}

impl TenantTx<'_> {
    /// Takes `amount` of what `limit` leaves and returns how much is used then; `None`, and nothing taken, where that
    /// would be more than `limit`. Whoever comes at the same time waits until this transaction ends.
    pub async fn charge(
        &mut self,
        what: Counted,
        amount: u32,
        limit: u64,
    ) -> Result<Option<u64>, Error> {
        let day = what.day(self.op);
        let used: Option<i64> = sqlx::query_scalar(
            "INSERT INTO usage_counters AS c (tenant_id, quota, day, used)
             SELECT $1, $2, $3, $4 WHERE $4 <= $5
             ON CONFLICT (tenant_id, quota, day) DO UPDATE SET used = c.used + $4 WHERE c.used + $4 <= $5
             RETURNING used",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(what.as_str())
        .bind(day)
        .bind(i64::from(amount))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_optional(self.connection())
        .await?;
        used.map(|used| u64::try_from(used).map_err(|_| Error::Unreadable { what: "usage" }))
            .transpose()
    }

    /// Gives `amount` back, never below nothing.
    pub async fn release(&mut self, what: Counted, amount: u32) -> Result<(), Error> {
        let day = what.day(self.op);
        sqlx::query(
            "UPDATE usage_counters SET used = greatest(used - $4, 0)
             WHERE tenant_id = $1 AND quota = $2 AND day = $3",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(what.as_str())
        .bind(day)
        .bind(i64::from(amount))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// How much is used now.
    pub async fn used(&mut self, what: Counted) -> Result<u64, Error> {
        let day = what.day(self.op);
        let used: Option<i64> = sqlx::query_scalar(
            "SELECT used FROM usage_counters WHERE tenant_id = $1 AND quota = $2 AND day = $3",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(what.as_str())
        .bind(day)
        .fetch_optional(self.connection())
        .await?;
        u64::try_from(used.unwrap_or(0)).map_err(|_| Error::Unreadable { what: "usage" })
    }
}
