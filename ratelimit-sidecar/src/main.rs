//! What the filters ask: limits, key sets, principals.
//! Knows Redis, issuers' key sets and the control API's internal listener; never PostgreSQL.

mod app;
mod asked;
mod check;
mod command;
mod config;
mod control;
mod engine;
mod feed;
mod grpc;
mod keysets;
mod last_used;
mod lease;
mod lru;
mod metrics;
mod openapi;
mod peppers;
mod principal;
mod public;
mod routes;
mod store;
mod top;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::{Parser, Subcommand};
use gatehouse_contract::TenantId;
use gatehouse_ratelimit::{Name, Rule, Span, keys};
use gatehouse_redis_kit::{Address, Error, Limiter};
use gatehouse_service::{
    Shutdown, Stop, admin, app as service_app, config as service_config, exit, listen, telemetry,
};
use tracing::{info, warn};

use crate::{
    app::{App, Listener},
    config::{Config, Listen, StoreKind},
    store::{MemoryStore, RedisStore, Store},
};

const NAME: &str = "ratelimit-sidecar";
/// How long `load-functions` may take.
const LOAD_DEADLINE: Duration = Duration::from_secs(10);

/// Answers the filters beside it: rate limits, issuers' key sets, principals, what they must forget.
#[derive(Parser)]
#[command(
    name = "gatehouse-ratelimit-sidecar",
    version,
    after_help = "Examples:\n  \
        Serve the filters of this machine:\n    \
          gatehouse-ratelimit-sidecar serve --config sidecar.json\n  \
        Load the limits' functions as a user who may (the sidecar's own may not have to):\n    \
          gatehouse-ratelimit-sidecar load-functions --url redis://admin:PASSWORD@127.0.0.1:6379\n  \
        How does a tenant stand? Charges nothing:\n    \
          gatehouse-ratelimit-sidecar check --tenant 0191d6b0-7c3e-7aaa-8bbb-0123456789ab --tier pro\n  \
        Charge one call of an endpoint, answer as JSON:\n    \
          gatehouse-ratelimit-sidecar check --tenant 0191d6b0-7c3e-7aaa-8bbb-0123456789ab --tier pro \\\n      \
            --method POST --route /api/v1/registry/agents --cost 1 --json\n\n\
        A whole configuration is in examples/gateway/ratelimit-sidecar.json, every key in\n\
        docs/ratelimit-sidecar.md, what to do when in docs/runbooks/rate-limits.md."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves until SIGTERM or SIGINT.
    Serve {
        /// The configuration, a JSON document.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Asks a running sidecar how a tenant stands, or charges one request. Ends with 0 when it passes, 1 when not.
    Check(command::Check),
    /// Puts the rate limit functions into Redis, for installations whose sidecar may not do so itself. Functions of
    /// other versions stay: nothing is replaced, and windows go on.
    LoadFunctions {
        /// Where Redis is, as a user who may load functions.
        #[arg(long, value_name = "URL", env = "GATEHOUSE_REDIS_URL", hide_env_values = true)]
        url: String,
        /// The Redis is a node of a cluster: all that take writes are loaded.
        #[arg(long)]
        cluster: bool,
    },
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    exit::run_on_one(NAME, async {
        match command {
            Command::Serve { config } => serve(service_config::load(&config, config::read)?).await,
            Command::Check(check) => command::check(check).await,
            Command::LoadFunctions { url, cluster } => load_functions(&url, cluster).await,
        }
    })
}

async fn load_functions(url: &str, cluster: bool) -> Result<(), Stop> {
    // Never echoed: it carries a password.
    let not_a_url = |error: Error| {
        Stop::usage(vec![format!("--url: {error}; write redis://user:password@host:port")])
    };
    let address: Address = url.parse().map_err(not_a_url)?;
    let limiter = if cluster {
        Limiter::cluster(std::slice::from_ref(&address), LOAD_DEADLINE)
    } else {
        Limiter::new(&address, LOAD_DEADLINE)
    };
    let limiter = limiter.map_err(not_a_url)?;
    limiter.load().await.map_err(|error| {
        let cause = exit::chain(&error);
        Stop::unavailable(format!("--url: {address}: {cause}; check the server and the user"))
    })
}

