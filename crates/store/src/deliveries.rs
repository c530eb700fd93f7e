//! Events on their way to tenants' endpoints: what is due is taken under a lease of its endpoint, sent by the caller while no
//! transaction is open, and settled under the lease's epoch. A delivery comes into being in the transaction of its event, by
//! a trigger (`migrations/0024_webhook_deliveries.sql`).
//! Knows neither how something is sent nor when it is tried again.

use std::time::Duration;

use gatehouse_contract::{TenantId, WebhookId};
use gatehouse_events::{Kind, webhook};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Error, Job, Store, SystemTx, TenantTx, Within, data_keys::Keys, events::PUBLISHED,
    webhooks::Delivery,
};

/// Most deliveries that one call sends again.
pub const MAX_REPLAY: i64 = 1000;
/// What backlog is counted to; beyond, it is only known that there is more.
const COUNTED: i64 = 10_000;

/// An endpoint that is this process's for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub endpoint: WebhookId,
    /// What is brought back under another one is not taken.
    pub epoch: i64,
}

/// An endpoint, and what is due there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Bring it with every outcome.
    pub lease: Lease,
    /// Where it is told.
    pub url: String,
    /// The secret as the control API sealed it, and the one before where it still signs.
    pub sealed_secrets: Vec<Vec<u8>>,
    /// What is due, the longest due first.
    pub due: Vec<Due>,
}

/// An event that an endpoint should be told of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The delivery's id.
    pub id: Uuid,
    /// The event's, sent as `webhook-id`.
    pub event: Uuid,
    /// When that was told.
    pub at: OffsetDateTime,
    /// How often it was tried before.
    pub attempts: u32,
    /// What is sent: the same bytes at every attempt. `None` where what is stored cannot be read.
    pub body: Option<Vec<u8>>,
    /// The trace that the event was told in.
    pub traceparent: Option<String>,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint took it.
    Delivered,
    /// It is tried again after this.
    Retry(Duration),
    /// It is not tried again by itself.
    Failed,
}

/// What was seen at an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The status that the endpoint answered.
    pub status: Option<u16>,
    /// Ours, for what went wrong; nothing of the endpoint's.
    pub error: Option<&'static str>,
}

/// What is due and was not sent yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many, up to 10 000.
    pub due: u64,
    /// For how long the oldest has been.
    pub oldest: Duration,
}

#[derive(sqlx::FromRow)]
struct Row {
    endpoint_id: Uuid,
    id: Uuid,
    event_id: Uuid,
    event_kind: String,
    event_at: OffsetDateTime,
    aggregate_id: Option<Uuid>,
    attempt: i32,
    payload: Option<Value>,
    sealed_payload: Option<Vec<u8>>,
    traceparent: Option<String>,
}

type Taken = (Uuid, Uuid, i64, String, Vec<u8>, Option<Vec<u8>>);

/// An open transaction of the deliverer.
pub struct Delivering {
    tx: SystemTx,
    keys: Keys,
}

impl Store {
    /// Opens a transaction of the deliverer.
    pub async fn delivering(&self) -> Result<Delivering, Error> {
        let tx = self.system(Job::Deliverer).await?;
        Ok(Delivering { tx, keys: Keys::new(self.vault.clone()) })
    }
}

/// `waiting`: the endpoints at which something waits, found from one to the next along the index: however much waits at one, it
/// costs the others nothing.
macro_rules! from_endpoint_to_endpoint {
    ($rest:literal) => {
        concat!(
            "WITH RECURSIVE waiting AS (
                (SELECT tenant_id, endpoint_id FROM webhook_deliveries WHERE state = 'pending'
                    ORDER BY tenant_id, endpoint_id LIMIT 1)
                UNION ALL
                SELECT n.tenant_id, n.endpoint_id FROM waiting w CROSS JOIN LATERAL (
                    SELECT d.tenant_id, d.endpoint_id FROM webhook_deliveries d
                    WHERE d.state = 'pending' AND (d.tenant_id, d.endpoint_id) > (w.tenant_id, w.endpoint_id)
                    ORDER BY d.tenant_id, d.endpoint_id LIMIT 1) n),
             ",
            $rest
        )
    };
}

