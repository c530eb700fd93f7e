//! X11: what a real Envoy holds stays the same over many requests, many configurations, and clients that leave early.

pub mod footprint;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use gatehouse_tests::{
    bench::load::{Load, Requests},
    envoy::{self, Gateway, configuration},
    http::{Connection, Request},
    tiny,
    token::jwks,
    wait,
};
use serde_json::{Value, json};
use wasm_encoder::Instruction;

use self::footprint::{Footprint, PAGE_BYTES};
use super::{
    envelope::to,
    gate::{AGENTS, ALLOWED, Gate, Plan, alone, claims, get, key, signed, verdict},
};

/// How every enveloped answer of [`upstream`] ends.
const END: &str = ",\"error\":null}\r\n0\r\n\r\n";
/// After so many every cache, connection and arena is there.
const FIRST: u64 = 10_000;
const REQUESTS: u64 = 100_000;
/// Others use the machine, too, so that requests are counted and not timed.
const TURN: Duration = Duration::from_secs(1);

/// An upstream that answers every request of a connection with the same JSON.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || drop(serve(client)));
        }
    });
    address
}

fn serve(client: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut back = client.try_clone()?;
    let mut from = BufReader::new(client);
    let body = json!({"items": vec!["abcdefghijklmnopqrstuvwxyz"; 70]}).to_string();
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let answer = format!("{head}Content-Length: {length}\r\n\r\n{body}");
    let mut line = String::new();
    while from.read_line(&mut line)? > 0 {
        if line == "\r\n" {
            back.write_all(answer.as_bytes())?;
        }
        line.clear();
    }
    Ok(())
}

/// A document that asks nobody, with the envelope.
fn enveloped() -> Value {
    let mut document = alone(&jwks(&[key()]).unwrap());
    document["envelope"] = json!({});
    document
}

/// Tokens of one caller; each is judged and remembered for itself.
fn tokens(count: usize) -> Vec<String> {
    let token = |number| {
        let mut claims = claims();
        claims["jti"] = json!(format!("token-{number}"));
        claims["groups"] = json!(["developers"]);
        signed(&claims)
    };
    (0..count).map(token).collect()
}

#[test]
fn x11_memory_stays_the_same_over_100_000_enveloped_requests() {
    let gate =
        Gate::with(Plan { document: enveloped(), bootstrap: to(upstream()), ..Plan::default() });
    let requests = Requests::get(AGENTS, &tokens(100)).ending(END);
    let mut load = Load::open(gate.envoy.listen, 16, requests).unwrap();
    let mut answer = |wanted: u64| {
        let mut answered = 0;
        while answered < wanted {
            answered += load.run(TURN).unwrap();
        }
    };
    answer(FIRST);
    let first = Footprint::of(&gate.envoy.process);
    answer(REQUESTS);
    Footprint::of(&gate.envoy.process).assert_like(&first, 0);
}

/// Where the filter of the gateway at this port is written; Envoy watches the folder.
fn folder(port: u16) -> PathBuf {
    std::env::temp_dir().join(format!("gatehouse-filter-{port}"))
}

/// Puts the filter there whole, as a rename does.
fn publish(folder: &Path, filter: &Value) {
    let mut resource = filter.clone();
    resource["@type"] = json!("type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig");
    let new = folder.join("new.json");
    fs::write(&new, json!({"resources": [resource]}).to_string()).unwrap();
    fs::rename(new, folder.join("filters.json")).unwrap();
}

/// The filter comes from a file by the discovery that Istio uses for a WasmPlugin.
fn discovered(bootstrap: &mut Value) -> Option<()> {
    let port = bootstrap
        .pointer("/static_resources/listeners/0/address/socket_address/port_value")?
        .as_u64()?;
    let filter = envoy::manager(bootstrap)?.get_mut("http_filters")?.get_mut(0)?;
    let folder = folder(u16::try_from(port).ok()?);
    fs::create_dir_all(&folder).ok()?;
    publish(&folder, filter);
    fs::write(folder.join("first.json"), filter.to_string()).ok()?;
    *filter = json!({
        "name": filter["name"],
        "config_discovery": {
            "config_source": {
                "resource_api_version": "V3",
                "path_config_source": {
                    "path": folder.join("filters.json"),
                    "watched_directory": {"path": folder},
                },
            },
            "type_urls": [filter["typed_config"]["@type"]],
        },
    });
    Some(())
}

