//! A second opinion: what pgTAP, which knows nothing of ours, says of the schema.

use std::{path::Path, process::Command};

use crate::harness::{run, server, superuser_url, with_db};

#[tokio::test]
async fn pgtap_agrees() {
    with_db(async |db| {
        run(&mut db.root().await, "CREATE EXTENSION pgtap").await;
        let bin = std::env::var("GATEHOUSE_TEST_PG_BIN")
            .expect("GATEHOUSE_TEST_PG_BIN is not set: run `cargo xtask test`");
        let server = server();
        let (host, port) = server.split_once(':').unwrap();
        let url = superuser_url();
        let login = url.split_once("://").unwrap().1.split_once('@').unwrap().0;
        let (user, password) = login.split_once(':').unwrap();
        let mut psql = Command::new(Path::new(&bin).join("psql"));
        psql.args(["-X", "--quiet", "--no-align", "--tuples-only", "-v", "ON_ERROR_STOP=1"])
            .args(["--host", host, "--port", port, "--username", user, "--dbname", db.database()])
            .args(["--file", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/store/pgtap.sql")])
            .env("PGPASSWORD", password);
        let done = tokio::task::spawn_blocking(move || psql.output()).await.unwrap().unwrap();
        let told = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{told}{}", String::from_utf8_lossy(&done.stderr));
        let plan = told.lines().find_map(|line| line.strip_prefix("1..")?.parse::<usize>().ok());
        let count = |begin: &str| told.lines().filter(|line| line.starts_with(begin)).count();
        assert_eq!((Some(count("ok ")), count("not ok ")), (plan, 0), "{told}");
    })
    .await;
}
