//! The proxy of one run: takes connections from its network and passes requests on. HTTP/1.1 on both sides, one upstream
//! connection per request: a kept one would outlive the judgement of its address.

use std::{convert::Infallible, error::Error as _, sync::Arc, time::Duration};

use gatehouse_outbound::{Client, Error, Guard, Target};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body_util::{Either, Full, LengthLimitError, Limited};
use hyper::{
    body::{Body as _, Bytes, Incoming},
    client, server,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    answer::{Answer, Exchange},
    refused::Refused,
    run::Run,
    tokens::Meter,
};

/// Connections of one run at the same time; more wait.
const AT_ONCE: usize = 32;
/// How long an agent may take for a request's head, and keep a connection without one.
const HEAD: Duration = Duration::from_secs(30);
/// The most header fields of a request or an answer, and the most bytes of them.
const HEADERS: usize = 100;
const HEAD_BYTES: usize = 64 << 10;
/// Largest request.
const REQUEST_BYTES: u64 = 16 << 20;
/// From the name's look-up to the end of TLS's handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// From there to the head of the answer: models think for minutes.
const ANSWER: Duration = Duration::from_secs(300);
/// How long to rest when no connection can be taken.
const REST: Duration = Duration::from_millis(50);

/// For one connection alone (RFC 9110 §7.6.1), and for the proxy alone.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
];

type Reply = Response<Either<Full<Bytes>, Answer>>;

/// What all runs share.
#[derive(Clone)]
pub struct Outside {
    pub client: Client,
    pub guard: Guard,
}

/// Serves `run` until `stop`, whose sender's end is one, too. Then nothing of it goes on.
pub async fn serve(
    listener: TcpListener,
    outside: Outside,
    run: Arc<Run>,
    mut stop: oneshot::Receiver<()>,
) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut connections = JoinSet::new();
    loop {
        let taken = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            taken = taken => taken,
            _ = &mut stop => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let (outside, run) = (outside.clone(), Arc::clone(&run));
                connections.spawn(async move {
                    connection(stream, &outside, &run).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(error = %error, "could not take a connection of an agent");
                sleep(REST).await;
            }
        }
    }
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, outside: &Outside, run: &Arc<Run>) {
    let service = service_fn(|request| async move {
        let replied = pass(request, outside, run).await;
        Ok::<Reply, Infallible>(replied.unwrap_or_else(|refused| {
            run.refused(&refused);
            refused.response().map(Either::Left)
        }))
    });
    let mut builder = server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.max_headers(HEADERS).max_buf_size(HEAD_BYTES);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        debug!(error = %error, "an agent's connection broke off");
    }
}

async fn pass(
    request: Request<Incoming>,
    outside: &Outside,
    run: &Arc<Run>,
) -> Result<Reply, Refused> {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    if body.size_hint().lower() > REQUEST_BYTES {
        return Err(Refused::Large(REQUEST_BYTES));
    }
    let target = run.admit(&outside.guard, &head.method, &head.uri, &head.headers)?;
    let host = target.origin().authority();
    let upstream = |_| Refused::Upstream(host.clone());
    let late = |bound: Duration| Refused::Late { host: host.clone(), seconds: bound.as_secs() };
    let connecting = outside.client.connect(&outside.guard, target.origin());
    let stream = match timeout(CONNECT, connecting).await {
        Err(_) => return Err(late(CONNECT)),
        Ok(Err(Error::Refused(refused))) => {
            debug!(refused = %refused, "an allowed name leads where nobody may go");
            return Err(Refused::Address(host));
        }
        Ok(Err(error)) => {
            debug!(host, error = %error, cause = ?error.source(), "could not reach an upstream");
            return Err(Refused::Upstream(host));
        }
        Ok(Ok(stream)) => stream,
    };
    let limit = usize::try_from(REQUEST_BYTES).unwrap_or(usize::MAX);
    let mut request = Request::new(Limited::new(body, limit));
    *request.method_mut() = head.method;
    *request.uri_mut() = target.path().parse().map_err(|_| Refused::Form("the path".to_owned()))?;
    *request.headers_mut() = asked_with(head.headers, &target)?;
    let mut builder = client::conn::http1::Builder::new();
    builder.max_headers(HEADERS).max_buf_size(HEAD_BYTES);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(upstream)?;
    let mut connection = Box::pin(connection);
    let asking = async {
        let mut asking = std::pin::pin!(sender.send_request(request));
        tokio::select! {
            biased;
            answer = &mut asking => return answer,
            ended = &mut connection => ended?,
        }
        asking.await
    };
    let answer = match timeout(ANSWER, asking).await {
        Err(_) => return Err(late(ANSWER)),
        Ok(Err(error)) if is_too_large(&error) => return Err(Refused::Large(REQUEST_BYTES)),
        Ok(Err(error)) => return Err(upstream(error)),
        Ok(Ok(answer)) => answer,
    };
    let (mut head, body) = answer.into_parts();
    // A protocol that nobody has asked for.
    if head.status.is_informational() {
        return Err(Refused::Upstream(host));
    }
    remove_hop_by_hop(&mut head.headers);
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let encoded = text(header::CONTENT_ENCODING).is_some_and(|value| value != "identity");
    let meter = Meter::new(text(header::CONTENT_TYPE).unwrap_or_default(), encoded);
    let (run, status) = (Arc::clone(run), head.status.as_u16());
    let exchange = Exchange { run, host, status, began, bytes: 0, tokens: 0 };
    let answer = Answer::new(body, connection, meter, exchange);
    Ok(Response::from_parts(head, Either::Right(answer)))
}

/// The header that the upstream sees.
fn asked_with(mut headers: HeaderMap, target: &Target) -> Result<HeaderMap, Refused> {
    remove_hop_by_hop(&mut headers);
    // The host is the address's (RFC 9112 §3.2.2); the length is the body's own; who waits for "continue" has had it from us.
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
    let host = HeaderValue::try_from(target.origin().authority());
    headers.insert(header::HOST, host.map_err(|_| Refused::Form("the host".to_owned()))?);
    // Else nobody could read what an answer says that it cost.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Ok(headers)
}

/// Also what `Connection` names (RFC 9110 §7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named).chain([&header::TRANSFER_ENCODING]) {
        headers.remove(name);
    }
}

fn is_too_large(error: &hyper::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
