//! `/v1/principal` for API keys and sessions, and what is told of their last use.

use std::time::Duration;

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use gatehouse_authn::api_key::{ApiKey, Peppers, compose};
use gatehouse_contract::{
    ApiKeyId, Problem, Reason, TenantId,
    problem::MEDIA_TYPE,
    sidecar::{Change, LastUsed, PrincipalFacts},
};
use gatehouse_redis_kit::cred::{Holder, Keys, Permissions, Projected};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::process::{Redis, Relay, Script, Server, Sidecar, config, memory, until};

const PEPPER: [u8; 32] = [7; 32];
const DEADLINE: Duration = Duration::from_secs(5);
const PRINCIPAL: &str = "/internal/v1/principal";
const LAST_USED: &str = "/internal/v1/last-used";

fn tenant() -> TenantId {
    TenantId::new(Uuid::from_u128(7))
}

/// Not of now: an id that says so is asked about.
fn id(n: u128) -> ApiKeyId {
    ApiKeyId::new(Uuid::from_u128(n))
}

fn key(id: ApiKeyId, secret: u8) -> String {
    compose(&"test".parse().unwrap(), id, [secret; 32])
}

fn facts(id: ApiKeyId) -> PrincipalFacts {
    let credential = Some(id.to_string());
    PrincipalFacts { credential, ..PrincipalFacts::member(tenant(), id.to_string()) }
}

fn problem(status: StatusCode, reason: Reason) -> Response {
    let body = Problem::new(reason).to_json();
    (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response()
}

fn worthless() -> Response {
    problem(StatusCode::UNAUTHORIZED, Reason::TokenInvalid)
}

fn known(id: ApiKeyId) -> impl Fn() -> Response + Send + Sync + 'static {
    move || axum::Json(facts(id)).into_response()
}

fn peppers_file(dir: &TempDir) -> String {
    let path = dir.path().join("peppers.json");
    let digits = "07".repeat(32);
    std::fs::write(&path, json!({"current": "p1", "peppers": {"p1": digits}}).to_string()).unwrap();
    path.display().to_string()
}

/// The whole cast: Redis with a live feed, a control API, a sidecar with peppers.
struct World {
    redis: Redis,
    relay: Relay,
    script: Script,
    control: Server,
    sidecar: Sidecar,
    keys: Keys,
    permissions: Permissions,
    _dir: TempDir,
}

impl World {
    async fn start() -> Self {
        let (redis, dir) = (Redis::start(), TempDir::new().unwrap());
        let relay = Relay::start(&redis).await;
        let script = Script::new(worthless);
        let control = Server::start(&script).await;
        let more = json!({"peppers_file": peppers_file(&dir), "last_used_s": 1});
        let sidecar = Sidecar::with_feed(&redis, control.at, more).await;
        let address = redis.url("control", "test").parse().unwrap();
        let keys = Keys::new(&address, DEADLINE).unwrap();
        let permissions = Permissions::new(&address, DEADLINE).unwrap();
        Self { redis, relay, script, control, sidecar, keys, permissions, _dir: dir }
    }

    /// Puts a key into the projection, with its facts if `cached`.
    async fn project(&self, id: ApiKeyId, secret: u8, expires_at_s: Option<u64>, cached: bool) {
        let text = key(id, secret);
        let peppers = Peppers::new("p1".into(), [("p1".to_owned(), PEPPER)].into()).unwrap();
        let mark = peppers.mark(ApiKey::parse(&text).unwrap()).unwrap();
        let projected = Projected {
            tenant: tenant(),
            pepper_id: mark.pepper_id,
            hmac: mark.hmac,
            expires_at_s,
        };
        self.keys.put(id, &projected).await.unwrap();
        if cached {
            let holder = Holder::Key(id);
            let generation = self.permissions.generation(tenant(), holder).await.unwrap();
            self.permissions.put(tenant(), holder, &generation, &facts(id)).await.unwrap();
        }
    }

    async fn ask(&self, key: &str, client: &str) -> u16 {
        let ask = json!({"kind": "api_key", "key": key, "client": client});
        self.sidecar.post("/v1/principal", &ask).await.0
    }

    fn asked(&self) -> usize {
        self.control.bodies(PRINCIPAL).len()
    }

    async fn refused(&self, cause: &str) -> Option<u64> {
        let line = format!("gatehouse_credentials_refused_total{{cause=\"{cause}\"}}");
        self.sidecar.metric(&line).await
    }
}

