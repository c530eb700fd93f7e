//! The API version that answers a tenant's requests which name none.
//! Knows nothing of which versions are served.

use gatehouse_contract::{ApiVersion, sidecar::Change};
use serde_json::json;

use crate::{Error, Within, members::Changed};

impl Within<'_> {
    /// The version that the tenant is pinned to.
    pub async fn version_pin(&mut self) -> Result<Option<ApiVersion>, Error> {
        let row: Option<Option<String>> =
            sqlx::query_scalar("SELECT version_pin FROM tenants WHERE id = $1")
                .bind(self.tenant.as_uuid())
                .fetch_optional(&mut *self.connection)
                .await?;
        let pin = row.flatten().map(|stored| stored.parse()).transpose();
        pin.map_err(|_| Error::Unreadable { what: "version_pin" })
    }

    /// Pins the tenant to a version, or lets it have the gateway's default again.
    pub async fn set_version_pin(&mut self, pin: Option<&ApiVersion>) -> Result<Changed, Error> {
        let before: Option<Option<String>> =
            sqlx::query_scalar("SELECT version_pin FROM tenants WHERE id = $1 FOR NO KEY UPDATE")
                .bind(self.tenant.as_uuid())
                .fetch_optional(&mut *self.connection)
                .await?;
        let Some(before) = before else { return Ok(Changed::Missing) };
        let pin = pin.map(ApiVersion::as_str);
        if before.as_deref() == pin {
            return Ok(Changed::No);
        }
        sqlx::query("UPDATE tenants SET version_pin = $2 WHERE id = $1")
            .bind(self.tenant.as_uuid())
            .bind(pin)
            .execute(&mut *self.connection)
            .await?;
        let tenant = self.tenant;
        self.publish(&[Change::Tenant { tenant }]).await?;
        let change = json!({"old": {"version": before}, "new": {"version": pin}});
        self.audit_change("tenant.version_pin", "tenant", tenant, change).await?;
        Ok(Changed::Yes)
    }
}
