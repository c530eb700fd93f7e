//! The versions of an agent: published, one of them promoted, some deprecated. What a version is never changes.
//! Knows nothing of where images lie, nor of what runs.

use gatehouse_contract::{AgentId, AgentVersionId};
use gatehouse_events::{
    Event,
    event::{VersionDeprecated, VersionPromoted, VersionPublished},
};
use gatehouse_execution::{Hooks, limits::Named};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Error, TenantTx, hooks::declared, paging::Page};

/// What is published.
#[derive(Debug, Clone, PartialEq)]
pub struct NewVersion {
    /// Its id.
    pub id: AgentVersionId,
    /// Whose version.
    pub agent: AgentId,
    /// Unique among the agent's versions.
    pub version: String,
    /// `name@sha256:…`.
    pub image: String,
    /// What its runs may use, read, write and reach.
    pub terms: Terms,
}

/// What the runs of a version may use, read, write and reach.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Terms {
    /// What of the limits is not the platform's.
    pub limits: Named,
    /// What an input must fit (JSON Schema 2020-12).
    pub input_schema: Option<Value>,
    /// What an output must fit.
    pub output_schema: Option<Value>,
    /// The hosts that may be asked (`host`, `host:port`, `*.suffix`). None is no network.
    pub egress: Vec<String>,
    /// The commands around each run.
    pub hooks: Hooks,
}

/// A version of an agent: what it is never changes, only what becomes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentVersion {
    /// Its id.
    pub id: AgentVersionId,
    /// Whose version.
    pub agent: AgentId,
    /// Unique among the agent's versions.
    pub version: String,
    /// `name@sha256:…`.
    pub image: String,
    /// What its runs may use, read, write and reach.
    pub terms: Terms,
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
    limits: Option<Value>,
    input_schema: Option<Value>,
    output_schema: Option<Value>,
    egress: Vec<String>,
    hooks: Option<Value>,
    created_at: OffsetDateTime,
    promoted_at: Option<OffsetDateTime>,
    deprecated_at: Option<OffsetDateTime>,
    deprecation: Option<String>,
}

impl TryFrom<VersionRow> for AgentVersion {
    type Error = Error;

    fn try_from(row: VersionRow) -> Result<Self, Error> {
        Ok(Self {
            id: AgentVersionId::new(row.id),
            agent: AgentId::new(row.agent_id),
            version: row.version,
            image: row.image,
            terms: Terms {
                limits: named(row.limits.as_ref())?,
                input_schema: row.input_schema,
                output_schema: row.output_schema,
                egress: row.egress,
                hooks: declared(row.hooks.as_ref())?,
            },
            created_at: row.created_at,
            promoted_at: row.promoted_at,
            deprecated_at: row.deprecated_at,
            deprecation: row.deprecation,
        })
    }
}

/// The limits that are stored, if any are.
pub(crate) fn named(stored: Option<&Value>) -> Result<Named, Error> {
    let read = |stored| Named::from_json(stored).map_err(|_| Error::Unreadable { what: "limits" });
    stored.map_or_else(|| Ok(Named::default()), read)
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
    pub async fn create_version(&mut self, new: &NewVersion) -> Result<AgentVersion, Error> {
        let (id, agent, terms) = (new.id, new.agent, &new.terms);
        let row: VersionRow = sqlx::query_as(
            "INSERT INTO agent_versions (tenant_id, id, agent_id, version, image, limits, input_schema, output_schema,
                egress, hooks)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             RETURNING id, agent_id, version, image, limits, input_schema, output_schema, egress, hooks, created_at,
                promoted_at, deprecated_at, deprecation",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(agent.as_uuid())
        .bind(&new.version)
        .bind(&new.image)
        .bind((!terms.limits.is_empty()).then(|| terms.limits.to_json()))
        .bind(&terms.input_schema)
        .bind(&terms.output_schema)
        .bind(&terms.egress)
        .bind((!terms.hooks.is_empty()).then(|| terms.hooks.to_json()))
        .fetch_one(self.connection())
        .await?;
        let made = AgentVersion::try_from(row)?;
        // Schemas are long, and are in the registry for as long as the version is.
        let values = json!({"new": {
            "agent_id": agent,
            "version": new.version,
            "image": new.image,
            "limits": terms.limits.to_json(),
            "egress": terms.egress,
            "hooks": terms.hooks.to_json(),
            "has_input_schema": terms.input_schema.is_some(),
            "has_output_schema": terms.output_schema.is_some(),
        }});
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
             RETURNING id, agent_id, version, image, limits, input_schema, output_schema, egress, hooks, created_at,
                promoted_at, deprecated_at, deprecation",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(version.id.as_uuid())
        .fetch_one(self.connection())
        .await?;
        let now = AgentVersion::try_from(row)?;
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
             RETURNING id, agent_id, version, image, limits, input_schema, output_schema, egress, hooks, created_at,
                promoted_at, deprecated_at, deprecation",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(version.id.as_uuid())
        .bind(message)
        .fetch_one(self.connection())
        .await?;
        let now = AgentVersion::try_from(row)?;
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
            "SELECT id, agent_id, version, image, limits, input_schema, output_schema, egress, hooks, created_at,
                promoted_at, deprecated_at, deprecation
             FROM agent_versions
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
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// A version by id, of an agent that is still registered.
    pub async fn version(&mut self, id: AgentVersionId) -> Result<Option<AgentVersion>, Error> {
        let row: Option<VersionRow> = sqlx::query_as(
            "SELECT v.id, v.agent_id, v.version, v.image, v.limits, v.input_schema, v.output_schema, v.egress, v.hooks,
                v.created_at, v.promoted_at, v.deprecated_at, v.deprecation
             FROM agent_versions v JOIN agents a ON a.tenant_id = v.tenant_id AND a.id = v.agent_id
             WHERE v.id = $1 AND a.deleted_at IS NULL",
        )
        .bind(id.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// A version by its agent's name and its own; the promoted one where none is named.
    pub async fn version_named(
        &mut self,
        agent: &str,
        version: Option<&str>,
    ) -> Result<Option<AgentVersion>, Error> {
        let row: Option<VersionRow> = sqlx::query_as(
            "SELECT v.id, v.agent_id, v.version, v.image, v.limits, v.input_schema, v.output_schema, v.egress, v.hooks,
                v.created_at, v.promoted_at, v.deprecated_at, v.deprecation
             FROM agent_versions v JOIN agents a ON a.tenant_id = v.tenant_id AND a.id = v.agent_id
             WHERE a.name = $1 AND a.deleted_at IS NULL
             AND CASE WHEN $2::text IS NULL THEN v.promoted_at IS NOT NULL ELSE v.version = $2 END",
        )
        .bind(agent)
        .bind(version)
        .fetch_optional(self.connection())
        .await?;
        row.map(TryInto::try_into).transpose()
    }
}
