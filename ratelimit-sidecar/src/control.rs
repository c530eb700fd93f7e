//! The control API's internal listener: the record behind a credential, and when credentials were last seen.
//! Knows no cache.

use std::{sync::Arc, time::Duration};

use gatehouse_contract::{
    problem::MEDIA_TYPE,
    sidecar::{
        INTERNAL_LAST_USED_PATH, INTERNAL_PRINCIPAL_PATH, INTERNAL_QUOTA_WARNING_PATH, LastUsed,
        PrincipalAsk, PrincipalFacts, QuotaWarning,
    },
};
use reqwest::{StatusCode, Url, header};
use serde::Serialize;
use tokio::sync::Semaphore;

/// Less than the filter waits (1 s by default), so that it hears our 503 and not its own timeout.
const DEADLINE: Duration = Duration::from_millis(800);
const BODY_BYTES: usize = 16 * 1024;
/// Questions under way; more wait, within their deadline.
const UNDER_WAY: usize = 256;

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
    #[error("the control API's answer broke off")]
    Broken(#[source] reqwest::Error),
    #[error("the control API's answer is larger than {BODY_BYTES} bytes")]
    Large,
    #[error("the control API's answer is not the record's form")]
    Form(#[source] serde_json::Error),
}

/// What the record says of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    Facts(Box<PrincipalFacts>),
    /// The credential itself is worth nothing.
    Worthless,
    /// The token is good, and names no member.
    Unknown,
}

#[derive(Clone)]
pub struct Control {
    client: reqwest::Client,
    base: Option<Url>,
    places: Arc<Semaphore>,
}

impl Control {
    /// No redirects (they would lead to addresses that nobody named), no proxy from the environment.
    pub fn new(base: Option<&Url>) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(1))
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("gatehouse-ratelimit-sidecar/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let places = Arc::new(Semaphore::new(UNDER_WAY));
        Ok(Self { client, base: base.cloned(), places })
    }

    fn url(&self, path: &str) -> Result<Url, Unanswered> {
        let mut url = self.base.clone().ok_or(Unanswered::NotConfigured)?;
        url.set_path(path);
        Ok(url)
    }

    async fn within<T>(
        &self,
        asking: impl Future<Output = Result<T, Unanswered>>,
    ) -> Result<T, Unanswered> {
        let asking = async {
            // Never closed.
            let _place = self.places.acquire().await;
            asking.await
        };
        tokio::time::timeout(DEADLINE, asking).await.unwrap_or(Err(Unanswered::Late))
    }

    pub async fn principal(&self, ask: &PrincipalAsk) -> Result<Word, Unanswered> {
        let url = self.url(INTERNAL_PRINCIPAL_PATH)?;
        self.within(async {
            let sent = self.client.post(url).json(ask).send().await;
            let response = sent.map_err(Unanswered::Unreachable)?;
            match response.status() {
                StatusCode::OK => {
                    let body = bounded_body(response).await?;
                    serde_json::from_slice(&body)
                        .map(|facts| Word::Facts(Box::new(facts)))
                        .map_err(Unanswered::Form)
                }
                StatusCode::UNAUTHORIZED if is_problem(&response) => Ok(Word::Worthless),
                StatusCode::NOT_FOUND if is_problem(&response) => Ok(Word::Unknown),
                status => Err(Unanswered::Status(status)),
            }
        })
        .await
    }

    pub async fn last_used(&self, seen: &LastUsed) -> Result<(), Unanswered> {
        self.tell(INTERNAL_LAST_USED_PATH, seen).await
    }

    pub async fn quota_warning(&self, warning: &QuotaWarning) -> Result<(), Unanswered> {
        self.tell(INTERNAL_QUOTA_WARNING_PATH, warning).await
    }

    async fn tell(&self, path: &str, body: &impl Serialize) -> Result<(), Unanswered> {
        let url = self.url(path)?;
        self.within(async {
            let sent = self.client.post(url).json(body).send().await;
            match sent.map_err(Unanswered::Unreachable)?.status() {
                status if status.is_success() => Ok(()),
                status => Err(Unanswered::Status(status)),
            }
        })
        .await
    }
}

/// Only the control API's own refusal says that there is no such one; a stranger's on its port does not.
fn is_problem(response: &reqwest::Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(MEDIA_TYPE.as_bytes()))
}

async fn bounded_body(mut response: reqwest::Response) -> Result<Vec<u8>, Unanswered> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Unanswered::Broken)? {
        if body.len() + chunk.len() > BODY_BYTES {
            return Err(Unanswered::Large);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
