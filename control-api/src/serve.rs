//! Puts the service together and runs it until it is told to stop.

mod reads;

use std::{path::Path, sync::Arc, time::Duration};

use gatehouse_contract::rbac::Matrix;
use gatehouse_outbound::{Client, Guard, Trust};
use gatehouse_redis_kit::{cred::Permissions, logs::Logs};
use gatehouse_service::{
    Shutdown, Stop,
    admin::{self, Readiness},
    app::{self, Bounds},
    exit::chain,
    listen,
    metrics::Requests,
};
use gatehouse_store::{Store, connect};
use tracing::{info, warn};

use crate::{
    bodies,
    cache::Cache,
    config::{self, Config},
    deliverer, erasure,
    keyring::{self, Keyring},
    months,
    oidc::{self, SignIn},
    openapi, publisher,
    relay::{Relay, status::Status},
    routes::{self, Api, logs::Live, reference::Reference},
    schemas::Schemas,
    sealer::{self, Sealer},
    watchers::{self, Watchers, rights::Rights},
};

/// How long filling the permission cache may take: a sidecar waits for its answer meanwhile.
const FILL: Duration = Duration::from_millis(100);
/// How long Redis has for what running logs are asked.
const LOGS: Duration = Duration::from_secs(2);

/// `serve`.
pub async fn run(path: &Path) -> Result<(), Stop> {
    let Config {
        listen,
        internal_listen,
        admin_listen,
        tokens,
        database,
        replica,
        redis,
        kafka,
        sealer,
        cursors,
        peppers,
        image_store,
        sign_in,
    } = config::load(path)?;
    // Ports first: what is taken is known before anything is touched.
    let public = listen::bind("listen", listen).await?;
    let internal = listen::bind("internal_listen", internal_listen).await?;
    let probes = listen::bind("admin_listen", admin_listen).await?;
    let store = open_with(&database, replica.as_deref()).await?.with_keys(sealer.keys());
    let sealer = Arc::new(sealer);
    let keyring = Arc::new(Keyring::new(store.clone(), Arc::clone(&sealer), &tokens));
    keyring.ensure().await.map_err(keys_stop)?;
    let matrix = Matrix::builtin().map_err(|error| Stop::software(&error))?;
    let bodies = bodies::builtin().map_err(|error| Stop::software(&error))?;
    let document = openapi::document(&routes::table::endpoints());
    let document = document.map_err(|error| Stop::software(&error))?;
    let rules = routes::rules(&tokens);
    let status = Arc::new(Status::default());
    let (relay, permissions, cache, live) = match &redis {
        Some(address) => {
            let stop = |error| Stop::usage(vec![format!("$.redis.url: {error}")]);
            let relay = Relay::new(store.clone(), address, Arc::clone(&status)).map_err(stop)?;
            let permissions = Permissions::new(address, FILL).map_err(stop)?;
            let cache = Cache::new(address).map_err(stop)?;
            let logs = Logs::new(address, LOGS).map_err(stop)?;
            let live = Live { logs, watchers: Watchers::new("log") };
            (Some(relay), Some(permissions), cache, Some(live))
        }
        None => {
            warn!("no $.redis: sidecars hear of no change, and ask for every credential again");
            (None, None, Cache::default(), None)
        }
    };
    let seals = Arc::new(sealer::status::Status::default());
    let issuer = tokens.issuer.clone();
    let sealing = database
        .system
        .is_some()
        .then(|| Sealer::new(store.clone(), Arc::clone(&keyring), issuer, Arc::clone(&seals)));
    if sealing.is_none() {
        warn!(
            "no $.database.system: this process neither seals the audit, keeps months nor delivers webhooks"
        );
    }
    let months = Arc::new(months::Status::default());
    let (standing, reads) = (store.clone(), store.clone());
    let events = Arc::new(publisher::status::Status::default());
    if kafka.is_none() {
        warn!("no $.kafka: events are published nowhere, and wait in their outbox");
    }
    let published = kafka.is_some();
    let (_trigger, shutdown) = Shutdown::on_signals()?;
    // What no provider's document and no webhook may lead to.
    let own = [&internal, &probes].into_iter().filter_map(|listener| listener.local_addr().ok());
    let own: Vec<_> = own.collect();
    let webhooks = Arc::new(deliverer::status::Status::default());
    let trust = Trust::new(None).map_err(|error| Stop::software(&error))?;
    let delivering = deliverer::Tools {
        store: store.clone(),
        sealer: Arc::clone(&sealer),
        client: Client::new(trust, oidc::AGENT),
        guard: Guard::new([], own.clone()),
        deadline: deliverer::SEND,
        status: Arc::clone(&webhooks),
    };
    let sign_in = sign_in.map(|settings| Arc::new(SignIn::new(settings, own)));
    let state = Api {
        store: store.clone(),
        keyring,
        matrix: Arc::new(matrix),
        bodies: Arc::new(bodies),
        rules: Arc::new(rules),
        tokens: Arc::new(tokens),
        peppers: Arc::new(peppers),
        image_store: image_store.into(),
        schemas: Schemas::default(),
        permissions,
        cache: cache.clone(),
        sealer,
        cursors: Arc::new(cursors),
        reference: Arc::new(Reference::new(&document)),
        sign_in,
        watchers: Watchers::new("execution"),
        live,
        rights: Rights::default(),
    };
    let probe = store.clone();
    let ready = Readiness::new(shutdown.clone()).check("postgres", move || {
        let store = probe.clone();
        async move { store.is_reachable().await }
    });
    info!(version = env!("CARGO_PKG_VERSION"), "starting");
    let requests = Requests::default();
    let finish = |router| app::finish_counted(router, Bounds::default(), requests.clone());
    let (word, text) = (Arc::clone(&status), Arc::clone(&status));
    let ready = if relay.is_some() { ready.note("relay", move || word.word()) } else { ready };
    let word = cache.clone();
    let ready = if redis.is_some() { ready.note("cache", move || word.word()) } else { ready };
    let ready = match &sealing {
        Some(_) => {
            let word = Arc::clone(&seals);
            let kept = Arc::clone(&months);
            let ready =
                ready.note("audit_seals", move || word.word()).note("months", move || kept.word());
            let told = Arc::clone(&events);
            let sent = Arc::clone(&webhooks);
            ready
                .note("events", move || if published { told.word() } else { "kept" })
                .note("webhooks", move || sent.word())
        }
        None => ready,
    };
    let ready = match replica {
        Some(_) => ready.note("replica", move || reads::word(&standing)),
        None => ready,
    };
    let metrics = requests.router_with({
        let (cache, events) = (cache.clone(), Arc::clone(&events));
        let (watchers, live) = (state.watchers.clone(), state.live.clone());
        move || {
            let own = text.render()
                + &seals.render()
                + &cache.render()
                + &events.render()
                + &webhooks.render()
                + &watchers.render()
                + &live.as_ref().map(|live| live.watchers.render()).unwrap_or_default();
            own + &reads::render(&reads)
        }
    });
    let admin = admin::router(ready).merge(metrics);
    let relaying = async {
        if let Some(relay) = relay {
            relay.run(shutdown.clone()).await;
        }
    };
    let jobs = async {
        if let Some(sealer) = sealing {
            let keeping = months::run(store.clone(), months, shutdown.clone());
            let erasing = erasure::run(store.clone(), cache.clone(), shutdown.clone());
            let publishing = publisher::Task::new(store.clone(), kafka, events);
            let publishing = publishing.run(shutdown.clone());
            tokio::join!(
                sealer.run(shutdown.clone()),
                keeping,
                erasing,
                publishing,
                deliverer::run(delivering, shutdown.clone())
            );
        }
    };
    let watching = async {
        let looking = watchers::Executions(store.clone());
        let logs = async {
            if let Some(live) = &state.live {
                let look = watchers::Logs(live.logs.clone());
                live.watchers.clone().run(look, shutdown.clone()).await;
            }
        };
        tokio::join!(
            state.watchers.clone().run(looking, shutdown.clone()),
            logs,
            state.rights.clone().run(state.clone(), shutdown.clone())
        );
    };
    tokio::join!(
        relaying,
        watching,
        cache.follow(shutdown.clone()),
        reads::watch(store.clone(), shutdown.clone()),
        jobs,
        listen::serve("listen", public, finish(routes::public(&state)), shutdown.clone()),
        listen::serve(
            "internal_listen",
            internal,
            finish(routes::internal(&state)),
            shutdown.clone()
        ),
        listen::serve(
            "admin_listen",
            probes,
            app::finish(admin, Bounds { quiet: true, ..Bounds::default() }),
            shutdown.clone()
        ),
    );
    store.close().await;
    info!("stopped");
    Ok(())
}

