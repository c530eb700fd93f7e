//! Waiting for a state with a deadline: no test sleeps and hopes.

use std::{
    hash::{BuildHasher, RandomState},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::Range,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
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

/// Below the ports that the kernel gives to outgoing connections, and above those that `cargo xtask up` chooses from: what
/// nobody listens on now is then still free in the second in which it is used.
const PORTS: Range<u16> = 10_000..20_000;

/// A port of the loopback that nobody listens on now; another one at every call of this process, which begins anywhere.
pub fn free_port() -> Result<u16> {
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| RandomState::new().hash_one(std::process::id()).into());
    let width = PORTS.end - PORTS.start;
    for _ in 0..width {
        let next = NEXT.fetch_add(1, Relaxed) % u64::from(width);
        let port = PORTS.start + u16::try_from(next)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("every port from {} to {} is taken", PORTS.start, PORTS.end)
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
