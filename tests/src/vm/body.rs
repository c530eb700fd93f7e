//! The client's body, piece by piece: Envoy keeps what a filter pauses at, and shows it all of that with each new piece.
//! Knows nothing of what the filter decides.

use anyhow::Result;

use super::{Standing, StreamId, Vm};

impl Vm {
    /// Bytes of the client's body arrive; what goes on to the upstream now, with all that was held before, and `None`
    /// while the filter holds it.
    pub fn piece(
        &mut self,
        stream: StreamId,
        bytes: &[u8],
        ended: bool,
    ) -> Result<Option<Vec<u8>>> {
        let held = &mut self.stream(stream.0)?.body;
        held.extend_from_slice(bytes);
        let size = u32::try_from(held.len())?;
        let goes_on = self.body(stream, size, ended)?;
        self.after_body(stream, goes_on)
    }

    /// The client's trailers end its body; what goes on to the upstream, as with [`Vm::piece`].
    pub fn trailers_after_body(&mut self, stream: StreamId) -> Result<Option<Vec<u8>>> {
        self.store.data_mut().effective = stream.0;
        let action = self.call::<_, u32>("proxy_on_request_trailers", (stream.0, 0_u32))?;
        self.after_body(stream, action.is_none_or(|action| action == 0))
    }

    /// An answer of the filter ends the request, whether or not its headers went on before; else what goes on takes the
    /// held headers along.
    fn after_body(&mut self, id: StreamId, goes_on: bool) -> Result<Option<Vec<u8>>> {
        let stream = self.stream(id.0)?;
        if stream.reply.is_some() {
            stream.standing = Standing::Held;
        } else if goes_on {
            stream.resume = true;
        }
        self.settle(id.0)?;
        let stream = self.stream(id.0)?;
        let forwarded = goes_on && matches!(stream.standing, Standing::Forwarded(_));
        Ok(forwarded.then(|| std::mem::take(&mut stream.body)))
    }
}
