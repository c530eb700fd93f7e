//! Signed messages and tokens in the strict compact form (RFC 7515 §3.1, RFC 7519, hardened by RFC 8725): reading
//! one, and checking its signature with a key that *we* choose. `jwk`, `jku`, `x5u` and `x5c` in a header are never
//! looked at (acceptance J8).
//! Knows nothing of what is claimed, of clocks and of where keys come from.

mod header;
mod headers;

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    Algorithm, Key, KeySet, Portable, Refusal,
    algorithm::Family,
    der, octets, portable,
    strict::{Document, Fault, Object, Value},
};

pub use header::Header;
pub use headers::Headers;

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
    /// `algorithm`: [`verify_with`] has seen to both. Hosts that want ECDSA signatures in DER use [`ecdsa_der`].
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

/// A message whose signature is good. What it says may be any bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What the header says.
    pub header: Header,
    /// What was signed.
    pub payload: Vec<u8>,
}

/// The three parts of the compact form, decoded. The payload may be any bytes.
struct Compact<'t> {
    header: Arc<Header>,
    signed: &'t [u8],
    signature: Vec<u8>,
    payload: Vec<u8>,
}

/// A token that was read but **not verified**. It tells only what is needed to find its key.
#[derive(Debug, Clone)]
pub struct Parsed<'t> {
    header: Arc<Header>,
    signed: &'t [u8],
    signature: Vec<u8>,
    claims: Document,
}

/// A token whose signature is good. What it claims is still to be judged ([`crate::claims::judge`]).
#[derive(Debug, Clone, Copy)]
pub struct Verified<'p> {
    header: &'p Header,
    claims: &'p Document,
}

/// The layer of JWS by itself: reads `compact` and checks its signature with `keys`, by the portable verifier and any
/// algorithm that a key of the set is for. The payload need not be claims, and nothing of it is judged: for tokens
/// use [`parse`], [`verify_with`] and [`crate::claims::judge`].
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(keys: &KeySet, compact: &[u8]) -> Result<Message, Refusal> {
    let Compact { header, signed, signature, payload } = Compact::read(compact, None)?;
    check(&header, signed, &signature, (keys, Algorithm::ALL, &Portable))?;
    Ok(Message { header: Arc::unwrap_or_clone(header), payload })
}

/// Reads a token in the compact form. Nothing in it may be trusted yet.
///
/// # Errors
/// The first thing that is wrong with its form.
pub fn parse(token: &[u8]) -> Result<Parsed<'_>, Refusal> {
    parsed(token, None)
}

/// As [`parse`], and equal to it in every answer; a header that is among `headers` is not read again.
///
/// # Errors
/// The first thing that is wrong with its form.
pub fn parse_among<'t>(headers: &mut Headers, token: &'t [u8]) -> Result<Parsed<'t>, Refusal> {
    parsed(token, Some(headers))
}

fn parsed<'t>(token: &'t [u8], headers: Option<&mut Headers>) -> Result<Parsed<'t>, Refusal> {
    let Compact { header, signed, signature, payload } = Compact::read(token, headers)?;
    Ok(Parsed { header, signed, signature, claims: object(payload)? })
}

/// Checks the signature of a token with the keys of its issuer.
///
/// `allowed` is the issuer's list of algorithms. With a `kid` only keys of that id are tried, without one all that
/// fit the algorithm, at most [`crate::jwks::MAX_TRIED`].
///
/// # Errors
/// [`Refusal::KeyUnknown`] means that a newer key set may know the key.
pub fn verify_with<'p>(
    token: &'p Parsed<'_>,
    keys: &KeySet,
    allowed: &[Algorithm],
    verifier: &dyn Verifier,
) -> Result<Verified<'p>, Refusal> {
    let Parsed { header, signed, signature, claims } = token;
    check(header, signed, signature, (keys, allowed, verifier))?;
    Ok(Verified { header, claims })
}

