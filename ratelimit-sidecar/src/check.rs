//! `POST /v1/check`: may a request pass its limits?
//! The verdict is the body's; the status is 200 for both, 503 when no verdict can be had.

use std::time::Instant;

use axum::{
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Reason, sidecar::CheckAsk};
use gatehouse_service::{Reply, exit::chain};
use tracing::{info, warn};

use crate::{
    app::{App, json},
    metrics::Outcome,
    store::Store,
};

pub async fn check<S: Store>(State(app): State<App<S>>, body: Bytes) -> Response {
    let ask: CheckAsk = match serde_json::from_slice(&body) {
        Ok(ask) => ask,
        Err(error) => {
            // The caller is a filter of ours: what serde says of its body tells a client nothing.
            return Reply::mistake("$", error.to_string(), "send a check as the contract has it")
                .into_response();
        }
    };
    let rules = app.policy.rules(ask.tier, &ask.method, &ask.route);
    let start = Instant::now();
    let decided = app.store.decide(ask.tenant, rules, ask.cost).await;
    app.metrics.store_took(start.elapsed());
    match decided {
        Ok(decision) => {
            if app.metrics.store_is_up() {
                info!("limits are decided again");
            }
            app.metrics.checked(ask.tier, Outcome::of(&decision));
            json(&decision.answer(rules))
        }
        Err(error) => {
            // One line when it begins; the metric counts the rest.
            if app.metrics.store_is_away() {
                warn!(error = %chain(&error), "limits cannot be decided");
            }
            app.metrics.checked(ask.tier, Outcome::Unavailable);
            Reply::new(Reason::LimiterUnavailable).into_response()
        }
    }
}
