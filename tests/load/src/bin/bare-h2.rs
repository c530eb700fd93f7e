//! The least that can answer a gRPC question: hyper's HTTP/2 server on one thread and the same bytes for everybody.
//! What a sidecar's check costs is measured beside it. Knows no limits.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

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
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Where to listen, and what to answer.
#[derive(Debug, Parser)]
struct Options {
    /// The address.
    listen: SocketAddr,
    /// The framed answer, in hexadecimal.
    answer: String,
    /// Write answers that are ready together by one call, as the sidecar does; by itself hyper writes each by its own.
    #[arg(long)]
    whole: bool,
}

/// A stream that does not tell that it can write from several places.
struct Whole(TcpStream);

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
            if options.whole {
                tokio::spawn(serve(Whole(stream), answer));
            } else {
                tokio::spawn(serve(stream, answer));
            }
        }
    })
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, answer: Bytes) {
    let service = service_fn(move |request| reply(request, answer.clone()));
    let served =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    // A connection that breaks is its client's to report.
    drop(served.await);
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

impl AsyncRead for Whole {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Whole {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
