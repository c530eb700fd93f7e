//! Tokens that no honest issuer makes, signed by openssl: an independent hand, with a key of its own or with the
//! instance's real one (which the owner of the instance may open). Knows JWS and nothing of who reads it.

use std::{fs, path::Path, path::PathBuf, process::Command, time::Duration};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::{
    command,
    stack::{
        instance::{DATABASE, Instance, write_secret},
        postgres::Psql,
    },
};

const LIMIT: Duration = Duration::from_secs(30);

/// Parts of a compact JWS.
#[derive(Debug, Clone)]
pub struct Token {
    /// The header.
    pub header: Value,
    /// The claims.
    pub claims: Value,
}

impl Token {
    /// Reads a token without judging it.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        let mut parts = text.split('.').map(|part| {
            let bytes = URL_SAFE_NO_PAD.decode(part).ok().context("not base64url")?;
            serde_json::from_slice::<Value>(&bytes).context("not JSON")
        });
        let header = parts.next().context("no header")??;
        let claims = parts.next().context("no claims")??;
        Ok(Self { header, claims })
    }

    /// With another claim.
    #[must_use]
    pub fn claim(mut self, name: &str, value: Value) -> Self {
        if let Some(claims) = self.claims.as_object_mut() {
            claims.insert(name.to_owned(), value);
        }
        self
    }

    /// The key's id.
    pub fn kid(&self) -> String {
        self.header.get("kid").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn signed_part(&self) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", part(&self.header), part(&self.claims))
    }

    /// With no signature at all.
    pub fn unsigned(mut self) -> String {
        if let Some(header) = self.header.as_object_mut() {
            header.insert("alg".to_owned(), "none".into());
        }
        format!("{}.", self.signed_part())
    }
}

/// A private RSA key in a file.
#[derive(Debug)]
pub struct Signer {
    key: PathBuf,
}

impl Signer {
    /// A key that nobody trusts.
    pub fn throwaway(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let key = dir.join("throwaway.pem");
        let mut openssl = Command::new("openssl");
        openssl
            .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
            .arg("-out")
            .arg(&key);
        command::run(&mut openssl, "openssl genpkey", LIMIT)?;
        Ok(Self { key })
    }

    /// The instance's own key: sealed in the database under the key from the instance's file.
    pub fn real(instance: &Instance, dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let psql = Psql {
            program: instance.psql.clone(),
            port: instance.ports.postgres,
            user: "gatehouse_app",
            password: &instance.secrets.app,
            database: DATABASE,
        };
        let sealed = psql.run("SELECT encode(sealed_private, 'hex') FROM current_signing_key()")?;
        let sealed = sealed.trim();
        // The version 2, the key's id (8 bytes), then AES-256-GCM as nonce (12 bytes), text, tag (16 bytes). Without its tag GCM is counter
        // mode from block 2, which openssl's command line has; a wrong key shows when the text is no PKCS #8.
        let sealed = sealed.strip_prefix("02").context("the key is sealed in another way")?;
        let (_id, sealed) = sealed.split_at_checked(16).context("the sealed key is too short")?;
        let (nonce, rest) = sealed.split_at_checked(24).context("the sealed key is too short")?;
        let end = rest.len().checked_sub(32).context("the sealed key is too short")?;
        let text = rest.get(..end).context("the sealed key is broken")?;
        let opened = dir.join("sealed.bin");
        fs::write(&opened, unhex(text)?).context("writing the sealed key")?;
        let key = dir.join("signing.der");
        write_secret(&key, "")?;
        let mut openssl = Command::new("openssl");
        openssl
            .args(["enc", "-d", "-aes-256-ctr", "-K", &instance.secrets.key])
            .args(["-iv", &format!("{nonce}00000002")])
            .arg("-in")
            .arg(&opened)
            .arg("-out")
            .arg(&key);
        command::run(&mut openssl, "openssl enc", LIMIT)?;
        Ok(Self { key })
    }

    /// Signs with RS256.
    pub fn sign(&self, token: &Token) -> anyhow::Result<String> {
        let text = token.signed_part();
        let signature = self.key.with_extension("sig");
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-sign"]).arg(&self.key).arg("-out").arg(&signature);
        if self.key.extension().is_some_and(|extension| extension == "der") {
            openssl.args(["-keyform", "DER"]);
        }
        command::run_with(&mut openssl, "openssl dgst", LIMIT, Some(&text))?;
        let bytes = fs::read(&signature).context("reading the signature")?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(bytes)))
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // It may be the instance's real key: it does not outlive the check.
        drop(fs::remove_file(&self.key));
    }
}

fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    (0..text.len() / 2)
        .map(|at| {
            let pair = text.get(2 * at..2 * at + 2).context("not hexadecimal")?;
            u8::from_str_radix(pair, 16).context("not hexadecimal")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = Token { header: json!({"alg": "RS256", "kid": "k"}), claims: json!({"a": 1}) };
        let read = Token::read(&token.clone().unsigned()).unwrap();
        assert_eq!(read.header, json!({"alg": "none", "kid": "k"}));
        assert_eq!(read.claims, json!({"a": 1}));
        assert_eq!(token.claim("b", json!(2)).claims, json!({"a": 1, "b": 2}));
        assert_eq!(unhex("0aff").unwrap(), [10, 255]);
    }
}
