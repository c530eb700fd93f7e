//! Reads a stranger's output: all of it, so that the writer never waits, but keeps only the end of it. Whoever listens
//! meanwhile hears as much as it takes.
//! Knows nothing of what is written.

use gatehouse_execution::outcome::Captured;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::live::{Heard, Say};

/// Reads `pipe` to its end and keeps the last `keep` bytes. Memory is bounded by twice that.
/// A pipe that breaks counts as ended.
pub async fn tail(pipe: impl AsyncRead + Unpin, keep: usize) -> Captured {
    told(pipe, keep, None).await
}

/// As [`tail`], for somebody who listens: what does not fit into its channel at once it does not hear.
pub async fn told(
    mut pipe: impl AsyncRead + Unpin,
    keep: usize,
    listener: Option<Say>,
) -> Captured {
    let mut captured = Captured::default();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let read = buffer.get(..count).unwrap_or_default();
        if let Some(place) = listener.as_ref().and_then(|listener| listener.try_reserve().ok()) {
            place.send(Heard { from: captured.total_bytes, bytes: read.to_vec() });
        }
        captured.total_bytes += count as u64;
        captured.bytes.extend_from_slice(read);
        // Cut rarely, so that a long stream is not moved around for every read.
        if captured.bytes.len() > keep.saturating_mul(2) {
            cut(&mut captured, keep);
        }
    }
    cut(&mut captured, keep);
    captured.bytes.shrink_to_fit();
    captured
}

fn cut(captured: &mut Captured, keep: usize) {
    let surplus = captured.bytes.len().saturating_sub(keep);
    captured.bytes.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(stream: &[u8], keep: usize, kept: &[u8]) {
        let captured = tail(stream, keep).await;
        assert_eq!(captured.bytes, kept);
        assert_eq!(captured.total_bytes, stream.len() as u64);
        assert_eq!(captured.is_cut(), kept.len() < stream.len());
    }

    #[tokio::test]
    async fn who_listens_hears_what_it_takes_and_holds_nobody_up() {
        let (say, mut heard) = crate::live::channel();
        let long = vec![7; 1 << 20];
        let captured = told(long.as_slice(), 10, Some(say)).await;
        assert_eq!(captured.total_bytes, 1 << 20, "all of it was read while nobody took anything");
        let mut end = 0;
        while let Some(Heard { from, bytes }) = heard.recv().await {
            assert_eq!(from, end, "in order, from the beginning");
            end += bytes.len() as u64;
        }
        assert!(end > 0 && end < 1 << 19, "{end} bytes were kept for it");
    }

    #[tokio::test]
    async fn the_end_is_kept_and_everything_is_counted() {
        check(b"", 4, b"").await;
        check(b"abcd", 4, b"abcd").await;
        check(b"abcde", 4, b"bcde").await;
        check(b"abc", 0, b"").await;
        let long: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        check(&long, 1000, &long[999_000..]).await;
    }
}
