//! The end of a tenant: its rows go, a batch at a time, and its key is destroyed, after which nothing of it can be read in
//! what nobody may remove (audit, events) nor in copies of the database.
//! Knows nothing of who may ask for it.

use std::time::Duration;

use gatehouse_contract::{TenantId, sidecar::Change};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{AdminTx, Error, Store, SystemTx, members::Changed};

/// What is remembered of a principal elsewhere has expired by itself after this long.
const REMEMBERED: Duration = Duration::from_secs(360);

/// How far an erasure is.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Progress {
    /// When it was asked for.
    pub requested_at: OffsetDateTime,
    /// How many rows are gone.
    pub erased_rows: i64,
    /// When the key was destroyed: from then on nothing that is left can be read.
    pub key_destroyed_at: Option<OffsetDateTime>,
    /// When what was remembered elsewhere had expired, too.
    pub finished_at: Option<OffsetDateTime>,
}

/// What goes, in an order in which nothing refers to what is gone.
const ALL_AT_ONCE: &[&str] = &[
    "DELETE FROM webhook_endpoints WHERE tenant_id = $1",
    "DELETE FROM agent_versions WHERE tenant_id = $1",
    "DELETE FROM agents WHERE tenant_id = $1",
    "DELETE FROM memberships WHERE tenant_id = $1",
    "DELETE FROM platform_memberships WHERE tenant_id = $1",
    "DELETE FROM api_keys WHERE tenant_id = $1",
    "DELETE FROM user_identities WHERE tenant_id = $1",
    "DELETE FROM sessions WHERE tenant_id = $1",
    "DELETE FROM login_attempts WHERE tenant_id = $1",
    "DELETE FROM issuers WHERE tenant_id = $1",
    "DELETE FROM users WHERE tenant_id = $1",
    "DELETE FROM oauth_clients WHERE tenant_id = $1",
    "DELETE FROM revoked_tokens WHERE tenant_id = $1",
    "DELETE FROM token_cutoffs WHERE tenant_id = $1",
    "DELETE FROM organizations WHERE tenant_id = $1",
    "DELETE FROM tenant_config WHERE tenant_id = $1",
    "DELETE FROM usage_counters WHERE tenant_id = $1",
    "DELETE FROM quota_alerts WHERE tenant_id = $1",
    "DELETE FROM tenant_quotas WHERE tenant_id = $1",
    "DELETE FROM idempotency_keys WHERE tenant_id = $1",
];

/// What there may be millions of.
const IN_BATCHES: &[&str] = &[
    "DELETE FROM webhook_deliveries WHERE tenant_id = $1 AND id IN
        (SELECT id FROM webhook_deliveries WHERE tenant_id = $1 LIMIT $2)",
    "DELETE FROM execution_logs WHERE tenant_id = $1 AND execution_id IN
        (SELECT execution_id FROM execution_logs WHERE tenant_id = $1 LIMIT $2)",
    "DELETE FROM hook_runs WHERE tenant_id = $1 AND execution_id IN
        (SELECT execution_id FROM hook_runs WHERE tenant_id = $1 LIMIT $2)",
    "DELETE FROM metering WHERE tenant_id = $1 AND execution_id IN
        (SELECT execution_id FROM metering WHERE tenant_id = $1 LIMIT $2)",
    "DELETE FROM executions WHERE tenant_id = $1 AND id IN
        (SELECT id FROM executions WHERE tenant_id = $1 LIMIT $2)",
    // What waits to be published could not be opened any more.
    "DELETE FROM event_outbox WHERE tenant_id = $1 AND id IN
        (SELECT id FROM event_outbox WHERE tenant_id = $1 AND kind NOT IN ('tenant.erased', 'audit.recorded')
            ORDER BY id LIMIT $2)",
];

impl AdminTx<'_> {
    /// Asks for the erasure of a tenant, which can do nothing from then on. Asked for again it is [`Changed::No`].
    pub async fn request_erasure(&mut self, id: TenantId) -> Result<Changed, Error> {
        let Some(tenant) = self.tenant(id).await? else { return Ok(Changed::Missing) };
        let (connection, op, _) = self.parts();
        let done = sqlx::query(
            "INSERT INTO erasures (tenant_id, subject, request_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(id.as_uuid())
        .bind(&op.subject)
        .bind(&op.request_id)
        .execute(connection)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(Changed::No);
        }
        sqlx::query("UPDATE tenants SET status = 'deleting' WHERE id = $1")
            .bind(id.as_uuid())
            .execute(self.connection())
            .await?;
        let keys: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM api_keys WHERE tenant_id = $1")
            .bind(id.as_uuid())
            .fetch_all(self.connection())
            .await?;
        let credential = |id: &Uuid| Change::Credential { credential: id.to_string() };
        let mut changes = vec![Change::Tenant { tenant: id }];
        changes.extend(keys.iter().map(credential));
        let old = json!({"slug": tenant.slug, "name": tenant.name, "tier": tenant.tier.as_str(),
            "status": tenant.status.as_str()});
        let mut within = self.within(id);
        within.publish(&changes).await?;
        within.audit_change("tenant.delete", "tenant", id, json!({"old": old})).await?;
        Ok(Changed::Yes)
    }

    /// How far the erasure of a tenant is; `None` where nobody asked for it.
    pub async fn erasure(&mut self, id: TenantId) -> Result<Option<Progress>, Error> {
        let row = sqlx::query_as(
            "SELECT requested_at, erased_rows, key_destroyed_at, finished_at FROM erasures WHERE tenant_id = $1",
        )
        .bind(id.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        Ok(row)
    }
}

