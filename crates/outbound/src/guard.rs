//! Which addresses may be asked (design §3.3). Resolves and connects nothing.

use std::net::{IpAddr, SocketAddr};

use crate::{
    address::is_public,
    target::{Host, NotAUrl, Origin, Target},
};

/// How many of a name's addresses are tried.
const ADDRESSES: usize = 4;

/// Ends of names that no resolver of the internet knows (RFC 6762, RFC 8375, ICANN's `.internal`): a cloud's metadata among
/// them. What other names lead to is judged when they are resolved.
const PRIVATE_NAMES: &[&str] = &[".local", ".internal", ".home.arpa"];

/// Judges addresses for one use. Cheap to make; every use has its own exceptions.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    named: Vec<Origin>,
    own: Vec<SocketAddr>,
}

/// An address may not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not one.
    #[error("not an address that can be asked")]
    Url(#[source] NotAUrl),
    /// Without TLS, and nobody named it.
    #[error("{0} is not https and is not named as an exception")]
    Plain(Origin),
    /// It is, or leads to, an address that is not of the public internet, and nobody named it.
    #[error("{origin} leads to {address}, which is not a public address")]
    Private {
        /// What was asked for.
        origin: Origin,
        /// Where it leads.
        address: IpAddr,
    },
    /// It leads to an internal listener of ours.
    #[error("{0} leads to an internal listener of ours")]
    Own(Origin),
    /// A name that is kept for networks that are not the internet, and nobody named it.
    #[error("{0} is a name of private networks")]
    Reserved(Origin),
    /// The name has no address.
    #[error("{0} has no address")]
    Nowhere(Origin),
}

impl Guard {
    /// A guard that lets `named` pass by the operator's word, and never a listener of our `own`.
    pub fn new(named: impl IntoIterator<Item = Origin>, own: Vec<SocketAddr>) -> Self {
        Self { named: named.into_iter().collect(), own }
    }

