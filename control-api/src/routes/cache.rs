//! The emergency brake of what is remembered: everything is read again, everywhere. Knows nothing of what that is.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Reason, TenantId};
use gatehouse_service::{Reply, body::JsonBody};
use serde_json::{Value, json};

use crate::{
    access::Caller,
    once::Once,
    routes::{Api, door::platform, refused},
};

/// `POST /api/v1/factory/cache/purge`: what is remembered of a tenant, or of all, is forgotten by every process, sidecar and
/// gateway. It is in the outbox with its audit row: where Redis is away, nothing is remembered until it is done.
pub async fn purge(
    State(api): State<Api>,
    caller: Caller,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let tenant = body.read(|doc| match doc.raw("tenant") {
        None | Some(Value::Null) => Some(None),
        Some(_) => doc.parsed::<TenantId>("tenant", "a tenant's id").map(Some),
    })?;
    let reason = caller.reason_or("a purge of what is remembered");
    let op = caller.op();
    let mut tx = platform(&api, &op, &reason, tenant.unwrap_or(caller.tenant)).await?;
    once.begin(&mut tx).await?;
    let known = tx.of_platform()?.purge_remembered(tenant).await.map_err(refused)?;
    if !known {
        return Err(Reason::NotFound.into());
    }
    let answer = (StatusCode::ACCEPTED, Json(json!({"tenant": tenant}))).into_response();
    let answer = once.end(&api, tx, answer).await?;
    match tenant {
        Some(tenant) => api.cache.forget(tenant).await,
        None => api.cache.forget_all(),
    }
    Ok(answer)
}