async fn serve(config: Config) -> Result<(), Stop> {
    telemetry::init();
    info!(version = env!("CARGO_PKG_VERSION"), "starting");
    match &config.store {
        StoreKind::Memory => run(Arc::new(MemoryStore::new()), config).await,
        StoreKind::Redis(address) => {
            let limiter = Limiter::new(address, config.bounds.deadline);
            let store = shared(limiter, format!("$.store.url: {address}")).await?;
            run(store, config).await
        }
        StoreKind::RedisCluster(seeds) => {
            let limiter = Limiter::cluster(seeds, config.bounds.deadline);
            let shown = seeds.first().map(ToString::to_string).unwrap_or_default();
            let store = shared(limiter, format!("$.store.urls: {shown}")).await?;
            run(store, config).await
        }
    }
}

/// The store of several sidecars, each under a name that no other process has.
async fn shared(limiter: Result<Limiter, Error>, shown: String) -> Result<Arc<RedisStore>, Stop> {
    let limiter = limiter.map_err(|error| Stop::refused(format!("{shown}: {error}")))?;
    prepare(&limiter, &shown).await?;
    Ok(Arc::new(RedisStore::new(limiter, uuid::Uuid::new_v4())))
}

/// Puts this build's function in place. A Redis that is away is no reason not to start: checks are answered by
/// their tiers' policies until it is there. A Redis that refuses us is one, since that does not mend itself.
async fn prepare(limiter: &Limiter, shown: &str) -> Result<(), Stop> {
    let mut outcome = limiter.load().await;
    if outcome.as_ref().is_err_and(|error| error.code() == Some("NOPERM")) {
        warn!("the Redis user may not load functions, trying what is there");
        // Asks without charging; writes nothing.
        let rule = Rule::new(Name::Tenant, 1, Span::from_secs(1), keys::ANY);
        let nobody = TenantId::new(uuid::Uuid::nil());
        outcome = limiter.decide(nobody, &[rule], 0).await.map(drop);
    }
    match outcome {
        Ok(()) => Ok(()),
        Err(error) if error.passes() => {
            warn!(error = %exit::chain(&error), "Redis is away, starting without it");
            Ok(())
        }
        Err(error) => Err(Stop::refused(format!(
            "{shown}: {}; check the user, its password and its rights",
            exit::chain(&error)
        ))),
    }
}

async fn run<S: Store>(store: Arc<S>, config: Config) -> Result<(), Stop> {
    let (_trigger, shutdown) = Shutdown::on_signals()?;
    let listener = match &config.listen {
        Listen::Loopback(address) => Listener::Tcp(listen::bind("listen", *address).await?),
        Listen::Unix(path) => Listener::Unix(app::bind_unix("listen", path).await?),
    };
    let admin_listener = listen::bind("admin_listen", config.admin_listen).await?;
    let app = App::new(store, &config).map_err(|error| Stop::unavailable(exit::chain(&error)))?;
    if config.peppers.is_none() {
        warn!("no $.peppers_file: API keys cannot be checked and are answered with 503");
    }
    let tasks = app.start(&shutdown).await;
    let (ready, engine) = (app.clone(), app.engine.clone());
    let readiness = admin::Readiness::new(shutdown.clone())
        .check("limits", move || std::future::ready(ready.is_ready()))
        .note("store", move || if engine.is_up() { "decides" } else { "away" });
    let admin_router = admin::router(readiness).merge(app.admin());
    let admin_router = service_app::finish(
        admin_router,
        service_app::Bounds { quiet: true, ..service_app::Bounds::default() },
    );
    let admin =
        tokio::spawn(listen::serve("admin_listen", admin_listener, admin_router, shutdown.clone()));
    match listener {
        Listener::Tcp(tcp) => public::tcp(tcp, app.public(), shutdown).await,
        Listener::Unix(unix) => public::unix(unix, app.public(), shutdown).await,
    }
    app.end(tasks).await;
    if let Listen::Unix(path) = &config.listen {
        app::remove_socket(path);
    }
    admin.await.map_err(|error| Stop::software(&error))
}
