//! Why a token is refused: for logs and metrics in full, for the client in as much as it may know.
//! Holds no text from a token, a key or a library.

use gatehouse_contract::Reason;

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $reason:ident, $text:literal;)+) => {
        /// Why a token is refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
        pub enum Refusal { $($(#[$doc])* #[error($text)] $variant),+ }

        impl Refusal {
            /// Every refusal.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// A stable word for logs and metric labels; finer than [`Self::reason`], never sent to clients.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// What the client is told.
            pub const fn reason(self) -> Reason {
                match self { $(Self::$variant => Reason::$reason),+ }
            }
        }
    };
}

refusals! {
    /// The `Authorization` value has the scheme but not one token (RFC 6750 §2.1).
    BearerMalformed = "bearer_malformed", TokenInvalid, "the bearer credential is not one token";
    /// Two cookies or two parameters of the credential's name.
    CredentialTwice = "credential_twice", CredentialMalformed, "the credential stands twice";
    /// Longer than [`crate::jws::MAX_TOKEN_BYTES`].
    TooLong = "token_too_long", TokenInvalid, "the token is longer than 8 KiB";
    /// Not three parts.
    NotCompact = "not_compact", TokenInvalid, "the token has not exactly three parts";
    /// Five parts: a JWE (RFC 7516).
    JweUnsupported = "jwe_unsupported", TokenInvalid, "encrypted tokens are not supported";
    /// A part is not unpadded base64url, or has bits beyond its last byte.
    EncodingInvalid = "encoding_invalid", TokenInvalid, "a part of the token is not strict base64url";
    /// Header or claims are not one JSON object.
    JsonInvalid = "json_invalid", TokenInvalid, "header or claims are not one JSON object";
    /// A member stands twice (RFC 7515 §4, RFC 7519 §4).
    MemberTwice = "member_twice", TokenInvalid, "a member of header or claims stands twice";
    /// Nested deeper than [`crate::jws::MAX_DEPTH`].
    TooDeep = "too_deep", TokenInvalid, "header or claims are nested too deeply";
    /// A header member is of the wrong type or out of bounds.
    HeaderInvalid = "header_invalid", TokenInvalid, "a header member is not valid";
    /// `crit` or `b64`: we understand no extension (RFC 7515 §4.1.11, RFC 7797).
    ExtensionUnsupported = "extension_unsupported", TokenInvalid, "the header asks for an extension";
    /// `alg: none` in any spelling (RFC 7518 §3.6).
    Unsigned = "unsigned", TokenInvalid, "the token is not signed";
    /// An algorithm that is never taken.
    AlgorithmUnsupported = "algorithm_unsupported", TokenInvalid, "the algorithm is not supported";
    /// An algorithm that this issuer may not use (RFC 8725 §3.1).
    AlgorithmNotAllowed = "algorithm_not_allowed", TokenInvalid, "the issuer may not use this algorithm";
    /// A `typ` of another kind of token (RFC 8725 §3.11), or an ID token.
    TypeNotAllowed = "type_not_allowed", TokenInvalid, "this kind of token is no access token";
    /// The set has no key of this `kid`, or none at all for the algorithm: the keys may have been rotated.
    KeyUnknown = "key_unknown", TokenInvalid, "no key of the issuer fits";
    /// The key of this `kid` is not for this algorithm.
    KeyMismatch = "key_mismatch", TokenInvalid, "the named key is not for this algorithm";
    /// The signature is of the wrong form or wrong.
    SignatureInvalid = "signature_invalid", TokenInvalid, "the signature is not valid";
    /// No issuer of this name is configured, or `iss` is absent or no string.
    IssuerUnknown = "issuer_unknown", TokenInvalid, "the issuer is not known";
    /// None of the expected audiences is in `aud`.
    AudienceMismatch = "audience_mismatch", TokenInvalid, "the token is for another audience";
    /// `exp` is absent.
    ExpiryMissing = "expiry_missing", TokenInvalid, "the token never expires";
    /// `exp` is now or past.
    Expired = "expired", TokenInvalid, "the token is expired";
    /// `nbf` is in the future.
    NotYetValid = "not_yet_valid", TokenInvalid, "the token is not valid yet";
    /// `iat` is in the future.
    IssuedInFuture = "issued_in_future", TokenInvalid, "the token is from the future";
    /// `exp` − `iat` is more than the issuer may give.
    LifetimeTooLong = "lifetime_too_long", TokenInvalid, "the token lives too long";
    /// `iat` is absent where a lifetime is to be judged.
    IssueTimeMissing = "issue_time_missing", TokenInvalid, "the token does not say when it was issued";
    /// A time claim is no NumericDate within 0 and 2^53 (RFC 7519 §2).
    TimeInvalid = "time_invalid", TokenInvalid, "a time claim is not valid";
    /// `sub` is absent, empty or no string.
    SubjectMissing = "subject_missing", TokenInvalid, "the token names no subject";
    /// `sub` is too long, or has a byte that no header may carry (acceptance T6).
    SubjectInvalid = "subject_invalid", PermissionDenied, "the subject's name is not valid";
    /// `jti` is no string within bounds.
    TokenIdInvalid = "token_id_invalid", TokenInvalid, "the token's id is not valid";
    /// `cnf` binds the token to a key that the host cannot show us (RFC 7800; acceptance J37).
    BindingUnsupported = "binding_unsupported", TokenInvalid, "the token is bound to a key";
    /// The tenant claim is absent.
    TenantMissing = "tenant_missing", TenantMissing, "the token names no tenant";
    /// The tenant claim is no canonical UUID.
    TenantInvalid = "tenant_invalid", TenantInvalid, "the token's tenant is not valid";
    /// The roles' claim is neither a string nor a list of strings.
    RolesInvalid = "roles_invalid", PermissionDenied, "the token's roles are not valid";
    /// The scopes' claim is neither a string nor a list of strings, or has a character that no scope has.
    ScopeInvalid = "scope_invalid", TokenInvalid, "the token's scopes are not valid";
    /// A scope that the issuer's tokens need is not there (RFC 6750 §3.1).
    ScopeInsufficient = "scope_insufficient", ScopeInsufficient, "the token lacks a required scope";
    /// The verifier could not be asked. Transient: never remember it.
    VerifierUnavailable = "verifier_unavailable", IdentityUnavailable, "signatures cannot be checked";
}

impl Refusal {
    /// The `error` of `WWW-Authenticate` (RFC 6750 §3.1); `None` where the answer carries no challenge.
    pub const fn challenge(self) -> Option<&'static str> {
        match self.reason() {
            Reason::TokenInvalid => Some("invalid_token"),
            Reason::ScopeInsufficient => Some("insufficient_scope"),
            _ => None,
        }
    }

    /// Whether asking again may end differently without anything about the token having changed.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::VerifierUnavailable)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn words_are_unique_and_only_401_and_a_missing_scope_are_challenged() {
        let words: BTreeSet<_> = Refusal::ALL.iter().map(|refusal| refusal.word()).collect();
        assert_eq!(words.len(), Refusal::ALL.len());
        for refusal in Refusal::ALL {
            let challenged = match refusal.reason().status() {
                401 => Some("invalid_token"),
                _ if *refusal == Refusal::ScopeInsufficient => Some("insufficient_scope"),
                _ => None,
            };
            assert_eq!(refusal.challenge(), challenged, "{refusal}");
            // Whatever the token is to blame for stays so.
            assert_eq!(refusal.is_transient(), refusal.reason().status() == 503, "{refusal}");
        }
    }
}
