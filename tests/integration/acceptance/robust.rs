//! J30: bytes of any kind in any place. Every answer is one of the contract's, and no VM is lost.

use gatehouse_tests::{
    h2::{self, End},
    http::{Connection, Request},
};

use super::gate::{AGENTS, ALLOWED, Gate, PUBLIC, get, token, verdict};

/// Headers that the filter reads, and one that it does not.
const NAMES: &[&str] = &[
    "Authorization",
    "X-API-Key",
    "Cookie",
    "X-Tenant-ID",
    "X-Request-ID",
    "Baggage",
    "Traceparent",
    "Content-Type",
    "Origin",
    "Accept",
    "X-Gatehouse-Reason",
    "X-HTTP-Method-Override",
    "Connection",
    "X-Of-Nobody",
];

#[test]
fn j30_values_of_any_bytes_have_a_defined_verdict_and_cost_no_vm() {
    let gate = Gate::open();
    let long = vec![b'a'; 20_000];
    let mut values: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" ".to_vec(),
        b"\xff".to_vec(),
        b"\x80\x81\xfe\xff".to_vec(),
        b"\xc0\xaf".to_vec(),
        b"\xed\xa0\x80".to_vec(),
        b"=;,\"\\".to_vec(),
        b"Bearer \xff\xfe".to_vec(),
        b"tenant.id=\xff,a=b;c".to_vec(),
        b"\t\t".to_vec(),
        long,
    ];
    values.extend((1..=255_u8).filter(|byte| !matches!(byte, b'\r' | b'\n')).map(|b| vec![b, b]));
    let mut verdicts = std::collections::BTreeMap::<String, u32>::new();
    for name in NAMES {
        let mut connection: Option<Connection> = None;
        for value in &values {
            let request = get().raw(name.as_bytes(), value);
            let mut open = match connection.take() {
                Some(open) => open,
                None => Connection::open(gate.envoy.listen).unwrap(),
            };
            open.send(&request.bytes()).unwrap();
            let answer = open.response().unwrap();
            let status = answer.status().unwrap();
            assert!(matches!(status, 400 | 401 | 431), "{name} {value:?}: {answer:?}");
            *verdicts.entry(verdict(&answer)).or_default() += 1;
            if answer.headers.all("connection") != ["close"] {
                connection = Some(open);
            }
        }
    }
    // Most get through to the filter, so that this is no test of Envoy's codec alone.
    let ours: u32 = verdicts.iter().filter(|(v, _)| v.contains('_')).map(|(_, count)| count).sum();
    assert!(ours > 1000, "{verdicts:?}");
    // 64 KiB are more than Envoy takes.
    let huge = get().raw(b"X-Of-Nobody", &vec![b'a'; 65_536]);
    assert_eq!(gate.send(&huge).status().unwrap(), 431);
    gate.sound();
}

#[test]
fn j30_names_of_any_bytes_over_http2() {
    let gate = Gate::open();
    let bearer = format!("Bearer {}", token());
    let send = |name: &[u8], value: &[u8]| {
        let head: [(&[u8], &[u8]); 6] = [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":authority", b"a"),
            (b":path", AGENTS.as_bytes()),
            (b"authorization", bearer.as_bytes()),
            (name, value),
        ];
        h2::exchange(gate.envoy.listen, &head, b"", &[]).unwrap()
    };
    assert_eq!(send(b"x-sound", b"1"), End::Answered);
    for name in [b"x-\xb2".as_slice(), b"\xff", b"", b"X-Upper", b"x y", b"x-\r\ny", b":x"] {
        assert_ne!(send(name, b"1"), End::Answered, "{}", String::from_utf8_lossy(name));
    }
    for value in [b"\xff\xfe".as_slice(), b"", b"\x80", &[b'a'; 10_000]] {
        for name in ["x-tenant-id", "x-request-id", "baggage", "cookie", "x-api-key", "origin"] {
            assert_eq!(send(name.as_bytes(), value), End::Answered, "{name} {value:?}");
        }
    }
    gate.allows(&Request::new("GET", PUBLIC));
    assert_eq!(verdict(&gate.send(&get().bearer(&token()))), ALLOWED);
    gate.sound();
}
