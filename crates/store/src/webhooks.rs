//! Where a tenant wants to be told of what happened: its endpoints, their secrets, what became of each delivery.
//! Secrets come sealed and are never read here; nothing of what was sent or answered is shown.
//! Knows neither how a delivery is made nor how an address is judged.

use gatehouse_contract::WebhookId;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Error, Within, audit, paging::Page};

/// Most endpoints of a tenant: each is told of every event that it wants.
pub const MAX_ENDPOINTS: i64 = 20;
/// The constraint that [`Error::Conflict`] names where a tenant has [`MAX_ENDPOINTS`].
pub const TOO_MANY: &str = "webhook_endpoints_count";

/// Those who make endpoints of one tenant at the same time take turns: an advisory lock in this space, by tenant.
const COUNT_LOCK: i64 = 0x6761_7465_0005;

/// What may be decided about an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where it is told.
    pub url: String,
    /// For people.
    pub description: Option<String>,
    /// The kinds of events that it is told of.
    pub events: Vec<String>,
    /// Whether it is told at all.
    pub enabled: bool,
}

/// An endpoint, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// What was decided about it.
    pub settings: Settings,
    /// Until when the secret before signs, too.
    pub previous_until: Option<OffsetDateTime>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
}

/// What became of telling an endpoint of an event.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Delivery {
    /// Its id.
    pub id: Uuid,
    /// The event's; the same at every attempt.
    pub event_id: Uuid,
    /// The event's kind.
    pub event_kind: String,
    /// `pending`, `delivered` or `failed`.
    pub state: String,
    /// How often it was tried.
    pub attempt: i32,
    /// What the endpoint answered last.
    pub last_status: Option<i32>,
    /// What went wrong where there was no answer, in a word of ours.
    pub last_error: Option<String>,
    /// When it is tried next, while it is pending.
    pub due_at: OffsetDateTime,
    /// When the event came.
    pub created_at: OffsetDateTime,
    /// When it was taken.
    pub delivered_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    url: String,
    description: Option<String>,
    events: Vec<String>,
    enabled: bool,
    previous_until: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl From<Row> for Webhook {
    fn from(row: Row) -> Self {
        let Row { url, description, events, enabled, .. } = row;
        Self {
            id: WebhookId::new(row.id),
            settings: Settings { url, description, events, enabled },
            previous_until: row.previous_until,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Every column but the secrets, which have no grant.
macro_rules! columns {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " id, url, description, events, enabled, previous_until, created_at, updated_at ",
            $after
        )
    };
}

impl Within<'_> {
    /// Makes an endpoint. One beyond [`MAX_ENDPOINTS`] is [`Error::Conflict`] of [`TOO_MANY`].
    pub async fn create_webhook(
        &mut self,
        id: WebhookId,
        settings: &Settings,
        sealed_secret: &[u8],
    ) -> Result<Webhook, Error> {
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, $2))")
            .bind(self.tenant.to_string())
            .bind(COUNT_LOCK)
            .execute(&mut *self.connection)
            .await?;
        // A statement of its own: it counts what was committed while the one above waited.
        let there: i64 =
            sqlx::query_scalar("SELECT count(*) FROM webhook_endpoints WHERE tenant_id = $1")
                .bind(self.tenant.as_uuid())
                .fetch_one(&mut *self.connection)
                .await?;
        if there >= MAX_ENDPOINTS {
            return Err(Error::Conflict { constraint: TOO_MANY.to_owned() });
        }
        let row: Row = sqlx::query_as(columns!(
            "INSERT INTO webhook_endpoints (tenant_id, id, url, description, events, enabled, sealed_secret)
             VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING",
            ""
        ))
        .bind(self.tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(&settings.url)
        .bind(&settings.description)
        .bind(&settings.events)
        .bind(settings.enabled)
        .bind(sealed_secret)
        .fetch_one(&mut *self.connection)
        .await?;
        let new = json!({"new": told(settings)});
        self.audit_change("webhook.create", "webhook", id, new).await?;
        Ok(row.into())
    }

    /// A page of the endpoints.
    pub async fn list_webhooks(&mut self, page: &Page) -> Result<Vec<Webhook>, Error> {
        let rows: Vec<Row> = sqlx::query_as(columns!(
            "SELECT",
            "FROM webhook_endpoints WHERE tenant_id = $1 AND (created_at, id) < ($2, $3)
             ORDER BY created_at DESC, id DESC LIMIT $4"
        ))
        .bind(self.tenant.as_uuid())
        .bind(page.after.created_at)
        .bind(page.after.id)
        .bind(page.limit)
        .fetch_all(&mut *self.connection)
        .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// An endpoint.
    pub async fn webhook(&mut self, id: WebhookId) -> Result<Option<Webhook>, Error> {
        let row: Option<Row> = sqlx::query_as(columns!(
            "SELECT",
            "FROM webhook_endpoints WHERE tenant_id = $1 AND id = $2"
        ))
        .bind(self.tenant.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(&mut *self.connection)
        .await?;
        Ok(row.map(Into::into))
    }

    /// An endpoint that nobody else changes before this transaction ends.
    pub async fn lock_webhook(&mut self, id: WebhookId) -> Result<Option<Webhook>, Error> {
        let row: Option<Row> = sqlx::query_as(columns!(
            "SELECT",
            "FROM webhook_endpoints WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE"
        ))
        .bind(self.tenant.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(&mut *self.connection)
        .await?;
        Ok(row.map(Into::into))
    }

    /// Replaces what was decided about `before`, which is locked. Where nothing differs nothing is done.
    pub async fn replace_webhook(
        &mut self,
        before: &Webhook,
        settings: &Settings,
    ) -> Result<Webhook, Error> {
        if before.settings == *settings {
            return Ok(before.clone());
        }
        let row: Row = sqlx::query_as(columns!(
            "UPDATE webhook_endpoints SET url = $3, description = $4, events = $5, enabled = $6,
                revision = revision + 1, updated_at = now()
             WHERE tenant_id = $1 AND id = $2 RETURNING",
            ""
        ))
        .bind(self.tenant.as_uuid())
        .bind(before.id.as_uuid())
        .bind(&settings.url)
        .bind(&settings.description)
        .bind(&settings.events)
        .bind(settings.enabled)
        .fetch_one(&mut *self.connection)
        .await?;
        let change = json!({"old": told(&before.settings), "new": told(settings)});
        self.audit_change("webhook.update", "webhook", before.id, change).await?;
        Ok(row.into())
    }

    /// Gives an endpoint another secret. The one before signs beside it until `previous_until`, and no longer at all
    /// where that is `None`; one that was before it ends now. `None` where there is no such endpoint.
    pub async fn rotate_webhook_secret(
        &mut self,
        id: WebhookId,
        sealed_secret: &[u8],
        previous_until: Option<OffsetDateTime>,
    ) -> Result<Option<Webhook>, Error> {
        let Some(before) = self.lock_webhook(id).await? else { return Ok(None) };
        // The secret before is moved by a trigger: nobody behind this door reads it.
        let row: Row = sqlx::query_as(columns!(
            "UPDATE webhook_endpoints SET sealed_secret = $3, previous_until = $4, revision = revision + 1,
                updated_at = now()
             WHERE tenant_id = $1 AND id = $2 RETURNING",
            ""
        ))
        .bind(self.tenant.as_uuid())
        .bind(id.as_uuid())
        .bind(sealed_secret)
        .bind(previous_until)
        .fetch_one(&mut *self.connection)
        .await?;
        let made = Webhook::from(row);
        let until = |webhook: &Webhook| json!({"secret": "redacted", "previous_until": webhook.previous_until.map(audit::told)});
        let change = json!({"old": until(&before), "new": until(&made)});
        self.audit_change("webhook.rotate_secret", "webhook", id, change).await?;
        Ok(Some(made))
    }

    /// Removes an endpoint and what became of its deliveries; those that wait are not made. `before` is locked.
    pub async fn delete_webhook(&mut self, before: &Webhook) -> Result<(), Error> {
        sqlx::query("DELETE FROM webhook_endpoints WHERE tenant_id = $1 AND id = $2")
            .bind(self.tenant.as_uuid())
            .bind(before.id.as_uuid())
            .execute(&mut *self.connection)
            .await?;
        let old = json!({"old": told(&before.settings)});
        self.audit_change("webhook.delete", "webhook", before.id, old).await
    }

    /// A page of an endpoint's deliveries, in one state where one is named.
    pub async fn list_deliveries(
        &mut self,
        endpoint: WebhookId,
        page: &Page,
        state: Option<&str>,
    ) -> Result<Vec<Delivery>, Error> {
        let rows = sqlx::query_as(
            "SELECT id, event_id, event_kind, state, attempt, last_status, last_error, due_at, created_at,
                delivered_at
             FROM webhook_deliveries WHERE tenant_id = $1 AND endpoint_id = $2 AND (created_at, id) < ($3, $4)
             AND ($5::text IS NULL OR state = $5)
             ORDER BY created_at DESC, id DESC LIMIT $6",
        )
        .bind(self.tenant.as_uuid())
        .bind(endpoint.as_uuid())
        .bind(page.after.created_at)
        .bind(page.after.id)
        .bind(state)
        .bind(page.limit)
        .fetch_all(&mut *self.connection)
        .await?;
        Ok(rows)
    }
}

/// What the audit says of an endpoint. An address may carry what only its owner should know: the audit's values are
/// sealed.
fn told(settings: &Settings) -> Value {
    json!({
        "url": settings.url,
        "description": settings.description,
        "events": settings.events,
        "enabled": settings.enabled,
    })
}
