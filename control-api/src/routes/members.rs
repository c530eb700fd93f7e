//! Who acts in a tenant: users and clients, their roles and their standing. Nobody changes their own, nobody gives
//! what is above their own, and a tenant's admin has no hand on who holds the platform membership.

mod form;

use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{ClientId, Reason, Role, TenantId, UserId};
use gatehouse_service::{Reply, body::JsonBody};
use gatehouse_store::{
    OpCtx,
    members::{Changed, Member, MemberRecord, NewClient},
    paging::Place,
};
use serde_json::{Value, json};
use time::Duration;
use tracing::error;

use self::form::{email, named_opt, role, shown, which};
use crate::{
    access::Caller,
    condition::IfMatch,
    once::Once,
    paging::Listing,
    random::{self, ClientSecret},
    routes::{
        Api,
        door::{self, Tx, open},
        endpoint::Endpoint,
        path_id, refused,
        tenants::{created, named},
    },
    session::NO_STORE,
};

/// After this time every token that any issuer may have made is dead: a day, and the largest leeway.
const LONGEST_TOKEN: Duration = Duration::seconds(24 * 3600 + 300);

/// What a list can be narrowed by.
const FILTERS: &[&str] = &["status", "role"];

/// Which members a route is about.
#[derive(Clone, Copy)]
pub enum Kind {
    User,
    Client,
}

type Ids = Path<(String, String)>;

/// The endpoints of one kind.
pub fn endpoints(kind: Kind) -> Vec<Endpoint> {
    let (all, one, noun, shown) = match kind {
        Kind::User => ("users", "user", "User", "User"),
        Kind::Client => ("clients", "client", "Client", "Client"),
    };
    let all = format!("/api/v1/factory/tenants/{{tenant}}/{all}");
    let one = format!("{all}/{{{one}}}");
    let at = |rest: &str| format!("{one}/{rest}");
    let named = |verb: &str| format!("{verb}{noun}");
    let suspend = |suspended| {
        move |api, caller, ids, once| set_suspended((kind, suspended), api, caller, ids, once)
    };
    let role = |grant| move |api, caller, ids| change_role((kind, grant), api, caller, ids);
    let mut endpoints = vec![
        Endpoint::list(
            &all,
            &format!("list{noun}s"),
            "The newest first",
            move |api, caller, tenant, listing| list(kind, api, caller, tenant, listing),
        )
        .answers(200, shown)
        .narrowed_by(FILTERS),
        Endpoint::read(
            &one,
            &named("read"),
            "One member with its roles",
            move |api, caller, ids| read(kind, api, caller, ids),
        )
        .answers(200, shown),
        Endpoint::change(
            ("PATCH", &one),
            &named("rename"),
            "Gives a member another name",
            move |api, caller, ids, if_match, body| rename(kind, api, caller, ids, if_match, body),
        )
        .takes(match kind {
            Kind::User => "UserChange",
            Kind::Client => "ClientChange",
        })
        .answers(200, shown),
        Endpoint::remove(
            &one,
            &named("delete"),
            "Removes a member; the last admin stays",
            move |api, caller, ids, if_match| delete(kind, api, caller, ids, if_match),
        ),
        Endpoint::act(
            &at("suspend"),
            &named("suspend"),
            "Keeps a member from acting",
            suspend(true),
        )
        .answers(200, shown),
        Endpoint::act(&at("resume"), &named("resume"), "Lets a member act again", suspend(false))
            .answers(200, shown),
        Endpoint::act(
            &at("revoke-tokens"),
            &format!("revokeTokensOf{noun}"),
            "Ends every token that was issued to it up to now",
            move |api, caller, ids, once| revoke_tokens(kind, api, caller, ids, once),
        )
        .answers(204, None),
        Endpoint::state(
            &at("roles/{role}"),
            &format!("grantRoleTo{noun}"),
            "Gives a role besides those that it has",
            role(true),
        ),
        Endpoint::remove(
            &at("roles/{role}"),
            &format!("revokeRoleOf{noun}"),
            "Takes a role away; the last admin stays one",
            role(false),
        ),
    ];
    match kind {
        Kind::User => endpoints.push(
            Endpoint::act(&all, "createUser", "Makes a user with a role", create_user)
                .takes("NewUser")
                .answers(201, "UserMade"),
        ),
        Kind::Client => endpoints.extend([
            Endpoint::act(
                &all,
                "createClient",
                "Makes an OAuth client with a role; its secret is shown this once",
                create_client,
            )
            .takes("NewClient")
            .answers(201, "ClientMade"),
            Endpoint::act(
                &at("rotate-secret"),
                "rotateClientSecret",
                "Gives a client another secret, shown this once; the old one ends",
                rotate_secret,
            )
            .answers(200, "ClientSecret"),
        ]),
    }
    endpoints
}

/// `POST …/users`.
async fn create_user(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    once: Once,
    body: JsonBody,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let (email, name, role) = body.read(|doc| {
        let email = email(doc);
        let name = named_opt(doc);
        let role = role(doc);
        Some((email?, name?, role?))
    })?;
    grantable(&caller, role)?;
    let id = UserId::new(random::id());
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    once.begin(&mut tx).await?;
    let made = tx.within().create_named_user(id, (&email, name.as_deref()), role).await;
    made.map_err(refused)?;
    let answer = json!({"id": id, "email": email, "name": name, "role": role});
    let place = format!("/api/v1/factory/tenants/{tenant}/users/{id}");
    once.end(&api, tx, created(&place, answer)).await
}

