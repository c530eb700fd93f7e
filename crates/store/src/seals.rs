//! The chain of the audit: what the sealer reads and writes, and how an export reads it. One sealer leads; two that
//! believe so collide at a seal's number, and one of them has done nothing.
//! Knows neither keys nor signatures: the caller signs between reading and writing.

use gatehouse_audit::{Digest, MAX_SEAL_ROWS, Row, Seal};
use gatehouse_contract::TenantId;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Error, Store, SystemTx, Within,
    audit::{AuditRow, Told, ToldRow, digest},
    lookup::Lookup,
    relay::Leadership,
};

/// Who leads holds this advisory lock.
const LEADER_LOCK: i64 = 0x6761_7465_0003;

/// A row in the order of sealing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsealed {
    /// Its transaction, by which it is ordered.
    pub tx: i64,
    /// What is hashed.
    pub row: Row,
}

/// A seal as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSeal {
    /// What is hashed.
    pub seal: Seal,
    /// The hash that was stored beside it.
    pub hash: Digest,
    /// The signed head.
    pub head: String,
}

#[derive(sqlx::FromRow)]
struct SealRow {
    tenant_id: Uuid,
    seq: i64,
    prev: Vec<u8>,
    row_ids: Vec<i64>,
    row_hashes: Vec<u8>,
    total: i64,
    sealed_at: i64,
    hash: Vec<u8>,
    head: String,
}

#[derive(sqlx::FromRow)]
struct UnsealedRow {
    tx: i64,
    #[sqlx(flatten)]
    row: AuditRow,
}

impl TryFrom<SealRow> for StoredSeal {
    type Error = Error;

    fn try_from(row: SealRow) -> Result<Self, Error> {
        let hashes = row.row_hashes.chunks(32).map(digest);
        let rows: Result<Vec<_>, Error> = row
            .row_ids
            .into_iter()
            .zip(hashes)
            .map(|(id, hash)| Ok((number(id)?, hash?)))
            .collect();
        let seal = Seal {
            prev: digest(&row.prev)?,
            rows: rows?,
            sealed_at: number(row.sealed_at)?,
            seq: number(row.seq)?,
            tenant: TenantId::new(row.tenant_id),
            total: number(row.total)?,
        };
        Ok(Self { seal, hash: digest(&row.hash)?, head: row.head })
    }
}

fn number(stored: i64) -> Result<u64, Error> {
    u64::try_from(stored).map_err(|_| Error::Unreadable { what: "audit_seals" })
}

fn stored(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|_| Error::Unreadable { what: "audit_seals" })
}

impl Store {
    /// Takes the lead of sealing; `None` while another process has it.
    pub async fn lead_sealer(&self) -> Result<Option<Leadership>, Error> {
        self.lead(LEADER_LOCK).await
    }
}

