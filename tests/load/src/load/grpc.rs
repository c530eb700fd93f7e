//! Clients of Envoy's `RateLimitService` (gRPC over h2c): a few connections with many streams each, every request
//! in the log. Encodes the one message that it asks with and reads the one field that is the verdict.
//! Knows no limits.

use std::{
    io::Cursor,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use h2::client::SendRequest;
use http::Request;
use tokio::task::LocalSet;

use super::{Clock, Log};
use crate::checker::{Entry, Outcome};

/// The path of the method.
pub const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// The framed `RateLimitRequest` with one descriptor of these entries.
pub fn question(domain: &str, entries: &[(&str, &str)]) -> Vec<u8> {
    let mut descriptor = Vec::new();
    for (key, value) in entries {
        let mut entry = Vec::new();
        field(&mut entry, 1, key.as_bytes());
        field(&mut entry, 2, value.as_bytes());
        field(&mut descriptor, 1, &entry);
    }
    let mut message = Vec::new();
    field(&mut message, 1, domain.as_bytes());
    field(&mut message, 2, &descriptor);
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(message);
    framed
}

/// A field of bytes (wire type 2).
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut rest = bytes.len();
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap_or(0));
    out.extend_from_slice(bytes);
}

/// The verdict of a framed `RateLimitResponse`: its `overall_code`.
pub fn verdict(framed: &[u8]) -> Outcome {
    match framed.get(5..7) {
        Some([8, 1]) => Outcome::Allowed,
        Some([8, 2]) => Outcome::Denied,
        _ => Outcome::Unavailable,
    }
}

/// Keeps `connections` × `streams` questions on their way for `span`; `questions` are (key, message), in turn.
pub fn run(
    to: SocketAddr,
    (connections, streams): (usize, usize),
    questions: &[(u32, Vec<u8>)],
    clock: Clock,
    span: Duration,
) -> Result<Log> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let questions: Arc<[(u32, Vec<u8>)]> = questions.into();
    let work = async {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for connection in 0..connections {
            let client = open(to).await?;
            for stream in 0..streams {
                let (client, stop) = (client.clone(), Arc::clone(&stop));
                let first = connection * streams + stream;
                let questions = Arc::clone(&questions);
                let step = connections * streams;
                tasks.push(tokio::task::spawn_local(async move {
                    caller(client, &questions, (first, step), clock, &stop).await
                }));
            }
        }
        tokio::time::sleep_until((Instant::now() + span).into()).await;
        stop.store(true, Ordering::Relaxed);
        let mut log = Log::default();
        for task in tasks {
            log = log.and(task.await.context("a caller broke")?);
        }
        Ok(log)
    };
    LocalSet::new().block_on(&runtime, work)
}

type Client = SendRequest<Cursor<Vec<u8>>>;

async fn open(to: SocketAddr) -> Result<Client> {
    let stream = tokio::net::TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(1 << 20);
    let (client, connection) = builder.handshake::<_, Cursor<Vec<u8>>>(stream).await?;
    // Its end is seen by whoever waits for an answer.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(client)
}

async fn caller(
    client: Client,
    questions: &[(u32, Vec<u8>)],
    (first, step): (usize, usize),
    clock: Clock,
    stop: &AtomicBool,
) -> Log {
    let mut log = Log::default();
    let mut turn = first;
    while !stop.load(Ordering::Relaxed) {
        let Some((key, question)) = questions.get(turn % questions.len().max(1)) else { break };
        turn += step;
        let sent = clock.now();
        let asked = tokio::time::timeout(PATIENCE, exchange(client.clone(), question)).await;
        let outcome = match asked {
            Ok(Ok(outcome)) => outcome,
            // A connection that broke is not opened again: this client has no other address.
            Ok(Err(_)) | Err(_) => Outcome::Lost,
        };
        log.entries.push(Entry { key: *key, sent, answered: clock.now(), outcome });
        if outcome == Outcome::Lost {
            break;
        }
    }
    log
}

async fn exchange(client: Client, question: &[u8]) -> Result<Outcome> {
    let mut client = client.ready().await?;
    let request = Request::post(format!("http://ratelimit{PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (answer, mut stream) = client.send_request(request, false)?;
    stream.send_data(Cursor::new(question.to_vec()), true)?;
    let mut body = answer.await?.into_body();
    let mut message = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        message.extend_from_slice(&piece);
    }
    body.trailers().await?;
    Ok(verdict(&message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_has_envoys_form() {
        assert_eq!(
            question("d", &[("tier", "pro")]),
            [b"\0\0\0\0\x12".as_slice(), b"\x0a\x01d", b"\x12\x0d\x0a\x0b\x0a\x04tier\x12\x03pro"]
                .concat()
        );
        let long = "x".repeat(200);
        let mut out = Vec::new();
        field(&mut out, 1, long.as_bytes());
        assert_eq!(out.get(..3), Some([10, 0xc8, 1].as_slice()));
    }

    #[test]
    fn the_verdict_is_the_overall_code() {
        for (framed, expected) in [
            (b"\0\0\0\0\x02\x08\x01".as_slice(), Outcome::Allowed),
            (b"\0\0\0\0\x04\x08\x02\x12\0", Outcome::Denied),
            (b"\0\0\0\0\x02\x08\x00", Outcome::Unavailable),
            (b"", Outcome::Unavailable),
        ] {
            assert_eq!(verdict(framed), expected, "{framed:?}");
        }
    }
}
