//! What is counted against quotas, in the transaction that uses it: of many at the same time none gets past the limit.
//! Knows nothing of where a limit comes from.

use time::{Date, OffsetDateTime, UtcOffset};

use crate::{Error, TenantTx, Within};

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
    /// Executions that run now: their rows say, and no counter.
    ConcurrentExecutions,
    /// Executions that wait now: their rows say, and a counter that is never below.
    QueuedExecutions,
}

impl Counted {
    /// Everything.
    pub const ALL: [Self; 7] = [
        Self::Agents,
        Self::StorageBytes,
        Self::Executions,
        Self::ComputeMinutes,
        Self::Tokens,
        Self::ConcurrentExecutions,
        Self::QueuedExecutions,
    ];

    /// Its name in the tables of quotas.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::StorageBytes => "storage_bytes",
            Self::Executions => "executions",
            Self::ComputeMinutes => "compute_minutes",
            Self::Tokens => "tokens",
            Self::ConcurrentExecutions => "concurrent_executions",
            Self::QueuedExecutions => "queued_executions",
        }
    }

    /// Whether it begins anew with every UTC day.
    pub const fn is_daily(self) -> bool {
        matches!(self, Self::Executions | Self::ComputeMinutes | Self::Tokens)
    }

    /// The day of its row: bytes are counted by month, and what does not begin anew has one row.
    pub(crate) fn day(self, op: &crate::OpCtx) -> Date {
        let today = op.now.to_offset(UtcOffset::UTC).date();
        match self {
            Self::StorageBytes => today.replace_day(1).unwrap_or(today),
            _ if self.is_daily() => today,
            _ => OffsetDateTime::UNIX_EPOCH.date(),
        }
    }
}

impl TenantTx<'_> {
    /// Takes `amount` of what `limit` leaves and returns how much is used then; `None`, and nothing taken, where that
    /// would be more than `limit`. Whoever comes at the same time waits until this transaction ends.
    pub async fn charge(
        &mut self,
        what: Counted,
        amount: u64,
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
        .bind(i64::try_from(amount).unwrap_or(i64::MAX))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_optional(self.connection())
        .await?;
        used.map(|used| u64::try_from(used).map_err(|_| Error::Unreadable { what: "usage" }))
            .transpose()
    }

    /// Gives `amount` back, never below nothing.
    pub async fn release(&mut self, what: Counted, amount: u64) -> Result<(), Error> {
        let day = what.day(self.op);
        sqlx::query(
            "UPDATE usage_counters SET used = greatest(used - $4, 0)
             WHERE tenant_id = $1 AND quota = $2 AND day = $3",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(what.as_str())
        .bind(day)
        .bind(i64::try_from(amount).unwrap_or(i64::MAX))
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

/// What a tenant used on a UTC day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The day.
    pub day: Date,
    /// Executions that were submitted.
    pub executions: u64,
    /// Minutes of processor time that were counted.
    pub compute_minutes: u64,
    /// Tokens that were counted.
    pub tokens: u64,
    /// What the attempts that began then cost; `None` through a door that does not see it.
    pub metered: Option<Metered>,
    /// Which parts of which quotas were reached.
    pub alerts: Vec<Alert>,
}

/// Sums of what attempts cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metered {
    /// How many attempts.
    pub attempts: i64,
    /// How long they ran.
    pub wall_ms: i64,
    /// Processor time.
    pub cpu_ms: i64,
    /// Tokens.
    pub tokens: i64,
    /// Requests to the outside.
    pub egress_requests: i64,
}

/// A part of a quota that was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Of which.
    pub quota: String,
    /// How much of it, in percent.
    pub percent: i16,
    /// What was used then.
    pub used: i64,
    /// Of how much.
    pub limit: i64,
    /// When.
    pub at: OffsetDateTime,
}

type AlertRow = (Date, String, i16, i64, i64, OffsetDateTime);
type CountRow = (Date, i64, i64, i64);
type MeteredRow = (Date, i64, i64, i64, i64, i64);

