//! A stream that is written in whole buffers. hyper's HTTP/2 takes an answer of 256 bytes or more for one that is
//! cheaper sent from where it lies, as soon as the stream can write from several places: then it flushes each answer by
//! a call of its own. Ours have some 300 bytes, and dozens of them are ready at once; copied into one buffer they leave
//! by one call, which costs less than a tenth. Knows nothing of what is written.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module. `is_write_vectored` is left as it is by default: false.
pub struct Whole<T>(pub T);

impl<T: AsyncRead + Unpin> AsyncRead for Whole<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Whole<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::IoSlice,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
    };

    use axum::{
        body::Body,
        http::{Request, Response},
    };
    use hyper::{body::Incoming, server::conn::http2, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::{
        io::{DuplexStream, duplex},
        sync::Barrier,
    };

    use super::*;

    const CALLS: usize = 16;

    /// As a socket: writes from several places at once, and counts how often.
    struct Socket(DuplexStream, Arc<AtomicUsize>);

    impl AsyncRead for Socket {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Socket {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.1.fetch_add(1, Relaxed);
            Pin::new(&mut self.0).poll_write(context, bytes)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.1.fetch_add(1, Relaxed);
            Pin::new(&mut self.0).poll_write_vectored(context, slices)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(context)
        }

        fn poll_shutdown(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(context)
        }
    }

    /// How many writes it takes to answer calls that end together.
    async fn writes<T>(stream: impl FnOnce(Socket) -> T) -> usize
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (ours, theirs) = duplex(1 << 20);
        let count = Arc::new(AtomicUsize::new(0));
        let stream = stream(Socket(ours, Arc::clone(&count)));
        let together = Arc::new(Barrier::new(CALLS));
        let service = service_fn(move |_: Request<Incoming>| {
            let together = Arc::clone(&together);
            async move {
                together.wait().await;
                io::Result::Ok(Response::new(Body::from(vec![b'x'; 300])))
            }
        });
        let server = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        let server = tokio::spawn(server);
        let (mut client, connection) = h2::client::handshake(theirs).await.unwrap();
        let connection = tokio::spawn(connection);
        let calls: Vec<_> =
            (0..CALLS).map(|_| client.send_request(Request::new(()), true).unwrap().0).collect();
        for call in calls {
            let mut body = call.await.unwrap().into_body();
            let mut length = 0;
            while let Some(piece) = body.data().await {
                length += piece.unwrap().len();
            }
            assert_eq!(length, 300);
        }
        drop((server, connection));
        count.load(Relaxed)
    }

    #[tokio::test]
    async fn answers_that_are_ready_together_leave_together() {
        let (apart, together) = (writes(|socket| socket).await, writes(Whole).await);
        assert!(together < CALLS, "{together} writes for {CALLS} answers");
        // What the wrapper is for; should hyper learn it, the wrapper can go.
        assert!(apart > CALLS, "{apart} writes without it");
    }
}
