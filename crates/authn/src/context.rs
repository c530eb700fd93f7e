//! The signed context that the gateway gives an upstream (design §3.2): a compact JWS with the identity facts, of
//! HS256 under a key that only the gateway and that one upstream hold. It says nothing of the request, so that one
//! is good for every request of a caller until it ages.
//! Knows neither headers nor where keys and facts come from.

use std::{fmt, str::FromStr, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gatehouse_contract::{AuthMethod, Role, Roles, TenantId, Tier};
use hmac::{Hmac, Mac as _};
use serde::Serialize;
use sha2::Sha256;

use crate::{
    Algorithm, KeySet,
    jwks::MAX_SECRET_BYTES,
    jws,
    strict::{Document, Object, Value},
};

/// How long a context is good.
pub const LIFETIME: Duration = Duration::from_secs(60);
/// The age at which the gateway makes another.
pub const RENEWAL: Duration = Duration::from_secs(30);
/// How far the clocks of gateway and upstream may differ.
pub const LEEWAY: Duration = Duration::from_secs(5);

/// `typ`: no other token of HS256 passes for a context, nor a context for one.
const TYP: &str = "gatehouse-context+jwt";
const HEADER: &str = r#"{"alg":"HS256","typ":"gatehouse-context+jwt"}"#;
const MIN_KEY_BYTES: usize = 32;
const MAX_DEPTH: usize = 4;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The tenant it acts for.
    pub tenant: TenantId,
    /// The tenant's tier.
    pub tier: Tier,
    /// Who it is within the tenant.
    pub subject: String,
    /// What it may do there.
    pub roles: Roles,
    /// How it proved itself.
    pub method: AuthMethod,
    /// Whether it holds the platform membership.
    pub platform: bool,
}

/// The key that the gateway and one upstream share: 32 to 256 bytes, written as base64url.
#[derive(Clone)]
pub struct Key(Vec<u8>);

/// The text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 32 to 256 bytes as base64url without padding")]
pub struct NotAKey;

/// Makes contexts for one upstream.
#[derive(Debug, Clone)]
pub struct Signer {
    audience: String,
    key: Key,
}

/// Reads contexts at one upstream, while one key or, during a rotation, two are live.
#[derive(Debug, Clone)]
pub struct Reader {
    audience: String,
    keys: Vec<KeySet>,
}

/// Why a context is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a compact JWS of HS256 under a live key.
    #[error("the context is not signed by the gateway")]
    Signature,
    /// Signed, but not a context.
    #[error("the context's content is not valid")]
    Content,
    /// For another upstream.
    #[error("the context is for another upstream")]
    Audience,
    /// Older than [`LIFETIME`], or from the future.
    #[error("the context is not of this time")]
    Time,
}

#[derive(Serialize)]
struct Payload<'f> {
    aud: &'f str,
    iat: u64,
    exp: u64,
    tenant_id: TenantId,
    tier: Tier,
    sub: &'f str,
    roles: Roles,
    method: AuthMethod,
    platform: bool,
}

// === impl Signer ===

impl Signer {
    /// For the upstream of this name.
    pub fn new(audience: impl Into<String>, key: Key) -> Self {
        Self { audience: audience.into(), key }
    }

    /// The context of this caller, issued at `now`: visible ASCII, fit for a header.
    pub fn sign(&self, facts: &Facts, now: Duration) -> String {
        let issued_at = now.as_secs();
        let payload = Payload {
            aud: &self.audience,
            iat: issued_at,
            exp: issued_at.saturating_add(LIFETIME.as_secs()),
            tenant_id: facts.tenant,
            tier: facts.tier,
            sub: &facts.subject,
            roles: facts.roles,
            method: facts.method,
            platform: facts.platform,
        };
        // Text, numbers and names only: this cannot fail. If it did, no upstream would take the result.
        let payload = serde_json::to_vec(&payload).unwrap_or_default();
        let mut text = URL_SAFE_NO_PAD.encode(HEADER);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut text);
        let signature = self.key.mac(text.as_bytes());
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        text
    }
}

// === impl Reader ===

impl Reader {
    /// For the upstream of this name. `previous` is the key before, while a rotation lasts.
    pub fn new(audience: impl Into<String>, current: &Key, previous: Option<&Key>) -> Self {
        let set = |key: &Key| KeySet::of_secret(&key.0, &[Algorithm::Hs256]).ok();
        let keys = [Some(current), previous].into_iter().flatten().filter_map(set).collect();
        Self { audience: audience.into(), keys }
    }

    /// Who calls, if `context` was made for us by the gateway within the last minute.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn read(&self, context: &[u8], now: Duration) -> Result<Facts, Refused> {
        let good = |keys| jws::verify(keys, context).ok();
        let message = self.keys.iter().find_map(good).ok_or(Refused::Signature)?;
        if message.header.typ.as_deref() != Some(TYP) {
            return Err(Refused::Content);
        }
        let content = Document::read(message.payload, MAX_DEPTH).map_err(|_| Refused::Content)?;
        let content = content.root();
        if text(content, "aud")? != self.audience {
            return Err(Refused::Audience);
        }
        let issued_at = seconds(content, "iat")?;
        let expires_at = seconds(content, "exp")?;
        let from = issued_at.saturating_sub(LEEWAY);
        let until = expires_at.min(issued_at.saturating_add(LIFETIME)).saturating_add(LEEWAY);
        if now < from || now >= until {
            return Err(Refused::Time);
        }
        facts(content)
    }
}

fn facts(content: Object<'_>) -> Result<Facts, Refused> {
    let roles: Option<Roles> = match content.get("roles") {
        Some(Value::List(names)) => names.iter().map(named::<Role>).collect(),
        _ => None,
    };
    let platform = match content.get("platform") {
        Some(Value::Bool(platform)) => Some(platform),
        _ => None,
    };
    Ok(Facts {
        tenant: text(content, "tenant_id")?.parse().map_err(|_| Refused::Content)?,
        tier: text(content, "tier")?.parse().map_err(|_| Refused::Content)?,
        subject: text(content, "sub")?.to_owned(),
        roles: roles.ok_or(Refused::Content)?,
        method: text(content, "method")?.parse().map_err(|_| Refused::Content)?,
        platform: platform.ok_or(Refused::Content)?,
    })
}

fn named<T: FromStr>(name: Value<'_>) -> Option<T> {
    name.as_str()?.parse().ok()
}

fn text<'c>(content: Object<'c>, name: &str) -> Result<&'c str, Refused> {
    content.get(name).and_then(Value::as_str).ok_or(Refused::Content)
}

fn seconds(content: Object<'_>, name: &str) -> Result<Duration, Refused> {
    match content.get(name) {
        Some(Value::Whole(seconds)) => Ok(Duration::from_secs(seconds)),
        _ => Err(Refused::Content),
    }
}

// === impl Key ===

impl Key {
    fn mac(&self, signed: &[u8]) -> Vec<u8> {
        // HMAC takes keys of every length.
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).map(|mac| mac.chain_update(signed));
        mac.map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default()
    }
}

impl FromStr for Key {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_ascii_end()).map_err(|_| NotAKey)?;
        let fits = (MIN_KEY_BYTES..=MAX_SECRET_BYTES).contains(&bytes.len());
        if fits { Ok(Self(bytes)) } else { Err(NotAKey) }
    }
}

/// A secret: never shown.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests;