impl Delivering {
    /// Takes up to `endpoints` that something is due at and that nobody has, those that waited longest for their turn first,
    /// for `lease`; and of each up to `each` deliveries. [`Self::commit`] before anything is sent. Who dies meanwhile has
    /// them tried again once the lease is over, under the same ids.
    pub async fn take(
        &mut self,
        endpoints: u32,
        each: u32,
        lease: Duration,
    ) -> Result<Vec<Round>, Error> {
        let taken: Vec<Taken> = sqlx::query_as(
            from_endpoint_to_endpoint!(
            "free AS (
                SELECT e.tenant_id, e.id FROM waiting w
                JOIN webhook_endpoints e ON e.tenant_id = w.tenant_id AND e.id = w.endpoint_id
                WHERE e.enabled AND coalesce(e.leased_until <= clock_timestamp(), true)
                AND EXISTS (SELECT FROM webhook_deliveries d WHERE d.tenant_id = e.tenant_id AND d.endpoint_id = e.id
                    AND d.state = 'pending' AND d.due_at <= clock_timestamp())
                ORDER BY e.served_at NULLS FIRST LIMIT $1 FOR NO KEY UPDATE OF e SKIP LOCKED)
             UPDATE webhook_endpoints e SET lease_epoch = e.lease_epoch + 1, served_at = clock_timestamp(),
                leased_until = clock_timestamp() + $2 * interval '1 second'
             FROM free f WHERE e.tenant_id = f.tenant_id AND e.id = f.id
             RETURNING e.tenant_id, e.id, e.lease_epoch, e.url, e.sealed_secret,
                CASE WHEN e.previous_until > clock_timestamp() THEN e.sealed_previous_secret END"
        ))
        .bind(i64::from(endpoints))
        .bind(lease.as_secs_f64())
        .fetch_all(self.tx.connection())
        .await?;
        let tenants: Vec<Uuid> = taken.iter().map(|row| row.0).collect();
        let ids: Vec<Uuid> = taken.iter().map(|row| row.1).collect();
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT d.endpoint_id, d.id, d.event_id, d.event_kind, d.event_at, d.aggregate_id, d.attempt, d.payload,
                d.sealed_payload, d.traceparent
             FROM unnest($1::uuid[], $2::uuid[]) AS t (tenant_id, id) CROSS JOIN LATERAL (
                SELECT d.endpoint_id, d.id, d.event_id, d.event_kind, d.event_at, d.aggregate_id, d.attempt, d.payload,
                    d.sealed_payload, d.traceparent, d.due_at
                FROM webhook_deliveries d WHERE d.tenant_id = t.tenant_id AND d.endpoint_id = t.id
                AND d.state = 'pending' AND d.due_at <= clock_timestamp() ORDER BY d.due_at LIMIT $3) d
             ORDER BY d.due_at",
        )
        .bind(tenants)
        .bind(ids)
        .bind(i64::from(each))
        .fetch_all(self.tx.connection())
        .await?;
        let mut rounds: Vec<Round> = taken
            .into_iter()
            .map(|(tenant, endpoint, epoch, url, secret, previous)| Round {
                lease: Lease {
                    tenant: TenantId::new(tenant),
                    endpoint: WebhookId::new(endpoint),
                    epoch,
                },
                url,
                sealed_secrets: [Some(secret), previous].into_iter().flatten().collect(),
                due: Vec::new(),
            })
            .collect();
        for row in rows {
            let endpoint = WebhookId::new(row.endpoint_id);
            let Some(round) = rounds.iter_mut().find(|round| round.lease.endpoint == endpoint)
            else {
                continue;
            };
            let due = self.open(round.lease.tenant, row).await?;
            round.due.push(due);
        }
        Ok(rounds)
    }

    async fn open(&mut self, tenant: TenantId, row: Row) -> Result<Due, Error> {
        let payload = match (row.payload, row.sealed_payload) {
            (Some(plain), _) => Some(plain),
            (None, Some(sealed)) => {
                // One that cannot be opened, of a tenant that was erased for example, holds up no other.
                match self.keys.of(self.tx.connection(), tenant).await {
                    Ok(cipher) => cipher.open_json(PUBLISHED, row.event_id, &sealed).ok(),
                    Err(Error::Erased) => None,
                    Err(error) => return Err(error),
                }
            }
            (None, None) => None,
        };
        let kind: Option<Kind> = row.event_kind.parse().ok();
        let body = match (kind, row.aggregate_id, payload) {
            (Some(kind), Some(aggregate), Some(payload)) => {
                webhook::body(tenant, kind, &aggregate.to_string(), row.event_at, payload)
            }
            _ => None,
        };
        Ok(Due {
            id: row.id,
            event: row.event_id,
            at: row.event_at,
            attempts: u32::try_from(row.attempt)
                .map_err(|_| Error::Unreadable { what: "attempt" })?,
            body,
            traceparent: row.traceparent,
        })
    }

    /// Writes what became of an attempt. `false`, and nothing written, where the lease is no longer this one or the delivery
    /// is gone.
    pub async fn settle(
        &mut self,
        lease: &Lease,
        delivery: Uuid,
        outcome: Outcome,
        seen: Seen,
    ) -> Result<bool, Error> {
        let (state, pause) = match outcome {
            Outcome::Delivered => ("delivered", Duration::ZERO),
            Outcome::Retry(pause) => ("pending", pause),
            Outcome::Failed => ("failed", Duration::ZERO),
        };
        let done = sqlx::query(
            "UPDATE webhook_deliveries d SET state = $5, attempt = d.attempt + 1, last_status = $6, last_error = $7,
                due_at = clock_timestamp() + $8 * interval '1 second',
                delivered_at = CASE WHEN $5 = 'delivered' THEN clock_timestamp() END
             WHERE d.tenant_id = $1 AND d.id = $4 AND d.state = 'pending'
             AND EXISTS (SELECT FROM webhook_endpoints e
                WHERE e.tenant_id = $1 AND e.id = $2 AND d.endpoint_id = e.id AND e.lease_epoch = $3)",
        )
        .bind(lease.tenant.as_uuid())
        .bind(lease.endpoint.as_uuid())
        .bind(lease.epoch)
        .bind(delivery)
        .bind(state)
        .bind(seen.status.map(i32::from))
        .bind(seen.error)
        .bind(pause.as_secs_f64())
        .execute(self.tx.connection())
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Gives an endpoint back; nobody takes it before it has had its rest.
    pub async fn give_back(&mut self, lease: &Lease, rest: Duration) -> Result<(), Error> {
        sqlx::query(
            "UPDATE webhook_endpoints SET leased_until = clock_timestamp() + $4 * interval '1 second'
             WHERE tenant_id = $1 AND id = $2 AND lease_epoch = $3",
        )
        .bind(lease.tenant.as_uuid())
        .bind(lease.endpoint.as_uuid())
        .bind(lease.epoch)
        .bind(rest.as_secs_f64())
        .execute(self.tx.connection())
        .await?;
        Ok(())
    }

    /// What is due at endpoints that are told; what is paused waits for nobody.
    pub async fn backlog(&mut self) -> Result<Backlog, Error> {
        let (due, oldest): (i64, Option<f64>) = sqlx::query_as(
            from_endpoint_to_endpoint!(
            "due AS (
                SELECT d.due_at FROM waiting w
                JOIN webhook_endpoints e ON e.tenant_id = w.tenant_id AND e.id = w.endpoint_id AND e.enabled
                CROSS JOIN LATERAL (SELECT d.due_at FROM webhook_deliveries d
                    WHERE d.tenant_id = e.tenant_id AND d.endpoint_id = e.id AND d.state = 'pending'
                    AND d.due_at <= clock_timestamp() ORDER BY d.due_at LIMIT $1) d
                LIMIT $1)
             SELECT count(*), extract(epoch FROM clock_timestamp() - min(due_at))::float8 FROM due"
        ))
        .bind(COUNTED)
        .fetch_one(self.tx.connection())
        .await?;
        Ok(Backlog {
            due: u64::try_from(due).unwrap_or(0),
            oldest: Duration::try_from_secs_f64(oldest.unwrap_or(0.0)).unwrap_or_default(),
        })
    }

    /// Removes at most `limit` deliveries that came longer ago than this, whatever became of them; returns how many.
    pub async fn forget(&mut self, older_than: Duration, limit: u32) -> Result<u64, Error> {
        let done = sqlx::query(
            "DELETE FROM webhook_deliveries WHERE (tenant_id, id) IN (
                SELECT tenant_id, id FROM webhook_deliveries
                WHERE created_at < clock_timestamp() - $1 * interval '1 second'
                ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        )
        .bind(older_than.as_secs_f64())
        .bind(i64::from(limit))
        .execute(self.tx.connection())
        .await?;
        Ok(done.rows_affected())
    }

    /// Makes it last.
    pub async fn commit(self) -> Result<(), Error> {
        self.tx.commit().await
    }
}

