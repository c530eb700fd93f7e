//! The audit from a mutation to a seal, through the real service; what an export shows is beside it.

use serde_json::{Value, json};

use crate::{
    database::Database,
    http::send,
    world::{Service, Setup, World, until},
};

/// A world whose service seals.
pub fn sealing() -> World {
    let database = Database::migrated();
    let mut setup = Setup::new(&database);
    setup.config["database"]["system"] = json!(database.url("gatehouse_system"));
    let operator = setup.bootstrap(&[]);
    let service = Service::start(&setup);
    let mut world = World { service, setup, database, platform: String::new() };
    world.platform = world.token_of(&operator);
    world
}

fn word(admin: &str) -> String {
    let ready: Value = send("GET", &format!("{admin}/readyz"), &[], None).json();
    ready["checks"]["audit_seals"].as_str().unwrap_or_default().to_owned()
}

/// Waits until every row of the tenant has its seal.
pub fn sealed(world: &World, tenant: &str) {
    let unsealed = format!(
        "SELECT count(*) FROM tenant_audit a WHERE tenant_id = '{tenant}' AND NOT EXISTS (
            SELECT FROM audit_seals s WHERE s.tenant_id = a.tenant_id AND a.id = ANY (s.row_ids))"
    );
    until(|| (world.database.query(&unsealed) == "0").then_some(()));
}

fn seals(world: &World, tenant: &str) -> u32 {
    let count = format!("SELECT count(*) FROM audit_seals WHERE tenant_id = '{tenant}'");
    world.database.query(&count).parse().unwrap()
}

#[test]
fn mtd5_rows_are_sealed_by_one_process_and_another_takes_over() {
    let world = sealing();
    let tenant = world.tenant("sealed");
    sealed(&world, &tenant.id);
    until(|| (word(&world.service.admin) == "leads").then_some(()));
    let second = Service::start(&world.setup);
    assert_eq!(word(&second.admin), "follows");
    let metrics = send("GET", &format!("{}/metrics", world.service.admin), &[], None).text;
    assert!(metrics.contains("gatehouse_audit_sealer_leads 1"), "{metrics}");
    // The first ends, as it would by a crash: its connection goes, and with it the lead.
    let World { service, setup, database, platform } = world;
    drop(service);
    until(|| (word(&second.admin) == "leads").then_some(()));
    let world = World { service: second, setup, database, platform };
    let before = seals(&world, &tenant.id);
    world.user(&tenant, "viewer");
    sealed(&world, &tenant.id);
    assert_eq!(seals(&world, &tenant.id), before + 1);
    // The key may change: the seal before was signed by one that is not the one that signs now.
    let rotated = world.as_platform("POST", "/api/v1/factory/signing-keys", "a test", None);
    assert_eq!(rotated.status, 201, "{}", rotated.text);
    world.user(&tenant, "viewer");
    sealed(&world, &tenant.id);
    assert_eq!(word(&world.service.admin), "leads");
}

