//! What the upstream sees of the caller, and what the client sees on every response.
//! Knows no decisions: whoever gets here may pass.

use std::{rc::Rc, time::Duration};

use gatehouse_contract::{Reason, header};

use super::{Request, caller::Caller};
use crate::{
    baggage,
    config::{Suite, UpstreamHeaders},
    limits::Standing,
    prepared::NoKey,
    reply::Refusal,
    step::{Edit, RATE_HEADERS, RequestRecord, Step},
    view::protected_names,
};

impl Suite {
    /// Lets a request go on, with its caller's context or, where nobody is known, with none.
    pub(super) fn forward(&self, request: Request, caller: Option<&Caller>, now: Duration) -> Step {
        if !self.parts.authenticates() {
            // Whoever judged the caller has told the upstream, or will.
            let caller = caller.map(|caller| caller.prepared.as_ref());
            let route = self.template(&request.place);
            let Request { mut record, mut edits, found, .. } = request;
            self.reshape(&mut record, found, (caller, route), &mut edits);
            return Step::Continue { edits, record };
        }
        let prepared = caller.map(|caller| caller.prepared.as_ref());
        let context = match (prepared, request.signs) {
            (Some(prepared), Some(place)) => match self.signed(prepared, place, now) {
                Ok(context) => Some(context),
                Err(NoKey) => {
                    return self.refuse(request, Refusal::new(Reason::IdentityUnavailable));
                }
            },
            _ => None,
        };
        let route = self.template(&request.place);
        let Request { mut record, mut edits, identity, baggage, found, .. } = request;
        let headers = prepared.map_or(&[][..], |prepared| &prepared.headers);
        for name in identity {
            // A set replaces every value of the name; only what is not set must go by itself.
            let set = headers.iter().any(|(ours, _)| *ours == name)
                || (context.is_some() && name == header::CONTEXT);
            if !set {
                edits.push(self.gone(name));
            }
        }
        match (prepared, baggage) {
            (Some(prepared), None) => {
                edits.push(Edit::Set(header::BAGGAGE.into(), (&prepared.baggage).into()));
            }
            (Some(prepared), Some(foreign)) => {
                let members = baggage::with_tenant(&foreign, &prepared.tenant);
                edits.push(Edit::Set(header::BAGGAGE.into(), members.into()));
            }
            (None, Some(foreign)) if foreign.is_empty() => edits.push(self.gone(header::BAGGAGE)),
            (None, Some(foreign)) => edits.push(Edit::Set(header::BAGGAGE.into(), foreign.into())),
            (None, None) => {}
        }
        for (name, value) in headers {
            edits.push(Edit::Set((*name).into(), value.into()));
        }
        if let Some(context) = context {
            edits.push(Edit::Set(header::CONTEXT.into(), context.into()));
        }
        self.reshape(&mut record, found, (prepared, route), &mut edits);
        record.handover = prepared.and_then(|prepared| prepared.handover.as_ref().map(Rc::clone));
        Step::Continue { edits, record }
    }

    /// Changes to a response, local ones included: sets replace, so that running twice doubles nothing. `headers`
    /// are the response's.
    pub fn on_response<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        record: &RequestRecord,
        headers: &[(N, V)],
    ) -> Vec<Edit> {
        let mut edits: Vec<Edit> = Vec::with_capacity(RESPONSE_EDITS);
        self.reshape_response(record, headers, &mut edits);
        edits.extend(record.headers().map(|(name, value)| Edit::Set(name.into(), value)));
        if let Some(notice) = record.notice.as_ref().filter(|_| self.parts.versions()) {
            notice.edits(headers, &mut edits);
        }
        if let Some(standing) = record.limit.as_ref().filter(|_| self.parts.limits()) {
            self.show(record, standing, headers, &mut edits);
        }
        if let Some(name) = &self.limiter.cost_header
            && headers
                .iter()
                .any(|(theirs, _)| theirs.as_ref().eq_ignore_ascii_case(name.as_bytes()))
        {
            // What a request cost is between the upstream and this gateway.
            edits.push(Edit::Remove(name.clone().into()));
        }
        if let Some(grant) = record.cors.as_ref().filter(|_| self.parts.shares()) {
            grant.edits(headers, &mut edits);
        }
        edits.extend(record.vary.edit(headers));
        let status = headers.iter().find(|(name, _)| name.as_ref() == b":status");
        let refused =
            status.is_some_and(|(_, status)| matches!(status.as_ref(), b"401" | b"403" | b"429"));
        if refused || record.no_store {
            edits.push(Edit::Set("cache-control".into(), "no-store".into()));
        }
        // What the upstream was told of the caller is not for the client (acceptance T5).
        for name in protected_names(headers) {
            edits.push(Edit::Remove(name.to_owned().into()));
        }
        edits
    }

    /// The standing of the limits, beside or instead of what the upstream says of its own (acceptance R13). Never both
    /// of one name.
    fn show<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        record: &RequestRecord,
        standing: &Standing,
        headers: &[(N, V)],
        edits: &mut Vec<Edit>,
    ) {
        let values = |wanted: &'static str| {
            headers.iter().filter_map(move |(name, value)| {
                name.as_ref().eq_ignore_ascii_case(wanted.as_bytes()).then_some(value.as_ref())
            })
        };
        let theirs_stay = match self.limiter.upstream_headers {
            UpstreamHeaders::Override => false,
            UpstreamHeaders::Keep => RATE_HEADERS.iter().any(|name| values(name).next().is_some()),
            UpstreamHeaders::Lowest => {
                let left = values(header::RATE_REMAINING).filter_map(|value| {
                    std::str::from_utf8(value).ok()?.trim().parse::<u32>().ok()
                });
                left.min().is_some_and(|left| left < standing.remaining)
            }
        };
        if !theirs_stay {
            let ours = record.rate_headers();
            edits.extend(ours.map(|(name, value)| Edit::Set(name.into(), value)));
            return;
        }
        for name in RATE_HEADERS {
            let mut theirs = values(name);
            if let (Some(first), Some(_second)) = (theirs.next(), theirs.next()) {
                let first = String::from_utf8_lossy(first).into_owned();
                edits.push(Edit::Set(name.into(), first.into()));
            }
        }
    }
}

/// Changes of a response with limits and nothing unusual.
const RESPONSE_EDITS: usize = 8;
