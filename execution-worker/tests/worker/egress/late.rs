//! What an upstream or an agent may take, by a clock that the test moves: minutes pass in none.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time;

use super::{NAME, Open, Upstream, check, credential, egress, hosts};
use crate::system::PATIENCE;

/// A proxy whose upstream is `upstream`.
async fn open(upstream: &Upstream) -> Open {
    let listed = hosts(&[&format!("{NAME}:{}", upstream.port())]);
    Open::new(&egress(upstream, NAME), &listed, 9).await
}

/// Turns until `there`, without the clock's moving: what comes over a socket needs none.
async fn until(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !there() {
        assert!(Instant::now() < deadline, "waited for {what}");
        tokio::task::yield_now().await;
    }
}

/// On one thread, over loopback: long enough for whatever needs no clock.
async fn turns() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_thinks_has_five_minutes_and_one_that_falls_silent_two() {
    let upstream = Upstream::start().await;
    for (path, bound) in [("deaf", 300), ("silent", 120)] {
        let open = Arc::new(open(&upstream).await);
        let asked = Arc::clone(&open);
        let url = format!("http://{NAME}:{}/{path}", upstream.port());
        let asking = tokio::spawn(async move { asked.get(&url).await });
        until("its silence", || upstream.silent() == 1).await;
        // All that was said so far has arrived; then whatever were due would be done.
        turns().await;
        time::advance(Duration::from_secs(bound - 1)).await;
        turns().await;
        assert_eq!(upstream.silent(), 1, "given up before {bound} s");
        time::advance(Duration::from_secs(2)).await;
        turns().await;
        assert_eq!(upstream.silent(), 0, "not given up after {bound} s");
        let answer = asking.await.unwrap();
        match path {
            "deaf" => {
                check(&answer, 504, "egress_late");
                assert!(answer.contains("gave no answer within 300 s"), "{answer}");
            }
            // Of a thousand bytes: it does not look whole.
            _ => check(&answer, 200, "the beginning"),
        }
        let open = Arc::into_inner(open).unwrap();
        assert_eq!(open.session.end().await.requests, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_says_no_whole_head_does_not_keep_its_place() {
    let upstream = Upstream::start().await;
    let open = open(&upstream).await;
    let head = format!(
        "GET http://{NAME}/ HTTP/1.1\r\nproxy-authorization: {}",
        credential(&open.network)
    );
    let (network, before) = (Arc::clone(&open.network), Instant::now());
    let saying =
        tokio::spawn(async move { super::from_within(&network, super::PROXY, head).await });
    while !saying.is_finished() {
        assert!(before.elapsed() < PATIENCE, "it is kept");
        turns().await;
        time::advance(Duration::from_secs(1)).await;
    }
    let answer = saying.await.unwrap();
    assert!(!answer.contains(" 200 "), "{answer}");
    assert_eq!(open.session.end().await.requests, 0);
}
