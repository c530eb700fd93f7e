//! `GET /v1/jwks`: an issuer's key set, fetched once for all workers of all filters beside us.
//! Single flight; scheduled refreshes and those for an unknown key have budgets of their own; a stale set serves
//! while the issuer is away. Verifies nothing: filters judge the keys.

pub mod fetch;
pub mod schedule;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Reason, sidecar::JwksAnswer};
use gatehouse_service::{Reply, exit::chain};
use reqwest::Url;
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};
use tracing::{info, warn};

use self::{
    fetch::KeySet,
    schedule::{Next, Question, Schedule},
};
use crate::{
    app::{App, json},
    config::Issuer,
    metrics::{Asked, Metrics},
    store::Store,
};

/// The key sets of all configured issuers.
#[derive(Clone)]
pub struct KeySets(Arc<HashMap<String, Arc<Entry>>>);

struct Entry {
    issuer: String,
    url: Url,
    client: reqwest::Client,
    metrics: Arc<Metrics>,
    current: RwLock<Current>,
    /// Held by the one fetch that may be under way.
    flight: Arc<Mutex<()>>,
}

#[derive(Default)]
struct Current {
    keys: Option<Arc<KeySet>>,
    schedule: Schedule,
}

#[derive(Deserialize)]
pub struct Ask {
    issuer: String,
    kid: Option<String>,
}

impl KeySets {
    pub fn new(client: reqwest::Client, issuers: &[Issuer], metrics: Arc<Metrics>) -> Self {
        let entries = issuers.iter().map(|issuer| {
            let entry = Entry {
                issuer: issuer.issuer.clone(),
                url: issuer.jwks.clone(),
                client: client.clone(),
                metrics: Arc::clone(&metrics),
                current: RwLock::default(),
                flight: Arc::default(),
            };
            (issuer.issuer.clone(), Arc::new(entry))
        });
        Self(Arc::new(entries.collect()))
    }
}

impl Entry {
    /// The set to answer with, after the fetch that the question calls for, if any.
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
                    warn!(issuer = self.issuer, %error, "a key fetch ended early");
                }
            }
        }
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let keys = current.keys.as_ref()?;
        let max_age = current.schedule.max_age(Instant::now())?;
        Some(JwksAnswer {
            generation: keys.generation,
            jwks: keys.text.clone(),
            max_age_ms: u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn next(&self, kid: Option<&str>, asked: Instant, under_way: bool) -> Next {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let misses_key = match (&current.keys, kid) {
            (Some(keys), Some(kid)) => !keys.has(kid),
            _ => false,
        };
        current.schedule.next(Question { asked, misses_key, under_way }, Instant::now())
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
        })
    }

    async fn fetch(&self, kid: Option<&str>) {
        let begun = Instant::now();
        {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            let missed =
                kid.is_some_and(|kid| current.keys.as_ref().is_some_and(|keys| !keys.has(kid)));
            current.schedule.begin(missed, begun);
        }
        let fetched = fetch::fetch(&self.client, &self.url).await;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        match fetched {
            Ok(keys) => {
                self.metrics.keys_fetched(Asked::Answered);
                if current.keys.as_ref().is_none_or(|old| old.generation != keys.generation) {
                    info!(issuer = self.issuer, keys = keys.len(), "the issuer's keys changed");
                }
                current.keys = Some(Arc::new(keys));
                current.schedule.succeeded(begun);
            }
            Err(error) => {
                self.metrics.keys_fetched(Asked::Failed);
                warn!(issuer = self.issuer, error = %chain(&error), "the issuer's keys cannot be had");
            }
        }
    }
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
