//! The version that media types name (acceptance V2): `application/vnd.VENDOR.v1+json`, with a resource before the
//! version, or the version as a parameter. Names are compared as media types are, in any case.
//! Bytes of a client: nothing is assumed, and what is read is bounded. Knows no paths and no tenants.

use gatehouse_contract::field::{FULL, Parts, parameter, weight_of};

use super::Versions;

/// The most that is read of all `Accept` headers that came, in bytes and in ranges. A list beyond it is refused.
pub(crate) const MAX_BYTES: usize = 4096;
const MAX_RANGES: usize = 32;

const PREFIX: &[u8] = b"application/vnd.";

/// What `Accept` says of versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The one that is preferred, by its place.
    pub(crate) best: Option<usize>,
    /// Those that are named with a weight, a bit each.
    named: u32,
    /// Those that are named with the weight 0.
    excluded: u32,
    /// Whether a range that names no version is acceptable, too: any answer is.
    open: bool,
    /// Whether one is named that is not served.
    unknown: bool,
}

/// What `Content-Type` says of its version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing.
    #[default]
    Silent,
    /// One that is served.
    Served(usize),
    /// One that is not, or nothing that can be read.
    Foreign,
}

/// Why `Accept` cannot be read. The text may be shown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("the Accept header is too long to look for a version in it")]
    TooLong,
    #[error("a media type names its version in a way that is not valid")]
    Version,
    #[error("the weight of a media type is not valid")]
    Weight,
}

/// Whether a media type of some vendor may stand in `value`: all that a request pays that names none.
pub(crate) fn names_vendor(value: &[u8]) -> bool {
    const MARK: &[u8] = b"vnd.";
    value.len() >= MARK.len()
        && value.windows(MARK.len()).any(|part| {
            part.first().is_some_and(|first| first | 0x20 == b'v')
                && part.eq_ignore_ascii_case(MARK)
        })
}

// === impl Accepted ===

impl Accepted {
    /// Reads every `Accept` header of a request, in their order.
    pub(crate) fn read<'a>(
        values: impl Iterator<Item = &'a [u8]>,
        versions: &Versions,
    ) -> Result<Self, Malformed> {
        let mut accepted = Self::default();
        let (mut bytes, mut ranges, mut heaviest) = (0_usize, 0_usize, 0);
        for value in values {
            bytes = bytes.saturating_add(value.len());
            if bytes > MAX_BYTES {
                return Err(Malformed::TooLong);
            }
            for range in Parts::of(value, b',') {
                ranges = ranges.saturating_add(1);
                if ranges > MAX_RANGES {
                    return Err(Malformed::TooLong);
                }
                let Some((named, weight)) = media_type(range, versions)? else { continue };
                match (named, weight) {
                    (Name::None, weight) => accepted.open |= weight > 0,
                    (Name::Served(place), 0) => accepted.excluded |= bit(place),
                    (Name::Served(place), weight) => {
                        accepted.named |= bit(place);
                        // Of equals the first; an exclusion that comes later is seen to below.
                        if weight > heaviest {
                            (accepted.best, heaviest) = (Some(place), weight);
                        }
                    }
                    (Name::Unknown, weight) => accepted.unknown |= weight > 0,
                }
            }
        }
        // What is named twice, once to be left out, is left out.
        if accepted.best.is_some_and(|best| accepted.excludes(best)) {
            let rest = accepted.named & !accepted.excluded;
            accepted.best = (rest != 0).then(|| rest.trailing_zeros() as usize);
        }
        Ok(accepted)
    }

    /// Whether nothing but unknown versions would do.
    pub(crate) fn only_unknown(self) -> bool {
        self.best.is_none() && self.unknown && !self.open
    }

    /// Whether that version must not answer.
    pub(crate) fn excludes(self, place: usize) -> bool {
        self.excluded & bit(place) != 0
    }

    /// Whether versions are named, and that one is not among them.
    pub(crate) fn contradicts(self, place: usize) -> bool {
        let others = self.named != 0 || self.unknown;
        self.excludes(place) || (others && !self.open && self.named & bit(place) == 0)
    }
}

