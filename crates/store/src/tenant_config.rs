//! A tenant's configuration: one document, the version of the schema that judged it, and a revision against lost updates.
//! Knows neither the schema nor what the document says: who merges a patch brings the result.

use gatehouse_contract::sidecar::Change;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::{
    Error, Within,
    organizations::{Edited, revision},
};

/// Most bytes of a document as PostgreSQL writes it; what is larger is refused there.
pub const MOST_BYTES: usize = 65_536;

/// A configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantConfig {
    /// Of the schema that the document was judged by last; 0 where nothing was configured yet.
    pub schema_version: u32,
    /// The document.
    pub document: Map<String, Value>,
    /// Grows with every change; 0 where nothing was configured yet.
    pub revision: u64,
    /// When it was changed last.
    pub updated_at: Option<OffsetDateTime>,
}

type Row = (i32, Value, i64, OffsetDateTime);

fn read((schema_version, document, stored, updated_at): Row) -> Result<TenantConfig, Error> {
    let unreadable = || Error::Unreadable { what: "configuration" };
    let Value::Object(document) = document else { return Err(unreadable()) };
    Ok(TenantConfig {
        schema_version: u32::try_from(schema_version).map_err(|_| unreadable())?,
        document,
        revision: revision(stored)?,
        updated_at: Some(updated_at),
    })
}

impl Within<'_> {
    /// The configuration; an empty document of revision 0 where there is none.
    pub async fn config(&mut self) -> Result<TenantConfig, Error> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT schema_version, document, revision, updated_at FROM tenant_config WHERE tenant_id = $1",
        )
        .bind(self.tenant.as_uuid())
        .fetch_optional(&mut *self.connection)
        .await?;
        row.map_or_else(
            || {
                let document = Map::new();
                Ok(TenantConfig { schema_version: 0, document, revision: 0, updated_at: None })
            },
            read,
        )
    }

    /// Puts `document` in the place of the configuration of revision `expected`; never [`Edited::Missing`]. A document
    /// of more than [`MOST_BYTES`] is [`Error::Statement`]: whoever judges it refuses it before.
    pub async fn replace_config(
        &mut self,
        expected: u64,
        schema_version: u32,
        document: &Map<String, Value>,
    ) -> Result<Edited<TenantConfig>, Error> {
        let before = self.config().await?;
        // Of two that begin at revision 0 the second finds the first one's row, which has another revision.
        let row: Option<Row> = if expected == 0 {
            sqlx::query_as(
                "INSERT INTO tenant_config (tenant_id, schema_version, document) SELECT $1, $2, $3 WHERE $4 = 0
                 ON CONFLICT (tenant_id) DO NOTHING
                 RETURNING schema_version, document, revision, updated_at",
            )
        } else {
            sqlx::query_as(
                "UPDATE tenant_config
                 SET schema_version = $2, document = $3, revision = revision + 1, updated_at = now()
                 WHERE tenant_id = $1 AND revision = $4
                 RETURNING schema_version, document, revision, updated_at",
            )
        }
        .bind(self.tenant.as_uuid())
        .bind(i64::from(schema_version))
        .bind(sqlx::types::Json(document))
        .bind(i64::try_from(expected).unwrap_or(i64::MAX))
        .fetch_optional(&mut *self.connection)
        .await?;
        let Some(row) = row else { return Ok(Edited::Stale) };
        let (tenant, now) = (self.tenant, read(row)?);
        self.publish(&[Change::Tenant { tenant }]).await?;
        let values = json!({"old": before.document, "new": now.document});
        self.audit_change("tenant.config", "tenant", tenant, values).await?;
        Ok(Edited::Done(now))
    }
}
