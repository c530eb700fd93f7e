//! A tenant's limits where they differ from its tier's: set by the platform, read by the tenant's admins too.
//! Knows nothing of tiers and of how requests are counted.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use gatehouse_contract::{
    Document, Reason, TenantId,
    rbac::Matrix,
    sidecar::{EndpointOverride, Overrides},
};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::members::Changed;
use serde_json::Value;

use crate::{
    access::Caller,
    cache::{Entity, Fresh},
    condition::IfMatch,
    routes::{
        Api,
        door::{self, Tx},
        path_id, refused,
    },
};

/// The largest limit of a window: the stores that count have no room for more.
const MAX_PER_WINDOW: u64 = (1 << 24) - 1;
/// As in the sidecar's own configuration.
const MAX_BURST_MULTIPLIER: u64 = 1000;

/// `GET /api/v1/factory/tenants/{tenant}/limits`: what differs from the tier's limits; an empty object where nothing
/// does.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    fresh: Fresh,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let show = async |tx: &mut Tx<'_>| Ok(shown(&tx.within().limits().await.map_err(refused)?));
    door::shown(&api, &caller.op(), door, (tenant, Entity::Limits, fresh), show).await
}

/// `PUT /api/v1/factory/tenants/{tenant}/limits`: replaces them all.
pub async fn replace(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    if_match: IfMatch,
    body: JsonBody,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let limits = body.read(|doc| overrides(doc, &api.matrix))?;
    set(&api, &caller, tenant, &if_match, &limits).await?;
    Ok(Json(shown(&limits)))
}

/// `DELETE /api/v1/factory/tenants/{tenant}/limits`: from now on its tier's alone.
pub async fn clear(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Reply> {
    set(&api, &caller, path_id(&tenant)?, &if_match, &Overrides::default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set(
    api: &Api,
    caller: &Caller,
    tenant: TenantId,
    if_match: &IfMatch,
    limits: &Overrides,
) -> Result<(), Reply> {
    let reason = caller.platform_reason()?;
    let op = caller.op();
    let mut tx = api.store.admin(&op, &reason).await.map_err(refused)?;
    tx.lock_tenant(tenant).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    if_match.check(&shown(&tx.within(tenant).limits().await.map_err(refused)?))?;
    match tx.set_limits(tenant, limits).await.map_err(refused)? {
        Changed::Missing => Err(Reason::NotFound.into()),
        Changed::Yes | Changed::No => tx.commit().await.map_err(refused),
    }
}

fn shown(limits: &Overrides) -> Value {
    // Its members are numbers and texts: nothing that could fail.
    serde_json::to_value(limits).unwrap_or_default()
}

fn overrides(doc: &Document<'_>, matrix: &Matrix) -> Option<Overrides> {
    let per_window = whole(doc, "per_window", MAX_PER_WINDOW);
    let burst_multiplier = whole(doc, "burst_multiplier", MAX_BURST_MULTIPLIER);
    let per_day = whole(doc, "per_day", u64::from(u32::MAX));
    let endpoints = doc.objects("endpoints", |doc| endpoint(doc, matrix))?;
    let twice = endpoints.iter().enumerate().find(|(index, one)| {
        let mut before = endpoints.iter().take(*index);
        before.any(|other| other.method == one.method && other.route == one.route)
    });
    if let Some((index, _)) = twice {
        doc.note(&format!("endpoints[{index}]"), "stands twice", "name each endpoint once");
        return None;
    }
    Some(Overrides {
        per_window: per_window?,
        burst_multiplier: burst_multiplier?,
        per_day: per_day?,
        endpoints,
    })
}

/// A route of the matrix: its template is what requests are counted under, so that any other would mean nothing.
fn endpoint(doc: &Document<'_>, matrix: &Matrix) -> Option<EndpointOverride> {
    let method = doc.text("method");
    let route = doc.text("route");
    let per_window = doc.integer("per_window", None, 0..=MAX_PER_WINDOW).and_then(narrow);
    let (method, route) = (method?, route?);
    let mut routes = matrix.routes().iter();
    if !routes.any(|known| known.method == method && known.template == route) {
        let mend = "name an endpoint as its template stands in the role matrix";
        doc.note("route", format!("there is no {method} {route}"), mend);
        return None;
    }
    Some(EndpointOverride { method, route, per_window: per_window? })
}

fn whole(doc: &Document<'_>, name: &'static str, most: u64) -> Option<Option<u32>> {
    match doc.raw(name) {
        None => Some(None),
        Some(_) => doc.integer(name, None, 0..=most).and_then(narrow).map(Some),
    }
}

fn narrow(number: u64) -> Option<u32> {
    u32::try_from(number).ok()
}
