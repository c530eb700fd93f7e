//! The targets by name. Each takes any bytes, says whether they were accepted, and panics where something does not
//! hold. Knows nothing of how inputs are made.

use gatehouse_authn::fuzz as authn;
use gatehouse_edge::{Parts, Suite, path};

use crate::{export, judged, request};

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What it is called; its seeds are in the folder of this name.
    pub name: &'static str,
    /// Whether the bytes were accepted.
    pub run: fn(&[u8]) -> bool,
    /// How many inputs a bounded run takes: the dear ones fewer.
    pub rounds: u64,
}

const fn target(name: &'static str, run: fn(&[u8]) -> bool, rounds: u64) -> Target {
    Target { name, run, rounds }
}

/// Every reader of bytes that came from outside.
pub const TARGETS: &[Target] = &[
    target("api_key", authn::api_key, 20_000),
    target("authorization", authn::authorization, 20_000),
    target("body", judged::body, 10_000),
    target("claims", authn::claims, 20_000),
    target("context", authn::context, 20_000),
    target("cookie", authn::cookie, 20_000),
    target("document", document, 1_000),
    target("export", export::export, 1_000),
    target("header", authn::header, 20_000),
    target("header_map", request::header_map, 20_000),
    target("key_set", authn::key_set, 3_000),
    target("message", authn::message, 1_000),
    target("path", path, 20_000),
    target("query", authn::query, 20_000),
    target("request", request::request, 3_000),
    target("schema", judged::schema, 1_000),
    target("token", authn::token, 10_000),
];

/// A target has one form, and that form is its own.
fn path(data: &[u8]) -> bool {
    let Ok(target) = path::normalise(data) else { return false };
    let forwarded = target.forwarded();
    assert!(forwarded.starts_with('/') && forwarded.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!target.path.split('/').any(|segment| segment == "." || segment == ".."));
    assert!(!target.path.contains("//") && !target.path.contains('\\'));
    let again = path::normalise(forwarded.as_bytes());
    assert!(again.as_ref().is_ok_and(|again| !again.rewritten && again.forwarded() == forwarded));
    true
}

/// A document compiles whole or is refused with mistakes that say where.
fn document(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let mut accepted = false;
    for parts in [Parts::Suite, Parts::Auth] {
        match Suite::compile(text, parts) {
            Ok((suite, warnings)) => {
                accepted = true;
                assert_eq!(Suite::named_host(text), Some(suite.host()));
                assert!(warnings.iter().all(|warning| warning.path.starts_with('$')));
            }
            Err(mistakes) => assert!(!mistakes.is_empty(), "refused without a reason"),
        }
    }
    accepted
}
