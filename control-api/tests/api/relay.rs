//! The way of a change from the record into the feed, through the failures of everything on it. Read by the sidecars'
//! own reader, as the sidecars' user.

use std::time::Duration;

use gatehouse_contract::{
    ApiKeyId, TenantId,
    sidecar::{Change, Denied},
};
use gatehouse_redis_kit::{
    cred::{Holder, Keys, Permissions},
    feed::{Feed, News, Reader, Reading},
};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::{
    access::refused,
    database::Database,
    redis::Redis,
    world::{ISSUER, Service, Setup, Tenant, World, until},
};

const PATIENCE: Duration = Duration::from_secs(5);
/// Sidecars take an older heartbeat for silence.
const SILENT: Duration = Duration::from_secs(5);

struct Sidecar {
    runtime: Runtime,
    reader: Reader,
    keys: Keys,
    permissions: Permissions,
}

impl Sidecar {
    fn new(redis: &Redis) -> Self {
        let address = redis.address("sidecar");
        Self {
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
            reader: Reader::new(&address, PATIENCE).unwrap(),
            keys: Keys::new(&address, PATIENCE).unwrap(),
            permissions: Permissions::new(&address, PATIENCE).unwrap(),
        }
    }

    fn read(&self, epoch: Option<&str>, after: u64) -> Option<Feed> {
        match self.runtime.block_on(self.reader.read(epoch, after)) {
            Ok(Reading::Feed(feed)) => Some(feed),
            _ => None,
        }
    }

    /// The feed, once it is alive.
    fn alive(&self) -> Feed {
        until(|| {
            self.read(None, 0).filter(|feed| feed.heartbeat_age.is_some_and(|age| age < SILENT))
        })
    }

    /// What the feed says after `feed`, once this is in it.
    fn sees(&self, feed: &Feed, wanted: impl Fn(&Change) -> bool) {
        until(|| {
            let feed = self.read(Some(&feed.epoch), feed.sequence)?;
            let News::Changes(changes) = feed.news else { panic!("the feed broke") };
            changes.iter().any(&wanted).then_some(())
        });
    }

    fn has_key(&self, id: ApiKeyId, epoch: &str) -> bool {
        let found = self.runtime.block_on(self.keys.find(id)).unwrap();
        assert_eq!(found.complete.as_deref(), Some(epoch), "absence is final");
        found.key.is_some()
    }
}

fn start() -> (World, Redis, Sidecar) {
    let database = Database::migrated();
    let mut setup = Setup::new(&database);
    let redis = Redis::start(setup.dir.path());
    setup.config["redis"] = json!({"url": redis.url("control")});
    setup.config["database"]["system"] = json!(database.url("gatehouse_system"));
    let operator = setup.bootstrap(&[]);
    let service = Service::start(&setup);
    let mut world = World { service, setup, database, platform: String::new() };
    world.platform = world.token_of(&operator);
    let sidecar = Sidecar::new(&redis);
    (world, redis, sidecar)
}

fn ready(world: &World) -> Value {
    crate::http::send("GET", &format!("{}/readyz", world.service.admin), &[], None).json()
}

