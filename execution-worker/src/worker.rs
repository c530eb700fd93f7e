//! The process: checks at start, the loops, the drain. Knows the order of things and none of their insides.

use std::{path::Path, sync::Arc, time::Duration};

use gatehouse_redis_kit::queue::{Delivery, Queue};
use gatehouse_service::{
    Shutdown, Stop,
    admin::{self, Readiness},
    app::{self, Bounds},
    exit::chain,
    listen,
};
use gatehouse_store::{Error, Store, Urls, connect};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::{
    config::Config,
    driver,
    execute::{Claimed, Shared},
    feeder,
    leases::Leases,
    pulse::{self, Pulse},
    state_dir::{self, StateDir},
};

/// How long one Redis operation may take.
const REDIS: Duration = Duration::from_secs(3);
/// How long a read waits for a message.
const BLOCK: Duration = Duration::from_secs(1);
/// A message that its consumer has held for this long is looked at by others. Harmless for one that is still
/// being worked on: PostgreSQL says that it is running.
const STALE: Duration = Duration::from_secs(30);
/// How often to look for those.
const LOOK_FOR_STALE: Duration = Duration::from_secs(10);
/// How many messages to take at once, where so many can be run.
const AT_ONCE: usize = 16;
/// How long to rest after Redis has failed.
const REST: Duration = Duration::from_secs(1);
/// How long ended runs may take to be cleaned up and handed back.
const HAND_BACK: Duration = Duration::from_secs(15);

/// Runs the worker until `shutdown`.
pub async fn serve(config: Config, shutdown: Shutdown) -> Result<(), Stop> {
    let state = take(&config.state_dir)?;
    let driver = driver::open(&config, &state).await?;
    let listener = listen::bind("admin_listen", config.admin_listen).await?;
    let store =
        open_store(config.database_app, config.database_system).await?.with_keys(config.keys);
    // Another key would let every claim fail, one execution after the other.
    store.judge_keys().await.map_err(|error| match error {
        Error::Locked(_) => Stop::refused(format!(
            "$.key_file: {}; use the control API's key file, with every key that it ever had since its last `reseal`",
            chain(&error)
        )),
        _ => Stop::unavailable(format!("$.database.system: {}", chain(&error))),
    })?;
    let queue = open_queue(&config.redis).await?;
    // A name that was never used before: leases of an earlier start are not ours.
    let incarnation = format!("{}-{}", config.worker_id, Uuid::new_v4());
    let pulse = Pulse::start(store.clone(), incarnation.clone(), config.lease)
        .await
        .map_err(|error| Stop::unavailable(format!("$.database.system: {}", chain(&error))))?;
    info!(worker = incarnation, driver = driver.name(), "started");

    let (hand_back, asked) = watch::channel(false);
    let leases = Leases::default();
    let shared = Arc::new(Shared {
        store: store.clone(),
        driver,
        pulse: pulse.clone(),
        leases: leases.clone(),
        incarnation: incarnation.clone(),
        hand_back: asked,
    });
    let mut loops = JoinSet::new();
    let beating = pulse.clone();
    let beats = tokio::spawn(async move { beating.run().await });
    let (looking, theirs) = (store.clone(), incarnation.clone());
    let looks = tokio::spawn(async move { leases.watch(&looking, &theirs).await });
    loops.spawn(feeder::run(store.clone(), queue.clone(), shutdown.clone()));
    let depths = queue.clone();
    loops.spawn(pulse::sweep(store.clone(), config.lease, shutdown.clone(), move || {
        let queue = depths.clone();
        async move { feeder::depth(&queue).await.ok() }
    }));
    let readiness = readiness(&shutdown, &store, &queue, &shared);
    let router = app::finish(admin::router(readiness), Bounds { quiet: true, ..Bounds::default() });
    loops.spawn(listen::serve("admin_listen", listener, router, shutdown.clone()));

    let runs = consume(&shared, &queue, config.concurrency, &shutdown).await;
    drain(runs, config.drain, &hand_back, &shutdown).await;
    while loops.join_next().await.is_some() {}
    // Last: until here the leases had to stand.
    beats.abort();
    looks.abort();
    store.close().await;
    shared.driver.close();
    drop(state);
    info!(worker = incarnation, "ended");
    Ok(())
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
    let (driver, room) = (shared.driver.name(), Arc::clone(shared));
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
        .note("driver", move || driver)
}

