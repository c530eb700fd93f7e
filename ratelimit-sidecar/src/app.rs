//! The routes that filters ask, and what every answer carries.
//! Knows no store and no issuer.

use std::{io, path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderName, HeaderValue},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Tier, header as names, sidecar::Change};
use gatehouse_outbound::Client;
use gatehouse_redis_kit::{
    cred::{Keys, Permissions},
    feed::Reader,
};
use gatehouse_service::{Shutdown, Stop, app as service_app};
use serde::Serialize;
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    task::JoinSet,
};

use crate::{
    config::{Away, Config, StoreKind},
    control::Control,
    engine::{self, Engine},
    feed::{Feed, Heard},
    grpc,
    keysets::KeySets,
    last_used::Seen,
    metrics::{Gauges, Metrics},
    principal::{Principals, Projection},
    public::Public,
    routes,
    store::Store,
};

/// How long one reading of the change feed may take: it may carry the whole deny list.
const READ: Duration = Duration::from_millis(500);
const AGENT: &str = concat!("gatehouse-ratelimit-sidecar/", env!("CARGO_PKG_VERSION"));

/// Questions are small; their time is bounded by what they wait for, this is the last resort.
const BOUNDS: service_app::Bounds =
    service_app::Bounds { time: Duration::from_secs(5), body_bytes: 8 * 1024, quiet: true };

/// What the handlers share.
pub struct App<S> {
    store: Arc<S>,
    pub engine: Engine,
    pub metrics: Arc<Metrics>,
    pub keysets: KeySets,
    pub principals: Principals,
    pub feed: Feed,
    pub seen: Seen,
    grpc: Arc<grpc::Settings>,
    control: Control,
    reader: Option<Reader>,
    last_used_every: Duration,
    /// Some tier is answered without the store.
    answers_alone: bool,
}

/// An app cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Unmade {
    #[error("an HTTP client cannot be made")]
    Http(#[source] reqwest::Error),
    #[error("a Redis client cannot be made")]
    Redis(#[source] gatehouse_redis_kit::Error),
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
            engine: self.engine.clone(),
            metrics: Arc::clone(&self.metrics),
            keysets: self.keysets.clone(),
            principals: self.principals.clone(),
            feed: self.feed.clone(),
            seen: self.seen.clone(),
            grpc: Arc::clone(&self.grpc),
            control: self.control.clone(),
            reader: self.reader.clone(),
            last_used_every: self.last_used_every,
            answers_alone: self.answers_alone,
        }
    }
}

impl<S: Store> App<S> {
    pub fn new(store: Arc<S>, config: &Config) -> Result<Self, Unmade> {
        let metrics = Arc::new(Metrics::default());
        let control = Control::new(config.control_internal.as_ref()).map_err(Unmade::Http)?;
        let feed_at = match (&config.feed, &config.store) {
            (Some(address), _) | (None, StoreKind::Redis(address)) => Some(address),
            (None, StoreKind::Memory | StoreKind::RedisCluster(_)) => None,
        };
        let deadline = config.bounds.deadline;
        let redis = match feed_at {
            None => None,
            Some(address) => {
                let reader = Reader::new(address, READ).map_err(Unmade::Redis)?;
                let keys = Keys::new(address, deadline).map_err(Unmade::Redis)?;
                let permissions = Permissions::new(address, deadline).map_err(Unmade::Redis)?;
                Some((reader, Projection { keys, permissions }))
            }
        };
        let (reader, projection) = redis.unzip();
        let (feed, seen) = (Feed::default(), Seen::default());
        let stranger = Client::new(config.trust.clone(), AGENT);
        Ok(Self {
            engine: Engine::new(&config.limits, config.bounds, &metrics, chance()),
            store,
            keysets: KeySets::new(&stranger, &config.issuers, config.ages, &metrics),
            principals: Principals::new(
                control.clone(),
                projection,
                config.peppers.clone(),
                feed.clone(),
                seen.clone(),
                Arc::clone(&metrics),
            ),
            metrics,
            feed,
            seen,
            grpc: Arc::new(config.grpc.clone()),
            control,
            reader,
            last_used_every: config.last_used_every,
            answers_alone: Tier::ALL.iter().any(|tier| config.limits.away(*tier) != Away::Closed),
        })
    }

    /// Starts what runs beside the routes; all of it ends with the shutdown.
    pub async fn start(&self, shutdown: &Shutdown) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if let Some(reader) = self.reader.clone() {
            let (principals, keysets) = (self.principals.clone(), self.keysets.clone());
            let tell = move |heard: &Heard| {
                principals.hear(heard);
                match heard {
                    Heard::Everything => keysets.pushed(None),
                    Heard::Changes(changes) => {
                        for change in changes {
                            if let Change::Keys { issuer } = change {
                                keysets.pushed(Some(issuer));
                            }
                        }
                    }
                }
            };
            self.feed.begin(&reader, &tell).await;
            tasks.spawn(self.feed.clone().follow(reader, tell, shutdown.clone()));
        }
        engine::run(&self.engine, &self.store, &self.control, &mut tasks);
        self.keysets.keep_fresh(&mut tasks, shutdown);
        let seen = self.seen.clone();
        tasks.spawn(seen.report(self.control.clone(), self.last_used_every, shutdown.clone()));
        tasks
    }

    /// After the listeners have drained: what is noted and not yet told, and the end of what [`Self::start`] began.
    pub async fn end(&self, mut tasks: JoinSet<()>) {
        self.engine.stop();
        self.seen.flush(&self.control).await;
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task ended early");
            }
        }
    }

    /// Whether checks are answered: by the store; or, when that decided once since the start, by the policy of a tier
    /// for an outage. Before that nobody knows how many sidecars there are, and a share of a limit would be a guess.
    pub fn is_ready(&self) -> bool {
        self.metrics.limits.has_decided() && (self.engine.is_up() || self.answers_alone)
    }

    /// The filters' routes. Every answer is marked as ours, those of a refusal among them: a filter takes anything
    /// else for a host's own 503.
    fn router(&self) -> Router {
        let routes = routes::router(routes::public::<S>(), self.clone());
        // Outside of `finish`, since it must stand around the answers that `finish` makes, too.
        service_app::finish(routes, BOUNDS)
            .layer(axum::middleware::map_response(async |response: Response| mark(response)))
    }

    /// What the filters' listener answers.
    pub fn public(&self) -> Public {
        Public { router: self.router(), engine: self.engine.clone(), grpc: Arc::clone(&self.grpc) }
    }

    /// The admin listener's routes, beside those of readiness.
    pub fn admin(&self) -> Router {
        routes::router(routes::admin::<S>(), self.clone())
    }

    pub fn gauges(&self) -> Gauges {
        let (issuers, issuers_ready) = self.keysets.ready();
        let (feed_alive, denied, feed_heartbeat_age_s) = self.feed.figures();
        let waiting = self.engine.waiting();
        Gauges { waiting, issuers, issuers_ready, feed_alive, denied, feed_heartbeat_age_s }
    }
}

/// A number that no process before this one had.
fn chance() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

fn mark(mut response: Response) -> Response {
    let name = HeaderName::from_static(names::SIDECAR_MARKER);
    response.headers_mut().insert(name, HeaderValue::from_static("1"));
    response
}

/// A JSON answer.
pub fn json(body: &impl Serialize) -> Response {
    axum::Json(body).into_response()
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
