//! A database per test, and hands for each role.
//! Knows nothing of what is tested.

use std::{ops::Deref, panic::resume_unwind, sync::Arc, time::Duration};

use gatehouse_contract::{
    AgentId, AgentVersionId, ApiKeyId, ExecutionId, Role, Roles, TenantId, Tier,
};
use gatehouse_execution::fair::{LEVELS, Room, Turns};
use gatehouse_store::{
    Actor, Job, MasterKeys, OffsetDateTime, OpCtx, Store, SystemTx, Urls,
    api_keys::{KeyMark, NewApiKey},
    executions::{NewExecution, Terms},
    feeder::Offer,
    migrate,
    versions::{self, NewVersion},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

/// One database.
pub struct Scratch {
    server: String,
    name: String,
}

/// One database with the schema, and a store that is open on it.
pub struct Db {
    scratch: Scratch,
    pub store: Store,
}

/// The superuser's URL of a private cluster whose roles have the password `test`.
pub fn superuser_url() -> String {
    std::env::var("GATEHOUSE_TEST_POSTGRES")
        .expect("GATEHOUSE_TEST_POSTGRES is not set: run `cargo xtask test`")
}

/// `host:port` of the cluster.
pub fn server() -> String {
    let url = superuser_url();
    let rest = url.split_once('@').map_or(url.as_str(), |(_, rest)| rest);
    rest.split('/').next().unwrap().to_owned()
}

/// A database that the migrations of this build were applied to: made once per cluster, by whichever test is first.
/// Copies of it are what tests get; nobody connects to it.
async fn template(root: &mut PgConnection) -> String {
    let mut mark = std::hash::DefaultHasher::new();
    migrate::sources().for_each(|source| std::hash::Hash::hash(source, &mut mark));
    let name = format!("gatehouse_template_{:016x}", std::hash::Hasher::finish(&mark));
    // Held until the session ends or the template is whole.
    run(root, "SELECT pg_advisory_lock(hashtextextended('gatehouse template', 0))").await;
    let there = format!("SELECT FROM pg_database WHERE datname = '{name}'");
    if rows(root, &there).await == 0 {
        let half = format!("{name}_half");
        run(root, &format!("DROP DATABASE IF EXISTS {half}")).await;
        run(root, &format!("CREATE DATABASE {half} OWNER gatehouse_owner")).await;
        let url = format!("postgres://gatehouse_owner:test@{}/{half}", server());
        migrate::run(&url).await.expect("the migrations apply");
        run(root, &format!("ALTER DATABASE {half} RENAME TO {name}")).await;
    }
    run(root, "SELECT pg_advisory_unlock_all()").await;
    name
}

/// The keys of a file with one line per digit.
pub fn keys(digits: &str) -> MasterKeys {
    let lines: Vec<String> = digits.chars().map(|digit| digit.to_string().repeat(64)).collect();
    MasterKeys::parse(&lines.join("\n")).unwrap()
}

/// Runs `test` with a database of its own and drops it, whatever becomes of the test.
async fn scratch<F: Future<Output = ()> + Send + 'static>(
    template: &str,
    test: impl FnOnce(Scratch) -> F + Send + 'static,
) {
    let name = format!("gatehouse_t_{}", Uuid::new_v4().simple());
    let mut root = root(&superuser_url()).await;
    let template =
        if template.is_empty() { self::template(&mut root).await } else { template.to_owned() };
    let make = format!("CREATE DATABASE {name} OWNER gatehouse_owner TEMPLATE {template}");
    run(&mut root, &make).await;
    // What a database grants is its own, and not its template's.
    let grant = format!(
        "REVOKE ALL ON DATABASE {name} FROM PUBLIC;
         GRANT CONNECT ON DATABASE {name} TO gatehouse_app, gatehouse_admin, gatehouse_system"
    );
    run(&mut root, &grant).await;
    let scratch = Scratch { server: server(), name: name.clone() };
    let ended = tokio::spawn(async move { test(scratch).await }).await;
    run(&mut root, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    if let Err(error) = ended {
        resume_unwind(error.into_panic());
    }
}

/// Runs `test` with a fresh database and a store that is open on it.
pub async fn with_db<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Arc<Db>) -> F + Send + 'static,
) {
    scratch("", |scratch| async move {
        let url = |role: &str| scratch.url(&format!("gatehouse_{role}"));
        let urls = Urls { app: url("app"), admin: Some(url("admin")), system: Some(url("system")) };
        let store = Store::connect(&urls).await.expect("the store opens").with_keys(keys("a"));
        test(Arc::new(Db { scratch, store })).await;
    })
    .await;
}

/// Runs `test` with a database that no migration has touched.
pub async fn with_empty_db<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Scratch) -> F + Send + 'static,
) {
    scratch("template0", test).await;
}

/// A session of the superuser.
pub async fn root(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("the superuser connects")
}

impl Deref for Db {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.scratch
    }
}

