//! The plans of what is asked most: the tenant is read once (an InitPlan, not once per row), and rows are found by an
//! index that begins with it (RLS-001).

use gatehouse_contract::{AgentId, AgentVersionId};
use gatehouse_execution::{EndReason, ExecutionState};
use gatehouse_store::{executions::Wanted, paging::Page};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::harness::{run, with_db};

const TENANT: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const ROW: &str = "bbbbbbbb-0000-4000-8000-000000000001";

/// As the store asks them, with values in their places.
const HOT: &[(&str, &str)] = &[
    ("an agent", "SELECT id FROM agents WHERE id = 'ID' AND deleted_at IS NULL"),
    (
        "agents",
        "SELECT id FROM agents WHERE deleted_at IS NULL AND (created_at, id) < ('9999-12-31', 'ID') ORDER BY created_at DESC, id DESC LIMIT 50",
    ),
    ("an execution", "SELECT id, state FROM executions WHERE id = 'ID'"),
    ("a claim", "SELECT state, lease_epoch FROM executions WHERE id = 'ID' FOR UPDATE"),
    (
        "executions",
        "SELECT id FROM executions WHERE (created_at, id) < ('9999-12-31', 'ID') ORDER BY created_at DESC, id DESC LIMIT 50",
    ),
    (
        "a page of the audit",
        "SELECT id FROM tenant_audit WHERE tenant_id = 'TENANT' AND id < 1000000 ORDER BY id DESC LIMIT 50",
    ),
    (
        "events of an aggregate",
        "SELECT seq FROM event_store WHERE aggregate_kind = 'agent' AND aggregate_id = 'ID' ORDER BY seq",
    ),
    ("quotas", "SELECT max_api_calls FROM tenant_quotas WHERE tenant_id = 'TENANT'"),
    (
        "a counter",
        "SELECT used FROM usage_counters WHERE tenant_id = 'TENANT' AND quota = 'agents' AND day = '1970-01-01'",
    ),
    ("an organization", "SELECT id FROM organizations WHERE tenant_id = 'TENANT' AND id = 'ID'"),
];

/// Rows of 4000 tenants in the tables above, so that reading a whole table costs.
const FILL: &str = "
    SET session_replication_role = replica;
    CREATE TEMP TABLE t AS SELECT ('aaaaaaaa-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id, n
        FROM generate_series(1, 4000) n;
    INSERT INTO tenants (id, slug, name, tier, status, epoch) SELECT id, 'tenant-' || n, 'T', 'free', 'active', n FROM t;
    INSERT INTO tenant_quotas (tenant_id) SELECT id FROM t ON CONFLICT DO NOTHING;
    INSERT INTO agents (tenant_id, id, name) SELECT id, gen_random_uuid(), 'a' || r FROM t, generate_series(1, 5) r;
    INSERT INTO executions (tenant_id, id, agent_id, agent_version_id, input, created_by, created_at)
        SELECT id, gen_random_uuid(), id, id, '{}', 's', now() - r * interval '1 minute' FROM t, generate_series(1, 5) r;
    INSERT INTO tenant_audit (tenant_id, subject, request_id, action, target_kind, target_id)
        SELECT id, 's', 'r', 'x.y', 'x', 'x' FROM t, generate_series(1, 5) r;
    INSERT INTO event_store (tenant_id, aggregate_kind, aggregate_id, seq, id, kind, schema_version, sealed_payload,
            subject, request_id)
        SELECT id, 'agent', gen_random_uuid(), 1, gen_random_uuid(), 'x', 1, '\\x00', 's', 'r'
        FROM t, generate_series(1, 5) r;
    INSERT INTO usage_counters (tenant_id, quota, day, used)
        SELECT id, 'executions', DATE '2026-01-01' + r, 1 FROM t, generate_series(1, 5) r;
    INSERT INTO organizations (tenant_id, id, name) SELECT id, gen_random_uuid(), 'o' || r FROM t, generate_series(1, 5) r;
    ANALYZE";

/// Every node of a plan.
fn nodes<'p>(plan: &'p Value, found: &mut Vec<&'p Value>) {
    found.push(plan);
    for part in plan["Plans"].as_array().into_iter().flatten() {
        nodes(part, found);
    }
}

#[tokio::test]
async fn hot_queries_read_the_tenant_once_and_its_rows_by_an_index() {
    with_db(async |db| {
        run(&mut db.root().await, FILL).await;
        let mut app = db.raw("gatehouse_app").await;
        run(&mut app, &format!("SET app.current_tenant_id = '{TENANT}'")).await;
        for (what, query) in HOT {
            let query = query.replace("TENANT", TENANT).replace("ID", ROW);
            let explained: Value =
                sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) {query}")))
                    .fetch_one(&mut app)
                    .await
                    .unwrap();
            let mut found = Vec::new();
            nodes(&explained[0]["Plan"], &mut found);
            let kind = |node: &Value, of: &str| node["Node Type"].as_str().unwrap().contains(of);
            assert!(
                found.iter().any(|node| node["Parent Relationship"] == "InitPlan"),
                "{what}: {explained}"
            );
            assert!(
                !found.iter().any(|node| kind(node, "Seq Scan")
                // A month without rows has nothing to look up.
                && node["Plan Rows"].as_f64().unwrap() > 1.0),
                "{what}: {explained}"
            );
            let by_tenant = found.iter().any(|node| {
                kind(node, "Index")
                    && node["Index Cond"].as_str().unwrap_or("").contains("tenant_id = ")
            });
            assert!(by_tenant, "{what}: {explained}");
        }
    })
    .await;
}