impl SystemTx {
    /// The tenants whose erasure is not finished, the oldest first; at most `limit`.
    pub async fn to_erase(&mut self, limit: u32) -> Result<Vec<TenantId>, Error> {
        let rows: Vec<Uuid> = sqlx::query_scalar(
            "SELECT tenant_id FROM erasures WHERE finished_at IS NULL ORDER BY requested_at LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(self.connection())
        .await?;
        Ok(rows.into_iter().map(TenantId::new).collect())
    }

    /// Goes one step on with an erasure: at most `limit` rows of what there may be many of, then everything else at once
    /// with the key. Returns whether there is more to do now. Repeated after a crash it does what is left.
    pub async fn erase(&mut self, tenant: TenantId, limit: u32) -> Result<bool, Error> {
        // Whoever comes second waits, and finds less.
        let locked: Option<(Option<OffsetDateTime>,)> =
            sqlx::query_as("SELECT key_destroyed_at FROM erasures WHERE tenant_id = $1 FOR UPDATE")
                .bind(tenant.as_uuid())
                .fetch_optional(self.connection())
                .await?;
        let Some((destroyed_at,)) = locked else { return Ok(false) };
        let mut rows = 0;
        for query in IN_BATCHES {
            let done = sqlx::query(*query)
                .bind(tenant.as_uuid())
                .bind(i64::from(limit))
                .execute(self.connection())
                .await?
                .rows_affected();
            rows += done;
            if done > 0 {
                self.erased(tenant, rows).await?;
                return Ok(true);
            }
        }
        if self.bury(tenant, limit).await? {
            return Ok(true);
        }
        for query in ALL_AT_ONCE {
            rows += sqlx::query(*query)
                .bind(tenant.as_uuid())
                .execute(self.connection())
                .await?
                .rows_affected();
        }
        sqlx::query(
            "UPDATE data_keys SET wrapped = NULL, destroyed_at = now() WHERE tenant_id = $1 AND wrapped IS NOT NULL",
        )
        .bind(tenant.as_uuid())
        .execute(self.connection())
        .await?;
        if destroyed_at.is_none() {
            sqlx::query(
                "INSERT INTO event_outbox (tenant_id, event_id, aggregate_kind, aggregate_id, seq, kind, payload)
                 VALUES ($1, gen_random_uuid(), 'tenant', $1, 0, 'tenant.erased', '{}')",
            )
            .bind(tenant.as_uuid())
            .execute(self.connection())
            .await?;
        }
        sqlx::query("UPDATE tenants SET name = 'deleted', slug = 'deleted-' || replace(id::text, '-', '') WHERE id = $1")
            .bind(tenant.as_uuid())
            .execute(self.connection())
            .await?;
        sqlx::query(
            "UPDATE erasures SET key_destroyed_at = coalesce(key_destroyed_at, now()),
                finished_at = CASE WHEN requested_at < now() - $2 * interval '1 second' THEN now() END
             WHERE tenant_id = $1",
        )
        .bind(tenant.as_uuid())
        .bind(REMEMBERED.as_secs_f64())
        .execute(self.connection())
        .await?;
        self.erased(tenant, rows).await?;
        Ok(false)
    }

    /// Puts a tombstone for each of the next `limit` aggregates that were ever told of, for compacted topics to forget what
    /// was published of them. Whether there are more.
    async fn bury(&mut self, tenant: TenantId, limit: u32) -> Result<bool, Error> {
        let buried = sqlx::query(
            "WITH next AS (
                SELECT h.aggregate_kind, h.aggregate_id, h.seq FROM event_heads h JOIN erasures e USING (tenant_id)
                WHERE h.tenant_id = $1 AND (h.aggregate_kind, h.aggregate_id)
                    > (coalesce(e.buried_kind, ''), coalesce(e.buried_id, '00000000-0000-0000-0000-000000000000'))
                ORDER BY h.aggregate_kind, h.aggregate_id LIMIT $2),
             stones AS (
                INSERT INTO event_outbox (tenant_id, event_id, aggregate_kind, aggregate_id, seq)
                SELECT $1, gen_random_uuid(), aggregate_kind, aggregate_id, seq FROM next WHERE aggregate_kind <> 'tenant')
             UPDATE erasures e SET buried_kind = l.aggregate_kind, buried_id = l.aggregate_id
             FROM (SELECT * FROM next ORDER BY aggregate_kind DESC, aggregate_id DESC LIMIT 1) AS l
             WHERE e.tenant_id = $1",
        )
        .bind(tenant.as_uuid())
        .bind(i64::from(limit))
        .execute(self.connection())
        .await?;
        Ok(buried.rows_affected() > 0)
    }

    async fn erased(&mut self, tenant: TenantId, rows: u64) -> Result<(), Error> {
        sqlx::query("UPDATE erasures SET erased_rows = erased_rows + $2 WHERE tenant_id = $1")
            .bind(tenant.as_uuid())
            .bind(i64::try_from(rows).unwrap_or(i64::MAX))
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

impl Store {
    /// Forgets an erased tenant's key in this process; others do within a minute.
    pub fn forget_key(&self, tenant: TenantId) {
        if let Some(vault) = &self.vault {
            vault.forget(tenant);
        }
    }
}
