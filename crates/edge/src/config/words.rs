//! The words of the edge document: each field's values as types that cannot be wrong.
//! Knows no fields.

use std::str::FromStr;

use gatehouse_contract::document::Words;

macro_rules! words {
    ($(#[$doc:meta])* $vis:vis $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name { $($(#[$vdoc])* $variant),+ }

        impl FromStr for $name {
            type Err = ();

            fn from_str(word: &str) -> Result<Self, ()> {
                match word { $($word => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }

        impl Words for $name {
            const WORDS: &'static [&'static str] = &[$($word),+];

            fn word(&self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

words! {
    /// The proxy that runs the filter; from configuration, never from probing.
    pub Host {
        /// Envoy, also within Istio.
        Envoy = "envoy",
        /// Kong 3.9 (ngx_wasm_module).
        Kong = "kong",
    }
}

words! {
    /// Who checks signatures.
    pub Signatures {
        /// The host's own library where it has one (Envoy), else [`Self::Portable`].
        Native = "native",
        /// Pure Rust within the module.
        Portable = "portable",
    }
}

words! {
    /// What the role matrix does with a caller whom it does not let pass.
    pub Rbac {
        /// Refuse.
        Enforce = "enforce",
        /// Note it and let the request pass.
        Shadow = "shadow",
    }
}

words! {
    /// What becomes of an answer that says it is JSON, and is not.
    pub(crate) OnBroken {
        /// It passes as it is.
        Pass = "pass",
        /// The client gets 502 instead.
        Refuse = "refuse",
    }
}

words! {
    /// What happens to a request while the limiter is away.
    pub(crate) Away {
        /// This VM lets its share of the tenant's limit pass.
        Local = "local",
        /// It passes, and the response says so.
        Open = "open",
        /// It is refused.
        Closed = "closed",
    }
}

words! {
    /// The whole limiter, in one word.
    pub(super) Outage {
        /// While the limiter is away, nobody passes.
        Closed = "closed",
        /// All pass.
        Open = "open",
    }
}

words! {
    /// The tenants of an issuer that are not listed.
    pub(super) AnyTenant {
        /// All.
        Any = "any",
        /// Those for which the record knows the subject.
        FromRecord = "from_record",
    }
}

words! {
    /// Who says which roles a subject holds, where it is no claim.
    pub(super) FromRecord {
        /// The record.
        Record = "record",
    }
}

words! {
    /// Who has an issuer's keys, where the document does not say it at length.
    pub(super) Fetched {
        /// The sidecar.
        Sidecar = "sidecar",
    }
}

words! {
    /// What `X-RateLimit-Reset` counts from.
    pub(crate) Reset {
        /// From now.
        Delta = "delta",
        /// From the Unix epoch.
        Epoch = "epoch",
    }
}

words! {
    /// What becomes of an upstream's own rate headers where ours are due.
    pub(crate) UpstreamHeaders {
        /// Ours replace them.
        Override = "override",
        /// Its own stay.
        Keep = "keep",
        /// Those with less left.
        Lowest = "lowest",
    }
}

/// Text that is safe in a header.
pub(super) struct Printable(pub(super) String);

impl FromStr for Printable {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let fits = text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.to_owned())).ok_or(())
    }
}

/// A cookie's or a query parameter's name: characters that both spell in one way only.
pub(super) struct Plain(pub(super) String);

impl FromStr for Plain {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        text.bytes().all(fits).then(|| Self(text.to_owned())).ok_or(())
    }
}

/// A header's name in lower case: a token (RFC 9110 §5.6.2), but for the `*` that stands for all in some lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldName(pub(super) String);

impl From<FieldName> for String {
    fn from(name: FieldName) -> Self {
        name.0
    }
}

impl From<Plain> for String {
    fn from(name: Plain) -> Self {
        name.0
    }
}

impl FromStr for FieldName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte);
        let fits = !text.is_empty() && text.bytes().all(fits);
        fits.then(|| Self(text.to_ascii_lowercase())).ok_or(())
    }
}