fn metric(world: &World, name: &str) -> f64 {
    let url = format!("{}/metrics", world.service.admin);
    let text = crate::http::send("GET", &url, &[], None).text;
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn suspend(world: &World, tenant: &Tenant, verb: &str) {
    let path = format!("/api/v1/factory/tenants/{}/{verb}", tenant.id);
    let answer = world.as_platform("POST", &path, "a test", None);
    assert_eq!(answer.status, 202, "{}", answer.text);
}

fn is_of(tenant: &Tenant) -> impl Fn(&Change) -> bool {
    let id: TenantId = tenant.id.parse().unwrap();
    move |change| matches!(change, Change::Tenant { tenant } if *tenant == id)
}

fn made_key(world: &World, tenant: &Tenant) -> (ApiKeyId, String) {
    let path = format!("/api/v1/factory/tenants/{}/api-keys", tenant.id);
    let body = json!({"name": "a", "roles": ["viewer"]});
    let made = world.as_platform("POST", &path, "a test", Some(body));
    assert_eq!(made.status, 201, "{}", made.text);
    (
        made.json()["id"].as_str().unwrap().parse().unwrap(),
        made.json()["key"].as_str().unwrap().to_owned(),
    )
}

#[test]
fn every_kind_of_change_reaches_the_feed() {
    let (world, _redis, sidecar) = start();
    let tenant = world.tenant("tenant-a");
    let client = world.client(&tenant, "viewer");
    let token = world.token_of(&client);
    let id = client["client_id"].as_str().unwrap();
    let at = |rest: &str| format!("/api/v1/factory/tenants/{}/clients/{id}/{rest}", tenant.id);
    let feed = sidecar.alive();
    suspend(&world, &tenant, "suspend");
    sidecar.sees(&feed, is_of(&tenant));
    suspend(&world, &tenant, "resume");

    assert_eq!(world.as_platform("PUT", &at("roles/developer"), "a test", None).status, 204);
    sidecar
        .sees(&feed, |change| matches!(change, Change::Subject { subject, .. } if subject == id));

    let body = format!(
        "client_id={id}&client_secret={}&token={token}",
        client["client_secret"].as_str().unwrap()
    );
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let url = format!("{}/oauth2/revoke", world.service.url);
    assert_eq!(crate::http::send("POST", &url, &form, Some(&body)).status, 200);
    sidecar.sees(&feed, |change| matches!(change, Change::Deny(Denied::Token { .. })));

    assert_eq!(world.as_platform("POST", &at("revoke-tokens"), "a test", None).status, 204);
    sidecar.sees(&feed, |change| {
        matches!(change, Change::Deny(Denied::IssuedBefore { subject, .. }) if subject == id)
    });

    assert_eq!(
        world.call(&world.platform, "POST", "/api/v1/factory/signing-keys", None).status,
        201
    );
    sidecar.sees(&feed, |change| matches!(change, Change::Keys { issuer } if issuer == ISSUER));
    assert!(metric(&world, "gatehouse_relay_changes_total") >= 5.0);
    assert_eq!(
        (metric(&world, "gatehouse_relay_leads"), ready(&world)["checks"]["relay"].clone()),
        (1.0, json!("leads"))
    );
    // What was told is not told again.
    until(|| {
        (world.database.query("SELECT count(*) FROM outbox WHERE relayed_at IS NULL") == "0")
            .then_some(())
    });
}

#[test]
fn keys_are_projected_before_their_change_can_be_read() {
    let (world, _redis, sidecar) = start();
    let tenant = world.tenant("tenant-a");
    let feed = sidecar.alive();
    let (id, key) = made_key(&world, &tenant);
    let told = move |change: &Change| matches!(change, Change::Credential { credential } if *credential == id.to_string());
    sidecar.sees(&feed, told);
    assert!(sidecar.has_key(id, &feed.epoch));
    let feed = sidecar.alive();
    let path = format!("/api/v1/factory/tenants/{}/api-keys/{id}", tenant.id);
    assert_eq!(world.as_platform("DELETE", &path, "a test", None).status, 204);
    sidecar.sees(&feed, told);
    assert!(!sidecar.has_key(id, &feed.epoch));
    refused(&world.ask_principal(&json!({"kind": "api_key", "key": key})), 401, "token_invalid");
}

#[test]
fn a_redis_that_lost_everything_gets_a_new_feed_with_all_that_is_denied() {
    let (world, mut redis, sidecar) = start();
    let tenant = world.tenant("tenant-a");
    let client = world.client(&tenant, "viewer");
    let id = client["client_id"].as_str().unwrap();
    let (kept, _) = made_key(&world, &tenant);
    let (ended, _) = made_key(&world, &tenant);
    let path = format!("/api/v1/factory/tenants/{}", tenant.id);
    let end = world.as_platform("DELETE", &format!("{path}/api-keys/{ended}"), "a test", None);
    assert_eq!(end.status, 204);
    let all = format!("{path}/clients/{id}/revoke-tokens");
    assert_eq!(world.as_platform("POST", &all, "a test", None).status, 204);
    let before = sidecar.alive();
    redis.begin_anew();
    let after = sidecar.alive();
    assert_ne!(after.epoch, before.epoch);
    let News::Snapshot(denied) = &after.news else { panic!("{after:?}") };
    let of_client =
        |denied: &&Denied| matches!(denied, Denied::IssuedBefore { subject, .. } if subject == id);
    assert_eq!(denied.iter().filter(of_client).count(), 1, "{denied:?}");
    assert!(sidecar.has_key(kept, &after.epoch));
    assert!(!sidecar.has_key(ended, &after.epoch));
    // And it goes on.
    suspend(&world, &tenant, "suspend");
    sidecar.sees(&after, is_of(&tenant));
    assert_eq!(metric(&world, "gatehouse_relay_epochs_total"), 2.0);
}

#[test]
fn a_redis_that_went_back_in_time_is_not_believed() {
    let (world, redis, sidecar) = start();
    let tenant = world.tenant("tenant-a");
    let before = sidecar.alive();
    suspend(&world, &tenant, "suspend");
    sidecar.sees(&before, is_of(&tenant));
    // The last change is gone, as after a failover to a replica that lags.
    redis.ask(&["XTRIM", "feed:changes", "MAXLEN", "0"]);
    redis.ask(&["DEL", "feed:changes"]);
    let after = until(|| {
        let feed = sidecar.alive();
        (feed.epoch != before.epoch).then_some(feed)
    });
    assert!(matches!(after.news, News::Snapshot(_)));
}

#[test]
fn while_redis_is_away_changes_wait_and_the_api_serves() {
    let (world, mut redis, sidecar) = start();
    let tenant = world.tenant("tenant-a");
    sidecar.alive();
    redis.end();
    suspend(&world, &tenant, "suspend");
    until(|| (ready(&world)["checks"]["relay"] == "follows").then_some(()));
    assert_eq!(ready(&world)["status"], "ready", "the record answers all the same");
    let waits = "SELECT count(*) FROM outbox WHERE relayed_at IS NULL AND kind = 'tenant'";
    assert_eq!(world.database.query(waits), "1");
    let backlog = || metric(&world, "gatehouse_relay_backlog_changes");
    until(|| (backlog() == 1.0).then_some(()));
    assert!(metric(&world, "gatehouse_relay_backlog_oldest_seconds") > 0.0);
    redis.begin_anew();
    sidecar.alive();
    until(|| (world.database.query(waits) == "0").then_some(()));
    until(|| (backlog() == 0.0).then_some(()));
    assert_eq!(metric(&world, "gatehouse_relay_backlog_oldest_seconds"), 0.0);
}

#[test]
fn without_the_record_the_feed_falls_silent_and_comes_back_unbroken() {
    let (world, _redis, sidecar) = start();
    let tenant = world.tenant("tenant-a");
    let before = sidecar.alive();
    let name = world.database.query("SELECT current_database()");
    let allow = |yes: bool| {
        world.database.elsewhere(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {yes}"))
    };
    allow(false);
    world.database.elsewhere(&format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'"
    ));
    until(|| {
        let feed = sidecar.read(None, 0)?;
        feed.heartbeat_age.is_none_or(|age| age > SILENT).then_some(())
    });
    allow(true);
    let after = sidecar.alive();
    assert_eq!(after.epoch, before.epoch, "nothing was lost");
    until(|| world.get(&world.platform, "/api/v1/registry/agents").status.ne(&503).then_some(()));
    suspend(&world, &tenant, "suspend");
    sidecar.sees(&before, is_of(&tenant));
}

#[test]
fn another_process_takes_over_without_a_break() {
    let (world, _redis, sidecar) = start();
    let tenant = world.tenant("tenant-a");
    let before = sidecar.alive();
    let second = Service::start(&world.setup);
    let World { service, setup, database, platform } = world;
    assert_eq!(service.stop().code(), Some(0));
    let world = World { service: second, setup, database, platform };
    until(|| (ready(&world)["checks"]["relay"] == "leads").then_some(()));
    suspend(&world, &tenant, "suspend");
    sidecar.sees(&before, is_of(&tenant));
    assert_eq!(metric(&world, "gatehouse_relay_epochs_total"), 0.0, "the same feed goes on");
}

#[test]
fn a_change_of_another_version_holds_nothing_up() {
    let (world, _redis, sidecar) = start();
    let tenant = world.tenant("tenant-a");
    let feed = sidecar.alive();
    world.database.query(&format!(
        r#"INSERT INTO outbox (tenant_id, kind, payload) VALUES ('{}', 'deny', '{{"kind":"of tomorrow"}}')"#,
        tenant.id
    ));
    suspend(&world, &tenant, "suspend");
    sidecar.sees(&feed, is_of(&tenant));
    until(|| {
        (world.database.query("SELECT count(*) FROM outbox WHERE relayed_at IS NULL") == "0")
            .then_some(())
    });
}

#[test]
fn what_a_sidecar_was_told_is_remembered_until_it_changes() {
    let (world, _redis, sidecar) = start();
    let tenant = world.tenant("tenant-a");
    let client = world.client(&tenant, "viewer");
    let subject = client["client_id"].as_str().unwrap();
    let (key_id, key) = made_key(&world, &tenant);
    let feed = sidecar.alive();
    let id: TenantId = tenant.id.parse().unwrap();
    let of_token = Holder::Subject { issuer: ISSUER, subject, vouched: false };
    let remembered = |holder| {
        let got = sidecar.permissions.get(id, holder, &feed.epoch);
        sidecar.runtime.block_on(got).unwrap()
    };
    let ask_token =
        json!({"kind": "subject", "issuer": ISSUER, "tenant": tenant.id, "subject": subject});
    let ask_key = json!({"kind": "api_key", "key": key});
    // A change that was still under way voids what was remembered before it arrived: hence until.
    until(|| {
        assert_eq!(world.ask_principal(&ask_token).status, 200);
        assert_eq!(world.ask_principal(&ask_key).status, 200);
        (remembered(of_token).is_some() && remembered(Holder::Key(key_id)).is_some()).then_some(())
    });
    assert_eq!(remembered(of_token).unwrap().roles.to_string(), "viewer");
    let vouched = Holder::Subject { issuer: ISSUER, subject, vouched: true };
    assert_eq!(remembered(vouched), None, "another question");
    let role = format!("/api/v1/factory/tenants/{}/clients/{subject}/roles/developer", tenant.id);
    assert_eq!(world.as_platform("PUT", &role, "a test", None).status, 204);
    until(|| remembered(of_token).is_none().then_some(()));
    until(|| {
        world.ask_principal(&ask_token);
        Some(remembered(of_token)?.roles.to_string()).filter(|roles| roles == "viewer,developer")
    });
    let path = format!("/api/v1/factory/tenants/{}/api-keys/{key_id}", tenant.id);
    world.ask_principal(&ask_key);
    assert_eq!(world.as_platform("DELETE", &path, "a test", None).status, 204);
    until(|| remembered(Holder::Key(key_id)).is_none().then_some(()));
    assert_eq!(world.ask_principal(&ask_key).status, 401);
    assert_eq!(remembered(Holder::Key(key_id)), None, "a dead key is nothing to remember");
}

#[test]
fn r23_a_change_of_limits_reaches_the_feed_and_voids_what_was_remembered() {
    let (world, _redis, sidecar) = start();
    let tenant = world.tenant("tenant-a");
    let client = world.client(&tenant, "viewer");
    let subject = client["client_id"].as_str().unwrap();
    let (key_id, key) = made_key(&world, &tenant);
    let feed = sidecar.alive();
    let id: TenantId = tenant.id.parse().unwrap();
    let holders =
        [Holder::Subject { issuer: ISSUER, subject, vouched: false }, Holder::Key(key_id)];
    let asks = [
        json!({"kind": "subject", "issuer": ISSUER, "tenant": tenant.id, "subject": subject}),
        json!({"kind": "api_key", "key": key}),
    ];
    let remembered = |holder| {
        let got = sidecar.permissions.get(id, holder, &feed.epoch);
        sidecar.runtime.block_on(got).unwrap()
    };
    // A change that was still under way voids what was remembered before it arrived: hence until.
    let limits = |wanted: Option<u32>| {
        for (holder, ask) in holders.iter().zip(&asks) {
            until(|| {
                assert_eq!(world.ask_principal(ask).status, 200);
                let facts = remembered(*holder)?;
                (facts.limits.and_then(|limits| limits.per_day) == wanted).then_some(())
            });
        }
    };
    limits(None);
    let feed = sidecar.alive();
    let path = format!("/api/v1/factory/tenants/{}/limits", tenant.id);
    let put = world.as_platform("PUT", &path, "a test", Some(json!({"per_day": 7})));
    assert_eq!(put.status, 200, "{}", put.text);
    sidecar.sees(&feed, is_of(&tenant));
    limits(Some(7));
    assert_eq!(world.as_platform("DELETE", &path, "a test", None).status, 204);
    limits(None);
}

#[test]
fn v5_a_change_of_the_pin_reaches_the_feed_and_voids_what_was_remembered() {
    let (world, _redis, sidecar) = start();
    let tenant = world.tenant("tenant-a");
    let client = world.client(&tenant, "viewer");
    let subject = client["client_id"].as_str().unwrap();
    let feed = sidecar.alive();
    let id: TenantId = tenant.id.parse().unwrap();
    let holder = Holder::Subject { issuer: ISSUER, subject, vouched: false };
    let ask = json!({"kind": "subject", "issuer": ISSUER, "tenant": tenant.id, "subject": subject});
    let remembers = |wanted: Option<&str>| {
        until(|| {
            assert_eq!(world.ask_principal(&ask).status, 200);
            let got = sidecar.permissions.get(id, holder, &feed.epoch);
            let facts = sidecar.runtime.block_on(got).unwrap()?;
            (facts.version_pin.as_deref() == wanted).then_some(())
        });
    };
    remembers(None);
    let feed = sidecar.alive();
    let path = format!("/api/v1/factory/tenants/{}/version-pin", tenant.id);
    let put = world.as_platform("PUT", &path, "a test", Some(json!({"version": "v1-beta"})));
    assert_eq!(put.status, 200, "{}", put.text);
    sidecar.sees(&feed, is_of(&tenant));
    remembers(Some("v1-beta"));
    assert_eq!(world.as_platform("DELETE", &path, "a test", None).status, 204);
    remembers(None);
}

#[test]
fn a_relay_needs_the_door_of_its_job() {
    let database = Database::empty();
    let mut setup = Setup::new(&database);
    setup.config["redis"] = json!({"url": "http://127.0.0.1"});
    let out = String::from_utf8(setup.refused().stderr).unwrap();
    assert!(out.contains("$.redis.url: not a URL of the right scheme"), "{out}");
    setup.config["redis"] = json!({"url": "redis://control:x@127.0.0.1:1"});
    let out = setup.refused();
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(64));
    assert!(text.contains("$.redis: needs $.database.system, which is missing"), "{text}");
}
