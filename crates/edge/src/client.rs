//! Whose address a client is counted by (acceptance R17, R18). Knows no budgets.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// What one client may have for itself: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Network(u128);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().to_bits()),
            IpAddr::V6(address) => Self(address.to_bits() & NETWORK),
        }
    }
}

const NETWORK: u128 = !(u64::MAX as u128);

/// The client's address, where `peer` is what the host says of the connection, `forwarded` the values of
/// `X-Forwarded-For` in their order, and `hops` how many proxies before this gateway append to them. What cannot be
/// read, or is shorter than told, is never trusted: then it is the peer.
pub(crate) fn address<'v>(
    peer: &str,
    forwarded: impl Iterator<Item = &'v [u8]>,
    hops: usize,
) -> Option<IpAddr> {
    let peer = parsed(peer)?;
    let Some(last) = hops.checked_sub(1) else { return Some(peer) };
    let items: Vec<&[u8]> = forwarded
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    let read = |item: &&[u8]| std::str::from_utf8(item).ok().and_then(parsed);
    let mut back = items.iter().rev().peekable();
    // Envoy appends the peer itself before filters see the header.
    back.next_if(|item| read(item) == Some(peer));
    Some(back.nth(last).and_then(read).unwrap_or(peer))
}

/// An address with or without a port, in the form that sockets and URLs have.
fn parsed(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = text.parse::<SocketAddr>().map(|socket| socket.ip());
    let address = address
        .or_else(|_no_port| text.parse::<IpAddr>())
        .or_else(|_no_address| bare.unwrap_or_default().parse::<Ipv6Addr>().map(IpAddr::V6));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, forwarded: &[&str], hops: usize, expected: &str) {
        let got = address(peer, forwarded.iter().map(|value| value.as_bytes()), hops);
        let got = got.map_or("nobody".to_owned(), |address| address.to_string());
        assert_eq!(got, expected, "{peer} {forwarded:?} {hops}");
    }

    #[test]
    fn r18_only_as_many_forwarders_are_believed_as_are_told() {
        let spoofed = ["6.6.6.6, 203.0.113.9", "198.51.100.4"];
        check("10.0.0.1:4711", &spoofed, 0, "10.0.0.1");
        check("10.0.0.1:4711", &spoofed, 1, "198.51.100.4");
        check("10.0.0.1:4711", &spoofed, 2, "203.0.113.9");
        check("10.0.0.1:4711", &spoofed, 4, "10.0.0.1");
        // As Envoy hands it over: with the peer behind it.
        check("10.0.0.1:4711", &["6.6.6.6, 203.0.113.9,10.0.0.1"], 1, "203.0.113.9");
        check("10.0.0.1:4711", &["10.0.0.1"], 1, "10.0.0.1");
        check("10.0.0.1:4711", &[], 1, "10.0.0.1");
        check("10.0.0.1:4711", &["unknown"], 1, "10.0.0.1");
        check("10.0.0.1:4711", &["\u{e9}, [2001:db8::7]:80"], 1, "2001:db8::7");
        check("10.0.0.1:4711", &["[2001:db8::7]"], 1, "2001:db8::7");
        check("[::ffff:10.0.0.1]:1", &[], 0, "10.0.0.1");
        check("10.0.0.1", &[], 0, "10.0.0.1");
        check("", &spoofed, 1, "nobody");
    }

    #[test]
    fn r18_a_client_has_an_ipv6_network_of_64_bits() {
        let network = |text: &str| Network::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_ne!(network("198.51.100.4"), network("198.51.100.5"));
        assert_eq!(network("198.51.100.4"), network("::ffff:198.51.100.4"));
    }
}
