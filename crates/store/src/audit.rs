//! One audit row per mutation, in the mutation's transaction; every mutating method of this crate calls it. And the audit
//! as its readers see it.
//! Knows nothing of the mutation but its name and target.

use gatehouse_audit::{Digest, Row, commit};
use gatehouse_contract::TenantId;
use serde_json::Value;
use sqlx::PgConnection;
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{Error, OpCtx, Within, data_keys::Cipher, master_keys::random};

/// Most rows that a page of the audit has.
pub const PAGE: u32 = 200;

/// What was done to what.
pub(crate) struct Entry<'a> {
    pub(crate) tenant: TenantId,
    /// `kind.verb`, e.g. `agent.create`.
    pub(crate) action: &'static str,
    pub(crate) target_kind: &'static str,
    pub(crate) target_id: String,
    /// Why, where the admin door was used.
    pub(crate) reason: Option<&'a str>,
    /// Before and after.
    pub(crate) details: Option<Details>,
}

/// Values that are told to whoever may open them, and committed to for everybody.
pub(crate) struct Details {
    sealed: Vec<u8>,
    commitment: Digest,
}

/// Where they are sealed; the row is named by its commitment.
const DETAILS: &str = "tenant_audit.details";

impl Details {
    /// Seals `values`, members of objects without secrets.
    pub(crate) fn seal(cipher: &Cipher, values: &Value) -> Result<Self, Error> {
        let salt = random().map_err(|_| Error::Unreadable { what: "details" })?;
        let commitment = commit(&Digest::new(salt), values);
        let plain = [salt.as_slice(), values.to_string().as_bytes()].concat();
        Ok(Self { sealed: cipher.seal(DETAILS, commitment, &plain)?, commitment })
    }

    /// The values and the salt of their commitment.
    pub(crate) fn open(
        cipher: &Cipher,
        commitment: Digest,
        sealed: &[u8],
    ) -> Result<(Value, Digest), Error> {
        let plain = cipher.open(DETAILS, commitment, sealed)?;
        let broken = Error::Unreadable { what: "details" };
        let Some((salt, text)) = plain.split_first_chunk() else { return Err(broken) };
        let values = serde_json::from_slice(text).map_err(|_| broken)?;
        Ok((values, Digest::new(*salt)))
    }
}

/// A row, and its values while they can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What is hashed.
    pub row: Row,
    /// Before and after.
    pub details: Option<Value>,
    /// What hides them in the row's commitment.
    pub salt: Option<Digest>,
}

/// Which rows are wanted; what is `None` is not asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this action, e.g. `agent.create`.
    pub action: Option<String>,
    /// By this subject.
    pub subject: Option<String>,
    /// On this kind of target.
    pub target_kind: Option<String>,
    /// On this target.
    pub target_id: Option<String>,
    /// By this request.
    pub request_id: Option<String>,
    /// At this time or later.
    pub since: Option<OffsetDateTime>,
    /// Before this time.
    pub until: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
pub(crate) struct AuditRow {
    tenant_id: Uuid,
    id: i64,
    at: OffsetDateTime,
    subject: String,
    subject_kind: Option<String>,
    request_id: String,
    action: String,
    target_kind: String,
    target_id: String,
    reason: Option<String>,
    commitment: Option<Vec<u8>>,
}

#[derive(sqlx::FromRow)]
pub(crate) struct ToldRow {
    #[sqlx(flatten)]
    row: AuditRow,
    sealed_details: Option<Vec<u8>>,
}

impl TryFrom<AuditRow> for Row {
    type Error = Error;

    fn try_from(row: AuditRow) -> Result<Self, Error> {
        let unreadable = |what| Error::Unreadable { what };
        let at = row.at.to_offset(UtcOffset::UTC).format(&Rfc3339);
        Ok(Self {
            action: row.action,
            at: at.map_err(|_| unreadable("at"))?,
            commitment: row.commitment.map(|bytes| digest(&bytes)).transpose()?,
            id: u64::try_from(row.id).map_err(|_| unreadable("id"))?,
            reason: row.reason,
            request_id: row.request_id,
            subject: row.subject,
            subject_kind: row.subject_kind,
            target_id: row.target_id,
            target_kind: row.target_kind,
            tenant: TenantId::new(row.tenant_id),
        })
    }
}

