//! What attempts used: one row for each, written by whoever ends it, and what of it counts against the tenant's day. What was
//! worked for is counted whatever the limit; the next submit finds it used up.
//! Knows nothing of who counted processor time, and nothing of prices.

use gatehouse_contract::{ExecutionId, Tier};
use gatehouse_execution::{EndReason, Record, outcome::Usage, sandbox::SandboxId};
use time::{Date, OffsetDateTime, UtcOffset};
use uuid::Uuid;

use crate::{
    Error, SystemTx, TenantTx,
    executions::{count, epoch},
    paging::Page,
    usage::Counted,
};

/// Milliseconds of a minute: what is beyond whole ones is kept beside them.
const MINUTE_MS: i64 = 60_000;

/// An attempt, running or over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// 1 is the first; after a replay it begins anew.
    pub attempt: u32,
    /// The fencing token of its claim; `None` where it is not known any more.
    pub lease_epoch: Option<u64>,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// When its end was stored.
    pub ended_at: Option<OffsetDateTime>,
    /// Why it ended; `None` while it runs.
    pub reason: Option<EndReason>,
    /// What it used; `None` while it runs.
    pub used: Option<Spent>,
}

/// What an attempt used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// How long the agent ran, in milliseconds.
    pub wall_ms: i64,
    /// Processor time of the whole sandbox, in milliseconds.
    pub cpu_ms: i64,
    /// Peak memory of the whole sandbox.
    pub peak_memory_bytes: i64,
    /// Tokens.
    pub tokens: i64,
    /// Requests to the outside.
    pub egress_requests: i64,
    /// Whether it counts against the day's minutes and tokens.
    pub charged: bool,
}

/// The attempt that a row of executions stands for.
pub(crate) struct Running {
    pub(crate) agent: Uuid,
    pub(crate) attempt: i32,
    pub(crate) lease_epoch: u64,
    /// `None` where it never began.
    pub(crate) started_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct AttemptRow {
    attempt: i32,
    lease_epoch: Option<i64>,
    at: OffsetDateTime,
    ended_at: Option<OffsetDateTime>,
    end_reason: Option<String>,
    wall_ms: Option<i64>,
    cpu_ms: Option<i64>,
    peak_memory_bytes: Option<i64>,
    tokens: Option<i64>,
    egress_requests: Option<i64>,
    charged: Option<bool>,
}

impl TryFrom<AttemptRow> for Attempt {
    type Error = Error;

    fn try_from(row: AttemptRow) -> Result<Self, Error> {
        let spent = || {
            Some(Spent {
                wall_ms: row.wall_ms?,
                cpu_ms: row.cpu_ms?,
                peak_memory_bytes: row.peak_memory_bytes?,
                tokens: row.tokens?,
                egress_requests: row.egress_requests?,
                charged: row.charged?,
            })
        };
        let used = spent();
        let reason = row
            .end_reason
            .map(|reason| reason.parse().map_err(|_| Error::Unreadable { what: "end_reason" }));
        Ok(Self {
            attempt: count(row.attempt)?,
            lease_epoch: row.lease_epoch.map(epoch).transpose()?,
            started_at: row.at,
            ended_at: row.ended_at,
            reason: reason.transpose()?,
            used,
        })
    }
}

impl TenantTx<'_> {
    /// Writes what an attempt used, and counts it where its end is charged. The execution's row must be locked and its end
    /// decided by this transaction: that is what makes it once.
    pub(crate) async fn meter(
        &mut self,
        id: ExecutionId,
        of: &Running,
        reason: EndReason,
        record: &Record,
    ) -> Result<(), Error> {
        let Some(started_at) = of.started_at else { return Ok(()) };
        // A worker that came back may have left what the lost run used before somebody found the run's result.
        sqlx::query(
            "INSERT INTO metering AS m (tenant_id, execution_id, attempt, at, agent_id, lease_epoch, end_reason, ended_at,
                charged, wall_ms, cpu_ms, peak_memory_bytes, tokens, egress_requests)
             VALUES ($1, $2, $3, $4, $5, $6, $7, now(), $8, $9, $10, $11, $12, $13)
             ON CONFLICT (tenant_id, execution_id, attempt, at) DO UPDATE SET end_reason = excluded.end_reason,
                ended_at = excluded.ended_at, charged = excluded.charged, wall_ms = excluded.wall_ms,
                cpu_ms = greatest(m.cpu_ms, excluded.cpu_ms),
                peak_memory_bytes = greatest(m.peak_memory_bytes, excluded.peak_memory_bytes),
                tokens = excluded.tokens, egress_requests = excluded.egress_requests
             WHERE m.end_reason = 'lost'",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(of.attempt)
        .bind(started_at)
        .bind(of.agent)
        .bind(bound(of.lease_epoch))
        .bind(reason.as_str())
        .bind(reason.is_charged())
        .bind(i64::try_from(record.wall.as_millis()).unwrap_or(i64::MAX))
        .bind(cpu_ms(&record.usage))
        .bind(bound(record.usage.memory_peak_bytes))
        .bind(bound(record.usage.tokens))
        .bind(bound(record.usage.egress_requests))
        .execute(self.connection())
        .await?;
        if reason.is_charged() {
            self.charge_attempt(started_at.to_offset(UtcOffset::UTC).date(), &record.usage).await?;
        }
        Ok(())
    }

