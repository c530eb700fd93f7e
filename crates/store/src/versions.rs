//! The versions of an agent: published, one of them promoted, some deprecated. What a version is never changes.
//! Knows nothing of where images lie, nor of what runs.

use gatehouse_contract::{AgentId, AgentVersionId};
use gatehouse_events::{
    Event,
    event::{VersionDeprecated, VersionPromoted, VersionPublished},
};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Error, TenantTx, paging::Page};

/// A version of an agent: what it is never changes, only what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentVersion {
    /// Its id.
    pub id: AgentVersionId,
    /// Whose version.
    pub agent: AgentId,
    /// Unique among the agent's versions.
    pub version: String,
    /// `name@sha256:…`.
    pub image: String,
    /// When it was published.
    pub created_at: OffsetDateTime,
    /// Since when it runs where none is named; one version of an agent at most does.
    pub promoted_at: Option<OffsetDateTime>,
    /// Since when it should be run no longer.
    pub deprecated_at: Option<OffsetDateTime>,
    /// What to do instead, for people.
    pub deprecation: Option<String>,
}

#[derive(sqlx::FromRow)]
struct VersionRow {
    id: Uuid,
    agent_id: Uuid,
    version: String,
    image: String,
    created_at: OffsetDateTime,
    promoted_at: Option<OffsetDateTime>,
    deprecated_at: Option<OffsetDateTime>,
    deprecation: Option<String>,
}

impl From<VersionRow> for AgentVersion {
    fn from(row: VersionRow) -> Self {
        Self {
            id: AgentVersionId::new(row.id),
            agent: AgentId::new(row.agent_id),
            version: row.version,
            image: row.image,
            created_at: row.created_at,
            promoted_at: row.promoted_at,
            deprecated_at: row.deprecated_at,
            deprecation: row.deprecation,
        }
    }
}

/// Which versions a list has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The one that is called so.
    pub version: Option<&'a str>,
    /// Those that are deprecated, or those that are not.
    pub deprecated: Option<bool>,
    /// The one that is promoted, or the others.
    pub promoted: Option<bool>,
}

