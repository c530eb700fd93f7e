//! The OpenAPI document as it is served, and a page of it for people: made once at start, whole, without a script and
//! without anything from elsewhere, so that it reads offline. Knows no endpoint.

mod render;

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::Api;

const KIND: HeaderValue = HeaderValue::from_static("application/vnd.oai.openapi+json;version=3.1");
/// It changes with a release alone.
const CACHE: (HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
/// Nothing is loaded and nothing runs, whatever a browser would find in it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Both, as text.
pub struct Reference {
    document: String,
    page: String,
}

impl Reference {
    pub fn new(document: &Value) -> Self {
        Self { document: document.to_string(), page: render::page(document) }
    }
}

#[cfg(test)]
pub fn page_of(document: &Value) -> String {
    render::page(document)
}

/// `GET /api/v1/openapi.json`.
pub async fn document(State(api): State<Api>) -> Response {
    let reference = Arc::clone(&api.reference);
    ([(header::CONTENT_TYPE, KIND), CACHE], reference.document.clone()).into_response()
}

/// `GET /api/v1/reference`.
pub async fn page(State(api): State<Api>) -> Response {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let headers = [
        (header::CONTENT_TYPE, html),
        CACHE,
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, api.reference.page.clone()).into_response()
}
