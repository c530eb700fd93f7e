//! Drives whole requests through the steps, with the sidecar's answers as data and real tokens. What a test sees
//! is what the upstream or the client would see in the host that the document names.

mod alone;
mod callers;
mod cors;
mod failures;
mod hosts;
mod leases;
mod limits;
mod modes;
mod recorded;
mod requests;
mod shape;
mod sources;
mod standing;
mod tenants;
mod tokens;
mod versions;

use std::{cell::Cell, collections::BTreeMap, rc::Rc, sync::OnceLock, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gatehouse_authn::Portable;
use gatehouse_contract::{
    Reason, Role, Roles, TenantStatus, Tier, header,
    sidecar::{Change, ChangesAnswer, PrincipalFacts},
};
use jwt_compact::{
    Algorithm as _, AlgorithmSignature as _,
    alg::{Es256, Rsa, RsaPrivateKey},
    jwk::JsonWebKey,
};
use serde_json::{Map, Value, json};

use crate::{
    Answer, Edit, Parts, Reply, RequestRecord, RequestView, RootAnswer, RootCall, Step, Suite,
    Unshared, VmState,
};

const DOCUMENT: &str = include_str!("../../../../examples/gateway/suite.json");
const EC: &str = include_str!("../../../authn/testdata/ec.private.jwk.json");
const RSA: &str = include_str!("../../../authn/testdata/rsa.private.jwk.json");

const ISSUER: &str = "https://auth.greenlang.local";
const AUDIENCE: &str = "https://api.greenlang.local";
const TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
const OTHER_TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ac";
const AGENTS: &str = "/api/v1/registry/agents";
const NOW: Duration = Duration::from_secs(1_800_000_000);

type EcPrivateKey = <Es256 as jwt_compact::Algorithm>::SigningKey;

/// A gateway with its sidecar.
struct World {
    suite: Suite,
    vm: VmState,
    now: Duration,
    /// Ids of the keys that are published: `rsa`, `ec`.
    published: Vec<&'static str>,
    generation: u64,
    principal: (u16, PrincipalFacts),
    check: Value,
    /// What the answer to a limit's question says beside the decision.
    lease: Value,
    /// The status of that answer.
    limiter_status: u16,
    /// The monotonic time.
    clock: Rc<Cell<Duration>>,
    /// Who the peer of the connection proved to be.
    peer: Option<&'static str>,
    /// Whom a module before this one handed over.
    handed_over: Option<String>,
    /// The client's address and port.
    client: String,
    /// Whether the relay lives, and what it has to say since it was last heard.
    alive: bool,
    changes: Vec<Change>,
    sequence: u64,
    /// Paths for which nobody answers.
    away: Vec<&'static str>,
    /// What was asked, as `path body`, since the last look.
    calls: Vec<String>,
    /// What the root context told, but for polls, as `path body`.
    told: Vec<String>,
}

/// How a request ended.
#[derive(Debug)]
enum End {
    /// The headers that the upstream gets.
    Passed {
        upstream: Vec<(String, String)>,
        record: RequestRecord,
    },
    Refused(Reply),
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// The committed example, changed by `change`.
    fn with(change: impl FnOnce(&mut Value)) -> Self {
        Self::of(Parts::Suite, change)
    }

    /// The same for a single module.
    fn of(parts: Parts, change: impl FnOnce(&mut Value)) -> Self {
        let mut document: Value = serde_json::from_str(DOCUMENT).unwrap();
        document["signatures"] = "portable".into();
        document["issuers"][0]["algorithms"] = json!(["RS256", "ES256"]);
        change(&mut document);
        let (suite, _warnings) = Suite::compile(&document.to_string(), parts).unwrap();
        let clock = Rc::new(Cell::new(Duration::from_secs(77)));
        Self {
            suite,
            vm: VmState::new([1, 2]).with_clock({
                let clock = Rc::clone(&clock);
                Box::new(move || clock.get())
            }),
            now: NOW,
            lease: json!({}),
            limiter_status: 200,
            clock,
            peer: None,
            handed_over: None,
            client: "[2001:db8::7]:4711".to_owned(),
            published: vec!["rsa"],
            generation: 1,
            principal: (
                200,
                PrincipalFacts {
                    tier: Tier::Pro,
                    roles: Roles::NONE.with(Role::Developer),
                    epoch: 1,
                    ..PrincipalFacts::member(
                        "0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap(),
                        "s",
                    )
                },
            ),
            check: json!({"allowed": true, "limits": [
                {"name": "tenant", "limit": 600, "window_s": 60, "remaining": 599, "reset_s": 0},
                {"name": "endpoint", "limit": 1000, "window_s": 60, "remaining": 999, "reset_s": 0},
            ]}),
            alive: true,
            changes: Vec::new(),
            sequence: 0,
            away: Vec::new(),
            calls: Vec::new(),
            told: Vec::new(),
        }
    }

    fn roles(mut self, roles: &[Role], platform: bool) -> Self {
        self.principal.1.roles = roles.iter().copied().collect();
        self.principal.1.platform = platform;
        self
    }

    /// The VM asks for changes and hears what there is; whatever else it has to tell is heard, too.
    fn tick(&mut self) {
        for RootCall { call, purpose } in
            self.suite.on_tick(&mut self.vm, &Unshared::default(), self.now)
        {
            let away = self.away.iter().any(|away| call.path.starts_with(away));
            let body = if call.path.starts_with("/v1/changes") {
                self.changes_answer(&call.path)
            } else {
                let body = String::from_utf8(call.body).unwrap();
                self.told.push(format!("{} {body}", call.path));
                self.check.to_string().into_bytes()
            };
            let marked = [(":status", "200"), (header::SIDECAR_MARKER, "1")];
            let headers: &[_] = if away { &[] } else { &marked };
            let answer = RootAnswer { purpose, headers, body: &body };
            self.suite.on_root_answer(&mut self.vm, &answer, &Unshared::default(), self.now);
        }
    }

    fn changes_answer(&mut self, path: &str) -> Vec<u8> {
        let changes = std::mem::take(&mut self.changes);
        self.sequence += changes.len() as u64;
        let answer = ChangesAnswer {
            epoch: "e".to_owned(),
            sequence: self.sequence,
            alive: self.alive,
            changes,
            snapshot: (!path.contains("epoch=e")).then(Vec::new),
            keys: BTreeMap::new(),
        };
        serde_json::to_vec(&answer).unwrap()
    }

    /// Lets time pass by both clocks.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.clock.set(self.clock.get() + time);
    }

    fn answer(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        if self.away.iter().any(|away| path.starts_with(away)) {
            return None;
        }
        let (status, body) = if path.starts_with("/v1/jwks") {
            let keys: Vec<Value> = self.published.iter().map(|id| public_key(id)).collect();
            let jwks = json!({ "keys": keys }).to_string();
            let answer =
                json!({"generation": self.generation, "jwks": jwks, "max_age_ms": 300_000});
            (200, answer)
        } else if path == "/v1/principal" {
            (self.principal.0, serde_json::to_value(&self.principal.1).unwrap())
        } else {
            let mut answer = self.lease.clone();
            answer["check"] = self.check.clone();
            (self.limiter_status, answer)
        };
        Some((status, body.to_string().into_bytes()))
    }

    fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> End {
        let mut all = vec![(":method", method), (":path", path), (":authority", "gateway")];
        all.extend_from_slice(headers);
        self.send_raw(&all)
    }

    fn send_raw<N: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, headers: &[(N, V)]) -> End {
        self.tick();
        self.send_between_ticks(headers)
    }

    fn send_between_ticks<N: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, headers: &[(N, V)]) -> End {
        self.calls.clear();
        let address = self.client.clone();
        let client = || Some(address.clone());
        let proved = self.peer;
        let peer = || proved.map(str::to_owned);
        let handed_over = self.handed_over.clone();
        let caller = || handed_over.clone().map(String::into_bytes);
        let view =
            RequestView::new(headers).with_client(&client).with_peer(&peer).with_caller(&caller);
        let mut step = self.suite.on_request(&mut self.vm, &view, self.now, &Portable);
        // Keys twice (the set, then an unknown id), principal, limit: nothing may ask more often.
        for _ in 0..=4 {
            match step {
                Step::Continue { edits, record } => {
                    return End::Passed { upstream: self.upstream(headers, &edits), record };
                }
                Step::Reply(reply) => return End::Refused(reply),
                Step::Call { call, pending } => {
                    let body = String::from_utf8(call.body).unwrap();
                    self.calls.push(format!("{} {body}", call.path).trim().to_owned());
                    let answer = self.answer(&call.path);
                    let answer = match &answer {
                        Some((status, body)) => Answer::Sidecar { status: *status, body },
                        None => Answer::Unavailable,
                    };
                    let vm = &mut self.vm;
                    step = self.suite.on_answer(vm, *pending, answer, self.now, &Portable);
                }
            }
        }
        panic!("asks for ever: {:?}", self.calls);
    }

    /// As the hosts do it: Envoy replaces and removes all of a name; on Kong a set changes the first value and
    /// leaves others beside it, and a removed header still reaches the upstream.
    fn upstream<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        headers: &[(N, V)],
        edits: &[Edit],
    ) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut upstream: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| (text(name.as_ref()).to_ascii_lowercase(), text(value.as_ref())))
            .collect();
        let envoy = self.suite.host() == crate::Host::Envoy;
        for edit in edits {
            match edit {
                Edit::Set(name, value) => {
                    let at = upstream.iter().position(|(ours, _)| ours.eq_ignore_ascii_case(name));
                    match at {
                        Some(at) => upstream[at].1 = value.to_string(),
                        None => upstream.push((name.to_ascii_lowercase(), value.to_string())),
                    }
                    if envoy {
                        let mut first = true;
                        upstream.retain(|(ours, _)| {
                            !ours.eq_ignore_ascii_case(name) || std::mem::take(&mut first)
                        });
                    }
                }
                Edit::Add(name, value) => {
                    upstream.push((name.to_ascii_lowercase(), value.to_string()));
                }
                Edit::Remove(name) => {
                    assert!(envoy, "a removal of {name} does not reach Kong's upstream");
                    upstream.retain(|(ours, _)| !ours.eq_ignore_ascii_case(name));
                }
                Edit::UpstreamUri(target) => {
                    assert!(!envoy, "Envoy has no upstream_uri");
                    upstream.push(("upstream_uri".to_owned(), target.clone()));
                }
            }
        }
        upstream
    }

    /// The paths asked for, without queries and bodies.
    fn asked(&self) -> Vec<&str> {
        self.calls.iter().map(|call| call.split([' ', '?']).next().unwrap()).collect()
    }
}

