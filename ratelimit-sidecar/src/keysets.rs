//! `GET /v1/jwks`: an issuer's key set, fetched once for all workers of all filters beside us.
//! Single flight; every cause of a fetch has a budget of its own; a stale set serves while the issuer is away; names
//! of keys that the issuer does not have are remembered. Verifies nothing: filters judge the keys.

pub mod fetch;
pub mod schedule;

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Reason, sidecar::JwksAnswer};
use gatehouse_outbound::Client;
use gatehouse_service::{Reply, Shutdown, exit::chain};
use serde::Deserialize;
use tokio::{
    sync::{Mutex, Notify},
    task::JoinSet,
    time::Instant,
};
use tracing::{info, warn};

use self::{
    fetch::{Fetched, KeySet},
    schedule::{Ages, Next, Question, Schedule},
};
use crate::{
    app::{App, json},
    config::{Issuer, Source},
    lru::Lru,
    metrics::{Asked, Metrics},
    store::Store,
};

/// Names of keys that an issuer does not have; about 100 bytes each.
const ABSENT: usize = 1000;
/// How long such a name is remembered.
const ABSENT_FOR: Duration = Duration::from_secs(60);
/// A longer name is no key's.
const KID_BYTES: usize = 256;
/// Discovery is repeated this long after it told the address, and when a fetch from there failed.
const DISCOVERED_FOR: Duration = Duration::from_secs(3600);

/// The key sets of all configured issuers.
#[derive(Clone)]
pub struct KeySets(Arc<HashMap<String, Arc<Entry>>>);

struct Entry {
    issuer: Issuer,
    client: Client,
    metrics: Arc<Metrics>,
    current: RwLock<Current>,
    /// Held by the one fetch that may be under way.
    flight: Arc<Mutex<()>>,
    /// The next refresh has another time.
    moved: Notify,
}

struct Current {
    keys: Option<Arc<KeySet>>,
    schedule: Schedule,
    /// Until when they are believed to be absent.
    absent: Lru<String, Instant>,
    discovered: Option<(String, Instant)>,
}

#[derive(Deserialize)]
pub struct Ask {
    issuer: String,
    kid: Option<String>,
}

impl KeySets {
    pub fn new(client: &Client, issuers: &[Issuer], ages: Ages, metrics: &Arc<Metrics>) -> Self {
        let entries = issuers.iter().map(|issuer| {
            let entry = Entry {
                issuer: issuer.clone(),
                client: client.clone(),
                metrics: Arc::clone(metrics),
                current: RwLock::new(Current {
                    keys: None,
                    schedule: Schedule::new(ages),
                    absent: Lru::new(ABSENT),
                    discovered: None,
                }),
                flight: Arc::default(),
                moved: Notify::new(),
            };
            (issuer.issuer.clone(), Arc::new(entry))
        });
        Self(Arc::new(entries.collect()))
    }

    /// Refreshes every set when it is due, until the shutdown, so that a key that an issuer withdrew is gone from
    /// every filter though nobody asks for it (acceptance J16).
    pub fn keep_fresh(&self, tasks: &mut JoinSet<()>, shutdown: &Shutdown) {
        for entry in self.0.values() {
            let (entry, shutdown) = (Arc::clone(entry), shutdown.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = entry.keep_fresh() => {}
                    () = shutdown.requested() => {}
                }
            });
        }
    }

    /// The generation of every set that may be used, by issuer.
    pub fn generations(&self) -> BTreeMap<String, u64> {
        let now = Instant::now();
        let generation = |entry: &Arc<Entry>| {
            let current = entry.read();
            current.keys.as_ref().filter(|_| current.schedule.is_usable(now)).map(|k| k.generation)
        };
        self.0.iter().filter_map(|(name, entry)| Some((name.clone(), generation(entry)?))).collect()
    }

    /// How many issuers there are, and of how many there is a set that may be used.
    pub fn ready(&self) -> (usize, usize) {
        (self.0.len(), self.generations().len())
    }

    /// This issuer, or every one, was said to have other keys.
    pub fn pushed(&self, issuer: Option<&str>) {
        for entry in self.0.values().filter(|e| issuer.is_none_or(|name| name == e.issuer.issuer)) {
            entry.write().schedule.pushed(Instant::now());
            entry.moved.notify_one();
        }
    }
}

