//! Orders to forget: what others remember of the record is void, whether it changed or not.
//! Knows nothing of who remembers what.

use gatehouse_contract::{TenantId, sidecar::Change};
use serde_json::json;

use crate::{AdminTx, Error};

/// What stands in the outbox where everything is to be forgotten. It is no [`Change`]: its relay begins another feed.
pub(crate) const PURGE: &str = "purge";

impl AdminTx<'_> {
    /// Has everything that is remembered of a tenant, or of all, forgotten; `false` where there is no such tenant.
    pub async fn purge_remembered(&mut self, tenant: Option<TenantId>) -> Result<bool, Error> {
        let Some(tenant) = tenant else {
            let (connection, op, _) = self.parts();
            let own = op.tenant;
            sqlx::query("INSERT INTO outbox (tenant_id, kind, payload) VALUES ($1, $2, $3)")
                .bind(own.as_uuid())
                .bind(PURGE)
                .bind(json!({"kind": PURGE}))
                .execute(connection)
                .await?;
            let told = json!({"new": {"tenant": null}});
            self.within(own).audit_change("cache.purge", "cache", "all", told).await?;
            return Ok(true);
        };
        if self.tenant(tenant).await?.is_none() {
            return Ok(false);
        }
        self.within(tenant).publish(&[Change::Tenant { tenant }]).await?;
        let told = json!({"new": {"tenant": tenant}});
        self.within(tenant).audit_change("cache.purge", "cache", tenant, told).await?;
        Ok(true)
    }
}
