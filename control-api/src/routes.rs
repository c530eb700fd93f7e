//! The routes of the three listeners, and what they share.
//! Each group's handlers are in a module of its own.

mod agents;
mod api_keys;
pub mod door;
mod executions;
mod internal;
mod limits;
mod members;
mod oauth;
pub mod tenants;
mod version_pin;

use std::{path::Path, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::from_fn_with_state,
    routing::{get, post},
};
use gatehouse_authn::{Rules, api_key::Peppers};
use gatehouse_contract::{
    Reason,
    rbac::Matrix,
    sidecar::{INTERNAL_LAST_USED_PATH, INTERNAL_PRINCIPAL_PATH, INTERNAL_QUOTA_WARNING_PATH},
};
use gatehouse_redis_kit::cred::Permissions;
use gatehouse_service::{Reply, exit::chain};
use gatehouse_store::{Error, OffsetDateTime, Store};
use gatehouse_validate::Validator;
use time::format_description::well_known::Rfc3339;
use tracing::error;

use self::members::Kind;
use crate::{
    access::guard, bodies, config::Tokens, federation, keyring::Keyring, oidc, oidc::SignIn,
    seal::Sealer,
};

/// What every handler may use.
#[derive(Clone)]
pub struct Api {
    pub store: Store,
    pub keyring: Arc<Keyring>,
    pub matrix: Arc<Matrix>,
    /// What bodies are judged by before an operation reads them.
    pub bodies: Arc<Validator>,
    pub rules: Arc<Rules>,
    pub tokens: Arc<Tokens>,
    pub peppers: Arc<Peppers>,
    pub image_store: Arc<Path>,
    /// Filled for the sidecars, never read here.
    pub permissions: Option<Permissions>,
    pub sealer: Arc<Sealer>,
    /// `None` where it is not configured.
    pub sign_in: Option<Arc<SignIn>>,
}

/// What our own tokens must claim.
pub fn rules(tokens: &Tokens) -> Rules {
    Rules {
        audiences: vec![tokens.audience.clone()],
        access_tokens_only: true,
        ..Rules::new(tokens.issuer.clone())
    }
}

/// An execution's input may have 256 KiB; the rest is the envelope around it.
const EXECUTION_BODY_BYTES: usize = (256 + 8) * 1024;

/// A batch of last uses.
const LAST_USED_BYTES: usize = 1024 * 1024;

/// What clients reach through the gateway. Behind the guard everything needs a token; in front of it are the
/// routes that the matrix calls public.
pub fn public(api: &Api) -> Router {
    let guarded = Router::new()
        .route("/api/v1/factory/signing-keys", post(oauth::rotate))
        .route("/api/v1/factory/tenants", post(tenants::create))
        .route("/api/v1/factory/tenants/{tenant}", get(tenants::read).patch(tenants::change))
        .route("/api/v1/factory/tenants/{tenant}/suspend", post(tenants::suspend))
        .route("/api/v1/factory/tenants/{tenant}/resume", post(tenants::resume))
        .route(
            "/api/v1/factory/tenants/{tenant}/limits",
            get(limits::read).put(limits::replace).delete(limits::clear),
        )
        .route(
            "/api/v1/factory/tenants/{tenant}/version-pin",
            get(version_pin::read).put(version_pin::replace).delete(version_pin::clear),
        )
        .merge(members::routes(Kind::User))
        .merge(members::routes(Kind::Client))
        .route(
            "/api/v1/factory/tenants/{tenant}/api-keys",
            get(api_keys::list).post(api_keys::create),
        )
        .route(
            "/api/v1/factory/tenants/{tenant}/api-keys/{key}",
            get(api_keys::read).patch(api_keys::rename).delete(api_keys::revoke),
        )
        .route("/api/v1/factory/tenants/{tenant}/api-keys/{key}/rotate", post(api_keys::rotate))
        .route(
            "/api/v1/factory/tenants/{tenant}/issuers",
            get(federation::list).post(federation::create),
        )
        .route(
            "/api/v1/factory/tenants/{tenant}/issuers/{issuer}",
            get(federation::read).patch(federation::update).delete(federation::delete),
        )
        .route("/api/v1/registry/agents", get(agents::list).post(agents::create))
        .route("/api/v1/registry/agents/{agent}", get(agents::read).delete(agents::delete))
        .route(
            "/api/v1/registry/agents/{agent}/versions",
            get(agents::list_versions).post(agents::create_version),
        )
        .route(
            "/api/v1/runtime/executions",
            get(executions::list)
                .post(executions::submit)
                .layer(DefaultBodyLimit::max(EXECUTION_BODY_BYTES)),
        )
        .route("/api/v1/runtime/executions/{execution}", get(executions::read))
        .route_layer(from_fn_with_state(api.clone(), bodies::judge))
        .route_layer(from_fn_with_state(api.clone(), guard));
    Router::new()
        .route("/oauth2/token", post(oauth::token))
        .route("/oauth2/login", get(oidc::login))
        .route("/oauth2/callback", get(oidc::callback))
        .route("/oauth2/logout", post(oidc::logout))
        .route("/oauth2/revoke", post(oauth::revoke))
        .route("/.well-known/jwks.json", get(oauth::jwks))
        .route("/.well-known/openid-configuration", get(oauth::discovery))
        .merge(guarded)
        .with_state(api.clone())
}

/// What the sidecars of this machine reach; never the gateway.
pub fn internal(api: &Api) -> Router {
    Router::new()
        .route(INTERNAL_PRINCIPAL_PATH, post(internal::principal))
        .route(INTERNAL_QUOTA_WARNING_PATH, post(internal::quota_warning))
        .route(
            INTERNAL_LAST_USED_PATH,
            post(internal::last_used).layer(DefaultBodyLimit::max(LAST_USED_BYTES)),
        )
        .with_state(api.clone())
}

/// What a client is told when the store refused.
pub fn refused(error: Error) -> Reply {
    match &error {
        Error::Unavailable(_) => {
            error!(error = %chain(&error), "the database is away");
            Reason::DependencyUnavailable.into()
        }
        // The row that it refers to is gone, or was another tenant's all along.
        Error::Missing { .. } => Reason::NotFound.into(),
        Error::Conflict { constraint } => {
            let detail = match constraint.as_str() {
                "tenants_slug_key" => "the slug is taken",
                "agents_name" => "an agent of this name exists",
                "agent_versions_tenant_id_agent_id_version_key" => "this version exists",
                "users_email" => "a user with this address exists",
                "signing_keys_current" => "another rotation came first",
                "tenants_status" => "the tenant is being made or removed",
                _ => "it exists already",
            };
            Reply::new(Reason::Conflict).detail(detail)
        }
        Error::LastAdmin => {
            Reply::new(Reason::Conflict).detail("the tenant would have no admin who may act")
        }
        Error::DoorClosed(_)
        | Error::YoungerThanSealed
        | Error::Unreadable { .. }
        | Error::Statement(_) => {
            error!(error = %chain(&error), "a store operation failed");
            Reason::Internal.into()
        }
    }
}

/// RFC 3339, as every time in our answers.
pub fn timestamp(at: OffsetDateTime) -> String {
    // Fails for years beyond 9999 alone, which the database cannot have made.
    at.format(&Rfc3339).unwrap_or_default()
}

/// An id in the path. What is no id names nothing: the same 404.
pub fn path_id<T: std::str::FromStr>(text: &str) -> Result<T, Reply> {
    text.parse().map_err(|_| Reason::NotFound.into())
}
