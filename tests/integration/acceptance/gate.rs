//! One small gateway of real parts: Envoy with the compiled module and the sidecar. Around it the test plays who is
//! not ours: identity providers that publish keys, and an upstream that answers with what it saw. The record behind
//! the sidecar is a list here; the real one stands in `stack`.

mod outside;
mod sidecar;

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use gatehouse_tests::{
    env,
    envoy::{self, Configuration, Gateway, configuration},
    h2,
    http::{
        Message, Request,
        serve::{self, Server},
    },
    token::Key,
    wait,
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use self::{
    outside::{Outside, member},
    sidecar::Running,
};

pub const ISSUER: &str = "https://auth.greenlang.local";
pub const AUDIENCE: &str = "https://api.greenlang.local";
/// Its members are [`SUBJECT`] (a developer), [`VIEWER`] and [`ADMIN`].
pub const TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
/// Another one, with a [`SUBJECT`] of its own.
pub const OTHER_TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ac";
pub const SUBJECT: &str = "7d7c9c5e-4f62-4b4e-9d0e-6d1f4f3c0001";
pub const VIEWER: &str = "7d7c9c5e-4f62-4b4e-9d0e-6d1f4f3c0002";
pub const ADMIN: &str = "7d7c9c5e-4f62-4b4e-9d0e-6d1f4f3c0003";
/// What a client would call itself.
pub const EVIL: &str = "11111111-1111-4111-8111-111111111111";

/// A route that every role opens, one that developers open, one that is public.
pub const AGENTS: &str = "/api/v1/registry/agents";
pub const PUBLIC: &str = "/.well-known/jwks.json";

/// Longer than the product's own 50 ms: a machine that builds at the same time must not turn slowness into refusals.
const CALL_OUT_MS: u64 = 10_000;

/// Changes a bootstrap; `None` if it is not as expected.
pub type Patch = Box<dyn Fn(&mut Value) -> Option<()>>;

/// What a gateway is made of; the repository's document, one worker and no change, unless a test says otherwise.
pub struct Plan {
    pub document: Value,
    pub workers: u8,
    /// Changes to Envoy's bootstrap.
    pub bootstrap: Patch,
    /// Answers in the upstream's stead.
    pub upstream: serve::Handler,
    /// Issuers beside [`ISSUER`] whose keys the sidecar fetches.
    pub issuers: Vec<String>,
    /// What is published before the sidecar begins to fetch, by issuer, with the status of the answer.
    pub keys: Vec<(String, u16, Value)>,
    /// Changes to the sidecar's configuration (RFC 7396), whose limits are far away by themselves.
    pub sidecar: Value,
    /// The variable that names the module.
    pub module: &'static str,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            document: document(),
            workers: 1,
            bootstrap: Box::new(|_| Some(())),
            upstream: Arc::new(serve::echo),
            issuers: Vec::new(),
            keys: Vec::new(),
            sidecar: json!({}),
            module: env::SUITE,
        }
    }
}

/// The running parts, dropped from the outside in.
pub struct Gate {
    pub envoy: Gateway,
    outside: Arc<Mutex<Outside>>,
    seen: Arc<Mutex<Vec<Message>>>,
    /// The real sidecar, if the document names one.
    pub sidecar: Option<Running>,
    _servers: [Server; 3],
    dir: TempDir,
}

impl Gate {
    /// With the repository's own document.
    pub fn open() -> Self {
        Self::with(Plan::default())
    }

    /// With another document.
    pub fn document(document: Value) -> Self {
        Self::with(Plan { document, ..Plan::default() })
    }

    /// With another document and other keys of [`ISSUER`].
    pub fn publishing(document: Value, keys: Value) -> Self {
        let keys = vec![(ISSUER.to_owned(), 200, keys)];
        Self::with(Plan { document, keys, ..Plan::default() })
    }

    pub fn with(plan: Plan) -> Self {
        // Another process may take a port between its choice and its use.
        wait::until("a gateway", wait::START, || match Self::start(&plan) {
            Err(error) if is_port_taken(&error) => Err(error),
            started => Ok(Some(started)),
        })
        .unwrap()
        .unwrap()
    }

