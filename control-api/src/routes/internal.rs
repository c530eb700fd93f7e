//! What sidecars ask and tell on the internal listener: whom a credential stands for, and when keys were last used.

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};
use gatehouse_contract::{
    Reason,
    sidecar::{LastUsed, PrincipalAsk, PrincipalFacts},
};
use gatehouse_service::Reply;
use gatehouse_store::OffsetDateTime;
use tracing::Span;

use crate::{
    federation,
    principal::{self, Token, Verdict},
    routes::{Api, refused},
    session,
};

/// `POST /internal/v1/principal`: the facts; 401 for a credential that is worth nothing, 404 where the record knows no
/// such issuer, tenant or member.
pub async fn principal(
    State(api): State<Api>,
    body: Result<Json<PrincipalAsk>, JsonRejection>,
) -> Result<Json<PrincipalFacts>, Reply> {
    let Json(ask) = body.map_err(broken)?;
    let verdict = match &ask {
        PrincipalAsk::Subject { issuer, tenant, subject, token, issued_at_s, vouched } => {
            Span::current().record("tenant.id", tracing::field::display(tenant));
            let token = Token {
                tenant: *tenant,
                subject,
                mark: token.as_deref(),
                issued_at_s: *issued_at_s,
            };
            if *issuer == api.tokens.issuer {
                principal::of_own_token(&api, token).await
            } else {
                federation::token::of_subject(&api, issuer, token, *vouched).await
            }
        }
        PrincipalAsk::ApiKey { key, client: _ } => principal::of_api_key(&api, key).await,
        PrincipalAsk::Session { session, client: _ } => session::verdict(&api, session).await,
    };
    match verdict.map_err(refused)? {
        Verdict::Known(facts) => Ok(Json(*facts)),
        Verdict::Worthless => Err(Reason::TokenInvalid.into()),
        Verdict::Stranger => Err(Reason::NotFound.into()),
    }
}

/// `POST /internal/v1/last-used`: a batch.
pub async fn last_used(
    State(api): State<Api>,
    body: Result<Json<LastUsed>, JsonRejection>,
) -> Result<StatusCode, Reply> {
    let Json(LastUsed { seen_at_s }) = body.map_err(broken)?;
    // What is no key's id, or no time, is another kind of credential, or nothing.
    let seen: Vec<_> = seen_at_s
        .iter()
        .filter_map(|(credential, at_s)| {
            let at = OffsetDateTime::from_unix_timestamp(i64::try_from(*at_s).ok()?).ok()?;
            Some((credential.parse().ok()?, at))
        })
        .collect();
    api.store.lookup().record_last_used(&seen).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

fn broken(error: JsonRejection) -> Reply {
    Reply::mistake("$", error.body_text(), "send a question as the contract has it")
}