#[test]
fn mtd5_a_chain_whose_end_was_changed_is_not_extended_and_that_is_said() {
    let mut world = sealing();
    let (tenant, other) = (world.tenant("forged"), world.tenant("whole"));
    sealed(&world, &tenant.id);
    sealed(&world, &other.id);
    world.database.query("CREATE TABLE kept AS SELECT tenant_id, seq, row_hashes FROM audit_seals");
    let forge = format!(
        "UPDATE audit_seals SET row_hashes = decode(repeat('00', octet_length(row_hashes)), 'hex')
         WHERE tenant_id = '{}'",
        tenant.id
    );
    world.database.query(&forge);
    world.user(&tenant, "viewer");
    world.user(&other, "viewer");
    until(|| (word(&world.service.admin) == "broken").then_some(()));
    // Nobody else waits for it.
    sealed(&world, &other.id);
    assert_eq!((seals(&world, &tenant.id), seals(&world, &other.id)), (1, 2));
    let log = world.service.log().join("\n");
    assert!(log.contains("seal 1 does not have its hash"), "{log}");
    assert!(log.contains(&tenant.id), "{log}");
    let metrics =
        |world: &World| send("GET", &format!("{}/metrics", world.service.admin), &[], None).text;
    assert!(metrics(&world).contains("gatehouse_audit_chains_broken 1"), "{}", metrics(&world));
    // Another process knows of it, too, and goes on beside it.
    let World { service, setup, database, platform } = world;
    drop(service);
    let service = Service::start(&setup);
    let world = World { service, setup, database, platform };
    until(|| (word(&world.service.admin) == "broken").then_some(()));
    world.user(&other, "viewer");
    world.user(&tenant, "viewer");
    sealed(&world, &other.id);
    assert_eq!(seals(&world, &tenant.id), 1);
    // Put back as it was, it is sealed with all that waited.
    world.database.query(&format!(
        "UPDATE audit_seals s SET row_hashes = k.row_hashes FROM kept k
         WHERE s.tenant_id = '{}' AND k.tenant_id = s.tenant_id AND k.seq = s.seq",
        tenant.id
    ));
    sealed(&world, &tenant.id);
    until(|| (word(&world.service.admin) == "leads").then_some(()));
    assert!(metrics(&world).contains("gatehouse_audit_chains_broken 0"));
    verify(&world, &export(&world, &tenant.id)).unwrap();
}

#[test]
fn mtd5_an_export_begins_where_the_months_that_are_kept_begin_and_says_so() {
    let world = sealing();
    let tenant = world.tenant("long");
    world.user(&tenant, "viewer");
    sealed(&world, &tenant.id);
    let before = verify(&world, &export(&world, &tenant.id)).unwrap();
    assert_eq!((before.begin, before.rows), (None, 2));
    // The month is over and dropped; the one that is kept begins now.
    world.database.query(
        "DO $$ DECLARE till text; BEGIN
            SELECT substring(pg_get_expr(relpartbound, oid) FROM $r$TO [(]'([^']+)'[)]$r$) INTO till
            FROM pg_class WHERE relname = 'tenant_audit_p0';
            ALTER TABLE tenant_audit DETACH PARTITION tenant_audit_p0;
            DROP TABLE tenant_audit_p0;
            EXECUTE format('CREATE TABLE tenant_audit_now PARTITION OF tenant_audit FOR VALUES FROM (%L) TO (%L)',
                clock_timestamp(), till);
        END $$",
    );
    world.user(&tenant, "viewer");
    sealed_since(&world, &tenant.id, 3);
    let text = export(&world, &tenant.id);
    let shown = verify(&world, &text).unwrap();
    assert_eq!(shown.begin.map(|begin| begin.total), Some(2), "{text}");
    assert_eq!(shown.rows, 3);
    // A row that is not of a month that was dropped is missing, as ever.
    world.database.query(
        "UPDATE audit_seals SET sealed_at = sealed_at WHERE false; DELETE FROM tenant_audit",
    );
    world.database.query("ALTER TABLE tenant_audit DETACH PARTITION tenant_audit_now");
    world.database.query(
        "CREATE TABLE tenant_audit_all PARTITION OF tenant_audit FOR VALUES FROM ('2001-01-01') TO ('2001-02-01')",
    );
    let broken = verify(&world, &export(&world, &tenant.id)).unwrap_err();
    assert!(broken.contains("is missing"), "{broken}");
}

/// Waits until the chain of a tenant has so many rows.
fn sealed_since(world: &World, tenant: &str, rows: u32) {
    let total = format!("SELECT max(total) FROM audit_seals WHERE tenant_id = '{tenant}'");
    until(|| (world.database.query(&total) == rows.to_string()).then_some(()));
}

