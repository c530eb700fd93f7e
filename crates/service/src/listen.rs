//! Listeners: binding with a clear line where the port is taken, serving until the shutdown's bound.
//! Knows no route.

use std::{io, net::SocketAddr, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::JoinSet};
use tracing::{debug, info, warn};

use crate::{Shutdown, Stop};

/// How long open requests may take to end after a shutdown was asked for.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Binds the listener that the configuration calls `field`. A port that cannot be had ends the process with 69.
pub async fn bind(field: &str, address: SocketAddr) -> Result<TcpListener, Stop> {
    TcpListener::bind(address).await.map_err(|error| {
        let line = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "$.{field}: {address} is taken by another process; stop it or choose another port"
            ),
            io::ErrorKind::PermissionDenied => {
                format!(
                    "$.{field}: {address} is not allowed for this user; choose a port above 1023"
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                format!(
                    "$.{field}: {address} is not an address of this machine; choose one that is"
                )
            }
            _ => format!("$.{field}: cannot listen on {address}: {error}; choose another address"),
        };
        Stop::unavailable(line)
    })
}

/// How long a connection may take to send the head of a request, counted from when the last answer left or it was made: a
/// client that sends a byte now and then holds no connection, nor does one that sends nothing. A gateway's pool should
/// close what is idle before this does.
pub const HEAD: Duration = Duration::from_secs(60);

/// Serves `router` on any of axum's listeners (TCP, unix socket) until `shutdown`, then lets open requests end
/// within [`DRAIN`]. The router should have passed [`crate::app::finish`].
pub async fn serve<L>(field: &'static str, listener: L, router: Router, shutdown: Shutdown)
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    serve_within(HEAD, field, listener, router, shutdown).await;
}

/// As [`serve`], with another bound than [`HEAD`].
pub async fn serve_within<L>(
    head: Duration,
    field: &'static str,
    mut listener: L,
    router: Router,
    shutdown: Shutdown,
) where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    match listener.local_addr() {
        Ok(address) => info!(listener = field, address = ?address, "listening"),
        Err(error) => warn!(listener = field, %error, "listening on an unknown address"),
    }
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head);
    // HTTP/2 has its heads in frames: who stops within one answers no ping either.
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(head).keep_alive_timeout(head);
    let graceful = GracefulShutdown::new();
    // Dropped with this call: what is cut off ends.
    let mut connections = JoinSet::new();
    loop {
        let io = tokio::select! {
            (io, _) = listener.accept() => io,
            // Ended ones are forgotten as they end.
            Some(_) = connections.join_next() => continue,
            () = shutdown.requested() => break,
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
        let connection = graceful.watch(connection.into_owned());
        connections.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {
            info!(listener = field, "drained");
            return;
        }
        () = tokio::time::sleep(DRAIN) => {}
        () = shutdown.insisted() => {}
    }
    warn!(listener = field, bound_ms = DRAIN.as_millis(), "cut open requests off");
}

#[cfg(test)]
mod tests;
