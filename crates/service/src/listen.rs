//! Listeners: binding with a clear line where the port is taken, serving until the shutdown's bound.
//! Knows no route.

use std::{io, net::SocketAddr, time::Duration};

use axum::Router;
use tokio::net::TcpListener;
use tracing::{info, warn};

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

/// Serves `router` on any of axum's listeners (TCP, unix socket) until `shutdown`, then lets open requests end
/// within [`DRAIN`]. The router should have passed [`crate::app::finish`].
pub async fn serve<L>(field: &'static str, listener: L, router: Router, shutdown: Shutdown)
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    match listener.local_addr() {
        Ok(address) => info!(listener = field, address = ?address, "listening"),
        Err(error) => warn!(listener = field, %error, "listening on an unknown address"),
    }
    let asked = shutdown.clone();
    let server = axum::serve(listener, router)
        .with_graceful_shutdown(async move { asked.requested().await });
    let bound = async {
        shutdown.requested().await;
        tokio::select! {
            () = tokio::time::sleep(DRAIN) => {}
            () = shutdown.insisted() => {}
        }
    };
    tokio::select! {
        ended = server => match ended {
            Ok(()) => info!(listener = field, "drained"),
            Err(error) => warn!(listener = field, %error, "the listener ended"),
        },
        () = bound => warn!(listener = field, bound_ms = DRAIN.as_millis(), "cut open requests off"),
    }
}