impl SystemTx {
    /// At most `limit` rows that have no seal, of all tenants, in their order. A row shows up once everything before it
    /// is complete: a transaction that still runs holds back those after it, and is never passed over.
    ///
    /// # Errors
    /// [`Error::YoungerThanSealed`] where the database was restored into another cluster, [`Error::SealMoved`] where the
    /// newest seal does not end where its last row is: rows would be passed over.
    pub async fn unsealed(&mut self, limit: u32) -> Result<Vec<Unsealed>, Error> {
        // What is behind the newest seal is never looked at again: where that one ends is held against what was signed of it
        // and against the row itself, while that is kept.
        let (tx, id, younger, moved): (i64, i64, bool, bool) = sqlx::query_as(
            "SELECT coalesce(s.last_tx, -1), coalesce(s.last_id, -1), coalesce(s.last_tx >=
                pg_snapshot_xmax(pg_current_snapshot())::text::bigint + audit_clock_base(), false),
                coalesce(s.last_id <> s.row_ids[cardinality(s.row_ids)] OR EXISTS (SELECT FROM tenant_audit a
                    WHERE a.tenant_id = s.tenant_id AND a.id = s.last_id AND a.tx <> s.last_tx), false)
             FROM (SELECT) one
             LEFT JOIN (SELECT tenant_id, row_ids, last_tx, last_id FROM audit_seals
                ORDER BY last_tx DESC, last_id DESC LIMIT 1) s ON true",
        )
        .fetch_one(self.connection())
        .await?;
        if younger {
            return Err(Error::YoungerThanSealed);
        }
        if moved {
            return Err(Error::SealMoved);
        }
        let rows: Vec<UnsealedRow> = sqlx::query_as(
            "SELECT tx, tenant_id, id, at, subject, subject_kind, request_id, action, target_kind, target_id, reason,
                commitment
             FROM tenant_audit
             WHERE (tx, id) > ($1, $2) AND tenant_id NOT IN (SELECT b.tenant_id FROM audit_breaks b)
             AND tx < pg_snapshot_xmin(pg_current_snapshot())::text::bigint + audit_clock_base()
             ORDER BY tx, id LIMIT $3",
        )
        .bind(tx)
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(|row| Ok(Unsealed { tx: row.tx, row: row.row.try_into()? })).collect()
    }

    /// The tenants whose chains are not as they were signed: [`Self::unsealed`] leaves their rows out.
    pub async fn breaks(&mut self) -> Result<Vec<TenantId>, Error> {
        let found: Vec<Uuid> =
            sqlx::query_scalar("SELECT tenant_id FROM audit_breaks ORDER BY tenant_id")
                .fetch_all(self.connection())
                .await?;
        Ok(found.into_iter().map(TenantId::new).collect())
    }

    /// Leaves a tenant out from now on, and says why.
    pub async fn leave_out(&mut self, tenant: TenantId, why: &str) -> Result<(), Error> {
        let why: String = why.chars().take(1000).collect();
        sqlx::query(
            "INSERT INTO audit_breaks (tenant_id, why) VALUES ($1, $2) ON CONFLICT (tenant_id) DO NOTHING",
        )
        .bind(tenant.as_uuid())
        .bind(why)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// As [`Self::unsealed`], of one tenant that was left out, whose chain is as it was: what has waited, from its own last
    /// seal on. Once that is sealed, in this transaction, [`Self::take_in`].
    pub async fn left_out(&mut self, tenant: TenantId, limit: u32) -> Result<Vec<Unsealed>, Error> {
        let rows: Vec<UnsealedRow> = sqlx::query_as(
            "SELECT tx, tenant_id, id, at, subject, subject_kind, request_id, action, target_kind, target_id, reason,
                commitment
             FROM tenant_audit
             WHERE tenant_id = $1 AND (tx, id) > (
                coalesce((SELECT s.last_tx FROM audit_seals s WHERE s.tenant_id = $1 ORDER BY s.seq DESC LIMIT 1), -1),
                coalesce((SELECT s.last_id FROM audit_seals s WHERE s.tenant_id = $1 ORDER BY s.seq DESC LIMIT 1), -1))
             AND tx < pg_snapshot_xmin(pg_current_snapshot())::text::bigint + audit_clock_base()
             ORDER BY tx, id LIMIT $2",
        )
        .bind(tenant.as_uuid())
        .bind(i64::from(limit))
        .fetch_all(self.connection())
        .await?;
        rows.into_iter().map(|row| Ok(Unsealed { tx: row.tx, row: row.row.try_into()? })).collect()
    }

    /// A tenant that was left out is sealed like all others again.
    pub async fn take_in(&mut self, tenant: TenantId) -> Result<(), Error> {
        sqlx::query("DELETE FROM audit_breaks WHERE tenant_id = $1")
            .bind(tenant.as_uuid())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// The last seal of a tenant.
    pub async fn last_seal(&mut self, tenant: TenantId) -> Result<Option<StoredSeal>, Error> {
        let row: Option<SealRow> = sqlx::query_as(
            "SELECT tenant_id, seq, prev, row_ids, row_hashes, total, sealed_at, hash, head
             FROM audit_seals WHERE tenant_id = $1 ORDER BY seq DESC LIMIT 1",
        )
        .bind(tenant.as_uuid())
        .fetch_optional(self.connection())
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// Writes a seal of rows that end with `last`. Beside another sealer's of the same number it is
    /// [`Error::Conflict`].
    pub async fn insert_seal(
        &mut self,
        seal: &Seal,
        head: &str,
        last: &Unsealed,
    ) -> Result<(), Error> {
        let ids: Result<Vec<i64>, Error> = seal.rows.iter().map(|(id, _)| stored(*id)).collect();
        let hashes: Vec<u8> = seal.rows.iter().flat_map(|(_, hash)| *hash.as_bytes()).collect();
        sqlx::query(
            "INSERT INTO audit_seals (tenant_id, seq, prev, row_ids, row_hashes, total, sealed_at, hash, head, last_tx,
                last_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(seal.tenant.as_uuid())
        .bind(stored(seal.seq)?)
        .bind(seal.prev.as_bytes().as_slice())
        .bind(ids?)
        .bind(hashes)
        .bind(stored(seal.total)?)
        .bind(stored(seal.sealed_at)?)
        .bind(seal.hash().as_bytes().as_slice())
        .bind(head)
        .bind(last.tx)
        .bind(stored(last.row.id)?)
        .execute(self.connection())
        .await?;
        self.tell_sealed(seal).await
    }
}

impl Within<'_> {
    /// The seals after number `after`, in their order; at most `limit`.
    pub async fn seals(&mut self, after: u64, limit: u32) -> Result<Vec<StoredSeal>, Error> {
        let rows: Vec<SealRow> = sqlx::query_as(
            "SELECT tenant_id, seq, prev, row_ids, row_hashes, total, sealed_at, hash, head
             FROM audit_seals WHERE tenant_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        )
        .bind(self.tenant.as_uuid())
        .bind(stored(after)?)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.connection)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// The last seal whose rows are no longer kept, as their months were dropped: an export begins behind it. One of the
    /// hour after may have rows of both months; who removes others gains nothing, as they are then missing.
    pub async fn dropped_seal(&mut self) -> Result<Option<StoredSeal>, Error> {
        let kept_from: Option<i64> = sqlx::query_scalar(
            "SELECT CASE WHEN bool_or(m.bound LIKE 'FOR VALUES FROM (MINVALUE)%') THEN NULL
                ELSE floor(extract(epoch FROM min(substring(m.bound FROM $r$FROM [(]'([^']+)'[)]$r$)::timestamptz)))::bigint END
             FROM (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = 'public.tenant_audit'::regclass) m",
        )
        .fetch_one(&mut *self.connection)
        .await?;
        let Some(kept_from) = kept_from else { return Ok(None) };
        let row: Option<SealRow> = sqlx::query_as(
            "SELECT tenant_id, seq, prev, row_ids, row_hashes, total, sealed_at, hash, head
             FROM audit_seals s WHERE tenant_id = $1 AND sealed_at < $2 + 3600 AND (sealed_at < $2 OR EXISTS (
                SELECT FROM unnest(s.row_ids) r (id) WHERE NOT EXISTS (
                    SELECT FROM tenant_audit a WHERE a.tenant_id = $1 AND a.id = r.id)))
             ORDER BY seq DESC LIMIT 1",
        )
        .bind(self.tenant.as_uuid())
        .bind(kept_from)
        .fetch_optional(&mut *self.connection)
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// The rows that a seal names, in its order. One that is not there is left out: whoever verifies sees it.
    pub async fn sealed_rows(&mut self, seal: &Seal) -> Result<Vec<Told>, Error> {
        let ids: Result<Vec<i64>, Error> = seal.rows.iter().map(|(id, _)| stored(*id)).collect();
        let rows: Vec<ToldRow> = sqlx::query_as(
            "SELECT a.tenant_id, a.id, a.at, a.subject, a.subject_kind, a.request_id, a.action, a.target_kind, a.target_id,
                a.reason, a.commitment, a.sealed_details
             FROM unnest($2::bigint[]) WITH ORDINALITY AS s (id, place)
             JOIN tenant_audit a ON a.tenant_id = $1 AND a.id = s.id ORDER BY s.place LIMIT $3",
        )
        .bind(self.tenant.as_uuid())
        .bind(ids?)
        .bind(i64::try_from(MAX_SEAL_ROWS).unwrap_or(i64::MAX))
        .fetch_all(&mut *self.connection)
        .await?;
        self.told(rows).await
    }

    /// How many rows have no seal yet.
    pub async fn waiting_for_a_seal(&mut self) -> Result<u64, Error> {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM tenant_audit a WHERE a.tenant_id = $1 AND (a.tx, a.id) > (
                coalesce((SELECT max(s.last_tx) FROM audit_seals s WHERE s.tenant_id = $1), -1),
                coalesce((SELECT s.last_id FROM audit_seals s WHERE s.tenant_id = $1 ORDER BY s.seq DESC LIMIT 1), -1))",
        )
        .bind(self.tenant.as_uuid())
        .fetch_one(&mut *self.connection)
        .await?;
        number(count)
    }
}

impl Lookup<'_> {
    /// A key that signs or signed, published or not.
    pub async fn verifying_key(&self, kid: &str) -> Result<Option<Value>, Error> {
        let row = sqlx::query_scalar("SELECT public_jwk FROM lookup_signing_key($1)")
            .bind(kid)
            .fetch_optional(&self.0.app)
            .await?;
        Ok(row)
    }
}
