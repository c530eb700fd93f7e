//! What the application role sees: nothing without a tenant, one tenant with it, and no way around (RLS-001 to 004).

use sqlx::PgConnection;

use crate::harness::{Db, refused, rows, run, with_db};

/// SQLSTATE: a grant or a policy refused it.
const DENIED: &str = "42501";
/// SQLSTATE: what it refers to is not there.
const MISSING: &str = "23503";

/// Tenant tables that the application can read.
const TABLES: [&str; 11] = [
    "tenants",
    "users",
    "memberships",
    "oauth_clients",
    "tenant_audit",
    "agents",
    "agent_versions",
    "executions",
    "api_keys",
    "revoked_tokens",
    "token_cutoffs",
];

fn key(table: &str) -> &'static str {
    if table == "tenants" { "id" } else { "tenant_id" }
}

async fn enter(connection: &mut PgConnection, tenant: impl ToString) {
    let tenant = tenant.to_string();
    run(
        connection,
        &format!("BEGIN; SELECT set_config('app.current_tenant_id', '{tenant}', true)"),
    )
    .await;
}

/// Two tenants with one row or more in every table.
async fn two_tenants(db: &Db) -> [gatehouse_store::OpCtx; 2] {
    let mut both = Vec::new();
    for slug in ["tenant-a", "tenant-b"] {
        let op = db.tenant(slug).await;
        let agent = db.agent(&op, "fuel").await;
        db.execution(&op, agent).await;
        let mut tx = db.store.tenant(&op).await.unwrap();
        let new = gatehouse_store::members::NewClient {
            id: gatehouse_contract::ClientId::new(uuid::Uuid::new_v4()),
            name: "client",
            secret_sha256: [7; 32],
        };
        let mut within = tx.within();
        within.create_client(&new, gatehouse_contract::Role::Viewer).await.unwrap();
        let user = gatehouse_contract::UserId::new(uuid::Uuid::new_v4());
        within
            .create_user(user, "user@example.com", gatehouse_contract::Role::Admin)
            .await
            .unwrap();
        within.create_api_key(&crate::harness::key(uuid::Uuid::new_v4())).await.unwrap();
        let until = gatehouse_store::OffsetDateTime::now_utc() + time::Duration::hours(1);
        within.revoke_token(&"m".repeat(22), until).await.unwrap();
        let member = gatehouse_store::members::Member::User(user);
        within.revoke_tokens_of(member, until, until).await.unwrap();
        tx.commit().await.unwrap();
        both.push(op);
    }
    [both.remove(0), both.remove(0)]
}