/// A module that takes a page more of memory with each request, and lets it pass.
fn hoarder() -> Vec<u8> {
    let grow = [
        Instruction::I32Const(1),
        Instruction::MemoryGrow(0),
        Instruction::Drop,
        Instruction::I32Const(0),
    ];
    tiny::module("proxy_set_tick_period_milliseconds", &grow)
}

#[test]
fn a_module_that_takes_memory_with_each_request_shows_in_the_footprint() {
    let dir = tempfile::tempdir().unwrap();
    let module = dir.path().join("hoarder.wasm");
    fs::write(&module, hoarder()).unwrap();
    let nobody = wait::address().unwrap();
    let config = configuration(dir.path(), &module, &enveloped(), nobody, nobody).unwrap();
    config.patch(|bootstrap| envoy::drop_cluster(bootstrap, "")).unwrap();
    let gateway = Gateway::run(dir.path(), config).unwrap();
    let first = Footprint::of(&gateway.process);
    // No route leads there: what passes the filter is 404.
    assert_eq!(
        Request::new("GET", "/nowhere").send(gateway.listen).unwrap().status().unwrap(),
        404
    );
    let last = Footprint::of(&gateway.process);
    let bytes = |of: &Footprint| of.vms.iter().sum::<u64>();
    assert_eq!((first.vms.len(), bytes(&last) - bytes(&first)), (last.vms.len(), PAGE_BYTES));
}

/// How many configurations are loaded until everything is there, and then.
const FIRST_CONFIGURATIONS: usize = 200;
const CONFIGURATIONS: usize = 1000;
/// What Envoy 1.40 itself keeps of each: little more than the text. A module that defines its metrics anew with each is
/// kept at twice that.
const KEPT_BYTES: u64 = 2048;
/// How many requests ask for the next configuration before the test waits a little.
const PROBES: u32 = 50;

/// What Envoy has from its own allocator, in bytes; VMs have theirs from the kernel.
fn allocated(gate: &Gate) -> u64 {
    let url = format!("http://{}/memory", gate.envoy.admin);
    let memory: Value = ureq::get(&url).call().unwrap().body_mut().read_json().unwrap();
    memory["allocated"].as_str().unwrap().parse().unwrap()
}

#[test]
fn x11_memory_stays_the_same_over_1000_configurations() {
    let gate = Gate::with(Plan {
        document: enveloped(),
        bootstrap: Box::new(discovered),
        ..Plan::default()
    });
    let folder = folder(gate.envoy.listen.port());
    let mut filter: Value =
        serde_json::from_slice(&fs::read(folder.join("first.json")).unwrap()).unwrap();
    let request = get().bearer(&tokens(1).remove(0)).bytes();
    let mut client = Connection::open(gate.envoy.listen).unwrap();
    // Each is seen to serve before the next one is there.
    let mut load = |limit: u32| {
        let mut document = enveloped();
        document["limiter"]["local"]["per_minute"] = limit.into();
        filter["typed_config"]["config"]["configuration"]["value"] = json!(document.to_string());
        publish(&folder, &filter);
        let mut serves = || {
            client.send(&request).unwrap();
            let answer = client.response().unwrap();
            assert_eq!(verdict(&answer), ALLOWED);
            answer.headers.all("x-ratelimit-limit") == [limit.to_string()]
        };
        wait::until("the next configuration serves", wait::START, || {
            Ok((0..PROBES).any(|_| serves()).then_some(()))
        })
        .unwrap();
    };
    let limits = 10_000_u32..;
    limits.clone().take(FIRST_CONFIGURATIONS).for_each(&mut load);
    let first = Footprint::of(&gate.envoy.process);
    let before = allocated(&gate);
    limits.skip(FIRST_CONFIGURATIONS).take(CONFIGURATIONS).for_each(load);
    // Now and then two configurations live at once. A page is 65 bytes of each: whatever is left of one would be more.
    Footprint::of(&gate.envoy.process).assert_like(&first, 1);
    let kept = allocated(&gate).saturating_sub(before);
    assert!(kept <= KEPT_BYTES * u64::try_from(CONFIGURATIONS).unwrap(), "{kept} bytes are kept");
    let reloads = "extension_config_discovery.http_filter.gatehouse.suite.config_reload";
    let all = u64::try_from(1 + FIRST_CONFIGURATIONS + CONFIGURATIONS).unwrap();
    assert_eq!(gate.envoy.stat(reloads).unwrap(), all);
    fs::remove_dir_all(folder).unwrap();
}
