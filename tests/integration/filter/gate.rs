//! A configured VM with a sidecar of data around it: every call-out is answered as the test says, and noted.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gatehouse_contract::{
    Role, Roles, header,
    sidecar::{
        CHANGES_PATH, CHECK_PATH, ChangesAnswer, CheckAnswer, CheckAsk, JWKS_PATH, JwksAnswer,
        LEASE_PATH, LeaseAsk, LimitState, PRINCIPAL_PATH, PrincipalAsk, PrincipalFacts,
    },
};
use gatehouse_tests::{
    token::{Key, jwks},
    vm::{Answer, Call, Filter, Headers, Reply, Standing, StreamId, Surroundings, Vm},
};
use serde_json::{Value, json};

pub const ISSUER: &str = "https://auth.greenlang.local";
pub const AUDIENCE: &str = "https://api.greenlang.local";
pub const TENANT: &str = "0191d6b0-7c3e-7aaa-8bbb-0123456789ab";
/// The token's `sub`.
pub const SUBJECT: &str = "client-1";
/// What the record calls it.
pub const USER: &str = "user-1";
/// The time in every test, seconds since the epoch.
pub const NOW_S: u64 = 1_800_000_000;
/// The cluster that the filter asks.
const SIDECAR: &str = "gatehouse-sidecar";
/// What Kong calls it.
pub const SIDECAR_OF_KONG: &str = "127.0.0.1:7070";
/// The cluster of an issuer's keys, where the filter fetches them itself.
pub const PROVIDER: &str = "provider";
/// How often the filter asks for changes.
pub const TICK: Duration = Duration::from_millis(250);
/// No request needs more call-outs than this.
const MOST_CALLS: usize = 8;

/// How one of the sidecar's surfaces behaves.
#[derive(Debug, Clone)]
pub enum Fate {
    /// 200 with this body, marked as the sidecar's own.
    Says(Value),
    /// This status with this body, marked.
    Status(u16, Value),
    /// 200 with this body, but by somebody else.
    Unmarked(Value),
    Refused,
    TimedOut,
    Nothing,
}

impl Fate {
    fn answer(&self) -> Answer {
        let own = |status: u16, body: &Value| {
            let status = status.to_string();
            let headers = [(":status", status.as_str()), (header::SIDECAR_MARKER, "1")];
            Answer::new(Headers::new(headers), body.to_string())
        };
        match self {
            Self::Says(body) => own(200, body),
            Self::Status(status, body) => own(*status, body),
            Self::Unmarked(body) => {
                Answer::new(Headers::new([(":status", "200")]), body.to_string())
            }
            Self::Refused => Answer::refused(),
            Self::TimedOut => Answer::timed_out(),
            Self::Nothing => Answer::nothing(),
        }
    }
}

/// The sidecar's surfaces.
#[derive(Debug, Clone)]
pub struct Sidecar {
    pub changes: Fate,
    pub keys: Fate,
    pub principal: Fate,
    pub check: Fate,
    /// What the answer to a limit's question says beside the decision: a lease, a share.
    pub lease: Value,
}

impl Default for Sidecar {
    fn default() -> Self {
        Self {
            changes: Fate::Says(changes(0, true)),
            keys: Fate::Says(keys_answer(&[key()])),
            principal: Fate::Says(facts(&[Role::Developer])),
            check: Fate::Says(allowed(59)),
            lease: json!({}),
        }
    }
}

pub struct Gate {
    pub vm: Vm,
    pub sidecar: Sidecar,
    /// `METHOD /path body` of every call-out so far.
    pub asked: Vec<Call>,
    /// The call-outs of the root context, but for polls.
    pub told: Vec<Call>,
}

impl Gate {
    /// With the repository's own document.
    pub fn open() -> Self {
        Self::with(&document(), true)
    }

    /// It has heard the change feed, and it is [`now`].
    pub fn with(document: &Value, native_signatures: bool) -> Self {
        let mut gate = Self::deaf(document, native_signatures);
        gate.pass(TICK);
        gate
    }

    /// It has not heard the change feed yet: one tick is missing until [`now`].
    pub fn deaf(document: &Value, native_signatures: bool) -> Self {
        Self::of(start_at(now() - TICK, native_signatures), document)
    }

    /// That VM with this document.
    pub fn of(mut vm: Vm, document: &Value) -> Self {
        assert!(vm.configure(&document.to_string()).unwrap(), "refused: {:?}", vm.take_log());
        Self { vm, sidecar: Sidecar::default(), asked: Vec::new(), told: Vec::new() }
    }

