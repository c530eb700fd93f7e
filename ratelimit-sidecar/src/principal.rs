//! `POST /v1/principal`: what the record says of a credential (design §3.1).
//!
//! The order is always the same: what was answered a moment ago, Redis, the control API. The first two only while the
//! change feed is alive; the control API decides whenever they cannot. Nothing that is away ever means yes.

mod budget;
mod kept;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use gatehouse_authn::api_key::{ApiKey, Mark};
use gatehouse_contract::{
    ApiKeyId, Reason, TenantId,
    sidecar::{PrincipalAsk, PrincipalFacts},
};
use gatehouse_redis_kit::cred::{Holder, Keys, Permissions};
use gatehouse_service::{Reply, body::wire, exit::chain};
use tokio::time::Instant;
use tracing::warn;

use self::{
    budget::Misses,
    kept::{Asked, Digest, Kept, digest},
};
use crate::{
    app::{App, json},
    control::{Control, Word},
    feed::{Feed, Heard},
    last_used::Seen,
    metrics::{Asked as Outcome, Metrics, Refused},
    peppers::Known,
    store::Store,
};

/// A key that was made this recently may not have reached Redis yet: its absence there says nothing.
const NEW: Duration = Duration::from_secs(10);

/// Redis as far as credentials go.
#[derive(Clone)]
pub struct Projection {
    pub keys: Keys,
    pub permissions: Permissions,
}

#[derive(Clone)]
pub struct Principals(Arc<Shared>);

struct Shared {
    control: Control,
    projection: Option<Projection>,
    peppers: Option<Known>,
    feed: Feed,
    seen: Seen,
    metrics: Arc<Metrics>,
    kept: Mutex<Kept>,
    misses: Mutex<Misses>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Facts(Box<PrincipalFacts>),
    Worthless,
    Unknown,
    Unavailable,
}

/// What Redis says of a key.
enum Projected {
    /// It is this tenant's key, as far as Redis knows.
    Good(TenantId),
    Worthless,
    /// The control API must say.
    Unsaid,
}

impl Principals {
    pub fn new(
        control: Control,
        projection: Option<Projection>,
        peppers: Option<Known>,
        feed: Feed,
        seen: Seen,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self(Arc::new(Shared {
            control,
            projection,
            peppers,
            feed,
            seen,
            metrics,
            kept: Mutex::new(Kept::new()),
            misses: Mutex::new(Misses::new()),
        }))
    }

    /// Forgets what a change may touch.
    pub fn hear(&self, heard: &Heard) {
        self.0.kept().hear(heard);
    }
}

impl Shared {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn misses(&self) -> std::sync::MutexGuard<'_, Misses> {
        self.misses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn resolve(&self, ask: &PrincipalAsk) -> Verdict {
        let epoch = self.feed.live_epoch();
        match ask {
            PrincipalAsk::Subject { .. } => self.subject(ask, epoch.as_deref()).await,
            PrincipalAsk::ApiKey { key, client } => {
                let verdict = self.api_key(ask, key, client.as_deref(), epoch.as_deref()).await;
                self.credential(verdict)
            }
            PrincipalAsk::Session { session, client } => {
                let of = digest(&[b"session", session.as_bytes()]);
                let asked = match self.before(&of, epoch.as_deref()) {
                    Ok(asked) => asked,
                    Err(verdict) => return self.credential(verdict),
                };
                let verdict = self.ask_for_credential(ask, of, client.as_deref(), asked).await;
                self.credential(verdict)
            }
        }
    }

