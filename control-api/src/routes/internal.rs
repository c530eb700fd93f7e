//! What sidecars ask on the internal listener: the record of a verified subject.

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use gatehouse_contract::{
    Reason,
    sidecar::{PrincipalAsk, PrincipalFacts},
};
use gatehouse_service::Reply;
use tracing::Span;
use uuid::Uuid;

use crate::routes::{Api, refused};

/// `POST /internal/v1/principal`: the facts, or 404 where the record knows no such issuer, tenant or subject.
pub async fn principal(
    State(api): State<Api>,
    body: Result<Json<PrincipalAsk>, JsonRejection>,
) -> Result<Json<PrincipalFacts>, Reply> {
    let Json(ask) = body.map_err(|error| {
        Reply::mistake("$", error.body_text(), "send a question as the contract has it")
    })?;
    let PrincipalAsk::Subject { issuer, tenant, subject, .. } = ask else {
        return Err(Reason::NotFound.into());
    };
    Span::current().record("tenant.id", tracing::field::display(tenant));
    // Subjects of other issuers are mapped to users of ours with the identity issue; until then they are unknown.
    if issuer != api.tokens.issuer {
        return Err(Reason::NotFound.into());
    }
    let subject: Uuid = subject.parse().map_err(|_| Reason::NotFound)?;
    let facts = api.store.lookup().principal(tenant, subject).await.map_err(refused)?;
    facts.map(Json).ok_or_else(|| Reason::NotFound.into())
}
