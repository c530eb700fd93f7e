//! The execution engine as processes: a PostgreSQL and a Redis of its own and any number of workers, each of which may be
//! killed, stopped and begun again; and the store, as clients use it. Knows nothing of what is proven or measured.

pub mod postgres;
pub mod worker;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use gatehouse_contract::{AgentId, AgentVersionId, ExecutionId, TenantId, Tier};
use gatehouse_store::{
    Actor, Error, MasterKeys, OffsetDateTime, OpCtx, Store, Urls,
    executions::{NewExecution, Terms},
    migrate,
    versions::{self, NewVersion},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use uuid::Uuid;

use self::{
    postgres::Postgres,
    worker::{Driver, Worker},
};
use crate::fleet::redis::Redis;

/// Under which inputs and results are sealed.
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// What versions name where the driver fetches nothing.
const NO_IMAGE: &str =
    "none@sha256:0000000000000000000000000000000000000000000000000000000000000000";
/// What images of versions are called.
const IMAGE: &str = "measured";

/// The parts. Dropped, the workers end first.
pub struct Engine {
    /// The workers.
    pub workers: Vec<Worker>,
    /// As clients use it.
    pub store: Store,
    /// Where clients run.
    pub runtime: Runtime,
    /// The queue.
    pub redis: Redis,
    /// The truth.
    pub postgres: Postgres,
    /// The tenants.
    pub tenants: Vec<Tenant>,
    dir: tempfile::TempDir,
}

/// A tenant with an agent.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// As it does things.
    pub op: Arc<OpCtx>,
    /// Its agent.
    pub agent: AgentId,
    /// That agent's version.
    pub version: AgentVersionId,
}

/// What an engine is made of.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Whether the database is as a production's.
    pub durable: bool,
    /// The tenants' tiers.
    pub tiers: &'a [Tier],
}

