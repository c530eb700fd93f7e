//! How large a request may be (acceptance X3): its headers at once, its body by what it says and then by what comes.
//! Knows no routes and no hosts.

use gatehouse_contract::Reason;

use crate::{
    config::Suite,
    reply::Refusal,
    step::{Reply, RequestRecord},
    view::{Scan, Single},
};

/// The bounds; `None` leaves one to the host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) header_bytes: Option<usize>,
    pub(crate) headers: Option<usize>,
    pub(crate) body_bytes: Option<u64>,
}

impl Sizes {
    /// Why the request is too large by what its head tells.
    pub(crate) fn judge(&self, headers: &[(&[u8], &[u8])], found: &Scan<'_>) -> Option<Reason> {
        if let Some(most) = self.headers {
            // What the protocol puts in front is no header.
            let count = headers.iter().filter(|(name, _)| name.first() != Some(&b':')).count();
            if count > most {
                return Some(Reason::HeadersTooLarge);
            }
        }
        if let Some(most) = self.header_bytes {
            let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            if bytes > most {
                return Some(Reason::HeadersTooLarge);
            }
        }
        let most = self.body_bytes?;
        let said = match found.content_length {
            Single::One(said) => std::str::from_utf8(said).ok()?.trim().parse::<u64>().ok()?,
            // Hosts refuse what says two lengths; the body is counted either way.
            Single::Absent | Single::Many => return None,
        };
        (said > most).then_some(Reason::BodyTooLarge)
    }
}

impl Suite {
    /// Whether `bytes` of a request's body are more than may come.
    pub fn is_body_too_large(&self, record: &RequestRecord, bytes: u64) -> bool {
        self.parts.shapes()
            && record.counts_body
            && self.sizes.body_bytes.is_some_and(|most| bytes > most)
    }

    /// The answer to a request whose body is too large.
    pub fn refuse_body(&self, record: RequestRecord) -> Reply {
        self.refuse_late(record, Reason::BodyTooLarge)
    }

    /// Refuses a request that has passed, in its own dialect.
    pub(crate) fn refuse_late(&self, record: RequestRecord, reason: Reason) -> Reply {
        let dialect = record.dialect;
        Refusal::new(reason).into_reply(self.host, dialect, record)
    }
}

/// Whether what follows the head is a body: after an upgrade it is somebody's own protocol, as long as they like.
pub(crate) fn has_body(found: &Scan<'_>) -> bool {
    !found.upgrades && !matches!(found.method, Single::One(b"CONNECT"))
}
