//! Test tokens: RSA keys of our own, their JWK sets, and JWTs of any shape, the broken ones first of all.

use anyhow::{Context, Result, anyhow, ensure};
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
        KeyPair as _, RSA_PKCS1_SHA256,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// An RSA key with its id.
#[derive(Debug)]
pub struct Key {
    /// The `kid`.
    pub id: String,
    pair: KeyPair,
}

impl Key {
    /// A new 2048-bit key.
    pub fn generate(id: &str) -> Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("making an RSA key"))?;
        Ok(Self { id: id.to_owned(), pair })
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256 over `text`.
    pub fn sign(&self, text: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature)
            .map_err(|_| anyhow!("signing"))?;
        Ok(signature)
    }

    /// The public key as DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> Result<Vec<u8>> {
        let der: PublicKeyX509Der<'_> =
            self.pair.public_key().as_der().map_err(|_| anyhow!("encoding a public key"))?;
        Ok(der.as_ref().to_vec())
    }

    /// The public key as a JWK for signatures.
    pub fn jwk(&self) -> Result<Value> {
        let der = self.pair.public_key().as_ref();
        let (modulus, exponent) = modulus_and_exponent(der)?;
        Ok(json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.id,
            "n": URL_SAFE_NO_PAD.encode(modulus), "e": URL_SAFE_NO_PAD.encode(exponent),
        }))
    }

    /// A JWT over exactly these documents, signed with this key whatever the header says.
    pub fn jwt(&self, header: &Value, claims: &Value) -> Result<String> {
        let text = unsigned(header, claims);
        let signature = self.sign(text.as_bytes())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The header of an access token that this key signs (RFC 9068).
    pub fn header(&self) -> Value {
        json!({ "alg": "RS256", "typ": "at+jwt", "kid": self.id })
    }
}

/// A P-256 key with its id.
#[derive(Debug)]
pub struct Ec {
    /// The `kid`.
    pub id: String,
    pair: EcdsaKeyPair,
    der: EcdsaKeyPair,
}

impl Ec {
    /// A new key.
    pub fn generate(id: &str) -> Result<Self> {
        let fixed = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::generate(fixed).map_err(|_| anyhow!("making an EC key"))?;
        let document = pair.to_pkcs8v1().map_err(|_| anyhow!("encoding an EC key"))?;
        let der = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref())
            .map_err(|_| anyhow!("reading an EC key"))?;
        Ok(Self { id: id.to_owned(), pair, der })
    }

    /// The public key as a JWK for signatures.
    pub fn jwk(&self) -> Result<Value> {
        let point = self.pair.public_key().as_ref();
        let (x, y) = point.get(1..).context("an empty point")?.split_at_checked(32).context("x")?;
        Ok(json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }))
    }

    /// A JWT over exactly these documents, signed with ES256 whatever the header says.
    pub fn jwt(&self, header: &Value, claims: &Value) -> Result<String> {
        let text = unsigned(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes());
        let signature = signature.map_err(|_| anyhow!("signing"))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The signature in the form of X.509, which no JWS has.
    pub fn sign_der(&self, text: &[u8]) -> Result<Vec<u8>> {
        let signature = self.der.sign(&SystemRandom::new(), text);
        Ok(signature.map_err(|_| anyhow!("signing"))?.as_ref().to_vec())
    }

    /// The header of an access token that this key signs.
    pub fn header(&self) -> Value {
        json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.id })
    }
}

/// The text that is signed: header and claims, base64url, a dot between.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// The key set document (RFC 7517 §5) of `keys`.
pub fn jwks(keys: &[&Key]) -> Result<Value> {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect::<Result<_>>()?;
    Ok(json!({ "keys": keys }))
}

/// Reads `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }` (RFC 8017 A.1.1).
fn modulus_and_exponent(der: &[u8]) -> Result<(&[u8], &[u8])> {
    let (sequence, rest) = element(der, 0x30)?;
    ensure!(rest.is_empty(), "bytes after the key");
    let (modulus, rest) = element(sequence, 0x02)?;
    let (exponent, _) = element(rest, 0x02)?;
    // DER puts a zero before a number whose highest bit is set; JWK leaves it out.
    Ok((modulus.strip_prefix(&[0]).unwrap_or(modulus), exponent))
}

fn element(der: &[u8], tag: u8) -> Result<(&[u8], &[u8])> {
    let (found, rest) = der.split_first().context("DER cut off")?;
    ensure!(*found == tag, "DER tag {found:#x}, not {tag:#x}");
    let (first, rest) = rest.split_first().context("DER cut off")?;
    let (size, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 | 0x82 => {
            let (size, rest) =
                rest.split_at_checked(usize::from(first & 0x0f)).context("DER cut off")?;
            (size.iter().fold(0, |size, byte| size << 8 | usize::from(*byte)), rest)
        }
        _ => anyhow::bail!("DER length of {first:#x}"),
    };
    rest.split_at_checked(size).context("DER cut off")
}
