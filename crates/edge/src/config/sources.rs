//! Where credentials may stand in a request, and what the upstream sees of them. Knows no requests.

use gatehouse_contract::Document;

use super::{Warnings, words::Plain};

/// The kinds of credentials that are looked for beside a bearer token in `Authorization`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    /// The cookie that may hold a token.
    pub(crate) cookie: Option<String>,
    /// The query parameter that may hold a token.
    pub(crate) query: Option<String>,
    /// Whether the upstream sees the credential.
    pub(crate) forward: bool,
    /// Whether API keys are taken.
    pub(crate) api_keys: bool,
    /// Whether browser sessions are taken.
    pub(crate) sessions: bool,
}

impl Sources {
    /// Nothing is looked for, and what comes goes on as it is.
    pub(super) const fn none() -> Self {
        Self { cookie: None, query: None, forward: true, api_keys: false, sessions: true }
    }
}

/// The cookie of browser sessions (design §3.1).
pub(crate) const SESSION_COOKIE: &str = "__Host-gatehouse";

/// Where tokens may stand beside `Authorization`: `cookie`, `query`, `forward`. `None` where nothing says it.
type Placed = (Option<String>, Option<String>, bool);

fn placed(doc: &Document<'_>) -> Option<Option<Placed>> {
    doc.object_opt("sources", |doc| {
        let cookie = doc.parsed_opt::<Plain>("cookie", "a cookie's name");
        let query = doc.parsed_opt::<Plain>("query", "a parameter's name: \"access_token\"");
        let forward = doc.flag("forward", true);
        if let Some(Some(name)) = &cookie
            && name.0 == SESSION_COOKIE
        {
            let mend = "choose another name, or set \"sessions\"";
            doc.note("cookie", "this cookie is for browser sessions", mend);
        }
        Some((cookie?.map(|name| name.0), query?.map(|name| name.0), forward?))
    })
}

/// The query parameter of tokens, for a module that changes queries and takes no credential: it must know what it may
/// not touch. `None` where nothing says it, and that would be a guess.
pub(super) fn token_parameter(doc: &Document<'_>) -> Option<Option<Option<String>>> {
    Some(placed(doc)?.map(|(_, query, _)| query))
}

pub(super) fn read(doc: &Document<'_>, record: bool, warnings: &mut Warnings) -> Option<Sources> {
    let placed = placed(doc);
    let (api_keys, sessions) = (doc.flag("api_keys", record), doc.flag("sessions", false));
    for (name, asked) in [("api_keys", api_keys), ("sessions", sessions)] {
        if asked == Some(true) && !record {
            let mend = "name a sidecar, or write false";
            doc.note(name, "only the record knows them, and there is no sidecar to ask", mend);
        }
    }
    let (cookie, query, forward) = placed?.unwrap_or((None, None, true));
    if query.is_some() {
        let text = "tokens in URLs stand in histories and in the logs of whatever is before this \
                    gateway; take them in headers where clients can send them";
        warnings.add("$.sources.query", text);
        if forward {
            let text = "the upstream gets tokens that came in URLs, in Authorization; write false \
                        unless it verifies them";
            warnings.add("$.sources.forward", text);
        }
    }
    Some(Sources { cookie, query, forward, api_keys: api_keys?, sessions: sessions? })
}