impl TenantTx<'_> {
    /// Tells an endpoint no more that answered that it is gone, with the delivery that it answered so. Nothing where the
    /// lease is no longer this one.
    pub async fn end_gone_webhook(&mut self, lease: &Lease, delivery: Uuid) -> Result<bool, Error> {
        let ended = sqlx::query(
            "UPDATE webhook_endpoints SET enabled = false, revision = revision + 1, updated_at = now()
             WHERE tenant_id = $1 AND id = $2 AND lease_epoch = $3 AND enabled",
        )
        .bind(lease.tenant.as_uuid())
        .bind(lease.endpoint.as_uuid())
        .bind(lease.epoch)
        .execute(self.connection())
        .await?
        .rows_affected()
            > 0;
        if ended {
            let change =
                json!({"old": {"enabled": true}, "new": {"enabled": false}, "answered": 410});
            self.within().audit_change("webhook.gone", "webhook", lease.endpoint, change).await?;
        }
        // Another of the same round may have been the first to hear it.
        let settled = sqlx::query(
            "UPDATE webhook_deliveries d SET state = 'failed', attempt = d.attempt + 1, last_status = 410, last_error = NULL
             WHERE d.tenant_id = $1 AND d.id = $4 AND d.state = 'pending'
             AND EXISTS (SELECT FROM webhook_endpoints e
                WHERE e.tenant_id = $1 AND e.id = $2 AND d.endpoint_id = e.id AND e.lease_epoch = $3)",
        )
        .bind(lease.tenant.as_uuid())
        .bind(lease.endpoint.as_uuid())
        .bind(lease.epoch)
        .bind(delivery)
        .execute(self.connection())
        .await?;
        Ok(settled.rows_affected() > 0)
    }
}

