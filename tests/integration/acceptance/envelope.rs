//! X1–X6: the envelope in real Envoy, around answers of a real upstream that sends them as it likes.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use gatehouse_tests::http::{Connection, Message, Request, serve::response};
use serde_json::{Value, json};

use super::gate::{AGENTS, Gate, Plan, document, token};

const BODY: &str = r#"{"b":1.0,"a":[1e400,12345678901234567890.1,"\u00e9\/"]}"#;

pub fn enveloped(envelope: Value) -> Value {
    let mut document = document();
    document["envelope"] = envelope;
    document
}

/// A gateway whose upstream answers with this.
fn gate(envelope: Value, upstream: fn(&str) -> Message) -> Gate {
    Gate::with(Plan {
        document: enveloped(envelope),
        upstream: Arc::new(move |request| upstream(case(&request.start))),
        ..Plan::default()
    })
}

/// What a request line asks the upstream to do.
fn case(line: &str) -> &str {
    let target = line.split(' ').nth(1).unwrap_or_default();
    target.split_once("case=").map_or("", |(_, case)| case)
}

fn ask(case: &str) -> Request {
    let path = format!("{AGENTS}?case={case}");
    Request::new("GET", &path).bearer(&token()).header("X-Request-ID", "r1")
}

fn whole(body: &str) -> String {
    format!(r#"{{"data":{body},"meta":{{"request_id":"r1","version":"v1"}},"error":null}}"#)
}

fn text(answer: &Message) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn plain(case: &str) -> Message {
    let with = |status: u16, extra: &[(&str, &str)]| {
        let mut headers = vec![JSON];
        headers.extend_from_slice(extra);
        response(status, &headers, BODY)
    };
    match case {
        "marks" => with(200, &[("ETag", "\"x\""), ("Repr-Digest", "x"), ("Content-MD5", "x")]),
        "none" => with(200, &[("X-Envelope", "none")]),
        "gzip" => with(200, &[("Content-Encoding", "gzip")]),
        "part" => with(206, &[("Content-Range", "bytes 0-1/2")]),
        "problem" => response(404, &[("Content-Type", "application/problem+json")], BODY),
        "sse" => response(200, &[("Content-Type", "text/event-stream")], BODY),
        "multipart" => response(200, &[("Content-Type", "multipart/mixed; boundary=x")], BODY),
        "empty" => response(204, &[], ""),
        "missing" => with(404, &[]),
        "broken" => response(200, &[JSON, ("ETag", "\"x\"")], "{\"a\":"),
        "large" => response(200, &[JSON, ("ETag", "\"x\"")], json!("x".repeat(5000)).to_string()),
        _ => with(200, &[]),
    }
}

#[test]
fn x1_json_answers_are_wrapped_and_nothing_else() {
    let gate = gate(json!({}), plain);
    let wrapped = gate.send(&ask("json"));
    assert_eq!((wrapped.status().unwrap(), text(&wrapped)), (200, whole(BODY)));
    assert_eq!(wrapped.headers.all("vary"), ["X-Envelope"]);
    for bare in ["none", "gzip", "part", "problem", "sse", "multipart"] {
        let answer = gate.send(&ask(bare));
        assert_eq!(text(&answer), BODY, "{bare}");
        assert_eq!(answer.headers.all("content-length"), [BODY.len().to_string()], "{bare}");
    }
    assert_eq!(gate.send(&ask("empty")).status().unwrap(), 204);
    assert_eq!(text(&gate.send(&ask("json").header("X-Envelope", "none"))), BODY);
    let head = format!("{AGENTS}?case=json");
    let head = gate.send(&Request::new("HEAD", &head).bearer(&token()));
    assert_eq!(head.headers.all("content-length"), [BODY.len().to_string()]);
    let missing = gate.send(&ask("missing"));
    let expected =
        format!(r#"{{"data":null,"meta":{{"request_id":"r1","version":"v1"}},"error":{BODY}}}"#);
    assert_eq!((missing.status().unwrap(), text(&missing)), (404, expected));
    // A refusal of our own has its own form.
    let refused = gate.send(&Request::new("GET", AGENTS));
    assert_eq!(refused.headers.all("content-type"), ["application/problem+json"]);
    assert_eq!(refused.json().unwrap()["code"], "credential_missing");
}

#[test]
fn x2_lengths_and_marks_of_the_old_bytes_are_gone() {
    for on_broken in ["pass", "refuse"] {
        let gate = gate(json!({"on_broken": on_broken}), plain);
        let answer = gate.send(&ask("marks"));
        assert_eq!(text(&answer), whole(BODY), "{on_broken}");
        for name in ["etag", "repr-digest", "content-md5"] {
            assert_eq!(answer.headers.all(name), [""; 0], "{name}");
        }
        let length = answer.headers.all("content-length");
        assert!(length.is_empty() || length == [whole(BODY).len().to_string()], "{length:?}");
    }
}

#[test]
fn x3_too_large_an_answer_passes_untouched() {
    let gate = gate(json!({"max_body_bytes": 1000}), plain);
    let answer = gate.send(&ask("large"));
    assert_eq!(text(&answer), json!("x".repeat(5000)).to_string());
    assert_eq!(answer.headers.all("etag"), ["\"x\""]);
    assert_eq!(answer.headers.all("content-length"), ["5002"]);
    assert_eq!(text(&gate.send(&ask("json"))), whole(BODY), "its nearest neighbour");
}

#[test]
fn x6_broken_json_passes_or_is_refused() {
    let gate = self::gate(json!({}), plain);
    let answer = gate.send(&ask("broken"));
    assert_eq!((answer.status().unwrap(), text(&answer)), (200, "{\"a\":".to_owned()));
    drop(gate);
    let gate = self::gate(json!({"on_broken": "refuse"}), plain);
    let answer = gate.send(&ask("broken"));
    assert_eq!(answer.status().unwrap(), 502, "{answer:?}");
    assert_eq!(answer.json().unwrap()["code"], "upstream_invalid");
    assert_eq!(answer.json().unwrap()["request_id"], "r1");
    assert_eq!(answer.headers.all("x-request-id"), ["r1"]);
    assert_eq!(text(&gate.send(&ask("json"))), whole(BODY), "its nearest neighbour");
    // What is held for a body is held for a request, too: a body does not run ahead of its verdict.
    let refused = gate.send(&Request::new("POST", AGENTS).json(&json!({"a": 1})));
    assert_eq!(refused.status().unwrap(), 401);
    assert_eq!(gate.upstream_saw().len(), 2);
    gate.allows_post();
}

trait Posts {
    fn allows_post(&self);
}

impl Posts for Gate {
    fn allows_post(&self) {
        let path = format!("{AGENTS}?case=json");
        let post = Request::new("POST", &path).bearer(&super::gate::with_claim("jti", json!("p")));
        let answer = self.send(&post.json(&json!({"a": 1})).header("X-Request-ID", "r1"));
        assert_eq!(text(&answer), whole(BODY));
        let saw = self.upstream_saw().pop().unwrap();
        assert_eq!(saw.json().unwrap(), json!({"a": 1}));
    }
}

/// An upstream that writes pieces as they are, and may leave in the middle.
fn raw(pieces: fn(&str) -> Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || drop(write_pieces(client, pieces)));
        }
    });
    address
}

