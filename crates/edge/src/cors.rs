//! Whose scripts may read responses, and what a preflight is told (Fetch standard §3.2; ADR 0005, acceptance X9).
//! No guard of the upstream: a request of a foreign origin is judged like any other, and its browser hides the
//! response. Knows neither the document's form nor hosts.

use std::rc::Rc;

use gatehouse_contract::header;

use crate::{
    step::{self, Edit},
    text::Text,
    vary::Vary,
    view::Single,
};

/// The rules of one configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cors {
    pub(crate) origins: Origins,
    pub(crate) credentials: bool,
    /// `None`: all that the role matrix knows of a path.
    pub(crate) methods: Option<Vec<String>>,
    pub(crate) headers: Rc<str>,
    pub(crate) expose: Rc<str>,
    pub(crate) max_age_s: u32,
    pub(crate) private_network: bool,
}

/// Whose scripts may read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Origins {
    Any,
    Listed(Vec<Origin>),
}

/// One origin, or those under a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// As browsers serialise it, byte for byte; also `null`.
    Exact(Rc<str>),
    /// `before`, one label or more, `after`.
    Under {
        /// `https://`
        before: Box<str>,
        /// `.example.com`, and the port if one is named.
        after: Box<str>,
    },
}

/// What every response to one request says; made when the request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    cors: Rc<Cors>,
    /// `None`: nobody is told anything.
    origin: Option<Text>,
    preflight: Option<Preflight>,
}

/// What a preflight is told beside.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Preflight {
    methods: Text,
    private_network: bool,
}

const ORIGIN: &str = "access-control-allow-origin";
const CREDENTIALS: &str = "access-control-allow-credentials";
const EXPOSE: &str = "access-control-expose-headers";
/// What an upstream says of its own begins so.
const PREFIX: &[u8] = b"access-control-";

/// What scripts may always read of our own headers (acceptance X8).
pub(crate) const EXPOSED: &[&str] = &[
    step::RATE_STATE,
    step::RATE_POLICY,
    header::RATE_LIMIT,
    header::RATE_REMAINING,
    header::RATE_RESET,
    step::RATE_DEGRADED,
    step::RATE_WARNING,
    "retry-after",
    "www-authenticate",
    "deprecation",
    "sunset",
    "link",
    header::API_VERSION,
    header::REQUEST_ID,
    // What a browser's client of gRPC-Web has its status from (acceptance J34).
    "grpc-status",
    "grpc-message",
];

/// What scripts may send where the document does not say.
pub(crate) const SENT: &[&str] = &[
    "authorization",
    "content-type",
    header::API_KEY,
    header::REQUEST_ID,
    header::TRACEPARENT,
    "tracestate",
    header::BAGGAGE,
    "idempotency-key",
    "if-match",
    "if-none-match",
    header::IMPERSONATION_REASON,
    "x-envelope",
    "x-grpc-web",
    "x-user-agent",
    "grpc-timeout",
];

// === impl Cors ===

impl Cors {
    /// What the responses to a request of this origin say.
    pub(crate) fn grant(self: &Rc<Self>, origin: Single<'_>) -> Grant {
        Grant { cors: Rc::clone(self), origin: self.allowed(origin), preflight: None }
    }

    fn allowed(&self, origin: Single<'_>) -> Option<Text> {
        let origins = match &self.origins {
            Origins::Any => return Some("*".into()),
            Origins::Listed(origins) => origins,
        };
        let Single::One(theirs) = origin else { return None };
        let theirs = std::str::from_utf8(theirs).ok()?;
        origins.iter().find_map(|ours| ours.allows(theirs))
    }

    /// What the response depends on, whoever asks.
    pub(crate) fn vary(&self) -> Vary {
        match self.origins {
            Origins::Any => Vary::default(),
            Origins::Listed(_) => Vary::ORIGIN,
        }
    }
}

// === impl Origin ===

impl Origin {
    fn allows(&self, theirs: &str) -> Option<Text> {
        match self {
            Self::Exact(ours) => (ours.as_ref() == theirs).then(|| ours.into()),
            Self::Under { before, after } => {
                let labels = theirs.strip_prefix(&**before)?.strip_suffix(&**after)?;
                are_labels(labels).then(|| theirs.to_owned().into())
            }
        }
    }
}

/// Whether `text` is labels of a host name as browsers write them: no other name, port or user can hide in it.
pub(crate) fn are_labels(text: &str) -> bool {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    text.split('.').all(|label| !label.is_empty() && label.bytes().all(fits))
}

// === impl Grant ===

impl Grant {
    /// The request is a preflight for a path that serves `served`, separated by commas.
    pub(crate) fn preflight(&mut self, served: &str, asks_for_private_network: bool) {
        let served = served.split(", ").filter(|method| !method.is_empty());
        let methods: Vec<&str> = match &self.cors.methods {
            None => served.collect(),
            Some(ours) => served.filter(|method| ours.iter().any(|our| our == method)).collect(),
        };
        self.preflight = Some(Preflight {
            methods: methods.join(", ").into(),
            private_network: asks_for_private_network && self.cors.private_network,
        });
    }

    /// What a preflight's answer depends on.
    pub(crate) fn preflight_vary(&self) -> Vary {
        let mut vary = Vary::PREFLIGHT;
        if self.cors.private_network {
            vary.add(Vary::PRIVATE_NETWORK);
        }
        vary
    }

    /// The headers of the response; none for a foreign origin.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'static str, Text)> {
        let cors = &self.cors;
        let origin = self.origin.as_ref();
        let always = origin.map(|origin| {
            let credentials = cors.credentials.then(|| (CREDENTIALS, "true".into()));
            std::iter::once((ORIGIN, origin.clone())).chain(credentials)
        });
        let asked = self.preflight.as_ref().filter(|_| origin.is_some()).map(|preflight| {
            let private = "access-control-allow-private-network";
            [
                ("access-control-allow-methods", preflight.methods.clone()),
                ("access-control-allow-headers", (&cors.headers).into()),
                ("access-control-max-age", cors.max_age_s.into()),
            ]
            .into_iter()
            .chain(preflight.private_network.then(|| (private, "true".into())))
        });
        let exposed =
            (origin.is_some() && asked.is_none()).then(|| (EXPOSE, (&cors.expose).into()));
        always.into_iter().flatten().chain(asked.into_iter().flatten()).chain(exposed)
    }

    /// Changes to a response: ours replace whatever the upstream says of this, so that nothing stands twice and
    /// nobody is let in whom the document does not name.
    pub(crate) fn edits<N: AsRef<[u8]>, V>(&self, headers: &[(N, V)], edits: &mut Vec<Edit>) {
        let first = edits.len();
        edits.extend(self.headers().map(|(name, value)| Edit::Set(name.into(), value)));
        for (name, _) in headers {
            let name = name.as_ref();
            let theirs = name.get(..PREFIX.len()).is_some_and(|s| s.eq_ignore_ascii_case(PREFIX));
            let Some(name) = std::str::from_utf8(name).ok().filter(|_| theirs) else { continue };
            let known = edits.iter().skip(first).any(|edit| match edit {
                Edit::Set(ours, _) | Edit::Remove(ours) => ours.eq_ignore_ascii_case(name),
                Edit::Add(..) | Edit::UpstreamUri(_) => false,
            });
            if !known {
                edits.push(Edit::Remove(name.to_owned().into()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
