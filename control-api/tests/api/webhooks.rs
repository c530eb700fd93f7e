//! Webhook endpoints: where a tenant may be told, and secrets that are shown once, rotated, and never read.

use gatehouse_store::master_keys::MasterKeys;
use serde_json::{Value, json};

use crate::{
    access::refused,
    database::Database,
    http::send,
    world::{Setup, Tenant, World, until},
};

fn at(tenant: &Tenant, rest: &str) -> String {
    format!("/api/v1/factory/tenants/{}/webhooks{rest}", tenant.id)
}

fn hook(url: &str) -> Value {
    json!({"url": url, "events": ["execution.failed", "execution.completed"]})
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn an_endpoint_is_made_read_changed_and_removed_and_its_secret_is_shown_once() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let body = json!({"url": "https://Hooks.Example:443/a?b=c", "description": "billing",
        "events": ["execution.failed", "execution.completed", "execution.failed"]});
    let made = world.post(&admin, &at(&tenant, ""), body);
    assert_eq!(
        (made.status, made.header("cache-control")),
        (201, Some("no-store")),
        "{}",
        made.text
    );
    let (id, secret) =
        (text(&made.json()["id"]).to_owned(), text(&made.json()["secret"]).to_owned());
    // 32 bytes, as the Standard Webhooks libraries take them.
    assert!(secret.starts_with("whsec_") && secret.len() == 6 + 44, "{secret}");
    let one = at(&tenant, &format!("/{id}"));
    assert_eq!(made.header("location"), Some(one.as_str()));
    assert_eq!(made.json()["url"], "https://hooks.example/a?b=c");
    assert_eq!(made.json()["events"], json!(["execution.completed", "execution.failed"]));
    let read = world.get(&admin, &one);
    assert_eq!((read.status, read.json()["enabled"].clone()), (200, json!(true)));
    for shown in [&read, &world.get(&admin, &at(&tenant, ""))] {
        assert!(!shown.text.contains("secret"), "{}", shown.text);
    }
    let change = |body: Value| world.call(&admin, "PATCH", &one, Some(body));
    let changed = change(json!({"description": null, "enabled": false}));
    assert_eq!(changed.status, 200, "{}", changed.text);
    let now = changed.json();
    assert_eq!((&now["description"], &now["enabled"]), (&Value::Null, &json!(false)));
    assert_eq!(now["url"], "https://hooks.example/a?b=c", "what is not named stays");
    refused(&change(json!({"url": "https://10.0.0.1/"})), 422, "body_invalid");
    refused(&change(json!({"events": ["agent.exploded"]})), 422, "body_invalid");
    assert_eq!(world.call(&admin, "DELETE", &one, None).status, 204);
    refused(&world.get(&admin, &one), 404, "not_found");
    // Its audit has what was before and after, and no secret.
    let rows = world
        .get(&admin, &format!("/api/v1/factory/tenants/{}/audit?target_kind=webhook", tenant.id));
    let rows = rows.json()["items"].as_array().unwrap().clone();
    let actions: Vec<&str> = rows.iter().map(|row| text(&row["action"])).collect();
    assert_eq!(actions, ["webhook.delete", "webhook.update", "webhook.create"]);
    assert_eq!(rows[1]["details"]["old"]["description"], "billing");
    assert_eq!(rows[1]["details"]["new"]["enabled"], false);
    assert!(!Value::Array(rows).to_string().contains("whsec_"));
}

