//! The OpenAPI 3.1 document of every route of the sidecar, as it stands in `docs/openapi/ratelimit-sidecar.json`.
//! The tests hold it to the routes that are served and to the wire types of `contract`.
//! Knows no handler.

use axum::{
    http::{HeaderValue, header::CONTENT_TYPE},
    response::IntoResponse,
};

const DOCUMENT: &str = include_str!("../../docs/openapi/ratelimit-sidecar.json");

pub async fn serve() -> impl IntoResponse {
    (
        [(CONTENT_TYPE, HeaderValue::from_static("application/vnd.oai.openapi+json;version=3.1"))],
        DOCUMENT,
    )
}

#[cfg(test)]
mod tests;