impl Engine {
    /// Starts the stores and makes the tenants; no worker yet.
    pub fn start(plan: Plan<'_>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("gatehouse-engine-").tempdir()?;
        let postgres = Postgres::start(plan.durable).context("PostgreSQL")?;
        let redis = Redis::start(dir.path(), "redis").context("Redis")?;
        std::fs::write(dir.path().join("key"), KEY)?;
        std::fs::create_dir(dir.path().join("images"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("a runtime")?;
        let urls = Urls {
            app: postgres.url("app"),
            admin: Some(postgres.url("admin")),
            system: Some(postgres.url("system")),
        };
        let keys = MasterKeys::parse(KEY).context("the key")?;
        let store = runtime.block_on(async {
            migrate::run(&postgres.url("owner")).await?;
            anyhow::Ok(Store::connect(&urls).await?.with_keys(keys))
        })?;
        let mut engine =
            Self { workers: Vec::new(), store, runtime, redis, postgres, tenants: Vec::new(), dir };
        for tier in plan.tiers {
            let tenant = engine.runtime.block_on(tenant(&engine.store, *tier))?;
            engine.tenants.push(tenant);
        }
        Ok(engine)
    }

    /// The folder of logs and configurations.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Keeps the folder of logs, and says where it is.
    pub fn keep(&mut self) -> std::path::PathBuf {
        self.dir.disable_cleanup(true);
        self.dir.path().to_owned()
    }

    /// Starts one more worker, with these members more in its configuration, and waits until it is ready.
    pub fn worker(&mut self, driver: Driver, more: &Value, skew_s: i64) -> Result<()> {
        let name = format!("w{}", self.workers.len());
        let mut config = json!({
            "database": {"app": self.postgres.url("app"), "system": self.postgres.url("system")},
            "redis": self.redis.url("worker"),
            "key_file": self.dir.path().join("key"),
            "image_store": self.dir.path().join("images"),
            "state_dir": self.dir.path().join(&name),
            "worker_id": name,
            "concurrency": 64,
            "lease_s": 3,
            "drain_s": 5,
        });
        let tenants: Vec<String> =
            self.tenants.iter().map(|tenant| tenant.op.tenant.to_string()).collect();
        crate::fleet::merge(&mut config, &driver.members(&tenants)?);
        crate::fleet::merge(&mut config, more);
        self.workers.push(Worker::start(self.dir.path(), &name, config, skew_s)?);
        Ok(())
    }

    /// Gives every tenant the image of an OCI layout, and a version of its agent that names it.
    pub fn publish(&mut self, layout: &Path) -> Result<()> {
        let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json"))?)?;
        let digest = index.pointer("/manifests/0/digest").and_then(Value::as_str);
        let image = format!("{IMAGE}@{}", digest.context("no manifest")?);
        let images = self.dir.path().join("images");
        for tenant in &mut self.tenants {
            copy(layout, &images.join(tenant.op.tenant.to_string()).join(IMAGE))?;
            tenant.version = AgentVersionId::new(Uuid::new_v4());
            let (id, version) = (tenant.version, "2.0.0".to_owned());
            let (agent, image, terms) = (tenant.agent, image.clone(), versions::Terms::default());
            self.runtime.block_on(async {
                let mut tx = self.store.tenant(&tenant.op).await?;
                tx.create_version(&NewVersion { id, agent, version, image, terms }).await?;
                tx.commit().await
            })?;
        }
        Ok(())
    }

    /// Tenants may have this many running, waiting and submitted in a day.
    pub fn raise_limits(&self, running: u64) -> Result<()> {
        let sql = format!(
            "UPDATE tenant_quotas SET max_concurrent_executions = {running}, max_queued_executions = 1000000,
                max_executions_per_day = 10000000, max_storage_bytes = 1000000000000"
        );
        self.postgres.ask("gatehouse", &sql).map(drop)
    }
}

/// A folder with all that is in it.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &place)?;
        } else {
            std::fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}

/// Makes a tenant with an agent whose version names an image that nobody looks for.
async fn tenant(store: &Store, tier: Tier) -> Result<Tenant> {
    let op = OpCtx {
        tenant: TenantId::new(Uuid::new_v4()),
        subject: "client".to_owned(),
        actor: Actor::Client,
        request_id: "r1".to_owned(),
        traceparent: None,
        now: OffsetDateTime::UNIX_EPOCH,
    };
    let slug = format!("t-{}", op.tenant.as_uuid().simple());
    let mut tx = store.admin(&op, "a tenant to measure with").await?;
    tx.create_tenant(op.tenant, &slug, &slug, tier).await?;
    tx.commit().await?;
    let (agent, version) = (AgentId::new(Uuid::new_v4()), AgentVersionId::new(Uuid::new_v4()));
    let mut tx = store.tenant(&op).await?;
    tx.create_agent(agent, "measured", None).await?;
    let (name, image) = ("1.0.0".to_owned(), NO_IMAGE.to_owned());
    let terms = versions::Terms::default();
    tx.create_version(&NewVersion { id: version, agent, version: name, image, terms }).await?;
    tx.commit().await?;
    Ok(Tenant { op: Arc::new(op), agent, version })
}

impl Tenant {
    /// Submits under an id of the caller's, so that it can be asked again what became of it.
    pub async fn submit(
        &self,
        store: &Store,
        id: ExecutionId,
        input: Value,
        terms: Terms,
    ) -> Result<(), Error> {
        let new = NewExecution { id, agent: self.agent, version: self.version, input, terms };
        let mut tx = store.tenant(&self.op).await?;
        tx.submit_execution(&new).await?;
        tx.commit().await
    }

    /// Whether it is there.
    pub async fn has(&self, store: &Store, id: ExecutionId) -> Result<bool, Error> {
        Ok(store.tenant(&self.op).await?.execution(id).await?.is_some())
    }

    /// Asks for its end.
    pub async fn cancel(&self, store: &Store, id: ExecutionId) -> Result<(), Error> {
        let mut tx = store.tenant(&self.op).await?;
        tx.cancel_execution(id).await?;
        tx.commit().await
    }
}

/// How long anything of an engine may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