impl Within<'_> {
    /// What was used on the days from `from` up to `until`, the newest first; at most `limit` days, and none on which
    /// nothing was.
    async fn counted(
        &mut self,
        from: Date,
        until: Date,
        limit: i64,
        metered: Vec<MeteredRow>,
    ) -> Result<Vec<Used>, Error> {
        let counted: Vec<CountRow> = sqlx::query_as(
            "SELECT day, coalesce(max(used) FILTER (WHERE quota = 'executions'), 0),
                coalesce(max(used) FILTER (WHERE quota = 'compute_minutes'), 0),
                coalesce(max(used) FILTER (WHERE quota = 'tokens'), 0)
             FROM usage_counters
             WHERE tenant_id = $1 AND quota IN ('executions', 'compute_minutes', 'tokens') AND day BETWEEN $2 AND $3
             GROUP BY day ORDER BY day DESC LIMIT $4",
        )
        .bind(self.tenant.as_uuid())
        .bind(from)
        .bind(until)
        .bind(limit)
        .fetch_all(&mut *self.connection)
        .await?;
        let alerts: Vec<AlertRow> = sqlx::query_as(
            "SELECT day, quota, percent, used, quota_limit, created_at FROM quota_alerts
             WHERE tenant_id = $1 AND day BETWEEN $2 AND $3 ORDER BY day DESC, created_at, quota, percent",
        )
        .bind(self.tenant.as_uuid())
        .bind(from)
        .bind(until)
        .fetch_all(&mut *self.connection)
        .await?;
        let days = counted.iter().map(|row| row.0).chain(metered.iter().map(|row| row.0));
        let mut days: Vec<Date> = days.chain(alerts.iter().map(|row| row.0)).collect();
        days.sort_unstable_by(|one, other| other.cmp(one));
        days.dedup();
        days.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let whole = |number: i64| u64::try_from(number).unwrap_or(0);
        let used = |day: Date| {
            let (_, executions, compute_minutes, tokens) =
                counted.iter().find(|row| row.0 == day).copied().unwrap_or((day, 0, 0, 0));
            let metered = metered.iter().find(|row| row.0 == day).map(|row| Metered {
                attempts: row.1,
                wall_ms: row.2,
                cpu_ms: row.3,
                tokens: row.4,
                egress_requests: row.5,
            });
            let alerts = alerts.iter().filter(|row| row.0 == day).cloned();
            Used {
                day,
                executions: whole(executions),
                compute_minutes: whole(compute_minutes),
                tokens: whole(tokens),
                metered,
                alerts: alerts
                    .map(|(_, quota, percent, used, limit, at)| Alert {
                        quota,
                        percent,
                        used,
                        limit,
                        at,
                    })
                    .collect(),
            }
        };
        Ok(days.into_iter().map(used).collect())
    }

    /// What was counted on the days from `from` up to `until`, the newest first; at most `limit` days, and none on which
    /// nothing was. What attempts cost is the tenant's own door's to say.
    pub async fn usage(&mut self, from: Date, until: Date, limit: i64) -> Result<Vec<Used>, Error> {
        self.counted(from, until, limit, Vec::new()).await
    }
}

impl TenantTx<'_> {
    /// As [`Within::usage`], with what attempts cost.
    pub async fn usage(&mut self, from: Date, until: Date, limit: i64) -> Result<Vec<Used>, Error> {
        let metered: Vec<MeteredRow> = sqlx::query_as(
            "SELECT (at AT TIME ZONE 'UTC')::date AS day, count(*), sum(wall_ms)::bigint, sum(cpu_ms)::bigint,
                sum(tokens)::bigint, sum(egress_requests)::bigint
             FROM metering WHERE tenant_id = $1 AND at >= $2 AND at < $3
             GROUP BY 1 ORDER BY 1 DESC LIMIT $4",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(from.midnight().assume_utc())
        .bind(until.saturating_add(time::Duration::days(1)).midnight().assume_utc())
        .bind(limit)
        .fetch_all(self.connection())
        .await?;
        let mut days = self.within().counted(from, until, limit, metered).await?;
        for day in &mut days {
            day.metered.get_or_insert_default();
        }
        Ok(days)
    }
}
