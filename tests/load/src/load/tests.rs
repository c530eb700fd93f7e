//! The clients against servers of plain threads.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
};

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn plan(targets: Vec<SocketAddr>, requests: u64) -> Plan {
    let ways = vec![Way { key: 7, request: REQUEST.into(), read: gateway_answer }];
    Plan { clients: 4, requests, ..Plan::new(targets, ways) }
}

/// A server that answers the n-th request with what `answer` says, and then ends the connection where it says so.
fn serve(answer: fn(u64) -> (&'static str, bool)) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU64::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                let mut back = stream.try_clone().unwrap();
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if line.is_empty() {
                        let (text, end) = answer(count.fetch_add(1, Ordering::SeqCst));
                        back.write_all(text.as_bytes()).unwrap();
                        if end {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

#[test]
fn every_request_is_in_the_log_with_its_answer() {
    let server = serve(|n| match n {
        0..10 => ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false),
        10..20 => {
            ("HTTP/1.1 429 No\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", false)
        }
        _ => ("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", false),
    });
    // The first address is nobody's: clients go on to the next.
    let log = plan(vec![nobody(), server], 25).run(Clock::start(), Duration::from_secs(20));
    let log = log.unwrap();
    assert_eq!(crate::checker::tally(&log.entries), [10, 10, 5, 0]);
    assert!(log.cut >= 2, "{} cut", log.cut);
    for entry in &log.entries {
        assert!(entry.key == 7 && entry.sent < entry.answered, "{entry:?}");
    }
}

#[test]
fn a_request_whose_connection_breaks_is_asked_again_and_logged_once() {
    let server = serve(|n| match n % 2 {
        0 => ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", true),
        _ => ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false),
    });
    let plan = Plan { clients: 1, ..plan(vec![server], 5) };
    let log = plan.run(Clock::start(), Duration::from_secs(20)).unwrap();
    assert_eq!((crate::checker::tally(&log.entries), log.cut), ([5, 0, 0, 0], 5));
}

#[test]
fn a_request_is_late_from_when_it_was_due() {
    // The first answer comes when the second and third request are long due: they did not wait unseen.
    let server = serve(|n| {
        if n == 0 {
            std::thread::sleep(Duration::from_millis(300));
        }
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false)
    });
    let plan = Plan { clients: 1, rate: Some(100), ..plan(vec![server], 3) };
    let log = plan.run(Clock::start(), Duration::from_secs(20)).unwrap();
    let took: Vec<Duration> =
        log.entries.iter().map(|entry| entry.answered.saturating_sub(entry.sent)).collect();
    assert_eq!(took.len(), 3);
    assert!(took.iter().all(|took| *took > Duration::from_millis(250)), "{took:?}");
}

#[test]
fn a_request_that_nobody_answers_is_lost() {
    let patience = Duration::from_millis(50);
    let plan = Plan { patience, clients: 1, ..plan(vec![nobody()], 1) };
    let log = plan.run(Clock::start(), Duration::from_secs(20)).unwrap();
    assert_eq!(crate::checker::tally(&log.entries), [0, 0, 0, 1]);
}

#[test]
fn answers_of_the_sidecar_are_read_by_their_verdict() {
    for (status, body, expected) in [
        (200, r#"{"allowed":true,"limits":[]}"#, Outcome::Allowed),
        (200, r#"{"allowed":false,"limits":[]}"#, Outcome::Denied),
        (503, r#"{"allowed":true}"#, Outcome::Unavailable),
        (200, "{}", Outcome::Unavailable),
    ] {
        assert_eq!(check_answer(status, body.as_bytes()), expected, "{status} {body}");
    }
}