    /// A token's subject. While the feed is alive its deny list is whole; while it is not, the control API looks.
    async fn subject(&self, ask: &PrincipalAsk, epoch: Option<&str>) -> Verdict {
        let PrincipalAsk::Subject { issuer, tenant, subject, token, issued_at_s, vouched } = ask
        else {
            return Verdict::Unavailable;
        };
        if token.as_deref().is_some_and(|mark| self.feed.denies_token(mark)) {
            self.metrics.refused(Refused::Denied);
            return Verdict::Worthless;
        }
        let tenant_text = tenant.to_string();
        let vouched_byte = [u8::from(*vouched)];
        let of = digest(&[
            b"subject",
            issuer.as_bytes(),
            tenant_text.as_bytes(),
            subject.as_bytes(),
            &vouched_byte,
        ]);
        let (asked, known) = {
            let (mut kept, now) = (self.kept(), Instant::now());
            (kept.asked(now), epoch.and_then(|_| kept.facts(&of, now)))
        };
        let facts = match known {
            Some(facts) => {
                self.metrics.principal_from_memory();
                Verdict::Facts(Box::new(facts))
            }
            None => {
                let holder = Holder::Subject { issuer, subject, vouched: *vouched };
                match self.cached(*tenant, holder, epoch).await {
                    Some(facts) => {
                        self.kept().keep(of, &facts, asked);
                        Verdict::Facts(Box::new(facts))
                    }
                    None => self.ask(ask, of, asked).await,
                }
            }
        };
        match facts {
            Verdict::Facts(facts)
                if self.feed.denies_issue(facts.tenant, &facts.subject, *issued_at_s) =>
            {
                self.metrics.refused(Refused::Denied);
                Verdict::Worthless
            }
            verdict => verdict,
        }
    }

    async fn api_key(
        &self,
        ask: &PrincipalAsk,
        text: &str,
        client: Option<&str>,
        epoch: Option<&str>,
    ) -> Verdict {
        let Ok(key) = ApiKey::parse(text) else {
            self.metrics.refused(Refused::Malformed);
            return Verdict::Worthless;
        };
        let Some(peppers) = &self.peppers else {
            // Said in words at the start.
            self.metrics.refused(Refused::Unconfigured);
            return Verdict::Unavailable;
        };
        let of = digest(&[b"key", text.as_bytes()]);
        let asked = match self.before(&of, epoch) {
            Ok(asked) => asked,
            Err(verdict) => return verdict,
        };
        match self.projected(key, peppers, epoch).await {
            Projected::Good(tenant) => {
                let holder = Holder::Key(key.id());
                let facts = self.cached(tenant, holder, epoch).await;
                let name = key.id().to_string();
                if let Some(facts) = facts.filter(|facts| facts.credential.as_ref() == Some(&name))
                {
                    self.kept().keep(of, &facts, asked);
                    return Verdict::Facts(Box::new(facts));
                }
                // A good key spends nobody's budget.
                self.ask(ask, of, asked).await
            }
            Projected::Worthless => {
                self.metrics.refused(Refused::Unknown);
                self.kept().keep_worthless(of, asked);
                Verdict::Worthless
            }
            Projected::Unsaid => self.ask_for_credential(ask, of, client, asked).await,
        }
    }

    /// What was answered a moment ago, or since when an answer may be kept.
    fn before(&self, of: &Digest, epoch: Option<&str>) -> Result<Asked, Verdict> {
        let (mut kept, now) = (self.kept(), Instant::now());
        if epoch.is_some() {
            if let Some(facts) = kept.facts(of, now) {
                self.metrics.principal_from_memory();
                return Err(Verdict::Facts(Box::new(facts)));
            }
            if kept.is_worthless(of, now) {
                self.metrics.refused(Refused::Unknown);
                return Err(Verdict::Worthless);
            }
        }
        Ok(kept.asked(now))
    }

    async fn projected(&self, key: ApiKey<'_>, peppers: &Known, epoch: Option<&str>) -> Projected {
        let (Some(epoch), Some(projection)) = (epoch, &self.projection) else {
            return Projected::Unsaid;
        };
        let found = match projection.keys.find(key.id()).await {
            Ok(found) => found,
            Err(error) => {
                warn!(error = %chain(&error), "the projection of keys cannot be read");
                return Projected::Unsaid;
            }
        };
        let Some(stored) = found.key else {
            let is_final = found.complete.as_deref() == Some(epoch) && !is_new(key.id(), now());
            return if is_final { Projected::Worthless } else { Projected::Unsaid };
        };
        if !peppers.ids.contains(&stored.pepper_id) {
            warn!(pepper = stored.pepper_id, "$.peppers_file lacks a pepper that the record uses");
            return Projected::Unsaid;
        }
        let mark = Mark { pepper_id: stored.pepper_id, hmac: stored.hmac };
        let ended = stored.expires_at_s.is_some_and(|at_s| at_s <= now().as_secs());
        if peppers.peppers.knows(key, &mark) && !ended {
            Projected::Good(stored.tenant)
        } else {
            Projected::Worthless
        }
    }

