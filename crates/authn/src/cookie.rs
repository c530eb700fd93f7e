//! Finds one cookie among a request's cookies, and takes it out again (RFC 6265 §4.2, acceptance J27).
//! Works on bytes: a cookie of somebody else may have any. Knows nothing of what a cookie holds.

use crate::Refusal;

/// The value of the cookie `name` in the values of all `Cookie` headers: HTTP/2 may split them (RFC 9113 §8.2.3).
///
/// The value is everything behind the first `=`, further ones included, without blanks around it. A piece without `=`
/// is no cookie of any name.
///
/// # Errors
/// [`Refusal::CredentialTwice`]: which one counts is not ours to guess.
pub fn find<'h>(
    headers: impl IntoIterator<Item = &'h [u8]>,
    name: &str,
) -> Result<Option<&'h [u8]>, Refusal> {
    let pieces = headers.into_iter().flat_map(|header| header.split(|byte| *byte == b';'));
    let mut values = pieces.filter_map(|piece| value(piece, name));
    match (values.next(), values.next()) {
        (found, None) => Ok(found),
        (_, Some(_)) => Err(Refusal::CredentialTwice),
    }
}

/// `header`, the value of one `Cookie` header, without the cookie `name`; all other bytes stay. `None` when nothing
/// is left, so that the header goes.
pub fn without(header: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut left = Vec::with_capacity(header.len());
    let mut first = true;
    for (at, piece) in header.split(|byte| *byte == b';').enumerate() {
        if value(piece, name).is_some() {
            continue;
        }
        if first {
            // What separated it from the cookie before is of no use in front.
            left.extend_from_slice(if at > 0 { trim_start(piece) } else { piece });
        } else {
            left.push(b';');
            left.extend_from_slice(piece);
        }
        first = false;
    }
    (!left.is_empty()).then_some(left)
}

/// The value of `piece` if it is the cookie `name`.
fn value<'p>(piece: &'p [u8], name: &str) -> Option<&'p [u8]> {
    let mut halves = piece.splitn(2, |byte| *byte == b'=');
    let (found, value) = (halves.next()?, halves.next()?);
    (trim(found) == name.as_bytes()).then(|| trim(value))
}

/// Without the blanks of HTTP, spaces and tabs, in front.
fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

fn trim(bytes: &[u8]) -> &[u8] {
    let mut bytes = trim_start(bytes);
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[&str], expected: Result<Option<&str>, Refusal>) {
        let got = find(headers.iter().map(|header| header.as_bytes()), "t");
        assert_eq!(got, expected.map(|value| value.map(str::as_bytes)), "{headers:?}");
    }

    fn check_without(header: &str, expected: Option<&str>) {
        let got = without(header.as_bytes(), "t");
        assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{header:?}");
    }

    #[test]
    fn j27_finds_one_cookie_and_keeps_its_value_whole() {
        check(&["t=a.b.c"], Ok(Some("a.b.c")));
        check(&["a=1; t=x; b=2"], Ok(Some("x")));
        check(&["a=1;t=x;b=2"], Ok(Some("x")));
        check(&["t=x=y=="], Ok(Some("x=y==")));
        check(&["t="], Ok(Some("")));
        check(&["\t t = x \t;a"], Ok(Some("x")));
        check(&[r#"t="x""#], Ok(Some(r#""x""#)));
        for none in ["", ";", ";;=;", "=", "t", "a; t; b", "T=x", "tt=x", "a=t=x", "a=1, t=x"] {
            check(&[none], Ok(None));
        }
        check(&[], Ok(None));
        assert_eq!(find([&b"\xff=\xfe; t=\xfd"[..]], "t"), Ok(Some(&b"\xfd"[..])));
    }

    #[test]
    fn j27_cookies_that_http2_split_are_one_list() {
        check(&["a=1", "t=x", "b=2"], Ok(Some("x")));
        check(&["a=1", "b=2"], Ok(None));
    }

    #[test]
    fn j4_two_cookies_of_the_name_are_none() {
        for twice in [&["t=x; t=x"][..], &["t=x", "t=y"], &["t=x; t="], &["t=x;a=1; t =y"]] {
            check(twice, Err(Refusal::CredentialTwice));
        }
        assert_eq!(Refusal::CredentialTwice.reason().status(), 400);
        check(&["t=x; t"], Ok(Some("x")));
    }

    #[test]
    fn j27_only_that_cookie_is_removed() {
        check_without("a=1; t=x; b=2", Some("a=1; b=2"));
        check_without("t=x; b=2", Some("b=2"));
        check_without("a=1; t=x", Some("a=1"));
        check_without("a=1;t=x;b=\"t=x\"", Some("a=1;b=\"t=x\""));
        check_without("a=1 ;; t=x ;;b= 2;", Some("a=1 ;;;b= 2;"));
        check_without(" a=1; t=x", Some(" a=1"));
        for gone in ["t=x", " t = x ", "t=x=y", "t=x; t=y", "t=x; "] {
            check_without(gone, None);
        }
        for same in ["a=1; b=2", "T=x", "t", "a=t=x", "\tt; a", " "] {
            check_without(same, Some(same));
        }
        assert_eq!(without(b"\xff; t=x;\xfe", "t"), Some(b"\xff;\xfe".to_vec()));
    }
}
