//! Which path is answered by whom, on the filters' listener and on the admin listener.
//! Knows no answer.

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use gatehouse_contract::sidecar;
use gatehouse_service::Reply;
use serde::Deserialize;

use crate::{
    app::App,
    asked, check, feed, keysets, lease, openapi, principal,
    store::Store,
    top::{By, MOST},
};

/// What `GET /admin/top` lists unless it is told.
const LISTED: usize = 10;

/// A path, its methods in lower case, and who answers.
type Route<S> = (&'static str, &'static [&'static str], MethodRouter<App<S>>);

/// What filters and gateways ask. `docs/openapi/ratelimit-sidecar.json` has the same, and a test compares.
pub fn public<S: Store>() -> Vec<Route<S>> {
    vec![
        (sidecar::CHECK_PATH, &["get", "post"], get(asked::check::<S>).post(check::check::<S>)),
        (sidecar::LEASE_PATH, &["post"], post(lease::lease::<S>)),
        (sidecar::JWKS_PATH, &["get"], get(keysets::jwks::<S>)),
        (sidecar::PRINCIPAL_PATH, &["post"], post(principal::principal::<S>)),
        (sidecar::CHANGES_PATH, &["get"], get(feed::changes::<S>)),
    ]
}

/// What operators ask, beside `/livez` and `/readyz`.
pub fn admin<S: Store>() -> Vec<Route<S>> {
    vec![
        ("/metrics", &["get"], get(metrics::<S>)),
        ("/admin/top", &["get"], get(top::<S>)),
        ("/openapi.json", &["get"], get(openapi::serve)),
    ]
}

/// A router of `routes`.
pub fn router<S: Store>(routes: Vec<Route<S>>, app: App<S>) -> Router {
    let add = |router: Router<App<S>>, (path, _, answer): Route<S>| router.route(path, answer);
    routes.into_iter().fold(Router::new(), add).with_state(app)
}

async fn metrics<S: Store>(State(app): State<App<S>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, kind)], app.metrics.render(&app.gauges())).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    by: By,
    limit: Option<usize>,
}

async fn top<S: Store>(
    State(app): State<App<S>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let mend = "write by=cost or by=denied, and limit=1 to 100";
    let Ok(Query(Asked { by, limit })) = asked else {
        return Reply::mistake("query", "not understood", mend).into_response();
    };
    let limit = limit.unwrap_or(LISTED);
    if !(1..=MOST).contains(&limit) {
        return Reply::mistake("limit", "out of bounds", mend).into_response();
    }
    Json(app.metrics.limits.top(by, limit)).into_response()
}
