//! A tenant's limits where they differ from its tier's, and what was told of quotas that run out.
//! Knows nothing of tiers and of what is counted where.

use gatehouse_contract::{
    TenantId,
    sidecar::{Change, Overrides, QuotaWarning},
};
use gatehouse_events::{Event, event::QuotaThresholdReached};
use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};

use crate::{AdminTx, Error, Within, attempts, members::Changed, usage::Counted};

/// From which part of a day's calls on its tenant is warned, in percent.
const WARNED_AT: i16 = 80;

/// Limits as they are stored; beside a tenant without a row every member is absent.
#[derive(Debug, Default, sqlx::FromRow)]
pub(crate) struct LimitsRow {
    requests_per_window: Option<i64>,
    burst_multiplier: Option<i32>,
    max_api_calls: Option<i64>,
    endpoint_limits: Option<Value>,
}

impl LimitsRow {
    /// What differs from the tier's.
    fn overrides(self) -> Result<Overrides, Error> {
        let bad = || Error::Unreadable { what: "limit" };
        let whole = |stored: Option<i64>| stored.map(u32::try_from).transpose().map_err(|_| bad());
        let endpoints = self.endpoint_limits.map(serde_json::from_value).transpose();
        Ok(Overrides {
            per_window: whole(self.requests_per_window)?,
            burst_multiplier: whole(self.burst_multiplier.map(Into::into))?,
            per_day: whole(self.max_api_calls)?,
            endpoints: endpoints.map_err(|_| bad())?.unwrap_or_default(),
        })
    }

    /// As facts have them: `None` where nothing differs.
    pub(crate) fn facts(self) -> Result<Option<Overrides>, Error> {
        let overrides = self.overrides()?;
        Ok((overrides != Overrides::default()).then_some(overrides))
    }
}

impl Within<'_> {
    /// Where the tenant's limits differ from its tier's.
    pub async fn limits(&mut self) -> Result<Overrides, Error> {
        let row: Option<LimitsRow> = sqlx::query_as(
            "SELECT requests_per_window, burst_multiplier, max_api_calls, endpoint_limits FROM tenant_quotas
             WHERE tenant_id = $1",
        )
        .bind(self.tenant.as_uuid())
        .fetch_optional(&mut *self.connection)
        .await?;
        row.unwrap_or_default().overrides()
    }

    /// Records that the tenant has used most of a day's calls; `false` where that is known already.
    pub async fn record_quota_warning(&mut self, warning: &QuotaWarning) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO quota_alerts (tenant_id, quota, percent, day, used, quota_limit)
             VALUES ($1, 'api_calls', $2, DATE '1970-01-01' + $3::integer, $4, $5) ON CONFLICT DO NOTHING",
        )
        .bind(self.tenant.as_uuid())
        .bind(WARNED_AT)
        .bind(i64::from(warning.day))
        .bind(i64::from(warning.used))
        .bind(i64::from(warning.limit))
        .execute(&mut *self.connection)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let day = OffsetDateTime::UNIX_EPOCH + Duration::days(i64::from(warning.day));
        let told = Event::QuotaThresholdReached(QuotaThresholdReached {
            quota: "api_calls".to_owned(),
            percent: WARNED_AT.unsigned_abs(),
            day: day.date().to_string(),
            used: u64::from(warning.used),
            limit: u64::from(warning.limit),
        });
        let tenant = self.tenant.as_uuid();
        self.append(tenant, &told).await?;
        self.audit("quota.warning", "quota", "api_calls").await?;
        Ok(true)
    }
}

impl AdminTx<'_> {
    /// Lets a tenant have these limits and else its tier's. The bounds are the caller's to check: a value beyond them
    /// is [`Error::Statement`].
    pub async fn set_limits(&mut self, id: TenantId, limits: &Overrides) -> Result<Changed, Error> {
        // The facts' epoch is the tenant's. Whoever comes at the same time waits here, and sees what was committed.
        let known = sqlx::query("UPDATE tenants SET status = status WHERE id = $1")
            .bind(id.as_uuid())
            .execute(self.connection())
            .await?;
        if known.rows_affected() == 0 {
            return Ok(Changed::Missing);
        }
        let before = self.within(id).limits().await?;
        if before == *limits {
            return Ok(Changed::No);
        }
        let endpoints = serde_json::to_value(&limits.endpoints)
            .map_err(|_| Error::Unreadable { what: "limit" })?;
        sqlx::query(
            "INSERT INTO tenant_quotas (tenant_id, requests_per_window, burst_multiplier, max_api_calls, endpoint_limits)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (tenant_id) DO UPDATE SET requests_per_window = $2, burst_multiplier = $3,
                max_api_calls = $4, endpoint_limits = $5, updated_at = now()",
        )
        .bind(id.as_uuid())
        .bind(limits.per_window.map(i64::from))
        .bind(limits.burst_multiplier.map(i64::from))
        .bind(limits.per_day.map(i64::from))
        .bind(endpoints)
        .execute(self.connection())
        .await?;
        self.within(id).publish(&[Change::Tenant { tenant: id }]).await?;
        let values = json!({"old": before, "new": limits});
        self.within(id).audit_change("tenant.limits", "tenant", id, values).await?;
        Ok(Changed::Yes)
    }
}

