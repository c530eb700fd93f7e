//! What an address says, read strictly: one spelling per host, so that what is judged is what is asked.
//! Resolves nothing.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// The longest URL.
const MAX_BYTES: usize = 2048;
const HOST_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;

/// Why a text is no address that we ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAUrl {
    /// Longer than 2048 bytes.
    #[error("longer than {MAX_BYTES} bytes")]
    Long,
    /// Neither `http://` nor `https://`.
    #[error("neither https:// nor http://")]
    Scheme,
    /// `user@` or `user:password@`.
    #[error("carries a user or a password")]
    UserInfo,
    /// Neither a DNS name, nor an IPv4 address of four decimal numbers, nor an IPv6 address in brackets.
    #[error("the host is neither a DNS name nor an address in its usual form")]
    Host,
    /// Not 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// A fragment, or a byte that must be escaped.
    #[error("the path or the query has a byte that does not belong there")]
    Path,
    /// An origin with a path.
    #[error("more than a scheme, a host and a port")]
    NotAnOrigin,
}

/// Scheme, host and port, as an operator names an exception: `https://idp.example:8443`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    pub(crate) https: bool,
    pub(crate) host: Host,
    pub(crate) port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// In lower case.
    Name(String),
    Address(IpAddr),
}

/// A whole address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    origin: Origin,
    /// Path and query; begins with `/`.
    pub(crate) path: String,
}

impl Target {
    /// Its origin.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Path and query; begins with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same under TLS, at TLS's own port where it was at HTTP's.
    #[must_use]
    pub fn over_tls(mut self) -> Self {
        if !self.origin.https && self.origin.port == 80 {
            self.origin.port = 443;
        }
        self.origin.https = true;
        self
    }
}

impl Origin {
    /// Whether it is asked under TLS.
    pub const fn is_https(&self) -> bool {
        self.https
    }

    /// The port that is asked.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The host, in lower case, where it is a name and no address.
    pub fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Name(name) => Some(name),
            Host::Address(_) => None,
        }
    }

    /// `host[:port]` for the `Host` field (RFC 9110 §7.2).
    pub fn authority(&self) -> String {
        let default = if self.https { 443 } else { 80 };
        if self.port == default {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)
    }
}

impl FromStr for Origin {
    type Err = NotAUrl;

    fn from_str(text: &str) -> Result<Self, NotAUrl> {
        let (origin, rest) = split(text)?;
        if rest.is_empty() { Ok(origin) } else { Err(NotAUrl::NotAnOrigin) }
    }
}

impl FromStr for Target {
    type Err = NotAUrl;

    fn from_str(text: &str) -> Result<Self, NotAUrl> {
        let (origin, rest) = split(text)?;
        let path = match rest.bytes().next() {
            None => "/".to_owned(),
            Some(b'/') => rest.to_owned(),
            Some(_) => format!("/{rest}"),
        };
        // Visible ASCII without what a URL must escape (RFC 3986 §2); no fragment.
        let belongs = |b: u8| b.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&b);
        if path.bytes().all(belongs) { Ok(Self { origin, path }) } else { Err(NotAUrl::Path) }
    }
}

fn split(text: &str) -> Result<(Origin, &str), NotAUrl> {
    if text.len() > MAX_BYTES {
        return Err(NotAUrl::Long);
    }
    let (https, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err(NotAUrl::Scheme),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(end).ok_or(NotAUrl::Host)?;
    if authority.contains('@') {
        return Err(NotAUrl::UserInfo);
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (address, port) = inner.split_once(']').ok_or(NotAUrl::Host)?;
            // No zone: `Ipv6Addr` takes none.
            let address: Ipv6Addr = address.parse().map_err(|_| NotAUrl::Host)?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or(NotAUrl::Host)?),
            };
            (Host::Address(IpAddr::V6(address)), port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (name_or_v4(host)?, Some(port)),
            None => (name_or_v4(authority)?, None),
        },
    };
    let port = match port {
        None if https => 443,
        None => 80,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            port.parse().ok().filter(|port| *port != 0).ok_or(NotAUrl::Port)?
        }
        Some(_) => return Err(NotAUrl::Port),
    };
    Ok((Origin { https, host, port }, rest))
}

