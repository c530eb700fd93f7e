//! Edits of headers and of the query that the document asks for, with values from what is known of the request
//! (specification GWC-005). Compiled at configure time; a client's bytes are never read as a template.
//! Knows neither the document's form nor hosts' functions.

use std::rc::Rc;

use gatehouse_authn::query;

use crate::{
    config::Host,
    prepared::Prepared,
    step::{Edit, Name, RequestRecord},
    text::Text,
};

/// What the document changes.
#[derive(Debug, Default)]
pub(crate) struct Transforms {
    pub(crate) request: Vec<Op>,
    pub(crate) query: Vec<Op>,
    pub(crate) response: Vec<Op>,
}

/// One change of a header or a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Set(Rc<str>, Template),
    Add(Rc<str>, Template),
    Remove(Rc<str>),
    Rename { from: Rc<str>, to: Rc<str> },
}

/// A value in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(pub(crate) Vec<Piece>);

/// A piece of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Literal(Rc<str>),
    Tenant,
    Tier,
    User,
    Roles,
    RequestId,
    Version,
    Route,
}

/// What is known of a request, as far as templates ask for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) record: &'a RequestRecord,
    pub(crate) caller: Option<&'a Prepared>,
    /// The template of the route.
    pub(crate) route: Option<&'a str>,
}

/// What one request has under the names that the document changes, by the place of the change. Client's bytes.
#[derive(Debug, Default)]
pub(crate) struct Found(Vec<Vec<(Name, String)>>);

/// The values for the response, made when the request went on: by the place of the change.
pub(crate) type Values = Rc<[Option<Text>]>;

/// A request's header that the document changes has no single meaning. The text may be shown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unclear(pub(crate) &'static str);

// === impl Op ===

impl Op {
    fn name(&self) -> &str {
        match self {
            Self::Set(name, _) | Self::Add(name, _) | Self::Remove(name) => name,
            Self::Rename { from, .. } => from,
        }
    }

    fn template(&self) -> Option<&Template> {
        match self {
            Self::Set(_, template) | Self::Add(_, template) => Some(template),
            Self::Remove(_) | Self::Rename { .. } => None,
        }
    }
}

// === impl Template ===

impl Template {
    /// `None` where a piece has no value in this request.
    fn render(&self, known: Known<'_>) -> Option<Text> {
        match (self.0.as_slice(), known.caller) {
            ([Piece::Literal(text)], _) => return Some(text.into()),
            ([Piece::Tenant], Some(caller)) => return Some((&caller.tenant).into()),
            _ => {}
        }
        let mut value = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => value.push_str(text),
                Piece::RequestId => value.push_str(&known.record.request_id),
                Piece::Version => value.push_str(known.record.version.as_deref()?),
                Piece::Route => value.push_str(known.route?),
                Piece::Tenant => value.push_str(&known.caller?.tenant),
                Piece::Tier => value.push_str(known.caller?.facts.tier.as_str()),
                Piece::User => value.push_str(&known.caller?.facts.subject),
                Piece::Roles => value.push_str(&known.caller?.roles),
            }
        }
        Some(value.into())
    }

    /// Whether the value is known only once the request goes on.
    fn waits(&self) -> bool {
        self.0.iter().any(|piece| {
            matches!(piece, Piece::Tenant | Piece::Tier | Piece::User | Piece::Roles | Piece::Route)
        })
    }
}

// === impl Transforms ===

