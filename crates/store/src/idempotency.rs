//! Answers kept for requests that a client repeats under one key. An answer is written in the transaction of what it tells
//! of: there is one exactly where there is an effect, whatever crashes in between.
//! Knows nothing of what is in an answer: it comes sealed.

use sqlx::PgConnection;

use crate::{AdminTx, Error, OpCtx, Store, SystemTx, TenantTx};

/// For how long an answer is kept, in hours.
pub const KEPT_HOURS: i32 = 24;
/// How many old answers of a tenant go with each new one.
const CLEARED: i64 = 10;

/// A request that may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeatable {
    /// Of tenant, caller and the client's key.
    pub key_sha256: [u8; 32],
    /// Of everything that makes it this request.
    pub request_sha256: [u8; 32],
}

/// An answer of before.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Kept {
    /// To which request.
    pub request_sha256: Vec<u8>,
    /// The answer.
    pub sealed_answer: Vec<u8>,
}

impl Store {
    /// What was answered under this key in the last [`KEPT_HOURS`].
    pub async fn kept_answer(&self, op: &OpCtx, key: &[u8; 32]) -> Result<Option<Kept>, Error> {
        let mut tx = self.tenant(op).await?;
        let kept = sqlx::query_as(
            "SELECT request_sha256, sealed_answer FROM idempotency_keys
             WHERE tenant_id = $1 AND key_sha256 = $2 AND created_at > now() - make_interval(hours => $3)",
        )
        .bind(op.tenant.as_uuid())
        .bind(key.as_slice())
        .bind(KEPT_HOURS)
        .fetch_optional(tx.connection())
        .await?;
        Ok(kept)
    }
}

impl TenantTx<'_> {
    /// Keeps others with this key out until the transaction ends; `false` where another has it now.
    pub async fn begin_repeatable(&mut self, key: &[u8; 32]) -> Result<bool, Error> {
        begin(self.connection(), key).await
    }

    /// Keeps the answer. `false` where there is one already: then this transaction must not commit.
    pub async fn keep_answer(&mut self, of: &Repeatable, sealed: &[u8]) -> Result<bool, Error> {
        let (connection, op) = self.parts();
        keep(connection, op, of, sealed).await
    }
}

impl AdminTx<'_> {
    /// As [`TenantTx::begin_repeatable`].
    pub async fn begin_repeatable(&mut self, key: &[u8; 32]) -> Result<bool, Error> {
        begin(self.connection(), key).await
    }

    /// As [`TenantTx::keep_answer`]; it is kept in the caller's own tenant.
    pub async fn keep_answer(&mut self, of: &Repeatable, sealed: &[u8]) -> Result<bool, Error> {
        let (connection, op, _) = self.parts();
        keep(connection, op, of, sealed).await
    }
}

impl SystemTx {
    /// Takes away at most `limit` kept answers whose time is over, of whichever tenant; how many that were.
    pub async fn end_kept_answers(&mut self, limit: u32) -> Result<u64, Error> {
        let done = sqlx::query(
            "DELETE FROM idempotency_keys WHERE (tenant_id, key_sha256) IN (
                SELECT tenant_id, key_sha256 FROM idempotency_keys
                WHERE created_at <= now() - make_interval(hours => $1) ORDER BY created_at LIMIT $2)",
        )
        .bind(KEPT_HOURS)
        .bind(i64::from(limit))
        .execute(self.connection())
        .await?;
        Ok(done.rows_affected())
    }
}

async fn begin(connection: &mut PgConnection, key: &[u8; 32]) -> Result<bool, Error> {
    // 64 bits of a hash: it meets no other lock of ours by chance.
    let space = key.first_chunk().copied().map_or(0, i64::from_be_bytes);
    let had = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)").bind(space);
    Ok(had.fetch_one(connection).await?)
}

async fn keep(
    connection: &mut PgConnection,
    op: &OpCtx,
    of: &Repeatable,
    sealed: &[u8],
) -> Result<bool, Error> {
    // One that is too old is none, whichever it is; a few others of the tenant go along.
    sqlx::query(
        "DELETE FROM idempotency_keys WHERE tenant_id = $1
         AND created_at <= now() - make_interval(hours => $3)
         AND (key_sha256 = $2 OR key_sha256 IN (SELECT k.key_sha256 FROM idempotency_keys k WHERE k.tenant_id = $1
             AND k.created_at <= now() - make_interval(hours => $3) ORDER BY k.created_at LIMIT $4))",
    )
    .bind(op.tenant.as_uuid())
    .bind(of.key_sha256.as_slice())
    .bind(KEPT_HOURS)
    .bind(CLEARED)
    .execute(&mut *connection)
    .await?;
    let done = sqlx::query(
        "INSERT INTO idempotency_keys (tenant_id, key_sha256, request_sha256, sealed_answer)
         VALUES ($1, $2, $3, $4) ON CONFLICT (tenant_id, key_sha256) DO NOTHING",
    )
    .bind(op.tenant.as_uuid())
    .bind(of.key_sha256.as_slice())
    .bind(of.request_sha256.as_slice())
    .bind(sealed)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
