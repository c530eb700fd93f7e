//! A tenant's organizations: a tree that stays one, whoever moves what at the same time (`migrations/0012_tenancy.sql`).
//! Knows nothing of who may do what.

use gatehouse_contract::OrganizationId;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Error, Within, paging::Page};

/// Most organizations that one look at a subtree returns.
pub const SUBTREE: i64 = 1000;

/// An organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// The one above it; `None` is a root.
    pub parent: Option<OrganizationId>,
    /// Unique among its siblings.
    pub name: String,
    /// Grows with every change.
    pub revision: u64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was changed last.
    pub updated_at: OffsetDateTime,
}

/// Which organizations are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OrganizationFilter {
    /// Right below this one.
    pub parent: Option<OrganizationId>,
    /// Those without one above.
    pub roots: bool,
    /// This one and all below it, on whichever level.
    pub within: Option<OrganizationId>,
}

/// What became of a change that names the revision that it is meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edited<T> {
    /// Done; as it is now.
    Done(T),
    /// There is none.
    Missing,
    /// It has another revision by now.
    Stale,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    parent_id: Option<Uuid>,
    name: String,
    revision: i64,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl TryFrom<Row> for Organization {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: OrganizationId::new(row.id),
            parent: row.parent_id.map(OrganizationId::new),
            name: row.name,
            revision: revision(row.revision)?,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// As the audit has it.
fn told_of(one: &Organization) -> Value {
    json!({"name": one.name, "parent_id": one.parent})
}

/// A revision as it is stored.
pub(crate) fn revision(stored: i64) -> Result<u64, Error> {
    u64::try_from(stored).map_err(|_| Error::Unreadable { what: "revision" })
}

/// What the tree does not allow is a conflict, named by its rule: `organizations_no_cycle`, `organizations_depth`.
fn told(error: sqlx::Error) -> Error {
    let rule = error.as_database_error().filter(|error| error.is_check_violation());
    match rule.and_then(sqlx::error::DatabaseError::constraint) {
        Some(rule @ ("organizations_no_cycle" | "organizations_depth")) => {
            Error::Conflict { constraint: rule.to_owned() }
        }
        _ => error.into(),
    }
}

impl Within<'_> {
    /// Waits for the tenant's other moves. The trigger that keeps the tree does so, too, but only when the row is locked
    /// already: two that wait there, each for the other's row, would be a deadlock and no answer.
    async fn lock_organizations(&mut self) -> Result<(), Error> {
        sqlx::query(
            "SELECT pg_advisory_xact_lock(hashtextextended('gatehouse organizations ' || $1, 0))",
        )
        .bind(self.tenant.to_string())
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Makes an organization. A sibling of this name, or one level too many, is [`Error::Conflict`]; a parent that is
    /// not there is [`Error::Missing`].
    pub async fn create_organization(
        &mut self,
        id: OrganizationId,
        parent: Option<OrganizationId>,
        name: &str,
    ) -> Result<Organization, Error> {
        self.lock_organizations().await?;
        let row: Row = sqlx::query_as(
            "INSERT INTO organizations (tenant_id, id, parent_id, name) VALUES ($1, $2, $3, $4)
             RETURNING id, parent_id, name, revision, created_at, updated_at",
        )
        .bind(self.tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(parent.map(OrganizationId::as_uuid))
        .bind(name)
        .fetch_one(&mut *self.connection)
        .await
        .map_err(told)?;
        let made = Organization::try_from(row)?;
        let values = json!({"new": told_of(&made)});
        self.audit_change("organization.create", "organization", id, values).await?;
        Ok(made)
    }

    /// An organization by id.
    pub async fn organization(
        &mut self,
        id: OrganizationId,
    ) -> Result<Option<Organization>, Error> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT id, parent_id, name, revision, created_at, updated_at FROM organizations
             WHERE tenant_id = $1 AND id = $2",
        )
        .bind(self.tenant.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(&mut *self.connection)
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// An organization, kept as it is until the transaction ends.
    pub async fn lock_organization(
        &mut self,
        id: OrganizationId,
    ) -> Result<Option<Organization>, Error> {
        self.lock_organizations().await?;
        self.organization(id).await
    }

    /// A page of the organizations that the filter wants, a whole subtree in one query.
    pub async fn list_organizations(
        &mut self,
        page: &Page,
        filter: &OrganizationFilter,
    ) -> Result<Vec<Organization>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "WITH RECURSIVE tree AS (
                SELECT o.id FROM organizations o WHERE o.tenant_id = $1 AND o.id = $5
                UNION ALL
                SELECT o.id FROM tree JOIN organizations o ON o.tenant_id = $1 AND o.parent_id = tree.id)
             SELECT id, parent_id, name, revision, created_at, updated_at FROM organizations
             WHERE tenant_id = $1 AND (created_at, id) < ($2, $3)
                AND ($5::uuid IS NULL OR id IN (SELECT id FROM tree))
                AND ($6::uuid IS NULL OR parent_id = $6) AND (parent_id IS NULL OR NOT $7)
             ORDER BY created_at DESC, id DESC LIMIT $4",
        )
        .bind(self.tenant.as_uuid())
        .bind(page.after.created_at)
        .bind(page.after.id)
        .bind(page.limit)
        .bind(filter.within.map(OrganizationId::as_uuid))
        .bind(filter.parent.map(OrganizationId::as_uuid))
        .bind(filter.roots)
        .fetch_all(&mut *self.connection)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// An organization and all below it in one query, level by level, at most [`SUBTREE`]; empty where there is none.
    pub async fn organizations_from(
        &mut self,
        root: OrganizationId,
    ) -> Result<Vec<Organization>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "WITH RECURSIVE tree AS (
                SELECT o.*, 1 AS level FROM organizations o WHERE o.tenant_id = $1 AND o.id = $2
                UNION ALL
                SELECT o.*, tree.level + 1 FROM tree
                JOIN organizations o ON o.tenant_id = $1 AND o.parent_id = tree.id)
             SELECT id, parent_id, name, revision, created_at, updated_at FROM tree
             ORDER BY level, name, id LIMIT $3",
        )
        .bind(self.tenant.as_uuid())
        .bind(root.as_uuid())
        .bind(SUBTREE)
        .fetch_all(&mut *self.connection)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Gives an organization of this revision another name and another place. A place below itself or too deep, or a
    /// sibling of the name, is [`Error::Conflict`].
    pub async fn change_organization(
        &mut self,
        id: OrganizationId,
        expected: u64,
        name: &str,
        parent: Option<OrganizationId>,
    ) -> Result<Edited<Organization>, Error> {
        self.lock_organizations().await?;
        let before = self.organization(id).await?;
        let row: Option<Row> = sqlx::query_as(
            "UPDATE organizations SET name = $4, parent_id = $5, revision = revision + 1, updated_at = now()
             WHERE tenant_id = $1 AND id = $2 AND revision = $3
             RETURNING id, parent_id, name, revision, created_at, updated_at",
        )
        .bind(self.tenant.as_uuid())
        .bind(id.as_uuid())
        // A revision beyond what is stored is nobody's.
        .bind(i64::try_from(expected).unwrap_or(i64::MAX))
        .bind(name)
        .bind(parent.map(OrganizationId::as_uuid))
        .fetch_optional(&mut *self.connection)
        .await
        .map_err(told)?;
        let Some(row) = row else {
            return Ok(if before.is_some() { Edited::Stale } else { Edited::Missing });
        };
        let now = Organization::try_from(row)?;
        let values = json!({"old": before.as_ref().map(told_of), "new": told_of(&now)});
        self.audit_change("organization.change", "organization", id, values).await?;
        Ok(Edited::Done(now))
    }

    /// Removes an organization; `false` where there is none. One with others below it is [`Error::Conflict`].
    pub async fn delete_organization(&mut self, id: OrganizationId) -> Result<bool, Error> {
        self.lock_organizations().await?;
        let Some(before) = self.organization(id).await? else { return Ok(false) };
        let done = sqlx::query("DELETE FROM organizations WHERE tenant_id = $1 AND id = $2")
            .bind(self.tenant.as_uuid())
            .bind(id.as_uuid())
            .execute(&mut *self.connection)
            .await
            .map_err(|error| match Error::from(error) {
                // What would be missing is the parent of those below.
                Error::Missing { constraint } => Error::Conflict { constraint },
                other => other,
            })?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let values = json!({"old": told_of(&before)});
        self.audit_change("organization.delete", "organization", id, values).await?;
        Ok(true)
    }
}
