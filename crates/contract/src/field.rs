//! Pieces of header values (RFC 9110 §5.6, §12.4.2): parts between separators, parameters, weights.
//! Bytes of a client: nothing is assumed, and one look at each byte is all that it costs. Knows no header.

/// The parts of a list between separators that do not stand in quotes.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> Parts<'a> {
    /// Of `text`, which has one part more than separators.
    pub fn of(text: &'a [u8], separator: u8) -> Self {
        Self { rest: Some(text), separator }
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let (mut quoted, mut escaped) = (false, false);
        let end = rest.iter().position(|byte| {
            let here = std::mem::take(&mut escaped);
            match byte {
                _ if here => false,
                b'\\' if quoted => {
                    escaped = true;
                    false
                }
                b'"' => {
                    quoted = !quoted;
                    false
                }
                byte => !quoted && *byte == self.separator,
            }
        });
        let Some((part, after)) = end.and_then(|end| rest.split_at_checked(end)) else {
            return Some(rest);
        };
        self.rest = after.get(1..);
        Some(part)
    }
}

/// `name=value`; a parameter without a value says nothing.
pub fn parameter(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b'=')?;
    let (name, value) = text.split_at_checked(at)?;
    Some((name.trim_ascii(), value.get(1..)?.trim_ascii()))
}

/// The weight of 1, in thousandths.
pub const FULL: u16 = 1000;

/// A weight in thousandths (RFC 9110 §12.4.2): 0 to 1 with three decimals at most.
pub fn weight_of(value: &[u8]) -> Option<u16> {
    let (whole, decimals) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', decimals @ ..] => (whole, decimals),
        _ => return None,
    };
    if decimals.len() > 3 || !decimals.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut weight = match whole {
        b'0' => 0,
        b'1' => FULL,
        _ => return None,
    };
    for (decimal, scale) in decimals.iter().zip([100, 10, 1]) {
        weight += u16::from(decimal - b'0') * scale;
    }
    (weight <= FULL).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_in_quotes_separates_nothing() {
        for (text, expected) in [
            ("a,b", &["a", "b"][..]),
            ("", &[""]),
            (",", &["", ""]),
            (r#"a;x="1,2",b"#, &[r#"a;x="1,2""#, "b"]),
            (r#"a;x="\",",b"#, &[r#"a;x="\",""#, "b"]),
            (r#"a;x=",b"#, &[r#"a;x=",b"#]),
        ] {
            let parts: Vec<_> = Parts::of(text.as_bytes(), b',').collect();
            let expected: Vec<_> = expected.iter().map(|part| part.as_bytes()).collect();
            assert_eq!(parts, expected, "{text}");
        }
    }

    #[test]
    fn a_parameter_has_a_name_and_a_value() {
        for (text, expected) in [
            (" q = 0.5 ", Some(("q", "0.5"))),
            ("q=", Some(("q", ""))),
            ("a=b=c", Some(("a", "b=c"))),
            ("q", None),
        ] {
            let expected = expected.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            assert_eq!(parameter(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_weight_is_within_0_and_1() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("1.000", Some(1000)),
            ("0", Some(0)),
            ("0.", Some(0)),
            ("0.5", Some(500)),
            ("0.001", Some(1)),
            ("1.001", None),
            ("0.0001", None),
            (".5", None),
            ("2", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(weight_of(text.as_bytes()), expected, "{text}");
        }
    }
}
