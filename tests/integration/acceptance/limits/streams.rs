//! R11, R20: responses that come piece by piece: what their heads and their trailers say of limits, and what a long one
//! costs while it is under way.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
};

use anyhow::{Context, Result};
use gatehouse_tests::{
    envoy::{cluster, manager},
    h2::client::{Answer, Connection, block_on},
    http::Message,
    wait,
};
use serde_json::{Value, json};

use super::{AGENTS, LIMITED, asking, charged, limiter, of_tenant, peek, structured, told};
use crate::acceptance::gate::{Gate, Patch, Plan, token};

/// Names of which none may stand in trailers.
const TELLING: [&str; 6] = [
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
];

type Script = Arc<dyn Fn(&Message, &mut TcpStream) -> Result<()> + Send + Sync>;

/// An upstream that writes the bytes of its answers itself; its connections end with their peers.
fn writing(script: Script) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let script = Arc::clone(&script);
            std::thread::spawn(move || -> Result<()> {
                let (mut back, mut from) = (client.try_clone()?, BufReader::new(client));
                while let Some(request) = Message::read(&mut from, false)? {
                    script(&request, &mut back)?;
                }
                Ok(())
            });
        }
    });
    address
}

/// An upstream of gRPC: each call is answered by one empty message, then a status in trailers.
fn grpc() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (client, _) = listener.accept().await?;
                tokio::spawn(serve(client));
            }
            #[expect(unreachable_code, reason = "names the type of what ends with the test")]
            Ok(())
        })
    });
    address
}

async fn serve(client: tokio::net::TcpStream) -> Result<()> {
    let mut connection = h2::server::handshake(client).await?;
    while let Some(call) = connection.accept().await {
        let (_, mut respond) = call?;
        let head = http::Response::builder().header("content-type", "application/grpc");
        let mut body = respond.send_response(head.body(())?, false)?;
        body.send_data(vec![0; 5].into(), false)?;
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse()?);
        body.send_trailers(trailers)?;
    }
    Ok(())
}

/// The control API is there, spoken to with these options; trailers pass in both directions.
fn upstream(at: SocketAddr, options: Value) -> Patch {
    Box::new(move |bootstrap| {
        manager(bootstrap)?
            .insert("http_protocol_options".to_owned(), json!({"enable_trailers": true}));
        let mut there = gatehouse_xtask::render::envoy::cluster("control-api", at);
        there["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": options,
            },
        });
        *cluster(bootstrap, "control-api")? = there.as_object()?.clone();
        Some(())
    })
}

fn http1() -> Value {
    json!({"http_protocol_options": {"enable_trailers": true}})
}

/// A call of gRPC in this dialect.
fn call(gate: &Gate, content_type: &str) -> Answer {
    let request = http::Request::builder()
        .method("POST")
        .uri(format!("http://api.greenlang.local{AGENTS}"))
        .header("content-type", content_type)
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", token()))
        .body(())
        .unwrap();
    let listen = gate.envoy.listen;
    block_on(async move {
        Connection::open(listen).await?.send(request, Some(vec![0, 0, 0, 0, 0])).await
    })
    .unwrap()
}

/// What a head says is left; both structured fields stand there once and agree.
#[track_caller]
fn left_in_head(answer: &Answer) -> i64 {
    for name in &TELLING[..5] {
        assert_eq!(answer.all(name).len(), 1, "{name}: {answer:?}");
    }
    assert_eq!(structured(answer.all("ratelimit-policy")[0])[0].1["q"], 3, "{answer:?}");
    let state = structured(answer.all("ratelimit")[0]);
    assert_eq!(state[0].1["r"].to_string(), answer.all("x-ratelimit-remaining")[0]);
    state[0].1["r"]
}

/// The names of an answer's trailers.
fn trailers(answer: &Answer) -> Option<Vec<&str>> {
    answer.trailers.as_ref().map(|trailers| trailers.keys().map(|name| name.as_str()).collect())
}

