//! API keys of a tenant. A key is shown once, is never above whoever made it, and makes no other keys. An admin sees all
//! of its tenant's, others their own.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use gatehouse_authn::api_key::{ApiKey, Environment, compose};
use gatehouse_contract::{ApiKeyId, Document, Reason, Role, Roles, TenantId};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::{
    OffsetDateTime,
    api_keys::{ApiKeyRecord, KeyMark, NewApiKey},
    members::Changed,
    paging::Place,
};
use serde_json::{Value, json};
use time::{Duration, format_description::well_known::Rfc3339};
use tracing::error;
use uuid::Uuid;

use crate::{
    access::{Caller, Door},
    condition::IfMatch,
    once::Once,
    paging::Listing,
    random,
    routes::{
        Api,
        door::{self, Tx, open},
        members::shown_once,
        path_id, refused,
        tenants::named,
        timestamp,
    },
};

const ENVIRONMENT: &str = "live";
/// How long a rotated key opens beside its successor, unless the caller says otherwise; at most a month.
const OVERLAP_S: u64 = 24 * 3600;
const MAX_OVERLAP_S: u64 = 31 * 24 * 3600;

type Ids = Path<(String, String)>;

/// `POST …/api-keys`. The key is in this answer and nowhere else.
pub async fn create(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let now = caller.op().now;
    let (name, environment, roles, scopes, expires_at) = body.read(|doc| {
        let name = named(doc);
        let environment = environment(doc);
        let roles = roles(doc);
        let scopes = scopes(doc, &api);
        let expires_at = expires_at(doc, now);
        Some((name?, environment?, roles?, scopes?, expires_at?))
    })?;
    let owner = owner(&caller, &door)?;
    if !roles.iter().all(|role| caller.may_grant(role)) {
        return Err(
            Reply::new(Reason::PermissionDenied).detail("a key is never above whoever makes it")
        );
    }
    let id = ApiKeyId::new(random::id());
    let parsed = environment.parse().map_err(|_| Reason::Internal)?;
    let (text, mark) = make(&api, &parsed, id)?;
    let new = NewApiKey {
        id,
        name: &name,
        environment: &environment,
        mark,
        roles,
        scopes: scopes.as_deref(),
        owner,
        expires_at,
    };
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    once.begin(&mut tx).await?;
    let made = tx.within().create_api_key(&new).await.map_err(refused)?;
    once.end(&api, tx, shown_with_key(tenant, &made, &text)).await
}

/// `GET …/api-keys`, those that ended included.
pub async fn list(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    listing: Listing,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let only = only(&caller, &door)?;
    let op = caller.op();
    let page = &listing.page();
    let found = door::read(&api, &op, door, tenant, |mut tx| async move {
        tx.within().list_api_keys(page, only).await
    })
    .await?;
    let place = |key: &ApiKeyRecord| Place { created_at: key.created_at, id: key.id.as_uuid() };
    Ok(listing.answer(&found, place, shown))
}

/// `GET …/api-keys/{key}`.
pub async fn read(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, key)): Ids,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let (id, only) = (path_id(&key)?, only(&caller, &door)?);
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    let found = tx.within().api_key(id, only).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    Ok(Json(shown(&found)))
}

/// `PATCH …/api-keys/{key}`: its name, and nothing else of it.
pub async fn rename(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, key)): Ids,
    if_match: IfMatch,
    body: JsonBody,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let (id, only) = (path_id(&key)?, only(&caller, &door)?);
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    tx.within().api_key(id, only).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let name = body.read(named)?;
    same(&mut tx, id, &if_match).await?;
    tx.within().rename_api_key(id, &name).await.map_err(refused)?;
    let found = tx.within().api_key(id, only).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    tx.commit().await?;
    Ok(Json(shown(&found)))
}

/// `POST …/api-keys/{key}/rotate`. The successor is in this answer and nowhere else; the old key opens until the
/// overlap ends.
pub async fn rotate(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, key)): Ids,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let (id, only) = (path_id(&key)?, only(&caller, &door)?);
    if caller.is_key {
        return Err(no_keys_by_keys());
    }
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    once.begin(&mut tx).await?;
    let old = tx.within().api_key(id, only).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    let overlap_s =
        body.read(|doc| doc.integer("overlap_s", Some(OVERLAP_S), 0..=MAX_OVERLAP_S))?;
    let successor = ApiKeyId::new(random::id());
    let environment = old.environment.parse().map_err(|_| Reason::Internal)?;
    let (text, mark) = make(&api, &environment, successor)?;
    let until = op.now + Duration::seconds(i64::try_from(overlap_s).unwrap_or(0));
    let made = tx.within().rotate_api_key(id, successor, &mark, until).await.map_err(refused)?;
    let made = made.ok_or_else(|| {
        Reply::new(Reason::Conflict).detail("the key has ended or was rotated before")
    })?;
    once.end(&api, tx, shown_with_key(tenant, &made, &text)).await
}

