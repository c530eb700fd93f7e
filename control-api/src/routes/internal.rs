//! What sidecars ask and tell on the internal listener: whom a credential stands for, when keys were last used, and
//! whose quota runs out.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use gatehouse_contract::{
    Reason, TenantId,
    sidecar::{LastUsed, PrincipalAsk, PrincipalFacts, QuotaWarning},
};
use gatehouse_redis_kit::cred::{Generation, Holder, Permissions};
use gatehouse_service::{
    Reply, RequestId, Trace,
    body::{JsonBody, wire},
    exit::chain,
};
use gatehouse_store::{Actor, OffsetDateTime, OpCtx};
use tracing::{Span, debug, warn};

use crate::{
    clock, federation,
    principal::{self, Token, Verdict},
    routes::{Api, refused},
    session,
};

const DAY_S: u64 = 24 * 3600;

/// `POST /internal/v1/principal`: the facts; 401 for a credential that is worth nothing, 404 where the record knows no
/// such issuer, tenant or member.
pub async fn principal(
    State(api): State<Api>,
    body: JsonBody,
) -> Result<Json<PrincipalFacts>, Reply> {
    let ask: PrincipalAsk = wire(&body.0)?;
    let verdict = match &ask {
        PrincipalAsk::Subject { issuer, tenant, subject, token, issued_at_s, vouched } => {
            Span::current().record("tenant.id", tracing::field::display(tenant));
            let holder = Holder::Subject { issuer, subject, vouched: *vouched };
            let cache = Cache::before(&api, *tenant, holder).await;
            let token = Token {
                tenant: *tenant,
                subject,
                mark: token.as_deref(),
                issued_at_s: *issued_at_s,
            };
            let verdict = if *issuer == api.tokens.issuer {
                principal::of_own_token(&api, token).await
            } else {
                federation::token::of_subject(&api, issuer, token, *vouched).await
            };
            let verdict = verdict.map_err(refused)?;
            cache.fill(&verdict).await;
            verdict
        }
        PrincipalAsk::ApiKey { key, client: _ } => by_key(&api, key).await?,
        PrincipalAsk::Session { session, client: _ } => {
            session::verdict(&api, session).await.map_err(refused)?
        }
    };
    match verdict {
        Verdict::Known(facts) => Ok(Json(*facts)),
        Verdict::Worthless => Err(Reason::TokenInvalid.into()),
        Verdict::Stranger => Err(Reason::NotFound.into()),
    }
}

/// Whose key it is tells under which tenant its facts are remembered, so that the record is read once more after that.
async fn by_key(api: &Api, key: &str) -> Result<Verdict, Reply> {
    let verdict = principal::of_api_key(api, key).await.map_err(refused)?;
    let Verdict::Known(facts) = &verdict else { return Ok(verdict) };
    let (Some(_), Ok(id)) = (&api.permissions, facts.subject.parse()) else { return Ok(verdict) };
    let cache = Cache::before(api, facts.tenant, Holder::Key(id)).await;
    let verdict = principal::of_api_key(api, key).await.map_err(refused)?;
    cache.fill(&verdict).await;
    Ok(verdict)
}

/// A place in the permission cache (ADR 0012), opened before the record is read. Redis away is no reason not to answer.
struct Cache<'a> {
    tenant: TenantId,
    holder: Holder<'a>,
    open: Option<(&'a Permissions, Generation)>,
}

impl<'a> Cache<'a> {
    async fn before(api: &'a Api, tenant: TenantId, holder: Holder<'a>) -> Self {
        let mut open = None;
        if let Some(permissions) = &api.permissions {
            match permissions.generation(tenant, holder).await {
                Ok(generation) => open = Some((permissions, generation)),
                Err(error) => debug!(error = %chain(&error), "nothing is remembered"),
            }
        }
        Self { tenant, holder, open }
    }

    async fn fill(self, verdict: &Verdict) {
        let (Some((permissions, generation)), Verdict::Known(facts)) = (self.open, verdict) else {
            return;
        };
        let put = permissions.put(self.tenant, self.holder, &generation, facts).await;
        if let Err(error) = put {
            debug!(error = %chain(&error), "nothing is remembered");
        }
    }
}

/// `POST /internal/v1/last-used`: a batch.
pub async fn last_used(State(api): State<Api>, body: JsonBody) -> Result<StatusCode, Reply> {
    let LastUsed { seen_at_s } = wire(&body.0)?;
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

/// `POST /internal/v1/quota-warning`: recorded once per tenant and day, however many sidecars tell it.
pub async fn quota_warning(
    State(api): State<Api>,
    headers: HeaderMap,
    trace: Trace,
    body: JsonBody,
) -> Result<StatusCode, Reply> {
    let warning: QuotaWarning = wire(&body.0)?;
    Span::current().record("tenant.id", tracing::field::display(warning.tenant));
    let now = clock::now();
    let today = clock::since_epoch(now).as_secs() / DAY_S;
    // Sidecars go by Redis' clock, which may be on the other side of midnight. Any other day is a mistake.
    if today.abs_diff(u64::from(warning.day)) > 1 {
        return Err(Reply::mistake("$.day", "not today's", "send the days since 1970-01-01"));
    }
    let op = OpCtx {
        tenant: warning.tenant,
        subject: "sidecar".to_owned(),
        actor: Actor::System,
        request_id: RequestId::of(&headers).to_string(),
        traceparent: Some(trace.as_str().to_owned()),
        now,
    };
    let mut tx = api.store.tenant(&op).await.map_err(refused)?;
    let new = tx.within().record_quota_warning(&warning).await.map_err(refused)?;
    tx.commit().await.map_err(refused)?;
    if new {
        warn!(
            quota.used = warning.used,
            quota.limit = warning.limit,
            "a tenant's calls of the day run out"
        );
    }
    Ok(StatusCode::NO_CONTENT)
}
