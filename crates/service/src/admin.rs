//! The admin listener's routes: `/livez` (the process runs), `/readyz` (its dependencies answer).
//! Knows no dependency: each service brings its checks.

use std::{pin::Pin, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use gatehouse_contract::Reason;
use serde_json::{Map, Value, json};

use crate::{Reply, Shutdown};

/// How long one check may take.
const CHECK: Duration = Duration::from_secs(2);

/// Says a word of a part that the service can do without.
type Note = Arc<dyn Fn() -> &'static str + Send + Sync>;

type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// The checks of `/readyz`.
#[derive(Clone)]
pub struct Readiness {
    checks: Vec<(&'static str, Check)>,
    notes: Vec<(&'static str, Note)>,
    shutdown: Shutdown,
}

impl Readiness {
    /// Ready as soon as it serves, until the shutdown is asked for.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { checks: Vec::new(), notes: Vec::new(), shutdown }
    }

    /// Adds a dependency; `check` says whether it answers, and has 2 s for that.
    #[must_use]
    pub fn check<F>(
        mut self,
        name: &'static str,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.checks.push((name, Arc::new(move || Box::pin(check()))));
        self
    }

    /// Adds a word on a part without which the service is ready all the same.
    #[must_use]
    pub fn note(
        mut self,
        name: &'static str,
        word: impl Fn() -> &'static str + Send + Sync + 'static,
    ) -> Self {
        self.notes.push((name, Arc::new(word)));
        self
    }

    async fn answer(&self) -> Response {
        let mut states = Map::new();
        let mut ready = !self.shutdown.is_requested();
        for (name, check) in &self.checks {
            let up = tokio::time::timeout(CHECK, check()).await.unwrap_or(false);
            ready &= up;
            states.insert((*name).to_owned(), Value::from(if up { "up" } else { "down" }));
        }
        for (name, word) in &self.notes {
            states.insert((*name).to_owned(), Value::from(word()));
        }
        if ready {
            return Json(json!({"status": "ready", "checks": states})).into_response();
        }
        let why = if self.shutdown.is_requested() { "draining" } else { "a dependency is down" };
        Reply::new(Reason::DependencyUnavailable)
            .detail(why)
            .with("checks", Value::Object(states))
            .into_response()
    }
}

/// The routes; merge further ones (metrics) before [`crate::app::finish`].
pub fn router(readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(async || Json(json!({"status": "alive"}))))
        .route("/readyz", get(async |State(ready): State<Readiness>| ready.answer().await))
        .with_state(readiness)
}
