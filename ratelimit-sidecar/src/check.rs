//! `POST /v1/check`: may a request pass its limits?
//! The verdict is the body's; the status is 200 for both, 503 when no verdict can be had.

use axum::{
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Reason, sidecar::CheckAsk};
use gatehouse_service::{Reply, body::wire};

use crate::{
    app::{App, json},
    store::Store,
};

pub async fn check<S: Store>(State(app): State<App<S>>, body: Bytes) -> Response {
    let ask: CheckAsk = match wire(&body) {
        Ok(ask) => ask,
        Err(refusal) => return refusal.into_response(),
    };
    match app.engine.check(&ask).await {
        Ok(answer) => json(&answer),
        Err(_) => Reply::new(Reason::LimiterUnavailable).into_response(),
    }
}