#[tokio::test]
async fn a_projected_key_with_cached_facts_is_told_without_the_record_and_a_wrong_secret_is_401() {
    let world = World::start().await;
    world.project(id(1), 1, None, true).await;
    let ask = json!({"kind": "api_key", "key": key(id(1), 1)});
    let (status, body) = world.sidecar.post("/v1/principal", &ask).await;
    assert_eq!((status, body["credential"].as_str()), (200, Some(&*id(1).to_string())), "{body}");
    assert_eq!(world.ask(&key(id(1), 2), "c").await, 401);
    assert_eq!(world.ask("gk_test_nonsense", "c").await, 401);
    assert_eq!(world.ask(&format!("{} ", key(id(1), 1)), "c").await, 401);
    assert_eq!(world.asked(), 0);
    assert_eq!(
        (world.refused("unknown").await, world.refused("malformed").await),
        (Some(1), Some(2))
    );
}

#[tokio::test]
async fn a_projected_key_without_cached_facts_is_asked_for() {
    let world = World::start().await;
    world.project(id(1), 1, None, false).await;
    world.script.set(known(id(1)));
    assert_eq!(world.ask(&key(id(1), 1), "c").await, 200);
    assert_eq!(world.asked(), 1);
    // The record has the last word.
    world.script.set(worthless);
    world.relay.publish(Change::Credential { credential: id(1).to_string() }).await;
    let gone = async || (world.ask(&key(id(1), 1), "c").await == 401).then_some(());
    until("the key to be revoked", gone).await;
}

/// Facts that are another key's, however they came there, are not this key's.
#[tokio::test]
async fn cached_facts_of_another_key_are_not_told() {
    let world = World::start().await;
    world.project(id(1), 1, None, false).await;
    let generation = world.permissions.generation(tenant(), Holder::Key(id(1))).await.unwrap();
    let other = facts(id(2));
    world.permissions.put(tenant(), Holder::Key(id(1)), &generation, &other).await.unwrap();
    assert_eq!(world.ask(&key(id(1), 1), "c").await, 401);
    assert_eq!(world.asked(), 1);
}

#[tokio::test]
async fn a_revoked_key_ends_within_a_second_of_the_feeds_word() {
    let world = World::start().await;
    world.keys.complete("e1").await.unwrap();
    world.project(id(1), 1, None, true).await;
    world.project(id(2), 2, None, true).await;
    assert_eq!(world.ask(&key(id(1), 1), "c").await, 200);
    let begin = std::time::Instant::now();
    world.keys.remove(id(1)).await.unwrap();
    world.relay.publish(Change::Credential { credential: id(1).to_string() }).await;
    let gone = async || (world.ask(&key(id(1), 1), "c").await == 401).then_some(());
    until("the key to be revoked", gone).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(world.ask(&key(id(2), 2), "c").await, 200);
    assert_eq!(world.asked(), 0);
}

#[tokio::test]
async fn a_keys_absence_is_final_only_under_a_complete_projection_of_this_epoch() {
    let world = World::start().await;
    assert_eq!(world.ask(&key(id(1), 1), "c").await, 401);
    assert_eq!(world.asked(), 1, "the projection is not complete: the record says");
    world.keys.complete("e1").await.unwrap();
    assert_eq!(world.ask(&key(id(2), 1), "c").await, 401);
    assert_eq!(world.asked(), 1);
    // One that was made just now may not have arrived.
    let new = ApiKeyId::new(Uuid::now_v7());
    world.script.set(known(new));
    assert_eq!(world.ask(&key(new, 1), "c").await, 200);
    assert_eq!(world.asked(), 2);
    world.relay.begin("e2", &[]).await;
    // By a relay that was slower than the new epoch.
    world.keys.complete("e1").await.unwrap();
    world.script.set(known(id(3)));
    let said = async || (world.ask(&key(id(3), 1), "c").await == 200).then_some(());
    until("the new epoch", said).await;
}

#[tokio::test]
async fn an_expired_key_is_401_whoever_vouches_for_it() {
    let world = World::start().await;
    let now_s = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    world.project(id(1), 1, Some(now_s + 2), true).await;
    assert_eq!(world.ask(&key(id(1), 1), "c").await, 200);
    let ended = async || (world.ask(&key(id(1), 1), "c").await == 401).then_some(());
    until("the key to end", ended).await;
    let expired = PrincipalFacts { expires_at_s: Some(now_s), ..facts(id(2)) };
    world.script.set(move || axum::Json(&expired).into_response());
    assert_eq!(world.ask(&key(id(2), 1), "c").await, 401);
    assert_eq!(world.refused("expired").await, Some(1));
}

/// A guesser is not let through, is not told that an unseen key is bad, and does not wear the record out.
#[tokio::test]
async fn unknown_keys_meet_a_memory_and_their_clients_budget() {
    let world = World::start().await;
    for _ in 0..3 {
        assert_eq!(world.ask(&key(id(1), 1), "a").await, 401);
    }
    assert_eq!(world.asked(), 1, "the same key is remembered");
    let mut answers = Vec::new();
    for n in 2..=30 {
        answers.push(world.ask(&key(id(n), 1), "a").await);
    }
    assert_eq!(answers.iter().filter(|status| **status == 401).count(), 19);
    assert_eq!(answers.iter().filter(|status| **status == 503).count(), 10);
    assert_eq!((world.asked(), world.refused("budget").await), (20, Some(10)));
    // A good key that Redis knows passes, from the same address, too; others' clients are not touched.
    world.project(id(99), 9, None, true).await;
    assert_eq!(world.ask(&key(id(99), 9), "a").await, 200);
    assert_eq!(world.ask(&key(id(98), 1), "b").await, 401);
}

