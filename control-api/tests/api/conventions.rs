//! What every endpoint of a kind does alike: pages, conditional requests, repeated requests. Asked of each endpoint that
//! the OpenAPI document has, so that one that is added is asked, too.

mod accept;
mod audited;
mod completed;
mod once;
mod pages;
mod reference;
mod roles;
mod tags;

use std::{
    io::Write as _,
    process::{Child, ChildStdin, Command, Stdio},
    sync::OnceLock,
};

use serde_json::{Value, json};

use crate::{
    http::{Answer, send},
    world::{Tenant, World, until},
};

/// The document as it is committed; the unit tests hold it to the router.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        serde_json::from_str(include_str!("../../openapi.json")).expect("openapi.json is JSON")
    })
}

/// Every operation: method, template, description.
pub fn operations() -> impl Iterator<Item = (String, &'static str, &'static Value)> {
    document()["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        let item = item.as_object().unwrap();
        item.iter().map(move |(method, one)| (method.to_uppercase(), path.as_str(), one))
    })
}

/// Whether the operation takes this shared parameter.
pub fn takes(operation: &Value, parameter: &str) -> bool {
    let to = format!("#/components/parameters/{parameter}");
    operation["parameters"].as_array().unwrap().iter().any(|one| one["$ref"] == json!(to))
}

/// A body that the operation takes, from its schema's example.
pub fn example(operation: &Value) -> Option<Value> {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    let schema = document().pointer(schema.as_str()?.strip_prefix('#').unwrap()).unwrap();
    Some(schema["examples"][0].clone())
}

/// Asks again while the service says that it has no connection left: on a loaded machine many at once may not get one in
/// time, and then nothing was done.
pub fn settled(ask: impl Fn() -> Answer) -> Answer {
    until(|| Some(ask()).filter(|answer| answer.status != 503))
}

/// Has the execution given up.
const GIVEN_UP: &str = "UPDATE executions SET state = 'dead_letter', end_reason = 'poison', completed_at = now() WHERE id = 'ID'";

/// A tenant with one of everything that a path can name.
pub struct Furnished {
    pub world: World,
    pub tenant: Tenant,
    pub admin: String,
    ids: Vec<(&'static str, String)>,
}

impl Furnished {
    pub fn new() -> Self {
        Self::of(World::new())
    }

    /// In a world that was begun in another way.
    pub fn of(world: World) -> Self {
        let tenant = world.tenant("tenant-a");
        let admin = world.member(&tenant, "admin");
        let agent = world.published(&tenant, &admin, "fuel");
        // The examples name these.
        world.published(&tenant, &admin, "fuel-emissions");
        let at = |rest: &str| format!("/api/v1/factory/tenants/{}/{rest}", tenant.id);
        let id = |made: Answer| {
            assert!((200..300).contains(&made.status), "{}", made.text);
            let made = made.json();
            let id = made.get("id").or_else(|| made.get("client_id"));
            id.unwrap().as_str().unwrap().to_owned()
        };
        let run = json!({"agent": "fuel", "version": "1.0.0"});
        let issuer = json!({"name": "x", "issuer": "https://a.example", "client_id": "x",
            "client_auth": "none", "max_role": "viewer", "roles": {}});
        let hook = json!({"url": "https://a.example", "events": ["quota.threshold_reached"]});
        let hook = id(world.post(&admin, &at("webhooks"), hook));
        world.database.query(&format!(
            "INSERT INTO webhook_deliveries (tenant_id, id, endpoint_id, event_id, event_kind, sealed_payload, state)
             SELECT '{}', gen_random_uuid(), '{hook}', gen_random_uuid(), 'quota.threshold_reached', '', state
             FROM unnest('{{pending,failed,failed}}'::text[]) AS state",
            tenant.id
        ));
        let delivery =
            world.database.query("SELECT id FROM webhook_deliveries WHERE state = 'pending'");
        let version = world
            .database
            .query(&format!("SELECT id FROM agent_versions WHERE agent_id = '{agent}'"));
        let europe = id(world.post(&admin, &at("organizations"), json!({"name": "X"})));
        let operations = world.get(&world.platform, "/api/v1/factory/operations").json();
        let operation = operations["items"][0]["id"].as_str().unwrap().to_owned();
        let letter = id(world.post(&admin, "/api/v1/runtime/executions", run.clone()));
        world.database.query(&GIVEN_UP.replace("ID", &letter));
        let execution = id(world.post(&admin, "/api/v1/runtime/executions", run));
        completed::complete(&world, &tenant, &execution);
        let ids = vec![
            ("dead_letter", letter),
            ("organization", europe),
            ("operation", operation),
            ("webhook", hook),
            ("delivery", delivery),
            ("tenant", tenant.id.clone()),
            ("version", version),
            ("agent", agent),
            ("execution", execution),
            ("user", world.user(&tenant, "viewer")),
            ("client", world.client(&tenant, "viewer")["client_id"].as_str().unwrap().to_owned()),
            (
                "key",
                id(world.post(&admin, &at("api-keys"), json!({"name": "k", "roles": ["viewer"]}))),
            ),
            ("issuer", id(world.post(&admin, &at("issuers"), issuer))),
            ("role", "developer".to_owned()),
        ];
        Self { world, tenant, admin, ids }
    }

