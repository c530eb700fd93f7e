//! Each endpoint that changes something writes one row of the audit in its transaction, with what was before and after and
//! without secrets; and none where the transaction fails. Asked of every endpoint of the document but those that read: one
//! that is added is asked, too, and there is no exception.

use serde_json::{Value, json};

use super::{Furnished, example, operations};
use crate::{
    http::{Answer, send},
    oidc::{ORIGIN, world_with},
    world::World,
};

/// Of a session that is beside the world: 256 bits as a cookie has them.
const COOKIE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The commit of a transaction that wrote a row of the audit fails, when this is switched on: everything was done then.
const FAULT: &str = "
    CREATE TABLE fault (on_commit boolean NOT NULL);
    INSERT INTO fault VALUES (false);
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
    BEGIN
        IF (SELECT on_commit FROM fault) THEN RAISE EXCEPTION 'the commit fails'; END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON tenant_audit DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION fail()";

/// Every row of every table, as a sum; but for the columns that only say that somebody was there, and for who came through
/// the admin door with this request, which is recorded whatever becomes of it.
fn census(world: &World, request: &str) -> String {
    let tables = world.database.query(&format!(
        "SELECT string_agg(format('SELECT %L || count(*) || coalesce(md5(string_agg(t::text, '','' ORDER BY t::text)), '''')
            FROM (SELECT to_jsonb(r) - ''{{last_used_at,last_seen_at}}''::text[] AS t FROM %I r) s %s',
            relname || ' ', relname,
            CASE relname WHEN 'admin_access' THEN 'WHERE t ->> ''request_id'' <> ''{request}''' END),
            ' UNION ALL ' ORDER BY relname)
         FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
         AND relname NOT IN ('fault', '_sqlx_migrations')",
    ));
    world.database.query(&tables)
}

struct Call<'a> {
    furnished: &'a Furnished,
    method: String,
    template: &'static str,
    operation: &'static Value,
    client: &'a Value,
    token: &'a str,
}

impl Call<'_> {
    fn body(&self) -> Option<Value> {
        let tenant = &self.furnished.tenant;
        match (self.method.as_str(), self.template) {
            ("POST", "/api/v1/registry/agents") => Some(json!({"name": "another"})),
            ("POST", "/api/v1/registry/agents/{agent}/versions") => {
                let image = self.furnished.world.image(tenant, "fuel", 'a');
                Some(json!({"version": "2.0.0", "image": image}))
            }
            // What the example names is no endpoint that could be meant by chance.
            ("PUT", "/api/v1/factory/tenants/{tenant}/limits") => Some(json!({"per_window": 7})),
            _ => example(self.operation),
        }
    }

    fn ask(&self) -> Answer {
        let world = &self.furnished.world;
        let at = |path: &str| format!("{}{path}", world.service.url);
        let form = |path: &str, form: &str| {
            let (id, secret) = (&self.client["client_id"], &self.client["client_secret"]);
            let form = format!(
                "{form}&client_id={}&client_secret={}",
                id.as_str().unwrap(),
                secret.as_str().unwrap()
            );
            let headers = [("content-type", "application/x-www-form-urlencoded")];
            send("POST", &at(path), &headers, Some(&form))
        };
        match self.template {
            "/oauth2/token" => form(self.template, "grant_type=client_credentials"),
            "/oauth2/revoke" => form(self.template, &format!("token={}", self.token)),
            "/oauth2/logout" => {
                let cookie = format!("__Host-gatehouse={COOKIE}");
                send("POST", &at(self.template), &[("cookie", &cookie), ("origin", ORIGIN)], None)
            }
            _ => {
                let path = self.furnished.path(self.template);
                let caller = self.furnished.caller(self.operation);
                let more: &[(&str, &str)] = match self.method.as_str() {
                    "PUT" | "PATCH" => &[("if-match", "*")],
                    _ => &[],
                };
                self.furnished.call(caller, (&self.method, &path), more, self.body().as_ref())
            }
        }
    }

    /// What has to be so that there is something to change.
    fn prepare(&self) {
        let world = &self.furnished.world;
        let also = |verb: &str, by: &str| {
            let path = self.furnished.path(self.template).replace(verb, by);
            let done = self.furnished.call(
                self.furnished.caller(self.operation),
                ("POST", &path),
                &[],
                None,
            );
            assert!((200..300).contains(&done.status), "{path}: {}", done.text);
        };
        if self.template.ends_with("/resume") {
            also("/resume", "/suspend");
        } else if self.template.ends_with("/promote") || self.template.ends_with("/deprecate") {
            world
                .database
                .query("UPDATE agent_versions SET deprecated_at = NULL, deprecation = NULL");
        }
        self.furnished.ready(self.template);
    }

    fn put_back(&self) {
        if self.template.ends_with("/suspend") {
            let path = self.furnished.path(self.template).replace("/suspend", "/resume");
            let caller = self.furnished.caller(self.operation);
            let done = self.furnished.call(caller, ("POST", &path), &[], None);
            assert!((200..300).contains(&done.status), "{path}: {}", done.text);
        }
    }
}

