//! R16, R19, R20: what is charged once, and what not at all.

use std::{sync::Arc, time::Duration};

use gatehouse_tests::{
    envoy,
    http::{
        Connection, Request,
        serve::{self, response},
    },
    wait,
};
use rustix::process::Signal;
use serde_json::json;

use super::{AGENTS, asking, left_after, of_tenant};
use crate::acceptance::gate::{Gate, PUBLIC, Plan, get, token};

#[test]
fn r16_preflights_and_public_routes_are_free() {
    let gate = Gate::with(of_tenant(10));
    let before = left_after(&gate, &asking("GET", AGENTS));
    for _ in 0..15 {
        let preflight = Request::new("OPTIONS", AGENTS)
            .header("Origin", "https://app.greenlang.ai")
            .header("Access-Control-Request-Method", "GET");
        for request in [preflight.clone(), preflight.bearer(&token())] {
            let answer = gate.send(&request);
            assert_ne!(answer.status().unwrap(), 429, "{answer:?}");
            assert_eq!(super::told(&answer), None);
        }
        for request in [Request::new("GET", PUBLIC), Request::new("GET", PUBLIC).bearer(&token())] {
            assert_eq!(gate.verdict(&request), "200");
        }
    }
    assert_eq!(left_after(&gate, &asking("GET", AGENTS)), before - 1);
    // The nearest that is charged: OPTIONS that asks for nothing is no preflight.
    gate.denies(&Request::new("OPTIONS", AGENTS), "401 credential_missing");
    while gate.verdict(&asking("GET", AGENTS)) == "200" {}
    assert_eq!(gate.verdict(&Request::new("GET", PUBLIC)), "200");
}

#[test]
fn r19_a_client_that_leaves_while_it_waits_costs_one_charge_at_most() {
    const LEAVE: u32 = 8;
    let gate = Gate::with(of_tenant(100));
    let before = left_after(&gate, &asking("GET", AGENTS));
    let sidecar = &gate.sidecar.as_ref().unwrap().process;
    sidecar.signal(Signal::STOP).unwrap();
    let waiting = || gate.envoy.stat("cluster.gatehouse-sidecar.upstream_rq_active");
    let active = || gate.envoy.stat("http.gateway.downstream_rq_active");
    let leaving: Vec<Connection> = (0..LEAVE)
        .map(|_| {
            let mut connection = Connection::open(gate.envoy.listen).unwrap();
            connection.send(&get().bearer(&token()).bytes()).unwrap();
            connection
        })
        .collect();
    wait::until("all of them wait", Duration::from_secs(10), || {
        Ok((active()? >= LEAVE.into() && waiting()? >= 1).then_some(()))
    })
    .unwrap();
    drop(leaving);
    wait::until("all of them left", Duration::from_secs(10), || Ok((active()? == 0).then_some(())))
        .unwrap();
    // Answers come for streams that are gone.
    sidecar.signal(Signal::CONT).unwrap();
    wait::until("nothing waits any more", Duration::from_secs(10), || {
        let answer = gate.send(&asking("GET", AGENTS));
        Ok((answer.status()? == 200).then_some(()))
    })
    .unwrap();
    let after = left_after(&gate, &asking("GET", AGENTS));
    assert!(before - after <= LEAVE + 3, "{before} to {after}");
    for stat in ["vm_reload_success", "vm_reload_backoff", "vm_reload_failure"] {
        assert_eq!(gate.envoy.stat(&format!("wasm.suite.{stat}")).unwrap(), 0, "{stat}");
    }
    assert_eq!(gate.envoy.stat("http.gateway.downstream_rq_active").unwrap(), 0);
}

#[test]
fn r20_a_stream_is_charged_once_however_long_it_is() {
    let upstream: serve::Handler = Arc::new(|request| {
        let path = request.start.split(' ').nth(1).unwrap_or_default();
        match request.headers.one("upgrade").as_deref() {
            Some("websocket") => {
                response(101, &[("connection", "Upgrade"), ("upgrade", "websocket")], "")
            }
            _ if path.contains("/events") => {
                let events = "data: 1\n\n".repeat(200_000);
                response(200, &[("content-type", "text/event-stream")], events)
            }
            _ => serve::echo(request),
        }
    });
    let upgrades: crate::acceptance::gate::Patch = Box::new(|bootstrap| {
        envoy::manager(bootstrap)?
            .insert("upgrade_configs".to_owned(), json!([{"upgrade_type": "websocket"}]));
        Some(())
    });
    let gate = Gate::with(Plan { upstream, bootstrap: upgrades, ..of_tenant(50) });
    let before = left_after(&gate, &asking("GET", AGENTS));

    let mut socket = Connection::open(gate.envoy.listen).unwrap();
    let upgrade = asking("GET", AGENTS)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    socket.send(&upgrade.bytes()).unwrap();
    let switched = socket.response().unwrap();
    assert_eq!(switched.status().unwrap(), 101, "{switched:?}");
    assert_eq!(super::told(&switched).unwrap().remaining, before - 1);
    for _ in 0..50 {
        // A masked frame of one byte.
        socket.send(b"\x82\x81\0\0\0\0x").unwrap();
    }
    assert_eq!(left_after(&gate, &asking("GET", AGENTS)), before - 2);

    let events = gate.send(&asking("GET", &format!("{AGENTS}/events")));
    assert_eq!((events.status().unwrap(), events.body.len()), (200, 1_800_000));
    assert_eq!(super::told(&events).unwrap().remaining, before - 3);
    assert_eq!(left_after(&gate, &asking("GET", AGENTS)), before - 4);
    drop(socket);
    gate.sound();
}