    /// Lets time pass, tick by tick; the root context's call-outs are answered as the sidecar fares, polls not noted.
    pub fn pass(&mut self, mut time: Duration) {
        while !time.is_zero() {
            let step = time.min(TICK);
            time -= step;
            self.vm.advance(step).unwrap();
            for call in self.vm.calls() {
                if call.line().starts_with(&format!("GET {CHANGES_PATH}")) {
                    let answer = self.sidecar.changes.answer();
                    self.vm.answer(call.token, answer).unwrap();
                    if let Fate::Says(said) = &mut self.sidecar.changes {
                        // What was heard is not said again.
                        said["snapshot"].take();
                        said["changes"].take();
                        let said = said.as_object_mut().unwrap();
                        said.retain(|_, value| !value.is_null());
                    }
                } else if is_told(&call) {
                    let answer = self.fate(&call).answer();
                    self.vm.answer(call.token, answer).unwrap();
                    self.told.push(call);
                }
            }
        }
    }

    /// Takes a request to its end.
    pub fn send(&mut self, headers: &[(&str, &str)]) -> Standing {
        let stream = self.vm.request(Headers::new(headers.iter().copied()), true).unwrap();
        let standing = self.finish(stream);
        self.vm.finish(stream).unwrap();
        standing
    }

    /// Answers its call-outs until the stream stands somewhere; it stays open.
    pub fn finish(&mut self, stream: StreamId) -> Standing {
        for _ in 0..MOST_CALLS {
            let standing = self.vm.standing(stream).unwrap().clone();
            if standing != Standing::Held {
                assert_eq!(self.vm.calls(), [], "call-outs left behind");
                return standing;
            }
            self.answer_next();
        }
        panic!("more than {MOST_CALLS} call-outs: {:?}", self.asked)
    }

    /// Answers the call-out that waits longest.
    pub fn answer_next(&mut self) {
        let calls = self.vm.calls();
        let call = calls.first().expect("held without a call-out");
        self.asked.push(call.clone());
        let answer = self.fate(call).answer();
        self.vm.answer(call.token, answer).unwrap();
    }

    fn fate(&self, call: &Call) -> Fate {
        assert!([SIDECAR, SIDECAR_OF_KONG].contains(&&*call.target), "{}", call.target);
        assert_eq!(call.headers.all(":authority"), [SIDECAR]);
        assert_eq!(call.headers.all(":scheme"), ["http"]);
        let line = call.line();
        if line.starts_with(&format!("GET {JWKS_PATH}?")) {
            self.sidecar.keys.clone()
        } else if line == format!("POST {PRINCIPAL_PATH}") {
            serde_json::from_slice::<PrincipalAsk>(&call.body).unwrap();
            self.sidecar.principal.clone()
        } else if line == format!("POST {LEASE_PATH}") {
            let ask = serde_json::from_slice::<LeaseAsk>(&call.body).unwrap();
            match (&self.sidecar.check, ask.check) {
                (Fate::Says(check), Some(_)) => {
                    let mut answer = self.sidecar.lease.clone();
                    answer["check"] = check.clone();
                    Fate::Says(answer)
                }
                (fate, _) => fate.clone(),
            }
        } else if line == format!("POST {CHECK_PATH}") {
            serde_json::from_slice::<CheckAsk>(&call.body).unwrap();
            self.sidecar.check.clone()
        } else {
            panic!("asks {line}")
        }
    }

    /// What was asked since the last time, a line each.
    pub fn take_asked(&mut self) -> Vec<String> {
        self.asked.drain(..).map(|call| call.line()).collect()
    }
}

/// Whether nobody waits for its answer but the root context: a charge, or passes that are handed back.
fn is_told(call: &Call) -> bool {
    let line = call.line();
    let returns =
        |body: &[u8]| serde_json::from_slice::<LeaseAsk>(body).is_ok_and(|ask| ask.check.is_none());
    line == format!("POST {CHECK_PATH}")
        || line == format!("POST {LEASE_PATH}") && returns(&call.body)
}

/// A started VM that has no configuration yet.
pub fn start(native_signatures: bool) -> Vm {
    start_at(now(), native_signatures)
}

fn start_at(now: SystemTime, native_signatures: bool) -> Vm {
    Vm::start(Filter::suite().unwrap(), &around(now, native_signatures)).unwrap()
}