impl Entry {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Current> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep_fresh(self: Arc<Self>) {
        loop {
            let wait = self.read().schedule.until_due(Instant::now());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.moved.notified() => continue,
            }
            if let Err(error) = self.spawn_fetch(None, Instant::now()).await {
                warn!(issuer = self.issuer.issuer, %error, "a key fetch ended early");
            }
        }
    }

    /// The set to answer with, after the fetch that the question calls for, if any. None when there is no set that
    /// may be used, and when a key is asked for that is not in it and the issuer cannot be asked: then nobody can
    /// say whether that key is good (acceptance J13).
    async fn get(self: &Arc<Self>, kid: Option<&str>) -> Option<JwksAnswer> {
        let asked = Instant::now();
        let under_way = self.flight.try_lock().is_err();
        match self.next(kid, asked, under_way) {
            Next::Serve => {}
            // The answer does not wait: what is there is good enough.
            Next::Refresh => drop(self.spawn_fetch(None, asked)),
            Next::Fetch => {
                let fetched = self.spawn_fetch(kid.map(str::to_owned), asked).await;
                if let Err(error) = fetched {
                    warn!(issuer = self.issuer.issuer, %error, "a key fetch ended early");
                }
            }
        }
        let now = Instant::now();
        let mut current = self.write();
        let keys = Arc::clone(current.keys.as_ref()?);
        let max_age = current.schedule.max_age(now)?;
        if let Some(kid) = kid.filter(|kid| kid.len() <= KID_BYTES && !keys.has(kid)) {
            if current.schedule.is_newer_than(asked) {
                current.absent.insert(kid.to_owned(), now + ABSENT_FOR);
            } else if current.schedule.is_failing() && !is_absent(&mut current.absent, kid, now) {
                return None;
            }
        }
        Some(JwksAnswer {
            generation: keys.generation,
            jwks: keys.text.clone(),
            max_age_ms: u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn next(&self, kid: Option<&str>, asked: Instant, under_way: bool) -> Next {
        let now = Instant::now();
        let mut current = self.write();
        let misses_key = match (&current.keys, kid) {
            (Some(keys), Some(kid)) => {
                kid.len() <= KID_BYTES
                    && !keys.has(kid)
                    && !is_absent(&mut current.absent, kid, now)
            }
            _ => false,
        };
        current.schedule.next(Question { asked, misses_key, under_way }, now)
    }

    /// Fetches in a task of its own, which ends within the fetch's deadline: a filter that hangs up after its own
    /// timeout must not throw away a fetch that takes a little longer.
    fn spawn_fetch(
        self: &Arc<Self>,
        kid: Option<String>,
        asked: Instant,
    ) -> tokio::task::JoinHandle<()> {
        let entry = Arc::clone(self);
        tokio::spawn(async move {
            let _flight = entry.flight.lock().await;
            // Whoever held the flight before may have brought what we came for.
            if entry.next(kid.as_deref(), asked, false) == Next::Serve {
                return;
            }
            entry.fetch(kid.as_deref()).await;
            entry.moved.notify_one();
        })
    }

    async fn fetch(&self, kid: Option<&str>) {
        let begun = Instant::now();
        let discovered = {
            let mut current = self.write();
            let missed =
                kid.is_some_and(|kid| current.keys.as_ref().is_some_and(|keys| !keys.has(kid)));
            current.schedule.begin(missed, begun);
            let failing = current.schedule.is_failing();
            current.discovered.take_if(|(_, at)| failing || at.elapsed() >= DISCOVERED_FOR);
            current.discovered.as_ref().map(|(url, _)| url.clone())
        };
        let issuer = &self.issuer.issuer;
        let fetched = self.fetch_from(discovered).await;
        let mut current = self.write();
        match fetched {
            Ok(Fetched { keys, fresh }) => {
                self.metrics.keys_fetched(Asked::Answered);
                if current.keys.as_ref().is_none_or(|old| old.generation != keys.generation) {
                    info!(issuer, keys = keys.len(), "the issuer's keys changed");
                }
                current.keys = Some(Arc::new(keys));
                current.schedule.succeeded(begun, fresh);
            }
            Err(error) => {
                self.metrics.keys_fetched(Asked::Failed);
                warn!(issuer, error = %chain(&error), "the issuer's keys cannot be had");
                current.schedule.failed(Instant::now(), chance());
            }
        }
    }

    async fn fetch_from(&self, discovered: Option<String>) -> Result<Fetched, fetch::Error> {
        let guard = &self.issuer.guard;
        let url = match (&self.issuer.source, discovered) {
            (Source::Fixed(url), _) => url.clone(),
            (Source::Discovery, Some(url)) => url,
            (Source::Discovery, None) => {
                let url = fetch::discover(&self.client, guard, &self.issuer.issuer).await?;
                self.write().discovered = Some((url.clone(), Instant::now()));
                url
            }
        };
        fetch::key_set(&self.client, guard, &url).await
    }
}

fn is_absent(absent: &mut Lru<String, Instant>, kid: &str, now: Instant) -> bool {
    absent.get(kid).is_some_and(|until| now < *until)
}

/// From 0 to 1; every call another. Not for secrets.
fn chance() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

pub async fn jwks<S: Store>(
    State(app): State<App<S>>,
    ask: Result<Query<Ask>, QueryRejection>,
) -> Response {
    let Ok(Query(ask)) = ask else {
        return Reply::mistake("$.issuer", "missing", "name an issuer in the query")
            .into_response();
    };
    let Some(entry) = app.keysets.0.get(&ask.issuer) else {
        return Reply::new(Reason::NotFound).into_response();
    };
    match entry.get(ask.kid.as_deref()).await {
        Some(answer) => json(&answer),
        None => Reply::new(Reason::IdentityUnavailable).into_response(),
    }
}
