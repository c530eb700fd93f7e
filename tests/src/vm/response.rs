//! An upstream's whole response on its way through the filter, as Envoy does it: a piece that is held is kept, and the
//! next callback sees all that is kept. Knows nothing of what is made of it.

use anyhow::Result;

use super::{Headers, Reply, StreamId, Vm};

/// What the client gets of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// As they left.
    pub headers: Headers,
    /// All that left.
    pub body: Vec<u8>,
    /// The most that was held at a time, in bytes.
    pub most_held: usize,
    /// What the filter answered in its stead.
    pub reply: Option<Reply>,
}

impl Vm {
    /// A response with its body in these pieces, and trailers if `trailers`.
    pub fn deliver_response(
        &mut self,
        stream: StreamId,
        headers: Headers,
        pieces: &[&[u8]],
        trailers: bool,
    ) -> Result<Delivered> {
        let mut headers = headers;
        headers.lower_case_names();
        let count = u32::try_from(headers.len())?;
        self.store.data_mut().effective = stream.0;
        self.stream(stream.0)?.response = Some(headers);
        let ended = pieces.is_empty() && !trailers;
        let arguments = (stream.0, count, u32::from(ended));
        self.call::<_, u32>("proxy_on_response_headers", arguments)?;
        let mut body = Vec::new();
        let mut most_held = 0;
        for (place, piece) in pieces.iter().enumerate() {
            let last = place + 1 == pieces.len() && !trailers;
            self.stream(stream.0)?.response_body.extend_from_slice(piece);
            let size = u32::try_from(self.stream(stream.0)?.response_body.len())?;
            let arguments = (stream.0, size, u32::from(last));
            let action: Option<u32> = self.call("proxy_on_response_body", arguments)?;
            let held = &mut self.stream(stream.0)?.response_body;
            match action {
                // A host does not ask a module that exports no such callback.
                None | Some(0) => body.append(held),
                Some(_) => most_held = most_held.max(held.len()),
            }
        }
        if trailers {
            self.call::<_, u32>("proxy_on_response_trailers", (stream.0, 0_u32))?;
            body.append(&mut self.stream(stream.0)?.response_body);
        }
        let state = self.stream(stream.0)?;
        let headers = state.response.take().unwrap_or_default();
        Ok(Delivered { headers, body, most_held, reply: state.reply.clone() })
    }

    /// The answer that the filter gave after the request had passed.
    pub fn late_reply(&self, stream: StreamId) -> Option<&Reply> {
        self.store.data().streams.get(&stream.0)?.reply.as_ref()
    }
}
