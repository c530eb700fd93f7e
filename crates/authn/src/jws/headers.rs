//! Remembers headers as they were read: an issuer's tokens begin with the same bytes for as long as its key signs, and
//! each is read on the request path. The same bytes are the same header, so that nothing is decided here.
//! Knows neither keys nor signatures.

use std::sync::Arc;

use super::Header;

/// How many are remembered. A VM sees one per key that signs now.
const MOST: usize = 8;
/// The longest that is remembered, encoded, in bytes.
const LONGEST: usize = 512;

/// The headers that were read lately, by their encoded bytes; at most 8 of at most 512 bytes.
#[derive(Debug, Default)]
pub struct Headers {
    known: Vec<(Box<[u8]>, Arc<Header>)>,
    /// The place of the next one, once all are taken.
    next: usize,
}

impl Headers {
    /// What these bytes were read as.
    pub(super) fn get(&self, encoded: &[u8]) -> Option<Arc<Header>> {
        let (_, header) = self.known.iter().find(|(known, _)| **known == *encoded)?;
        Some(Arc::clone(header))
    }

    /// Remembers what these bytes were read as, in the place of the oldest.
    pub(super) fn keep(&mut self, encoded: &[u8], header: &Arc<Header>) {
        if encoded.len() > LONGEST {
            return;
        }
        let fresh = (encoded.into(), Arc::clone(header));
        match self.known.get_mut(self.next) {
            Some(place) => *place = fresh,
            None => self.known.push(fresh),
        }
        self.next = self.next.saturating_add(1) % MOST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(id: usize) -> Arc<Header> {
        let key_id = Some(id.to_string());
        Arc::new(Header { algorithm: crate::Algorithm::Es256, key_id, typ: None })
    }

    #[test]
    fn the_oldest_makes_room_and_what_is_too_long_is_not_kept() {
        let mut headers = Headers::default();
        let all: Vec<_> = (0..MOST + 1).map(header).collect();
        for (id, header) in all.iter().enumerate() {
            headers.keep(id.to_string().as_bytes(), header);
            let known = headers.get(id.to_string().as_bytes());
            assert!(known.is_some_and(|known| Arc::ptr_eq(&known, header)), "{id}");
        }
        assert!(headers.get(b"0").is_none());
        assert!((1..=MOST).all(|id| headers.get(id.to_string().as_bytes()).is_some()));
        for (length, kept) in [(LONGEST, true), (LONGEST + 1, false)] {
            let encoded = vec![b'x'; length];
            headers.keep(&encoded, &header(0));
            assert_eq!(headers.get(&encoded).is_some(), kept, "{length} bytes");
        }
        assert_eq!(headers.known.len(), MOST);
    }
}
