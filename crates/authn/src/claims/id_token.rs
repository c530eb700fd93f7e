//! Weighs an ID token (OpenID Connect Core §3.1.3.7) that came straight from the token endpoint, at a given time.
//! Knows neither sessions nor what its other claims mean.

use std::time::Duration;

use super::{MAX_LEEWAY, Pointer, Rules, audience, subject, times};
use crate::{Refusal, jws::Verified, strict::Value};

/// What the ID token of one sign-in must claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdRules {
    /// `iss`, byte for byte.
    pub issuer: String,
    /// Who we are there: in `aud`, and `azp` where it stands.
    pub client_id: String,
    /// What this sign-in sent.
    pub nonce: String,
    /// Tolerance on the times, once each; at most [`MAX_LEEWAY`].
    pub leeway: Duration,
    /// Where the subject's name stands.
    pub subject_claim: Pointer,
}

/// What a good ID token says of its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// What stands at [`IdRules::subject_claim`], as in [`super::Claims::subject`].
    pub subject: String,
    /// `exp` since the Unix epoch.
    pub expires_at: Duration,
}

/// Why an ID token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadIdToken {
    /// As any token would be.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It repeats another sign-in's nonce, or none.
    #[error("the ID token is not of this sign-in")]
    Nonce,
    /// It was made for another party, or for several and does not say for which.
    #[error("the ID token was made for another party")]
    Party,
    /// It does not say when it was issued.
    #[error("the ID token has no issue time")]
    NoIssueTime,
}

/// Weighs the claims of `token` at `now`, the time since the Unix epoch. Kind, issuer, audience, party, times, nonce
/// and subject, in this order.
///
/// # Errors
/// The first thing that is wrong.
pub fn judge(token: &Verified<'_>, rules: &IdRules, now: Duration) -> Result<Identity, BadIdToken> {
    let claims = token.claims();
    // RFC 8725 §3.11: an access token says that it is one.
    let typ = token.header().typ.as_deref().unwrap_or("JWT");
    if !typ.eq_ignore_ascii_case("JWT") {
        return Err(Refusal::TypeNotAllowed.into());
    }
    if claims.get("iss").and_then(Value::as_str) != Some(&rules.issuer) {
        return Err(Refusal::IssuerUnknown.into());
    }
    audience(claims.get("aud"), std::slice::from_ref(&rules.client_id))?;
    let several = matches!(claims.get("aud"), Some(Value::List(names)) if names.len() > 1);
    match claims.get("azp") {
        None if several => return Err(BadIdToken::Party),
        None => {}
        Some(party) if party.as_str() == Some(&rules.client_id) => {}
        Some(_) => return Err(BadIdToken::Party),
    }
    let general = Rules { leeway: rules.leeway.min(MAX_LEEWAY), ..Rules::new(String::new()) };
    let (issued_at, expires_at) = times(claims, &general, now)?;
    if issued_at.is_none() {
        return Err(BadIdToken::NoIssueTime);
    }
    if claims.get("nonce").and_then(Value::as_str) != Some(&rules.nonce) {
        return Err(BadIdToken::Nonce);
    }
    if claims.has("cnf") {
        return Err(Refusal::BindingUnsupported.into());
    }
    let subject = subject(rules.subject_claim.find(claims))?;
    Ok(Identity { subject, expires_at })
}

#[cfg(test)]
mod tests;