impl Within<'_> {
    /// Has one delivery of an endpoint made again, whatever became of it: now, from the first attempt on, and under the same
    /// id. `None` where there is no such delivery.
    pub async fn replay_delivery(
        &mut self,
        endpoint: WebhookId,
        delivery: Uuid,
    ) -> Result<Option<Delivery>, Error> {
        let again: Option<Delivery> = sqlx::query_as(
            "UPDATE webhook_deliveries SET state = 'pending', attempt = 0, due_at = now(), delivered_at = NULL
             WHERE tenant_id = $1 AND endpoint_id = $2 AND id = $3
             RETURNING id, event_id, event_kind, state, attempt, last_status, last_error, due_at, created_at, delivered_at",
        )
        .bind(self.tenant.as_uuid())
        .bind(endpoint.as_uuid())
        .bind(delivery)
        .fetch_optional(&mut *self.connection)
        .await?;
        if again.is_some() {
            let told = json!({"new": {"delivery": delivery}});
            self.audit_change("webhook.replay", "webhook", endpoint, told).await?;
        }
        Ok(again)
    }

    /// Has all deliveries of an endpoint made again that failed and whose events came at `since` or later, the oldest first
    /// and at most [`MAX_REPLAY`]; returns how many.
    pub async fn replay_failed(
        &mut self,
        endpoint: WebhookId,
        since: OffsetDateTime,
    ) -> Result<u64, Error> {
        let done = sqlx::query(
            "UPDATE webhook_deliveries SET state = 'pending', attempt = 0, due_at = now(), delivered_at = NULL
             WHERE tenant_id = $1 AND endpoint_id = $2 AND state = 'failed' AND id IN (
                SELECT id FROM webhook_deliveries WHERE tenant_id = $1 AND endpoint_id = $2 AND state = 'failed'
                AND created_at >= $3 ORDER BY created_at, id LIMIT $4)",
        )
        .bind(self.tenant.as_uuid())
        .bind(endpoint.as_uuid())
        .bind(since)
        .bind(MAX_REPLAY)
        .execute(&mut *self.connection)
        .await?
        .rows_affected();
        if done > 0 {
            let told = json!({"new": {"deliveries": done, "since": crate::audit::told(since)}});
            self.audit_change("webhook.replay_failed", "webhook", endpoint, told).await?;
        }
        Ok(done)
    }
}
