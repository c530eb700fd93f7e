//! Access tokens (RFC 9068) and the RSA keys that sign them.
//! Knows neither the store nor who may have a token.

use std::time::Duration;

use aws_lc_rs::{
    encoding::AsDer as _,
    error::{KeyRejected, Unspecified},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gatehouse_contract::{ClientId, TenantId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{config::Tokens, random};

/// A key pair that signs RS256.
pub struct Signer {
    kid: String,
    pair: KeyPair,
}

/// What one token says beside the issuer's own words.
pub struct Grant {
    pub tenant: TenantId,
    pub client: ClientId,
    /// `jti`.
    pub id: Uuid,
    /// Since the Unix epoch.
    pub now: Duration,
}

impl Signer {
    /// A new RSA-2048 key; takes about a tenth of a second.
    pub fn generate() -> Result<Self, Unspecified> {
        Ok(Self::of(KeyPair::generate(KeySize::Rsa2048)?))
    }

    /// Reads [`Self::to_pkcs8`]'s bytes.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyRejected> {
        KeyPair::from_pkcs8(bytes).map(Self::of)
    }

    /// The private key. Seal it before it goes anywhere.
    pub fn to_pkcs8(&self) -> Result<Vec<u8>, Unspecified> {
        Ok(self.pair.as_der()?.as_ref().to_vec())
    }

    /// The `kid` is the key's thumbprint (RFC 7638 §3): two keys can never share one.
    fn of(pair: KeyPair) -> Self {
        let (n, e) = numbers(&pair);
        let thumbprint =
            random::sha256(format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#).as_bytes());
        Self { kid: URL_SAFE_NO_PAD.encode(thumbprint), pair }
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public key (RFC 7517 §4).
    pub fn jwk(&self) -> Value {
        let (n, e) = numbers(&self.pair);
        json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": n, "e": e})
    }

    /// Signs an access token. It says who and for which tenant, and neither roles nor tier: the record does.
    pub fn issue(&self, tokens: &Tokens, grant: &Grant) -> Result<String, Unspecified> {
        let now = grant.now.as_secs();
        let claims = json!({
            "iss": tokens.issuer,
            "aud": tokens.audience,
            "sub": grant.client,
            "client_id": grant.client,
            "tenant_id": grant.tenant,
            "iat": now,
            "nbf": now,
            "exp": now.saturating_add(tokens.ttl.as_secs()),
            "jti": grant.id,
        });
        self.sign("at+jwt", &claims)
    }

    /// Signs `payload` as a message of this type (RFC 7515 §3.1).
    pub fn sign(&self, typ: &str, payload: &Value) -> Result<String, Unspecified> {
        let header = json!({"alg": "RS256", "kid": self.kid, "typ": typ});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(payload));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            signed.as_bytes(),
            &mut signature,
        )?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn numbers(pair: &KeyPair) -> (String, String) {
    let public = pair.public_key();
    let text = |number: aws_lc_rs::io::Positive<'_>| {
        URL_SAFE_NO_PAD.encode(number.big_endian_without_leading_zero())
    };
    (text(public.modulus()), text(public.exponent()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes;
    use gatehouse_authn::{Algorithm, KeySet, Portable, Refusal, Rules, claims, jws};

    #[test]
    fn a_token_passes_the_judge_of_the_gateway_and_a_changed_one_does_not() {
        let signer = Signer::generate().unwrap();
        let again = Signer::from_pkcs8(&signer.to_pkcs8().unwrap()).unwrap();
        assert_eq!(again.kid(), signer.kid());
        let tokens = Tokens {
            issuer: "https://auth.example".to_owned(),
            audience: "https://api.example".to_owned(),
            ttl: Duration::from_secs(900),
            key_publish_ahead: Duration::ZERO,
        };
        let grant = Grant {
            tenant: TenantId::new(Uuid::from_u128(1)),
            client: ClientId::new(Uuid::from_u128(2)),
            id: Uuid::from_u128(3),
            now: Duration::from_secs(1_000_000),
        };
        let token = again.issue(&tokens, &grant).unwrap();
        let keys = KeySet::parse(json!({"keys": [signer.jwk()]}).to_string().as_bytes()).unwrap();
        assert_eq!(keys.keys().len(), 1);
        let rules = Rules { leeway: Duration::ZERO, ..routes::rules(&tokens) };
        let judge = |token: &str, now| {
            let parsed = jws::parse(token.as_bytes())?;
            let verified = jws::verify_with(&parsed, &keys, &[Algorithm::Rs256], &Portable)?;
            claims::judge(&verified, &rules, Duration::from_secs(now))
        };
        let good = judge(&token, 1_000_000).unwrap();
        assert_eq!((good.tenant, good.subject), (grant.tenant, grant.client.to_string()));
        assert_eq!(judge(&token, 1_000_900), Err(Refusal::Expired));
        for (other, refusal) in [
            (
                Tokens { audience: "https://x".to_owned(), ..tokens.clone() },
                Refusal::AudienceMismatch,
            ),
            (Tokens { issuer: "https://x".to_owned(), ..tokens.clone() }, Refusal::IssuerUnknown),
        ] {
            assert_eq!(judge(&again.issue(&other, &grant).unwrap(), 1_000_000), Err(refusal));
        }
        let other = Signer::generate().unwrap();
        assert_eq!(
            judge(&other.issue(&tokens, &grant).unwrap(), 1_000_000),
            Err(Refusal::KeyUnknown)
        );
        let changed = token.replacen("eyJ", "eyI", 1);
        assert!(judge(&changed, 1_000_000).is_err());
    }
}
