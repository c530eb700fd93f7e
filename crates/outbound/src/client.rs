//! One bounded exchange with a stranger: one connection, one request, one answer.
//! Keeps no connection: these calls are rare, and a kept one would outlive the judgement of its address.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    guard::{Guard, Refused},
    target::{Host, Origin},
};

/// The most header fields, and the most bytes of them, that an answer may have.
const HEADERS: usize = 64;
const HEAD_BYTES: usize = 32 * 1024;
/// How long one address may keep the others waiting.
const CONNECT: Duration = Duration::from_secs(1);

/// Finds a name's addresses. A program has the system's; a test binary may bring its own.
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of `name`.
    fn resolve<'a>(
        &'a self,
        name: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;
}

struct System;

/// Whose certificates are believed.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

/// The operator's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Not PEM, or no certificate in it.
    #[error("not a PEM file of certificates")]
    Pem,
    /// One of them is no authority's certificate.
    #[error("a certificate cannot be used")]
    Certificate(#[source] rustls::Error),
    /// This build's TLS refuses its own settings.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Asks strangers.
#[derive(Clone)]
pub struct Client {
    trust: Trust,
    resolver: Arc<dyn Resolve>,
    agent: &'static str,
}

/// What an exchange may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// From the first packet (the name's included) to the last byte.
    pub deadline: Duration,
    /// Of the answer's body.
    pub body_bytes: usize,
}

/// A whole answer, of any status but a redirect's.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body; of a success it is JSON as far as its media type says.
    pub body: Vec<u8>,
    headers: HeaderMap,
}

/// The head of an answer whose body nobody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The status, of a redirect too.
    pub status: u16,
    /// For how long it asks not to be asked again, in the form of seconds (RFC 9110 §10.2.3).
    pub retry_after: Option<Duration>,
}