/// What the one row says.
fn details(world: &World, row: &str) -> Value {
    let (tenant, id) = row.split_once(' ').unwrap();
    let id: u64 = id.parse().unwrap();
    let path = format!("/api/v1/factory/tenants/{tenant}/audit?limit=100");
    let shown = world.as_platform("GET", &path, "a test", None);
    assert_eq!(shown.status, 200, "{}", shown.text);
    let items = shown.json()["items"].as_array().unwrap().clone();
    let row = items.into_iter().find(|item| item["id"].as_u64() == Some(id));
    row.expect("the row is on the first page")
}

#[test]
fn every_mutation_is_one_row_of_its_transaction_and_a_failed_one_leaves_nothing() {
    let furnished = Furnished::of(world_with(json!({"public_origin": ORIGIN, "allow": []})));
    let world = &furnished.world;
    world.database.query(FAULT);
    let client = world.client(&furnished.tenant, "viewer");
    let token = world.token_of(&client);
    world.database.query(&format!(
        "INSERT INTO sessions (tenant_id, id, secret_sha256, user_id, issuer_id, idle_s, expires_at)
         SELECT u.tenant_id, gen_random_uuid(), sha256('{COOKIE}'), u.id, i.id, 3600, now() + interval '1 hour'
         FROM users u JOIN issuers i USING (tenant_id) LIMIT 1"
    ));
    let mut all: Vec<_> = operations().filter(|(method, ..)| method != "GET").collect();
    // What takes others along comes last, and the tenant at the very end.
    all.sort_by_key(|(method, template, _)| {
        let deletes = method == "DELETE";
        // Others end the session that it ends.
        let later = *template != "/oauth2/logout";
        let last = template.ends_with("/tenants/{tenant}");
        (later, deletes, last, if deletes { usize::MAX - template.len() } else { 0 })
    });
    assert!(all.len() >= 40, "{}", all.len());
    for (method, template, operation) in all {
        let call = Call {
            furnished: &furnished,
            method,
            template,
            operation,
            client: &client,
            token: &token,
        };
        let what = format!("{} {template}", call.method);
        call.prepare();
        let before = census(world, "");
        world.database.query("UPDATE fault SET on_commit = true");
        let failed = call.ask();
        world.database.query("UPDATE fault SET on_commit = false");
        // A token changes nothing: there is nothing to fail, and nothing to be audited.
        let changes = template != "/oauth2/token";
        assert_eq!(failed.status >= 500, changes, "{what}: {} {}", failed.status, failed.text);
        let request = failed.header("x-request-id").unwrap();
        assert_eq!(census(world, request), before, "{what} failed, and something is left of it");
        let newest = world.database.query("SELECT coalesce(max(id), 0) FROM tenant_audit");
        let done = call.ask();
        assert!((200..300).contains(&done.status), "{what}: {}", done.text);
        let request = done.header("x-request-id").unwrap();
        let rows = world.database.query(&format!(
            "SELECT tenant_id || ' ' || id FROM tenant_audit WHERE id > {newest} AND request_id = '{request}'"
        ));
        let count = rows.lines().count();
        assert_eq!(count, usize::from(changes), "{what}: {count} rows: {rows}");
        if !changes {
            assert_eq!(census(world, request), before, "{what}");
            continue;
        }
        let row = details(world, &rows);
        let (old, new) = (&row["details"]["old"], &row["details"]["new"]);
        match call.method.as_str() {
            "PATCH" | "PUT" => {
                assert!(old.is_object() && new.is_object() && old != new, "{what}: {row}");
            }
            _ => assert!(old.is_object() || new.is_object(), "{what}: {row}"),
        }
        // What was shown once, and what was sent as a secret, is not kept.
        let answer = done.json_or_null();
        let sent = call.body().unwrap_or_default();
        for secret in
            [&answer["secret"], &answer["client_secret"], &answer["key"], &sent["client_secret"]]
        {
            let kept = secret.as_str().is_some_and(|secret| row.to_string().contains(secret));
            assert!(!kept, "{what} keeps a secret: {row}");
        }
        call.put_back();
    }
}
