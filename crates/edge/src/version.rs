//! The API version that a path names (acceptance V1): exact tokens only.
//! Knows neither tenants nor the `Accept` header.

use std::rc::Rc;

/// The versions that are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    served: Vec<Rc<str>>,
    /// `None`: another module sees to versions.
    default: Option<Rc<str>>,
}

/// What a path says of its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'a> {
    /// One that is served.
    Served(&'a Rc<str>),
    /// Something in a version's place and form that is not served.
    Unknown,
    /// None: the default answers.
    Unversioned,
}

impl Versions {
    /// `default` must be among `served`; the caller has checked it.
    pub fn new(served: Vec<Rc<str>>, default: Rc<str>) -> Self {
        Self { served, default: Some(default) }
    }

    /// Of a module that leaves versions to others: every path is unversioned.
    pub fn none() -> Self {
        Self { served: Vec::new(), default: None }
    }

    /// Those that are served, in the order of the configuration.
    pub fn served(&self) -> &[Rc<str>] {
        &self.served
    }

    /// What answers where the path names none.
    pub fn default_version(&self) -> Option<&Rc<str>> {
        self.default.as_ref()
    }

    /// The version that a normalised path names.
    pub fn of_path(&self, path: &str) -> Named<'_> {
        let Some(rest) = path.strip_prefix("/api/") else { return Named::Unversioned };
        if self.default.is_none() {
            return Named::Unversioned;
        }
        let token = rest.split('/').next().unwrap_or_default();
        if let Some(served) = self.served.iter().find(|served| served.as_ref() == token) {
            return Named::Served(served);
        }
        let mut letters = token.bytes();
        match (letters.next(), letters.next()) {
            (Some(b'v' | b'V'), Some(digit)) if digit.is_ascii_digit() => Named::Unknown,
            _ => Named::Unversioned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_only_exact_tokens_match() {
        let (v1, beta): (Rc<str>, Rc<str>) = ("v1".into(), "v2-beta".into());
        let versions = Versions::new(vec![v1.clone(), beta.clone()], v1.clone());
        for (path, expected) in [
            ("/api/v1/registry/agents", Named::Served(&v1)),
            ("/api/v1", Named::Served(&v1)),
            ("/api/v1/", Named::Served(&v1)),
            ("/api/v2-beta/x", Named::Served(&beta)),
            ("/api/v10/x", Named::Unknown),
            ("/api/v1-beta/x", Named::Unknown),
            ("/api/v01/x", Named::Unknown),
            ("/api/V1/x", Named::Unknown),
            ("/api/v1.1/x", Named::Unknown),
            ("/api/v2/x", Named::Unknown),
            ("/apiv1/x", Named::Unversioned),
            ("/api", Named::Unversioned),
            ("/api/", Named::Unversioned),
            ("/api/versions", Named::Unversioned),
            ("/oauth2/token", Named::Unversioned),
        ] {
            assert_eq!(versions.of_path(path), expected, "{path}");
            assert_eq!(Versions::none().of_path(path), Named::Unversioned, "{path}");
        }
    }
}