/// A time among the values of a row.
pub(crate) fn told(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC).format(&Rfc3339).unwrap_or_default()
}

pub(crate) fn digest(bytes: &[u8]) -> Result<Digest, Error> {
    bytes.try_into().map(Digest::new).map_err(|_| Error::Unreadable { what: "hash" })
}

pub(crate) async fn write(
    connection: &mut PgConnection,
    op: &OpCtx,
    entry: Entry<'_>,
) -> Result<(), Error> {
    // The application has no grant on `reason`: only the admin door may state one.
    let statement = match entry.reason {
        None => sqlx::query(
            "INSERT INTO tenant_audit (tenant_id, subject, subject_kind, request_id, action, target_kind, target_id,
                sealed_details, commitment)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        ),
        Some(_) => sqlx::query(
            "INSERT INTO tenant_audit (tenant_id, subject, subject_kind, request_id, action, target_kind, target_id,
                sealed_details, commitment, reason)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        ),
    };
    let statement = statement
        .bind(entry.tenant.as_uuid())
        .bind(&op.subject)
        .bind(op.actor.as_str())
        .bind(&op.request_id)
        .bind(entry.action)
        .bind(entry.target_kind)
        .bind(entry.target_id)
        .bind(entry.details.as_ref().map(|details| details.sealed.clone()))
        .bind(entry.details.map(|details| details.commitment.as_bytes().to_vec()));
    let statement = match entry.reason {
        None => statement,
        Some(reason) => statement.bind(reason.to_owned()),
    };
    statement.execute(connection).await?;
    Ok(())
}

impl Within<'_> {
    /// The audit's rows below `before` that `filter` wants, the newest first; at most `limit`, at most [`PAGE`].
    pub async fn audit_page(
        &mut self,
        filter: &Filter,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Told>, Error> {
        let before = before.and_then(|id| i64::try_from(id).ok());
        let rows: Vec<ToldRow> = sqlx::query_as(
            "SELECT tenant_id, id, at, subject, subject_kind, request_id, action, target_kind, target_id, reason,
                commitment, sealed_details
             FROM tenant_audit
             WHERE tenant_id = $1 AND ($2::bigint IS NULL OR id < $2)
             AND ($3::text IS NULL OR action = $3) AND ($4::text IS NULL OR subject = $4)
             AND ($5::text IS NULL OR target_kind = $5) AND ($6::text IS NULL OR target_id = $6)
             AND ($7::timestamptz IS NULL OR at >= $7) AND ($8::timestamptz IS NULL OR at < $8)
             AND ($9::text IS NULL OR request_id = $9)
             ORDER BY id DESC LIMIT $10",
        )
        .bind(self.tenant.as_uuid())
        .bind(before)
        .bind(&filter.action)
        .bind(&filter.subject)
        .bind(&filter.target_kind)
        .bind(&filter.target_id)
        .bind(filter.since)
        .bind(filter.until)
        .bind(&filter.request_id)
        .bind(i64::from(limit.min(PAGE)))
        .fetch_all(&mut *self.connection)
        .await?;
        self.told(rows).await
    }

    /// Opens the values of rows; of an erased tenant none can be.
    pub(crate) async fn told(&mut self, rows: Vec<ToldRow>) -> Result<Vec<Told>, Error> {
        let cipher = if rows.iter().any(|row| row.sealed_details.is_some()) {
            match self.cipher().await {
                Ok(cipher) => Some(cipher),
                Err(Error::Erased) => None,
                Err(error) => return Err(error),
            }
        } else {
            None
        };
        let tell = |found: ToldRow| {
            let row = Row::try_from(found.row)?;
            let (details, salt) = match (found.sealed_details, row.commitment, &cipher) {
                (Some(sealed), Some(commitment), Some(cipher)) => {
                    let (values, salt) = Details::open(cipher, commitment, &sealed)?;
                    (Some(values), Some(salt))
                }
                _ => (None, None),
            };
            Ok(Told { row, details, salt })
        };
        rows.into_iter().map(tell).collect()
    }
}
