//! Plays the questions' script to a VM of the wasmtime host. Knows no answers.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gatehouse_tests::{
    env,
    token::Key,
    vm::{Answer, Filter, Headers, Standing, StreamId, Surroundings, Trap, Vm},
};

pub type Line = String;

/// A host to which the script is played.
pub trait Play {
    /// Sends a request to its end; what is to be seen of the answer.
    fn send(&mut self, path: &str, headers: &Headers) -> Vec<Line>;
    /// A client asks for `/late` and leaves; then its call-out is answered.
    fn leave_before_the_answer(&mut self);
    /// At least two ticks.
    fn let_ticks_pass(&mut self);
    /// Until the VM that trapped is replaced.
    fn wait_for_reload(&mut self);
}

pub const CONFIGURATION: &str = r#"{"probe": true}"#;
pub const VARIABLE: (&str, &str) = ("PROBE_VARIABLE", "a value");
/// What the peer answers on `/answer` and on everything else.
pub const ANSWER: &str = "an answer";

/// A public key and its signature of "probe", in hexadecimal digits.
pub fn key() -> &'static (String, String) {
    static KEY: OnceLock<(String, String)> = OnceLock::new();
    KEY.get_or_init(|| {
        let key = Key::generate("probe").unwrap();
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        (hex(key.spki().unwrap()), hex(key.sign(b"probe").unwrap()))
    })
}

/// The lines of an answer: status, the probe's own headers, the body.
pub fn seen(status: u32, headers: &Headers, body: &[u8]) -> Vec<Line> {
    let mut lines = vec![format!("{status}")];
    let shown = |name: &[u8]| name.starts_with(b"x-p-") || name == b"content-type";
    let mut shown: Vec<_> = headers
        .iter()
        .filter(|(name, _)| shown(name))
        .map(|(n, v)| format!("{}={}", n.escape_ascii(), v.escape_ascii()))
        .collect();
    // Only the order of values of one name means something.
    shown.sort();
    lines.push(shown.join(" "));
    lines.extend(String::from_utf8_lossy(body).lines().map(str::to_owned));
    lines
}

/// The wasmtime host.
pub struct Simulated {
    vm: Vm,
}

impl Simulated {
    pub fn start() -> Self {
        let around = Surroundings {
            targets: ["peer", "nobody", "silent"].map(str::to_owned).to_vec(),
            environment: vec![(VARIABLE.0.to_owned(), VARIABLE.1.to_owned())],
            ..Surroundings::at(now())
        };
        let filter = Filter::load(&env::path(env::PROBE).unwrap()).unwrap();
        let mut vm = Vm::start(&filter, &around).unwrap();
        assert!(vm.configure(CONFIGURATION).unwrap());
        vm.set_property("source\0address", b"127.0.0.1:1");
        vm.set_property("connection\0mtls", &[0]);
        vm.set_property("connection\0peer_certificate_valid", &[0]);
        Self { vm }
    }

    fn answer_all(&mut self) {
        for call in self.vm.calls() {
            let answer = match call.target.as_str() {
                "nobody" => Answer::refused(),
                "silent" => Answer::timed_out(),
                _ => Answer::new(Headers::new([(":status", "200"), ("x-p-a", "1")]), ANSWER),
            };
            self.vm.answer(call.token, answer).unwrap();
        }
    }

    fn open(&mut self, path: &str, headers: &Headers) -> anyhow::Result<StreamId> {
        let own = [(":method", "GET"), (":path", path), (":authority", "probe")];
        let own = own.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        self.vm.request(Headers::new(own.into_iter().chain(headers.iter())), true)
    }
}

impl Play for Simulated {
    fn send(&mut self, path: &str, headers: &Headers) -> Vec<Line> {
        let stream = match self.open(path, headers) {
            Ok(stream) => stream,
            Err(trap) => {
                assert!(trap.downcast_ref::<Trap>().is_some(), "{trap:#}");
                // What Envoy answers for the filter.
                return seen(503, &Headers::default(), b"");
            }
        };
        self.answer_all();
        let lines = match self.vm.standing(stream).unwrap().clone() {
            Standing::Replied(reply) => seen(reply.status, &reply.headers, &reply.body),
            Standing::Forwarded(request) => {
                let upstream = ["x-p-set", "x-p-gone", "x-p-dup"];
                // Of several values the real upstream names the first.
                let first = |name| request.all(name).into_iter().next().unwrap_or_default();
                let saw = upstream.map(|name| format!("{name}={}", first(name)));
                let answer = [(":status", "200"), ("content-type", "text/plain")];
                let answer = self.vm.respond(stream, Headers::new(answer)).unwrap();
                seen(200, &answer, saw.join(" ").as_bytes())
            }
            Standing::Held => panic!("{path}: held"),
        };
        self.vm.finish(stream).unwrap();
        lines
    }

    fn leave_before_the_answer(&mut self) {
        let stream = self.open("/late", &Headers::default()).unwrap();
        self.vm.finish(stream).unwrap();
        self.answer_all();
    }

    fn let_ticks_pass(&mut self) {
        self.vm.advance(Duration::from_millis(60)).unwrap();
        self.answer_all();
        self.vm.advance(Duration::from_millis(60)).unwrap();
    }

    fn wait_for_reload(&mut self) {
        assert!(self.vm.is_dead());
        assert!(self.vm.reload().unwrap());
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}
