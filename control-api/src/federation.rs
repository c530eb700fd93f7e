//! The external issuers that a tenant registered: the routes of their administration, and below what is asked of them
//! and what their tokens are worth.
//! Knows nothing of sign-in.

pub mod document;
pub mod provider;
pub mod token;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use gatehouse_contract::{IssuerId, Reason, TenantId, document as contract};
use gatehouse_outbound::Guard;
use gatehouse_service::{
    Reply,
    body::{JsonBody, wire},
};
use gatehouse_store::{
    issuers::{ClientAuth, Issuer, Settings},
    paging::Place,
};
use serde_json::{Map, Value, json};
use tracing::error;

use self::document::Around;
use crate::{
    access::{Caller, Door},
    condition::IfMatch,
    once::Once,
    paging::Listing,
    random,
    routes::{Api, door, path_id, refused, tenants::created, timestamp},
};

/// `POST /api/v1/factory/tenants/{tenant}/issuers`.
pub async fn create(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let guard = guard(&api, &door);
    let around = Around { guard: &guard, own_issuer: &api.tokens.issuer, has_secret: false };
    let (settings, secret) = body.read(|doc| document::read(doc, &around))?;
    grantable(&caller, &settings)?;
    let id = IssuerId::new(random::id());
    let sealed = sealed(&api, id, secret.as_deref())?;
    let op = caller.op();
    let mut tx = door::open(&api, &op, door, tenant).await?;
    once.begin(&mut tx).await?;
    let made =
        tx.within().create_issuer(id, &settings, sealed.as_deref()).await.map_err(refused)?;
    let place = format!("/api/v1/factory/tenants/{tenant}/issuers/{id}");
    once.end(&api, tx, created(&place, shown(&made))).await
}

/// `GET /api/v1/factory/tenants/{tenant}/issuers`.
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    listing: Listing,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let op = caller.op();
    let page = &listing.page();
    let found = door::read(&api, &op, caller.door_to(tenant)?, tenant, |mut tx| async move {
        tx.within().list_issuers(page).await
    })
    .await?;
    let place = |one: &Issuer| Place { created_at: one.created_at, id: one.id.as_uuid() };
    Ok(listing.answer(&found, place, shown))
}

/// `GET /api/v1/factory/tenants/{tenant}/issuers/{issuer}`.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, issuer)): Path<(String, String)>,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let id: IssuerId = path_id(&issuer)?;
    let op = caller.op();
    let mut tx = door::open(&api, &op, caller.door_to(tenant)?, tenant).await?;
    let found = tx.within().issuer(id).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    Ok(Json(shown(&found)))
}

/// `PATCH /api/v1/factory/tenants/{tenant}/issuers/{issuer}`: what is named is replaced (RFC 7396), the whole is read
/// again. Every session that came through the issuer ends.
pub async fn update(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, issuer)): Path<(String, String)>,
    if_match: IfMatch,
    body: JsonBody,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let id: IssuerId = path_id(&issuer)?;
    let door = caller.door_to(tenant)?;
    let guard = guard(&api, &door);
    let own = matches!(door, Door::Own);
    let op = caller.op();
    let mut tx = door::open(&api, &op, door, tenant).await?;
    let before = tx.within().lock_issuer(id).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    if_match.check(&shown(&before))?;
    let patch: Map<String, Value> = wire(&body.0)?;
    let mut whole = Value::Object(document::shown(&before.settings));
    merge(&mut whole, &Value::Object(patch));
    // What the platform named stays named when the tenant changes something else.
    let named = exceptions(&api);
    let around = Around {
        guard: if before.by_platform { &named } else { &guard },
        own_issuer: &api.tokens.issuer,
        has_secret: before.settings.client_auth != ClientAuth::None,
    };
    let read = contract::read(&whole.to_string(), |doc| document::read(doc, &around));
    let (settings, secret) = read.map_err(|mistakes| Reply::mistakes(&mistakes))?;
    if own && before.by_platform {
        unchanged_or_public(&guard, &before.settings, &settings)?;
    }
    grantable(&caller, &settings)?;
    let sealed = sealed(&api, id, secret.as_deref())?;
    let made = tx.within().replace_issuer(id, &settings, sealed.as_deref()).await;
    let made = made.map_err(refused)?.ok_or(Reason::NotFound)?;
    tx.commit().await?;
    Ok(Json(shown(&made)))
}

/// `DELETE /api/v1/factory/tenants/{tenant}/issuers/{issuer}`.
pub async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, issuer)): Path<(String, String)>,
    if_match: IfMatch,
) -> Result<StatusCode, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let id: IssuerId = path_id(&issuer)?;
    let op = caller.op();
    let mut tx = door::open(&api, &op, caller.door_to(tenant)?, tenant).await?;
    let before = tx.within().lock_issuer(id).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    if_match.check(&shown(&before))?;
    if !tx.within().delete_issuer(id).await.map_err(refused)? {
        return Err(Reason::NotFound.into());
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is sealed opens as the secret of this issuer and no other.
pub fn secret_name(id: IssuerId) -> String {
    format!("gatehouse/issuer-secret/{id}")
}

/// The operator's exceptions are for what the platform registers, never for an address that comes from a tenant
/// (design §3.3).
fn guard(api: &Api, door: &Door) -> Guard {
    match door {
        Door::Own => api.sign_in.as_ref().map_or_else(Guard::default, |s| s.strict.clone()),
        Door::Platform(_) => exceptions(api),
    }
}

fn exceptions(api: &Api) -> Guard {
    api.sign_in.as_ref().map_or_else(Guard::default, |sign_in| sign_in.named.clone())
}

/// A tenant that gives the platform's issuer another address names it itself.
fn unchanged_or_public(strict: &Guard, before: &Settings, after: &Settings) -> Result<(), Reply> {
    let same = before.issuer == after.issuer && before.jwks_uri == after.jwks_uri;
    let mut named = [Some(&after.issuer), after.jwks_uri.as_ref()].into_iter().flatten();
    if same || named.all(|url| strict.check(url).is_ok()) {
        return Ok(());
    }
    let mend = "write an https URL of the public internet, or have the operator register it";
    Err(Reply::mistake("$.issuer", "not an address that a tenant may name", mend))
}

/// Nobody lets an issuer grant what is above their own role.
fn grantable(caller: &Caller, settings: &Settings) -> Result<(), Reply> {
    if caller.may_grant(settings.max_role) {
        Ok(())
    } else {
        Err(Reply::new(Reason::PermissionDenied).detail("\"max_role\" is above your own role"))
    }
}

fn sealed(api: &Api, id: IssuerId, secret: Option<&str>) -> Result<Option<Vec<u8>>, Reply> {
    let sealed = secret.map(|secret| api.sealer.seal(&secret_name(id), secret.as_bytes()));
    sealed.transpose().map_err(|_| {
        error!("sealing a client secret failed");
        Reason::Internal.into()
    })
}

fn shown(issuer: &Issuer) -> Value {
    let mut members = document::shown(&issuer.settings);
    members.insert("id".to_owned(), json!(issuer.id));
    members.insert("tenant_id".to_owned(), json!(issuer.tenant));
    members.insert("created_at".to_owned(), timestamp(issuer.created_at).into());
    Value::Object(members)
}

/// RFC 7396 §2.
pub fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    target.remove(name);
                } else {
                    merge(target.entry(name.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}
