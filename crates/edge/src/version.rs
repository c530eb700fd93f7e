//! The API versions that are served: which one a path or a media type names (acceptance V1, V2), and how each of them
//! ends. Knows neither tenants nor the order of the steps.

pub(crate) mod accept;
pub(crate) mod date;
pub(crate) mod lifecycle;
mod usage;

use std::rc::Rc;

pub(crate) use self::{
    accept::{Accepted, Content, Malformed},
    lifecycle::{Closed, Lifecycle, Notice},
    usage::{Event, Usage},
};

/// What precedes a version in a path.
const ROOT: &str = "/api/";

/// The most versions that one document serves.
pub(crate) const MAX_SERVED: usize = 32;

/// The versions that are served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    served: Vec<Version>,
    /// By place; `None`: another module sees to versions.
    default: Option<usize>,
    vendor: Box<str>,
    /// Whether a path and an `Accept` that contradict each other are refused.
    pub(crate) strict: bool,
}

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// What stands in a path.
    pub(crate) token: Rc<str>,
    /// `None` where its end is not in sight.
    pub(crate) life: Option<Rc<Lifecycle>>,
}

/// What a path says of its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named<'p> {
    /// One that is served, by its place; and the path below it, empty or with its slash.
    Served(usize, &'p str),
    /// Something in a version's place and form that is not served; and the path below it.
    Unknown(&'p str),
    /// None, where one could stand; and the path below it, with its slash.
    Unversioned(&'p str),
    /// Nothing here has a version.
    Outside,
}

/// What told the version of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionSource {
    /// The path.
    Path,
    /// A media type in `Accept`.
    Accept,
    /// The tenant's pin.
    Pin,
    /// Nothing: the default answers.
    Default,
}

// === impl VersionSource ===

impl VersionSource {
    /// Its word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Accept => "accept",
            Self::Pin => "pin",
            Self::Default => "default",
        }
    }
}

// === impl Versions ===

impl Versions {
    /// `default` is the place of one of `served`.
    pub(crate) fn new(served: Vec<Version>, default: usize, vendor: &str, strict: bool) -> Self {
        Self { served, default: Some(default), vendor: vendor.into(), strict }
    }

    /// Of a module that leaves versions to others: no path has one here.
    pub(crate) fn chosen_elsewhere(served: impl Iterator<Item = Rc<str>>) -> Self {
        let served = served.map(|token| Version { token, life: None }).collect();
        Self { served, default: None, vendor: "".into(), strict: false }
    }

    /// Those that are served, in the order of the document.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &Rc<str>> {
        self.served.iter().map(|version| &version.token)
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Version> {
        self.served.get(place)
    }

    /// What answers where a request names none.
    pub(crate) fn default_place(&self) -> Option<usize> {
        self.default
    }

    pub(crate) fn default_token(&self) -> Option<&Rc<str>> {
        self.default.and_then(|place| self.get(place)).map(|version| &version.token)
    }

    /// Whether a closed version still answers to some tenants.
    pub(crate) fn grants_grace(&self) -> bool {
        self.served.iter().filter_map(|version| version.life.as_ref()).any(|l| !l.grace.is_empty())
    }

    pub(crate) fn vendor(&self) -> &str {
        &self.vendor
    }

    /// The version of exactly this name.
    pub(crate) fn place_of(&self, token: &str) -> Option<usize> {
        self.tokens().position(|served| served.as_ref() == token)
    }

    /// The version that a media type spells so: in any case, a number with or without its `v`.
    fn spelt(&self, name: &[u8]) -> Option<usize> {
        let number = name.first().is_some_and(u8::is_ascii_digit);
        self.tokens().position(|served| {
            let served = served.as_bytes();
            served.eq_ignore_ascii_case(name)
                || matches!(served, [b'v' | b'V', rest @ ..] if number && rest.eq_ignore_ascii_case(name))
        })
    }

    /// The version that a normalised path names.
    pub(crate) fn of_path<'p>(&self, path: &'p str) -> Named<'p> {
        if self.default.is_none() {
            return Named::Outside;
        }
        let Some(rest) = path.strip_prefix(ROOT).filter(|rest| !rest.is_empty()) else {
            return Named::Outside;
        };
        let (token, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if let Some(place) = self.place_of(token) {
            return Named::Served(place, below);
        }
        match token.as_bytes() {
            [b'v' | b'V', digit, ..] if digit.is_ascii_digit() => Named::Unknown(below),
            // The slash before it is the prefix' last.
            _ => {
                path.get(ROOT.len().saturating_sub(1)..).map_or(Named::Outside, Named::Unversioned)
            }
        }
    }

    /// The path of a version with this below it.
    pub(crate) fn path(&self, place: usize, below: &str) -> Option<String> {
        Some([ROOT, &self.get(place)?.token, below].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn versions(served: &[&str]) -> Versions {
        let served = served.iter().map(|token| Version { token: (*token).into(), life: None });
        Versions::new(served.collect(), 0, "greenlang", false)
    }

    #[test]
    fn v1_only_exact_tokens_match() {
        let versions = versions(&["v1", "v2-beta"]);
        for (path, expected) in [
            ("/api/v1/registry/agents", Named::Served(0, "/registry/agents")),
            ("/api/v1", Named::Served(0, "")),
            ("/api/v1/", Named::Served(0, "/")),
            ("/api/v2-beta/x", Named::Served(1, "/x")),
            ("/api/v10/x", Named::Unknown("/x")),
            ("/api/v1-beta/x", Named::Unknown("/x")),
            ("/api/v01/x", Named::Unknown("/x")),
            ("/api/V1/x", Named::Unknown("/x")),
            ("/api/v1.1/x", Named::Unknown("/x")),
            ("/api/v2/x", Named::Unknown("/x")),
            ("/api/v2", Named::Unknown("")),
            ("/apiv1/x", Named::Outside),
            ("/api", Named::Outside),
            ("/api/", Named::Outside),
            ("/api/versions", Named::Unversioned("/versions")),
            ("/api/registry/agents", Named::Unversioned("/registry/agents")),
            ("/api/v/x", Named::Unversioned("/v/x")),
            ("/oauth2/token", Named::Outside),
        ] {
            assert_eq!(versions.of_path(path), expected, "{path}");
            assert_eq!(
                Versions::chosen_elsewhere(std::iter::empty()).of_path(path),
                Named::Outside,
                "{path}"
            );
        }
    }

    #[test]
    fn a_media_type_spells_a_version_in_any_case_with_or_without_its_letter() {
        let versions = versions(&["v1", "v1-beta", "2026-11-22"]);
        for (name, expected) in [
            ("v1", Some(0)),
            ("V1", Some(0)),
            ("1", Some(0)),
            ("1-BETA", Some(1)),
            ("2026-11-22", Some(2)),
            ("v2026-11-22", None),
            ("01", None),
            ("", None),
        ] {
            assert_eq!(versions.spelt(name.as_bytes()), expected, "{name}");
        }
    }
}
