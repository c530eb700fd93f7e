//! The API version that answers a tenant's requests which name none: set by the tenant's admin or by the platform.
//! Knows nothing of which versions are served: the gateway does.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use gatehouse_contract::{ApiVersion, Reason, TenantId};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::members::Changed;
use serde_json::{Value, json};

use crate::{
    access::Caller,
    cache::{Entity, Fresh},
    condition::IfMatch,
    routes::{
        Api,
        door::{self, Tx, open},
        path_id, refused,
    },
};

/// `GET /api/v1/factory/tenants/{tenant}/version-pin`: an empty object where there is none.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    fresh: Fresh,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let show = async |tx: &mut Tx<'_>| {
        Ok(shown(tx.within().version_pin().await.map_err(refused)?.as_ref()))
    };
    door::shown(&api, &caller.op(), door, (tenant, Entity::VersionPin, fresh), show).await
}

/// `PUT /api/v1/factory/tenants/{tenant}/version-pin`.
pub async fn replace(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    if_match: IfMatch,
    body: JsonBody,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let op = caller.op();
    // Whose tenant it is not learns nothing of its body either.
    let mut tx = open(&api, &op, caller.door_to(tenant)?, tenant).await?;
    let pin =
        body.read(|doc| doc.parsed::<ApiVersion>("version", "a version's name such as \"v1\""))?;
    same(&mut tx, &if_match).await?;
    match tx.within().set_version_pin(Some(&pin)).await.map_err(refused)? {
        Changed::Missing => return Err(Reason::NotFound.into()),
        Changed::Yes | Changed::No => tx.commit().await?,
    }
    Ok(Json(shown(Some(&pin))))
}

/// `DELETE /api/v1/factory/tenants/{tenant}/version-pin`: from now on the gateway's default.
pub async fn clear(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let op = caller.op();
    let mut tx = open(&api, &op, caller.door_to(tenant)?, tenant).await?;
    same(&mut tx, &if_match).await?;
    match tx.within().set_version_pin(None).await.map_err(refused)? {
        Changed::Missing => return Err(Reason::NotFound.into()),
        Changed::Yes | Changed::No => tx.commit().await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn same(tx: &mut Tx<'_>, if_match: &IfMatch) -> Result<(), Reply> {
    let known = tx.within().lock_tenant().await.map_err(refused)?;
    if !known {
        return Err(Reason::NotFound.into());
    }
    let before = tx.within().version_pin().await.map_err(refused)?;
    if_match.check(&shown(before.as_ref()))
}

fn shown(pin: Option<&ApiVersion>) -> Value {
    pin.map_or_else(|| json!({}), |pin| json!({"version": pin.as_str()}))
}
