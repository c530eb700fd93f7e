//! Over real sockets: who keeps a connection without sending a request, and what a shutdown waits for.

use std::time::Duration;

use axum::{Router, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use super::serve_within;
use crate::{Shutdown, shutdown::Trigger};

/// Nothing that is waited for takes longer on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(30);

async fn served(
    head: Duration,
    router: Router,
) -> (TcpStream, TcpStream, Trigger, oneshot::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, shutdown) = Shutdown::manual();
    let (ended, end) = oneshot::channel();
    tokio::spawn(async move {
        serve_within(head, "listen", listener, router, shutdown).await;
        drop(ended);
    });
    let one = TcpStream::connect(address).await.unwrap();
    (one, TcpStream::connect(address).await.unwrap(), trigger, end)
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut text)).await;
    // A reset is an end, too.
    drop(read.expect("the connection ends"));
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn who_sends_no_whole_head_is_let_go_and_others_are_answered() {
    let router = Router::new().route("/", get(async || "here"));
    let (mut slow, mut other, _trigger, _end) = served(Duration::from_millis(200), router).await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
    other.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut other).await.ends_with("here"));
    assert!(!rest(&mut slow).await.contains("200 OK"));
}

#[tokio::test]
async fn a_shutdown_waits_for_the_open_request_and_for_no_idle_connection() {
    let (asked, is_asked) = oneshot::channel::<()>();
    let (go, may_go) = oneshot::channel::<()>();
    let parts = std::sync::Arc::new(std::sync::Mutex::new(Some((asked, may_go))));
    let router = Router::new().route(
        "/",
        get(async move || {
            let (asked, may_go) = parts.lock().unwrap().take().unwrap();
            asked.send(()).unwrap();
            may_go.await.unwrap();
            "done"
        }),
    );
    let (mut open, mut idle, trigger, end) = served(DEADLINE, router).await;
    open.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    is_asked.await.unwrap();
    trigger.ask();
    assert_eq!(rest(&mut idle).await, "");
    go.send(()).unwrap();
    assert!(rest(&mut open).await.ends_with("done"));
    tokio::time::timeout(DEADLINE, end).await.expect("it ends").unwrap_err();
}
