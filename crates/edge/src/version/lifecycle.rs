//! The end of a version's life: what every response says of it (RFC 9745, RFC 8594, RFC 8288), and when it stops to
//! answer. Everything but the path in a link is text from configure time; the phase depends on `now` alone (V14).
//! Knows neither requests nor tenants' names.

use std::rc::Rc;

use gatehouse_contract::TenantId;

use super::date;
use crate::{step::Edit, text::Text};

pub(crate) const DEPRECATION: &str = "deprecation";
pub(crate) const SUNSET: &str = "sunset";
pub(crate) const LINK: &str = "link";

/// How a version ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lifecycle {
    pub(crate) deprecated: Date,
    pub(crate) sunset: Option<Date>,
    pub(crate) link: Link,
    pub(crate) brownouts: Vec<Window>,
    /// Who passes whatever the phase.
    pub(crate) grace: Vec<TenantId>,
    /// Nobody is refused: it is counted and noted.
    pub(crate) dry_run: bool,
}

/// A moment, and what its header says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) at_s: u64,
    pub(crate) text: Rc<str>,
}

/// `Link` of a version that ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// There is nothing to point at.
    None,
    /// The same for every path.
    Constant(Rc<str>),
    /// To the same path of the successor: what stands before the path below the version, and behind it.
    Mapped { before: Rc<str>, behind: Rc<str> },
}

/// A time in which a version does not answer, so that who still uses it notices; its end is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from_s: u64,
    pub(crate) until_s: u64,
}

/// Why a version does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It is over.
    Gone,
    /// Until this second.
    BrownOut { until_s: u64 },
}

/// What the response to one request says of its version's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    life: Rc<Lifecycle>,
    link: Option<Text>,
}

// === impl Date ===

impl Date {
    /// `Deprecation: @1780272000`, a date of RFC 9651.
    pub(crate) fn deprecation(at_s: u64) -> Self {
        Self { at_s, text: format!("@{at_s}").into() }
    }

    /// `Sunset: Tue, 01 Jun 2027 00:00:00 GMT`.
    pub(crate) fn sunset(at_s: u64) -> Option<Self> {
        Some(Self { at_s, text: date::to_imf(at_s)?.into() })
    }
}

// === impl Link ===

impl Link {
    /// `successor` is a version; `guide` where people read about the change.
    pub(crate) fn new(successor: Option<&str>, guide: Option<&str>, sunset: bool) -> Self {
        let guide = guide.map(|guide| {
            let guide = uri(guide);
            let of_sunset =
                if sunset { format!(", <{guide}>; rel=\"sunset\"") } else { String::new() };
            format!("<{guide}>; rel=\"deprecation\"{of_sunset}")
        });
        match (successor, guide) {
            (None, None) => Self::None,
            (None, Some(guide)) => Self::Constant(guide.into()),
            (Some(successor), guide) => {
                let guide = guide.map(|guide| format!(", {guide}")).unwrap_or_default();
                Self::Mapped {
                    before: format!("</api/{successor}").into(),
                    behind: format!(">; rel=\"successor-version\"{guide}").into(),
                }
            }
        }
    }

    /// For the path below the version, in its one form: nothing in it needs an escape.
    fn to(&self, below: &str) -> Option<Text> {
        match self {
            Self::None => None,
            Self::Constant(text) => Some(text.into()),
            Self::Mapped { before, behind } => Some([before, below, behind].concat().into()),
        }
    }
}

/// What would end a URI reference in a header, or is not ASCII, percent-encoded.
pub(crate) fn uri(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'\\') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

// === impl Lifecycle ===

impl Lifecycle {
    /// Why it does not answer at `now_s`; `None` where it does.
    pub(crate) fn closed(&self, now_s: u64) -> Option<Closed> {
        if self.sunset.as_ref().is_some_and(|sunset| sunset.at_s <= now_s) {
            return Some(Closed::Gone);
        }
        let window = self.brownouts.iter().find(|window| window.holds(now_s))?;
        Some(Closed::BrownOut { until_s: window.until_s })
    }

    /// Whether its use is to be noted.
    pub(crate) fn is_deprecated(&self, now_s: u64) -> bool {
        self.deprecated.at_s <= now_s
    }
}

impl Window {
    fn holds(self, now_s: u64) -> bool {
        self.from_s <= now_s && now_s < self.until_s
    }
}

// === impl Notice ===

impl Notice {
    /// `below` is the path below the version, with its slash.
    pub(crate) fn new(life: &Rc<Lifecycle>, below: &str) -> Self {
        Self { life: Rc::clone(life), link: life.link.to(below) }
    }

    /// For a reply of our own.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'static str, Text)> {
        let Lifecycle { deprecated, sunset, .. } = self.life.as_ref();
        let sunset = sunset.as_ref().map(|sunset| (SUNSET, (&sunset.text).into()));
        std::iter::once((DEPRECATION, (&deprecated.text).into()))
            .chain(sunset)
            .chain(self.link.clone().map(|link| (LINK, link)))
    }

    /// For a response that has these headers. What they say earlier than we do stays; nothing is said twice.
    pub(crate) fn edits<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        headers: &[(N, V)],
        edits: &mut Vec<Edit>,
    ) {
        let Lifecycle { deprecated, sunset, .. } = self.life.as_ref();
        edits.extend(earliest(DEPRECATION, deprecated, headers, deprecated_at));
        let sunset = sunset.as_ref();
        edits.extend(sunset.and_then(|ours| earliest(SUNSET, ours, headers, date::from_imf)));
        let Some(ours) = &self.link else { return };
        let theirs: Vec<_> = values(headers, LINK).map(String::from_utf8_lossy).collect();
        if theirs.iter().any(|theirs| theirs.contains(ours.as_str())) {
            return;
        }
        let link = match theirs.is_empty() {
            true => ours.clone(),
            false => format!("{}, {ours}", theirs.join(", ")).into(),
        };
        edits.push(Edit::Set(LINK.into(), link));
    }
}

/// A header with our date, or with theirs where one of theirs is earlier; `None` where it stands there already, alone.
fn earliest<N: AsRef<[u8]>, V: AsRef<[u8]>>(
    name: &'static str,
    ours: &Date,
    headers: &[(N, V)],
    read: impl Fn(&str) -> Option<u64>,
) -> Option<Edit> {
    let theirs = values(headers, name).filter_map(|value| {
        let text = std::str::from_utf8(value).ok()?.trim();
        Some((read(text)?, text))
    });
    let text: Text = match theirs.min_by_key(|(at_s, _)| *at_s) {
        Some((at_s, text)) if at_s < ours.at_s => text.to_owned().into(),
        Some(_) | None => (&ours.text).into(),
    };
    let mut present = values(headers, name);
    let stands = present.next() == Some(text.as_bytes()) && present.next().is_none();
    (!stands).then(|| Edit::Set(name.into(), text))
}

/// `Deprecation` as a date of RFC 9651, with or without parameters, or as drafts before RFC 9745 had it.
fn deprecated_at(text: &str) -> Option<u64> {
    match text.strip_prefix('@') {
        Some(date) => date.split(';').next()?.trim_end().parse().ok(),
        None => date::from_imf(text),
    }
}

fn values<'h, N: AsRef<[u8]>, V: AsRef<[u8]>>(
    headers: &'h [(N, V)],
    wanted: &'static str,
) -> impl Iterator<Item = &'h [u8]> {
    headers.iter().filter_map(move |(name, value)| {
        name.as_ref().eq_ignore_ascii_case(wanted.as_bytes()).then_some(value.as_ref())
    })
}

#[cfg(test)]
mod tests;