impl Transforms {
    /// Looks at a request's headers before anybody is asked about it. On Kong a change acts on one value alone, so
    /// that a second one under such a name is refused.
    pub(crate) fn look(&self, headers: &[(&[u8], &[u8])], host: Host) -> Result<Found, Unclear> {
        let mut found = Vec::with_capacity(self.request.len());
        for op in &self.request {
            let named =
                headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(op.name().as_bytes()));
            let mut values = Vec::new();
            for (name, value) in named {
                let name = String::from_utf8_lossy(name).into_owned();
                let value = match std::str::from_utf8(value) {
                    Ok(value) => value.to_owned(),
                    Err(_) if matches!(op, Op::Rename { .. }) => {
                        return Err(Unclear("a header has bytes that are no text"));
                    }
                    // It is replaced, or stays beside ours: nobody reads it here.
                    Err(_) => String::new(),
                };
                values.push((name.into(), value));
            }
            if host == Host::Kong && values.len() > 1 && !matches!(op, Op::Add(..)) {
                return Err(Unclear("a header that is changed here came twice"));
            }
            found.push(values);
        }
        Ok(Found(found))
    }

    /// The changes of the request's headers. A set whose value nobody knows takes the client's own value away: what
    /// stands under that name is ours.
    pub(crate) fn request(
        &self,
        found: Found,
        known: Known<'_>,
        gone: impl Fn(Name) -> Edit,
        host: Host,
        edits: &mut Vec<Edit>,
    ) {
        for (op, theirs) in self.request.iter().zip(found.0) {
            match op {
                Op::Set(name, template) => match template.render(known) {
                    Some(value) => edits.push(Edit::Set(name.into(), value)),
                    None => vanish(theirs, &gone, host, edits),
                },
                Op::Add(name, template) => {
                    edits.extend(template.render(known).map(|value| Edit::Add(name.into(), value)));
                }
                Op::Remove(_) => vanish(theirs, &gone, host, edits),
                Op::Rename { to, .. } => {
                    let values: Vec<String> =
                        theirs.iter().map(|(_, value)| value.clone()).collect();
                    vanish(theirs, &gone, host, edits);
                    moved(to, values, edits);
                }
            }
        }
    }

    /// The query after the changes; `None` for none.
    pub(crate) fn query(&self, before: Option<&str>, known: Known<'_>) -> Option<String> {
        let mut query = before.map(str::to_owned);
        for op in &self.query {
            match op {
                Op::Set(name, template) => {
                    query = query.and_then(|query| query::without(&query, name));
                    append(&mut query, name, template.render(known));
                }
                Op::Add(name, template) => append(&mut query, name, template.render(known)),
                Op::Remove(name) => query = query.and_then(|query| query::without(&query, name)),
                Op::Rename { from, to } => {
                    query = query.map(|query| query::renamed(&query, from, to));
                }
            }
        }
        query
    }

    /// The values for the response that are known only now; `None` where none is.
    pub(crate) fn values(&self, known: Known<'_>) -> Option<Values> {
        let waits = |op: &Op| op.template().is_some_and(Template::waits);
        if !self.response.iter().any(waits) {
            return None;
        }
        let values =
            self.response.iter().map(|op| op.template().filter(|t| t.waits())?.render(known));
        Some(values.collect())
    }

    /// The changes of the response's headers. `known` has no caller: what came of it is in `values`.
    pub(crate) fn response<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        headers: &[(N, V)],
        known: Known<'_>,
        edits: &mut Vec<Edit>,
    ) {
        let made = known.record.shaped.as_deref().unwrap_or_default();
        for (place, op) in self.response.iter().enumerate() {
            let value = |template: &Template| match template.waits() {
                true => made.get(place).cloned().flatten(),
                false => template.render(known),
            };
            match op {
                Op::Set(name, template) => edits.push(match value(template) {
                    Some(value) => Edit::Set(name.into(), value),
                    None => Edit::Remove(name.into()),
                }),
                Op::Add(name, template) => {
                    edits.extend(value(template).map(|value| Edit::Add(name.into(), value)));
                }
                Op::Remove(name) => edits.push(Edit::Remove(name.into())),
                Op::Rename { from, to } => {
                    let named = headers
                        .iter()
                        .filter(|(name, _)| name.as_ref().eq_ignore_ascii_case(from.as_bytes()));
                    let texts = named.map(|(_, value)| {
                        std::str::from_utf8(value.as_ref()).ok().map(str::to_owned)
                    });
                    // What is no text stays under its name: half a header is worse than none renamed.
                    if let Some(values) = texts.collect::<Option<Vec<_>>>()
                        && !values.is_empty()
                    {
                        edits.push(Edit::Remove(from.into()));
                        moved(to, values, edits);
                    }
                }
            }
        }
    }
}

/// Takes a client's header away, however it is spelled; nothing where it sent none.
fn vanish(
    theirs: Vec<(Name, String)>,
    gone: &impl Fn(Name) -> Edit,
    host: Host,
    edits: &mut Vec<Edit>,
) {
    // In Envoy one removal takes all of a name; on Kong there is one at most.
    debug_assert!(host == Host::Envoy || theirs.len() < 2);
    edits.extend(theirs.into_iter().next().map(|(name, _)| gone(name)));
}

/// The first value replaces what stands under the new name, the others stand beside it.
fn moved(to: &Rc<str>, values: Vec<String>, edits: &mut Vec<Edit>) {
    for (place, value) in values.into_iter().enumerate() {
        edits.push(match place {
            0 => Edit::Set(to.into(), value.into()),
            _ => Edit::Add(to.into(), value.into()),
        });
    }
}

fn append(query: &mut Option<String>, name: &str, value: Option<Text>) {
    let Some(value) = value else { return };
    let mut text = match query.take() {
        Some(query) => query + "&",
        None => String::new(),
    };
    text.push_str(name);
    text.push('=');
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    *query = Some(text);
}

#[cfg(test)]
mod tests;
