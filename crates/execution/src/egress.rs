//! Which hosts the agents of a version may ask, as their owner names them: `api.example.com`, `api.example.com:8443`,
//! `*.example.com`. Judges names; where a name leads is judged when it is asked. Knows no network.

use std::{fmt, str::FromStr};

/// Most hosts of one version.
pub const MAX_HOSTS: usize = 64;
const HOST_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;
/// Every upstream is asked under TLS.
const PORT: u16 = 443;

/// One host, or all hosts under one, at one port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host {
    /// In lower case.
    name: String,
    /// Whether every name under it is meant, and not it itself.
    under: bool,
    port: u16,
}

/// The text names no host that may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAHost {
    /// Neither a DNS name, nor `*.` and one of two labels or more; or an address.
    #[error("neither a DNS name such as api.example.com nor *.example.com")]
    Name,
    /// Not 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

/// What the agents of a version may ask. Nothing at all is "no network".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Host>);

/// Nothing: no network.
pub static NONE: Hosts = Hosts(Vec::new());

// === impl Hosts ===

impl Hosts {
    /// Whether nothing may be asked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each as it is written.
    pub fn named(&self) -> Vec<String> {
        self.0.iter().map(Host::to_string).collect()
    }

    /// Whether `name` (in lower case, without a trailing dot) may be asked at `port`.
    pub fn allow(&self, name: &str, port: u16) -> bool {
        self.0.iter().any(|host| host.port == port && host.is_met_by(name))
    }
}

impl FromIterator<Host> for Hosts {
    fn from_iter<T: IntoIterator<Item = Host>>(hosts: T) -> Self {
        Self(hosts.into_iter().collect())
    }
}

// === impl Host ===

impl Host {
    fn is_met_by(&self, name: &str) -> bool {
        if !self.under {
            return self.name == name;
        }
        // A whole label at least stands before the dot: `evilexample.com` is not under `example.com`.
        name.strip_suffix(&self.name)
            .and_then(|head| head.strip_suffix('.'))
            .is_some_and(|head| !head.is_empty())
    }
}

impl FromStr for Host {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, NotAHost> {
        let (host, port) = match text.split_once(':') {
            None => (text, PORT),
            Some((host, port)) => {
                let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
                let port = digits.then(|| port.parse().ok()).flatten().filter(|port| *port != 0);
                (host, port.ok_or(NotAHost::Port)?)
            }
        };
        let (under, name) = match host.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, host),
        };
        let label = |label: &str| {
            (1..=LABEL_BYTES).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last = name.rsplit('.').next().unwrap_or_default();
        // What ends in a number is an address to some resolvers (`2130706433`, `127.1`, `0x7f.1`).
        let is_number = last.starts_with(|c: char| c.is_ascii_digit());
        let whole = name.len() <= HOST_BYTES && name.split('.').all(label);
        // Under a last label alone would be half of the internet.
        let wide = under && !name.contains('.');
        if !whole || is_number || wide {
            return Err(NotAHost::Name);
        }
        Ok(Self { name: name.to_ascii_lowercase(), under, port })
    }
}

/// One spelling per host: what is stored and shown.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.under { "*." } else { "" }, self.name)?;
        if self.port == PORT { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(texts: &[&str]) -> Hosts {
        texts.iter().map(|text| text.parse::<Host>().unwrap()).collect()
    }

    #[test]
    fn a_host_has_one_spelling() {
        for (text, expected) in [
            ("api.example.com", Ok("api.example.com")),
            ("API.Example.com:443", Ok("api.example.com")),
            ("api.example.com:8443", Ok("api.example.com:8443")),
            ("*.example.com", Ok("*.example.com")),
            ("*.Example.com:8443", Ok("*.example.com:8443")),
            ("a_b.example.com", Ok("a_b.example.com")),
            ("", Err(NotAHost::Name)),
            ("*", Err(NotAHost::Name)),
            ("*.com", Err(NotAHost::Name)),
            ("upstream", Ok("upstream")),
            ("1password.com", Ok("1password.com")),
            ("a.*.example.com", Err(NotAHost::Name)),
            ("**.example.com", Err(NotAHost::Name)),
            ("*example.com", Err(NotAHost::Name)),
            ("https://api.example.com", Err(NotAHost::Port)),
            ("api.example.com/v1", Err(NotAHost::Name)),
            ("api.example.com.", Err(NotAHost::Name)),
            (".example.com", Err(NotAHost::Name)),
            ("a@example.com", Err(NotAHost::Name)),
            ("127.0.0.1", Err(NotAHost::Name)),
            ("127.1", Err(NotAHost::Name)),
            ("0x7f.0x1", Err(NotAHost::Name)),
            ("[::1]", Err(NotAHost::Port)),
            ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
            ("bücher.example", Err(NotAHost::Name)),
            ("api.example.com:", Err(NotAHost::Port)),
            ("api.example.com:0", Err(NotAHost::Port)),
            ("api.example.com:65536", Err(NotAHost::Port)),
            ("api.example.com:+1", Err(NotAHost::Port)),
        ] {
            let got = text.parse::<Host>().map(|host| host.to_string());
            assert_eq!(got, expected.map(str::to_owned), "{text}");
            if let Ok(shown) = got {
                assert_eq!(shown.parse::<Host>().map(|host| host.to_string()), Ok(shown));
            }
        }
        let long = format!("{}.com", "a".repeat(64));
        assert_eq!(long.parse::<Host>(), Err(NotAHost::Name));
    }

    #[test]
    fn a_name_is_allowed_whole_at_its_port() {
        let hosts = hosts(&["api.example.com", "*.models.example:8443"]);
        for (name, port, expected) in [
            ("api.example.com", 443, true),
            ("api.example.com", 80, false),
            ("api.example.com", 8443, false),
            ("xapi.example.com", 443, false),
            ("example.com", 443, false),
            ("a.api.example.com", 443, false),
            ("api.example.com.evil.example", 443, false),
            ("a.models.example", 8443, true),
            ("a.b.models.example", 8443, true),
            ("a.models.example", 443, false),
            ("models.example", 8443, false),
            (".models.example", 8443, false),
            ("evilmodels.example", 8443, false),
        ] {
            assert_eq!(hosts.allow(name, port), expected, "{name}:{port}");
        }
        assert!(Hosts::default().is_empty() && !Hosts::default().allow("api.example.com", 443));
    }
}
