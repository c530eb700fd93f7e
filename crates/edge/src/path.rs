//! One form of the request target, for matching *and* for forwarding, or a refusal (acceptance P1–P3, P7, P8).
//! What an upstream might read in two ways is refused, not repaired: dot segments, empty segments, encoded
//! separators, path parameters. What has one meaning is rewritten: escapes of unreserved characters are
//! decoded, the rest have upper-case digits. Knows no routes and no hosts.

use std::borrow::Cow;

/// The longest target that is looked at, in bytes.
pub const MAX_BYTES: usize = 8 * 1024;

/// A target in its one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'t> {
    /// Begins with `/`; ASCII. Borrowed where it came in its one form.
    pub path: Cow<'t, str>,
    /// What follows the first `?`, without it; bytes and order as they came.
    pub query: Option<&'t str>,
    /// Whether `path` differs from what the client sent, so that `:path` must be rewritten.
    pub rewritten: bool,
}

impl Target<'_> {
    /// Path and query as they are forwarded.
    pub fn forwarded(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone().into_owned(),
        }
    }
}

/// Why a target has no single form. The text may be shown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Longer than [`MAX_BYTES`].
    #[error("the target is too long")]
    TooLong,
    /// Not in origin form: empty, `*`, absolute or authority form.
    #[error("the target does not begin with a slash")]
    NotOrigin,
    /// `.` or `..`, plain or encoded.
    #[error("the path has dot segments")]
    Dots,
    /// `//`.
    #[error("the path has empty segments")]
    EmptySegment,
    /// `%2f`, `%5c`, `%00`, `\`, `;`, `#`, control or other characters that no URI has.
    #[error("the path has a character that is not accepted")]
    Character,
    /// `%` without two hexadecimal digits, or escapes that are not UTF-8.
    #[error("the path has a broken escape")]
    Escape,
    /// A character in the query that no URI has.
    #[error("the query has a character that is not accepted")]
    Query,
}

/// Brings `target` (the `:path` of the request) into its one form.
pub fn normalise(target: &[u8]) -> Result<Target<'_>, Invalid> {
    if target.len() > MAX_BYTES {
        return Err(Invalid::TooLong);
    }
    if target.first() != Some(&b'/') {
        return Err(Invalid::NotOrigin);
    }
    let mut halves = target.splitn(2, |byte| *byte == b'?');
    let raw = halves.next().unwrap_or_default();
    let query = match halves.next() {
        Some(query) => Some(plain_query(query)?),
        None => None,
    };
    let path = plain_path(raw)?;
    refuse_ambiguous_segments(&path)?;
    let rewritten = matches!(&path, Cow::Owned(path) if path.as_bytes() != raw);
    Ok(Target { path, query, rewritten })
}

fn plain_path(raw: &[u8]) -> Result<Cow<'_, str>, Invalid> {
    if !raw.contains(&b'%') {
        if !raw.iter().copied().all(is_path_character) {
            return Err(Invalid::Character);
        }
        return std::str::from_utf8(raw).map(Cow::Borrowed).map_err(|_bytes| Invalid::Character);
    }
    let mut path = String::with_capacity(raw.len());
    // The octets behind the escapes: an overlong form of `/` or `.` is not UTF-8 and ends here (P8).
    let mut octets = Vec::with_capacity(raw.len());
    let mut rest = raw.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            if !is_path_character(byte) {
                return Err(Invalid::Character);
            }
            path.push(char::from(byte));
            octets.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (rest.next().copied(), rest.next().copied()) else {
            return Err(Invalid::Escape);
        };
        let octet = hex(high)? << 4 | hex(low)?;
        octets.push(octet);
        if is_unreserved(octet) {
            path.push(char::from(octet));
        } else if octet.is_ascii_control() || matches!(octet, b'/' | b'\\' | b';') {
            return Err(Invalid::Character);
        } else {
            // `%25` stays escaped, so that nothing is ever decoded twice.
            path.push('%');
            path.push(char::from(high.to_ascii_uppercase()));
            path.push(char::from(low.to_ascii_uppercase()));
        }
    }
    match std::str::from_utf8(&octets) {
        Ok(_) => Ok(Cow::Owned(path)),
        Err(_) => Err(Invalid::Escape),
    }
}

fn refuse_ambiguous_segments(path: &str) -> Result<(), Invalid> {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        // A trailing slash is one empty last segment: a path of its own, which the matrix does not know (P4).
        if segment.is_empty() && segments.peek().is_some() {
            return Err(Invalid::EmptySegment);
        }
        if segment == "." || segment == ".." {
            return Err(Invalid::Dots);
        }
    }
    Ok(())
}