impl End {
    fn upstream(&self) -> BTreeMap<&str, Vec<&str>> {
        let End::Passed { upstream, .. } = self else { panic!("refused: {self:?}") };
        let mut grouped: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, value) in upstream {
            grouped.entry(name).or_default().push(value);
        }
        grouped
    }

    fn record(&self) -> &RequestRecord {
        match self {
            End::Passed { record, .. } => record,
            End::Refused(reply) => &reply.record,
        }
    }

    fn reply(&self) -> &Reply {
        match self {
            End::Refused(reply) => reply,
            End::Passed { .. } => panic!("passed: {self:?}"),
        }
    }

    /// `passed`, or the refusal's status and code.
    fn verdict(&self) -> String {
        match self {
            End::Passed { .. } => "passed".to_owned(),
            End::Refused(reply) => {
                let code = reply.reason.map_or("answered", Reason::code);
                format!("{} {code}", reply.status)
            }
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let reply = self.reply();
        let mut values = reply.headers.iter().filter(|(ours, _)| *ours == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} twice");
        value
    }

    fn problem(&self) -> Map<String, Value> {
        serde_json::from_slice(&self.reply().body).unwrap()
    }
}

fn private_key(id: &str) -> &'static str {
    if id.starts_with("rsa") { RSA } else { EC }
}

