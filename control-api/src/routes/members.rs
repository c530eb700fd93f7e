//! Who acts in a tenant: users and clients, their roles and their standing. Nobody changes their own, nobody gives
//! what is above their own, and a tenant's admin has no hand on who holds the platform membership.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use gatehouse_contract::{ClientId, Document, Reason, Role, TenantId, UserId};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::{
    OpCtx,
    members::{Changed, Member, MemberRecord, NewClient},
};
use serde_json::{Value, json};
use time::Duration;
use tracing::error;

use crate::{
    access::Caller,
    random::{self, ClientSecret},
    routes::{
        Api,
        door::{Tx, open},
        path_id, refused,
        tenants::named,
        timestamp,
    },
};

/// After this time every token that any issuer may have made is dead: a day, and the largest leeway.
const LONGEST_TOKEN: Duration = Duration::seconds(24 * 3600 + 300);

/// Which members a route is about.
#[derive(Clone, Copy)]
pub enum Kind {
    User,
    Client,
}

type Ids = Path<(String, String)>;

/// The routes of one kind.
pub fn routes(kind: Kind) -> Router<Api> {
    let (all, one) = match kind {
        Kind::User => ("users", "user"),
        Kind::Client => ("clients", "client"),
    };
    let all = format!("/api/v1/factory/tenants/{{tenant}}/{all}");
    let one = format!("{all}/{{{one}}}");
    let suspend = |suspended| {
        post(move |api, caller, ids| async move {
            set_suspended((kind, suspended), api, caller, ids).await
        })
    };
    let router = Router::new()
        .route(
            &one,
            get(move |api, caller, ids| async move { read(kind, api, caller, ids).await }).delete(
                move |api, caller, ids| async move { delete(kind, api, caller, ids).await },
            ),
        )
        .route(&format!("{one}/suspend"), suspend(true))
        .route(&format!("{one}/resume"), suspend(false))
        .route(
            &format!("{one}/revoke-tokens"),
            post(
                move |api, caller, ids| async move { revoke_tokens(kind, api, caller, ids).await },
            ),
        )
        .route(
            &format!("{one}/roles/{{role}}"),
            put(move |api, caller, ids| async move {
                change_role((kind, true), api, caller, ids).await
            })
            .delete(move |api, caller, ids| async move {
                change_role((kind, false), api, caller, ids).await
            }),
        );
    let list = get(move |api, caller, tenant| async move { list(kind, api, caller, tenant).await });
    match kind {
        Kind::User => router.route(&all, list.post(create_user)),
        Kind::Client => router
            .route(&all, list.post(create_client))
            .route(&format!("{one}/rotate-secret"), post(rotate_secret)),
    }
}

/// `POST …/users`.
async fn create_user(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    body: JsonBody,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let (email, role) = body.read(|doc| {
        let email = email(doc);
        let role = role(doc);
        Some((email?, role?))
    })?;
    grantable(&caller, role)?;
    let id = UserId::new(random::id());
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    tx.within().create_user(id, &email, role).await.map_err(refused)?;
    tx.commit().await?;
    let answer = json!({"id": id, "email": email, "role": role});
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// `POST …/clients`. The secret is in this answer and nowhere else.
async fn create_client(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    body: JsonBody,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let (name, role) = body.read(|doc| {
        let name = named(doc);
        let role = role(doc);
        Some((name?, role?))
    })?;
    grantable(&caller, role)?;
    let secret = secret()?;
    let new =
        NewClient { id: ClientId::new(random::id()), name: &name, secret_sha256: secret.hash() };
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    tx.within().create_client(&new, role).await.map_err(refused)?;
    tx.commit().await?;
    let answer = json!({
        "client_id": new.id,
        "client_secret": secret.expose(),
        "name": name,
        "role": role,
    });
    Ok(shown_once(StatusCode::CREATED, answer))
}

/// `POST …/clients/{client}/rotate-secret`. The old secret ends at once; tokens go on until they expire.
async fn rotate_secret(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, client)): Ids,
) -> Result<Response, Reply> {
    let op = caller.op();
    let (mut tx, member) = target(Kind::Client, &api, &caller, &op, (&tenant, &client)).await?;
    let id = ClientId::new(member.id());
    let secret = secret()?;
    let done = tx.within().replace_client_secret(id, secret.hash()).await.map_err(refused)?;
    if !done {
        return Err(Reason::NotFound.into());
    }
    tx.commit().await?;
    Ok(shown_once(StatusCode::OK, json!({"client_id": id, "client_secret": secret.expose()})))
}

async fn list(
    kind: Kind,
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let op = caller.op();
    let mut tx = open(&api, &op, caller.door_to(tenant)?, tenant).await?;
    let found = match kind {
        Kind::User => tx.within().list_users().await,
        Kind::Client => tx.within().list_clients().await,
    };
    let items: Vec<Value> = found.map_err(refused)?.iter().map(shown).collect();
    Ok(Json(json!({"items": items})))
}

async fn read(
    kind: Kind,
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, id)): Ids,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let member = member(kind, &id)?;
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    let found = tx.within().member(member).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    Ok(Json(shown(&found)))
}