fn write_pieces(client: TcpStream, pieces: fn(&str) -> Vec<Vec<u8>>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut back = client.try_clone()?;
    let mut from = BufReader::new(client);
    let mut first = String::new();
    from.read_line(&mut first)?;
    let mut line = String::new();
    while from.read_line(&mut line)? > 2 {
        line.clear();
    }
    for piece in pieces(case(&first)) {
        back.write_all(&piece)?;
        back.flush()?;
    }
    Ok(())
}

pub fn to(upstream: SocketAddr) -> super::gate::Patch {
    Box::new(move |bootstrap| {
        let clusters = bootstrap.pointer_mut("/static_resources/clusters")?.as_array_mut()?;
        let control = clusters.iter_mut().find(|cluster| cluster["name"] == "control-api")?;
        let endpoint =
            "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
        control.pointer_mut(endpoint)?["port_value"] = upstream.port().into();
        let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        control["typed_extension_protocol_options"] = json!({options: {
            "@type": format!("type.googleapis.com/{options}"),
            "explicit_http_config": {"http_protocol_options": {"enable_trailers": true}},
        }});
        let manager = gatehouse_tests::envoy::manager(bootstrap)?;
        manager.insert("http_protocol_options".to_owned(), json!({"enable_trailers": true}));
        Some(())
    })
}

fn chunked(case: &str) -> Vec<Vec<u8>> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let mut pieces = vec![format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes()];
    let size = case.split('-').next().and_then(|size| size.parse().ok()).unwrap_or(1);
    for piece in BODY.as_bytes().chunks(size) {
        pieces.push([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    match case.split_once('-').map(|(_, how)| how) {
        Some("cut") => drop(pieces.pop()),
        Some("trailers") => pieces.push(b"0\r\nX-Checksum: 7\r\n\r\n".to_vec()),
        _ => pieces.push(b"0\r\n\r\n".to_vec()),
    }
    pieces
}

#[test]
fn x4_x5_the_same_bytes_however_they_come_and_trailers_stay() {
    for on_broken in ["pass", "refuse"] {
        let gate = Gate::with(Plan {
            document: enveloped(json!({"on_broken": on_broken})),
            bootstrap: to(raw(chunked)),
            ..Plan::default()
        });
        for case in ["1", "2", "7", "1000", "1-trailers", "1000-trailers"] {
            let answer = gate.send(&ask(case));
            assert_eq!(text(&answer), whole(BODY), "{on_broken} {case}");
            let trailers = answer.trailers.all("x-checksum");
            assert_eq!(trailers.len(), usize::from(case.ends_with("trailers")), "{case}");
        }
        // The upstream leaves in the middle: the client learns it, and nothing hangs.
        let mut client = Connection::open(gate.envoy.listen).unwrap();
        client.send(&ask("1-cut").bytes()).unwrap();
        let cut = client.response().map(|answer| answer.status().unwrap());
        assert_ne!(cut.ok(), Some(200), "{on_broken}: half an answer is none");
        assert_eq!(text(&gate.send(&ask("1"))), whole(BODY));
        assert_eq!(gate.envoy.stat("wasm.suite.vm_reload_success").unwrap(), 0);
    }
}

#[test]
fn x5_numbers_and_escapes_are_the_upstreams() {
    let gate = gate(json!({}), plain);
    let answer = text(&gate.send(&ask("json")));
    for kept in ["1.0", "1e400", "12345678901234567890.1", r"\u00e9\/"] {
        assert!(answer.contains(kept), "{kept}: {answer}");
    }
    assert!(answer.find("\"b\"").unwrap() < answer.find("\"a\"").unwrap());
}
