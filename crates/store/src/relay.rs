//! The relay's job: takes changes out of the outbox, and what a feed is begun with. One relay leads; two that believe
//! so take turns at the row of the feed's state.
//! Knows nothing of Redis: what was taken is published by the caller, between reading and marking.

use std::time::Duration;

use gatehouse_contract::{
    ApiKeyId, TenantId,
    sidecar::{Change, Denied},
};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, postgres::PgListener};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Error, Store, SystemTx,
    api_keys::KeyMark,
    remembered::PURGE,
    revocations::{ends_s, seconds},
    system::Listener,
};

/// Who leads holds this advisory lock.
const LEADER_LOCK: i64 = 0x6761_7465_0002;

/// A change that waits in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its row.
    pub id: i64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// What it says; `None` where this build does not understand it.
    pub change: Option<Change>,
    /// Whether it says that everything is to be forgotten.
    pub purge: bool,
}

/// What the relay wrote last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedState {
    /// Empty before the first.
    pub epoch: String,
    /// The last change's.
    pub sequence: u64,
}

/// What is projected of a key that opens, or will.
#[derive(Clone, PartialEq, Eq)]
pub struct ProjectedKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its mark.
    pub mark: KeyMark,
    /// When it ends by itself, in seconds since the Unix epoch.
    pub expires_at_s: Option<u64>,
}

/// What was forgotten because its time is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Rows of the outbox.
    pub relayed: u64,
    /// Revoked tokens and cut-offs.
    pub denials: u64,
}

/// The right to lead a job, held as long as its connection lives.
pub struct Leadership(PgConnection);

impl Store {
    /// Takes the lead; `None` while another process has it.
    pub async fn lead_relay(&self) -> Result<Option<Leadership>, Error> {
        self.lead(LEADER_LOCK).await
    }

    /// Takes the lead of what this advisory lock stands for.
    pub(crate) async fn lead(&self, lock: i64) -> Result<Option<Leadership>, Error> {
        let pool = self.system.as_ref().ok_or(Error::DoorClosed("system"))?;
        // A connection of its own: given back to the pool, the lock would outlive its holder.
        let mut connection = pool.acquire().await?.detach();
        let leads: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(lock)
            .fetch_one(&mut connection)
            .await?;
        if leads {
            return Ok(Some(Leadership(connection)));
        }
        connection.close().await?;
        Ok(None)
    }

    /// Waits for changes. Holds a connection of its own and makes it again where it breaks; a notification that is
    /// lost meanwhile is made up for by polling.
    pub async fn outbox_listener(&self) -> Result<Listener, Error> {
        let pool = self.system.as_ref().ok_or(Error::DoorClosed("system"))?;
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen("gatehouse_outbox").await?;
        Ok(Listener(listener))
    }
}

