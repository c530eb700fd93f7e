//! A tenant's audit: page by page, and as an export that is verified offline (`gatehouse verify audit`).
//! Knows nothing of chains: `gatehouse_audit` does.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderValue, header, request::Parts},
    response::{IntoResponse, Response},
};
use gatehouse_audit::{Line, VERSION};
use gatehouse_contract::{Reason, TenantId};
use gatehouse_service::{Reply, exit::chain};
use gatehouse_store::{
    OffsetDateTime, OpCtx,
    audit::{Filter, Told},
    paging::Place,
    seals::StoredSeal,
};
use http_body::Frame;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use tracing::{Span, error, info};
use uuid::Uuid;

use crate::{
    access::{self, Caller, Door},
    keyring::Keys,
    paging::Listing,
    routes::{Api, door, path_id},
    sealer,
};

/// What a list is narrowed by.
pub const FILTERS: &[&str] =
    &["action", "subject", "target_kind", "target_id", "request_id", "since", "until"];
/// Seals that are read at once: at most a thousand rows each.
const SEALS: u32 = 8;

/// `GET /api/v1/factory/tenants/{tenant}/audit`.
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    listing: Listing,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let text = |name: &str| listing.filter(name).map(str::to_owned);
    let filter = Filter {
        action: text("action"),
        subject: text("subject"),
        target_kind: text("target_kind"),
        target_id: text("target_id"),
        request_id: text("request_id"),
        since: at(&listing, "since")?,
        until: at(&listing, "until")?,
    };
    let op = caller.op();
    let page = listing.page();
    // A row's number in the place of an id; the first page begins above every number.
    let before = u64::try_from(page.after.id.as_u128()).ok();
    let limit = u32::try_from(page.limit).unwrap_or(u32::MAX);
    let filter = &filter;
    let found = door::read(&api, &op, caller.door_to(tenant)?, tenant, |mut tx| async move {
        tx.within().audit_page(filter, before, limit).await
    })
    .await?;
    let place = |told: &Told| Place {
        created_at: OffsetDateTime::UNIX_EPOCH,
        id: Uuid::from_u128(u128::from(told.row.id)),
    };
    Ok(listing.answer(&found, place, shown))
}

/// `GET /api/v1/factory/tenants/{tenant}/audit/export`: JSON lines.
pub async fn export(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    parts: Parts,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let op = caller.op();
    let door = caller.door_to(tenant)?;
    let mut export = Export {
        seals: 0,
        rows: 0,
        last: None,
        ahead: VecDeque::new(),
        tenant,
        door,
        op,
        api,
        parts: Box::new(parts),
    };
    let begin = export.begin().await?;
    let start = Line::Start { version: VERSION, tenant, begin };
    // What can be refused is refused before the first byte.
    let (first, export) = export.next(text(&[start])).await?;
    let body = Lines { first: Some(first), step: export.map(Export::step), span: Span::current() };
    let name = format!("attachment; filename=\"audit-{tenant}.jsonl\"");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_str(&name).map_err(|_| Reason::Internal)?),
    ];
    Ok((headers, Body::new(body)).into_response())
}

/// A time that the list is narrowed by.
pub fn at(listing: &Listing, name: &str) -> Result<Option<OffsetDateTime>, Reply> {
    let Some(text) = listing.filter(name) else { return Ok(None) };
    let parsed = OffsetDateTime::parse(text, &Rfc3339);
    parsed.map(Some).map_err(|_| {
        Reply::new(Reason::QueryInvalid)
            .detail(format!("{name} is a time such as 2026-01-31T00:00:00Z (RFC 3339)"))
    })
}

fn shown(told: &Told) -> Value {
    let row = &told.row;
    json!({
        "id": row.id,
        "at": row.at,
        "subject": row.subject,
        "subject_kind": row.subject_kind,
        "request_id": row.request_id,
        "action": row.action,
        "target_kind": row.target_kind,
        "target_id": row.target_id,
        "reason": row.reason,
        "details": told.details,
    })
}

fn text(lines: &[Line]) -> Vec<u8> {
    let line = |line: &Line| serde_json::to_string(line).map(|text| text + "\n");
    lines.iter().filter_map(|one| line(one).ok()).collect::<String>().into_bytes()
}

/// How far an export is. Each step is a transaction of its own: a long export holds nothing, and what it reads never
/// changes.
struct Export {
    api: Api,
    op: OpCtx,
    tenant: TenantId,
    door: Door,
    ahead: VecDeque<StoredSeal>,
    last: Option<StoredSeal>,
    seals: u64,
    rows: u64,
    /// What its caller showed.
    parts: Box<Parts>,
}

/// What comes next: the rows of a seal, and seals behind it that were read with it; or the end, and how many rows wait for a
/// seal.
enum Next {
    Rows(Vec<Told>, StoredSeal, VecDeque<StoredSeal>),
    Waiting(u64),
}

type Step = Pin<Box<dyn Future<Output = Result<(Vec<u8>, Option<Export>), Reply>> + Send>>;

impl Export {
    /// A step of one that goes on: whoever reads for hours may meanwhile have lost the right to, or the token its time.
    fn step(self) -> Step {
        Box::pin(async move {
            if let Err(why) = access::still(&self.api, &self.parts).await {
                info!(reason = why.problem().code, "an export ends with its caller's right to it");
                return Err(why);
            }
            self.next(Vec::new()).await
        })
    }