#[test]
fn r11_what_is_told_of_limits_stands_in_the_head_and_never_in_trailers() {
    // HTTP/1.1 in chunks, with trailers.
    let chunked: Script = Arc::new(|_, back| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
        write!(back, "{head}2\r\nab\r\n3\r\ncde\r\n0\r\nX-Sum: 5\r\n\r\n").context("answering")
    });
    let gate = Gate::with(Plan { bootstrap: upstream(writing(chunked), http1()), ..of_tenant(3) });
    let request = asking("GET", AGENTS).header("TE", "trailers");
    for left in (0..3).rev() {
        let answer = gate.send(&request);
        assert_eq!((answer.status().unwrap(), &answer.body[..]), (200, &b"abcde"[..]));
        assert_eq!(told(&answer).unwrap().remaining, left);
        assert_eq!(structured(&answer.header("ratelimit"))[0].1["r"], i64::from(left));
        let names: Vec<_> =
            answer.trailers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        assert_eq!(names, [b"x-sum"], "{answer:?}");
    }
    // The gateway's own answer has the same in its head, and no trailers.
    let refused = gate.denies(&request, LIMITED);
    assert_eq!((told(&refused).unwrap().remaining, refused.trailers.len()), (0, 0), "{refused:?}");
    drop(gate);

    // gRPC, whose every answer ends with trailers.
    let options = json!({"http2_protocol_options": {}});
    let gate = Gate::with(Plan { bootstrap: upstream(grpc(), options), ..of_tenant(3) });
    for left in (0..3).rev() {
        let answer = call(&gate, "application/grpc");
        assert_eq!((left_in_head(&answer), answer.body.len()), (left, 5), "{answer:?}");
        assert_eq!(trailers(&answer), Some(vec!["grpc-status"]));
    }
    for content_type in ["application/grpc", "application/grpc-web+proto"] {
        let refused = call(&gate, content_type);
        assert_eq!(refused.all("grpc-status"), ["8"], "{refused:?}");
        assert_eq!((left_in_head(&refused), trailers(&refused)), (0, None), "{refused:?}");
        assert_eq!(refused.all("retry-after").len(), 1, "{refused:?}");
        // gRPC-Web has its trailers in the body.
        let body = String::from_utf8_lossy(&refused.body).to_ascii_lowercase();
        assert!(TELLING.iter().all(|name| !body.contains(name)), "{refused:?}");
    }
    gate.envoy.stat("wasm.suite.vm_reload_success").map(|lost| assert_eq!(lost, 0)).unwrap();
    drop(gate);

    // Envoy's own answer to a call whose upstream is away.
    let nobody = upstream(wait::address().unwrap(), json!({"http2_protocol_options": {}}));
    let gate = Gate::with(Plan { bootstrap: nobody, ..of_tenant(3) });
    let away = call(&gate, "application/grpc");
    assert_eq!(away.all("grpc-status"), ["14"], "{away:?}");
    assert_eq!((left_in_head(&away), trailers(&away)), (2, None), "{away:?}");
}

#[test]
fn r20_a_long_response_is_charged_by_its_head_and_never_again() {
    const COST: u32 = 7;
    // Each piece is written when the test says so.
    let (go, wanted) = mpsc::channel::<()>();
    let wanted = Mutex::new(wanted);
    let slowly: Script = Arc::new(move |request, back| {
        if request.start.contains("next") {
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Cost: 3\r\n\r\n";
            return back.write_all(answer.as_bytes()).context("answering");
        }
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Cost: 7\r\n\r\n";
        write!(back, "{head}5\r\nbegin\r\n")?;
        while wanted.lock().unwrap().recv().is_ok() {
            write!(back, "4\r\nmore\r\n")?;
        }
        write!(back, "0\r\nX-Cost: 900\r\n\r\n").context("ending")
    });
    let gate = Gate::with(Plan {
        document: limiter(&json!({"cost_header": "x-cost"})),
        bootstrap: upstream(writing(slowly), http1()),
        ..of_tenant(100)
    });
    assert_eq!(peek(&gate), 100);
    let mut client = TcpStream::connect(gate.envoy.listen).unwrap();
    client.set_read_timeout(Some(wait::START)).unwrap();
    let request = asking("GET", AGENTS).header("TE", "trailers");
    client.write_all(&request.bytes()).unwrap();
    let mut client = BufReader::new(client);
    let mut seen = String::new();
    read_until(&mut client, &mut seen, "begin");
    assert!(seen.to_ascii_lowercase().contains("x-ratelimit-remaining: 99\r\n"), "{seen}");
    assert!(!seen.to_ascii_lowercase().contains("x-cost"), "{seen}");
    // While the response is under way, all of what its head says is charged.
    charged(&gate, COST);
    for _ in 0..50 {
        go.send(()).unwrap();
        read_until(&mut client, &mut seen, "more");
    }
    assert_eq!(peek(&gate), 100 - COST);
    // Its end is no second charge, whatever it says. What it owed would be told with what the next one owes: one key.
    drop(go);
    read_until(&mut client, &mut seen, "\r\n\r\n");
    let next = gate.send(&asking("GET", &format!("{AGENTS}?next")));
    assert_eq!((next.status().unwrap(), told(&next).unwrap().remaining), (200, 100 - COST - 1));
    charged(&gate, COST + 3);
    gate.envoy.stat("wasm.suite.vm_reload_success").map(|lost| assert_eq!(lost, 0)).unwrap();
}

/// Reads until `text` has come after what was seen before; that is what is seen then.
#[track_caller]
fn read_until(from: &mut impl BufRead, seen: &mut String, text: &str) {
    seen.clear();
    while !seen.contains(text) {
        let piece = from.fill_buf().unwrap();
        assert!(!piece.is_empty(), "ended after {seen}");
        let size = piece.len();
        seen.push_str(&String::from_utf8_lossy(piece));
        from.consume(size);
    }
}
