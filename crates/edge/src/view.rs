//! Reads a request's headers once, in one pass over the list that the host gave: what later steps need, what
//! must go, and what makes the request ambiguous. Names and values are bytes of a client: nothing is assumed.
//! Knows neither policies nor hosts.

use gatehouse_contract::header;

/// The headers of one request, as pairs of bytes from one read of the host's header map.
#[derive(Debug, Clone)]
pub struct RequestView<'a> {
    headers: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> RequestView<'a> {
    /// Borrows the pairs in their order.
    pub fn new<N: AsRef<[u8]>, V: AsRef<[u8]>>(headers: &'a [(N, V)]) -> Self {
        let pairs = headers.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
        Self { headers: pairs.collect() }
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
    fn add(&mut self, value: &'a [u8]) {
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
    pub(crate) authorization: Single<'a>,
    pub(crate) request_id: Single<'a>,
    pub(crate) dialect: Dialect,
    /// Names of identity headers in the client's spelling, each once.
    pub(crate) identity: Vec<&'a str>,
    /// Whether an identity header came twice under one name.
    pub(crate) identity_twice: bool,
    pub(crate) baggage: Vec<&'a [u8]>,
    /// What is left of `Connection` when it names protected headers (acceptance T4).
    pub(crate) connection: Option<String>,
    /// A header that asks an upstream to judge another method than we did (acceptance P6).
    pub(crate) overrides_method: bool,
}

/// Headers by which frameworks let a client replace the method.
const METHOD_OVERRIDES: &[&str] = &["x-http-method-override", "x-http-method", "x-method-override"];

/// Names under this prefix are ours, but for the one that clients may send.
const OWN_PREFIX: &str = "x-gatehouse-";

/// Whether a client's header of this name must not pass: an identity header, or one of our own names.
fn is_protected(name: &[u8]) -> bool {
    let ours = |name: &[u8]| {
        name.get(..OWN_PREFIX.len()).is_some_and(|start| header::spells(start, OWN_PREFIX))
            && !name.eq_ignore_ascii_case(header::IMPERSONATION_REASON.as_bytes())
    };
    // Every protected name begins with an `x`: most headers are done with after one byte.
    matches!(name.first(), Some(b'x' | b'X')) && (header::is_identity(name) || ours(name))
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
        authorization: Single::Absent,
        request_id: Single::Absent,
        dialect: Dialect::Http,
        identity: Vec::new(),
        identity_twice: false,
        baggage: Vec::new(),
        connection: None,
        overrides_method: false,
    };
    let mut connection: Vec<&[u8]> = Vec::new();
    for &(name, value) in &request.headers {
        if name.eq_ignore_ascii_case(b":method") {
            found.method.add(value);
        } else if name.eq_ignore_ascii_case(b":path") {
            found.path.add(value);
        } else if name.eq_ignore_ascii_case(b"authorization") {
            found.authorization.add(value);
            if is_joined(value) {
                found.authorization = Single::Many;
            }
        } else if name.eq_ignore_ascii_case(b"content-type") {
            found.dialect = dialect(value);
        } else if name.eq_ignore_ascii_case(header::REQUEST_ID.as_bytes()) {
            found.request_id.add(value);
        } else if name.eq_ignore_ascii_case(header::BAGGAGE.as_bytes()) {
            found.baggage.push(value);
        } else if name.eq_ignore_ascii_case(b"connection") {
            connection.push(value);
        } else if is_protected(name) {
            note_identity(&mut found, name);
        } else if METHOD_OVERRIDES.iter().any(|known| header::spells(name, known)) {
            found.overrides_method = true;
        }
    }
    found.connection = without_protected(&connection);
    found
}

/// Whether two `Authorization` headers were joined by a comma on the way, as Envoy's HTTP/1 codec does it: a token
/// has no comma, so that a second `Bearer` behind one is a second credential (acceptance J4).
fn is_joined(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').skip(1).any(|part| {
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

fn dialect(content_type: &[u8]) -> Dialect {
    let begins = |prefix: &[u8]| {
        content_type.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if begins(b"application/grpc-web") {
        Dialect::GrpcWeb
    } else if begins(b"application/grpc") {
        Dialect::Grpc
    } else {
        Dialect::Http
    }
}

/// `None` when no option names a protected header; else the options that may stay.
fn without_protected(values: &[&[u8]]) -> Option<String> {
    let nominated = |option: &[u8]| {
        is_protected(option)
            || [header::REQUEST_ID, header::BAGGAGE, "authorization"]
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
mod tests {
    use super::*;

    fn check(headers: &[(&str, &str)], expected: impl FnOnce(&Scan<'_>)) {
        expected(&scan(&RequestView::new(headers)));
    }

    #[test]
    fn t2_identity_headers_are_found_in_every_spelling() {
        let spellings = ["X-Tenant-ID", "x_tenant_id", "X-Tenant_ID", "x-gatehouse-context"];
        let mut headers: Vec<_> = spellings.iter().map(|name| (*name, "evil")).collect();
        headers.extend([("x-tenant", "a"), ("x-gatehouse-reason", "b"), ("accept", "c")]);
        check(&headers, |scan| {
            assert_eq!(scan.identity, spellings);
            assert!(!scan.identity_twice);
        });
        check(&[("x-gatehouse-sidecar", "1"), ("X_Gatehouse_Reason", "b")], |scan| {
            assert_eq!(scan.identity, ["x-gatehouse-sidecar", "X_Gatehouse_Reason"]);
        });
        check(&[("x-tenant-id", "a"), ("X-TENANT-ID", "")], |scan| assert!(scan.identity_twice));
    }

    #[test]
    fn t4_connection_cannot_nominate_protected_headers() {
        let connection = |value: &str, expected: Option<&str>| {
            check(&[("connection", value)], |scan| {
                assert_eq!(scan.connection.as_deref(), expected, "{value:?}");
            });
        };
        connection("keep-alive, X-Other", None);
        connection("Upgrade", None);
        connection("keep-alive, X-Tenant-ID,Upgrade", Some("keep-alive, Upgrade"));
        connection("x_tenant_id", Some(""));
        connection("Authorization, close", Some("close"));
        connection("x-request-id", Some(""));
    }

    #[test]
    fn duplicates_are_seen() {
        check(&[("authorization", "a")], |scan| {
            assert_eq!(scan.authorization, Single::One(b"a"));
        });
        check(&[("authorization", "a"), ("Authorization", "a")], |scan| {
            assert_eq!(scan.authorization, Single::Many);
        });
        check(&[], |scan| assert_eq!(scan.authorization, Single::Absent));
    }

    #[test]
    fn j4_two_credentials_that_were_joined_on_the_way_are_still_two() {
        for (value, joined) in [
            ("Bearer a,Bearer b", true),
            ("Basic a, bearer b", true),
            ("Bearer a,Basic b", false),
            ("Digest realm=\"Bearer\", nonce=x", false),
            ("Bearer a", false),
        ] {
            check(&[("authorization", value)], |scan| {
                assert_eq!(scan.authorization == Single::Many, joined, "{value}");
            });
        }
    }

    #[test]
    fn j34_dialects_follow_the_content_type() {
        for (content_type, expected) in [
            ("application/grpc", Dialect::Grpc),
            ("Application/gRPC+proto", Dialect::Grpc),
            ("application/grpc-web+proto", Dialect::GrpcWeb),
            ("application/json", Dialect::Http),
            ("", Dialect::Http),
        ] {
            check(&[("content-type", content_type)], |scan| {
                assert_eq!(scan.dialect, expected, "{content_type}");
            });
        }
    }
}
