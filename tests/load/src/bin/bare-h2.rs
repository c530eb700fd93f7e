//! The least that can answer a gRPC question: hyper's HTTP/2 server on one thread and the same bytes for everybody.
//! What a sidecar's check costs is measured beside it. Knows no limits.

use std::{convert::Infallible, net::SocketAddr};

use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    header::HeaderValue,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};

/// Where to listen, and what to answer.
#[derive(Debug, Parser)]
struct Options {
    /// The address.
    listen: SocketAddr,
    /// The framed answer, in hexadecimal.
    answer: String,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let answer = Bytes::from(gatehouse_load::hex::bytes(&options.answer)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind(options.listen).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let answer = answer.clone();
            let service = service_fn(move |request| reply(request, answer.clone()));
            let served = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            // A connection that breaks is its client's to report.
            tokio::spawn(async move { drop(served.await) });
        }
    })
}

async fn reply(
    request: Request<Incoming>,
    answer: Bytes,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    // Read whole, as whoever decides by it would.
    drop(request.into_body().collect().await);
    let trailers = async {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Some(Ok(trailers))
    };
    let mut response = Response::new(Full::new(answer).with_trailers(trailers));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}
