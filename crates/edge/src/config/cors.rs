//! The `cors` object of the edge document. Knows no requests.

use std::str::FromStr;

use gatehouse_contract::Document;

use super::{Warnings, words::FieldName};
use crate::cors::{self, Cors, EXPOSED, Origin, Origins, SENT};

/// How long a browser may remember a preflight where the document does not say, in seconds.
const MAX_AGE_S: u64 = 600;
/// No browser remembers longer than a day.
const MOST_AGE_S: u64 = 86_400;

const EXPECTED: &str = "an origin as browsers send it, such as \"https://app.example.com\" or \
                        \"http://localhost:3000\": lower case, a port only where it is not the scheme's \
                        own; or \"https://*.example.com\" for every name under it";

/// What may stand in `origins`.
enum Written {
    Any,
    One { origin: Origin, plain_http: bool, opaque: bool },
}

pub(super) fn read(doc: &Document<'_>, warnings: &mut Warnings) -> Option<Cors> {
    let origins = doc.parsed_list::<Written>("origins", EXPECTED);
    let credentials = doc.flag("credentials", false);
    let max_age_s = doc.integer("max_age_s", Some(MAX_AGE_S), 0..=MOST_AGE_S);
    let methods = doc.parsed_list::<Method>("methods", "a method such as \"GET\"");
    let headers = doc.parsed_list::<FieldName>("headers", "a header's name, not \"*\"");
    let expose = doc.parsed_list::<FieldName>("expose", "a header's name, not \"*\"");
    let private_network = doc.flag("private_network", false);

    let origins = origins?;
    if origins.is_empty() {
        doc.note("origins", "missing", format!("write a list, each {EXPECTED}"));
        return None;
    }
    let origins = whose(doc, origins, credentials == Some(true), warnings);
    let mut exposed: Vec<String> = EXPOSED.iter().map(|name| (*name).to_owned()).collect();
    exposed
        .extend(expose?.into_iter().map(|name| name.0).filter(|name| !EXPOSED.contains(&&**name)));
    let mut headers: Vec<String> = headers?.into_iter().map(|name| name.0).collect();
    if headers.is_empty() {
        headers.extend(SENT.iter().map(|name| (*name).to_owned()));
    }
    let methods: Vec<String> = methods?.into_iter().map(|method| method.0).collect();
    Some(Cors {
        origins: origins?,
        credentials: credentials?,
        methods: (!methods.is_empty()).then_some(methods),
        headers: headers.join(", ").into(),
        expose: exposed.join(", ").into(),
        // At most a day.
        max_age_s: u32::try_from(max_age_s?).ok()?,
        private_network: private_network?,
    })
}

fn whose(
    doc: &Document<'_>,
    written: Vec<Written>,
    credentials: bool,
    warnings: &mut Warnings,
) -> Option<Origins> {
    if written.iter().any(|origin| matches!(origin, Written::Any)) {
        if written.len() > 1 {
            doc.note(
                "origins",
                "\"*\" stands for all of them",
                "write \"*\" alone, or leave it out",
            );
            return None;
        }
        if credentials {
            let mend = "list the origins, or write \"credentials\": false";
            doc.note("origins", "every page of the web could act as whoever visits it", mend);
            return None;
        }
        let text = "scripts of every origin may read what their own credentials open; list the \
                    origins where they are known";
        warnings.add("$.cors.origins", text);
        return Some(Origins::Any);
    }
    let mut origins = Vec::new();
    let mut sound = true;
    for origin in written {
        let Written::One { origin, plain_http, opaque } = origin else { continue };
        if opaque && credentials {
            let mend = "leave it out, or write \"credentials\": false";
            let cause = "\"null\" is the origin of any page in a sandbox: the same as \"*\"";
            doc.note("origins", cause, mend);
            sound = false;
        } else if opaque {
            let text = "\"null\" is the origin of any page in a sandbox and of files: as good as \
                        \"*\"";
            warnings.add("$.cors.origins", text);
        }
        if plain_http {
            let text = "whoever sits on the network can pose as an origin without TLS; write \
                        \"https\"";
            warnings.add("$.cors.origins", text);
        }
        origins.push(origin);
    }
    sound.then_some(Origins::Listed(origins))
}

impl FromStr for Written {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "*" => return Ok(Self::Any),
            "null" => {
                let origin = Origin::Exact(text.into());
                return Ok(Self::One { origin, plain_http: false, opaque: true });
            }
            _ => {}
        }
        let (scheme, rest) = text.split_once("://").ok_or(())?;
        if !is_scheme(scheme) {
            return Err(());
        }
        let (host, port) = split_port(rest).ok_or(())?;
        // Browsers leave the scheme's own port out, so that an origin with it would never match.
        if matches!((scheme, port), ("https", Some(443)) | ("http", Some(80))) {
            return Err(());
        }
        let origin = match host.strip_prefix("*.") {
            Some(domain) => {
                // Whose names stand directly under a top level is nobody's.
                let owned = domain.contains('.') || domain == "localhost";
                if !owned || !cors::are_labels(domain) {
                    return Err(());
                }
                let before = format!("{scheme}://").into();
                // `*` is one byte: what follows it, port included.
                let after = rest.get(1..).ok_or(())?.into();
                Origin::Under { before, after }
            }
            None if cors::are_labels(host) || is_ipv6(host) => Origin::Exact(text.into()),
            None => return Err(()),
        };
        let local = host == "localhost"
            || host.ends_with(".localhost")
            || matches!(host, "127.0.0.1" | "[::1]");
        Ok(Self::One { origin, plain_http: scheme == "http" && !local, opaque: false })
    }
}

fn is_scheme(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_lowercase())
        && bytes.all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'))
}

/// The host, and the port where one stands there.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => return Some((text, None)),
    };
    let number: u16 = port.parse().ok().filter(|port| *port > 0)?;
    (number.to_string() == port).then_some((host, Some(number)))
}

fn is_ipv6(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = inner.and_then(|inner| inner.parse::<std::net::Ipv6Addr>().ok());
    // As browsers write it: compressed, lower case.
    address.is_some_and(|address| Some(address.to_string().as_str()) == inner)
}

/// A method in its own spelling: methods have cases.
struct Method(String);

impl FromStr for Method {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let fits = text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        fits.then(|| Self(text.to_owned())).ok_or(())
    }
}
