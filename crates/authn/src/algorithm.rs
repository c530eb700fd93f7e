//! The signature algorithms that are taken (RFC 7518 §3.1, RFC 8037 §3.1).
//! Knows neither keys nor tokens.

use std::{fmt, str::FromStr};

use gatehouse_contract::document::Words;

macro_rules! algorithms {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)+) => {
        /// A signature algorithm. All others, ES512 among them, are refused by name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Algorithm { $($(#[$doc])* $variant),+ }

        impl Algorithm {
            /// Every algorithm.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The `alg` value, case-sensitive.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl FromStr for Algorithm {
            type Err = UnknownAlgorithm;

            fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
                match name { $($name => Ok(Self::$variant),)+ _ => Err(UnknownAlgorithm) }
            }
        }

        impl Words for Algorithm {
            const WORDS: &'static [&'static str] = &[$($name),+];

            fn word(&self) -> &'static str {
                self.as_str()
            }
        }
    };
}

algorithms! {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256 = "RS256";
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384 = "RS384";
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512 = "RS512";
    /// RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes.
    Ps256 = "PS256";
    /// RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes.
    Ps384 = "PS384";
    /// RSASSA-PSS with SHA-512, MGF1 with SHA-512 and a salt of 64 bytes.
    Ps512 = "PS512";
    /// ECDSA on P-256 with SHA-256.
    Es256 = "ES256";
    /// ECDSA on P-384 with SHA-384.
    Es384 = "ES384";
    /// EdDSA on Ed25519; no other curve.
    EdDsa = "EdDSA";
    /// HMAC with SHA-256: whoever can check can also sign.
    Hs256 = "HS256";
    /// HMAC with SHA-384.
    Hs384 = "HS384";
    /// HMAC with SHA-512.
    Hs512 = "HS512";
}

/// The name is not one of [`Algorithm::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, HS256, HS384, HS512"
)]
pub struct UnknownAlgorithm;

/// What an algorithm needs of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Rsa,
    P256,
    P384,
    Ed25519,
    /// A secret, and how long it must be in bytes: as long as the hash, which is the signature's length too.
    Secret(usize),
}

impl Algorithm {
    /// The hash's name as Envoy's `verify_signature` takes it; `None` for what that function cannot check (PSS has
    /// no parameter there, EdDSA and HMAC are other operations): ask [`crate::Portable`].
    pub const fn native_hash(self) -> Option<&'static str> {
        match self {
            Self::Rs256 | Self::Es256 => Some("sha256"),
            Self::Rs384 | Self::Es384 => Some("sha384"),
            Self::Rs512 => Some("sha512"),
            Self::Ps256 | Self::Ps384 | Self::Ps512 | Self::EdDsa => None,
            Self::Hs256 | Self::Hs384 | Self::Hs512 => None,
        }
    }

    /// Whether one secret both signs and checks.
    pub const fn is_symmetric(self) -> bool {
        matches!(self.family(), Family::Secret(_))
    }

    pub(crate) const fn family(self) -> Family {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 => Family::Rsa,
            Self::Ps256 | Self::Ps384 | Self::Ps512 => Family::Rsa,
            Self::Es256 => Family::P256,
            Self::Es384 => Family::P384,
            Self::EdDsa => Family::Ed25519,
            Self::Hs256 => Family::Secret(32),
            Self::Hs384 => Family::Secret(48),
            Self::Hs512 => Family::Secret(64),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_known_by_its_one_name() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(*algorithm));
            assert_eq!(
                algorithm.as_str().to_lowercase().parse::<Algorithm>(),
                Err(UnknownAlgorithm)
            );
            assert!(UnknownAlgorithm.to_string().contains(algorithm.as_str()));
        }
        for other in ["ES512", "ES256K", "Ed25519", "none", "", "RS256 "] {
            assert_eq!(other.parse::<Algorithm>(), Err(UnknownAlgorithm), "{other}");
        }
    }

    #[test]
    fn the_host_checks_pkcs1_and_ecdsa_only() {
        let native: Vec<_> = Algorithm::ALL
            .iter()
            .filter_map(|known| Some((known.as_str(), known.native_hash()?)))
            .collect();
        assert_eq!(
            native,
            [
                ("RS256", "sha256"),
                ("RS384", "sha384"),
                ("RS512", "sha512"),
                ("ES256", "sha256"),
                ("ES384", "sha384"),
            ]
        );
    }
}
