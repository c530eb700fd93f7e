//! The API version that answers a tenant's requests which name none.
//! Knows nothing of which versions are served.

use gatehouse_contract::{ApiVersion, sidecar::Change};

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
        match before {
            None => return Ok(Changed::Missing),
            Some(before) if before.as_deref() == pin.map(ApiVersion::as_str) => {
                return Ok(Changed::No);
            }
            Some(_) => {}
        }
        sqlx::query("UPDATE tenants SET version_pin = $2 WHERE id = $1")
            .bind(self.tenant.as_uuid())
            .bind(pin.map(ApiVersion::as_str))
            .execute(&mut *self.connection)
            .await?;
        let tenant = self.tenant;
        self.publish(&[Change::Tenant { tenant }]).await?;
        self.audit("tenant.version_pin", "tenant", tenant).await?;
        Ok(Changed::Yes)
    }
}