    /// Counts minutes and tokens against the day on which the attempt began, and tells who comes near a limit.
    async fn charge_attempt(&mut self, day: Date, usage: &Usage) -> Result<(), Error> {
        let of_tier = |what: Counted| {
            [Tier::Free, Tier::Pro, Tier::Enterprise].map(|tier| bound(what.of_tier(tier)))
        };
        let taken: Vec<(String, i64, i64)> = sqlx::query_as(
            "WITH may AS (
                SELECT coalesce(q.max_compute_minutes_per_day, ($6::bigint[])[tier]) AS minutes,
                    coalesce(q.max_tokens_per_day, ($7::bigint[])[tier]) AS tokens
                FROM (SELECT id, CASE tier WHEN 'free' THEN 1 WHEN 'pro' THEN 2 ELSE 3 END AS tier FROM tenants) t
                LEFT JOIN tenant_quotas q ON q.tenant_id = t.id WHERE t.id = $1),
             took AS (
                INSERT INTO usage_counters AS c (tenant_id, quota, day, used, rest)
                SELECT $1, quota, $2, amount / unit, amount % unit
                FROM (VALUES ('compute_minutes', $3::bigint, $5::bigint), ('tokens', $4::bigint, 1::bigint))
                    AS spent (quota, amount, unit)
                WHERE amount > 0
                ON CONFLICT (tenant_id, quota, day) DO UPDATE
                SET used = c.used + excluded.used + (c.rest + excluded.rest) / $5, rest = (c.rest + excluded.rest) % $5
                RETURNING quota, used)
             SELECT quota, used, CASE quota WHEN 'tokens' THEN tokens ELSE minutes END FROM took, may ORDER BY quota",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(day)
        .bind(cpu_ms(usage))
        .bind(bound(usage.tokens))
        .bind(MINUTE_MS)
        .bind(of_tier(Counted::ComputeMinutes))
        .bind(of_tier(Counted::Tokens))
        .fetch_all(self.connection())
        .await?;
        let whole = |number: i64| u64::try_from(number).unwrap_or(0);
        for (quota, used, limit) in taken {
            let what = Counted::ALL.into_iter().find(|what| what.as_str() == quota);
            if let Some(what) = what {
                self.tell(what, day, whole(used), whole(limit)).await?;
            }
        }
        Ok(())
    }

    /// Whether the day's minutes and tokens leave room for another execution: they are counted when an attempt ends, so that
    /// what runs already is let run.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`] where one of them is used up.
    pub(crate) async fn judge_day(&mut self) -> Result<(), Error> {
        let of_tier = |what: Counted| {
            [Tier::Free, Tier::Pro, Tier::Enterprise].map(|tier| bound(what.of_tier(tier)))
        };
        let row: Option<(String, i64, i64)> = sqlx::query_as(
            "WITH may AS (
                SELECT coalesce(q.max_compute_minutes_per_day, ($3::bigint[])[tier]) AS minutes,
                    coalesce(q.max_tokens_per_day, ($4::bigint[])[tier]) AS tokens
                FROM (SELECT id, CASE tier WHEN 'free' THEN 1 WHEN 'pro' THEN 2 ELSE 3 END AS tier FROM tenants) t
                LEFT JOIN tenant_quotas q ON q.tenant_id = t.id WHERE t.id = $1),
             day AS (
                SELECT quota, most, coalesce((SELECT u.used FROM usage_counters u
                    WHERE u.tenant_id = $1 AND u.quota = each.quota AND u.day = $2), 0) AS used
                FROM may, LATERAL (VALUES ('compute_minutes', minutes), ('tokens', tokens)) AS each (quota, most))
             SELECT quota, used, most FROM day WHERE used >= most ORDER BY quota LIMIT 1",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(Counted::ComputeMinutes.day(self.op))
        .bind(of_tier(Counted::ComputeMinutes))
        .bind(of_tier(Counted::Tokens))
        .fetch_optional(self.connection())
        .await?;
        let Some((quota, used, limit)) = row else { return Ok(()) };
        let what = if quota == Counted::Tokens.as_str() {
            Counted::Tokens
        } else {
            Counted::ComputeMinutes
        };
        let whole = |number: i64| u64::try_from(number).unwrap_or(0);
        let resets_at = what.resets_at(self.op.now);
        Err(Error::QuotaExceeded { what, limit: whole(limit), used: whole(used), resets_at })
    }

