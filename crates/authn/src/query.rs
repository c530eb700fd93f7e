//! Finds one parameter in a query, and takes it out again (RFC 6750 §2.3, acceptance J26).
//! Reads names and values as `application/x-www-form-urlencoded` does, so that no upstream finds a second one that we
//! did not see. Knows nothing of what a parameter holds.

use std::borrow::Cow;

use crate::Refusal;

/// The decoded value of the parameter `name` in `query` (what follows the `?`).
///
/// The name is compared decoded: `access%5Ftoken` is `access_token`. A parameter without `=` has an empty value.
///
/// # Errors
/// [`Refusal::CredentialTwice`]: which one counts is not ours to guess.
pub fn find<'q>(query: &'q str, name: &str) -> Result<Option<Cow<'q, [u8]>>, Refusal> {
    let mut values = query.split('&').filter_map(|parameter| value(parameter, name));
    match (values.next(), values.next()) {
        (found, None) => Ok(found.map(|value| match value.contains(['%', '+']) {
            false => Cow::Borrowed(value.as_bytes()),
            true => Cow::Owned(decoded(value).collect()),
        })),
        (_, Some(_)) => Err(Refusal::CredentialTwice),
    }
}

/// `query` without the parameter `name`; every other byte and the order stay. `None` when it was all, so that the
/// `?` goes too.
pub fn without(query: &str, name: &str) -> Option<String> {
    let mut left: Option<String> = None;
    for parameter in query.split('&').filter(|parameter| value(parameter, name).is_none()) {
        left = Some(match left {
            None => parameter.to_owned(),
            Some(before) => before + "&" + parameter,
        });
    }
    left
}

/// `query` with the parameter `from` under the name `to`, which stands for itself; its value, every other byte and the
/// order stay.
pub fn renamed(query: &str, from: &str, to: &str) -> String {
    let parameters = query.split('&').map(|parameter| match value(parameter, from) {
        Some(_) => match parameter.split_once('=') {
            Some((_, value)) => Cow::Owned(format!("{to}={value}")),
            None => Cow::Borrowed(to),
        },
        None => Cow::Borrowed(parameter),
    });
    parameters.collect::<Vec<_>>().join("&")
}

/// The value of `parameter`, as it stands, if it has this name.
fn value<'p>(parameter: &'p str, name: &str) -> Option<&'p str> {
    let (found, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    decoded(found).eq(name.bytes()).then_some(value)
}

/// Escapes and plus signs decoded; a `%` without two digits stands for itself.
fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (byte, left) = match rest {
            [b'%', high, low, left @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, left),
                _ => (b'%', rest.get(1..)?),
            },
            [b'+', left @ ..] => (b' ', left),
            [byte, left @ ..] => (*byte, left),
            [] => return None,
        };
        rest = left;
        Some(byte)
    })
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expected: Result<Option<&str>, Refusal>) {
        let got = find(query, "access_token");
        let expected = expected.map(|value| value.map(|value| Cow::Borrowed(value.as_bytes())));
        assert_eq!(got, expected, "{query:?}");
    }

    fn check_without(query: &str, expected: Option<&str>) {
        assert_eq!(without(query, "access_token").as_deref(), expected, "{query:?}");
    }

    #[test]
    fn j26_finds_one_parameter_by_its_decoded_name() {
        check("access_token=a.b.c", Ok(Some("a.b.c")));
        check("a=1&access_token=x&b=2", Ok(Some("x")));
        check("access%5ftoken=x", Ok(Some("x")));
        check("%61ccess_token=%78%2E+%zz%2", Ok(Some("x. %zz%2")));
        check("access_token=x=y", Ok(Some("x=y")));
        check("access_token=%21%2a%0A", Ok(Some("!*\n")));
        check("access_token", Ok(Some("")));
        check("access_token=", Ok(Some("")));
        for none in ["", "&", "=x", "a=access_token", "Access_Token=x", "access_token2=x"] {
            check(none, Ok(None));
        }
        for none in ["access+token=x", "access_token%00=x", "%=x", "a=1;access_token=x", "%61"] {
            check(none, Ok(None));
        }
    }

    #[test]
    fn j26_a_parameter_that_stands_twice_is_refused() {
        for twice in [
            "access_token=x&access_token=x",
            "access_token=x&a&access%5Ftoken=y",
            "access_token&access_token",
        ] {
            check(twice, Err(Refusal::CredentialTwice));
        }
        check("access_token=x&a=access_token", Ok(Some("x")));
    }

    #[test]
    fn a_renamed_parameter_keeps_its_value_and_its_place() {
        for (before, after) in [
            ("a=1&old=%2f+x&b", "a=1&new=%2f+x&b"),
            ("%6fld=x=y&old&old=", "new=x=y&new&new="),
            ("older=1&=old&&Old=2", "older=1&=old&&Old=2"),
            ("", ""),
        ] {
            assert_eq!(renamed(before, "old", "new"), after, "{before}");
        }
    }

    #[test]
    fn j26_every_other_byte_and_the_order_stay() {
        check_without("b=2&access_token=x&a=%2f&&=;/?", Some("b=2&a=%2f&&=;/?"));
        check_without("access_token=x&b", Some("b"));
        check_without("b&access_token=x", Some("b"));
        check_without("b&access_token=x&", Some("b&"));
        check_without("access%5Ftoken=x&", Some(""));
        check_without("access_token=x", None);
        for same in ["", "a", "&", "a&&b=", "access_tokens=x"] {
            check_without(same, Some(same));
        }
    }
}
