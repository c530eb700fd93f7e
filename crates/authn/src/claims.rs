//! Weighs what a verified token claims (RFC 7519 §4.1, RFC 8725) against its issuer's rules at a given time.
//! Knows neither signatures nor clocks.

use std::{str::FromStr, time::Duration};

use gatehouse_contract::TenantId;

use crate::{
    Refusal,
    jws::{Header, Verified},
    strict::{Object, Value},
};

/// The default tolerance for clocks that differ.
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(60);
/// The largest tolerance; [`judge`] never grants more.
pub const MAX_LEEWAY: Duration = Duration::from_secs(300);
/// The longest `sub` and `jti`, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// The largest NumericDate: beyond it JSON numbers stop being exact.
const MAX_SECONDS: u64 = 1 << 53;

/// What an issuer's tokens must claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// `iss`, byte for byte: a trailing slash matters.
    pub issuer: String,
    /// At least one of these must be in `aud`, case-sensitive. An empty list does not look at `aud`.
    pub audiences: Vec<String>,
    /// Tolerance on `exp`, `nbf` and `iat`, once each; at most [`MAX_LEEWAY`].
    pub leeway: Duration,
    /// Where the tenant's id stands.
    pub tenant_claim: Pointer,
    /// Take tokens with `typ: at+jwt` only (RFC 9068), and none with the marks of an ID token.
    pub access_tokens_only: bool,
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `iss`.
    pub issuer: String,
    /// `sub`: 1 to [`MAX_NAME_BYTES`] visible ASCII bytes, no space, so that it fits into a header as it stands.
    pub subject: String,
    /// The tenant that the token names.
    pub tenant: TenantId,
    /// `exp` since the Unix epoch, without leeway. Nothing may be remembered beyond it.
    pub expires_at: Duration,
    /// `jti`.
    pub token_id: Option<String>,
}

/// A JSON pointer (RFC 6901) to a claim, through objects only; at least one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// The text is not a JSON pointer to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a JSON pointer such as \"/tenant_id\"")]
pub struct NotAPointer;

/// Weighs the claims of `token` at `now`, the time since the Unix epoch.
///
/// The order is fixed: kind of token, issuer, audience, times, binding, subject, tenant. The first thing that is
/// wrong is the answer.
pub fn judge(token: &Verified<'_>, rules: &Rules, now: Duration) -> Result<Claims, Refusal> {
    weigh(token.header(), token.claims(), rules, now)
}

pub(crate) fn weigh(
    header: &Header,
    claims: &Object,
    rules: &Rules,
    now: Duration,
) -> Result<Claims, Refusal> {
    kind(header, claims, rules)?;
    if claims.get("iss").and_then(Value::as_str) != Some(&rules.issuer) {
        return Err(Refusal::IssuerUnknown);
    }
    audience(claims.get("aud"), &rules.audiences)?;
    let expires_at = times(claims, rules.leeway.min(MAX_LEEWAY), now)?;
    if claims.has("cnf") {
        return Err(Refusal::BindingUnsupported);
    }
    let subject = subject(claims.get("sub"))?;
    let token_id = match claims.get("jti") {
        None => None,
        Some(Value::Text(id)) if is_name(id) => Some(id.clone()),
        Some(_) => return Err(Refusal::TokenIdInvalid),
    };
    let tenant = match rules.tenant_claim.find(claims) {
        None => return Err(Refusal::TenantMissing),
        Some(value) => value.as_str().ok_or(Refusal::TenantInvalid)?,
    };
    let tenant = tenant.parse().map_err(|_not_an_id| Refusal::TenantInvalid)?;
    Ok(Claims { issuer: rules.issuer.clone(), subject, tenant, expires_at, token_id })
}

/// RFC 8725 §3.11: a token made for another purpose is refused, even if everything else fits.
fn kind(header: &Header, claims: &Object, rules: &Rules) -> Result<(), Refusal> {
    let typ = header.typ.as_deref().map(|typ| {
        let typ = typ.to_ascii_lowercase();
        typ.strip_prefix("application/").map_or(typ.clone(), str::to_owned)
    });
    let fits = match typ.as_deref() {
        Some("at+jwt") => true,
        Some("jwt") | None => !rules.access_tokens_only,
        Some(_) => false,
    };
    let id_token = rules.access_tokens_only && (claims.has("nonce") || claims.has("at_hash"));
    if fits && !id_token { Ok(()) } else { Err(Refusal::TypeNotAllowed) }
}

fn audience(claimed: Option<&Value>, expected: &[String]) -> Result<(), Refusal> {
    let expects = |name: &str| expected.iter().any(|known| known == name);
    let fits = match claimed {
        _ if expected.is_empty() => true,
        Some(Value::Text(name)) => expects(name),
        // One element that is no string makes the whole list unreadable; it must not be skipped.
        Some(Value::List(names)) => {
            let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
            names.is_some_and(|names| names.into_iter().any(expects))
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(Refusal::AudienceMismatch) }
}

fn times(claims: &Object, leeway: Duration, now: Duration) -> Result<Duration, Refusal> {
    let time = |name| claims.get(name).map(numeric_date).transpose();
    let latest = now.saturating_add(leeway);
    let expires_at = time("exp")?.ok_or(Refusal::ExpiryMissing)?;
    let not_before = time("nbf")?;
    let issued_at = time("iat")?;
    if expires_at.saturating_add(leeway) <= now {
        return Err(Refusal::Expired);
    }
    if not_before.is_some_and(|not_before| not_before > latest) {
        return Err(Refusal::NotYetValid);
    }
    if issued_at.is_some_and(|issued_at| issued_at > latest) {
        return Err(Refusal::IssuedInFuture);
    }
    Ok(expires_at)
}

fn numeric_date(value: &Value) -> Result<Duration, Refusal> {
    match value {
        Value::Whole(seconds) if *seconds <= MAX_SECONDS => Ok(Duration::from_secs(*seconds)),
        Value::Fraction(seconds) if *seconds <= MAX_SECONDS as f64 => {
            Duration::try_from_secs_f64(*seconds).map_err(|_negative| Refusal::TimeInvalid)
        }
        _ => Err(Refusal::TimeInvalid),
    }
}

fn subject(value: Option<&Value>) -> Result<String, Refusal> {
    match value.and_then(Value::as_str) {
        None | Some("") => Err(Refusal::SubjectMissing),
        Some(subject) if is_name(subject) => Ok(subject.to_owned()),
        Some(_) => Err(Refusal::SubjectInvalid),
    }
}

/// Visible ASCII only: a space at an end would be trimmed on the way and make two subjects one.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

// === impl Pointer ===

impl Pointer {
    fn find<'c>(&self, claims: &'c Object) -> Option<&'c Value> {
        let mut steps = self.0.iter();
        let first = claims.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.member(step))
    }
}

impl FromStr for Pointer {
    type Err = NotAPointer;

    fn from_str(text: &str) -> Result<Self, NotAPointer> {
        let steps = text.strip_prefix('/').ok_or(NotAPointer)?;
        steps.split('/').map(unescape).collect::<Option<_>>().map(Self).ok_or(NotAPointer)
    }
}

/// RFC 6901 §4: `~1` first, then `~0`; any other tilde is a mistake.
fn unescape(step: &str) -> Option<String> {
    let mut parts = step.split('~');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (escaped, rest) = match part.split_at_checked(1)? {
            ("0", rest) => ('~', rest),
            ("1", rest) => ('/', rest),
            _ => return None,
        };
        plain.push(escaped);
        plain.push_str(rest);
    }
    Some(plain)
}

#[cfg(test)]
mod tests;
