//! The questions. A request's path names a scene; the answer's body is what the host said, a line each.

use crate::{
    abi::{self, Given},
    callbacks::{CONTINUE, PAUSE, ROOT, Waiting, event, with},
};

/// Header maps by their numbers.
const REQUEST: u32 = 0;
const REQUEST_TRAILERS: u32 = 1;
const RESPONSE: u32 = 2;
const ANSWER: u32 = 6;
/// Buffers by their numbers.
const REQUEST_BODY: u32 = 0;
const ANSWER_BODY: u32 = 4;

pub fn shown(given: &Given) -> String {
    match given {
        Ok(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        Err(word) => (*word).to_owned(),
    }
}

/// The headers that are about this probe; hosts add others of their own.
fn ours(map: u32) -> String {
    match abi::pairs(map) {
        Ok(pairs) => {
            let pairs = pairs.iter().filter(|(name, _)| name.starts_with(b"x-p-"));
            let pairs = pairs.map(|(n, v)| format!("{}={}", n.escape_ascii(), v.escape_ascii()));
            pairs.collect::<Vec<_>>().join(" ")
        }
        Err(word) => word.to_owned(),
    }
}

/// Passes the request on with what stands under this name in the stream, whoever left it there.
pub fn tell(name: &str) -> u32 {
    abi::replace(REQUEST, "x-p-told", shown(&abi::property(name)).as_bytes());
    CONTINUE
}

/// Does what the path asks for.
pub fn play(context: u32, end: u32) -> u32 {
    let path = abi::header(REQUEST, ":path").unwrap_or_default();
    let path = String::from_utf8(path).unwrap_or_default();
    let mut lines = Vec::new();
    match path.trim_start_matches('/') {
        "headers" => headers(&mut lines, end),
        "forward" => return forward(),
        "reply" => {
            let headers: [(&str, &[u8]); 3] =
                [("x-p-r", b"1"), ("x-p-r", b"2"), ("content-type", b"probe/plain")];
            abi::reply(418, &headers, b"teapot");
            return PAUSE;
        }
        "empty" => {
            abi::reply(403, &[], b"");
            return PAUSE;
        }
        "shared" => shared(&mut lines),
        "state" => state(&mut lines),
        "signature" => signature(&mut lines),
        "clock" => lines.push(format!("it moves within a callback: {}", clock_moves())),
        "around" => around(context, &mut lines),
        "ticks" => lines.push(format!("ticked again: {}", with(|memory| memory.ticks > 1))),
        "events" => lines = with(|memory| memory.events.clone()),
        "count" => {
            let counted = with(|memory| {
                memory.counted += 1;
                memory.counted
            });
            lines.push(format!("request {counted} of this VM"));
        }
        "trap" => core::arch::wasm32::unreachable(),
        scene => return call(context, scene.to_owned(), lines),
    }
    finish(&lines)
}

fn finish(lines: &[String]) -> u32 {
    abi::reply(200, &[], lines.join("\n").as_bytes());
    PAUSE
}

fn headers(lines: &mut Vec<String>, end: u32) {
    let mut say = |what: &str, got: String| lines.push(format!("{what}: {got}"));
    say("end of stream", end.to_string());
    say("map", ours(REQUEST));
    for name in ["x-p-dup", "X-P-CASE", "x-p-none", "x-p-empty", "x-p-bytes", ""] {
        say(&format!("get {name:?}"), shown(&abi::header(REQUEST, name)));
    }
    say("replace", abi::replace(REQUEST, "x-p-dup", b"3").to_owned());
    say("then", ours(REQUEST));
    say("add", abi::add(REQUEST, "x-p-dup", b"4").to_owned());
    say("get of two", shown(&abi::header(REQUEST, "x-p-dup")));
    say("remove", abi::remove(REQUEST, "x-p-bytes").to_owned());
    say("remove none", abi::remove(REQUEST, "x-p-none").to_owned());
    say("replace none", abi::replace(REQUEST, "x-p-new", b"\x80\xfe").to_owned());
    say("replace in other case", abi::replace(REQUEST, "X-P-Upper", b"u").to_owned());
    say("replace by nothing", abi::replace(REQUEST, "x-p-case", b"").to_owned());
    say("at last", ours(REQUEST));
    say("trailers", ours(REQUEST_TRAILERS));
    say("response", ours(RESPONSE));
    say("answer", ours(ANSWER));
    say("get in response", shown(&abi::header(RESPONSE, ":status")));
    say("body", shown(&abi::buffer(REQUEST_BODY)));
    say("answer's body", shown(&abi::buffer(ANSWER_BODY)));
}

fn forward() -> u32 {
    abi::replace(REQUEST, "x-p-set", b"by the filter");
    abi::remove(REQUEST, "x-p-gone");
    CONTINUE
}

fn shared(lines: &mut Vec<String>) {
    let mut say = |what: &str, got: String| lines.push(format!("{what}: {got}"));
    let value = |key: &str| shown(&abi::shared(key).map(|(value, _)| value));
    let cas = |key: &str| abi::shared(key).map_or(0, |(_, cas)| cas);
    say("none", value("k"));
    say("set where none is, cas 7", abi::share("k", b"1", 7).to_owned());
    let first = cas("k");
    say("a cas number", (first != 0).to_string());
    say("set with it", abi::share("k", b"2", first).to_owned());
    say("and again", abi::share("k", b"3", first).to_owned());
    say("value", value("k"));
    say("numbers grow", (cas("k") > first).to_string());
    say("set with 0", abi::share("k", b"4", 0).to_owned());
    say("value", value("k"));
    let before = cas("k");
    say("another key", abi::share("l", b"\x80", 0).to_owned());
    say("value", value("l"));
    say("its number is later", (cas("l") > before).to_string());
    say("the first key's number stays", (cas("k") == before).to_string());
    say("an empty value", abi::share("l", b"", 0).to_owned());
    say("value", value("l"));
}

fn state(lines: &mut Vec<String>) {
    let mut say = |what: &str, got: String| lines.push(format!("{what}: {got}"));
    say("none", shown(&abi::property("p_none")));
    say("set", abi::set_property("p_state", b"1\x80").to_owned());
    say("get", shown(&abi::property("p_state")));
    say("set again", abi::set_property("p_state", b"2").to_owned());
    say("get", shown(&abi::property("p_state")));
    say("of an earlier request", shown(&abi::property("p_earlier")));
    say("leave", abi::set_property("p_earlier", b"1").to_owned());
    let address = abi::property("source\0address");
    say("an address", address.is_ok_and(|address| address.contains(&b':')).to_string());
    say("a certificate", shown(&abi::property("connection\0subject_peer_certificate")));
    say("a peer with a certificate", shown(&abi::property("connection\0mtls")));
    say("that was verified", shown(&abi::property("connection\0peer_certificate_valid")));
    say("and names it", shown(&abi::property("connection\0uri_san_peer_certificate")));
    let times = [abi::monotonic_ns(), abi::monotonic_ns()];
    say("a monotonic clock", times[0].is_ok().to_string());
    say("that never runs back", (times[0] <= times[1]).to_string());
    say("no such property", shown(&abi::property("probe\0none")));
}

/// Looks at the monotonic clock until it has moved a microsecond, and not for ever.
fn clock_moves() -> bool {
    let began = abi::monotonic_ns().unwrap_or_default();
    (0..1_000_000).any(|_| abi::monotonic_ns().is_ok_and(|now| now > began + 1000))
}

fn field(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    let mut size = bytes.len();
    while size > 0x7f {
        message.push(0x80 | (size & 0x7f) as u8);
        size >>= 7;
    }
    message.push(size as u8);
    message.extend_from_slice(bytes);
}

/// The key and a signature of "probe" come in headers, in hexadecimal digits.
fn signature(lines: &mut Vec<String>) {
    let bytes = |name: &str| {
        let text = abi::header(REQUEST, name).unwrap_or_default();
        let text = String::from_utf8(text).unwrap_or_default();
        let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        (0..text.len()).step_by(2).map_while(byte).collect::<Vec<u8>>()
    };
    let (key, good) = (bytes("x-p-key"), bytes("x-p-signature"));
    let flipped: Vec<u8> = good.iter().enumerate().map(|(i, b)| b ^ u8::from(i == 9)).collect();
    let cases: [(&str, &str, &[u8], &[u8], &[u8]); 8] = [
        ("good", "sha256", &key, &good, b"probe"),
        ("good, in capitals", "SHA256", &key, &good, b"probe"),
        ("flipped", "sha256", &key, &flipped, b"probe"),
        ("another text", "sha256", &key, &good, b"probf"),
        ("another hash", "sha512", &key, &good, b"probe"),
        ("no such hash", "sha-256", &key, &good, b"probe"),
        ("no signature", "sha256", &key, b"", b"probe"),
        ("no key", "sha256", b"key", &good, b"probe"),
    ];
    for (what, hash, key, signature, text) in cases {
        let mut arguments = Vec::new();
        for (number, bytes) in (1_u8..).zip([hash.as_bytes(), key, signature, text]) {
            field(&mut arguments, number, bytes);
        }
        let got = match abi::foreign("verify_signature", &arguments) {
            Ok(result) if result == [8, 1] => "valid".to_owned(),
            Ok(result) if result.first() == Some(&0x12) => "invalid".to_owned(),
            other => shown(&other),
        };
        lines.push(format!("{what}: {got}"));
    }
    let garbage = abi::foreign("verify_signature", &[0x0a]);
    lines.push(format!("no message: {}", shown(&garbage)));
    lines.push(format!("no such function: {}", shown(&abi::foreign("p_none", b""))));
}

fn around(context: u32, lines: &mut Vec<String>) {
    let now = abi::now_ns();
    // 2020-09-13.
    lines.push(format!("a time of this age: {}", now > 1_600_000_000_000_000_000));
    lines.push(format!("and it does not go back: {}", abi::now_ns() >= now));
    lines.push(format!("variable: {:?}", std::env::var("PROBE_VARIABLE")));
    lines.push(format!("no variable: {}", std::env::var("PROBE_NONE").is_err()));
    lines.push(format!("log: {}", abi::log("a line of the probe")));
    lines.push(format!("become nobody: {}", abi::become_context(99_999)));
    lines.push(format!("become the root: {}", abi::become_context(ROOT)));
    lines.push(format!("the root's request: {}", ours(REQUEST)));
    lines.push(format!("become oneself again: {}", abi::become_context(context)));
    lines.push(format!("one's own request: {}", ours(REQUEST)));
}

pub fn ask(target: &str, path: &str, timeout_ms: u32) -> Result<u32, &'static str> {
    let headers: [(&str, &[u8]); 4] = [
        (":method", b"GET"),
        (":path", path.as_bytes()),
        (":authority", b"probe"),
        ("x-p-bytes", b"\x80"),
    ];
    abi::call(target, &headers, timeout_ms)
}

