//! Holds what is stored against what its events add up to: agents and executions, tenant by tenant.
//! Knows nothing of who asks.

use gatehouse_contract::{AgentId, AgentVersionId, ExecutionId};
use gatehouse_events::{Agent, Aggregate, Execution, Kind, agent::Version};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Error, TenantTx};

/// How often a difference is looked at again: somebody may have changed it between the two readings.
const LOOKS: u32 = 3;

/// What a stored state turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Compared {
    /// What its events add up to.
    Same,
    /// Older than events are: the first one is not its making.
    Older,
    /// Something else: where, as JSON pointers; none where the events do not add up at all.
    Differs(Vec<String>),
}

type AgentRow = (String, Option<String>, OffsetDateTime, Option<OffsetDateTime>);
type VersionRow = (
    Uuid,
    String,
    String,
    OffsetDateTime,
    Option<OffsetDateTime>,
    Option<OffsetDateTime>,
    Option<String>,
);

impl TenantTx<'_> {
    /// At most `limit` ids behind `after` of what is rebuilt from events; deleted agents are among them.
    pub async fn rebuildable(
        &mut self,
        of: Aggregate,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Uuid>, Error> {
        let statement = match of {
            Aggregate::Agent => {
                "SELECT id FROM agents WHERE tenant_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3"
            }
            Aggregate::Execution => {
                "SELECT id FROM executions WHERE tenant_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3"
            }
            Aggregate::Tenant => return Ok(Vec::new()),
        };
        let ids = sqlx::query_scalar(statement)
            .bind(self.op.tenant.as_uuid())
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(self.connection())
            .await?;
        Ok(ids)
    }

    /// Compares one of them.
    pub async fn compare(&mut self, of: Aggregate, id: Uuid) -> Result<Compared, Error> {
        let first = self.history(of, id, Some(2), 1).await?;
        let made = first.first().map(|told| told.event.kind());
        if !matches!(made, Some(Kind::AgentCreated | Kind::ExecutionSubmitted)) {
            return Ok(Compared::Older);
        }
        let mut found = Compared::Same;
        for _ in 0..LOOKS {
            found = match of {
                Aggregate::Agent => {
                    let stored = self.stored_agent(id).await?;
                    differing(stored, self.agent_at(AgentId::new(id), None).await)?
                }
                Aggregate::Execution => {
                    let stored = self.stored_execution(id).await?;
                    differing(stored, self.execution_at(ExecutionId::new(id), None).await)?
                }
                Aggregate::Tenant => Compared::Same,
            };
            if found == Compared::Same {
                break;
            }
        }
        Ok(found)
    }

    async fn stored_agent(&mut self, id: Uuid) -> Result<Option<Agent>, Error> {
        let tenant = self.op.tenant.as_uuid();
        let row: Option<AgentRow> = sqlx::query_as(
            "SELECT name, description, created_at, deleted_at FROM agents WHERE tenant_id = $1 AND id = $2",
        )
        .bind(tenant)
        .bind(id)
        .fetch_optional(self.connection())
        .await?;
        let Some((name, description, created_at, deleted_at)) = row else { return Ok(None) };
        let rows: Vec<VersionRow> = sqlx::query_as(
            "SELECT id, version, image, created_at, promoted_at, deprecated_at, deprecation FROM agent_versions
             WHERE tenant_id = $1 AND agent_id = $2",
        )
        .bind(tenant)
        .bind(id)
        .fetch_all(self.connection())
        .await?;
        let version =
            |(id, version, image, created_at, promoted_at, deprecated_at, deprecation)| {
                let one =
                    Version { version, image, created_at, promoted_at, deprecated_at, deprecation };
                (AgentVersionId::new(id), one)
            };
        let versions = rows.into_iter().map(version).collect();
        Ok(Some(Agent { name, description, created_at, deleted_at, versions }))
    }

    async fn stored_execution(&mut self, id: Uuid) -> Result<Option<Execution>, Error> {
        let Some(one) = self.execution(ExecutionId::new(id)).await? else { return Ok(None) };
        let (worker, epoch): (Option<String>, i64) = sqlx::query_as(
            "SELECT worker, lease_epoch FROM executions WHERE tenant_id = $1 AND id = $2",
        )
        .bind(self.op.tenant.as_uuid())
        .bind(id)
        .fetch_one(self.connection())
        .await?;
        Ok(Some(Execution {
            agent_id: one.agent,
            version_id: one.version,
            state: one.state,
            attempt: one.attempt,
            lease_epoch: u64::try_from(epoch)
                .map_err(|_| Error::Unreadable { what: "lease_epoch" })?,
            worker,
            input: one.input,
            output: one.output,
            end_reason: one.end_reason,
            error: one.error,
            created_at: one.created_at,
            started_at: one.started_at,
            completed_at: one.completed_at,
        }))
    }
}

/// Where the two differ: their members by name, without what they say.
fn differing<T: serde::Serialize>(
    stored: Option<T>,
    rebuilt: Result<Option<T>, Error>,
) -> Result<Compared, Error> {
    let rebuilt = match rebuilt {
        Ok(rebuilt) => rebuilt,
        Err(Error::Unreadable { .. }) => return Ok(Compared::Differs(Vec::new())),
        Err(error) => return Err(error),
    };
    let json = |state| serde_json::to_value(state).map_err(|_| Error::Unreadable { what: "state" });
    let (stored, rebuilt) = (json(stored)?, json(rebuilt)?);
    if stored == rebuilt {
        return Ok(Compared::Same);
    }
    let mut places = Vec::new();
    if let (Some(ours), Some(theirs)) = (stored.as_object(), rebuilt.as_object()) {
        let names = ours.iter().filter(|(name, value)| theirs.get(*name) != Some(*value));
        places.extend(names.map(|(name, _)| format!("/{name}")));
    }
    Ok(Compared::Differs(places))
}
