//! No transaction leaves its tenant on the connection that the next one gets: ten thousand tenants in turn over one
//! connection, futures that are dropped at every point, panics, and PgBouncer between store and database (TCP-002).

use std::{future::poll_fn, path::Path, pin::pin, process::Stdio, task::Poll, time::Duration};

use gatehouse_contract::{AgentId, TenantId};
use gatehouse_store::{OpCtx, Store, Urls, tenant::enter};
use sqlx::{Connection, PgConnection, Row};
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::harness::{Db, op, rows, run, server, with_db};

/// So many tenants, each with one agent. The n-th has the ids of [`tenant`] and [`agent`].
async fn tenants(db: &Db, count: u32) {
    run(
        &mut db.root().await,
        &format!(
            "INSERT INTO tenants (id, slug, name, tier, status)
                SELECT ('aaaaaaaa-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'tenant-' || n, 'T', 'free', 'active'
                FROM generate_series(0, {count} - 1) n;
             INSERT INTO agents (tenant_id, id, name)
                SELECT ('aaaaaaaa-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
                    ('bbbbbbbb-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'fuel'
                FROM generate_series(0, {count} - 1) n;
             ANALYZE tenants, agents"
        ),
    )
    .await;
}

fn id(head: u128, n: u32) -> Uuid {
    Uuid::from_u128((head << 96) | (0x0000_4000_8000_u128 << 48) | u128::from(n))
}

fn tenant(n: u32) -> OpCtx {
    op(TenantId::new(id(0xaaaa_aaaa, n)))
}

fn agent(n: u32) -> AgentId {
    AgentId::new(id(0xbbbb_bbbb, n))
}

/// Whether this tenant's transaction sees its own agent and not another's.
async fn sees_itself_alone(store: &Store, n: u32, other: u32) -> bool {
    let op = tenant(n);
    let mut tx = store.tenant(&op).await.unwrap();
    let own = tx.agent(agent(n)).await.unwrap().is_some();
    let others = tx.agent(agent(other)).await.unwrap().is_some();
    if n.is_multiple_of(2) {
        tx.commit().await.unwrap();
    }
    own && !others
}

/// Turns a future so often and drops it, wherever it is then.
async fn poll_for_a_while(work: impl Future, turns: u32) {
    let mut work = pin!(work);
    let mut left = turns;
    poll_fn(|context| {
        if left == 0 || work.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        left -= 1;
        Poll::Pending
    })
    .await;
}

/// Begins work for a tenant and gives it up.
async fn give_up(store: &Store, n: u32, turns: u32) {
    let op = tenant(n);
    let work = async {
        let mut tx = store.tenant(&op).await.unwrap();
        tx.agent(agent(n)).await.unwrap();
        tx.commit().await.unwrap();
    };
    poll_for_a_while(work, turns).await;
}

/// A store whose pool for tenants has one connection.
async fn over_one_connection(db: &Db) -> Store {
    let urls = Urls { app: db.url("gatehouse_app"), admin: None, system: None };
    Store::connect_over(&urls, 1).await.unwrap()
}

#[tokio::test]
async fn ten_thousand_tenants_in_turn_over_one_connection_see_themselves_alone() {
    const COUNT: u32 = 10_000;
    with_db(async |db| {
        tenants(&db, COUNT).await;
        let store = over_one_connection(&db).await;
        let mut leaked = 0;
        for n in 0..COUNT {
            // The one before had this connection; many were given up on the way, each time a little later.
            let before = (n + COUNT - 1) % COUNT;
            if n.is_multiple_of(5) {
                give_up(&store, before, n / 5 % 12).await;
            }
            leaked += u32::from(!sees_itself_alone(&store, n, before).await);
        }
        assert_eq!(leaked, 0);
    })
    .await;
}

#[tokio::test]
async fn a_panic_within_a_transaction_leaves_nothing_on_its_connection() {
    with_db(async |db| {
        tenants(&db, 60).await;
        let store = over_one_connection(&db).await;
        for n in 0..30 {
            let inner = store.clone();
            let ended = tokio::spawn(async move {
                let op = tenant(n);
                let mut tx = inner.tenant(&op).await.unwrap();
                let id = AgentId::new(Uuid::new_v4());
                let made = tx.create_agent(id, "half", None).await.unwrap();
                std::panic::resume_unwind(Box::new(made.name));
            })
            .await;
            assert!(ended.unwrap_err().is_panic());
            assert!(sees_itself_alone(&store, n + 30, n).await, "{n}");
        }
        assert_eq!(rows(&mut db.root().await, "SELECT FROM agents WHERE name = 'half'").await, 0);
    })
    .await;
}

/// A PgBouncer in transaction mode, with a socket of its own and so many connections to the database.
struct Bouncer {
    process: Child,
    folder: std::path::PathBuf,
}

impl Bouncer {
    async fn start(db: &Db, connections: u32) -> Self {
        let program = std::env::var("GATEHOUSE_TEST_PGBOUNCER")
            .expect("GATEHOUSE_TEST_PGBOUNCER is not set: run `cargo xtask test`");
        let folder = std::env::temp_dir().join(format!("gatehouse-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        let (host, port) =
            server().split_once(':').map(|(h, p)| (h.to_owned(), p.to_owned())).unwrap();
        std::fs::write(folder.join("users"), "\"gatehouse_app\" \"test\"\n").unwrap();
        let place = folder.display();
        let mut config = format!(
            "[databases]\n{name} = host={host} port={port} dbname={name}\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\n\
             unix_socket_dir = {place}\nauth_type = plain\nauth_file = {place}/users\npool_mode = transaction\n\
             default_pool_size = {connections}\nmax_client_conn = 100\nignore_startup_parameters = extra_float_digits\n",
            name = db.database()
        );
        // It does not run as root.
        if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&folder).unwrap()) == 0 {
            config.push_str("user = nobody\n");
            let own = Command::new("chown").args(["-R", "nobody"]).arg(&folder).status().await;
            assert!(own.unwrap().success());
        }
        std::fs::write(folder.join("ini"), config).unwrap();
        let process = Command::new(program)
            .arg("-q")
            .arg(folder.join("ini"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let bouncer = Self { process, folder };
        let url = bouncer.url(db);
        let answers = async {
            while PgConnection::connect(&url).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), answers).await.expect("PgBouncer answers");
        bouncer
    }

    fn url(&self, db: &Db) -> String {
        let place = self.folder.display();
        format!("postgres://gatehouse_app:test@localhost:6432/{}?host={place}", db.database())
    }

    async fn stop(mut self) {
        self.process.kill().await.unwrap();
        std::fs::remove_dir_all(Path::new(&self.folder)).unwrap();
    }
}

/// A tenant's transaction as the store begins it; how many agents it sees, and whether its own is among them. This
/// PgBouncer knows no statements that are kept from one transaction to the next.
async fn transaction(session: &mut PgConnection, n: u32) -> (i64, bool) {
    let tenant = TenantId::new(id(0xaaaa_aaaa, n));
    let mut tx = session.begin_with(enter(tenant)).await.unwrap();
    let seen = sqlx::query_as("SELECT count(*), coalesce(bool_or(id = $1), false) FROM agents")
        .bind(id(0xbbbb_bbbb, n))
        .persistent(false)
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    if n.is_multiple_of(2) {
        tx.commit().await.unwrap();
    } else {
        tx.rollback().await.unwrap();
    }
    seen
}

#[tokio::test]
async fn behind_pgbouncer_in_transaction_mode_tenants_share_connections_and_nothing_else() {
    with_db(async |db| {
        tenants(&db, 400).await;
        db.store.close().await;
        let bouncer = Bouncer::start(&db, 2).await;
        let url = bouncer.url(&db);
        let mut all = tokio::task::JoinSet::new();
        for client in 0..8_u32 {
            let url = url.clone();
            all.spawn(async move {
                let mut session = PgConnection::connect(&url).await.unwrap();
                let mut leaked = 0;
                for n in (0..50).map(|round| client * 50 + round) {
                    leaked += u32::from(transaction(&mut session, n).await != (1, true));
                    if n % 10 == 9 {
                        // Leaves in the midst of its transaction, and another comes.
                        poll_for_a_while(transaction(&mut session, n), n / 10 % 8).await;
                        session = PgConnection::connect(&url).await.unwrap();
                    }
                    // Whoever names no tenant sees nothing, whichever connection that is.
                    let none = sqlx::raw_sql("SELECT count(*) FROM agents")
                        .fetch_one(&mut session)
                        .await
                        .unwrap();
                    let none: i64 = none.get(0);
                    leaked += u32::from(none != 0);
                }
                leaked
            });
        }
        assert_eq!(all.join_all().await, [0; 8]);
        let open = format!(
            "SELECT FROM pg_stat_activity WHERE datname = '{}' AND usename = 'gatehouse_app'",
            db.database()
        );
        let open = rows(&mut db.root().await, &open).await;
        assert!(open <= 2, "{open}: the clients did not share");
        bouncer.stop().await;
    })
    .await;
}