/// Opens the store, or says in one line why it does not open.
pub async fn open(urls: &connect::Urls) -> Result<Store, Stop> {
    open_with(urls, None).await
}

async fn open_with(urls: &connect::Urls, replica: Option<&str>) -> Result<Store, Stop> {
    let opened = async {
        let store = Store::connect(urls).await?;
        match replica {
            Some(url) => store.with_replica(url).await,
            None => Ok(store),
        }
    };
    opened.await.map_err(|error| match &error {
        connect::Error::Url { .. } => Stop::usage(vec![format!("$.database: {error}")]),
        connect::Error::Unreachable { .. } => Stop::unavailable(format!(
            "$.database: {}; check the address, the password and that PostgreSQL runs",
            chain(&error)
        )),
        connect::Error::Refused { .. }
        | connect::Error::NotMigrated
        | connect::Error::NoReplica { .. } => Stop::refused(format!("$.database: {error}")),
    })
}

pub fn keys_stop(error: keyring::Error) -> Stop {
    match error {
        keyring::Error::Sealed(_) => Stop::refused(format!(
            "$.key_file: {error}; use the file that the stored signing key was sealed with"
        )),
        keyring::Error::Store(_) => {
            Stop::unavailable(format!("$.database: {}; check that PostgreSQL runs", chain(&error)))
        }
        _ => Stop::software(&error),
    }
}
