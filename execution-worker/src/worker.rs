//! The process: checks at start, the loops, the drain. Knows the order of things and none of their insides.

use std::{path::Path, sync::Arc, time::Duration};

use gatehouse_contract::TenantId;
use gatehouse_redis_kit::{Address, logs::Logs, queue::Queue};
use gatehouse_service::{
    Shutdown, Stop,
    admin::{self, Readiness},
    app::{self, Bounds},
    exit::chain,
    listen,
};
use gatehouse_store::{Error, Store, Urls, connect};
use tokio::{sync::watch, task::JoinSet};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::{
    config::Config,
    consume::{Consumer, all},
    driver::{self, choice::Demo},
    execute::{self, Shared},
    feeder, ghosts, hooks,
    leases::Leases,
    left::Left,
    live::Live,
    metrics::{Gauges, Metrics},
    pulse::{self, Pulse},
    reload::File,
    spool::Spool,
    state_dir::{self, StateDir},
};

/// How long one Redis operation may take.
const REDIS: Duration = Duration::from_secs(3);
/// How long ended runs may take to be cleaned up and handed back.
const HAND_BACK: Duration = Duration::from_secs(15);

/// Runs the worker until `shutdown`. `file` is where `config` was read: what is live in it is followed.
pub async fn serve(config: Config, file: File, shutdown: Shutdown) -> Result<(), Stop> {
    let state = take(&config.state_dir)?;
    // Not raced with the shutdown: a self-test that is dropped leaves sandboxes.
    let driver = driver::open(&config, &state).await?;
    let spool = Spool::open(state.spool(), config.keys.clone()).map_err(|error| {
        Stop::unavailable(format!(
            "$.state_dir: {}; choose a folder that this user can write",
            chain(&error)
        ))
    })?;
    let listener = listen::bind("admin_listen", config.admin_listen).await?;
    let opening = open_stores(&config);
    let (store, queue) = tokio::select! {
        opened = opening => opened?,
        () = shutdown.requested() => {
            driver.close();
            info!("ended before it took any work");
            return Ok(());
        }
    };
    // A name that was never used before: leases of an earlier start are not ours.
    let incarnation = format!("{}-{}", config.worker_id, Uuid::new_v4());
    let pulse = Pulse::start(store.clone(), incarnation.clone(), config.lease)
        .await
        .map_err(|error| Stop::unavailable(format!("$.database.system: {}", chain(&error))))?;
    // Not waited for: it is for the record alone.
    let (left, records) = (Left::new(state.left()), store.clone());
    let settling = tokio::spawn(async move { left.settle(&records).await });
    let effect = file.in_effect();
    info!(worker = incarnation, driver = driver.name(), config.version = %effect.borrow().version,
        results.kept = spool.waiting(), "started");

    let (hand_back, asked) = watch::channel(false);
    let (leases, metrics) = (Leases::default(), Metrics::default());
    let shared = Arc::new(Shared {
        store: store.clone(),
        driver,
        pulse: pulse.clone(),
        leases: leases.clone(),
        working: ghosts::Working::default(),
        spool,
        busy: Arc::default(),
        metrics: metrics.clone(),
        live: open_logs(&config.redis),
        effect: effect.clone(),
        incarnation: incarnation.clone(),
        hand_back: asked,
    });
    let mut loops = JoinSet::new();
    let beating = pulse.clone();
    let beats = tokio::spawn(async move { beating.run().await });
    let (looking, theirs) = (store.clone(), incarnation.clone());
    let looks = tokio::spawn(async move { leases.watch(&looking, &theirs).await });
    let ghosts = tokio::spawn(ghosts::give_back(Arc::clone(&shared)));
    loops.spawn(file.follow(metrics, shutdown.clone()));
    let telling = tokio::spawn(Arc::clone(&shared).empty_spool(shutdown.clone()));
    loops.spawn(hooks::recover(Arc::clone(&shared), config.lease, shutdown.clone()));
    loops.spawn(feeder::run(store.clone(), queue.clone(), shutdown.clone()));
    let depths = queue.clone();
    loops.spawn(pulse::sweep(pulse, shutdown.clone(), move || {
        let queue = depths.clone();
        async move { feeder::depth(&queue).await.ok() }
    }));
    let router = admin::router(readiness(&shutdown, &store, &queue, &shared));
    let router = router.merge(metrics_of(&shared, &queue));
    let router = app::finish(router, Bounds { quiet: true, ..Bounds::default() });
    // As long as runs end: who asks for liveness meanwhile must not take the drain for a failure.
    let (drained, until_drained) = Shutdown::manual();
    loops.spawn(listen::serve("admin_listen", listener, router, until_drained));

    let runs = Consumer::new(Arc::clone(&shared), queue, shutdown.clone()).run().await;
    let bound = effect.borrow().live.drain;
    drain(&shared, runs, bound, &hand_back, &shutdown).await;
    telling.abort();
    drained.ask();
    while loops.join_next().await.is_some() {}
    // Last: until here the leases had to stand.
    beats.abort();
    looks.abort();
    settling.abort();
    ghosts.abort();
    store.close().await;
    shared.driver.close();
    drop(state);
    info!(worker = incarnation, results.kept = shared.spool.waiting(), "ended");
    Ok(())
}

/// What runs log while they go on; nowhere where Redis cannot be named so, which the queue has said by then.
fn open_logs(url: &str) -> Live {
    let address = url.parse::<Address>().ok();
    Live::new(address.and_then(|address| Logs::new(&address, REDIS).ok()))
}