#[tokio::test]
async fn without_a_tenant_there_is_nothing_and_nothing_can_be_written() {
    with_db(async |db| {
        let [a, _] = two_tenants(&db).await;
        let mut app = db.raw("gatehouse_app").await;
        // Before any transaction named a tenant the setting is NULL, afterwards it is the empty string.
        for round in ["never set", "set and over"] {
            for table in TABLES {
                let statement = format!("SELECT {} FROM {table}", key(table));
                assert_eq!(rows(&mut app, &statement).await, 0, "{table}, {round}");
            }
            let insert = format!(
                "INSERT INTO agents (tenant_id, id, name) VALUES ('{}', gen_random_uuid(), 'x')",
                a.tenant
            );
            assert_eq!(refused(&mut app, &insert).await, DENIED, "{round}");
            enter(&mut app, a.tenant).await;
            assert_eq!(rows(&mut app, "SELECT id FROM agents").await, 1);
            run(&mut app, "COMMIT").await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_tenant_sees_itself_alone() {
    with_db(async |db| {
        let [a, b] = two_tenants(&db).await;
        let mut app = db.raw("gatehouse_app").await;
        enter(&mut app, a.tenant).await;
        for table in TABLES {
            let (all, others) = (
                format!("SELECT {} FROM {table}", key(table)),
                format!("SELECT {0} FROM {table} WHERE {0} <> '{1}'", key(table), a.tenant),
            );
            assert!(rows(&mut app, &all).await > 0, "{table} must have rows to prove anything");
            assert_eq!(rows(&mut app, &others).await, 0, "{table}");
            let named = format!("SELECT {0} FROM {table} WHERE {0} = '{1}'", key(table), b.tenant);
            assert_eq!(rows(&mut app, &named).await, 0, "{table} by the other's id");
        }
    })
    .await;
}

#[tokio::test]
async fn rows_cannot_be_given_to_or_taken_from_another_tenant() {
    with_db(async |db| {
        let [a, b] = two_tenants(&db).await;
        let (agent_of_b, _) = db.agent(&b, "solar").await;
        let mut app = db.raw("gatehouse_app").await;
        for (statement, state) in [
            // The column itself is not granted; were it, WITH CHECK would refuse.
            (format!("UPDATE executions SET tenant_id = '{}'", b.tenant), DENIED),
            (format!("UPDATE agents SET tenant_id = '{}'", b.tenant), DENIED),
            (
                format!(
                    "INSERT INTO agents (tenant_id, id, name) VALUES ('{}', gen_random_uuid(), 'x')",
                    b.tenant
                ),
                DENIED,
            ),
            // The row is A's own, what it refers to is B's: the composite key does not find it.
            (
                format!(
                    "INSERT INTO agent_versions (tenant_id, id, agent_id, version, image)
                     VALUES ('{}', gen_random_uuid(), '{agent_of_b}', '1.0.0', 'x@sha256:{}')",
                    a.tenant,
                    "a".repeat(64)
                ),
                MISSING,
            ),
            ("DELETE FROM executions".to_owned(), DENIED),
            ("DELETE FROM tenant_audit".to_owned(), DENIED),
            ("UPDATE tenant_audit SET subject = 'x'".to_owned(), DENIED),
            ("TRUNCATE agents".to_owned(), DENIED),
            ("UPDATE tenants SET tier = 'enterprise'".to_owned(), DENIED),
            (
                format!(
                    "INSERT INTO platform_memberships (tenant_id, user_id) VALUES ('{}', NULL)",
                    a.tenant
                ),
                DENIED,
            ),
        ] {
            enter(&mut app, a.tenant).await;
            assert_eq!(refused(&mut app, &statement).await, state, "{statement}");
            run(&mut app, "ROLLBACK").await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_permitted_column_still_cannot_carry_a_row_to_another_tenant() {
    with_db(async |db| {
        let [a, b] = two_tenants(&db).await;
        // Takes the column grant's part away, so that the policy alone stands in the way.
        let mut root = db.root().await;
        run(&mut root, "GRANT UPDATE (tenant_id) ON agents TO gatehouse_app").await;
        let mut app = db.raw("gatehouse_app").await;
        enter(&mut app, a.tenant).await;
        let steal = format!("UPDATE agents SET tenant_id = '{}'", b.tenant);
        assert_eq!(refused(&mut app, &steal).await, DENIED);
    })
    .await;
}

#[tokio::test]
async fn session_settings_and_roles_open_nothing() {
    with_db(async |db| {
        let [a, _] = two_tenants(&db).await;
        let mut app = db.raw("gatehouse_app").await;
        for setting in
            ["SET app.is_admin = 'true'", "SET app.current_job = 'feeder'", "SET row_security = on"]
        {
            run(&mut app, setting).await;
            assert_eq!(rows(&mut app, "SELECT id FROM executions").await, 0, "{setting}");
        }
        // Off means that a query which a policy would cut fails, not that it sees more.
        run(&mut app, "SET row_security = off").await;
        assert_eq!(refused(&mut app, "SELECT id FROM executions").await, DENIED);
        run(&mut app, "SET row_security = on").await;
        for role in ["gatehouse_admin", "gatehouse_owner", "gatehouse_system", "gatehouse_lookup"] {
            assert_eq!(refused(&mut app, &format!("SET ROLE {role}")).await, DENIED, "{role}");
        }
        enter(&mut app, "not a uuid").await;
        assert_eq!(refused(&mut app, "SELECT id FROM executions").await, "22P02");
        run(&mut app, "ROLLBACK").await;
        enter(&mut app, a.tenant).await;
        assert_eq!(rows(&mut app, "SELECT id FROM executions").await, 1);
    })
    .await;
}

#[tokio::test]
async fn secrets_are_out_of_reach() {
    with_db(async |db| {
        let [a, _] = two_tenants(&db).await;
        let mut app = db.raw("gatehouse_app").await;
        let mut admin = db.raw("gatehouse_admin").await;
        for statement in ["SELECT sealed_private FROM signing_keys", "SELECT kid FROM signing_keys"]
        {
            assert_eq!(refused(&mut app, statement).await, DENIED, "{statement}");
        }
        let sealed = "SELECT sealed_private FROM signing_keys";
        assert_eq!(refused(&mut admin, sealed).await, DENIED);
        assert_eq!(refused(&mut admin, "SELECT input FROM executions").await, DENIED);
        enter(&mut app, a.tenant).await;
        for statement in [
            "SELECT secret_sha256 FROM oauth_clients",
            "SELECT hmac FROM api_keys",
            "UPDATE api_keys SET last_used_at = now()",
            "UPDATE api_keys SET owner = NULL",
        ] {
            run(&mut app, "ROLLBACK").await;
            enter(&mut app, a.tenant).await;
            assert_eq!(refused(&mut app, statement).await, DENIED, "{statement}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_schemas_owner_is_under_the_policies_too() {
    with_db(async |db| {
        two_tenants(&db).await;
        let mut owner = db.raw("gatehouse_owner").await;
        for table in ["agents", "agent_versions", "executions", "tenant_audit"] {
            assert_eq!(rows(&mut owner, &format!("SELECT 1 FROM {table}")).await, 0, "{table}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_job_sees_its_rows_and_columns_alone() {
    with_db(async |db| {
        let [a, _] = two_tenants(&db).await;
        let mut system = db.raw("gatehouse_system").await;
        let waiting = "SELECT id FROM executions";
        assert_eq!(rows(&mut system, waiting).await, 0, "no job, no rows");
        for (job, seen) in [("feeder", 2), ("sweep", 2), ("heartbeat", 0), ("tenant", 0)] {
            run(&mut system, &format!("SET app.current_job = '{job}'")).await;
            assert_eq!(rows(&mut system, waiting).await, seen, "{job}");
        }
        run(&mut system, "SET app.current_job = 'feeder'").await;
        for statement in [
            "SELECT input FROM executions",
            "SELECT output FROM executions",
            "UPDATE executions SET output = '1'",
            // Out of this job's states.
            "UPDATE executions SET state = 'completed'",
            "UPDATE executions SET state = 'dead_letter'",
            "SELECT name FROM agents",
            "SELECT slug FROM tenants",
            "SELECT sealed_details FROM tenant_audit",
            "SELECT name FROM api_keys",
            "UPDATE api_keys SET revoked_at = NULL",
            "INSERT INTO outbox (tenant_id, kind, payload) SELECT gen_random_uuid(), 'x', '{}'",
        ] {
            assert_eq!(refused(&mut system, statement).await, DENIED, "{statement}");
        }
        // The verb is another job's.
        for job in ["feeder", "sweep", "relay", "rekey", "erasure"] {
            run(&mut system, &format!("SET app.current_job = '{job}'")).await;
            let gone = rows(&mut system, "DELETE FROM executions RETURNING tenant_id").await;
            assert_eq!(gone, 0, "{job}: nobody asked for an erasure");
        }
        let mut app = db.raw("gatehouse_app").await;
        enter(&mut app, a.tenant).await;
        for statement in [
            "SELECT worker FROM worker_heartbeats",
            "SELECT payload FROM outbox",
            "SELECT epoch FROM feed_state",
        ] {
            run(&mut app, "ROLLBACK").await;
            enter(&mut app, a.tenant).await;
            assert_eq!(refused(&mut app, statement).await, DENIED, "{statement}");
        }
    })
    .await;
}
