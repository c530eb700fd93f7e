//! A database with a tenant, an authority for endpoints' certificates, and deliverers that may tell endpoints here.

use std::{process::Command, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gatehouse_contract::{TenantId, Tier, WebhookId};
use gatehouse_events::{Event, event::QuotaThresholdReached};
use gatehouse_outbound::{Client, Guard, Trust};
use gatehouse_service::{Shutdown, shutdown::Trigger};
use gatehouse_store::{Actor, OffsetDateTime, OpCtx, Store, Urls, migrate, webhooks::Settings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer},
};
use uuid::Uuid;

use super::hook::Hook;
use crate::{
    deliverer::{self, Tools, status::Status},
    random,
    routes::webhooks::secret_name,
    seal::Sealer,
};

/// Nothing that is waited for takes longer on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of a send: long enough for any that answers.
pub const SEND: Duration = Duration::from_secs(5);

pub async fn until(mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("it does not happen");
}

pub type Authority = CertifiedIssuer<'static, KeyPair>;

pub fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// An endpoint of this machine, certified.
pub fn acceptor(by: &Authority) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, by).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

pub struct World {
    name: String,
    pub store: Store,
    sealer: Arc<Sealer>,
    pub op: OpCtx,
    pub authority: Authority,
    _dir: TempDir,
}

/// A deliverer that runs.
pub struct Running {
    pub trigger: Trigger,
    pub status: Arc<Status>,
    task: JoinHandle<()>,
}

impl Running {
    pub async fn stop(self) {
        self.trigger.ask();
        self.ended().await;
    }

    pub async fn ended(self) {
        tokio::time::timeout(PATIENCE, self.task).await.expect("it does not end").unwrap();
    }
}

fn superuser() -> String {
    std::env::var("GATEHOUSE_TEST_POSTGRES")
        .expect("GATEHOUSE_TEST_POSTGRES is not set: run `cargo xtask test`")
}

fn psql(url: &str, statement: &str) -> String {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statement]);
    let out = psql.output().expect("psql runs");
    assert!(out.status.success(), "{statement}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

impl Drop for World {
    fn drop(&mut self) {
        psql(&superuser(), &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

impl World {
    pub async fn new() -> Self {
        let name = format!("gatehouse_d_{}", Uuid::new_v4().simple());
        psql(&superuser(), &format!("CREATE DATABASE {name} OWNER gatehouse_owner"));
        let url = superuser();
        let server = url.split_once('@').unwrap().1.split('/').next().unwrap();
        let of = |role: &str| format!("postgres://gatehouse_{role}:test@{server}/{name}");
        migrate::run(&of("owner")).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "0f".repeat(32)).unwrap();
        let sealer = Sealer::from_file(&file).unwrap();
        let urls = Urls { app: of("app"), admin: Some(of("admin")), system: Some(of("system")) };
        let store = Store::connect(&urls).await.unwrap().with_keys(sealer.keys());
        let op = OpCtx {
            tenant: TenantId::new(Uuid::new_v4()),
            subject: "tester".to_owned(),
            actor: Actor::Client,
            request_id: "r1".to_owned(),
            traceparent: None,
            now: OffsetDateTime::now_utc(),
        };
        let mut tx = store.admin(&op, "a test's tenant").await.unwrap();
        tx.create_tenant(op.tenant, "tenant-a", "tenant-a", Tier::Free).await.unwrap();
        tx.commit().await.unwrap();
        let sealer = Arc::new(sealer);
        Self { name, store, sealer, op, authority: authority(), _dir: dir }
    }

    /// Rows as `psql -At` prints them, as the superuser.
    pub fn query(&self, statement: &str) -> String {
        let url = superuser();
        psql(&format!("{}/{}", url.rsplit_once('/').unwrap().0, self.name), statement)
    }

    /// State, attempts, status and error of each delivery.
    pub fn states(&self) -> String {
        self.query(
            "SELECT concat_ws(' ', state, attempt, coalesce(last_status::text, '-'), coalesce(last_error, '-'))
             FROM webhook_deliveries ORDER BY created_at",
        )
    }

    /// State, status and error of an endpoint's deliveries.
    pub fn state_of(&self, endpoint: WebhookId) -> String {
        self.query(&format!(
            "SELECT concat_ws(' ', state, coalesce(last_status::text, '-'), coalesce(last_error, '-'))
             FROM webhook_deliveries WHERE endpoint_id = '{endpoint}' AND attempt > 0"
        ))
    }

    /// The time of what waits has come.
    pub fn hurry(&self) {
        self.query("UPDATE webhook_deliveries SET due_at = now() WHERE state = 'pending'");
    }

    fn secret(&self, id: WebhookId) -> (String, Vec<u8>) {
        let secret = random::secret().unwrap();
        let sealed = self.sealer.seal(&secret_name(id), &secret).unwrap();
        (format!("whsec_{}", STANDARD.encode(secret)), sealed)
    }

    /// An endpoint that is told of quotas, and its secret.
    pub async fn endpoint(&self, url: &str) -> (WebhookId, String) {
        let id = WebhookId::new(Uuid::new_v4());
        let (text, sealed) = self.secret(id);
        let settings = Settings {
            url: url.to_owned(),
            description: None,
            events: vec!["quota.threshold_reached".to_owned()],
            enabled: true,
        };
        let mut tx = self.store.tenant(&self.op).await.unwrap();
        tx.within().create_webhook(id, &settings, &sealed).await.unwrap();
        tx.commit().await.unwrap();
        (id, text)
    }

    /// Gives the endpoint another secret.
    pub async fn rotate(&self, id: WebhookId, until: Option<OffsetDateTime>) -> String {
        let (text, sealed) = self.secret(id);
        let mut tx = self.store.tenant(&self.op).await.unwrap();
        tx.within().rotate_webhook_secret(id, &sealed, until).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        text
    }

    pub async fn replay_failed(&self, id: WebhookId) {
        let mut tx = self.store.tenant(&self.op).await.unwrap();
        let count = tx.within().replay_failed(id, OffsetDateTime::UNIX_EPOCH).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(count, 1);
    }

    /// Tells events, each in a transaction of its own.
    pub async fn tell(&self, count: u64) {
        for used in 0..count {
            let (quota, day) = ("executions".to_owned(), "2026-01-01".to_owned());
            let event = QuotaThresholdReached { quota, percent: 80, day, used, limit: 10 };
            let mut tx = self.store.tenant(&self.op).await.unwrap();
            let event = Event::QuotaThresholdReached(event);
            tx.append(self.op.tenant.as_uuid(), &event).await.unwrap();
            tx.commit().await.unwrap();
        }
    }

    /// What a deliverer needs, which may tell these endpoints.
    pub fn tools(&self, hooks: &[&Hook]) -> Tools {
        let named = hooks.iter().map(|hook| hook.url("").parse().unwrap());
        let trust = Trust::new(Some(self.authority.pem().as_bytes())).unwrap();
        Tools {
            store: self.store.clone(),
            sealer: Arc::clone(&self.sealer),
            client: Client::new(trust, "gatehouse-test"),
            guard: Guard::new(named, Vec::new()),
            deadline: SEND,
            status: Arc::default(),
        }
    }

    pub fn deliver(&self, tools: Tools) -> Running {
        let (trigger, shutdown) = Shutdown::manual();
        let status = Arc::clone(&tools.status);
        Running { trigger, status, task: tokio::spawn(deliverer::run(tools, shutdown)) }
    }
}