fn bit(place: usize) -> u32 {
    u32::try_from(place).ok().and_then(|place| 1_u32.checked_shl(place)).unwrap_or_default()
}

// === impl Content ===

impl Content {
    pub(crate) fn read(value: &[u8], versions: &Versions) -> Self {
        match media_type(value, versions) {
            Ok(None | Some((Name::None, _))) => Self::Silent,
            Ok(Some((Name::Served(place), _))) => Self::Served(place),
            Ok(Some((Name::Unknown, _))) | Err(_) => Self::Foreign,
        }
    }

    /// Whether a body may say so that is meant for this version.
    pub(crate) fn fits(self, place: usize) -> bool {
        match self {
            Self::Silent => true,
            Self::Served(named) => named == place,
            Self::Foreign => false,
        }
    }
}

// === one media type ===

/// The version that a media type names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    None,
    Served(usize),
    Unknown,
}

/// The version that a media type names, and its weight in thousandths; `None` for an empty element.
fn media_type(text: &[u8], versions: &Versions) -> Result<Option<(Name, u16)>, Malformed> {
    let mut parts = Parts::of(text, b';');
    let name = parts.next().unwrap_or_default().trim_ascii();
    if name.is_empty() {
        return Ok(None);
    }
    let Some(rest) = of_vendor(name, versions) else {
        // The weight of a stranger says at most whether anything will do.
        let weight = parts.filter_map(parameter).find(|(name, _)| name.eq_ignore_ascii_case(b"q"));
        let weight = weight.and_then(|(_, value)| weight_of(value)).unwrap_or(FULL);
        return Ok(Some((Name::None, weight)));
    };
    let mut token = in_name(rest);
    let mut weight = FULL;
    for (name, value) in parts.filter_map(parameter) {
        if name.eq_ignore_ascii_case(b"q") {
            weight = weight_of(value).ok_or(Malformed::Weight)?;
        } else if name.eq_ignore_ascii_case(b"version") {
            let value =
                unquoted(value).filter(|value| is_token(value)).ok_or(Malformed::Version)?;
            // Two names, were they the same, are one too many to know which is meant.
            if token.replace(value).is_some() {
                return Err(Malformed::Version);
            }
        }
    }
    let named = match token {
        None => Name::None,
        Some(token) => versions.spelt(token).map_or(Name::Unknown, Name::Served),
    };
    Ok(Some((named, weight)))
}

/// What follows the vendor in a media type of ours in JSON, from its dot on.
fn of_vendor<'a>(name: &'a [u8], versions: &Versions) -> Option<&'a [u8]> {
    let rest = strip(name, PREFIX)?;
    let rest = strip(rest, versions.vendor().as_bytes())?;
    let mut halves = rest.splitn(2, |byte| *byte == b'+');
    let rest = halves.next().unwrap_or_default();
    let json = halves.next().is_none_or(|suffix| suffix.eq_ignore_ascii_case(b"json"));
    (json && matches!(rest.first(), None | Some(b'.'))).then_some(rest)
}

/// The version among the segments of a name, and what follows it: `.agents.v1`, `.v1.1`.
fn in_name(rest: &[u8]) -> Option<&[u8]> {
    let starts = rest.windows(3).position(|part| match part {
        [b'.', b'v' | b'V', digit] => digit.is_ascii_digit(),
        _ => false,
    })?;
    rest.get(starts.checked_add(1)?..)
}

fn strip<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn unquoted(value: &[u8]) -> Option<&[u8]> {
    match value {
        [b'"', inner @ .., b'"'] => Some(inner),
        _ => Some(value),
    }
}

fn is_token(value: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !value.is_empty() && value.iter().all(fits)
}

#[cfg(test)]
mod tests;
