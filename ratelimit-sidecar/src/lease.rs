//! `POST /v1/lease`: a check, passes to take along, and passes handed back.
//! Knows no ledger; the engine does.

use axum::{
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Reason, sidecar::LeaseAsk};
use gatehouse_service::Reply;

use crate::{
    app::{App, json},
    store::Store,
};

pub async fn lease<S: Store>(State(app): State<App<S>>, body: Bytes) -> Response {
    let ask: LeaseAsk = match serde_json::from_slice(&body) {
        Ok(ask) => ask,
        Err(error) => {
            // The caller is a filter of ours: what serde says of its body tells a client nothing.
            return Reply::mistake("$", error.to_string(), "send an ask as the contract has it")
                .into_response();
        }
    };
    match app.engine.lease(&ask).await {
        Ok(answer) => json(&answer),
        Err(_) => Reply::new(Reason::LimiterUnavailable).into_response(),
    }
}