fn public_key(id: &str) -> Value {
    let mut key: Map<String, Value> = serde_json::from_str(private_key(id)).unwrap();
    for secret in ["d", "p", "q"] {
        key.remove(secret);
    }
    key.insert("kid".to_owned(), id.into());
    key.into()
}

/// What a good token claims.
fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "client-1", "tenant_id": TENANT,
        "exp": NOW.as_secs() + 600, "iat": NOW.as_secs(),
    })
}

/// A signed token with `key` in its header; `claims` as they are.
fn sign(key: &str, claims: &Value) -> String {
    static KEYS: OnceLock<(RsaPrivateKey, EcPrivateKey)> = OnceLock::new();
    let (rsa, ec) = KEYS.get_or_init(|| {
        let rsa: JsonWebKey<'_> = serde_json::from_str(RSA).unwrap();
        let ec: JsonWebKey<'_> = serde_json::from_str(EC).unwrap();
        (RsaPrivateKey::try_from(&rsa).unwrap(), EcPrivateKey::try_from(&ec).unwrap())
    });
    let algorithm = if key.starts_with("rsa") { "RS256" } else { "ES256" };
    let header = json!({"alg": algorithm, "kid": key, "typ": "at+jwt"}).to_string();
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = match algorithm {
        "RS256" => Rsa::rs256().sign(rsa, signed.as_bytes()).as_bytes().into_owned(),
        _ => Es256.sign(ec, signed.as_bytes()).as_bytes().into_owned(),
    };
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// `Bearer` with a good token.
fn good() -> String {
    format!("Bearer {}", sign("rsa", &claims()))
}

/// `Bearer` with a token that claims `value` as `name`, or nothing of that name.
fn claiming(name: &str, value: Option<Value>) -> String {
    let mut claims = claims();
    match value {
        Some(value) => claims[name] = value,
        None => drop(claims.as_object_mut().unwrap().remove(name)),
    }
    format!("Bearer {}", sign("rsa", &claims))
}
