//! A whole small system of real parts around one real Envoy: PostgreSQL (a database of its own), Redis (a server
//! of its own), control API, sidecar, and the worker where a test wants it. Two taps stand on the wire: one sees
//! what the gateway sends upstream, the other adds a test key to the published key set, so that tokens can be
//! signed that the control API would never issue. Everything ends with the value.

mod people;
mod services;
mod stores;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use self::{
    people::{Client, Tenant},
    stores::{Database, Redis},
};
use crate::{envoy::Gateway, http::Message, process::Process, tap::Tap, token::Key};

/// The issuer of the repository's document, as which the control API issues.
pub const ISSUER: &str = "https://auth.greenlang.local";
/// Its audience.
pub const AUDIENCE: &str = "https://api.greenlang.local";

/// The header by which a test finds its request upstream (Envoy replaces the request ids of strangers).
pub const MARK: &str = "x-test-mark";

/// Where limits are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limiter {
    /// In the world's own Redis.
    Redis,
    /// In the sidecar.
    Memory,
}

/// What a world is made of.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Where limits are counted.
    pub limiter: Limiter,
    /// `native` or `portable`.
    pub signatures: &'static str,
    /// Whether executions are run.
    pub worker: bool,
}

/// The running parts. Dropped from the outside in.
pub struct World {
    /// Where clients connect.
    pub gateway: SocketAddr,
    /// Envoy.
    pub envoy: Gateway,
    /// The sidecar.
    pub sidecar: Process,
    /// Where it is asked.
    pub sidecar_listen: SocketAddr,
    /// The worker, if the plan has one; a test may take and stop it.
    pub worker: Mutex<Option<Process>>,
    /// The control API.
    pub control: Process,
    /// Where it listens.
    pub control_listen: SocketAddr,
    /// Where it says how it is.
    pub control_admin: SocketAddr,
    /// Between Envoy and the control API.
    pub upstream: Tap,
    /// Between the sidecar and the published keys.
    pub keys: Tap,
    /// A key that is published beside the control API's own.
    pub test_key: Key,
    /// Who may make tenants.
    pub platform: Client,
    /// Where images are published.
    pub images: std::path::PathBuf,
    /// Its Redis, if the plan has one.
    pub redis: Option<Redis>,
    /// Its database.
    pub database: Database,
    dir: TempDir,
    seen: Mutex<Vec<Message>>,
}

impl World {
    /// Starts everything and waits until it is ready.
    pub fn start(plan: Plan) -> Result<Self> {
        Self::start_with(plan, json!({}))
    }

    /// As [`Self::start`], with these members more in the control API's configuration.
    pub fn start_with(plan: Plan, control: Value) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("gatehouse-test-").tempdir()?;
        let database = Database::create().context("the database")?;
        let redis = match (plan.limiter, plan.worker) {
            (Limiter::Memory, false) => None,
            _ => Some(Redis::start(dir.path()).context("Redis")?),
        };
        let test_key = Key::generate("test-key")?;
        let images = dir.path().join("images");
        std::fs::create_dir_all(&images)?;
        let services = services::Services {
            dir: dir.path(),
            plan,
            database: &database,
            redis: redis.as_ref(),
            images: &images,
        };
        services.migrate()?;
        let control = services.control(control)?;
        let upstream = Tap::start(control.listen, None)?;
        let jwk = test_key.jwk()?;
        let add: crate::tap::Change = Arc::new(move |_, answer| with_key(answer, &jwk));
        let keys = Tap::start(control.listen, Some(add))?;
        let sidecar = services.sidecar(keys.address, control.internal)?;
        let document = document(plan)?;
        let envoy = Gateway::start(dir.path(), &document, upstream.address, sidecar.listen)?;
        let worker = if plan.worker { Some(services.worker()?) } else { None };
        Ok(Self {
            gateway: envoy.listen,
            envoy,
            sidecar: sidecar.process,
            sidecar_listen: sidecar.listen,
            worker: Mutex::new(worker),
            control: control.process,
            control_listen: control.listen,
            control_admin: control.admin,
            upstream,
            keys,
            test_key,
            platform: control.platform,
            images,
            redis,
            database,
            dir,
            seen: Mutex::new(Vec::new()),
        })
    }

    /// What reached the upstream with this value of [`MARK`].
    pub fn upstream_saw(&self, mark: &str) -> Vec<Message> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(self.upstream.take());
        seen.iter().filter(|m| m.header(MARK) == mark).cloned().collect()
    }

    /// The folder of logs and configurations.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What a red test needs: the logs stay.
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("logs are in {}", self.dir.path().display());
        }
    }
}

/// The repository's document, as a world's gateway runs it.
///
/// # Errors
/// The document has not the form that is expected here.
pub fn document(plan: Plan) -> Result<Value> {
    let mut document: Value =
        serde_json::from_str(include_str!("../../examples/gateway/suite.json"))?;
    let mut set = |pointer: &str, name: &str, value: Value| -> Result<()> {
        let object = document.pointer_mut(pointer).and_then(Value::as_object_mut);
        object.with_context(|| format!("no {pointer}"))?.insert(name.to_owned(), value);
        Ok(())
    };
    set("", "signatures", plan.signatures.into())?;
    // A machine that builds at the same time must not turn slowness into refusals.
    set("/sidecar", "timeout_ms", services::CALL_OUT_MS.into())?;
    set("/sidecar", "identity_timeout_ms", services::CALL_OUT_MS.into())?;
    Ok(document)
}

/// A key set document with one key more; anything else unchanged.
fn with_key(mut answer: Message, jwk: &Value) -> Message {
    let Ok(mut set) = answer.json() else { return answer };
    if let Some(keys) = set.get_mut("keys").and_then(Value::as_array_mut) {
        keys.push(jwk.clone());
        answer.body = set.to_string().into_bytes();
    }
    answer
}
