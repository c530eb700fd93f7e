//! The migrations: a second run changes nothing, and a database that was upgraded with rows in it has the schema of a
//! fresh one and every row that it had.

use std::{process::Command, time::Duration};

use gatehouse_store::migrate;
use sqlx::{PgConnection, migrate::Migrator};
use uuid::Uuid;

use crate::harness::{Scratch, rows, run, server, superuser_url, with_db, with_empty_db};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// The last of the migrations that the first commit had.
const OLDEST: i64 = 5;

/// The schema as `pg_dump` writes it, policies and grants included.
async fn schema(database: &str) -> String {
    let bin = std::env::var("GATEHOUSE_TEST_PG_BIN")
        .expect("GATEHOUSE_TEST_PG_BIN is not set: run `cargo xtask test`");
    let (host, port) = server().split_once(':').map(|(h, p)| (h.to_owned(), p.to_owned())).unwrap();
    let url = superuser_url();
    let (user, password) = {
        let rest = url.split_once("://").unwrap().1.split_once('@').unwrap().0;
        rest.split_once(':').map(|(u, p)| (u.to_owned(), p.to_owned())).unwrap()
    };
    let mut dump = Command::new(std::path::Path::new(&bin).join("pg_dump"));
    dump.args(["--schema-only", "--host", &host, "--port", &port, "--username", &user])
        .args(["--dbname", database])
        .env("PGPASSWORD", password);
    let dumped = tokio::task::spawn_blocking(move || dump.output());
    let dumped =
        tokio::time::timeout(Duration::from_secs(60), dumped).await.unwrap().unwrap().unwrap();
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    // Newer minor versions of pg_dump fence their output with a random word.
    let text = String::from_utf8(dumped.stdout).unwrap();
    text.lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn same(one: &str, other: &str) {
    let differing: Vec<(&str, &str)> =
        one.lines().zip(other.lines()).filter(|(one, other)| one != other).take(5).collect();
    assert!(one == other, "the schemas differ, first in {differing:?}");
}

#[tokio::test]
async fn a_second_run_changes_nothing() {
    with_db(async |db| {
        let before = schema(db.database()).await;
        assert!(before.contains("FORCE ROW LEVEL SECURITY"));
        let count = migrate::run(&db.url("gatehouse_owner")).await.unwrap();
        assert_eq!(count, MIGRATIONS.iter().count());
        same(&before, &schema(db.database()).await);
    })
    .await;
}

/// Rows as the first build wrote them.
const OLD_ROWS: &str = "
    INSERT INTO tenants (id, slug, name, tier, status) SELECT gen_random_uuid(), 'tenant-' || n, 'T', 'pro', 'active'
        FROM generate_series(1, 3) n;
    INSERT INTO users (tenant_id, id, email) SELECT id, gen_random_uuid(), 'a@example.com' FROM tenants;
    INSERT INTO oauth_clients (tenant_id, id, name, secret_sha256)
        SELECT id, gen_random_uuid(), 'client', decode(repeat('ab', 32), 'hex') FROM tenants;
    INSERT INTO memberships (tenant_id, user_id, role) SELECT tenant_id, id, 'admin' FROM users;
    INSERT INTO memberships (tenant_id, client_id, role) SELECT tenant_id, id, 'viewer' FROM oauth_clients;
    INSERT INTO platform_memberships (tenant_id, client_id) SELECT tenant_id, id FROM oauth_clients;
    INSERT INTO agents (tenant_id, id, name) SELECT id, gen_random_uuid(), 'fuel' FROM tenants;
    INSERT INTO agent_versions (tenant_id, id, agent_id, version, image)
        SELECT tenant_id, gen_random_uuid(), id, '1.0.0', 'fuel@sha256:' || repeat('a', 64) FROM agents;
    INSERT INTO executions (tenant_id, id, agent_id, agent_version_id, input, created_by, created_at)
        SELECT tenant_id, gen_random_uuid(), agent_id, id, '{\"litres\": 1}', 's', now() - n * interval '40 days'
        FROM agent_versions, generate_series(0, 9) n;
    INSERT INTO tenant_audit (tenant_id, subject, request_id, action, target_kind, target_id, at)
        SELECT id, 's', 'r', 'agent.create', 'agent', 'x', now() - n * interval '40 days'
        FROM tenants, generate_series(0, 9) n;
    INSERT INTO admin_access (tenant_id, subject, request_id, reason) SELECT id, 's', 'r', 'a test' FROM tenants;
    INSERT INTO signing_keys (kid, algorithm, public_jwk, sealed_private) VALUES ('one', 'RS256', '{}', '\\x00');
    INSERT INTO worker_heartbeats (worker) VALUES ('w')";

/// How many rows each table has that the first build had, and a sum over what must not change in them.
const CENSUS: &str = "
    SELECT 'tenants ' || count(*) || ' ' || md5(string_agg(id || slug, ',' ORDER BY id)) FROM tenants UNION ALL
    SELECT 'users ' || count(*) || ' ' || md5(string_agg(id || email, ',' ORDER BY id)) FROM users UNION ALL
    SELECT 'clients ' || count(*) || ' ' || md5(string_agg(id::text, ',' ORDER BY id)) FROM oauth_clients UNION ALL
    SELECT 'memberships ' || count(*) || ' ' || md5(string_agg(subject || role, ',' ORDER BY subject, role))
        FROM memberships UNION ALL
    SELECT 'versions ' || count(*) || ' ' || md5(string_agg(id || image, ',' ORDER BY id)) FROM agent_versions UNION ALL
    SELECT 'executions ' || count(*) || ' '
        || md5(string_agg(id || state || created_at || input, ',' ORDER BY id)) FROM executions UNION ALL
    SELECT 'audit ' || count(*) || ' ' || md5(string_agg(tenant_id || id::text || at || action, ',' ORDER BY id))
        FROM tenant_audit UNION ALL
    SELECT 'admin ' || count(*) || ' ' || md5(string_agg(id || reason, ',' ORDER BY id)) FROM admin_access UNION ALL
    SELECT 'keys ' || count(*) || ' ' || md5(string_agg(kid, ',')) FROM signing_keys";

async fn census(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(CENSUS).fetch_all(connection).await.unwrap()
}

#[tokio::test]
async fn an_upgraded_database_has_a_fresh_ones_schema_and_keeps_its_rows() {
    with_db(async |fresh| {
        with_empty_db(async move |old| {
            let pool = sqlx::PgPool::connect(&old.url("gatehouse_owner")).await.unwrap();
            MIGRATIONS.run_to(OLDEST, &pool).await.unwrap();
            pool.close().await;
            let mut root = old.root().await;
            run(&mut root, OLD_ROWS).await;
            let before = census(&mut root).await;
            assert!(before[5].starts_with("executions 30 "), "{before:?}");
            migrate::run(&old.url("gatehouse_owner")).await.unwrap();
            assert_eq!(census(&mut root).await, before);
            same(&schema(fresh.database()).await, &schema(old.database()).await);
            for expected in [
                // Made for those that were there already.
                ("SELECT FROM tenant_quotas", 3),
                ("SELECT FROM executions_p0", 30),
                ("SELECT FROM tenant_audit_p0", 30),
            ] {
                assert_eq!(rows(&mut root, expected.0).await, expected.1, "{}", expected.0);
            }
            goes_on(&old, &mut root).await;
        })
        .await;
    })
    .await;
}

/// What was there is where it was, and the numbers of the audit go on.
async fn goes_on(old: &Scratch, root: &mut PgConnection) {
    let tenant: Uuid = sqlx::query_scalar("SELECT id FROM tenants ORDER BY id LIMIT 1")
        .fetch_one(root)
        .await
        .unwrap();
    let mut app = old.raw("gatehouse_app").await;
    run(&mut app, &format!("SET app.current_tenant_id = '{tenant}'")).await;
    assert_eq!(rows(&mut app, "SELECT id FROM executions").await, 10);
    let insert = format!(
        "INSERT INTO tenant_audit (tenant_id, subject, request_id, action, target_kind, target_id)
         VALUES ('{tenant}', 's', 'r', 'x.y', 'x', 'x') RETURNING id"
    );
    let id: i64 =
        sqlx::query_scalar(sqlx::AssertSqlSafe(insert)).fetch_one(&mut app).await.unwrap();
    assert_eq!(id, 31);
    let claim = "UPDATE executions SET state = 'queued' WHERE state = 'pending' RETURNING id";
    assert_eq!(rows(&mut app, claim).await, 10);
}
