//! Starts that are refused: roles that could see past row security, and databases without a schema.

use gatehouse_store::{Store, Urls, connect::Error, migrate};

use crate::harness::{Db, run, superuser_url, with_db};

async fn check(db: &Db, app: String, expected: &str) {
    let urls = Urls { app, admin: None, system: None };
    let error = Store::connect(&urls).await.expect_err(expected);
    let Error::Refused { why, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*why, expected);
    assert!(!error.to_string().contains("test@"), "no password in {error}");
    assert!(db.store.is_reachable().await);
}

#[tokio::test]
async fn roles_that_see_past_the_policies_get_no_pool() {
    with_db(async |db| {
        check(&db, db.root_url(), "is a superuser and would see every tenant").await;
        let owner = db.url("gatehouse_owner");
        check(&db, owner, "owns tables and could switch their policies off").await;
        check(&db, db.url("gatehouse_admin"), "is not this door's role").await;
        // Roles are the cluster's, not the database's: these have names of their own.
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        let mut root = db.root().await;
        run(&mut root, &format!("CREATE ROLE {name} LOGIN PASSWORD 'test' BYPASSRLS")).await;
        run(&mut root, &format!("GRANT CONNECT ON DATABASE {} TO {name}", db.database())).await;
        check(&db, db.url(&name), "has BYPASSRLS and would see every tenant").await;
        run(&mut root, &format!("ALTER ROLE {name} NOBYPASSRLS")).await;
        run(&mut root, &format!("GRANT gatehouse_owner TO {name}")).await;
        let member = "is a member of a role that could see past the policies";
        check(&db, db.url(&name), member).await;
        run(&mut root, &format!("DROP OWNED BY {name}; DROP ROLE {name}")).await;
    })
    .await;
}

#[tokio::test]
async fn a_database_without_the_schema_is_refused() {
    with_db(async |db| {
        run(&mut db.root().await, "DROP TABLE worker_heartbeats").await;
        let urls = Urls { app: db.url("gatehouse_app"), admin: None, system: None };
        let error = Store::connect(&urls).await.unwrap_err();
        assert!(matches!(error, Error::NotMigrated), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn a_door_without_a_url_stays_closed() {
    with_db(async |db| {
        let urls = Urls { app: db.url("gatehouse_app"), admin: None, system: None };
        let store = Store::connect(&urls).await.unwrap();
        let op = crate::harness::op(gatehouse_contract::TenantId::new(uuid::Uuid::new_v4()));
        assert!(store.admin(&op, "a test").await.is_err());
        assert!(store.system(gatehouse_store::Job::Feeder).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn an_address_where_nobody_answers_is_unreachable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    for (url, wanted) in [
        (format!("postgres://gatehouse_app:test@127.0.0.1:{port}/x"), "cannot be reached"),
        ("not a url".to_owned(), "is not a PostgreSQL URL"),
    ] {
        let urls = Urls { app: url, admin: None, system: None };
        let error = Store::connect(&urls).await.unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn migrations_run_twice_and_as_the_owner_only() {
    with_db(async |db| {
        let first = migrate::run(&db.url("gatehouse_owner")).await.unwrap();
        assert_eq!(migrate::run(&db.url("gatehouse_owner")).await.unwrap(), first);
        let error = migrate::run(&superuser_url()).await.unwrap_err();
        assert!(matches!(error, migrate::Error::Role(_)), "{error:?}");
    })
    .await;
}
