//! No bytes of a client or of a sidecar trap the filter: a trap costs every request of the worker.

use gatehouse_contract::{
    Role,
    sidecar::{JwksAnswer, LeaseAnswer, PrincipalFacts},
};
use gatehouse_tests::vm::{Answer, Headers, Standing};
use serde_json::json;

use super::gate::{Gate, facts, forwarded, keys_answer, request, token};

/// How many random requests and answers each test tries; the sequence is the same every time.
const TRIES: usize = 400;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let size = self.roll(most + 1);
        (0..size).map(|_| u8::try_from(self.roll(256)).unwrap()).collect()
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }
}

#[test]
fn j30_arbitrary_bytes_in_headers_never_trap() {
    let mut gate = Gate::open();
    let mut dice = Dice(0x5eed);
    let good = format!("Bearer {}", token());
    let names = [
        "authorization",
        ":path",
        ":method",
        "x-tenant-id",
        "x_tenant_id",
        "baggage",
        "connection",
        "x-request-id",
        "content-type",
        "traceparent",
        "cookie",
        "",
    ];
    let pieces = [
        "Bearer ",
        "bearer",
        "%2e%2e",
        "%",
        "%zz",
        "/api/v1/",
        "/../",
        "//",
        ";",
        "tenant.id=",
        ",",
        "..",
        "eyJ",
        ".",
        "=",
        "\u{0}",
        "\r\n",
        "?",
        "#",
        "%00",
        "%c3%28",
        &good,
    ];
    for round in 0..TRIES {
        let mut headers: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        if dice.roll(4) > 0 {
            headers.push((b":method".to_vec(), b"GET".to_vec()));
            headers.push((b":path".to_vec(), b"/api/v1/registry/agents".to_vec()));
        }
        for _ in 0..dice.roll(12) {
            let name = match dice.roll(3) {
                0 => dice.bytes(20),
                _ => dice.pick(&names).as_bytes().to_vec(),
            };
            let mut value = Vec::new();
            for _ in 0..dice.roll(6) {
                match dice.roll(3) {
                    0 => value.extend(dice.bytes(40)),
                    _ => value.extend_from_slice(dice.pick(&pieces).as_bytes()),
                }
            }
            headers.push((name, value));
        }
        let stream = gate.vm.request(Headers::new(headers.clone()), dice.roll(2) == 0);
        let stream = stream.unwrap_or_else(|error| panic!("round {round}: {headers:?}: {error:#}"));
        gate.finish(stream);
        gate.vm.respond(stream, Headers::new([(":status", "200")])).unwrap();
        gate.vm.finish(stream).unwrap();
        gate.asked.clear();
    }
    // The VM is as good as before.
    forwarded(gate.send(&request("GET", "/api/v1/registry/agents", Some(&good))));
}

#[test]
fn sixty_four_kibibytes_in_one_header_are_judged() {
    let mut gate = Gate::open();
    let long = "a".repeat(64 * 1024);
    for name in ["authorization", "x-tenant-id", "baggage", "cookie", "x-request-id"] {
        let mut headers = request("GET", "/api/v1/registry/agents", None);
        headers.push((name, &long));
        assert!(matches!(gate.send(&headers), Standing::Replied(_)), "{name}");
    }
    let path = format!("/api/v1/{long}");
    assert!(matches!(gate.send(&request("GET", &path, None)), Standing::Replied(_)));
}

/// Which of the three call-outs of a first request is answered with damage.
const SURFACES: [&str; 3] = ["keys", "principal", "check"];

#[test]
fn arbitrary_answers_of_the_sidecar_never_trap_nor_let_pass() {
    let mut dice = Dice(0xa11);
    let bearer = format!("Bearer {}", token());
    let good = [
        keys_answer(&[super::gate::key()]).to_string(),
        facts(&[Role::Developer]).to_string(),
        json!({"check": super::gate::allowed(3)}).to_string(),
    ];
    let mut passed = 0;
    for round in 0..TRIES {
        let surface = dice.roll(SURFACES.len());
        let mut gate = Gate::open();
        let headers = Headers::new(request("GET", "/api/v1/registry/agents", Some(&bearer)));
        let stream = gate.vm.request(headers, true).unwrap();
        for _ in 0..surface {
            gate.answer_next();
        }
        let mut body = match dice.roll(8) {
            0 => "[".repeat(5000).into_bytes(),
            1 => "{\"a\":".repeat(3000).into_bytes(),
            2 => good[dice.roll(3)].clone().into_bytes(),
            _ => good[surface].clone().into_bytes(),
        };
        for _ in 0..dice.roll(2) {
            let at = dice.roll(body.len().max(1));
            match dice.roll(3) {
                0 => body.truncate(at),
                1 => body.splice(at..at, dice.bytes(8)).for_each(drop),
                _ => body.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 0x41),
            }
        }
        let odd = ["404", "503", "", "99999999999", "-1"];
        let status = if dice.roll(4) > 0 { "200" } else { dice.pick(&odd) };
        let marker = if dice.roll(4) > 0 { "1" } else { dice.pick(&["0", "", "2"]) };
        let answer = Headers::new([(":status", status), ("x-gatehouse-sidecar", marker)]);
        let token = gate.vm.calls()[0].token;
        gate.vm.answer(token, Answer::new(answer, body.clone())).unwrap_or_else(|error| {
            panic!("round {round}: {}: {error:#}", String::from_utf8_lossy(&body))
        });
        let standing = gate.finish(stream);
        if let Standing::Forwarded(_) = standing {
            passed += 1;
            let text = String::from_utf8_lossy(&body);
            let typed = match surface {
                0 => serde_json::from_str::<JwksAnswer>(&text).is_ok(),
                1 => serde_json::from_str::<PrincipalFacts>(&text).is_ok(),
                _ => serde_json::from_str::<LeaseAnswer>(&text)
                    .is_ok_and(|answer| answer.check.is_some_and(|check| check.allowed)),
            };
            assert!(
                (status, marker) == ("200", "1") && typed,
                "round {round}: {} {status} {marker:?} {text} let the request pass",
                SURFACES[surface]
            );
        }
    }
    // Else the damage was such that nothing was tried.
    assert!((TRIES / 20..TRIES / 2).contains(&passed), "{passed} of {TRIES} passed");
}
