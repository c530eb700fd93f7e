//! The one place where keys of limits are made: `rl:{<tenant>}:<dimension>:<route>`.
//! The tenant is the hash tag: all limits of one decision are in one slot of a cluster.
//! Knows no value that is stored there.

use gatehouse_contract::TenantId;
use sha2::{Digest, Sha256};

/// What every key begins with; the sidecar's Redis user may touch nothing else.
pub const PREFIX: &str = "rl:";
/// The route of a limit that is not about one route, and of all routes that are not known.
pub const ANY: &str = "*";
/// What is appended to a window's key for the record of what was declared of it.
pub const DECLARED: &str = ":d";
/// Longest route within a key, in bytes; a longer one ends in a digest.
const ROUTE_BYTES: usize = 64;

/// The route part for a method and a route template. Different routes have different parts, except that routes
/// of more than 64 bytes may share one by a collision of 64 bits, which makes their limit tighter, never wider.
pub fn route(method: &str, template: &str) -> String {
    let mut whole = String::with_capacity(method.len() + template.len());
    // The slash that a template begins with ends the method; one without it must not read like another's.
    escape(method, "", &mut whole);
    if !template.starts_with('/') {
        whole.push('~');
    }
    escape(template, "/{}", &mut whole);
    if whole.len() <= ROUTE_BYTES {
        return whole;
    }
    let digest = fnv1a(whole.as_bytes());
    whole.truncate(ROUTE_BYTES - 17);
    whole + &format!("~{digest:016x}")
}

/// The route part for a subject: a digest, since a key is read by operators and a subject may be an address.
/// Different subjects have different parts (SHA-256, 128 bits of it).
pub fn subject(subject: &str) -> String {
    let digest = Sha256::digest(subject.as_bytes());
    let (kept, _) = digest.split_at(16);
    kept.iter().fold(String::with_capacity(32), |mut hex, byte| {
        use std::fmt::Write;
        // Writing into a String cannot fail.
        write!(hex, "{byte:02x}").unwrap_or_default();
        hex
    })
}

/// Appends a key to `out`: `tail` is [`tail`]'s.
pub fn write(out: &mut String, tenant: TenantId, tail: &str) {
    let mut id = [0; 36];
    out.push_str(PREFIX);
    out.push('{');
    // Not by `Display`: a formatter would cost more than all the rest of a key.
    out.push_str(tenant.as_uuid().hyphenated().encode_lower(&mut id));
    out.push_str(tail);
}

/// A key's end, after the tenant; `route` is [`route`]'s or [`ANY`].
pub fn tail(dimension: &str, route: &str) -> String {
    format!("}}:{dimension}:{route}")
}

/// Percent-encodes (RFC 3986 §2.1) all but unreserved characters without `~`, and those of `also`.
fn escape(text: &str, also: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).map_or('0', |hex| char::from(*hex));
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if plain || also.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// FNV-1a, 64 bits: stable across builds and processes, which the standard hasher is not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, template: &str, expected: &str) {
        assert_eq!(route(method, template), expected);
    }

    #[test]
    fn a_key_names_the_tenant_the_dimension_and_the_route() {
        let tenant: TenantId = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap();
        let mut key = String::new();
        write(&mut key, tenant, &tail("endpoint", &route("DELETE", "/api/v1/agents/{id}")));
        assert_eq!(
            key,
            "rl:{0191d6b0-7c3e-7aaa-8bbb-0123456789ab}:endpoint:DELETE/api/v1/agents/{id}"
        );
    }

    #[test]
    fn nothing_in_a_route_can_look_like_another_key() {
        check("GET", "/a:b/*", "GET/a%3Ab/%2A");
        check("GET", "/a\n\u{e9}~", "GET/a%0A%C3%A9%7E");
        check("GET/a", "/b", "GET%2Fa/b");
        check("GET", "b", "GET~b");
        check("*", "", "%2A~");
    }

    #[test]
    fn a_long_route_is_cut_and_told_apart_by_its_digest() {
        let long = |end: &str| route("GET", &format!("/{}{end}", "x".repeat(200)));
        assert_eq!(long("a").len(), ROUTE_BYTES);
        assert_ne!(long("a"), long("b"));
        assert_eq!(route("GET", &format!("/{}", "x".repeat(60))).len(), ROUTE_BYTES);
    }
}
