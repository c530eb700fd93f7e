//! The filters' listener: HTTP/1.1 and h2c on one port, gRPC calls answered before any router.
//! axum's own server would put two boxes and four layers around a call that costs a few microseconds.
//! Knows no route.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::Request,
    serve::{Listener, ListenerExt},
};
use gatehouse_service::{Shutdown, listen::DRAIN};
use hyper::{
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, UnixListener};
use tracing::{debug, info, warn};

mod whole;

use self::whole::Whole;
use crate::{
    engine::{Check, Engine},
    grpc::{
        self,
        frames::{Answer, Reply},
    },
};

/// Calls at once on one connection: an Envoy worker has one connection and may have as many requests.
const STREAMS: u32 = 1024;

/// What answers.
pub struct Public {
    /// Every path but the gRPC service's.
    pub router: Router,
    pub engine: Engine,
    pub grpc: Arc<grpc::Settings>,
}

/// Serves until `shutdown`, then lets open requests end within [`DRAIN`].
pub async fn tcp(listener: TcpListener, public: Public, shutdown: Shutdown) {
    let listener = listener.tap_io(|stream| {
        // Small answers: waiting for more would double their time.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "TCP_NODELAY cannot be set");
        }
    });
    serve(listener, public, shutdown).await;
}

/// As [`tcp`], on a unix socket.
pub async fn unix(listener: UnixListener, public: Public, shutdown: Shutdown) {
    serve(listener, public, shutdown).await;
}

async fn serve<L>(mut listener: L, public: Public, shutdown: Shutdown)
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    match listener.local_addr() {
        Ok(address) => info!(listener = "listen", address = ?address, "listening"),
        Err(error) => warn!(listener = "listen", %error, "listening on an unknown address"),
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(STREAMS);
    let (builder, open) = (Arc::new(builder), GracefulShutdown::new());
    let handler = Arc::new(Handler {
        router: TowerToHyperService::new(public.router),
        engine: public.engine,
        grpc: public.grpc,
    });
    loop {
        let stream = tokio::select! {
            (stream, _) = listener.accept() => stream,
            () = shutdown.requested() => break,
        };
        let handler = Arc::clone(&handler);
        // Boxed: the connection hands it on several times, and it is large.
        let service = service_fn(move |request| Box::pin(answer(Arc::clone(&handler), request)));
        let connection = builder.serve_connection(TokioIo::new(Whole(stream)), service);
        let connection = open.watch(connection.into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // A client that goes away in the middle is its own affair.
                debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = open.shutdown() => info!(listener = "listen", "drained"),
        () = bound(&shutdown) => {
            warn!(listener = "listen", bound_ms = DRAIN.as_millis(), "cut open requests off");
        }
    }
}

async fn bound(shutdown: &Shutdown) {
    tokio::select! {
        () = tokio::time::sleep(DRAIN) => {}
        () = shutdown.insisted() => {}
    }
}

struct Handler {
    router: TowerToHyperService<Router>,
    engine: Engine,
    grpc: Arc<grpc::Settings>,
}

async fn answer(handler: Arc<Handler>, request: Request<Incoming>) -> Result<Reply, Infallible> {
    if grpc::is_call(&request) {
        let check = async |ask: Check<'_>| handler.engine.decide(ask, None).await;
        return Ok(grpc::call(&handler.grpc, request, check).await);
    }
    let answered = handler.router.call(request.map(Body::new));
    Ok(answered.await?.map(Answer::Axum))
}