    /// Facts from Redis, when they are certain.
    async fn cached(
        &self,
        tenant: TenantId,
        holder: Holder<'_>,
        epoch: Option<&str>,
    ) -> Option<PrincipalFacts> {
        let (epoch, projection) = (epoch?, self.projection.as_ref()?);
        match projection.permissions.get(tenant, holder, epoch).await {
            Ok(facts) => {
                let facts = facts.filter(|facts| facts.tenant == tenant)?;
                self.metrics.principal_from_redis();
                Some(facts)
            }
            Err(error) => {
                warn!(error = %chain(&error), "cached permissions cannot be read");
                None
            }
        }
    }

    /// As [`Self::ask`], within the client's budget.
    async fn ask_for_credential(
        &self,
        ask: &PrincipalAsk,
        of: Digest,
        client: Option<&str>,
        asked: Asked,
    ) -> Verdict {
        if !self.misses().may_ask(client, Instant::now()) {
            self.metrics.refused(Refused::Budget);
            return Verdict::Unavailable;
        }
        let verdict = self.ask(ask, of, asked).await;
        if verdict == Verdict::Worthless {
            self.misses().missed(client, Instant::now());
            self.kept().keep_worthless(of, asked);
        }
        verdict
    }

    async fn ask(&self, ask: &PrincipalAsk, of: Digest, asked: Asked) -> Verdict {
        match self.control.principal(ask).await {
            Ok(Word::Facts(facts)) => {
                self.metrics.principal_asked(Outcome::Answered);
                self.kept().keep(of, &facts, asked);
                Verdict::Facts(facts)
            }
            Ok(Word::Worthless) => {
                self.metrics.principal_asked(Outcome::Unknown);
                Verdict::Worthless
            }
            Ok(Word::Unknown) => {
                self.metrics.principal_asked(Outcome::Unknown);
                Verdict::Unknown
            }
            Err(error) => {
                self.metrics.principal_asked(Outcome::Failed);
                warn!(error = %chain(&error), "a principal cannot be asked for");
                Verdict::Unavailable
            }
        }
    }

    /// What ends by itself ends here, too, whoever said it was good; a good one was seen.
    fn credential(&self, verdict: Verdict) -> Verdict {
        let Verdict::Facts(facts) = verdict else { return verdict };
        let now_s = now().as_secs();
        if facts.expires_at_s.is_some_and(|at_s| at_s <= now_s) {
            self.metrics.refused(Refused::Expired);
            return Verdict::Worthless;
        }
        if let Some(credential) = &facts.credential {
            self.seen.note(credential, now_s);
        }
        Verdict::Facts(facts)
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Whether an id says (RFC 9562 §5.7) that it was made just now. One that lies costs its client's budget.
fn is_new(id: ApiKeyId, now: Duration) -> bool {
    let made = id.as_uuid().get_timestamp().map(|at| at.to_unix());
    made.is_some_and(|(s, nanos)| now.abs_diff(Duration::new(s, nanos)) <= NEW)
}

pub async fn principal<S: Store>(State(app): State<App<S>>, body: Bytes) -> Response {
    let ask: PrincipalAsk = match wire(&body) {
        Ok(ask) => ask,
        Err(refusal) => return refusal.into_response(),
    };
    match app.principals.0.resolve(&ask).await {
        Verdict::Facts(facts) => json(&facts),
        Verdict::Worthless => Reply::new(Reason::TokenInvalid).into_response(),
        Verdict::Unknown => Reply::new(Reason::NotFound).into_response(),
        Verdict::Unavailable => Reply::new(Reason::IdentityUnavailable).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_when_it_was_made_or_nothing() {
        let at = Duration::from_secs(1_800_000_000);
        let id = |s: u64| {
            let stamp = uuid::Timestamp::from_unix(uuid::NoContext, s, 0);
            ApiKeyId::new(uuid::Uuid::new_v7(stamp))
        };
        for (s, expected) in [(0, true), (10, true), (11, false)] {
            assert_eq!(is_new(id(at.as_secs() - s), at), expected, "{s} s ago");
            assert_eq!(is_new(id(at.as_secs() + s), at), expected, "in {s} s");
        }
        assert!(!is_new(ApiKeyId::new(uuid::Uuid::new_v4()), at));
    }
}
