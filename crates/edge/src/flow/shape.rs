//! Where the document's own changes of requests and responses are due: after every decision, before anything of ours
//! is set on a response. Knows no document.

use gatehouse_contract::Reason;

use super::Request;
use crate::{
    config::Suite,
    matrix::Place,
    prepared::Prepared,
    reply::Refusal,
    sizes,
    step::{Edit, RequestRecord},
    transform::{Found, Known, Transforms},
    view::{RequestView, Scan},
};

impl Suite {
    /// What the document changes, if this module sees to it.
    pub(super) fn transforms(&self) -> Option<&Transforms> {
        self.transforms.as_ref().filter(|_| self.parts.shapes())
    }

    /// Refuses what is too large or unclear, and notes what later changes need of the client.
    pub(super) fn shaped(
        &self,
        request: &mut Request,
        view: &RequestView<'_>,
        found: &Scan<'_>,
    ) -> Option<Refusal> {
        if !self.parts.shapes() {
            return None;
        }
        request.record.counts_body = self.sizes.body_bytes.is_some() && sizes::has_body(found);
        if let Some(reason) = self.sizes.judge(view.pairs(), found) {
            return Some(Refusal::new(reason));
        }
        let transforms = self.transforms().filter(|transforms| !transforms.request.is_empty())?;
        match transforms.look(view.pairs(), self.host) {
            Ok(theirs) => {
                request.found = theirs;
                None
            }
            Err(unclear) => Some(Refusal::new(Reason::HeaderInvalid).detail(unclear.0)),
        }
    }

    /// Changes a request that goes on, behind all that is ours to set.
    pub(super) fn reshape(
        &self,
        record: &mut RequestRecord,
        found: Found,
        (caller, route): (Option<&Prepared>, Option<&str>),
        edits: &mut Vec<Edit>,
    ) {
        let Some(transforms) = self.transforms() else { return };
        let known = Known { record, caller, route };
        transforms.request(found, known, |name| self.gone(name), self.host, edits);
        if !transforms.query.is_empty()
            && let Some(target) = edits.iter_mut().rev().find_map(target)
        {
            let (path, query) = match target.split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (target.as_str(), None),
            };
            *target = match transforms.query(query, known) {
                Some(query) => format!("{path}?{query}"),
                None => path.to_owned(),
            };
        }
        let values = transforms.values(known);
        record.shaped = values;
    }

    /// Changes a response, ours included, before what every response carries is set.
    pub(super) fn reshape_response<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        record: &RequestRecord,
        headers: &[(N, V)],
        edits: &mut Vec<Edit>,
    ) {
        let Some(transforms) = self.transforms() else { return };
        let known = Known { record, caller: None, route: None };
        transforms.response(headers, known, edits);
    }

    /// The template of the route that a request is for.
    pub(super) fn template(&self, place: &Place) -> Option<&str> {
        let Place::Route(index) = place else { return None };
        Some(self.routes.get(*index)?.template.as_str())
    }
}

/// What the upstream is to see as its path and query.
fn target(edit: &mut Edit) -> Option<&mut String> {
    match edit {
        Edit::UpstreamUri(target) => Some(target),
        Edit::Set(name, value) if name.as_str() == ":path" => value.as_owned(),
        Edit::Set(..) | Edit::Add(..) | Edit::Remove(_) => None,
    }
}
