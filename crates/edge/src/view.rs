//! Reads a request's headers once, in one pass over the list that the host gave: what later steps need, what
//! must go, and what makes the request ambiguous. Names and values are bytes of a client: nothing is assumed.
//! Knows neither policies nor hosts.

use std::{borrow::Cow, fmt, net::IpAddr};

use gatehouse_authn::octets;
use gatehouse_contract::header;

use crate::{client, version::accept};

/// The headers of one request, as pairs of bytes from one read of the host's header map.
#[derive(Clone)]
pub struct RequestView<'a> {
    headers: Cow<'a, [Pair<'a>]>,
    client: Option<&'a dyn Fn() -> Option<String>>,
    peer: Option<&'a dyn Fn() -> Option<String>>,
    caller: Option<&'a dyn Fn() -> Option<Vec<u8>>>,
}

/// A header's name and value.
type Pair<'a> = (&'a [u8], &'a [u8]);

impl<'a> RequestView<'a> {
    /// Borrows the pairs in their order.
    pub fn new<N: AsRef<[u8]>, V: AsRef<[u8]>>(headers: &'a [(N, V)]) -> Self {
        let pairs = headers.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
        Self { headers: pairs.collect(), client: None, peer: None, caller: None }
    }

    /// Borrows pairs that are borrowed already.
    pub fn of(headers: &'a [(&'a [u8], &'a [u8])]) -> Self {
        Self { headers: Cow::Borrowed(headers), client: None, peer: None, caller: None }
    }

    /// With a way to ask for the client's address as the host writes it, `address:port`. Asked at most once, and
    /// only for credentials whose guessing is to be bounded by it.
    #[must_use]
    pub fn with_client(self, client: &'a dyn Fn() -> Option<String>) -> Self {
        Self { client: Some(client), ..self }
    }

    /// With a way to ask who the peer of this connection proved to be: the URI of a certificate that was verified, on
    /// this connection, and `None` for whoever proved nothing. Asked at most once, and only where somebody may pass
    /// by it.
    #[must_use]
    pub fn with_peer(self, peer: &'a dyn Fn() -> Option<String>) -> Self {
        Self { peer: Some(peer), ..self }
    }

    /// With a way to ask whom a module before this one handed over ([`crate::RequestRecord::handover`]). Asked at most
    /// once, and only by modules that stand behind another.
    #[must_use]
    pub fn with_caller(self, caller: &'a dyn Fn() -> Option<Vec<u8>>) -> Self {
        Self { caller: Some(caller), ..self }
    }

    /// The client's address without its port. `hops` is how many proxies before this one are believed.
    pub(crate) fn client(&self, hops: usize) -> Option<IpAddr> {
        let forwarded = self
            .headers
            .iter()
            .filter_map(|(name, value)| name.eq_ignore_ascii_case(FORWARDED_FOR).then_some(*value));
        client::address(&self.client?()?, forwarded, hops)
    }

    /// Every value of the header of this name, in lower case, in their order.
    pub(crate) fn all(&self, wanted: &'static [u8]) -> impl Iterator<Item = &[u8]> {
        self.headers
            .iter()
            .filter_map(move |(name, value)| name.eq_ignore_ascii_case(wanted).then_some(*value))
    }

    /// Every header, in its order.
    pub(crate) fn pairs(&self) -> &[Pair<'a>] {
        &self.headers
    }

    /// Whom a module before this one handed over.
    pub(crate) fn caller(&self) -> Option<Vec<u8>> {
        self.caller?()
    }

    /// Who the peer of this connection proved to be.
    pub(crate) fn peer(&self) -> Option<String> {
        self.peer?()
    }
}

/// Where proxies note whom they forward for.
const FORWARDED_FOR: &[u8] = b"x-forwarded-for";

impl fmt::Debug for RequestView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be credentials.
        write!(f, "RequestView({} headers)", self.headers.len())
    }
}

/// What kind of reply the caller understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Problem documents.
    Http,
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// gRPC-Web in base64, for clients that can read nothing but text.
    GrpcWebText,
}

/// A header that occurs at most once in a sound request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Single<'a> {
    #[default]
    Absent,
    One(&'a [u8]),
    Many,
}

impl<'a> Single<'a> {
    pub(crate) fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Absent => Self::One(value),
            Self::One(_) | Self::Many => Self::Many,
        };
    }
}