/// A process at a time, with the sidecar and one provider of keys to call.
pub fn around(now: SystemTime, native_signatures: bool) -> Surroundings {
    Surroundings {
        targets: [SIDECAR, SIDECAR_OF_KONG, PROVIDER].map(str::to_owned).to_vec(),
        native_signatures,
        ..Surroundings::at(now)
    }
}

pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW_S)
}

/// What the change feed says at first: nothing is denied.
pub fn changes(sequence: u64, alive: bool) -> Value {
    let answer = ChangesAnswer {
        epoch: "epoch-1".to_owned(),
        sequence,
        alive,
        changes: Vec::new(),
        snapshot: Some(Vec::new()),
        keys: std::collections::BTreeMap::new(),
    };
    serde_json::to_value(answer).unwrap()
}

/// The repository's document.
pub fn document() -> Value {
    serde_json::from_str(include_str!("../../../examples/gateway/suite.json")).unwrap()
}

/// The issuer's key.
pub fn key() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(|| Key::generate("key-1").unwrap())
}

pub fn keys_answer(keys: &[&Key]) -> Value {
    let jwks = jwks(keys).unwrap().to_string();
    serde_json::to_value(JwksAnswer { generation: 1, jwks, max_age_ms: 300_000 }).unwrap()
}

pub fn facts(roles: &[Role]) -> Value {
    let roles: Roles = roles.iter().copied().collect();
    let facts = PrincipalFacts {
        roles,
        epoch: 1,
        ..PrincipalFacts::member("0191d6b0-7c3e-7aaa-8bbb-0123456789ab".parse().unwrap(), USER)
    };
    serde_json::to_value(facts).unwrap()
}

fn tenant_limit(remaining: u32, reset_s: u32) -> LimitState {
    LimitState { name: "tenant".to_owned(), limit: 60, window_s: 60, remaining, reset_s }
}

pub fn allowed(remaining: u32) -> Value {
    let limits = vec![tenant_limit(remaining, 0)];
    serde_json::to_value(CheckAnswer {
        allowed: true,
        retry_after_s: None,
        degraded: false,
        day_used_percent: None,
        limits,
    })
    .unwrap()
}

pub fn denied(retry_after_s: u32) -> Value {
    let limits = vec![tenant_limit(0, retry_after_s)];
    let answer = CheckAnswer {
        allowed: false,
        retry_after_s: Some(retry_after_s),
        degraded: false,
        day_used_percent: None,
        limits,
    };
    serde_json::to_value(answer).unwrap()
}

/// The claims of a good access token.
pub fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "client_id": SUBJECT, "tenant_id": TENANT,
        "iat": NOW_S - 10, "nbf": NOW_S - 10, "exp": NOW_S + 890, "jti": "token-1",
    })
}

/// A good token.
pub fn token() -> String {
    key().jwt(&key().header(), &claims()).unwrap()
}

/// The headers of a request, with a bearer token if one is given.
pub fn request<'a>(
    method: &'a str,
    path: &'a str,
    authorization: Option<&'a str>,
) -> Vec<(&'a str, &'a str)> {
    let mut headers = vec![
        (":authority", "api.greenlang.local"),
        (":method", method),
        (":path", path),
        (":scheme", "http"),
    ];
    headers.extend(authorization.map(|value| ("authorization", value)));
    headers
}

#[track_caller]
pub fn forwarded(standing: Standing) -> Headers {
    match standing {
        Standing::Forwarded(headers) => headers,
        other => panic!("not forwarded: {other:?}"),
    }
}

#[track_caller]
pub fn replied(standing: Standing) -> Reply {
    match standing {
        Standing::Replied(reply) => reply,
        other => panic!("not answered here: {other:?}"),
    }
}

/// `STATUS code` of a refusal, after a look at its form: media type, type, request id in body and header.
#[track_caller]
pub fn refusal(standing: Standing) -> String {
    let reply = replied(standing);
    assert_eq!(reply.headers.all("content-type"), ["application/problem+json"]);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["status"], reply.status);
    assert_eq!(body["request_id"], reply.headers.one("x-request-id").unwrap());
    let code = body["code"].as_str().unwrap();
    let kind = format!("https://docs.greenlang.ai/problems#{}", code.replace('_', "-"));
    assert_eq!(body["type"], kind);
    format!("{} {code}", reply.status)
}