async fn open_stores(config: &Config) -> Result<(Store, Queue), Stop> {
    let (app, system) = (config.database_app.clone(), config.database_system.clone());
    let store = open_store(app, system).await?.with_keys(config.keys.clone());
    // Another key would let every claim fail, one execution after the other.
    store.judge_keys().await.map_err(|error| match error {
        Error::Locked(_) => Stop::refused(format!(
            "$.key_file: {}; use the control API's key file, with every key that it ever had since its last `reseal`",
            chain(&error)
        )),
        _ => Stop::unavailable(format!("$.database.system: {}", chain(&error))),
    })?;
    if let Some(Demo(tenants)) = config.driver.demo() {
        for tenant in tenants {
            judge_tenant(&store, *tenant).await?;
        }
    }
    let queue = open_queue(&config.redis).await?;
    Ok((store, queue))
}

/// A tenant that runs without isolation must be one: an id that is mistyped may be another's tomorrow.
async fn judge_tenant(store: &Store, tenant: TenantId) -> Result<(), Stop> {
    let op = execute::op_of("start", tenant);
    let known = async { store.tenant(&op).await?.within().standings().await };
    match known.await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Stop::refused(format!(
            "$.demo_tenants: {tenant} is no tenant of this database; name those that were made for the demo"
        ))),
        Err(error) => Err(Stop::unavailable(format!("$.database.app: {}", chain(&error)))),
    }
}

fn take(path: &Path) -> Result<StateDir, Stop> {
    StateDir::take(path).map_err(|error| {
        let mend = match error {
            state_dir::Error::Taken(_) => "stop it or choose another folder",
            state_dir::Error::Io { .. } => "choose a folder that this user can write",
        };
        Stop::unavailable(format!("$.state_dir: {}; {mend}", chain(&error)))
    })
}

async fn open_store(app: String, system: String) -> Result<Store, Stop> {
    Store::connect(&Urls { app, admin: None, system: Some(system) }).await.map_err(|error| {
        let line = format!("$.database: {}", chain(&error));
        match error {
            connect::Error::Refused { .. } => Stop::refused(line),
            connect::Error::Url { .. } => Stop::usage(vec![line]),
            connect::Error::Unreachable { .. } => {
                Stop::unavailable(format!("{line}; start PostgreSQL or correct the URL"))
            }
            connect::Error::NotMigrated | connect::Error::NoReplica { .. } => {
                Stop::unavailable(line)
            }
        }
    })
}

async fn open_queue(url: &str) -> Result<Queue, Stop> {
    Queue::connect(url, REDIS).await.map_err(|error| {
        let mend = "start Redis or correct the URL and the user's rights";
        Stop::unavailable(format!("$.redis: {}; {mend}", chain(&error)))
    })
}

fn readiness(shutdown: &Shutdown, store: &Store, queue: &Queue, shared: &Arc<Shared>) -> Readiness {
    let (store, queue, pulse) = (store.clone(), queue.clone(), shared.pulse.clone());
    let (driver, room, spool) = (shared.driver.name(), Arc::clone(shared), Arc::clone(shared));
    let (metrics, outside) = (shared.metrics.clone(), Arc::clone(shared));
    Readiness::new(shutdown.clone())
        .check("database", move || {
            let store = store.clone();
            async move { store.is_reachable().await }
        })
        .check("redis", move || {
            let queue = queue.clone();
            async move { feeder::depth(&queue).await.is_ok() }
        })
        .check("lease", move || {
            let alive = pulse.is_alive();
            async move { alive }
        })
        .check("room", move || {
            let room = room.driver.admits().is_ok();
            async move { room }
        })
        .check("spool", move || {
            let empty = spool.spool.waiting() == 0;
            async move { empty }
        })
        .note("driver", move || driver)
        .note("egress", move || if outside.driver.asked().is_some() { "proxy" } else { "none" })
        .note("configuration", move || metrics.last_reload().as_str())
}

fn metrics_of(shared: &Arc<Shared>, queue: &Queue) -> axum::Router {
    let (asked, queue) = (Arc::clone(shared), queue.clone());
    shared.metrics.router(shared.effect.clone(), move || {
        let (shared, queue) = (Arc::clone(&asked), queue.clone());
        async move {
            let (starts, asked) = (shared.driver.starts(), shared.driver.asked());
            let (parked, spool) = (queue.parked().await.ok(), shared.spool.waiting());
            let (images, log_bytes) = (shared.driver.images(), shared.live.bytes());
            Gauges { parked, spool, starts, asked, images, log_bytes }
        }
    })
}

/// Lets runs end and be told within `bound`, then ends them and gives their executions back. A second signal does so at once.
async fn drain(
    shared: &Shared,
    mut runs: JoinSet<()>,
    bound: Duration,
    hand_back: &watch::Sender<bool>,
    shutdown: &Shutdown,
) {
    // What waits for a run waits for nothing any more.
    shared.driver.drain().await;
    let going = runs.len();
    let told = async {
        all(&mut runs).await;
        shared.spool.emptied().await;
    };
    let ended = tokio::select! {
        () = told => true,
        () = tokio::time::sleep(bound) => false,
        () = shutdown.insisted() => false,
    };
    if ended {
        info!(runs = going, "drained");
        return;
    }
    warn!(runs = runs.len(), "handing back what still runs");
    hand_back.send_replace(true);
    if tokio::time::timeout(HAND_BACK, all(&mut runs)).await.is_err() {
        error!(runs = runs.len(), "left runs to the next start's sweep");
    }
}
