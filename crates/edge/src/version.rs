//! The API version that a path names (acceptance V1): exact tokens only.
//! Knows neither tenants nor the `Accept` header.

/// The versions that are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    served: Vec<String>,
    default: String,
}

/// What a path says of its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'a> {
    /// One that is served.
    Served(&'a str),
    /// Something in a version's place and form that is not served.
    Unknown,
    /// None: the default answers.
    Unversioned,
}

impl Versions {
    /// `default` must be among `served`; the caller has checked it.
    pub fn new(served: Vec<String>, default: String) -> Self {
        Self { served, default }
    }

    /// Those that are served, in the order of the configuration.
    pub fn served(&self) -> &[String] {
        &self.served
    }

    /// What answers where the path names none.
    pub fn default_version(&self) -> &str {
        &self.default
    }

    /// The version that a normalised path names.
    pub fn of_path(&self, path: &str) -> Named<'_> {
        let Some(rest) = path.strip_prefix("/api/") else { return Named::Unversioned };
        let token = rest.split('/').next().unwrap_or_default();
        if let Some(served) = self.served.iter().find(|served| *served == token) {
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
        let versions = Versions::new(vec!["v1".to_owned(), "v2-beta".to_owned()], "v1".to_owned());
        for (path, expected) in [
            ("/api/v1/registry/agents", Named::Served("v1")),
            ("/api/v1", Named::Served("v1")),
            ("/api/v1/", Named::Served("v1")),
            ("/api/v2-beta/x", Named::Served("v2-beta")),
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
        }
    }
}