/// The export as its bytes.
fn export(world: &World, tenant: &str) -> String {
    let path = format!("/api/v1/factory/tenants/{tenant}/audit/export");
    let answer = world.as_platform("GET", &path, "a test", None);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.text
}

/// What `gatehouse verify audit` runs, with the published keys.
fn verify(world: &World, export: &str) -> Result<gatehouse_audit::Verified, String> {
    let jwks = send("GET", &format!("{}/.well-known/jwks.json", world.service.url), &[], None);
    let keys = gatehouse_authn::KeySet::parse(jwks.text.as_bytes()).unwrap();
    let mut verifier = gatehouse_audit::Verifier::new(&keys, None);
    for line in export.lines() {
        verifier.line(line).map_err(|broken| broken.to_string())?;
    }
    verifier.finish().map_err(|broken| broken.to_string())
}

#[test]
fn mtd5_an_export_verifies_and_one_changed_byte_is_named() {
    let world = sealing();
    let tenant = world.tenant("exported");
    let admin = world.member(&tenant, "admin");
    for _ in 0..3 {
        world.user(&tenant, "viewer");
    }
    sealed(&world, &tenant.id);
    let text = export(&world, &tenant.id);
    let verified = verify(&world, &text).unwrap();
    assert_eq!((verified.tenant.to_string(), verified.rows), (tenant.id.clone(), 5));
    // Who did it, and what was before and after.
    assert!(text.contains("\"subject_kind\":\"client\""), "{text}");
    assert!(text.contains("@example.com"), "{text}");
    // The database was tampered with: the export says so, and the row.
    let row = "(SELECT max(id) FROM tenant_audit WHERE action = 'user.create')";
    let id = world.database.query(&format!("SELECT {row}"));
    world.database.query(&format!("UPDATE tenant_audit SET subject = 'nobody' WHERE id = {row}"));
    let broken = verify(&world, &export(&world, &tenant.id)).unwrap_err();
    assert_eq!(broken, format!("row {id} was changed"));
    world.database.query(&format!("DELETE FROM tenant_audit WHERE id = {row}"));
    let broken = verify(&world, &export(&world, &tenant.id)).unwrap_err();
    assert!(broken.starts_with(&format!("row {id} is missing")), "{broken}");
    // The tenant's admin has it, too; a viewer and another tenant do not.
    let path = format!("/api/v1/factory/tenants/{}/audit/export", tenant.id);
    assert_eq!(world.get(&admin, &path).status, 200);
    let viewer = world.member(&tenant, "viewer");
    assert_eq!(world.get(&viewer, &path).status, 403);
    let other = world.tenant("another");
    let stranger = world.member(&other, "admin");
    assert_eq!(world.get(&stranger, &path).status, 404);
}