impl TenantTx<'_> {
    /// Publishes a version. One that is there is [`Error::Conflict`], an unknown agent [`Error::Missing`].
    pub async fn create_version(
        &mut self,
        id: AgentVersionId,
        agent: AgentId,
        version: &str,
        image: &str,
    ) -> Result<AgentVersion, Error> {
        let row: VersionRow = sqlx::query_as(
            "INSERT INTO agent_versions (tenant_id, id, agent_id, version, image)
             VALUES ($1, $2, $3, $4, $5)
             RETURNING id, agent_id, version, image, created_at, promoted_at, deprecated_at, deprecation",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(agent.as_uuid())
        .bind(version)
        .bind(image)
        .fetch_one(self.connection())
        .await?;
        let made = AgentVersion::from(row);
        let values = json!({"new": {"agent_id": agent, "version": version, "image": image}});
        self.within().audit_change("agent_version.create", "agent_version", id, values).await?;
        let told = Event::VersionPublished(VersionPublished {
            version_id: id,
            version: made.version.clone(),
            image: made.image.clone(),
            created_at: made.created_at,
        });
        self.append(agent.as_uuid(), &told).await?;
        Ok(made)
    }

    /// Makes a version the one that runs where none is named; what was it before is so no longer. The agent is locked.
    pub async fn promote_version(&mut self, version: &AgentVersion) -> Result<AgentVersion, Error> {
        if version.promoted_at.is_some() {
            return Ok(version.clone());
        }
        let before: Option<Uuid> = sqlx::query_scalar(
            "UPDATE agent_versions SET promoted_at = NULL
             WHERE tenant_id = $1 AND agent_id = $2 AND promoted_at IS NOT NULL RETURNING id",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(version.agent.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        let row: VersionRow = sqlx::query_as(
            "UPDATE agent_versions SET promoted_at = now() WHERE tenant_id = $1 AND id = $2
             RETURNING id, agent_id, version, image, created_at, promoted_at, deprecated_at, deprecation",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(version.id.as_uuid())
        .fetch_one(self.connection())
        .await?;
        let now = AgentVersion::from(row);
        let values = json!({
            "old": {"promoted_version_id": before},
            "new": {"promoted_version_id": now.id},
        });
        self.within()
            .audit_change("agent_version.promote", "agent_version", now.id, values)
            .await?;
        let promoted_at = now.promoted_at.ok_or(Error::Unreadable { what: "promoted_at" })?;
        let told = Event::VersionPromoted(VersionPromoted { version_id: now.id, promoted_at });
        self.append(now.agent.as_uuid(), &told).await?;
        Ok(now)
    }

    /// Says that a version should be run no longer, and what to do instead; said again, the newest message counts. The
    /// agent is locked.
    pub async fn deprecate_version(
        &mut self,
        version: &AgentVersion,
        message: Option<&str>,
    ) -> Result<AgentVersion, Error> {
        if version.deprecated_at.is_some() && version.deprecation.as_deref() == message {
            return Ok(version.clone());
        }
        let row: VersionRow = sqlx::query_as(
            "UPDATE agent_versions SET deprecated_at = coalesce(deprecated_at, now()), deprecation = $3
             WHERE tenant_id = $1 AND id = $2
             RETURNING id, agent_id, version, image, created_at, promoted_at, deprecated_at, deprecation",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(version.id.as_uuid())
        .bind(message)
        .fetch_one(self.connection())
        .await?;
        let now = AgentVersion::from(row);
        let values = json!({
            "old": {"deprecated": version.deprecated_at.is_some(), "message": version.deprecation},
            "new": {"deprecated": true, "message": now.deprecation},
        });
        self.within()
            .audit_change("agent_version.deprecate", "agent_version", now.id, values)
            .await?;
        let told = Event::VersionDeprecated(VersionDeprecated {
            version_id: now.id,
            message: now.deprecation.clone(),
            deprecated_at: now.deprecated_at.ok_or(Error::Unreadable { what: "deprecated_at" })?,
        });
        self.append(now.agent.as_uuid(), &told).await?;
        Ok(now)
    }

    /// A page of an agent's versions.
    pub async fn list_versions(
        &mut self,
        agent: AgentId,
        page: &Page,
        wanted: Wanted<'_>,
    ) -> Result<Vec<AgentVersion>, Error> {
        let rows: Vec<VersionRow> = sqlx::query_as(
            "SELECT id, agent_id, version, image, created_at, promoted_at, deprecated_at, deprecation FROM agent_versions
             WHERE agent_id = $1 AND (created_at, id) < ($2, $3)
             AND ($5::text IS NULL OR version = $5)
             AND ($6::boolean IS NULL OR (deprecated_at IS NOT NULL) = $6)
             AND ($7::boolean IS NULL OR (promoted_at IS NOT NULL) = $7)
             ORDER BY created_at DESC, id DESC LIMIT $4",
        )
        .bind(agent.as_uuid())
        .bind(page.after.created_at)
        .bind(page.after.id)
        .bind(page.limit)
        .bind(wanted.version)
        .bind(wanted.deprecated)
        .bind(wanted.promoted)
        .fetch_all(self.connection())
        .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// A version by id, of an agent that is still registered.
    pub async fn version(&mut self, id: AgentVersionId) -> Result<Option<AgentVersion>, Error> {
        let row: Option<VersionRow> = sqlx::query_as(
            "SELECT v.id, v.agent_id, v.version, v.image, v.created_at, v.promoted_at, v.deprecated_at, v.deprecation
             FROM agent_versions v JOIN agents a ON a.tenant_id = v.tenant_id AND a.id = v.agent_id
             WHERE v.id = $1 AND a.deleted_at IS NULL",
        )
        .bind(id.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        Ok(row.map(Into::into))
    }

    /// A version by its agent's name and its own; the promoted one where none is named.
    pub async fn version_named(
        &mut self,
        agent: &str,
        version: Option<&str>,
    ) -> Result<Option<AgentVersion>, Error> {
        let row: Option<VersionRow> = sqlx::query_as(
            "SELECT v.id, v.agent_id, v.version, v.image, v.created_at, v.promoted_at, v.deprecated_at, v.deprecation
             FROM agent_versions v JOIN agents a ON a.tenant_id = v.tenant_id AND a.id = v.agent_id
             WHERE a.name = $1 AND a.deleted_at IS NULL
             AND CASE WHEN $2::text IS NULL THEN v.promoted_at IS NOT NULL ELSE v.version = $2 END",
        )
        .bind(agent)
        .bind(version)
        .fetch_optional(self.connection())
        .await?;
        Ok(row.map(Into::into))
    }
}