#[test]
fn only_public_addresses_under_tls_are_taken_in_whatever_spelling() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    for bad in [
        "http://hooks.example/",
        "https://user:pass@hooks.example/",
        "https://hooks.example/#part",
        "https://hooks.example:22/",
        "https://hooks.example:6379/",
        "https://hooks.example:80/",
        "https://localhost/",
        "https://redis.localhost/",
        "https://metadata.google.internal/",
        "https://printer.local/",
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://172.16.0.1/",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[fe80::1]/",
        "https://[fd00:ec2::254]/",
        "https://hooks.example\\@127.0.0.1/",
        "hooks.example",
        "",
    ] {
        let answer = world.post(&admin, &at(&tenant, ""), hook(bad));
        refused(&answer, 422, "body_invalid");
        assert_eq!(answer.json()["errors"][0]["pointer"], "/url", "{bad}: {}", answer.text);
        // What the address carries may be its owner's secret.
        assert!(!answer.text.contains("user:pass"), "{}", answer.text);
    }
    assert_eq!(world.database.query("SELECT count(*) FROM webhook_endpoints"), "0");
    for good in ["https://hooks.example/", "https://hooks.example:8443/x", "https://1.1.1.1/"] {
        assert_eq!(world.post(&admin, &at(&tenant, ""), hook(good)).status, 201, "{good}");
    }
    // The platform's operator may name no other either.
    let answer =
        world.as_platform("POST", &at(&tenant, ""), "a test", Some(hook("https://10.0.0.1/")));
    refused(&answer, 422, "body_invalid");
    let answer =
        world.as_platform("POST", &at(&tenant, ""), "a test", Some(hook("https://b.example/")));
    assert_eq!(answer.status, 201, "{}", answer.text);
}

/// The secrets of an endpoint as they are stored: now, and before.
fn stored(world: &World, id: &str) -> (Vec<u8>, Option<Vec<u8>>) {
    let row = world.database.query(&format!(
        "SELECT encode(sealed_secret, 'hex') || ' ' || coalesce(encode(sealed_previous_secret, 'hex'), '')
         FROM webhook_endpoints WHERE id = '{id}'"
    ));
    let (now, before) = row.split_once(' ').unwrap_or((&row, ""));
    let bytes = |hex: &str| {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    };
    (bytes(now), (!before.is_empty()).then(|| bytes(before)))
}

/// What is sealed opens as this endpoint's alone, and is what was shown.
fn opens(keys: &MasterKeys, id: &str, sealed: &[u8], shown: &str) {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let plain = keys.open(&format!("gatehouse/webhook-secret/{id}"), sealed).unwrap();
    assert_eq!(format!("whsec_{}", STANDARD.encode(plain)), shown);
    assert!(
        keys.open("gatehouse/webhook-secret/0191d6b0-7c3e-7aaa-8bbb-0123456789ab", sealed).is_err()
    );
}

#[test]
fn a_rotation_leaves_both_secrets_until_the_overlap_ends_and_reseal_takes_both_along() {
    let mut world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let made = world.post(&admin, &at(&tenant, ""), hook("https://a.example/")).json();
    let (id, first) = (text(&made["id"]).to_owned(), text(&made["secret"]).to_owned());
    let file = world.setup.dir.path().join("key");
    let keys = || MasterKeys::from_file(&file).unwrap();
    let rotate = |body: Value| {
        let answer = world.post(&admin, &at(&tenant, &format!("/{id}/rotate-secret")), body);
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
        answer.json()
    };
    let (now, before) = stored(&world, &id);
    opens(&keys(), &id, &now, &first);
    assert_eq!(before, None);
    let rotated = rotate(json!({}));
    assert!(rotated["previous_until"].is_string());
    let second = text(&rotated["secret"]).to_owned();
    let (now, before) = stored(&world, &id);
    opens(&keys(), &id, &now, &second);
    opens(&keys(), &id, &before.unwrap(), &first);
    let read = world.get(&admin, &at(&tenant, &format!("/{id}")));
    assert_eq!(read.json()["previous_until"], rotated["previous_until"]);
    // Another change of the endpoint moves no secret.
    let changed = world.call(
        &admin,
        "PATCH",
        &at(&tenant, &format!("/{id}")),
        Some(json!({"enabled": false})),
    );
    assert_eq!(changed.status, 200);
    opens(&keys(), &id, &stored(&world, &id).1.unwrap(), &first);
    refused(
        &world.post(
            &admin,
            &at(&tenant, &format!("/{id}/rotate-secret")),
            json!({"overlap_s": 604_801}),
        ),
        422,
        "body_invalid",
    );
    // Another key takes over in the file: both open under it, and under it alone.
    let new = "1d".repeat(32);
    let old = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{new}\n{old}\n")).unwrap();
    world.setup.config["database"]["system"] = world.database.url("gatehouse_system").into();
    let mut command = crate::world::binary();
    let out = command.args(["reseal", "--config"]).arg(world.setup.file()).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let done: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(done["secrets"], 3, "the signing key and both of the endpoint: {done}");
    std::fs::write(&file, &new).unwrap();
    let (now, before) = stored(&world, &id);
    opens(&keys(), &id, &now, &second);
    opens(&keys(), &id, &before.unwrap(), &first);
}

