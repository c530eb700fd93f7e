//! Certificates of a mesh, made on the spot: an authority, and identities that it signs (SPIFFE X.509-SVID: one URI).
//! Knows nothing of who trusts whom.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};

/// Who signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM in a file.
    pub certificate: PathBuf,
}

/// A certificate and its key, PEM in files.
#[derive(Debug, Clone)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    /// A new one that nobody knows; its files are in `dir` under `name`.
    pub fn new(dir: &Path, name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = named(name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = dir.join(format!("{name}.pem"));
        std::fs::write(&certificate, params.self_signed(&key)?.pem())?;
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Signs an identity with these URIs.
    pub fn issue(&self, dir: &Path, name: &str, uris: &[&str]) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params = named(name)?;
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into()?));
        }
        let signed = params.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        };
        std::fs::write(&identity.certificate, signed.pem())?;
        std::fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }
}

/// An issuer and what it signed must not have one name: then it would look signed by itself.
fn named(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

impl Identity {
    /// As Envoy's `tls_certificates` has it.
    pub fn envoy(&self) -> Value {
        json!({
            "certificate_chain": {"filename": self.certificate},
            "private_key": {"filename": self.key},
        })
    }
}
