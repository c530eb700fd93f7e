//! Signed tokens in the strict compact form (RFC 7515 §3.1, RFC 7519, hardened by RFC 8725): reading one, and
//! checking its signature with a key that *we* choose. `jwk`, `jku`, `x5u` and `x5c` in a header are never looked
//! at (acceptance J8).
//! Knows nothing of what is claimed, of clocks and of where keys come from.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    Algorithm, Key, KeySet, Refusal, der, jwks,
    portable::is_ecdsa_signature,
    strict::{self, Fault, Object},
};

/// The longest token that is read, in bytes (acceptance J10).
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// The deepest nesting of header and claims.
pub const MAX_DEPTH: usize = 16;
/// The longest `kid` that is taken, in bytes.
pub const MAX_KEY_ID_BYTES: usize = 256;

/// Checks one signature: the host's crypto library, or [`crate::Portable`].
pub trait Verifier {
    /// Whether `signature` over `signed` was made by the owner of `key`.
    ///
    /// `signature` is in the form of JWS (RFC 7518 §3.3, §3.4) and of the right length, and `key` fits
    /// `algorithm`: [`verify`] has seen to both. Hosts that want ECDSA signatures in DER use [`ecdsa_der`].
    fn verify(
        &self,
        algorithm: Algorithm,
        key: &Key,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<bool, Unavailable>;
}

/// The verifier could not answer; this says nothing about the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the verifier gave no answer")]
pub struct Unavailable;

/// What the header says, as far as we look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`: at most [`MAX_KEY_ID_BYTES`], no control characters.
    pub key_id: Option<String>,
    /// `typ`, as it stands.
    pub typ: Option<String>,
}

/// A token that was read but **not verified**. It tells only what is needed to find its key.
#[derive(Debug, Clone)]
pub struct Parsed<'t> {
    header: Header,
    signed: &'t [u8],
    signature: Vec<u8>,
    payload: Vec<u8>,
    claims: Object,
}

/// A token whose signature is good. What it claims is still to be judged ([`crate::claims::judge`]).
#[derive(Debug, Clone, Copy)]
pub struct Verified<'p> {
    header: &'p Header,
    payload: &'p [u8],
    claims: &'p Object,
}

/// Reads a token in the compact form. Nothing in it may be trusted yet.
pub fn parse(token: &[u8]) -> Result<Parsed<'_>, Refusal> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Refusal::TooLong);
    }
    let mut dots = token.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
    let (first, second) = match (dots.next(), dots.next(), dots.count()) {
        (Some(first), Some(second), 0) => (first, second),
        (Some(_), Some(_), 2) => return Err(Refusal::JweUnsupported),
        _ => return Err(Refusal::NotCompact),
    };
    let part = |from: usize, to: usize| token.get(from..to).unwrap_or_default();
    let header = decode(part(0, first))?;
    let payload = decode(part(first.saturating_add(1), second))?;
    let signature = decode(part(second.saturating_add(1), token.len()))?;
    let header = Header::read(&object(&header)?)?;
    let claims = object(&payload)?;
    Ok(Parsed { header, signed: part(0, second), signature, payload, claims })
}

/// Checks the signature with the keys of the token's issuer.
///
/// `allowed` is the issuer's list of algorithms. With a `kid` only keys of that id are tried, without one all that
/// fit the algorithm, at most [`jwks::MAX_TRIED`]. [`Refusal::KeyUnknown`] means that a newer key set may know
/// the key.
pub fn verify<'p>(
    token: &'p Parsed<'_>,
    keys: &KeySet,
    allowed: &[Algorithm],
    verifier: &dyn Verifier,
) -> Result<Verified<'p>, Refusal> {
    let Header { algorithm, key_id, .. } = &token.header;
    if !allowed.contains(algorithm) {
        return Err(Refusal::AlgorithmNotAllowed);
    }
    if *algorithm == Algorithm::Es256 && !is_ecdsa_signature(&token.signature) {
        return Err(Refusal::SignatureInvalid);
    }
    let mut tried = false;
    for key in keys.candidates(*algorithm, key_id.as_deref()) {
        tried = true;
        if token.signature.len() != key.signature_bytes() {
            continue;
        }
        match verifier.verify(*algorithm, key, token.signed, &token.signature) {
            Ok(true) => {
                let Parsed { header, payload, claims, .. } = token;
                return Ok(Verified { header, payload, claims });
            }
            Ok(false) => {}
            Err(Unavailable) => return Err(Refusal::VerifierUnavailable),
        }
    }
    Err(match key_id {
        _ if tried => Refusal::SignatureInvalid,
        Some(kid) if keys.has(kid) => Refusal::KeyMismatch,
        Some(_) | None => Refusal::KeyUnknown,
    })
}

/// A JWS signature of ES256 as the DER that OpenSSL and BoringSSL take; `None` if it is not 64 bytes.
pub fn ecdsa_der(signature: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = signature.split_at_checked(32)?;
    (s.len() == 32).then(|| der::ecdsa_signature(r, s))
}

// === impl Parsed ===

impl Parsed<'_> {
    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn signed(&self) -> &[u8] {
        self.signed
    }

    pub(crate) fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The `iss` that the token *claims*, to choose keys and rules by; nothing else may depend on it.
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(|value| value.as_str())
    }
}

// === impl Verified ===

impl<'p> Verified<'p> {
    /// What the header says.
    pub fn header(&self) -> &'p Header {
        self.header
    }

    /// The claims as they were signed: the text of one JSON object, for people to read.
    pub fn payload(&self) -> &'p [u8] {
        self.payload
    }

    pub(crate) fn claims(&self) -> &'p Object {
        self.claims
    }
}

// === impl Header ===

impl Header {
    pub(crate) fn read(members: &Object) -> Result<Self, Refusal> {
        // We understand no extension, so that every `crit` is one too many, and `b64` is of no use without it.
        if members.has("crit") || members.has("b64") {
            return Err(Refusal::ExtensionUnsupported);
        }
        let text = |name| match members.get(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or(Refusal::HeaderInvalid),
        };
        let algorithm = match text("alg")?.ok_or(Refusal::HeaderInvalid)? {
            name if name.eq_ignore_ascii_case("none") => return Err(Refusal::Unsigned),
            name => name.parse().map_err(|_unknown| Refusal::AlgorithmUnsupported)?,
        };
        let key_id = text("kid")?;
        if key_id.is_some_and(|id| !jwks::is_key_id(id)) {
            return Err(Refusal::HeaderInvalid);
        }
        let typ = text("typ")?;
        Ok(Self { algorithm, key_id: key_id.map(str::to_owned), typ: typ.map(str::to_owned) })
    }
}

fn decode(part: &[u8]) -> Result<Vec<u8>, Refusal> {
    // This engine refuses padding, foreign characters and bits beyond the last byte, so that a token has one spelling.
    URL_SAFE_NO_PAD.decode(part).map_err(|_undecodable| Refusal::EncodingInvalid)
}

fn object(text: &[u8]) -> Result<Object, Refusal> {
    strict::object(text, MAX_DEPTH).map_err(|fault| match fault {
        Fault::NotAnObject => Refusal::JsonInvalid,
        Fault::MemberTwice => Refusal::MemberTwice,
        Fault::TooDeep => Refusal::TooDeep,
    })
}

#[cfg(test)]
mod tests;