#[tokio::test]
async fn with_redis_away_the_record_tells_keys() {
    let mut world = World::start().await;
    world.keys.complete("e1").await.unwrap();
    world.redis.kill();
    world.script.set(known(id(1)));
    assert_eq!(world.ask(&key(id(1), 1), "c").await, 200);
    world.script.set(worthless);
    assert_eq!(world.ask(&key(id(2), 1), "c").await, 401);
    world.script.set(|| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    assert_eq!(world.ask(&key(id(3), 1), "c").await, 503);
}

#[tokio::test]
async fn without_peppers_keys_are_503() {
    let control = Server::start(&Script::new(known(id(1)))).await;
    let sidecar = Sidecar::with_control(control.at);
    let ask = json!({"kind": "api_key", "key": key(id(1), 1)});
    let (status, body) = sidecar.post("/v1/principal", &ask).await;
    assert_eq!((status, &body["code"]), (503, &json!("identity_unavailable")));
    assert_eq!(control.asked(), 0);
}

#[tokio::test]
async fn a_session_is_asked_for_and_kept_for_a_moment() {
    let world = World::start().await;
    let status = async |session: &str| {
        let ask = json!({"kind": "session", "session": session, "client": "c"});
        world.sidecar.post("/v1/principal", &ask).await.0
    };
    assert_eq!(status("s1").await, 401);
    assert_eq!(status("s1").await, 401);
    assert_eq!(world.asked(), 1);
    world.script.set(known(id(5)));
    assert_eq!((status("s2").await, status("s2").await), (200, 200));
    assert_eq!(world.asked(), 2);
    world.script.set(worthless);
    world.relay.publish(Change::Credential { credential: id(5).to_string() }).await;
    let begin = std::time::Instant::now();
    until("the logout", async || (status("s2").await == 401).then_some(())).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

/// What cannot hear of a logout may not remember.
#[tokio::test]
async fn while_the_feed_is_silent_a_session_is_asked_for_every_time() {
    let control = Server::start(&Script::new(known(id(1)))).await;
    let sidecar = Sidecar::with_control(control.at);
    for asked in 1..=3 {
        let ask = json!({"kind": "session", "session": "s"});
        assert_eq!(sidecar.post("/v1/principal", &ask).await.0, 200);
        assert_eq!(control.asked(), asked);
    }
}

fn told(control: &Server) -> Vec<LastUsed> {
    let bodies = control.bodies(LAST_USED);
    bodies.iter().map(|body| serde_json::from_str(body).unwrap()).collect()
}

#[tokio::test]
async fn last_use_is_told_in_batches_and_not_per_request() {
    let world = World::start().await;
    world.project(id(1), 1, None, true).await;
    world.project(id(2), 1, None, true).await;
    for _ in 0..50 {
        assert_eq!(world.ask(&key(id(1), 1), "c").await, 200);
    }
    assert_eq!(world.ask(&key(id(2), 1), "c").await, 200);
    world.ask(&key(id(3), 1), "c").await;
    let names = async || {
        let names: Vec<String> =
            told(&world.control).into_iter().flat_map(|told| told.seen_at_s.into_keys()).collect();
        (names.contains(&id(1).to_string()) && names.contains(&id(2).to_string())).then_some(names)
    };
    let names = until("the batch", names).await;
    assert!(names.len() <= 6 && !names.contains(&id(3).to_string()), "{names:?}");
}

#[tokio::test]
async fn the_last_uses_are_told_before_the_end() {
    let dir = TempDir::new().unwrap();
    let control = Server::start(&Script::new(known(id(1)))).await;
    let mut sidecar = Sidecar::start(&config(
        &memory(),
        json!({
            "control_api": {"internal": format!("http://{}", control.at)},
            "peppers_file": peppers_file(&dir),
            "last_used_s": 3600,
        }),
    ));
    let ask: Value = json!({"kind": "api_key", "key": key(id(1), 1)});
    assert_eq!(sidecar.post("/v1/principal", &ask).await.0, 200);
    assert!(told(&control).is_empty());
    sidecar.signal(Signal::TERM);
    until("the end", async || sidecar.has_ended().then_some(())).await;
    let told = told(&control);
    assert_eq!(told.len(), 1);
    assert!(told[0].seen_at_s.contains_key(&id(1).to_string()));
}