/// One tenant with 20 000 executions, of which what is looked for is the oldest.
const LONG: &str = "
    SET session_replication_role = replica;
    INSERT INTO tenants (id, slug, name, tier, status, epoch) VALUES ('TENANT', 'long', 'T', 'free', 'active', 1);
    INSERT INTO agents (tenant_id, id, name) SELECT 'TENANT', md5('a' || n)::uuid, 'a' || n FROM generate_series(1, 3) n;
    INSERT INTO agent_versions (tenant_id, id, agent_id, version, image)
        SELECT 'TENANT', md5('v' || n)::uuid, md5('a' || 1 + n / 9)::uuid, '1.0.' || n, 'a@sha256:' || repeat('a', 64)
        FROM generate_series(1, 20) n;
    INSERT INTO executions (tenant_id, id, agent_id, agent_version_id, input, created_by, state, end_reason, created_at)
        SELECT 'TENANT', gen_random_uuid(), md5('a' || 1 + v / 9)::uuid, md5('v' || v)::uuid, '{}', 's',
            CASE WHEN r < 19900 THEN 'completed' WHEN r < 19990 THEN 'failed' ELSE 'pending' END,
            CASE WHEN r < 19900 THEN 'completed' WHEN r < 19990 THEN 'failed' END, now() - r * interval '1 second'
        FROM (SELECT r, CASE WHEN r < 19900 THEN 1 + r % 19 ELSE 20 END AS v FROM generate_series(1, 20000) r) t;
    ANALYZE";

/// Rows that a plan looked at.
fn looked_at(plan: &Value) -> f64 {
    let mut found = Vec::new();
    nodes(plan, &mut found);
    let scans = found.iter().filter(|node| node["Node Type"].as_str().unwrap().contains("Scan"));
    scans
        .map(|scan| {
            let removed = scan["Rows Removed by Filter"].as_f64().unwrap_or(0.0);
            (scan["Actual Rows"].as_f64().unwrap() + removed)
                * scan["Actual Loops"].as_f64().unwrap()
        })
        .sum()
}

#[tokio::test]
async fn ee44_a_page_of_a_long_list_looks_at_little_more_than_it_shows() {
    with_db(async |db| {
        run(&mut db.root().await, &LONG.replace("TENANT", TENANT)).await;
        let mut app = db.raw("gatehouse_app").await;
        run(&mut app, &format!("SET app.current_tenant_id = '{TENANT}'")).await;
        let id = |of: &str| {
            let text = format!("SELECT md5('{of}')::uuid");
            sqlx::query_scalar::<_, Uuid>(AssertSqlSafe(text))
        };
        let (agent, rare) =
            (id("a1").fetch_one(&mut app).await, id("a3").fetch_one(&mut app).await);
        let version = id("v20").fetch_one(&mut app).await.unwrap();
        let all = Wanted::default();
        let (agent, rare) = (AgentId::new(agent.unwrap()), AgentId::new(rare.unwrap()));
        for (what, wanted) in [
            ("all", all),
            ("completed", Wanted { state: Some(ExecutionState::Completed), ..all }),
            ("failed", Wanted { state: Some(ExecutionState::Failed), ..all }),
            ("pending", Wanted { state: Some(ExecutionState::Pending), ..all }),
            ("ended so", Wanted { end_reason: Some(EndReason::Failed), ..all }),
            ("an agent's", Wanted { agent: Some(agent), ..all }),
            ("another agent's", Wanted { agent: Some(rare), ..all }),
            ("a version's", Wanted { version: Some(AgentVersionId::new(version)), ..all }),
            (
                "an agent's that failed",
                Wanted { agent: Some(rare), state: Some(ExecutionState::Failed), ..all },
            ),
        ] {
            let explain = "EXPLAIN (ANALYZE, FORMAT JSON) ";
            let explained: Value = wanted
                .query(explain, &Page::first(51))
                .build_query_scalar()
                .fetch_one(&mut app)
                .await
                .unwrap();
            let plan = &explained[0]["Plan"];
            // A version's page each, at most: of twenty versions here.
            assert!(looked_at(plan) < 2500.0, "{what}: {} rows: {plan:#}", looked_at(plan));
            assert!(plan["Actual Rows"].as_f64().unwrap() > 9.0, "{what}: {plan}");
        }
    })
    .await;
}