impl Scratch {
    pub fn url(&self, role: &str) -> String {
        format!("postgres://{role}:test@{}/{}", self.server, self.name)
    }

    pub fn database(&self) -> &str {
        &self.name
    }

    /// The superuser's URL for this database.
    pub fn root_url(&self) -> String {
        let url = superuser_url();
        let (before, _) = url.rsplit_once('/').unwrap();
        format!("{before}/{}", self.name)
    }

    /// A raw session as one of our roles.
    pub async fn raw(&self, role: &str) -> PgConnection {
        PgConnection::connect(&self.url(role)).await.expect("the role connects")
    }

    /// A raw session of the superuser.
    pub async fn root(&self) -> PgConnection {
        root(&self.root_url()).await
    }
}

impl Db {
    /// Ends when a session of this database waits for another's lock: a state to wait for, not a time.
    pub async fn until_one_waits(&self) {
        let mut root = self.root().await;
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        tokio::time::timeout(Duration::from_secs(20), async {
            while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut root).await.unwrap() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("a session waits for a lock");
    }

    /// A new tenant and an operation within it.
    pub async fn tenant(&self, slug: &str) -> OpCtx {
        let op = op(TenantId::new(Uuid::new_v4()));
        let mut tx = self.store.admin(&op, "a test's tenant").await.unwrap();
        tx.create_tenant(op.tenant, slug, slug, Tier::Free).await.unwrap();
        tx.commit().await.unwrap();
        op
    }

    /// A new agent with one version.
    pub async fn agent(&self, op: &OpCtx, name: &str) -> (AgentId, AgentVersionId) {
        let (agent, version) = (AgentId::new(Uuid::new_v4()), AgentVersionId::new(Uuid::new_v4()));
        let mut tx = self.store.tenant(op).await.unwrap();
        tx.create_agent(agent, name, None).await.unwrap();
        let image = format!("{name}@sha256:{}", "a".repeat(64));
        let terms = versions::Terms::default();
        let new = NewVersion { id: version, agent, version: "1.0.0".into(), image, terms };
        tx.create_version(&new).await.unwrap();
        tx.commit().await.unwrap();
        (agent, version)
    }

    /// A new pending execution.
    pub async fn execution(&self, op: &OpCtx, of: (AgentId, AgentVersionId)) -> ExecutionId {
        let id = ExecutionId::new(Uuid::new_v4());
        let new = NewExecution {
            id,
            agent: of.0,
            version: of.1,
            input: serde_json::json!({"litres": 1}),
            terms: Terms::default(),
        };
        let mut tx = self.store.tenant(op).await.unwrap();
        tx.submit_execution(&new).await.unwrap();
        tx.commit().await.unwrap();
        id
    }
}

/// Chooses as the feeder would where each stream has room for so many; they are kept until `tx` ends.
pub async fn offers(tx: &mut SystemTx, free: u32) -> Vec<Offer> {
    assert!(tx.leads().await.unwrap());
    let waiting = tx.who_waits([Uuid::nil(); LEVELS]).await.unwrap();
    let rooms = [Room { free, empty: false }; LEVELS];
    let chosen = Turns::default().choose(Duration::ZERO, &waiting, rooms);
    tx.take(&chosen).await.unwrap()
}

/// Offers what waits, and returns how many that were.
pub async fn offer(db: &Db) -> usize {
    let mut tx = db.store.system(Job::Feeder).await.unwrap();
    let offers = offers(&mut tx, 100).await;
    tx.mark_queued(&offers).await.unwrap();
    tx.commit().await.unwrap();
    offers.len()
}

/// A viewer's key that nobody owns.
pub fn key(id: Uuid) -> NewApiKey<'static> {
    NewApiKey {
        id: ApiKeyId::new(id),
        name: "key",
        environment: "test",
        mark: KeyMark { pepper_id: "p1".to_owned(), hmac: [3; 32] },
        roles: Roles::NONE.with(Role::Viewer),
        scopes: None,
        owner: None,
        expires_at: None,
    }
}

pub fn op(tenant: TenantId) -> OpCtx {
    OpCtx {
        tenant,
        subject: "tester".to_owned(),
        actor: Actor::Client,
        request_id: "r1".to_owned(),
        traceparent: None,
        now: OffsetDateTime::UNIX_EPOCH,
    }
}

/// The SQLSTATE of a statement that must fail.
pub async fn refused(connection: &mut PgConnection, statement: &str) -> String {
    let error = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(connection)
        .await
        .expect_err(statement);
    let error = error.as_database_error().unwrap_or_else(|| panic!("{statement}: {error}"));
    error.code().unwrap().into_owned()
}

/// Rows that a statement returns or touches.
pub async fn rows(connection: &mut PgConnection, statement: &str) -> usize {
    sqlx::query(AssertSqlSafe(statement.to_owned()))
        .fetch_all(connection)
        .await
        .expect(statement)
        .len()
}

pub async fn run(connection: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await.expect(statement);
}