    fn start(plan: &Plan) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("gatehouse-gate-").tempdir().unwrap();
        let mut published = outside::outside();
        for (issuer, status, keys) in &plan.keys {
            published.keys.insert(issuer.clone(), (*status, keys.to_string()));
        }
        let outside = Arc::new(Mutex::new(published));
        // Two addresses: the sidecar fetches no keys from where the record is.
        let [providers, record] = [(); 2].map(|()| {
            let shared = Arc::clone(&outside);
            Server::start(Arc::new(move |request| outside::answer(&shared, request))).unwrap()
        });
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (saw, handler) = (Arc::clone(&seen), &plan.upstream);
        let handler = Arc::clone(handler);
        let upstream = Server::start(Arc::new(move |request| {
            saw.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            handler(request)
        }))
        .unwrap();
        let (sidecar, at) = match plan.document.get("sidecar") {
            Some(_) => {
                let running = sidecar::start(&dir, &providers, &record, plan)?;
                let at = running.listen;
                (Some(running), at)
            }
            None => (None, wait::address().unwrap()),
        };
        let suite = env::path(plan.module).unwrap();
        let mut config: Configuration =
            configuration(dir.path(), &suite, &plan.document, upstream.address, at).unwrap();
        config.workers = plan.workers;
        config.patch(&plan.bootstrap).unwrap();
        // A document without a sidecar names no cluster for it.
        config.patch(|bootstrap| envoy::drop_cluster(bootstrap, "")).unwrap();
        let envoy = Gateway::run(dir.path(), config)?;
        let servers = [providers, record, upstream];
        Ok(Self { envoy, outside, seen, sidecar, _servers: servers, dir })
    }

    /// What is outside, to be changed or looked at.
    pub fn outside(&self) -> MutexGuard<'_, Outside> {
        self.outside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes these keys of [`ISSUER`].
    pub fn publish(&self, keys: &Value) {
        self.outside().keys.insert(ISSUER.to_owned(), (200, keys.to_string()));
    }

    #[track_caller]
    pub fn send(&self, request: &Request) -> Message {
        request.send(self.envoy.listen).unwrap()
    }

    /// What becomes of this request.
    #[track_caller]
    pub fn verdict(&self, request: &Request) -> String {
        verdict(&self.send(request))
    }

    /// The request reaches the upstream; what that saw.
    #[track_caller]
    pub fn allows(&self, request: &Request) -> Message {
        let answer = self.send(request);
        assert_eq!(verdict(&answer), ALLOWED, "{}: {answer:?}", request.line());
        serve::seen(&answer).unwrap()
    }

    /// The request is refused with this status and code; the answer.
    #[track_caller]
    pub fn denies(&self, request: &Request, expected: &str) -> Message {
        let answer = self.send(request);
        assert_eq!(verdict(&answer), expected, "{}: {answer:?}", request.line());
        answer
    }

    /// What becomes of a `GET` with this bearer token.
    #[track_caller]
    pub fn judges(&self, token: &str) -> String {
        verdict(&self.send(&get().bearer(token)))
    }

    /// Sends this head over HTTP/2; what the upstream saw, if it was asked.
    #[track_caller]
    pub fn exchange_h2(&self, head: h2::Fields<'_>) -> Option<Message> {
        self.upstream_saw();
        h2::exchange(self.envoy.listen, head, b"", &[]).unwrap();
        self.upstream_saw().pop()
    }

    /// What reached the upstream since the last time.
    pub fn upstream_saw(&self) -> Vec<Message> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// No VM was lost.
    #[track_caller]
    pub fn sound(&self) {
        for stat in ["vm_reload_success", "vm_reload_backoff", "vm_reload_failure"] {
            assert_eq!(self.envoy.stat(&format!("wasm.suite.{stat}")).unwrap(), 0, "{stat}");
        }
        assert_eq!(self.judges(&token()), ALLOWED);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // What a red test needs: the logs stay.
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("logs are in {}", self.dir.path().display());
        }
    }
}

/// What [`verdict`] says of a request that reached the upstream.
pub const ALLOWED: &str = "200";

/// `STATUS` of what came from the upstream, `STATUS code` of a refusal, after a look at its form.
#[track_caller]
pub fn verdict(answer: &Message) -> String {
    let status = answer.status().unwrap();
    if answer.headers.all("content-type") != ["application/problem+json"] {
        return status.to_string();
    }
    if answer.body.is_empty() {
        return format!("{status} without a body");
    }
    let body = answer.json().unwrap();
    assert_eq!(body["status"], status);
    // What Envoy refuses before any filter has no such header.
    if let Some(id) = answer.headers.one("x-request-id") {
        assert_eq!(body["request_id"], id);
    }
    format!("{status} {}", body["code"].as_str().unwrap())
}

/// A `GET` of the agents without a credential.
pub fn get() -> Request {
    Request::new("GET", AGENTS)
}

/// The repository's document with more patience.
pub fn document() -> Value {
    let mut document: Value =
        serde_json::from_str(include_str!("../../../examples/gateway/suite.json")).unwrap();
    document["sidecar"]["timeout_ms"] = CALL_OUT_MS.into();
    document["sidecar"]["identity_timeout_ms"] = CALL_OUT_MS.into();
    document
}

/// A document without a sidecar: keys of [`ISSUER`] stand in it, roles are the token's, and each worker counts.
pub fn alone(keys: &Value) -> Value {
    json!({
        "host": "envoy",
        "signatures": "native",
        "issuers": [{
            "issuer": ISSUER,
            "audiences": [AUDIENCE],
            "algorithms": ["RS256"],
            "tenants": [TENANT, OTHER_TENANT],
            "max_role": "admin",
            "jwks": {"inline": keys},
            "roles": {"claim": "/groups", "map": {"developers": "developer", "readers": "viewer"}},
        }],
        "versions": {"served": ["v1"], "default": "v1"},
        "limiter": {"local": {"per_minute": 1_000_000}},
    })
}

/// The document with members of its first issuer changed.
pub fn issuer(changes: &Value) -> Value {
    let mut document = document();
    for (name, value) in changes.as_object().unwrap() {
        document["issuers"][0][name] = value.clone();
    }
    document
}

/// Seconds since the epoch.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The key that [`ISSUER`] publishes.
pub fn key() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(|| Key::generate("key-1").unwrap())
}

/// The claims of a good access token.
pub fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "client_id": SUBJECT, "tenant_id": TENANT,
        "iat": now_s() - 10, "nbf": now_s() - 10, "exp": now_s() + 890, "jti": "token-1",
    })
}

/// A good token.
pub fn token() -> String {
    signed(&claims())
}

/// A token over these claims with the header of an access token.
pub fn signed(claims: &Value) -> String {
    key().jwt(&key().header(), claims).unwrap()
}

/// A token with one claim replaced, or by null removed.
pub fn with_claim(name: &str, value: Value) -> String {
    signed(&changed(claims(), name, value))
}

/// A token with one header member replaced, or by null removed.
pub fn with_header(name: &str, value: Value) -> String {
    key().jwt(&changed(key().header(), name, value), &claims()).unwrap()
}

pub fn changed(mut object: Value, name: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(object.as_object_mut().unwrap().remove(name)),
        value => object[name] = value,
    }
    object
}

fn is_port_taken(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    text.contains("is taken by another process") || text.contains("Address already in use")
}