async fn delete(
    kind: Kind,
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, id)): Ids,
) -> Result<StatusCode, Reply> {
    let op = caller.op();
    let (mut tx, member) = target(kind, &api, &caller, &op, (&tenant, &id)).await?;
    let done = tx.within().delete_member(member).await.map_err(refused)?;
    finish(tx, done).await
}

async fn set_suspended(
    (kind, suspended): (Kind, bool),
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, id)): Ids,
) -> Result<Json<Value>, Reply> {
    let op = caller.op();
    let (mut tx, member) = target(kind, &api, &caller, &op, (&tenant, &id)).await?;
    if tx.within().set_suspended(member, suspended).await.map_err(refused)? == Changed::Missing {
        return Err(Reason::NotFound.into());
    }
    let found = tx.within().member(member).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    tx.commit().await?;
    Ok(Json(shown(&found)))
}

/// Every token of the member that was issued up to now is worth nothing.
async fn revoke_tokens(
    kind: Kind,
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, id)): Ids,
) -> Result<StatusCode, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let member = member(kind, &id)?;
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    spare_platform(&api, &caller, tenant, member).await?;
    // `iat` has whole seconds: tokens of this very second are among the old.
    let before = op.now.replace_nanosecond(0).unwrap_or(op.now) + Duration::seconds(1);
    let until = before + LONGEST_TOKEN;
    let done = tx.within().revoke_tokens_of(member, before, until).await.map_err(refused)?;
    finish(tx, done).await
}

async fn change_role(
    (kind, grant): (Kind, bool),
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, id, role)): Path<(String, String, String)>,
) -> Result<StatusCode, Reply> {
    let op = caller.op();
    let (mut tx, member) = target(kind, &api, &caller, &op, (&tenant, &id)).await?;
    let role: Role = path_id(&role)?;
    grantable(&caller, role)?;
    let done = match grant {
        true => tx.within().grant_role(member, role).await,
        false => tx.within().revoke_role(member, role).await,
    };
    finish(tx, done.map_err(refused)?).await
}

/// The way to a member whose standing is to be changed, by somebody else who may.
async fn target<'op>(
    kind: Kind,
    api: &Api,
    caller: &Caller,
    op: &'op OpCtx,
    (tenant, id): (&str, &str),
) -> Result<(Tx<'op>, Member), Reply> {
    let tenant: TenantId = path_id(tenant)?;
    let door = caller.door_to(tenant)?;
    let member = member(kind, id)?;
    let tx = open(api, op, door, tenant).await?;
    if member.id().to_string() == caller.subject {
        return Err(Reply::new(Reason::PermissionDenied)
            .detail("nobody changes their own roles or standing: ask another admin"));
    }
    spare_platform(api, caller, tenant, member).await?;
    Ok((tx, member))
}

/// Whoever could take over a holder of the platform membership would hold it.
async fn spare_platform(
    api: &Api,
    caller: &Caller,
    tenant: TenantId,
    member: Member,
) -> Result<(), Reply> {
    if caller.platform {
        return Ok(());
    }
    let facts = api.store.lookup().principal(tenant, member.id()).await.map_err(refused)?;
    if facts.is_some_and(|facts| facts.platform) {
        return Err(Reply::new(Reason::PermissionDenied)
            .detail("a holder of the platform membership is the platform's to change"));
    }
    Ok(())
}

async fn finish(tx: Tx<'_>, done: Changed) -> Result<StatusCode, Reply> {
    match done {
        Changed::Missing => return Err(Reason::NotFound.into()),
        Changed::Yes | Changed::No => tx.commit().await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

fn member(kind: Kind, id: &str) -> Result<Member, Reply> {
    Ok(match kind {
        Kind::User => Member::User(path_id(id)?),
        Kind::Client => Member::Client(path_id(id)?),
    })
}

fn grantable(caller: &Caller, role: Role) -> Result<(), Reply> {
    if caller.may_grant(role) {
        return Ok(());
    }
    Err(Reply::new(Reason::PermissionDenied).detail("nobody gives a role above their own"))
}

fn secret() -> Result<ClientSecret, Reply> {
    ClientSecret::generate().map_err(|_| {
        error!("no random bytes");
        Reply::new(Reason::Internal)
    })
}

/// An answer with a secret, which no cache keeps.
pub fn shown_once(status: StatusCode, body: Value) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn shown(record: &MemberRecord) -> Value {
    let name = match record.member {
        Member::User(_) => "email",
        Member::Client(_) => "name",
    };
    json!({
        "id": record.member.id(),
        name: record.name,
        "status": if record.suspended { "suspended" } else { "active" },
        "roles": record.roles,
        "created_at": timestamp(record.created_at),
    })
}

fn email(doc: &Document<'_>) -> Option<String> {
    let email = doc.text("email")?;
    let parts = email.split_once('@');
    let fits = email.len() <= 254
        && email.bytes().all(|c| c.is_ascii_graphic())
        && parts.is_some_and(|(local, domain)| {
            !local.is_empty() && domain.contains('.') && !domain.contains('@')
        });
    if fits {
        return Some(email);
    }
    doc.note("email", "not an e-mail address", "write one such as \"name@example.com\"");
    None
}

fn role(doc: &Document<'_>) -> Option<Role> {
    doc.parsed("role", "viewer, operator, developer or admin")
}
