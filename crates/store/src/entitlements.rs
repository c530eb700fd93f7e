//! What a tenant may have: its tier's quotas, and its own where they differ. What is used is taken from them in the
//! transaction that uses it, so that of many at the same time none gets past a limit; who comes near one is told once.
//! Knows nothing of what is done with what was taken.

use gatehouse_contract::Tier;
use gatehouse_events::{Event, event::QuotaThresholdReached};
use time::{Date, Duration, OffsetDateTime, Time, UtcOffset};

use crate::{Error, TenantTx, Within, quotas::Quotas, usage::Counted};

/// From which parts of a quota on its tenant is told, in percent.
const TOLD_AT: [i16; 2] = [80, 100];

/// What a tenant may have of something, and what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Of what.
    pub what: Counted,
    /// The most.
    pub limit: u64,
    /// Whether that is the tenant's own and not its tier's.
    pub own: bool,
    /// How much is used.
    pub used: u64,
    /// When it begins anew.
    pub resets_at: Option<OffsetDateTime>,
}

impl Counted {
    /// What a tier has of it. Free has the specification's defaults, the others ten and a hundred times that; how many
    /// executions may wait is the same for all (design §5).
    pub const fn of_tier(self, tier: Tier) -> u64 {
        let (base, flat) = match self {
            Self::Agents => (100, false),
            Self::StorageBytes => (10 * 1024 * 1024 * 1024, false),
            Self::Executions => (1000, false),
            Self::ComputeMinutes => (500, false),
            Self::Tokens => (1_000_000, false),
            Self::ConcurrentExecutions => (10, false),
            Self::QueuedExecutions => (100_000, true),
        };
        match tier {
            _ if flat => base,
            Tier::Free => base,
            Tier::Pro => base * 10,
            Tier::Enterprise => base * 100,
        }
    }

    /// When it begins anew, seen from `now`.
    pub fn resets_at(self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let tomorrow = now.to_offset(UtcOffset::UTC).date().saturating_add(Duration::days(1));
        self.is_daily().then(|| tomorrow.with_time(Time::MIDNIGHT).assume_utc())
    }
}

impl Quotas {
    /// What stands here of it.
    pub const fn of(&self, what: Counted) -> Option<u64> {
        match what {
            Counted::Agents => self.max_agents,
            Counted::StorageBytes => self.max_storage_bytes,
            Counted::Executions => self.max_executions_per_day,
            Counted::ComputeMinutes => self.max_compute_minutes_per_day,
            Counted::Tokens => self.max_tokens_per_day,
            Counted::ConcurrentExecutions => self.max_concurrent_executions,
            Counted::QueuedExecutions => self.max_queued_executions,
        }
    }
}

/// What was tried to be taken: how much there is of it then, the most, and whether it was taken.
type Taken = (i64, i64, bool);