#[test]
fn the_audit_is_listed_page_by_page_and_narrowed() {
    let world = World::new();
    let tenant = world.tenant("listed");
    let admin = world.member(&tenant, "admin");
    for _ in 0..5 {
        world.user(&tenant, "viewer");
    }
    let base = format!("/api/v1/factory/tenants/{}/audit", tenant.id);
    let mut path = format!("{base}?action=user.create&limit=2");
    let mut ids = Vec::new();
    loop {
        let page = world.get(&admin, &path);
        assert_eq!(page.status, 200, "{}", page.text);
        for item in page.json()["items"].as_array().unwrap() {
            assert_eq!(item["action"], "user.create");
            assert_eq!(item["reason"], "a test's user");
            assert!(item["details"]["new"]["email"].as_str().unwrap().ends_with("@example.com"));
            ids.push(item["id"].as_u64().unwrap());
        }
        match page.json()["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(ids.len(), 5);
    assert!(ids.is_sorted_by(|one, next| one > next), "{ids:?}");
    let none = world.get(&admin, &format!("{base}?until=2020-01-01T00:00:00Z"));
    assert_eq!(none.json()["items"], json!([]));
    let bad = world.get(&admin, &format!("{base}?since=yesterday"));
    assert_eq!((bad.status, bad.json()["code"].as_str().unwrap()), (400, "query_invalid"));
}

#[test]
fn a_deleted_tenant_is_erased_and_its_export_still_verifies() {
    let world = sealing();
    let tenant = world.tenant("erased");
    world.user(&tenant, "admin");
    sealed(&world, &tenant.id);
    assert!(export(&world, &tenant.id).contains("@example.com"));
    let ask = format!(
        "UPDATE tenants SET status = 'deleting' WHERE id = '{0}';
         INSERT INTO erasures (tenant_id, subject, request_id) VALUES ('{0}', 'tester', 'r')",
        tenant.id
    );
    world.database.query(&ask);
    let gone = format!(
        "SELECT count(*) FROM data_keys WHERE tenant_id = '{}' AND wrapped IS NULL",
        tenant.id
    );
    until(|| (world.database.query(&gone) == "1").then_some(()));
    let users = format!("SELECT count(*) FROM users WHERE tenant_id = '{}'", tenant.id);
    assert_eq!(world.database.query(&users), "0");
    let text =
        until(|| Some(export(&world, &tenant.id)).filter(|text| !text.contains("@example.com")));
    verify(&world, &text).unwrap();
}

#[test]
fn a_new_key_takes_over_from_the_one_in_the_file() {
    let world = sealing();
    let tenant = world.tenant("rekeyed");
    world.user(&tenant, "admin");
    let World { service, setup, database, platform } = world;
    service.stop();
    let file = setup.dir.path().join("key");
    let old = std::fs::read_to_string(&file).unwrap();
    let new = "1d".repeat(32);
    std::fs::write(&file, format!("# from today\n{new}\n{old}\n")).unwrap();
    let reseal = || {
        let mut command = crate::world::binary();
        command.args(["reseal", "--config"]).arg(setup.file()).output().unwrap()
    };
    let out = reseal();
    assert!(out.status.success(), "{out:?}");
    let done: Value = serde_json::from_slice(&out.stdout).unwrap();
    // The platform's own tenant has a key, too.
    assert_eq!(done, json!({"data_keys": 2, "secrets": 1, "rows": 0}));
    let again: Value = serde_json::from_slice(&reseal().stdout).unwrap();
    assert_eq!(again, json!({"data_keys": 0, "secrets": 0, "rows": 0}));
    std::fs::write(&file, &new).unwrap();
    let service = Service::start(&setup);
    let world = World { service, setup, database, platform };
    let users = format!("/api/v1/factory/tenants/{}/users", tenant.id);
    let shown = world.as_platform("GET", &users, "a test", None);
    assert_eq!(shown.status, 200, "{}", shown.text);
    assert!(shown.text.contains("@example.com"), "{}", shown.text);
    // The old key alone opens nothing any more, and that is said at the start.
    std::fs::write(world.setup.dir.path().join("key"), &old).unwrap();
    let refused = world.setup.refused();
    assert_eq!(refused.status.code(), Some(78));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(
        text.contains("$.key_file: the sealed key cannot be opened with this key file"),
        "{text}"
    );
}

/// The token with another end, signed as the service signs.
pub fn ending(world: &World, token: &str, expires_at_s: u64) -> String {
    use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature::RSA_PKCS1_SHA256};
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let (head, payload) = token.rsplit_once('.').unwrap().0.split_once('.').unwrap();
    let read = |part: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let mut claims = read(payload);
    claims["exp"] = json!(expires_at_s);
    claims["iat"] = json!(expires_at_s - 900);
    let name = format!("gatehouse/signing-key/{}", read(head)["kid"].as_str().unwrap());
    let sealed = world.database.query("SELECT encode(sealed_private, 'hex') FROM signing_keys");
    let sealed: Vec<u8> = (0..sealed.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&sealed[at..at + 2], 16).unwrap())
        .collect();
    let keys = gatehouse_store::MasterKeys::from_file(&world.setup.dir.path().join("key")).unwrap();
    let pair = KeyPair::from_pkcs8(&keys.open(&name, &sealed).unwrap()).unwrap();
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// What happens between the begin of an export and its rest.
enum Meanwhile {
    Nothing,
    Revoked,
    Expired,
}

#[test]
fn an_export_ends_with_its_callers_right_to_it() {
    use std::io::{Read as _, Write as _};
    let world = sealing();
    let tenant = world.tenant("long");
    let client = world.client(&tenant, "admin");
    let token = world.token_of(&client);
    // More than sockets hold: some two dozen seals of a thousand rows.
    world.database.query(&format!(
        "INSERT INTO tenant_audit (tenant_id, subject, request_id, action, target_kind, target_id)
         SELECT '{}', 's', 'r', 'a', 'k', repeat('x', 500) FROM generate_series(1, 24000)",
        tenant.id
    ));
    let count = format!(
        "SELECT sum(cardinality(row_ids)) >= 24000 FROM audit_seals WHERE tenant_id = '{}'",
        tenant.id
    );
    until(|| (world.database.query(&count) == "t").then_some(()));
    let read = |token: &str, meanwhile: Meanwhile| {
        let address = world.service.url.strip_prefix("http://").unwrap();
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        write!(
            socket,
            "GET /api/v1/factory/tenants/{}/audit/export HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
             authorization: Bearer {token}\r\n\r\n",
            tenant.id
        )
        .unwrap();
        let mut begin = [0; 4096];
        socket.read_exact(&mut begin).unwrap();
        assert!(begin.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&begin));
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::Revoked => {
                let id = client["client_id"].as_str().unwrap();
                let path =
                    format!("/api/v1/factory/tenants/{}/clients/{id}/revoke-tokens", tenant.id);
                assert_eq!(world.as_platform("POST", &path, "a test", None).status, 204);
            }
            Meanwhile::Expired => {
                let agents = || world.get(token, "/api/v1/registry/agents").status;
                assert_eq!(agents(), 200, "it is good while the export begins");
                until(|| (agents() == 401).then_some(()));
            }
        }
        let mut rest = Vec::new();
        // A connection that is cut off may say so.
        socket.read_to_end(&mut rest).ok();
        let whole = String::from_utf8_lossy(&rest).contains(r#""kind":"end""#);
        (rest.len(), whole)
    };
    let (bytes, whole) = read(&token, Meanwhile::Nothing);
    assert!(whole && bytes > 12_000_000, "{bytes}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    // It is over for good 60 s behind its end, for the clocks' sake.
    let short = ending(&world, &token, now.as_secs() - 60 + 6);
    let (cut, whole) = read(&short, Meanwhile::Expired);
    assert!(!whole && cut < bytes, "{cut} of {bytes}");
    let (cut, whole) = read(&token, Meanwhile::Revoked);
    assert!(!whole && cut < bytes, "{cut} of {bytes}");
}

#[test]
fn a_seal_that_was_moved_past_rows_stops_sealing_and_says_so() {
    let world = sealing();
    let tenant = world.tenant("moved");
    sealed(&world, &tenant.id);
    until(|| (word(&world.service.admin) == "leads").then_some(()));
    let newest = "(last_tx, last_id) = (SELECT last_tx, last_id FROM audit_seals ORDER BY 1 DESC, 2 DESC LIMIT 1)";
    world.database.query(&format!("UPDATE audit_seals SET last_tx = last_tx + 1 WHERE {newest}"));
    until(|| (word(&world.service.admin) == "failing").then_some(()));
    world.database.query(&format!("UPDATE audit_seals SET last_tx = last_tx - 1 WHERE {newest}"));
    world.user(&tenant, "viewer");
    sealed(&world, &tenant.id);
    until(|| (word(&world.service.admin) == "leads").then_some(()));
}