    /// Judges an address as far as that goes without resolving its name.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check(&self, url: &str) -> Result<Target, Refused> {
        let target: Target = url.parse().map_err(Refused::Url)?;
        self.admit(target.origin())?;
        Ok(target)
    }

    /// The same, of an origin that has been read.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit(&self, origin: &Origin) -> Result<(), Refused> {
        if !origin.https && !self.named.contains(origin) {
            return Err(Refused::Plain(origin.clone()));
        }
        match &origin.host {
            Host::Address(address) => drop(self.judge(origin, &[*address])?),
            // Always this machine (RFC 6761 §6.3), whatever a resolver would say.
            Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => {
                drop(self.judge(origin, &[IpAddr::from([127, 0, 0, 1])])?);
            }
            Host::Name(name) => {
                let reserved = PRIVATE_NAMES.iter().any(|end| name.ends_with(end));
                if reserved && !self.named.contains(origin) {
                    return Err(Refused::Reserved(origin.clone()));
                }
            }
        }
        Ok(())
    }

    /// Which sockets may be connected to for `origin`, whose name leads to `addresses`. One that may not be reached
    /// refuses the name whole: whoever answers for it plays tricks.
    pub(crate) fn judge(
        &self,
        origin: &Origin,
        addresses: &[IpAddr],
    ) -> Result<Vec<SocketAddr>, Refused> {
        let named = self.named.contains(origin);
        for address in addresses {
            if self.is_own(SocketAddr::new(*address, origin.port)) {
                return Err(Refused::Own(origin.clone()));
            }
            if !named && !is_public(*address) {
                return Err(Refused::Private { origin: origin.clone(), address: *address });
            }
        }
        if addresses.is_empty() {
            return Err(Refused::Nowhere(origin.clone()));
        }
        Ok(addresses.iter().take(ADDRESSES).map(|at| SocketAddr::new(*at, origin.port)).collect())
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        // "Any address" leads to this machine, too.
        let here = ip.is_loopback() || ip.is_unspecified();
        self.own.iter().any(|own| {
            let own_ip = own.ip().to_canonical();
            own.port() == address.port()
                && (own_ip == ip || own_ip.is_unspecified() || (here && own_ip.is_loopback()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let named = ["http://127.0.0.1:8080", "https://idp.corp:8443", "http://127.0.0.1:8082"];
        Guard::new(
            named.iter().map(|text| text.parse().unwrap()),
            vec!["127.0.0.1:8082".parse().unwrap(), "[::1]:8083".parse().unwrap()],
        )
    }

    fn check(url: &str, addresses: &[&str], expected: &str) {
        let guard = guard();
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let got = guard.check(url).and_then(|target| {
            if addresses.is_empty() {
                Ok(Vec::new())
            } else {
                guard.judge(target.origin(), &addresses)
            }
        });
        let got = got.map_or_else(|refused| refused.to_string(), |_| "ok".to_owned());
        assert_eq!(got, expected, "{url} {addresses:?}");
    }

    #[test]
    fn strangers_are_asked_under_tls_at_public_addresses_only() {
        check("https://idp.example/x", &["1.1.1.1", "2606:4700::1111"], "ok");
        check(
            "http://idp.example/x",
            &[],
            "http://idp.example is not https and is not named as an exception",
        );
        let private = "https://idp.example leads to 10.0.0.1, which is not a public address";
        check("https://idp.example/x", &["10.0.0.1"], private);
        check("https://idp.example/x", &["1.1.1.1", "10.0.0.1"], private);
        for literal in [
            "localhost",
            "a.localhost",
            "127.0.0.1",
            "169.254.169.254",
            "[::1]",
            "[::ffff:1.1.1.1]",
            "[fd00::1]",
        ] {
            let refused = guard().check(&format!("https://{literal}/x")).unwrap_err();
            assert!(matches!(refused, Refused::Private { .. }), "{refused}");
        }
        check("https://1.1.1.1/x", &[], "ok");
        for name in ["metadata.google.internal", "printer.local", "a.home.arpa"] {
            let refused = guard().check(&format!("https://{name}/x")).unwrap_err();
            assert!(matches!(refused, Refused::Reserved(_)), "{refused}");
        }
        check("https://internal.example/", &[], "ok");
        let named = Guard::new(["https://idp.internal".parse().unwrap()], Vec::new());
        assert!(named.check("https://idp.internal/x").is_ok());
    }

    #[test]
    fn an_exception_is_exact_in_scheme_host_and_port() {
        check("http://127.0.0.1:8080/jwks", &[], "ok");
        check("https://idp.corp:8443/jwks", &["10.0.0.1"], "ok");
        for near in [
            "http://127.0.0.1:8081",
            "http://127.0.0.2:8080",
            "http://idp.corp:8443",
            "https://127.0.0.1:8080",
        ] {
            assert!(guard().check(near).is_err(), "{near}");
        }
        check(
            "https://idp.corp/jwks",
            &["10.0.0.1"],
            "https://idp.corp leads to 10.0.0.1, which is not a public address",
        );
        check(
            "https://a.idp.corp:8443/",
            &["10.0.0.1"],
            "https://a.idp.corp:8443 leads to 10.0.0.1, which is not a public address",
        );
    }

    #[test]
    fn our_own_internal_listeners_are_never_asked_even_when_they_are_named() {
        check(
            "http://127.0.0.1:8082/",
            &[],
            "http://127.0.0.1:8082 leads to an internal listener of ours",
        );
        for address in ["127.0.0.1", "::1", "127.0.0.9", "::ffff:127.0.0.1", "0.0.0.0"] {
            let named = Guard::new(["http://me:8083".parse().unwrap()], guard().own);
            let target = named.check("http://me:8083/").unwrap();
            let refused = named.judge(target.origin(), &[address.parse().unwrap()]).unwrap_err();
            assert_eq!(refused, Refused::Own("http://me:8083".parse().unwrap()), "{address}");
        }
    }
}