/// `DELETE …/api-keys/{key}`: ends it at once; its record stays.
pub async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, key)): Ids,
    if_match: IfMatch,
) -> Result<StatusCode, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let (id, only) = (path_id(&key)?, only(&caller, &door)?);
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    tx.within().api_key(id, only).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    same(&mut tx, id, &if_match).await?;
    match tx.within().revoke_api_key(id).await.map_err(refused)? {
        Changed::Missing => return Err(Reason::NotFound.into()),
        Changed::Yes | Changed::No => tx.commit().await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// That the key is as the caller saw it, and stays so until the transaction ends.
async fn same(tx: &mut Tx<'_>, id: ApiKeyId, if_match: &IfMatch) -> Result<(), Reply> {
    tx.within().lock_api_key(id).await.map_err(refused)?;
    let now = tx.within().api_key(id, None).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    if_match.check(&shown(&now))
}

fn make(api: &Api, environment: &Environment, id: ApiKeyId) -> Result<(String, KeyMark), Reply> {
    let broken = || {
        error!("no API key can be made");
        Reply::new(Reason::Internal)
    };
    let secret = random::secret().map_err(|_| broken())?;
    let text = compose(environment, id, secret);
    let key = ApiKey::parse(&text).map_err(|_| broken())?;
    let mark = api.peppers.mark(key).ok_or_else(broken)?;
    Ok((text, KeyMark { pepper_id: mark.pepper_id, hmac: mark.hmac }))
}

/// Under whom a key stands that this caller makes.
fn owner(caller: &Caller, door: &Door) -> Result<Option<Uuid>, Reply> {
    if caller.is_key {
        return Err(no_keys_by_keys());
    }
    match door {
        Door::Own => caller.subject.parse().map(Some).map_err(|_| Reason::PermissionDenied.into()),
        Door::Platform(_) => Ok(None),
    }
}

/// A key that leaks could otherwise leave successors behind that outlive its end.
fn no_keys_by_keys() -> Reply {
    Reply::new(Reason::PermissionDenied).detail("a key makes no keys: use a token")
}

/// Whose keys the caller has to do with; `None` is everybody's. A key sees those of whoever owns it nowhere, so that
/// it has to do with all or, below an admin, with none.
fn only(caller: &Caller, door: &Door) -> Result<Option<Uuid>, Reply> {
    match door {
        Door::Platform(_) => Ok(None),
        Door::Own if caller.roles.holds(Role::Admin) => Ok(None),
        Door::Own => caller.subject.parse().map(Some).map_err(|_| Reason::NotFound.into()),
    }
}

fn shown_with_key(tenant: TenantId, record: &ApiKeyRecord, text: &str) -> Response {
    let mut body = shown(record);
    if let Some(members) = body.as_object_mut() {
        members.insert("key".to_owned(), text.into());
    }
    let mut response = shown_once(StatusCode::CREATED, body);
    let location = format!("/api/v1/factory/tenants/{tenant}/api-keys/{}", record.id);
    if let Ok(value) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

fn shown(record: &ApiKeyRecord) -> Value {
    let time = |at: Option<OffsetDateTime>| at.map(timestamp);
    json!({
        "id": record.id,
        "name": record.name,
        "environment": record.environment,
        "roles": record.roles,
        "scopes": record.scopes,
        "owner": record.owner,
        "created_by": record.created_by,
        "created_at": timestamp(record.created_at),
        "expires_at": time(record.expires_at),
        "revoked_at": time(record.revoked_at),
        "rotated_from": record.rotated_from,
        "overlap_until": time(record.overlap_until),
        "last_used_at": time(record.last_used_at),
    })
}

fn environment(doc: &Document<'_>) -> Option<String> {
    let text = doc.text_or("environment", ENVIRONMENT)?;
    if text.parse::<Environment>().is_ok() {
        return Some(text);
    }
    doc.note(
        "environment",
        "not a name",
        "write 1 to 8 characters of a-z and 0-9, such as \"test\"",
    );
    None
}

fn roles(doc: &Document<'_>) -> Option<Roles> {
    let roles: Vec<Role> = doc.parsed_list("roles", "viewer, operator, developer or admin")?;
    if roles.is_empty() {
        doc.note("roles", "empty", "name at least one role");
        return None;
    }
    Some(roles.into_iter().collect())
}

/// `None` inside is all that the roles hold.
fn scopes(doc: &Document<'_>, api: &Api) -> Option<Option<Vec<String>>> {
    doc.raw("scopes").map_or(Some(None), |_| {
        let scopes: Vec<String> = doc.parsed_list("scopes", "permissions")?;
        let unknown = scopes.iter().find(|scope| !api.matrix.knows_permission(scope));
        if let Some(unknown) = unknown {
            let cause = format!("{unknown:?} is no permission");
            doc.note("scopes", cause, "name permissions such as \"agents:read\"");
            return None;
        }
        if scopes.is_empty() || scopes.len() > 64 {
            doc.note("scopes", "empty, or more than 64", "name some, or leave it out for all");
            return None;
        }
        Some(Some(scopes))
    })
}

fn expires_at(doc: &Document<'_>, now: OffsetDateTime) -> Option<Option<OffsetDateTime>> {
    let Some(text) = doc.text_opt("expires_at")? else { return Some(None) };
    match OffsetDateTime::parse(&text, &Rfc3339) {
        Ok(at) if at > now => Some(Some(at)),
        Ok(_) => {
            doc.note("expires_at", "not in the future", "write a later time");
            None
        }
        Err(_) => {
            doc.note(
                "expires_at",
                "not a time",
                "write RFC 3339, such as \"2030-01-31T00:00:00Z\"",
            );
            None
        }
    }
}
