//! The registry of one tenant: agents, and what their versions are ([`crate::versions`]).
//! Knows nothing of where images lie.

use gatehouse_contract::AgentId;
use gatehouse_events::{
    Event,
    event::{AgentCreated, AgentDeleted, AgentUpdated},
};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Error, TenantTx, paging::Page, usage::Counted};

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

type AgentRow = (Uuid, String, Option<String>, OffsetDateTime);

impl From<AgentRow> for Agent {
    fn from((id, name, description, created_at): AgentRow) -> Self {
        Self { id: AgentId::new(id), name, description, created_at }
    }
}

impl TenantTx<'_> {
    /// Registers an agent. A name that is taken is [`Error::Conflict`], one agent too many
    /// [`Error::QuotaExceeded`].
    pub async fn create_agent(
        &mut self,
        id: AgentId,
        name: &str,
        description: Option<&str>,
    ) -> Result<Agent, Error> {
        self.take(Counted::Agents, 1).await?;
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
        let made = Agent::from(row);
        let values = json!({"new": {"name": made.name, "description": made.description}});
        self.within().audit_change("agent.create", "agent", id, values).await?;
        let told = Event::AgentCreated(AgentCreated {
            name: made.name.clone(),
            description: made.description.clone(),
            created_at: made.created_at,
        });
        self.append(id.as_uuid(), &told).await?;
        Ok(made)
    }

    /// Gives an agent another name and description, both as they are to be; `before` is the agent as it is, locked. A name
    /// that is taken is [`Error::Conflict`].
    pub async fn update_agent(
        &mut self,
        before: &Agent,
        name: &str,
        description: Option<&str>,
    ) -> Result<Agent, Error> {
        if before.name == name && before.description.as_deref() == description {
            return Ok(before.clone());
        }
        let row: AgentRow = sqlx::query_as(
            "UPDATE agents SET name = $3, description = $4 WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL
             RETURNING id, name, description, created_at",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(before.id.as_uuid())
        .bind(name)
        .bind(description)
        .fetch_one(self.connection())
        .await?;
        let now = Agent::from(row);
        let values = json!({
            "old": {"name": before.name, "description": before.description},
            "new": {"name": now.name, "description": now.description},
        });
        self.within().audit_change("agent.update", "agent", now.id, values).await?;
        let (name, description) = (now.name.clone(), now.description.clone());
        let told = Event::AgentUpdated(AgentUpdated { name, description });
        self.append(now.id.as_uuid(), &told).await?;
        Ok(now)
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
        // The counter is locked first, as by who registers an agent, who may be waiting for this one's name; it is changed
        // once there is one that goes.
        self.release(Counted::Agents, 0).await?;
        let row: Option<(String, Option<String>, OffsetDateTime)> = sqlx::query_as(
            "UPDATE agents SET deleted_at = now() WHERE id = $1 AND deleted_at IS NULL
             RETURNING name, description, deleted_at",
        )
        .bind(id.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        let Some((name, description, deleted_at)) = row else { return Ok(false) };
        self.release(Counted::Agents, 1).await?;
        let values = json!({"old": {"name": name, "description": description}});
        self.within().audit_change("agent.delete", "agent", id, values).await?;
        let told = Event::AgentDeleted(AgentDeleted { deleted_at });
        self.append(id.as_uuid(), &told).await?;
        Ok(true)
    }
}
