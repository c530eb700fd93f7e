//! Redeems a code at the provider's token endpoint and judges the ID token that comes back.
//! Knows nothing of users and sessions.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gatehouse_authn::{
    Portable,
    claims::{
        DEFAULT_LEEWAY,
        id_token::{self, IdRules},
    },
    jws,
};
use gatehouse_contract::Reason;
use gatehouse_service::Reply;
use gatehouse_store::issuers::{ClientAuth, Issuer};
use serde::Deserialize;
use serde_json::Value;
use tracing::{error, info};

use super::{SignIn, begin_again, internal};
use crate::{
    clock,
    federation::{
        provider::{self, BOUNDS, Discovery},
        secret_name, token,
    },
    routes::Api,
};

/// What the provider's answer is redeemed with.
pub struct Code<'a> {
    pub code: &'a str,
    /// PKCE.
    pub verifier: &'a str,
    pub nonce: &'a str,
    pub redirect_uri: &'a str,
}

/// What a good ID token says of whoever signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub subject: String,
    pub email: Option<String>,
    /// Only a provider that says so has checked it.
    pub email_verified: bool,
    pub groups: Vec<String>,
}

/// RFC 6749 §5.1, as far as we look: the access token is not ours to use.
#[derive(Deserialize)]
struct Answer {
    id_token: String,
}

/// Redeems the code.
///
/// # Errors
/// 503 where the provider cannot be used, 400 where the code is worth nothing, 401 where its token is.
pub async fn redeem(
    api: &Api,
    sign_in: &SignIn,
    issuer: &Issuer,
    discovery: &Discovery,
    code: &Code<'_>,
) -> Result<Said, Reply> {
    let answer = ask(api, sign_in, issuer, discovery, code).await?;
    let refused = |why: &dyn std::fmt::Display| {
        info!(issuer.id = %issuer.id, refusal = %why, "an ID token was refused");
        Reply::new(Reason::TokenInvalid)
            .detail("the identity provider's token is not valid")
            .header(
                axum::http::header::WWW_AUTHENTICATE,
                axum::http::HeaderValue::from_static(r#"Bearer realm="gatehouse""#),
            )
    };
    let parsed = jws::parse(answer.id_token.as_bytes()).map_err(|error| refused(&error))?;
    let keys = token::keys(sign_in, issuer, &parsed).await?;
    let allowed = token::algorithms(&issuer.settings);
    let verified = jws::verify_with(&parsed, &keys, &allowed, &Portable);
    let verified = verified.map_err(|error| refused(&error))?;
    let rules = IdRules {
        issuer: issuer.settings.issuer.clone(),
        client_id: issuer.settings.client_id.clone(),
        nonce: code.nonce.to_owned(),
        leeway: DEFAULT_LEEWAY,
        subject_claim: issuer.settings.subject_claim.parse().map_err(|_| internal())?,
    };
    let now = clock::since_epoch(clock::now());
    let identity = id_token::judge(&verified, &rules, now).map_err(|error| refused(&error))?;
    if !token::has_required(&verified, &issuer.settings) {
        info!(issuer.id = %issuer.id, "an ID token without a claim that is required");
        return Err(Reply::new(Reason::PermissionDenied)
            .detail("your account does not belong to this tenant's directory"));
    }
    let claims: Value = serde_json::from_slice(verified.payload()).map_err(|_| internal())?;
    let email = claims.pointer(&issuer.settings.email_claim).and_then(Value::as_str);
    Ok(Said {
        subject: identity.subject,
        email: email.map(str::to_owned),
        email_verified: claims.get("email_verified") == Some(&Value::Bool(true)),
        groups: groups(&claims, issuer.settings.groups_claim.as_deref()),
    })
}

/// One group as text, or a list of them; anything else names none.
fn groups(claims: &Value, claim: Option<&str>) -> Vec<String> {
    match claim.and_then(|claim| claims.pointer(claim)) {
        Some(Value::String(group)) => vec![group.clone()],
        Some(Value::Array(groups)) => {
            groups.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

async fn ask(
    api: &Api,
    sign_in: &SignIn,
    issuer: &Issuer,
    discovery: &Discovery,
    code: &Code<'_>,
) -> Result<Answer, Reply> {
    let client_id = issuer.settings.client_id.as_str();
    let secret = secret(api, issuer)?;
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code.code),
        ("redirect_uri", code.redirect_uri),
        ("code_verifier", code.verifier),
    ];
    let mut authorization = None;
    match (issuer.settings.client_auth, secret.as_deref()) {
        (ClientAuth::Basic, Some(secret)) => authorization = Some(basic(client_id, secret)),
        (ClientAuth::Post, Some(secret)) => {
            form.extend([("client_id", client_id), ("client_secret", secret)]);
        }
        (ClientAuth::None, _) => form.push(("client_id", client_id)),
        (ClientAuth::Basic | ClientAuth::Post, None) => return Err(internal()),
    }
    let guard = sign_in.guard_for(issuer);
    let endpoint = &discovery.token_endpoint;
    let client = sign_in.providers.client();
    let answer = client.post_form(guard, endpoint, &form, authorization.as_deref(), BOUNDS).await;
    let answer = answer.map_err(|error| token::unavailable(issuer, &error.into()))?;
    match answer.status {
        200 => serde_json::from_slice(&answer.body)
            .map_err(|_| token::unavailable(issuer, &provider::Error::Document)),
        // RFC 6749 §5.2. What the provider says besides is for the log of whoever configured us there.
        status @ (400 | 401) => {
            let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let word = said.get("error").and_then(Value::as_str).unwrap_or("none");
            if word == "invalid_grant" {
                return Err(begin_again("the provider does not take the code"));
            }
            let word: String = word.chars().filter(char::is_ascii_graphic).take(64).collect();
            error!(issuer.id = %issuer.id, oauth.error = word, "a provider does not take us as its client");
            Err(token::unavailable(issuer, &provider::Error::Status(status)))
        }
        status => Err(token::unavailable(issuer, &provider::Error::Status(status))),
    }
}

fn secret(api: &Api, issuer: &Issuer) -> Result<Option<String>, Reply> {
    let Some(sealed) = &issuer.sealed_client_secret else { return Ok(None) };
    let opened = api.sealer.open(&secret_name(issuer.id), sealed).map_err(|_| internal())?;
    String::from_utf8(opened).map(Some).map_err(|_| internal())
}

/// RFC 6749 §2.3.1: both parts are form-encoded before they are joined.
fn basic(id: &str, secret: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(id), encode(secret))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn groups_are_a_text_or_a_list_at_the_pointer() {
        let check = |claims: Value, claim, expected: &[&str]| {
            assert_eq!(groups(&claims, claim), expected, "{claims} {claim:?}");
        };
        check(json!({"groups": ["a", "b"]}), Some("/groups"), &["a", "b"]);
        check(json!({"hd": "example.com"}), Some("/hd"), &["example.com"]);
        check(json!({"x/y": {"g": ["a"]}}), Some("/x~1y/g"), &["a"]);
        check(json!({"groups": [1, "a"]}), Some("/groups"), &["a"]);
        check(json!({"groups": {"a": 1}}), Some("/groups"), &[]);
        check(json!({"groups": ["a"]}), None, &[]);
    }

    #[test]
    fn a_client_proves_itself_as_the_standard_says() {
        assert_eq!(basic("a:b", "c d%"), format!("Basic {}", STANDARD.encode("a%3Ab:c+d%25")));
    }
}
