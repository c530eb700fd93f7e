//! `POST /v1/check`: may a request pass its limits?
//! The verdict is the body's; the status is 200 for both, 503 when no verdict can be had.

use axum::{
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use gatehouse_contract::{Reason, sidecar::CheckAsk};
use gatehouse_service::Reply;

use crate::{
    app::{App, json},
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
    match app.engine.check(&ask).await {
        Ok(answer) => json(&answer),
        Err(_) => Reply::new(Reason::LimiterUnavailable).into_response(),
    }
}
