//! One kept connection that speaks as much HTTP/1.1 as it takes to read a status and a body.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// No answer here is longer.
const MOST_BYTES: usize = 256 * 1024;

/// A connection; good until an exchange fails.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(target: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, bytes: Vec::with_capacity(4096) })
    }

    /// Sends these bytes and reads one answer: its status and its body (with its chunks' lengths, if it has any).
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<(u16, &[u8])> {
        self.bytes.clear();
        self.stream.write_all(request).await?;
        let head = loop {
            if let Some(end) = find(&self.bytes, b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await?;
        };
        let (status, length) = read_head(self.bytes.get(..head).unwrap_or_default())?;
        let end = match length {
            Length::Bytes(length) => {
                while self.bytes.len() < head + length {
                    self.more().await?;
                }
                head + length
            }
            Length::Chunked => {
                while !self.bytes.ends_with(b"0\r\n\r\n") {
                    self.more().await?;
                }
                self.bytes.len()
            }
        };
        ensure!(end == self.bytes.len(), "more than one answer");
        Ok((status, self.bytes.get(head..).unwrap_or_default()))
    }

    async fn more(&mut self) -> Result<()> {
        ensure!(self.bytes.len() < MOST_BYTES, "an answer without end");
        let read = self.stream.read_buf(&mut self.bytes).await?;
        ensure!(read > 0, "the connection ended without an answer");
        Ok(())
    }
}

enum Length {
    Bytes(usize),
    Chunked,
}

fn read_head(head: &[u8]) -> Result<(u16, Length)> {
    let text = std::str::from_utf8(head).context("a head that is no text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?;
    let status: u16 = status.parse().context("no status")?;
    let mut length = Length::Bytes(0);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = Length::Bytes(value.trim().parse().context("content-length")?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            length = Length::Chunked;
        }
    }
    Ok((status, length))
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