fn plain_query(query: &[u8]) -> Result<&str, Invalid> {
    let fits = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\');
    if !query.iter().all(fits) {
        return Err(Invalid::Query);
    }
    std::str::from_utf8(query).map_err(|_| Invalid::Query)
}

fn hex(digit: u8) -> Result<u8, Invalid> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(Invalid::Escape),
    }
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 §3.3 `pchar` and `/`, without `;`, which some upstreams cut path parameters at.
fn is_path_character(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'/' | b':' | b'@' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')')
        || matches!(byte, b'*' | b'+' | b',' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &[u8], expected: Result<&str, Invalid>) {
        let got = normalise(target).map(|target| target.forwarded());
        let shown = String::from_utf8_lossy(target);
        assert_eq!(got.as_deref().map_err(|error| *error), expected, "{shown}");
    }

    #[test]
    fn p1_ambiguous_targets_are_refused_beside_their_plain_neighbours() {
        check(b"/a/b", Ok("/a/b"));
        check(b"/", Ok("/"));
        for dots in ["/a/../b", "/./a", "/..", "/a/.", "/%2e%2e/a", "/a/.%2E/b", "/a/%2e"] {
            check(dots.as_bytes(), Err(Invalid::Dots));
        }
        check(b"/a/...", Ok("/a/..."));
        check(b"/a.b/.c", Ok("/a.b/.c"));
        for empty in ["//", "//a", "/a//b", "/a//"] {
            check(empty.as_bytes(), Err(Invalid::EmptySegment));
        }
        check(b"/a/", Ok("/a/"));
        for character in ["/a\\b", "/a;p=1", "/a#b", "/a b", "/a\tb", "/a\u{7f}", "/a\"", "/{a}"] {
            check(character.as_bytes(), Err(Invalid::Character));
        }
        check(b"/a:b@c,d=e", Ok("/a:b@c,d=e"));
        // An escape elsewhere in the path does not let them in.
        for character in
            ["/%61\\b", "/%61;p=1", "/a;p=1/%61", "/%61#b", "/%61 b", "/%61\"", "/{%61}"]
        {
            check(character.as_bytes(), Err(Invalid::Character));
        }
        for form in ["", "*", "a", "http://h/a", "h:443", "?q"] {
            check(form.as_bytes(), Err(Invalid::NotOrigin));
        }
    }

    #[test]
    fn p2_encoded_separators_and_nul_are_refused_and_nothing_is_decoded_twice() {
        for separator in ["/a%2fb", "/a%2Fb", "/a%5cb", "/a%00", "/a%0d%0ab", "/a%7f", "/a%3bp"] {
            check(separator.as_bytes(), Err(Invalid::Character));
        }
        check(b"/a%252fb", Ok("/a%252fb"));
        check(b"/a%252e%252e/b", Ok("/a%252e%252e/b"));
    }

    #[test]
    fn p3_escapes_of_unreserved_characters_are_decoded_and_the_rest_have_one_spelling() {
        check(b"/%61dmin", Ok("/admin"));
        check(b"/%7eme/%2D", Ok("/~me/-"));
        check(b"/caf%c3%a9", Ok("/caf%C3%A9"));
        assert_eq!(normalise(b"/%61").map(|target| target.rewritten), Ok(true));
        assert_eq!(normalise(b"/a?x=%61%2F").map(|target| target.rewritten), Ok(false));
    }

    #[test]
    fn p8_broken_escapes_and_overlong_forms_are_refused() {
        for broken in ["/%", "/%6", "/%zz", "/%-1", "/%c0%af", "/%e0%80%af", "/%ff", "/a%c3"] {
            check(broken.as_bytes(), Err(Invalid::Escape));
        }
        check(b"/\xc3\xa9", Err(Invalid::Character));
    }

    #[test]
    fn the_query_keeps_every_byte_and_its_order() {
        check(b"/a?b=1&a=%2f//../;x?y", Ok("/a?b=1&a=%2f//../;x?y"));
        check(b"/a?", Ok("/a?"));
        for bad in ["/a?b#c", "/a?b c", "/a?\\", "/a?\u{e9}"] {
            check(bad.as_bytes(), Err(Invalid::Query));
        }
    }

    #[test]
    fn a_target_at_the_bound_passes_and_one_byte_more_does_not() {
        let mut target = vec![b'/'];
        target.resize(MAX_BYTES, b'a');
        assert!(normalise(&target).is_ok());
        target.push(b'a');
        check(&target, Err(Invalid::TooLong));
    }
}