impl TenantTx<'_> {
    /// Takes `amount` of what the tenant may have. Whoever comes at the same time waits until this transaction ends.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`], and nothing taken, where that would be more than the limit.
    pub async fn take(&mut self, what: Counted, amount: u64) -> Result<(), Error> {
        let mut taken = self.try_take(what, amount).await?;
        if what == Counted::QueuedExecutions && !taken.2 && self.recount_queue(taken.1).await? {
            taken = self.try_take(what, amount).await?;
        }
        let whole = |number: i64| u64::try_from(number).unwrap_or(0);
        let (used, limit) = (whole(taken.0), whole(taken.1));
        if !taken.2 {
            let resets_at = what.resets_at(self.op.now);
            return Err(Error::QuotaExceeded { what, limit, used, resets_at });
        }
        // How many wait is no use of anything; whoever finds the queue full is told then.
        if what != Counted::QueuedExecutions {
            let today = self.op.now.to_offset(UtcOffset::UTC).date();
            self.tell(what, today, used, limit).await?;
        }
        Ok(())
    }

    async fn try_take(&mut self, what: Counted, amount: u64) -> Result<Taken, Error> {
        let row: Option<Taken> = sqlx::query_as(
            "WITH may AS (
                SELECT coalesce(CASE $2 WHEN 'agents' THEN q.max_agents WHEN 'storage_bytes' THEN q.max_storage_bytes
                        WHEN 'executions' THEN q.max_executions_per_day
                        WHEN 'compute_minutes' THEN q.max_compute_minutes_per_day
                        WHEN 'tokens' THEN q.max_tokens_per_day
                        WHEN 'queued_executions' THEN q.max_queued_executions END,
                    CASE t.tier WHEN 'free' THEN $5 WHEN 'pro' THEN $6 ELSE $7 END) AS most,
                    -- Bytes are counted by month.
                    CASE WHEN $2 = 'storage_bytes' THEN (SELECT coalesce(sum(u.used), 0)::bigint FROM usage_counters u
                        WHERE u.tenant_id = $1 AND u.quota = $2 AND u.day <> $3) ELSE 0 END AS others
                FROM tenants t LEFT JOIN tenant_quotas q ON q.tenant_id = t.id WHERE t.id = $1),
             took AS (
                INSERT INTO usage_counters AS c (tenant_id, quota, day, used)
                SELECT $1, $2, $3, $4 FROM may WHERE others + $4 <= most
                ON CONFLICT (tenant_id, quota, day) DO UPDATE SET used = c.used + $4
                    WHERE c.used + $4 <= (SELECT most - others FROM may)
                RETURNING used)
             SELECT others + coalesce((SELECT used FROM took), (SELECT u.used FROM usage_counters u
                    WHERE u.tenant_id = $1 AND u.quota = $2 AND u.day = $3), 0), most, EXISTS (SELECT FROM took)
             FROM may",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(what.as_str())
        .bind(what.day(self.op))
        .bind(bound(amount))
        .bind(bound(what.of_tier(Tier::Free)))
        .bind(bound(what.of_tier(Tier::Pro)))
        .bind(bound(what.of_tier(Tier::Enterprise)))
        .fetch_optional(self.connection())
        .await?;
        row.ok_or(Error::Unreadable { what: "tenant" })
    }

    /// How many were submitted since the last look is at least how many wait: only where that reaches the limit is
    /// looked how many do, with everybody else who submits waiting. Whether there is room now.
    async fn recount_queue(&mut self, most: i64) -> Result<bool, Error> {
        let (tenant, quota) = (self.op.tenant.as_uuid(), Counted::QueuedExecutions.as_str());
        let held: Option<i64> = sqlx::query_scalar(
            "SELECT used FROM usage_counters WHERE tenant_id = $1 AND quota = $2 FOR UPDATE",
        )
        .bind(tenant)
        .bind(quota)
        .fetch_optional(self.connection())
        .await?;
        if held.is_none() {
            return Ok(false);
        }
        // A statement of its own behind the lock: it sees what was submitted while that waited.
        let waiting = self.within().waiting_executions(most).await?;
        sqlx::query("UPDATE usage_counters SET used = $3 WHERE tenant_id = $1 AND quota = $2")
            .bind(tenant)
            .bind(quota)
            .bind(waiting)
            .execute(self.connection())
            .await?;
        Ok(waiting < most)
    }

    /// How many executions wait; beyond `most` is not counted.
    /// Records and tells, once per threshold and window, that the tenant comes near a limit. The window of what does not begin anew
    /// is the UTC day, too.
    pub(crate) async fn tell(
        &mut self,
        what: Counted,
        day: Date,
        used: u64,
        limit: u64,
    ) -> Result<(), Error> {
        let reached = |percent: &i16| {
            let percent = u128::from(percent.unsigned_abs());
            u128::from(used) * 100 >= u128::from(limit) * percent
        };
        let reached: Vec<i16> = TOLD_AT.into_iter().filter(reached).collect();
        if reached.is_empty() || limit == 0 {
            return Ok(());
        }
        let told: Vec<i16> = sqlx::query_scalar(
            "INSERT INTO quota_alerts (tenant_id, quota, percent, day, used, quota_limit)
             SELECT $1, $2, percent, $4, $5, $6 FROM unnest($3::smallint[]) AS percent ON CONFLICT DO NOTHING
             RETURNING percent",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(what.as_str())
        .bind(reached)
        .bind(day)
        .bind(bound(used))
        .bind(bound(limit))
        .fetch_all(self.connection())
        .await?;
        for percent in told {
            let quota = what.as_str().to_owned();
            let percent = percent.unsigned_abs();
            let day = day.to_string();
            let reached = QuotaThresholdReached { quota, percent, day, used, limit };
            let tenant = self.op.tenant.as_uuid();
            self.append(tenant, &Event::QuotaThresholdReached(reached)).await?;
        }
        Ok(())
    }
}

impl Within<'_> {
    /// Every quota and what is used of it; `None` where there is no such tenant. Of what runs and what waits both doors see
    /// how many there are.
    pub async fn standings(&mut self) -> Result<Option<Vec<Standing>>, Error> {
        let tier: Option<String> = sqlx::query_scalar("SELECT tier FROM tenants WHERE id = $1")
            .bind(self.tenant.as_uuid())
            .fetch_optional(&mut *self.connection)
            .await?;
        let Some(tier) = tier else { return Ok(None) };
        let tier: Tier = tier.parse().map_err(|_| Error::Unreadable { what: "tier" })?;
        let own = self.quotas().await?;
        let used: Vec<(String, i64)> = sqlx::query_as(
            "SELECT quota, sum(used)::bigint FROM usage_counters
             WHERE tenant_id = $1 AND (day = $2 OR quota IN ('agents', 'storage_bytes')) GROUP BY quota",
        )
        .bind(self.tenant.as_uuid())
        .bind(self.op.now.to_offset(UtcOffset::UTC).date())
        .fetch_all(&mut *self.connection)
        .await?;
        let waiting = self.waiting_executions(i64::MAX).await?;
        let running: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM executions WHERE tenant_id = $1 AND state = 'running'",
        )
        .bind(self.tenant.as_uuid())
        .fetch_one(&mut *self.connection)
        .await?;
        let now = self.op.now;
        let standing = |what: Counted| {
            let counted = used.iter().find(|(quota, _)| quota == what.as_str());
            let counted = match what {
                Counted::QueuedExecutions => waiting,
                Counted::ConcurrentExecutions => running,
                _ => counted.map_or(0, |(_, used)| *used),
            };
            Standing {
                what,
                limit: own.of(what).unwrap_or_else(|| what.of_tier(tier)),
                own: own.of(what).is_some(),
                used: u64::try_from(counted).unwrap_or(0),
                resets_at: what.resets_at(now),
            }
        };
        Ok(Some(Counted::ALL.into_iter().map(standing).collect()))
    }

    /// How many wait, counted up to `most`.
    async fn waiting_executions(&mut self, most: i64) -> Result<i64, Error> {
        let count = "SELECT count(*) FROM (SELECT state FROM executions
            WHERE tenant_id = $1 AND state IN ('pending', 'queued', 'retry') LIMIT $2) AS waiting";
        let counted = sqlx::query_scalar(count).bind(self.tenant.as_uuid()).bind(most);
        Ok(counted.fetch_one(&mut *self.connection).await?)
    }
}

/// What is beyond what can be stored is no bound.
fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
