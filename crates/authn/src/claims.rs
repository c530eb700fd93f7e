//! Weighs what a verified token claims (RFC 7519 §4.1, RFC 8725) against its issuer's rules at a given time.
//! Knows neither signatures nor clocks.

pub mod id_token;
mod pointer;
mod scopes;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gatehouse_contract::{Role, Roles, TenantId};

use crate::{
    Refusal,
    jws::{Header, Verified},
    revocation,
    strict::{Object, Value},
};

pub use pointer::{NotAPointer, Pointer};
pub use scopes::Scopes;

/// The default tolerance for clocks that differ.
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(60);
/// The largest tolerance; [`judge`] never grants more.
pub const MAX_LEEWAY: Duration = Duration::from_secs(300);
/// The longest `sub` and `jti`, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// The largest NumericDate: beyond it JSON numbers stop being exact.
const MAX_SECONDS: u64 = 1 << 53;

/// What an issuer's tokens must claim. Begin with [`Rules::new`] and change what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// `iss`, byte for byte: a trailing slash matters. Shared with the claims of every good token.
    pub issuer: Arc<str>,
    /// At least one of these must be in `aud`, case-sensitive. An empty list does not look at `aud`.
    pub audiences: Vec<String>,
    /// Tolerance on `exp`, `nbf` and `iat`, once each; at most [`MAX_LEEWAY`].
    pub leeway: Duration,
    /// The longest time from `iat` to `exp`, leeway not counted; with it `iat` is required.
    pub max_lifetime: Option<Duration>,
    /// Where the subject's name stands.
    pub subject_claim: Pointer,
    /// Where the tenant's id stands.
    pub tenant_claim: Pointer,
    /// Which roles the claims give; `None` where only the record gives any.
    pub roles: Option<RolesClaim>,
    /// Where the scopes stand; `None` is `scope`, or `scp` where there is no `scope`.
    pub scope_claim: Option<Pointer>,
    /// Scopes that a token needs, all of them.
    pub required_scopes: Vec<String>,
    /// Take tokens with `typ: at+jwt` only (RFC 9068), and none with the marks of an ID token.
    pub access_tokens_only: bool,
}

/// How roles are read from claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolesClaim {
    /// Where the groups stand: one string, or a list of strings, each one group.
    pub claim: Pointer,
    /// The role of each group; other groups give none.
    pub map: BTreeMap<String, Role>,
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `iss`.
    pub issuer: Arc<str>,
    /// `sub`, or what stands at [`Rules::subject_claim`]: 1 to [`MAX_NAME_BYTES`] visible ASCII bytes, no space, so
    /// that it fits into a header as it stands.
    pub subject: String,
    /// The tenant that the token names.
    pub tenant: TenantId,
    /// `exp` since the Unix epoch, without leeway. Nothing may be remembered beyond it.
    pub expires_at: Duration,
    /// `iat` since the Unix epoch.
    pub issued_at: Option<Duration>,
    /// `jti`.
    pub token_id: Option<String>,
    /// The roles that the claims give; `None` where the rules take none from claims.
    pub roles: Option<Roles>,
    /// The scopes that the token carries.
    pub scopes: Scopes,
}

/// Weighs the claims of `token` at `now`, the time since the Unix epoch.
///
/// The order is fixed: kind of token, issuer, audience, times, binding, subject, id, tenant, roles, scopes. The first
/// thing that is wrong is the answer.
///
/// # Errors
/// The first thing that is wrong.
pub fn judge(token: &Verified<'_>, rules: &Rules, now: Duration) -> Result<Claims, Refusal> {
    weigh(token.header(), token.claims(), rules, now)
}

pub(crate) fn weigh(
    header: &Header,
    claims: Object<'_>,
    rules: &Rules,
    now: Duration,
) -> Result<Claims, Refusal> {
    kind(header, claims, rules)?;
    if claims.get("iss").and_then(Value::as_str) != Some(&*rules.issuer) {
        return Err(Refusal::IssuerUnknown);
    }
    audience(claims.get("aud"), &rules.audiences)?;
    let (issued_at, expires_at) = times(claims, rules, now)?;
    if claims.has("cnf") {
        return Err(Refusal::BindingUnsupported);
    }
    let subject = subject(rules.subject_claim.find(claims))?;
    let token_id = match claims.get("jti") {
        None => None,
        Some(Value::Text(id)) if is_name(id) => Some(id.to_owned()),
        Some(_) => return Err(Refusal::TokenIdInvalid),
    };
    let tenant = match rules.tenant_claim.find(claims) {
        None => return Err(Refusal::TenantMissing),
        Some(value) => value.as_str().ok_or(Refusal::TenantInvalid)?,
    };
    let tenant = tenant.parse().map_err(|_not_an_id| Refusal::TenantInvalid)?;
    let roles = rules.roles.as_ref().map(|roles| roles.read(claims)).transpose()?;
    let scopes = scopes(claims, rules)?;
    let issuer = Arc::clone(&rules.issuer);
    Ok(Claims { issuer, subject, tenant, expires_at, issued_at, token_id, roles, scopes })
}