/// What one pass over the headers found.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    pub(crate) method: Single<'a>,
    pub(crate) path: Single<'a>,
    pub(crate) authority: Single<'a>,
    pub(crate) host: Single<'a>,
    pub(crate) authorization: Single<'a>,
    pub(crate) api_key: Single<'a>,
    /// The client's spelling of the API key's header.
    pub(crate) api_key_name: &'a [u8],
    pub(crate) cookies: Vec<&'a [u8]>,
    pub(crate) request_id: Single<'a>,
    pub(crate) traceparent: Single<'a>,
    pub(crate) has_tracestate: bool,
    pub(crate) dialect: Dialect,
    /// Whether an `Accept` has a media type of some vendor, which may name a version.
    pub(crate) accepts_of_vendor: bool,
    /// The `Content-Type`, where it is one.
    pub(crate) content_of_vendor: Option<&'a [u8]>,
    /// Names of identity headers in the client's spelling, each once.
    pub(crate) identity: Vec<&'a str>,
    /// Whether an identity header came twice under one name.
    pub(crate) identity_twice: bool,
    pub(crate) baggage: Vec<&'a [u8]>,
    /// What is left of `Connection` when it names protected headers (acceptance T4).
    pub(crate) connection: Option<String>,
    /// A header that asks an upstream to judge another method than we did (acceptance P6).
    pub(crate) overrides_method: bool,
    /// `Origin` and `Access-Control-Request-Method`: with the method `OPTIONS` a preflight (acceptance J32).
    pub(crate) origin: Single<'a>,
    pub(crate) asks_for_method: bool,
    pub(crate) asks_for_private_network: bool,
    pub(crate) content_length: Single<'a>,
    pub(crate) upgrades: bool,
    /// `X-Envelope`: whether the client wants its answers bare.
    pub(crate) envelope: Single<'a>,
    /// Whether a platform member says why it acts for another tenant (acceptance T8).
    pub(crate) impersonation_reason: bool,
}

impl Scan<'_> {
    /// Whether a browser asks before it asks (Fetch §4.8; acceptance J32).
    pub(crate) fn is_preflight(&self) -> bool {
        self.method == Single::One(b"OPTIONS")
            && self.origin != Single::Absent
            && self.asks_for_method
    }
}

/// Headers by which frameworks let a client replace the method.
const METHOD_OVERRIDES: &[&str] = &["x-http-method-override", "x-http-method", "x-method-override"];

/// Names under this prefix are ours, but for the one that clients may send.
const OWN_PREFIX: &str = "x-gatehouse-";

/// What a proxy before this one says of its peer's certificate: anybody can say it (acceptance R15).
const CLIENT_CERTIFICATE: &str = "x-forwarded-client-cert";

/// Whether a client's header of this name must not pass: an identity header, or one of our own names.
pub(crate) fn is_protected(name: &[u8]) -> bool {
    let ours = |name: &[u8]| {
        name.get(..OWN_PREFIX.len()).is_some_and(|start| header::spells(start, OWN_PREFIX))
            && !name.eq_ignore_ascii_case(header::IMPERSONATION_REASON.as_bytes())
    };
    // Every protected name begins with an `x`.
    matches!(name.first(), Some(b'x' | b'X'))
        && (header::is_identity(name) || ours(name) || header::spells(name, CLIENT_CERTIFICATE))
}

/// Names of `headers` that must not pass, e.g. in trailers; each as often as it stands there.
pub fn protected_names<N: AsRef<[u8]>, V>(headers: &[(N, V)]) -> Vec<&str> {
    headers
        .iter()
        .map(|(name, _)| name.as_ref())
        .filter(|name| is_protected(name))
        .filter_map(|name| std::str::from_utf8(name).ok())
        .collect()
}

pub(crate) fn scan<'a>(request: &RequestView<'a>) -> Scan<'a> {
    let mut found = Scan {
        method: Single::Absent,
        path: Single::Absent,
        authority: Single::Absent,
        host: Single::Absent,
        authorization: Single::Absent,
        api_key: Single::Absent,
        api_key_name: b"",
        cookies: Vec::new(),
        request_id: Single::Absent,
        traceparent: Single::Absent,
        has_tracestate: false,
        dialect: Dialect::Http,
        accepts_of_vendor: false,
        content_of_vendor: None,
        identity: Vec::new(),
        identity_twice: false,
        baggage: Vec::new(),
        connection: None,
        overrides_method: false,
        origin: Single::Absent,
        asks_for_method: false,
        asks_for_private_network: false,
        content_length: Single::Absent,
        upgrades: false,
        envelope: Single::Absent,
        impersonation_reason: false,
    };
    let mut connection: Vec<&[u8]> = Vec::new();
    for &(name, value) in request.headers.iter() {
        let is = |ours: &[u8]| name.eq_ignore_ascii_case(ours);
        // Most headers are done with after one byte; setting this bit makes letters small and leaves the colon.
        match name.first().map(|first| first | 0x20) {
            Some(b':') => match name {
                b":method" => found.method.add(value),
                b":path" => found.path.add(value),
                b":authority" => found.authority.add(value),
                _ => {}
            },
            Some(b'a') if is(b"authorization") => {
                found.authorization.add(value);
                if is_joined(value) {
                    found.authorization = Single::Many;
                }
            }
            Some(b'a') if is(b"access-control-request-method") => found.asks_for_method = true,
            Some(b'a') if is(b"access-control-request-private-network") => {
                found.asks_for_private_network = value == b"true";
            }
            Some(b'b') if is(b"baggage") => found.baggage.push(value),
            Some(b'c') if is(b"cookie") => found.cookies.push(value),
            Some(b'a') if is(b"accept") => found.accepts_of_vendor |= accept::names_vendor(value),
            Some(b'c') if is(b"content-type") => {
                found.dialect = dialect(value);
                if accept::names_vendor(value) {
                    found.content_of_vendor = Some(value);
                }
            }
            Some(b'c') if is(b"connection") => connection.push(value),
            Some(b'c') if is(b"content-length") => found.content_length.add(value),
            Some(b'h') if is(b"host") => found.host.add(value),
            Some(b'o') if is(b"origin") => found.origin.add(value),
            Some(b't') if is(b"traceparent") => found.traceparent.add(value),
            Some(b't') if is(b"tracestate") => found.has_tracestate = true,
            Some(b'u') if is(b"upgrade") => found.upgrades = true,
            Some(b'x') => note_extension(&mut found, name, value),
            _ => {}
        }
    }
    found.connection = without_protected(&connection);
    found
}

