//! What takes longer than an answer: a change of a tenant that has to reach whoever remembers facts of it, or its
//! deletion. How far one is is read from what does it (the outbox, the erasure), and stored nowhere else.
//! Knows nothing of who may ask.

use gatehouse_contract::{OperationId, TenantId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{AdminTx, Error, paging::Page};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    /// A tenant is made.
    Create,
    /// Nobody of a tenant acts.
    Suspend,
    /// They act again.
    Resume,
    /// A tenant and everything of it goes.
    Delete,
}

impl OperationKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Create, Self::Suspend, Self::Resume, Self::Delete];

    /// As it is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "tenant.create",
            Self::Suspend => "tenant.suspend",
            Self::Resume => "tenant.resume",
            Self::Delete => "tenant.delete",
        }
    }
}

/// An operation. It is done by whoever carries it on until it is: none ends otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What was asked for.
    pub kind: OperationKind,
    /// Of which tenant.
    pub tenant: TenantId,
    /// When it was asked for.
    pub created_at: OffsetDateTime,
    /// When it was done; `None` while it runs.
    pub completed_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    tenant_id: Uuid,
    kind: String,
    created_at: OffsetDateTime,
    completed_at: Option<OffsetDateTime>,
}

impl TryFrom<Row> for Operation {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let kind = OperationKind::ALL.into_iter().find(|kind| kind.as_str() == row.kind);
        Ok(Self {
            id: OperationId::new(row.id),
            kind: kind.ok_or(Error::Unreadable { what: "operation" })?,
            tenant: TenantId::new(row.tenant_id),
            created_at: row.created_at,
            completed_at: row.completed_at,
        })
    }
}

impl AdminTx<'_> {
    /// Records what this transaction does to a tenant, behind it: it is done once the change that it published was
    /// relayed, and a deletion once the erasure is finished. `changed` is whether it published one. A tenant that is
    /// deleted already has its operation, which is returned.
    pub async fn begin_operation(
        &mut self,
        id: OperationId,
        tenant: TenantId,
        kind: OperationKind,
        changed: bool,
    ) -> Result<Operation, Error> {
        let (connection, op, _) = self.parts();
        // Whoever tells of the tenant holds its row, so that the newest is this transaction's.
        let made: Option<Uuid> = sqlx::query_scalar(
            "INSERT INTO operations (tenant_id, id, kind, outbox_id, subject, request_id)
             VALUES ($1, $2, $3, CASE WHEN $4 THEN
                (SELECT max(o.id) FROM outbox o WHERE o.tenant_id = $1 AND o.kind = 'tenant') END, $5, $6)
             ON CONFLICT (tenant_id) WHERE kind = 'tenant.delete' DO NOTHING RETURNING id",
        )
        .bind(tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(kind.as_str())
        .bind(changed)
        .bind(&op.subject)
        .bind(&op.request_id)
        .fetch_optional(connection)
        .await?;
        let id = match made {
            Some(id) => id,
            None => {
                let before = "SELECT id FROM operations WHERE tenant_id = $1 AND kind = $2";
                sqlx::query_scalar(before)
                    .bind(tenant.as_uuid())
                    .bind(kind.as_str())
                    .fetch_one(self.connection())
                    .await?
            }
        };
        let found = self.operation(OperationId::new(id)).await?;
        found.ok_or(Error::Unreadable { what: "operation" })
    }

    /// An operation by id.
    pub async fn operation(&mut self, id: OperationId) -> Result<Option<Operation>, Error> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT o.id, o.tenant_id, o.kind, o.created_at,
                CASE WHEN o.kind = 'tenant.delete' THEN e.finished_at
                    WHEN b.id IS NULL THEN coalesce(o.relayed_at, o.created_at) ELSE b.relayed_at END AS completed_at
             FROM operations o LEFT JOIN erasures e ON e.tenant_id = o.tenant_id
                LEFT JOIN outbox b ON b.id = o.outbox_id
             WHERE o.id = $1",
        )
        .bind(id.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// A page of the operations, of one tenant or kind where it is named.
    pub async fn list_operations(
        &mut self,
        page: &Page,
        tenant: Option<TenantId>,
        kind: Option<&str>,
    ) -> Result<Vec<Operation>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT o.id, o.tenant_id, o.kind, o.created_at,
                CASE WHEN o.kind = 'tenant.delete' THEN e.finished_at
                    WHEN b.id IS NULL THEN coalesce(o.relayed_at, o.created_at) ELSE b.relayed_at END AS completed_at
             FROM operations o LEFT JOIN erasures e ON e.tenant_id = o.tenant_id
                LEFT JOIN outbox b ON b.id = o.outbox_id
             WHERE (o.created_at, o.id) < ($1, $2) AND ($4::uuid IS NULL OR o.tenant_id = $4)
                AND ($5::text IS NULL OR o.kind = $5)
             ORDER BY o.created_at DESC, o.id DESC LIMIT $3",
        )
        .bind(page.after.created_at)
        .bind(page.after.id)
        .bind(page.limit)
        .bind(tenant.map(TenantId::as_uuid))
        .bind(kind)
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }
}