    /// Adds what a run used whose lease was lost while it went on, to the row of its own attempt: nobody is charged for it.
    /// `false` where the row is not there (yet). Said again it changes nothing.
    pub async fn meter_lost(
        &mut self,
        id: ExecutionId,
        lease_epoch: u64,
        record: &Record,
    ) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE metering SET cpu_ms = greatest(cpu_ms, $4), peak_memory_bytes = greatest(peak_memory_bytes, $5),
                wall_ms = greatest(wall_ms, $6), tokens = greatest(tokens, $7),
                egress_requests = greatest(egress_requests, $8)
             WHERE tenant_id = $1 AND execution_id = $2 AND lease_epoch = $3 AND end_reason = 'lost'",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(bound(lease_epoch))
        .bind(cpu_ms(&record.usage))
        .bind(bound(record.usage.memory_peak_bytes))
        .bind(i64::try_from(record.wall.as_millis()).unwrap_or(i64::MAX))
        .bind(bound(record.usage.tokens))
        .bind(bound(record.usage.egress_requests))
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// A page of an execution's attempts, the newest first, with the one that runs.
    pub async fn attempts(&mut self, id: ExecutionId, page: &Page) -> Result<Vec<Attempt>, Error> {
        let rows: Vec<AttemptRow> = sqlx::query_as(
            "SELECT attempt, lease_epoch, at, ended_at, end_reason, wall_ms, cpu_ms, peak_memory_bytes, tokens,
                egress_requests, charged
             FROM metering WHERE tenant_id = $1 AND execution_id = $2 AND at < $3
             UNION ALL
             SELECT e.attempt, e.lease_epoch, e.started_at, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
             FROM executions e WHERE e.tenant_id = $1 AND e.id = $2 AND e.state = 'running' AND e.started_at < $3
             AND NOT EXISTS (SELECT FROM metering m WHERE m.tenant_id = $1 AND m.execution_id = $2
                AND m.attempt = e.attempt AND m.at = e.started_at)
             ORDER BY at DESC LIMIT $4",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(page.after.created_at)
        .bind(page.limit)
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }
}

impl SystemTx {
    /// Sweep: what the control group of a lost run counted until it was removed. Where the lease has not run out yet the row
    /// is written, and stays as it is when that happens. `false` where nothing is known of the sandbox, or its run ended by
    /// itself.
    pub async fn meter_left(&mut self, sandbox: SandboxId, usage: &Usage) -> Result<bool, Error> {
        let written: bool = sqlx::query_scalar(
            "WITH later AS (
                UPDATE metering SET cpu_ms = greatest(cpu_ms, $2), peak_memory_bytes = greatest(peak_memory_bytes, $3)
                WHERE sandbox = $1 AND end_reason = 'lost' RETURNING 1),
             now AS (
                INSERT INTO metering (tenant_id, execution_id, attempt, at, agent_id, lease_epoch, end_reason, ended_at,
                    wall_ms, cpu_ms, peak_memory_bytes, tokens, egress_requests, sandbox)
                SELECT e.tenant_id, e.id, e.attempt, e.started_at, e.agent_id, e.lease_epoch, 'lost', now(), 0, $2, $3, 0, 0,
                    $1
                FROM executions e
                WHERE e.state = 'running' AND NOT EXISTS (SELECT FROM later)
                AND coalesce(e.sandbox, e.id || '-' || lpad(to_hex(e.lease_epoch), 8, '0')) = $1
                ON CONFLICT DO NOTHING RETURNING 1)
             SELECT EXISTS (SELECT FROM later) OR EXISTS (SELECT FROM now)",
        )
        .bind(sandbox.to_string())
        .bind(cpu_ms(usage))
        .bind(bound(usage.memory_peak_bytes))
        .fetch_one(self.connection())
        .await?;
        Ok(written)
    }
}

/// To the nearest millisecond.
fn cpu_ms(usage: &Usage) -> i64 {
    bound(usage.cpu_us.saturating_add(500) / 1000)
}

/// What is beyond what can be stored is its most.
fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