    /// Where the months of the first rows are over: behind which seal it begins, signed.
    async fn begin(&mut self) -> Result<Option<String>, Reply> {
        let door = self.door.clone();
        let found = door::read(&self.api, &self.op, door, self.tenant, |mut tx| async move {
            tx.within().dropped_seal().await
        })
        .await?;
        let Some(seal) = found else { return Ok(None) };
        let keys = self.keys().await?;
        match sealer::judge(&self.api.store, &seal, &keys.set).await {
            Ok(Ok(())) => {}
            // Not in our name: it begins with the first seal, whose rows whoever verifies finds missing.
            Ok(Err(why)) => {
                error!(tenant.id = %self.tenant, why, "the audit was tampered with");
                return Ok(None);
            }
            Err(problem) => return Err(unjudged(&problem)),
        }
        (self.seals, self.rows) = (seal.seal.seq, seal.seal.total);
        let says = json!(seal.seal.head(&self.api.tokens.issuer));
        let signed = keys.signer.sign(gatehouse_audit::BEGIN_TYPE, &says);
        signed.map(Some).map_err(|_| Reason::Internal.into())
    }

    async fn keys(&self) -> Result<Arc<Keys>, Reply> {
        self.api.keyring.keys().await.map_err(|problem| {
            error!(error = %chain(&problem), "the signing keys cannot be had");
            Reply::new(Reason::DependencyUnavailable)
        })
    }

    /// The next lines behind `written`, and what comes after them.
    async fn next(mut self, mut written: Vec<u8>) -> Result<(Vec<u8>, Option<Self>), Reply> {
        let (known, behind) = (self.ahead.pop_front(), self.seals);
        let known = known.as_ref();
        let door = self.door.clone();
        let read = door::read(&self.api, &self.op, door, self.tenant, |mut tx| async move {
            let mut within = tx.within();
            let mut seals: VecDeque<StoredSeal> = match known {
                Some(seal) => VecDeque::from([seal.clone()]),
                None => within.seals(behind, SEALS).await?.into(),
            };
            Ok(match seals.pop_front() {
                Some(seal) => Next::Rows(within.sealed_rows(&seal.seal).await?, seal, seals),
                None => Next::Waiting(within.waiting_for_a_seal().await?),
            })
        })
        .await?;
        let (rows, stored, ahead) = match read {
            Next::Rows(rows, stored, ahead) => (rows, stored, ahead),
            Next::Waiting(waiting) => {
                written.extend(self.end(waiting).await?);
                return Ok((written, None));
            }
        };
        self.ahead.extend(ahead);
        let mut lines: Vec<Line> = rows
            .into_iter()
            .map(|told| Line::Row {
                row: Box::new(told.row),
                details: told.details,
                salt: told.salt,
            })
            .collect();
        (self.seals, self.rows) = (stored.seal.seq, stored.seal.total);
        lines.push(Line::Seal { seal: stored.seal.clone(), head: stored.head.clone() });
        self.last = Some(stored);
        written.extend(text(&lines));
        Ok((written, Some(self)))
    }

    /// The last line. Its head is signed anew: the key that signed when it was sealed may not be published any more.
    async fn end(&self, waiting: u64) -> Result<Vec<u8>, Reply> {
        let (mut head, mut kid) = (None, None);
        if let Some(last) = &self.last {
            let keys = self.keys().await?;
            let judged = sealer::judge(&self.api.store, last, &keys.set).await;
            match judged {
                Ok(Ok(())) => {
                    let says = json!(last.seal.head(&self.api.tokens.issuer));
                    let signed = keys.signer.sign(gatehouse_audit::HEAD_TYPE, &says);
                    head = Some(signed.map_err(|_| Reason::Internal)?);
                    kid = Some(keys.signer.kid().to_owned());
                }
                // Shown as it is stored, and not in our name: whoever verifies sees what is wrong.
                Ok(Err(why)) => {
                    error!(tenant.id = %self.tenant, why, "the audit was tampered with");
                    head = Some(last.head.clone());
                }
                Err(problem) => return Err(unjudged(&problem)),
            }
        }
        Ok(text(&[Line::End { seals: self.seals, rows: self.rows, waiting, head, kid }]))
    }
}

fn unjudged(problem: &sealer::Error) -> Reply {
    error!(error = %chain(problem), "a chain cannot be judged");
    Reason::DependencyUnavailable.into()
}

/// The lines as a body, made as fast as they are read.
struct Lines {
    first: Option<Vec<u8>>,
    step: Option<Step>,
    /// The request's: its own ended with the answer's head.
    span: Span,
}

/// An export that cannot go on is cut off, which whoever verifies it sees.
#[derive(Debug, thiserror::Error)]
#[error("the export cannot go on")]
struct CutOff;

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first.into()))));
        }
        let span = self.span.clone();
        let _within = span.enter();
        let Some(step) = self.step.as_mut() else { return Poll::Ready(None) };
        match step.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok((lines, more))) => {
                self.step = more.map(Export::step);
                Poll::Ready(Some(Ok(Frame::data(lines.into()))))
            }
            Poll::Ready(Err(_)) => {
                self.step = None;
                Poll::Ready(Some(Err(CutOff)))
            }
        }
    }
}