/// RFC 8725 §3.11: a token made for another purpose is refused, even if everything else fits.
fn kind(header: &Header, claims: Object<'_>, rules: &Rules) -> Result<(), Refusal> {
    let fits = match header.typ.as_deref() {
        None => !rules.access_tokens_only,
        Some(typ) => match media_subtype(typ) {
            typ if typ.eq_ignore_ascii_case("at+jwt") => true,
            typ if typ.eq_ignore_ascii_case("jwt") => !rules.access_tokens_only,
            _ => false,
        },
    };
    let id_token = rules.access_tokens_only && (claims.has("nonce") || claims.has("at_hash"));
    if fits && !id_token { Ok(()) } else { Err(Refusal::TypeNotAllowed) }
}

/// RFC 7515 §4.1.9: `application/` may be left out; names of media types have no case.
fn media_subtype(typ: &str) -> &str {
    const PREFIX: &str = "application/";
    match typ.split_at_checked(PREFIX.len()) {
        Some((prefix, subtype)) if prefix.eq_ignore_ascii_case(PREFIX) => subtype,
        _ => typ,
    }
}

fn audience(claimed: Option<Value<'_>>, expected: &[String]) -> Result<(), Refusal> {
    let expects = |name: &str| expected.iter().any(|known| known == name);
    let fits = match claimed {
        _ if expected.is_empty() => true,
        Some(Value::Text(name)) => expects(name),
        // One element that is no string makes the whole list unreadable; it must not be skipped.
        Some(Value::List(names)) => {
            let readable = names.iter().all(|name| name.as_str().is_some());
            readable && names.iter().filter_map(Value::as_str).any(expects)
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(Refusal::AudienceMismatch) }
}

/// When it was issued, where it says so, and when it expires.
fn times(
    claims: Object<'_>,
    rules: &Rules,
    now: Duration,
) -> Result<(Option<Duration>, Duration), Refusal> {
    let time = |name| claims.get(name).map(numeric_date).transpose();
    let leeway = rules.leeway.min(MAX_LEEWAY);
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
    if let Some(longest) = rules.max_lifetime {
        let issued_at = issued_at.ok_or(Refusal::IssueTimeMissing)?;
        if expires_at.saturating_sub(issued_at) > longest {
            return Err(Refusal::LifetimeTooLong);
        }
    }
    Ok((issued_at, expires_at))
}

fn numeric_date(value: Value<'_>) -> Result<Duration, Refusal> {
    match value {
        Value::Whole(seconds) if seconds <= MAX_SECONDS => Ok(Duration::from_secs(seconds)),
        Value::Fraction(seconds) if seconds <= MAX_SECONDS as f64 => {
            Duration::try_from_secs_f64(seconds).map_err(|_negative| Refusal::TimeInvalid)
        }
        _ => Err(Refusal::TimeInvalid),
    }
}

fn subject(value: Option<Value<'_>>) -> Result<String, Refusal> {
    match value.and_then(Value::as_str) {
        None | Some("") => Err(Refusal::SubjectMissing),
        Some(subject) if is_name(subject) => Ok(subject.to_owned()),
        Some(_) => Err(Refusal::SubjectInvalid),
    }
}

fn scopes(claims: Object<'_>, rules: &Rules) -> Result<Scopes, Refusal> {
    let claim = match &rules.scope_claim {
        Some(pointer) => pointer.find(claims),
        None => claims.get("scope").or_else(|| claims.get("scp")),
    };
    let scopes = match claim {
        None => Scopes::default(),
        Some(claim) => Scopes::read(claim).ok_or(Refusal::ScopeInvalid)?,
    };
    if rules.required_scopes.iter().all(|scope| scopes.has(scope)) {
        Ok(scopes)
    } else {
        Err(Refusal::ScopeInsufficient)
    }
}

/// Visible ASCII only: a space at an end would be trimmed on the way and make two subjects one.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

// === impl Rules ===

impl Rules {
    /// The rules of an issuer whose tokens are for any audience, name the subject in `sub` and the tenant in
    /// `tenant_id`, and give no roles.
    pub fn new(issuer: impl Into<Arc<str>>) -> Self {
        Self {
            issuer: issuer.into(),
            audiences: Vec::new(),
            leeway: DEFAULT_LEEWAY,
            max_lifetime: None,
            subject_claim: Pointer::to("sub"),
            tenant_claim: Pointer::to("tenant_id"),
            roles: None,
            scope_claim: None,
            required_scopes: Vec::new(),
            access_tokens_only: false,
        }
    }
}

// === impl RolesClaim ===

impl RolesClaim {
    fn read(&self, claims: Object<'_>) -> Result<Roles, Refusal> {
        let role_of = |group: &str| self.map.get(group).copied();
        match self.claim.find(claims) {
            // A subject in no group.
            None => Ok(Roles::NONE),
            Some(Value::Text(group)) => Ok(role_of(group).into_iter().collect()),
            Some(Value::List(groups)) if groups.iter().all(|group| group.as_str().is_some()) => {
                Ok(groups.iter().filter_map(Value::as_str).filter_map(role_of).collect())
            }
            Some(_) => Err(Refusal::RolesInvalid),
        }
    }
}

// === impl Claims ===

impl Claims {
    /// The token's mark in the deny list; `None` for a token without an id.
    pub fn mark(&self) -> Option<String> {
        self.token_id.as_ref().map(|id| revocation::mark(&self.issuer, id))
    }
}

#[cfg(test)]
mod tests;
