//! Warm starts of the drivers of this machine: after a run a sandbox for another one of the same tenant, image and limits is
//! made in advance, and the claim that finds it sets it aside for itself. Whatever goes wrong with it, the run is made
//! from the beginning. Knows the pool's rules and a sandbox's making, and neither PostgreSQL nor Redis.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gatehouse_contract::{ExecutionId, TenantId};
use gatehouse_execution::{ImageRef, Limits, outcome::Run, sandbox::SandboxId};
use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};
use uuid::Uuid;

use super::{Starts, Task, Watch};
use crate::{
    image::{Image, Images},
    sandbox::{
        self, Fallback, Job, Plan, Prepared, Sandboxes, Stamp,
        pool::{Bounds, Pool, Step},
    },
};

/// This share of the machine's memory stays free of what is made in advance.
const SPARE: u64 = 10;

/// What a sandbox was made for. Only the same again may have it.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    tenant: TenantId,
    image: ImageRef,
    limits: Limits,
    networked: bool,
    stamp: Stamp,
}

/// One that can be taken: the sandbox, and the image that it was made of.
#[derive(Debug)]
pub struct Ready {
    sandbox: Prepared,
    image: Image,
}

/// The sandboxes that are made in advance, and who makes them.
#[derive(Debug)]
pub struct Warm {
    inner: Arc<Inner>,
    maker: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Inner {
    sandboxes: Arc<Sandboxes>,
    images: Arc<Images>,
    pool: Mutex<Pool<Key, Ready>>,
    /// Taken by a claim for the task of this id, and not yet run.
    aside: Mutex<HashMap<SandboxId, Ready>>,
    wake: Notify,
    began: Instant,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    warm: u64,
    cold: BTreeMap<Fallback, u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Warm ===

impl Warm {
    /// Starts to make what will be wanted.
    pub fn start(sandboxes: Arc<Sandboxes>, images: Arc<Images>, bounds: Bounds) -> Self {
        let inner = Arc::new(Inner {
            sandboxes,
            images,
            pool: Mutex::new(Pool::new(bounds)),
            aside: Mutex::default(),
            wake: Notify::new(),
            began: Instant::now(),
            counts: Mutex::default(),
        });
        let making = Arc::clone(&inner);
        Self {
            inner,
            maker: Mutex::new(Some(tokio::spawn(async move { making.make_all().await }))),
        }
    }

    /// A sandbox for `task`, which lives now; it is the task's alone from here on. Says its name.
    pub fn set_aside(&self, task: &Task<'_>) -> Option<SandboxId> {
        let inner = &self.inner;
        if let Some(ready) = lock(&inner.aside).get(&task.id) {
            return Some(ready.id());
        }
        let stamp = inner.sandboxes.stamp();
        let key = Key::of(task, stamp?);
        let taken = lock(&inner.pool).take(&key, inner.now(), |ready| ready.sandbox.fault(stamp));
        match taken {
            Ok(ready) => {
                let id = ready.id();
                lock(&inner.aside).insert(task.id, ready);
                Some(id)
            }
            Err(fault) => {
                inner.wake.notify_one();
                inner.count(fault.unwrap_or(Fallback::Missing));
                None
            }
        }
    }

    /// What was set aside for the task `id`. Once.
    pub fn redeem(&self, id: SandboxId) -> Option<Ready> {
        lock(&self.inner.aside).remove(&id)
    }

    /// Removes what was set aside for the task `id` and will not be used.
    pub async fn release(&self, id: SandboxId) {
        if let Some(ready) = self.redeem(id) {
            self.inner.sandboxes.discard(ready.sandbox).await;
        }
    }

    /// Runs `job`, which has its name, in `ready`. `None` where it must be run from the beginning: nothing of that sandbox is
    /// left then.
    pub async fn run(
        &self,
        ready: Ready,
        image: &Image,
        job: Job<'_>,
        watch: Watch<'_>,
    ) -> Option<Result<Run, sandbox::Error>> {
        let Ready { sandbox, image: made_of } = ready;
        let sandboxes = &self.inner.sandboxes;
        // What its tenant has withdrawn or changed since.
        if made_of.rootfs != image.rootfs || made_of.config != image.config {
            sandboxes.discard(sandbox).await;
            self.inner.count(Fallback::Stale);
            return None;
        }
        match sandboxes.run_prepared(sandbox, job, watch).await {
            Ok(Ok(run)) => {
                lock(&self.inner.counts).warm += 1;
                Some(Ok(run))
            }
            Ok(Err(fallback)) => {
                self.inner.count(fallback);
                None
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// `task` has been run: another one like it may come.
    pub fn used(&self, task: &Task<'_>) {
        let Some(stamp) = self.inner.sandboxes.stamp() else { return };
        lock(&self.inner.pool).want(Key::of(task, stamp), self.inner.now());
        self.inner.wake.notify_one();
    }

    /// Makes nothing any more, and removes what waits. What is set aside still runs.
    pub async fn drain(&self) {
        lock(&self.inner.pool).close();
        self.inner.wake.notify_one();
        let maker = lock(&self.maker).take();
        if let Some(maker) = maker
            && let Err(error) = maker.await
        {
            warn!(error = %error, "left prepared sandboxes to the next sweep");
        }
    }

    /// What was counted so far.
    pub fn starts(&self) -> Starts {
        let prepared = lock(&self.inner.pool).len();
        let counts = lock(&self.inner.counts);
        let cold = |why: Fallback| (why.word(), counts.cold.get(&why).copied().unwrap_or_default());
        Starts { prepared, warm: counts.warm, cold: Fallback::ALL.map(cold).to_vec() }
    }
}

// === impl Ready ===

impl Ready {
    /// Its sandbox's name.
    pub const fn id(&self) -> SandboxId {
        self.sandbox.id()
    }
}

// === impl Inner ===

impl Inner {
    fn now(&self) -> std::time::Duration {
        self.began.elapsed()
    }

    fn count(&self, why: Fallback) {
        *lock(&self.counts).cold.entry(why).or_default() += 1;
    }

    /// One after the other, until the end: making is bounded by that, too.
    async fn make_all(&self) {
        loop {
            let room = self.sandboxes.has_room().is_ok() && !is_short();
            let step = lock(&self.pool).next(self.now(), room);
            match step {
                Step::Make(key) => match self.make(&key).await {
                    Ok(ready) => {
                        let bytes = ready.sandbox.memory_bytes();
                        lock(&self.pool).made(ready, bytes, self.now());
                    }
                    Err(cause) => {
                        warn!(tenant.id = %key.tenant, image = %key.image, cause, "could not prepare a sandbox");
                        lock(&self.pool).failed();
                    }
                },
                Step::Remove(ready) => self.sandboxes.discard(ready.sandbox).await,
                Step::Rest(until) => {
                    let until = async {
                        match until {
                            Some(until) => sleep_until(self.began + until).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = until => {}
                    }
                }
                Step::End => return,
            }
        }
    }

    async fn make(&self, key: &Key) -> Result<Ready, String> {
        let (images, tenant, reference) = (Arc::clone(&self.images), key.tenant, key.image.clone());
        let fetched = spawn_blocking(move || images.fetch(tenant, &reference)).await;
        let image =
            fetched.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        // No lease has the epoch 0.
        let id = SandboxId { execution: ExecutionId::new(Uuid::new_v4()), epoch: 0 };
        let (start, rootfs) = (&image.config.config, &image.rootfs);
        let plan = Plan { id, start, rootfs, limits: &key.limits, networked: key.networked };
        let made = self.sandboxes.prepare(&plan).await;
        let sandbox = made.map_err(|error| gatehouse_service::exit::chain(&error).to_string())?;
        debug!(sandbox = %id, tenant.id = %key.tenant, image = %key.image, "prepared a sandbox");
        Ok(Ready { sandbox, image })
    }
}

// === impl Key ===

impl Key {
    fn of(task: &Task<'_>, stamp: Stamp) -> Self {
        let (image, limits) = (task.image.clone(), *task.limits);
        // What it may ask is said when it runs.
        Self { tenant: task.tenant, image, limits, networked: !task.egress.is_empty(), stamp }
    }
}

/// Whether the machine's memory is needed for what runs. Where it does not say, nothing is made.
fn is_short() -> bool {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    match (field("MemAvailable:"), field("MemTotal:")) {
        (Some(free), Some(total)) => free < total / SPARE,
        _ => true,
    }
}
