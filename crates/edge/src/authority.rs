//! The host that a request names, in one form (acceptance P5): lower case, without port and trailing dot.
//! Knows neither tenants nor routes.

/// The longest authority that is looked at, in bytes: a host name's 253, a port, and brackets.
const MAX_BYTES: usize = 264;

/// Why an authority has no single form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Invalid;

/// The host of `authority` (RFC 3986 §3.2, without user information).
pub(crate) fn host(authority: &[u8]) -> Result<String, Invalid> {
    if authority.is_empty() || authority.len() > MAX_BYTES {
        return Err(Invalid);
    }
    let text = std::str::from_utf8(authority).map_err(|_not_text| Invalid)?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(Invalid)?;
            let fits = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            if !address.bytes().all(fits) {
                return Err(Invalid);
            }
            (address, port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (host, port) = text.split_at_checked(end).ok_or(Invalid)?;
            let host = host.strip_suffix('.').unwrap_or(host);
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            let labels = |label: &str| !label.is_empty() && label.bytes().all(fits);
            if !host.split('.').all(labels) {
                return Err(Invalid);
            }
            (host, port)
        }
    };
    let digits = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    if host.is_empty() || !(port.is_empty() || port.strip_prefix(':').is_some_and(digits)) {
        return Err(Invalid);
    }
    Ok(host.to_ascii_lowercase())
}

/// Whether `Host` names the host of `:authority`, whatever the spelling.
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    one == other || matches!((host(one), host(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_a_host_has_one_form() {
        for (authority, expected) in [
            ("gateway", Some("gateway")),
            ("API.Example.COM", Some("api.example.com")),
            ("api.example.com.", Some("api.example.com")),
            ("api.example.com:443", Some("api.example.com")),
            ("api.example.com.:443", Some("api.example.com")),
            ("api.example.com:", Some("api.example.com")),
            ("10.0.0.1:80", Some("10.0.0.1")),
            ("[2001:DB8::1]:443", Some("2001:db8::1")),
            ("a_b.example", Some("a_b.example")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("a.b..", None),
            (".a", None),
            ("user@host", None),
            ("host/path", None),
            ("host:443x", None),
            ("host:123456", None),
            ("host:1:2", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[]", None),
            ("h\u{e9}", None),
            ("a b", None),
            ("a,b", None),
            ("a%2eb", None),
        ] {
            assert_eq!(host(authority.as_bytes()).ok().as_deref(), expected, "{authority}");
        }
        assert_eq!(host(&[b'a'; MAX_BYTES + 1]), Err(Invalid));
    }

    #[test]
    fn p5_two_spellings_of_a_host_are_one() {
        assert!(same(b"A.example:80", b"a.example.:443"));
        assert!(!same(b"a.example", b"b.example"));
        assert!(!same(b"a b", b"a c"));
    }
}
