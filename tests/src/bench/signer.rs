//! Keys that sign many tokens of one subject. Knows nothing of who reads them.

use anyhow::{Result, anyhow};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::token::{Key, unsigned};

/// A key of one algorithm.
#[derive(Debug)]
pub enum Signer {
    /// RS256 with 2048 bits.
    Rs256(Key),
    /// ES256.
    Es256(EcdsaKeyPair),
}

/// The `kid` of every key here.
const KEY_ID: &str = "bench";

impl Signer {
    /// A new RSA key.
    pub fn rs256() -> Result<Self> {
        Ok(Self::Rs256(Key::generate(KEY_ID)?))
    }

    /// A new elliptic key.
    pub fn es256() -> Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Ok(Self::Es256(pair.map_err(|_| anyhow!("making an elliptic key"))?))
    }

    /// Its `alg`.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Rs256(_) => "RS256",
            Self::Es256(_) => "ES256",
        }
    }

    /// The key set document with this one key.
    pub fn jwks(&self) -> Result<Value> {
        let key = match self {
            Self::Rs256(key) => key.jwk()?,
            Self::Es256(pair) => {
                // An uncompressed point: 4, x, y.
                let point = pair.public_key().as_ref();
                let (x, y) = point
                    .strip_prefix(&[4])
                    .and_then(|rest| rest.split_at_checked(32))
                    .ok_or_else(|| anyhow!("no uncompressed point"))?;
                let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
                json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID,
                    "x": text(x), "y": text(y)})
            }
        };
        Ok(json!({"keys": [key]}))
    }

    /// `count` tokens that differ in their `jti`.
    pub fn tokens(&self, claims: &Value, count: usize) -> Result<Vec<String>> {
        let header = json!({"alg": self.algorithm(), "typ": "at+jwt", "kid": KEY_ID});
        let mut claims = claims.clone();
        let mut sign = |number: usize| {
            if let Some(claims) = claims.as_object_mut() {
                let id = format!("01920000-0000-7000-8000-{number:012}");
                claims.insert("jti".to_owned(), id.into());
            }
            let text = unsigned(&header, &claims);
            let signature = match self {
                Self::Rs256(key) => key.sign(text.as_bytes())?,
                Self::Es256(pair) => {
                    let signature = pair.sign(&SystemRandom::new(), text.as_bytes());
                    signature.map_err(|_| anyhow!("signing"))?.as_ref().to_vec()
                }
            };
            Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
        };
        (0..count).map(&mut sign).collect()
    }
}
