//! The header of a signed message, as far as we look. What it says is not trusted: it only chooses among our keys.
//! Knows nothing of payloads.

use crate::{Algorithm, Refusal, jwks, strict::Object};

/// What the header says, as far as we look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`: at most [`super::MAX_KEY_ID_BYTES`], no control characters.
    pub key_id: Option<String>,
    /// `typ`, as it stands.
    pub typ: Option<String>,
}

impl Header {
    pub(crate) fn read(members: Object<'_>) -> Result<Self, Refusal> {
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