/// A header whose name begins with an `x`.
fn note_extension<'a>(found: &mut Scan<'a>, name: &'a [u8], value: &'a [u8]) {
    if name.eq_ignore_ascii_case(header::REQUEST_ID.as_bytes()) {
        found.request_id.add(value);
    } else if header::spells(name, header::API_KEY) {
        found.api_key.add(value);
        found.api_key_name = name;
    } else if name.eq_ignore_ascii_case(header::IMPERSONATION_REASON.as_bytes()) {
        found.impersonation_reason |= !value.trim_ascii().is_empty();
    } else if name.eq_ignore_ascii_case(b"x-envelope") {
        found.envelope.add(value);
    } else if is_protected(name) {
        note_identity(found, name);
    } else if METHOD_OVERRIDES.iter().any(|known| header::spells(name, known)) {
        found.overrides_method = true;
    }
}

/// Whether two `Authorization` headers were joined by a comma on the way, as Envoy's HTTP/1 codec does it: a token
/// has no comma, so that a second `Bearer` behind one is a second credential (acceptance J4).
fn is_joined(value: &[u8]) -> bool {
    let Some(comma) = octets::find(value, b',') else { return false };
    value.get(comma..).unwrap_or_default().split(|byte| *byte == b',').skip(1).any(|part| {
        let part = part.trim_ascii_start();
        part.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
    })
}

fn note_identity<'a>(found: &mut Scan<'a>, name: &'a [u8]) {
    // A protected name is ASCII, so that this holds.
    let Ok(name) = std::str::from_utf8(name) else { return };
    if found.identity.iter().any(|seen| seen.eq_ignore_ascii_case(name)) {
        found.identity_twice = true;
    } else {
        found.identity.push(name);
    }
}

/// gRPC by the letter, as Envoy judges it: what it does not take for gRPC it would answer by 200 and no status.
fn dialect(content_type: &[u8]) -> Dialect {
    let Some(rest) = content_type.strip_prefix(b"application/grpc") else { return Dialect::Http };
    let ends = |rest: &[u8]| matches!(rest.first(), None | Some(b'+' | b';'));
    match rest.strip_prefix(b"-web") {
        Some(web) if ends(web) => Dialect::GrpcWeb,
        Some(web) => match web.strip_prefix(b"-text") {
            Some(text) if ends(text) => Dialect::GrpcWebText,
            _ => Dialect::Http,
        },
        None if matches!(rest.first(), None | Some(b'+')) => Dialect::Grpc,
        None => Dialect::Http,
    }
}

/// `None` when no option names a protected header; else the options that may stay.
fn without_protected(values: &[&[u8]]) -> Option<String> {
    let nominated = |option: &[u8]| {
        is_protected(option)
            || [header::REQUEST_ID, header::BAGGAGE, header::API_KEY, "authorization", "cookie"]
                .iter()
                .any(|ours| header::spells(option, ours))
    };
    let options = || {
        values.iter().flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
    };
    if !options().any(nominated) {
        return None;
    }
    let kept: Vec<&str> = options()
        .filter(|option| !option.is_empty() && !nominated(option))
        .filter_map(|option| std::str::from_utf8(option).ok())
        .filter(|option| option.bytes().all(|byte| byte.is_ascii_graphic()))
        .collect();
    Some(kept.join(", "))
}

#[cfg(test)]
mod tests;
