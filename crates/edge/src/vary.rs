//! What a response depends on beside its URL (RFC 9110 §12.5.5), added to what it says by itself and never twice
//! (acceptance V6, X9). Knows no policy: whoever consulted a header notes it.

use crate::{step::Edit, text::Text};

/// The headers that were consulted for a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Vary(u8);

/// By place of their bit.
const NAMES: [&str; 6] = [
    "Accept",
    "Origin",
    "Access-Control-Request-Method",
    "Access-Control-Request-Headers",
    "Access-Control-Request-Private-Network",
    "X-Envelope",
];

const HEADER: &str = "vary";

impl Vary {
    pub(crate) const ACCEPT: Self = Self(1);
    pub(crate) const ORIGIN: Self = Self(2);
    /// Everything that a preflight asks.
    pub(crate) const PREFLIGHT: Self = Self(2 | 4 | 8);
    pub(crate) const PRIVATE_NETWORK: Self = Self(16);
    pub(crate) const ENVELOPE: Self = Self(32);

    /// Notes that these were consulted, too.
    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(at, _)| self.0 >> at & 1 == 1).map(|(_, name)| *name)
    }

    /// For a reply of our own.
    pub(crate) fn header(self) -> Option<(&'static str, Text)> {
        Some((HEADER, added("", self.names())?))
    }

    /// For a response that has these headers; `None` where it says all of it already.
    pub(crate) fn edit<N: AsRef<[u8]>, V: AsRef<[u8]>>(self, headers: &[(N, V)]) -> Option<Edit> {
        if self == Self::default() {
            return None;
        }
        let is_theirs = |name: &N| name.as_ref().eq_ignore_ascii_case(HEADER.as_bytes());
        if !headers.iter().any(|(name, _)| is_theirs(name)) {
            return Some(Edit::Set(HEADER.into(), added("", self.names())?));
        }
        let theirs: Vec<_> = headers
            .iter()
            .filter(|(name, _)| is_theirs(name))
            .map(|(_, value)| String::from_utf8_lossy(value.as_ref()))
            .collect();
        let theirs = theirs.join(", ");
        let says = |wanted: &str| {
            theirs.split(',').map(str::trim).any(|said| said.eq_ignore_ascii_case(wanted))
        };
        if says("*") {
            return None;
        }
        let value = added(&theirs, self.names().filter(|name| !says(name)))?;
        Some(Edit::Set(HEADER.into(), value))
    }
}

/// `names` behind `before`; `None` where there are none.
fn added(before: &str, mut names: impl Iterator<Item = &'static str>) -> Option<Text> {
    let first = names.next()?;
    let rest: Vec<&str> = names.collect();
    if before.is_empty() && rest.is_empty() {
        return Some(first.into());
    }
    let mut all = vec![before, first];
    all.retain(|name| !name.is_empty());
    all.extend(rest);
    Some(all.join(", ").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(vary: Vary, theirs: &[&str], expected: Option<&str>) {
        let headers: Vec<_> = theirs.iter().map(|value| ("Vary", *value)).collect();
        let expected = expected.map(|value| Edit::Set("vary".into(), value.to_owned().into()));
        assert_eq!(vary.edit(&headers), expected, "{theirs:?}");
    }

    #[test]
    fn x9_what_was_consulted_is_added_once_and_theirs_stays() {
        let mut both = Vary::ACCEPT;
        both.add(Vary::ORIGIN);
        check(Vary::default(), &["Cookie"], None);
        check(Vary::ORIGIN, &[], Some("Origin"));
        check(both, &[], Some("Accept, Origin"));
        check(both, &["Cookie"], Some("Cookie, Accept, Origin"));
        check(both, &["Cookie, accept"], Some("Cookie, accept, Origin"));
        check(
            both,
            &["Accept-Encoding", "Cookie"],
            Some("Accept-Encoding, Cookie, Accept, Origin"),
        );
        check(both, &["ORIGIN,Accept"], None);
        check(both, &["*"], None);
        check(Vary::PREFLIGHT, &["Origin"], Some(PREFLIGHT));
    }

    const PREFLIGHT: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

    #[test]
    fn a_reply_of_our_own_says_what_it_depends_on() {
        assert_eq!(Vary::default().header(), None);
        assert_eq!(Vary::PREFLIGHT.header(), Some(("vary", PREFLIGHT.into())));
        let mut all = Vary::PREFLIGHT;
        all.add(Vary::PRIVATE_NETWORK);
        all.add(Vary::ENVELOPE);
        let names: Vec<&str> = all.names().collect();
        assert_eq!(names[3..], ["Access-Control-Request-Private-Network", "X-Envelope"]);
    }
}