/// A JWS signature of ES256 or ES384 as the DER that OpenSSL and BoringSSL take; `None` for another algorithm or
/// another length.
pub fn ecdsa_der(algorithm: Algorithm, signature: &[u8]) -> Option<Vec<u8>> {
    let half = match algorithm.family() {
        Family::P256 => 32,
        Family::P384 => 48,
        Family::Rsa | Family::Ed25519 | Family::Secret(_) => return None,
    };
    let (r, s) = signature.split_at_checked(half)?;
    (s.len() == half).then(|| der::ecdsa_signature(r, s))
}

// === impl Compact ===

impl<'t> Compact<'t> {
    fn read(text: &'t [u8], headers: Option<&mut Headers>) -> Result<Self, Refusal> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::TooLong);
        }
        let mut dots = Dots { text, from: 0 };
        let (first, second) = match (dots.next(), dots.next(), dots.count()) {
            (Some(first), Some(second), 0) => (first, second),
            (Some(_), Some(_), 2) => return Err(Refusal::JweUnsupported),
            _ => return Err(Refusal::NotCompact),
        };
        let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        let encoded = part(0, first);
        let known = headers.as_ref().and_then(|headers| headers.get(encoded));
        let header = if known.is_some() { Vec::new() } else { decode(encoded)? };
        let payload = decode(part(first.saturating_add(1), second))?;
        let signature = decode(part(second.saturating_add(1), text.len()))?;
        let header = match known {
            Some(known) => known,
            None => {
                let header = Arc::new(Header::read(object(header)?.root())?);
                if let Some(headers) = headers {
                    headers.keep(encoded, &header);
                }
                header
            }
        };
        Ok(Self { header, signed: part(0, second), signature, payload })
    }
}

/// The places of the dots.
struct Dots<'t> {
    text: &'t [u8],
    from: usize,
}

impl Iterator for Dots<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let at = self.from.saturating_add(octets::find(self.text.get(self.from..)?, b'.')?);
        self.from = at.saturating_add(1);
        Some(at)
    }
}

/// Checks one signature with the keys, the allow-list and the verifier that are ours to choose.
fn check(
    header: &Header,
    signed: &[u8],
    signature: &[u8],
    (keys, allowed, verifier): (&KeySet, &[Algorithm], &dyn Verifier),
) -> Result<(), Refusal> {
    let Header { algorithm, key_id, .. } = header;
    // A public key is never taken for a secret, whatever an issuer allows (RFC 8725 §2.1).
    if !allowed.contains(algorithm) || algorithm.is_symmetric() != keys.is_secret() {
        return Err(Refusal::AlgorithmNotAllowed);
    }
    if !portable::is_well_formed(*algorithm, signature) {
        return Err(Refusal::SignatureInvalid);
    }
    let mut tried = false;
    for key in keys.candidates(*algorithm, key_id.as_deref()) {
        tried = true;
        if key.signature_bytes(*algorithm) != Some(signature.len()) {
            continue;
        }
        match verifier.verify(*algorithm, key, signed, signature) {
            Ok(true) => return Ok(()),
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
        self.claims.root().get("iss").and_then(Value::as_str)
    }

    /// The `tenant_id` that the token *claims*, to choose the tenant's own registration of its issuer by; nothing else
    /// may depend on it.
    pub fn claimed_tenant(&self) -> Option<&str> {
        self.claims.root().get("tenant_id").and_then(Value::as_str)
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
        self.claims.text().as_bytes()
    }

    pub(crate) fn claims(&self) -> Object<'p> {
        self.claims.root()
    }
}

fn decode(part: &[u8]) -> Result<Vec<u8>, Refusal> {
    // This engine refuses padding, foreign characters and bits beyond the last byte, so that a token has one spelling.
    URL_SAFE_NO_PAD.decode(part).map_err(|_undecodable| Refusal::EncodingInvalid)
}

fn object(text: Vec<u8>) -> Result<Document, Refusal> {
    Document::read(text, MAX_DEPTH).map_err(|fault| match fault {
        Fault::NotAnObject => Refusal::JsonInvalid,
        Fault::MemberTwice => Refusal::MemberTwice,
        Fault::TooDeep => Refusal::TooDeep,
    })
}

#[cfg(test)]
mod tests;