/// `POST …/clients`. The secret is in this answer and nowhere else.
async fn create_client(
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    once: Once,
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
    once.begin(&mut tx).await?;
    tx.within().create_client(&new, role).await.map_err(refused)?;
    let answer = json!({
        "client_id": new.id,
        "client_secret": secret.expose(),
        "name": name,
        "role": role,
    });
    let mut response =
        created(&format!("/api/v1/factory/tenants/{tenant}/clients/{}", new.id), answer);
    response.headers_mut().insert(NO_STORE.0, NO_STORE.1);
    once.end(&api, tx, response).await
}

/// `POST …/clients/{client}/rotate-secret`. The old secret ends at once; tokens go on until they expire.
async fn rotate_secret(
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, client)): Ids,
    once: Once,
) -> Result<Response, Reply> {
    let op = caller.op();
    let (mut tx, member) = target(Kind::Client, &api, &caller, &op, (&tenant, &client)).await?;
    once.begin(&mut tx).await?;
    let id = ClientId::new(member.id());
    let secret = secret()?;
    let done = tx.within().replace_client_secret(id, secret.hash()).await.map_err(refused)?;
    if !done {
        return Err(Reason::NotFound.into());
    }
    let answer = json!({"client_id": id, "client_secret": secret.expose()});
    once.end(&api, tx, shown_once(StatusCode::OK, answer)).await
}

async fn list(
    kind: Kind,
    State(api): State<Api>,
    caller: Caller,
    Path(tenant): Path<String>,
    listing: Listing,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let op = caller.op();
    let (page, which) = (&listing.page(), which(&listing)?);
    let found = door::read(&api, &op, caller.door_to(tenant)?, tenant, |mut tx| async move {
        match kind {
            Kind::User => tx.within().list_users(page, which).await,
            Kind::Client => tx.within().list_clients(page, which).await,
        }
    })
    .await?;
    let place = |one: &MemberRecord| Place { created_at: one.created_at, id: one.member.id() };
    Ok(listing.answer(&found, place, shown))
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

/// Its name, and nothing else of it. Nobody's standing depends on a name: everybody may change their own.
async fn rename(
    kind: Kind,
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, id)): Ids,
    if_match: IfMatch,
    body: JsonBody,
) -> Result<Json<Value>, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let member = member(kind, &id)?;
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    spare_platform(&api, &caller, tenant, member).await?;
    let before = tx.within().lock_member(member).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    if_match.check(&shown(&before))?;
    let name = match kind {
        Kind::User => body.read(named_opt)?,
        Kind::Client => Some(body.read(named)?),
    };
    tx.within().rename_member(&before, name.as_deref()).await.map_err(refused)?;
    let found = tx.within().member(member).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    tx.commit().await?;
    Ok(Json(shown(&found)))
}

async fn delete(
    kind: Kind,
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, id)): Ids,
    if_match: IfMatch,
) -> Result<StatusCode, Reply> {
    let op = caller.op();
    let (mut tx, member) = target(kind, &api, &caller, &op, (&tenant, &id)).await?;
    let before = tx.within().lock_member(member).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    if_match.check(&shown(&before))?;
    let done = tx.within().delete_member(member).await.map_err(refused)?;
    finish(tx, done).await
}

async fn set_suspended(
    (kind, suspended): (Kind, bool),
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, id)): Ids,
    once: Once,
) -> Result<Response, Reply> {
    let op = caller.op();
    let (mut tx, member) = target(kind, &api, &caller, &op, (&tenant, &id)).await?;
    once.begin(&mut tx).await?;
    if tx.within().set_suspended(member, suspended).await.map_err(refused)? == Changed::Missing {
        return Err(Reason::NotFound.into());
    }
    let found = tx.within().member(member).await.map_err(refused)?.ok_or(Reason::NotFound)?;
    once.end(&api, tx, Json(shown(&found)).into_response()).await
}

/// Every token of the member that was issued up to now is worth nothing.
async fn revoke_tokens(
    kind: Kind,
    State(api): State<Api>,
    caller: Caller,
    Path((tenant, id)): Ids,
    once: Once,
) -> Result<Response, Reply> {
    let tenant: TenantId = path_id(&tenant)?;
    let door = caller.door_to(tenant)?;
    let member = member(kind, &id)?;
    let op = caller.op();
    let mut tx = open(&api, &op, door, tenant).await?;
    once.begin(&mut tx).await?;
    spare_platform(&api, &caller, tenant, member).await?;
    // `iat` has whole seconds: tokens of this very second are among the old.
    let before = op.now.replace_nanosecond(0).unwrap_or(op.now) + Duration::seconds(1);
    let until = before + LONGEST_TOKEN;
    match tx.within().revoke_tokens_of(member, before, until).await.map_err(refused)? {
        Changed::Missing => Err(Reason::NotFound.into()),
        Changed::Yes | Changed::No => {
            once.end(&api, tx, StatusCode::NO_CONTENT.into_response()).await
        }
    }
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
