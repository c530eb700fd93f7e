//! The first steps, which every request takes: its id, its protected headers, its host, its path, and what the
//! upstream sees of its credential. Knows no callers.

use std::rc::Rc;

use gatehouse_authn::{bearer, cookie, query};
use gatehouse_contract::{Reason, header, trace};

use super::{NamedTenant, Request, versions::Undecided};
use crate::{
    authority, baggage,
    config::{Host, SESSION_COOKIE, Suite},
    credential::{self, Credential, Kind, Presented},
    matrix::Place,
    path::{self, Target},
    reply::{Challenge, Refusal},
    request_id,
    state::VmState,
    step::{Edit, RequestRecord, Step},
    transform::Found,
    version::Content,
    view::{RequestView, Scan, Single},
};

/// The query parameter that names a tenant (acceptance T8).
pub(crate) const TENANT_PARAMETER: &str = "tenant_id";

impl Suite {
    /// Refuses what is ambiguous, and notes the changes that are due whoever calls.
    pub(super) fn admit<'a>(
        &self,
        vm: &mut VmState,
        view: &RequestView<'_>,
        found: &Scan<'a>,
    ) -> Result<(Request, &'a str, Target<'a>), Box<Step>> {
        let mut request = self.identified(vm, found);
        if let Some(refusal) = self.shaped(&mut request, view, found) {
            return Err(Box::new(self.refuse(request, refusal)));
        }
        if let Some(refusal) = self.ambiguity(found) {
            return Err(Box::new(self.refuse(request, refusal)));
        }
        let (Single::One(method), Single::One(target)) = (found.method, found.path) else {
            let refusal =
                Refusal::new(Reason::PathInvalid).detail("the request has no single target");
            return Err(Box::new(self.refuse(request, refusal)));
        };
        let target = match path::normalise(target) {
            Ok(target) => target,
            Err(invalid) => {
                let refusal = Refusal::new(Reason::PathInvalid).detail(invalid.to_string());
                return Err(Box::new(self.refuse(request, refusal)));
            }
        };
        if let Some(options) = &found.connection {
            request.edits.push(match self.host {
                Host::Envoy if options.is_empty() => Edit::Remove("connection".into()),
                Host::Envoy | Host::Kong => Edit::Set("connection".into(), options.clone().into()),
            });
        }
        let traced = match found.traceparent {
            Single::Absent => true,
            Single::One(value) => trace::is_sound(value),
            Single::Many => false,
        };
        if !traced {
            request.edits.push(self.gone(header::TRACEPARENT));
            if found.has_tracestate {
                request.edits.push(self.gone("tracestate"));
            }
        }
        request.identity = found.identity.iter().map(|name| (*name).to_owned()).collect();
        if !found.baggage.is_empty() {
            request.baggage = Some(baggage::foreign_members(found.baggage.iter().copied()));
        }
        // A method that is not text matches no route either.
        let method = std::str::from_utf8(method).unwrap_or_default();
        self.note_envelope(&mut request.record, found, method, &target.path);
        Ok((request, method, target))
    }

    /// The request with its id: the client's if it is a sound one, else ours.
    fn identified(&self, vm: &mut VmState, found: &Scan<'_>) -> Request {
        let accepted = match found.request_id {
            Single::One(value) => request_id::accept(value),
            Single::Absent | Single::Many => None,
        };
        let mut edits = Vec::with_capacity(EDITS);
        let request_id: Rc<str> = match accepted {
            Some(id) => id.into(),
            None => {
                let id = vm.ids.next_id();
                edits.push(Edit::Set(header::REQUEST_ID.into(), (&id).into()));
                id
            }
        };
        let mut record = RequestRecord::new(request_id, self.versions.default_token().cloned());
        if let Some(cors) = &self.cors {
            // First of all, so that every response carries it, refusals included (ADR 0005).
            record.cors = Some(cors.grant(found.origin));
            record.vary.add(cors.vary());
        }
        record.dialect = found.dialect;
        Request {
            record,
            dialect: found.dialect,
            place: Place::Nothing,
            public: false,
            named: NamedTenant::Nobody,
            impersonation_reason: found.impersonation_reason,
            signs: None,
            edits,
            identity: Vec::new(),
            baggage: None,
            client: None,
            found: Found::default(),
            internal: false,
            content: Content::default(),
            version: None,
            undecided: Undecided::default(),
        }
    }

    /// What two readers might read in two ways is refused on every path, public ones included.
    fn ambiguity(&self, found: &Scan<'_>) -> Option<Refusal> {
        if found.authorization == Single::Many || found.api_key == Single::Many {
            let refusal = Refusal::new(Reason::CredentialMalformed);
            return Some(refusal.challenge(Challenge::InvalidRequest));
        }
        let cause = if found.identity_twice {
            "an identity header came twice"
        } else if found.request_id == Single::Many {
            "x-request-id came twice"
        } else if found.baggage.len() > 1 && self.host == Host::Kong {
            // A set leaves duplicates beside it there (lab: ngx_wasm_module).
            "baggage came twice"
        } else if found.overrides_method {
            "the method cannot be overridden by a header"
        } else if !self.has_one_host(found) {
            "the host is not valid, or there are two"
        } else {
            return None;
        };
        Some(Refusal::new(Reason::HeaderInvalid).detail(cause))
    }

    /// Notes what the upstream is to see of the credential, but for the query.
    pub(super) fn hand_over(
        &self,
        request: &mut Request,
        found: &Scan<'_>,
        presented: &Presented<'_>,
    ) -> Result<(), BadCookies> {
        let forward = self.sources.forward;
        let mut taken = None;
        if let Presented::One(credential) = presented {
            match credential.place {
                credential::Place::Authorization if !forward => {
                    request.edits.push(self.gone("authorization"));
                }
                credential::Place::ApiKey if !forward => {
                    let name = String::from_utf8_lossy(found.api_key_name).into_owned();
                    request.edits.push(self.gone(name));
                }
                credential::Place::Authorization | credential::Place::ApiKey => {}
                credential::Place::Cookie => {
                    taken = match credential.kind {
                        // The control API checks a session again, by its cookie (design §3.1).
                        Kind::Recorded(_) if forward => None,
                        Kind::Recorded(_) => Some(SESSION_COOKIE),
                        Kind::Token => self.sources.cookie.as_deref(),
                    };
                    request.edits.extend(self.moved(credential));
                }
                credential::Place::Query => {
                    request.record.no_store = true;
                    request.edits.extend(self.moved(credential));
                }
            }
        }
        // A session is for the control API alone: who stands behind a gateway that takes none could use it there.
        let foreign = !self.sources.sessions && has_session(found);
        let foreign = foreign.then_some(SESSION_COOKIE);
        if taken.is_some() || foreign.is_some() {
            request.edits.push(self.without_cookies(found, [taken, foreign])?);
        }
        Ok(())
    }

    /// The query without the credential, if that is where it stands: no log and no upstream is to see it there.
    pub(super) fn without_credential(
        &self,
        credential: &Credential<'_>,
        query: Option<&str>,
    ) -> Option<Option<String>> {
        let name = self.sources.query.as_deref()?;
        (credential.place == credential::Place::Query).then(|| query::without(query?, name))
    }

    /// A token from another place, in `Authorization` for upstreams that verify it themselves.
    fn moved(&self, credential: &Credential<'_>) -> Option<Edit> {
        if !self.sources.forward || credential.kind != Kind::Token {
            return None;
        }
        let value = [b"Bearer ", credential.text.as_ref()].concat();
        // What would not pass there does not get there: nothing else has looked at it on a public route.
        let sound = matches!(bearer::token(&value), Ok(Some(_)));
        let value = String::from_utf8(value).ok().filter(|_| sound)?;
        Some(Edit::Set("authorization".into(), value.into()))
    }

    /// Every cookie but these, each byte as it came.
    fn without_cookies(
        &self,
        found: &Scan<'_>,
        names: [Option<&str>; 2],
    ) -> Result<Edit, BadCookies> {
        if self.host == Host::Kong && found.cookies.len() > 1 {
            return Err(BadCookies("cookies came in several headers"));
        }
        let without = |header: &&[u8]| {
            let mut names = names.into_iter().flatten();
            names.try_fold(header.to_vec(), |left, name| cookie::without(&left, name))
        };
        let left: Vec<Vec<u8>> = found.cookies.iter().filter_map(without).collect();
        // RFC 9113 §8.2.3: how the pieces of HTTP/2 are put together.
        let left = String::from_utf8(left.join(b"; ".as_slice()))
            .map_err(|_bytes| BadCookies("a cookie has bytes that no cookie has"))?;
        Ok(match left.is_empty() {
            true => self.gone("cookie"),
            false => Edit::Set("cookie".into(), left.into()),
        })
    }

    /// The upstream sees this target.
    pub(super) fn forwarded_as(&self, path: &str, query: Option<&str>) -> Edit {
        let target = match query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        match self.host {
            Host::Envoy => Edit::Set(":path".into(), target.into()),
            Host::Kong => Edit::UpstreamUri(target),
        }
    }

    /// The tenant that the path names, beside the one that is named elsewhere.
    pub(super) fn named_in(&self, outside: NamedTenant, place: &Place, path: &str) -> NamedTenant {
        match place {
            Place::Route(index) => match self.routes.tenant_in(*index, path) {
                Some(segment) => outside.and(segment.as_bytes()),
                None => outside,
            },
            Place::OtherMethod { .. } | Place::Nothing => outside,
        }
    }

    /// The tenant that query and host name.
    pub(super) fn named_outside(&self, found: &Scan<'_>, query: Option<&str>) -> NamedTenant {
        let mut named = NamedTenant::Nobody;
        if let Some(query) = query {
            match query::find(query, TENANT_PARAMETER) {
                Ok(None) => {}
                Ok(Some(value)) => named = named.and(&value),
                Err(_twice) => return NamedTenant::Nonsense,
            }
        }
        if let Some(suffix) = &self.tenant_host_suffix
            && let Single::One(authority) = self.client_host(found)
            && let Ok(host) = authority::host(authority)
            && let Some(label) = host.strip_suffix(suffix.as_str())
        {
            named = named.and(label.as_bytes());
        }
        named
    }

    /// The host that the client named. On Kong `:authority` is the server's own name and port.
    fn client_host<'a>(&self, found: &Scan<'a>) -> Single<'a> {
        match (self.host, found.authority) {
            (Host::Kong, _) | (Host::Envoy, Single::Absent) => found.host,
            (Host::Envoy, Single::One(_) | Single::Many) => found.authority,
        }
    }

    /// `:authority` and `Host` name one host, in a form that has one reading (acceptance P5).
    fn has_one_host(&self, found: &Scan<'_>) -> bool {
        let one = match self.client_host(found) {
            Single::Absent => return true,
            Single::Many => return false,
            Single::One(one) => one,
        };
        let same = match found.host {
            Single::Absent => true,
            Single::Many => false,
            Single::One(other) => authority::same(one, other),
        };
        same && authority::host(one).is_ok()
    }

    /// Removed, or blanked where a removal does not reach the upstream.
    pub(super) fn gone(&self, name: impl Into<crate::step::Name>) -> Edit {
        match self.host {
            Host::Envoy => Edit::Remove(name.into()),
            Host::Kong => Edit::Set(name.into(), "".into()),
        }
    }
}

/// Whether there is a session's cookie, once or more often.
fn has_session(found: &Scan<'_>) -> bool {
    cookie::find(found.cookies.iter().copied(), SESSION_COOKIE) != Ok(None)
}

/// A cookie cannot be taken out without touching the others. The text may be shown to clients.
pub(super) struct BadCookies(pub(super) &'static str);

/// Changes of a request with a caller and nothing unusual: its id, the context, the baggage.
const EDITS: usize = 8;

impl NamedTenant {
    fn and(self, text: &[u8]) -> Self {
        let tenant = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        match (self, tenant) {
            (Self::Nobody, Some(tenant)) => Self::One(tenant),
            (Self::One(known), Some(tenant)) if known == tenant => self,
            _ => Self::Nonsense,
        }
    }
}