#[test]
fn a_rotation_without_an_overlap_ends_the_secret_before_at_once() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let made = world.post(&admin, &at(&tenant, ""), hook("https://a.example/")).json();
    let path = at(&tenant, &format!("/{}/rotate-secret", text(&made["id"])));
    for (overlap_s, kept) in [(60, true), (60, true), (0, false)] {
        let rotated = world.post(&admin, &path, json!({"overlap_s": overlap_s}));
        assert_eq!(rotated.json()["previous_until"].is_string(), kept, "{}", rotated.text);
        assert_eq!(stored(&world, text(&made["id"])).1.is_some(), kept);
    }
    let audited = world
        .database
        .query("SELECT count(*) FROM tenant_audit WHERE action = 'webhook.rotate_secret'");
    assert_eq!(audited, "3");
}

#[test]
fn a_tenant_has_twenty_endpoints_however_many_are_made_at_once() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let bearer = format!("Bearer {admin}");
    let url = format!("{}{}", world.service.url, at(&tenant, ""));
    let body = hook("https://a.example/").to_string();
    let ask = || {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        crate::conventions::settled(|| send("POST", &url, &headers, Some(&body))).status
    };
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..25).map(|_| scope.spawn(ask)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [[201; 20].as_slice(), &[409; 5]].concat());
    let more = world.post(&admin, &at(&tenant, ""), hook("https://a.example/"));
    refused(&more, 409, "conflict");
    assert!(more.text.contains("at most 20"), "{}", more.text);
}

#[test]
fn deliveries_show_how_far_they_are_and_nothing_that_was_sent_or_answered() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let made = world.post(&admin, &at(&tenant, ""), hook("https://a.example/")).json();
    let id = text(&made["id"]);
    for (state, status) in [("delivered", "204"), ("failed", "500"), ("pending", "NULL")] {
        world.database.query(&format!(
            "INSERT INTO webhook_deliveries (tenant_id, id, endpoint_id, event_id, event_kind, sealed_payload, state,
                attempt, last_status, last_error)
             VALUES ('{}', gen_random_uuid(), '{id}', gen_random_uuid(), 'execution.failed', 'planted', '{state}', 2,
                {status}, 'planted')",
            tenant.id
        ));
    }
    let list = |query: &str| world.get(&admin, &at(&tenant, &format!("/{id}/deliveries{query}")));
    let all = list("");
    assert_eq!(all.status, 200, "{}", all.text);
    assert!(!all.text.contains("planted"), "{}", all.text);
    let states: Vec<Value> =
        all.json()["items"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, ["pending", "failed", "delivered"]);
    let failed = list("?state=failed").json()["items"].clone();
    assert_eq!((failed.as_array().unwrap().len(), &failed[0]["last_status"]), (1, &json!(500)));
    refused(&list("?state=lost"), 400, "query_invalid");
}

