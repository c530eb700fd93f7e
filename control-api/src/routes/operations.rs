//! What takes longer than an answer: 202 with the place where its state can be read. Knows no operation's inside.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{OperationId, Reason, TenantId};
use gatehouse_service::Reply;
use gatehouse_store::{
    operations::{Operation, OperationKind},
    paging::Place,
};
use serde_json::{Value, json};

use crate::{
    access::Caller,
    paging::Listing,
    routes::{Api, path_id, refused, timestamp},
};

/// Seconds after which a client looks again.
const LOOK_AGAIN_S: HeaderValue = HeaderValue::from_static("1");

/// `GET /api/v1/factory/operations`.
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    listing: Listing,
) -> Result<Response, Reply> {
    let tenant = listing.parsed::<TenantId>("tenant_id", "a tenant's id")?;
    let kind = listing.one_of("kind", OperationKind::ALL.map(OperationKind::as_str).as_slice())?;
    let op = caller.op();
    let reason = caller.reason_or("looking at operations");
    let mut tx = api.store.admin(&op, &reason).await.map_err(refused)?;
    let found = tx.list_operations(&listing.page(), tenant, kind).await.map_err(refused)?;
    let place = |one: &Operation| Place { created_at: one.created_at, id: one.id.as_uuid() };
    Ok(listing.answer(&found, place, shown))
}

/// `GET /api/v1/factory/operations/{operation}`.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(operation): Path<String>,
) -> Result<Response, Reply> {
    let id: OperationId = path_id(&operation)?;
    let op = caller.op();
    let reason = caller.reason_or("looking at operations");
    let mut tx = api.store.admin(&op, &reason).await.map_err(refused)?;
    let found = tx.operation(id).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let mut response = Json(shown(&found)).into_response();
    if found.completed_at.is_none() {
        response.headers_mut().insert(header::RETRY_AFTER, LOOK_AGAIN_S);
    }
    Ok(response)
}

/// 202 with the operation and where to look for it.
pub fn accepted(operation: &Operation) -> Response {
    let mut response = (StatusCode::ACCEPTED, Json(shown(operation))).into_response();
    let headers = response.headers_mut();
    let place = format!("/api/v1/factory/operations/{}", operation.id);
    if let Ok(place) = HeaderValue::from_str(&place) {
        headers.insert(header::LOCATION, place);
    }
    headers.insert(header::RETRY_AFTER, LOOK_AGAIN_S);
    response
}

fn shown(operation: &Operation) -> Value {
    json!({
        "id": operation.id,
        "kind": operation.kind.as_str(),
        // Whoever carries one on does so until it is done: none of today's fails.
        "state": if operation.completed_at.is_some() { "succeeded" } else { "running" },
        "tenant_id": operation.tenant,
        "resource": format!("/api/v1/factory/tenants/{}", operation.tenant),
        "created_at": timestamp(operation.created_at),
        "completed_at": operation.completed_at.map(timestamp),
        "error": null,
    })
}
