//! Questions to the sidecar as data (the wire types are `contract::sidecar`'s).
//! Knows nothing of transport.

use std::rc::Rc;

use gatehouse_contract::sidecar::{
    CHECK_PATH, CheckAsk, JWKS_PATH, LEASE_PATH, LeaseAsk, PRINCIPAL_PATH, PrincipalAsk,
};
use serde::Serialize;

use super::{Pending, Request, WaitsFor};
use crate::{
    config::Sidecar,
    step::{Call, Step},
};

impl Sidecar {
    pub(super) fn keys(&self, issuer: &str, key_id: Option<&str>) -> Call {
        let mut path = format!("{JWKS_PATH}?issuer={}", query_encoded(issuer));
        if let Some(key_id) = key_id {
            path.push_str("&kid=");
            path.push_str(&query_encoded(key_id));
        }
        let to = Rc::clone(&self.target);
        Call {
            to,
            method: "GET",
            path,
            body: Vec::new(),
            timeout_ms: self.identity_timeout_ms,
            request_id: None,
        }
    }

    pub(super) fn principal(&self, ask: &PrincipalAsk) -> Call {
        self.post(PRINCIPAL_PATH, ask, self.identity_timeout_ms)
    }

    /// A charge of what passed already: nobody waits for it.
    pub(crate) fn charge(&self, ask: &CheckAsk) -> Call {
        self.post(CHECK_PATH, ask, self.identity_timeout_ms)
    }

    /// A decision, passes to take along, and passes that are handed back.
    pub(crate) fn lease(&self, ask: &LeaseAsk) -> Call {
        self.post(LEASE_PATH, ask, self.timeout_ms)
    }

    fn post(&self, path: &str, ask: &impl Serialize, timeout_ms: u64) -> Call {
        // These types have string keys only, so that this cannot fail; the sidecar refuses an empty body.
        let body = serde_json::to_vec(ask).unwrap_or_default();
        Call {
            to: Rc::clone(&self.target),
            method: "POST",
            path: path.to_owned(),
            body,
            timeout_ms,
            request_id: None,
        }
    }
}

impl Request {
    pub(super) fn wait(self, mut call: Call, waits_for: WaitsFor) -> Step {
        call.request_id = Some(Rc::clone(&self.record.request_id));
        Step::Call { call, pending: Box::new(Pending { request: self, waits_for }) }
    }
}

/// Everything but RFC 3986's unreserved characters is escaped.
fn query_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_key_id_reaches_the_query_unescaped() {
        for (text, expected) in [
            ("https://a.b/c", "https%3A%2F%2Fa.b%2Fc"),
            ("k&issuer=x#y z%+", "k%26issuer%3Dx%23y%20z%25%2B"),
            ("\u{e9}", "%C3%A9"),
        ] {
            assert_eq!(query_encoded(text), expected);
        }
    }
}