fn call(context: u32, scene: String, mut lines: Vec<String>) -> u32 {
    let asked = match scene.as_str() {
        "call" => ask("peer", "/answer", 2000),
        "late" => ask("peer", "/late", 60_000),
        "nobody" => ask("nobody", "/", 2000),
        "silent" => ask("silent", "/", 100),
        "unknown" => ask("no-such-cluster", "/", 2000),
        "headless" => abi::call("peer", &[(":method", b"GET"), (":path", b"/")], 2000),
        _ => return CONTINUE,
    };
    match asked {
        Ok(token) => {
            with(|memory| memory.waiting.insert(context, Waiting { scene, lines, token }));
            PAUSE
        }
        Err(word) => {
            lines.push(format!("asked: {word}"));
            finish(&lines)
        }
    }
}

/// An answer has come.
pub fn answered(context: u32, token: u32, headers: bool, body: usize, trailers: u32) {
    let found = with(|memory| {
        let stream = memory.waiting.iter().find(|(_, waiting)| waiting.token == token);
        let stream = *stream?.0;
        Some((stream, memory.waiting.remove(&stream)?))
    });
    let status = shown(&abi::header(ANSWER, ":status"));
    let Some((stream, mut waiting)) = found else {
        event(format!("an answer to context {context}, which asked for itself: {status}"));
        return;
    };
    if waiting.scene == "late" {
        let gone = abi::become_context(stream);
        event(format!("an answer whose stream is gone: {status}, become it: {gone}"));
        return;
    }
    let given = abi::buffer(ANSWER_BODY);
    let lines = &mut waiting.lines;
    lines.push(format!("the answer is to the root: {}", context == ROOT));
    lines.push(format!("status: {status}, headers: {headers}, trailers: {trailers}"));
    lines.push(format!("headers: {}", ours(ANSWER)));
    lines.push(format!("body: {}", shown(&given)));
    lines.push(format!("its size: {}", given.map(|body| body.len()) == Ok(body)));
    lines.push(format!(
        "request before: {}",
        abi::pairs(REQUEST).map_or_else(|word| word, |_| "ok")
    ));
    lines.push(format!("become the stream: {}", abi::become_context(stream)));
    lines.push(format!("request then: {}", ours(REQUEST)));
    finish(&waiting.lines);
}
