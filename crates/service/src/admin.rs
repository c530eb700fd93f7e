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

type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// The checks of `/readyz`.
#[derive(Clone)]
pub struct Readiness {
    checks: Vec<(&'static str, Check)>,
    shutdown: Shutdown,
}

impl Readiness {
    /// Ready as soon as it serves, until the shutdown is asked for.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { checks: Vec::new(), shutdown }
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

    async fn answer(&self) -> Response {
        let mut states = Map::new();
        let mut ready = !self.shutdown.is_requested();
        for (name, check) in &self.checks {
            let up = tokio::time::timeout(CHECK, check()).await.unwrap_or(false);
            ready &= up;
            states.insert((*name).to_owned(), Value::from(if up { "up" } else { "down" }));
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