    /// The template's path with what is there.
    pub fn path(&self, template: &str) -> String {
        self.ids
            .iter()
            .fold(template.to_owned(), |path, (name, id)| path.replace(&format!("{{{name}}}"), id))
    }

    /// Has the execution, or the dead letter, be what an operation can change.
    pub fn ready(&self, template: &str) {
        let state = match template.rsplit('/').next() {
            Some("cancel") => "pending",
            Some("retry") => "failed",
            _ if template.contains("/dead-letters/") => {
                let given_up = GIVEN_UP.replace("ID", &self.path("{dead_letter}"));
                return drop(self.world.database.query(&given_up));
            }
            _ => return,
        };
        let id = self.path("{execution}");
        let change = format!("UPDATE executions SET state = '{state}' WHERE id = '{id}'");
        self.world.database.query(&change);
    }

    /// Whoever may call it: the platform for what is the platform's, else the tenant's admin.
    pub fn caller(&self, operation: &Value) -> &str {
        match operation["x-gatehouse-permission"].as_str() {
            Some("platform:manage" | "quotas:manage") => &self.world.platform,
            _ => &self.admin,
        }
    }

    /// A call with these headers beside the credential and a reason.
    pub fn call(
        &self,
        token: &str,
        (method, path): (&str, &str),
        more: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let bearer = format!("Bearer {token}");
        let mut headers =
            vec![("authorization", bearer.as_str()), ("x-gatehouse-reason", "a test")];
        headers.extend(more);
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let url = format!("{}{path}", self.world.service.url);
        send(method, &url, &headers, body.map(Value::to_string).as_deref())
    }
}

/// A session beside the service, which holds what a test wants held.
pub struct Beside {
    psql: Child,
    input: ChildStdin,
}

impl Beside {
    /// Runs the statements and keeps their transaction open.
    pub fn holding(world: &World, statements: &str) -> Self {
        let mut psql = Command::new("psql")
            .args(["-X", "-q", "-d", &world.database.superuser()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = psql.stdin.take().unwrap();
        writeln!(input, "BEGIN; {statements}").unwrap();
        sessions(world, 1, "state = 'idle in transaction' AND application_name = 'psql'");
        Self { psql, input }
    }

    /// Lets go of it.
    pub fn release(mut self) {
        writeln!(self.input, "ROLLBACK;").unwrap();
        drop(self.input);
        assert!(self.psql.wait().unwrap().success());
    }
}

/// Waits until so many of the service's sessions wait for a lock.
pub fn waiting(world: &World, count: usize) {
    sessions(world, count, "wait_event_type = 'Lock' AND application_name = 'gatehouse-app'");
}

fn sessions(world: &World, count: usize, which: &str) {
    let ask = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {which}"
    );
    until(|| (world.database.query(&ask) == count.to_string()).then_some(()));
}
