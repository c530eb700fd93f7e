//! Tenants as operations, organizations, configuration, quotas and usage, through the API.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::{
    access::refused,
    conventions::{operations, settled},
    http::{Answer, send},
    world::{Tenant, World, until},
};

const TENANTS: &str = "/api/v1/factory/tenants";
const AGENTS: &str = "/api/v1/registry/agents";
const RUNS: &str = "/api/v1/runtime/executions";

fn at(tenant: &Tenant, rest: &str) -> String {
    format!("{TENANTS}/{}/{rest}", tenant.id)
}

fn ok(answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text);
    answer.json_or_null()
}

/// A world whose service carries out its jobs, too.
fn with_jobs() -> World {
    let database = crate::database::Database::migrated();
    let mut setup = crate::world::Setup::new(&database);
    setup.config["database"]["system"] = database.url("gatehouse_system").into();
    World::of(database, setup)
}

#[test]
fn mtd1_a_tenant_is_made_suspended_resumed_and_deleted_as_operations() {
    let world = with_jobs();
    let why = |method: &str, path: &str| world.as_platform(method, path, "a test", None);
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let one = format!("{TENANTS}/{}", tenant.id);
    // Without a relay nobody is told: the operation says so by running on.
    let made = &ok(&world.get(&world.platform, "/api/v1/factory/operations"), 200)["items"][0];
    assert_eq!((&made["kind"], &made["state"]), (&json!("tenant.create"), &json!("running")));
    world.database.query("UPDATE outbox SET relayed_at = clock_timestamp()");
    let place = format!("/api/v1/factory/operations/{}", made["id"].as_str().unwrap());
    let done = ok(&world.get(&world.platform, &place), 200);
    assert_eq!((&done["state"], &done["resource"]), (&json!("succeeded"), &json!(one)));
    assert!(done["completed_at"].is_string() && done["error"].is_null());

    let suspended = why("POST", &format!("{one}/suspend"));
    ok(&suspended, 202);
    assert_eq!(suspended.header("retry-after"), Some("1"));
    let place = suspended.header("location").unwrap().to_owned();
    let running = world.get(&world.platform, &place);
    assert_eq!(ok(&running, 200)["state"], "running");
    assert_eq!(running.header("retry-after"), Some("1"));
    assert_eq!(ok(&why("GET", &one), 200)["status"], "suspended");
    refused(&world.get(&admin, RUNS), 403, "tenant_inactive");
    // Again changes nothing, and that is done at once.
    assert_eq!(ok(&why("POST", &format!("{one}/suspend")), 202)["state"], "succeeded");
    ok(&why("POST", &format!("{one}/resume")), 202);
    ok(&world.get(&admin, RUNS), 200);

    let deleted = why("DELETE", &one);
    let first = ok(&deleted, 202);
    assert_eq!(ok(&why("DELETE", &one), 202)["id"], first["id"], "it is deleted once");
    for (method, path) in [("POST", "suspend"), ("POST", "resume")] {
        refused(&why(method, &format!("{one}/{path}")), 409, "conflict");
    }
    refused(&world.get(&admin, RUNS), 403, "tenant_inactive");
    assert_eq!(ok(&why("GET", &one), 200)["status"], "deleting");
    let gone = "SELECT key_destroyed_at IS NOT NULL FROM erasures";
    until(|| (world.database.query(gone) == "t").then_some(()));
    let place = deleted.header("location").unwrap();
    assert_eq!(ok(&world.get(&world.platform, place), 200)["state"], "running");
    world.database.query("UPDATE erasures SET requested_at = now() - interval '1 hour'");
    until(|| {
        let state = ok(&world.get(&world.platform, place), 200);
        (state["state"] == "succeeded").then_some(())
    });
    // The operation outlives the tenant, whose slug is nobody else's from now on.
    assert_eq!(ok(&why("GET", &one), 200)["status"], "deleted");
    let deleted = ok(&world.get(&world.platform, &format!("{TENANTS}?status=deleted")), 200);
    assert_eq!(deleted["items"][0]["id"], tenant.id);
    assert_eq!(deleted["items"].as_array().unwrap().len(), 1);
    let again = json!({"name": "x", "slug": "tenant-a", "tier": "free"});
    refused(&world.post(&world.platform, TENANTS, again), 409, "conflict");
    let operations = format!("/api/v1/factory/operations?tenant_id={}", tenant.id);
    let kinds: Vec<Value> = ok(&world.get(&world.platform, &operations), 200)["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["kind"].clone())
        .collect();
    assert_eq!(
        kinds,
        ["tenant.delete", "tenant.resume", "tenant.suspend", "tenant.suspend", "tenant.create"]
    );
}

#[test]
fn mtd1_tenants_are_found_by_slug_tier_and_status_and_changed_by_name_and_tier() {
    let world = World::new();
    let (a, _) = (world.tenant("tenant-a"), world.tenant("tenant-b"));
    let find = |query: &str| {
        let found = ok(&world.get(&world.platform, &format!("{TENANTS}?{query}")), 200);
        let items = found["items"].as_array().unwrap().clone();
        items.iter().map(|one| one["slug"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(find("slug=tenant-a"), ["tenant-a"]);
    assert_eq!(find("tier=free"), ["tenant-b", "tenant-a"]);
    let one = format!("{TENANTS}/{}", a.id);
    let patch = |body: Value| world.as_platform("PATCH", &one, "they pay more", Some(body));
    let changed = ok(&patch(json!({"name": "Acme", "tier": "pro"})), 200);
    assert_eq!((&changed["name"], &changed["tier"]), (&json!("Acme"), &json!("pro")));
    assert_eq!(ok(&patch(json!({"name": "Acme 2"})), 200)["tier"], "pro");
    assert_eq!(find("tier=pro"), ["tenant-a"]);
    assert_eq!(find("status=suspended"), [""; 0]);
    for bad in ["status=gone", "tier=gold", "name=x"] {
        let answer = world.get(&world.platform, &format!("{TENANTS}?{bad}"));
        refused(&answer, 400, "query_invalid");
    }
    for bad in [json!({}), json!({"name": ""}), json!({"slug": "x"}), json!({"tier": null})] {
        refused(&patch(bad), 422, "body_invalid");
    }
    let audit = "SELECT count(*) FROM tenant_audit WHERE action = 'tenant.change'";
    assert_eq!(world.database.query(audit), "2");
    // The platform keeps itself.
    let own = "SELECT id FROM tenants WHERE slug = 'platform'";
    let own = format!("{TENANTS}/{}", world.database.query(own));
    refused(&world.as_platform("DELETE", &own, "a test", None), 409, "conflict");
    for slug in ["deleted-x", "admin", "-a-", "Ab"] {
        let body = json!({"name": "x", "slug": slug, "tier": "free"});
        refused(&world.post(&world.platform, TENANTS, body), 422, "body_invalid");
    }
}

#[test]
fn a_suspended_tenants_members_reach_nothing() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let path = format!("{TENANTS}/{}", tenant.id);
    ok(&world.as_platform("POST", &format!("{path}/suspend"), "a test", None), 202);
    let mut asked = 0;
    for (method, template, operation) in operations() {
        if operation.get("x-gatehouse-permission").is_none() {
            continue;
        }
        asked += 1;
        let path = template.replace("{tenant}", &tenant.id).replace("{role}", "viewer");
        let path = path.replace(['{', '}'], "");
        refused(&world.call(&admin, &method, &path, None), 403, "tenant_inactive");
    }
    assert!(asked > 60, "{asked}");
}

#[test]
fn mtd2_organizations_are_a_tree_through_the_api() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    let all = at(&tenant, "organizations");
    let make = |name: &str, parent: Option<&str>| {
        let made = world.post(&admin, &all, json!({"name": name, "parent_id": parent}));
        ok(&made, 201)["id"].as_str().unwrap().to_owned()
    };
    let root = make("world", None);
    let europe = make("europe", Some(&root));
    let berlin = make("berlin", Some(&europe));
    make("elsewhere", None);
    let find = |query: &str| {
        let found = ok(&world.get(&admin, &format!("{all}?{query}")), 200);
        let items = found["items"].as_array().unwrap().clone();
        items.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(find("parent=none"), ["elsewhere", "world"]);
    assert_eq!(find(&format!("parent={root}")), ["europe"]);
    assert_eq!(find(&format!("within={root}")), ["berlin", "europe", "world"]);
    refused(&world.get(&admin, &format!("{all}?parent=x")), 400, "query_invalid");
    let one = |id: &str| format!("{all}/{id}");
    let patch = |id: &str, body: Value| world.call(&admin, "PATCH", &one(id), Some(body));
    for (id, below) in [(&root, &berlin), (&root, &root)] {
        let circle = patch(id, json!({"parent_id": below}));
        refused(&circle, 409, "conflict");
        assert!(circle.text.contains("below itself"), "{}", circle.text);
    }
    refused(&patch(&europe, json!({"parent_id": tenant.id})), 422, "body_invalid");
    refused(&world.post(&admin, &all, json!({"name": "world"})), 409, "conflict");
    let moved = ok(&patch(&berlin, json!({"name": "Berlin", "parent_id": null})), 200);
    assert_eq!((&moved["name"], &moved["parent_id"]), (&json!("Berlin"), &Value::Null));
    let removed = world.call(&admin, "DELETE", &one(&root), None);
    refused(&removed, 409, "conflict");
    assert!(removed.text.contains("below it"), "{}", removed.text);
    // Eight levels and no ninth.
    let mut deepest = berlin;
    for level in 2..=8 {
        deepest = make(&format!("level {level}"), Some(&deepest));
    }
    let ninth = world.post(&admin, &all, json!({"name": "x", "parent_id": deepest}));
    refused(&ninth, 409, "conflict");
    assert_eq!(world.call(&admin, "DELETE", &one(&deepest), None).status, 204);
}

#[test]
fn mtd4_configuration_is_patched_and_judged_as_a_whole() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let (admin, viewer) = (world.member(&tenant, "admin"), world.member(&tenant, "viewer"));
    let path = at(&tenant, "config");
    let read = world.get(&viewer, &path);
    assert_eq!(ok(&read, 200), json!({}));
    let schema = read.header("link").unwrap().split(['<', '>']).nth(1).unwrap();
    assert_eq!(ok(&world.get("", schema), 200)["type"], "object");
    let patch = |kind: &str, tag: &str, body: &str| {
        let bearer = format!("Bearer {admin}");
        let headers =
            [("authorization", bearer.as_str()), ("if-match", tag), ("content-type", kind)];
        send("PATCH", &format!("{}{path}", world.service.url), &headers, Some(body))
    };
    let merge = |body: Value| patch("application/merge-patch+json", "*", &body.to_string());
    let first = json!({"timezone": "Europe/Berlin", "runtime": {"timeout_s": 60, "priority": 1}});
    assert_eq!(ok(&merge(first.clone()), 200), first);
    let second = json!({"runtime": {"priority": null, "secrets": {"DB": "secret://db"}}});
    let whole = json!({"timezone": "Europe/Berlin",
        "runtime": {"timeout_s": 60, "secrets": {"DB": "secret://db"}}});
    assert_eq!(ok(&merge(second.clone()), 200), whole);
    assert_eq!(ok(&merge(second), 200), whole, "again changes nothing");
    let audit = "SELECT count(*) FROM tenant_audit WHERE action = 'tenant.config'";
    assert_eq!(world.database.query(audit), "2");
    for (bad, pointer) in [
        (json!({"runtime": {"timeout_s": 0}}), "/runtime/timeout_s"),
        (json!({"runtime": {"secrets": {"DB": "hunter2"}}}), "/runtime/secrets/DB"),
        (json!({"colour": "red"}), "/colour"),
    ] {
        let answer = merge(bad);
        refused(&answer, 422, "body_invalid");
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{}", answer.text);
    }
    let deep = (0..20).fold(json!(1), |inner, _| json!({"a": inner}));
    refused(&merge(deep), 422, "body_invalid");
    let large: Vec<String> =
        (0..64).map(|n| format!(r#""a{n}": "{}""#, "x".repeat(1100))).collect();
    let large = format!(r#"{{"labels": {{{}}}}}"#, large.join(","));
    refused(&patch("application/json", "*", &large), 413, "body_too_large");
    refused(&patch("application/json-patch+json", "*", "{}"), 415, "media_type_unsupported");
    refused(&patch("application/json", "\"x\"", "{}"), 412, "precondition_failed");
    assert_eq!(ok(&world.get(&viewer, &path), 200), whole, "what was refused changed nothing");
    refused(&world.call(&viewer, "PATCH", &path, Some(json!({}))), 403, "permission_denied");
}

/// How many of 200 `POST`s at the same time are taken; the others are refused as used up.
fn of_two_hundred(
    world: &World,
    token: &str,
    path: &str,
    body: impl Fn(usize) -> Value + Sync,
) -> usize {
    let (url, bearer) = (format!("{}{path}", world.service.url), format!("Bearer {token}"));
    let ask = |n: usize| {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        send("POST", &url, &headers, Some(&body(n).to_string()))
    };
    let (next, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= 200 {
                        return;
                    }
                    let answer = settled(|| ask(n));
                    if answer.status < 300 {
                        taken.fetch_add(1, Ordering::Relaxed);
                    } else {
                        assert_eq!(answer.status, 429, "{}", answer.text);
                    }
                }
            });
        }
    });
    taken.into_inner()
}