/// Takes messages until the shutdown and returns the runs that are still going.
async fn consume(
    shared: &Arc<Shared>,
    queue: &Queue,
    concurrency: usize,
    shutdown: &Shutdown,
) -> JoinSet<()> {
    let free = Arc::new(Semaphore::new(concurrency));
    let mut runs = JoinSet::new();
    let mut stale_at = tokio::time::Instant::now();
    let taking = async {
        loop {
            while runs.try_join_next().is_some() {}
            // A place first, then a message: what cannot be run is left to others.
            let Ok(place) = Arc::clone(&free).acquire_owned().await else { return };
            if !shared.pulse.is_alive() {
                tokio::time::sleep(REST).await;
                continue;
            }
            if let Err(error) = shared.driver.admits() {
                error!(error = %chain(&error), "takes nothing");
                tokio::time::sleep(REST).await;
                continue;
            }
            let mut places = vec![place];
            while places.len() < AT_ONCE
                && let Ok(more) = Arc::clone(&free).try_acquire_owned()
            {
                places.push(more);
            }
            let look_for_stale = tokio::time::Instant::now() >= stale_at;
            let found = if look_for_stale {
                stale_at = tokio::time::Instant::now() + LOOK_FOR_STALE;
                queue.claim_stale(&shared.incarnation, STALE, places.len()).await
            } else {
                queue.read(&shared.incarnation, BLOCK, places.len()).await
            };
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    warn!(error = %chain(&error), "could not read the queue");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            for delivery in found {
                let place = match places.pop() {
                    Some(place) => place,
                    None => match Arc::clone(&free).acquire_owned().await {
                        Ok(place) => place,
                        Err(_) => return,
                    },
                };
                let (shared, queue) = (Arc::clone(shared), queue.clone());
                runs.spawn(async move {
                    one(&shared, &queue, delivery).await;
                    drop(place);
                });
            }
        }
    };
    tokio::select! {
        () = taking => {}
        () = shutdown.requested() => {}
    }
    runs
}

async fn one(shared: &Shared, queue: &Queue, delivery: Delivery) {
    let claimed = match &delivery.job {
        Ok(job) => shared.claim(*job).await,
        Err(refused) => {
            warn!(message = delivery.id, priority = %delivery.priority, error = %refused, "parked a message");
            if let Err(error) = queue.park(&delivery).await {
                warn!(message = delivery.id, error = %chain(&error), "could not park a message");
            }
            return;
        }
    };
    let claimed = match claimed {
        Claimed::No => None,
        Claimed::Yes(run) => Some(run),
        // Left to be claimed again.
        Claimed::NotNow => return,
    };
    // From the claim on the database says whose it is, and the message nothing.
    if let Err(error) = queue.ack(&delivery).await {
        // Delivered again later, and found to be done.
        warn!(message = delivery.id, error = %chain(&error), "could not acknowledge");
    }
    if let Some(run) = claimed {
        shared.run_to_end(*run).await;
    }
}

/// Lets runs end within `bound`, then ends them and gives their executions back. A second signal does so at once.
async fn drain(
    mut runs: JoinSet<()>,
    bound: Duration,
    hand_back: &watch::Sender<bool>,
    shutdown: &Shutdown,
) {
    let going = runs.len();
    let ended = tokio::select! {
        () = all(&mut runs) => true,
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

async fn all(runs: &mut JoinSet<()>) {
    while runs.join_next().await.is_some() {}
}
