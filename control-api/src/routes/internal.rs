//! What sidecars ask on the internal listener: the record of a verified subject.

use axum::{Json, extract::State};
use gatehouse_contract::{
    Reason, TenantId,
    sidecar::{PrincipalAsk, PrincipalFacts},
};
use gatehouse_service::{Reply, body::JsonBody};
use tracing::Span;
use uuid::Uuid;

use crate::routes::{Api, refused};

/// `POST /internal/v1/principal`: the facts, or 404 where the record knows no such issuer, tenant or subject.
pub async fn principal(
    State(api): State<Api>,
    body: JsonBody,
) -> Result<Json<PrincipalFacts>, Reply> {
    let ask = body.read(|doc| {
        let issuer = doc.text("issuer");
        let tenant = doc.parsed::<TenantId>("tenant", "a tenant's id");
        let subject = doc.text("subject");
        Some(PrincipalAsk { issuer: issuer?, tenant: tenant?, subject: subject? })
    })?;
    Span::current().record("tenant.id", tracing::field::display(ask.tenant));
    // Subjects of other issuers are mapped to users of ours with the identity issue; until then they are unknown.
    if ask.issuer != api.tokens.issuer {
        return Err(Reason::NotFound.into());
    }
    let subject: Uuid = ask.subject.parse().map_err(|_| Reason::NotFound)?;
    let facts = api.store.lookup().principal(ask.tenant, subject).await.map_err(refused)?;
    facts.map(Json).ok_or_else(|| Reason::NotFound.into())
}
