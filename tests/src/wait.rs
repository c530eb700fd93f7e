//! Waiting for a state with a deadline: no test sleeps and hopes.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long a part may take to start on a busy machine.
pub const START: Duration = Duration::from_secs(60);

/// Asks `probe` until it gives something; after `limit` fails with `what` and the last status.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let status = match probe() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= end {
            bail!("{what}: not within {limit:?}, last: {status}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Keeps a pace: waits for a moment that is part of what is tested, such as four requests a second.
pub fn until_instant(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// A port of the loopback that nobody listens on now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// An address of the loopback that nobody listens on now.
pub fn address() -> Result<SocketAddr> {
    Ok(([127, 0, 0, 1], free_port()?).into())
}

/// Whether `GET url` is answered with 200.
pub fn is_ok(url: &str) -> bool {
    ureq::get(url).call().is_ok_and(|answer| answer.status() == 200)
}

/// Whether somebody accepts connections there.
pub fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}
