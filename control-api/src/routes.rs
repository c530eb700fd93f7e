//! The routes of the three listeners, and what they share.
//! Each group's handlers are in a module of its own.

mod agents;
mod api_keys;
mod attempts;
mod audit;
mod cache;
mod dead_letters;
pub mod door;
pub mod endpoint;
mod executions;
mod history;
mod internal;
mod limits;
pub mod logs;
mod members;
mod oauth;
mod operations;
mod organizations;
mod quotas;
pub mod reference;
mod replays;
mod roles;
mod streams;
pub mod table;
pub mod tenant_config;
pub mod tenants;
mod terms;
mod usage;
mod version_pin;
mod versions;
pub mod webhooks;

use std::{path::Path, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderValue, header},
    routing::post,
};
use gatehouse_authn::{Rules, api_key::Peppers};
use gatehouse_contract::{
    ExecutionId, Reason, TenantId,
    rbac::Matrix,
    sidecar::{INTERNAL_LAST_USED_PATH, INTERNAL_PRINCIPAL_PATH, INTERNAL_QUOTA_WARNING_PATH},
};
use gatehouse_redis_kit::cred::Permissions;
use gatehouse_service::{Reply, exit::chain};
use gatehouse_store::{Error, OffsetDateTime, Store, usage::Counted, webhooks::TOO_MANY};
use gatehouse_validate::Validator;
use time::format_description::well_known::Rfc3339;
use tracing::error;

use self::reference::Reference;
use crate::{
    cache::Cache,
    clock,
    config::Tokens,
    keyring::Keyring,
    oidc::SignIn,
    paging::Cursors,
    schemas::Schemas,
    seal::Sealer,
    watchers::{Watchers, rights::Rights},
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
    /// What inputs are judged by.
    pub schemas: Schemas,
    /// Filled for the sidecars, never read here.
    pub permissions: Option<Permissions>,
    pub cache: Cache,
    pub sealer: Arc<Sealer>,
    pub cursors: Arc<Cursors>,
    pub reference: Arc<Reference>,
    /// `None` where it is not configured.
    pub sign_in: Option<Arc<SignIn>>,
    /// Who waits for executions to go on.
    pub watchers: Watchers<(TenantId, ExecutionId)>,
    /// What running attempts log; `None` without Redis.
    pub live: Option<logs::Live>,
    /// By what streams go on.
    pub rights: Rights,
}

/// What our own tokens must claim.
pub fn rules(tokens: &Tokens) -> Rules {
    Rules {
        audiences: vec![tokens.audience.clone()],
        access_tokens_only: true,
        ..Rules::new(tokens.issuer.clone())
    }
}

/// A batch of last uses.
const LAST_USED_BYTES: usize = 1024 * 1024;

/// What clients reach through the gateway: the table, each endpoint within what its manner asks for.
pub fn public(api: &Api) -> Router {
    let routes = table::endpoints().into_iter().fold(Router::new(), |router, endpoint| {
        let path = endpoint.path.clone();
        router.route(&path, endpoint.serve(api))
    });
    routes.with_state(api.clone())
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
                "tenants_slug_key" | "tenants_slug_given" => {
                    "the slug is taken, or was another tenant's once"
                }
                "agents_name" => "an agent of this name exists",
                "agent_versions_tenant_id_agent_id_version_key" => "this version exists",
                "users_email" => "a user with this address exists",
                "signing_keys_current" => "another rotation came first",
                TOO_MANY => "a tenant has at most 20 webhook endpoints: remove one",
                "tenants_status" => "the tenant is being made or removed",
                _ => "it exists already",
            };
            Reply::new(Reason::Conflict).detail(detail)
        }
        Error::QuotaExceeded { what, limit, used, resets_at } => {
            used_up(*what, *limit, *used, *resets_at)
        }
        Error::LastAdmin => {
            Reply::new(Reason::Conflict).detail("the tenant would have no admin who may act")
        }
        Error::DoorClosed(_)
        | Error::NoKeyFile
        | Error::Locked(_)
        | Error::Erased
        | Error::YoungerThanSealed
        | Error::SealMoved
        | Error::Unreadable { .. }
        | Error::Statement(_) => {
            error!(error = %chain(&error), "a store operation failed");
            Reason::Internal.into()
        }
    }
}

/// Seconds after which a client whose queue is full tries again.
const QUEUE_AGAIN_S: u64 = 5;

/// 429 with what is used up, and when to come again where that is known.
fn used_up(what: Counted, limit: u64, used: u64, resets_at: Option<OffsetDateTime>) -> Reply {
    let name = what.as_str();
    let (reason, after) = match (what, resets_at) {
        (Counted::QueuedExecutions, _) => (Reason::QueueFull, Some(QUEUE_AGAIN_S)),
        (_, Some(at)) => {
            // Never before it begins anew.
            let left = clock::since_epoch(at).as_secs();
            let now = clock::since_epoch(clock::now()).as_secs();
            (Reason::QuotaExceeded, Some(left.saturating_sub(now).max(1)))
        }
        (_, None) => (Reason::QuotaExceeded, None),
    };
    let mend = match reason {
        Reason::QueueFull => "wait until some have begun",
        _ if resets_at.is_some() => "it begins anew at midnight UTC",
        _ => "remove some, or ask the platform for more",
    };
    let reply = Reply::new(reason)
        .detail(format!("the tenant's quota {name} is used up ({used} of {limit}): {mend}"))
        .with("quota", name.into())
        .with("limit", limit.into())
        .with("used", used.into())
        .with("resets_at", resets_at.map(timestamp).into());
    match after {
        Some(after) => reply.header(header::RETRY_AFTER, HeaderValue::from(after)),
        None => reply,
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
