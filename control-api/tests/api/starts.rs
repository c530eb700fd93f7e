//! Starts that must not happen: one clear line per mistake, the right exit code, and nothing left behind.

use std::{net::TcpListener, process::Output};

use serde_json::{Value, json};

use crate::{
    database::Database,
    world::{Service, Setup, binary},
};

fn check(out: &Output, code: i32, expected: &[String]) {
    let stderr = String::from_utf8(out.stderr.clone()).unwrap();
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines, expected.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(out.status.code(), Some(code));
    assert!(out.stdout.is_empty(), "{out:?}");
}

fn line(text: impl Into<String>) -> String {
    format!("gatehouse-control-api: {}", text.into())
}

#[test]
fn three_mistakes_are_three_lines() {
    let database = Database::empty();
    let mut setup = Setup::new(&database);
    setup.config["internal_listen"] = json!("0.0.0.0:8081");
    setup.config["token_ttl_s"] = json!(5);
    setup.config["isuer"] = json!("x");
    let file = setup.file();
    let at = |text: &str| line(format!("config {}: {text}", file.display()));
    check(
        &setup.refused(),
        64,
        &[
            at(
                "$.internal_listen: 0.0.0.0:8081 can be reached from other machines; write a loopback address such as \"127.0.0.1:8081\"",
            ),
            at("$.token_ttl_s: 5 does not fit; write a whole number from 60 to 86400"),
            at("$.isuer: unknown field; did you mean \"issuer\"?"),
        ],
    );
}

#[test]
fn brokers_elsewhere_need_a_word_of_what_protects_the_way_there() {
    let database = Database::empty();
    let mut setup = Setup::new(&database);
    setup.config["database"]["system"] = json!(database.url("gatehouse_system"));
    let mut with = |kafka: Value| {
        setup.config["kafka"] = kafka;
        let out = setup.refused();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    let elsewhere =
        "kafka-1:9092 is not of this machine, and nothing here encrypts what goes there";
    for brokers in [json!(["kafka-1:9092"]), json!(["127.0.0.1:9092", "kafka-1:9092"])] {
        for kafka in
            [json!({"brokers": brokers}), json!({"brokers": brokers, "transport": "loopback"})]
        {
            let (code, said) = with(kafka);
            assert!(code == Some(64) && said.contains(elsewhere), "{said}");
        }
        // With a word it is the database that has no schema.
        for word in ["mesh", "cleartext"] {
            let (code, said) = with(json!({"brokers": brokers, "transport": word}));
            assert!(code != Some(64) && !said.contains("kafka"), "{said}");
        }
    }
    let (code, said) = with(json!({"brokers": ["localhost:9092"], "transport": "tls"}));
    assert!(code == Some(64) && said.contains("$.kafka.transport"), "{said}");
}

#[test]
fn missing_files_and_folders_are_named() {
    let database = Database::empty();
    let mut setup = Setup::new(&database);
    setup.config["key_file"] = json!("/nonexistent/key");
    setup.config["image_store"] = json!("/nonexistent/images");
    let file = setup.file();
    let at = |text: &str| line(format!("config {}: {text}", file.display()));
    check(
        &setup.refused(),
        64,
        &[
            at(
                "$.key_file: /nonexistent/key cannot be read: No such file or directory (os error 2); make one with `openssl rand -hex 32` and keep it: it opens the signing keys",
            ),
            at("$.image_store: /nonexistent/images is not a folder; make it, or name another"),
        ],
    );
}

#[test]
fn a_taken_port_is_one_line() {
    let database = Database::migrated();
    let mut setup = Setup::new(&database);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    setup.config["admin_listen"] = json!(address.to_string());
    let expected = format!(
        "$.admin_listen: {address} is taken by another process; stop it or choose another port"
    );
    check(&setup.refused(), 69, &[line(expected)]);
    assert_eq!(database.query("SELECT count(*) FROM signing_keys"), "0", "nothing half-started");
}

#[test]
fn a_role_that_sees_every_tenant_is_refused() {
    let database = Database::migrated();
    let mut setup = Setup::new(&database);
    let superuser = database.superuser();
    let name = superuser.split_once("://").unwrap().1.split([':', '@']).next().unwrap();
    setup.config["database"]["app"] = json!(superuser);
    let expected = format!(
        "$.database: the app URL connects as \"{name}\", which is a superuser and would see every tenant; use gatehouse_app"
    );
    check(&setup.refused(), 78, &[line(expected)]);
    setup.config["database"]["app"] = json!(database.url("gatehouse_owner"));
    let expected = "$.database: the app URL connects as \"gatehouse_owner\", which owns tables and could switch their policies off; use gatehouse_app";
    check(&setup.refused(), 78, &[line(expected)]);
}

#[test]
fn a_database_without_the_schema_is_refused() {
    let database = Database::empty();
    let setup = Setup::new(&database);
    let expected = "$.database: the database has no Gatehouse schema; run `gatehouse-control-api migrate --database URL`";
    check(&setup.refused(), 78, &[line(expected)]);
}

#[test]
fn a_database_that_does_not_answer_is_one_line_without_its_password() {
    let database = Database::empty();
    let mut setup = Setup::new(&database);
    let port = crate::world::free_port();
    setup.config["database"]["app"] =
        json!(format!("postgres://gatehouse_app:hunter2@127.0.0.1:{port}/x"));
    let out = setup.refused();
    let stderr = String::from_utf8(out.stderr.clone()).unwrap();
    assert_eq!((out.status.code(), stderr.lines().count()), (Some(69), 1), "{stderr}");
    assert!(stderr.contains("the app database cannot be reached"), "{stderr}");
    assert!(!stderr.contains("hunter2"), "{stderr}");
}

#[test]
fn migrations_want_the_owner() {
    let database = Database::empty();
    let migrate = |role: &str| {
        binary().args(["migrate", "--database", &database.url(role)]).output().unwrap()
    };
    // Before the first migration everyone may connect; that ends with it.
    let out = migrate("gatehouse_app");
    check(
        &out,
        78,
        &[line(
            "--database: migrations run as gatehouse_owner, not as \"gatehouse_app\"; name gatehouse_owner in the URL",
        )],
    );
    let first = migrate("gatehouse_owner");
    assert!(first.status.success(), "{first:?}");
    assert_eq!(migrate("gatehouse_owner").stdout, first.stdout, "a second run changes nothing");
}

#[test]
fn help_shows_examples_and_a_typo_is_usage() {
    let help = binary().arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8(help.stdout).unwrap();
    for part in
        ["Examples:", "serve --config", "migrate --database", "bootstrap --config", "Exit codes:"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(binary().arg("sevre").output().unwrap().status.code(), Some(64));
    assert_eq!(binary().arg("serve").output().unwrap().status.code(), Some(64));
}

#[test]
fn sigterm_ends_it_in_good_order_and_its_ports_are_free() {
    let database = Database::migrated();
    let setup = Setup::new(&database);
    assert_eq!(Service::start(&setup).stop().code(), Some(0));
    assert_eq!(Service::start(&setup).stop().code(), Some(0));
}