impl Leadership {
    /// Fails where the connection, and with it the lead, is lost, or does not answer within `at_most`.
    pub async fn still_held(&mut self, at_most: Duration) -> Result<(), Error> {
        let asked = sqlx::query("SELECT 1").execute(&mut self.0);
        match tokio::time::timeout(at_most, asked).await {
            Ok(answer) => answer.map(drop).map_err(Into::into),
            Err(_) => Err(Error::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }

    /// Lets another process lead at once.
    pub async fn give_up(self) -> Result<(), Error> {
        self.0.close().await.map_err(Into::into)
    }
}

type KeyRow = (Uuid, Uuid, String, Vec<u8>, Option<OffsetDateTime>);

impl SystemTx {
    /// What was written last. Another relay waits for the end of this transaction.
    pub async fn feed_state(&mut self) -> Result<FeedState, Error> {
        let (epoch, sequence): (String, i64) =
            sqlx::query_as("SELECT epoch, sequence FROM feed_state FOR UPDATE")
                .fetch_one(self.connection())
                .await?;
        let sequence =
            u64::try_from(sequence).map_err(|_| Error::Unreadable { what: "sequence" })?;
        Ok(FeedState { epoch, sequence })
    }

    /// Remembers what was written.
    pub async fn set_feed_state(&mut self, state: &FeedState) -> Result<(), Error> {
        let sequence =
            i64::try_from(state.sequence).map_err(|_| Error::Unreadable { what: "sequence" })?;
        sqlx::query("UPDATE feed_state SET epoch = $1, sequence = $2")
            .bind(&state.epoch)
            .bind(sequence)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// At most `limit` changes that wait, denials first. Publish them, then [`Self::mark_relayed`], then
    /// [`Self::commit`]: a crash in between publishes them again, which harms nothing.
    pub async fn waiting(&mut self, limit: u32) -> Result<Vec<Waiting>, Error> {
        let rows: Vec<(i64, OffsetDateTime, Value)> = sqlx::query_as(
            "SELECT id, created_at, payload FROM outbox WHERE relayed_at IS NULL
             ORDER BY (kind <> 'deny'), id LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(self.connection())
        .await?;
        let read = |(id, created_at, payload): (i64, OffsetDateTime, Value)| Waiting {
            id,
            created_at,
            purge: payload.get("kind").is_some_and(|kind| kind == PURGE),
            change: serde_json::from_value(payload).ok(),
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Marks what was published.
    pub async fn mark_relayed(&mut self, ids: &[i64]) -> Result<(), Error> {
        sqlx::query("UPDATE outbox SET relayed_at = clock_timestamp() WHERE id = ANY ($1)")
            .bind(ids)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// The whole deny list.
    pub async fn deny_list(&mut self) -> Result<Vec<Denied>, Error> {
        let tokens: Vec<(String, OffsetDateTime)> =
            sqlx::query_as("SELECT mark, until FROM revoked_tokens WHERE until > now()")
                .fetch_all(self.connection())
                .await?;
        let cutoffs: Vec<(Uuid, Uuid, OffsetDateTime, OffsetDateTime)> = sqlx::query_as(
            "SELECT tenant_id, subject, issued_before, until FROM token_cutoffs WHERE until > now()",
        )
        .fetch_all(self.connection())
        .await?;
        let tokens = tokens
            .into_iter()
            .map(|(token, until)| Denied::Token { token, until_s: seconds(until) });
        let cutoffs =
            cutoffs.into_iter().map(|(tenant, subject, before, until)| Denied::IssuedBefore {
                tenant: TenantId::new(tenant),
                subject: subject.to_string(),
                before_s: seconds(before),
                until_s: seconds(until),
            });
        Ok(tokens.chain(cutoffs).collect())
    }

    /// At most `limit` keys that open, by id after `after`.
    pub async fn live_keys(
        &mut self,
        after: Option<ApiKeyId>,
        limit: u32,
    ) -> Result<Vec<ProjectedKey>, Error> {
        let rows: Vec<KeyRow> = sqlx::query_as(
            "SELECT id, tenant_id, pepper_id, hmac, least(expires_at, overlap_until) FROM api_keys
             WHERE ($1::uuid IS NULL OR id > $1) AND revoked_at IS NULL
             AND coalesce(least(expires_at, overlap_until) > now(), true)
             ORDER BY id LIMIT $2",
        )
        .bind(after.map(ApiKeyId::as_uuid))
        .bind(i64::from(limit))
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(projected).collect()
    }

    /// Those of these keys that open.
    pub async fn keys(&mut self, ids: &[Uuid]) -> Result<Vec<ProjectedKey>, Error> {
        let rows: Vec<KeyRow> = sqlx::query_as(
            "SELECT id, tenant_id, pepper_id, hmac, least(expires_at, overlap_until) FROM api_keys
             WHERE id = ANY ($1) AND revoked_at IS NULL
             AND coalesce(least(expires_at, overlap_until) > now(), true)",
        )
        .bind(ids)
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(projected).collect()
    }

    /// How many changes wait, and how long the oldest has.
    pub async fn backlog(&mut self) -> Result<(u64, Duration), Error> {
        let (count, age): (i64, Option<f64>) = sqlx::query_as(
            "SELECT count(*), extract(epoch FROM clock_timestamp() - min(created_at))::float8
             FROM outbox WHERE relayed_at IS NULL",
        )
        .fetch_one(self.connection())
        .await?;
        let age = Duration::try_from_secs_f64(age.unwrap_or(0.0)).unwrap_or_default();
        Ok((u64::try_from(count).unwrap_or(0), age))
    }

    /// Forgets what was relayed `older_than` ago, and denials of tokens that have expired by themselves; at most
    /// `limit` rows of each.
    pub async fn prune(&mut self, older_than: Duration, limit: u32) -> Result<Pruned, Error> {
        let relayed: i64 = sqlx::query_scalar(
            // When an operation's change was relayed is told beyond the row that says so (`crate::operations`).
            "WITH gone AS (DELETE FROM outbox WHERE id IN (SELECT id FROM outbox
                    WHERE relayed_at < now() - $1 * interval '1 second' ORDER BY relayed_at LIMIT $2)
                RETURNING id, relayed_at),
             told AS (UPDATE operations o SET relayed_at = gone.relayed_at FROM gone
                WHERE o.outbox_id = gone.id AND o.relayed_at IS NULL)
             SELECT count(*) FROM gone",
        )
        .bind(older_than.as_secs_f64())
        .bind(i64::from(limit))
        .fetch_one(self.connection())
        .await?;
        let mut denials = 0;
        for query in [
            "DELETE FROM revoked_tokens WHERE mark IN
                (SELECT mark FROM revoked_tokens WHERE until < now() - interval '1 hour' LIMIT $1)",
            "DELETE FROM token_cutoffs WHERE (tenant_id, subject) IN
                (SELECT tenant_id, subject FROM token_cutoffs WHERE until < now() - interval '1 hour' LIMIT $1)",
        ] {
            let done = sqlx::query(query).bind(i64::from(limit)).execute(self.connection()).await?;
            denials += done.rows_affected();
        }
        Ok(Pruned { relayed: u64::try_from(relayed).unwrap_or(0), denials })
    }
}

fn projected((id, tenant, pepper_id, hmac, ends): KeyRow) -> Result<ProjectedKey, Error> {
    let hmac = hmac.try_into().map_err(|_| Error::Unreadable { what: "hmac" })?;
    Ok(ProjectedKey {
        id: ApiKeyId::new(id),
        tenant: TenantId::new(tenant),
        mark: KeyMark { pepper_id, hmac },
        expires_at_s: ends.map(ends_s),
    })
}
