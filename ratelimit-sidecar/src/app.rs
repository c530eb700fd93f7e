//! The routes that filters ask, and what every answer carries.
//! Knows no store and no issuer.

use std::{io, path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use gatehouse_contract::{header as names, sidecar};
use gatehouse_ratelimit::Policy;
use gatehouse_service::{Stop, app as service_app};
use serde::Serialize;
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::{
    check,
    config::Config,
    keysets::{self, KeySets},
    metrics::Metrics,
    principal::{self, Principals},
    store::Store,
};

/// Questions are small; their time is bounded by what they wait for, this is the last resort.
const BOUNDS: service_app::Bounds =
    service_app::Bounds { time: Duration::from_secs(5), body_bytes: 8 * 1024, quiet: true };

/// What the handlers share.
pub struct App<S> {
    pub store: Arc<S>,
    pub policy: Arc<Policy>,
    pub metrics: Arc<Metrics>,
    pub keysets: KeySets,
    pub principals: Principals,
}

/// Where filters reach us, bound.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

// Not derived: a store need not be `Clone`.
impl<S> Clone for App<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            policy: Arc::clone(&self.policy),
            metrics: Arc::clone(&self.metrics),
            keysets: self.keysets.clone(),
            principals: self.principals.clone(),
        }
    }
}

impl<S: Store> App<S> {
    pub fn new(store: Arc<S>, config: &Config) -> reqwest::Result<Self> {
        let client = client()?;
        let metrics = Arc::new(Metrics::default());
        Ok(Self {
            store,
            policy: Arc::new(config.policy.clone()),
            keysets: KeySets::new(client.clone(), &config.issuers, Arc::clone(&metrics)),
            principals: Principals::new(client, config.control_internal.as_ref()),
            metrics,
        })
    }

    /// The filters' routes. Every answer is marked as ours, those of a refusal among them: a filter takes anything
    /// else for a host's own 503.
    pub fn router(&self) -> Router {
        let routes = Router::new()
            .route(sidecar::CHECK_PATH, post(check::check::<S>))
            .route(sidecar::JWKS_PATH, get(keysets::jwks::<S>))
            .route(sidecar::PRINCIPAL_PATH, post(principal::principal::<S>))
            .with_state(self.clone());
        // Outside of `finish`, since it must stand around the answers that `finish` makes, too.
        service_app::finish(routes, BOUNDS)
            .layer(axum::middleware::map_response(async |response: Response| mark(response)))
    }

    /// `/metrics`, for the admin listener.
    pub fn metrics_router(&self) -> Router {
        let text = async |State(metrics): State<Arc<Metrics>>| {
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            ([(header::CONTENT_TYPE, kind)], metrics.render())
        };
        Router::new().route("/metrics", get(text)).with_state(Arc::clone(&self.metrics))
    }
}

fn mark(mut response: Response) -> Response {
    let name = HeaderName::from_static(names::SIDECAR_MARKER);
    response.headers_mut().insert(name, HeaderValue::from_static("1"));
    response
}

/// One client for issuers and the control API: no redirects (they would lead to addresses that nobody named), no
/// proxy from the environment.
fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(Duration::from_secs(1))
        .pool_idle_timeout(Duration::from_secs(30))
        .user_agent(concat!("gatehouse-ratelimit-sidecar/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// A JSON answer.
pub fn json(body: &impl Serialize) -> Response {
    axum::Json(body).into_response()
}

/// Reads an answer of at most `limit` bytes.
pub async fn bounded_body(
    mut response: reqwest::Response,
    limit: usize,
) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Unread::Broken)? {
        if body.len() + chunk.len() > limit {
            return Err(Unread::TooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An answer could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error("the answer broke off")]
    Broken(#[source] reqwest::Error),
    #[error("the answer is larger than {limit} bytes")]
    TooLarge { limit: usize },
}

/// Binds a unix socket. One that a dead process left is replaced, one that somebody serves is not.
pub async fn bind_unix(field: &str, path: &Path) -> Result<UnixListener, Stop> {
    let shown = path.display();
    let taken = |cause: &str| Stop::unavailable(format!("$.{field}: {shown} {cause}"));
    match UnixStream::connect(path).await {
        Ok(_) => return Err(taken("is served by another process; stop it or choose another path")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => remove_socket(path),
        Err(_) => {}
    }
    UnixListener::bind(path).map_err(|error| {
        taken(&format!("cannot be bound: {error}; choose a path in a folder of this user"))
    })
}

/// Removes a socket file of ours.
pub fn remove_socket(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "the socket file stays");
    }
}
