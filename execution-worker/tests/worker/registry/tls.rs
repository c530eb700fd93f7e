//! A registry under TLS that wants a password: who it must be, and that nobody else hears the worker's.

use std::{fs, path::PathBuf};

use gatehouse_execution_worker::image::Error;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use serde_json::{Value, json};

use super::{ROOMY, Registry, fetch, images_of, tenant};
use crate::support::publish;

/// What bcrypt makes of `s3cret`.
const USERS: &str = "worker:$2b$04$7mcfuJTKalTv4rm4sKL1pex3C6DJjthYBf1J8Kid0XuIW6SyUpFXC\n";
pub const CREDENTIALS: &str = "worker:s3cret\n";

/// An authority of the test's own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two of the same name would be told apart by their keys alone.
        params.distinguished_name.push(DnType::CommonName, uuid::Uuid::new_v4().to_string());
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }
}

impl Registry {
    /// From now on it speaks TLS, as `name` until the year `until`, and wants [`CREDENTIALS`].
    pub fn secure(&mut self, authority: &Authority, name: &str, until: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &authority.0).unwrap();
        self.tls = Some([
            self.file_of("cert", &certificate.pem()),
            self.file_of("key", &key.serialize_pem()),
        ]);
        self.users = Some(self.file_of("users", USERS));
        self.restart();
    }

    fn file_of(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// `image_registry` of a worker that trusts `authority`.
    pub fn trusted(&self, authority: &Authority) -> Value {
        json!({
            "url": format!("https://localhost:{}", self.port),
            "ca_file": self.file_of("ca", &authority.0.pem()),
            "credentials_file": self.file_of("credentials", CREDENTIALS),
        })
    }
}

#[tokio::test]
async fn a_registry_proves_its_name_before_it_hears_the_password() {
    let mut registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    publish(&dir.path().join("layout"), &["print", "1"]);
    let ours = tenant();
    let reference = registry.push(&dir.path().join("layout"), ours, "agent");
    let (authority, other) = (Authority::new(), Authority::new());
    let cache = |name: &str| dir.path().join(name);
    for (what, by, name, until) in [
        ("another authority's", &other, "localhost", 2100),
        ("an expired one", &authority, "localhost", 2024),
        ("another host's", &authority, "registry.example", 2100),
    ] {
        registry.secure(by, name, until);
        // Its own readiness is asked for in the clear.
        let before = registry.asked("GET", "");
        let images = images_of(&registry.trusted(&authority), &cache("refused"), ROOMY);
        let refused = fetch(&images, ours, &reference).await;
        assert!(matches!(refused, Err(Error::Away(_))), "{what}: {refused:?}");
        assert_eq!(registry.asked("GET", ""), before, "{what}: it was asked");
    }
    registry.secure(&authority, "localhost", 2100);
    let good = registry.trusted(&authority);
    let without = |key: &str| {
        let mut without = good.clone();
        without.as_object_mut().unwrap().remove(key);
        without
    };
    // Authorities of the world alone; nobody's password; another's.
    let wrong = dir.path().join("wrong");
    fs::write(&wrong, "worker:guess").unwrap();
    let mut guess = good.clone();
    guess["credentials_file"] = json!(wrong);
    for refused in [without("ca_file"), without("credentials_file"), guess] {
        let images = images_of(&refused, &cache("refused"), ROOMY);
        let answer = fetch(&images, ours, &reference).await;
        assert!(matches!(answer, Err(Error::Away(_))), "{refused}: {answer:?}");
    }
    let images = images_of(&good, &cache("kept"), ROOMY);
    assert!(fetch(&images, ours, &reference).await.unwrap().rootfs.join("agent").is_file());
    // Somebody else's is missing, not refused: the password is the worker's for all.
    let stranger = fetch(&images, tenant(), &reference).await;
    assert!(matches!(stranger, Err(Error::Missing(_))), "{stranger:?}");
}