#[test]
fn mtd3_two_hundred_at_the_same_time_at_a_limit_of_ten_are_ten() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    world.published(&tenant, &admin, "fuel");
    let quotas = at(&tenant, "quotas");
    let set = |body: Value| ok(&world.as_platform("PATCH", &quotas, "a test", Some(body)), 200);
    let set_up = set(json!({"agents": 10, "executions": 10}));
    assert_eq!(set_up["agents"]["source"], "own");
    let name = |n: usize| json!({"name": format!("a{n}")});
    let agent = |n: usize| world.post(&admin, AGENTS, name(n));
    assert_eq!(of_two_hundred(&world, &admin, AGENTS, name), 9, "one was there");
    let fuel = |_| json!({"agent": "fuel", "version": "1.0.0"});
    let run = || world.post(&admin, RUNS, fuel(0));
    assert_eq!(of_two_hundred(&world, &admin, RUNS, fuel), 10);
    assert_eq!(world.database.query("SELECT count(*) FROM executions"), "10");
    assert_eq!(world.database.query("SELECT count(*) FROM agents"), "10");

    let day = run();
    refused(&day, 429, "quota_exceeded");
    let body = day.json();
    assert_eq!((&body["quota"], &body["limit"]), (&json!("executions"), &json!(10)));
    let after: u64 = day.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&after), "{after}");
    assert!(body["resets_at"].as_str().unwrap().ends_with("T00:00:00Z"), "{body}");
    let total = agent(999);
    refused(&total, 429, "quota_exceeded");
    assert_eq!(total.header("retry-after"), None, "waiting does not help");

    // One alert per threshold and window, whoever came near it.
    let alerts = "SELECT string_agg(quota || ' ' || percent, ', ' ORDER BY quota, percent) FROM quota_alerts";
    assert_eq!(
        world.database.query(alerts),
        "agents 80, agents 100, executions 80, executions 100"
    );

    // The queue: what waits counts, what has begun does not.
    let full = set(json!({"executions": 1000, "queued_executions": 20}));
    assert_eq!(full["queued_executions"]["used"], 10, "the platform sees how many wait");
    assert_eq!(of_two_hundred(&world, &admin, RUNS, fuel), 10, "ten wait already");
    let waits = run();
    refused(&waits, 429, "queue_full");
    assert_eq!(waits.header("retry-after"), Some("5"));
    let begun = "UPDATE executions SET state = 'running', worker = 'w' WHERE id IN (SELECT id FROM executions LIMIT 3)";
    world.database.query(begun);
    assert_eq!(of_two_hundred(&world, &admin, RUNS, fuel), 3);

    let shown = ok(&world.get(&admin, &quotas), 200);
    assert_eq!(shown["queued_executions"]["used"], 20);
    assert_eq!(shown["concurrent_executions"]["used"], 3);
    assert_eq!(shown["executions"]["used"], 23);
    assert_eq!(
        (&shown["tokens"]["limit"], &shown["tokens"]["source"]),
        (&json!(1_000_000), &json!("tier"))
    );
    // Back to the tier's.
    let back = set(json!({"agents": null}));
    assert_eq!(
        (&back["agents"]["limit"], &back["agents"]["source"]),
        (&json!(100), &json!("tier"))
    );
    ok(&agent(999), 201);
    // Bytes: what is stored is counted, and what would be too much is refused whole.
    let stored = shown["storage_bytes"]["used"].as_u64().unwrap();
    assert!(stored > 23 * 20, "{stored}");
    set(json!({"storage_bytes": stored + 10, "queued_executions": null}));
    let large = world.post(
        &admin,
        RUNS,
        json!({"agent": "fuel", "version": "1.0.0", "input": "x".repeat(100)}),
    );
    refused(&large, 429, "quota_exceeded");
    assert_eq!(large.json()["quota"], "storage_bytes");
    assert_eq!(ok(&world.get(&admin, &quotas), 200)["executions"]["used"], 23, "it took nothing");

    for bad in [json!({}), json!({"agents": -1}), json!({"agents": "x"}), json!({"max": 1})] {
        refused(&world.as_platform("PATCH", &quotas, "a test", Some(bad)), 422, "body_invalid");
    }
    refused(
        &world.call(&admin, "PATCH", &quotas, Some(json!({"agents": 1}))),
        403,
        "permission_denied",
    );
}

