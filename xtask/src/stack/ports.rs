//! Chooses loopback ports: the ones asked for, or free ones. Starts nothing.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::TcpListener,
    ops::Range,
};

use anyhow::Context;

use crate::report::{Faults, exit};

/// A port to use: given by the user under a flag, or any.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// The flag, for the message.
    pub flag: &'static str,
    /// What it says.
    pub port: Option<u16>,
}

/// Grants every wish, or names each that cannot be granted.
pub fn choose<const N: usize>(wishes: [Wish; N]) -> anyhow::Result<[u16; N]> {
    // All are held until the last is chosen, so that no port is given twice.
    let mut held = Vec::new();
    let mut faults = Vec::new();
    let mut ports = [0; N];
    for (slot, wish) in ports.iter_mut().zip(wishes) {
        let bound = match wish.port {
            Some(port) => TcpListener::bind(("127.0.0.1", port)),
            None => free(),
        };
        match bound {
            Ok(listener) => {
                *slot = listener.local_addr().context("asking for a free port")?.port();
                held.push(listener);
            }
            Err(error) => faults.push(refusal(wish, &error)),
        }
    }
    if faults.is_empty() {
        return Ok(ports);
    }
    Err(Faults { lines: faults, exit: exit::UNAVAILABLE }.into())
}

/// Below the range from which the kernel serves outgoing connections and `bind(0)`: a port that is free now is then
/// still free in the second in which it is used.
const RANGE: Range<u16> = 20_000..32_000;

/// A free port. The search begins at a random place, so that instances started together rarely meet.
fn free() -> io::Result<TcpListener> {
    let random = RandomState::new().hash_one(std::process::id());
    let width = u64::from(RANGE.end - RANGE.start);
    let begin = RANGE.start + u16::try_from(random % width).unwrap_or(0);
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in (begin..RANGE.end).chain(RANGE.start..begin) {
        match TcpListener::bind(("127.0.0.1", port)) {
            Err(error) => last = error,
            bound => return bound,
        }
    }
    Err(last)
}

fn refusal(wish: Wish, error: &io::Error) -> String {
    let Wish { flag, port } = wish;
    let Some(port) = port else {
        return format!("no free port on 127.0.0.1: {error}; end some programs that listen there");
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {port} (--{flag}) is taken by another process; choose another, or leave --{flag} out for a free one"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("port {port} (--{flag}) is not allowed for this user; choose one above 1023")
        }
        _ => format!("port {port} (--{flag}) cannot be had: {error}; choose another"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_taken_ones_are_each_named() {
        let any = Wish { flag: "any", port: None };
        let [a, b] = choose([any, any]).unwrap();
        assert_ne!(a, b);

        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let wish = Wish { flag: "port", port: Some(port) };
        let error = choose([wish, any, Wish { flag: "other", port: Some(port) }]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "port {port} (--port) is taken by another process; choose another, or leave --port out for a free one\n\
                 port {port} (--other) is taken by another process; choose another, or leave --other out for a free one"
            )
        );
        drop(taken);
        assert_eq!(choose([wish]).unwrap(), [port]);
    }
}
