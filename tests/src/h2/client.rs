//! An HTTP/2 client that reads answers whole: headers, body and trailers, many streams on one connection.
//! Knows nothing of what is asked.

use std::{io::Cursor, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};

/// No exchange of a test lasts longer.
const LIMIT: Duration = Duration::from_secs(20);

/// One whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Status and headers.
    pub head: Response<()>,
    /// The body.
    pub body: Vec<u8>,
    /// `None` for a reply of headers alone.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// The values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.head.headers().get_all(name).iter().map(|v| v.to_str().unwrap_or("?")).collect()
    }
}

type Client = SendRequest<Cursor<Vec<u8>>>;

/// A connection, used within one runtime.
#[derive(Clone)]
pub struct Connection(Client);

impl Connection {
    /// Connects; the connection lives as long as the runtime.
    pub async fn open(to: SocketAddr) -> Result<Self> {
        let stream = tokio::net::TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let (client, connection) =
            h2::client::Builder::new().handshake::<_, Cursor<Vec<u8>>>(stream).await?;
        // Its end is seen by whoever waits for an answer.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self(client))
    }

    /// Sends one request and reads its answer.
    pub async fn send(&self, request: Request<()>, body: Option<Vec<u8>>) -> Result<Answer> {
        tokio::time::timeout(LIMIT, exchange(self.0.clone(), request, body))
            .await
            .context("no answer in time")?
    }
}

async fn exchange(client: Client, request: Request<()>, body: Option<Vec<u8>>) -> Result<Answer> {
    let mut client = client.ready().await?;
    let (answer, mut stream) = client.send_request(request, body.is_none())?;
    if let Some(body) = body {
        stream.send_data(Cursor::new(body), true)?;
    }
    let (head, mut from) = answer.await?.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = from.data().await {
        let piece = piece?;
        from.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    let trailers = from.trailers().await?;
    Ok(Answer { head: Response::from_parts(head, ()), body, trailers })
}

/// Runs `work` to its end on this thread.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
