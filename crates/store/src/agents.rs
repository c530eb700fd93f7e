//! The registry of one tenant: agents and their versions.
//! Knows nothing of where images lie.

use gatehouse_contract::{AgentId, AgentVersionId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Error, TenantTx, paging::Page};

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Unique among the tenant's agents.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// When it was registered.
    pub created_at: OffsetDateTime,
}

/// A version of an agent; it never changes.
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
}

type AgentRow = (Uuid, String, Option<String>, OffsetDateTime);
type VersionRow = (Uuid, Uuid, String, String, OffsetDateTime);

impl From<AgentRow> for Agent {
    fn from((id, name, description, created_at): AgentRow) -> Self {
        Self { id: AgentId::new(id), name, description, created_at }
    }
}

impl From<VersionRow> for AgentVersion {
    fn from((id, agent, version, image, created_at): VersionRow) -> Self {
        Self { id: AgentVersionId::new(id), agent: AgentId::new(agent), version, image, created_at }
    }
}

impl TenantTx<'_> {
    /// Registers an agent. A name that is taken is [`Error::Conflict`].
    pub async fn create_agent(
        &mut self,
        id: AgentId,
        name: &str,
        description: Option<&str>,
    ) -> Result<Agent, Error> {
        let row: AgentRow = sqlx::query_as(
            "INSERT INTO agents (tenant_id, id, name, description) VALUES ($1, $2, $3, $4)
             RETURNING id, name, description, created_at",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(name)
        .bind(description)
        .fetch_one(self.connection())
        .await?;
        self.audit("agent.create", "agent", id).await?;
        Ok(row.into())
    }

    /// A page of the agents, of the one with this name where one is named.
    pub async fn list_agents(
        &mut self,
        page: &Page,
        name: Option<&str>,
    ) -> Result<Vec<Agent>, Error> {
        let rows: Vec<AgentRow> = sqlx::query_as(
            "SELECT id, name, description, created_at FROM agents
             WHERE deleted_at IS NULL AND (created_at, id) < ($1, $2) AND ($4::text IS NULL OR name = $4)
             ORDER BY created_at DESC, id DESC LIMIT $3",
        )
        .bind(page.after.created_at)
        .bind(page.after.id)
        .bind(page.limit)
        .bind(name)
        .fetch_all(self.connection())
        .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// An agent by id.
    pub async fn agent(&mut self, id: AgentId) -> Result<Option<Agent>, Error> {
        let row: Option<AgentRow> = sqlx::query_as(
            "SELECT id, name, description, created_at FROM agents WHERE id = $1 AND deleted_at IS NULL",
        )
        .bind(id.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        Ok(row.map(Into::into))
    }

    /// Takes an agent out of the registry; its past executions stay. `false` when there is none.
    pub async fn delete_agent(&mut self, id: AgentId) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE agents SET deleted_at = now() WHERE id = $1 AND deleted_at IS NULL",
        )
        .bind(id.as_uuid())
        .execute(self.connection())
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        self.audit("agent.delete", "agent", id).await?;
        Ok(true)
    }

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
             VALUES ($1, $2, $3, $4, $5) RETURNING id, agent_id, version, image, created_at",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(agent.as_uuid())
        .bind(version)
        .bind(image)
        .fetch_one(self.connection())
        .await?;
        self.audit("agent_version.create", "agent_version", id).await?;
        Ok(row.into())
    }

    /// A page of an agent's versions.
    pub async fn list_versions(
        &mut self,
        agent: AgentId,
        page: &Page,
    ) -> Result<Vec<AgentVersion>, Error> {
        let rows: Vec<VersionRow> = sqlx::query_as(
            "SELECT id, agent_id, version, image, created_at FROM agent_versions
             WHERE agent_id = $1 AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT $4",
        )
        .bind(agent.as_uuid())
        .bind(page.after.created_at)
        .bind(page.after.id)
        .bind(page.limit)
        .fetch_all(self.connection())
        .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// A version by id, of an agent that is still registered.
    pub async fn version(&mut self, id: AgentVersionId) -> Result<Option<AgentVersion>, Error> {
        let row: Option<VersionRow> = sqlx::query_as(
            "SELECT v.id, v.agent_id, v.version, v.image, v.created_at
             FROM agent_versions v JOIN agents a ON a.tenant_id = v.tenant_id AND a.id = v.agent_id
             WHERE v.id = $1 AND a.deleted_at IS NULL",
        )
        .bind(id.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        Ok(row.map(Into::into))
    }

    /// A version by its agent's name and its own.
    pub async fn version_named(
        &mut self,
        agent: &str,
        version: &str,
    ) -> Result<Option<AgentVersion>, Error> {
        let row: Option<VersionRow> = sqlx::query_as(
            "SELECT v.id, v.agent_id, v.version, v.image, v.created_at
             FROM agent_versions v JOIN agents a ON a.tenant_id = v.tenant_id AND a.id = v.agent_id
             WHERE a.name = $1 AND v.version = $2 AND a.deleted_at IS NULL",
        )
        .bind(agent)
        .bind(version)
        .fetch_optional(self.connection())
        .await?;
        Ok(row.map(Into::into))
    }
}