/// A name whose last label looks like a number is an address to some resolvers (`2130706433`, `0x7f.1`): it must be
/// one in its usual form.
fn name_or_v4(host: &str) -> Result<Host, NotAUrl> {
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    let label = |label: &str| {
        (1..=LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // An empty last label is a trailing dot.
    let last = host.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|b| b.is_ascii_digit())
        || last.strip_prefix(['0']).is_some_and(|rest| rest.starts_with(['x', 'X']));
    if host.len() <= HOST_BYTES && host.split('.').all(label) && !number {
        Ok(Host::Name(host.to_ascii_lowercase()))
    } else {
        Err(NotAUrl::Host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, NotAUrl>) {
        let got = text.parse::<Target>().map(|target| target.to_string());
        assert_eq!(got, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn an_address_has_one_spelling() {
        check("https://idp.example", Ok("https://idp.example/"));
        check("https://IDP.Example:443/a?b=c", Ok("https://idp.example/a?b=c"));
        check("http://idp:80?x", Ok("http://idp/?x"));
        check("http://127.0.0.1:8080/jwks", Ok("http://127.0.0.1:8080/jwks"));
        check("https://[2606:4700:0::1111]/", Ok("https://[2606:4700::1111]/"));
        check("https://a_b.example/%2e", Ok("https://a_b.example/%2e"));
    }

    #[test]
    fn tricks_with_hosts_are_refused() {
        for host in [
            "",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "127.1",
            "0177.0.0.1",
            "127.0.0.1.",
            "127.0.0.01",
            "1.2.3.4.5",
            "256.1.1.1",
            "idp.example.",
            "idp..example",
            ".idp",
            "-idp.example",
            "idp-.example",
            "idp.example%2f",
            "idp%00.example",
            "idp example",
            "idp\\evil",
            "idp.例",
            "①.example",
            "a,b",
            "*",
            "::1",
            "[::1",
            "[fe80::1%25eth0]",
            "[fe80::1%eth0]",
            "[::1]x",
            "[127.0.0.1]",
            "[]",
            "evil.0x1f",
            &"a".repeat(64),
            &"a.".repeat(127),
        ] {
            let got = format!("https://{host}/x").parse::<Target>();
            assert!(matches!(got, Err(NotAUrl::Host | NotAUrl::Port)), "{host}: {got:?}");
        }
        for with_user in [
            "https://a@idp/",
            "https://a:b@idp/",
            "https://idp.example@127.0.0.1/",
            "https://@idp/",
        ] {
            check(with_user, Err(NotAUrl::UserInfo));
        }
        for port in ["", "0", "65536", "+1", "80 ", "8 0", "-1", "1:2"] {
            check(&format!("https://idp:{port}/"), Err(NotAUrl::Port));
        }
        for other in [
            "",
            "idp.example",
            "//idp",
            "ftp://idp",
            "HTTPS://idp",
            "file:///etc/passwd",
            " https://idp",
            "http:/idp",
        ] {
            check(other, Err(NotAUrl::Scheme));
        }
        for path in ["/#", "/a b", "/\r\nx: y", "/\u{e9}", "/\\", "/\u{7f}"] {
            check(&format!("https://idp{path}"), Err(NotAUrl::Path));
        }
        check(&format!("https://idp/{}", "x".repeat(2048)), Err(NotAUrl::Long));
    }

    #[test]
    fn what_goes_over_tls_keeps_a_port_that_was_chosen() {
        for (text, expected) in [
            ("http://api.example/a?b", "https://api.example/a?b"),
            ("http://api.example:80/", "https://api.example/"),
            ("http://api.example:8080/", "https://api.example:8080/"),
            ("https://api.example:80/", "https://api.example:80/"),
            ("https://api.example/", "https://api.example/"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().over_tls().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn an_exception_is_an_origin_and_nothing_more() {
        let origin = |text: &str| text.parse::<Origin>().map(|origin| origin.to_string());
        assert_eq!(origin("http://127.0.0.1:8080").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(origin("https://idp:443").unwrap(), "https://idp");
        for more in ["https://idp/", "https://idp?x", "https://idp/jwks"] {
            assert_eq!(origin(more), Err(NotAUrl::NotAnOrigin), "{more}");
        }
    }
}
