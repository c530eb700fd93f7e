//! `POST /v1/lease`: a check, passes to take along, and passes handed back.
//! Knows no ledger; the engine does.

use axum::{
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Reason, sidecar::LeaseAsk};
use gatehouse_service::{Reply, body::wire};

use crate::{
    app::{App, json},
    store::Store,
};

pub async fn lease<S: Store>(State(app): State<App<S>>, body: Bytes) -> Response {
    let ask: LeaseAsk = match wire(&body) {
        Ok(ask) => ask,
        Err(refusal) => return refusal.into_response(),
    };
    match app.engine.lease(&ask).await {
        Ok(answer) => json(&answer),
        Err(_) => Reply::new(Reason::LimiterUnavailable).into_response(),
    }
}
