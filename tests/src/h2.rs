//! As much of HTTP/2 as it takes to send what libraries refuse to: header and trailer blocks with any bytes in any
//! order (RFC 9113, RFC 7541 without Huffman coding and without the dynamic table). Answers are read by frame kind;
//! what they say is looked at elsewhere: at the upstream, in statistics.

pub mod client;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Result, bail};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// The only stream that is used.
const STREAM: u32 = 1;

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With a whole response.
    Answered,
    /// The stream was reset with this error code.
    Reset(u32),
    /// The connection was ended.
    GoneAway,
}

/// Header fields as they go on the wire.
pub type Fields<'a> = &'a [(&'a [u8], &'a [u8])];

/// Sends one request, with `body` and `trailers` if there are any, and waits for its end.
pub fn exchange(
    to: SocketAddr,
    head: Fields<'_>,
    body: &[u8],
    trailers: Fields<'_>,
) -> Result<End> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut out = PREFACE.to_vec();
    frame(&mut out, SETTINGS, 0, 0, &[]);
    let more = !body.is_empty() || !trailers.is_empty();
    let last = |more: bool| if more { END_HEADERS } else { END_HEADERS | END_STREAM };
    frame(&mut out, HEADERS, last(more), STREAM, &block(head));
    if more {
        let flags = if trailers.is_empty() { END_STREAM } else { 0 };
        frame(&mut out, DATA, flags, STREAM, body);
    }
    if !trailers.is_empty() {
        frame(&mut out, HEADERS, last(false), STREAM, &block(trailers));
    }
    stream.write_all(&out)?;
    loop {
        let mut head = [0; 9];
        match stream.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(End::GoneAway),
            read => read?,
        }
        let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
        let size = usize::try_from(u32::from_be_bytes([0, a, b, c]))?;
        let mut payload = vec![0; size];
        stream.read_exact(&mut payload)?;
        let ours = u32::from_be_bytes([s0, s1, s2, s3]) == STREAM;
        match kind {
            SETTINGS if flags & ACK == 0 => {
                let mut ack = Vec::new();
                frame(&mut ack, SETTINGS, ACK, 0, &[]);
                stream.write_all(&ack)?;
            }
            HEADERS | DATA if ours && flags & END_STREAM != 0 => return Ok(End::Answered),
            RESET if ours => match payload.try_into() {
                Ok(code) => return Ok(End::Reset(u32::from_be_bytes(code))),
                Err(payload) => bail!("a reset of {} bytes", payload.len()),
            },
            GO_AWAY => return Ok(End::GoneAway),
            _ => {}
        }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Every field as a literal without indexing and with a new name (RFC 7541 §6.2.2).
fn block(fields: Fields<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            length(&mut out, text.len());
            out.extend_from_slice(text);
        }
    }
    out
}

/// An integer with a prefix of 7 bits (RFC 7541 §5.1).
fn length(out: &mut Vec<u8>, size: usize) {
    let mut rest = match size.checked_sub(127) {
        None => {
            out.push(u8::try_from(size).unwrap_or(0));
            return;
        }
        Some(rest) => rest,
    };
    out.push(127);
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).unwrap_or(0) | 0x80);
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_rfc_7541() {
        for (size, expected) in [
            (0, vec![0]),
            (126, vec![126]),
            (127, vec![127, 0]),
            (1337 - 31 + 127, vec![127, 0x9a, 0x0a]),
        ] {
            let mut out = Vec::new();
            length(&mut out, size);
            assert_eq!(out, expected, "{size}");
        }
    }
}
