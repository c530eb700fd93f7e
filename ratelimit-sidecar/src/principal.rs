//! `POST /v1/principal`: what the record says of a verified subject, asked of the control API's internal listener.
//! Kept for at most a second, so that a crowd of workers asks once; the filters keep it longer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use gatehouse_contract::{
    Reason, TenantId,
    problem::MEDIA_TYPE,
    sidecar::{INTERNAL_PRINCIPAL_PATH, PrincipalAsk, PrincipalFacts},
};
use gatehouse_service::{Reply, exit::chain};
use reqwest::{StatusCode, Url, header};
use tokio::time::Instant;
use tracing::warn;

use crate::{
    app::{App, Unread, bounded_body, json},
    metrics::Asked,
    store::Store,
};

/// Less than the filter waits (1 s by default), so that it hears our 503 and not its own timeout.
const DEADLINE: Duration = Duration::from_millis(800);
const BODY_BYTES: usize = 16 * 1024;
/// How long facts are kept; "the record wins" must not lag behind it by more than this here.
const KEEP: Duration = Duration::from_secs(1);
const KEEP_ENTRIES: usize = 10_000;

/// The control API did not say.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error("no control API is configured")]
    NotConfigured,
    #[error("the control API did not answer within {} ms", DEADLINE.as_millis())]
    Late,
    #[error("the control API cannot be asked")]
    Unreachable(#[source] reqwest::Error),
    #[error("the control API answered {0}")]
    Status(StatusCode),
    #[error("the control API's answer cannot be read")]
    Unread(#[source] Unread),
    #[error("the control API's answer is not the record's form")]
    Form(#[source] serde_json::Error),
}

#[derive(Clone)]
pub struct Principals {
    client: reqwest::Client,
    url: Option<Url>,
    kept: Arc<Mutex<Kept>>,
}

type Key = (TenantId, String, String);

/// Facts that were asked for within the last second. Nothing negative: a subject that was just made must not have
/// to wait.
#[derive(Default)]
struct Kept(HashMap<Key, (PrincipalFacts, Instant)>);

impl Kept {
    fn get(&self, key: &Key, now: Instant) -> Option<PrincipalFacts> {
        let (facts, until) = self.0.get(key)?;
        (now < *until).then(|| facts.clone())
    }

    /// Keeps facts that were asked for at `asked`. When there is no room, they are not kept.
    fn keep(&mut self, key: Key, facts: PrincipalFacts, asked: Instant) {
        if self.0.len() >= KEEP_ENTRIES {
            self.0.retain(|_, (_, until)| asked < *until);
        }
        if self.0.len() < KEEP_ENTRIES {
            self.0.insert(key, (facts, asked + KEEP));
        }
    }
}

impl Principals {
    pub fn new(client: reqwest::Client, internal: Option<&Url>) -> Self {
        let url = internal.map(|base| {
            let mut url = base.clone();
            url.set_path(INTERNAL_PRINCIPAL_PATH);
            url
        });
        Self { client, url, kept: Arc::default() }
    }

    async fn ask(&self, ask: &PrincipalAsk) -> Result<Option<PrincipalFacts>, Unanswered> {
        let url = self.url.clone().ok_or(Unanswered::NotConfigured)?;
        let asking = async {
            let sent = self.client.post(url).json(ask).send().await;
            let response = sent.map_err(Unanswered::Unreachable)?;
            let status = response.status();
            if status == StatusCode::NOT_FOUND && is_problem(&response) {
                return Ok(None);
            }
            if status != StatusCode::OK {
                return Err(Unanswered::Status(status));
            }
            let body = bounded_body(response, BODY_BYTES).await.map_err(Unanswered::Unread)?;
            serde_json::from_slice(&body).map(Some).map_err(Unanswered::Form)
        };
        tokio::time::timeout(DEADLINE, asking).await.unwrap_or(Err(Unanswered::Late))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only the control API's own 404 says that there is no such subject; a stranger's on its port does not.
fn is_problem(response: &reqwest::Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(MEDIA_TYPE.as_bytes()))
}

pub async fn principal<S: Store>(State(app): State<App<S>>, body: Bytes) -> Response {
    let ask: PrincipalAsk = match serde_json::from_slice(&body) {
        Ok(ask) => ask,
        Err(error) => {
            return Reply::mistake(
                "$",
                error.to_string(),
                "send a question as the contract has it",
            )
            .into_response();
        }
    };
    let asked = Instant::now();
    let PrincipalAsk::Subject { issuer, tenant, subject, .. } = &ask else {
        return Reply::new(Reason::NotFound).into_response();
    };
    let key = (*tenant, issuer.clone(), subject.clone());
    if let Some(facts) = app.principals.kept().get(&key, asked) {
        app.metrics.principal_from_cache();
        return json(&facts);
    }
    match app.principals.ask(&ask).await {
        Ok(Some(facts)) => {
            app.metrics.principal_asked(Asked::Answered);
            let answer = json(&facts);
            app.principals.kept().keep(key, facts, asked);
            answer
        }
        Ok(None) => {
            app.metrics.principal_asked(Asked::Unknown);
            Reply::new(Reason::NotFound).into_response()
        }
        Err(error) => {
            app.metrics.principal_asked(Asked::Failed);
            warn!(error = %chain(&error), "a principal cannot be asked for");
            Reply::new(Reason::IdentityUnavailable).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        let tenant = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap();
        (tenant, "issuer".to_owned(), n.to_string())
    }

    fn facts() -> PrincipalFacts {
        PrincipalFacts::member(key(1).0, "1")
    }

    #[test]
    fn facts_are_kept_for_a_second_from_the_asking_and_no_longer() {
        let (mut kept, asked) = (Kept::default(), Instant::now());
        kept.keep(key(1), facts(), asked);
        for (later_ms, expected) in [(0, true), (999, true), (1000, false)] {
            let got = kept.get(&key(1), asked + Duration::from_millis(later_ms));
            assert_eq!(got.is_some(), expected, "{later_ms} ms later");
        }
        assert_eq!(kept.get(&key(2), asked), None);
    }

    #[test]
    fn a_full_memory_keeps_nothing_more_until_its_second_is_over() {
        let (mut kept, asked) = (Kept::default(), Instant::now());
        let entries = u32::try_from(KEEP_ENTRIES).unwrap();
        for n in 0..=entries {
            kept.keep(key(n), facts(), asked);
        }
        assert_eq!(kept.0.len(), KEEP_ENTRIES);
        assert_eq!(kept.get(&key(entries), asked), None);
        kept.keep(key(entries), facts(), asked + KEEP);
        assert_eq!(kept.0.len(), 1);
    }
}
