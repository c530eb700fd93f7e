//! Tenants as the platform sees them: found, made, changed, suspended.
//! Knows nothing of who may do what.

use gatehouse_contract::{TenantId, TenantStatus, Tier, sidecar::Change};
use serde_json::{Map, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    AdminTx, Error, attempts,
    members::{Changed, Tenant, TenantRow},
    paging::Page,
};

/// Which tenants are wanted; what is `None` is not asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TenantFilter<'a> {
    /// The one with this slug.
    pub slug: Option<&'a str>,
    /// Of this tier.
    pub tier: Option<Tier>,
    /// In this status.
    pub status: Option<TenantStatus>,
    /// Whether its erasure is finished.
    pub erased: Option<bool>,
}

/// A tenant, and when nothing was left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its record.
    pub tenant: Tenant,
    /// When its erasure was finished.
    pub erased_at: Option<OffsetDateTime>,
}

type ListedRow = (Uuid, String, String, String, String, OffsetDateTime, Option<OffsetDateTime>);

fn listed(row: ListedRow) -> Result<Listed, Error> {
    let (id, slug, name, tier, status, created_at, erased_at) = row;
    let tenant = TenantRow::from((id, slug, name, tier, status, created_at)).try_into()?;
    Ok(Listed { tenant, erased_at })
}

impl AdminTx<'_> {
    /// Makes an active tenant. A slug that is or was another's is [`Error::Conflict`].
    pub async fn create_tenant(
        &mut self,
        id: TenantId,
        slug: &str,
        name: &str,
        tier: Tier,
    ) -> Result<Tenant, Error> {
        let row: TenantRow = sqlx::query_as(
            "INSERT INTO tenants (id, slug, name, tier, status) VALUES ($1, $2, $3, $4, 'active')
             RETURNING id, slug, name, tier, status, created_at",
        )
        .bind(id.as_uuid())
        .bind(slug)
        .bind(name)
        .bind(tier.as_str())
        .fetch_one(self.connection())
        .await?;
        self.within(id).publish(&[Change::Tenant { tenant: id }]).await?;
        // The tenant's key is made with it: two transactions that each made it would wait for one another later.
        let new = json!({"slug": slug, "name": name, "tier": tier.as_str()});
        self.within(id).audit_change("tenant.create", "tenant", id, json!({"new": new})).await?;
        row.try_into()
    }

    /// A tenant with how far it is gone.
    pub async fn listed_tenant(&mut self, id: TenantId) -> Result<Option<Listed>, Error> {
        let row: Option<ListedRow> = sqlx::query_as(
            "SELECT t.id, t.slug, t.name, t.tier, t.status, t.created_at, e.finished_at
             FROM tenants t LEFT JOIN erasures e ON e.tenant_id = t.id WHERE t.id = $1",
        )
        .bind(id.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        row.map(listed).transpose()
    }

    /// A page of all tenants that the filter wants, the platform's own among them.
    pub async fn list_tenants(
        &mut self,
        page: &Page,
        filter: &TenantFilter<'_>,
    ) -> Result<Vec<Listed>, Error> {
        let rows: Vec<ListedRow> = sqlx::query_as(
            "SELECT t.id, t.slug, t.name, t.tier, t.status, t.created_at, e.finished_at
             FROM tenants t LEFT JOIN erasures e ON e.tenant_id = t.id
             WHERE (t.created_at, t.id) < ($1, $2) AND ($4::text IS NULL OR t.slug = $4)
                AND ($5::text IS NULL OR t.tier = $5) AND ($6::text IS NULL OR t.status = $6)
                AND ($7::boolean IS NULL OR (e.finished_at IS NOT NULL) = $7)
             ORDER BY t.created_at DESC, t.id DESC LIMIT $3",
        )
        .bind(page.after.created_at)
        .bind(page.after.id)
        .bind(page.limit)
        .bind(filter.slug)
        .bind(filter.tier.map(Tier::as_str))
        .bind(filter.status.map(TenantStatus::as_str))
        .bind(filter.erased)
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(listed).collect()
    }

    /// Suspends a tenant or lets it act again; one that is being made or removed is [`Error::Conflict`].
    pub async fn set_tenant_suspended(
        &mut self,
        id: TenantId,
        suspended: bool,
    ) -> Result<Changed, Error> {
        let (from, to) = if suspended { ("active", "suspended") } else { ("suspended", "active") };
        let done = sqlx::query("UPDATE tenants SET status = $3 WHERE id = $1 AND status = $2")
            .bind(id.as_uuid())
            .bind(from)
            .bind(to)
            .execute(self.connection())
            .await?;
        if done.rows_affected() == 0 {
            return match self.tenant(id).await? {
                None => Ok(Changed::Missing),
                Some(tenant) if tenant.status.as_str() == to => Ok(Changed::No),
                Some(_) => Err(Error::Conflict { constraint: "tenants_status".to_owned() }),
            };
        }
        let action = if suspended { "tenant.suspend" } else { "tenant.resume" };
        self.within(id).publish(&[Change::Tenant { tenant: id }]).await?;
        let values = json!({"old": {"status": from}, "new": {"status": to}});
        self.within(id).audit_change(action, "tenant", id, values).await?;
        Ok(Changed::Yes)
    }

    /// Gives a tenant another tier.
    pub async fn set_tier(&mut self, id: TenantId, tier: Tier) -> Result<Changed, Error> {
        self.change_tenant(id, None, Some(tier)).await
    }

    /// Gives a tenant another name, another tier, or both; one that is being removed is [`Error::Conflict`].
    pub async fn change_tenant(
        &mut self,
        id: TenantId,
        name: Option<&str>,
        tier: Option<Tier>,
    ) -> Result<Changed, Error> {
        let Some(before) = self.lock_tenant(id).await? else { return Ok(Changed::Missing) };
        if before.status == TenantStatus::Deleting {
            return Err(Error::Conflict { constraint: "tenants_status".to_owned() });
        }
        let name = name.filter(|name| **name != *before.name);
        let tier = tier.filter(|tier| *tier != before.tier);
        if name.is_none() && tier.is_none() {
            return Ok(Changed::No);
        }
        if tier.is_some() {
            attempts::keep_slots(self.connection(), id).await?;
        }
        sqlx::query(
            "UPDATE tenants SET name = coalesce($2, name), tier = coalesce($3, tier) WHERE id = $1",
        )
        .bind(id.as_uuid())
        .bind(name)
        .bind(tier.map(Tier::as_str))
        .execute(self.connection())
        .await?;
        let (mut old, mut new) = (Map::new(), Map::new());
        if let Some(name) = name {
            old.insert("name".to_owned(), before.name.into());
            new.insert("name".to_owned(), name.into());
        }
        if let Some(tier) = tier {
            old.insert("tier".to_owned(), before.tier.as_str().into());
            new.insert("tier".to_owned(), tier.as_str().into());
        }
        self.within(id).publish(&[Change::Tenant { tenant: id }]).await?;
        let values = json!({"old": old, "new": new});
        self.within(id).audit_change("tenant.change", "tenant", id, values).await?;
        Ok(Changed::Yes)
    }
}