#[test]
fn aex4_what_failed_is_delivered_again_at_the_tenants_word() {
    let world = World::new();
    let (tenant, other) = (world.tenant("tenant-a"), world.tenant("tenant-b"));
    let (admin, theirs) = (world.member(&tenant, "admin"), world.member(&other, "admin"));
    let made = world.post(&admin, &at(&tenant, ""), hook("https://a.example/")).json();
    let id = text(&made["id"]);
    world.database.query(&format!(
        "INSERT INTO webhook_deliveries (tenant_id, id, endpoint_id, event_id, event_kind, payload, state, attempt,
            last_status, last_error)
         SELECT '{}', gen_random_uuid(), '{id}', gen_random_uuid(), 'execution.failed', '{{}}', 'failed', 10, NULL, 'timeout'
         FROM generate_series(1, 1001)",
        tenant.id
    ));
    let listed = world.get(&admin, &at(&tenant, &format!("/{id}/deliveries?limit=1"))).json();
    let first = &listed["items"][0];
    assert_eq!((&first["last_error"], &first["due_at"]), (&json!("timeout"), &Value::Null));
    let one = at(&tenant, &format!("/{id}/deliveries/{}/replay", text(&first["id"])));
    let again = world.post(&admin, &one, json!({}));
    assert_eq!(again.status, 200, "{}", again.text);
    let again = again.json();
    assert_eq!((&again["state"], &again["attempt"]), (&json!("pending"), &json!(0)));
    assert_eq!(again["event_id"], first["event_id"]);
    assert!(again["due_at"].is_string());
    // Whatever became of it, but not what is not there.
    assert_eq!(world.post(&admin, &one, json!({})).status, 200);
    let missing = at(&tenant, &format!("/{id}/deliveries/{}/replay", tenant.id));
    refused(&world.post(&admin, &missing, json!({})), 404, "not_found");
    let all = at(&tenant, &format!("/{id}/replay"));
    refused(&world.post(&theirs, &all, json!({"since": "2020-01-01T00:00:00Z"})), 404, "not_found");
    refused(&world.post(&admin, &all, json!({"since": "yesterday"})), 422, "body_invalid");
    refused(&world.post(&admin, &all, json!({})), 422, "body_invalid");
    let replay = |since: &str| world.post(&admin, &all, json!({"since": since})).json();
    assert_eq!(replay("2999-01-01T00:00:00Z"), json!({"replayed": 0, "more": false}));
    assert_eq!(replay("2020-01-01T00:00:00Z"), json!({"replayed": 1000, "more": true}));
    assert_eq!(replay("2020-01-01T00:00:00Z"), json!({"replayed": 0, "more": false}));
    let by_platform = json!({"since": "2020-01-01T00:00:00Z"});
    let answer = world.as_platform("POST", &all, "a test", Some(by_platform));
    assert_eq!(answer.json(), json!({"replayed": 0, "more": false}), "{}", answer.text);
    let audited = "SELECT string_agg(action, ' ' ORDER BY id) FROM tenant_audit WHERE action LIKE 'webhook.replay%'";
    assert_eq!(
        world.database.query(audited),
        "webhook.replay webhook.replay webhook.replay_failed"
    );
}

/// The service as it runs: its guard has no exception, so that what stands in the table leads to nothing here.
#[test]
fn aex4_34_the_running_service_sends_nothing_to_this_machine() {
    let database = Database::migrated();
    let mut setup = Setup::new(&database);
    setup.config["database"]["system"] = json!(database.url("gatehouse_system"));
    // An exception for issuers is none for webhooks.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    setup.config["sign_in"] = json!({"public_origin": "http://127.0.0.1:1",
        "allow": [format!("https://127.0.0.1:{port}")]});
    let mut world = World::of(database, setup);
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let body = json!({"url": "https://a.example/", "events": ["agent.created"]});
    let made = world.post(&admin, &at(&tenant, ""), body).json();
    let id = text(&made["id"]).to_owned();
    let plant =
        format!("UPDATE webhook_endpoints SET url = 'https://127.0.0.1:{port}/?token=planted'");
    world.database.query(&plant);
    world.published(&tenant, &admin, "fuel");
    let path = at(&tenant, &format!("/{id}/deliveries"));
    let tried = until(|| {
        let listed = world.get(&admin, &path).json()["items"].clone();
        listed[0]["attempt"].as_i64().is_some_and(|attempt| attempt > 0).then_some(listed)
    });
    assert_eq!(tried.as_array().map(Vec::len), Some(1), "{tried}");
    assert_eq!(tried[0]["last_error"], "address_refused");
    assert_eq!(tried[0]["last_status"], Value::Null);
    assert!(listener.accept().is_err(), "nobody came");
    let ready: Value = send("GET", &format!("{}/readyz", world.service.admin), &[], None).json();
    assert_eq!(ready["checks"]["webhooks"], "delivers", "{ready}");
    let metrics = send("GET", &format!("{}/metrics", world.service.admin), &[], None).text;
    assert!(metrics.contains("gatehouse_webhook_attempts_total{outcome=\"retried\"}"), "{metrics}");
    let log = world.service.log();
    let line = log.iter().find(|line| line.contains("a webhook was attempted")).unwrap();
    assert!(line.contains(&tenant.id) && line.contains(&id), "{line}");
    assert!(!log.concat().contains("planted"), "no address is in the log");
}