/// How much a tenant may have or use, where that is not its tier's to say; 0 blocks. What is counted against it is in
/// [`crate::usage`]; its limits of requests are [`Overrides`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Registered agents.
    pub max_agents: Option<u64>,
    /// Bytes that are stored.
    pub max_storage_bytes: Option<u64>,
    /// Executions that are submitted on a UTC day.
    pub max_executions_per_day: Option<u64>,
    /// Minutes of processor time on a UTC day.
    pub max_compute_minutes_per_day: Option<u64>,
    /// Tokens on a UTC day.
    pub max_tokens_per_day: Option<u64>,
    /// Executions that run at once.
    pub max_concurrent_executions: Option<u64>,
    /// Executions that wait.
    pub max_queued_executions: Option<u64>,
}

impl Quotas {
    /// As the audit has them: what stands here and nothing else.
    fn told(&self) -> Map<String, Value> {
        let set = |what: Counted| Some((what.as_str().to_owned(), self.of(what)?.into()));
        Counted::ALL.into_iter().filter_map(set).collect()
    }
}

#[derive(sqlx::FromRow)]
struct QuotasRow {
    max_agents: Option<i64>,
    max_storage_bytes: Option<i64>,
    max_executions_per_day: Option<i64>,
    max_compute_minutes_per_day: Option<i64>,
    max_tokens_per_day: Option<i64>,
    max_concurrent_executions: Option<i64>,
    max_queued_executions: Option<i64>,
}

impl TryFrom<QuotasRow> for Quotas {
    type Error = Error;

    fn try_from(row: QuotasRow) -> Result<Self, Error> {
        let whole = |stored: Option<i64>| {
            let read = stored.map(u64::try_from).transpose();
            read.map_err(|_| Error::Unreadable { what: "quota" })
        };
        Ok(Self {
            max_agents: whole(row.max_agents)?,
            max_storage_bytes: whole(row.max_storage_bytes)?,
            max_executions_per_day: whole(row.max_executions_per_day)?,
            max_compute_minutes_per_day: whole(row.max_compute_minutes_per_day)?,
            max_tokens_per_day: whole(row.max_tokens_per_day)?,
            max_concurrent_executions: whole(row.max_concurrent_executions)?,
            max_queued_executions: whole(row.max_queued_executions)?,
        })
    }
}

impl Within<'_> {
    /// Where the tenant's quotas differ from its tier's.
    pub async fn quotas(&mut self) -> Result<Quotas, Error> {
        let row: Option<QuotasRow> = sqlx::query_as(
            "SELECT max_agents, max_storage_bytes, max_executions_per_day, max_compute_minutes_per_day,
                max_tokens_per_day, max_concurrent_executions, max_queued_executions
             FROM tenant_quotas WHERE tenant_id = $1",
        )
        .bind(self.tenant.as_uuid())
        .fetch_optional(&mut *self.connection)
        .await?;
        row.map_or_else(|| Ok(Quotas::default()), TryInto::try_into)
    }
}

impl AdminTx<'_> {
    /// Lets a tenant have these quotas and else its tier's. Nothing that was used is taken back.
    pub async fn set_quotas(&mut self, id: TenantId, quotas: &Quotas) -> Result<Changed, Error> {
        // Whoever comes at the same time waits here, and sees what was committed.
        let known = sqlx::query("UPDATE tenant_quotas SET updated_at = now() WHERE tenant_id = $1")
            .bind(id.as_uuid())
            .execute(self.connection())
            .await?;
        if known.rows_affected() == 0 {
            return Ok(Changed::Missing);
        }
        let before = self.within(id).quotas().await?;
        if before == *quotas {
            return Ok(Changed::No);
        }
        if before.max_concurrent_executions != quotas.max_concurrent_executions {
            attempts::keep_slots(self.connection(), id).await?;
        }
        // What is beyond what can be stored is no bound.
        let stored =
            |quota: Option<u64>| quota.map(|quota| i64::try_from(quota).unwrap_or(i64::MAX));
        sqlx::query(
            "UPDATE tenant_quotas SET max_agents = $2, max_storage_bytes = $3, max_executions_per_day = $4,
                max_compute_minutes_per_day = $5, max_tokens_per_day = $6, max_concurrent_executions = $7,
                max_queued_executions = $8
             WHERE tenant_id = $1",
        )
        .bind(id.as_uuid())
        .bind(stored(quotas.max_agents))
        .bind(stored(quotas.max_storage_bytes))
        .bind(stored(quotas.max_executions_per_day))
        .bind(stored(quotas.max_compute_minutes_per_day))
        .bind(stored(quotas.max_tokens_per_day))
        .bind(stored(quotas.max_concurrent_executions))
        .bind(stored(quotas.max_queued_executions))
        .execute(self.connection())
        .await?;
        let values = json!({"old": before.told(), "new": quotas.told()});
        self.within(id).audit_change("tenant.quotas", "tenant", id, values).await?;
        Ok(Changed::Yes)
    }
}
