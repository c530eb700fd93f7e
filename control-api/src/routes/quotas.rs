//! How much a tenant may have and what it has: read by its admins, set by the platform.
//! Knows nothing of how it is counted.

use axum::{
    Json,
    extract::{Path, State},
};
use gatehouse_contract::{Document, Reason, TenantId};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::{entitlements::Standing, members::Changed, quotas::Quotas, usage::Counted};
use serde_json::{Map, Value, json};

use crate::{
    access::Caller,
    condition::IfMatch,
    routes::{Api, door::open, path_id, refused, timestamp},
};

/// The largest whole number that every JSON reader has.
const MOST: u64 = (1 << 53) - 1;

/// `GET /api/v1/factory/tenants/{tenant}/quotas`.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let op = caller.op();
    let mut tx = open(&api, &op, caller.door_to(tenant)?, tenant).await?;
    let found = tx.within().standings().await;
    Ok(Json(shown(&found.map_err(refused)?.ok_or(Reason::NotFound)?)))
}

/// `PATCH /api/v1/factory/tenants/{tenant}/quotas`: a number is the tenant's own, null its tier's again.
pub async fn change(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    if_match: IfMatch,
    body: JsonBody,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let reason = caller.platform_reason()?;
    let op = caller.op();
    let mut tx = api.store.admin(&op, &reason).await.map_err(refused)?;
    tx.lock_tenant(tenant).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let standings = tx.within(tenant).standings().await.map_err(refused)?;
    if_match.check(&shown(&standings.ok_or(Reason::NotFound)?))?;
    let before = tx.within(tenant).quotas().await.map_err(refused)?;
    let quotas = body.read(|doc| patched(doc, before))?;
    let done = tx.set_quotas(tenant, &quotas).await.map_err(refused)?;
    if done == Changed::Missing {
        return Err(Reason::NotFound.into());
    }
    let standings = tx.within(tenant).standings().await.map_err(refused)?;
    tx.commit().await.map_err(refused)?;
    Ok(Json(shown(&standings.ok_or(Reason::NotFound)?)))
}

fn patched(doc: &Document<'_>, before: Quotas) -> Option<Quotas> {
    let one = |what: Counted| match doc.raw(what.as_str()) {
        None if doc.is_null(what.as_str()) => Some(None),
        None => Some(before.of(what)),
        Some(_) => doc.integer(what.as_str(), None, 0..=MOST).map(Some),
    };
    let agents = one(Counted::Agents);
    let storage = one(Counted::StorageBytes);
    let executions = one(Counted::Executions);
    let compute = one(Counted::ComputeMinutes);
    let tokens = one(Counted::Tokens);
    let concurrent = one(Counted::ConcurrentExecutions);
    let queued = one(Counted::QueuedExecutions);
    Some(Quotas {
        max_agents: agents?,
        max_storage_bytes: storage?,
        max_executions_per_day: executions?,
        max_compute_minutes_per_day: compute?,
        max_tokens_per_day: tokens?,
        max_concurrent_executions: concurrent?,
        max_queued_executions: queued?,
    })
}

fn shown(standings: &[Standing]) -> Value {
    let one = |standing: &Standing| {
        let window = match standing.what {
            Counted::ConcurrentExecutions | Counted::QueuedExecutions => "now",
            _ if standing.what.is_daily() => "day",
            _ => "total",
        };
        let told = json!({
            "limit": standing.limit,
            "source": if standing.own { "own" } else { "tier" },
            "used": standing.used,
            "window": window,
            "resets_at": standing.resets_at.map(timestamp),
        });
        (standing.what.as_str().to_owned(), told)
    };
    Value::Object(standings.iter().map(one).collect::<Map<_, _>>())
}
