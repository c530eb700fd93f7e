//! Replicas that are away, slow, promoted, somebody else's or reached as the wrong role: they answer nothing, and cost no
//! answer.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
};

use serde_json::json;

use super::{
    AGENTS, Pair, commands, get, migrated, reads, replica_of, setup_of, until_it_is, word,
};
use crate::{
    database::Database,
    world::{Service, Setup, until},
};

/// Reads without end while `meanwhile` runs; each is answered, and with what was written.
fn under_load(pair: &Pair, agent: &str, meanwhile: impl FnOnce()) {
    let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|n| {
                let (over, answered) = (&over, &answered);
                scope.spawn(move || {
                    let service = pair.services()[n % 2];
                    while !over.load(SeqCst) {
                        assert_eq!(pair.listed(service, agent), 1);
                        answered.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        until(|| (answered.load(SeqCst) > 20).then_some(()));
        meanwhile();
        let before = answered.load(SeqCst);
        until(|| (answered.load(SeqCst) > before + 20).then_some(()));
        over.store(true, SeqCst);
        for reader in readers {
            assert!(reader.join().is_ok(), "a read failed");
        }
    });
}

#[test]
fn a_replica_that_goes_away_stands_still_or_is_promoted_costs_no_answer() {
    let pair = Pair::new();
    let [a, b] = pair.services();
    let agent = pair.agent("agent-a");
    pair.write(a, &agent, 1);
    under_load(&pair, &agent, || {
        pair.replica.down();
        [a, b].iter().for_each(|service| until_it_is(service, "away"));
        // It may come back at any time, and an instance that starts meanwhile does not wait for it.
        let third = Service::start(&pair.world.setup);
        assert_eq!(word(&third), "away");
        pair.replica.up();
        [a, b, &third].iter().for_each(|service| until_it_is(service, "used"));
        pair.replica.signal("-STOP");
        [a, b].iter().for_each(|service| until_it_is(service, "away"));
        pair.replica.signal("-CONT");
        pair.until_used();
    });
    let before = reads(b, "");
    until(|| {
        assert_eq!(pair.listed(b, &agent), 1);
        (reads(b, "") > before).then_some(())
    });
    under_load(&pair, &agent, || {
        pair.follow("promote");
        [a, b].iter().for_each(|service| until_it_is(service, "refused"));
    });
    // It takes writes of its own now, and nobody here sees them.
    pair.replica.query("gatehouse", "UPDATE agents SET description = '7'");
    let (before, refused) = (reads(b, ""), reads(b, "refused"));
    for _ in 0..10 {
        assert_eq!(pair.listed(b, &agent), 1);
    }
    assert_eq!((reads(b, ""), reads(b, "refused")), (before, refused + 10));
}

#[test]
fn another_timelines_replica_is_refused_until_it_follows() {
    let pair = Pair::new();
    let agent = pair.agent("agent-a");
    pair.write(&pair.world.service, &agent, 1);
    // The one is promoted and becomes the primary; the other goes on with what is the old one now.
    let left = pair.primary.replica(commands("make"));
    pair.follow("promote");
    until(|| (pair.replica.query("postgres", "SELECT pg_is_in_recovery()") == "f").then_some(()));
    let any = Database::empty();
    let setup = setup_of(&pair.replica, &left, &any);
    let keys = std::fs::read(pair.world.setup.dir.path().join("key")).unwrap();
    assert_eq!(keys, std::fs::read(setup.dir.path().join("key")).unwrap());
    // Its position is ahead, with other contents.
    for n in 0..50 {
        pair.primary.query("gatehouse", &format!("UPDATE agents SET description = '{n}'"));
    }
    let service = Service::start(&setup);
    until_it_is(&service, "refused");
    for _ in 0..5 {
        assert_eq!(pair.listed(&service, &agent), 1);
    }
    assert_eq!((reads(&service, ""), reads(&service, "refused")), (0, 5));
    // Made anew from the new primary it is used.
    let anew = pair.replica.replica(commands("make"));
    pair.replica.follow(&anew, commands("timeline"));
    let setup = setup_of(&pair.replica, &anew, &any);
    let service = Service::start(&setup);
    until_it_is(&service, "used");
    until(|| {
        assert_eq!(pair.listed(&service, &agent), 1);
        (reads(&service, "") > 0).then_some(())
    });
}

#[test]
fn a_read_that_recovery_ends_or_that_takes_too_long_there_is_the_primarys() {
    let pair = Pair::new();
    let [a, b] = pair.services();
    let agent = pair.agent("agent-a");
    pair.write(a, &agent, 1);
    let slow = |seconds: &str| {
        let statement = format!(
            "DROP POLICY IF EXISTS slow ON agents;
             CREATE POLICY slow ON agents AS RESTRICTIVE FOR SELECT TO gatehouse_app
             USING (NOT pg_is_in_recovery() OR pg_sleep({seconds})::text IS NOT NULL)"
        );
        pair.primary.query("gatehouse", &statement);
    };
    // There alone it takes a second, and what it reads is taken from it at once.
    pair.replica.query("postgres", "ALTER SYSTEM SET max_standby_streaming_delay = 0");
    pair.replica.query("postgres", "SELECT pg_reload_conf()");
    slow("1");
    until(|| {
        thread::scope(|scope| {
            let read = scope.spawn(|| assert_eq!(pair.listed(b, &agent), 1));
            let reads = "SELECT count(*) FROM pg_stat_activity
                WHERE application_name = 'gatehouse-replica' AND wait_event = 'PgSleep'";
            until(|| {
                let sleeps = pair.replica.query("postgres", reads) != "0";
                (sleeps || read.is_finished()).then_some(())
            });
            let lock = "BEGIN; LOCK TABLE agents IN ACCESS EXCLUSIVE MODE;
                SELECT pg_current_xact_id(); COMMIT";
            pair.primary.query("gatehouse", lock);
            assert!(read.join().is_ok(), "a read failed");
        });
        (reads(b, "conflict") > 0).then_some(())
    });
    slow("30");
    until(|| {
        assert_eq!(pair.listed(b, &agent), 1);
        (reads(b, "slow") > 0).then_some(())
    });
}

#[test]
fn a_tenant_sees_its_own_there_and_nobody_without_one_sees_anything() {
    let pair = Pair::new();
    let [_, b] = pair.services();
    let agent = pair.agent("agent-a");
    let other = pair.world.tenant("tenant-b");
    let others = pair.world.member(&other, "admin");
    until(|| {
        let before = reads(b, "");
        assert_eq!(get(b, &others, AGENTS)["items"], json!([]));
        assert_eq!(get(b, &pair.token, AGENTS)["items"][0]["id"], agent);
        (reads(b, "") == before + 2).then_some(())
    });
    let ask = |first: &str| {
        pair.replica.query_as(
            "gatehouse_app",
            &format!("{first}SELECT count(*), (SELECT count(*) FROM tenant_audit) > 0 FROM agents"),
        )
    };
    let tenant = |id: &str| ask(&format!("SET app.current_tenant_id = '{id}';"));
    assert_eq!(ask(""), "0|f");
    assert_eq!(tenant(&pair.tenant.id), "1|t");
    assert_eq!(tenant(&other.id), "0|t");
}

fn refused(setup: &Setup, expected: &str) {
    let out = setup.refused();
    let stderr = String::from_utf8(out.stderr.clone()).unwrap();
    assert_eq!(out.status.code(), Some(78), "{stderr}");
    assert_eq!(stderr.trim_end(), format!("gatehouse-control-api: $.database: {expected}"));
}

#[test]
fn a_stranger_is_refused_at_the_start() {
    let primary = migrated();
    primary.query("postgres", "CREATE DATABASE another TEMPLATE gatehouse OWNER gatehouse_owner");
    let replica = replica_of(&primary);
    let any = Database::migrated();
    let mut setup = setup_of(&primary, &replica, &any);
    for (url, expected) in [
        (
            replica.url("postgres"),
            "the replica URL connects as \"postgres\", which is a superuser and would see every tenant; use gatehouse_app",
        ),
        (
            replica.url("gatehouse_owner"),
            "the replica URL connects as \"gatehouse_owner\", which owns tables and could switch their policies off; use gatehouse_app",
        ),
        (
            replica.url("gatehouse_admin"),
            "the replica URL connects as \"gatehouse_admin\", which is not this door's role; use gatehouse_app",
        ),
        (
            any.url("gatehouse_app"),
            "the replica URL leads to another cluster than the app URL; name a streaming replica of its server, and the same database",
        ),
        (
            replica.url_of("gatehouse_app", "another"),
            "the replica URL leads to another database than the app URL; name a streaming replica of its server, and the same database",
        ),
    ] {
        setup.config["database"]["replica"] = json!(url);
        refused(&setup, expected);
    }
    // After a failover this may be what is configured, and the service starts.
    setup.config["database"]["replica"] = json!(primary.url("gatehouse_app"));
    let service = Service::start(&setup);
    assert_eq!(word(&service), "refused");
}