/// There is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address may not be asked.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Not within the deadline.
    #[error("no whole answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// The name cannot be resolved.
    #[error("the name cannot be resolved")]
    Resolve(#[source] io::Error),
    /// No connection.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// TLS was not established: no trusted certificate of that name, for example.
    #[error("no TLS connection")]
    Tls(#[source] io::Error),
    /// What came is not HTTP, or it broke off.
    #[error("the exchange broke off")]
    Http(#[source] hyper::Error),
    /// A redirect, which is never followed.
    #[error("a redirect ({0})")]
    Redirect(u16),
    /// Larger than the bound.
    #[error("the answer is larger than {0} bytes")]
    Large(usize),
    /// Compressed, though nobody offered to take that.
    #[error("the answer is encoded")]
    Encoded,
    /// A success of another media type than JSON's.
    #[error("the answer is {0:?}, not JSON")]
    Kind(String),
    /// The request cannot be written.
    #[error("the request cannot be written")]
    Request(#[source] http::Error),
}

/// A connection, under TLS or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Resolve for System {
    fn resolve<'a>(
        &'a self,
        name: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

// === impl Trust ===

impl Trust {
    /// The authorities that Mozilla's programme lists, as this build has them, and those of the operator's PEM
    /// file, if any.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn new(operators_pem: Option<&[u8]>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(pem) = operators_pem {
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| TrustError::Pem)?;
                roots.add(certificate).map_err(TrustError::Certificate)?;
            }
            if roots.len() == before {
                return Err(TrustError::Pem);
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TrustError::Tls)?;
        Ok(Self(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

// === impl Client ===

impl Client {
    /// A client that calls itself `agent`, e.g. `gatehouse/0.1.0`.
    pub fn new(trust: Trust, agent: &'static str) -> Self {
        Self { trust, resolver: Arc::new(System), agent }
    }

    /// The same, with another way to find addresses; they are judged like the system's.
    #[must_use]
    pub fn with_resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Fetches a JSON document.
    ///
    /// # Errors
    /// [`Error`]; an answer of another status than success is an [`Answer`].
    pub async fn get(&self, guard: &Guard, url: &str, bounds: Bounds) -> Result<Answer, Error> {
        let get = |request: http::request::Builder| request.method(Method::GET);
        let read = async |response| read(response, bounds.body_bytes).await;
        self.exchange(guard, url, bounds.deadline, (get, Bytes::new()), read).await
    }

    /// Posts a form (OAuth 2), with an `Authorization` field's value if any.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post_form(
        &self,
        guard: &Guard,
        url: &str,
        form: &[(&str, &str)],
        authorization: Option<&str>,
        bounds: Bounds,
    ) -> Result<Answer, Error> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let head = |request: http::request::Builder| {
            let kind = "application/x-www-form-urlencoded";
            let request = request.method(Method::POST).header(header::CONTENT_TYPE, kind);
            match authorization {
                Some(value) => request.header(header::AUTHORIZATION, value),
                None => request,
            }
        };
        let read = async |response| read(response, bounds.body_bytes).await;
        self.exchange(guard, url, bounds.deadline, (head, body.into()), read).await
    }

    /// Posts a JSON document with these header fields, and hears whether it was taken. The answer is over with its head: what
    /// follows is not read.
    ///
    /// # Errors
    /// [`Error`]; an answer of any status is [`Heard`].
    pub async fn post_json(
        &self,
        guard: &Guard,
        url: &str,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<Heard, Error> {
        let head = |request: http::request::Builder| {
            let request = request.method(Method::POST);
            let request = request.header(header::CONTENT_TYPE, "application/json");
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
        };
        let hear = async |response| Ok(hear(&response));
        self.exchange(guard, url, deadline, (head, body.into()), hear).await
    }

    async fn exchange<T>(
        &self,
        guard: &Guard,
        url: &str,
        deadline: Duration,
        (head, body): (impl FnOnce(http::request::Builder) -> http::request::Builder, Bytes),
        take: impl AsyncFnOnce(http::Response<Incoming>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let target = guard.check(url)?;
        let request = Request::builder()
            .uri(&target.path)
            .header(header::HOST, target.origin().authority())
            .header(header::USER_AGENT, self.agent)
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close");
        let request = head(request).body(Full::new(body)).map_err(Error::Request)?;
        let exchange = async {
            let stream = self.connect(guard, target.origin()).await?;
            send(stream, request, take).await
        };
        timeout(deadline, exchange).await.unwrap_or(Err(Error::Late(deadline)))
    }

    /// Connects to `origin`, judged and pinned as everywhere, for an exchange that the caller makes and bounds itself.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Resolve`], [`Error::Connect`], [`Error::Tls`].
    pub async fn connect(&self, guard: &Guard, origin: &Origin) -> Result<Box<dyn Stream>, Error> {
        guard.admit(origin)?;
        let (addresses, name) = match &origin.host {
            Host::Address(address) => (vec![*address], ServerName::from(*address)),
            Host::Name(name) => {
                let found = self.resolver.resolve(name).await.map_err(Error::Resolve)?;
                let server = ServerName::try_from(name.clone())
                    .map_err(|error| Error::Tls(io::Error::other(error)))?;
                (found, server)
            }
        };
        // What is judged here is what is connected to: nobody resolves again.
        let stream = connect_to_one_of(&guard.judge(origin, &addresses)?).await?;
        if !origin.https {
            return Ok(Box::new(stream));
        }
        let connector = TlsConnector::from(Arc::clone(&self.trust.0));
        Ok(Box::new(connector.connect(name, stream).await.map_err(Error::Tls)?))
    }
}

async fn connect_to_one_of(addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(Error::Connect(last))
}

async fn send<T>(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
    take: impl AsyncFnOnce(http::Response<Incoming>) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_headers(HEADERS).max_buf_size(HEAD_BYTES);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(Error::Http)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(Error::Http)?;
        take(response).await
    };
    // The connection runs here and nowhere else: whoever gives the exchange up drops it, too.
    let (mut exchange, mut connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
    tokio::select! {
        biased;
        answer = &mut exchange => return answer,
        ended = &mut connection => ended.map_err(Error::Http)?,
    }
    exchange.await
}

async fn read(response: http::Response<Incoming>, limit: usize) -> Result<Answer, Error> {
    let (head, mut body) = response.into_parts();
    if head.status.is_redirection() {
        return Err(Error::Redirect(head.status.as_u16()));
    }
    let text = |name| head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    if text(header::CONTENT_ENCODING).is_some_and(|value| !value.eq_ignore_ascii_case("identity")) {
        return Err(Error::Encoded);
    }
    let kind = text(header::CONTENT_TYPE);
    if head.status == StatusCode::OK && kind.as_deref().is_some_and(|kind| !is_json(kind)) {
        return Err(Error::Kind(kind.unwrap_or_default().chars().take(80).collect()));
    }
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Error::Http)?.into_data() else { continue };
        if whole.len() + data.len() > limit {
            return Err(Error::Large(limit));
        }
        whole.extend_from_slice(&data);
    }
    Ok(Answer { status: head.status.as_u16(), body: whole, headers: head.headers })
}

fn hear(response: &http::Response<Incoming>) -> Heard {
    let seconds = response.headers().get(header::RETRY_AFTER);
    let seconds = seconds.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Heard { status: response.status().as_u16(), retry_after: seconds.map(Duration::from_secs) }
}

/// JSON by its name, or what a static server says of a file without a suffix: then whoever parses it judges.
fn is_json(kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(&*essence, "application/json" | "text/plain" | "application/octet-stream")
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

// === impl Answer ===

impl Answer {
    /// A header field's first value, when it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// For how long it says that it is fresh (RFC 9111 §5.2.2); what must not be kept is for no time.
    pub fn max_age(&self) -> Option<Duration> {
        max_age(self.header("cache-control")?)
    }
}

fn max_age(control: &str) -> Option<Duration> {
    let mut age = None;
    for directive in control.split(',').map(str::trim) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        if name.eq_ignore_ascii_case("max-age") {
            age = value.trim_matches('"').parse().ok().map(Duration::from_secs);
        }
    }
    age
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j17_what_an_issuer_says_of_freshness() {
        for (text, expected) in [
            ("max-age=60", Some(60)),
            ("public, Max-Age=3600, must-revalidate", Some(3600)),
            ("max-age=60, no-store", Some(0)),
            ("no-cache", Some(0)),
            ("max-age=x", None),
            ("max-age=-1", None),
            ("private", None),
            ("", None),
        ] {
            assert_eq!(max_age(text), expected.map(Duration::from_secs), "{text}");
        }
    }
}
