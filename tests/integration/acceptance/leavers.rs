//! X11: clients that leave while the gateway holds an answer for its envelope, or waits for the sidecar. Nothing of
//! them stays, in Envoy or in the module.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use gatehouse_tests::{http::Request, wait};
use serde_json::json;

use super::{
    envelope::{enveloped, to},
    gate::{AGENTS, ALLOWED, Gate, Plan, get, token, verdict},
    soak::footprint::Footprint,
};

/// How many leave at once, and how often.
const CLIENTS: u64 = 50;
const TURNS: u64 = 40;

/// An upstream that begins an answer and does not end it, but for those who ask for a whole one. How many it began.
fn upstream() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let begun = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&begun);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let count = Arc::clone(&count);
            std::thread::spawn(move || drop(serve(client, &count)));
        }
    });
    (address, begun)
}

fn serve(client: TcpStream, begun: &AtomicU64) -> std::io::Result<()> {
    let mut back = client.try_clone()?;
    let mut from = BufReader::new(client);
    let (mut line, mut whole) = (String::new(), false);
    while from.read_line(&mut line)? > 0 {
        whole |= line.contains("?whole");
        if line == "\r\n" {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7";
            back.write_all(head.as_bytes())?;
            back.write_all(if whole { b"\r\n\r\n[1,2,3]" } else { b"\r\n\r\n[1,2" })?;
            begun.fetch_add(u64::from(!whole), SeqCst);
            whole = false;
        }
        line.clear();
    }
    Ok(())
}

/// Sends the request from that many clients, waits until `held` says so, and lets them leave.
#[track_caller]
fn leave(gate: &Gate, request: &Request, what: &str, held: impl Fn() -> anyhow::Result<bool>) {
    let ask = |_| {
        let mut client = TcpStream::connect(gate.envoy.listen).unwrap();
        client.write_all(&request.bytes()).unwrap();
        client
    };
    let clients: Vec<TcpStream> = (0..CLIENTS).map(ask).collect();
    wait::until(what, wait::START, || Ok(held()?.then_some(()))).unwrap();
    let active = || gate.envoy.stat("http.gateway.downstream_rq_active");
    assert_eq!(active().unwrap(), CLIENTS, "{what}");
    drop(clients);
    wait::until("nothing is left of them", wait::START, || Ok((active()? == 0).then_some(())))
        .unwrap();
}

#[test]
fn x11_who_leaves_while_an_answer_is_held_leaves_nothing_behind() {
    let (address, begun) = upstream();
    let gate = Gate::with(Plan {
        document: enveloped(json!({})),
        bootstrap: to(address),
        ..Plan::default()
    });
    let held = get().bearer(&token());
    let mut turn = |turn: u64| {
        let all = turn * CLIENTS;
        leave(&gate, &held, "every answer has begun", || Ok(begun.load(SeqCst) == all));
        let upstream = "cluster.control-api.upstream_rq_active";
        assert_eq!(gate.envoy.stat(upstream).unwrap(), 0);
    };
    (1..=TURNS / 4).for_each(&mut turn);
    let first = Footprint::of(&gate.envoy.process);
    (TURNS / 4 + 1..=TURNS).for_each(&mut turn);
    Footprint::of(&gate.envoy.process).assert_like(&first, 0);
    // The same worker serves on, and the envelope with it.
    let whole = gate.send(&Request::new("GET", &format!("{AGENTS}?whole")).bearer(&token()));
    assert_eq!(verdict(&whole), ALLOWED);
    assert_eq!(whole.json().unwrap()["data"], json!([1, 2, 3]));
    assert_eq!(gate.envoy.stat("wasm.suite.vm_reload_success").unwrap(), 0);
}

#[test]
fn x11_who_leaves_while_the_sidecar_is_asked_leaves_nothing_behind() {
    let gate = Gate::open();
    let asked = || gate.envoy.stat("cluster.gatehouse-sidecar.upstream_rq_active");
    let request = get().bearer(&token());
    let turn = |_| {
        // The record is silent, so that requests of a caller whom nobody has seen wait within the filter.
        let record = gate.outside();
        leave(&gate, &request, "every client waits", || Ok(asked()? >= CLIENTS));
        drop(record);
        // What the sidecar says now is for nobody.
        wait::until("no question is open", wait::START, || Ok((asked()? == 0).then_some(())))
            .unwrap();
        assert_eq!(gate.upstream_saw().len(), 0);
    };
    (0..TURNS / 4).for_each(turn);
    let first = Footprint::of(&gate.envoy.process);
    (TURNS / 4..TURNS).for_each(turn);
    Footprint::of(&gate.envoy.process).assert_like(&first, 0);
    gate.sound();
}