#[test]
fn usage_is_told_by_day_within_a_bounded_range() {
    let world = World::new();
    let tenant = world.tenant("tenant-a");
    let admin = world.member(&tenant, "admin");
    world.published(&tenant, &admin, "fuel");
    ok(&world.post(&admin, RUNS, json!({"agent": "fuel", "version": "1.0.0"})), 202);
    let id = &tenant.id;
    world.database.query(&format!(
        "INSERT INTO usage_counters (tenant_id, quota, day, used) SELECT '{id}', 'tokens', d, 7
            FROM generate_series(date '2026-01-01', date '2026-01-03', '1 day') d;
         INSERT INTO metering (tenant_id, execution_id, attempt, at, agent_id, wall_ms, cpu_ms, peak_memory_bytes, tokens,
            egress_requests) SELECT '{id}', gen_random_uuid(), 1, t, gen_random_uuid(), 10, 4, 1, 3, 1
            FROM unnest(ARRAY['2026-01-02 23:59:59+00', '2026-01-03 00:00:00+00', '2026-01-03 12:00:00+00', '2026-01-05 00:00:00+00']::timestamptz[]) t"
    ));
    let path = at(&tenant, "usage");
    let get = |token: &str, query: &str| world.get(token, &format!("{path}?{query}"));
    let today = ok(&world.get(&admin, &path), 200);
    assert_eq!(today["items"][0]["executions"], 1);
    let january = ok(&get(&admin, "from=2026-01-01&until=2026-01-31"), 200);
    let days: Vec<(&str, u64, u64)> = january["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|day| {
            (
                day["day"].as_str().unwrap(),
                day["tokens"].as_u64().unwrap(),
                day["metered"]["cpu_ms"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        days,
        [("2026-01-05", 0, 4), ("2026-01-03", 7, 8), ("2026-01-02", 7, 4), ("2026-01-01", 7, 0)]
    );
    // Page by page it is the same.
    let mut place = Some(format!("{path}?from=2026-01-01&until=2026-01-31&limit=1"));
    let mut found = Vec::new();
    while let Some(at) = place {
        let page = ok(&world.get(&admin, &at), 200);
        found.extend(page["items"].as_array().unwrap().clone());
        place = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(Value::Array(found), january["items"]);
    // What attempts cost is the tenant's own to see.
    let asked = world.as_platform(
        "GET",
        &format!("{path}?from=2026-01-01&until=2026-01-31"),
        "a bill",
        None,
    );
    let items = ok(&asked, 200)["items"].clone();
    assert_eq!(items.as_array().unwrap().len(), 3);
    assert_eq!((&items[0]["tokens"], &items[0]["metered"]), (&json!(7), &Value::Null));
    for bad in [
        "from=2026-01-02&until=2026-01-01",
        "from=2025-01-01&until=2026-12-31",
        "from=yesterday",
        "until=2026-02-30",
    ] {
        refused(&get(&admin, bad), 400, "query_invalid");
    }
    refused(&get(&world.member(&tenant, "viewer"), "limit=1"), 403, "permission_denied");
}
